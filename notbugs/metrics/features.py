"""Which features carry the evidence: how useful each is for each class, and how useful it stays when images may change a little.

A feature is any real function of an image; here those of a layer of a network. The words are from Ilyas et al. 2019, section 2.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.attacks import Model
from notbugs.data import Dataset, map_batches
from notbugs.data.subset import balanced
from notbugs.errors import InputError
from notbugs.models import frozen, fuse_batchnorm
from notbugs.search import NormBall, ThreatModel, objectives

USEFUL_FROM = 0.1  # a feature less useful than this for every class is called useless
FEATURE_IMAGE_PAIRS = (
    12_800  # of feature and image that a search looks at, where nobody says how many: 100 images for 128 features, 25 for 512
)
MAX_BATCH = 2000  # images of a batch in the search, of one feature or several


class Usefulness(NamedTuple):
    """Of one feature for each class: arrays (F, K), each entry with its 95 % interval.

    value: E[y f(x)], y being 1 for the class and −1 for the rest, both equally likely, f standardised under just that: in
    [−1, 1]; negative: the feature speaks against the class, and −f for it. n: images.
    error, freedom: for tests: its standard error, where a class that hardly varies is taken to vary as all do together, and the
    degrees of freedom of the smaller side, (K,).
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray
    n: int
    error: np.ndarray
    freedom: np.ndarray


class Extremes(NamedTuple):
    """What changes inside the ball make of features (n images x F): by how much each falls and rises at most, 0 or more."""

    falls: Tensor
    rises: Tensor


def usefulness(values: Tensor, labels: Tensor, classes: int) -> Usefulness:
    """E[y f] for every feature and class; values: float (N, F) of the features, labels: int64 (N,).

    A class with fewer than two images, and a feature that never changes, have usefulness 0 with the interval [−1, 1].
    Source: Ilyas et al. 2019, section 2, for the binary task "this class or not" with both sides equally likely.
    """
    from scipy.stats import ttest_ind

    count = values.shape[1]
    value, low, high = np.zeros((count, classes)), np.full((count, classes), -1.0), np.ones((count, classes))
    scale, error, freedom = np.full((count, classes), np.nan), np.full((count, classes), np.inf), np.ones(classes)
    table = values.double().numpy()
    for each in range(classes):
        own, rest = table[labels.numpy() == each], table[labels.numpy() != each]
        if min(len(own), len(rest)) < 2:
            continue
        gap = own.mean(0) - rest.mean(0)
        spread = np.sqrt((own.var(0) + rest.var(0)) / 2 + (gap / 2) ** 2)
        varies = (spread > 1e-6 * np.abs(table).max(initial=1e-30)) & ((own.var(0) > 0) | (rest.var(0) > 0))
        scale[:, each] = np.where(varies, spread, np.nan)
        value[varies, each] = gap[varies] / 2 / spread[varies]
        pooled = ((len(own) - 1) * own.var(0, ddof=1) + (len(rest) - 1) * rest.var(0, ddof=1)) / (len(own) + len(rest) - 2)
        sides = [np.maximum(side.var(0, ddof=1), pooled) / len(side) for side in (own, rest)]
        error[varies, each] = (np.sqrt(sides[0] + sides[1]) / 2)[varies] / spread[varies]
        freedom[each] = min(len(own), len(rest)) - 1
        inside = ttest_ind(own[:, varies], rest[:, varies], equal_var=False).confidence_interval()
        low[varies, each] = np.clip(inside.low / 2 / spread[varies], -1, 1)
        high[varies, each] = np.clip(inside.high / 2 / spread[varies], -1, 1)
    return Usefulness(value, low, high, scale, len(values), error, freedom)


def extremes(
    view: objectives.Forward, images: Tensor, threat_model: ThreatModel, features: list[int], *, steps: int = 0
) -> Extremes:
    """How far each of these features can be pushed down and up on each image; view: images (n, C, H, W) -> features (n, F).

    steps 0: one step of the whole radius along the feature's own gradient, which is all there is to gain where it is linear.
    Otherwise so many steps of falling length more. Where a gradient is zero (a unit that is off) the step is the one that suits
    the other images. Costs a backward pass and two forward passes of every image for each feature, and 2 x steps of both.
    """
    with torch.no_grad():
        calm = view(images).float()
    index = torch.tensor(features, device=images.device)
    lowest, highest = calm[:, index].T.contiguous(), calm[:, index].T.clone()  # (f, n)
    at_once = max(1, search_batch_size(images.shape) // max(len(images), 1))
    for place in range(0, len(features), at_once):
        some = index[place : place + at_once]
        slopes = search.gradients(partial(_columns, view, some), images)[1]
        still = slopes.flatten(2).abs().amax(2) == 0
        common = slopes.mean(1, keepdim=True).expand_as(slopes)
        slopes = torch.where(still.reshape(*still.shape, 1, 1, 1), common, slopes).flatten(0, 1)
        center = images.repeat(len(some), 1, 1, 1)
        which = some.repeat_interleave(len(images))
        for sign, kept in ((-1.0, lowest), (1.0, highest)):
            start = threat_model.project(center + threat_model.steepest_step(center, sign * slopes, threat_model.epsilon), center)
            goal = objectives.maximize_feature(view, which, sign)
            rule = search.cosine_steps(threat_model, threat_model.epsilon, end=0.05)
            found = sign * search.maximize(goal, center, threat_model, steps=steps, rule=rule, start=start).margins
            rows = found.reshape(len(some), len(images))
            part = slice(place, place + len(some))
            kept[part] = torch.minimum(kept[part], rows) if sign < 0 else torch.maximum(kept[part], rows)
    calm = calm[:, index].T
    return Extremes((calm - lowest).T.cpu(), (highest - calm).T.cpu())


def search_batch_size(shape: torch.Size) -> int:
    """Images of a batch in the search: fewer where they are large, for their activations must fit into memory."""
    return max(1, min(MAX_BATCH, MAX_BATCH * 3 * 32 * 32 // math.prod(shape[1:])))


def _columns(view: objectives.Forward, index: Tensor, images: Tensor) -> Tensor:
    return view(images).float()[:, index]


@precision.full_precision()
def per_feature(
    model: Model,
    part: Dataset,
    threat_model: NormBall,
    *,
    view: objectives.Forward | None = None,
    steps: int = 8,
    sample: int | None = None,
    most: int | None = None,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """Usefulness and robust usefulness of every feature for every class, and the word for it: rows feature by feature.

    part: images the model was not trained on. view: images -> features (n, F), on `device`; left out, the model's penultimate
    layer.
    usefulness: E[y f(x)], as in `usefulness`; robust_usefulness: E[inf over the ball of y f(x + change)], f turned so that it
    speaks for the class; both in [−1, 1] on images as they are, the second without a lower end. Usefulness is measured on all of
    part; what a change takes from it on `sample` images, evenly over the classes (`attacked`): by one step for features that are
    useless or rank behind the `most` most useful, with `steps` more for those. Fewer steps find less: read it as "at most".
    Left out, sample is 100, and for more than 128 features as many fewer, at least 20; most is 64, and as many fewer.
    kind, of the feature and this class: "robust" (robust_usefulness above 0), "non-robust" (useful, but a change turns it) or
    "useless" (usefulness below 0.1, or its interval holds 0). Of a feature that never changes no robust usefulness is known: nan.
    sure: 1 where the intervals leave no doubt about the word.
    Source: Ilyas et al. 2019, section 2; for linear features exact: usefulness − epsilon ‖a‖* / deviation (Goh 2019).
    """
    if not len(part):
        raise InputError("data", "must hold images to measure features on", 0)
    if view is None and isinstance(model, nn.Module):
        model = fuse_batchnorm(model, part.pixels(slice(0, 2)), device)
    module = model if isinstance(model, nn.Module) else nn.Identity()
    if view is None:
        view = getattr(model, "features", None)
        if view is None:
            raise InputError("model", "must have features(images)", type(model).__name__, "wrap it: models.wrap, or pass view")
    with frozen(module):
        values: Tensor = map_batches(lambda images, _: view(images).float(), part, batch_size=batch_size, device=device)
        table = usefulness(values, part.labels, len(part.classes))
        sample = max(20, min(100, FEATURE_IMAGE_PAIRS // values.shape[1])) if sample is None else sample
        most = max(8, min(64, 64 * FEATURE_IMAGE_PAIRS // (100 * values.shape[1]))) if most is None else most
        chosen = balanced(part.labels, sample)
        images, labels = part.pixels(chosen).to(device), part.labels[chosen]
        order = np.argsort(-np.abs(table.value).max(1), kind="stable").tolist()
        useful = [j for j in order if np.abs(table.value[j]).max() >= USEFUL_FROM]
        falls, rises = torch.zeros(len(chosen), len(order)), torch.zeros(len(chosen), len(order))
        groups = [(useful[:most], steps), (useful[most:] + [j for j in order if j not in set(useful)], 0)]
        done = 0.0
        for group, more in groups:
            width = max(1, search_batch_size(images.shape) // max(len(chosen), 1))
            for place in range(0, len(group), width):
                some = group[place : place + width]
                found = extremes(view, images, threat_model, some, steps=more)
                falls[:, some], rises[:, some] = found.falls, found.rises
                done += len(some) / len(order)
                if progress:
                    progress(done)
    searched = {j: more for group, more in groups for j in group}
    rows = []
    for j in range(len(order)):
        for k, name in enumerate(part.classes):
            rows.append(
                {
                    "feature": j,
                    "class": name,
                    **_row(table, j, k, falls[:, j].double().numpy(), rises[:, j].double().numpy(), labels.numpy() == k),
                    "n": table.n,
                    "attacked": len(chosen),
                    "steps": 1 + searched[j],
                }
            )
    return rows


def _row(table: Usefulness, j: int, k: int, falls: np.ndarray, rises: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    """One feature and class: what changes take off its usefulness, on both sides of the question."""
    from scipy.stats import t

    sign = -1.0 if table.value[j, k] < 0 else 1.0
    value, ends = sign * table.value[j, k], sorted((sign * table.low[j, k], sign * table.high[j, k]))
    loss, doubt = math.nan, math.inf
    if min(own.sum(), (~own).sum()) and math.isfinite(table.scale[j, k]):
        against, towards = (falls, rises) if sign > 0 else (rises, falls)
        sides = [against[own], towards[~own]]
        loss = sum(side.mean() for side in sides) / 2 / table.scale[j, k]
        if min(map(len, sides)) > 1:
            error = math.sqrt(sum(side.var(ddof=1) / len(side) for side in sides)) / 2 / table.scale[j, k]
            doubt = float(t.ppf(0.975, min(map(len, sides)) - 1)) * error
    robust = value - loss
    # the two errors are independent but for the sample being part of the whole: their squares add up
    low, high = robust - math.hypot(value - ends[0], doubt), robust + math.hypot(ends[1] - value, doubt)
    useful = value >= USEFUL_FROM and ends[0] > 0
    kind = "useless" if not useful else "robust" if robust > 0 else "non-robust"
    sure = (ends[1] < USEFUL_FROM) if not useful else (low > 0 or high < 0)
    return {
        "sign": int(sign),
        "usefulness": value,
        "usefulness_low": ends[0],
        "usefulness_high": ends[1],
        "robust_usefulness": robust,
        "robust_usefulness_low": low,
        "robust_usefulness_high": high,
        "kind": kind,
        "sure": int(sure),
    }


def best_class_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each feature the row of the class it is most useful for: what the feature is called by."""
    best: dict[int, dict[str, Any]] = {}
    for row in rows:
        known = best.get(row["feature"])  # of two classes both are told equally well: then the one that it speaks for
        if not known or (row["usefulness"], row["sign"]) > (known["usefulness"], known["sign"]):
            best[row["feature"]] = row
    return list(best.values())


def per_layer(
    model: nn.Module,
    images: Tensor,
    threat_model: NormBall,
    *,
    layers: list[str] | None = None,
    steps: int = 10,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How much a small change moves each layer, beside how far apart two images lie there: R(f), 0 or more, lower is more robust.

    images: (N, C, H, W) in [0, 1], two or more. layers: names of modules (default: the parts of `body`, or all children).
    R = E[max over the ball of ‖f(x') − f(x)‖₂] / E[‖f(x₁) − f(x₂)‖₂]. Source: Nakano 2019, in the discussion of Ilyas et al.
    """
    if len(images) < 2:
        raise InputError("images", "must be two or more", len(images))
    body = getattr(model, "body", model)
    names = [f"body.{name}" if body is not model else name for name, _ in body.named_children()] if layers is None else layers
    rows = []
    generator = torch.Generator().manual_seed(seed)
    with frozen(model):
        for name in names:
            view = layer_forward(model, name, pool=False)
            with torch.no_grad():
                calm = view(images).float()
                apart = (calm - calm.roll(1, 0)).norm(dim=1).mean().item()
            goal = objectives.feature_distance(view, calm)
            start = threat_model.sample(images, generator)  # at the image itself the slope is zero
            found = search.maximize(
                goal,
                images,
                threat_model,
                steps=steps,
                rule=search.cosine_steps(threat_model, threat_model.epsilon, end=0.05),
                start=start,
            )
            moved = found.margins.mean().item()
            rows.append(
                {
                    "layer": name,
                    "features": calm.shape[1],
                    "moved": moved,
                    "apart": apart,
                    "ratio": moved / apart if apart else math.inf,
                    "n": len(images),
                    "steps": steps,
                }
            )
    return rows


def layer_forward(model: nn.Module, layer: str, *, pool: bool = True) -> objectives.Forward:
    """images -> what comes out of one module of a network: (n, F). pool: maps (n, F, h, w) are averaged over places, else flat.

    Raises BadInput for a name that is no module of the network, or one that does not run.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        known = ", ".join(name for name in list(modules)[1:12])
        raise InputError("layer", f"must be a module of the network ({known} …)", repr(layer))

    def view(images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = modules[layer].register_forward_hook(lambda _, __, out: seen.append(out))
        try:
            model(images)
        finally:
            handle.remove()
        if not seen or not isinstance(seen[-1], Tensor) or len(seen[-1]) != len(images):
            raise InputError("layer", "must run and give one tensor with a row an image", repr(layer))
        found = seen[-1]
        return found.flatten(2).mean(2) if pool and found.dim() > 2 else found.flatten(1)

    return view
