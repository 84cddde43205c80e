"""Evidence that holds in training and not elsewhere: which features lose it, and what a person would call them.

A cue is something that can be said of a picture in words (how bright its border is). One that predicts the label in training and
fails on test images is spurious, and so is a feature of a network that does.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.metrics.features import USEFUL_FROM, Usefulness, usefulness
from notbugs.stats import wilson_interval

MIN_FILES = 10  # test files of a class below which nothing is called spurious: so few say too little of how a feature varies

Cue = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] -> (n,)


def _gray(images: Tensor) -> Tensor:
    return images.mean(1)


def _border(images: Tensor) -> Tensor:
    """Values of the outer eighth on every side: (n, C, places)."""
    height, width = images.shape[2:]
    edge = torch.ones(height, width, dtype=torch.bool)
    deep = max(1, min(height, width) // 8)
    edge[deep : height - deep, deep : width - deep] = False
    return images[:, :, edge.to(images.device)]


def _center(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return images[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4]


def _red_minus_blue(pixels: Tensor) -> Tensor:
    return pixels[:, 0].flatten(1).mean(1) - pixels[:, -1].flatten(1).mean(1)


def _green_minus_purple(pixels: Tensor) -> Tensor:
    return (2 * pixels[:, 1] - pixels[:, 0] - pixels[:, -1]).flatten(1).mean(1) / 2


def _fine_detail(images: Tensor) -> Tensor:
    grey = F.pad(_gray(images)[:, None], [1] * 4, mode="replicate")
    blurred = F.avg_pool2d(grey, 3, stride=1)
    return (_gray(images) - blurred[:, 0]).abs().flatten(1).mean(1)


def _halves(images: Tensor, axis: int) -> Tensor:
    grey = _gray(images)
    half = grey.shape[axis] // 2
    first, last = grey.narrow(axis, 0, half), grey.narrow(axis, grey.shape[axis] - half, half)
    return first.flatten(1).mean(1) - last.flatten(1).mean(1)


CUES: dict[str, Cue] = {
    "background brightness": lambda images: _border(images).flatten(1).mean(1),
    "background evenness": lambda images: -_border(images).mean(1).std(1),
    "brightness in the middle": lambda images: _center(images).flatten(1).mean(1),
    "contrast": lambda images: _gray(images).flatten(1).std(1),
    "fine detail": _fine_detail,
    "brightness above rather than below": lambda images: _halves(images, 1),
    "brightness left rather than right": lambda images: _halves(images, 2),
}
COLOR_CUES: dict[str, Cue] = {
    "background red rather than blue": lambda images: _red_minus_blue(_border(images)),
    "background green rather than purple": lambda images: _green_minus_purple(_border(images)),
    "red rather than blue in the middle": lambda images: _red_minus_blue(_center(images)),
    "green rather than purple in the middle": lambda images: _green_minus_purple(_center(images)),
    "colourfulness": lambda images: (images - images.mean(1, keepdim=True)).abs().flatten(1).mean(1),
}


def cue_values(part: Dataset, *, device: torch.device | str = "cpu") -> tuple[list[str], Tensor]:
    """Names of the cues that such images have (colour ones only in colour) and their values: float (N, cues)."""
    cues = CUES | (COLOR_CUES if part.shape[0] > 1 else {})

    def measured(images: Tensor, _: Tensor) -> Tensor:
        return torch.stack([cue(images) for cue in cues.values()], dim=1)

    found: Tensor = map_batches(measured, part, batch_size=500, device=device)
    return list(cues), found


def usefulness_drop(here: Usefulness, there: Usefulness) -> tuple[np.ndarray, np.ndarray]:
    """How far usefulness falls from one set to another, and how likely chance alone does that: both (F, K).

    The fall is taken in the sense in which the feature is useful here; the probability is one-sided and for all F x K together
    (Bonferroni), by Student's t with the degrees of freedom of the smallest side.
    """
    from scipy.stats import t

    sign = np.where(here.value < 0, -1.0, 1.0)
    fall = sign * (here.value - there.value)
    error = np.hypot(here.error, there.error)
    chance = t.sf(np.where(np.isfinite(error), fall / np.maximum(error, 1e-12), 0.0), np.minimum(here.freedom, there.freedom))
    return fall, np.minimum(chance * fall.size, 1.0)


def spurious_features(
    names: Sequence[str], values: Tensor, labels: Tensor, test_values: Tensor, test_labels: Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """For every feature or cue its class of greatest fall, from files like those trained on to the test set; the worst first.

    values: (N, F) and (M, F) of either; files must not be those that a network with these features was trained on.
    spurious: 1 where it was useful, loses at least half of that, and chance would not do that for any of them in 19 of 20 sets;
    never for a class with fewer than ten files in either.
    """
    if values.shape[1] != len(names):
        raise InputError("names", f"must be one for each of the {values.shape[1]} features", len(names))
    here, there = usefulness(values, labels, len(classes)), usefulness(test_values, test_labels, len(classes))
    fall, chance = usefulness_drop(here, there)
    sign = np.where(here.value < 0, -1.0, 1.0)
    guilty = (sign * here.value >= USEFUL_FROM) & (chance < 0.05) & (fall >= 0.5 * sign * here.value)
    guilty &= np.minimum(here.freedom, there.freedom) >= MIN_FILES - 1
    rows = []
    for j, name in enumerate(names):
        # the class for which most is lost; among those where it is no accident, if there are any
        k = int(np.where(guilty[j].any() & ~guilty[j], -np.inf, fall[j]).argmax())
        ends = sorted((sign[j, k] * there.low[j, k], sign[j, k] * there.high[j, k]))
        rows.append(
            {
                "name": name,
                "class": classes[k],
                "speaks": "for" if sign[j, k] > 0 else "against",
                "usefulness": sign[j, k] * here.value[j, k],
                "test_usefulness": sign[j, k] * there.value[j, k],
                "test_usefulness_low": ends[0],
                "test_usefulness_high": ends[1],
                "fall": fall[j, k],
                "chance": chance[j, k],
                "spurious": int(guilty[j, k]),
                "n": here.n,
                "test_n": there.n,
            }
        )
    return sorted(rows, key=lambda row: (-row["spurious"], -row["fall"]))


def accuracy_gap(values: Tensor, labels: Tensor, right: Tensor, *, label: int, training: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Whether a classifier reads a class better where a cue is as it usually is with that class.

    values, labels, right: of test files (M,): the cue, the label, whether it is read correctly. training: cue and labels of
    training files, whose means set the border between usual and unusual. gap: share read correctly among the usual less that
    among the unusual, in [-1, 1], with its 95 % interval (Newcombe 1998, from Wilson's).
    """
    own, rest = (training[0][(training[1] == label) == kind].float().mean().item() for kind in (True, False))
    side = (values > (own + rest) / 2) == (own > rest)
    mine = labels == label
    counts = [(int(right[mine & kind].sum()), int((mine & kind).sum())) for kind in (side, ~side)]
    if not all(n for _, n in counts):
        return {"usual": math.nan, "unusual": math.nan, "gap": math.nan, "gap_low": -1.0, "gap_high": 1.0}
    (one, other), bounds = (k / n for k, n in counts), [wilson_interval(k, n) for k, n in counts]
    down = math.hypot(one - bounds[0][0], bounds[1][1] - other)
    up = math.hypot(bounds[0][1] - one, other - bounds[1][0])
    return {"usual": one, "unusual": other, "gap": one - other, "gap_low": one - other - down, "gap_high": one - other + up}


def nearest_cue(values: Tensor, names: Sequence[str], cues: Tensor) -> list[tuple[str, float]]:
    """For each feature (N, F) the cue (N, cues) that goes with it most, and their correlation, in [-1, 1]; ("", 0) for none."""
    f, c = (each.double() - each.double().mean(0) for each in (values, cues))
    together = (f.T @ c) / (f.norm(dim=0)[:, None] * c.norm(dim=0)).clamp_min(1e-12)
    best = together.abs().argmax(1)
    found = [(names[int(place)], float(together[j, place])) for j, place in enumerate(best)]
    return [(name, r) if r else ("", 0.0) for name, r in found]
