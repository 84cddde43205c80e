"""What a pipeline requires: the least robust accuracy within a threat model."""

from typing import NamedTuple

from notbugs.errors import InputError
from notbugs.stats import wilson_interval

OPTION = "--fail-under"
MOST_IMAGES = 100_000  # beyond which nobody is told how many would do
FORM = "must be a threat model and a share, as l2:0.5=30%, or a share alone"
CLEAN = "clean"


class Requirement(NamedTuple):
    """The least accuracy that the lower end of a 95 % CI must reach.

    Attributes
    ----------
    text : str
        As it was given.
    threat : str or None
        A threat model as `parse_threat_model` takes it, "clean" for no perturbation, or None: the main one.
    share : float, in (0, 1)
    """

    text: str
    threat: str | None
    share: float


def parse_requirement(text: str) -> Requirement:
    """Parse a requirement as `notbugs attack --fail-under` takes it.

    Parameters
    ----------
    text : str
        "l2:0.5=30%", "linf:8/255=0.3", "clean=90%", or "30%" for the main threat model.

    Raises
    ------
    InputError
        If it is none.

    Examples
    --------
    >>> parse_requirement("linf:8/255=30%")
    Requirement(text='linf:8/255=30%', threat='linf:8/255', share=0.3)
    >>> parse_requirement("0.25").threat is None
    True
    """
    threat, equals, number = (part.strip() for part in text.rpartition("="))
    if equals and not threat:
        raise InputError(OPTION, FORM, repr(text))
    try:
        share = float(number.removesuffix("%").strip()) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise InputError(OPTION, FORM, repr(text)) from None
    if not 0 < share < 1:
        remedy = f"for {number} % pass {number}%" if 1 <= share < 100 and not number.endswith("%") else ""
        rule = "must be above 0 % and below 100 %, which the lower end of no interval reaches"
        raise InputError(OPTION, rule, repr(text), remedy)
    return Requirement(text, threat or None, share)


def check_reachable(requirements: list[Requirement], images: int) -> None:
    """Raises InputError for a requirement that no model can meet on so few images, before any of them is attacked.

    Examples
    --------
    >>> check_reachable([parse_requirement("99%")], 100)
    Traceback (most recent call last):
    notbugs.errors.InputError: --fail-under: must be at most 96.3 %, the lower end of the 95 % CI if all 100 images stay correctly
    classified, got 99%; attack 381 images or more
    """
    best = wilson_interval(images, images)[0]
    for requirement in requirements:
        if requirement.share > best:
            reached = f"{_floored(best)} %, the lower end of the 95 % CI if all {images} images stay correctly classified"
            rule = f"must be at most {reached}"
            raise InputError(OPTION, rule, requirement.text, f"attack {images_to_show(1, requirement.share):,} images or more")


def _floored(share: float) -> str:
    return f"{int(1000 * share) / 10:.1f}"


def images_to_show(accuracy: float, share: float) -> int:
    """About how many images it takes that the interval of an accuracy begins at a share or above; 0 if that is above 100,000.

    Examples
    --------
    >>> images_to_show(1, 0.99), images_to_show(0.67, 0.6), images_to_show(0.5, 0.6)
    (381, 189, 0)
    """
    if accuracy <= share:
        return 0

    def enough(images: int) -> bool:
        return wilson_interval(accuracy * images, images)[0] >= share

    images = 1
    while not enough(images):
        images *= 2
        if images > MOST_IMAGES:
            return 0
    low = images // 2
    while images - low > 1:
        middle = (low + images) // 2
        low, images = (low, middle) if enough(middle) else (middle, images)
    return images
