"""Exact duplicates by a hash of their pixels; near duplicates by a perceptual hash, each candidate verified on pixels."""

from typing import NamedTuple

import numpy as np

from notbugs.datacheck.fingerprints import HASH_BITS, THUMBNAIL, Fingerprints

MAX_BITS = 8  # of 64 in which the hashes of a candidate may differ
CANDIDATES = 32  # of each image at most, those with the most similar hashes: memory stays bounded
MIN_CONTRAST = 5.0  # levels: what has less is noise to a hash
# RMS difference of two standardized thumbnails from which on they are not near duplicates, by channels (docs/lab-log.md)
MAX_DIFFERENCE = {1: 0.12, 3: 0.15}
BLOCK = 256  # images compared with all later ones at once
VERIFIED = 4096  # pairs of thumbnails at once


class Pairs(NamedTuple):
    """Near duplicates: the images of each pair, and the correlation of their thumbnails, near 1."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def exact_groups(digests: np.ndarray) -> np.ndarray:
    """For each image the first one with the same pixels: itself, if there is no earlier one.

    Examples
    --------
    >>> exact_groups(np.array([b"x", b"y", b"x"])).tolist()
    [0, 1, 0]
    """
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    found: np.ndarray = first[inverse.ravel()]
    return found


def near_pairs(prints: Fingerprints, distinct: np.ndarray) -> Pairs:
    """Pairs of near duplicates: the same image saved again, resized or a little brighter, or the next frame of a scene.

    Their hashes differ in at most 8 of 64 bits, and their thumbnails, standardized, by an RMS of at most 0.12 (gray) or 0.15
    (color). Images of almost no contrast are left out.

    Parameters
    ----------
    prints : Fingerprints
    distinct : ndarray, bool, (N,)
        Which images to compare. No two of them have the same pixels.

    Returns
    -------
    Pairs
    """
    rows = np.flatnonzero((distinct & (prints.contrast >= MIN_CONTRAST))[:: prints.step])
    first, second = _candidates(prints.hashes[rows])
    thumbnails = prints.thumbnails[rows]
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(first), VERIFIED):
        pair = slice(start, start + VERIFIED)
        parts.append(_correlation(thumbnails[first[pair]], thumbnails[second[pair]]))
    similarity = np.concatenate(parts)
    limit = MAX_DIFFERENCE[thumbnails.shape[1] // THUMBNAIL**2]
    near = 2 * (1 - similarity) <= limit**2  # the mean square of their difference
    index = rows * prints.step
    return Pairs(index[first[near]], index[second[near]], similarity[near])


def _candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose hashes differ in at most MAX_BITS, as two arrays of positions."""
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    pairs = [np.empty((2, 0), np.int64)]
    for start in range(0, len(signs), BLOCK):
        equal = signs[start : start + BLOCK] @ signs[start:].T  # bits that agree minus bits that differ
        close = np.triu(equal >= HASH_BITS - 2 * MAX_BITS, 1)
        for row in np.flatnonzero(close.sum(1) > CANDIDATES):
            columns = np.flatnonzero(close[row])
            close[row, columns[np.argsort(-equal[row, columns], kind="stable")[CANDIDATES:]]] = False
        pairs.append(np.stack(np.nonzero(close)) + start)
    first, second = np.concatenate(pairs, 1)
    return first, second


def _correlation(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each image with the other one in its row."""
    a, b = (pixels.astype(np.float32) - pixels.mean(1, keepdims=True, dtype=np.float32) for pixels in (images, others))
    found: np.ndarray = (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-6)
    return found
