"""Text files: in which encoding, where their lines end, and JSON."""

import codecs
import json
import re
from collections import Counter
from pathlib import Path

from notbugs.data.names import printable
from notbugs.errors import InputError

MOST_BYTES = 2**28  # what has more is no list that could be held in memory anyway


def text_of(path: Path) -> tuple[str, bool]:
    """The text of a file in UTF-8, or UTF-16 with its mark, and whether Latin-1 was assumed because it is neither."""
    if path.exists() and (not path.is_file() or path.stat().st_size > MOST_BYTES):  # a pipe would wait for ever
        raise InputError(printable(str(path)), f"must be a file of text, of at most {MOST_BYTES:,} bytes", remedy="name another")
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


def json_of(text: str | bytes) -> object:
    """The value of JSON. Raises ValueError for other text, and where a name stands twice in an object: one would be lost.

    Examples
    --------
    >>> json_of('{"cat": 0, "dog": 1}')
    {'cat': 0, 'dog': 1}
    >>> json_of('{"0": "cat", "0": "dog"}')
    Traceback (most recent call last):
    ValueError: the name 0 stands twice in an object
    """
    value: object = json.loads(text, object_pairs_hook=_without_repeats)
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {name} stands twice in an object")
    return found
