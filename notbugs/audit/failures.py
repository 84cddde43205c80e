"""Errors of a user's model, with the image on which it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError, one_line
from notbugs.models.reading import not_finite_error
from notbugs.search import objectives


@contextmanager
def blame_failing_image(model: nn.Module, part: Dataset, device: str) -> Iterator[None]:
    """If the model raises inside or returns logits that are not finite, raise an InputError that names the file.

    A user's own model may raise anything.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if data.is_out_of_memory(error):
            raise
        cause = error.__cause__ if isinstance(error, InputError) else error
        if cause is None:
            if "finite" in str(error) and error.args[0] == "model":  # not by its image yet
                _raise_if_not_finite(model, part, device)
            raise
        raise _failure(model, part, device, cause) from cause


def _raise_if_not_finite(model: nn.Module, part: Dataset, device: str) -> None:
    for row, name in enumerate(part.names):
        with torch.no_grad():
            finite = bool(objectives.logits(model, part.pixels([row]).to(device)).isfinite().all())
        if not finite:
            raise not_finite_error(name) from None


def _failure(model: nn.Module, part: Dataset, device: str, cause: BaseException) -> InputError:
    """The error that names the first image on which the model raises."""
    remedy = "fix it and repeat the command: finished stages are kept"
    got = f"{type(cause).__name__}: {one_line(cause)}"
    failing = [name for row, name in enumerate(part.names) if _raises(model, part.pixels([row]).to(device))]
    files = f"{part.names[0]} to {part.names[-1]}"
    if len(failing) == len(part) > 1:
        return InputError(files, "the model now raises an error on every image", got, remedy)
    if failing:
        return InputError(failing[0], "the model raised an error on this image", got, remedy)
    return InputError(files, "the model raised an error on a perturbed image of these", got, remedy)


def _raises(model: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(image)
    except Exception:  # a user's own model may raise anything
        return True
    return False
