"""Whether training images may be mirrored: a small classifier, trained without flips, is tried on mirrored images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import notbugs.train as train
from notbugs import models, predict
from notbugs.data import Dataset, balanced_subset, fingerprint, to_8bit
from notbugs.errors import InputError
from notbugs.stats import mean_interval, newcombe_difference, wilson_interval

IMAGES = 2000  # of the training part at most, half of them for each of two classifiers
SIDE = 16  # pixels to which larger images are resized
STEPS = 10_000  # images that each classifier sees
MIN_EPOCHS, MAX_EPOCHS = 10, 40
LOSS = 0.15  # of the accuracy above chance level: mirroring that costs less is safe
TURNED = 0.1  # of a class: the least share that is predicted as another class because it was mirrored

_MEASURED: dict[str, "Mirroring"] = {}  # by fingerprint of the images

Outcome = Literal["safe", "not safe", "inconclusive"]


@dataclass(frozen=True)
class Turned:
    """A class whose mirrored images are predicted as another one: by how much more often than the images themselves."""

    name: str
    predicted: str
    share: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class Mirroring:
    """What mirroring costs.

    Attributes
    ----------
    outcome : {"safe", "not safe", "inconclusive"}
        Not safe: the 95 % CI of the drop lies above 15 % of the accuracy above chance level, or a class turns into another.
        Safe: it lies below. Otherwise inconclusive, as with a classifier that is not measurably above chance level.
    accuracy, mirrored_accuracy : float
        Of the n held-out images, and of the same images mirrored.
    drop, ci_low, ci_high : float
        Their difference, paired, with its 95 % CI.
    chance : float
        Chance level: the share of the most common class.
    n : int
    turned : tuple of Turned
        The largest share first.
    """

    outcome: Outcome
    accuracy: float
    mirrored_accuracy: float
    drop: float
    ci_low: float
    ci_high: float
    chance: float
    n: int
    turned: tuple[Turned, ...]


def measure_mirroring(training: Dataset) -> Mirroring:
    """Train two small classifiers, each on half of at most 2,000 training images, without flips, and try each on the other half.

    The test part is not used. Takes seconds; asked again for the same images, a process remembers the result.

    Parameters
    ----------
    training : Dataset
        Of which `measurable` is true.

    Returns
    -------
    Mirroring

    Raises
    ------
    InputError
        If there are too few images.

    Examples
    --------
    >>> from notbugs import data
    >>> found = measure_mirroring(data.load("digits").train.select(slice(0, 400)))
    >>> found.outcome, found.n
    ('not safe', 400)
    """
    key = f"{fingerprint(training)} {training.shape}"
    if key not in _MEASURED:
        _MEASURED[key] = _measure(training)
    return _MEASURED[key]


def measurable(training: Dataset) -> bool:
    """Whether each of the two classifiers would have two images or more: the images of each class take turns.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits").train
    >>> measurable(digits), measurable(digits.select([0, 1, 2]))
    (True, False)
    """
    sizes = _halves(balanced_subset(training, IMAGES).labels).bincount(minlength=2)
    return int(sizes.min()) >= 2


def _measure(training: Dataset) -> Mirroring:
    if not measurable(training):
        raise InputError("training", "must have two images or more for each of two classifiers", f"{len(training)} images")
    sample = _small(balanced_subset(training, IMAGES))
    half = _halves(sample.labels)
    predicted, mirrored = torch.empty_like(sample.labels), torch.empty_like(sample.labels)
    for number in (0, 1):
        held_out = (half == number).nonzero().squeeze(1)
        model = _train(sample.select((half != number).nonzero().squeeze(1)), seed=number)
        images = sample.select(held_out)
        predicted[held_out] = predict.predict(model, images)
        mirrored[held_out] = predict.predict(model, images.with_images(images.images[:].flip(3)))
    return from_predictions(sample.labels, predicted, mirrored, sample.classes)


def from_predictions(labels: Tensor, predicted: Tensor, mirrored: Tensor, classes: tuple[str, ...]) -> Mirroring:
    """The outcome, from the predictions for images and for the same images mirrored, int64 (n,)."""
    n, correct, correct_mirrored = len(labels), predicted == labels, mirrored == labels
    drop = mean_interval((correct.int() - correct_mirrored.int()).double().numpy())
    accuracy, chance = correct.double().mean().item(), labels.bincount().max().item() / n
    turned = _turned(labels, predicted, mirrored, classes)
    outcome: Outcome = "inconclusive"
    if wilson_interval(int(correct.sum()), n)[0] > chance:
        most = LOSS * (accuracy - chance)
        outcome = "not safe" if turned or drop.ci_low > most else "safe" if drop.ci_high < most else "inconclusive"
    ends = (drop.value, drop.ci_low, drop.ci_high)
    return Mirroring(outcome, accuracy, correct_mirrored.double().mean().item(), *ends, chance, n, turned)


def _turned(labels: Tensor, predicted: Tensor, mirrored: Tensor, classes: tuple[str, ...]) -> tuple[Turned, ...]:
    """Classes of which a measurable share, at least TURNED, is predicted as another class once mirrored."""
    found = []
    for label in sorted({*labels.tolist()}):
        own = labels == label
        before, after = (_counts(each[own], len(classes)) for each in (predicted, mirrored))
        gained = after - before
        gained[label] = -len(labels)
        other, n = int(gained.argmax()), int(own.sum())
        shares = ((int(count), *wilson_interval(int(count), n, len(classes))) for count in (after[other], before[other]))
        p, q = ((count / n, low, high) for count, low, high in shares)
        share, low, high = newcombe_difference(p, q)
        if low > TURNED:
            found.append(Turned(classes[label], classes[other], share, low, high, n))
    return tuple(sorted(found, key=lambda each: -each.share))


def _counts(predicted: Tensor, classes: int) -> np.ndarray:
    counts: np.ndarray = predicted.bincount(minlength=classes).numpy()
    return counts


def _halves(labels: Tensor) -> Tensor:
    """0 or 1 for each image: within each class they take turns."""
    half = torch.empty_like(labels)
    for label in sorted({*labels.tolist()}):
        own = (labels == label).nonzero().squeeze(1)
        half[own] = torch.arange(len(own)) % 2
    return half


def _small(dataset: Dataset) -> Dataset:
    """The images in memory, with sides of at most SIDE pixels."""
    height, width = (min(length, SIDE) for length in dataset.shape[1:])
    if (height, width) == dataset.shape[1:]:
        return dataset.with_images(dataset.images[:])
    batches = (dataset.pixels(slice(start, start + 100)) for start in range(0, len(dataset), 100))
    resized = [F.interpolate(batch, (height, width), mode="bilinear", antialias=True) for batch in batches]
    return dataset.with_images(to_8bit(torch.cat(resized)))


def _train(dataset: Dataset, seed: int) -> models.Model:
    """A small classifier after a few seconds of training without flips."""
    pixels = dataset.pixels(slice(None))
    model = models.build(
        "small",
        shape=dataset.shape,
        classes=len(dataset.classes),
        width=16,
        seed=seed,
        mean=pixels.mean((0, 2, 3)).tolist(),
        std=pixels.std((0, 2, 3)).clamp_min(0.05).tolist(),
    )
    translate = min(dataset.shape[1:]) // 8
    epochs = max(MIN_EPOCHS, min(MAX_EPOCHS, STEPS // len(dataset)))
    augment = train.random_translate(translate, flip=False)
    train.fit(model, dataset, epochs=epochs, batch_size=64, learning_rate=0.01, augment=augment, seed=seed)
    return model
