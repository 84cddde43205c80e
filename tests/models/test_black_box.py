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
        LinearSVC(dual="auto"),
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


def test_functions_may_return_columns_flags_and_whole_floats() -> None:
    images, index = torch.zeros(3, 1, 2, 2), np.array([1, 0, 1])
    for outputs in (index[:, None], index.astype(float), index[:, None].astype(np.float32), index.astype(bool)):
        model = black_box.BlackBox(lambda _, outputs=outputs: outputs, ["cat", "dog"])
        assert model(images).argmax(1).tolist() == index.tolist()
    flags = black_box.BlackBox(lambda _: index.astype(bool), ["True", "False"])
    assert flags(images).argmax(1).tolist() == [0, 1, 0]  # names come before positions
    with pytest.raises(
        InputError, match=r"got float64 \(3,\); of one logit z return np.stack\(\[-z, z\], 1\), of one probability p"
    ):
        black_box.BlackBox(lambda _: np.array([0.2, 0.7, 1.0]), ["cat", "dog"])(images)


@pytest.mark.parametrize(
    ("outputs", "kind", "predicted"),
    [([0.2, 0.7, 1.0], "probability", [0, 1, 1]), ([-3.0, 0.5, 0.9], "logit", [0, 1, 1]), ([0.0, 1.0, 1.0], "labels", [0, 1, 1])],
)
def test_one_output_for_two_classes_is_a_probability_a_logit_or_a_label(
    outputs: list[float], kind: str, predicted: list[int]
) -> None:
    images = torch.zeros(3, 1, 2, 2)
    for shape in ((3,), (3, 1)):
        model = black_box.BlackBox(lambda _, shape=shape: np.array(outputs).reshape(shape), ["cat", "dog"])
        said = black_box.settle_single(model, images)
        assert model.single == kind and model(images).argmax(1).tolist() == predicted
        assert said == ("" if kind == "labels" else f"its one output, from {outputs[0]:.3g} to {outputs[2]:.3g} on 3 images, "
                        f"is read as the {kind} of dog against cat")  # fmt: skip
    three = black_box.BlackBox(lambda _: np.array(outputs), ["cat", "dog", "cow"])
    assert black_box.settle_single(three, images) == three.single == ""


class Booster:
    """What other libraries call a classifier: any of predict, predict_proba and classes_."""

    def __init__(self, probabilities: Any = None, predictions: Any = None, classes: Any = None) -> None:
        if probabilities is not None:
            self.predict_proba = lambda rows: np.asarray(probabilities)[: len(rows)]
        if predictions is not None:
            self.predict = lambda rows: np.asarray(predictions)[: len(rows)]
        if classes is not None:
            self.classes_ = np.asarray(classes)


PROBABILITIES = [[0.1, 0.7, 0.2], [0.8, 0.0, 0.2], [0.3, 0.3, 0.4]]


@pytest.mark.parametrize(
    ("booster", "wanted"),
    [
        (Booster(PROBABILITIES), [1, 0, 2]),
        (Booster(PROBABILITIES, classes=["c", "a", "b"]), [0, 2, 1]),
        (Booster(predictions=PROBABILITIES), [1, 0, 2]),
        (Booster(predictions=[[1], [0], [2]]), [1, 0, 2]),
        (Booster(predictions=[[1], [0], [2]], classes=[0, 1, 2]), [1, 0, 2]),
        (Booster(PROBABILITIES, [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]), [1, 0, 2]),
        (Booster(predictions=["b", "a", "c"], classes=["a", "b", "c"]), [1, 0, 2]),
    ],
)
def test_boosters_have_any_of_predict_predict_proba_and_classes(booster: Any, wanted: list[int]) -> None:
    assert black_box.from_sklearn(booster, ["a", "b", "c"])(torch.zeros(3, 1, 2, 2)).argmax(1).tolist() == wanted


def test_numbers_are_indices_unless_they_can_only_be_names() -> None:
    images = torch.zeros(3, 1, 2, 2)
    by_name = black_box.from_sklearn(Booster(PROBABILITIES, [20, 10, 30], [10, 20, 30]), ["30", "10", "20"])
    assert by_name(images).argmax(1).tolist() == [2, 1, 0]
    by_index = black_box.from_sklearn(Booster(PROBABILITIES, [1, 0, 2], [0, 1, 2]), ["2", "1", "0"])
    assert by_index(images).argmax(1).tolist() == [1, 0, 2]


def test_logits_of_an_image_do_not_depend_on_its_batch(rows: Any, digits: data.Splits) -> None:
    """Also those of classes that the estimator never saw."""
    pixels, labels = rows
    images = digits.test.pixels(slice(0, 12))
    for estimator in (DecisionTreeClassifier(random_state=0), LinearSVC(dual="auto"), KNeighborsClassifier(3)):
        model = black_box.from_sklearn(estimator.fit(pixels[labels < 6], labels[labels < 6]), NAMES)
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
        assert torch.allclose(together, alone, atol=1e-4)
        assert bool((together[:, 6:] <= together[:, :6].amin(1, keepdim=True) - 0.99).all())


def test_only_a_predicted_class_that_is_not_the_highest_is_raised() -> None:
    logits = np.array([[8.4748, 8.4743, 1.0], [1.0, 1.0, 0.0], [2.0, 3.0, 0.0]])
    found = black_box._raise_predicted(logits.copy(), np.array([0, 0, 0]))
    assert np.array_equal(found[0], logits[0]) and found.argmax(1).tolist() == [0, 0, 0]


def test_estimators_with_several_outputs_and_regressors_are_refused(rows: Any) -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neural_network import MLPClassifier

    pixels, labels = rows[0][:30], rows[1][:30]
    two = np.stack([labels, labels % 2], 1)
    outputs, labels_of = "which has several outputs; give one", "fitted to several labels; several labels of an image are not"
    for estimator, targets, words in (
        (KNeighborsClassifier(1), two, outputs),
        (MultiOutputClassifier(DecisionTreeClassifier()), two, outputs),
        (OneVsRestClassifier(DecisionTreeClassifier()), two > 0, labels_of),
        (MLPClassifier((4,), max_iter=20, tol=1e3, n_iter_no_change=1), two > 0, labels_of),
    ):
        with pytest.raises(InputError, match=f"must predict one class for each image, got .*, {words}"):
            black_box.from_sklearn(estimator.fit(pixels, targets), NAMES)
    with pytest.raises(InputError, match="must be a fitted scikit-learn classifier, got LinearRegression, a regressor"):
        black_box.from_sklearn(LinearRegression().fit(pixels, labels), NAMES)
    with pytest.raises(InputError, match=r"must predict one class for each of 3 images, got predictions of shape \(3, 2\)"):
        black_box.from_sklearn(Booster(predictions=two, classes=range(10)), NAMES)(torch.zeros(3, 1, 8, 8))
