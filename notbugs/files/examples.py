"""What the explorer shows of a file besides its scores: its smallest adversarial example, and its nearest files."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from notbugs.attacks.minimum_norm import MinimumNormResult
from notbugs.search import objectives
from notbugs.search.threat_models import per_image

NEIGHBORS = 3  # of the same class, and as many of other classes
# A smallest perturbation ends just across the decision boundary, where rounding alone can undo it: then a longer one is tried
LENGTHS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0, 4.0)
DISTANCES_AT_ONCE = 2**24


def round_to_8bit(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, found: MinimumNormResult) -> Tensor:
    """Adversarial examples on the 8-bit grid, each as close to the image as rounding allows.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
        Multiples of 1/255.
    labels : Tensor, (N,), int64
    found : MinimumNormResult
        Of `attacks.minimum_norm` on these images.

    Returns
    -------
    Tensor, (N, C, H, W)
        Multiples of 1/255: the first of the perturbations, scaled by `LENGTHS`, that is misclassified after rounding; the image
        itself where it is misclassified, or where none of them is.

    Examples
    --------
    >>> def model(images):
    ...     mean = images.mean((1, 2, 3))
    ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
    >>> images, labels = torch.full((1, 1, 4, 4), 0.4), torch.tensor([0])
    >>> from notbugs.attacks import minimum_norm
    >>> rounded = round_to_8bit(model, images, labels, minimum_norm(model, images, labels))
    >>> model(rounded).argmax().item(), torch.equal((rounded * 255).round() / 255, rounded)
    (1, True)
    """
    examples, left = images.clone(), found.norms.isfinite() & (found.norms > 0)
    with torch.no_grad():
        for length in LENGTHS:
            rounded = ((images + length * (found.images - images)).clamp(0, 1) * 255).round() / 255
            misclassified = left & (objectives.margin(objectives.logits(model, rounded), labels) <= 0)
            examples = torch.where(per_image(misclassified, images), rounded, examples)
            left = left & ~misclassified
            if not left.any():
                break
    return examples


def nearest_files(features: Tensor, labels: Tensor, count: int = NEIGHBORS) -> dict[str, np.ndarray]:
    """The nearest files of the same class and of other classes.

    Parameters
    ----------
    features : Tensor, (N, F)
    labels : Tensor, (N,), int64
    count : int

    Returns
    -------
    dict of str to ndarray
        same_class, other_class : int (N, count), positions, nearest first; -1 where there are fewer.
        same_class_distance, other_class_distance : float (N, count), Euclidean, relative to the norm of the file's features.

    Examples
    --------
    >>> features, labels = torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.tensor([0, 1, 0, 0])
    >>> found = nearest_files(features, labels, count=2)
    >>> found["same_class"].tolist()
    [[2, 3], [-1, -1], [0, 3], [2, 0]]
    >>> found["other_class_distance"][0].tolist()
    [1.0, inf]
    """
    features, own = features.float(), torch.arange(len(features))
    parts: dict[str, list[Tensor]] = {}
    for index in torch.split(own, max(1, DISTANCES_AT_ONCE // max(1, len(features)))):
        distances = torch.cdist(features[index], features) / features[index].norm(dim=1, keepdim=True).clamp_min(1e-12)
        same = labels[index, None] == labels
        for name, candidates in (("same_class", same & (index[:, None] != own)), ("other_class", ~same)):
            nearest = torch.where(candidates, distances, torch.inf).topk(min(count, len(own)), largest=False)
            parts.setdefault(name, []).append(torch.where(nearest.values.isfinite(), nearest.indices, -1))
            parts.setdefault(f"{name}_distance", []).append(nearest.values)
    return {name: torch.cat(columns).numpy() for name, columns in parts.items()}
