"""What is traded for speed changes next to nothing, and nothing that is counted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, construct, data, goals, models, scores, speed, train
from notbugs.ball import Ball
from notbugs.data import Dataset

CUDNN: Any = torch.backends.cudnn


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    return digits.train.take(slice(0, 120))


# ---- counted in full ----------------------------------------------------------------------------------------------------


@contextmanager
def newer_switches(value: str) -> Iterator[None]:
    """Convolutions by the switches of torch 2.9, after which the older ones no longer answer."""
    before = CUDNN.conv.fp32_precision
    CUDNN.conv.fp32_precision = value
    try:
        yield
    finally:
        CUDNN.conv.fp32_precision = before


def test_nothing_is_rounded_where_something_is_counted() -> None:
    """The switches of a GPU exist without one."""
    assert CUDNN.allow_tf32, "torch's own default: convolutions round"
    with speed.exact():
        assert not CUDNN.allow_tf32
        with speed.exact():  # a sweep within an attack
            assert not CUDNN.allow_tf32
            with speed.rough():
                assert CUDNN.allow_tf32
            assert not CUDNN.allow_tf32
    assert CUDNN.allow_tf32
    with pytest.raises(ZeroDivisionError), speed.exact(), speed.rough():
        raise ZeroDivisionError
    assert CUDNN.allow_tf32


def test_a_user_who_rounds_nothing_is_not_overruled() -> None:
    CUDNN.allow_tf32 = False
    try:
        assert not speed.rounds("cuda")
        with speed.exact(), speed.rough():
            assert not CUDNN.allow_tf32
        assert not CUDNN.allow_tf32
    finally:
        CUDNN.allow_tf32 = True
    assert speed.rounds("cuda")
    assert not speed.rounds("cpu")


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="torch before 2.9 has the older switches alone")
def test_the_newer_switches_serve_too() -> None:
    with newer_switches("ieee"):
        with speed.exact():
            assert CUDNN.rnn.fp32_precision == "ieee"
            with speed.rough():
                assert CUDNN.rnn.fp32_precision == "tf32"
                assert CUDNN.conv.fp32_precision == "ieee"
        assert CUDNN.rnn.fp32_precision == "tf32"
        assert CUDNN.conv.fp32_precision == "ieee"
        assert speed.rounds("cuda")  # recurrent layers do
    assert CUDNN.allow_tf32


def test_matrix_products_on_a_cpu_can_round_too() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        assert speed.rounds("cpu")
        with speed.exact():
            assert torch.get_float32_matmul_precision() == "highest"
            with speed.rough():
                assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


class Watched(nn.Module):
    """A network that notes of each pass whether pixels are moved by it, and whether convolutions on a GPU would round."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.seen = nn.Linear(64, 10), set[tuple[bool, bool]]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add((images.requires_grad, CUDNN.allow_tf32))
        logits: Tensor = self.head(images.flatten(1))
        return logits

    def __deepcopy__(self, memory: object) -> "Watched":
        return self


def test_passes_that_move_pixels_round_and_passes_that_count_do_not(part: Dataset) -> None:
    model = Watched()
    scores.clean(model, part)  # type: ignore[arg-type]
    assert model.seen == {(False, False)}
    scores.under_attack(model, part, [Ball("l2", 0.05)])
    attacks.pgd(model, part.pixels(slice(0, 9)), part.labels[:9], ball=Ball("l2", 0.5), steps=2)
    construct.relabelled(model, part, part.labels, ball=Ball("l2", 0.5), steps=2)  # type: ignore[arg-type]
    assert (True, True) in model.seen
    assert (False, True) not in model.seen
    model = Watched()
    train.fit(model, part, train.against(partial(attacks.pgd, ball=Ball("l2", 0.5), steps=2)), epochs=1)
    assert (False, True) in model.seen, "weights are moved by passes that round"


class Flatters(nn.Module):
    """A network whose gradient passes say that every image is fooled: an extreme of passes that round."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits = 0.01 * self.head(images.flatten(1)) + torch.tensor([10.0, 0.0, 0.0])
        return logits + torch.tensor([0.0, 30.0, 0.0]) if images.requires_grad else logits


def test_a_verdict_believes_no_gradient_pass_that_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, model, ball = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64), Flatters(), Ball("l2", 0.5)
    assert bool((attacks.standard(model, images, labels, ball=ball, budget="quick").values >= 0).all()), "or nothing is tested"
    monkeypatch.setattr(speed, "rounds", lambda device: True)
    found = attacks.standard(model, images, labels, ball=ball, budget="quick")
    assert bool((found.values < 0).all())
    with torch.no_grad():
        torch.testing.assert_close(found.values, -goals.lead(model(found.images), labels))


def test_a_real_verdict_is_the_same_when_confirmed(
    standard: models.Model, digits: data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = digits.test.take(slice(0, 60))
    once = scores.under_attack(standard, some, [Ball("l2", 0.5)])
    monkeypatch.setattr(speed, "rounds", lambda device: True)
    assert scores.under_attack(standard, some, [Ball("l2", 0.5)]) == once
    assert 0 < once[1]["correct"] < once[0]["correct"]


# ---- bfloat16 -----------------------------------------------------------------------------------------------------------


def test_sets_made_in_bfloat16_are_as_good_and_what_is_told_of_them_is_not_rounded(standard: models.Model, part: Dataset) -> None:
    full, half = (construct.inverted(standard, part, steps=15, half=how) for how in (False, True))
    assert not torch.equal(full.data.images[:], half.data.images[:]), "or nothing was in bfloat16"
    assert half.facts["feature_error"] < 1.1 * full.facts["feature_error"] + 0.005
    with torch.no_grad():
        wanted, seen = (standard.features(each.pixels(slice(None))) for each in (part, half.data))
    assert half.facts["feature_error"] == pytest.approx(
        float(((seen - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()), rel=1e-3
    )
    labels = construct.next_labels(part.labels, 10)
    one, two = (construct.relabelled(standard, part, labels, ball=Ball("l2", 1.0), half=how) for how in (False, True))
    assert abs(one.facts["reached"] - two.facts["reached"]) < 0.05
    assert two.facts["reached"] == float((construct.reads(standard, two.data) == labels).float().mean())
    assert two.facts["max_l2"] <= 1.0


def test_a_network_trained_in_bfloat16_is_as_good_and_is_kept_in_float32(digits: data.Splits) -> None:
    read, trained = [], []
    for half in (False, True):
        model = models.build("small", shape=digits.train.shape, classes=10, width=8)
        train.fit(model, digits.train, epochs=5, batch_size=64, half=half)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        read.append(scores.clean(model, digits.test)["accuracy"])
        trained.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert read[0] > 0.9
    assert abs(read[1] - read[0]) < 0.03
    assert not torch.equal(*trained), "or nothing was in bfloat16"


def test_by_default_a_cpu_rounds_nothing(standard: models.Model, part: Dataset) -> None:
    images = part.pixels(slice(0, 5))
    with torch.no_grad():
        assert speed.quick(standard, "cpu")(images).dtype == torch.float32
        assert speed.quick(standard, "cpu", half=True)(images).dtype == torch.bfloat16


# ---- compiled -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_trains_and_makes_the_same(part: Dataset) -> None:
    """And a second network of its kind is not compiled again."""
    trained, made, graphs = [], [], []
    for compile in (False, True, True):
        model = models.build("small", shape=part.shape, classes=10, width=4)
        train.fit(model, part, epochs=2, batch_size=40, compile=compile)
        trained.append(model)
        made.append(construct.inverted(model, part, steps=5, batch_size=60, compile=compile))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # type: ignore[attr-defined]
    assert 0 < graphs[1] == graphs[2]
    with torch.no_grad():
        plain, compiled, again = (model(part.pixels(slice(None))) for model in trained)
    torch.testing.assert_close(compiled, plain, rtol=0.01, atol=0.01)
    torch.testing.assert_close(again, compiled)
    assert made[1].facts["feature_error"] == pytest.approx(made[0].facts["feature_error"], rel=0.02)
