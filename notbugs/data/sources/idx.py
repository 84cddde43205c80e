"""MNIST's files: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…, also as .gz; EMNIST, Fashion-MNIST, KMNIST."""

import gzip
import math
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from notbugs.data.names import Unreadable, printable
from notbugs.data.pixel_arrays import StoredArray, read_pieces
from notbugs.data.sources.array_names import Key
from notbugs.data.sources.arrays import LazyArrays, locate_arrays, reading
from notbugs.data.sources.base import Located
from notbugs.data.sources.forms import reject_options
from notbugs.data.sources.limits import check_expansion
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import IDX_SPLITS
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

NAME = re.compile(rf"(.*?)({'|'.join(IDX_SPLITS)})[-_.](images|labels)[-_.]idx[134][-_.]ubyte(\.gz)?", re.IGNORECASE)
BYTES = 8  # the code of unsigned bytes
REMEDY = "download it again"


def is_idx(name: str) -> bool:
    """Whether a file is called like one of MNIST's.

    Examples
    --------
    >>> is_idx("t10k-labels-idx1-ubyte.gz"), is_idx("emnist-letters-train-images-idx3-ubyte"), is_idx("train.csv")
    (True, True, False)
    """
    return NAME.fullmatch(name) is not None


def locate_idx(source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The images of MNIST's files. Raises InputError."""
    reject_options(config, ("label_column",), "is for tables")
    matches = {path: match for path in paths if (match := NAME.fullmatch(path.name))}
    sets = sorted({match[1] for match in matches.values()})
    if len(sets) > 1:
        remedy = "name one file of the set as DATASET: the others are found by its name"
        raise InputError(printable(str(source)), "holds several data sets", listed([name.rstrip("-_.") for name in sets]), remedy)
    packed = {path for path, match in matches.items() if match[4] and path.with_suffix("") in matches}
    files = {path.name: path for path in sorted(matches) if path not in packed}
    if twice := [path for path in sorted(matches) if path not in packed and files[path.name] != path]:
        got = listed([path.relative_to(source).as_posix() for path in (twice[0], files[twice[0].name])])
        raise InputError(printable(str(source)), "holds several data sets", got, "name the folder of one of them as DATASET")
    keys = {}
    for name in files:
        _, part, kind, _ = NAME.fullmatch(name).groups()  # type: ignore[union-attr]  # files are those that match
        keys[name] = Key("test" if part.lower() == "t10k" else part.lower(), kind.lower())
    transposed = (
        ["EMNIST stores its images transposed: they are read as they are"] if sets[0].lower().startswith("emnist") else []
    )
    _check_pairs(source, sets[0], keys.values())
    arrays = LazyArrays.of(lambda name: read_idx(files[name], keys[name].kind), tuple(files))
    located = locate_arrays(source, arrays, config, keys=keys, notes=transposed)
    unused = tuple(Unreadable(path.name, "is read from the file that is not packed") for path in sorted(packed))
    return located._replace(left_out=(*located.left_out, *unused))


def _check_pairs(source: Path, begin: str, keys: Collection[Key]) -> None:
    """Raises InputError where a part has its images or its labels alone, with the name of the other file."""
    for part, kind in [key for key in keys if key.part == "train" or key.kind == "labels"]:
        other = "labels" if kind == "images" else "images"
        if Key(part, other) not in keys:
            name = f"{begin}{'t10k' if part == 'test' else part}-{other}-idx{1 if other == 'labels' else 3}-ubyte"
            rule, seen = f"has no array of {other} for the part {part}", f"{kind} alone"
            raise InputError(printable(str(source)), rule, seen, f"put {printable(name)} beside it")


def read_idx(path: Path, kind: str) -> StoredArray:
    """The array of one file, N x H x W for images, N for labels, after its claims were checked. Raises InputError."""
    dimensions = 3 if kind == "images" else 1
    with _opened(path) as stream:
        zeros, code, found = struct.unpack(">HBB", stream.read(4))
        if (zeros, code, found) != (0, BYTES, dimensions):
            raise ValueError(f"it does not begin as a file of {kind} does, but with {zeros:04x}{code:02x}{found:02x}")
        shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
        size, begin = math.prod(shape), 4 + 4 * dimensions
        if path.suffix.lower() != ".gz" and path.stat().st_size != begin + size:
            raise ValueError(f"it claims {size:,} bytes of {kind} and has {path.stat().st_size - begin:,}")
        check_expansion(path, size)

    def pieces() -> Iterator[np.ndarray]:
        with _opened(path) as stream:
            stream.seek(begin)
            try:
                yield from read_pieces(lambda: nullcontext(stream), shape, np.dtype(np.uint8))
            except EOFError:
                raise ValueError(f"it claims {size:,} bytes of {kind} and has fewer") from None
            if stream.read(1):
                raise ValueError(f"it claims {size:,} bytes of {kind} and has more")

    return StoredArray(shape, np.dtype(np.uint8), pieces)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with reading(path, "an idx file", REMEDY), gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        yield cast(BinaryIO, stream)
