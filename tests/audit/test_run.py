"""An audit as a run: the same configuration gives the same figures, and a stopped audit is resumed."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from audit.conftest import IMAGES
from PIL import Image
from torch import Tensor

from notbugs import audit, data, models, report
from notbugs.audit import AuditConfig
from notbugs.data import DataConfig, header_index, images
from notbugs.decoding.headers import EncodedImage, ImageFacts, read_header
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import (
    AuditAccuracyRow,
    AuditFileRow,
    CheckRow,
    ClassAccuracyRow,
    ConfusionRow,
    CurveRow,
    PredictionRow,
)


@pytest.mark.slow
def test_with_more_workers_stopped_and_resumed_it_gives_the_same_figures(
    config: AuditConfig, done: RunFolder, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def report_progress(stage: str, share: float, words: str) -> None:
        if stage in parts and share == 1.0 and RunFolder.read(tmp_path / "run").done(stage):  # a stage says 1.0 itself, too
            raise StopError

    parts = {"part 1 of 2", "part 2 of 2"}
    with pytest.raises(StopError):
        audit.run(config, tmp_path / "run", workers=2, report_progress=report_progress)
    half = RunFolder.read(tmp_path / "run")
    (finished,) = [part for part in parts if half.done(part)]
    assert not half.audit().finished and report.write(half.folder).is_file()
    stages = []
    whole = audit.run(config, tmp_path / "run", workers=1, report_progress=lambda stage, share, words: stages.append(stage))
    assert parts - {finished} | {"summary"} <= {*stages} <= parts - {finished} | {"checks", "summary"}
    assert whole.audit().finished
    for row_type in (AuditAccuracyRow, CurveRow, AuditFileRow, ClassAccuracyRow, ConfusionRow, CheckRow):
        assert whole.rows(row_type) == done.rows(row_type), row_type.table
    key = lambda row: (row.threat, row.index)  # noqa: E731  # parts finish in any order
    assert sorted(whole.rows(PredictionRow), key=key) == sorted(done.rows(PredictionRow), key=key)
    with pytest.raises(InputError, match="--budget: must be as before"):
        audit.run(replace(config, budget="quick"), tmp_path / "run")


@pytest.mark.slow
def test_run_json_says_what_was_audited(config: AuditConfig, done: RunFolder) -> None:
    metadata = done.audit()
    assert done.kind == "audit" and metadata.finished and metadata.gradient and metadata.seconds > 0
    assert (metadata.model, metadata.dataset, metadata.budget) == (config.model, "digits", "standard")
    assert metadata.threats == ("l2 0.375", "l2 0.75", "linf 0.1", "l0 1", "spatial 10,0.5")
    assert metadata.data.test == IMAGES and metadata.data.shape == (1, 8, 8) and len(metadata.data.classes) == 10
    assert metadata.arguments["dataset"] == "digits" and metadata.arguments["threats"] == list(config.threats)
    assert "device" not in metadata.arguments and {*metadata.versions} >= {"python", "torch"}


def test_memory_that_runs_out_halves_the_batch_and_warns() -> None:
    sizes: list[int] = []

    def limited(images: Tensor, index: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 30:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
        return index

    with pytest.warns(RuntimeWarning) as warned:
        found = data.map_batches(limited, torch.zeros(110, 1, 2, 2), batch_size=100)
    assert [[word for word in str(one.message).split() if word.isdigit()] for one in warned] == [["50"], ["25"]]
    assert found.tolist() == list(range(110))
    assert sizes == [100, 50, 25, 25, 25, 25, 10]
    with pytest.raises(RuntimeError, match="allocate"):
        data.map_batches(lambda images, index: limited(torch.zeros(99), index), torch.zeros(1, 1, 2, 2))


def test_an_audit_that_goes_on_opens_only_the_files_that_changed(
    standard: models.Model, digits: data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def reading(image: EncodedImage, resize: int | None) -> ImageFacts:
        opened.append(Path(str(image)).name)
        return read_header(image, resize)

    for part, count in (("train", 40), ("test", 20)):
        for row in range(count):
            place = tmp_path / "set" / part / f"{row % 10}" / f"{row}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.test.images[:][row, 0].numpy()).save(place)
    models.save(standard, tmp_path / "model.safetensors", classes=list(digits.test.classes))
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    monkeypatch.setattr(images, "SAMPLE", 1)  # it is read before it is known that a set stays on disk
    monkeypatch.setattr(images, "read_header", reading)
    asked = AuditConfig(
        str(tmp_path / "model.safetensors"), DataConfig(str(tmp_path / "set")), threats=("l2:0.5",), images=10, budget="quick"
    )
    audit.run(asked, tmp_path / "run", workers=1)
    assert {f"{row}.png" for row in range(40)} <= {*opened}
    index = pyarrow.parquet.read_table(tmp_path / "run" / header_index.NAME).to_pylist()
    assert len(index) == 60 and sum(row["digest"] is not None for row in index) == 10
    opened.clear()
    os.utime(tmp_path / "set/train/3/3.png", ns=(0, 0))
    audit.run(asked, tmp_path / "run", workers=1)
    assert "3.png" in opened and len(opened) == 2
