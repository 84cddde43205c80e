"""NumPy archives: train_images, train_labels, test_images, test_labels, or x_train, y_train, …; perhaps names and classes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from notbugs.data.config import DataConfig
from notbugs.data.names import first_line
from notbugs.data.sources.arrays import locate_arrays, parse_key
from notbugs.data.sources.base import Located
from notbugs.errors import InputError


def locate_npz(path: Path, config: DataConfig) -> Located:
    """The images of an .npz file. Raises InputError."""
    return locate_arrays(path, _load(path), config)


def _load(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays that images and labels may be in. Arrays of other names are not read."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:  # closes damaged files, too
            wanted = [name for name in archive.files if parse_key(name)]
            return {name: archive[name] for name in wanted or archive.files[:0]}
    except Exception as error:  # also MemoryError: a header can claim any shape
        reason = "Python objects (pickle)" if "pickle" in str(error) else first_line(error)
        remedy = "write it with numpy.savez from plain arrays: uint8 images, integer labels, text classes"
        raise InputError(str(path), "cannot be read as an .npz file", reason, remedy) from None
