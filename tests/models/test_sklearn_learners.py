"""Non-neural classifiers: accuracy, seeds, and data sets that they cannot learn."""

import warnings

import pytest
import torch

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import sklearn_learners
from notbugs.predict import predict


@pytest.mark.slow
@pytest.mark.parametrize("name", list(sklearn_learners.LEARNERS))
def test_learners_are_accurate_and_reproducible(name: str, digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 400 if name in ("boosting", "random-forest") else None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner = sklearn_learners.fit_learner(name, part, seed=1)
    predictions = predict(learner, digits.test)
    assert float((predictions == digits.test.labels).float().mean()) > (0.85 if name == "boosting" else 0.9)
    if name not in ("boosting", "random-forest"):
        assert torch.equal(predict(sklearn_learners.fit_learner(name, part, seed=1), digits.test), predictions)


@pytest.mark.slow
def test_the_seed_decides_all_randomness_of_a_learner(digits: data.Splits) -> None:
    part, images = digits.train.select(slice(0, 100)), digits.test.pixels(slice(0, 100))
    one, two, other = (sklearn_learners.fit_learner("random-forest", part, seed=seed)(images) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_class_without_training_images_is_never_predicted(digits: data.Splits) -> None:
    part = digits.train.select((digits.train.labels != 3).nonzero().squeeze(1)[:200])
    for name in ("logistic-regression", "nearest-neighbors", "linear-svm"):
        logits = sklearn_learners.fit_learner(name, part)(digits.test.pixels(slice(0, 60)))
        assert logits.shape == (60, 10) and not bool((logits.argmax(1) == 3).any())


def test_two_classes_are_enough(digits: data.Splits) -> None:
    two = digits.train.select((digits.train.labels < 2).nonzero().squeeze(1)[:80])
    part = Dataset(two.images, two.labels, ("0", "1"), two.names)
    for name in ("logistic-regression", "rbf-svm", "linear-svm"):
        assert float((predict(sklearn_learners.fit_learner(name, part), part) == part.labels).float().mean()) == 1


def test_an_unknown_learner_is_rejected(digits: data.Splits) -> None:
    rule = r"^learner: must be one of logistic-regression, .*, nearest-neighbors, got 'perceptron'$"
    with pytest.raises(InputError, match=rule):
        sklearn_learners.fit_learner("perceptron", digits.train)


def test_a_single_class_is_rejected_by_every_learner(digits: data.Splits) -> None:
    part = digits.train.select((digits.train.labels == 3).nonzero().squeeze(1)[:20])
    for name in sklearn_learners.LEARNERS:
        with pytest.raises(InputError, match=r"^data: must have images of two classes or more, got 1$"):
            sklearn_learners.fit_learner(name, part)


def test_fewer_images_than_neighbors(digits: data.Splits) -> None:
    few = digits.train.select([0, 1, 2])
    assert sklearn_learners.fit_learner("nearest-neighbors", few)(few.pixels(slice(None))).shape == (3, 10)


def test_boosted_trees_are_not_more_with_more_classes() -> None:
    estimator = sklearn_learners.LEARNERS["boosting"](64, 100, 50, 0)
    assert estimator.max_iter == 20 and sklearn_learners.LEARNERS["boosting"](64, 100, 10, 0).max_iter == 100
