"""Constructed data sets: D_R, D_NR, D_rand, D_det."""

import warnings
from collections.abc import Callable
from os import PathLike, fspath

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import construct, metrics, models
from notbugs.api.inputs import (
    Classifier,
    LabeledData,
    check_numbers,
    check_whole,
    classifier,
    clean_images,
    training_part,
    with_gradients,
)
from notbugs.construct import Constructed
from notbugs.data import Dataset
from notbugs.errors import InputError, NotbugsWarning
from notbugs.report.findings.construction import weak_source_warning
from notbugs.search import NormBall
from notbugs.study.config import RELABEL_STEPS
from notbugs.study.resolve import default_invert_steps

TARGETS = ("random", "next")


@with_gradients
def make_robust(
    model: Classifier,
    dataset: LabeledData,
    *,
    steps: int | None = None,
    versions: int = 1,
    standard: Classifier | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Constructed:
    """D_R: the training images with the features of a robust classifier alone (`construct.invert_features`).

    Standard training on it gives a classifier that is harder to fool (Ilyas et al. 2019, section 3.1).

    Parameters
    ----------
    model : Module, str or path
        A robust classifier: `train(..., loss="adversarial")`.
    dataset : str, path, Splits or Dataset
        Its training part. Where it has a test part, the clean accuracy of `model` is measured on that.
    steps : int, optional
        Of the inversion. Default: as `notbugs run` takes by the images: 40; 25 up to 16x16; 20 where `dataset` is "mnist5k" or
        "planted".
    versions : int
        Versions of each image.
    standard : Module, str or path, optional
        A standard classifier, whose clean accuracy is compared with that of `model`.
    seed : int
        Of the images from which the inversion starts.
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    progress : callable, optional
        Called after each batch with its number of images.

    Returns
    -------
    Constructed
        `dataset` and `stats`. `data.export(made.dataset, folder, "folder", card="D_R of …")` writes it.

    Warns
    -----
    NotbugsWarning
        If `model` classifies too few clean images correctly for a D_R that helps: it is not above chance level, or far below
        `standard`.

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=300)
    >>> robust = notbugs.train(digits, loss="adversarial", epochs=8, width=8)
    >>> made = notbugs.make_robust(robust, digits, steps=2)
    >>> len(made.dataset), made.stats.steps
    (300, 2)
    """
    check_whole(steps=steps, versions=versions, seed=seed)
    part = training_part(dataset)
    network = _with_features(classifier(model, part, device), part, device)
    compared = None if standard is None else classifier(standard, part, device, "standard")
    _warn_of_weak_source(network, compared, clean_images(dataset), device)
    steps = _invert_steps(steps, dataset, part)
    return construct.invert_features(network, part, steps=steps, versions=versions, seed=seed, device=device, progress=progress)


@with_gradients
def make_nonrobust(
    model: Classifier,
    dataset: LabeledData,
    *,
    steps: int | None = None,
    versions: int = 1,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Constructed:
    """D_NR: the same with a standard classifier. Training on it gives high clean and low robust accuracy.

    Parameters
    ----------
    model : Module, str or path
        A classifier of standard training: `train(...)`.
    dataset, steps, versions, seed, device, progress : optional
        As for `make_robust`.

    Returns
    -------
    Constructed

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=100)
    >>> standard = notbugs.train(digits, epochs=1, width=4)
    >>> notbugs.make_nonrobust(standard, digits, steps=2).dataset.labels.equal(digits.train.labels)
    True
    """
    check_whole(steps=steps, versions=versions, seed=seed)
    part = training_part(dataset)
    network, steps = _with_features(classifier(model, part, device), part, device), _invert_steps(steps, dataset, part)
    return construct.invert_features(network, part, steps=steps, versions=versions, seed=seed, device=device, progress=progress)


@with_gradients
def relabel(
    model: Classifier,
    dataset: LabeledData,
    targets: str | Tensor | np.ndarray = "random",
    *,
    epsilon: float,
    norm: str = "l2",
    steps: int = RELABEL_STEPS,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Constructed:
    """D_rand or D_det: images perturbed towards other classes, and labeled as these (`construct.relabel`).

    To a person nearly all labels look wrong; a classifier trained on them still classifies clean test images (Ilyas et al. 2019,
    section 3.2).

    Parameters
    ----------
    model : Module, str or path
        Whose non-robust features become the labels'.
    dataset : str, path, Splits or Dataset
        Its training part.
    targets : {"random", "next"}, or Tensor or array of whole numbers, (N,)
        random: a random wrong class each (D_rand); next: the class after the true one (D_det).
    epsilon : float
        Largest perturbation, for pixels in [0, 1].
    norm : {"l2", "linf"}
    steps : int
        Of PGD, as many as `notbugs run` takes.
    seed : int
        Of random targets.
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    progress : callable, optional
        Called after each batch with its number of images.

    Returns
    -------
    Constructed

    Raises
    ------
    InputError
        For other targets, or labels that do not fit.

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=100)
    >>> model = notbugs.train(digits, epochs=1, width=4)
    >>> made = notbugs.relabel(model, digits, "next", epsilon=1.0, steps=2)
    >>> bool((made.dataset.labels == (digits.train.labels + 1) % 10).all()), made.stats.max_l2 <= 1
    (True, True)
    """
    check_numbers(epsilon=epsilon)
    check_whole(steps=steps, seed=seed)
    part = training_part(dataset)
    labels = _targets(targets, part.labels, len(part.classes), seed)
    threat_model = NormBall(norm, epsilon)
    network = _with_features(classifier(model, part, device), part, device)
    return construct.relabel(network, part, labels, threat_model=threat_model, steps=steps, device=device, progress=progress)


def _invert_steps(steps: int | None, dataset: LabeledData, part: Dataset) -> int:
    named = fspath(dataset) if isinstance(dataset, str | PathLike) else ""
    return default_invert_steps(named, part.shape) if steps is None else steps


def _with_features(model: nn.Module, part: Dataset, device: str) -> models.Model:
    """A network of any kind, in evaluation mode: the input of its last layer are its features."""
    return models.with_features(model, part.pixels(slice(0, 2)).to(device))[0]


def _targets(targets: str | Tensor | np.ndarray, labels: Tensor, classes: int, seed: int) -> Tensor:
    if not isinstance(targets, str):
        targets = torch.as_tensor(targets)
        if targets.is_floating_point():
            raise InputError("targets", "must be whole numbers", str(targets.dtype))
        if targets.shape != labels.shape or not bool(((targets >= 0) & (targets < classes)).all()):
            got = f"{tuple(targets.shape)}, from {int(targets.min())} to {int(targets.max())}" if targets.numel() else "none"
            raise InputError("targets", f"must be {len(labels)} labels from 0 to {classes - 1}", got)
        return targets.to(labels)
    if targets not in TARGETS:
        raise InputError("targets", f"must be {' or '.join(TARGETS)}, or labels", repr(targets))
    return construct.random_labels(labels, classes, seed=seed) if targets == "random" else construct.next_labels(labels, classes)


def _warn_of_weak_source(model: nn.Module, standard: nn.Module | None, part: Dataset, device: str) -> None:
    found = metrics.clean_accuracy(model, part, device=device)
    compared = None if standard is None else metrics.clean_accuracy(standard, part, device=device).accuracy
    chance = part.labels.bincount().max().item() / len(part)
    if warning := weak_source_warning(found.accuracy, found.ci_low, chance, compared):
        warnings.warn(warning, NotbugsWarning, stacklevel=4)  # the caller of the decorated function
