"""Usefulness and robust usefulness: linear features have a closed form, and a planted world says what its features read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset, subset
from notbugs.errors import InputError
from notbugs.search import NormBall

DUAL = {"l2": 2.0, "linf": 1.0}
CLASSES = ("one", "two", "three")


@pytest.fixture(scope="module")
def grey() -> tuple[nn.Module, Dataset]:
    """Five linear features of images around grey, so that no change meets the pixel range."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        linear[1].weight.copy_(torch.randn(5, 48, generator=generator))
    images = (0.5 + 0.05 * torch.randn(150, 3, 4, 4, generator=generator)).clamp(0.3, 0.7)
    seen = linear(images)[:, :3].detach()
    labels = (seen - seen.mean(0)).argmax(1)
    names = tuple(f"{number}.png" for number in range(150))
    return linear, Dataset(data.to_8bit(images), labels, CLASSES, names)


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.05), NormBall("linf", 0.01)], ids=str)
def test_linear_features_have_the_closed_form(threat_model: NormBall, steps: int, grey: tuple[nn.Module, Dataset]) -> None:
    """Robust usefulness is usefulness less epsilon times the dual norm over the deviation (Goh 2019), feature by feature."""
    linear, part = grey
    weights = linear[1].weight.detach().double()
    values = linear(part.pixels(slice(None))).detach()
    table = metrics.usefulness(values, part.labels, 3)
    for row in metrics.per_feature(linear, part, threat_model, view=linear, steps=steps, sample=40):
        deviation = table.scale[row["feature"], CLASSES.index(row["class"])]
        taken = float(threat_model.epsilon) * weights[row["feature"]].norm(p=DUAL[threat_model.norm]).item() / deviation
        assert row["robust_usefulness"] == pytest.approx(row["usefulness"] - taken, abs=1e-4)
        assert row["usefulness_low"] <= row["usefulness"] <= row["usefulness_high"]
        assert row["robust_usefulness_low"] <= row["robust_usefulness"] <= row["robust_usefulness_high"]
        useful = row["usefulness"] >= 0.1 and row["usefulness_low"] > 0
        assert row["kind"] == ("useless" if not useful else "robust" if row["robust_usefulness"] > 0 else "non-robust")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_usefulness_is_the_mean_of_y_times_the_standardised_feature(seed: int, scale: float, shift: float) -> None:
    """By its definition, both sides equally likely; whatever the feature's unit and origin; and within [-1, 1]."""
    chance = np.random.default_rng(seed)
    labels = chance.permutation(np.arange(60) % 3)
    values = chance.normal(size=(60, 4)) + labels[:, None] * chance.normal(size=4)
    table = metrics.usefulness(torch.from_numpy(scale * values + shift), torch.from_numpy(labels), 3)
    for each in range(3):
        own = labels == each
        weight = np.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
        mean = weight @ values
        standard = (values - mean) / np.sqrt(weight @ (values - mean) ** 2)
        assert table.value[:, each] == pytest.approx((weight * np.where(own, 1, -1)) @ standard, abs=1e-6)
    assert np.abs(table.value).max() <= 1
    assert (table.low <= table.value).all() and (table.value <= table.high).all()


def test_what_says_nothing_is_useless() -> None:
    """A constant, a class with one image, noise: usefulness 0 and an interval that says that nothing is known."""
    labels = torch.tensor([0] * 20 + [1] * 20 + [2])
    values = torch.stack([torch.full((41,), 3.0), torch.randn(41, generator=torch.Generator().manual_seed(0))], dim=1)
    table = metrics.usefulness(values, labels, 3)
    assert table.value[0].tolist() == [0, 0, 0]
    assert (table.low[0], table.high[0]) == (pytest.approx([-1] * 3), pytest.approx([1] * 3))
    assert table.value[1, 2] == 0 and table.low[1, 0] < 0 < table.high[1, 0]


def test_more_steps_find_no_less(standard: models.Model, digits: data.Splits) -> None:
    """Each feature falls and rises at least as far, and no lower than what a unit behind a ReLU can reach."""
    images, threat_model, some = digits.test.pixels(slice(0, 30)), NormBall("l2", 0.75), [0, 5, 9]
    with models.frozen(standard):
        view = standard.features
        calm = view(images)[:, some]
        one, more = (metrics.extremes(view, images, threat_model, some, steps=steps) for steps in (0, 8))
    for before, after in zip(one, more, strict=True):
        assert (after >= before - 1e-5).all() and after.sum() > 1.02 * before.sum() > 0
    assert (more.falls <= calm + 1e-5).all()  # features are 0 or more
    off = calm == 0
    assert off.any() and (more.rises[off] > 0).float().mean() > 0.5  # a unit that is off has no slope, and still can rise


def test_the_radius_turns_robust_features_into_non_robust_ones(robust: models.Model, digits: data.Splits) -> None:
    """Nothing is taken at radius 0; then less is left at every larger one; rows are the same twice and in any batch."""
    part = digits.test.select(slice(0, 150))
    kinds, left = [], []
    for radius in (0.0, 0.25, 1.5):
        rows = metrics.per_feature(robust, part, NormBall("l2", radius), steps=3, sample=50)
        assert [(row["feature"], row["class"]) for row in rows[:11]] == [*((0, name) for name in digits.test.classes), (1, "0")]
        best = metrics.best_class_rows(rows)
        assert len(rows) == 10 * len(best)
        kinds.append({row["feature"]: row["kind"] for row in best})
        left.append(np.array([row["robust_usefulness"] for row in best]))
    assert all(row["robust_usefulness"] == pytest.approx(row["usefulness"]) for row in metrics.per_feature(
        robust, part, NormBall("l2", 0.0), steps=3, sample=50
    ) if math.isfinite(row["robust_usefulness"]))  # fmt: skip
    assert (left[0] >= left[1]).all() and (left[1] >= left[2]).all()
    assert "non-robust" not in kinds[0].values()
    assert sum(kind == "robust" for kind in kinds[1].values()) > sum(kind == "robust" for kind in kinds[2].values())
    again = metrics.per_feature(robust, part, NormBall("l2", 1.5), steps=3, sample=50, batch_size=7)
    assert [row["kind"] for row in metrics.best_class_rows(again)] == list(kinds[2].values())


def test_an_adversarially_trained_model_has_the_robust_features(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    threat_model = NormBall("l2", 0.4)
    means = [
        np.mean(
            [
                row["robust_usefulness"]
                for row in metrics.best_class_rows(metrics.per_feature(model, digits.test, threat_model, steps=4))
            ]
        )
        for model in (standard, robust)
    ]
    assert means[1] > means[0] + 0.1


def test_a_layers_ratio_of_a_linear_layer_is_exact() -> None:
    """The largest move is epsilon times the largest singular value; the distance between images is counted."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(6, 16, generator=generator))
    images = 0.5 + 0.02 * torch.randn(12, 1, 4, 4, generator=generator)
    flat, linear = metrics.per_layer(network, images, NormBall("l2", 0.1), steps=60)
    out = network(images).detach()
    apart = (out - out.roll(1, 0)).norm(dim=1).mean().item()
    largest = torch.linalg.matrix_norm(network[1].weight.detach(), 2).item()
    assert linear["ratio"] == pytest.approx(0.1 * largest / apart, rel=0.02)
    assert (flat["layer"], flat["features"], flat["moved"]) == ("0", 16, pytest.approx(0.1, rel=1e-3))


def test_layers_of_a_network_by_name(robust: models.Model, digits: data.Splits) -> None:
    images = digits.test.pixels(slice(0, 20))
    rows = metrics.per_layer(robust, images, NormBall("l2", 0.5), steps=3)
    assert [row["layer"] for row in rows] == [f"body.{name}" for name, _ in robust.body.named_children()]  # type: ignore[union-attr, operator]
    assert all(0 < row["ratio"] < 5 for row in rows)
    with models.frozen(robust):
        maps = metrics.layer_forward(robust, "body.0")(images)
        assert maps.shape == (20, 16)
        found = metrics.per_feature(robust, digits.test.select(slice(0, 60)), NormBall("l2", 0.5),
                                   view=metrics.layer_forward(robust, "body.0"), steps=2, sample=20)  # fmt: skip
    assert len(found) == 160


@pytest.mark.parametrize("layer", ["nowhere", "unused"])
def test_a_layer_that_is_not_there_is_named(layer: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    network.add_module("unused", nn.Identity())
    network.forward = network[1].forward  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"layer: must .*'{layer}'"):
        metrics.layer_forward(network, layer)(torch.zeros(2, 16))


def test_what_cannot_be_measured_is_said(grey: tuple[nn.Module, Dataset]) -> None:
    linear, part = grey
    with pytest.raises(InputError, match=r"model: must have features\(images\)"):
        metrics.per_feature(linear, part, NormBall("l2", 0.1))
    with pytest.raises(InputError, match="must hold images"):
        metrics.per_feature(linear, part.select([]), NormBall("l2", 0.1), view=linear)
    with pytest.raises(InputError, match="two or more"):
        metrics.per_layer(linear, part.pixels([0]), NormBall("l2", 0.1))


@pytest.mark.parametrize(("counts", "wanted"), [([50, 50], [10, 10]), ([3, 50, 50], [3, 8, 9]), ([1, 1, 1], [1, 1, 1])])
def test_the_sample_is_even_over_the_classes(counts: list[int], wanted: list[int]) -> None:
    labels = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
    chosen: Tensor = subset.balanced(labels, 20)
    assert sorted(labels[chosen].bincount().tolist()) == sorted(wanted)
    assert chosen.unique().tolist() == chosen.tolist()  # type: ignore[no-untyped-call]


def test_a_model_is_left_as_it_was(digits: data.Splits) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=8).train()
    metrics.per_feature(model, digits.test.select(slice(0, 40)), NormBall("l2", 0.3), steps=1, sample=10)
    metrics.per_layer(model, digits.test.pixels(slice(0, 5)), NormBall("l2", 0.3), steps=1)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
