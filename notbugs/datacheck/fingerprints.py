"""What the check keeps of each image, from one pass: a hash of its pixels, a perceptual hash, a thumbnail, its contrast."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from notbugs.data import Dataset

THUMBNAIL = 16  # pixels of a side
BATCH_NUMBERS = 2**24  # pixels that are decoded at once, in all channels
HASH_BITS = 64
COMPARED = 100_000  # images compared for near duplicates at most, evenly spaced: the time grows with their square


class Fingerprints(NamedTuple):
    """One entry for each of N images; of hashes and thumbnails one for each `step`-th image.

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
    hashes : ndarray, bool, (N / step, 64)
        Difference hash of the brightness (`imagehash.dhash`).
    thumbnails : ndarray, uint8, (N / step, C * 16 * 16)
    step : int
        1 unless there are more images than COMPARED.
    """

    digests: np.ndarray
    contrast: np.ndarray
    constant: np.ndarray
    gray: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    step: int


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
    step = max(1, -(-count // COMPARED))
    found = Fingerprints(
        digests=np.empty(count, "S32"),
        contrast=np.empty(count, np.float32),
        constant=np.empty(count, bool),
        gray=np.empty(count, bool),
        hashes=np.empty((-(-count // step), HASH_BITS), bool),
        thumbnails=np.empty((-(-count // step), channels * THUMBNAIL**2), np.uint8),
        step=step,
    )
    for number, pixels in enumerate(image for part in parts for image in _images(part)):
        _enter(found, number, pixels)
    return found


def _enter(found: Fingerprints, number: int, pixels: np.ndarray) -> None:
    """Enter the fingerprint of one image, uint8 (H, W, C)."""
    import imagehash

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    brightness = image.convert("L")
    found.digests[number] = hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
    found.contrast[number] = _thumbnail(brightness).std()
    found.constant[number] = found.contrast[number] < 1 and (pixels == pixels[0, 0]).all()
    found.gray[number] = (pixels == pixels[:, :, :1]).all()
    if number % found.step == 0:
        found.hashes[number // found.step] = imagehash.dhash(brightness).hash.ravel()
        found.thumbnails[number // found.step] = _thumbnail(image).ravel()


def _thumbnail(image: Image.Image) -> np.ndarray:
    """Means over boxes; an image smaller than that is enlarged."""
    method = Image.Resampling.BOX if min(image.size) >= THUMBNAIL else Image.Resampling.BILINEAR
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), method))


def _images(part: Dataset) -> Iterator[np.ndarray]:
    """The images of one part, uint8 (H, W, C), one after the other."""
    channels, height, width = part.shape
    size = max(1, BATCH_NUMBERS // (channels * height * width))
    for start in range(0, len(part), size):
        yield from np.ascontiguousarray(part.images[start : start + size].permute(0, 2, 3, 1).cpu().numpy())
