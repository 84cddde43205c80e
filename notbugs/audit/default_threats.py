"""Threat models of an audit that its user left open: they follow from the model's file, or from the images."""

import math
from dataclasses import replace

from notbugs import data
from notbugs.audit.classifiers import load_classifier
from notbugs.audit.config import AuditConfig
from notbugs.errors import InputError
from notbugs.runs.metadata import epsilon_text
from notbugs.search.threat_models import NORMS
from notbugs.study.epsilon import default_epsilon, neighbor_distances
from notbugs.study.epsilon_source import epsilon_reason

AUTO = "auto"


def is_open(text: str) -> bool:
    """Whether a threat model leaves its epsilon open: "auto", "linf:auto".

    Examples
    --------
    >>> is_open("linf:auto"), is_open("linf:8/255")
    (True, False)
    """
    return text.rpartition(":")[2].strip().lower() == AUTO


def check_open(text: str) -> None:
    """Raises InputError for a norm in which no epsilon is chosen."""
    norm = text.rpartition(":")[0].strip().lower()
    if norm not in ("", "l2", "linf"):
        rule = "auto must be in l2 or linf" if norm in NORMS else f"must start with one of {', '.join(NORMS)}, spatial"
        raise InputError("--epsilon", rule, repr(text))


def with_epsilon(config: AuditConfig) -> AuditConfig:
    """The configuration with threat models of which each has its epsilon.

    Parameters
    ----------
    config : AuditConfig
        Without threat models, or with some that are open: then epsilon is the one that the model was trained with, or without
        that `default_epsilon` of the images, which `conditions` explains; half of it is evaluated, too.

    Raises
    ------
    InputError
        If no two images of different classes differ.
    """
    if config.threats and not any(map(is_open, config.threats)):
        return config
    training = load_classifier(config, config.model).metadata
    threats: list[str] = []
    reasons: list[str] = []
    for text in config.threats or (AUTO,):
        if not is_open(text):
            threats.append(text)
            continue
        check_open(text)
        norm = text.rpartition(":")[0].strip().lower() or training.norm or "l2"
        epsilon = training.epsilon if norm == training.norm else None
        if not epsilon:
            epsilon, reason = _from_images(config, norm)
            reasons.append(f"{norm} {epsilon_text(epsilon)} and half of it: {reason[0].lower()}{reason[1:].rstrip('.')}")
        threats += [f"{norm}:{epsilon_text(each)}" for each in (epsilon / 2, epsilon)]
    return replace(config, threats=tuple(dict.fromkeys(threats)), epsilon_reason=". ".join(reasons))


def _from_images(config: AuditConfig, norm: str) -> tuple[float, str]:
    """An epsilon that suits the images of the larger part, and why: few images have no near neighbors."""
    splits = data.load_dataset(config.data)
    images = max(splits.train, splits.test, key=len)
    found = neighbor_distances(images, norm)
    if not math.isfinite(found.other_class):
        rule = "must be given: no two images of different classes differ, and the model's file names no epsilon"
        raise InputError("--epsilon", rule, None)
    chosen = default_epsilon(images, norm)
    same = found.same_class if math.isfinite(found.same_class) else None
    return chosen.value, epsilon_reason(chosen.source, norm, found.other_class, same)
