"""Attacks that users register (`extensions.Attack`): they run after the ensemble, and robust accuracies count what they find."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.budgets import ensemble_name
from notbugs.attacks.pgd import default_steps
from notbugs.attacks.validation import Model, has_gradient
from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions import Attack as OwnAttack
from notbugs.extensions import registry
from notbugs.search import Attack, AttackResult, SpatialTransforms, ThreatModel, objectives
from notbugs.user_modules import import_error


def own_attacks(threat_model: ThreatModel | SpatialTransforms, *, gradient: bool) -> list[Attack]:
    """The registered attacks that can run, for `worst_case`.

    Parameters
    ----------
    threat_model : ThreatModel or SpatialTransforms
        Into which perturbed images are projected. Rotations and translations cannot do so: none.
    gradient : bool
        Whether the model has gradients: without them only attacks that are functions of their own run.

    Returns
    -------
    list of callable
        (model, images, labels) to AttackResult. They raise InputError where a function fails, or returns something else than it
        must.
    """
    return [partial(_run, own=own, threat_model=threat_model) for own in _usable(threat_model, gradient)]  # type: ignore[arg-type]


def can_follow_gradients(model: Model, images: Tensor) -> bool:
    """Whether registered attacks get gradients; True without a look where there are no such attacks."""
    return not registry.registered().attacks or has_gradient(model, images)


def attack_name(budget: str, threat_model: ThreatModel | SpatialTransforms, *, gradient: bool) -> str:
    """Name of the ensemble and of the registered attacks that run after it, as tables have it."""
    return " + ".join([ensemble_name(budget), *(own.name for own in _usable(threat_model, gradient))])


def warn_of_unused(gradient: bool) -> None:
    """Warns of registered attacks that need gradients, where the model has none."""
    if not gradient and (unused := [own.name for own in registry.registered().attacks if not own.attack]):
        message = f"not run, for they need gradients, which the model does not have: {', '.join(unused)}"
        warnings.warn(f"{message}; register an `attack` without gradients", NotbugsWarning, stacklevel=2)


def _usable(threat_model: ThreatModel | SpatialTransforms, gradient: bool) -> list[OwnAttack]:
    if isinstance(threat_model, SpatialTransforms):
        return []
    return [own for own in registry.registered().attacks if gradient or own.attack]


def _run(model: Model, images: Tensor, labels: Tensor, *, own: OwnAttack, threat_model: ThreatModel) -> AttackResult:
    """One registered attack. Its margins are those of the projected images."""
    base = objectives.untargeted(model, labels)
    if own.attack:
        found = _call(own.attack, model=model, images=images.clone(), labels=labels, threat_model=threat_model)
        found = threat_model.project(_checked(own.attack, found, images).detach(), images)
        with torch.no_grad():
            return AttackResult(found, base.criterion(base.forward(found)))

    def objective(logits: Tensor) -> Tensor:
        return _checked(own.objective, _call(own.objective, logits=logits, labels=labels), labels, finite=False)

    def rule(now: search.StepState, state: object) -> tuple[Tensor, object]:
        returned = _call(own.rule, now=now, state=state, threat_model=threat_model)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise InputError(own.rule, "must return the update of the images and a state", type(returned).__name__)
        return _checked(own.rule, returned[0], images), returned[1]

    steps: search.UpdateRule = rule if own.rule else default_steps(threat_model)
    searched = base._replace(objective=objective) if own.objective else base
    return search.maximize(searched, images, threat_model, steps=own.steps, rule=steps)


def _call(name: str, **given: object) -> object:
    """Raises InputError with the line of the function where it fails, except for want of memory."""
    function: Callable[..., object] = registry.function_of(name)
    try:
        return function(**given)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # others' code may raise anything
        if "can't allocate memory" in str(error):
            raise
        raise InputError(name, "must run on these images", import_error(error)) from error


def _checked(name: str, found: object, like: Tensor, *, finite: bool = True) -> Tensor:
    """What a function returned. Raises InputError unless it is a float tensor of the shape of `like`, finite or without NaN."""
    shape = tuple(like.shape)
    if not isinstance(found, Tensor) or tuple(found.shape) != shape or not found.is_floating_point():
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(name, f"must return a float tensor of shape {shape}", got)
    wrong = ~found.isfinite() if finite else found.isnan()
    if bool(wrong.any()):
        raise InputError(name, f"must return {'finite numbers' if finite else 'no NaN'}", f"{int(wrong.sum())} other values")
    return found
