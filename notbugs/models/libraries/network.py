"""A network of another package, and what is asked of that package."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from notbugs.models.reading import Options, Reading


class LibraryNetwork(NamedTuple):
    """A network of another package.

    Attributes
    ----------
    network : nn.Module
        Normalized images to whatever it returns.
    reading : Reading
        Its normalization and input size.
    classes : tuple of str or None
        Its own names of its outputs.
    options : dict
        What builds the same network without its weights, as JSON can hold it.
    """

    network: nn.Module
    reading: Reading
    classes: tuple[str, ...] | None
    options: Options


class Asked(NamedTuple):
    """What is asked of a package.

    name: after the prefix. outputs: None: those of the weights. size: (height, width) to be built for; None: its own.
    """

    name: str
    pretrained: bool
    outputs: int | None
    size: tuple[int, int] | None
    options: Options


def three(values: Sequence[float] | float) -> tuple[float, ...]:
    """One value per channel."""
    given = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    return given * 3 if len(given) == 1 else given
