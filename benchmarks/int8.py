"""A network whose convolutions and linear layers compute in int8, with the gradients of the one in float32."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from notbugs.models.black_box import BlackBox, SurrogateGradients

TOLERANCE = 0.5  # of the spread of the logits: rounding to 8 bits is no small difference


def in_int8(model: nn.Module, images: Tensor, classes: tuple[str, ...]) -> SurrogateGradients:
    """Static quantization by PyTorch: 8-bit weights for each output channel, 8-bit activations.

    Parameters
    ----------
    model : nn.Module
        Batch normalization fused.
    images : Tensor, (N, C, H, W)
        On which the ranges of activations are found.
    classes : tuple of str

    Returns
    -------
    SurrogateGradients
        Logits of the quantized network, gradients of `model`.
    """
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    engine = "x86" if "x86" in torch.backends.quantized.supported_engines else "qnnpack"
    torch.backends.quantized.engine = engine
    prepared: Any = prepare_fx(deepcopy(model).eval(), get_default_qconfig_mapping(engine), (images[:2],))
    prepared(images)
    quantized = convert_fx(prepared)

    def logits(pixels: Any) -> Any:
        with torch.no_grad():
            return quantized(torch.from_numpy(pixels))

    return SurrogateGradients(BlackBox(logits, classes), model, tolerance=TOLERANCE)
