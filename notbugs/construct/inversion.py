"""D_R and D_NR, the robust and the non-robust version of a data set: images with the features of others, found by inversion."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from notbugs import precision, search
from notbugs.construct.base import Constructed, ConstructionStats, Progress, norms_of, summarized
from notbugs.data import Dataset, Repeated, Rows, from_8bit, joined, map_to_images, to_8bit
from notbugs.errors import InputError
from notbugs.models import Model, frozen_copy, fuse_batchnorm
from notbugs.models.reading import check_finite
from notbugs.search import NormBall, objectives

MAX_METRIC_FEATURES = 4096  # beyond, the matrices of `whitened_metric` would cost more than they save
METRIC_IMAGES = 40
METRIC_NOISE = 0.003  # standard deviation, pixels in [0, 1]


def invert_features(
    model: Model | Sequence[Model],
    dataset: Dataset,
    *,
    start: str | Tensor = "image",
    steps: int = 60,
    rule: search.UpdateRule | None = None,
    versions: int = 1,
    seed: int = 0,
    bf16: bool | None = None,
    compile: bool = False,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Constructed:
    """Change other images until a model's penultimate layer has the values that it has for the given images. Labels are kept.

    With a robust model this is the robust version of a data set (D_R), with a standard model the non-robust one (D_NR): features
    that the model does not have stay as in the starting image, which is independent of the label.

    Parameters
    ----------
    model : Model or sequence of Model
        Several: the versions of an image have the features of each in turn.
    dataset : Dataset
        N images, whose features are wanted.
    start : {"image", "noise"} or Tensor, int64, (versions * N,)
        Start from another image of the data set, drawn at random, each used once; from uniform noise; or from the images with
        these indices, others than their own: an image that starts from itself would stay as it is.
    steps : int
        Pixels may change by any amount in [0, 1].
    rule : UpdateRule, optional
        Default: `default_update_rule` with the features compared in `whitened_metric`. The paper's is `paper_update_rule()`, with
        1000 steps.
    versions : int
        Versions of each image, 1 or more, each from another start: N images, then N more, with names of their own.
    seed : int
        Of the starting images; noise is seeded by this and the number of the image.
    bf16, compile : bool
        How gradients are computed faster (`precision.fast_forward`); the wanted features and the error are in float32.
    batch_size : int, optional
    device : torch.device or str
    progress : callable, optional
        Called after each batch with its number of images.

    Returns
    -------
    Constructed
        `versions` * N images.

    Raises
    ------
    InputError
        For another start, an index that is not of the data set, fewer versions than models, or versions whose file names are
        taken; if the features of an image are not finite.

    References
    ----------
    Ilyas et al. 2019, section 3.1 and appendix C.4.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> before, after = (invert_features(model, digits, steps=steps).stats.feature_error for steps in (0, 10))
    >>> after < before
    True
    """
    if versions < 1:
        raise InputError("versions", "must be 1 or more", versions)
    _check_start(start, len(dataset), versions)
    if isinstance(model, Sequence):
        if not 1 <= len(model) <= versions:
            raise InputError("model", "must be one model, or at most as many as versions", len(model))
        one = partial(
            invert_features, steps=steps, rule=rule, bf16=bf16, compile=compile, batch_size=batch_size,
            device=device, progress=progress,
        )  # fmt: skip
        starts = [start] * versions if isinstance(start, str) else start.chunk(versions)
        return _joined([one(model[k % len(model)], dataset, start=starts[k], seed=seed + k) for k in range(versions)], dataset)
    pixel_range = NormBall("l2", torch.inf)
    generator = torch.Generator().manual_seed(seed)
    given, from_noise = (start, False) if isinstance(start, Tensor) else (None, start == "noise")
    other = torch.cat([_random_cycle(len(dataset), generator) for _ in range(versions)]) if given is None else given.cpu()
    exact = frozen_copy(model, device) if compile else fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    fast = precision.fast_forward(exact.features, device, bf16=bf16, compile=compile)
    metric = whitened_metric(exact.features, dataset.pixels(other[:METRIC_IMAGES]).to(device)) if rule is None else None
    rule = rule or default_update_rule(dataset)

    def invert(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            wanted = exact.features(images)
        check_finite(wanted, dataset.names, index % len(dataset), "features")
        # around the start, not the image: the search falls back on the center, and must never fall back on the solution
        first = _noise(images, index, seed) if from_noise else dataset.pixels(other[index]).to(device)
        objective = objectives.feature_matching(fast, wanted, metric)
        stored = to_8bit(search.maximize(objective, first, pixel_range, steps=steps, rule=rule).images)
        with torch.no_grad():
            error = -objectives.feature_matching(exact.features, wanted).criterion(exact.features(from_8bit(stored)))
        return stored, norms_of(stored, images), error

    batch_size, several = batch_size or precision.default_batch_size(device, dataset.shape), Repeated(dataset.images, versions)
    rows = Rows(dataset.labels.repeat(versions), dataset.classes, dataset.repeated_names(versions))
    settings = f"bf16 {bf16}, compile {compile}"
    stored, (norms, error) = map_to_images(
        invert, several, batch_size=batch_size, device=device, progress=progress, settings=settings, rows=rows
    )
    stats = ConstructionStats(n=len(several), steps=steps, feature_error=error.mean().item(), **summarized(norms)._asdict())
    return Constructed(dataset.versions(stored, versions), stats)


def _check_start(start: str | Tensor, count: int, versions: int) -> None:
    if isinstance(start, str):
        if start not in ("image", "noise"):
            raise InputError("start", "must be image, noise, or an index of images", repr(start))
    elif start.shape != (count * versions,) or start.dtype != torch.int64:
        got = f"{tuple(start.shape)} of {start.dtype}"
        raise InputError("start", f"must have an index (int64) for each of {count * versions:,} images", got)
    elif count and not 0 <= int(start.min()) <= int(start.max()) < count:
        raise InputError("start", f"must have indices from 0 to {count - 1:,}", f"{int(start.min())} to {int(start.max())}")
    elif (own := start == torch.arange(count, device=start.device).repeat(versions)).any():
        raise InputError("start", "must be another image for each image", f"image {int(own.nonzero()[0]) % count} for itself")


def _noise(images: Tensor, index: Tensor, seed: int) -> Tensor:
    """Uniform noise in [0, 1], in place of images. That of an image does not depend on its batch, or on who computes it."""
    seeds = [zlib.crc32(f"{seed}/{number}".encode()) for number in index.tolist()]
    anywhere = NormBall("l2", torch.inf)
    noise = [anywhere.sample(images[[row]], torch.Generator().manual_seed(each)) for row, each in enumerate(seeds)]
    return torch.cat(noise) if noise else images


def _joined(parts: Sequence[Constructed], dataset: Dataset) -> Constructed:
    """Versions of the images of a data set as one."""
    stats = [part.stats for part in parts]
    error, mean = (sum(getattr(each, name) for each in stats) / len(stats) for name in ("feature_error", "mean_l2"))
    largest = {name: max(getattr(each, name) for each in stats) for name in ("max_l2", "max_linf")}
    images = joined([part.dataset.images for part in parts])
    counted = replace(stats[0], n=len(images), feature_error=error, mean_l2=mean, **largest)
    return Constructed(dataset.versions(images, len(parts)), counted)


def _random_cycle(count: int, generator: torch.Generator) -> Tensor:
    """Another index for each index, (count,), each used once and none its own (for 2 or more)."""
    order = torch.randperm(count, generator=generator)
    return torch.empty_like(order).scatter(0, order, order.roll(1))


def default_update_rule(dataset: Dataset) -> search.UpdateRule:
    """Polyak's step along conjugate directions, preconditioned by `spectral_covariance_sqrt` of the images.

    The maximum of the objective is known to be 0. How the two factors were found is in docs/lab-log.md.
    """
    # of large images fewer: they need memory, and each says more about the covariance
    count = max(50, min(1000, 30_000_000 // math.prod(dataset.shape)))
    index = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return search.polyak_conjugate(0.35, end=0.05, precondition=spectral_covariance_sqrt(dataset.pixels(index)))


def spectral_covariance_sqrt(images: Tensor) -> Callable[[Tensor], Tensor]:
    """Square root of the covariance of images, assumed stationary: at every spatial frequency a C x C matrix.

    Natural images vary smoothly, and in brightness more than in hue. A gradient shaped like this changes them likewise; the
    gradient itself would leave high-frequency color noise.

    Parameters
    ----------
    images : Tensor, (n, C, H, W)

    Returns
    -------
    callable
        (N, C, H, W) -> (N, C, H, W): a symmetric positive definite linear map.
    """
    shape, mean = images.shape[-2:], images.mean(0)

    def products(some: Tensor) -> Tensor:
        waves = torch.fft.rfft2(some - mean).permute(2, 3, 0, 1)  # (H, W / 2 + 1, n, C)
        product: Tensor = waves.mT.conj() @ waves
        return product.real

    # of large images some at a time: complex values and their copies take four times the memory of the images
    at_once = precision.bounded_batch_size(len(images), "cpu", images.shape[1:])
    variances, axes = torch.linalg.eigh(torch.stack([products(some) for some in torch.split(images, at_once)]).sum(0))
    root = (variances / variances.mean().clamp_min(1e-30)).clamp_min(1e-4).sqrt()
    filters = (axes * root[..., None, :] @ axes.mT).to(images.dtype.to_complex())
    copies = {filters.device: filters}  # one per device: a copy at every step would be waited for

    def precondition(gradient: Tensor) -> Tensor:
        if gradient.device not in copies:
            copies[gradient.device] = filters.to(gradient.device)
        mixed = torch.einsum("nchw,hwcd->ndhw", torch.fft.rfft2(gradient.float()), copies[gradient.device])
        result: Tensor = torch.fft.irfft2(mixed, s=shape).to(gradient.dtype)
        return result

    return precondition


def whitened_metric(features: objectives.Forward, images: Tensor) -> Tensor | None:
    """A metric in which all features respond about equally to small perturbations of the images.

    Some directions in feature space change a hundred times as much as others when pixels do, and a gradient follows only those.
    The metric is (C / its mean variance + 1)^(−1/2), C being the covariance of the features under tiny noise.

    Parameters
    ----------
    features : callable
        Images to features (n, F).
    images : Tensor, (n, C, H, W), in [0, 1]

    Returns
    -------
    Tensor, (F, F), or None
        None, the plain distance, for more than 4,096 features: there the matrices would cost more than they save.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), precision.full_precision():
        clean = features(images).float()
        count = clean.shape[1]
        if count > MAX_METRIC_FEATURES:
            return None
        moments = clean.new_zeros(count, count)
        for _ in range(math.ceil(8 * count / len(images))):
            noise = torch.randn(images.shape, generator=generator).to(images)
            responses = features(images + METRIC_NOISE * noise).float() - clean
            moments += responses.T @ responses
        variances, axes = torch.linalg.eigh(moments)
        scale = (variances / variances.mean().clamp_min(1e-30)).clamp_min(0)
        metric: Tensor = axes * (scale + 1).rsqrt() @ axes.T
    return metric


def paper_update_rule(size: float = 0.1) -> search.UpdateRule:
    """The paper's step for `invert_features`: a fixed L2 length along the gradient (0.1, with 1000 steps on CIFAR-10)."""
    return search.cosine_steps(NormBall("l2", torch.inf), size)
