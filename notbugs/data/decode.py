"""From an encoded image to 8-bit arrays, many at a time, whatever the file turns out to be."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from notbugs.data.names import first_line, printable
from notbugs.errors import InputError

Source = Path | bytes | Mapping[str, Any]  # a file, its bytes, or a Hugging Face cell {"bytes": …, "path": …}
Row = TypeVar("Row")
Value = TypeVar("Value")

MAX_PIXELS = 2**26  # of one image, 8192 x 8192: what claims more is a mistake or a decompression bomb
THREADS = min(16, os.cpu_count() or 1)
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
# What browsers and cameras write. Not all that Pillow can open: EPS would start Ghostscript, TGA takes almost any bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")


def each(
    function: Callable[[Row], Value], rows: Sequence[Row], places: Sequence[str]
) -> tuple[list[Value | None], list[tuple[str, str]]]:
    """function of each row, in threads (Pillow decodes without the lock); None, and place and reason, where it failed."""
    from PIL import Image

    Image.init()  # not safe to happen in several threads at once
    with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about big images and odd metadata: we refuse, or it does not matter
        results = list(pool.map(lambda row: attempt(lambda: function(row)), rows))
    return [value for value, _ in results], [(p, reason) for p, (_, reason) in zip(places, results, strict=True) if reason]


def attempt(function: Callable[[], Value]) -> tuple[Value | None, str]:
    """What function() returns, and ""; or None, and why it could not."""
    try:
        return function(), ""
    except Exception as error:  # damaged files make decoders raise almost anything
        return None, f"cannot be read as an image ({first_line(error)})"


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else Path(source["path"])
    if (source.stat().st_size if isinstance(source, Path) else len(source)) == 0:
        raise ValueError("the file is empty")
    try:
        formats = [name for name in FORMATS if name in Image.OPEN]  # not every Pillow is built with all
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=formats)
    except UnidentifiedImageError:
        raise ValueError("no image format that is known here") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed")
        if image.mode == "F":
            raise ValueError("floating-point pixels have no white")
        yield image


def head(source: Source, resize: int | None) -> tuple[int, int, int]:
    """C, H, W without decoding."""
    with _opened(source) as image:
        channels = 1 if image.mode in GREY else 3
        return (channels, resize, resize) if resize else (channels, image.height, image.width)


def decode(source: Source, resize: int | None) -> np.ndarray:
    """uint8 (H, W) of a grey image, (H, W, 3) of any other."""
    from PIL import Image, ImageOps

    with _opened(source) as opened:
        grey = opened.mode in GREY
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            wide = np.asarray(image).astype(np.int64)
            if wide.min() < 0 or wide.max() > 65535:
                raise ValueError(f"values from {wide.min()} to {wide.max()}, more than 16 bits")
            image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
        elif image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            image = white
        return np.asarray(_square(image.convert("L" if grey else "RGB"), resize))


def _square(image: Any, side: int | None) -> Any:
    from PIL import Image

    return image.resize((side, side), Image.Resampling.BICUBIC) if side else image


def one_size(sizes: list[tuple[int, int, int]], places: Sequence[str]) -> tuple[int, int, int]:
    """C, H, W of a set: three channels if any image has colour; all must be equally large."""
    common, _ = Counter((height, width) for _, height, width in sizes).most_common(1)[0]
    for (_, height, width), place in zip(sizes, places, strict=True):
        if (height, width) != common:
            rule = f"all images must have one size, most are {common[1]} x {common[0]} pixels"
            raise InputError(printable(place), rule, f"{width} x {height}", "pass --resize N to make all N x N")
    return max(channels for channels, _, _ in sizes), *common


def stack(arrays: Sequence[np.ndarray], places: Sequence[str], size: tuple[int, int, int]) -> Tensor:
    """uint8 (N, C, H, W) from arrays (H, W) or (H, W, 3)."""
    channels, height, width = size
    images = np.empty((len(arrays), channels, height, width), np.uint8)
    for image, array, place in zip(images, arrays, places, strict=True):
        if array.shape[:2] != (height, width):  # only a Lazy set, whose files changed or are turned by their EXIF tag
            one_size([(channels, *array.shape[:2]), size, size], [place, "", ""])
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(images)


def resized(images: Tensor, side: int) -> Tensor:
    from PIL import Image

    arrays = [np.asarray(_square(Image.fromarray(array), side)) for array in as_arrays(images)]
    return stack(arrays, [""] * len(arrays), (images.shape[1], side, side))


def as_arrays(images: Tensor) -> np.ndarray:
    """(N, H, W) or (N, H, W, 3), as files hold them."""
    array = images.numpy()
    return np.ascontiguousarray(array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1))
