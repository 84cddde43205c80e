"""What every attack asks first: is this a model, are these images and labels?"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from notbugs import goals
from notbugs.ball import Similar, Spatial
from notbugs.errors import BadInput
from notbugs.models import frozen

Model = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] -> logits (n, K); a network is one


Options = ParamSpec("Options")
Result = TypeVar("Result")


def in_evaluation(attack: Callable[Concatenate[Model, Options], Result]) -> Callable[Concatenate[Model, Options], Result]:
    """The attack on a model in evaluation mode, whatever it was in; afterwards each module is in the mode it had before."""

    def attacked(model: Model, /, *args: Options.args, **options: Options.kwargs) -> Result:
        with frozen(model) if isinstance(model, nn.Module) else nullcontext():
            return attack(model, *args, **options)

    update_wrapper(attacked, attack)
    return attacked


def clean_logits(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """What the model says of the images as they are: logits (N, K), float32. Raises BadInput where it cannot be attacked.

    images: float (N, C, H, W) in [0, 1]; labels: int64 (N,), from 0 to K - 1; logits: finite numbers.
    """
    if images.dim() != 4 or not images.is_floating_point():
        raise BadInput(
            "images", "must be float, N x C x H x W", f"{images.dtype} {tuple(images.shape)}", "divide 8-bit images by 255"
        )
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        raise BadInput(
            "labels", f"must be int64, one for each of the {len(images)} images", f"{labels.dtype} {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise BadInput("labels", f"must be on the images' device, {images.device}", labels.device)
    if len(images) and not (images.min() >= 0 and images.max() <= 1):  # one that is no number fails here too
        remedy = "divide by 255" if images.max() > 2 else "make normalisation the model's first layer, and attack pixels"
        raise BadInput("images", "must lie in [0, 1]", f"{images.min():.3g} to {images.max():.3g}", remedy)
    try:
        with torch.no_grad():
            logits = goals.logits(model, images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        if "can't allocate memory" in str(error):
            raise
        where = f"{images.dtype} images of shape {tuple(images.shape)} on {images.device}"
        raise BadInput("model", f"must take {where}", " ".join(str(error).split())[:200]) from error
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise BadInput("labels", f"must be from 0 to {logits.shape[1] - 1}, the model's classes", got)
    if not bool(logits.isfinite().all()):
        bad = int((~logits.isfinite().all(1)).sum())
        raise BadInput("model", "must give finite logits", f"others for {bad} of {len(images)} images")
    return logits


def unsquashed(model: Model, logits: Tensor) -> Model:
    """The model itself, or where its clean outputs (N, K) are probabilities, their logarithms: near 1, numbers run out of digits.

    The order of the classes is the same, so what fools the one fools the other.
    """
    sums = logits.sum(1)
    if not len(logits) or bool((logits < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return model
    return lambda images: goals.logits(model, images).clamp_min(1e-37).log()


def has_gradient(model: Model, images: Tensor) -> bool:
    """Whether the model's logits can be differentiated by the pixels; a black box, or one under no_grad, has none."""
    if not len(images):
        return True
    with torch.enable_grad():
        return bool(goals.logits(model, images[:2].detach().requires_grad_()).requires_grad)


def one_radius(ball: Similar | Spatial) -> None:
    """Raises BadInput for a ball with a radius for each image, where images will be left out on the way."""
    if isinstance(getattr(ball, "radius", None), Tensor):
        raise BadInput("radius", "must be one for all images where an attack meets only survivors", "one for each")
