"""The output of one module of a network as features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from notbugs.errors import InputError


def layer_forward(model: nn.Module, layer: str, *, pool: bool = True) -> Callable[[Tensor], Tensor]:
    """A function from images to the output of one module of a network.

    Parameters
    ----------
    model : nn.Module
    layer : str
        Name of a module.
    pool : bool
        Average feature maps (n, F, h, w) over their positions; otherwise flatten them.

    Returns
    -------
    callable
        Images (n, C, H, W) to features (n, F).

    Raises
    ------
    InputError
        If there is no such module, or the network is a program whose modules cannot be watched; when called, if the module does
        not run or returns anything but one tensor (n, …).

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 2))
    >>> layer_forward(network, "0")(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 3])
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        known = ", ".join(name for name in list(modules)[1:12])
        raise InputError("layer", f"must be a module of the network ({known} …)", repr(layer))
    if isinstance(modules[layer], torch.jit.ScriptModule):
        raise InputError("layer", "cannot be chosen in TorchScript, whose modules cannot be watched", repr(layer))

    def forward(images: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        handle = modules[layer].register_forward_hook(lambda _, __, output: outputs.append(output))
        try:
            model(images)
        finally:
            handle.remove()
        if not outputs or not isinstance(outputs[-1], Tensor) or len(outputs[-1]) != len(images):
            raise InputError("layer", "must run and return one tensor with a row for each image", repr(layer))
        output = outputs[-1]
        return output.flatten(2).mean(2) if pool and output.dim() > 2 else output.flatten(1)

    return forward
