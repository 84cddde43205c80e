"""Synthetic images whose robust and non-robust features are known: every score can be checked against the truth."""

import math
from typing import NamedTuple

import numpy as np
import torch

from notbugs.data.dataset import Dataset
from notbugs.errors import InputError

CLASSES = ("disc", "square", "triangle", "cross")
FEWEST = 8  # images of a part: two of each class
PERIOD = 3.0  # of the grating, in pixels: as fine as a 3x3 convolution can resolve at any angle
PIXEL_NOISE = 0.02  # standard deviation: hides the grating from a person, and from networks whatever is much fainter
BLOCK = 1000  # images drawn at a time, so that a large data set fits into memory


class SyntheticTruth(NamedTuple):
    """What each image contains, apart from its label.

    Attributes
    ----------
    shape_class : ndarray, int, (N,)
        The class whose shape is drawn: the robust feature.
    texture_class : ndarray, int, (N,)
        The class whose grating is added: the non-robust feature.
    light_background : ndarray, bool, (N,)
        Whether the background is light, which goes with classes 0 and 2 in training: the spurious feature.
    """

    shape_class: np.ndarray
    texture_class: np.ndarray
    light_background: np.ndarray


class SyntheticData(NamedTuple):
    """Training and test part, and the truth of each."""

    train: Dataset
    test: Dataset
    train_truth: SyntheticTruth
    test_truth: SyntheticTruth


def make_synthetic(
    *,
    train: int = 1500,
    test: int = 500,
    size: int = 32,
    seed: int = 0,
    shape_accuracy: float = 0.92,
    background: float = 0.8,
    texture_norm: float = 0.5,
) -> SyntheticData:
    """Color images of four classes with three known features of the label.

    A robust feature: a large shape, of the label's class in most images. A non-robust feature: a faint grating, always at the
    angle of the label's class. A spurious feature: the background, which predicts the label in the training part only.
    A classifier that uses the texture alone has accuracy 1 and hardly any robust accuracy. One that uses the shape alone has
    accuracy `shape_accuracy`.

    Parameters
    ----------
    train, test : int
        Images, 8 or more.
    size : int
        Height and width in pixels, 16 or more.
    seed : int
    shape_accuracy : float, in [0, 1]
        Share of images of both parts whose shape is that of their label; exact to the nearest image.
    background : float, in [0, 1]
        Share of training images whose background fits their label; in the test part it is 0.5, chance level.
    texture_norm : float, in [0, size / 16]
        L2 norm of the grating, pixels in [0, 1]. At 0 there is no texture; all else is equal.

    Returns
    -------
    SyntheticData

    Raises
    ------
    InputError
        If a parameter is outside its range.

    Examples
    --------
    >>> data = make_synthetic(train=100, test=8)
    >>> data.train.shape, bool((data.train_truth.texture_class == data.train.labels.numpy()).all())
    ((3, 32, 32), True)
    >>> int((data.train_truth.shape_class == data.train.labels.numpy()).sum())
    92
    """
    for name, count, least in (("train", train, FEWEST), ("test", test, FEWEST), ("size", size, 16)):
        if count < least:
            raise InputError(name, f"must be {least} or more", count)
    for name, share in (("shape_accuracy", shape_accuracy), ("background", background)):
        if not 0 <= share <= 1:
            raise InputError(name, "is a share of the images: it must be from 0 to 1", share)
    if not 0 <= texture_norm <= size / 16:
        rule = f"must be from 0 to size / 16, here {size / 16:g}: more would leave the pixel range"
        raise InputError("texture_norm", rule, texture_norm)
    streams = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    parts = []
    for generator, count, share, first in zip(streams, (train, test), (background, 0.5), (0, train), strict=True):
        labels, truth = _draw_truth(count, shape_accuracy, share, generator)
        parts.append((_draw_part(labels, truth, size, texture_norm, first, generator), truth))
    (train_part, train_truth), (test_part, test_truth) = parts
    return SyntheticData(train_part, test_part, train_truth, test_truth)


def _draw_truth(
    count: int, shape_accuracy: float, background: float, generator: np.random.Generator
) -> tuple[np.ndarray, SyntheticTruth]:
    """Labels (N,), and which features each image is to have."""

    def exact_share(share: float) -> np.ndarray:
        return generator.permutation(count) < round(share * count)

    labels = generator.permutation(np.arange(count) % len(CLASSES))
    other = (labels + generator.integers(1, len(CLASSES), count)) % len(CLASSES)
    shape_class = np.where(exact_share(shape_accuracy), labels, other)
    return labels, SyntheticTruth(shape_class, labels.copy(), (labels % 2 == 0) == exact_share(background))


def _draw_part(
    labels: np.ndarray, truth: SyntheticTruth, size: int, texture_norm: float, first: int, generator: np.random.Generator
) -> Dataset:
    """The images of one part. first: number in the name of its first image."""
    blocks = np.split(np.arange(len(labels)), range(BLOCK, len(labels), BLOCK))
    images = np.concatenate(
        [_draw(SyntheticTruth(*(column[block] for column in truth)), size, texture_norm, generator) for block in blocks]
    )
    names = tuple(f"{CLASSES[label]}/{number:05d}.png" for number, label in enumerate(labels, first))
    return Dataset(torch.from_numpy(images), torch.from_numpy(labels), CLASSES, names)


def _draw(truth: SyntheticTruth, size: int, texture_norm: float, generator: np.random.Generator) -> np.ndarray:
    """Images, uint8 (N, 3, size, size). They depend on the truth and the generator only: the label is not known here."""
    count = len(truth.shape_class)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return generator.uniform(low, high, (count, *shape)).astype(np.float32)

    sign = np.where(truth.light_background, 1, -1).astype(np.float32)[:, None, None, None]
    background = 0.5 + 0.14 * sign + uniform(-0.06, 0.06, 3, 1, 1)
    # each shape has its own color, dark on a light background and light on a dark one, and leaves room up to black and white
    color = background - uniform(0.2, 0.5, 3, 1, 1) * sign
    center = uniform(-0.09, 0.09, 2) * size
    coverage = _shapes(truth.shape_class, size, center[:, 0], center[:, 1], uniform(0.27, 0.33) * size)[:, None]
    noise = generator.normal(0, PIXEL_NOISE, (count, 3, size, size)).astype(np.float32)
    images = background * (1 - coverage) + color * coverage + noise
    images += _gratings(truth.texture_class, size, texture_norm, uniform(0, 2 * np.pi))
    stored: np.ndarray = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return stored


def _shapes(shape_class: np.ndarray, size: int, right: np.ndarray, down: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by its shape, (N, size, size), 0 to 1 with a soft edge. Lengths in pixels from the center."""
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = axis[None, None, :] - right[:, None, None], axis[None, :, None] - down[:, None, None]
    r = radius[:, None, None]
    disc = r - np.hypot(x, y)
    square = 0.85 * r - np.maximum(abs(x), abs(y))
    triangle = np.minimum(0.75 * r - y, (y + r) / 2 - abs(x))
    cross = np.maximum(np.minimum(r - abs(x), 0.3 * r - abs(y)), np.minimum(0.3 * r - abs(x), r - abs(y)))
    depth: np.ndarray = np.stack([disc, square, triangle, cross])[shape_class, np.arange(len(shape_class))]
    return (depth + 0.5).clip(0, 1)


def _gratings(texture_class: np.ndarray, size: int, texture_norm: float, phase: np.ndarray) -> np.ndarray:
    """Waves at 0, 45, 90 or 135 degrees, (N, 1, size, size), equal in all three channels, over which their L2 norm is taken."""
    axis = np.arange(size, dtype=np.float32)
    angle = (texture_class * math.pi / 4).astype(np.float32)[:, None, None]
    along = axis[None, None, :] * np.cos(angle) + axis[None, :, None] * np.sin(angle)
    waves = np.sin(2 * math.pi / PERIOD * along + phase[:, None, None])
    norm = np.sqrt(3 * np.square(waves).sum((1, 2), keepdims=True))
    gratings: np.ndarray = texture_norm * waves / norm
    return gratings[:, None]
