"""What the functions take: data sets by name or in memory, classifiers by name or in memory."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from numbers import Integral, Real
from os import PathLike, fspath
from typing import ParamSpec, TypeVar, Unpack

import torch
from torch import nn

from notbugs import data, models
from notbugs.attacks.sanity_checks import pixel_range
from notbugs.data import DataConfig, Dataset, Splits
from notbugs.data.loaded import kept
from notbugs.data.parts import NO_TEST_PART
from notbugs.data_config import DataOptions
from notbugs.errors import InputError, NotbugsWarning, one_line
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.reading import check_finite
from notbugs.search import objectives
from notbugs.study.given import LoadedClassifier, check_fit, load_fitting

LabeledData = str | PathLike[str] | Splits | Dataset
Classifier = nn.Module | str | PathLike[str]
P = ParamSpec("P")
R = TypeVar("R")
PIXEL_RANGE_IMAGES = 100  # on which a network is tried in other ranges
PIXEL_RANGE_DIFFERENCE = 0.2  # of accuracies: a network that is hardly trained may be a little better in another range by chance
SOURCE_IMAGES = 1000  # at most, on which a source model is measured
_numbers = itertools.count(1)


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with gradients also where its caller has turned them off: torch.no_grad, torch.inference_mode.

    A network that cannot be copied is used itself; afterwards it has its mode, device and gradients of parameters again.
    """

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        networks = [given for given in (*args, *options.values()) if isinstance(given, nn.Module)]
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(models.unchanged(network))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            return function(*args, **options)

    return called


def check_numbers(**given: object) -> None:
    """Raises InputError for a value that is no number; None is a default."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise InputError(name, "must be a number", _typed(value))


def check_whole(**given: object) -> None:
    """Raises InputError for a value that is no whole number; None is a default."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise InputError(name, "must be a whole number", _typed(value))


def _typed(value: object) -> str:
    """A value with its type, in one short line."""
    return f"{one_line(repr(value))[:40]}, a {type(value).__name__}"


@with_gradients
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
    check_whole(seed=seed, limit=options.get("limit"), resize=options.get("resize"))
    splits = data.load(_path(dataset), seed=seed, **options)
    for note in splits.notes:
        if note.startswith(NO_TEST_PART):
            said = note.replace("--test .", 'test="."')
            warnings.warn(f"{fspath(dataset)}: {said}", NotbugsWarning, stacklevel=3)  # the caller of the decorated function
    return splits


@contextmanager
def by_name(dataset: LabeledData) -> Iterator[tuple[str, Splits]]:
    """A data set with a name under which the packages load it meanwhile, also one in memory."""
    with data.keeping_loads():
        if isinstance(dataset, str | PathLike):
            config = DataConfig(fspath(dataset))
            yield config.dataset, data.load_dataset(config)
            return
        if not isinstance(dataset, Splits | Dataset):
            _path(dataset)
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
    return dataset if isinstance(dataset, Splits) else data.load(_path(dataset))


def _path(dataset: object) -> str:
    """Raises InputError for anything but a name or a path."""
    if not isinstance(dataset, str | PathLike):
        rule = "must be a name, a path, Splits or a Dataset"
        remedy = "make a Dataset: data.Dataset.from_numpy(images, labels), or .from_torch of a torch data set"
        raise InputError("dataset", rule, type(dataset).__name__, remedy)
    return fspath(dataset)


def classifier(model: Classifier, part: Dataset, device: str, parameter: str = "model") -> nn.Module:
    """A classifier in evaluation mode, on its device, adapted to the images as one by name is; a network itself stays as it is.

    parameter: that has it, for errors and warnings.

    Raises
    ------
    InputError
        If it is neither a network nor a name, or does not fit the images.
    """
    try:
        network, metadata = _loaded(model, part, device, parameter)
    except InputError as error:
        name, rule, got, remedy = error.args
        if "--class-map" not in remedy or not rule.startswith("must have one output"):
            raise
        remedy = "name all its classes in the data set (classes=…), or return the logits of these alone: logits[:, [0, 3, …]]"
        raise InputError(name, rule, got, remedy) from None
    for note in (*metadata.notes, *_other_pixels(network, part, device)):
        warnings.warn(f"{parameter}: {note}", NotbugsWarning, stacklevel=4)  # the caller of the decorated function
    return network


def _loaded(model: Classifier, part: Dataset, device: str, parameter: str) -> LoadedClassifier:
    if isinstance(model, str | PathLike):
        return load_fitting(fspath(model), part, dataset="the data set", device=device)
    if not isinstance(model, nn.Module):
        got, remedy = type(model).__name__, "of a function of images make models.black_box.BlackBox"
        raise InputError(parameter, "must be a torch.nn.Module, or the name of a classifier", got, remedy)
    models.adapt.refuse_meta(model, parameter, "it")
    network, notes = models.copied(model).cpu(), tuple[str, ...]()
    if not isinstance(network, models.black_box.BlackBox):
        network, notes = models.adapt.adapt(network, part, parameter)
        _refuse_not_finite(network, part)
    elif said := models.black_box.settle_single(network, part.pixels(slice(0, models.adapt.SINGLE_OUTPUT_IMAGES))):
        notes = (said,)
    loaded = LoadedClassifier(network, CheckpointMetadata(notes=notes))
    return check_fit(parameter, loaded, part, dataset="the data set", device=device)


def _refuse_not_finite(network: nn.Module, part: Dataset) -> None:
    index = torch.arange(min(2, len(part)))
    try:
        with torch.no_grad():
            outputs = objectives.logits(network, part.pixels(index))
    except Exception:  # which is said where it is used
        return
    check_finite(outputs, part.names, index)


def _other_pixels(network: nn.Module, part: Dataset, device: str) -> Iterator[str]:
    """What is said of a network that is far more accurate with pixels in another range than [0, 1], from 0 to 255 for example.

    Nothing of a black box: its function gets no pixels outside [0, 1], and each call may cost.
    """
    if isinstance(getattr(network, "box", network), models.black_box.BlackBox):
        return
    sample = part.select(data.evenly_spaced(min(PIXEL_RANGE_IMAGES, len(part)), len(part)))
    try:
        check = pixel_range(network, sample.pixels(slice(None)).to(device), sample.labels.to(device), PIXEL_RANGE_DIFFERENCE)
    except Exception:  # of a network that does not work, which is said where it is used
        return
    if check.passed is False:
        yield f"{check.observed}. {check.fix}"
