"""Names in Markdown: they stay text, whatever they hold."""

import re

from notbugs.errors import printable

MARKUP = re.compile(r"[\\`*_\[\]<>&$|~#!]")


def code(text: str) -> str:
    """Text as a code span, whose fence is longer than any in the text.

    Examples
    --------
    >>> code("cats"), code("a`b"), code("`")
    ('`cats`', '``a`b``', '`` ` ``')
    """
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return fence + space + text + space + fence


def plain(text: str) -> str:
    r"""Text in which nothing is markup.

    Examples
    --------
    >>> print(plain("<b> of a_b"))
    \<b\> of a\_b
    """
    return MARKUP.sub(r"\\\g<0>", printable(text))
