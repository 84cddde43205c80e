"""Layers: how far perturbations move them, and their output as features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.errors import InputError
from notbugs.models import frozen, layer_forward
from notbugs.runs.tables.features import LayerRow
from notbugs.search import NormBall, objectives


def per_layer(
    model: nn.Module,
    images: Tensor,
    threat_model: NormBall,
    *,
    layers: Sequence[str] | None = None,
    steps: int = 10,
    seed: int = 0,
) -> list[LayerRow]:
    """How far perturbations move each layer, relative to the distance between two images there; lower is more robust.

    ratio = E[max over the threat model of ‖f(x') - f(x)‖₂] / E[‖f(x₁) - f(x₂)‖₂], 0 or more.

    Parameters
    ----------
    model : nn.Module
    images : Tensor, (N, C, H, W), in [0, 1]
        Two or more.
    threat_model : NormBall
    layers : sequence of str, optional
        Names of modules. Default: the children of `body`, or of the model.
    steps : int
        Of the search.
    seed : int
        Of its random start.

    Returns
    -------
    list of LayerRow

    References
    ----------
    Nakano 2019, "A Discussion of 'Adversarial Examples Are Not Bugs, They Are Features': Adversarially Robust Neural Style
    Transfer" (Distill).

    Examples
    --------
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> [row.layer for row in per_layer(network, torch.rand(5, 1, 4, 4), NormBall("l2", 0.1), steps=1)]
    ['0', '1']
    """
    if len(images) < 2:
        raise InputError("images", "must be two or more", len(images))
    body = getattr(model, "body", model)
    names = [f"body.{name}" if body is not model else name for name, _ in body.named_children()] if layers is None else layers
    generator = torch.Generator().manual_seed(seed)
    with frozen(model):
        return [_row(name, layer_forward(model, name, pool=False), images, threat_model, steps, generator) for name in names]


def _row(
    name: str,
    forward: objectives.Forward,
    images: Tensor,
    threat_model: NormBall,
    steps: int,
    generator: torch.Generator,
) -> LayerRow:
    """One layer: the largest movement found by search, and the distance between images next to each other."""
    with torch.no_grad():
        clean = forward(images).float()
        between = (clean - clean.roll(1, 0)).norm(dim=1).mean().item()
    objective = objectives.feature_distance(forward, clean)
    start = threat_model.sample(images, generator)  # the gradient at the clean image itself is zero
    rule = search.cosine_steps(threat_model, threat_model.epsilon, end=0.05)
    result = search.maximize(objective, images, threat_model, steps=steps, rule=rule, start=start)
    moved = result.margins.mean().item()
    return LayerRow(
        layer=name,
        features=clean.shape[1],
        distance_moved=moved,
        distance_between_images=between,
        ratio=moved / between if between else math.inf,
        n=len(images),
        steps=steps,
    )
