"""Checks of the model, the images and the labels that every attack makes."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.errors import InputError, one_line
from notbugs.models import frozen
from notbugs.search import NormBall, SpatialTransforms, ThreatModel, objectives

Model = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] to logits (n, K); a torch.nn.Module is one
Inverse = Callable[[Tensor], Tensor]  # outputs (N, K) to logits
SMALLEST = 1e-37  # probability whose logarithm is taken
NEAREST_TO_1 = 2.0**-25  # distance that counts for 1 itself; the next float32 is twice as far away

Options = ParamSpec("Options")
Result = TypeVar("Result")


def validated(attack: Callable[Concatenate[Model, Options], Result]) -> Callable[Concatenate[Model, Options], Result]:
    """Decorator of attacks: checks the input, and sets evaluation mode and full precision while the attack runs.

    Parameters
    ----------
    attack : callable
        Takes a model, then images and labels, by position or by name.

    Returns
    -------
    callable
        Raises InputError for images, labels or a model that cannot be used. Afterwards each module is in its former mode.
    """

    def wrapper(model: Model, /, *args: Options.args, **options: Options.kwargs) -> Result:
        data = [*args[:2], *(options.get(name) for name in ("images", "labels", "targets") if name in options)]
        check_tensors(*data[:2])
        with frozen(model) if isinstance(model, nn.Module) else nullcontext(), precision.full_precision():
            try:
                return attack(model, *args, **options)
            except (InputError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # the cause is looked for only now, so that valid input costs nothing
                _raise_cause(model, *data[:2], error=error)  # type: ignore[arg-type]  # check_tensors made sure of the types
                raise

    update_wrapper(wrapper, attack)
    return wrapper


def check_tensors(images: object = None, labels: object = None) -> None:
    """Raises InputError unless images are float (N, C, H, W) in [0, 1] and labels int64 (N,), on the same device."""
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
        raise InputError("images", "must be a float tensor, N x C x H x W", _describe(images), "divide 8-bit images by 255")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        raise InputError("labels", f"must be an int64 tensor, one for each of the {len(images)} images", _describe(labels))
    if labels.device != images.device:
        raise InputError("labels", f"must be on the device of the images, {images.device}", labels.device)
    if len(images):
        low, high = images.aminmax()
        if not bool((low >= 0) & (high <= 1)):  # one comparison, for a GPU is waited for; NaN fails it, too
            remedy = "divide by 255" if high > 2 else "make normalization the model's first layer, and attack pixels"
            raise InputError("images", "must lie in [0, 1]", f"{low:.3g} to {high:.3g}", remedy)


def _describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _raise_cause(model: Model, images: Tensor, labels: Tensor, *, error: Exception) -> None:
    """Raises InputError if an attack failed because of the model, the labels, or missing gradients."""
    clean_logits(model, images, labels)
    if "can't allocate memory" not in str(error) and not has_gradient(model, images):
        remedy = "use square_attack, hop_skip_jump or few_pixels(gradient=False)"
        raise InputError("model", "must have gradients for this attack", one_line(error), remedy) from error


def clean_logits(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Logits of the clean images, once the model is known to be one that can be attacked.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K), K at least 2; an object with `.logits` will do.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64, from 0 to K - 1

    Returns
    -------
    Tensor, (N, K), float32

    Raises
    ------
    InputError
        If the model fails, modifies its input, or returns anything but finite logits; if images or labels cannot be used.
    """
    check_tensors(images, labels)
    given = images.clone()
    logits = _forward(model, given)
    if not torch.equal(given, images):
        raise InputError("model", "must not modify its input", "an in-place operation", "begin with images = images.clone()")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError("labels", f"must be from 0 to {logits.shape[1] - 1}, the model's classes", got)
    if not bool(logits.isfinite().all()):
        count = int((~logits.isfinite().all(1)).sum())
        got, remedy = f"non-finite ones for {count} of {len(images)} images", "limit them: logits.clamp(-1e4, 1e4)"
        remedy = "see that it classifies one image alone; limit logits: logits.clamp(-1e4, 1e4)" if len(images) == 1 else remedy
        raise InputError("model", "must return finite logits", got, remedy)
    return logits


def _forward(model: Model, images: Tensor) -> Tensor:
    """Logits; InputError in place of whatever the model raises, except for want of memory."""
    try:
        with torch.no_grad():
            return objectives.logits(model, images)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's model may raise anything
        if "can't allocate memory" in str(error):
            raise
        rule = f"must take {images.dtype} images of shape {tuple(images.shape)} on {images.device}"
        message = one_line(f"{type(error).__name__}: {error}")
        raise InputError("model", rule, message, _remedy(str(error))) from error


def _remedy(error: str) -> str:
    """What to do about an error in a model's own code."""
    if "cuda" in error.lower() or "nvidia" in error.lower():
        return "let it compute on the device of the images, images.device; on a GPU: --device cuda"
    if "DMatrix" in error:
        return "return an XGBClassifier, or the function inplace_predict of the booster"
    if "uint8" in error:
        return "let it take pixels in [0, 1]: in place of images.float() / 255 the images"
    if "features" in error and "expecting" in error:  # scikit-learn
        return "fit it to the pixels of such images, as many as channels x height x width, or use --resize"
    if "dtype" in error or "type" in error:
        return "cast it: model.float()"
    return "let it take the images alone, in a function of yours: module:function"


def inverse_of(outputs: Tensor) -> Inverse | None:
    """What makes logits of a model's outputs, (N, K), if these are probabilities; None if they are logits.

    Attacks follow logits: of probabilities near 0 and 1 gradients are tiny. The order of the classes stays, so the same images
    are misclassified.

    Parameters
    ----------
    outputs : Tensor, (N, K)
        For the clean images.

    Returns
    -------
    callable or None
        The logarithm, of probabilities that sum to 1; log p - log(1 - p), of those that do not: a sigmoid for each class.

    Examples
    --------
    >>> inverse_of(torch.tensor([[0.9, 0.6]]))(torch.tensor([[0.9, 0.6]]))
    tensor([[2.1972, 0.4055]])
    """
    if not len(outputs) or not bool(((outputs >= 0) & (outputs <= 1)).all()):
        return None
    sums = outputs.sum(1)
    return _logarithm if torch.allclose(sums, torch.ones_like(sums), atol=1e-3) else _inverse_sigmoid


def _logarithm(outputs: Tensor) -> Tensor:
    return outputs.clamp_min(SMALLEST).log()


def _inverse_sigmoid(outputs: Tensor) -> Tensor:
    """Strictly increasing also outside of [0, 1], where outputs may go that are no sigmoids after all."""
    outside = outputs.clamp_max(0) + (outputs - 1).clamp_min(0)
    return outputs.clamp_min(SMALLEST).log() - (1 - outputs).clamp_min(NEAREST_TO_1).log() + outside


def composed(inverse: Inverse | None, model: Model) -> Model:
    """The model with logits for outputs."""
    return model if inverse is None else lambda images: inverse(objectives.logits(model, images))


def has_gradient(model: Model, images: Tensor) -> bool:
    """Whether the logits can be differentiated with respect to the pixels; those of a black box cannot.

    Parameters
    ----------
    model : callable
        Must be known to work (`clean_logits`): any error here counts as missing gradients.
    images : Tensor, (N, C, H, W), in [0, 1]
        The first two are used.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> has_gradient(model, torch.rand(2, 1, 4, 4)), has_gradient(lambda images: model(images).detach(), torch.rand(2, 1, 4, 4))
    (True, False)
    """
    return not missing_gradient(model, images)


def missing_gradient(model: Model, images: Tensor) -> str:
    """Why the logits cannot be differentiated with respect to the pixels, in a line; empty if they can.

    Parameters
    ----------
    model, images
        As in `has_gradient`.

    Examples
    --------
    >>> missing_gradient(lambda images: images.mean((2, 3)).round().detach(), torch.rand(2, 3, 4, 4))
    'its outputs do not depend on the pixels for PyTorch: look for no_grad, detach, .numpy() or quantized layers'
    """
    if not len(images):
        return ""
    try:
        search.gradients(lambda images: objectives.logits(model, images)[:, :1], images[:2])
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # .numpy() of a tensor that needs gradients, a detached output, an operation without a derivative
        if "can't allocate memory" in str(error):
            raise
        if reason := getattr(model, "no_gradient", ""):  # a black box says it itself
            return str(reason)
        if any(part in str(error) for part in ("does not require grad", "been used in the graph", "been used in graph")):
            return "its outputs do not depend on the pixels for PyTorch: look for no_grad, detach, .numpy() or quantized layers"
        return one_line(f"{type(error).__name__}: {error}")
    return ""


def check_within(images: Tensor, clean: Tensor, threat_model: ThreatModel | SpatialTransforms) -> None:
    """Raises RuntimeError unless images of 8 bits lie within a norm ball: its epsilon, mask and limits of channels, exactly.

    No attack leaves the threat model; this makes sure before adversarial examples are stored. Of other threat models nothing is
    checked.

    Parameters
    ----------
    images, clean : Tensor, (N, C, H, W), multiples of 1/255
    threat_model : ThreatModel or SpatialTransforms
    """
    if isinstance(threat_model, NormBall) and not bool((inside := threat_model.contains(images, clean)).all()):
        raise RuntimeError(f"{int((~inside).sum())} of {len(images)} adversarial examples are not within {threat_model}")


def check_single_epsilon(threat_model: ThreatModel | SpatialTransforms) -> None:
    """Raises InputError unless this is a threat model with one epsilon for all images."""
    needed = () if isinstance(threat_model, SpatialTransforms) else ("epsilon", "distance", "project", "steepest_step", "sample")
    if missing := [name for name in needed if not hasattr(threat_model, name)]:
        rule = "must be a NormBall, SpatialTransforms, or an object with epsilon, distance, project, steepest_step and sample"
        got, remedy = f"{type(threat_model).__name__} without {', '.join(missing)}", "see examples/own_threat_model.py"
        raise InputError("threat_model", rule, got, remedy)
    if isinstance(getattr(threat_model, "epsilon", None), Tensor):
        rule = "must be one number for all images: this attack leaves out the misclassified ones"
        raise InputError("epsilon", rule, "one for each image")
