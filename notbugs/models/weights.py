"""Weights of a file put into a network: names with prefixes, heads of another size, the layout of MadryLab's robust networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from notbugs.errors import InputError, one_line
from notbugs.models.classifier import Classifier
from notbugs.models.reading import Reading

Weights = Mapping[str, Tensor]
# The layout of the package `robustness` (Engstrom et al. 2019): the network twice, in an AttackerModel and in its Attacker, each
# beside the statistics that normalize its pixels
MEAN, STD = "normalizer.new_mean", "normalizer.new_std"
ROBUSTNESS_COPIES = ("attacker.", "normalizer.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of GoogLeNet and Inception that serve training alone
# Parts of a block in the usual layout of ResNets for small images, and in ours
BASIC_BLOCK = {"conv1.": "body.0.0.", "bn1.": "body.0.1.", "conv2.": "body.1.", "bn2.": "body.2.", "shortcut.": "short."}
BOTTLENECK = {**BASIC_BLOCK, "conv2.": "body.1.0.", "bn2.": "body.1.1.", "conv3.": "body.2.", "bn3.": "body.3."}
REPARAMETRIZED = (
    "_orig",
    "_mask",
    "parametrizations.",
    "weight_g",
    "weight_v",
)  # in names of weights that are pruned or normalized
COUNTERS = "num_batches_tracked"  # of batch norm, which evaluation does not use


class CleanWeights(NamedTuple):
    """The weights of one network, and the normalization that the file holds beside them."""

    weights: Weights
    reading: Reading


def clean_weights(weights: Weights) -> CleanWeights:
    """The weights of the network alone: without what `robustness` keeps beside them, and without its first prefix.

    Examples
    --------
    >>> import torch
    >>> mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    >>> names = {"module.normalizer.new_mean": mean, "module.normalizer.new_std": std, "module.model.fc.bias": torch.zeros(2)}
    >>> cleaned = clean_weights(names)
    >>> list(cleaned.weights), cleaned.reading.std
    (['module.model.fc.bias'], (0.25, 0.25, 0.25))
    """
    mean, std = (next((value for name, value in weights.items() if name.endswith(key)), None) for key in (MEAN, STD))
    if mean is None or std is None:
        return CleanWeights(weights, Reading())
    kept = {name: value for name, value in weights.items() if not name.removeprefix("module.").startswith(ROBUSTNESS_COPIES)}
    return CleanWeights(kept, Reading(mean=tuple(mean.flatten().tolist()), std=tuple(std.flatten().tolist())))


def fitting(weights: Weights, network: nn.Module) -> Weights:
    """Weights under the names that a network has: those under the leading part at which most of its names are found.

    Those of a ResNet for small images in the usual layout get the names that `models.build("resnet18")` gives them.

    Examples
    --------
    >>> import torch
    >>> list(fitting({"module.model.bias": torch.zeros(2), "module.model.weight": torch.zeros(2, 3)}, nn.Linear(3, 2)))
    ['bias', 'weight']
    """
    wanted, start = network.state_dict().keys(), _start(weights, network)
    best = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
    return max(best, from_small_resnet(weights), key=lambda each: len(wanted & each.keys()))


def left_out(weights: Weights, network: nn.Module) -> str:
    """What a file holds besides the weights of the network, of a criterion for example, in words; "" for nothing."""
    start = _start(weights, network)
    others = [name for name in weights if not name.startswith(start)]
    if not others:
        return ""
    count = "1 tensor that is" if len(others) == 1 else f"{len(others)} tensors that are"
    return f"left out of its file: {count} not under {start[:-1]}, {others[0]} for one"


def _start(weights: Weights, network: nn.Module) -> str:
    """The leading part of names, "module." for example, without which most are those of the network; the shortest one."""
    wanted = network.state_dict().keys()
    starts = {name[: place + 1] for name in weights for place, sign in enumerate(name) if sign == "."}
    counts = {start: len(wanted & {name[len(start) :] for name in weights if name.startswith(start)}) for start in starts}
    counts[""] = len(wanted & weights.keys())
    return min(counts, key=lambda start: (-counts[start], len(start), start))


def fitted(cleaned: CleanWeights, network: nn.Module) -> Weights:
    """Weights under the names that a network has. A network of notbugs normalizes pixels itself: with what the file says."""
    given, reading = fitting(cleaned.weights, network), cleaned.reading
    if not isinstance(network, Classifier) or not reading.mean or "mean" in given:
        return given
    statistics = {"mean": reading.mean, "std": reading.std}
    return {**given, **{name: torch.tensor(values).reshape(1, -1, 1, 1) for name, values in statistics.items()}}


def from_small_resnet(weights: Weights) -> Weights:
    """Weights of a ResNet for small images, as MadryLab's for CIFAR-10, under the names of our `resnet18` and `resnet50`.

    That layout is conv1 (3x3) and bn1; blocks layer1.0 to layer4.N of conv1, bn1, conv2, bn2 and, with bottlenecks, conv3, bn3,
    with a convolution and a batch norm as their shortcut; linear. {} for any other layout. A ResNet of ImageNet has fc and
    downsample in place of linear and shortcut.

    Examples
    --------
    >>> import torch
    >>> names = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.shortcut.0.weight", "linear.bias"]
    >>> list(from_small_resnet(dict.fromkeys(names, torch.zeros(1))))
    ['body.0.0.weight', 'body.1.body.0.0.weight', 'body.1.short.0.weight', 'head.bias']
    """
    start = next((name.removesuffix("linear.bias") for name in weights if name.endswith("linear.bias")), "")
    weights = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
    if "layer1.0.conv1.weight" not in weights:
        return {}
    found_blocks = {re.match(r"layer(\d)\.(\d+)\.", name) for name in weights}
    blocks = sorted({(int(block[1]), int(block[2])) for block in found_blocks if block})
    places = {f"layer{stage}.{number}.": f"body.{place}." for place, (stage, number) in enumerate(blocks, start=1)}
    inner = BOTTLENECK if "layer1.0.conv3.weight" in weights else BASIC_BLOCK
    own = {"conv1.": "body.0.0.", "bn1.": "body.0.1.", "linear.": "head."}
    own |= {theirs + part: ours + place for theirs, ours in places.items() for part, place in inner.items()}
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        start = next((start for start in own if name.startswith(start)), "")
        found[own.get(start, "") + name.removeprefix(start)] = value
    return found


def outputs_of(weights: Weights, network: nn.Module) -> int | None:
    """How many outputs the weights have, where the network was built for another number and differs in its last layer alone."""
    other = _other_shapes(weights, network)
    counts = {given[0] for given, _ in other}
    same_rest = all(given[1:] == own[1:] for given, own in other)
    return counts.pop() if len(counts) == 1 and same_rest and len(other) <= 2 else None


def _other_shapes(weights: Weights, network: nn.Module) -> list[tuple[torch.Size, torch.Size]]:
    """The shapes of the weights that differ from the network's, and the network's."""
    given = fitting(weights, network)
    own = {name: value for name, value in network.state_dict().items() if not is_lazy(value)}
    return [(given[name].shape, value.shape) for name, value in own.items() if name in given and value.shape != given[name].shape]


def load_weights(network: nn.Module, weights: Weights, name: str, source: str) -> None:
    """Load all weights of a network.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    weights : dict
        Of a file, under any prefix.
    name, source : str
        The file and what built the network, for errors.

    Raises
    ------
    InputError
        If a weight is missing, left over or of another shape.
    """
    given, own = fitting(weights, network), network.state_dict()
    left = [key for key in given if key not in own and not key.startswith(AUXILIARY)]
    missing = [key for key in own if key not in given and not key.endswith(COUNTERS)]
    if left or missing:
        words = [f"{len(keys)} {what}, {keys[0]} for one" for what, keys in (("missing", missing), ("left over", left)) if keys]
        remedy = "pass the --network that they belong to"
        if any(part in key for key in left for part in REPARAMETRIZED):
            remedy = "before saving: torch.nn.utils.prune.remove, or parametrize.remove_parametrizations, on each such module"
        raise InputError(name, f"must hold the weights of {source}", "; ".join(words), remedy)
    floats = [key for key, weight in network.named_parameters() if weight.is_floating_point() and key in given]
    if other := [key for key in floats if not given[key].is_floating_point()]:
        got = f"{len(other)} of another type, {other[0]} ({str(given[other[0]].dtype).removeprefix('torch.')}) for one"
        raise InputError(name, "must hold floating-point weights", got, "of quantized ones save the dequantized values")
    try:
        empty = any(value.is_meta for value in own.values())  # there is nothing to copy into
        network.load_state_dict({key: given[key] for key in own if key in given}, strict=False, assign=empty)
    except RuntimeError as error:
        got = one_line(str(error).split("\n\t")[-1])
        raise InputError(name, f"must hold the weights of {source}", got, "pass the --network that they belong to") from None


def start_from(network: nn.Module, weights: Weights, name: str, source: str, head: str) -> None:
    """Load all weights of a network but those of its last layer, which stays as it is.

    Parameters
    ----------
    network, weights, name, source
        As in `load_weights`.
    head : str
        The name of the last layer in the network.

    Raises
    ------
    InputError
        If a weight is missing or of another shape.
    """
    own = network.state_dict()
    lasting = {key: value for key, value in own.items() if key.startswith(f"{head}.")}
    given = {key: value for key, value in fitting(weights, network).items() if not key.startswith(f"{head}.")}
    load_weights(network, {**given, **lasting}, name, source)


def with_reading(reading: Reading, known: Reading) -> Reading:
    """A network's own normalization, replaced by the one that a file holds."""
    return replace(reading, mean=known.mean, std=known.std) if known.mean else reading


NetworkOf = Callable[[int], tuple[nn.Module, Reading]]  # a number of outputs -> a network and its normalization


def network_with(weights: Weights, build: NetworkOf, classes: int, name: str, source: str) -> tuple[nn.Module, Reading]:
    """A network with the weights of a file; it has as many outputs as these.

    Parameters
    ----------
    weights : dict
    build : callable
        Makes the network, given a number of outputs.
    classes : int
        The number that is tried first.
    name, source : str
        As in `load_weights`.
    """
    cleaned = clean_weights(weights)
    network, reading = build(classes)
    if outputs := outputs_of(cleaned.weights, network):
        other, other_reading = build(outputs)
        if not _other_shapes(cleaned.weights, other):
            network, reading = other, other_reading
    load_weights(network, fitted(cleaned, network), name, source)
    return network, reading if isinstance(network, Classifier) else with_reading(reading, cleaned.reading)
