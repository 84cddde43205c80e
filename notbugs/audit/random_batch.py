"""One batch of an audit of a random model: means over draws that no attack has seen."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.attacks.own import can_follow_gradients, own_attacks
from notbugs.attacks.randomness import seeded
from notbugs.audit.batch import BatchResult, Outcome, stacked
from notbugs.audit.threats import Threat, norms_of
from notbugs.search import NormBall


def attack_random_batch(
    model: nn.Module, images: Tensor, labels: Tensor, threats: Sequence[Threat], budget: str, *, seed: int
) -> BatchResult:
    """Attack a batch of a random model within every threat model; figures are of draws that no attack has seen.

    There is no minimum norm: a boundary that moves with each draw has no distance. What was found within a smaller epsilon of the
    same norm is a candidate within the next.

    Parameters
    ----------
    model, images, labels, threats, budget
        As in `attack_batch`.
    seed : int
        Of torch's random numbers; those of other libraries go on as they are.
    """
    count = partial(attacks.correct_draws, model, labels=labels, seed=2**31 + seed)  # away from the seeds of attacks
    clean_correct, clean_predicted = count(images)
    outcomes: list[Outcome] = []
    half, gradient = attacks.DRAWS / 2, can_follow_gradients(model, images)
    last: dict[str, Tensor] = {}
    with seeded(seed, images.device):
        for threat in threats:
            norm = norms_of([threat])[0] if norms_of([threat]) else ""
            own = own_attacks(threat, gradient=gradient)
            perturbed = attacks.eot_attack(
                model, images, labels, threat_model=threat, budget=budget, starts=last.get(norm), more=own
            )
            last[norm] = perturbed
            stored = threat.round_to_8bit(perturbed, images) if isinstance(threat, NormBall) else (perturbed * 255).round() / 255
            correct, predicted = count(perturbed)
            correct_8bit, predicted_8bit = count(stored)
            no = torch.zeros_like(correct, dtype=torch.bool)
            outcomes.append(
                Outcome(
                    predicted=predicted,
                    predicted_8bit=predicted_8bit,
                    misclassified=correct <= half,
                    by_minimum_norm=no,
                    by_own_attack=no,
                    misclassified_8bit=correct_8bit <= half,
                    images=data.to_8bit(stored),
                    reached=no,
                    reached_8bit=no,
                    correct_draws=correct,
                    correct_draws_8bit=correct_8bit,
                )
            )
    return BatchResult(
        **vars(stacked(outcomes)),
        minimum_norms=images.new_full((len(images), len(norms_of(threats))), torch.nan),
        clean_predicted=clean_predicted,
        clean_misclassified=clean_correct <= half,
        clean_correct_draws=clean_correct,
    )
