import math

import torch
from torch import Tensor


def evenly_spaced(count: int, total: int) -> Tensor:
    """So many places, spread evenly over `total`."""
    return torch.arange(min(count, total)) * total // min(count, total)


def balanced(labels: Tensor, count: int) -> Tensor:
    """So many images, as evenly over the classes as they allow, spread over the set: their places, ascending."""
    places = [(labels == each).nonzero().squeeze(1) for each in labels.bincount().nonzero().squeeze(1).tolist()]
    taken: list[Tensor] = []
    left = min(count, len(labels))
    for number, own in enumerate(sorted(places, key=len)):
        share = min(len(own), math.ceil(left / (len(places) - number)) if number else left // len(places))
        taken.append(own[torch.arange(share) * len(own) // max(share, 1)])
        left -= share
    return torch.cat(taken).sort().values
