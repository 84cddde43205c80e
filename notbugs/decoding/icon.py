"""Sizes of the pictures in an .ico file, before Pillow opens it: opening decodes one, whatever its size."""

import struct
from typing import BinaryIO

from PIL import BmpImagePlugin, PngImagePlugin

MAGIC = b"\0\0\1\0"
PNG = b"\x89PNG\r\n\x1a\n"
MOST_PICTURES = 256  # one for each size that the format knows
ENTRY = struct.Struct("<8x4xI")  # of the list of pictures: where each begins


def largest_picture(stream: BinaryIO) -> int:
    """Pixels of the largest picture in an .ico file, by the headers of the pictures: the list has no size above 256 x 256.

    A file of 0.4 MB that holds a PNG of 138 million equal pixels takes 552 MB when it is opened.

    Raises
    ------
    ValueError
        If the file is damaged, or has more than 256 pictures.
    """
    stream.seek(len(MAGIC))
    count = int.from_bytes(stream.read(2), "little")
    if count > MOST_PICTURES:
        raise ValueError(f"an icon of {count:,} pictures, more than {MOST_PICTURES}")
    entries = stream.read(ENTRY.size * count)
    return max((_pixels(stream, offset) for (offset,) in ENTRY.iter_unpack(entries)), default=0)


def _pixels(stream: BinaryIO, offset: int) -> int:
    stream.seek(offset)
    is_png = stream.read(len(PNG)) == PNG
    stream.seek(offset)
    try:
        width, height = (PngImagePlugin.PngImageFile if is_png else BmpImagePlugin.DibImageFile)(stream).size
    except (SyntaxError, OSError, struct.error) as error:
        raise ValueError(str(error)) from None
    return width * (height if is_png else height // 2)  # a bitmap's mask lies below its colors
