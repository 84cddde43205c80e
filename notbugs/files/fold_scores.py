"""The scores that the cross-fitted models of one fold give to its files."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from notbugs import attacks, models, precision, predict, search
from notbugs.data import Dataset, map_batches, to_8bit
from notbugs.errors import InputError
from notbugs.files.examples import round_to_8bit
from notbugs.metrics import Usefulness, usefulness
from notbugs.models import Model, frozen, fuse_batchnorm
from notbugs.search import NormBall, Objective, objectives

FoldScores = dict[str, np.ndarray]  # score -> one value, or one row, for each file

ATTACK_STEPS = 10  # of the PGD behind the confidence under attack and pgd_steps_to_misclassify
ATTACK_SCORES = ("minimum_norm", "attacked_margin", "confidence_drop", "pgd_steps_to_misclassify")
EXAMPLES = ("adversarial", "clean_prediction", "adversarial_prediction")  # what `attack_scores` keeps of the minimum-norm search


def prediction_scores(fitted: Mapping[str, Model], files: Dataset, device: torch.device | str) -> FoldScores:
    """NAME_margin (n,) and NAME_probabilities (n, K) of each model."""
    scores: FoldScores = {}
    for name, model in fitted.items():
        logits = predict.logits(model, files, device)
        scores[f"{name}_margin"] = objectives.margin(logits, files.labels).numpy()
        scores[f"{name}_probabilities"] = logits.softmax(1).numpy()
    return scores


def training_scores(epoch_logits: Tensor, labels: Tensor) -> FoldScores:
    """How early and how lastingly a standard model learns each file; epoch_logits: (epochs, n, K), after every epoch."""
    correct = torch.stack([objectives.margin(logits, labels) for logits in epoch_logits]) > 0
    confidence = torch.stack([_confidence(logits, labels) for logits in epoch_logits])
    return {
        "epochs_correct": correct.float().mean(0).numpy(),
        "epochs_confidence": confidence.mean(0).numpy(),
        "forgetting_events": (correct[:-1] & ~correct[1:]).sum(0).numpy().astype(np.float32),
    }


def attack_scores(
    model: Model, files: Dataset, threat_model: NormBall, device: torch.device | str, *, with_examples: bool = False
) -> FoldScores:
    """minimum_norm, attacked_margin, confidence_drop and pgd_steps_to_misclassify of each file under one model.

    with_examples: also the names in `EXAMPLES`: the smallest adversarial example in 8 bits (n, C, H, W), and the classes that the
    model predicts for the file and for it.
    """
    fused = fuse_batchnorm(model, files.pixels(slice(0, 2)), device)
    rule = search.cosine_steps(threat_model, threat_model.epsilon / 4)

    def attack(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels = files.labels[index].to(images.device)
        objective, margins = _recording(objectives.untargeted(fused, labels, "cross_entropy"))
        with frozen(fused), torch.no_grad():
            clean = objectives.logits(fused, images)
            result = search.maximize(objective, images, threat_model, steps=ATTACK_STEPS, rule=rule)
            attacked = objectives.logits(fused, result.images)
        misclassified = torch.stack(margins) >= 0
        steps = torch.where(misclassified.any(0), misclassified.float().argmax(0), ATTACK_STEPS + 1)
        nearest = attacks.minimum_norm(fused, images, labels, norm=threat_model.norm, rounds=3)
        drop = _confidence(clean, labels) - _confidence(attacked, labels)
        scores = (nearest.norms, objectives.margin(attacked, labels), drop, steps.float())
        if not with_examples:
            return scores
        example = round_to_8bit(fused, images, labels, nearest)
        with torch.no_grad():
            return *scores, to_8bit(example), clean.argmax(1), objectives.logits(fused, example).argmax(1)

    columns = map_batches(attack, files, batch_size=precision.default_batch_size(device, files.shape), device=device)
    names = ATTACK_SCORES + EXAMPLES if with_examples else ATTACK_SCORES
    return {name: column.numpy() for name, column in zip(names, columns, strict=True)}


def _recording(objective: Objective) -> tuple[Objective, list[Tensor]]:
    """The same objective, and a list that gets the criterion of every iterate."""
    values: list[Tensor] = []

    def criterion(outputs: Tensor) -> Tensor:
        values.append(objective.criterion(outputs))
        return values[-1]

    return objective._replace(criterion=criterion), values


def _confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the label, (n,)."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


def influence(model: Model, files: Dataset, threat_model: NormBall, device: torch.device | str) -> np.ndarray:
    """How much a step of the last layer on each file reduces the loss on the others under PGD within epsilon / 2, to first order.

    This is TracIn (Pruthi et al. 2020) at one checkpoint, for the last layer. NaN for a model whose last layer is not linear.

    Returns
    -------
    ndarray, (n,)
        The product of the gradient of each file's loss with the sum of those of the others.
    """
    if linear_head(model, files.pixels(slice(0, 2)).to(device)) is None:
        return np.full(len(files), np.nan)
    nearer = replace(threat_model, epsilon=threat_model.epsilon / 2)

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of the cross-entropy by the logits, and the features that they are to be multiplied with."""
        features = model.features(images).float()
        by_logits = objectives.logits(model, images).float().softmax(1) - one_hot(labels, len(files.classes))
        return by_logits, torch.cat([features, torch.ones_like(features[:, :1])], 1)

    def work(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels = files.labels[index].to(images.device)
        attacked = attacks.pgd(model, images, labels, threat_model=nearer, steps=ATTACK_STEPS, loss="cross_entropy").images
        with torch.no_grad():
            return *gradients(images, labels), *gradients(attacked, labels)

    size = precision.bounded_batch_size(predict.BATCH_SIZE, device, files.shape)
    with frozen(model):
        by_logits, features, by_attacked_logits, attacked_features = map_batches(work, files, batch_size=size, device=device)
    total = by_attacked_logits.T @ attacked_features
    itself = (by_logits * by_attacked_logits).sum(1) * (features * attacked_features).sum(1)
    found: Tensor = ((by_logits @ total) * features).sum(1) - itself
    return found.numpy()


def inversion_errors(model: Model, files: Dataset, version: Dataset, device: torch.device | str) -> np.ndarray:
    """Distance between the features of each file and of its version, relative to their norm."""

    def errors(images: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            objective = objectives.feature_matching(model.features, model.features(images))
            return -objective.criterion(model.features(version.pixels(index).to(images.device)))

    size = precision.bounded_batch_size(predict.BATCH_SIZE, device, files.shape)
    with frozen(model):
        relative: Tensor = map_batches(errors, files, batch_size=size, device=device, share=False)
    return relative.numpy()


def margin_by_features(
    model: Model, files: Dataset, version: Dataset, test: Dataset | None, device: torch.device | str
) -> FoldScores:
    """The margin over the runner-up, minus its mean over all files, as the sum of what different features contribute.

    Each feature counts by the share of its usefulness that it keeps on the robust version, that it loses there, and that it loses
    on the test part, over all classes together. All are NaN for a model whose last layer is not linear.
    """
    names = ["margin_kept_on_robust_version", "margin_lost_on_robust_version"]
    names += ["margin_lost_on_test_part"] if test else []
    head = linear_head(model, files.pixels(slice(0, 2)).to(device))
    if head is None:
        return {name: np.full(len(files), np.nan) for name in names}
    values, classes = predict.features(model, files, device), len(files.classes)
    table = usefulness(values, files.labels, classes)

    def kept(dataset: Dataset) -> np.ndarray:
        return usefulness_kept(table, usefulness(predict.features(model, dataset, device), dataset.labels, classes))

    weights, bias = head.weight.detach().cpu().float(), 0.0 if head.bias is None else head.bias.detach().cpu().float()
    runner_up = (values @ weights.T + bias).scatter(1, files.labels[:, None], -torch.inf).argmax(1)
    contributions = (weights[files.labels] - weights[runner_up]) * (values - values.mean(0))
    robust = kept(version)
    shares = [robust, 1 - robust, *([1 - kept(test)] if test else [])]
    return {name: (contributions @ torch.from_numpy(share).float()).numpy() for name, share in zip(names, shares, strict=True)}


def linear_head(model: Model, images: Tensor) -> nn.Linear | None:
    """The last layer of a classifier if its logits are a linear function of the features, as checked on a few images."""
    try:
        head = model.get_submodule(models.head_name(model))
    except InputError:  # it has none
        return None
    if not isinstance(head, nn.Linear):
        return None
    with frozen(model), torch.no_grad():
        features, logits = model.features(images).float(), objectives.logits(model, images)
        if features.shape[1] != head.in_features or logits.shape[1] != head.out_features:
            return None
        return head if torch.allclose(head(features.to(head.weight.dtype)).float(), logits, rtol=1e-3, atol=1e-3) else None


def usefulness_kept(before: Usefulness, after: Usefulness) -> np.ndarray:
    """Share of its usefulness that each feature keeps from one data set to another.

    Parameters
    ----------
    before, after : Usefulness
        Of the same F features for the same classes.

    Returns
    -------
    ndarray, (F,), in [0, 1]
        The slope of the usefulness after over that before, over the classes.
    """
    share: np.ndarray = (before.value * after.value).sum(1) / np.maximum(np.square(before.value).sum(1), 1e-12)
    return share.clip(0, 1)
