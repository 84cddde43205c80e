"""What robust features alone would teach of a relabelled set, and what its changes would teach without the images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from notbugs import models
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.metrics.accuracy import accuracy_row
from notbugs.metrics.features import best_class_rows, per_feature, usefulness
from notbugs.models import Model, fuse_batchnorm
from notbugs.search import NormBall

BOOTSTRAPS = 8  # fits to draws from the set learnt
MAX_IMAGES = 4000  # images for linear classifiers of changes


def robust_feature_leakage(
    model: Model, features: list[int], made: Dataset, test: Dataset, *, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Accuracy on real images of a linear classifier that learnt a relabelled set by some features of a robust model alone.

    As far as it beats guessing, the set's labels can be told by robust features, and what ordinary training reads of real images
    is no evidence for non-robust ones. Below guessing: robust features point away, as they should where every label is wrong.
    features: columns of the model's penultimate layer; of a linear model, of its logits. The interval is over test images and
    over what is learnt from (`AGAIN` fits to draws from it). Source: Goh 2019 (Distill).
    """
    from scipy.stats import t

    if not features:
        return {"features": 0, "correct": "", "n": "", "accuracy": "", "low": "", "high": ""}
    learnt, tried = (penultimate_or_logits(model, part, device)[:, features].numpy() for part in (made, test))
    labels, wanted = made.labels.numpy(), test.labels.numpy()
    right = int((_logistic_regression(learnt, labels, tried) == wanted).sum())
    chance, drawn = np.random.default_rng(0), []
    for _ in range(BOOTSTRAPS):
        some = chance.integers(len(labels), size=len(labels))
        drawn.append(float((_logistic_regression(learnt[some], labels[some], tried) == wanted).mean()))
    found = accuracy_row(right, len(wanted))
    reach = float(t.ppf(0.975, BOOTSTRAPS - 1) * np.std(drawn, ddof=1))
    low, high = (
        found["accuracy"] + way * np.hypot(found["accuracy"] - found[end], reach) for way, end in ((-1, "low"), (1, "high"))
    )
    told = {name: found[name] for name in ("correct", "n", "accuracy")}
    return {"features": len(features), **told, "low": max(float(low), 0.0), "high": min(float(high), 1.0)}


def robust_features(model: Model, part: Dataset, threat_model: NormBall, *, device: torch.device | str = "cpu") -> list[int]:
    """The features of a model that stay useful for some class whatever changes inside the ball; part: images it did not learn.

    Of the penultimate layer, by search (`per_feature`). Of a linear model its logits, each for its own class, by the bound that
    no change can break: usefulness − epsilon ‖a‖* / deviation (Goh 2019).
    """
    if not is_linear(model):
        rows = best_class_rows(per_feature(model, part, threat_model, steps=4, device=device))
        return [int(found["feature"]) for found in rows if found["kind"] == "robust"]
    if threat_model.norm not in ("l2", "linf"):
        raise InputError("threat_model", "must be in l2 or linf for a linear model's features", threat_model.norm)
    table = usefulness(penultimate_or_logits(model, part, device), part.labels, len(part.classes))
    weights = _pixel_weights(model).cpu().flatten(1)
    sizes = weights.norm(p=2 if threat_model.norm == "l2" else 1, dim=1).double().numpy()
    bound = np.diagonal(table.value) - float(threat_model.epsilon) * sizes / np.diagonal(table.scale)
    return [int(k) for k in np.flatnonzero(bound > 0)]


def perturbation_separability(before: Dataset, made: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """Share of the changes whose new label a linear classifier can tell by the change alone, on images it did not learn.

    before: the same images unchanged. 1: the changes hold a linear code of the label, as those of data poisons do (Yu et al.
    2022, Zhu et al. 2024), but also those of an attack on a nearly linear model. Compare with the set's random changes: pixels
    without room on one side tell something of the image, and where labels follow from the class, of the label. Near guessing
    there is no linear code; there may be another.
    """
    if len(before) != len(made):
        raise InputError("made", "must hold the images of `before`, one for one", f"{len(made)} for {len(before)}")
    chosen = torch.randperm(len(made), generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES]
    changes = (made.pixels(chosen) - before.pixels(chosen)).flatten(1).numpy()
    labels, half = made.labels[chosen].numpy(), len(chosen) // 2
    right = _logistic_regression(changes[:half], labels[:half], changes[half:]) == labels[half:]
    found = accuracy_row(int(right.sum()), len(right))
    guess = float(np.bincount(labels[half:]).max() / len(right))
    return {**{name: found[name] for name in ("correct", "n", "accuracy", "low", "high")}, "guess": guess}


def is_linear(model: Model) -> bool:
    """Whether a classifier is the network `linear`: a head that sees the pixels."""
    return model.architecture.get("name") == "linear"


def penultimate_or_logits(model: Model, part: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The features a classifier sees, of a linear one its logits: float (N, F), on the CPU."""
    view = fuse_batchnorm(model, part.pixels(slice(0, 2)), device)
    look = view if is_linear(model) else view.features

    def asked(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = look(images).float()
        return found

    found: Tensor = map_batches(asked, part, batch_size=500, device=device)
    return found


def _pixel_weights(model: Model) -> Tensor:
    """The weights of a linear model's logits for pixels in [0, 1]: (K, C, H, W)."""
    assert isinstance(model, models.Classifier)
    assert isinstance(model.head, torch.nn.Linear)
    channels = model.get_buffer("std")
    weights: Tensor = model.head.weight.detach().reshape(len(model.head.weight), channels.shape[1], -1) / channels.reshape(
        1, -1, 1
    )
    return weights


def _logistic_regression(learnt: np.ndarray, labels: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """What multinomial logistic regression says of `tried`, each column brought to the spread it has in what is learnt."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        return np.full(len(tried), labels[0])
    center, scale = learnt.mean(0), learnt.std(0)
    scale = np.where(scale > 1e-8 * max(float(scale.max()), 1e-30), scale, np.inf)
    fitted = LogisticRegression(C=1.0, max_iter=300, tol=1e-3).fit((learnt - center) / scale, labels)
    answer: np.ndarray = fitted.predict((tried - center) / scale)
    return answer
