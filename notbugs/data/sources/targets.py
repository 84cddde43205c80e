"""Targets of regression, which are no classes: numbers with decimals, and whole numbers that were measured."""

import math
import re
from collections.abc import Collection, Sequence

from notbugs.data.names import printable
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import plain_name
from notbugs.errors import InputError

MEASURED = frozenset(
    (
        "age", "ages", "boneage", "price", "weight", "height", "length", "width", "area", "volume", "temperature", "angle",
        "steering", "steeringangle", "yaw", "pitch", "roll", "distance", "depth", "speed", "bmi", "year", "count", "counts",
        "value",
    )
)  # fmt: skip
RULE = "are measured numbers (targets of regression), and classes are needed"
REMEDY = "group them into classes: save a word or a whole number for each group"
NUMBER = re.compile(
    r"([-+]?(?:\d+(?:[.,]\d+)?|[.,]\d+))\s*(%|cm|mm|m|km|kg|g|mg|ml|l|years?|px|€|\$)?"
)  # with a decimal comma, or a unit
MANY, FEW = 20, 10  # classes that are whole numbers, and images of each, that ages may be


def _as_number(value: object) -> float | None:
    if isinstance(value, str) and (match := NUMBER.fullmatch(value.strip())):
        value = match[1].replace(",", ".")
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def check_no_measurements(place: str, values: Collection[object], column: str = "", remedy: str = REMEDY) -> None:
    """Raises InputError for labels that are all numbers, and not all whole ones, or of a column that is called like a quantity.

    Examples
    --------
    >>> check_no_measurements("a.npz: y", [1.0, 2.0, "cat"])
    >>> check_no_measurements("a.npz: y", [1.5, 2.0])
    Traceback (most recent call last):
    notbugs.errors.InputError: a.npz: y: are measured numbers (targets of regression), and classes are needed, got 1.5; group ...
    """
    different = {value for value in values if isinstance(value, str | int | float) and value != "" and value == value}
    numbers = {value: _as_number(value) for value in different}
    if not numbers or None in numbers.values():
        return
    with_decimals = [str(value) for value, number in numbers.items() if number is not None and not number.is_integer()]
    if with_decimals or (plain_name(column) in MEASURED and len(numbers) > 2):
        shown = sorted(with_decimals or map(str, different), key=lambda value: _as_number(value) or 0.0)
        raise InputError(printable(place), RULE, listed(shown, 3), remedy)


def measurement_note(labels: Sequence[int], classes: Sequence[str]) -> str:
    """A note on many classes that are whole numbers and have few images each; "" for other classes.

    Examples
    --------
    >>> measurement_note([*range(60)] * 2, [str(age) for age in range(60)])
    'the 60 classes are whole numbers, of 2 images each on average: if they are measured, as ages are, group them into classes'
    """
    if (
        len(classes) <= MANY
        or len(labels) >= FEW * len(classes)
        or not all(name.isascii() and name.isdecimal() for name in classes)
    ):
        return ""
    each = f"{len(labels) / len(classes):.2g} images each on average"
    return (
        f"the {len(classes):,} classes are whole numbers, of {each}: if they are measured, as ages are, group them into classes"
    )
