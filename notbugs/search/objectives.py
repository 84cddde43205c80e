"""What is wanted: a goal says what is looked at, which way is up, and by what the best image is kept."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from notbugs.errors import InputError

Forward = Callable[[Tensor], Tensor]


class Objective(NamedTuple):
    """view: images (N, C, H, W) -> what is seen (N, …); climb, judge: seen -> (N,), more is better.

    The search follows the gradient of `climb` and keeps the image with the highest `judge`; both read the same forward pass.
    """

    forward: Forward
    objective: Callable[[Tensor], Tensor]
    criterion: Callable[[Tensor], Tensor]


def logits(model: Forward, images: Tensor) -> Tensor:
    """What a model answers, as logits (N, K), float32; an object with `.logits` will do. Raises BadInput for anything else."""
    answer = model(images)
    answer = getattr(answer, "logits", answer)
    if not isinstance(answer, Tensor):
        raise InputError(
            "model", "must return a tensor of logits, images x classes", type(answer).__name__, "wrap it: blackbox.BlackBox"
        )
    if answer.dim() != 2 or len(answer) != len(images):
        raise InputError("model", f"must return logits of shape ({len(images)}, classes)", tuple(answer.shape))
    if answer.shape[1] < 2:
        raise InputError("model", "must have two classes or more", answer.shape[1], "of one output z make logits (0, z)")
    return answer.float()


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """By how much each class leads the best other one: logits (N, K), classes (N,) -> (N,).

    Positive: it is the prediction. 0: a tie, which counts as misread wherever something is counted. -inf: the answer is no
    number.
    """
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf)
    found = (own - others.amax(1, keepdim=True)).squeeze(1)
    return torch.where(found.isnan(), -torch.inf, found)


def untargeted(model: Forward, labels: Tensor, loss: str = "margin") -> Objective:
    """Any class but the label.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K).
    labels : Tensor
        (N,), int64.
    loss : {"margin", "cross_entropy", "dlr"}
        What is maximized: the margin of the best other class, the cross-entropy (which sees every class, but is flat where the
        model is certain), or the difference of logits ratio (three classes or more; Croce & Hein 2020, equation 6).

    Returns
    -------
    Objective
        Its criterion is the margin of the best other class: 0 or more is misclassified.
    """

    def criterion(logits: Tensor) -> Tensor:
        return -margin(logits, labels)

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def dlr(logits: Tensor) -> Tensor:
        ranked = _ranked(logits, 3)
        return -margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + 1e-12)

    losses = {"margin": criterion, "cross_entropy": cross_entropy, "dlr": dlr}
    if loss not in losses:
        raise InputError("loss", "must be margin, cross_entropy or dlr", repr(loss))
    return Objective(partial(logits, model), losses[loss], criterion)


def untargeted_via(model: Forward, labels: Tensor, targets: Tensor, loss: str = "margin") -> Objective:
    """Any class but the label, by way of one target class each: maximizes the target's logit minus the label's.

    One rival at a time: where several classes compete, the margin over all of them jumps between rivals and makes no progress.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K).
    labels, targets : Tensor
        (N,), int64.
    loss : {"margin", "dlr"}
        "dlr" divides by the spread of the best logits (four classes or more; Croce & Hein 2020, equation 7).

    Returns
    -------
    Objective
        Its criterion is that of `untargeted`.
    """

    def gap(logits: Tensor) -> Tensor:
        pair = logits.gather(1, torch.stack([targets, labels], dim=1))
        return pair[:, 0] - pair[:, 1]

    def dlr(logits: Tensor) -> Tensor:
        ranked = _ranked(logits, 4)
        return gap(logits) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + 1e-12)

    losses = {"margin": gap, "dlr": dlr}
    if loss not in losses:
        raise InputError("loss", "must be margin or dlr towards a class", repr(loss))
    return Objective(partial(logits, model), losses[loss], lambda logits: -margin(logits, labels))


def _ranked(logits: Tensor, classes: int) -> Tensor:
    """The highest logits of each image, in descending order."""
    if logits.shape[1] < classes:
        raise InputError("loss", f"dlr needs {classes} classes or more", logits.shape[1], "use margin")
    return logits.topk(classes, dim=1).values


def targeted(model: Forward, targets: Tensor, loss: str = "cross_entropy") -> Objective:
    """A target class.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K).
    targets : Tensor
        (N,), int64.
    loss : {"cross_entropy", "margin"}
        Maximizes minus the cross-entropy of the target, or its margin.

    Returns
    -------
    Objective
        Its criterion is the margin of the target: above 0 the target is predicted.
    """

    def criterion(logits: Tensor) -> Tensor:
        return margin(logits, targets)

    def cross_entropy(logits: Tensor) -> Tensor:
        return -F.cross_entropy(logits, targets, reduction="none")

    if loss not in ("margin", "cross_entropy"):
        raise InputError("loss", "must be margin or cross_entropy", repr(loss))
    return Objective(partial(logits, model), criterion if loss == "margin" else cross_entropy, criterion)


def targeted_non_transferable(model: Forward, others: Sequence[Forward], targets: Tensor, labels: Tensor) -> Objective:
    """The target class for one model, while others go on reading the label: what misleads it alone, a bug of its own.

    Climbed: minus the model's cross-entropy to the target and the others' mean one to the label. Judged by the lower of two
    leads, of the target in the model and of the label in each of the others: positive where all hold.
    Source: Nakkiran 2019, "Adversarial Examples are Just Bugs, Too" (Distill), section 2.
    """

    def view(images: Tensor) -> Tensor:
        return torch.stack([logits(each, images) for each in (model, *others)])

    def alone(seen: Tensor) -> Tensor:
        kept = torch.stack([F.cross_entropy(each, labels, reduction="none") for each in seen[1:]]).mean(0)
        return -F.cross_entropy(seen[0], targets, reduction="none") - kept

    def judge(seen: Tensor) -> Tensor:
        return torch.stack([margin(seen[0], targets), *(margin(each, labels) for each in seen[1:])]).amin(0)

    return Objective(view, alone, judge)


def kl_from_clean(model: Forward, calm: Tensor) -> Objective:
    """Any other distribution than the one of the logits `calm` (N, K): Kullback-Leibler divergence, climbed and judged by.

    The inner goal of TRADES (Zhang et al. 2019, equation 5).
    """
    wanted = F.softmax(calm.float(), dim=1)

    def divergence(seen: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(seen, dim=1), wanted, reduction="none").sum(1)

    return Objective(partial(logits, model), divergence, divergence)


def feature_matching(view: Forward, wanted: Tensor, metric: Tensor | None = None) -> Objective:
    """The features `wanted` (N, F). Judged by minus the relative distance ‖f − wanted‖ / ‖wanted‖; climbed too, its top is 0.

    metric: (F, F), by which differences are multiplied in what is climbed; the judge never uses it.
    Relative, so that one figure compares models and layers (the released inversion code of Ilyas et al. 2019 does the same).
    """
    size: Tensor = wanted.float().norm(dim=1)
    scale = torch.maximum(size, (0.01 * size.mean()).clamp_min(1e-6))  # features that are all zero have no relative distance

    def closeness(features: Tensor) -> Tensor:
        distance: Tensor = (features.float() - wanted.float()).norm(dim=1)
        return -distance / scale

    def evenly(features: Tensor) -> Tensor:
        assert metric is not None
        distance: Tensor = ((features.float() - wanted.float()) @ metric).norm(dim=1)
        return -distance / scale

    return Objective(view, closeness if metric is None else evenly, closeness)


def maximize_feature(view: Forward, index: Tensor | int, sign: Tensor | float = 1.0) -> Objective:
    """One feature up (sign 1) or down (−1); index and sign may differ by image (N,). Climbed and judged by that feature."""

    def feature(features: Tensor) -> Tensor:
        columns = torch.as_tensor(index, device=features.device).expand(len(features))
        chosen: Tensor = features.float().gather(1, columns[:, None]).squeeze(1)
        return chosen * sign

    return Objective(view, feature, feature)


def feature_distance(view: Forward, calm: Tensor) -> Objective:
    """Away from the features `calm` (N, F). Climbed and judged by the distance ‖f − calm‖₂."""

    def distance(features: Tensor) -> Tensor:
        moved: Tensor = (features.float() - calm.float()).norm(dim=1)
        return moved

    return Objective(view, distance, distance)
