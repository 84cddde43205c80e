"""Objectives: what a search maximizes, and the criterion that decides which iterate is kept.

All in one file, side by side, though it is longer than most: they are what attacks and constructions differ in.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from notbugs.errors import InputError

Forward = Callable[[Tensor], Tensor]


class Objective(NamedTuple):
    """What a search maximizes.

    Two functions of one forward pass: at equal cost, in L-inf 0.03 with 10 steps, cross-entropy with the last iterate left
    45.9 % robust accuracy, the margin with the best iterate 36.8 %.

    Attributes
    ----------
    forward : callable
        Images (N, C, H, W) to outputs (N, …), e.g. logits or features.
    objective : callable
        Outputs to (N,): its gradient is followed.
    criterion : callable
        Outputs to (N,): the iterate with the highest value is kept.
    """

    forward: Forward
    objective: Callable[[Tensor], Tensor]
    criterion: Callable[[Tensor], Tensor]


def logits(model: Forward, images: Tensor) -> Tensor:
    """Logits of a model.

    Parameters
    ----------
    model : callable
        Images to logits (N, K), or to an object with the attribute `logits`.
    images : Tensor, (N, C, H, W), in [0, 1]

    Returns
    -------
    Tensor
        (N, K), float32.

    Raises
    ------
    InputError
        If the model returns anything else, or fewer than two classes.
    """
    if not len(images):  # of none many models fail, as by images.view(len(images), -1)
        return logits(model, torch.cat([images, images.new_zeros((1, *images.shape[1:]))]))[:0]
    outputs = model(images)
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor):
        rule, remedy = "must return a tensor of logits, images x classes", "wrap it: models.black_box.BlackBox"
        raise InputError("model", rule, type(outputs).__name__, remedy)
    if outputs.dim() != 2 or len(outputs) != len(images):
        rule, got = f"must return logits of shape ({len(images)}, classes)", str(tuple(outputs.shape))
        labels = outputs.dim() == 1 and not outputs.is_floating_point()
        remedy = "return the logits, before argmax" if labels else "return a row of logits for each image"
        raise InputError("model", rule, f"{got}, labels" if labels else got, remedy)
    if outputs.shape[1] < 2:
        remedy = "of one output z make logits (0, z), of a probability p (log(1 - p), log p), of labels return the logits"
        raise InputError("model", "must have two classes or more", outputs.shape[1], remedy)
    return outputs.float()


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Logit of a class minus the highest other logit.

    Parameters
    ----------
    logits : Tensor, (N, K)
    classes : Tensor, (N,), int64

    Returns
    -------
    Tensor
        (N,). Above 0 the class is predicted. 0 is a tie, which counts as misclassified. NaN logits give -inf, and so does an
        infinite logit of the class, unless gradients are computed.

    Examples
    --------
    >>> margin(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([1]))
    tensor([2.])
    """
    logit = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf).amax(1, keepdim=True)
    if logits.requires_grad:  # an objective: only its gradient counts, and that of nan_to_num is slow
        difference = (logit - others).squeeze(1)
        return torch.where(difference.isnan(), -torch.inf, difference)
    difference = logit.nan_to_num(torch.nan, torch.nan, -torch.inf) - others
    return difference.squeeze(1).nan_to_num(-torch.inf, torch.inf, -torch.inf)


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
    """A target class for one model that other models do not predict: adversarial examples that do not transfer.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K); should predict the target.
    others : sequence of callable
        Models that should still predict the label.
    targets, labels : Tensor
        (N,), int64.

    Returns
    -------
    Objective
        Maximizes minus the model's cross-entropy of the target, minus the others' mean cross-entropy of the label. Its criterion
        is the lowest margin, of the target in the model and of the label in the others: above 0 all predict what they should.

    References
    ----------
    Nakkiran 2019, "Adversarial Examples are Just Bugs, Too" (Distill), section 2.
    """

    def forward(images: Tensor) -> Tensor:
        return torch.stack([logits(one, images) for one in (model, *others)])

    def losses(outputs: Tensor) -> Tensor:
        label_loss = torch.stack([F.cross_entropy(other, labels, reduction="none") for other in outputs[1:]]).mean(0)
        return -F.cross_entropy(outputs[0], targets, reduction="none") - label_loss

    def criterion(outputs: Tensor) -> Tensor:
        return torch.stack([margin(outputs[0], targets), *(margin(other, labels) for other in outputs[1:])]).amin(0)

    return Objective(forward, losses, criterion)


def kl_from_clean(model: Forward, clean_logits: Tensor) -> Objective:
    """Kullback-Leibler divergence from the clean prediction: the inner objective of TRADES.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K).
    clean_logits : Tensor, (N, K)
        Of the clean images.

    References
    ----------
    Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy", equation 5.
    """
    clean = F.softmax(clean_logits.float(), dim=1)

    def divergence(outputs: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(outputs, dim=1), clean, reduction="none").sum(1)

    return Objective(partial(logits, model), divergence, divergence)


def feature_matching(forward: Forward, wanted: Tensor, metric: Tensor | None = None) -> Objective:
    """Minus the relative distance to wanted features, ‖f − wanted‖ / ‖wanted‖; the maximum is 0.

    Relative, so that one figure compares models and layers, as in the released inversion code of Ilyas et al. 2019.

    Parameters
    ----------
    forward : callable
        Images (N, C, H, W) to features (N, F).
    wanted : Tensor, (N, F)
    metric : Tensor, (F, F), optional
        Multiplies the differences in the objective; the criterion never uses it.
    """
    size: Tensor = wanted.float().norm(dim=1)
    scale = torch.maximum(size, (0.01 * size.mean()).clamp_min(1e-6))  # features that are all 0 have no relative distance

    def closeness(features: Tensor) -> Tensor:
        distance: Tensor = (features.float() - wanted.float()).norm(dim=1)
        return -distance / scale

    def closeness_in_metric(metric: Tensor, features: Tensor) -> Tensor:
        distance: Tensor = ((features.float() - wanted.float()) @ metric).norm(dim=1)
        return -distance / scale

    return Objective(forward, closeness if metric is None else partial(closeness_in_metric, metric), closeness)


def maximize_feature(forward: Forward, index: Tensor | int, sign: Tensor | float = 1.0) -> Objective:
    """One feature of each image, as large (sign 1) or as small (sign -1) as possible.

    Parameters
    ----------
    forward : callable
        Images (N, C, H, W) to features (N, F).
    index : int or Tensor, (N,)
    sign : float or Tensor, (N,)
    """

    def feature(features: Tensor) -> Tensor:
        columns = torch.as_tensor(index, device=features.device).expand(len(features))
        chosen: Tensor = features.float().gather(1, columns[:, None]).squeeze(1)
        return chosen * sign

    return Objective(forward, feature, feature)


def feature_distance(forward: Forward, clean_features: Tensor) -> Objective:
    """Distance ‖f − clean‖₂ from the features of the clean images.

    Parameters
    ----------
    forward : callable
        Images (N, C, H, W) to features (N, F).
    clean_features : Tensor, (N, F)
    """

    def distance(features: Tensor) -> Tensor:
        distances: Tensor = (features.float() - clean_features.float()).norm(dim=1)
        return distances

    return Objective(forward, distance, distance)
