"""From an encoded image whose header was read to its pixels: 8 bits, upright, without transparency, resized."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from notbugs.decoding.headers import (
    ORIENTATION,
    ROTATED,
    EncodedImage,
    ImageFacts,
    facts_of,
    is_white_zero,
    open_image,
    source_of,
    white_of_header,
)
from notbugs.decoding.memory import Memory

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from PIL.ImageFile import ImageFile

AT_ONCE = 2**30  # bytes of memory for decoding in all threads; an image that takes more is decoded alone
LIGHT = 2**22  # bytes for an image that are not counted
MOST_IN_PROCESS = 2**26  # bytes for an image in one of several worker processes
MEMORY = Memory(AT_ONCE)
_KNOWN: dict[ImageFacts, ImageFacts] = {}  # in a worker process
WHITE = 65535  # of 16-bit images


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


def decode(image: EncodedImage, options: DecodeOptions) -> tuple[np.ndarray, ImageFacts]:
    """An encoded image as uint8 (H, W) if it is gray, (H, W, 3) otherwise; and what is known of it.

    The camera's orientation is applied first, then transparency laid on white and 16-bit gray scaled so that `options.white` is
    white, and then the image is resized.
    """
    with open_image(source_of(image)) as opened:
        facts = facts_of(opened, options.resize)
        needed = _memory(opened, facts, options)
        if needed <= LIGHT:
            return _decode(opened, facts, options)
        with MEMORY.taken(needed):
            return _decode(opened, facts, options)


def decode_in_process(image: EncodedImage, options: DecodeOptions) -> tuple[np.ndarray, ImageFacts]:
    """`decode` for worker processes. Raises ValueError for what takes much memory: processes do not share MEMORY."""
    with open_image(source_of(image)) as opened:
        facts = facts_of(opened, options.resize)
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
    white, white_is_zero = white_of_header(opened), is_white_zero(opened)
    stated_white = white if white is not None and white < WHITE else None  # Pillow scales it to 65535
    decoded.load()
    if decoded.getexif().get(ORIENTATION, 1) != 1:  # asking takes a third of the time of a call that changes nothing
        facts = facts._replace(rotated=decoded.getexif()[ORIENTATION] in ROTATED)
        ImageOps.exif_transpose(decoded, in_place=True)
    if decoded.size != (facts.width, facts.height):
        facts = facts._replace(height=decoded.height, width=decoded.width)
    if facts.gray_16:
        decoded, values = _scaled(decoded, options.white, stated_white, white_is_zero=white_is_zero)
        facts = facts._replace(values=values)
    elif decoded.has_transparency_data:
        on_white = Image.new("RGBA", decoded.size, "white")
        on_white.alpha_composite(decoded.convert("RGBA"))
        decoded = on_white
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


def _scaled(
    image: "PILImage.Image", white: int | None, stated_white: int | None, *, white_is_zero: bool = False
) -> tuple["PILImage.Image", tuple[int, int] | None]:
    """A 16-bit gray image in 8 bits, its transparent value white; and its lowest and highest other value.

    None in place of these where its file says which value is white, or all of it is transparent.
    """
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > WHITE:
        raise ValueError(f"values from {wide.min()} to {wide.max()}, more than 16 bits")
    if white and stated_white:
        wide = (wide * stated_white + WHITE // 2) // WHITE  # as they are in the file
    seen = wide != image.info.get("transparency")
    wide = np.where(seen, WHITE - wide if white_is_zero else wide, WHITE)
    values = (int(wide[seen].min()), int(wide[seen].max())) if (white or not stated_white) and seen.any() else None
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
