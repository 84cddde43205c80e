"""How much a file may hold: what it claims is compared with its size before anything is believed."""

from pathlib import Path
from typing import BinaryIO

from notbugs.errors import InputError

FREE = 2**30  # bytes that any file may expand to
CHUNK = 2**20  # bytes read at a time
MOST_RATIO = 100  # photographs and digits need 1 to 10; zeros alone reach 1,000


def most_bytes(stored: int) -> int:
    """The most that a file of `stored` bytes may expand to.

    Examples
    --------
    >>> most_bytes(1000) == 2**30, most_bytes(2**30) == 100 * 2**30
    (True, True)
    """
    return max(FREE, MOST_RATIO * stored)


def check_expansion(source: Path, size: int) -> None:
    """Raises InputError where a file claims to hold, or holds, over 1 GB that is more than 100 times its own size."""
    stored = source.stat().st_size
    if size > most_bytes(stored):
        rule = f"must not expand to more than {MOST_RATIO} times its size"
        raise InputError(str(source), rule, f"{size:,} bytes from {stored:,}", "if you trust it, unpack it and pass the folder")


def read_at_most(stream: BinaryIO, most: int) -> bytearray:
    """The next bytes of a stream, at most so many. A plain `read(most)` sets the memory for all of them aside at once.

    Examples
    --------
    >>> import io
    >>> read_at_most(io.BytesIO(b"abc"), 2), read_at_most(io.BytesIO(b"abc"), 10**12)
    (bytearray(b'ab'), bytearray(b'abc'))
    """
    content = bytearray()
    while len(content) < most and (more := stream.read(min(CHUNK, most - len(content)))):
        content += more
    return content
