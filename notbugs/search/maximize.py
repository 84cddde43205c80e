"""The one loop that perturbs images. Attacks, constructions and metrics differ only in objective, threat model and start."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.search.norm_ball import NormBall, per_image
from notbugs.search.objectives import Objective
from notbugs.search.threat_models import ThreatModel
from notbugs.search.update_rules import StepState, UpdateRule


class AttackResult(NamedTuple):
    """The best iterate of each image.

    Attributes
    ----------
    images : Tensor, (N, C, H, W), in [0, 1]
    margins : Tensor, (N,)
        The criterion of exactly these images. Of an untargeted attack 0 or more is misclassified.
    """

    images: Tensor
    margins: Tensor


# (model, images, labels) -> AttackResult; options are bound with functools.partial
Attack = Callable[[nn.Module, Tensor, Tensor], AttackResult]


def maximize(
    objective: Objective, images: Tensor, threat_model: ThreatModel, *, steps: int, rule: UpdateRule, start: Tensor | None = None
) -> AttackResult:
    """Maximize an objective inside a threat model by projected gradient ascent.

    Follows the gradient of `objective.objective` and keeps the iterate with the highest `objective.criterion`, start included.
    Costs one forward and one backward pass per step and one forward pass at the end. Deterministic; copies nothing to the host.
    The caller sets the model's mode and freezes its parameters: see `models.frozen`.

    Parameters
    ----------
    objective : Objective
    images : Tensor, (N, C, H, W), float, in [0, 1]
        The clean images.
    threat_model : ThreatModel
    steps : int
        0 or more.
    rule : UpdateRule
        How an iterate becomes the next one, before projection.
    start : Tensor, (N, C, H, W), optional
        First iterate, projected first. Default: the clean images.

    Raises
    ------
    InputError
        If steps is negative or epsilon is too large for the images.

    Examples
    --------
    >>> import torch
    >>> from notbugs.search import NormBall, cosine_steps, maximize, objectives
    >>> model, images, labels = torch.nn.Flatten(), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    >>> threat_model = NormBall("linf", 0.125)
    >>> objective = objectives.untargeted(model, labels)
    >>> maximize(objective, images, threat_model, steps=3, rule=cosine_steps(threat_model, 0.125)).margins
    tensor([0.2500])
    """
    best, best_margins = images, images.new_full((len(images),), -torch.inf, dtype=torch.float32)
    for number, (iterate, outputs) in enumerate(_iterates(objective, images, threat_model, steps, rule, start)):
        with torch.no_grad():
            margins = objective.criterion(objective.forward(iterate) if outputs is None else outputs)
            best, best_margins = _better(iterate, margins, best if number else iterate, best_margins)
    return AttackResult(best, best_margins)


def last_iterate(
    objective: Objective, images: Tensor, threat_model: ThreatModel, *, steps: int, rule: UpdateRule, start: Tensor | None = None
) -> Tensor:
    """The last iterate of the search of `maximize`, whatever its criterion, without the forward pass at the end.

    Parameters
    ----------
    objective, images, threat_model, steps, rule, start
        As of `maximize`.

    Returns
    -------
    Tensor, (N, C, H, W), in [0, 1]
        Whether it is misclassified is not known.

    Raises
    ------
    InputError
        As of `maximize`.
    """
    found = images
    for iterate, _ in _iterates(objective, images, threat_model, steps, rule, start):
        found = iterate
    return found


def _iterates(
    objective: Objective, images: Tensor, threat_model: ThreatModel, steps: int, rule: UpdateRule, start: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each iterate, the start included, with the outputs of its forward pass; the last one has had none."""
    if steps < 0:
        raise InputError("steps", "must be 0 or more", steps)
    refuse_inference_mode()
    if isinstance(threat_model, NormBall):
        threat_model.fit(images.shape)
    images = images.detach()
    iterate = threat_model.project((images if start is None else start).detach(), images)
    state: Any = None
    for step in range(steps):
        outputs, values, gradient = _forward_backward(objective, iterate)
        yield iterate, outputs
        with torch.no_grad():
            update, state = rule(StepState(step, steps, iterate, values, gradient), state)
            iterate = threat_model.project(iterate + update, images)
    yield iterate, None


def refuse_inference_mode() -> None:
    """Raises InputError within torch.inference_mode: PyTorch computes no gradients there, whatever torch.enable_grad says."""
    if torch.is_inference_mode_enabled():
        raise InputError(
            "torch.inference_mode", "must be off where gradients are computed", "on", "call this outside of its block"
        )


def gradients(function: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Values of several functions of images, and their gradients with respect to the images.

    Parameters
    ----------
    function : callable
        Images (N, C, H, W) to M values each, (N, M).
    images : Tensor, (N, C, H, W)

    Returns
    -------
    tuple of Tensor
        Values (N, M) and gradients (M, N, C, H, W), from one forward and M backward passes; from M of each for a model whose
        graph lasts for one backward pass, as that of `torch.compile` may.
    """
    refuse_inference_mode()
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        columns = function(images).unbind(1)
        numbers = range(len(columns))
        try:
            gradients = [
                torch.autograd.grad(columns[number].sum(), images, retain_graph=number + 1 < len(columns))[0]
                for number in numbers
            ]
        except RuntimeError as error:
            if _is_final(error):
                raise
            alone = [partial(_column, function, number) for number in numbers]
            gradients = [_gradient(one(images), images, one) for one in alone]
    return torch.stack([column.detach() for column in columns], dim=1), torch.stack(gradients)


def _column(function: Callable[[Tensor], Tensor], number: int, images: Tensor) -> Tensor:
    """One of the values of a function: (N,)."""
    return function(images)[:, number]


def _gradient(values: Tensor, images: Tensor, again: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of values (N,) with respect to the images (N, C, H, W), a leaf.

    Reentrant checkpoints refuse `autograd.grad`. Then the values are computed again, and their backward pass fills `images.grad`;
    parameters that are not frozen get theirs, too.
    """
    try:
        return torch.autograd.grad(values.sum(), images)[0]
    except RuntimeError as error:
        if _is_final(error) or "checkpoint" not in str(error).lower():
            raise
        images = images.detach().requires_grad_()
        again(images).sum().backward()  # type: ignore[no-untyped-call]
        if images.grad is None:
            raise
        return images.grad


def _is_final(error: RuntimeError) -> bool:
    """Whether it is no use to try again: memory ran out, or the values do not depend on the images."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        part in text for part in ("can't allocate memory", "not require grad")
    )


def _forward_backward(objective: Objective, iterate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the forward pass, the objective (N,), and its gradient with respect to the iterate."""
    iterate = iterate.detach().requires_grad_()
    with torch.enable_grad():
        outputs = objective.forward(iterate)
        values = objective.objective(outputs)
        gradient = _gradient(values, iterate, lambda images: objective.objective(objective.forward(images)))
    return outputs.detach(), values.detach(), gradient


def _better(iterate: Tensor, margins: Tensor, best: Tensor, best_margins: Tensor) -> tuple[Tensor, Tensor]:
    """The better of two images, for each of N; NaN never wins."""
    wins = margins > best_margins
    return torch.where(per_image(wins, iterate), iterate, best), torch.where(wins, margins, best_margins)
