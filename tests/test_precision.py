"""Precision: bfloat16, TF32 and torch.compile change results little, and published figures not at all."""

import copy
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import fake_gpu
from torch import Tensor, nn

from notbugs import attacks, construct, data, metrics, models, precision, train
from notbugs.attacks import sanity_checks
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.predict import predict
from notbugs.runs import folder
from notbugs.search import NormBall
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

CUDNN: Any = torch.backends.cudnn


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    return digits.train.select(slice(0, 120))


# ---- full precision -----------------------------------------------------------------------------------------------------


@contextmanager
def newer_settings(value: str) -> Iterator[None]:
    """Sets convolutions with the settings of torch 2.9; reading the older ones then raises."""
    before = CUDNN.conv.fp32_precision
    CUDNN.conv.fp32_precision = value
    try:
        yield
    finally:
        CUDNN.conv.fp32_precision = before


def test_full_precision_turns_tf32_off_and_restores_it() -> None:
    """The settings of a GPU exist without one."""
    assert CUDNN.allow_tf32, "torch's default: TF32 in convolutions"
    with precision.full_precision():
        assert not CUDNN.allow_tf32
        with precision.full_precision():  # nested, as map_batches within an attack
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
        assert not CUDNN.allow_tf32, "the user's setting is restored"
    finally:
        CUDNN.allow_tf32 = True


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="torch before 2.9 has only the older settings")
def test_full_precision_with_the_newer_settings() -> None:
    cpu: Any = torch.backends.mkldnn
    with newer_settings("ieee"):
        with precision.full_precision():
            assert CUDNN.rnn.fp32_precision == cpu.conv.fp32_precision == "ieee"
        assert CUDNN.rnn.fp32_precision == "tf32"
        assert CUDNN.conv.fp32_precision == "ieee"
    assert CUDNN.allow_tf32


def test_full_precision_of_matrix_products_on_a_cpu() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with precision.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


class RecordsPrecision(models.Classifier):
    """Records of each forward pass whether TF32 was on, and whether weights had gradients."""

    def __init__(self) -> None:
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        super().__init__(body, nn.Linear(144, 10), mean=[0.0], std=[1.0], architecture={})
        self.passes: set[tuple[bool, bool]] = set()

    def __deepcopy__(self, memory: dict[int, Any]) -> "RecordsPrecision":
        other = RecordsPrecision()
        other.load_state_dict(self.state_dict())
        other.passes = self.passes
        return other

    def features(self, images: Tensor) -> Tensor:
        trains = self.head.weight.requires_grad and torch.is_grad_enabled()
        self.passes.add((CUDNN.allow_tf32, trains))
        return super().features(images)


def figures(part: Dataset) -> dict[str, Callable[[RecordsPrecision], object]]:
    """Everything that gives a published figure, by name."""
    images, labels, threat_model = part.pixels(slice(0, 9)), part.labels[:9], NormBall("l2", 0.5)
    return {
        "clean accuracy": lambda model: metrics.clean_accuracy(model, part),
        "robust accuracy": lambda model: metrics.robust_accuracy(model, part, [NormBall("l2", 0.05)]),
        "attack": lambda model: attacks.pgd(model, images, labels, threat_model=threat_model, steps=2),
        "minimum norm": lambda model: attacks.minimum_norm(model, images, labels, norm="l2"),
        "sanity checks": lambda model: sanity_checks.run_all(model, images, labels, threat_model=threat_model, budget="quick"),
        "relabel": lambda model: construct.relabel(model, part, part.labels, threat_model=threat_model, steps=2),
        "invert features": lambda model: construct.invert_features(model, part, steps=2),
        "predict": lambda model: predict(model, part),
        "features": lambda model: metrics.per_feature(model, part, threat_model=threat_model, steps=2),
        "layers": lambda model: metrics.per_layer(model, images, threat_model, steps=2),
        "corruptions": lambda model: metrics.corruption_accuracy(model, part.select(slice(0, 5))),
        "fourier": lambda model: metrics.fourier_sensitivity(model, part.select(slice(0, 5))),
        "saliency": lambda model: metrics.saliency(model, part.select(slice(0, 20)), metrics.class_means(part)),
        "adversarial examples": lambda model: metrics.make_examples(model, part.select(slice(0, 20)), threat_model, steps=2),
    }


@pytest.mark.parametrize("name", figures(Dataset(torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), ("",), ("",))))
def test_figures_are_in_full_precision(name: str, part: Dataset) -> None:
    model = RecordsPrecision()
    figures(part)[name](model)
    assert model.passes
    assert {tf32 for tf32, _ in model.passes} == {False}


def test_tf32_on_a_gpu_inside_full_precision_and_nowhere_else() -> None:
    with precision.full_precision():
        with precision.tf32("cpu"):
            assert not CUDNN.allow_tf32
        with precision.tf32("cuda"):
            assert CUDNN.allow_tf32 and torch.get_float32_matmul_precision() == "high"
            with precision.full_precision():  # of an attack within
                assert CUDNN.allow_tf32
        assert not CUDNN.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
    assert CUDNN.allow_tf32 and torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
def test_what_only_rounding_misclassifies_is_robust(robust: models.Model, part: Dataset) -> None:
    """A model that is wrong whenever TF32 is allowed: on a GPU attacks search with it, and must not believe it."""
    model = copy.deepcopy(robust)

    def lying(images: Tensor) -> Tensor:
        logits: Tensor = model(images)
        seen.add(bool(CUDNN.allow_tf32))
        return -logits if CUDNN.allow_tf32 else logits

    for device, expected in (("cpu", {False}), ("cuda", {True, False})):
        seen: set[bool] = set()
        with fake_gpu() if device == "cuda" else nullcontext():
            model.to(device)
            images, labels = part.pixels(slice(0, 20)).to(device), part.labels[:20].to(device)
            correct = model(images).argmax(1) == labels
            found = attacks.adaptive_ensemble(lying, images, labels, threat_model=NormBall("l2", 1e-4), budget="quick")
            assert correct.sum() > 15 and torch.equal(found.margins < 0, correct)
        assert seen == expected


def test_training_may_use_tf32(part: Dataset) -> None:
    model = RecordsPrecision()
    train.fit(model, part, train.adversarial_loss(partial(attacks.pgd, threat_model=NormBall("l2", 0.5), steps=2)), epochs=1)
    assert model.passes == {(True, True), (False, False)}, "its attack does not"


# ---- bfloat16 -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_constructing_in_bfloat16_is_as_good_and_figures_are_float32(standard: models.Model, part: Dataset) -> None:
    in_float32, in_bfloat16 = (construct.invert_features(standard, part, steps=15, bf16=bf16) for bf16 in (False, True))
    assert not torch.equal(in_float32.dataset.images[:], in_bfloat16.dataset.images[:]), "nothing was in bfloat16"
    assert in_bfloat16.stats.feature_error < 1.1 * in_float32.stats.feature_error + 0.005
    with torch.no_grad():
        wanted, inverted = (standard.features(each.pixels(slice(None))) for each in (part, in_bfloat16.dataset))
    error = float(((inverted - wanted).norm(dim=1) / wanted.norm(dim=1)).mean())
    assert in_bfloat16.stats.feature_error == pytest.approx(error, rel=1e-3)
    labels = construct.next_labels(part.labels, 10)
    threat_model = NormBall("l2", 1.0)
    in_float32, in_bfloat16 = (
        construct.relabel(standard, part, labels, threat_model=threat_model, bf16=bf16) for bf16 in (False, True)
    )
    assert abs(in_float32.stats.target_reached - in_bfloat16.stats.target_reached) < 0.05
    assert in_bfloat16.stats.target_reached == float((predict(standard, in_bfloat16.dataset) == labels).float().mean())
    assert in_bfloat16.stats.max_l2 <= 1.0


@pytest.mark.slow
def test_training_in_bfloat16_is_as_good_and_weights_stay_float32(digits: data.Splits) -> None:
    accuracies, trained = [], []
    for bf16 in (False, True):
        model = models.build("small", shape=digits.train.shape, classes=10, width=8)
        train.fit(model, digits.train, epochs=5, batch_size=64, bf16=bf16)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        accuracies.append(metrics.clean_accuracy(model, digits.test).accuracy)
        trained.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert accuracies[0] > 0.9
    assert abs(accuracies[1] - accuracies[0]) < 0.03
    assert not torch.equal(*trained), "nothing was in bfloat16"


def test_a_cpu_uses_float32_by_default(standard: models.Model, part: Dataset) -> None:
    images = part.pixels(slice(0, 5))
    with torch.no_grad():
        assert precision.fast_forward(standard, "cpu")(images).dtype == torch.float32
        assert precision.fast_forward(standard, "cpu", bf16=True)(images).dtype == torch.bfloat16


# ---- compiled -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
def test_compiled_network_trains_and_inverts_the_same(part: Dataset) -> None:
    """A second network of the same architecture is not compiled again."""
    trained, constructed, graphs = [], [], []
    for compile in (False, True, True):
        model = models.build("small", shape=part.shape, classes=10, width=4)
        train.fit(model, part, epochs=2, batch_size=40, compile=compile)
        trained.append(model)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # type: ignore[attr-defined]
        constructed.append(construct.invert_features(model, part, steps=5, batch_size=60, compile=compile))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # type: ignore[attr-defined]
    assert graphs[0] == graphs[1] < graphs[2] < graphs[3] == graphs[4] == graphs[5]
    with torch.no_grad():
        plain, compiled, again = (model(part.pixels(slice(None))) for model in trained)
    torch.testing.assert_close(compiled, plain, rtol=0.01, atol=0.01)
    torch.testing.assert_close(again, compiled)
    assert constructed[1].stats.feature_error == pytest.approx(constructed[0].stats.feature_error, rel=0.02)


def test_study_without_a_compiler_raises_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler")

    precision.check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"--compile.*compiler"):
        pipeline.run(StudyConfig("digits", compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    precision.check_compiler.cache_clear()


@pytest.mark.slow
def test_study_records_bfloat16_and_further_analyses_use_it(tmp_path: Path) -> None:
    config = StudyConfig("digits", seeds=1, limit=100, epochs=1, width=4, relabel_steps=2, invert_steps=2, bf16=True)
    record = pipeline.run(config, tmp_path, only=["standard"], workers=1)
    assert record.metadata["settings"]["bf16"] is True
    assert record.metadata["stages"]["seed0/standard"]["bf16"] is True
    pipeline.run_analyses(tmp_path, ["saliency"], workers=1)
    stages = folder.RunFolder.read(tmp_path).metadata["stages"]
    assert {stage["bf16"] for name, stage in stages.items() if name != "data-check"} == {True}
    assert "seed0/adversarial" in stages


def test_a_warning_of_torch_that_nobody_can_heed_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said, usual = [], torch.get_float32_matmul_precision

    def once() -> str:
        if not said:
            said.append(True)
            warnings.warn("Please use the new API settings to control TF32 behavior", UserWarning, stacklevel=1)
        return usual()

    monkeypatch.setattr(torch, "get_float32_matmul_precision", once)
    precision._let_torch_warn.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with precision.full_precision():
            assert said
