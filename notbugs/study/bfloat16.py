"""Whether a processor trains and searches faster in bfloat16 than in float32: by a timed batch."""

import math
import time
from collections.abc import Callable

import torch

from notbugs import attacks, models, precision, train
from notbugs.data import Dataset
from notbugs.errors import one_line
from notbugs.models.notes import report_notes
from notbugs.search import NormBall

TIMED_NUMBERS = 100_000  # pixels of the timed batch, in all channels
TIMED_SECONDS = 1.0  # after which it is not timed again
FEW, MANY = 4, 64  # images of it, at least and at most
ROUNDS = 3
PAYS = 0.89  # of the time in float32: up to 0.86 where the processor has it and the network gains by it (docs/lab-log.md)
CLOCK: Callable[[], float] = time.process_time  # others share the machine


def pays(model: models.Model, images: Dataset, name: str, *, head_only: bool = False) -> bool:
    """Whether a network computes so much faster in bfloat16 on this processor that it should.

    A step of training and one of a search, with batch norm fused, are timed in turn in both precisions.
    Where the network fails in bfloat16, or returns values that are not finite, float32 is used, and a note says so.

    Parameters
    ----------
    model : Model
        It is not changed.
    images : Dataset
    name : str
        Of the network, for the note.
    head_only : bool
        Only its last layer is to be trained.
    """
    part = images.select(slice(0, min(MANY, len(images), max(FEW, TIMED_NUMBERS // math.prod(images.shape)))))
    try:
        found = _relative_time(model, part, head_only=head_only)
    except Exception:  # a user's network may raise anything; what fails in float32, too, is said by what needs it
        return False
    if isinstance(found, str):
        report_notes(name, [f"computed in float32, as {found}"])
        return False
    return found < PAYS


def _relative_time(model: models.Model, part: Dataset, *, head_only: bool) -> float | str:
    """Time in bfloat16, of that in float32; or why it cannot be used."""
    trained = models.frozen_copy(model).requires_grad_(True)
    searched = models.fuse_batchnorm(model, part.pixels(slice(0, 2)))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for bf16 in seconds:
            start = CLOCK()
            try:
                finite = _step(trained, searched, part, bf16=bf16, head_only=head_only)
            except Exception as error:
                if not bf16:
                    raise
                return f"it fails in bfloat16: {one_line(str(error))}"
            if bf16 and not finite:
                return "its outputs in bfloat16 are not finite"
            seconds[bf16].append(CLOCK() - start)
        if time.perf_counter() - began > TIMED_SECONDS and len(seconds[True]) > 1:
            break
    return min(seconds[True]) / min(seconds[False])


def _step(trained: models.Model, searched: models.Model, part: Dataset, *, bf16: bool, head_only: bool) -> bool:
    """A step of a search, and one of training. Returns whether all logits are finite; else nothing else is done."""
    pixels, fast = part.pixels(slice(None)), precision.fast_forward(searched, "cpu", bf16=bf16)
    with torch.no_grad():
        if not fast(pixels[:FEW]).isfinite().all():
            return False
    attacks.fgsm(fast, pixels, part.labels, threat_model=NormBall("l2", 0.1))
    train.fit(trained, part, epochs=1, batch_size=len(part), learning_rate=1e-6, bf16=bf16, head_only=head_only)
    return True
