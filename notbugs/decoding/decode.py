"""From an encoded image to an 8-bit array, or the reason why it cannot be decoded."""

import importlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from notbugs.decoding.foreign import BEGIN, foreign_content
from notbugs.decoding.icon import MAGIC as ICON
from notbugs.decoding.icon import largest_picture
from notbugs.decoding.memory import Memory

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from PIL.ImageFile import ImageFile

EncodedImage = str | Path | bytes | Mapping[str, Any]  # a file, its bytes, or a Hugging Face cell {"bytes": …, "path": …}
Size = tuple[int, int, int]  # C, H, W

MAX_PIXELS = 2**26  # of one image, 8192 x 8192: a file that claims more is a mistake or a decompression bomb
# Of a JPEG file that is decoded at reduced size. Progressive ones take 6 bytes for each pixel of their full size: 1.6 GB.
MAX_JPEG_PIXELS = 2**28
MAX_ICON_PIXELS = 2**24  # of any picture in an .ico file, which Pillow decodes when it opens the file
SMALL = 2**16  # bytes of a file that is read at once
AT_ONCE = 2**30  # bytes of memory for decoding in all threads; an image that takes more is decoded alone
LIGHT = 2**22  # bytes for an image that are not counted
MOST_IN_PROCESS = 2**26  # bytes for an image in one of several worker processes
MEMORY = Memory(AT_ONCE)
_KNOWN: dict["ImageFacts", "ImageFacts"] = {}  # in a worker process
WHITE = 65535  # of 16-bit images
ORIENTATION = 0x0112  # EXIF tag; 1: as it is
ROTATED, SIDEWAYS = range(2, 9), range(5, 9)  # its values that change the image, and those that exchange height and width
EXIF_FIRST = ("TIFF",)  # formats that state it in their header, if not under "exif"
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
# What browsers and cameras write, and the modules of Pillow that read it. Not all that Pillow can open: EPS would start
# Ghostscript, TGA accepts almost any bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
MODULES = ("Png", "Jpeg", "Mpo", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Jpeg2K", "Avif", "Ico")


@dataclass(frozen=True)
class DecodeOptions:
    """How images are decoded: the fields of `DataConfig` that say so.

    Attributes
    ----------
    resize : int or None
        Side in pixels to which each image is resized.
    resize_mode : {"crop", "squash", "pad"}
    white : int or None
        The value that is white; None: 65535 in 16-bit gray images, 255 in others. Over 255 it is for 16-bit images only.
    """

    resize: int | None = None
    resize_mode: str = "crop"
    white: int | None = None


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


# ---- opening -----------------------------------------------------------------------------------------------------------------


def _source(image: EncodedImage) -> Path | bytes:
    """The bytes of a small file, or the path of a large one, which Pillow reads in parts."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Mapping):
        return image["bytes"] if image.get("bytes") is not None else _source(image["path"])
    with open(image, "rb") as stream:
        data = stream.read(SMALL)
    return data if len(data) < SMALL else Path(image)


def encoded_bytes(image: EncodedImage) -> bytes:
    """The bytes of an encoded image: of a link, those of the file it leads to."""
    source = _source(image)
    return source.read_bytes() if isinstance(source, Path) else source


def hash_of(image: EncodedImage) -> bytes:
    """A hash of the bytes of an encoded image. Large files are read in parts."""
    source = _source(image)
    if isinstance(source, bytes):
        return blake2b(source, digest_size=16).digest()
    with source.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).digest()


def image_format(content: bytes) -> str:
    """The usual suffix, without the dot, of the format that the bytes of an image have, whatever their file is called."""
    with _open(content) as opened:
        found = str(opened.format).lower()
    return {"jpeg": "jpg", "jpeg2000": "jp2", "dib": "bmp", "tiff": "tif"}.get(found, found)


def _facts(opened: "ImageFile", options: DecodeOptions) -> ImageFacts:
    """What the header of an image says. Raises ValueError if the image must not be decoded."""
    reduced = opened.width * opened.height > MAX_PIXELS
    if reduced:
        _reduce(opened, options.resize)
    if opened.mode == "F":
        raise ValueError("floating-point pixels have no white")
    if opened.format == "PPM":
        _check_payload(opened)
    gray_16 = opened.mode.startswith("I")
    color_16 = not gray_16 and _bits_of_tile(opened) == 16
    transparent = opened.has_transparency_data and not gray_16
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


def _open(image: Path | bytes) -> "ImageFile":
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


def _bits_of_tile(opened: "ImageFile") -> int:
    """Bits of each value in the file, if Pillow says that there are 16; else 8."""
    arguments = opened.tile[0].args if opened.tile else ""
    if isinstance(arguments, tuple) and opened.format == "PPM" and len(arguments) == 2 and arguments[1]:
        return 16 if int(arguments[1]) > 255 else 8  # the value that is white
    return 16 if opened.format in ("PNG", "TIFF") and ";16" in str(arguments) else 8


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


def read_header(image: EncodedImage, options: DecodeOptions) -> ImageFacts:
    """What the header of an image says, without decoding."""
    with _open(_source(image)) as opened:
        return _facts(opened, options)


# ---- decoding ----------------------------------------------------------------------------------------------------------------


def decode(image: EncodedImage, options: DecodeOptions) -> tuple[np.ndarray, ImageFacts]:
    """An encoded image as uint8 (H, W) if it is gray, (H, W, 3) otherwise; and what is known of it.

    The camera's orientation is applied first, then transparency laid on white and 16-bit gray scaled so that `options.white` is
    white, and then the image is resized.
    """
    with _open(_source(image)) as opened:
        facts = _facts(opened, options)
        needed = _memory(opened, facts, options)
        if needed <= LIGHT:
            return _decode(opened, facts, options)
        with MEMORY.taken(needed):
            return _decode(opened, facts, options)


def decode_in_process(image: EncodedImage, options: DecodeOptions) -> tuple[np.ndarray, ImageFacts]:
    """`decode` for worker processes. Raises ValueError for what takes much memory: processes do not share MEMORY."""
    with _open(_source(image)) as opened:
        facts = _facts(opened, options)
        if _memory(opened, facts, options) > MOST_IN_PROCESS:
            raise ValueError("takes too much memory in several processes at once")
        array, facts = _decode(opened, facts, options)
        return array, _KNOWN.setdefault(facts, facts)  # one object for all equal ones is sent once


def _memory(opened: "ImageFile", facts: ImageFacts, options: DecodeOptions) -> int:
    """The most bytes that decoding takes by the size that the header claims, as measured for each format and kind of pixels."""
    if facts.reduced:  # less by its own size, but more by that of the file
        return AT_ONCE
    jpeg = opened.format in ("JPEG", "MPO") and opened.mode != "CMYK"
    per_pixel = 20 if not jpeg else 8 if options.resize and "progressive" not in opened.info else 10
    return per_pixel * facts.width * facts.height


def _decode(opened: "ImageFile", facts: ImageFacts, options: DecodeOptions) -> tuple[np.ndarray, ImageFacts]:
    decoded: PILImage.Image = opened
    stated_white = _stated_white(opened)
    decoded.load()
    if decoded.getexif().get(ORIENTATION, 1) != 1:  # asking takes a third of the time of a call that changes nothing
        facts = facts._replace(rotated=decoded.getexif()[ORIENTATION] in ROTATED)
        ImageOps.exif_transpose(decoded, in_place=True)
    if decoded.size != (facts.width, facts.height):
        facts = facts._replace(height=decoded.height, width=decoded.width)
    if facts.gray_16:
        decoded, values = _scaled(decoded, options.white, stated_white)
        facts = facts._replace(values=values)
    elif decoded.has_transparency_data:
        white = Image.new("RGBA", decoded.size, "white")
        white.alpha_composite(decoded.convert("RGBA"))
        decoded = white
    mode = "L" if facts.channels == 1 else "RGB"
    decoded = decoded if decoded.mode == mode else decoded.convert(mode)
    original = decoded
    if not facts.gray_16 and options.white and options.white < 255:
        levels = brightened(np.arange(256, dtype=np.uint8), options.white)
        decoded = decoded.point(levels.tolist() * len(decoded.getbands()))
    decoded = resized(decoded, options)
    shape = (decoded.height, decoded.width) if mode == "L" else (decoded.height, decoded.width, 3)
    array = np.frombuffer(decoded.tobytes(), np.uint8).reshape(shape)  # half the time of np.asarray for a small image
    # What is nearly black stays below a third of white when it is resized: the other images take 2 microseconds, not 50
    if not facts.gray_16 and (options.white or int(array.max(initial=0)) * 3 < 255):
        facts = facts._replace(highest=int(np.asarray(original).max(initial=0)))
    return array, facts


def brightened(levels: np.ndarray, white: int) -> np.ndarray:
    """8-bit values so that `white`, and what is above it, is white.

    Examples
    --------
    >>> brightened(np.array([0, 1, 2, 9], np.uint8), 2).tolist()
    [0, 128, 255, 255]
    """
    scaled: np.ndarray = (np.minimum(levels, white).astype(np.int64) * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def _stated_white(opened: "ImageFile") -> int | None:
    """The value that is white by the header of a PGM file, if it is not the highest of 16 bits. Pillow scales it to 65535."""
    arguments = opened.tile[0].args if opened.tile else None
    if opened.format != "PPM" or not isinstance(arguments, tuple) or len(arguments) != 2 or not arguments[1]:
        return None
    stated = int(arguments[1])
    return stated if stated < WHITE else None


def _scaled(
    image: "PILImage.Image", white: int | None, stated_white: int | None
) -> tuple["PILImage.Image", tuple[int, int] | None]:
    """A 16-bit gray image in 8 bits, and its lowest and highest value unless its file says which value is white."""
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > WHITE:
        raise ValueError(f"values from {wide.min()} to {wide.max()}, more than 16 bits")
    if white and stated_white:
        wide = (wide * stated_white + WHITE // 2) // WHITE  # as they are in the file
    values = (int(wide.min()), int(wide.max())) if white or not stated_white else None
    white = white or WHITE
    return Image.fromarray(brightened(wide, white)), values


def resized(image: "PILImage.Image", options: DecodeOptions) -> "PILImage.Image":
    """The image resized to a square as the options say: antialiased bicubic. Square images are the same in each mode."""
    side, (width, height) = options.resize, image.size
    if not side:
        return image
    bicubic = Image.Resampling.BICUBIC
    if width == height or options.resize_mode == "squash":
        return image.resize((side, side), bicubic)
    if options.resize_mode == "crop":
        least = min(width, height)
        left, top = (width - least) // 2, (height - least) // 2
        return image.resize((side, side), bicubic, (left, top, left + least, top + least))
    most = max(width, height)
    inner = (max(1, round(width * side / most)), max(1, round(height * side / most)))
    padded = Image.new(image.mode, (side, side))
    padded.paste(image.resize(inner, bicubic), ((side - inner[0]) // 2, (side - inner[1]) // 2))
    return padded


def place(images: np.ndarray, row: int, array: np.ndarray) -> bool:
    """Write an image (H, W) or (H, W, 3) into uint8 (N, C, H, W); False if it does not fit."""
    channels, height, width = images.shape[1:]
    if array.shape[:2] != (height, width) or (array.ndim == 3 and channels == 1):
        return False
    images[row] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    return True
