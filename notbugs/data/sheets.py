"""Many images in one picture, side by side: for pages that show thousands of them."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from notbugs.atomic import StrPath, atomic_write
from notbugs.data.eight_bits import as_arrays
from notbugs.errors import InputError

SHEET_SIDE = 320  # pixels, if images are smaller
MOST_COLUMNS = 10


def sheet_columns(height: int, width: int) -> int:
    """Images per row and per column of a sheet: small, so that a page that shows a few files decodes few others.

    Examples
    --------
    >>> sheet_columns(8, 8), sheet_columns(64, 64), sheet_columns(224, 224)
    (10, 5, 1)
    """
    return min(max(SHEET_SIDE // max(height, width), 1), MOST_COLUMNS)


def save_sheet(images: Tensor, path: StrPath, *, columns: int, lossless: bool = True) -> None:
    """Save images side by side as one WebP picture.

    Parameters
    ----------
    images : Tensor, uint8, (N, C, H, W)
        Row by row; what is left of the last row stays black.
    path : str or path
        Its folder is created.
    columns : int
    lossless : bool
        If not, at quality 85.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = Path(path)
    from PIL import Image

    count, channels, height, width = images.shape
    rows = -(-count // columns)
    padded = torch.cat([images, images.new_zeros(rows * columns - count, channels, height, width)])
    sheet = padded.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    array = as_arrays(sheet.reshape(1, channels, rows * height, columns * width))[0]
    buffer = io.BytesIO()
    # of a lossless picture quality is the effort: more takes 14 times as long for 5 % less (32x32 pixels)
    Image.fromarray(array).save(buffer, "WEBP", lossless=lossless, quality=20 if lossless else 85, method=0 if lossless else 4)
    atomic_write(path, lambda stream: stream.write(buffer.getvalue()))


def load_sheet(path: StrPath, count: int, *, columns: int, height: int, width: int) -> np.ndarray:
    """The first `count` images of a sheet as RGB, uint8 (count, H, W, 3). Raises InputError if it cannot be read."""
    path = Path(path)
    from PIL import Image

    try:
        with Image.open(path) as picture:
            array = np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise InputError(str(path), "must be a picture that the run wrote", error.strerror or str(error)) from None
    tiles = array.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
    return tiles.reshape(-1, height, width, 3)[:count]


def thumbnails(images: Tensor, side: int) -> Tensor:
    """Images uint8 (N, C, H, W) made smaller, so that neither height nor width is more than `side` pixels."""
    height, width = images.shape[2:]
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    smaller = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return smaller.round().clamp(0, 255).to(torch.uint8)
