"""The threat models of an audit: what may change, in every norm, and what they are called."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from notbugs import data
from notbugs.audit.classifiers import load_classifier
from notbugs.audit.config import TARGET_RULES, AuditConfig
from notbugs.audit.default_threats import with_epsilon
from notbugs.audit.images import given_targets, test_part
from notbugs.audit.target_file import is_target_file
from notbugs.errors import InputError
from notbugs.search import Mask, NormBall, SpatialTransforms
from notbugs.search.threat_models import parse_threat_model

Threat = NormBall | SpatialTransforms
NORM_ORDER = {"l2": 0, "linf": 1, "l1": 2, "l0": 3}  # spatial transforms come last


def mask_of(config: AuditConfig) -> Mask | None:
    """The mask, checked against the images."""
    return None if config.mask is None else data.read_mask(config.mask, test_part(config)[0].shape)


def threat_models(config: AuditConfig) -> list[Threat]:
    """The threat models, norm by norm, each with ascending epsilon.

    Raises
    ------
    InputError
        If an epsilon or the mask does not fit the images; if L-inf has limits of channels of several proportions, whose minimum
        norms are of different kinds.
    """
    config = with_epsilon(config)
    training = load_classifier(config, config.model).metadata
    threats: list[Threat] = [parse_threat_model(text, training.norm or "l2") for text in config.threats]
    for threat in threats:
        if isinstance(threat, NormBall) and threat.epsilon == math.inf:
            raise InputError("--epsilon", "must be finite: within the whole pixel range any image becomes any other", str(threat))
    if mask := mask_of(config):
        threats = [_masked(threat, mask) for threat in threats]
    if len(proportions := {threat.channels for threat in threats if isinstance(threat, NormBall) and threat.norm == "linf"}) > 1:
        rule = "must have limits of channels in one proportion: a minimum norm is in units of the largest"
        limits = ", ".join(str(threat) for threat in threats if norm_of(threat) == "linf")
        raise InputError("--epsilon", rule, limits, f"use one command for each of the {len(proportions)}")
    shape = torch.Size((1, *test_part(config)[0].shape))
    unique = {str(threat): threat.fit(shape) for threat in threats}
    return sorted(unique.values(), key=_order)


def _masked(threat: Threat, mask: Mask) -> NormBall:
    if isinstance(threat, NormBall):
        return replace(threat, mask=mask)
    rule = "has no meaning for rotations and translations, which move all pixels"
    raise InputError("--mask", rule, str(threat), "leave one of the two out")


def _order(threat: Threat) -> tuple[int, float]:
    if not isinstance(threat, NormBall):
        return len(NORM_ORDER), 0.0
    return NORM_ORDER[threat.norm], float(threat.epsilon)


def norm_of(threat: Threat | None) -> str:
    """Its norm, "spatial", or "" for no perturbation."""
    if threat is None:
        return ""
    return threat.norm if isinstance(threat, NormBall) else "spatial"


def norms_of(threats: Sequence[Threat]) -> list[str]:
    """The norms among the threat models, each once.

    Examples
    --------
    >>> norms_of([NormBall("l2", 0.5), NormBall("l2", 1.0), SpatialTransforms(30, 3)])
    ['l2']
    """
    return list(dict.fromkeys(threat.norm for threat in threats if isinstance(threat, NormBall)))


def folder_name(threat: Threat) -> str:
    """The folder of the perturbed images.

    Examples
    --------
    >>> folder_name(NormBall("linf", 8 / 255))
    'attacked-linf-8of255'
    """
    return "attacked-" + re.sub("[ ,]+", "-", str(threat).replace("/", "of"))


def threat_id(config: AuditConfig, threat: Threat) -> str:
    """The threat model in tables: what may change, and toward which class.

    Examples
    --------
    >>> from notbugs.data import DataConfig
    >>> threat_id(AuditConfig("m.onnx", DataConfig("digits"), target="3"), NormBall("l2", 0.5))
    'l2 0.5, target 3'
    """
    return str(threat) if config.target is None else f"{threat}, target {target_name(config)}"


def required_threat(config: AuditConfig, text: str | None) -> str:
    """What tables call the threat model that is meant by a text, as `threats` has them, by "clean", or by None: the main one.

    The main one has the largest epsilon, if all threat models are in one norm.

    Raises
    ------
    InputError
        If none is meant.
    """
    if text == "clean":
        return text
    if text is not None:
        return threat_id(config, threat_models(replace(config, threats=(text,)))[0])
    threats = threat_models(config)
    if len({norm_of(threat) for threat in threats}) > 1:
        rule = "must name its threat model where these are in several norms"
        raise InputError("--fail-under", rule, ", ".join(map(str, threats)), "for example l2:0.5=30%")
    return threat_id(config, threats[-1])


def target_name(config: AuditConfig) -> str:
    """What tables call the target: a class, a rule or the name of a file; "" without one."""
    return Path(config.target or "").name if is_target_file(config.target or "") else config.target or ""


def restriction(config: AuditConfig, threats: Sequence[Threat], norm: str) -> str | None:
    """Beyond the norm what minimum norms are of: limits of channels, mask and target; None if nothing."""
    found = [threat.restriction for threat in threats if isinstance(threat, NormBall) and threat.norm == norm][:1]
    return "; ".join([each for each in found if each] + ([f"target {target_name(config)}"] if config.target else [])) or None


def conditions(config: AuditConfig) -> list[str]:
    """What a reader must know of the threat models and the images: one sentence each, none for the usual ones."""
    said = [config.epsilon_reason] if config.epsilon_reason else []
    if mask := mask_of(config):
        said.append(f"{str(mask).capitalize()} is {Path(config.mask or '').name}: {mask.described}")
    if config.only_classes is not None:
        classes = ", ".join(config.only_classes)
        said.append(f"Only images of these classes are attacked: {classes}. Every class may be predicted")
    if config.target is not None:
        goal, left = _goal_and_left_out(config)
        said.append(
            f"Attacks are targeted at {goal}. They succeed only if the target is predicted{left}. Robust accuracy is then the "
            "share of images that are classified correctly and do not reach their target. Untargeted attacks leave at most that"
        )
    return said


def _goal_and_left_out(config: AuditConfig) -> tuple[str, str]:
    """What attacks are targeted at, and which images have no target, in words."""
    every, target = data.load_dataset(config.data).test, config.target or ""
    if target in TARGET_RULES:
        return TARGET_RULES[target], ""
    if (given := given_targets(config, every)) is None:
        return f"the class {target}", ". Images of that class are left out"
    without = len(every) - len(given)
    left = f". {without:,} of {len(every):,} test images have no row in it and are left out" if without else ""
    return f"the class that {target_name(config)} has for each image", left
