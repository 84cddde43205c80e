"""Files that say how many there are of them, train-00000-of-00002.parquet, and are not all there."""

import re
from collections.abc import Iterable

from notbugs.data.names import printable
from notbugs.data.sources.splits import listed

# 7 of name-7, 00000-of-00002 of the hub, which may be followed by a hash
LAST_NUMBER = re.compile(r"[-_.]?\d+([-_.]of[-_.]\d+([-_.][0-9a-f]+)?)?$", re.IGNORECASE)
NUMBERED = re.compile(r"(.*?)[-_.]?(\d+)-of-(\d+)(?:-[0-9a-f]+)?\D*", re.IGNORECASE)


def missing_files(names: Iterable[str]) -> list[str]:
    """A note for each kind of file of which some are missing.

    Examples
    --------
    >>> missing_files(["train-00000-of-00002.parquet", "test-00000-of-00001.parquet", "a.parquet"])
    ['1 of 2 files of train are there']
    >>> missing_files(["train-00000-of-00002-9f86d081884c7d65.parquet"])
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


def without_number(stem: str) -> str:
    """A file's name without its ending and without the number at its end, which counts the files of one kind.

    Examples
    --------
    >>> without_number("train-00000-of-00002"), without_number("cifar10_train"), without_number("2024_val_3")
    ('train', 'cifar10_train', '2024_val')
    """
    return LAST_NUMBER.sub("", stem)


def joined_note(part: str, stems: Iterable[str]) -> list[str]:
    """A note where files that are read as one part differ in more than their numbers: they may be several data sets.

    Examples
    --------
    >>> joined_note("train", ["clean", "noisy"]), joined_note("train", ["a-0", "a-1"])
    (['files of several names are read as one part, train: clean, noisy'], [])
    """
    names = sorted({without_number(stem) for stem in stems})
    said = f"files of several names are read as one part, {printable(part)}: {listed(names)}"
    return [said] if len(names) > 1 else []
