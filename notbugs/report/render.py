"""What the pages of studies and audits share: one self-contained file, its charts and its pictures. Needs no torch."""

import base64
import re
from pathlib import Path
from typing import Any

from notbugs.runs.folder import write_atomic


def write_page(folder: Path, template: str, content: dict[str, Any]) -> Path:
    """Fill a template into report.html of a run folder; returns its path. content needs `title`, `facts` and `charts`, by id."""
    import vl_convert
    from markupsafe import Markup

    vega = Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")) if content["charts"] else ""
    target = folder / "report.html"
    write_atomic(target, fill(template, {**content, "vega": vega}))
    return target


def fill(template: str, content: dict[str, Any]) -> str:
    """A template's text with what it names; text in content stays text."""
    import jinja2
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        """Keep each figure on one line with its unit, and set it apart."""
        return Markup(re.sub(r"(−?\d+(?:\.\d+)?) (%(?! interval)|points)", "<b>\\1\u00a0\\2</b>", str(escape(text))))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("notbugs.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "percent": percent, "plain": plain, "duration": duration}
    return environment.get_template(template).render(content)


def percent(share: float) -> str:
    """0.9731 -> "97.3 %"."""
    return f"{100 * share:.1f} %"


def inline(folder: Path, name: str) -> str:
    """A PNG of the run folder as a data address; "" for anything else, so that a table cannot name files outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(b"\x89PNG") else ""


def chart_spec(chart: Any) -> dict[str, Any]:
    """The chart's specification; text takes the page's colour, so that it is right in light and dark."""
    font = (
        "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif"  # named, or labels are measured wrongly
    )
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
    text |= {"titleFontWeight": "normal", "labelFont": font, "titleFont": font}
    lines = {
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "domainColor": "currentColor",
        "domainOpacity": 0.4,
        "ticks": False,
    }
    chart = chart.configure(background="transparent")
    chart = chart.configure_view(stroke=None).configure_axis(**text, **lines, labelPadding=6).configure_legend(**text)
    specification: dict[str, Any] = chart.to_dict()
    return specification


def plain(value: object) -> str:
    """A number with three digits, an empty cell as a dash, a list with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "–" if value in ("", None) else str(value)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(folder: Path) -> list[str]:
    """What lies there, without what stands beside it: a model's .json, and the same of further seeds."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []
    return [name for name in names if not name.endswith(".json") and not re.search(r"-seed\d+(\.|$)", name)]
