"""Tables and pictures inline in a notebook: what `_repr_html_` of results returns. Imports no torch."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

SIDE = 64  # pixels at which a picture is shown
STYLE = "border:1px solid #ccc;padding:2px 8px;text-align:left"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table; all text is escaped.

    Examples
    --------
    >>> "&lt;cat&gt;" in table(["class"], [["<cat>"]])
    True
    """
    head = "".join(f'<th style="{STYLE}">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f'<td style="{STYLE}">{escape(_text(cell))}</td>' for cell in row) + "</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table style="border-collapse:collapse">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _text(cell: object) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def pictures(found: Iterable[tuple[bytes, str]], side: int | None = SIDE) -> str:
    """PNG files side by side, each with a caption. side: None: as large as they are."""
    size = f"width:{side}px;height:{side}px;image-rendering:pixelated" if side else "max-width:100%"
    figures = [
        f'<figure style="display:inline-block;margin:4px;text-align:center"><img style="{size}" alt="{escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}"><figcaption>{escape(caption)}</figcaption></figure>'
        for content, caption in found
    ]
    return f"<div>{''.join(figures)}</div>"


def percent(share: float) -> str:
    """A share in percent, with one decimal.

    Examples
    --------
    >>> percent(0.421)
    '42.1 %'
    """
    return f"{100 * share:.1f} %"
