"""CIFAR's binary files: data_batch_1.bin … test_batch.bin, or train.bin and test.bin. Its pickles are refused."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from notbugs.data.names import printable
from notbugs.data.pixel_arrays import StoredArray, read_pieces
from notbugs.data.sources.arrays import LazyArrays, locate_arrays, reading, whole
from notbugs.data.sources.base import Located
from notbugs.data.sources.limits import words_array
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import COARSE_LABEL, FINE_LABEL
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

PIXELS = 3 * 32 * 32
BATCH = re.compile(r"(data_batch_[1-9]|test_batch)\.bin")
NAMES = {"": "batches.meta.txt", "coarse": "coarse_label_names.txt", "fine": "fine_label_names.txt"}
PICKLES = ({"data_batch_1", "test_batch"}, {"batches.meta"}, {"train", "test", "meta"})
PICKLED = "is CIFAR as Python pickles, which can run any code when they are read"
INSTEAD = (
    "take the binary version (cifar-10-binary.tar.gz), or the data set CIFAR10, or convert it as the page Data sets of the "
    "documentation shows"
)


def reject_pickles(source: Path, names: Collection[str]) -> None:
    """Raises InputError where the names of files are those of CIFAR's Python version."""
    if found := next((wanted for wanted in PICKLES if wanted <= set(names)), None):
        raise InputError(printable(str(source)), PICKLED, listed(sorted(found)), INSTEAD)


def cifar_files(paths: Sequence[Path]) -> list[Path]:
    """The files among others that belong to CIFAR's binary version, none if it is not there."""
    names = {path.name for path in paths}
    hundred = NAMES["fine"] in names and bool({"train.bin", "test.bin"} & names)
    wanted = {"train.bin", "test.bin", NAMES["fine"], NAMES["coarse"]} if hundred else {NAMES[""]}
    found = [path for path in paths if path.name in wanted or (not hundred and BATCH.fullmatch(path.name))]
    return found if any(path.suffix == ".bin" for path in found) else []


def locate_cifar(source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The images of CIFAR's binary files. CIFAR-100 has two labels: the fine one, unless --label-column is coarse_label.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    by_name = {path.name: path for path in paths}
    hundred = NAMES["fine"] in by_name
    if config.label_column not in (None, FINE_LABEL, COARSE_LABEL) or (config.label_column and not hundred):
        rule = "must be fine_label or coarse_label, with CIFAR-100"
        raise InputError("--label-column", rule, printable(config.label_column), "leave it out")
    label = "" if not hundred else "coarse" if config.label_column == COARSE_LABEL else "fine"
    found, classes = dict[str, StoredArray](), dict[str, np.ndarray]()
    for part in ("train", "test"):
        files = sorted(path for path in paths if path.suffix == ".bin" and ("test" in path.name) == (part == "test"))
        if files:
            records = _records(files, 2 if hundred else 1)
            found[f"{part}_images"] = _of_records(records, (3, 32, 32), lambda piece: piece[:, -PIXELS:].reshape(-1, 3, 32, 32))
            found[f"{part}_labels"] = _of_records(records, (), lambda piece: piece[:, 1 if label == "fine" else 0])
    if NAMES[label] in by_name:
        classes["classes"] = _class_names(by_name[NAMES[label]])
    batches = sum(path.name.startswith("data_batch") for path in paths)
    notes = [f"{batches} of CIFAR-10's 5 training files are there"] if batches not in (0, 5) else []
    notes += ["labels are the fine ones of CIFAR-100 (others: --label-column coarse_label)"] if label == "fine" else []
    arrays = LazyArrays((*found, *classes), lambda name: whole(found[name]), found.__getitem__, classes)
    return locate_arrays(source, arrays, config, notes=notes)


def _records(paths: Sequence[Path], labels: int) -> StoredArray:
    """One row of bytes for each image: its labels, then its pixels."""
    length, counts, kind = labels + PIXELS, dict[Path, int](), np.dtype(np.uint8)
    for path in paths:
        size = path.stat().st_size
        if not size or size % length:
            rule = f"must consist of records of {length:,} bytes"
            raise InputError(printable(str(path)), rule, f"{size:,} bytes", "download it again")
        counts[path] = size // length

    def pieces() -> Iterator[np.ndarray]:
        for path, count in counts.items():
            with reading(path, "a file of CIFAR", "download it again"):
                yield from read_pieces(lambda path=path: path.open("rb"), (count, length), kind)  # type: ignore[misc]

    return StoredArray((sum(counts.values()), length), kind, pieces)


def _of_records(records: StoredArray, shape: tuple[int, ...], taken: Callable[[np.ndarray], np.ndarray]) -> StoredArray:
    """What is taken of each record, of a shape."""
    return StoredArray((len(records), *shape), records.dtype, lambda: map(taken, records.pieces()))


def _class_names(path: Path) -> np.ndarray:
    with reading(path, "a list of class names", "download it again"), path.open("rb") as stream:
        return words_array(path, [line.strip() for line in stream.read(2**16).decode().splitlines() if line.strip()])
