"""Pictures of a page within a budget of characters: a report is sent by mail, and photographs would make it many megabytes."""

import base64
import io
import re
from typing import NamedTuple

PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
MOST = 300_000  # characters of all pictures of a page together
LEAST = 100_000  # that pictures may take, however large the rest of the page is
PAGE = 680_000  # bytes of a page with its pictures: mail and chats take it
SIDE = 128  # pixels of the longer side that a reduced picture keeps; shown at 112 at most
QUALITIES = (100, 90, 80, 65, 50, 35)  # of WebP; 100: lossless
MAX_PIXELS = 2**26  # of one picture; larger ones are not decoded here


class Reduced(NamedTuple):
    """A page, and how its pictures were reduced: "" if they were not."""

    page: str
    how: str


def reduce_to_page(page: str) -> Reduced:
    """A page of at most `PAGE` bytes, if its pictures can be reduced so far.

    Parameters
    ----------
    page : str
        HTML with pictures as data URLs.

    Returns
    -------
    Reduced
        Its pictures take at most `MOST`, and `LEAST` where the rest leaves less. Lossless reduction comes first.
    """
    rest = len(page.encode()) - sum(map(len, PICTURE.findall(page)))
    return reduce_pictures(page, min(MOST, max(PAGE - rest, LEAST)))


def reduce_pictures(page: str, most: int = MOST) -> Reduced:
    """A page whose PNG pictures take no more than so many characters, if that can be had.

    Parameters
    ----------
    page : str
        HTML with pictures as data URLs.
    most : int
        Characters of all pictures together, up to which they stay as they are.

    Returns
    -------
    Reduced
        Above that pictures are at most `SIDE` pixels large, as WebP with the highest of `QUALITIES` that fits, or the lowest.
    """
    contents = PICTURE.findall(page)
    if sum(map(len, contents)) <= most:
        return Reduced(page, "")
    found: dict[str, str] = {}
    quality = QUALITIES[0]
    for quality in QUALITIES:
        found = {content: _encoded(content, quality) for content in set(contents)}
        if sum(len(found[content]) for content in contents) <= most:
            break
    kind = "lossless WebP" if quality == QUALITIES[0] else f"WebP of quality {quality}"
    return Reduced(PICTURE.sub(lambda match: found[match[1]], page), f"at most {SIDE} pixels wide and high, {kind}")


def _encoded(content: str, quality: int) -> str:
    """A data URL of a picture, reduced; as it was, if it cannot be decoded."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(base64.b64decode(content)), formats=["PNG"])
        if picture.width * picture.height > MAX_PIXELS:
            return f"data:image/png;base64,{content}"
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.convert("RGB").save(file, "WEBP", lossless=quality == QUALITIES[0], quality=quality, method=4)
    except (OSError, ValueError, SyntaxError):  # damaged: Pillow raises these
        return f"data:image/png;base64,{content}"
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
