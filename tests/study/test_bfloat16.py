"""Whether bfloat16 pays on a processor is timed, said, kept, and asked of no other machine."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from notbugs import data, models
from notbugs.data import Dataset
from notbugs.models.notes import keeping_notes, report_notes
from notbugs.runs import scheduler
from notbugs.runs.folder import RunFolder
from notbugs.study import bfloat16, pipeline, resume
from notbugs.study.bfloat16 import pays  # as it is: the fixture of all tests replaces the module's
from notbugs.study.config import StudyConfig, load
from notbugs.study.resolve import resolve
from notbugs.study.stages import Place

SMALL = {"limit": 100, "seeds": 1, "epochs": 1, "width": 2, "relabel_steps": 2, "invert_steps": 2}


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    return digits.train.select(slice(0, 30))


@pytest.fixture
def model(part: Dataset) -> models.Model:
    return models.build("small", shape=part.shape, classes=10, width=4)


class OnlyIn(nn.Module):
    """A layer that fails, or returns no finite values, in another precision than float32."""

    def __init__(self, failure: str) -> None:
        super().__init__()
        self.failure, self.layer = failure, nn.Linear(64, 4)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layer(images.flatten(1))
        if outputs.dtype == torch.float32:
            return outputs
        if self.failure == "raises":
            raise RuntimeError("not implemented for 'BFloat16'\nat line 3")
        return outputs * torch.inf


@pytest.mark.parametrize(("relative", "expected"), [(0.6, True), (0.88, True), (0.9, False), (8.0, False)])
def test_bfloat16_pays_where_the_fastest_batch_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, model: models.Model, part: Dataset, relative: float, expected: bool
) -> None:
    now, slower, batches = [0.0], itertools.cycle([3.0, 3.0, 1.0, 1.0, 2.0, 2.0]), []

    def step(trained: nn.Module, searched: nn.Module, part: Dataset, *, bf16: bool, head_only: bool) -> bool:
        now[0] += next(slower) * (relative if bf16 else 1.0)
        batches.append((len(part), bf16, *(next(each.parameters()).requires_grad for each in (trained, searched))))
        return True

    monkeypatch.setattr(bfloat16, "_step", step)
    monkeypatch.setattr(bfloat16, "CLOCK", lambda: now[0])
    assert pays(model, part, "small") is expected
    assert batches == [(30, bf16, True, False) for _ in range(3) for bf16 in (False, True)]


def test_what_is_timed_leaves_the_model_as_it_is(model: models.Model, part: Dataset) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with keeping_notes() as notes:
        assert isinstance(pays(model, part, "small"), bool)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert notes == {}


@pytest.mark.parametrize(
    ("failure", "note"),
    [
        ("raises", "computed in float32, as it fails in bfloat16: not implemented for 'BFloat16' at line 3"),
        ("infinite", "computed in float32, as its outputs in bfloat16 are not finite"),
    ],
)
def test_a_network_that_bfloat16_breaks_is_computed_in_float32_and_a_note_says_so(failure: str, note: str, part: Dataset) -> None:
    own = models.Classifier(OnlyIn(failure), nn.Linear(4, 10), mean=[0.5], std=[0.5], architecture={})
    with keeping_notes() as notes:
        assert pays(own, part, "own") is False
    assert notes == {"own": [note]}


def test_a_network_that_fails_in_float32_is_left_to_what_needs_it(part: Dataset) -> None:
    broken = models.Classifier(nn.Flatten(), nn.Linear(3, 10), mean=[0.5], std=[0.5], architecture={})
    with keeping_notes() as notes:
        assert pays(broken, part, "own") is False
    assert notes == {}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were timed; bfloat16 pays for all."""
    names: list[str] = []

    def always(_: models.Model, images: Dataset, name: str, *, head_only: bool) -> bool:
        names.append(name)
        return True

    monkeypatch.setattr(bfloat16, "pays", always)
    return names


def test_it_is_timed_on_a_cpu_unless_images_are_tiny_or_somebody_chose(timed: list[str]) -> None:
    config = StudyConfig("mnist5k", limit=100)
    splits = load(config)
    assert resolve(config, splits).bf16 is True and timed == ["resnet9"]
    assert resolve(replace(config, bf16=False), splits).bf16 is False
    assert resolve(replace(config, bf16=True), splits).bf16 is True
    digits = StudyConfig("digits", limit=100)
    assert resolve(digits, load(digits)).bf16 is False
    assert timed == ["resnet9"]


@pytest.mark.slow
def test_a_study_that_goes_on_computes_as_it_began(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timed: list[str]) -> None:
    config = StudyConfig("mnist5k", **SMALL)  # type: ignore[arg-type]
    run = pipeline.run(config, tmp_path / "run", only=["standard"], workers=1)
    assert run.study().settings["bf16"] is True
    monkeypatch.setattr(bfloat16, "pays", lambda *_, **__: False)
    again = pipeline.run(config, tmp_path / "run", only=["standard", "adversarial"], workers=1)
    assert {name: stage["bf16"] for name, stage in again.metadata["stages"].items() if name != "data-check"} == {
        "seed0/standard": True,
        "seed0/adversarial": True,
    }
    monkeypatch.setattr(resume, "describe_machine", lambda _: "another, 3 cores")
    elsewhere = pipeline.run(config, tmp_path / "run", only=["standard", "pictures"], workers=1)
    assert elsewhere.study().settings["bf16"] is False
    assert RunFolder.read(tmp_path / "run").metadata["stages"]["seed0/standard"]["bf16"] is True
    assert scheduler.describe_machine("cpu") != "another, 3 cores"


@pytest.mark.slow
def test_further_analyses_compute_as_the_study_began(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timed: list[str]) -> None:
    config = StudyConfig("mnist5k", **SMALL)  # type: ignore[arg-type]
    pipeline.run(config, tmp_path / "run", only=["standard"], workers=1)
    monkeypatch.setattr(bfloat16, "pays", lambda *_, **__: False)
    again = pipeline.run_analyses(tmp_path / "run", ["saliency"], workers=1)
    assert again.metadata["stages"]["seed0/adversarial"]["bf16"] is True
    monkeypatch.setattr(resume, "describe_machine", lambda _: "another, 3 cores")
    elsewhere = pipeline.run_analyses(tmp_path / "run", ["corruptions"], workers=1)
    assert elsewhere.study().settings["bf16"] is False


def test_notes_on_precision_stand_beside_those_on_the_network() -> None:
    with keeping_notes() as notes:
        report_notes("own", ["it began with pretrained weights"])
        report_notes("own", ["computed in float32, as it fails in bfloat16: no"])
    assert notes == {"own": ["it began with pretrained weights", "computed in float32, as it fails in bfloat16: no"]}


def test_a_stage_elsewhere_computes_as_was_decided_for_a_cpu(timed: list[str]) -> None:
    config = StudyConfig("mnist5k", limit=100)
    resolved = resolve(config, load(config))
    assert Place(resolved, None, lambda: "cpu").config_there().bf16 is True
    assert Place(replace(resolved, bf16=False), None, lambda: "cpu").config_there().bf16 is False
    assert Place(replace(resolved, device="cuda"), None, lambda: "cpu").config_there().bf16 is False
