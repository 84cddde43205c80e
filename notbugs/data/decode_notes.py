"""What the user should know of how images were decoded: one sentence each."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from notbugs.decoding.decode import WHITE, DecodeOptions
from notbugs.decoding.headers import MAX_PIXELS, ImageFacts

DARK = 4  # images whose highest value is below this part of white are nearly black
LEVELS = 3  # of 256: images that have fewer are nearly constant


def decode_notes(
    images: Sequence[ImageFacts], options: DecodeOptions, sample: Sequence[ImageFacts] | None = None
) -> tuple[str, ...]:
    """Notes on a data set.

    Parameters
    ----------
    images : sequence of ImageFacts
        All images.
    options : DecodeOptions
    sample : sequence of ImageFacts, optional
        Those images that were decoded. Default: all.

    Examples
    --------
    >>> decode_notes([ImageFacts(3, 60, 80, False, False, False)], DecodeOptions(resize=64, resize_mode="squash"))
    ('resized to 64x64: 1 of 1 images are not square, their proportions change',)
    """
    depth = _of_depth(images, options, images if sample is None else sample)
    return (*_of_size(images, options), *_of_content(images), *depth)


def _of_size(images: Sequence[ImageFacts], options: DecodeOptions) -> Iterator[str]:
    if rotated := sum(facts.rotated for facts in images):
        yield f"{rotated:,} of {len(images):,} images are rotated or mirrored, as the orientation that their camera wrote says"
    if reduced := sum(facts.reduced for facts in images):
        yield f"{reduced:,} of {len(images):,} images have more than {MAX_PIXELS:,} pixels: they are decoded at reduced size"
    shares = [1 - min(facts.height, facts.width) / max(facts.height, facts.width) for facts in images]
    different = [share for share in shares if share]
    if not options.resize:
        return
    if not different:
        sides = {facts.width for facts in images}
        if sides != {options.resize}:
            each = f"{min(sides)}x{min(sides)}" if len(sides) == 1 else f"{min(sides)}x{min(sides)} to {max(sides)}x{max(sides)}"
            yield f"resized to {options.resize}x{options.resize}, from {each}"
        return
    what = f"{len(different):,} of {len(images):,} images are not square"
    share = f"on average {_percent(fmean(different))} of each"
    how = {
        "crop": f"the shorter side to {options.resize}, then the center: {what}, {share} is cut off (--resize-mode squash or pad "
        "keeps it)",
        "squash": f"{what}, their proportions change",
        "pad": f"{what}, they have black borders, {share}",
    }
    yield f"resized to {options.resize}x{options.resize}: {how[options.resize_mode]}"


def _of_content(images: Sequence[ImageFacts]) -> Iterator[str]:
    """What of a file its pixels in the data set do not show."""
    if animated := sum(facts.animated for facts in images):
        yield f"{animated:,} of {len(images):,} images have further frames or pages: only the first is used"
    if transparent := sum(facts.transparent for facts in images):
        yield f"{transparent:,} of {len(images):,} images have an alpha channel or a transparent color, which is laid on white"
    if cmyk := sum(facts.cmyk for facts in images):
        yield f"{cmyk:,} of {len(images):,} images are CMYK, and become RGB without their color profile"
    gray = sum(facts.channels == 1 for facts in images)
    if 0 < gray < len(images):
        yield f"{gray:,} of {len(images):,} images are gray, and become RGB like the others"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def _of_depth(images: Sequence[ImageFacts], options: DecodeOptions, sample: Sequence[ImageFacts]) -> Iterator[str]:
    white = options.white
    if color := sum(facts.color_16 for facts in images):
        without = ", --white does not change them" if white and white >= 255 else ""
        yield f"{color:,} images have color or transparency of 16 bits, of which 8 are read{without}"
    wide = sum(facts.gray_16 for facts in images)
    if white and white >= 255 and not wide:
        yield "--white has no effect: no image has 16-bit gray values"
    if wide < len(images):
        yield from _of_8_bits(
            [facts.highest for facts in sample if not facts.gray_16], len(images) - wide, min(white or 255, 255)
        )
    if values := [facts.values for facts in sample if facts.values]:
        yield from _of_16_bits(values, wide, white or WHITE)


def _of_8_bits(highest: Sequence[int | None], count: int, white: int) -> Iterator[str]:
    """Notes on 8-bit images by their highest values, which are None where they are known to be bright."""
    seen = f" (of {count:,}, {len(highest):,} were looked at)" if len(highest) < count else ""
    known = [high for high in highest if high is not None]
    if clipped := sum(high > white for high in known):
        yield f"{clipped:,} of {len(highest):,} 8-bit images have values above {white}, which are white as well{seen}"
    if not known or len(known) < len(highest):
        return
    if not (high := max(known)):
        yield f"8-bit images are black: all values are 0{seen}"
    elif high < white / DARK:
        yield f"8-bit images use only values up to {high} of {white} and are nearly black: pass --white {high}{seen}"


def _of_16_bits(values: Sequence[tuple[int, int]], wide: int, white: int) -> Iterator[str]:
    """Notes on 16-bit images by their lowest and highest values."""
    seen = f" (of {wide:,}, {len(values):,} were looked at)" if len(values) < wide else ""
    low, high = min(low for low, _ in values), max(high for _, high in values)
    if clipped := sum(high > white for _, high in values):
        yield f"{clipped:,} of {len(values):,} 16-bit images have values above {white:,}, which are white as well{seen}"
    if not high:
        yield f"16-bit images are black: all values are 0{seen}"
    elif high < white / DARK:
        yield f"16-bit images use only values up to {high:,} of {white:,} and are nearly black: pass --white {high}{seen}"
    elif (min(high, white) - low) * 256 < LEVELS * white:
        yield f"16-bit images use only values from {low:,} to {high:,} of {white:,} and are nearly constant{seen}"
