"""One batch of an audit: images under every threat model, by the minimum-norm attack and the ensemble."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from notbugs import attacks, data, search
from notbugs.attacks import BUDGETS, MinimumNormResult
from notbugs.attacks.own import own_attacks
from notbugs.audit.threats import Threat
from notbugs.models.reading import not_finite
from notbugs.search import NormBall, objectives
from notbugs.search.threat_models import per_image

REFINE_STEPS = 10  # of the search for a perturbation that survives rounding to 8 bits


@dataclass(frozen=True)
class Outcome:
    """Perturbed images, within one threat model (N,) or within all of them (N, threats).

    A tie and logits that are NaN or infinite count as misclassified. An image of a random model is misclassified if it is in half
    of the draws or more.

    Attributes
    ----------
    predicted, predicted_8bit : Tensor, int64
        For the perturbed image, and for what is stored of it; -1 where logits are NaN or infinite.
    misclassified, by_minimum_norm, by_own_attack, misclassified_8bit : Tensor, bool
        Under any attack; by the minimum-norm attack alone; by registered attacks, and by nothing before; of what is stored. With
        targets an attack counts where it reached its target, and the clean image where none did.
    images : Tensor, uint8 (…, C, H, W)
        What is stored: the perturbed image, or the clean one if no attack succeeded.
    reached, reached_8bit : Tensor, bool
        Whether the target is predicted, also of what is stored; False without targets.
    correct_draws, correct_draws_8bit : Tensor, int64
        Of a random model, in how many of `attacks.DRAWS` draws the image is classified correctly, and what is stored; else -1.
    """

    predicted: Tensor
    predicted_8bit: Tensor
    misclassified: Tensor
    by_minimum_norm: Tensor
    by_own_attack: Tensor
    misclassified_8bit: Tensor
    images: Tensor
    reached: Tensor
    reached_8bit: Tensor
    correct_draws: Tensor
    correct_draws_8bit: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """What it consists of, in order."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class BatchResult(Outcome):
    """Images within all threat models (N, threats), and clean.

    Attributes
    ----------
    minimum_norms : Tensor, (N, norms)
        Of the smallest perturbation found; 0: misclassified without one; inf: none found; NaN: not searched for. With targets: of
        the smallest that reaches the target.
    clean_predicted : Tensor, int64 (N,)
    clean_misclassified : Tensor, bool (N,)
    clean_correct_draws : Tensor, int64 (N,)
    """

    minimum_norms: Tensor
    clean_predicted: Tensor
    clean_misclassified: Tensor
    clean_correct_draws: Tensor


@dataclass(frozen=True)
class _Batch:
    """A model and the images it is attacked on.

    labels: that the attack leads away from; clean_wrong: bool (N,), misclassified without a perturbation; own: the model and the
    labels of the images, where these are others: of a targeted attack, whose model is `PredictsTarget`; starts: where searches
    without gradients begin.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    clean_wrong: Tensor
    own: tuple[nn.Module, Tensor]
    gradient: bool
    budget: str
    starts: Tensor | None


def stacked(outcomes: Iterable[Outcome]) -> Outcome:
    """What was found within each threat model, side by side."""
    return Outcome(*(torch.stack(column, dim=1) for column in zip(*(each.columns for each in outcomes), strict=True)))


def attack_batch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threats: Sequence[Threat],
    budget: str,
    progress: Callable[[float], None] | None = None,
    starts: Tensor | None = None,
    target: int | None = None,
) -> BatchResult:
    """Attack a batch within every threat model.

    Per norm the minimum-norm attack runs once; within each epsilon the ensemble attacks only the images it left.

    Parameters
    ----------
    model : Module
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, int64 (N,)
    threats : sequence
        Norm by norm, each with ascending epsilon.
    budget : {"quick", "standard", "thorough"}
    progress : callable, optional
        Called with the share that is done.
    starts : Tensor, (M, C, H, W), optional
        Images at which minimum-norm searches without gradients may start. Default: `images`.
    target : int, optional
        The class that the attacks are to reach. Default: any wrong one.

    Returns
    -------
    BatchResult
    """
    logits = attacks.clean_logits(model, images, labels)  # first: a surrogate is compared with its black box here
    gradient = attacks.has_gradient(model, images)
    misclassified = objectives.margin(logits, labels) <= 0
    batch = _Batch(model, images, labels, misclassified, (model, labels), gradient, budget, starts)
    if target is not None:
        view = attacks.PredictsTarget(model, target, inverse=attacks.inverse_of(logits))
        with torch.no_grad():
            there = objectives.margin(view(images), torch.zeros_like(labels)) <= 0
        batch = _Batch(view, images, torch.zeros_like(labels), there, (model, labels), gradient, budget, starts)
    nearest: dict[str, MinimumNormResult] = {}
    outcomes: list[Outcome] = []
    for number, threat in enumerate(threats):
        if progress:
            progress(number / len(threats))
        if isinstance(threat, NormBall):
            known = nearest.get(threat.norm) or _minimum_norm(batch, threat)
            nearest[threat.norm], outcome = _attack_within(batch, threat, known)
        else:
            outcome = _attack_within(
                batch, threat, MinimumNormResult(images, torch.where(batch.clean_wrong, 0.0, torch.inf).double())
            )[1]
        outcomes.append(outcome)
    norms = [each.norms for each in nearest.values()]
    found = stacked(outcomes)
    if target is not None:  # what the attacks found is that the target is predicted
        wrong = [column | misclassified[:, None] for column in (found.misclassified, found.by_minimum_norm)]
        reached, reached_8bit = found.misclassified, found.predicted_8bit == target
        found = replace(found, misclassified=wrong[0], by_minimum_norm=wrong[1], reached=reached, reached_8bit=reached_8bit)
    return BatchResult(
        **vars(found),
        minimum_norms=torch.stack(norms, dim=1) if norms else torch.zeros(len(images), 0),
        clean_predicted=logits.argmax(1),
        clean_misclassified=misclassified,
        clean_correct_draws=torch.full_like(labels, -1),
    )


def _attack_within(batch: _Batch, threat: Threat, nearest: MinimumNormResult) -> tuple[MinimumNormResult, Outcome]:
    """The ensemble on the images that the minimum-norm attack left within this threat model."""
    model, images, labels = batch.model, batch.images, batch.labels
    ball = threat if isinstance(threat, NormBall) else None
    epsilon = float(ball.epsilon) if ball else 0.0
    by_minimum_norm = nearest.norms <= epsilon
    misclassified, left = by_minimum_norm.clone(), (~by_minimum_norm).nonzero().squeeze(1)
    found_images, norms, by_own = nearest.images.clone(), nearest.norms.clone(), torch.zeros_like(misclassified)
    if len(left) and (epsilon or ball is None):
        ensemble = attacks.ensemble_toward if isinstance(model, attacks.PredictsTarget) else attacks.adaptive_ensemble
        found = ensemble(model, images[left], labels[left], threat_model=threat, budget=batch.budget)
        rest, registered = (found.margins < 0).nonzero().squeeze(1), own_attacks(threat, gradient=batch.gradient)
        if registered and len(rest):
            again = attacks.worst_case(model, images[left[rest]], labels[left[rest]], registered)
            by_own[left[rest]] = again.margins >= 0
            found = search.AttackResult(*(old.index_copy(0, rest, new) for old, new in zip(found, again, strict=True)))
        success = found.margins >= 0
        hit = left[success]
        found_images[hit], misclassified[hit] = found.images[success], True
        if ball:  # rounding may put a perturbation on the boundary just outside
            norms[hit] = ball.distance((found_images[hit] - images[hit]).double()).clamp_max(epsilon)
    perturbed = torch.where(misclassified[:, None, None, None], found_images, images)
    own, own_labels = batch.own
    with torch.no_grad():
        predicted = _predictions(objectives.logits(own, perturbed))
    stored = _best_8bit(batch, perturbed, misclassified, threat)
    with torch.no_grad():
        logits = objectives.logits(own, stored)
    no, no_draws = torch.zeros_like(misclassified), torch.full_like(predicted, -1)
    outcome = Outcome(
        predicted=predicted,
        predicted_8bit=_predictions(logits),
        misclassified=misclassified,
        by_minimum_norm=by_minimum_norm,
        by_own_attack=by_own,
        misclassified_8bit=objectives.margin(logits, own_labels) <= 0,
        images=data.to_8bit(stored),
        reached=no,
        reached_8bit=no,
        correct_draws=no_draws,
        correct_draws_8bit=no_draws,
    )
    return MinimumNormResult(found_images, norms), outcome


def _predictions(logits: Tensor) -> Tensor:
    """Predicted classes, (N,); -1 where logits are NaN or infinite."""
    return torch.where(not_finite(logits), -1, logits.argmax(1))


def _minimum_norm(batch: _Batch, ball: NormBall) -> MinimumNormResult:
    """The smallest perturbations in one norm; 0 for images that are misclassified without one."""
    found = _search_minimum_norm(batch, ball)
    return MinimumNormResult(found.images, found.norms.double().where(~batch.clean_wrong, 0.0))


def _search_minimum_norm(batch: _Batch, ball: NormBall) -> MinimumNormResult:
    """Minimum-norm attack, or HopSkipJump without gradients; inf in L0, and in L1 without gradients: there is none."""
    model, images, labels, norm = batch.model, batch.images, batch.labels, ball.norm
    if norm == "l0" or (norm == "l1" and not batch.gradient):
        return MinimumNormResult(images, torch.full(labels.shape, torch.inf, device=images.device))
    starts = images if batch.starts is None else batch.starts
    walk = partial(attacks.hop_skip_jump, norm=ball, queries=BUDGETS[batch.budget].minimum_norm_queries, starts=starts)
    if not batch.gradient:
        return walk(model, images, labels)
    found = attacks.minimum_norm(model, images, labels, norm=ball, rounds=BUDGETS[batch.budget].minimum_norm_rounds)
    failed = found.norms.isinf().nonzero().squeeze(1)
    if not len(failed) or norm == "l1":
        return found
    # the gradients lead to no misclassified image: predictions alone may do
    walked = walk(model, images[failed], labels[failed])
    found_images, norms = found.images.clone(), found.norms.clone()
    found_images[failed], norms[failed] = walked.images, walked.norms
    return MinimumNormResult(found_images, norms)


def _best_8bit(batch: _Batch, perturbed: Tensor, misclassified: Tensor, threat: Threat) -> Tensor:
    """The perturbed images rounded to 8 bits so that they stay within the threat model and misclassified.

    A smallest perturbation ends just across the decision boundary, where rounding alone can undo it. So the rounded image with
    the highest criterion is kept: of the perturbation itself, of it scaled up, and (with gradients) of ten further steps.
    """
    if not isinstance(threat, NormBall):
        return (perturbed * 255).round() / 255
    stored, index = threat.round_to_8bit(perturbed, batch.images), misclassified.nonzero().squeeze(1)
    if threat.norm == "l0" or not len(index):
        return stored
    start, center = perturbed[index], batch.images[index]
    objective = objectives.untargeted(batch.model, batch.labels[index])
    room = per_image(threat.epsilon / threat.distance(start - center).clamp_min(1e-6), start)
    candidates = [center + scale * (start - center) for scale in (1 + (room - 1) / 4, 1 + (room - 1) / 2, room)]
    if batch.gradient:
        rule = search.cosine_steps(threat, threat.epsilon / 2, end=0.1)
        candidates.append(search.maximize(objective, center, threat, steps=REFINE_STEPS, rule=rule, start=start).images)
    with torch.no_grad():
        best, value = stored[index], objective.criterion(objective.forward(stored[index]))
        for candidate in candidates:
            rounded = threat.round_to_8bit(threat.project(candidate, center), center)
            criterion = objective.criterion(objective.forward(rounded))
            better = criterion > value
            best, value = torch.where(per_image(better, best), rounded, best), torch.where(better, criterion, value)
    return stored.index_copy(0, index, best)
