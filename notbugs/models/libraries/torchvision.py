"""`torchvision:NAME[@WEIGHTS]`."""

import importlib
from collections.abc import Sequence

from torch import nn

from notbugs.errors import InputError
from notbugs.models.libraries.network import Asked, LibraryNetwork, three
from notbugs.models.reading import Reading


def torchvision_network(asked: Asked) -> LibraryNetwork:
    """A network of torchvision. It raises what torchvision raises where there is no such network."""
    models = importlib.import_module("torchvision.models")
    name, _, chosen = asked.name.partition("@")
    if name not in models.list_models(module=models):
        raise InputError("MODEL", f"{name} must be a network for classification of torchvision.models", repr(name))
    available = models.get_model_weights(name)
    if chosen and chosen not in available.__members__:
        raise InputError("MODEL", f"weights of torchvision:{name} must be {', '.join(available.__members__)}", repr(chosen))
    weights = available[chosen] if chosen else available.DEFAULT
    auxiliary = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    plain = {**auxiliary, "init_weights": True} if auxiliary else {}
    if asked.pretrained:
        network = models.get_model(name, weights=weights)
        for head in ("aux1", "aux2", "AuxLogits"):  # they serve training alone
            if hasattr(network, head):
                setattr(network, head, None)
        if auxiliary:
            network.aux_logits = False
    else:
        network = models.get_model(name, weights=None, num_classes=asked.outputs or len(weights.meta["categories"]), **plain)
        if "transform_input" in asked.options:
            network.transform_input = asked.options["transform_input"]
    transforms = weights.transforms()
    crop = transforms.crop_size[0] if isinstance(transforms.crop_size, Sequence) else transforms.crop_size
    reading = Reading(mean=three(transforms.mean), std=three(transforms.std), size=(crop, crop))
    if asked.pretrained and asked.outputs is not None:
        replace_head(network, len(weights.meta["categories"]), asked.outputs)
    options = {"transform_input": network.transform_input} if hasattr(network, "transform_input") else {}
    return LibraryNetwork(network, reading, tuple(weights.meta["categories"]) if asked.outputs is None else None, options)


def replace_head(network: nn.Module, before: int, outputs: int) -> None:
    """A new last layer with random weights: the last linear layer, or convolution with kernel 1, of so many outputs."""
    heads = [
        (name, module)
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == before)
        or (isinstance(module, nn.Conv2d) and module.out_channels == before and module.kernel_size == (1, 1))
    ]
    if not heads:
        raise InputError("--network", "must end with a linear layer or a convolution to be fine-tuned", type(network).__name__)
    name, head = heads[-1]
    new: nn.Module
    if isinstance(head, nn.Linear):
        new = nn.Linear(head.in_features, outputs, bias=head.bias is not None)
    else:
        new = nn.Conv2d(head.in_channels, outputs, 1, bias=head.bias is not None)
    owner, _, child = name.rpartition(".")
    setattr(network.get_submodule(owner), child, new)
