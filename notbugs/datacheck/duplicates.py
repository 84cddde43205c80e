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
    """Near duplicates: the images of each pair, and the correlation of their thumbnails, near 1.

    bounded: how many images have more than CANDIDATES candidates, of which the others were not compared.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    bounded: int = 0


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
    rows = np.flatnonzero((distinct & (prints.contrast >= MIN_CONTRAST))[prints.compared])
    first, second, bounded = _candidates(prints.hashes[rows])
    thumbnails = prints.thumbnails[rows]
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(first), VERIFIED):
        pair = slice(start, start + VERIFIED)
        parts.append(_correlation(thumbnails[first[pair]], thumbnails[second[pair]]))
    similarity = np.concatenate(parts)
    limit = MAX_DIFFERENCE[thumbnails.shape[1] // THUMBNAIL**2]
    near = 2 * (1 - similarity) <= limit**2  # the mean square of their difference
    index = prints.compared[rows]
    return Pairs(index[first[near]], index[second[near]], similarity[near], bounded)


def _candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs whose hashes differ in at most MAX_BITS, as two arrays of positions; and of how many rows some were left out."""
    packed = np.packbits(hashes, axis=1).view(np.uint64).ravel()
    pairs, counts = [np.empty((2, 0), np.int64)], np.zeros(len(packed), np.int64)
    for start in range(0, len(packed), ROWS):
        columns = range(start, len(packed), COLUMNS)
        tiles = [_close(packed[start : start + ROWS], packed[column : column + COLUMNS], start - column) for column in columns]
        rows = np.concatenate([row for row, _, _, _ in tiles]) + start
        others = np.concatenate([other + column for (_, other, _, _), column in zip(tiles, columns, strict=True)])
        bits = np.concatenate([bits for _, _, bits, _ in tiles])
        counts[start : start + ROWS] = sum(found for _, _, _, found in tiles)
        pairs.append(_most_similar(rows, others, bits))
    first, second = np.concatenate(pairs, 1)
    return first, second, int((counts > CANDIDATES).sum())


def _close(hashes: np.ndarray, others: np.ndarray, ahead: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, other row and bits of hashes, uint64, that differ in at most MAX_BITS, and how many there are of each row.

    Of each row at most CANDIDATES are returned: where all images are alike, sorting all pairs took ten times as long as finding
    them. ahead: how many rows after `others` the hashes begin; a row is compared with later ones only.
    """
    bits = count_bits(hashes[:, None] ^ others)
    if ahead > -len(hashes):
        near = bits[:, : len(hashes)]
        near[np.arange(near.shape[1]) <= np.arange(len(hashes))[:, None] + ahead] = MAX_BITS + 1
    close = bits <= MAX_BITS
    many = np.count_nonzero(close) > CANDIDATES
    rows, columns = np.divmod(np.flatnonzero(close) if not many else np.empty(0, np.int64), len(others))
    counts = close.sum(1) if many else np.bincount(rows, minlength=len(hashes))
    if many and counts.max() <= CANDIDATES:
        rows, columns = np.nonzero(close)
    elif many:  # the most similar ones, of equal ones the first
        order = bits.astype(np.uint32) * len(others) + np.arange(len(others), dtype=np.uint32)
        columns = np.sort(np.argpartition(order, CANDIDATES - 1, axis=1)[:, :CANDIDATES], axis=1).ravel()
        rows = np.repeat(np.arange(len(hashes)), CANDIDATES)
        kept = close[rows, columns]
        rows, columns = rows[kept], columns[kept]
    return rows, columns, bits[rows, columns], counts


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
