"""Checks of a model's outputs and of what it does to its input."""

import torch
from torch import Tensor, fx, nn

from notbugs import search
from notbugs.attacks.randomness import DIFFERENT, DRAWS, FEW_IMAGES, difference_of_passes
from notbugs.attacks.sanity_checks.check import NOT_TRUSTED, Check, is_one_hot, relative_difference
from notbugs.attacks.validation import Model, has_gradient, inverse_of
from notbugs.errors import one_line
from notbugs.search import objectives


def deterministic(model: Model, images: Tensor) -> Check:
    """Forward passes of the same images agree, in the mode that the model is in."""
    difference = difference_of_passes(model, images)
    if difference <= DIFFERENT and _seeds_itself(model, images):
        return Check(
            "deterministic",
            False,
            "forward passes agree because the model seeds the random numbers of PyTorch itself, each time alike",
            "Its noise is then the same in each call, but another one for an image alone, in a batch, and on another day.",
            "Leave out the seed: an audit then attacks the mean of 20 forward passes (EOT).",
        )
    return Check(
        "deterministic",
        difference <= DIFFERENT,
        f"in {_mode(model)}, forward passes of the same images differ by up to {difference:.2g} of the spread of the logits "
        f"(two passes of {len(images)} images, {DRAWS - 2} of {min(FEW_IMAGES, len(images))})",
        "Random outputs have random gradients. An attack that fails once may succeed on the next forward pass.",
        "Call .eval(); all figures here are measured in evaluation mode. If the model is random there, too, an audit attacks "
        "the mean of 20 forward passes (EOT) and counts each image by its share of correct ones: see `randomness averaged`.",
    )


def _mode(model: Model) -> str:
    """The mode of a model; a program of torch.export keeps that of its export, whatever its flag says."""
    modules = [*model.modules()] if isinstance(model, nn.Module) else []
    if any(isinstance(module, fx.GraphModule) for module in modules):
        return "the mode of its export"
    return "training mode" if any(module.training for module in modules) else "evaluation mode"


def _seeds_itself(model: Model, images: Tensor) -> bool:
    """Whether a forward pass leaves the random state of PyTorch the same wherever it was before."""
    states = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for seed in (1, 2):
            torch.default_generator.manual_seed(seed)
            objectives.logits(model, images[:2])  # one image alone is too few for batch norm in training mode
            states.append(torch.random.get_rng_state())
    return torch.equal(*states)


def batch_independence(model: Model, images: Tensor) -> Check:
    """The logits of an image do not depend on the other images of its batch."""
    few = images[:8]
    with torch.no_grad():
        together = objectives.logits(model, few)
        try:
            alone = torch.cat([objectives.logits(model, image[None]) for image in few])
        except (RuntimeError, ValueError) as error:
            if not isinstance(model, nn.Module):
                raise
            difference = torch.inf
            observed = f"the model fails on a single image: {one_line(error)}"
        else:
            difference = relative_difference(together, alone)
            observed = f"alone and in a batch of {len(few)}, logits differ by up to {difference:.2g} of their spread"
    return Check(
        "batch independence",
        difference <= DIFFERENT,
        observed,
        "Batch normalization in training mode mixes the images of a batch, so the accuracy depends on the batches.",
        "Call .eval() before using the model.",
        NOT_TRUSTED,
    )


def outputs_are_logits(model: Model, images: Tensor) -> Check:
    """Outputs are logits, not probabilities."""
    with torch.no_grad():
        outputs = objectives.logits(model, images)
    probabilities = inverse_of(outputs) is not None
    saturated = (outputs.amax(1) >= 1 - 1e-6).float().mean().item()
    sums = "sum to 1 for each image" if bool(((outputs.sum(1) - 1).abs() < 1e-3).all()) else "do not sum to 1"
    said = f"{sums}; {saturated:.0%} of the images have one of exactly 1" if probabilities else sums
    return Check(
        "logits",
        not probabilities,
        f"outputs lie in [{outputs.min():.3g}, {outputs.max():.3g}] and {said}",
        "Probabilities near 1 are rounded to 1, which removes their gradient. Cross-entropy would apply the softmax twice.",
        "Return the logits, before the softmax or sigmoids. Until then attacks invert these, which is less precise.",
    )


def pixel_range(model: Model, images: Tensor, labels: Tensor, least: float = 0.0) -> Check:
    """The accuracy is no lower with pixels as the model is given them than in another usual range.

    least: a difference below it does not count, nor one of two standard errors.
    """
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True).clamp_min(1e-3)
    ranges = {
        "pixels from 0 to 255": images * 255,
        "pixels from -1 to 1": 2 * images - 1,
        "pixels of mean 0 and standard deviation 1": (images - mean) / std,
        "255 times smaller pixels": images / 255,
    }
    rationale = "Outside the pixel range of its training a model is less accurate, and epsilon has another meaning."
    with torch.no_grad():
        accuracy = _accuracy(model, images, labels)
        try:
            others = {name: _accuracy(model, rescaled, labels) for name, rescaled in ranges.items()}
        except Exception:  # a user's model may refuse in any way
            observed = "the model rejects pixels outside [0, 1]"
            return Check("pixel range", None, observed, rationale, "Nothing to do: the model checks its input.", NOT_TRUSTED)
    best = max(others, key=lambda name: others[name])
    tolerance = max(least, 2 * (len(labels) / 4) ** 0.5 / len(labels))  # two standard errors
    return Check(
        "pixel range",
        others[best] <= accuracy + tolerance,
        f"accuracy is {accuracy:.1%} with pixels as the model is given them, {others[best]:.1%} with {best}",
        rationale,
        "Say which pixels the model takes: --range, --mean, --std; in Python models.wrap, or a first layer that converts from "
        "[0, 1]. If these are given: see whether they are those of its training.",
        NOT_TRUSTED,
    )


def _accuracy(model: Model, images: Tensor, labels: Tensor) -> float:
    return (objectives.margin(objectives.logits(model, images), labels) > 0).float().mean().item()


def input_clipping(model: Model, images: Tensor) -> Check:
    """The model does not clip pixels to a range inside [0, 1], and black and white pixels have gradients."""
    inside, outside = _clips_inside(model, images), _clips_outside(model, images)
    no_gradient = outside and has_gradient(model, images) and _no_gradient_at_ends(model, images)
    if inside:
        observed = "clipping pixels to [0.1, 0.9] does not change the logits"
    elif no_gradient:
        observed = "the model clips pixels to [0, 1], and pixels of exactly 0 or 1 have no gradient"
    else:
        observed = "the model clips pixels to [0, 1], which attacks respect" if outside else "the model does not clip"
    return Check(
        "input clipping",
        not inside and not no_gradient,
        observed,
        "Clipped pixels have a gradient of 0. Attacks then treat them as if they did not matter.",
        "Remove the clipping and attack the rest of the model. Attacks here keep pixels in [0, 1].",
    )


def _clips_inside(model: Model, images: Tensor) -> bool:
    """Whether clipping to [0.1, 0.9] leaves the logits as they are."""
    clipped = images.clamp(0.1, 0.9)
    with torch.no_grad():
        clean = objectives.logits(model, images)
        difference = relative_difference(clean, objectives.logits(model, clipped))
    return bool((images != clipped).any()) and difference <= 1e-6 and not is_one_hot(clean)


def _clips_outside(model: Model, images: Tensor) -> bool:
    """Whether clipping images of larger contrast to [0, 1] leaves the logits as they are."""
    stretched = 3 * images - 1
    clipped = stretched.clamp(0, 1)
    with torch.no_grad():
        try:
            difference = relative_difference(objectives.logits(model, stretched), objectives.logits(model, clipped))
        except Exception:  # a user's model may refuse in any way
            return False
    return bool((stretched != clipped).any()) and difference <= 1e-6


def _no_gradient_at_ends(model: Model, images: Tensor) -> bool:
    """Whether the gradient is 0 at all black and white pixels, but not at all others."""
    gradient = search.gradients(lambda images: objectives.logits(model, images)[:, :1], images)[1][0]
    ends = (images == 0) | (images == 1)
    return bool(ends.any()) and bool((gradient[ends] == 0).all()) and bool((gradient[~ends] != 0).any())


def input_quantization(model: Model, images: Tensor) -> Check:
    """A perturbation below one 8-bit step changes the logits."""
    generator = torch.Generator().manual_seed(0)
    perturbation = (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * 0.2 / 255
    with torch.no_grad():
        clean = objectives.logits(model, images)
        perturbed = objectives.logits(model, (images + perturbation).clamp(0, 1))
    same = (clean == perturbed).all(1).float().mean().item()
    observed = f"perturbations of a fifth of an 8-bit step leave the logits of {same:.0%} of the images exactly the same"
    piecewise_constant = is_one_hot(clean) or not has_gradient(model, images)
    if piecewise_constant and same >= 0.05:
        passed, observed = None, f"{observed}, as predicted labels and decision trees do"
    else:
        passed = same < 0.05
    return Check(
        "input quantization",
        passed,
        observed,
        "Rounding has no gradient. Gradient attacks stall, though larger perturbations may cause misclassification.",
        "Attack the layers after the rounding, or give it straight-through gradients (BPDA). Until then use black-box attacks.",
    )
