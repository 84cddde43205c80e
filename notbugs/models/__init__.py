"""Classifiers: pixels in [0, 1] -> normalise -> features -> logits. Small networks, any user's network, save and load."""

from notbugs.models.building import build, user_object, wrap
from notbugs.models.classifier import Classifier, Model, Wrapped, folded, frozen, layout, still
from notbugs.models.disk import check_place, load, save
from notbugs.models.networks import FAMILIES, NETWORKS, Residual

__all__ = [
    "FAMILIES",
    "NETWORKS",
    "Classifier",
    "Model",
    "Residual",
    "Wrapped",
    "build",
    "check_place",
    "folded",
    "frozen",
    "layout",
    "load",
    "save",
    "still",
    "user_object",
    "wrap",
]
