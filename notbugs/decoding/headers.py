"""What an encoded image says of itself before it is decoded: its format, its size and its kind of pixels, or why it must not be
decoded.

Sizes are claims: a file of 0.4 MB may claim 138 million pixels. Nothing here reads pixels; that is for `decode`.
"""

import importlib
import io
import os
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from notbugs.decoding.foreign import BEGIN, foreign_content
from notbugs.decoding.icon import MAGIC as ICON
from notbugs.decoding.icon import largest_picture

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

EncodedImage = str | Path | bytes | Mapping[str, Any]  # a file, its bytes, or a Hugging Face cell {"bytes": …, "path": …}
Size = tuple[int, int, int]  # C, H, W

MAX_PIXELS = 2**26  # of one image, 8192 x 8192: a file that claims more is a mistake or a decompression bomb
# Of a JPEG file that is decoded at reduced size. Progressive ones take 6 bytes for each pixel of their full size: 1.6 GB.
MAX_JPEG_PIXELS = 2**28
MAX_ICON_PIXELS = 2**24  # of any picture in an .ico file, which Pillow decodes when it opens the file
SMALL = 2**16  # bytes of a file that is read at once
PHOTOMETRIC = 262  # TIFF tag; 0: white is 0
ORIENTATION = 0x0112  # EXIF tag; 1: as it is
ROTATED, SIDEWAYS = range(2, 9), range(5, 9)  # its values that change the image, and those that exchange height and width
EXIF_FIRST = ("TIFF",)  # formats that state it in their header, if not under "exif"
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
# What browsers and cameras write, and the modules of Pillow that read it. Not all that Pillow can open: EPS would start
# Ghostscript, TGA accepts almost any bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
MODULES = ("Png", "Jpeg", "Mpo", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Jpeg2K", "Avif", "Ico")


class ImageFacts(NamedTuple):
    """What is known of an image besides its pixels.

    Attributes
    ----------
    channels, height, width : int
        Before resizing, after the camera's orientation was applied.
    gray_16 : bool
        Whether the file has 16-bit gray values, which `white` says how to scale.
    color_16 : bool
        Whether the file has color or transparency of 16 bits, of which Pillow keeps 8.
    reduced : bool
        Whether the file is so large that it is decoded at reduced size.
    values : (int, int) or None
        Lowest and highest value of a 16-bit gray image that was decoded and whose file does not say which value is white.
    transparent : bool
        Whether the file has an alpha channel or a transparent color, which is laid on white.
    animated : bool
        Whether the file has further frames or pages, which are not used.
    cmyk : bool
        Whether the file has the colors of a printer, which become RGB without their color profile.
    rotated : bool
        Whether the camera's orientation, which the file states, rotates or mirrors the image.
    highest : int or None
        Highest value of an 8-bit image that was decoded, before `white` is applied; None where it is known to be bright.
    """

    channels: int
    height: int
    width: int
    gray_16: bool
    color_16: bool
    reduced: bool
    values: tuple[int, int] | None = None
    transparent: bool = False
    animated: bool = False
    cmyk: bool = False
    rotated: bool = False
    highest: int | None = None

    def size(self, resize: int | None) -> Size:
        """C, H, W of the image once it is resized."""
        return (self.channels, resize, resize) if resize else (self.channels, self.height, self.width)


def source_of(image: EncodedImage) -> Path | bytes:
    """The bytes of a small file, or the path of a large one, which Pillow reads in parts."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Mapping):
        return image["bytes"] if image.get("bytes") is not None else source_of(image["path"])
    with open(image, "rb") as stream:
        data = stream.read(SMALL)
    return data if len(data) < SMALL else Path(image)


def encoded_bytes(image: EncodedImage) -> bytes:
    """The bytes of an encoded image: of a link, those of the file it leads to."""
    source = source_of(image)
    return source.read_bytes() if isinstance(source, Path) else source


def hash_of(image: EncodedImage) -> bytes:
    """A hash of the bytes of an encoded image. Large files are read in parts."""
    source = source_of(image)
    if isinstance(source, bytes):
        return blake2b(source, digest_size=16).digest()
    with source.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).digest()


def image_format(content: bytes) -> str:
    """The usual suffix, without the dot, of the format that the bytes of an image have, whatever their file is called."""
    with open_image(content) as opened:
        found = str(opened.format).lower()
    return {"jpeg": "jpg", "jpeg2000": "jp2", "dib": "bmp", "tiff": "tif"}.get(found, found)


def facts_of(opened: "ImageFile", resize: int | None) -> ImageFacts:
    """What the header of an image says. Raises ValueError if the image must not be decoded, which may depend on `resize`."""
    reduced = opened.width * opened.height > MAX_PIXELS
    if reduced:
        _reduce(opened, resize)
    if opened.mode == "F":
        raise ValueError("floating-point pixels have no white")
    if opened.format == "PPM":
        _check_payload(opened)
    gray_16 = opened.mode.startswith("I")
    color_16 = not gray_16 and _bits_of_tile(opened) == 16
    transparent = opened.has_transparency_data
    channels = 1 if opened.mode in GRAY_MODES else 3
    # Of a PNG file, asking for what it does not state decodes it; asking takes a third of the time that a small image takes
    orientation = opened.getexif().get(ORIENTATION, 1) if opened.format in EXIF_FIRST or "exif" in opened.info else 1
    height, width = (opened.width, opened.height) if orientation in SIDEWAYS else (opened.height, opened.width)
    animated, cmyk, rotated = _is_animated(opened), opened.mode == "CMYK", orientation in ROTATED
    return ImageFacts(channels, height, width, gray_16, color_16, reduced, None, transparent, animated, cmyk, rotated)


def _is_animated(opened: "ImageFile") -> bool:
    """Whether there are further frames or pages. The second picture of a camera's MPO file is a copy, or another exposure."""
    try:
        return opened.format != "MPO" and bool(getattr(opened, "is_animated", False))
    except (OSError, SyntaxError, ValueError):  # what follows the first frame is damaged, and not needed
        return True


def open_image(image: Path | bytes) -> "ImageFile":
    """An image whose header was read. Raises ValueError for what is no image of a known format, or claims too many pixels."""
    _check_icon(image)
    try:
        return Image.open(image if isinstance(image, Path) else io.BytesIO(image), formats=_formats())
    except UnidentifiedImageError:
        raise ValueError(_what_it_is(image)) from None
    except Image.DecompressionBombError:  # Pillow's limit; it would have to be changed for all threads
        pass
    try:
        return JpegImagePlugin.JpegImageFile(image if isinstance(image, Path) else io.BytesIO(image))
    except SyntaxError:
        raise ValueError(_too_large("its size is")) from None


def _what_it_is(image: Path | bytes) -> str:
    """What a file is that is no image."""
    if isinstance(image, Path):
        with image.open("rb") as stream:
            image = stream.read(BEGIN)
    if found := foreign_content(image[:BEGIN]):
        return f"it {found[0]}: {found[1]}"
    return "no image format that is known here" if image else "the file is empty"


def _check_icon(image: Path | bytes) -> None:
    """Raises ValueError for an .ico file with a picture that no icon has: Pillow decodes it when it opens the file."""
    if isinstance(image, bytes) and not image.startswith(ICON):  # as almost all
        return
    with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as stream:
        if stream.read(len(ICON)) == ICON and (pixels := largest_picture(stream)) > MAX_ICON_PIXELS:
            raise ValueError(f"an icon of {pixels:,} pixels, more than the {MAX_ICON_PIXELS:,} allowed")


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads."""
    for name in MODULES:  # here, because Pillow imports all its modules otherwise, and that is not safe in several threads
        try:
            importlib.import_module(f"PIL.{name}ImagePlugin")
        except ImportError:  # AVIF before Pillow 11.3
            continue
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reduce(opened: "ImageFile", resize: int | None) -> None:
    """Have a large JPEG file decoded at a half, a quarter or an eighth of its size, which takes memory for that size only."""
    from PIL.JpegImagePlugin import JpegImageFile

    width, height = opened.size
    if resize and isinstance(opened, JpegImageFile) and width * height <= MAX_JPEG_PIXELS:
        factor = next(factor for factor in (2, 4, 8) if -(-width // factor) * -(-height // factor) <= MAX_PIXELS)
        opened.draft(None, (width // factor, height // factor))  # type: ignore[no-untyped-call, unused-ignore]
        if opened.width * opened.height <= MAX_PIXELS and min(opened.size) >= resize:
            return
    raise ValueError(_too_large(f"{width} x {height} pixels,"))


def _too_large(size: str) -> str:
    return f"{size} more than the {MAX_PIXELS:,} pixels allowed; make it smaller, or JPEG and pass --resize N"


def white_of_header(opened: "ImageFile") -> int | None:
    """The value that is white by the header of a PPM file that was not decoded yet; None of others."""
    arguments = opened.tile[0].args if opened.tile else None
    if opened.format != "PPM" or not isinstance(arguments, tuple) or len(arguments) != 2 or not arguments[1]:
        return None
    return int(arguments[1])


def is_white_zero(opened: "ImageFile") -> bool:
    """Whether a TIFF file says that 0 is white. Pillow inverts such images of up to 8 bits, and none of 16."""
    return opened.format == "TIFF" and getattr(opened, "tag_v2", {}).get(PHOTOMETRIC) == 0


def _bits_of_tile(opened: "ImageFile") -> int:
    """Bits of each value in the file, if Pillow says that there are 16; else 8."""
    if (white := white_of_header(opened)) is not None:
        return 16 if white > 255 else 8
    return 16 if opened.format in ("PNG", "TIFF") and opened.tile and ";16" in str(opened.tile[0].args) else 8


def _check_payload(opened: "ImageFile") -> None:
    """Raises ValueError unless the file is as long as its header says. Line ends that were converted make it longer."""
    tile = opened.tile[0]
    if tile.codec_name == "ppm_plain" or opened.fp is None:
        return
    width, height = opened.size
    row = -(-width // 8) if opened.mode == "1" else width * len(opened.getbands())
    size = row * height * (2 if opened.mode.startswith("I") or _bits_of_tile(opened) == 16 else 1)
    found = opened.fp.seek(0, os.SEEK_END) - tile.offset
    if found != size:
        cause = ": line ends were converted, as in a text file" if found > size else ""
        raise ValueError(f"{found:,} bytes of pixels, but {width} x {height} pixels take {size:,}{cause}")


def read_header(image: EncodedImage, resize: int | None) -> ImageFacts:
    """What the header of an image says, without decoding. Raises ValueError as `facts_of` does."""
    with open_image(source_of(image)) as opened:
        return facts_of(opened, resize)
