"""What every construction returns, and how it sweeps a set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from notbugs.data import Dataset, from_8bit, map_batches
from notbugs.search import NormBall

Progress = Callable[[int], None]  # told how many images are done, batch by batch


class Constructed(NamedTuple):
    """A set and what is known of it: reached, mean_l2, max_l2, max_linf, feature_error, changed_labels, where they apply."""

    dataset: Dataset
    stats: dict[str, Any]


def map_with_progress(
    function: Callable[[Tensor, Tensor], Any],
    data: Dataset,
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None,
) -> Any:
    """`data.sweep`, telling how many images are done."""

    def told(images: Tensor, index: Tensor) -> Any:
        result = function(images, index)
        if progress:
            progress(len(index))
        return result

    return map_batches(told, data, batch_size=batch_size, device=device)


def perturbation_stats(data: Dataset, images: Tensor) -> dict[str, float]:
    """Sizes of the change, on the stored images."""
    if not len(data):
        return {"mean_l2": 0.0, "max_l2": 0.0, "max_linf": 0.0}
    parts = []
    for index in torch.split(torch.arange(len(data)), 1000):
        change = from_8bit(images[index]) - data.pixels(index)
        parts.append(torch.stack([NormBall("l2", 0).distance(change), NormBall("linf", 0).distance(change)]))
    l2, linf = torch.cat(parts, dim=1)
    return {"mean_l2": l2.mean().item(), "max_l2": l2.max().item(), "max_linf": linf.max().item()}
