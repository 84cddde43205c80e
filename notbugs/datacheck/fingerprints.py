"""What the check keeps of each image, from one pass: a hash of its pixels, a perceptual hash, a thumbnail, its contrast."""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from notbugs.data import Dataset, evenly_spaced

THUMBNAIL = 16  # pixels of a side
BATCH_NUMBERS = 2**22  # pixels that are decoded at once, in all channels
HASH_BITS = 64
COMPARED = 100_000  # images compared for near duplicates at most, evenly spaced: the time grows with their square


class Fingerprints(NamedTuple):
    """One entry for each of N images; of hashes and thumbnails one for each of the K that are compared.

    Attributes
    ----------
    digests : ndarray, bytes, (N,)
        Equal where all pixels are.
    contrast : ndarray, float32, (N,)
        Standard deviation of the thumbnail's brightness, in levels of 0 to 255.
    constant : ndarray, bool, (N,)
        Whether all pixels have one color.
    gray : ndarray, bool, (N,)
        Whether all channels are equal.
    hashes : ndarray, bool, (K, 64)
        Difference hash of the brightness (`imagehash.dhash`).
    thumbnails : ndarray, uint8, (K, C * 16 * 16)
    compared : ndarray, int64, (K,)
        Positions, ascending: all, unless there are more images than COMPARED.
    """

    digests: np.ndarray
    contrast: np.ndarray
    constant: np.ndarray
    gray: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    compared: np.ndarray


def fingerprints(*parts: Dataset) -> Fingerprints:
    """Fingerprints of the images of all parts, in order. Images on disk are decoded in batches of bounded size.

    Examples
    --------
    >>> from notbugs import data
    >>> found = fingerprints(data.load("digits").test)
    >>> found.hashes.shape, bool(found.constant.any())
    ((450, 64), False)
    """
    count, channels = sum(map(len, parts)), parts[0].shape[0]
    compared = evenly_spaced(COMPARED, count).numpy()
    found = Fingerprints(
        digests=np.empty(count, "S32"),
        contrast=np.empty(count, np.float32),
        constant=np.empty(count, bool),
        gray=np.empty(count, bool),
        hashes=np.empty((len(compared), HASH_BITS), bool),
        thumbnails=np.empty((len(compared), channels * THUMBNAIL**2), np.uint8),
        compared=compared,
    )
    start = 0
    for images in (batch for part in parts for batch in _batches(part)):
        _enter(found, start, images)
        start += len(images)
    return found


def _batches(part: Dataset) -> Iterator[Tensor]:
    """The images of one part, uint8 (n, C, H, W), in batches of bounded size."""
    size = max(1, BATCH_NUMBERS // math.prod(part.shape))
    for start in range(0, len(part), size):
        yield part.images[start : start + size].cpu()


def _enter(found: Fingerprints, start: int, images: Tensor) -> None:
    """Enter the fingerprints of images, uint8 (n, C, H, W), from position `start` on."""
    here = slice(start, start + len(images))
    means = F.adaptive_avg_pool2d(images.float(), THUMBNAIL)
    found.contrast[here] = means.mean(1).flatten(1).std(1, correction=0).numpy()
    found.constant[here] = (images == images[:, :, :1, :1]).flatten(1).all(1).numpy()
    found.gray[here] = (images == images[:, :1]).flatten(1).all(1).numpy()
    thumbnails = means.round().to(torch.uint8).flatten(1).numpy()
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    for number, image in enumerate(pixels):
        found.digests[start + number] = hashlib.blake2b(image.data, digest_size=16).hexdigest()
    first, last = np.searchsorted(found.compared, (here.start, here.stop))
    numbers = found.compared[first:last] - start
    found.thumbnails[first:last] = thumbnails[numbers]
    for row, number in enumerate(numbers, first):
        found.hashes[row] = _hash(pixels[number])


def _hash(pixels: np.ndarray) -> np.ndarray:
    """64 bits of one image, uint8 (H, W, C)."""
    import imagehash

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    bits: np.ndarray = imagehash.dhash(image).hash.ravel()
    return bits
