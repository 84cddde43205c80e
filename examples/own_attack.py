"""An attack of your own, whose finds every robust accuracy then counts: an objective and an update rule.

    cd examples
    NOTBUGS_EXTENSIONS=own_attack notbugs attack MODEL.safetensors digits --epsilon l2:0.5 --out runs/audit

It runs after the attack ensemble, on the images that are still classified correctly. The objective is the probability of all
wrong classes together; the update rule takes steps whose length falls linearly. Leave one of them out, and the default is used.
A whole attack, `attack="module:function"`, needs no gradients.
"""

from typing import TYPE_CHECKING

from notbugs.extensions import Attack

if TYPE_CHECKING:  # reports import this module, and no torch
    from torch import Tensor

    from notbugs.search import NormBall, StepState

ATTACKS = [
    Attack(
        "wrong-probability",
        objective="own_attack:wrong_probability",
        rule="own_attack:falling_steps",
        steps=50,
    )
]


def wrong_probability(*, logits: "Tensor", labels: "Tensor") -> "Tensor":
    """The probability of all wrong classes together, (N,): it is maximized."""
    return 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]


def falling_steps(
    *,
    now: "StepState",
    state: None,
    threat_model: "NormBall",
) -> tuple["Tensor", None]:
    """Steepest steps whose length falls from 2 epsilon to 0; the state is not used."""
    length = 2 * threat_model.epsilon * (1 - now.step / now.steps)
    return threat_model.steepest_step(now.images, now.gradient, length), None
