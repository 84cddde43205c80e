"""Sets that could refute a result, and what is asked of them: against brute force, exact linear cases, and textbook answers."""

import importlib
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torch import Tensor, nn

from notbugs import construct, data, metrics, models, stats
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics.leakage import penultimate_or_logits
from notbugs.predict import predict
from notbugs.search import NormBall, objectives


def dataset(images: Tensor, labels: Tensor, classes: int = 4) -> Dataset:
    names = tuple(f"{number:04d}.png" for number in range(len(images)))
    return Dataset(images.to(torch.uint8), labels.long(), tuple("abcdefghij"[:classes]), names)


def drawn(n: int, shape: tuple[int, int, int], low: int, high: int, *, seed: int = 0, classes: int = 4) -> Dataset:
    """Random pixels from low to high - 1, labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    return dataset(torch.randint(low, high, (n, *shape), generator=generator), torch.arange(n) % classes, classes)


def moved(part: Dataset, most: int, *, seed: int = 1) -> Dataset:
    """Random changes of at most so many levels, cut off at black and white, and every label the next."""
    generator = torch.Generator().manual_seed(seed)
    change = torch.randint(-most, most + 1, part.images.shape, generator=generator)
    after = (levels(part) + change.flatten(1)).clamp(0, 255).reshape(part.images.shape).to(torch.uint8)
    return part.with_images(after).with_labels((part.labels + 1) % len(part.classes))


def levels(part: Dataset) -> Tensor:
    """The stored pixels, one row an image: int (N, pixels)."""
    return part.images[:].flatten(1).int()


class Reader(nn.Module):
    """Reads the class that the first pixel says: its level, modulo the number of classes."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 255).round().long() % self.classes, self.classes).float()


def said(part: Dataset, answers: list[int]) -> Dataset:
    """The same images, with what `Reader` is to read in each."""
    images = part.images[:].clone()
    images[:, 0, 0, 0] = torch.tensor(answers, dtype=torch.uint8) + 40
    return part.with_images(images)


def linear(weights: Tensor, shape: tuple[int, int, int], **options: Any) -> models.Classifier:
    """The network `linear` with given weights (K, pixels) for what comes out of its normalisation."""
    model = models.build("linear", shape=shape, classes=len(weights), **options)
    assert isinstance(model, models.Classifier) and isinstance(model.head, nn.Linear)
    with torch.no_grad():
        model.head.weight.copy_(weights)
        model.head.bias.zero_()
    return model.eval()


# ---- misleading one model alone -----------------------------------------------------------------------------------------


def test_the_goal_for_one_model_alone_is_its_formula() -> None:
    """Three models, four images: both formulas written out one image at a time."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4, 5, generator=generator)
    targets, labels = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 1, 2])
    goal = objectives.targeted_non_transferable(lambda _: logits[0], [lambda _: logits[1], lambda _: logits[2]], targets, labels)
    seen = goal.forward(torch.zeros(4, 1, 2, 2))
    assert torch.equal(seen, logits)

    def lead(row: list[float], label: int) -> float:
        return row[label] - max(value for k, value in enumerate(row) if k != label)

    def loss(row: list[float], label: int) -> float:
        return math.log(sum(map(math.exp, row))) - row[label]

    climbs, judged = [], []
    for image, (target, label) in enumerate(zip(targets.tolist(), labels.tolist(), strict=True)):
        own, *others = (logits[model, image].double().tolist() for model in range(3))
        climbs.append(-loss(own, target) - sum(loss(row, label) for row in others) / 2)
        judged.append(min(lead(own, target), *(lead(row, label) for row in others)))
    assert goal.objective(seen).tolist() == pytest.approx(climbs, rel=1e-4)
    assert goal.criterion(seen).tolist() == pytest.approx(judged, rel=1e-4)


def test_what_misleads_one_model_alone_spares_the_others() -> None:
    """Both models see the first half of the pixels, only one the second: plain changes turn both."""
    shared, private = torch.zeros(2, 16), torch.zeros(2, 16)
    shared[0, :8], shared[1, :8], private[0, 8:], private[1, 8:] = 4.0, -4.0, 4.0, -4.0
    source, other = linear(shared + private, (1, 4, 4)), linear(shared, (1, 4, 4))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    shades = 128 + 12 * (1 - 2 * labels)[:, None] + torch.randint(-3, 4, (40, 16), generator=generator)
    part = dataset(shades.reshape(40, 1, 4, 4), labels, 2)
    assert torch.equal(predict(source, part), labels) and torch.equal(predict(other, part), labels)
    plain = construct.relabel(source, part, 1 - labels, threat_model=NormBall("l2", 0.6), steps=20)
    alone = construct.relabel(source, part, 1 - labels, threat_model=NormBall("l2", 0.6), steps=20, alone=[other])
    assert plain.stats["reached"] == alone.stats["reached"] == alone.stats["others_keep"] == 1
    assert "others_keep" not in plain.stats
    assert torch.equal(predict(other, plain.dataset), 1 - labels)
    assert torch.equal(predict(other, alone.dataset), labels)
    assert torch.equal(alone.dataset.labels, 1 - labels)
    assert float(((levels(alone.dataset) - levels(part)).double() / 255).norm(dim=1).max()) <= 0.6


def test_others_keep_is_the_share_of_images_that_all_others_still_read() -> None:
    """Three who look at parts of what the source sees, in images more or less sure: as stored, counted by hand."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, generator=generator) for _ in range(3)]
    weights = [torch.stack([-each, each]) for each in (weights[0] + weights[1], weights[0] + 0.3 * weights[2], weights[1])]
    source, *others = (linear(each, (1, 4, 4)) for each in weights)
    part = drawn(200, (1, 4, 4), 90, 166, classes=2).with_labels(torch.zeros(200, dtype=torch.int64))
    read = torch.stack([predict(each, part) for each in (source, *others)])
    part = part.select((read == read[0]).all(0).nonzero().squeeze(1))
    part = part.with_labels(predict(source, part))
    made = construct.relabel(source, part, 1 - part.labels, threat_model=NormBall("l2", 0.4), steps=10, alone=others)
    kept = torch.stack([predict(each, made.dataset) == part.labels for each in others])
    share = float(kept.all(0).float().mean())
    assert made.stats["others_keep"] == pytest.approx(share) and 0 < share < float(kept.float().mean(1).min())
    assert made.stats["reached"] == pytest.approx(float((predict(source, made.dataset) == 1 - part.labels).float().mean()))


def test_who_is_to_be_left_alone_asks_for_the_loss() -> None:
    part, model = drawn(4, (1, 2, 2), 60, 190), linear(torch.eye(4), (1, 2, 2))
    options: dict[str, Any] = {"threat_model": NormBall("l2", 0.1), "steps": 1, "loss": "margin"}
    with pytest.raises(InputError, match=r"^loss: must be cross_entropy where other models are to keep the label, got 'margin'$"):
        construct.relabel(model, part, (part.labels + 1) % 4, alone=[model], **options)
    assert "others_keep" not in construct.relabel(model, part, (part.labels + 1) % 4, **options).stats


# ---- one pattern a label ------------------------------------------------------------------------------------------------


def test_patterns_have_the_norms_of_each_change_and_the_place_and_way_of_the_label() -> None:
    """Grey images, room on both sides: the same sizes, in the same order of places and with the same signs within a label."""
    part = drawn(60, (3, 5, 4), 60, 190)
    made = moved(part, 50)
    found = construct.class_patterns(part, made, seed=3)
    assert torch.equal(found.dataset.labels, made.labels) and found.dataset.names == part.names
    ours, theirs = levels(found.dataset) - levels(part), levels(made) - levels(part)
    assert torch.equal(ours.abs().sort(1).values, theirs.abs().sort(1).values)  # so every norm is the same, as stored
    assert found.stats["mean_l2"] == pytest.approx(float((theirs.double() / 255).norm(dim=1).mean()), rel=1e-5)
    assert found.stats["changed_labels"] == 60
    orders, ways = [], []
    for label in range(4):
        own = ours[made.labels == label]
        way = own.sign().sum(0).sign()
        assert bool(((own.sign() == way) | (own == 0)).all())
        order = own.abs().sum(0).argsort(descending=True, stable=True)
        ranked = own.abs()[:, order]
        assert bool((ranked[:, :-1] >= ranked[:, 1:]).all())  # the same pixels move most, in the same order
        orders.append(order.tolist())
        ways.append(way)
    for one, other in pairwise(range(4)):
        assert orders[one] != orders[other]
        assert 0.2 < float((ways[one] == ways[other]).float().mean()) < 0.8


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 127))
def test_patterns_keep_every_norm_where_pixels_are_black_or_white(seed: int, n: int, most: int) -> None:
    """Changes of at most half the range find room on one side at least; away from the edges the sign is the label's."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.tensor([0, 3, 128, 250, 255])[torch.randint(5, (n, 1, 3, 4), generator=generator)]
    part = dataset(images, torch.arange(n) % 4)
    made = moved(part, most, seed=seed)
    found = construct.class_patterns(part, made, seed=seed)
    ours, theirs = levels(found.dataset) - levels(part), levels(made) - levels(part)
    assert torch.equal(ours.abs().sort(1).values, theirs.abs().sort(1).values)
    before = levels(part)
    room = (before - ours.abs() >= 0) & (before + ours.abs() <= 255) & (ours != 0)
    for label in made.labels.unique():
        own = made.labels == label
        signs = torch.where(room[own], ours[own].sign(), 0)
        assert bool((signs.amax(0) * signs.amin(0) >= 0).all())


def test_patterns_are_the_same_in_every_batch_and_other_with_another_seed() -> None:
    part = drawn(1010, (1, 3, 3), 100, 150)
    made = part.with_images(part.images[:] + torch.arange(1, 10, dtype=torch.uint8).reshape(1, 3, 3))
    one, two, other = (construct.class_patterns(part, made, seed=seed).dataset for seed in (1, 1, 2))
    change = levels(one) - levels(part)
    for label in range(4):
        assert len(change[made.labels == label].unique(dim=0)) == 1  # the 1,010 images are made a thousand at a time
    assert torch.equal(one.images[:], two.images[:]) and not torch.equal(one.images[:], other.images[:])


def test_images_to_spare_stay_and_the_others_are_as_without() -> None:
    part = drawn(50, (1, 4, 4), 60, 190)
    made, spare = moved(part, 40), torch.arange(50) % 3 == 0
    found, whole = construct.class_patterns(part, made, spare=spare), construct.class_patterns(part, made)
    assert torch.equal(found.dataset.images[:][spare], part.images[:][spare])
    assert torch.equal(found.dataset.images[:][~spare], whole.dataset.images[:][~spare])
    assert torch.equal(found.dataset.labels, made.labels)


@pytest.mark.parametrize("control", [construct.shuffled_perturbations, construct.class_patterns])
def test_a_change_with_no_room_on_either_side_is_cut_and_never_wraps_around(control: Any) -> None:
    part = dataset(torch.tensor([0, 128, 128, 128]).repeat(20, 1).reshape(20, 1, 2, 2), torch.arange(20) % 4)
    made = part.with_images(torch.tensor([200, 128, 128, 128], dtype=torch.uint8).repeat(20, 1).reshape(20, 1, 2, 2))
    change = levels(control(part, made).dataset) - levels(part)
    places = change != 0
    assert bool((places.sum(1) == 1).all())
    first = places[:, 0]
    assert bool((change[first, 0] == 200).all())
    assert {*change[~first].sum(1).tolist()} <= {-128, 127}


# ---- without an attack --------------------------------------------------------------------------------------------------


def test_reads_is_the_models_answer_image_by_image() -> None:
    part = said(drawn(1203, (1, 3, 3), 0, 256), [(7 * i) % 11 for i in range(1203)])
    wanted = [(((7 * i) % 11) + 40) % 4 for i in range(1203)]
    assert predict(Reader(), part).tolist() == wanted
    model = models.build("small", shape=(1, 8, 8), classes=4, width=4).train()
    digits = drawn(9, (1, 8, 8), 0, 256)
    model.eval()
    with torch.no_grad():
        answers = model(digits.pixels(slice(None))).argmax(1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(predict(model, digits), answers)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_object_with_logits_is_read_too() -> None:
    class Answer(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return SimpleNamespace(logits=Reader()(images))

    part = said(drawn(5, (1, 2, 2), 0, 256), [0, 1, 2, 3, 0])
    assert predict(Answer(), part).tolist() == [0, 1, 2, 3, 0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=30))
def test_unread_and_errors_only_by_brute_force(rows: list[tuple[int, int, int]]) -> None:
    """Each image: its label, its new label, and what the weak model reads in it unchanged."""
    own, new, read = (list(column) for column in zip(*rows, strict=True))
    part = said(drawn(len(rows), (1, 2, 2), 60, 190), read).with_labels(torch.tensor(own))
    made = moved(part, 30).with_labels(torch.tensor(new))
    left = [place for place in range(len(rows)) if read[place] != new[place]]
    found = construct.drop_already_predicted(Reader(), part, made)
    assert found.dataset.names == tuple(part.names[place] for place in left)
    assert found.dataset.labels.tolist() == [new[place] for place in left]
    assert torch.equal(found.dataset.images[:], made.images[left])
    assert found.stats["n"] == len(left)
    assert found.stats["changed_labels"] == sum(new[place] != own[place] for place in left)
    change = ((levels(made) - levels(part)).double() / 255)[left]
    sizes = change.norm(dim=1).tolist() or [0.0]
    assert found.stats["mean_l2"] == pytest.approx(np.mean(sizes), rel=1e-5)
    assert found.stats["max_l2"] == pytest.approx(max(sizes), rel=1e-5)
    assert found.stats["max_linf"] == pytest.approx(max(change.abs().flatten().tolist(), default=0), rel=1e-5)

    wrong = [place for place in range(len(rows)) if read[place] != own[place]]
    errors = construct.misclassified_only(Reader(), part)
    assert errors.dataset.names == tuple(part.names[place] for place in wrong)
    assert errors.dataset.labels.tolist() == [read[place] for place in wrong]
    assert torch.equal(errors.dataset.images[:], part.images[wrong])
    assert errors.stats == {"n": len(wrong), "mean_l2": 0, "max_l2": 0, "max_linf": 0, "changed_labels": len(wrong)}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 5))
def test_pictures_are_taught_as_evenly_as_the_answers_allow(read: list[int], count: int, seed: int) -> None:
    others = said(drawn(len(read), (1, 2, 2), 0, 256), read).with_labels(torch.zeros(len(read), dtype=torch.int64))
    found = construct.pseudo_label(Reader(), others, count=count, seed=seed)
    assert len(found.dataset) == found.stats["n"] == min(count, len(read))
    places = [others.names.index(name) for name in found.dataset.names]
    assert len({*places}) == len(places)
    assert found.dataset.labels.tolist() == [read[place] for place in places]
    assert torch.equal(found.dataset.images[:], others.images[places])
    taken = np.bincount(found.dataset.labels, minlength=4)
    for one in range(4):
        left_over = read.count(one) - taken[one]
        assert left_over >= 0
        assert left_over == 0 or taken[one] >= taken.max() - 1  # nobody has two more than a class with images left
    assert found.stats["largest_class"] == pytest.approx(taken.max() / taken.sum())


def test_which_pictures_are_taught_is_the_seeds() -> None:
    others = said(drawn(200, (1, 2, 2), 0, 256), [i % 4 for i in range(200)])
    one, two, other = (construct.pseudo_label(Reader(), others, count=40, seed=seed).dataset.names for seed in (1, 1, 2))
    assert one == two != other


def test_unread_may_leave_nothing() -> None:
    """Of a weak model that reads the new label everywhere: no image, and changes of size 0."""
    part = said(drawn(8, (1, 2, 2), 60, 190), [i % 4 for i in range(8)])
    found = construct.drop_already_predicted(Reader(), part, part.with_labels(torch.arange(8) % 4))
    assert len(found.dataset) == 0 and found.dataset.names == () and found.dataset.shape == part.shape
    assert found.stats == {"n": 0, "mean_l2": 0, "max_l2": 0, "max_linf": 0, "changed_labels": 0}


# ---- photographs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 12, 20), (3, 600, 5)], ids=str)
def test_photographs_have_the_form_of_the_set_and_are_the_seeds(shape: tuple[int, int, int]) -> None:
    like = drawn(2, shape, 0, 256)
    one, two, other = (data.photo_crops(9, like, seed=seed) for seed in (0, 0, 1))
    assert one.shape == shape and one.classes == like.classes and len(one) == 9
    assert one.labels.tolist() == [0] * 9 and len({*one.names}) == 9
    assert torch.equal(one.images[:], two.images[:]) and not torch.equal(one.images[:], other.images[:])
    assert len(one.images[:].flatten(1).unique(dim=0)) == 9
    assert torch.equal(data.photo_crops(4, like).images[:], one.images[:4])


def test_a_photograph_at_full_size_is_a_piece_of_the_photograph() -> None:
    """As large as the picture is high: nothing is left to bring to size, so that every crop can be looked up."""
    from sklearn.datasets import load_sample_images

    found = data.photo_crops(2, drawn(2, (3, 427, 427), 0, 256))
    for number, source in enumerate(load_sample_images().images):
        whole = torch.from_numpy(np.array(source)).permute(2, 0, 1)
        assert any(torch.equal(found.images[number], whole[:, :, left : left + 427]) for left in range(640 - 427 + 1))


def test_grey_photographs_are_the_mean_of_the_colours() -> None:
    grey, colour = (data.photo_crops(6, drawn(2, (channels, 16, 16), 0, 256)) for channels in (1, 3))
    assert float((levels(grey) - colour.images[:].float().mean(1).flatten(1)).abs().max()) <= 1.01


def test_no_photographs_at_all_are_refused() -> None:
    with pytest.raises(InputError, match=r"^count: must be 1 or more, got 0$"):
        data.photo_crops(0, drawn(2, (1, 8, 8), 0, 256))


# ---- leakage ------------------------------------------------------------------------------------------------------------


def lit(n: int, *, seed: int, dim: tuple[int, ...] = ()) -> Dataset:
    """Four pixels, one a class, the label's brighter (of the classes in `dim` only by a little), in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    bright = torch.tensor([6 if label in dim else 120 for label in range(4)])
    images = torch.randint(60, 120, (n, 4), generator=generator)
    images[torch.arange(n), labels] += bright[labels]
    return dataset(images.reshape(n, 1, 2, 2), labels)


def test_the_features_of_a_linear_model_are_its_logits_and_of_others_what_enters_the_head() -> None:
    part = drawn(7, (1, 8, 8), 0, 256)
    for name, layer in (("linear", "forward"), ("small", "features")):
        model = models.build(name, shape=(1, 8, 8), classes=4).eval()
        with torch.no_grad():
            wanted = getattr(model, layer)(part.pixels(slice(None)))
        assert torch.allclose(penultimate_or_logits(model, part), wanted, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_robust_features_of_a_linear_model_are_those_of_the_bound(norm: str) -> None:
    """Usefulness − epsilon ‖a‖* / deviation by hand, and found again as the worst of all changes, which is known exactly."""
    generator = torch.Generator().manual_seed(5)
    shape, mean, std = (3, 2, 2), [0.4, 0.5, 0.6], [0.2, 0.3, 0.5]
    weights = torch.randn(4, 12, generator=generator)
    model = linear(weights, shape, mean=mean, std=std)
    labels = torch.arange(80) % 4
    pull = 40 * torch.sign(weights)[labels].reshape(80, *shape)
    part = dataset((128 + pull + torch.randint(-60, 61, (80, *shape), generator=generator)).clamp(0, 255), labels)
    pixels = part.pixels(slice(None)).flatten(1).double()
    steep = (weights.reshape(4, 3, 4) / torch.tensor(std)[None, :, None]).flatten(1).double()
    logits = pixels @ steep.T
    bounds: dict[float, list[float]] = {}
    radii = [0.0, *(0.01 * step for step in range(5, 25))] if norm == "linf" else [0.0, *(0.02 * step for step in range(5, 45))]
    for radius in radii:
        for k in range(4):
            own, rest = logits[labels == k, k], logits[labels != k, k]
            spread = math.sqrt((own.var(correction=0) + rest.var(correction=0)) / 2 + ((own.mean() - rest.mean()) / 2) ** 2)
            dual = float(steep[k].norm()) if norm == "l2" else float(steep[k].abs().sum())
            way = steep[k] / dual if norm == "l2" else steep[k].sign()
            worst = (pixels - radius * torch.where(labels == k, 1.0, -1.0)[:, None] * way) @ steep[k]
            bound = float(own.mean() - rest.mean()) / 2 / spread - radius * dual / spread
            assert float(worst[labels == k].mean() - worst[labels != k].mean()) / 2 / spread == pytest.approx(bound, abs=1e-6)
            bounds.setdefault(radius, []).append(bound)
    for radius, values in bounds.items():
        wanted = [k for k, value in enumerate(values) if value > 0]
        assert metrics.robust_features(model, part, NormBall(norm, radius)) == wanted
    counts = [sum(value > 0 for value in values) for values in bounds.values()]
    assert counts[0] == 4 and counts[-1] == 0 and len({*counts}) > 2  # the radii tell them apart


def test_a_linear_feature_that_speaks_against_its_class_or_never_changes_is_not_robust() -> None:
    weights = torch.diag(torch.tensor([1.0, -1.0, 0.0, 1.0]))
    assert metrics.robust_features(linear(weights, (1, 2, 2)), lit(40, seed=0), NormBall("l2", 0.01)) == [0, 3]


def test_other_balls_are_refused_for_linear_features() -> None:
    with pytest.raises(InputError, match=r"^threat_model: must be in l2 or linf for a linear model's features, got l1$"):
        metrics.robust_features(linear(torch.eye(4), (1, 2, 2)), lit(40, seed=0), NormBall("l1", 1.0))


def test_robust_features_of_a_deep_model_are_those_called_robust(robust: models.Model, digits: data.Splits) -> None:
    part, threat_model = digits.test.select(slice(0, 40)), NormBall("l2", 0.5)
    best = metrics.best_class_rows(metrics.per_feature(robust, part, threat_model))
    wanted = [row["feature"] for row in best if row["kind"] == "robust"]
    assert metrics.robust_features(robust, part, threat_model) == wanted
    assert 0 < len(wanted) < len(best)


def test_leakage_tells_what_the_labels_owe_to_the_features() -> None:
    """True labels: all is read. Next labels: nothing, the features point away. Labels at random: about guessing."""
    model, learnt, tried = linear(torch.eye(4), (1, 2, 2)), lit(400, seed=0), lit(200, seed=1)
    true = metrics.robust_feature_leakage(model, [0, 1, 2, 3], learnt, tried)
    assert true == {
        "features": 4,
        **{name: metrics.accuracy_row(200, 200)[name] for name in ("correct", "n", "accuracy", "low", "high")},
    }
    after = metrics.robust_feature_leakage(model, [0, 1, 2, 3], learnt.with_labels((learnt.labels + 1) % 4), tried)
    assert after["correct"] == 0
    shares = []  # which of the four a class is taken for, is the draw's: only the mean over draws is guessing
    for seed in range(30):
        labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(seed))
        shares.append(metrics.robust_feature_leakage(model, [0, 1, 2, 3], learnt.with_labels(labels), tried)["accuracy"])
    assert np.mean(shares) == pytest.approx(0.25, abs=4 * np.std(shares) / 30**0.5)
    assert 0.1 < np.mean(shares) < 0.4


def test_the_interval_of_leakage_is_over_what_is_learnt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 % by all of the set, and other shares by eight draws from it: both errors together, by hand."""
    module = importlib.import_module("notbugs.metrics.leakage")  # its name is a function's in the package
    model, learnt, tried = linear(torch.eye(4), (1, 2, 2)), lit(41, seed=0), lit(200, seed=1)
    shares = [0.6, 0.55, 0.61, 0.58, 0.66, 0.6, 0.59, 0.63, 0.7]
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def answers(features: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
        asked.append((features, labels))
        right = np.arange(200) < round(200 * shares[len(asked) - 1])
        return np.where(right, tried.labels.numpy(), -1)

    monkeypatch.setattr(module, "_logistic_regression", answers)
    found = metrics.robust_feature_leakage(model, [0, 2], learnt, tried)
    assert len(asked) == 9 and (found["correct"], found["n"], found["accuracy"]) == (120, 200, 0.6)
    low, high = stats.wilson_interval(120, 200)
    reach = scipy_stats.t.ppf(0.975, 7) * np.std(shares[1:], ddof=1)
    assert (found["low"], found["high"]) == pytest.approx(
        (0.6 - math.hypot(0.6 - low, reach), 0.6 + math.hypot(high - 0.6, reach))
    )
    whole = {(*features, label) for features, label in zip(asked[0][0].tolist(), asked[0][1].tolist(), strict=True)}
    assert len(asked[0][0]) == 41 and np.array_equal(asked[0][1], learnt.labels)
    draws = []
    for features, labels in asked[1:]:  # as many rows, each with its own label, some more than once
        drawn_rows = [(*one, label) for one, label in zip(features.tolist(), labels.tolist(), strict=True)]
        assert len(drawn_rows) == 41 and {*drawn_rows} < whole
        draws.append(tuple(drawn_rows))
    assert len({*draws}) == 8

    asked.clear()
    shares[:] = [0.02, *(0.0, 0.4) * 4]
    assert metrics.robust_feature_leakage(model, [0, 2], learnt, tried)["low"] == 0
    asked.clear()
    shares[:] = [0.98, *(1.0, 0.6) * 4]
    assert metrics.robust_feature_leakage(model, [0, 2], learnt, tried)["high"] == 1


def test_leakage_of_labels_at_random_is_within_its_interval() -> None:
    """What guesses are worth on the test set depends on the draw of the labels: an interval over images alone is too short."""
    model, learnt, tried = linear(torch.eye(4), (1, 2, 2)), lit(400, seed=0), lit(200, seed=1)
    within = {"own": 0, "images": 0}
    for seed in range(20):
        labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(seed))
        found = metrics.robust_feature_leakage(model, [0, 1, 2, 3], learnt.with_labels(labels), tried)
        low, high = stats.wilson_interval(found["correct"], 200)
        within["own"] += found["low"] <= 0.25 <= found["high"]
        within["images"] += low <= 0.25 <= high
        assert 0 <= found["low"] <= low + 1e-9 and high - 1e-9 <= found["high"] <= 1
    assert within["own"] >= 18 and within["images"] <= 12


def test_leakage_looks_at_the_features_given_and_at_no_others() -> None:
    """Of two bright pixels two classes can be told; the other two, given alone, are told apart from each other only."""
    model, learnt, tried = linear(torch.eye(4), (1, 2, 2)), lit(400, seed=0), lit(200, seed=1)
    assert metrics.robust_feature_leakage(model, [0], learnt, tried)["accuracy"] == pytest.approx(0.5, abs=0.07)
    assert metrics.robust_feature_leakage(model, [0, 1], learnt, tried)["accuracy"] == pytest.approx(0.75, abs=0.07)
    dim = metrics.robust_feature_leakage(model, [2, 3], lit(400, seed=0, dim=(2, 3)), lit(200, seed=1, dim=(2, 3)))
    assert dim["accuracy"] < 0.5


def test_leakage_of_no_features_and_of_one_label() -> None:
    model, part = linear(torch.eye(4), (1, 2, 2)), lit(40, seed=0)
    assert metrics.robust_feature_leakage(model, [], part, part) == {"features": 0} | dict.fromkeys(
        ("correct", "n", "accuracy", "low", "high"), ""
    )
    single = metrics.robust_feature_leakage(model, [0], part.with_labels(torch.full((40,), 2)), part)
    assert (single["correct"], single["n"]) == (10, 40)


# ---- can the labels be told by the change alone? ------------------------------------------------------------------------


def test_patterns_can_be_told_apart_and_scattered_noise_of_random_labels_cannot() -> None:
    part = drawn(400, (1, 6, 6), 60, 190)
    made = moved(part, 30).with_labels(construct.random_labels(part.labels, 4))
    patterns = metrics.perturbation_separability(part, construct.class_patterns(part, made).dataset)
    noise = metrics.perturbation_separability(part, construct.shuffled_perturbations(part, made).dataset)
    assert patterns["n"] == noise["n"] == 200 and patterns["accuracy"] > 0.98
    assert noise["low"] <= noise["guess"] + 0.05 and noise["accuracy"] < 0.4
    assert (patterns["low"], patterns["high"]) == stats.wilson_interval(patterns["correct"], 200)


def test_separable_sees_the_change_and_not_the_image() -> None:
    """Images that give their labels away, unchanged: nothing but guessing. The same change for a label: all of it."""
    part = lit(200, seed=0)
    nothing = metrics.perturbation_separability(part, part)
    assert nothing["correct"] <= round(nothing["guess"] * 100)
    change = torch.zeros(200, 4, dtype=torch.uint8)
    change[torch.arange(200), (part.labels + 1) % 4] = 1  # one level of 255 is enough
    told = metrics.perturbation_separability(part, part.with_images(part.images[:] + change.reshape(200, 1, 2, 2)))
    assert told["accuracy"] == 1


def test_sets_of_other_images_are_refused() -> None:
    part = drawn(12, (1, 2, 2), 60, 190)
    with pytest.raises(InputError, match=r"^made: must hold the images of `before`, one for one, got 10 for 12$"):
        metrics.perturbation_separability(part, part.select(slice(0, 10)))
    with pytest.raises(InputError, match=r"got 12 for 10$"):
        metrics.perturbation_separability(part.select(slice(0, 10)), part)


def test_guess_is_the_commonest_label_of_those_asked_and_the_seed_picks_them() -> None:
    part = drawn(101, (1, 2, 2), 60, 190)
    labels = torch.where(torch.arange(101) < 70, 0, torch.arange(101) % 4)
    made = moved(part, 20).with_labels(labels)
    found = metrics.perturbation_separability(part, made, seed=3)
    asked = labels[torch.randperm(101, generator=torch.Generator().manual_seed(3))[50:]]
    assert found["n"] == 51 and found["guess"] == pytest.approx(float(asked.bincount().max()) / 51)
    assert metrics.perturbation_separability(part, made, seed=3) == found != metrics.perturbation_separability(part, made, seed=4)


# ---- agreement ----------------------------------------------------------------------------------------------------------


def test_agreement_by_hand() -> None:
    """Ten images; one errs on 5, the other on 4, both on 3 of these, and the same way on 2."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    one = np.array([1, 1, 2, 0, 0, 2, 0, 1, 2, 2])
    other = np.array([1, 2, 0, 0, 0, 2, 1, 0, 2, 2])
    found = metrics.error_consistency(one, other, labels)
    assert found["n"] == 10 and found["agree"] == 0.6
    assert found["both_wrong"] == 3 and found["same"] == pytest.approx(2 / 3)
    assert (found["same_low"], found["same_high"]) == stats.wilson_interval(2, 3)
    # of class 0: one takes it for 1, 1, 2, the other for 1, 2: alike in 1/2 (two images); of class 1: 2, 0 and 2, 0: in 1/2
    assert found["same_by_chance"] == pytest.approx((2 * (2 / 3 * 1 / 2 + 1 / 3 * 1 / 2) + 1 * (1 / 4 + 1 / 4)) / 3)
    p, q, alike = 0.5, 0.6, 0.7
    expected = p * q + (1 - p) * (1 - q)
    assert found["consistency"] == pytest.approx((alike - expected) / (1 - expected))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_agreement_is_symmetric_and_each_part_what_it_says(rows: list[tuple[int, int, int]]) -> None:
    one, other, labels = (np.array(column) for column in zip(*rows, strict=True))
    found, turned = metrics.error_consistency(one, other, labels), metrics.error_consistency(other, one, labels)
    assert found == pytest.approx(turned)
    both = [place for place, (a, b, label) in enumerate(rows) if label not in (a, b)]
    assert found["both_wrong"] == len(both)
    if both:
        assert found["same"] == pytest.approx(sum(one[place] == other[place] for place in both) / len(both))
        chances = []  # every mistake of the one on that class with every mistake of the other
        for place in both:
            pairs = [(a, b) for a, _, x in rows for _, b, y in rows if x == y == labels[place] and a != x and b != y]
            chances.append(sum(a == b for a, b in pairs) / len(pairs))
        assert found["same_by_chance"] == pytest.approx(sum(chances) / len(chances))
    else:
        assert found["same"] == found["same_low"] == found["same_high"] == found["same_by_chance"] == ""
    from sklearn.metrics import cohen_kappa_score

    rights = one == labels, other == labels
    if found["consistency"] != "" and len({*rights[0], *rights[1]}) == 2:
        assert found["consistency"] == pytest.approx(cohen_kappa_score(*rights))
        assert -1 <= found["consistency"] <= 1


def test_agreement_with_oneself_is_whole_and_of_strangers_none() -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 5, 20_000)
    one, other = (np.where(chance.random(20_000) < share, labels, chance.integers(0, 5, 20_000)) for share in (0.8, 0.6))
    own = metrics.error_consistency(one, one, labels)
    assert own["agree"] == own["same"] == own["consistency"] == 1
    apart = metrics.error_consistency(one, other, labels)
    assert abs(apart["consistency"]) < 0.03
    assert apart["same_by_chance"] == pytest.approx(0.25, abs=0.01)
    assert apart["same"] == pytest.approx(0.25, abs=0.05)


def test_agreement_of_those_who_are_always_right_or_always_wrong_has_no_consistency() -> None:
    labels = np.array([0, 1, 2, 0])
    right = metrics.error_consistency(labels, labels, labels)
    assert (right["consistency"], right["same"], right["agree"]) == ("", "", 1)
    assert metrics.error_consistency((labels + 1) % 3, (labels + 2) % 3, labels)["consistency"] == ""
    assert metrics.error_consistency((labels + 1) % 3, (labels + 2) % 3, labels)["same"] == 0
