"""Headings of a page: an anchor for each, and the list of its sections."""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markupsafe import Markup

HEADING = re.compile(r"<h([23])([^>]*)>(.*?)</h\1>", re.DOTALL)
ID = re.compile(r'\sid="([^"]*)"')


class Section(NamedTuple):
    """A section of a page: the id and the text of its h2."""

    id: str
    title: str


def linked_headings(page: str) -> "Markup":
    """Each h2 and h3 of a page with an id, and as a link to itself.

    Parameters
    ----------
    page : str
        HTML, in which text is escaped already.

    Examples
    --------
    >>> str(linked_headings("<h3>Label leakage</h3>"))
    '<h3 id="label-leakage"><a class="anchor" href="#label-leakage">Label leakage</a></h3>'
    """
    from markupsafe import Markup

    taken = set(ID.findall(page))

    def link(match: re.Match[str]) -> str:
        level, attributes, title = match.groups()
        if "<a " in title:
            return match[0]
        known = ID.search(attributes)
        anchor = known[1] if known else _unused(title, taken)
        attributes += "" if known else f' id="{anchor}"'
        return f'<h{level}{attributes}><a class="anchor" href="#{anchor}">{title}</a></h{level}>'

    return Markup(HEADING.sub(link, page))


def sections(page: str) -> list[Section]:
    """The h2 of a page, in their order.

    Examples
    --------
    >>> sections('<h2 id="a">Müller &amp; <b>Co</b></h2>')
    [Section(id='a', title='Müller & Co')]
    """
    from markupsafe import Markup

    found = ((ID.search(attributes), title) for level, attributes, title in HEADING.findall(page) if level == "2")
    return [Section(known[1], Markup(title).striptags()) for known, title in found if known]


def _unused(title: str, taken: set[str]) -> str:
    """An id that a title suggests and that no other element has."""
    from markupsafe import Markup

    words = "-".join(re.findall(r"[a-z0-9]+", Markup(title).striptags().lower()))[:60] or "section"
    number, anchor = 1, words
    while anchor in taken:
        number += 1
        anchor = f"{words}-{number}"
    taken.add(anchor)
    return anchor
