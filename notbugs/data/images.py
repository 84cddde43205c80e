"""8-bit images, in memory or still encoded on disk."""

import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from tempfile import TemporaryFile
from typing import NamedTuple, TypeVar, cast, overload

import numpy as np
import torch
from torch import Tensor

from notbugs.atomic import not_writable
from notbugs.data.decode_notes import decode_notes
from notbugs.data.eight_bits import as_arrays
from notbugs.data.header_index import Known, known_files, run_in_use
from notbugs.data.names import Unreadable, printable, reject_unreadable
from notbugs.data.parallel import in_threads, map_images
from notbugs.data.pixel_arrays import PixelArrays
from notbugs.decoding.decode import DecodeOptions, brightened, decode, decode_in_process, place, resized
from notbugs.decoding.headers import EncodedImage, ImageFacts, Size, hash_of, read_header
from notbugs.errors import InputError

Index = slice | list[int] | Tensor
Decoded = tuple[np.ndarray, ImageFacts]
Kept = TypeVar("Kept")
# Bytes of pixels, in each process, above which images stay on disk and are decoded when indexed. Of images of more than
# FEW_VALUES an eighth: decoding one takes a small part of the time that a network needs for it
IN_MEMORY, FEW_VALUES = 2 * 2**30, 3 * 64 * 64
PNG_BATCH, PNG_BYTES = 1024, 2**24  # images encoded at a time, and their pixels: a data set need not fit into memory
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
    known : Known
        What is known of the files without opening them, by row.
    """

    files: Sequence[EncodedImage]
    rows: tuple[int, ...]
    locations: tuple[str, ...]
    size: Size
    options: DecodeOptions
    known: Known = field(default_factory=Known, repr=False, compare=False)

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

        def keep(row: int, decoded: Decoded) -> None:
            if not place(images, row, decoded[0]):  # files that changed, or are rotated by their EXIF tag
                height, width = decoded[0].shape[:2]
                raise ValueError(f"{width} x {height} pixels, all others {self.size[2]} x {self.size[1]}: pass --resize N")

        _, unreadable = _decode(Chosen(chosen.files, chosen.rows), chosen.locations, self.options, keep)
        reject_unreadable(unreadable, skip_unreadable=False)
        return torch.from_numpy(images)

    def hashes(self) -> list[bytes]:
        """A hash of the bytes of each file, which is read once: subsets share what is known."""
        digests = self.known.digests
        missing = {row: location for row, location in zip(self.rows, self.locations, strict=True) if row not in digests}
        rows, locations = list(missing), list(missing.values())
        found, unreadable = map_images(hash_of, hash_of, Chosen(self.files, rows), locations, lambda _, digest: digest)
        reject_unreadable(unreadable, skip_unreadable=False)
        digests.update((row, digest) for row, digest in zip(rows, found, strict=True) if digest)
        return [digests[row] for row in self.rows]

    def select(self, index: Index) -> "LazyImages":
        """The images at index, still encoded."""
        kept = positions(index, len(self))
        return replace(self, rows=tuple(self.rows[i] for i in kept), locations=tuple(self.locations[i] for i in kept))


Images = Tensor | LazyImages


@dataclass(frozen=True)
class Repeated:
    """Images several times over, none of which is copied: `len`, `shape` and indexing by a slice as of a uint8 tensor."""

    images: Images
    times: int

    def __len__(self) -> int:
        return len(self.images) * self.times

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""
        return torch.Size((len(self), *self.images.shape[1:]))

    def __getitem__(self, index: slice) -> Tensor:
        return self.images[torch.arange(len(self))[index] % max(1, len(self.images))]


@dataclass(frozen=True)
class Chosen(Sequence[EncodedImage]):
    """Some of the files, each taken from them when it is indexed: rows of a table are read then."""

    files: Sequence[EncodedImage]
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...
    def __getitem__(self, index: int | slice) -> "EncodedImage | Chosen":
        return Chosen(self.files, self.rows[index]) if isinstance(index, slice) else self.files[self.rows[index]]


class LoadedImages(NamedTuple):
    """The readable images, their positions among those asked for, the unreadable ones, and notes for the user."""

    images: Images
    kept: list[int]
    unreadable: list[Unreadable]
    notes: tuple[str, ...] = ()


def load_images(
    files: Sequence[EncodedImage] | PixelArrays,
    rows: Sequence[int],
    locations: Sequence[str],
    *,
    options: DecodeOptions = DEFAULT,
    skip_unreadable: bool = False,
) -> LoadedImages:
    """Decode images, or leave them on disk where they would need too much memory.

    From 256 MB on; images of up to 64x64 pixels from 2 GB on.

    Parameters
    ----------
    files : sequence of EncodedImage, or PixelArrays
    rows : sequence of int
        Which of the files.
    locations : sequence of str
        Where each of these is, for messages.
    options : DecodeOptions
    skip_unreadable : bool
        Leave out what cannot be read, instead of raising InputError.
    """
    if isinstance(files, PixelArrays):
        return _of_pixels(files, rows, options)
    headers, _ = _read_headers(Chosen(files, rows[:SAMPLE]), locations[:SAMPLE], options.resize)
    sizes = [facts.size(options.resize) for facts in headers if facts]
    largest = max((3 * height * width for _, height, width in sizes), default=0)
    if largest * len(rows) > (IN_MEMORY if largest <= FEW_VALUES else IN_MEMORY // 8):
        return _load_lazily(files, rows, locations, options, skip_unreadable)
    return _decode_all(files, rows, locations, options, skip_unreadable, _likely_size(sizes))


def _of_pixels(files: PixelArrays, rows: Sequence[int], options: DecodeOptions) -> LoadedImages:
    """Images that are pixels already, with their white, and resized: read a few at a time, each into its place."""
    _, channels, height, width = files.shape
    side = (options.resize, options.resize) if options.resize else (height, width)
    images, highest = _empty((len(rows), channels, *side)), 0
    for positions, found in files.chosen(rows):
        highest = max(highest, int(found.max()))
        bright = brightened(found, options.white) if options.white and options.white < 255 else found
        images[positions] = _resized(bright, options)
    facts = [ImageFacts(channels, height, width, False, False, False, highest=highest if rows else None)] * len(rows)
    return LoadedImages(torch.from_numpy(images), list(range(len(rows))), [], decode_notes(facts, options))


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of 8-bit pixels; in a run, one of more than `IN_MEMORY` bytes is a file on its disk, without a name."""
    run, size = run_in_use(), math.prod(shape)
    if run is None or size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = next(place for place in (run, *run.absolute().parents) if place.is_dir())
    try:
        with TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise not_writable(folder, error) from None


def _read_headers(
    images: Sequence[EncodedImage], locations: Sequence[str], resize: int | None
) -> tuple[list[ImageFacts | None], list[Unreadable]]:
    read = partial(read_header, resize=resize)
    return map_images(read, read, images, locations, lambda _, facts: facts)


def _decode(
    images: Sequence[EncodedImage], locations: Sequence[str], options: DecodeOptions, keep: Callable[[int, Decoded], Kept]
) -> tuple[list[Kept | None], list[Unreadable]]:
    elsewhere = partial(decode_in_process, options=options)
    return map_images(partial(decode, options=options), elsewhere, images, locations, keep)


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
    known = known_files(files, rows, options.resize)
    new = [i for i, row in enumerate(rows) if row not in known.facts]
    headers, unreadable = _read_headers(Chosen(files, [rows[i] for i in new]), [locations[i] for i in new], options.resize)
    reject_unreadable(unreadable, skip_unreadable)
    known.facts.update((rows[i], facts) for i, facts in zip(new, headers, strict=True) if facts is not None)
    kept = [i for i, row in enumerate(rows) if row in known.facts]
    facts_of = [known.facts[rows[i]] for i in kept]
    readable = [locations[i] for i in kept]
    size = common_size([facts.size(options.resize) for facts in facts_of], readable)
    kinds = [[kept[i] for i, facts in enumerate(facts_of) if facts.gray_16 == wide] for wide in (True, False)]
    sample = [row for rows in kinds for row in rows[:: -(-len(rows) // SAMPLE) or 1]]
    looked_at, _ = _decode(
        Chosen(files, [rows[i] for i in sample]), [locations[i] for i in sample], options, lambda _, found: found[1]
    )
    notes = decode_notes(facts_of, options, [facts for facts in looked_at if facts])
    images = LazyImages(files, tuple(rows[i] for i in kept), tuple(readable), size, options, known)
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
    sizes: set[tuple[int, ...]] = set()

    def keep(row: int, decoded: Decoded) -> ImageFacts:
        array, facts = decoded
        sizes.add(array.shape[:2])
        if len(sizes) > 1:  # will be refused: the pixels of images of any size could be more than fits into memory
            others.clear()
        elif not place(images, row, array):
            others[row] = array
        return facts

    found, unreadable = _decode(Chosen(files, rows), locations, options, keep)
    reject_unreadable(unreadable, skip_unreadable)
    kept = [row for row, facts in enumerate(found) if facts is not None]
    if not kept:
        raise InputError(printable(locations[0]), "no image could be read", unreadable[0].reason, "repair or replace the images")
    known = [facts for facts in found if facts is not None]
    size = common_size([facts.size(options.resize) for facts in known], [locations[row] for row in kept])
    whole = _whole(images, others, kept, size)
    return LoadedImages(torch.from_numpy(whole), kept, unreadable, decode_notes(known, options))


def common_size(sizes: Sequence[Size], locations: Sequence[str]) -> Size:
    """C, H, W of a data set: three channels if any image has color. Raises InputError unless all have one height and width."""
    common, _ = Counter((height, width) for _, height, width in sizes).most_common(1)[0]
    for (_, height, width), location in zip(sizes, locations, strict=True):
        if (height, width) != common:
            rule = f"all images must have one size, the most common is {common[1]} x {common[0]} pixels"
            raise InputError(printable(location), rule, f"{width} x {height}", "pass --resize N to make all N x N")
    return max(channels for channels, _, _ in sizes), *common


def _whole(images: np.ndarray, others: dict[int, np.ndarray], kept: Sequence[int], size: Size) -> np.ndarray:
    """The decoded images of the rows that are kept, in one array: `images` itself where all are as they were expected."""
    whole = images if images.shape[1:] == size else np.empty((len(kept), *size), np.uint8)
    for new, row in enumerate(kept):
        if row in others:
            place(whole, new, others.pop(row))
        elif whole is not images or new != row:
            whole[new] = images[row][: size[0]]  # gray in one channel, or in three that are equal
    return whole[: len(kept)]


def _resized(images: np.ndarray, options: DecodeOptions) -> np.ndarray:
    """Images uint8 (N, C, H, W) resized as the options say."""
    from PIL import Image

    if not options.resize:
        return images
    array = np.empty((len(images), images.shape[1], options.resize, options.resize), np.uint8)
    for row, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        place(array, row, np.asarray(resized(Image.fromarray(np.ascontiguousarray(pixels)), options)))
    return array


def encode_png(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order."""
    from PIL import Image

    def encode(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # 6 takes three times as long for a tenth less
        return buffer.getvalue()

    step = max(1, min(PNG_BATCH, PNG_BYTES // max(1, math.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        yield from in_threads(encode, list(as_arrays(images[start : start + step])))


def positions(index: Index, total: int) -> list[int]:
    """The positions among `total` that an index selects, in its order."""
    return cast(list[int], torch.arange(total)[index].tolist())
