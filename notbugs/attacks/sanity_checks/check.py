"""The result of a sanity check, and what several checks compute."""

from typing import NamedTuple

from torch import Tensor

from notbugs.runs.tables.audit import OVERESTIMATED
from notbugs.search import NormBall

NOT_TRUSTED = "the model's accuracies are not to be trusted"  # what follows where clean predictions themselves are in doubt


class Check(NamedTuple):
    """The result of a sanity check.

    Attributes
    ----------
    name : str
    passed : bool or None
        None: the check could not be made.
    observed : str
        What was measured.
    rationale : str
        Why it matters.
    fix : str
        What to do if it failed.
    consequence : str
        What follows if it failed.
    n : int or None
        Images on which it was made, where these are not the sample of the others.
    """

    name: str
    passed: bool | None
    observed: str
    rationale: str
    fix: str
    consequence: str = OVERESTIMATED
    n: int | None = None


def relative_difference(logits: Tensor, others: Tensor) -> float:
    """The largest absolute difference between two sets of logits (N, K), as a share of their standard deviation over classes."""
    return float((logits - others).abs().max() / logits.std(1, correction=0).mean().clamp_min(1e-12))


def is_one_hot(logits: Tensor) -> bool:
    """Whether the logits are predicted labels, -1 and 1, as `models.black_box` encodes them."""
    return bool((logits.abs() == 1).all())


def single_epsilon(threat_model: NormBall) -> float:
    """Epsilon as a number; checks take one for all images."""
    assert not isinstance(threat_model.epsilon, Tensor), "checks take one epsilon"
    return float(threat_model.epsilon)


def largest_epsilon(norm: str, images: Tensor) -> float:
    """The L-inf or L2 distance between a black and a white image of this size."""
    return 1.0 if norm == "linf" else images[0].numel() ** 0.5
