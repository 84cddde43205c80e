"""What a study compares: each result with its controls, the sources and targets of transferred examples. Imports no torch."""

import math
from collections.abc import Sequence

from notbugs.study.catalog.datasets import DATASETS, EXTENSIONS, INDEPENDENT_MODELS
from notbugs.study.catalog.models import ARCHITECTURES, EPSILON_SWEEP, LEARNERS, MODELS, trained_on

TRANSFER_SOURCES = ("standard", *EPSILON_SWEEP, "adversarial")
TRANSFER_TARGETS = ("standard", "same-init", "reinit-1", *INDEPENDENT_MODELS, *ARCHITECTURES, "adversarial")
TARGET_TITLES = {
    "standard": "the standard model itself",
    "same-init": "the study's network, the same initialization, trained anew",
    "reinit-1": "the study's network, another random initialization",
    "reinit-2": "another random initialization",
    "reinit-3": "another random initialization",
    "reinit-4": "another random initialization",
    **ARCHITECTURES,
    "adversarial": "the adversarially trained model",
    **LEARNERS,
}

# Pixels times images that a non-neural classifier is fitted to at most: 1 GB, with which boosted trees take over an hour
LEARNER_VALUES = 2**28


def learner_images(shape: Sequence[int], count: int) -> int:
    """How many of `count` training images of this shape a non-neural classifier is fitted to.

    Examples
    --------
    >>> learner_images((3, 32, 32), 50_000), learner_images((3, 224, 224), 50_000)
    (50000, 1783)
    """
    return min(count, max(1, LEARNER_VALUES // max(1, math.prod(shape))))


def starts_from_standard(name: str) -> bool:
    """Whether a model starts from the standard model's initialization, which is unknown where that model was given."""
    return MODELS[name].init_from == "standard"


# The result of a model, its controls, and what each control would rule out
_ANY_PERTURBATION = "any perturbation of this size would do"
_PATTERN = "one pattern per label is all there is to learn"
_ROBUST = "the perturbations are features that a robust model uses"
_ERRORS = "a model's errors teach as much without an attack"
_PHOTOS = "a model's predictions on any images teach as much"
ROBUST_FEATURES_ALONE = "robust features alone give the labels away"  # what the leakage probes rule out
_ALREADY = "images that already look like their new label do the teaching"
CONTROLS_OF: dict[str, dict[str, str]] = {
    "trained-on-random-labels": {
        "trained-on-random-labels-shuffled": _ANY_PERTURBATION,
        "trained-on-random-labels-class-patterns": _PATTERN,
        "trained-on-random-labels-robust": _ROBUST,
        "trained-on-misclassified-only": _ERRORS,
        "trained-on-unrelated-photos": _PHOTOS,
    },
    "trained-on-random-labels-filtered": {"trained-on-random-labels-shuffled": _ALREADY},
    "trained-on-random-labels-incl-true": {
        "trained-on-random-labels-incl-true-class-patterns": "the labels left right by chance do the teaching"
    },
    "trained-on-next-labels": {
        "trained-on-next-labels-shuffled": _ANY_PERTURBATION,
        "trained-on-next-labels-class-patterns": _PATTERN,
        "trained-on-next-labels-robust": _ROBUST,
        "trained-on-next-labels-non-transferable": "perturbations that mislead one model alone would do",
        "trained-on-misclassified-only": _ERRORS,
        "trained-on-unrelated-photos": _PHOTOS,
    },
    "trained-on-next-labels-filtered": {"trained-on-next-labels-shuffled": _ALREADY},
}
for _control in EXTENSIONS.controls:
    CONTROLS_OF[trained_on(_control.control_of)][trained_on(_control.name)] = _control.rules_out
# Other ways of teaching as much: no controls of the perturbations
ALTERNATIVE_EXPLANATIONS = ("trained-on-misclassified-only", "trained-on-unrelated-photos")
# Linear classifiers on robust features alone: control name -> the model whose features they see
LEAKAGE_PROBES = {
    "robust-linear": "linear classifier on robust linear features",
    "adversarial": "linear classifier on the robust model's robust features",
}
PROBE_NAMES = {"robust-linear": "leakage probe, linear", "adversarial": "leakage probe, deep"}  # in every table for readers
LEAKAGE_DATASETS = (
    "random-labels",
    "random-labels-incl-true",
    "next-labels",
    "random-labels-robust",
    "next-labels-non-transferable",
)
PERTURBATION_DATASETS = (
    *("random-labels", "random-labels-incl-true", "next-labels", "random-labels-shuffled", "next-labels-shuffled"),
    *("random-labels-class-patterns", "next-labels-class-patterns", "random-labels-robust", "next-labels-robust"),
    "next-labels-non-transferable",
)


def probe_name(probe: str) -> str:
    """The name of a leakage probe in the column `control`."""
    return f"leakage probe: {probe}"


def control_title(control: str) -> str:
    """A control in words, one line."""
    for probe, title in LEAKAGE_PROBES.items():
        if control == probe_name(probe):
            return title
    return DATASETS[MODELS[control].trained_on].title.removeprefix("control: ") if control in MODELS else control


def control_short(control: str) -> str:
    """A control in few words, for narrow tables."""
    for probe, short in PROBE_NAMES.items():
        if control == probe_name(probe):
            return short
    return DATASETS[MODELS[control].trained_on].short if control in MODELS else control
