"""The worst rotation and translation of an image."""

from typing import NamedTuple

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.validation import Model, clean_logits, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, Objective, SpatialTransforms, objectives


class _Transformed(NamedTuple):
    """images (N, C, H, W); margins of the best other class (N,); parameters (N, 3) in [-1, 1], shares of the bounds."""

    images: Tensor
    margins: Tensor
    parameters: Tensor


@validated
def spatial_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: SpatialTransforms,
    angles: int = 11,
    translations: int = 5,
    steps: int = 10,
    gradient: bool = True,
) -> AttackResult:
    """The worst rotation and translation of each image: a grid, then PGD on the three parameters.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    threat_model : SpatialTransforms
    angles, translations : int
        Points of the grid: of the angle, and of the translation in each direction.
    steps : int
        Of PGD from the best grid point, where nothing on the grid is misclassified.
    gradient : bool
        False: the grid alone, which needs no gradients.

    Returns
    -------
    AttackResult
        Margins of 0 or more are misclassified. An image is left alone once it is misclassified.

    References
    ----------
    Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness", who found gradients alone far weaker than a grid.
    """
    if not isinstance(threat_model, SpatialTransforms):
        raise InputError("threat_model", "must be SpatialTransforms for rotations and translations", type(threat_model).__name__)
    threat_model.fit(images.shape)
    margins = -objectives.margin(clean_logits(model, images, labels), labels)
    best = _search_grid(model, images, labels, margins, threat_model, _grid(threat_model, angles, translations))
    index = (best.margins < 0).nonzero().squeeze(1)
    if gradient and steps and len(index):
        spacing = 1 / max(min(angles, translations) - 1, 1)
        found = _refine(model, images[index], labels[index], best.parameters[index], threat_model, steps, spacing)
        best = _keep_better(best, index, found)
    return AttackResult(best.images, best.margins)


def _grid(threat_model: SpatialTransforms, angles: int, translations: int) -> Tensor:
    """Parameters (M, 3), the largest transformations first: they cause misclassification soonest."""

    def points(count: int, bound: float) -> Tensor:
        return torch.linspace(-1, 1, count) if bound and count > 1 else torch.zeros(1)

    shifts = points(translations, threat_model.pixels)
    grid = torch.cartesian_prod(points(angles, threat_model.degrees), shifts, shifts)
    return grid[grid.abs().sum(1).argsort(descending=True, stable=True)]


def _search_grid(
    model: Model, images: Tensor, labels: Tensor, margins: Tensor, threat_model: SpatialTransforms, grid: Tensor
) -> _Transformed:
    """The best grid point of each image; the clean image, with its margin, where none is better."""
    best = _Transformed(images.clone(), margins, images.new_zeros(len(images), 3))
    with torch.no_grad():
        for point in grid:
            index = (best.margins < 0).nonzero().squeeze(1)
            if not len(index):
                break
            parameters = point.to(images).expand(len(index), 3)
            transformed = threat_model.apply(images[index], parameters)
            found = -objectives.margin(objectives.logits(model, transformed), labels[index])
            best = _keep_better(best, index, _Transformed(transformed, found, parameters))
    return best


def _refine(
    model: Model,
    images: Tensor,
    labels: Tensor,
    parameters: Tensor,
    threat_model: SpatialTransforms,
    steps: int,
    spacing: float,
) -> _Transformed:
    """PGD from the given parameters, with a first step as long as the spacing of the grid.

    `search.maximize` on three numbers per image instead of its pixels. It searches in [0, 1], where 0.5 is no transformation.
    """
    center, box = images.new_full((len(images), 3, 1, 1), 0.5), NormBall("linf", 0.5)
    untargeted = objectives.untargeted(model, labels)

    def transform(numbers: Tensor) -> Tensor:
        return threat_model.apply(images, 2 * numbers.flatten(1) - 1)

    def forward(numbers: Tensor) -> Tensor:
        return untargeted.forward(transform(numbers))

    objective = Objective(forward, untargeted.objective, untargeted.criterion)
    start = (parameters[:, :, None, None] + 1) / 2
    rule = search.cosine_steps(box, spacing, end=0.01)
    found = search.maximize(objective, center, box, steps=steps, rule=rule, start=start)
    return _Transformed(transform(found.images), found.margins, 2 * found.images.flatten(1) - 1)


def _keep_better(best: _Transformed, index: Tensor, found: _Transformed) -> _Transformed:
    """`best` with what was found for the images at `index` (n,), where its margin is higher."""
    better = found.margins > best.margins[index]
    if not bool(better.any()):
        return best
    updated = _Transformed(*(column.clone() for column in best))
    for column, new in zip(updated, found, strict=True):
        column[index[better]] = new[better]
    return updated
