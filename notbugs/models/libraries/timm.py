"""`timm:NAME`."""

import importlib
from functools import partial
from types import ModuleType

from torch import nn

from notbugs.errors import InputError
from notbugs.models.libraries.network import Asked, LibraryNetwork, three
from notbugs.models.reading import Options, Reading


def timm_network(asked: Asked) -> LibraryNetwork:
    """A network of timm. It raises what timm raises where there is no such network."""
    timm = importlib.import_module("timm")
    outputs = {} if asked.outputs is None else {"num_classes": asked.outputs}
    fixed = bool(asked.size) and _timm_config(timm, asked.name).get("fixed_input_size", False)
    create = partial(timm.create_model, asked.name, pretrained=asked.pretrained, **outputs)
    try:
        network = create(img_size=asked.size) if fixed else create()
    except (AssertionError, ValueError, TypeError):
        if not fixed:
            raise
        network = create()  # of its own size: it cannot be built for this one
    if asked.outputs is None and getattr(network, "num_classes", 1) == 0:
        remedy = f"fine-tune it: --network timm:{asked.name} --pretrained"
        raise InputError("MODEL", f"timm:{asked.name} must have a classifier", "weights for features alone", remedy)
    config = timm.data.resolve_model_data_config(network)
    reading = Reading(
        mean=three(config["mean"]),
        std=three(config["std"]),
        size=tuple(config["input_size"][1:]),
        bicubic=config.get("interpolation") == "bicubic",
    )
    return LibraryNetwork(network, reading, _timm_classes(timm, network) if asked.outputs is None else None, {})


def _timm_config(timm: ModuleType, name: str) -> Options:
    """The configuration of a network's weights, without building it; {} where it is not in the package."""
    if ":" in name:
        return {}
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    return dict(config.to_dict()) if config else {}


def _timm_classes(timm: ModuleType, network: nn.Module) -> tuple[str, ...] | None:
    """Names of the outputs: in its configuration, or those of ImageNet's subsets, which the package has."""
    config: Options = getattr(network, "pretrained_cfg", {})
    if names := config.get("label_names"):
        return tuple(map(str, names))
    try:
        subset = timm.data.infer_imagenet_subset(network)
        info = timm.data.ImageNetInfo(subset) if subset else None
    except Exception:  # a subset that this version does not have
        return None
    if info is None or info.num_classes() != getattr(network, "num_classes", None):
        return None
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
