"""What the functions take: data sets by name or in memory, classifiers by name or in memory."""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Unpack

from torch import nn

from notbugs import data
from notbugs.data import DataConfig, Dataset, Splits
from notbugs.data.loaded import kept
from notbugs.data.parts import NO_TEST_PART
from notbugs.data_config import DataOptions
from notbugs.errors import InputError, NotbugsWarning
from notbugs.study.given import load_fitting

LabeledData = str | PathLike[str] | Splits | Dataset
SOURCE_IMAGES = 1000  # at most, on which a source model is measured
_numbers = itertools.count(1)


def load_dataset(dataset: str | PathLike[str], *, seed: int = 0, **options: Unpack[DataOptions]) -> Splits:
    """Load labeled images, training and test part: `data.load`, whose documentation has every form.

    Parameters
    ----------
    dataset : str or path
        A folder, archive, file of arrays, table, saved Hugging Face set or its name on the hub; `digits`, `mnist5k`, `planted`.
    seed : int
        Of the split where there is no test part.
    **options
        resize, limit, labels and the other fields of `data.DataConfig`.

    Returns
    -------
    Splits
        `train` and `test` (`Dataset`), and `notes`: what was decided in reading it.

    Warns
    -----
    NotbugsWarning
        If a fifth of each class was set aside as there is no test part, as in a set that notbugs constructed: that is in `notes`,
        too. With `test="."` all images are in `test`.

    Raises
    ------
    InputError
        If the data set does not exist, cannot be read, or its labels or classes are unusable.

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=100)
    >>> len(digits.train), digits.train.shape, digits.train.classes[:3]
    (100, (1, 8, 8), ('0', '1', '2'))
    """
    splits = data.load(dataset, seed=seed, **options)
    for note in splits.notes:
        if note.startswith(NO_TEST_PART):
            said = note.replace("--test .", 'test="."')
            warnings.warn(f"{fspath(dataset)}: {said}", NotbugsWarning, stacklevel=2)
    return splits


@contextmanager
def by_name(dataset: LabeledData) -> Iterator[tuple[str, Splits]]:
    """A data set with a name under which the packages load it meanwhile, also one in memory."""
    with data.keeping_loads():
        if isinstance(dataset, str | PathLike):
            config = DataConfig(fspath(dataset))
            yield config.dataset, data.load_dataset(config)
            return
        splits = dataset if isinstance(dataset, Splits) else Splits(dataset, dataset.select([]), "folder")
        name = f"data set {next(_numbers)} in memory"
        yield name, kept(DataConfig(name), 0, lambda config, seed: splits)


def training_part(dataset: LabeledData) -> Dataset:
    """The images to train on, or to construct from. Raises InputError if there are none."""
    part = dataset if isinstance(dataset, Dataset) else _splits(dataset).train
    if not len(part):
        raise InputError("dataset", "must have a training part", "only test images", "pass splits.test itself")
    return part


def clean_images(dataset: LabeledData) -> Dataset:
    """Some images on which a source model is measured: of the test part, or else of the training part."""
    if isinstance(dataset, Dataset):
        return data.random_subset(dataset, SOURCE_IMAGES)
    splits = _splits(dataset)
    return data.random_subset(splits.test if len(splits.test) else splits.train, SOURCE_IMAGES)


def evaluated_part(dataset: LabeledData, images: int | None = None) -> Dataset:
    """The images to evaluate on, all or so many of them, evenly spaced. Raises InputError if there are none."""
    part = dataset if isinstance(dataset, Dataset) else _splits(dataset).test
    if images is not None and images < 1:
        raise InputError("images", "must be 1 or more", images)
    if not len(part):
        raise InputError("dataset", "must have images to evaluate on", 0, "pass Splits with a test part, or a Dataset")
    return part if images is None else part.select(data.evenly_spaced(min(images, len(part)), len(part)))


def _splits(dataset: str | PathLike[str] | Splits) -> Splits:
    return dataset if isinstance(dataset, Splits) else data.load(dataset)


def classifier(model: nn.Module | str | PathLike[str], part: Dataset, device: str) -> nn.Module:
    """A classifier in evaluation mode, on its device. Raises InputError for one that does not fit the images."""
    if isinstance(model, nn.Module):
        return model.eval().to(device)
    return load_fitting(fspath(model), part, dataset="the data set", device=device).model
