"""Exact duplicates by a hash of their pixels; near duplicates by a perceptual hash, each candidate verified on pixels."""

from functools import cache
from typing import NamedTuple

import numpy as np

from notbugs.datacheck.fingerprints import THUMBNAIL, Fingerprints

MAX_BITS = 8  # of 64 in which the hashes of a candidate may differ
CANDIDATES = 32  # of each image at most, those with the most similar hashes: memory stays bounded
MIN_CONTRAST = 5.0  # levels: what has less is noise to a hash
# RMS difference of two standardized thumbnails up to which they are near duplicates, by channels (docs/lab-log.md)
MAX_DIFFERENCE = {1: 0.1, 3: 0.15}
ROWS, COLUMNS = 64, 8192  # hashes compared at once: what fits into the cache of a processor
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

    Their hashes differ in at most 8 of 64 bits, and their thumbnails, standardized, by an RMS of at most 0.1 (gray) or 0.15
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
    packed = np.packbits(hashes, axis=1).view(np.uint64).ravel()
    pairs = [np.empty((2, 0), np.int64)]
    for start in range(0, len(packed), ROWS):
        columns = range(start, len(packed), COLUMNS)
        tiles = [_close(packed[start : start + ROWS], packed[column : column + COLUMNS]) for column in columns]
        rows = np.concatenate([row for row, _, _ in tiles]) + start
        others = np.concatenate([other + column for (_, other, _), column in zip(tiles, columns, strict=True)])
        bits = np.concatenate([bits for _, _, bits in tiles])
        later = others > rows
        pairs.append(_most_similar(rows[later], others[later], bits[later]))
    first, second = np.concatenate(pairs, 1)
    return first, second


def _close(hashes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, other row and bits that differ, of hashes, uint64, that differ in at most MAX_BITS."""
    bits = count_bits(hashes[:, None] ^ others)
    places = np.flatnonzero(bits <= MAX_BITS)
    rows, columns = np.divmod(places, len(others))
    return rows, columns, bits.ravel()[places]


def count_bits(numbers: np.ndarray) -> np.ndarray:
    """How many bits of each number, uint64, are 1.

    Examples
    --------
    >>> count_bits(np.array([0, 7, 2**64 - 1], np.uint64)).tolist()
    [0, 3, 64]
    """
    if hasattr(np, "bitwise_count"):
        found: np.ndarray = np.bitwise_count(numbers)
        return found
    return count_bits_before_numpy_2(numbers)


def count_bits_before_numpy_2(numbers: np.ndarray) -> np.ndarray:
    """The same from a table of all numbers of 16 bits, several times as slow."""
    words = np.ascontiguousarray(numbers).view(np.uint16).reshape(*numbers.shape, 4)
    counts: np.ndarray = _bits_of_words()[words].sum(-1, dtype=np.uint8)
    return counts


@cache
def _bits_of_words() -> np.ndarray:
    words = np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    counts: np.ndarray = np.unpackbits(words, axis=1).sum(1, dtype=np.uint8)
    return counts


def _most_similar(rows: np.ndarray, others: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Of each row the CANDIDATES with the most similar hashes, (2, n)."""
    order = np.lexsort((bits, rows))
    rows, others = rows[order], others[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return np.stack([rows, others])[:, rank < CANDIDATES]


def _correlation(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each image with the other one in its row."""
    a, b = (pixels.astype(np.float32) - pixels.mean(1, keepdims=True, dtype=np.float32) for pixels in (images, others))
    found: np.ndarray = (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-6)
    return found
