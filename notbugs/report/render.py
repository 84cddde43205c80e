"""From a template and its context to one self-contained HTML file, with its charts and pictures."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from notbugs.atomic import atomic_write_text
from notbugs.report.format import duration, percent, plain

if TYPE_CHECKING:
    from altair import TopLevelMixin
    from markupsafe import Markup

Context = dict[str, object]
Charts = dict[str, dict[str, object]]  # Vega-Lite specifications by the id of their element
# Named, or the widths of labels are measured wrongly
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif"
FIGURE = re.compile(r"([+−]?\d+(?:\.\d+)?) (%(?! CI)|percentage points)")
FURTHER_SEED = re.compile(r"-seed\d+(\.|$)")  # in names of files


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
    import vl_convert
    from markupsafe import Markup

    vega = Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")) if charts else ""
    target = folder / "report.html"
    atomic_write_text(target, fill(template, {**context, "charts": charts, "vega": vega}))
    return target


def fill(template: str, context: Mapping[str, object]) -> str:
    """The text of a template. Text in the context stays text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("notbugs.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "percent": percent, "plain": plain, "duration": duration}
    return environment.get_template(template).render(context)


def _prose(text: str) -> "Markup":
    """Sentences, each figure in bold and on one line with its unit."""
    from markupsafe import Markup, escape

    return Markup(FIGURE.sub("<b>\\1\u00a0\\2</b>", str(escape(text))))


def inline(folder: Path, name: str) -> str:
    """A PNG of the run folder as a data URL; "" for anything else, so that a table cannot name files outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(b"\x89PNG") else ""


def chart_spec(chart: "TopLevelMixin") -> dict[str, object]:
    """The specification of an Altair chart. Text has the page's color, so that it is legible in light and in dark."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
    text |= {"titleFontWeight": "normal", "labelFont": FONT, "titleFont": FONT}
    grid = {"gridColor": "currentColor", "gridOpacity": 0.15, "domainColor": "currentColor", "domainOpacity": 0.4, "ticks": False}
    axis = {**text, **grid, "labelPadding": 6}
    chart = chart.configure(background="transparent", view={"stroke": None}, axis=axis, legend=text)
    specification: dict[str, object] = chart.to_dict()
    return specification


def model_color(model: str) -> str:
    """The color of a model in charts: page.html.jinja defines those of the main models."""
    return f"var(--{model}, var(--other))"


def stored_files(folder: Path, kinds: tuple[str, ...] = ("datasets", "models", "tables")) -> dict[str, list[str]]:
    """What is in the folders of a run, without models' .json files and without those of further seeds."""
    return {kind: _listed(folder / kind) for kind in kinds}


def _listed(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []
    return [name for name in names if not name.endswith(".json") and not FURTHER_SEED.search(name)]
