"""From a template and its context to one self-contained HTML file, with its charts and pictures."""

import base64
import gzip
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from notbugs.atomic import atomic_write_text
from notbugs.errors import InputError, NotbugsWarning, printable
from notbugs.report import links, sections
from notbugs.report.format import duration, percent, plain
from notbugs.report.picture_budget import reduce_to_page

if TYPE_CHECKING:
    from altair import TopLevelMixin
    from jinja2 import Environment
    from markupsafe import Markup

Context = dict[str, object]
Charts = dict[str, dict[str, object]]  # Vega-Lite specifications by the id of their element
# Named, or the widths of labels are measured wrongly
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif"
PNG_END = b"IEND\xaeB`\x82"  # of every whole file
_left_out: ContextVar[dict[str, None] | None] = ContextVar("_left_out", default=None)  # pictures that a page could not show
ADDRESSES = 96 * 2**30  # with 40 GB V8, which the chart library holds, ends the process; 100 GB suffice
VEGA_ALONE = ("1.9.",)  # releases of vl-convert from which Vega can be taken alone; others would panic
DRAW_BY_VEGA = """window.drawVega = async (chart, element, tooltip) => {
  const view = new View(parse(chart), { renderer: "svg", container: element }).tooltip(tooltip);
  return view.runAsync();
};"""
DRAW_BY_EMBED = """window.drawVega = async (chart, element, tooltip) =>
  (await vegaEmbed(element, chart, { mode: "vega", renderer: "svg", actions: false, tooltip })).view;"""
PICTURES_SAID = "⟦pictures⟧"  # of about.html.jinja: known only once the page is filled
FIGURE = re.compile(r"([+−]?\d+(?:\.\d+)?) (%(?! CI)|percentage points)")


def write_page(folder: Path, template: str, context: Mapping[str, object], charts: Charts) -> Path:
    """Fill a template into report.html of a run folder.

    Parameters
    ----------
    folder : Path
    template : str
        A file in report/templates.
    context : mapping
        All that the template names, but the charts.
    charts : dict
        By the id of their element; the page holds the library that draws them only if there are any.

    Returns
    -------
    Path
    """
    target = folder / "report.html"
    found = reduce_to_page(fill(template, {**context, "charts": charts, "packed": packed_charts(charts)}))
    said = (
        f"reduced for this page: {found.how}; the files in pictures/ are lossless" if found.how else "as in pictures/, lossless"
    )
    atomic_write_text(target, found.page.replace(PICTURES_SAID, said))
    return target


def packed_charts(charts: Charts) -> dict[str, str]:
    """Vega and the charts as it takes them, compressed; empty without charts.

    The charts are compiled here, so that the page needs Vega alone, without Vega-Lite and vega-embed. Compressed and in base64
    it takes 271 KB instead of the 898 KB of all three. The page unpacks both.
    """
    if not charts:
        return {}
    _check_addresses()
    import vl_convert

    compiled = {name: vl_convert.vegalite_to_vega(chart) for name, chart in charts.items()}
    alone = version("vl-convert-python").startswith(VEGA_ALONE)
    return {"vega": _packed_vega(alone), "charts": _packed(json.dumps(compiled))}


def _check_addresses() -> None:
    """Raises InputError where the process may not have as many addresses as the chart library takes: it would end the process."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESSES:
        rule = f"must allow {ADDRESSES >> 30} GB of addresses for the charts of a report, of which most are never used"
        raise InputError("ulimit -v", rule, f"{limit >> 30} GB", "take the limit away and repeat: notbugs report RUN")


@cache
def _packed_vega(alone: bool) -> str:
    """The code of Vega, with `drawVega(chart, element, tooltip)`, which promises a view. Bundling it takes two seconds."""
    import vl_convert

    if not alone:
        return _packed(str(vl_convert.javascript_bundle(DRAW_BY_EMBED)))  # as its documentation has it, which is larger
    place = f"/npm/vega@{vl_convert.get_vega_version()}/+esm.js"
    return _packed(str(vl_convert.javascript_bundle(f'import {{View, parse}} from "{place}";\n{DRAW_BY_VEGA}')))


def _packed(text: str) -> str:
    """Text as gzip in base64, the same at each time."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def fill(template: str, context: Mapping[str, object]) -> str:
    """The text of a template. Text in the context stays text."""
    return str(_environment().get_template(template).render(context))


@cache
def _environment() -> "Environment":
    """The templates, each compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("notbugs.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "percent": percent, "plain": plain, "duration": duration}
    environment.filters |= {"linked_headings": sections.linked_headings, "sections": sections.sections, "href": links.href}
    return environment


def _prose(text: str) -> "Markup":
    """Sentences, each figure in bold and on one line with its unit."""
    from markupsafe import Markup, escape

    return Markup(FIGURE.sub("<b>\\1\u00a0\\2</b>", str(escape(text))))


def inline(folder: Path, name: str) -> str:
    """A PNG of the run folder as a data URL; "" for anything else, so that a table cannot name files outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix != ".png":
        return ""
    content = path.read_bytes() if path.is_file() else b""
    if not (content.startswith(b"\x89PNG") and content.endswith(PNG_END)):
        if (left_out := _left_out.get()) is not None:
            left_out[name] = None
        return ""
    return "data:image/png;base64," + base64.b64encode(content).decode()


@contextmanager
def saying_left_out(folder: Path) -> Iterator[None]:
    """Warns once of all pictures that `inline` cannot show meanwhile."""
    left_out: dict[str, None] = {}
    token = _left_out.set(left_out)
    try:
        yield
    finally:
        _left_out.reset(token)
    if left_out:
        first, more = printable(next(iter(left_out))), f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        text = f"{folder}: missing or damaged, and left out of the report: {first}{more}; put back what was in pictures/"
        warnings.warn(text, NotbugsWarning, stacklevel=2)


def chart_spec(chart: "TopLevelMixin", **rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The specification of an Altair chart. Text has the page's color, so that it is legible in light and in dark.

    Parameters
    ----------
    chart : altair chart
    **rows
        The data that the chart names with `alt.NamedData`. Altair copies data within a chart many times: seconds for thousands.
    """
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
    text |= {"titleFontWeight": "normal", "labelFont": FONT, "titleFont": FONT}
    grid = {"gridColor": "currentColor", "gridOpacity": 0.15, "domainColor": "currentColor", "domainOpacity": 0.4, "ticks": False}
    axis = {**text, **grid, "labelPadding": 6}
    chart = chart.configure(background="transparent", view={"stroke": None}, axis=axis, legend=text)
    specification: dict[str, object] = chart.to_dict()
    inline = cast(Mapping[str, object], specification.get("datasets", {}))
    return {**specification, "datasets": {**inline, **rows}}


def model_color(model: str) -> str:
    """The color of a model in charts: page.html.jinja defines those of the main models."""
    return f"var(--{model}, var(--other))"
