"""Leakage: what robust features alone reveal of a relabeled data set, and what its perturbations reveal without the images."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from notbugs import models, predict
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics.features import best_class_rows, per_feature
from notbugs.metrics.robust_accuracy import Accuracy
from notbugs.metrics.usefulness import usefulness
from notbugs.models import Model, fuse_batchnorm
from notbugs.search import NormBall
from notbugs.stats import student_quantile

BOOTSTRAPS = 8  # fits to bootstrap samples of the relabeled data set
MAX_IMAGES = 4000  # for linear classifiers of perturbations


class RobustFeatureLeakage(NamedTuple):
    """Test accuracy of a linear classifier on robust features; without features, all but their number is None.

    Attributes
    ----------
    features : int
        Their number.
    correct, n : int or None
    accuracy, ci_low, ci_high : float or None, in [0, 1]
        The 95 % CI is over test images and over training images.
    """

    features: int
    correct: int | None = None
    n: int | None = None
    accuracy: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


class PerturbationSeparability(NamedTuple):
    """Accuracy of a linear classifier of perturbations, with its 95 % CI; chance: share of the most frequent label."""

    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    chance: float


def robust_feature_leakage(
    model: Model, features: list[int], relabeled: Dataset, test: Dataset, *, device: torch.device | str = "cpu"
) -> RobustFeatureLeakage:
    """Test accuracy of a linear classifier trained on a relabeled data set through robust features alone.

    Above chance level, robust features predict the new labels, so that a network's accuracy on real test images is no evidence
    for non-robust features. Below chance level, robust features indicate other classes, as they should if all labels are wrong.

    Parameters
    ----------
    model : Model
        A robust classifier.
    features : list of int
        Columns of its penultimate layer; of a linear model, of its logits. See `robust_features`.
    relabeled : Dataset
        To train on.
    test : Dataset
        Real test images.
    device : torch.device or str

    Returns
    -------
    RobustFeatureLeakage
        The CI adds the error over `BOOTSTRAPS` bootstrap samples of the training images to Wilson's interval.

    References
    ----------
    Goh 2019, "A Discussion of 'Adversarial Examples Are Not Bugs, They Are Features': Robust Feature Leakage" (Distill).
    """
    if not features:
        return RobustFeatureLeakage(0)
    train_values, test_values = (
        penultimate_or_logits(model, dataset, device)[:, features].numpy() for dataset in (relabeled, test)
    )
    labels, test_labels = relabeled.labels.numpy(), test.labels.numpy()
    correct = int((_logistic_regression(train_values, labels, test_values) == test_labels).sum())
    generator, accuracies = np.random.default_rng(0), []
    for _ in range(BOOTSTRAPS):
        sample = generator.integers(len(labels), size=len(labels))
        predictions = _logistic_regression(train_values[sample], labels[sample], test_values)
        accuracies.append(float((predictions == test_labels).mean()))
    result = Accuracy.from_counts(correct, len(test_labels))
    half_width = float(student_quantile(BOOTSTRAPS - 1) * np.std(accuracies, ddof=1))
    low = float(result.accuracy - np.hypot(result.accuracy - result.ci_low, half_width))
    high = float(result.accuracy + np.hypot(result.ci_high - result.accuracy, half_width))
    return RobustFeatureLeakage(len(features), correct, result.n, result.accuracy, max(low, 0.0), min(high, 1.0))


def robust_features(model: Model, dataset: Dataset, threat_model: NormBall, *, device: torch.device | str = "cpu") -> list[int]:
    """The features of a model that stay useful for their class under every perturbation.

    Parameters
    ----------
    model : Model
    dataset : Dataset
        Images that the model was not trained on.
    threat_model : NormBall
        For a linear model in L2 or L-inf.
    device : torch.device or str

    Returns
    -------
    list of int
        Columns of the penultimate layer, found by search (`per_feature`). Of a linear model, logits k that are useful for class k
        by an exact bound: usefulness - epsilon * dual norm / standard deviation.

    References
    ----------
    Goh 2019, "A Discussion of 'Adversarial Examples Are Not Bugs, They Are Features': Robust Feature Leakage" (Distill).
    """
    if not is_linear(model):
        rows = best_class_rows(per_feature(model, dataset, threat_model, steps=4, device=device))
        return [row.feature for row in rows if row.category == "robust"]
    if threat_model.norm not in ("l2", "linf"):
        raise InputError("threat_model", "must be in l2 or linf for a linear model's features", threat_model.norm)
    table = usefulness(penultimate_or_logits(model, dataset, device), dataset.labels, len(dataset.classes))
    weights = _pixel_weights(model).cpu().flatten(1)
    dual_norms = weights.norm(p=2 if threat_model.norm == "l2" else 1, dim=1).double().numpy()
    bound = np.diagonal(table.value) - float(threat_model.epsilon) * dual_norms / np.diagonal(table.scale)
    return [int(k) for k in np.flatnonzero(bound > 0)]


def perturbation_separability(clean: Dataset, relabeled: Dataset, *, seed: int = 0) -> PerturbationSeparability:
    """Accuracy of a linear classifier that predicts the new label from the perturbation alone, on held-out images.

    1: the perturbations are a linear code of the label, as those of data poisons are, but also those of an attack on a nearly
    linear model. Compare with the shuffled perturbations of the same data set: a pixel near 0 or 1 can change in one direction
    only, so that a perturbation reveals something of its image. Near chance level there is no linear code; there may be another.

    Parameters
    ----------
    clean : Dataset
    relabeled : Dataset
        The same images, perturbed, with their new labels.
    seed : int
        Of the images that are used, and of their split into two halves.

    Returns
    -------
    PerturbationSeparability

    References
    ----------
    Yu et al. 2022, "Availability Attacks Create Shortcuts"; Zhu et al. 2024, "Detection and Defense of Unlearnable Examples".

    Examples
    --------
    >>> from notbugs import construct, data
    >>> digits = data.load("digits").train.select(slice(0, 200))
    >>> perturbation_separability(digits, digits).n
    100
    """
    if len(clean) != len(relabeled):
        raise InputError("relabeled", "must hold the images of `clean`, one for one", f"{len(relabeled)} for {len(clean)}")
    chosen = torch.randperm(len(relabeled), generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES]
    perturbations = (relabeled.pixels(chosen) - clean.pixels(chosen)).flatten(1).numpy()
    labels, half = relabeled.labels[chosen].numpy(), len(chosen) // 2
    correct = _logistic_regression(perturbations[:half], labels[:half], perturbations[half:]) == labels[half:]
    result = Accuracy.from_counts(int(correct.sum()), len(correct))
    chance = float(np.bincount(labels[half:]).max() / len(correct))
    return PerturbationSeparability(result.correct, result.n, result.accuracy, result.ci_low, result.ci_high, chance)


def is_linear(model: Model) -> bool:
    """Whether a classifier is the architecture `linear`, whose logits are linear in the pixels."""
    return model.architecture.get("name") == "linear"


def penultimate_or_logits(model: Model, dataset: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The penultimate layer of a classifier, or the logits of a linear one: float (N, F), on the CPU."""
    fused = fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    return (predict.logits if is_linear(model) else predict.features)(fused, dataset, device)


def _pixel_weights(model: Model) -> Tensor:
    """Weights of a linear model's logits for pixels in [0, 1]: (K, C, H * W)."""
    assert isinstance(model, models.Classifier)
    assert isinstance(model.head, torch.nn.Linear)
    std = model.get_buffer("std")
    weights: Tensor = model.head.weight.detach().reshape(len(model.head.weight), std.shape[1], -1)
    return weights / std.reshape(1, -1, 1)


def _logistic_regression(values: np.ndarray, labels: np.ndarray, test_values: np.ndarray) -> np.ndarray:
    """Predictions of multinomial logistic regression; columns are standardized by the training values."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        return np.full(len(test_values), labels[0])
    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 1e-8 * max(float(scale.max()), 1e-30), scale, np.inf)
    fitted = LogisticRegression(C=1.0, max_iter=300, tol=1e-3).fit((values - mean) / scale, labels)
    predictions: np.ndarray = fitted.predict((test_values - mean) / scale)
    return predictions
