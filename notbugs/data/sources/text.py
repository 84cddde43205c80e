"""Text files: in which encoding, and where their lines end."""

import codecs
import re
from pathlib import Path


def text_of(path: Path) -> tuple[str, bool]:
    """The text of a file in UTF-8, or UTF-16 with its mark, and whether Latin-1 was assumed because it is neither."""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16"), False
    try:
        return raw.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return raw.decode("latin-1"), True


def lines_of(text: str) -> list[str]:
    """The lines that are not blank. Only line feeds and carriage returns end one: a JSON string may hold U+2028, a cell U+0085.

    Examples
    --------
    >>> lines_of("a\\r\\n\\nb\u2028c")
    ['a', 'b\\u2028c']
    """
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]
