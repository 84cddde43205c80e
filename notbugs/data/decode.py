"""From encoded images to 8-bit arrays, many at a time, with a reason for every file that cannot be decoded."""

import io
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from notbugs.data.names import Unreadable, first_line, printable
from notbugs.errors import InputError

if TYPE_CHECKING:
    from PIL import Image as PILImage

EncodedImage = Path | bytes | Mapping[str, Any]  # a file, its bytes, or a Hugging Face cell {"bytes": …, "path": …}
Size = tuple[int, int, int]  # C, H, W
Item = TypeVar("Item")
Value = TypeVar("Value")

MAX_PIXELS = 2**26  # of one image, 8192 x 8192: a file that claims more is a mistake or a decompression bomb
THREADS = min(16, os.cpu_count() or 1)
LEAST_TIMED, TIMED, LONG = 5, 15, 4e-4  # items; seconds for one
FIRST_AHEAD = 250  # items that threads take before some are timed again
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
# What browsers and cameras write. Not all that Pillow can open: EPS would start Ghostscript, TGA accepts almost any bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")


def map_in_threads(
    function: Callable[[Item], Value], items: Sequence[Item], locations: Sequence[str]
) -> tuple[list[Value | None], list[Unreadable]]:
    """Apply a function to each item, in threads where that is faster.

    Parameters
    ----------
    function : callable
    items : sequence
    locations : sequence of str
        Where each item is, for messages.

    Returns
    -------
    (list, list of Unreadable)
        One result per item, None where the function failed; and the failures.
    """
    from PIL import Image

    Image.init()  # not safe to happen in several threads at once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings on big images and odd metadata: we refuse, or it does not matter
        results = in_threads(lambda item: _attempt(function, item), items)
    failures = [Unreadable(location, reason) for location, (_, reason) in zip(locations, results, strict=True) if reason]
    return [value for value, _ in results], failures


def in_threads(function: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """One result per item, in order. A few items are timed first, and again later: if they are short, they stay in this thread.

    Pillow decodes without the interpreter lock, but small images wait longer for that lock than they take: two threads need
    0.31 ms for an image of 32x32 pixels, one needs 0.16; of 224x224 pixels 0.75 and 1.31 ms.
    """
    results: list[Value] = []
    ahead = FIRST_AHEAD
    with ThreadPoolExecutor(THREADS) as pool:
        while len(results) < len(items):
            began = time.perf_counter()
            for count, item in enumerate(items[len(results) : len(results) + TIMED], start=1):
                results.append(function(item))
                if time.perf_counter() - began > LONG * max(LEAST_TIMED, count):
                    results += pool.map(function, items[len(results) : len(results) + ahead])
                    ahead *= 2
                    break
    return results


def _attempt(function: Callable[[Item], Value], item: Item) -> tuple[Value | None, str]:
    """The function's result and no reason, or None and the reason for its failure."""
    try:
        return function(item), ""
    except Exception as error:  # damaged files make decoders raise almost anything
        return None, f"cannot be read as an image ({first_line(error)})"


def encoded_bytes(image: EncodedImage) -> bytes:
    """The bytes of an encoded image: of a link, those of the file it leads to."""
    if isinstance(image, Mapping):
        image = image["bytes"] if image.get("bytes") is not None else Path(image["path"])
    return image.read_bytes() if isinstance(image, Path) else image


def image_format(content: bytes) -> str:
    """The usual suffix, without the dot, of the format that the bytes of an image have, whatever their file is called."""
    with _opened(content) as opened:
        found = str(opened.format).lower()
    return {"jpeg": "jpg", "jpeg2000": "jp2", "dib": "bmp", "tiff": "tif"}.get(found, found)


@contextmanager
def _opened(image: EncodedImage) -> Iterator["PILImage.Image"]:
    """The image opened by Pillow, not yet decoded. Raises ValueError with the reason if it must not be decoded."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Mapping):
        image = image["bytes"] if image.get("bytes") is not None else Path(image["path"])
    if (image.stat().st_size if isinstance(image, Path) else len(image)) == 0:
        raise ValueError("the file is empty")
    try:
        formats = [name for name in FORMATS if name in Image.OPEN]  # not every Pillow is built with all
        opened = Image.open(image if isinstance(image, Path) else io.BytesIO(image), formats=formats)
    except UnidentifiedImageError:
        raise ValueError("no image format that is known here") from None
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than the {MAX_PIXELS:,} allowed")
        if opened.mode == "F":
            raise ValueError("floating-point pixels have no white")
        yield opened


def image_size(image: EncodedImage, resize: int | None) -> Size:
    """C, H, W from the header alone, without decoding."""
    with _opened(image) as opened:
        channels = 1 if opened.mode in GRAY_MODES else 3
        return (channels, resize, resize) if resize else (channels, opened.height, opened.width)


def decode(image: EncodedImage, resize: int | None) -> np.ndarray:
    """An encoded image as uint8 (H, W) if it is gray, (H, W, 3) otherwise.

    Transparency is laid on white, the camera's orientation applied, 16-bit gray scaled so that 65535 is white.
    """
    from PIL import Image, ImageOps

    with _opened(image) as opened:
        gray = opened.mode in GRAY_MODES
        decoded = ImageOps.exif_transpose(opened)
        if decoded.mode.startswith("I"):
            wide = np.asarray(decoded).astype(np.int64)
            if wide.min() < 0 or wide.max() > 65535:
                raise ValueError(f"values from {wide.min()} to {wide.max()}, more than 16 bits")
            decoded = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
        elif decoded.has_transparency_data:
            white = Image.new("RGBA", decoded.size, "white")
            white.alpha_composite(decoded.convert("RGBA"))
            decoded = white
        return np.asarray(_resized(decoded.convert("L" if gray else "RGB"), resize))


def _resized(image: "PILImage.Image", side: int | None) -> "PILImage.Image":
    from PIL import Image

    return image.resize((side, side), Image.Resampling.BICUBIC) if side else image


def common_size(sizes: Sequence[Size], locations: Sequence[str]) -> Size:
    """C, H, W of a data set: three channels if any image has color. Raises InputError unless all have one height and width."""
    common, _ = Counter((height, width) for _, height, width in sizes).most_common(1)[0]
    for (_, height, width), location in zip(sizes, locations, strict=True):
        if (height, width) != common:
            rule = f"all images must have one size, most are {common[1]} x {common[0]} pixels"
            raise InputError(printable(location), rule, f"{width} x {height}", "pass --resize N to make all N x N")
    return max(channels for channels, _, _ in sizes), *common


def stack(arrays: Sequence[np.ndarray], locations: Sequence[str], size: Size) -> Tensor:
    """uint8 (N, C, H, W) from arrays (H, W) or (H, W, 3)."""
    channels, height, width = size
    images = np.empty((len(arrays), channels, height, width), np.uint8)
    for image, array, location in zip(images, arrays, locations, strict=True):
        if array.shape[:2] != (height, width):  # only LazyImages, whose files changed or are rotated by their EXIF tag
            common_size([(channels, *array.shape[:2]), size, size], [location, "", ""])
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(images)


def resize_images(images: Tensor, side: int) -> Tensor:
    """Images uint8 (N, C, H, W) resized to side x side pixels, antialiased."""
    from PIL import Image

    arrays = [np.asarray(_resized(Image.fromarray(array), side)) for array in as_arrays(images)]
    return stack(arrays, [""] * len(arrays), (images.shape[1], side, side))


def as_arrays(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) as files hold them: (N, H, W) or (N, H, W, 3)."""
    array = images.numpy()
    return np.ascontiguousarray(array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1))
