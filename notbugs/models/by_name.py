"""Any classifier by its name: a checkpoint, an ONNX file, or `module:function`."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from notbugs.errors import InputError
from notbugs.models import checkpoint, factory
from notbugs.models.black_box import BlackBox, from_sklearn
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.class_map import estimator_names
from notbugs.models.onnx import from_onnx
from notbugs.models.onnx_names import onnx_names


def classifier_by_name(name: str, *, classes: Sequence[str], network: str | None = None) -> tuple[nn.Module, CheckpointMetadata]:
    """A classifier by name, and what is known of it: its metadata if it is a checkpoint, and the names of its outputs.

    Parameters
    ----------
    name : str
        A .safetensors file that `models.save` wrote, an .onnx file, or `module:function`. The function is called with classes=K
        and returns a trained network of pixels in [0, 1], a fitted scikit-learn classifier, or a function for `BlackBox`. Naming
        it runs that code.
    classes : sequence of str
        Names of the K classes.
    network : str, optional
        As in `models.load`.

    Raises
    ------
    InputError
        If there is no such classifier or it cannot be used.
    """
    if name.endswith(".onnx"):
        names = onnx_names(Path(name))
        return from_onnx(Path(name), names or classes), CheckpointMetadata(classes=names)
    module, colon, function = name.partition(":")
    if not colon or Path(name).exists() or not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        return checkpoint.load(Path(name), network)
    classifier = factory.user_object(name, len(classes), "MODEL")
    if isinstance(classifier, nn.Module):
        return classifier.eval(), CheckpointMetadata()
    if hasattr(classifier, "predict") or hasattr(classifier, "predict_proba"):
        names = estimator_names(classifier, classes)
        return from_sklearn(classifier, names), CheckpointMetadata(classes=names)
    if not callable(classifier):
        rule = f"{name} must return a network, a scikit-learn classifier or a function of images"
        raise InputError("MODEL", rule, type(classifier).__name__)
    return BlackBox(classifier, classes), CheckpointMetadata()
