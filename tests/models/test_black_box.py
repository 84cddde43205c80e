"""Black boxes: functions and scikit-learn estimators predict what the original predicts."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from notbugs import data
from notbugs.errors import InputError
from notbugs.models import black_box
from notbugs.search import objectives

NAMES = [f"digit {number}" for number in range(10)]


@pytest.fixture(scope="module")
def rows(digits: data.Splits) -> tuple[np.ndarray, np.ndarray]:
    return digits.train.pixels(slice(0, 600)).flatten(1).numpy(), digits.train.labels[:600].numpy()


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=200),
        make_pipeline(StandardScaler(), SVC()),
        SVC(decision_function_shape="ovo"),
        SVC(break_ties=False, gamma=0.5),
        LinearSVC(),
        RandomForestClassifier(20, random_state=0),
        KNeighborsClassifier(3),
        DecisionTreeClassifier(random_state=0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_estimators_keep_their_predictions(estimator: Any, rows: Any, digits: data.Splits) -> None:
    """Whether its classes are indices or names, and if it was trained on some of them only."""
    images = digits.test.pixels(slice(0, 150))
    flat = images.flatten(1).numpy()
    pixels, labels = rows
    for targets in (labels, np.array(NAMES)[labels]):
        box = black_box.from_sklearn(estimator.fit(pixels, targets), NAMES)
        logits = objectives.logits(box, images)
        predicted = estimator.predict(flat)
        wanted = predicted if targets is labels else np.array([NAMES.index(name) for name in predicted])
        assert logits.shape == (150, 10)
        assert torch.equal(logits.argmax(1), torch.from_numpy(wanted))
        assert bool((objectives.margin(logits, torch.from_numpy(wanted)) > 0).all())
    known = labels < 4
    box = black_box.from_sklearn(estimator.fit(pixels[known], labels[known]), NAMES)
    assert torch.equal(objectives.logits(box, images).argmax(1), torch.from_numpy(estimator.predict(flat)))


def test_two_classes_and_estimators_without_scores(rows: Any, digits: data.Splits) -> None:
    pixels, labels = rows
    images = digits.test.pixels(slice(0, 50))
    learner = LogisticRegression(max_iter=200).fit(pixels, labels > 4)
    with pytest.raises(InputError, match="must predict one of the classes"):
        black_box.from_sklearn(learner, NAMES)
    learner = LogisticRegression(max_iter=200).fit(pixels, (labels > 4).astype(int))
    logits = objectives.logits(black_box.from_sklearn(learner, ["low", "high"]), images)
    wanted = torch.from_numpy(learner.decision_function(images.flatten(1))).float()
    assert torch.allclose(logits[:, 1] - logits[:, 0], wanted, atol=1e-4)

    class PredictOnly:
        classes_ = np.arange(2)

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return (rows.sum(1) > 20).astype(int)

    logits = objectives.logits(black_box.from_sklearn(PredictOnly(), ["dark", "light"]), images)
    assert set(logits.flatten().tolist()) == {-1.0, 1.0}
    with pytest.raises(InputError, match="must be a fitted scikit-learn classifier, got SVC; call its fit first"):
        black_box.from_sklearn(SVC(), NAMES)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: np.zeros((len(images), 3)), r"must return logits of shape \(4, 10\), or class .*, got float64 \(4, 3\)"),
        (lambda images: np.full(len(images), 10), "must predict one of the classes digit 0.*, got 10"),
        (lambda images: ["cat"] * len(images), "got 'cat'"),
        (lambda images: None, r"got object \(\)"),
    ],
)
def test_functions_that_return_neither_logits_nor_classes_raise(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        black_box.BlackBox(function, NAMES)(torch.zeros(4, 1, 8, 8))


def test_functions_may_return_indices_names_or_logits(digits: data.Splits) -> None:
    images = digits.test.pixels(slice(0, 6))
    index = np.array([3, 1, 4, 1, 5, 9])
    for outputs in (index, list(index), torch.from_numpy(index), [NAMES[i] for i in index], np.array(NAMES)[index]):
        assert black_box.BlackBox(lambda images, outputs=outputs: outputs, NAMES)(images).argmax(1).tolist() == index.tolist()
    logits = torch.rand(6, 10, dtype=torch.float64)
    assert torch.allclose(black_box.BlackBox(lambda images: logits, NAMES)(images), logits.float())
