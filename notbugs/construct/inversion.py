"""The robust and the non-robust version of a set: images grown until a model sees in them what it sees in the originals."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from notbugs import precision, search
from notbugs.construct.base import Constructed, Progress, map_with_progress, perturbation_stats
from notbugs.data import Dataset, from_8bit, to_8bit
from notbugs.errors import InputError
from notbugs.models import Model, frozen_copy, fuse_batchnorm
from notbugs.search import NormBall, objectives


def invert_features(
    model: Model,
    data: Dataset,
    *,
    start: str = "image",
    steps: int = 60,
    rule: search.UpdateRule | None = None,
    times: int = 1,
    seed: int = 0,
    bf16: bool | None = None,
    compile: bool = False,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Constructed:
    """Images grown from something else until the model's penultimate layer sees in them what it sees in the given ones.

    Labels are kept. Of a robust model this is the robust version of a set (D_R), of a standard model the non-robust one (D_NR):
    features the model does not have are left as the start had them, and the start says nothing of the label.
    start: "image", another image of the set, drawn at random, or "noise", uniform. Any pixel may change by any amount.
    times: versions of each image, each from another start: the whole set once, then once more, with names of their own.
    rule: how to step (default: `default_rule` in the metric of `evened`; the paper's is `paper_rule()`, with 1000 steps).
    half, compile: how steps are made faster (`speed.quick`); what is wanted, and the error that is told, are in float32.
    Source: Ilyas et al. 2019, section 3.1 and appendix C.4.
    """
    if start not in ("image", "noise"):
        raise InputError("start", "must be image or noise", repr(start))
    if times < 1:
        raise InputError("times", "must be 1 or more", times)
    free = NormBall("l2", torch.inf)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(data), generator=generator) for _ in range(times)]
    # another image for each, each used once, none its own
    partner = torch.cat([torch.empty_like(order).scatter(0, order, order.roll(1)) for order in orders])
    view = frozen_copy(model, device) if compile else fuse_batchnorm(model, data.pixels(slice(0, 2)), device)
    look = precision.fast_forward(view.features, device, bf16=bf16, compile=compile)
    metric = whitened_metric(view.features, data.pixels(partner[:40]).to(device)) if rule is None else None
    rule = rule or default_update_rule(data)

    def invert(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = view.features(images)
        first = data.pixels(partner[index]).to(device) if start == "image" else free.sample(images, generator)
        # around the start, not the image: the search falls back on the centre, and must never fall back on the answer
        goal = objectives.feature_matching(look, wanted, metric)
        found = search.maximize(goal, first, free, steps=steps, rule=rule)
        stored = to_8bit(found.images)
        with torch.no_grad():
            error = -objectives.feature_matching(view.features, wanted).criterion(view.features(from_8bit(stored)))
        return stored, error

    whole = data.repeat(times)
    images, error = map_with_progress(
        invert, whole, batch_size or precision.default_batch_size(device, data.shape), device, progress
    )
    return Constructed(
        whole.with_images(images), {"steps": steps, "feature_error": error.mean().item(), **perturbation_stats(whole, images)}
    )


def default_update_rule(data: Dataset) -> search.UpdateRule:
    """Polyak's step along conjugate directions, changing pixels the way the images differ from each other: see `covariance_root`.

    The top of the goal is known, 0; how the two factors were found is in docs/lab-log.md.
    """
    enough = max(
        50, min(1000, 30_000_000 // math.prod(data.shape))
    )  # of large images fewer: they need memory, and have more to say each
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:enough].sort().values
    return search.polyak_conjugate(0.35, end=0.05, precondition=spectral_covariance_sqrt(data.pixels(index)))


def spectral_covariance_sqrt(images: Tensor) -> Callable[[Tensor], Tensor]:
    """Square root of the covariance of images (n, C, H, W), taken to be the same everywhere in the picture: (N, C, H, W) -> same.

    At every spatial frequency it is a C x C matrix. Natural images vary smoothly and in brightness more than in hue; a gradient
    shaped so changes them likewise, where the bare one would leave gaudy grain.
    """
    shape = images.shape[-2:]
    waves = torch.fft.rfft2(images - images.mean(0)).permute(2, 3, 0, 1)  # (H, W / 2 + 1, n, C)
    variances, ways = torch.linalg.eigh((waves.mT.conj() @ waves).real)
    root = (variances / variances.mean().clamp_min(1e-30)).clamp_min(1e-4).sqrt()
    filters = (ways * root[..., None, :] @ ways.mT).to(waves.dtype)
    placed = {filters.device: filters}  # once on each device: a copy at every step would be waited for

    def shaped(gradient: Tensor) -> Tensor:
        if gradient.device not in placed:
            placed[gradient.device] = filters.to(gradient.device)
        mixed = torch.einsum("nchw,hwcd->ndhw", torch.fft.rfft2(gradient.float()), placed[gradient.device])
        result: Tensor = torch.fft.irfft2(mixed, s=shape).to(gradient.dtype)
        return result

    return shaped


def whitened_metric(view: objectives.Forward, images: Tensor) -> Tensor | None:
    """A metric (F, F) in which all features answer about equally to a small change of the images (n, C, H, W).

    Some directions in feature space move a hundred times as much as others when pixels do, and a gradient sees only those. The
    covariance C of what tiny noise does to the features tells; the metric is (C / its mean variance + 1)^(−1/2).
    None, the plain distance, for more than 4,096 features: there the matrices would cost more than they save.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), precision.full_precision():
        calm = view(images).float()
        count = calm.shape[1]
        if count > 4096:
            return None
        moments = calm.new_zeros(count, count)
        for _ in range(math.ceil(8 * count / len(images))):
            noise = torch.randn(images.shape, generator=generator).to(images)
            answers = view(images + 0.003 * noise).float() - calm
            moments += answers.T @ answers
        variances, ways = torch.linalg.eigh(moments)
        scale = (variances / variances.mean().clamp_min(1e-30)).clamp_min(0)
        metric: Tensor = ways * (scale + 1).rsqrt() @ ways.T
    return metric


def paper_update_rule(size: float = 0.1) -> search.UpdateRule:
    """The paper's step for `inverted`: a fixed L2 length along the gradient (0.1 and 1000 steps on CIFAR-10)."""
    return search.cosine_steps(NormBall("l2", torch.inf), size)
