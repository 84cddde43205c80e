"""Leakage through robust features and through perturbations: exact linear cases, bounds, and intervals by hand."""

import importlib
import math

import numpy as np
import pytest
import torch
from construct.conftest import dataset, linear_model, perturbed, random_dataset
from scipy import stats as scipy_stats

from notbugs import construct, data, metrics, models, stats
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics import RobustFeatureLeakage
from notbugs.metrics.leakage import penultimate_or_logits
from notbugs.search import NormBall


def bright_pixel_per_class(n: int, *, seed: int, dim: tuple[int, ...] = ()) -> Dataset:
    """Four noisy pixels, one per class, the label's brighter (of the classes in `dim` only a little)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    added = torch.tensor([6 if label in dim else 120 for label in range(4)])
    images = torch.randint(60, 120, (n, 4), generator=generator)
    images[torch.arange(n), labels] += added[labels]
    return dataset(images.reshape(n, 1, 2, 2), labels)


def identity_model() -> models.Classifier:
    """Its four logits are the four pixels."""
    return linear_model(torch.eye(4), (1, 2, 2))


# ---- robust features ----------------------------------------------------------------------------------------------------


def test_the_features_of_a_linear_model_are_its_logits_and_of_others_the_penultimate_layer() -> None:
    part = random_dataset(7, (1, 8, 8))
    for name, layer in (("linear", "forward"), ("small", "features")):
        model = models.build(name, shape=(1, 8, 8), classes=4).eval()
        with torch.no_grad():
            wanted = getattr(model, layer)(part.pixels(slice(None)))
        assert torch.allclose(penultimate_or_logits(model, part), wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_robust_features_of_a_linear_model_are_those_of_the_bound(norm: str) -> None:
    """Usefulness − epsilon ‖a‖* / standard deviation by hand, and again by the worst perturbation, which is known exactly."""
    generator = torch.Generator().manual_seed(5)
    shape, mean, std = (3, 2, 2), [0.4, 0.5, 0.6], [0.2, 0.3, 0.5]
    weights = torch.randn(4, 12, generator=generator)
    model = linear_model(weights, shape, mean=mean, std=std)
    labels = torch.arange(80) % 4
    signal = 40 * torch.sign(weights)[labels].reshape(80, *shape)
    part = dataset((128 + signal + torch.randint(-60, 61, (80, *shape), generator=generator)).clamp(0, 255), labels)
    pixels = part.pixels(slice(None)).flatten(1).double()
    gradient = (weights.reshape(4, 3, 4) / torch.tensor(std)[None, :, None]).flatten(1).double()
    logits = pixels @ gradient.T
    bounds: dict[float, list[float]] = {}
    radii = [0.0, *(0.01 * step for step in range(5, 25))] if norm == "linf" else [0.0, *(0.02 * step for step in range(5, 45))]
    for epsilon in radii:
        for k in range(4):
            of_class, of_others = logits[labels == k, k], logits[labels != k, k]
            variance = (of_class.var(correction=0) + of_others.var(correction=0)) / 2
            deviation = math.sqrt(variance + ((of_class.mean() - of_others.mean()) / 2) ** 2)
            dual = float(gradient[k].norm()) if norm == "l2" else float(gradient[k].abs().sum())
            direction = gradient[k] / dual if norm == "l2" else gradient[k].sign()
            worst = (pixels - epsilon * torch.where(labels == k, 1.0, -1.0)[:, None] * direction) @ gradient[k]
            bound = float(of_class.mean() - of_others.mean()) / 2 / deviation - epsilon * dual / deviation
            found = float(worst[labels == k].mean() - worst[labels != k].mean()) / 2 / deviation
            assert found == pytest.approx(bound, abs=1e-6)
            bounds.setdefault(epsilon, []).append(bound)
    for epsilon, values in bounds.items():
        wanted = [k for k, value in enumerate(values) if value > 0]
        assert metrics.robust_features(model, part, NormBall(norm, epsilon)) == wanted
    counts = [sum(value > 0 for value in values) for values in bounds.values()]
    assert counts[0] == 4 and counts[-1] == 0 and len({*counts}) > 2  # the radii separate them


def test_a_linear_feature_against_its_class_or_without_variance_is_not_robust() -> None:
    weights = torch.diag(torch.tensor([1.0, -1.0, 0.0, 1.0]))
    part = bright_pixel_per_class(40, seed=0)
    assert metrics.robust_features(linear_model(weights, (1, 2, 2)), part, NormBall("l2", 0.01)) == [0, 3]


def test_other_norms_are_rejected_for_linear_features() -> None:
    with pytest.raises(InputError, match=r"^threat_model: must be in l2 or linf for a linear model's features, got l1$"):
        metrics.robust_features(identity_model(), bright_pixel_per_class(40, seed=0), NormBall("l1", 1.0))


@pytest.mark.slow
def test_robust_features_of_a_deep_model_are_those_of_the_category(robust: models.Model, digits: data.Splits) -> None:
    part, threat_model = digits.test.select(slice(0, 40)), NormBall("l2", 0.5)
    found = {}
    for steps in (4, 40):
        best = metrics.best_class_rows(metrics.per_feature(robust, part, threat_model, steps=steps))
        found[steps] = [row.feature for row in best if row.category == "robust"]
    assert metrics.robust_features(robust, part, threat_model) == found[4]
    assert 0 < len(found[4]) < len(best)
    assert {*found[40]} <= {*found[4]}  # a longer search leaves no more of them


@pytest.mark.slow
def test_leakage_is_what_the_labels_owe_to_the_features() -> None:
    """True labels: accuracy 1. Next labels: 0, the features indicate other classes. Random labels: about chance level."""
    model, train, test = identity_model(), bright_pixel_per_class(400, seed=0), bright_pixel_per_class(200, seed=1)
    true = metrics.robust_feature_leakage(model, [0, 1, 2, 3], train, test)
    expected = metrics.Accuracy.from_counts(200, 200)
    assert true == RobustFeatureLeakage(4, 200, 200, 1.0, expected.ci_low, expected.ci_high)
    following = metrics.robust_feature_leakage(model, [0, 1, 2, 3], train.with_labels((train.labels + 1) % 4), test)
    assert following.correct == 0
    shares = []  # the draw decides for which class another is taken: only the mean over draws is chance level
    for seed in range(30):
        labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(seed))
        shares.append(metrics.robust_feature_leakage(model, [0, 1, 2, 3], train.with_labels(labels), test).accuracy)
    assert np.mean(shares) == pytest.approx(0.25, abs=4 * np.std(shares) / 30**0.5)
    assert 0.1 < np.mean(shares) < 0.4


def test_the_interval_of_leakage_is_over_training_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 % by the whole data set, and other shares by eight bootstrap samples: both errors together, by hand."""
    module = importlib.import_module("notbugs.metrics.leakage")
    model, train, test = identity_model(), bright_pixel_per_class(41, seed=0), bright_pixel_per_class(200, seed=1)
    shares = [0.6, 0.55, 0.61, 0.58, 0.66, 0.6, 0.59, 0.63, 0.7]
    fits: list[tuple[np.ndarray, np.ndarray]] = []

    def predictions(features: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
        fits.append((features, labels))
        correct = np.arange(200) < round(200 * shares[len(fits) - 1])
        return np.where(correct, test.labels.numpy(), -1)

    monkeypatch.setattr(module, "_logistic_regression", predictions)
    found = metrics.robust_feature_leakage(model, [0, 2], train, test)
    assert len(fits) == 9 and (found.correct, found.n, found.accuracy) == (120, 200, 0.6)
    low, high = stats.wilson_interval(120, 200)
    half_width = scipy_stats.t.ppf(0.975, 7) * np.std(shares[1:], ddof=1)
    wanted = 0.6 - math.hypot(0.6 - low, half_width), 0.6 + math.hypot(high - 0.6, half_width)
    assert (found.ci_low, found.ci_high) == pytest.approx(wanted)
    whole = {(*features, label) for features, label in zip(fits[0][0].tolist(), fits[0][1].tolist(), strict=True)}
    assert len(fits[0][0]) == 41 and np.array_equal(fits[0][1], train.labels)
    samples = []
    for features, labels in fits[1:]:  # as many rows, each with its own label, some more than once
        rows = [(*one, label) for one, label in zip(features.tolist(), labels.tolist(), strict=True)]
        assert len(rows) == 41 and {*rows} < whole
        samples.append(tuple(rows))
    assert len({*samples}) == 8

    fits.clear()
    shares[:] = [0.02, *(0.0, 0.4) * 4]
    assert metrics.robust_feature_leakage(model, [0, 2], train, test).ci_low == 0
    fits.clear()
    shares[:] = [0.98, *(1.0, 0.6) * 4]
    assert metrics.robust_feature_leakage(model, [0, 2], train, test).ci_high == 1


@pytest.mark.slow
def test_leakage_of_random_labels_is_within_its_interval() -> None:
    """What random labels give on the test set depends on their draw: an interval over test images alone is too short."""
    model, train, test = identity_model(), bright_pixel_per_class(400, seed=0), bright_pixel_per_class(200, seed=1)
    covered = {"both": 0, "images": 0}
    for seed in range(20):
        labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(seed))
        found = metrics.robust_feature_leakage(model, [0, 1, 2, 3], train.with_labels(labels), test)
        assert found.correct is not None and found.ci_low is not None and found.ci_high is not None
        low, high = stats.wilson_interval(found.correct, 200)
        covered["both"] += found.ci_low <= 0.25 <= found.ci_high
        covered["images"] += low <= 0.25 <= high
        assert 0 <= found.ci_low <= low + 1e-9 and high - 1e-9 <= found.ci_high <= 1
    assert covered["both"] >= 18 and covered["images"] <= 12


def test_leakage_uses_the_given_features_and_no_others() -> None:
    """Two bright pixels separate two classes; the other two classes, given alone, are separated from each other only."""
    model, train, test = identity_model(), bright_pixel_per_class(400, seed=0), bright_pixel_per_class(200, seed=1)
    assert metrics.robust_feature_leakage(model, [0], train, test).accuracy == pytest.approx(0.5, abs=0.07)
    assert metrics.robust_feature_leakage(model, [0, 1], train, test).accuracy == pytest.approx(0.75, abs=0.07)
    dim = (bright_pixel_per_class(n, seed=seed, dim=(2, 3)) for n, seed in ((400, 0), (200, 1)))
    accuracy = metrics.robust_feature_leakage(model, [2, 3], *dim).accuracy
    assert accuracy is not None and accuracy < 0.5


def test_leakage_of_no_features_and_of_one_label() -> None:
    model, part = identity_model(), bright_pixel_per_class(40, seed=0)
    assert metrics.robust_feature_leakage(model, [], part, part) == RobustFeatureLeakage(0, None, None, None, None, None)
    single = metrics.robust_feature_leakage(model, [0], part.with_labels(torch.full((40,), 2)), part)
    assert (single.correct, single.n) == (10, 40)


# ---- separability of perturbations --------------------------------------------------------------------------------------


def test_patterns_are_separable_and_shuffled_perturbations_of_random_labels_are_not() -> None:
    part = random_dataset(400, (1, 6, 6), 60, 190)
    relabeled = perturbed(part, 30).with_labels(construct.random_labels(part.labels, 4))
    patterns = metrics.perturbation_separability(part, construct.class_patterns(part, relabeled).dataset)
    shuffled = metrics.perturbation_separability(part, construct.shuffled_perturbations(part, relabeled).dataset)
    assert patterns.n == shuffled.n == 200 and patterns.accuracy > 0.98
    assert shuffled.ci_low <= shuffled.chance + 0.05 and shuffled.accuracy < 0.4
    assert (patterns.ci_low, patterns.ci_high) == stats.wilson_interval(patterns.correct, 200)


def test_separability_depends_on_the_perturbation_and_not_on_the_image() -> None:
    """Clean images whose labels are obvious: chance level. The same perturbation for each label: accuracy 1."""
    part = bright_pixel_per_class(200, seed=0)
    clean = metrics.perturbation_separability(part, part)
    assert clean.correct <= round(clean.chance * 100)
    perturbation = torch.zeros(200, 4, dtype=torch.uint8)
    perturbation[torch.arange(200), (part.labels + 1) % 4] = 1  # one level of 255 is enough
    relabeled = part.with_images(part.images[:] + perturbation.reshape(200, 1, 2, 2))
    assert metrics.perturbation_separability(part, relabeled).accuracy == 1


def test_data_sets_of_other_images_are_rejected() -> None:
    part = random_dataset(12, (1, 2, 2), 60, 190)
    with pytest.raises(InputError, match=r"^relabeled: must hold the images of `clean`, one for one, got 10 for 12$"):
        metrics.perturbation_separability(part, part.select(slice(0, 10)))
    with pytest.raises(InputError, match=r"got 12 for 10$"):
        metrics.perturbation_separability(part.select(slice(0, 10)), part)


def test_chance_is_the_share_of_the_most_frequent_label_and_the_seed_chooses_the_images() -> None:
    part = random_dataset(101, (1, 2, 2), 60, 190)
    labels = torch.where(torch.arange(101) < 70, 0, torch.arange(101) % 4)
    relabeled = perturbed(part, 20).with_labels(labels)
    found = metrics.perturbation_separability(part, relabeled, seed=3)
    held_out = labels[torch.randperm(101, generator=torch.Generator().manual_seed(3))[50:]]
    assert found.n == 51 and found.chance == pytest.approx(float(held_out.bincount().max()) / 51)
    again, other = (metrics.perturbation_separability(part, relabeled, seed=seed) for seed in (3, 4))
    assert again == found != other
