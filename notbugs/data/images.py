"""8-bit images, in memory or still encoded on disk."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from notbugs.data.decode import (
    DecodeOptions,
    EncodedImage,
    ImageFacts,
    Size,
    as_arrays,
    common_size,
    decode,
    hash_of,
    place,
    read_header,
    resize_images,
)
from notbugs.data.decode_notes import decode_notes
from notbugs.data.names import Unreadable, printable, reject_unreadable
from notbugs.data.threads import in_threads, map_in_threads
from notbugs.errors import InputError

Index = slice | list[int] | Tensor
IN_MEMORY = 2 * 2**30  # bytes of pixels above which images stay on disk and are decoded when indexed
PNG_BATCH = 1024  # images encoded at a time: a data set need not fit into memory
SAMPLE = 32  # images whose headers tell the size of all, and of a data set on disk those whose 16-bit values are looked at
DEFAULT = DecodeOptions()


@dataclass(frozen=True)
class LazyImages:
    """Images that stay encoded until indexed: `len`, `shape` and indexing as of a uint8 tensor (N, C, H, W).

    Only the headers were checked at loading: indexing a damaged file raises InputError.

    Attributes
    ----------
    files : sequence of EncodedImage
    rows : tuple of int
        Which of the files, in order.
    locations : tuple of str
        Where each image is, for messages.
    size : (C, H, W)
    options : DecodeOptions
        To what size each image is resized, for example.
    known_hashes : dict
        Of the files that were hashed, by row.
    """

    files: Sequence[EncodedImage]
    rows: tuple[int, ...]
    locations: tuple[str, ...]
    size: Size
    options: DecodeOptions
    known_hashes: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""
        return torch.Size((len(self), *self.size))

    def __getitem__(self, index: Index) -> Tensor:
        chosen = self.select(index)
        if not len(chosen):
            return torch.empty(chosen.shape, dtype=torch.uint8)
        images = np.empty(chosen.shape, np.uint8)
        _, unreadable = map_in_threads(lambda row: chosen._decode(images, row), range(len(chosen)), chosen.locations)
        reject_unreadable(unreadable, skip_unreadable=False)
        return torch.from_numpy(images)

    def hashes(self) -> list[bytes]:
        """A hash of the bytes of each file, which is read once: subsets share what is known."""
        missing = {row: location for row, location in zip(self.rows, self.locations, strict=True) if row not in self.known_hashes}
        rows, locations = list(missing), list(missing.values())
        found, unreadable = map_in_threads(lambda row: hash_of(self.files[row]), rows, locations)
        reject_unreadable(unreadable, skip_unreadable=False)
        self.known_hashes.update((row, digest) for row, digest in zip(rows, found, strict=True) if digest)
        return [self.known_hashes[row] for row in self.rows]

    def _decode(self, images: np.ndarray, row: int) -> None:
        array, _ = decode(self.files[self.rows[row]], self.options)
        if not place(images, row, array):  # files that changed, or are rotated by their EXIF tag
            height, width = array.shape[:2]
            raise ValueError(f"{width} x {height} pixels, all others {self.size[2]} x {self.size[1]}: pass --resize N")

    def select(self, index: Index) -> "LazyImages":
        """The images at index, still encoded."""
        kept = positions(index, len(self))
        return replace(self, rows=tuple(self.rows[i] for i in kept), locations=tuple(self.locations[i] for i in kept))


Images = Tensor | LazyImages


class LoadedImages(NamedTuple):
    """The readable images, their positions among those asked for, the unreadable ones, and notes for the user."""

    images: Images
    kept: list[int]
    unreadable: list[Unreadable]
    notes: tuple[str, ...] = ()


def load_images(
    files: Sequence[EncodedImage] | Tensor,
    rows: Sequence[int],
    locations: Sequence[str],
    *,
    options: DecodeOptions = DEFAULT,
    skip_unreadable: bool = False,
) -> LoadedImages:
    """Decode images, or leave them on disk where they would need more than 2 GB of memory.

    Parameters
    ----------
    files : sequence of EncodedImage, or Tensor, uint8 (N, C, H, W)
    rows : sequence of int
        Which of the files.
    locations : sequence of str
        Where each of these is, for messages.
    options : DecodeOptions
    skip_unreadable : bool
        Leave out what cannot be read, instead of raising InputError.
    """
    if isinstance(files, Tensor):
        channels, height, width = files.shape[1:]
        facts = [ImageFacts(channels, height, width, False, False, False)] * len(rows)
        return LoadedImages(resize_images(files[list(rows)], options), list(range(len(rows))), [], decode_notes(facts, options))
    headers, _ = map_in_threads(lambda row: read_header(files[row], options), rows[:SAMPLE], locations[:SAMPLE])
    sizes = [facts.size(options.resize) for facts in headers if facts]
    largest = max((3 * height * width for _, height, width in sizes), default=0)
    if largest * len(rows) > IN_MEMORY:
        return _load_lazily(files, rows, locations, options, skip_unreadable)
    return _decode_all(files, rows, locations, options, skip_unreadable, _likely_size(sizes))


def _likely_size(sizes: Sequence[Size]) -> Size:
    """C, H, W that a sample tells of all images."""
    if not sizes:
        return 1, 1, 1
    height, width = Counter(size[1:] for size in sizes).most_common(1)[0][0]
    return max(channels for channels, _, _ in sizes), height, width


def _load_lazily(
    files: Sequence[EncodedImage],
    rows: Sequence[int],
    locations: Sequence[str],
    options: DecodeOptions,
    skip_unreadable: bool,
) -> LoadedImages:
    headers, unreadable = map_in_threads(lambda row: read_header(files[row], options), rows, locations)
    reject_unreadable(unreadable, skip_unreadable)
    kept = [i for i, facts in enumerate(headers) if facts is not None]
    known = [cast(ImageFacts, headers[i]) for i in kept]
    readable = [locations[i] for i in kept]
    size = common_size([facts.size(options.resize) for facts in known], readable)
    wide = [kept[i] for i, facts in enumerate(known) if facts.gray_16]
    sample = wide[:: -(-len(wide) // SAMPLE) or 1]
    looked_at, _ = map_in_threads(lambda i: decode(files[rows[i]], options)[1], sample, [locations[i] for i in sample])
    notes = decode_notes(known, options, [facts for facts in looked_at if facts])
    images = LazyImages(files, tuple(rows[i] for i in kept), tuple(readable), size, options)
    return LoadedImages(images, kept, unreadable, notes)


def _decode_all(
    files: Sequence[EncodedImage],
    rows: Sequence[int],
    locations: Sequence[str],
    options: DecodeOptions,
    skip_unreadable: bool,
    likely: Size,
) -> LoadedImages:
    images = np.empty((len(rows), *likely), np.uint8)
    others: dict[int, np.ndarray] = {}  # those that are not as expected

    def decode_row(row: int) -> ImageFacts:
        array, facts = decode(files[rows[row]], options)
        if not place(images, row, array):
            others[row] = array
        return facts

    found, unreadable = map_in_threads(decode_row, range(len(rows)), locations)
    reject_unreadable(unreadable, skip_unreadable)
    kept = [row for row, facts in enumerate(found) if facts is not None]
    if not kept:
        raise InputError(printable(locations[0]), "no image could be read")
    known = [facts for facts in found if facts is not None]
    size = common_size([facts.size(options.resize) for facts in known], [locations[row] for row in kept])
    whole = _whole(images, others, kept, size)
    return LoadedImages(torch.from_numpy(whole), kept, unreadable, decode_notes(known, options))


def _whole(images: np.ndarray, others: dict[int, np.ndarray], kept: Sequence[int], size: Size) -> np.ndarray:
    """The decoded images of the rows that are kept, in one array: `images` itself where all are as they were expected."""
    whole = images if images.shape[1:] == size else np.empty((len(kept), *size), np.uint8)
    for new, row in enumerate(kept):
        if row in others:
            place(whole, new, others.pop(row))
        elif whole is not images or new != row:
            whole[new] = images[row][: size[0]]  # gray in one channel, or in three that are equal
    return whole[: len(kept)]


def to_8bit(images: Tensor) -> Tensor:
    """Round float images in [0, 1] to the nearest of the 256 levels that a file holds: uint8.

    Examples
    --------
    >>> to_8bit(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def from_8bit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; `to_8bit` inverts it exactly."""
    return images.to(torch.float32) / 255


def encode_png(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order."""
    from PIL import Image

    def encode(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # 6 takes three times as long for a tenth less
        return buffer.getvalue()

    for start in range(0, len(images), PNG_BATCH):
        yield from in_threads(encode, list(as_arrays(images[start : start + PNG_BATCH])))


def positions(index: Index, total: int) -> list[int]:
    """The positions among `total` that an index selects, in its order."""
    return cast(list[int], torch.arange(total)[index].tolist())
