"""Classifiers of images in [0, 1]: architectures, users' networks, checkpoints, black boxes."""

from notbugs.models.architectures import ARCHITECTURES, TRANSFER_ARCHITECTURES, Residual
from notbugs.models.checkpoint import check_writable, load, save
from notbugs.models.classifier import (
    Classifier,
    Model,
    WrappedClassifier,
    copied,
    frozen,
    frozen_copy,
    head_name,
    memory_format,
    unchanged,
)
from notbugs.models.factory import build
from notbugs.models.features import with_features, wrap
from notbugs.models.finetune import build_from
from notbugs.models.fusion import fuse_batchnorm
from notbugs.models.layers import layer_forward
from notbugs.models.user_code import user_object

__all__ = [
    "ARCHITECTURES",
    "TRANSFER_ARCHITECTURES",
    "Classifier",
    "Model",
    "Residual",
    "WrappedClassifier",
    "build",
    "build_from",
    "check_writable",
    "copied",
    "frozen",
    "frozen_copy",
    "fuse_batchnorm",
    "head_name",
    "layer_forward",
    "load",
    "memory_format",
    "save",
    "unchanged",
    "user_object",
    "with_features",
    "wrap",
]
