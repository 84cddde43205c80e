"""Features of any network: the input of its last layer, the outputs of any module, what its own method returns, its logits."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from notbugs.errors import InputError, one_line
from notbugs.models.black_box import SurrogateGradients
from notbugs.models.class_outputs import MappedClassifier
from notbugs.models.classifier import Classifier, LayerFeatures, LogitFeatures, Model, OwnFeatures, WrappedClassifier, frozen


def wrap(
    network: nn.Module,
    sample: Tensor,
    *,
    layer: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    architecture: Mapping[str, object] | None = None,
) -> WrappedClassifier:
    """Wrap a network of your own.

    Parameters
    ----------
    network : nn.Module
        Normalized images to logits (N, K), or to what holds them: see `reading.scores`.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.
    layer : str, optional
        Name of the module in the network whose input are the features. Default: the last linear layer that runs, or the
        convolution with kernel 1 that gives the outputs, whose input is averaged over its positions.
    mean, std : sequence of float, optional
        With which the network expects pixels in [0, 1] to be normalized. Default: no normalization.
    architecture : dict, optional
        The arguments with which `build` makes this network again.

    Raises
    ------
    InputError
        If the network does not take such images, or the layer does not run.

    Examples
    --------
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> wrapped = wrap(network, torch.zeros(2, 1, 8, 8))
    >>> wrapped.layer, wrapped.features(torch.zeros(4, 1, 8, 8)).shape
    ('3', torch.Size([4, 5]))
    """
    wrapped = WrappedClassifier(network, layer or "", mean, std, dict(architecture or {"name": type(network).__name__}))
    ran, outputs = modules_that_run(wrapped, sample)
    if layer is None and not set_head(wrapped, ran, outputs):
        raise InputError("model", "has no linear layer whose input could be the features", remedy="name the layer: layer=…")
    if wrapped.layer not in ran:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError("layer", f"must be a module that runs in the network ({children} …)", repr(layer))
    return wrapped


def set_head(wrapped: WrappedClassifier, ran: Sequence[str], outputs: int) -> bool:
    """Set the layer whose input are the features: of those that ran the last that gives the outputs, or else the last linear one.

    Returns whether there is one.
    """
    modules = dict(wrapped.network.named_modules(remove_duplicate=False))
    linear = [name for name in ran if isinstance(modules[name], nn.Linear)]
    heads = [name for name in ran if _outputs_of_head(modules[name]) == outputs]
    wrapped.layer = (heads or linear or [""])[-1]
    wrapped.pooled = bool(heads) and isinstance(modules[wrapped.layer], nn.Conv2d)
    return bool(heads or linear)


def _outputs_of_head(module: nn.Module) -> int | None:
    """Outputs of a layer that can be the last one of a classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else None


def with_features(network: nn.Module, sample: Tensor, layer: str | None = None) -> tuple[Model, str]:
    """A network with features, and what they are, in words.

    Its own `features(images)` if it has that method, else the input of its last layer (see `wrap`), else its logits.

    Parameters
    ----------
    network : nn.Module
        Images in [0, 1] to logits, as `classifier_by_name` returns it; known to work on the sample.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.
    layer : str, optional
        Name of the module whose outputs are the features, in place of these.

    Raises
    ------
    InputError
        If there is no such layer.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    >>> with_features(network, torch.zeros(2, 1, 8, 8))[1]
    'its logits: it has no linear layer whose input could be the features'
    """
    if isinstance(network, MappedClassifier):
        model, features = with_features(network.network, sample, layer)
        return MappedClassifier(model, network.outputs), features
    if isinstance(network, SurrogateGradients):
        if layer is not None:
            raise InputError("layer", "can be chosen in a PyTorch network alone", repr(layer))
        return LogitFeatures(network, "", None, None, {"name": type(network).__name__}), "its logits: it is no PyTorch network"
    if layer is not None:
        chosen = LayerFeatures(network, layer, None, None, {"name": type(network).__name__})
        with frozen(chosen), torch.no_grad():
            chosen.features(sample)
        return chosen, f"the output of its layer {layer}"
    if isinstance(network, Classifier):
        return network, "the input of its last layer"
    if isinstance(network, LayerFeatures):
        return network, f"the output of its layer {network.layer}"
    if isinstance(network, WrappedClassifier):
        return network, f"the input of its layer {network.layer}"
    architecture = {"name": type(network).__name__}
    own = OwnFeatures(network, "", None, None, architecture)
    if _has_flat_features(own, sample):
        return own, "what its own features(images) returns"
    try:
        wrapped = wrap(network, sample)
    except (InputError, RuntimeError):  # no linear layer runs, or hooks are not supported, as in TorchScript
        found = LogitFeatures(network, "", None, None, architecture)
        return found, "its logits: it has no linear layer whose input could be the features"
    return wrapped, f"the input of its layer {wrapped.layer}"


def _has_flat_features(model: OwnFeatures, sample: Tensor) -> bool:
    """Whether the network has a method `features` that returns (N, F); a submodule of that name returns feature maps."""
    try:
        with frozen(model), torch.no_grad():
            found = model.features(sample)
    except Exception:  # a user's own code may raise anything
        return False
    return isinstance(found, Tensor) and found.dim() == 2 and len(found) == len(sample)


def modules_that_run(wrapped: WrappedClassifier, sample: Tensor) -> tuple[list[str], int]:
    """Names of the network's modules that run on the sample, in order, and the number of its outputs."""
    ran: list[str] = []
    modules = wrapped.network.named_modules(remove_duplicate=False)
    handles = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in modules]
    try:
        with frozen(wrapped), torch.no_grad():
            outputs = wrapped(sample).shape[1]
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InputError("model", f"must take images of shape {tuple(sample.shape)}", one_line(error)) from error
    finally:
        for handle in handles:
            handle.remove()
    return ran, outputs
