"""Usefulness and robust usefulness of every feature of a layer, class by class. Definitions: Ilyas et al. 2019, section 2.

A feature f is rho-useful if E[y f(x)] is rho or more, and gamma-robustly useful if E[min over the threat model of
y f(x + perturbation)] is gamma or more. Robust: rho-useful for rho = `RHO`, and gamma-robustly useful for some gamma above 0.
Non-robust: rho-useful, but not robust.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.attacks import Model
from notbugs.data import Dataset, map_batches
from notbugs.data.subset import balanced
from notbugs.errors import InputError
from notbugs.metrics.usefulness import RHO, Usefulness, usefulness
from notbugs.models import frozen, fuse_batchnorm
from notbugs.runs.tables.features import FeatureRow
from notbugs.search import NormBall, ThreatModel, objectives
from notbugs.stats import student_quantile

FEATURE_IMAGE_PAIRS = 12_800  # of the default search: 100 images for 128 features, 25 for 512
MAX_BATCH = 2000  # images of a batch in the search, over one feature or several


class Extremes(NamedTuple):
    """How far features can be pushed within a threat model: (n, F) each, 0 or more."""

    decrease: Tensor
    increase: Tensor


class _Loss(NamedTuple):
    """What perturbations take from a usefulness, and the half width of its 95 % CI."""

    value: float
    half_width: float


def extremes(
    forward: objectives.Forward, images: Tensor, threat_model: ThreatModel, features: list[int], *, steps: int = 0
) -> Extremes:
    """How far each feature can be pushed down and up on each image.

    Costs a backward and two forward passes per image and feature, and 2 * steps more of both.

    Parameters
    ----------
    forward : callable
        Images (n, C, H, W) to features (n, F).
    images : Tensor, (n, C, H, W), in [0, 1]
    threat_model : ThreatModel
    features : list of int
        Columns, one or more.
    steps : int
        0: one step of length epsilon along the feature's gradient, which is exact where the feature is linear. Otherwise so many
        steps of decreasing length after it. Where the gradient is 0 (a unit that is off), the first step follows the mean
        gradient over the images.

    Returns
    -------
    Extremes
        (n, len(features)), on the CPU.
    """
    with torch.no_grad():
        clean = forward(images).float()
    index = torch.tensor(features, dtype=torch.int64, device=images.device)
    parts = [
        _extremes(forward, images, clean[:, part].T, threat_model, part, steps)
        for part in torch.split(index, _features_at_once(images))
    ]
    return Extremes(*(torch.cat(columns).T.cpu() for columns in zip(*parts, strict=True)))


def _extremes(
    forward: objectives.Forward, images: Tensor, clean: Tensor, threat_model: ThreatModel, index: Tensor, steps: int
) -> Extremes:
    """Extremes (f, n) of a few features, from their clean values (f, n)."""
    gradients = search.gradients(partial(_columns, forward, index), images)[1]
    zero = gradients.flatten(2).abs().amax(2) == 0
    mean = gradients.mean(1, keepdim=True).expand_as(gradients)
    gradients = torch.where(zero.reshape(*zero.shape, 1, 1, 1), mean, gradients).flatten(0, 1)
    center, columns = images.repeat(len(index), 1, 1, 1), index.repeat_interleave(len(images))
    rule = search.cosine_steps(threat_model, threat_model.epsilon, end=0.05)

    def pushed(sign: float) -> Tensor:
        step = threat_model.steepest_step(center, sign * gradients, threat_model.epsilon)
        start = threat_model.project(center + step, center)
        objective = objectives.maximize_feature(forward, columns, sign)
        result = search.maximize(objective, center, threat_model, steps=steps, rule=rule, start=start)
        return sign * result.margins.reshape(len(index), len(images))

    return Extremes(clean - torch.minimum(clean, pushed(-1.0)), torch.maximum(clean, pushed(1.0)) - clean)


def _features_at_once(images: Tensor) -> int:
    """Features searched in one batch: fewer where images are large, for their activations must fit into memory."""
    largest = max(1, min(MAX_BATCH, MAX_BATCH * 3 * 32 * 32 // math.prod(images.shape[1:])))
    return max(1, largest // max(len(images), 1))


def _columns(forward: objectives.Forward, index: Tensor, images: Tensor) -> Tensor:
    """A few features (n, f) of images."""
    return forward(images).float()[:, index]


@precision.full_precision()
def per_feature(
    model: Model,
    dataset: Dataset,
    threat_model: NormBall,
    *,
    forward: objectives.Forward | None = None,
    steps: int = 8,
    sample: int | None = None,
    most: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> list[FeatureRow]:
    """Usefulness (rho) and robust usefulness (gamma) of every feature for every class, with a category for each pair.

    Robust usefulness is E[min over the threat model of y f(x + perturbation)], f turned so that it speaks for the class: at most
    the usefulness, without a lower end. Found by search it is an upper bound. For linear features it is exact: usefulness -
    epsilon * dual norm / standard deviation.

    Parameters
    ----------
    model : callable
    dataset : Dataset
        Images that the model was not trained on.
    threat_model : NormBall
    forward : callable, optional
        Images to features (n, F), on `device`. Default: the model's penultimate layer.
    steps : int
        Of the search, for the `most` most useful features; all others get one step (`extremes`).
    sample : int, optional
        Images that are attacked, balanced over the classes; usefulness is measured on all. Default: 100, and fewer (20 at least)
        for more than 128 features.
    most : int, optional
        Default: 64, and fewer (8 at least) for more than 128 features.
    batch_size : int, optional
        Default: `precision.default_batch_size`.
    device : torch.device or str
    progress : callable, optional
        Called with the share of features that are done, in [0, 1].

    Returns
    -------
    list of FeatureRow
        Feature by feature, and class by class. Category: "useless" (usefulness below `RHO`, or its CI contains 0),
        "robust" (gamma above 0), or "non-robust". Significant: the CIs leave no doubt about the category. The robust usefulness
        of a constant feature is NaN.

    Raises
    ------
    InputError
        If there are no images, or the model has no features.

    References
    ----------
    Ilyas et al. 2019, section 2. Linear features: Goh 2019, "Two Examples of Useful, Non-Robust Features" (Distill).

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 60))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=2)
    >>> rows = per_feature(model, digits, NormBall("l2", 0.5), steps=1, sample=10)
    >>> rows[0].feature, rows[0].class_name, rows[0].n, rows[0].n_attacked
    (0, '0', 60, 10)
    """
    if not len(dataset):
        raise InputError("data", "must hold images to measure features on", 0)
    if forward is None and isinstance(model, nn.Module):
        model = fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    forward = forward or getattr(model, "features", None)
    if forward is None:
        raise InputError("model", "must have features(images)", type(model).__name__, "wrap it: models.wrap, or pass forward")
    batch_size = batch_size or precision.default_batch_size(device, dataset.shape)
    with frozen(model if isinstance(model, nn.Module) else nn.Identity()):
        values = map_batches(lambda images, _: forward(images).float(), dataset, batch_size=batch_size, device=device)
        table, count = usefulness(values, dataset.labels, len(dataset.classes)), values.shape[1]
        sample = max(20, min(100, FEATURE_IMAGE_PAIRS // count)) if sample is None else sample
        most = max(8, min(64, 64 * FEATURE_IMAGE_PAIRS // (100 * count))) if most is None else most
        schedule = _schedule(table, steps, most)
        attacked = dataset.select(balanced(dataset.labels, sample))
        found = _search(forward, attacked.pixels(slice(None)).to(device), threat_model, schedule, progress)
    taken = {feature: 1 + steps for group, steps in schedule for feature in group}
    return [
        _row(table, feature, label, found, attacked, taken[feature])
        for feature in range(count)
        for label in range(len(dataset.classes))
    ]


def _schedule(table: Usefulness, steps: int, most: int) -> list[tuple[list[int], int]]:
    """Groups of features with the steps of their search: the most useful ones, and all others with none."""
    highest = np.abs(table.value).max(1)
    order = np.argsort(-highest, kind="stable").tolist()
    useful = [feature for feature in order if highest[feature] >= RHO]
    useless = [feature for feature in order if highest[feature] < RHO]
    return [(useful[:most], steps), (useful[most:] + useless, 0)]


def _search(
    forward: objectives.Forward,
    images: Tensor,
    threat_model: NormBall,
    schedule: list[tuple[list[int], int]],
    progress: Callable[[float], None] | None,
) -> Extremes:
    """Extremes (n, F) of all features, group by group."""
    count, at_once = sum(len(group) for group, _ in schedule), _features_at_once(images)
    found, order = list[Extremes](), list[int]()
    for group, steps in schedule:
        for start in range(0, len(group), at_once):
            part = group[start : start + at_once]
            found.append(extremes(forward, images, threat_model, part, steps=steps))
            order += part
            if progress:
                progress(len(order) / count)
    back = torch.tensor(order).argsort()
    return Extremes(*(torch.cat(columns, dim=1)[:, back] for columns in zip(*found, strict=True)))


def _row(table: Usefulness, feature: int, label: int, found: Extremes, attacked: Dataset, steps: int) -> FeatureRow:
    """One feature for one class: its usefulness, what perturbations leave of it, and the category."""
    sign = -1.0 if table.value[feature, label] < 0 else 1.0
    value = float(sign * table.value[feature, label])
    ends = sorted((float(sign * table.ci_low[feature, label]), float(sign * table.ci_high[feature, label])))
    decrease, increase = (column[:, feature].double().numpy() for column in found)
    away, toward = (decrease, increase) if sign > 0 else (increase, decrease)
    own = attacked.labels.numpy() == label
    loss = _loss(away[own], toward[~own], float(table.scale[feature, label]))
    robust = value - loss.value
    # the errors are independent, but for the sample being part of the whole: their squares add up
    low = robust - math.hypot(value - ends[0], loss.half_width)
    high = robust + math.hypot(ends[1] - value, loss.half_width)
    useful = value >= RHO and ends[0] > 0
    return FeatureRow(
        feature=feature,
        class_name=attacked.classes[label],
        sign=int(sign),
        usefulness=value,
        usefulness_ci_low=ends[0],
        usefulness_ci_high=ends[1],
        robust_usefulness=robust,
        robust_usefulness_ci_low=low,
        robust_usefulness_ci_high=high,
        category="useless" if not useful else "robust" if robust > 0 else "non-robust",
        significant=(low > 0 or high < 0) if useful else ends[1] < RHO,
        n=table.n,
        n_attacked=len(attacked),
        steps=steps,
    )


def _loss(own: np.ndarray, rest: np.ndarray, scale: float) -> _Loss:
    """Loss of usefulness from the changes of a feature on images of the class and on all others; NaN if it is not defined."""
    sides = own, rest
    if not min(map(len, sides)) or not math.isfinite(scale):
        return _Loss(math.nan, math.inf)
    value = sum(side.mean() for side in sides) / 2 / scale
    if min(map(len, sides)) == 1:
        return _Loss(float(value), math.inf)
    error = math.sqrt(sum(side.var(ddof=1) / len(side) for side in sides)) / 2 / scale
    return _Loss(float(value), student_quantile(min(map(len, sides)) - 1) * error)


def best_class_rows(rows: Sequence[FeatureRow]) -> list[FeatureRow]:
    """For each feature the row of the class for which it is most useful; of two equal ones, the class that it speaks for.

    Parameters
    ----------
    rows : sequence of FeatureRow
        From `per_feature`.

    Returns
    -------
    list of FeatureRow
        One for each feature.
    """
    best: dict[int, FeatureRow] = {}
    for row in rows:
        known = best.get(row.feature)
        if not known or (row.usefulness, row.sign) > (known.usefulness, known.sign):
            best[row.feature] = row
    return list(best.values())
