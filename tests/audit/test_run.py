"""An audit as a run: the same configuration gives the same figures, and a stopped audit is resumed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit.conftest import IMAGES
from torch import Tensor

from notbugs import audit, data, report
from notbugs.audit import AuditConfig
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
