"""Negative controls: against brute force and exact cases, as stored."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from construct.conftest import (
    BALLS,
    FirstPixel,
    assert_norms,
    assert_same_files,
    dataset,
    levels,
    perturbed,
    pixels,
    random_dataset,
    with_predictions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from notbugs import construct, data, models
from notbugs.construct import ConstructionStats
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.search import Mask, NormBall

# ---- shuffled perturbations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "threat_model", [NormBall("l2", 0.5), NormBall("l2", 2.0), NormBall("linf", 8 / 255), NormBall("linf", 0.03)], ids=str
)
def test_shuffled_perturbations_have_the_same_norms_and_labels_and_nothing_else(threat_model: NormBall) -> None:
    """On gray images, far from the ends of the pixel range. The perturbation to shuffle is a gradient, or its signs."""
    part = random_dataset(30, (3, 16, 16), 60, 196)
    generator = torch.Generator().manual_seed(7)
    direction = threat_model.steepest_direction(torch.randn(30, 3, 16, 16, generator=generator))
    after = threat_model.round_to_8bit(pixels(part) + 0.95 * threat_model.epsilon * direction, pixels(part))
    relabeled = part.with_images(data.to_8bit(after)).with_labels((part.labels + 1) % 4)
    made = construct.shuffled_perturbations(part, relabeled)
    assert_same_files(made, part)
    assert_norms(made, part)
    assert torch.equal(made.dataset.labels, relabeled.labels)
    shuffled, original = ((pixels(each) - pixels(part)).flatten(1) for each in (made.dataset, relabeled))
    assert torch.allclose(shuffled.norm(dim=1), original.norm(dim=1))
    magnitudes = [(255 * each).round().abs().sort(1).values for each in (shuffled, original)]
    assert torch.equal(*magnitudes)  # the same values, shuffled: every norm is equal
    cosine = (shuffled * original).sum(1) / (shuffled.norm(dim=1) * original.norm(dim=1))
    assert abs(float(cosine.mean())) < 4 / (30 * 768) ** 0.5
    assert float(cosine.abs().max()) < 4.5 / 768**0.5
    assert made.stats.relabeled == 30


def test_perturbations_within_a_mask_are_shuffled_within_it() -> None:
    part, free = random_dataset(5, (3, 4, 4), 60, 196), torch.zeros(1, 4, 4, dtype=torch.bool)
    free[:, :, :2] = True
    noise = torch.randint(1, 20, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0)) * free
    relabeled = part.with_images((255 * pixels(part) + noise).round().byte())
    found = pixels(construct.shuffled_perturbations(part, relabeled, mask=Mask(free)).dataset) - pixels(part)
    assert not bool(found[:, :, :, 2:].any()) and not torch.equal(found.abs(), noise / 255)
    magnitudes = [(255 * each).round().abs().flatten(1).sort(1).values for each in (found, noise / 255)]
    assert torch.equal(*magnitudes)


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_shuffled_perturbations_of_digits(threat_model: NormBall, standard: models.Model, part: Dataset) -> None:
    """Half of their pixels are black or white: there, a perturbation changes its sign rather than its size."""
    labels = construct.random_labels(part.labels, 10)
    relabeled = construct.relabel(standard, part, labels, threat_model=threat_model, steps=10)
    made = construct.shuffled_perturbations(part, relabeled.dataset)
    perturbation = (made.dataset.images[:].int() - part.images[:].int()).flatten(1)
    limit = threat_model.epsilon * 255
    if threat_model.norm == "l2":
        assert float(perturbation.square().sum(1).max()) <= limit**2
    else:
        assert float(perturbation.abs().max()) <= limit
    before, after, reached = relabeled.stats.mean_l2, made.stats.mean_l2, relabeled.stats.target_reached
    assert before is not None and after is not None and reached is not None
    assert before * (0.97 if threat_model.norm == "l2" else 0.7) <= after <= before * 1.02
    predicted = standard(pixels(made.dataset)).argmax(1) == labels
    assert float(predicted.float().mean()) < 0.25 * reached + 0.05


def test_clean_images_stay_clean(part: Dataset) -> None:
    assert torch.equal(construct.shuffled_perturbations(part, part).dataset.images[:], part.images[:])


# ---- one pattern per class ----------------------------------------------------------------------------------------------


def test_patterns_have_the_norms_of_each_perturbation_and_the_order_and_signs_of_the_class() -> None:
    """Gray images, room on both sides: the same magnitudes, in the same order of pixels and with the same signs in a class."""
    part = random_dataset(60, (3, 5, 4), 60, 190)
    relabeled = perturbed(part, 50)
    made = construct.class_patterns(part, relabeled, seed=3)
    assert torch.equal(made.dataset.labels, relabeled.labels) and made.dataset.names == part.names
    pattern, original = levels(made.dataset) - levels(part), levels(relabeled) - levels(part)
    assert torch.equal(pattern.abs().sort(1).values, original.abs().sort(1).values)  # so every norm is equal, as stored
    assert made.stats.mean_l2 == pytest.approx(float((original.double() / 255).norm(dim=1).mean()), rel=1e-5)
    assert made.stats.relabeled == 60
    orders, signs = [], []
    for label in range(4):
        members = pattern[relabeled.labels == label]
        sign = members.sign().sum(0).sign()
        assert bool(((members.sign() == sign) | (members == 0)).all())
        order = members.abs().sum(0).argsort(descending=True, stable=True)
        ranked = members.abs()[:, order]
        assert bool((ranked[:, :-1] >= ranked[:, 1:]).all())  # the same pixels change most, in the same order
        orders.append(order.tolist())
        signs.append(sign)
    for one, other in pairwise(range(4)):
        assert orders[one] != orders[other]
        assert 0.2 < float((signs[one] == signs[other]).float().mean()) < 0.8


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 127))
def test_patterns_preserve_every_norm_where_pixels_are_black_or_white(seed: int, n: int, most: int) -> None:
    """Perturbations of at most half the range have room on one side at least; away from the ends the sign is the class's."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.tensor([0, 3, 128, 250, 255])[torch.randint(5, (n, 1, 3, 4), generator=generator)]
    part = dataset(images, torch.arange(n) % 4)
    relabeled = perturbed(part, most, seed=seed)
    made = construct.class_patterns(part, relabeled, seed=seed)
    pattern, original = levels(made.dataset) - levels(part), levels(relabeled) - levels(part)
    assert torch.equal(pattern.abs().sort(1).values, original.abs().sort(1).values)
    before = levels(part)
    room = (before - pattern.abs() >= 0) & (before + pattern.abs() <= 255) & (pattern != 0)
    for label in relabeled.labels.unique():
        members = relabeled.labels == label
        signs = torch.where(room[members], pattern[members].sign(), 0)
        assert bool((signs.amax(0) * signs.amin(0) >= 0).all())


def test_patterns_are_the_same_in_every_batch_and_differ_by_seed() -> None:
    part = random_dataset(1010, (1, 3, 3), 100, 150)
    relabeled = part.with_images(part.images[:] + torch.arange(1, 10, dtype=torch.uint8).reshape(1, 3, 3))
    one, two, other = (construct.class_patterns(part, relabeled, seed=seed).dataset for seed in (1, 1, 2))
    pattern = levels(one) - levels(part)
    for label in range(4):
        assert len(pattern[relabeled.labels == label].unique(dim=0)) == 1  # a batch is of 1,000 images
    assert torch.equal(one.images[:], two.images[:]) and not torch.equal(one.images[:], other.images[:])


def test_unperturbed_images_stay_clean_and_the_others_are_as_without() -> None:
    part = random_dataset(50, (1, 4, 4), 60, 190)
    relabeled, unperturbed = perturbed(part, 40), torch.arange(50) % 3 == 0
    made = construct.class_patterns(part, relabeled, unperturbed=unperturbed)
    whole = construct.class_patterns(part, relabeled)
    assert torch.equal(made.dataset.images[:][unperturbed], part.images[:][unperturbed])
    assert torch.equal(made.dataset.images[:][~unperturbed], whole.dataset.images[:][~unperturbed])
    assert torch.equal(made.dataset.labels, relabeled.labels)


@pytest.mark.parametrize("control", [construct.shuffled_perturbations, construct.class_patterns])
def test_a_perturbation_without_room_on_either_side_is_clipped_and_never_wraps_around(control: Any) -> None:
    part = dataset(torch.tensor([0, 128, 128, 128]).repeat(20, 1).reshape(20, 1, 2, 2), torch.arange(20) % 4)
    relabeled = part.with_images(torch.tensor([200, 128, 128, 128], dtype=torch.uint8).repeat(20, 1).reshape(20, 1, 2, 2))
    perturbation = levels(control(part, relabeled).dataset) - levels(part)
    changed = perturbation != 0
    assert bool((changed.sum(1) == 1).all())
    first = changed[:, 0]
    assert bool((perturbation[first, 0] == 200).all())
    assert {*perturbation[~first].sum(1).tolist()} <= {-128, 127}


# ---- without an attack --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=30))
def test_filtered_and_misclassified_images_by_brute_force(rows: list[tuple[int, int, int]]) -> None:
    """Each image: its label, its new label, and what the weak model predicts on the clean image."""
    old, new, predicted = (list(column) for column in zip(*rows, strict=True))
    part = with_predictions(random_dataset(len(rows), (1, 2, 2), 60, 190), predicted).with_labels(torch.tensor(old))
    relabeled = perturbed(part, 30).with_labels(torch.tensor(new))
    left = [i for i in range(len(rows)) if predicted[i] != new[i]]
    filtered = construct.drop_already_predicted(FirstPixel(), part, relabeled)
    assert filtered.dataset.names == tuple(part.names[i] for i in left)
    assert filtered.dataset.labels.tolist() == [new[i] for i in left]
    assert torch.equal(filtered.dataset.images[:], relabeled.images[left])
    assert filtered.stats.n == len(left)
    assert filtered.stats.relabeled == sum(new[i] != old[i] for i in left)
    perturbation = ((levels(relabeled) - levels(part)).double() / 255)[left]
    norms = perturbation.norm(dim=1).tolist() or [0.0]
    assert filtered.stats.mean_l2 == pytest.approx(np.mean(norms), rel=1e-5)
    assert filtered.stats.max_l2 == pytest.approx(max(norms), rel=1e-5)
    assert filtered.stats.max_linf == pytest.approx(max(perturbation.abs().flatten().tolist(), default=0), rel=1e-5)

    wrong = [i for i in range(len(rows)) if predicted[i] != old[i]]
    errors = construct.misclassified_only(FirstPixel(), part)
    assert errors.dataset.names == tuple(part.names[i] for i in wrong)
    assert errors.dataset.labels.tolist() == [predicted[i] for i in wrong]
    assert torch.equal(errors.dataset.images[:], part.images[wrong])
    assert errors.stats == ConstructionStats(n=len(wrong), mean_l2=0, max_l2=0, max_linf=0, relabeled=len(wrong))


def test_images_that_models_together_classify_correctly_are_kept_as_they_are() -> None:
    part = with_predictions(random_dataset(12, (1, 2, 2)), [i % 4 for i in range(12)])
    made = construct.correct_only([FirstPixel()], part)
    right = [i for i in range(12) if i % 4 == part.labels[i]]
    assert made.dataset.names == tuple(part.names[i] for i in right) and torch.equal(made.dataset.images[:], part.images[right])
    assert made.stats == ConstructionStats(n=len(right), mean_l2=0, max_l2=0, max_linf=0)
    opposite = torch.nn.Sequential(FirstPixel(), torch.nn.Linear(4, 4, bias=False))
    torch.nn.init.constant_(opposite[1].weight, 0.0)
    opposite[1].weight.data.fill_diagonal_(-2.0)
    together = construct.correct_only([FirstPixel(), opposite], part).dataset  # type: ignore[list-item]
    assert not {*together.names} & {*made.dataset.names}, "the sum of the logits decides"


def test_filtering_may_leave_nothing() -> None:
    """A weak model that predicts the new label everywhere: no image, and norms of 0."""
    part = with_predictions(random_dataset(8, (1, 2, 2), 60, 190), [i % 4 for i in range(8)])
    made = construct.drop_already_predicted(FirstPixel(), part, part.with_labels(torch.arange(8) % 4))
    assert len(made.dataset) == 0 and made.dataset.names == () and made.dataset.shape == part.shape
    assert made.stats == ConstructionStats(n=0, mean_l2=0, max_l2=0, max_linf=0, relabeled=0)


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 5))
def test_pseudo_labels_are_as_balanced_as_the_predictions_allow(predicted: list[int], count: int, seed: int) -> None:
    unlabeled = with_predictions(random_dataset(len(predicted), (1, 2, 2)), predicted)
    unlabeled = unlabeled.with_labels(torch.zeros(len(predicted), dtype=torch.int64))
    made = construct.pseudo_label(FirstPixel(), unlabeled, count=count, seed=seed)
    assert len(made.dataset) == made.stats.n == min(count, len(predicted))
    index = [unlabeled.names.index(name) for name in made.dataset.names]
    assert len({*index}) == len(index)
    assert made.dataset.labels.tolist() == [predicted[i] for i in index]
    assert torch.equal(made.dataset.images[:], unlabeled.images[index])
    taken = np.bincount(made.dataset.labels, minlength=4)
    for label in range(4):
        left = predicted.count(label) - taken[label]
        assert left >= 0
        assert left == 0 or taken[label] >= taken.max() - 1  # no class with images left has two fewer than another
    assert made.stats.largest_class == pytest.approx(taken.max() / taken.sum())


def test_the_seed_decides_which_images_are_pseudo_labeled() -> None:
    unlabeled = with_predictions(random_dataset(200, (1, 2, 2)), [i % 4 for i in range(200)])
    one, two, other = (construct.pseudo_label(FirstPixel(), unlabeled, count=40, seed=seed).dataset.names for seed in (1, 1, 2))
    assert one == two != other


# ---- rescaled perturbations -------------------------------------------------------------------------------------------------


def test_rescaled_perturbations_are_as_large_as_before_also_where_pixels_end() -> None:
    """On images with many black and white pixels: turned and clipped, perturbations lose a good part of their size."""
    generator = torch.Generator().manual_seed(3)
    levels_of = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.int32)
    clean = dataset(torch.where(levels_of < 100, 0, torch.where(levels_of > 200, 255, levels_of)), torch.arange(40) % 4)
    ball = NormBall("l2", 1.5)
    noise = torch.randn(40, 1, 8, 8, generator=generator)
    after = ball.round_to_8bit(ball.project(pixels(clean) + noise, pixels(clean)), pixels(clean))
    relabeled = clean.with_images((255 * after).round().to(torch.uint8)).with_labels(clean.labels)
    turned = (pixels(relabeled) - pixels(clean)).rot90(1, (2, 3))
    wanted = ball.distance(pixels(relabeled) - pixels(clean))
    clipped = ball.distance((pixels(clean) + turned).clamp(0, 1) - pixels(clean))
    assert (clipped < 0.9 * wanted).float().mean() > 0.5  # what would be lost
    made = construct.rescaled_perturbations(clean, relabeled, 7 * turned)
    found = pixels(made.dataset) - pixels(clean)
    assert torch.allclose(ball.distance(found), wanted, atol=0.02)  # 64 pixels, each rounded by up to half of a level
    assert abs(made.stats.mean_l2 - float(wanted.mean())) < 0.01
    assert (found * turned >= -1 / 255).all()  # the same direction, where there is room


def test_a_perturbation_without_room_stays_smaller_and_others_are_refused() -> None:
    white = dataset(torch.full((2, 1, 2, 2), 255), torch.arange(2))
    relabeled = white.with_images(torch.full((2, 1, 2, 2), 205, dtype=torch.uint8))
    lighter = torch.ones(2, 1, 2, 2)
    assert torch.equal(pixels(construct.rescaled_perturbations(white, relabeled, lighter).dataset), pixels(white))
    unchanged = construct.rescaled_perturbations(white, white, -lighter).dataset
    assert torch.equal(pixels(unchanged), pixels(white))  # an image that was not perturbed stays as it is
    for wrong in (torch.ones(2, 1, 2, 3), torch.full((2, 1, 2, 2), torch.nan)):
        with pytest.raises(InputError, match="perturbations: must be finite and of shape"):
            construct.rescaled_perturbations(white, relabeled, wrong)
