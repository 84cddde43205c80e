"""A world whose robust and non-robust features are known: every score and split can be checked against the truth."""

import math
from typing import NamedTuple

import numpy as np
import torch

from notbugs.data.dataset import Dataset
from notbugs.errors import InputError

CLASSES = ("disc", "square", "triangle", "cross")
PERIOD = 3.0  # of the grating, in pixels: as fine as a 3x3 convolution still tells apart at any angle
GRAIN = 0.02  # deviation of every pixel's noise: it hides the grating from a person, and from networks whatever is much fainter


class SyntheticTruth(NamedTuple):
    """What is in each image, apart from its label: one entry an image.

    loud: the class whose shape a person sees; faint: the class whose grating is hidden in it; light: whether the background is
    light, which goes with classes 0 and 2 in training.
    """

    loud: np.ndarray
    faint: np.ndarray
    light: np.ndarray


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
    loud: float = 0.92,
    background: float = 0.8,
    strength: float = 0.5,
) -> SyntheticData:
    """Four classes of colour images, size x size (16 or more), with three features of the label.

    Loud: a large shape, the label's for a share `loud` of the images and another class's for the rest, in both parts.
    Faint: a grating at the label's own angle, of L2 norm `strength` (pixels in [0, 1]), always right.
    Background: light or dark; right for a share `background` of the training images, for half the test images (chance).
    Shares are exact, to the nearest whole image. A model of faint evidence alone is always right and easy to fool; one of loud
    evidence alone is right for the share `loud`. strength 0 is a world without the faint feature, otherwise the same.
    Raises BadInput for a count below 8, a share outside [0, 1], or a strength that would leave the pixel range.
    """
    for name, count, least in (("train", train, 8), ("test", test, 8), ("size", size, 16)):
        if count < least:
            raise InputError(name, f"must be {least} or more", count)
    for name, share in (("loud", loud), ("background", background)):
        if not 0 <= share <= 1:
            raise InputError(name, "is a share of the images: it must be from 0 to 1", share)
    if not 0 <= strength <= size / 16:
        raise InputError(
            "strength", f"must be from 0 to size / 16, here {size / 16:g}: more would leave the pixel range", strength
        )

    def part(count: int, background: float, stream: int, first: int) -> tuple[Dataset, SyntheticTruth]:
        chance = np.random.default_rng([seed, stream])

        def some(share: float) -> np.ndarray:
            return chance.permutation(count) < round(share * count)

        labels = chance.permutation(np.arange(count) % len(CLASSES))
        other = (labels + chance.integers(1, len(CLASSES), count)) % len(CLASSES)
        truth = SyntheticTruth(np.where(some(loud), labels, other), labels.copy(), (labels % 2 == 0) == some(background))
        blocks = np.split(np.arange(count), range(1000, count, 1000))  # drawn block by block, so that a large world fits memory
        images = np.concatenate(
            [_draw(SyntheticTruth(*(entry[block] for entry in truth)), size, strength, chance) for block in blocks]
        )
        names = tuple(f"{CLASSES[label]}/{number:05d}.png" for number, label in enumerate(labels, first))
        return Dataset(torch.from_numpy(images), torch.from_numpy(labels), CLASSES, names), truth

    train_set, train_truth = part(train, background, 0, 0)
    test_set, test_truth = part(test, 0.5, 1, train)
    return SyntheticData(train_set, test_set, train_truth, test_truth)


def _draw(truth: SyntheticTruth, size: int, strength: float, chance: np.random.Generator) -> np.ndarray:
    """(N, 3, size, size) uint8. What is drawn depends on the truth and on chance only: the label is not known here."""
    count = len(truth.loud)

    def between(low: float, high: float, *shape: int) -> np.ndarray:
        return chance.uniform(low, high, (count, *shape)).astype(np.float32)

    side = np.where(truth.light, 1, -1).astype(np.float32)[:, None, None, None]
    ground = 0.5 + 0.14 * side + between(-0.06, 0.06, 3, 1, 1)
    # every shape has a colour of its own, dark on a light ground and light on a dark one, and leaves room up to black and white
    ink = ground - between(0.2, 0.5, 3, 1, 1) * side
    place = between(-0.09, 0.09, 2) * size
    inside = _shapes(truth.loud, size, place[:, 0], place[:, 1], between(0.27, 0.33) * size)[:, None]
    images = ground * (1 - inside) + ink * inside + chance.normal(0, GRAIN, (count, 3, size, size)).astype(np.float32)
    images += _gratings(truth.faint, size, strength, between(0, 2 * np.pi))
    stored: np.ndarray = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return stored


def _shapes(kind: np.ndarray, size: int, across: np.ndarray, down: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How far each pixel lies inside the shape, 0 to 1 with a soft edge: (N, size, size). Lengths in pixels, from the middle."""
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = axis[None, None, :] - across[:, None, None], axis[None, :, None] - down[:, None, None]
    r = radius[:, None, None]
    disc = r - np.hypot(x, y)
    square = 0.85 * r - np.maximum(abs(x), abs(y))
    triangle = np.minimum(0.75 * r - y, (y + r) / 2 - abs(x))
    cross = np.maximum(np.minimum(r - abs(x), 0.3 * r - abs(y)), np.minimum(0.3 * r - abs(x), r - abs(y)))
    depth: np.ndarray = np.stack([disc, square, triangle, cross])[kind, np.arange(len(kind))]
    return (depth + 0.5).clip(0, 1)


def _gratings(kind: np.ndarray, size: int, strength: float, phase: np.ndarray) -> np.ndarray:
    """Waves at 0, 45, 90 or 135 degrees, the same in all three channels: (N, 1, size, size), `strength` long in L2 over all."""
    axis = np.arange(size, dtype=np.float32)
    angle = (kind * math.pi / 4).astype(np.float32)[:, None, None]
    along = axis[None, None, :] * np.cos(angle) + axis[None, :, None] * np.sin(angle)
    waves = np.sin(2 * math.pi / PERIOD * along + phase[:, None, None])
    length = np.sqrt(3 * np.square(waves).sum((1, 2), keepdims=True))
    gratings: np.ndarray = strength * waves / length
    return gratings[:, None]
