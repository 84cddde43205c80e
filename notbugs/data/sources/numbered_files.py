"""Files that say how many there are of them, train-00000-of-00002.parquet, and are not all there."""

import re
from collections.abc import Iterable

from notbugs.data.names import printable

NUMBERED = re.compile(r"(.*?)[-_.]?(\d+)-of-(\d+)\D*", re.IGNORECASE)


def missing_files(names: Iterable[str]) -> list[str]:
    """A note for each kind of file of which some are missing.

    Examples
    --------
    >>> missing_files(["train-00000-of-00002.parquet", "test-00000-of-00001.parquet", "a.parquet"])
    ['1 of 2 files of train are there']
    """
    found: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            found.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    return [
        f"{len(there):,} of {total:,} files of {printable(name)} are there"
        for (name, total), there in found.items()
        if len(there) < total
    ]
