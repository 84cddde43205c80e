"""What is traded for speed changes next to nothing, and nothing that is counted."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, construct, data, metrics, models, precision, train
from notbugs.attacks import sanity_checks
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics import transfer
from notbugs.predict import predict
from notbugs.runs import folder
from notbugs.search import NormBall
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

CUDNN: Any = torch.backends.cudnn


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    return digits.train.select(slice(0, 120))


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
    with precision.full_precision():
        assert not CUDNN.allow_tf32
        with precision.full_precision():  # a sweep within an attack
            assert not CUDNN.allow_tf32
        assert not CUDNN.allow_tf32
    assert CUDNN.allow_tf32
    with pytest.raises(ZeroDivisionError), precision.full_precision():
        raise ZeroDivisionError
    assert CUDNN.allow_tf32
    CUDNN.allow_tf32 = False
    try:
        with precision.full_precision():
            assert not CUDNN.allow_tf32
        assert not CUDNN.allow_tf32, "a user who rounds nothing is not overruled"
    finally:
        CUDNN.allow_tf32 = True


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="torch before 2.9 has the older switches alone")
def test_the_newer_switches_serve_too() -> None:
    cpu: Any = torch.backends.mkldnn
    with newer_switches("ieee"):
        with precision.full_precision():
            assert CUDNN.rnn.fp32_precision == cpu.conv.fp32_precision == "ieee"
        assert CUDNN.rnn.fp32_precision == "tf32"
        assert CUDNN.conv.fp32_precision == "ieee"
    assert CUDNN.allow_tf32


def test_matrix_products_on_a_cpu_can_round_too() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with precision.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


class Watched(models.Classifier):
    """A network that notes of each pass whether convolutions on a GPU would round, and whether it had weights to learn."""

    def __init__(self) -> None:
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        super().__init__(body, nn.Linear(144, 10), mean=[0.0], std=[1.0], architecture={})
        self.seen: set[tuple[bool, bool]] = set()

    def __deepcopy__(self, memory: dict[int, Any]) -> "Watched":
        other = Watched()
        other.load_state_dict(self.state_dict())
        other.seen = self.seen
        return other

    def features(self, images: Tensor) -> Tensor:
        learns = self.head.weight.requires_grad and torch.is_grad_enabled()
        self.seen.add((CUDNN.allow_tf32, learns))
        return super().features(images)


def counted(part: Dataset) -> dict[str, Callable[[Watched], object]]:
    """Whatever ends in a published figure, by name."""
    images, labels, threat_model = part.pixels(slice(0, 9)), part.labels[:9], NormBall("l2", 0.5)
    return {
        "accuracy": lambda model: metrics.clean_accuracy(model, part),
        "verdict": lambda model: metrics.robust_accuracy(model, part, [NormBall("l2", 0.05)]),
        "attack": lambda model: attacks.pgd(model, images, labels, threat_model=threat_model, steps=2),
        "smallest radius": lambda model: attacks.minimum_norm(model, images, labels, norm="l2"),
        "checks": lambda model: sanity_checks.run_all(model, images, labels, threat_model=threat_model, budget="quick"),
        "relabelled": lambda model: construct.relabel(model, part, part.labels, threat_model=threat_model, steps=2),
        "inverted": lambda model: construct.invert_features(model, part, steps=2),
        "read": lambda model: predict(model, part),
        "features": lambda model: metrics.per_feature(model, part, threat_model=threat_model, steps=2),
        "layers": lambda model: metrics.per_layer(model, images, threat_model, steps=2),
        "corruptions": lambda model: metrics.corruption_accuracy(model, part.select(slice(0, 5))),
        "frequencies": lambda model: metrics.fourier_sensitivity(model, part.select(slice(0, 5))),
        "explanations": lambda model: metrics.saliency(model, part.select(slice(0, 20)), metrics.class_means(part)),
        "examples": lambda model: transfer.make_examples(model, part.select(slice(0, 20)), threat_model, steps=2),
    }


@pytest.mark.parametrize("name", counted(Dataset(torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), ("",), ("",))))
def test_no_pass_that_counts_rounds(name: str, part: Dataset) -> None:
    model = Watched()
    counted(part)[name](model)
    assert model.seen
    assert {rounds for rounds, _ in model.seen} == {False}


def test_weights_may_be_moved_by_passes_that_round(part: Dataset) -> None:
    model = Watched()
    train.fit(model, part, train.adversarial_loss(partial(attacks.pgd, threat_model=NormBall("l2", 0.5), steps=2)), epochs=1)
    assert model.seen == {(True, True), (False, False)}, "those of its attack do not"


# ---- bfloat16 -----------------------------------------------------------------------------------------------------------


def test_sets_made_in_bfloat16_are_as_good_and_what_is_told_of_them_is_not_rounded(standard: models.Model, part: Dataset) -> None:
    full, bf16 = (construct.invert_features(standard, part, steps=15, bf16=how) for how in (False, True))
    assert not torch.equal(full.dataset.images[:], bf16.dataset.images[:]), "or nothing was in bfloat16"
    assert bf16.stats.feature_error < 1.1 * full.stats.feature_error + 0.005
    with torch.no_grad():
        wanted, seen = (standard.features(each.pixels(slice(None))) for each in (part, bf16.dataset))
    assert bf16.stats.feature_error == pytest.approx(float(((seen - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()), rel=1e-3)
    labels = construct.next_labels(part.labels, 10)
    one, two = (construct.relabel(standard, part, labels, threat_model=NormBall("l2", 1.0), bf16=how) for how in (False, True))
    assert abs(one.stats.target_reached - two.stats.target_reached) < 0.05
    assert two.stats.target_reached == float((predict(standard, two.dataset) == labels).float().mean())
    assert two.stats.max_l2 <= 1.0


def test_a_network_trained_in_bfloat16_is_as_good_and_is_kept_in_float32(digits: data.Splits) -> None:
    read, trained = [], []
    for bf16 in (False, True):
        model = models.build("small", shape=digits.train.shape, classes=10, width=8)
        train.fit(model, digits.train, epochs=5, batch_size=64, bf16=bf16)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        read.append(metrics.clean_accuracy(model, digits.test).accuracy)
        trained.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert read[0] > 0.9
    assert abs(read[1] - read[0]) < 0.03
    assert not torch.equal(*trained), "or nothing was in bfloat16"


def test_by_default_a_cpu_rounds_nothing(standard: models.Model, part: Dataset) -> None:
    images = part.pixels(slice(0, 5))
    with torch.no_grad():
        assert precision.fast_forward(standard, "cpu")(images).dtype == torch.float32
        assert precision.fast_forward(standard, "cpu", bf16=True)(images).dtype == torch.bfloat16


# ---- compiled -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_trains_and_makes_the_same(part: Dataset) -> None:
    """And a second network of its kind is not compiled again."""
    trained, made, graphs = [], [], []
    for compile in (False, True, True):
        model = models.build("small", shape=part.shape, classes=10, width=4)
        train.fit(model, part, epochs=2, batch_size=40, compile=compile)
        trained.append(model)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # type: ignore[attr-defined]
        made.append(construct.invert_features(model, part, steps=5, batch_size=60, compile=compile))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # type: ignore[attr-defined]
    assert graphs[0] == graphs[1] < graphs[2] < graphs[3] == graphs[4] == graphs[5]
    with torch.no_grad():
        plain, compiled, again = (model(part.pixels(slice(None))) for model in trained)
    torch.testing.assert_close(compiled, plain, rtol=0.01, atol=0.01)
    torch.testing.assert_close(again, compiled)
    assert made[1].stats.feature_error == pytest.approx(made[0].stats.feature_error, rel=0.02)


def test_without_a_compiler_a_study_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler")

    precision.check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"--compile.*compiler"):
        pipeline.run(StudyConfig("digits", compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    precision.check_compiler.cache_clear()


def test_how_a_study_was_done_is_kept_and_is_no_question_of_another(tmp_path: Path) -> None:
    """Going on in float32 is allowed; who asks a study further asks it as it was done."""
    asked = StudyConfig("digits", seeds=1, limit=100, epochs=1, width=4, relabel_steps=2, invert_steps=2, bf16=True)
    record = pipeline.run(asked, tmp_path, only=["standard"], workers=1)
    assert record.metadata["recipe"]["half"] is True
    assert record.metadata["stages"]["seed0/standard"]["half"] is True
    pipeline.run_analyses(tmp_path, ["explanations"], workers=1)
    done = folder.RunFolder.read(tmp_path).metadata["stages"]
    assert {stage["half"] for stage in done.values()} == {True}
    assert "seed0/adversarial" in done
