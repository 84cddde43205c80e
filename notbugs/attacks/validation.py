"""What every attack asks first: is this a model, are these images and labels?"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.search import SpatialTransforms, ThreatModel, objectives

Model = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] -> logits (n, K); a network is one


Options = ParamSpec("Options")
Result = TypeVar("Result")


def validated(attack: Callable[Concatenate[Model, Options], Result]) -> Callable[Concatenate[Model, Options], Result]:
    """The attack, once images and labels make sense, on the model in evaluation mode; then each module is as it was before."""

    def attacked(model: Model, /, *args: Options.args, **options: Options.kwargs) -> Result:
        given = [*args[:2], *(options.get(name) for name in ("images", "labels", "targets") if name in options)]
        check_tensors(*given[:2])
        with frozen(model) if isinstance(model, nn.Module) else nullcontext(), precision.full_precision():
            try:
                return attack(model, *args, **options)
            except (InputError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # only now, so that it costs nothing: what of the model or the labels is at fault?
                _raise_cause(model, *given[:2], error=error)  # type: ignore[arg-type]  # check_tensors has seen to it
                raise

    update_wrapper(attacked, attack)
    return attacked


def check_tensors(images: object = None, labels: object = None) -> None:
    """Raises BadInput unless images are float (N, C, H, W) in [0, 1] and labels int64 (N,), on the same device."""
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError("images", "must be a float tensor, N x C x H x W", got, "divide 8-bit images by 255")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError("labels", f"must be an int64 tensor, one for each of the {len(images)} images", got)
    if labels.device != images.device:
        raise InputError("labels", f"must be on the images' device, {images.device}", labels.device)
    if len(images):
        low, high = images.aminmax()
        if not bool((low >= 0) & (high <= 1)):  # asked at once, for a GPU is waited for; what is no number fails here too
            remedy = "divide by 255" if high > 2 else "make normalisation the model's first layer, and attack pixels"
            raise InputError("images", "must lie in [0, 1]", f"{low:.3g} to {high:.3g}", remedy)


def _raise_cause(model: Model, images: Tensor, labels: Tensor, *, error: Exception) -> None:
    """Raises BadInput where an attack failed because of the model, the labels, or gradients that are not there."""
    clean_logits(model, images, labels)
    if "can't allocate memory" not in str(error) and not has_gradient(model, images):
        remedy = "use square, hop_skip_jump or few_pixels(gradient=False), which need none"
        raise InputError("model", "must have gradients for this attack", " ".join(str(error).split())[:200], remedy) from error


def clean_logits(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """What the model says of the images as they are: logits (N, K), float32. Raises BadInput where it cannot be attacked.

    images: float (N, C, H, W) in [0, 1]; labels: int64 (N,), from 0 to K - 1; logits: finite numbers.
    """
    check_tensors(images, labels)
    given = images.clone()
    try:
        with torch.no_grad():
            logits = objectives.logits(model, given)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own code may raise anything
        if "can't allocate memory" in str(error):
            raise
        where = f"{images.dtype} images of shape {tuple(images.shape)} on {images.device}"
        remedy = "cast it: model.float()" if "dtype" in str(error) or "type" in str(error) else ""
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError("model", f"must take {where}", said, remedy) from error
    if not torch.equal(given, images):
        rule = "must not change the images it is given"
        raise InputError("model", rule, "one that works in place", "begin with images = images.clone()")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError("labels", f"must be from 0 to {logits.shape[1] - 1}, the model's classes", got)
    if not bool(logits.isfinite().all()):
        bad = int((~logits.isfinite().all(1)).sum())
        raise InputError("model", "must give finite logits", f"others for {bad} of {len(images)} images")
    return logits


def with_log_probabilities(model: Model, logits: Tensor) -> Model:
    """The model itself, or where its clean outputs (N, K) are probabilities, their logarithms: near 1, numbers run out of digits.

    The order of the classes is the same, so what fools the one fools the other.
    """
    sums = logits.sum(1)
    if not len(logits) or bool((logits < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return model
    return lambda images: objectives.logits(model, images).clamp_min(1e-37).log()


def has_gradient(model: Model, images: Tensor) -> bool:
    """Whether the model's logits can be differentiated by the pixels; those of a black box, or of one under no_grad, cannot.

    The model must be known to work: anything that it raises here is taken for want of gradients.
    """
    if not len(images):
        return True
    try:
        search.gradients(lambda seen: objectives.logits(model, seen)[:, :1], images[:2])
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # .numpy() of what wants gradients, a path that leaves the graph, no derivative …
        if "can't allocate memory" in str(error):
            raise
        return False
    return True


def check_single_epsilon(threat_model: ThreatModel | SpatialTransforms) -> None:
    """Raises BadInput for what is no set of similar images, or has a radius for each image where some will be left out."""
    wanted = () if isinstance(threat_model, SpatialTransforms) else ("epsilon", "distance", "project", "steepest_step", "sample")
    if missing := [name for name in wanted if not hasattr(threat_model, name)]:
        rule = "must be a Ball, Spatial, or an object with radius, size, project, move and sample"
        raise InputError(
            "threat_model", rule, f"{type(threat_model).__name__} without {', '.join(missing)}", "see examples/own_similarity.py"
        )
    if isinstance(getattr(threat_model, "epsilon", None), Tensor):
        raise InputError("epsilon", "must be one for all images where an attack meets only survivors", "one for each")
