"""What every construction returns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from notbugs import inline
from notbugs.data import Dataset, from_8bit
from notbugs.data.images import Images
from notbugs.search import NormBall

AT_ONCE = 2**24  # numbers of images whose norms are computed at a time
Progress = Callable[[int], None]  # called after each batch with its number of images


@dataclass(frozen=True, kw_only=True)
class ConstructionStats:
    """How a data set was constructed, measured on the stored 8-bit images; None where it does not apply.

    Attributes
    ----------
    n : int
        Images in the constructed data set.
    steps : int
        Steps of the search.
    epsilon : float
        Radius of the threat model.
    target_reached : float, in [0, 1]
        Share of images that the model predicts as their new label.
    mean_l2, max_l2, max_linf : float
        Norms of the perturbations, pixels in [0, 1].
    feature_error : float, 0 or more
        Mean distance to the wanted features, relative to their norm.
    relabeled : int
        Images whose label changed.
    other_models_keep_label : float, in [0, 1]
        Share of images that all models of `keep_label_on` still predict as their old label.
    largest_class : float, in [0, 1]
        Share of the most frequent label.
    """

    n: int
    steps: int | None = None
    epsilon: float | None = None
    target_reached: float | None = None
    mean_l2: float | None = None
    max_l2: float | None = None
    max_linf: float | None = None
    feature_error: float | None = None
    relabeled: int = 0
    other_models_keep_label: float | None = None
    largest_class: float | None = None


class Constructed(NamedTuple):
    """A constructed data set, and how it was constructed."""

    dataset: Dataset
    stats: ConstructionStats

    def _repr_html_(self) -> str:
        """In a notebook: how it was constructed, and some of its images."""
        known = [(name, value) for name, value in vars(self.stats).items() if value is not None]
        return inline.table(["constructed", ""], known) + self.dataset._repr_html_()


class PerturbationNorms(NamedTuple):
    """Norms of the perturbations of a data set, pixels in [0, 1]; 0 if it is empty."""

    mean_l2: float
    max_l2: float
    max_linf: float


def norms_of(stored: Tensor, images: Tensor) -> Tensor:
    """L2 and L-infinity norm of each perturbation, (n, 2), on the CPU: from images in [0, 1] to the stored ones, uint8."""
    perturbation = from_8bit(stored.cpu()) - images.cpu()
    return torch.stack([NormBall("l2", 0).distance(perturbation), NormBall("linf", 0).distance(perturbation)], dim=1)


def summarized(norms: Tensor) -> PerturbationNorms:
    """What `norms_of` finds, (N, 2), of a whole data set."""
    if not len(norms):
        return PerturbationNorms(0.0, 0.0, 0.0)
    l2, linf = norms.T.contiguous()
    return PerturbationNorms(l2.mean().item(), l2.max().item(), linf.max().item())


def perturbation_norms(dataset: Dataset, images: Images) -> PerturbationNorms:
    """The norms of the perturbations from a data set to the stored images, uint8 (N, C, H, W)."""
    at_once = max(1, min(1000, AT_ONCE // math.prod(dataset.shape)))
    parts = torch.split(torch.arange(len(dataset)), at_once)
    return summarized(torch.cat([norms_of(images[index], dataset.pixels(index)) for index in parts]))
