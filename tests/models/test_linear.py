"""Linear estimators and perceptrons have the gradients of their weights; what is attacked is the estimator itself."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from notbugs import attacks, models, search
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox, SurrogateGradients, from_sklearn
from notbugs.models.class_outputs import with_outputs
from notbugs.search import NormBall, objectives

NAMES = ["a", "b", "c"]
SIDE = 4


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).random((60, SIDE * SIDE), dtype=np.float32)


@pytest.fixture(scope="module")
def labels(rows: np.ndarray) -> np.ndarray:
    halves = rows.reshape(-1, 2, SIDE * SIDE // 2).mean(2)
    return np.where(np.abs(halves[:, 0] - halves[:, 1]) < 0.05, 2, halves.argmax(1))


def as_images(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).reshape(-1, 1, SIDE, SIDE)


LINEAR = [
    LogisticRegression(max_iter=20),
    LinearSVC(dual="auto"),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    LinearDiscriminantAnalysis(),
    Perceptron(random_state=0),
    OneVsRestClassifier(LogisticRegression()),
    make_pipeline(StandardScaler(), PCA(5, whiten=True, random_state=0), LogisticRegression()),
    make_pipeline(MinMaxScaler((-1, 1)), LinearSVC(dual="auto")),
    make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=3, random_state=0)),
    MLPClassifier((5, 4), "tanh", max_iter=3, random_state=0),
]
OTHERS = [RandomForestClassifier(3, random_state=0), KNeighborsClassifier(3), SVC()]


@pytest.mark.parametrize("estimator", LINEAR, ids=lambda each: type(getattr(each, "steps", [["", each]])[-1][1]).__name__)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_linear_estimators_and_perceptrons_have_gradients(
    estimator: Any, classes: int, rows: np.ndarray, labels: np.ndarray
) -> None:
    """The value is that of the estimator, the gradient that of its scores, by finite differences in float64."""
    model = from_sklearn(estimator.fit(rows, labels.clip(max=classes - 1)), NAMES[:classes])
    images = as_images(rows[:6])
    assert isinstance(model, SurrogateGradients) and attacks.has_gradient(model, images)
    values, gradients = search.gradients(lambda images: objectives.logits(model, images), images)
    assert torch.equal(values, model(images)) and torch.equal(values, model.box(images))
    assert torch.equal(values.argmax(1), torch.from_numpy(estimator.predict(rows[:6])).long())
    assert model.no_gradient == "" and model.unchecked < 64
    step = 1e-2 if "MLP" not in repr(estimator) else 1e-3
    for pixel in (0, 9):
        moved = images.flatten(1).repeat(2, 1)
        moved[:6, pixel] += step
        moved[6:, pixel] -= step
        logits = model(moved.reshape(-1, 1, SIDE, SIDE))
        slopes = (logits[:6] - logits[6:]) / (2 * step)
        # the best logit may be raised a little above the others; a gap, 1 below the lowest, is none
        assert torch.allclose(slopes.T, gradients.flatten(2)[:, :, pixel], rtol=0.05, atol=0.02 * float(gradients.abs().max()))


@pytest.mark.parametrize("estimator", OTHERS, ids=lambda each: type(each).__name__)
def test_other_estimators_stay_black_boxes_and_say_so(estimator: Any, rows: np.ndarray, labels: np.ndarray) -> None:
    model = from_sklearn(estimator.fit(rows, labels), NAMES)
    assert isinstance(model, BlackBox)
    reason = attacks.missing_gradient(model, as_images(rows[:2]))
    assert reason == f"it is a {type(estimator).__name__}, not a linear classifier or a perceptron"


def test_adversarial_examples_are_those_of_the_weights_and_judged_by_the_estimator(rows: np.ndarray, labels: np.ndarray) -> None:
    """Of two classes the smallest perturbation in L2 is the margin divided by the norm of the weights."""
    estimator = LogisticRegression(C=100.0).fit(rows, labels.clip(max=1))
    model, images = from_sklearn(estimator, NAMES[:2]), as_images(rows[:20])
    predicted = torch.from_numpy(estimator.predict(rows[:20]))
    weights, score = torch.from_numpy(estimator.coef_[0]), torch.from_numpy(estimator.decision_function(rows[:20]))
    found = attacks.minimum_norm(model, images, predicted, norm="l2", rounds=4)
    inside = images - score.float()[:, None, None, None] * weights.float().reshape(1, 1, SIDE, SIDE) / weights.square().sum()
    free = ((inside > 0) & (inside < 1)).flatten(1).all(1)  # the pixel range does not matter
    assert int(free.sum()) > 5
    assert torch.allclose(found.norms[free].double(), (score.abs() / weights.norm())[free].double(), rtol=0.02)
    wrong = torch.from_numpy(estimator.predict(found.images.flatten(1).numpy())) != predicted
    assert bool(wrong.all())
    result = attacks.pgd(model, images, predicted, threat_model=NormBall("linf", 0.02))
    wrong = torch.from_numpy(estimator.predict(result.images.flatten(1).numpy())) != predicted
    assert torch.equal(wrong, result.margins >= 0)


def test_a_surrogate_that_disagrees_is_not_used(rows: np.ndarray) -> None:
    """Its gradients would be those of another model."""
    box = BlackBox(lambda images: np.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], 1), NAMES[:2])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 2))
    images = as_images(rows[:5])
    model = SurrogateGradients(box, network)
    assert torch.equal(model(images), box(images)) and not attacks.has_gradient(model, images)
    assert "gives other logits: they differ by" in attacks.missing_gradient(model, images)
    model = SurrogateGradients(box, torch.nn.Linear(3, 2))
    assert not attacks.has_gradient(model, images)
    assert "the network converted from it fails: RuntimeError: mat1 and mat2" in attacks.missing_gradient(model, images)
    right = torch.nn.Linear(SIDE * SIDE, 2)
    with torch.no_grad():
        right.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, SIDE * SIDE) / (SIDE * SIDE))
        right.bias.copy_(torch.tensor([0.0, 1.0]))
    model = SurrogateGradients(box, network, torch.nn.Sequential(torch.nn.Flatten(), right))  # the second one is used
    assert attacks.has_gradient(model, images) and torch.equal(model(images), box(images)) and len(model.surrogates) == 1


def test_features_of_an_estimator_are_its_logits(rows: np.ndarray, labels: np.ndarray) -> None:
    """Also after its first images, on which the layers of its surrogate run, too."""
    images = as_images(rows)
    for mapped in (False, True):
        model: nn.Module = from_sklearn(RidgeClassifier().fit(rows, labels), NAMES)
        if mapped:
            model = with_outputs(model, ((2,), (0, 1)), model(images), ["c", "others"])
        found, words = models.with_features(model, images[:2])
        expected = model.network(images) if mapped else model(images)
        assert words == "its logits: it is no PyTorch network" and torch.equal(found(images), model(images))
        for _ in range(2):
            assert torch.equal(found.features(images), expected) and attacks.has_gradient(found.features, images)
        with pytest.raises(InputError, match=r"^layer: can be chosen in a PyTorch network alone, got 'surrogates.0'"):
            models.with_features(model, images[:2], "surrogates.0")
