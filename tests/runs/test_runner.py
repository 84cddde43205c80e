"""The runner does the stages that are not done, and records each as it finishes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import scheduler_jobs as jobs

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.runner import Stage, check_same, check_same_data, run_stages
from notbugs.runs.tables.files import CategoryRow


def stages(*names: str) -> dict[str, Stage]:
    return {name: Stage((), partial(jobs.rows, number)) for number, name in enumerate(names)}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stages_are_recorded_with_rows_seconds_and_metadata(tmp_path: Path, workers: int) -> None:
    events: list[tuple[str, float, str]] = []
    with RunFolder.open(tmp_path, {}) as run:
        run_stages(
            run,
            {
                name: replace(stage, describe=partial(dict, device="cpu"))
                for name, stage in {**stages("a", "b"), "c": Stage(("a", "b"), partial(jobs.rows, 2))}.items()
            },
            device="cpu",
            workers=workers,
            report_progress=lambda *event: events.append(event),
        )
        assert sorted(row.files for row in run.rows(CategoryRow)) == [0, 1, 2] and run.rows(CategoryRow)[-1].files == 2
        assert all(run.done(name) and run.metadata["stages"][name]["device"] == "cpu" for name in "abc")
        assert run.metadata["seconds"] >= 0
    assert ("a", 0.5, "half") in events  # a stage's progress has its name
    assert ("c", 1.0, "") in events


def test_a_run_that_failed_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    graph = {**stages("a"), "b": Stage(("a",), partial(jobs.fail_once, tmp_path / "flag"))}
    with RunFolder.open(tmp_path / "run", {}) as run, pytest.raises(InputError, match="DATASET: must be readable"):
        run_stages(run, graph, device="cpu", workers=1)
    started: list[str] = []
    (tmp_path / "flag").touch()
    with RunFolder.open(tmp_path / "run", {}) as run:
        assert run.done("a") and not run.done("b")
        run_stages(run, graph, device="cpu", workers=1, report_progress=lambda stage, share, words: started.append(stage))
        assert [row.files for row in run.rows(CategoryRow)] == [0, 7]
        run_stages(run, graph, device="cpu", workers=1)  # nothing to do
    assert {*started} == {"b"}


def test_seconds_add_up_over_resumed_runs_unless_they_are_not_counted(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {}) as run:
        run.update_metadata(seconds=100.0)
        run_stages(run, stages("a"), device="cpu", workers=1, count_seconds=False)
        assert run.metadata["seconds"] == 100.0
        run_stages(run, stages("a", "b"), device="cpu", workers=1)
        assert 100.0 <= run.metadata["seconds"] < 110


def test_a_run_is_resumed_with_the_same_data_only(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {}) as run:
        check_same(run, "fingerprint", "abc", "DATASET", "must hold the same images")  # not known yet
        run.update_metadata(fingerprint="abc")
        check_same(run, "fingerprint", "abc", "DATASET", "must hold the same images")
        with pytest.raises(InputError, match=r"^DATASET: must hold the same images, got .*; give another --out"):
            check_same(run, "fingerprint", "abd", "DATASET", "must hold the same images")


def test_a_run_from_before_files_were_hashed_goes_on(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {}) as run:
        check_same_data(run, "abc-def", "DATASET", "must hold the same images")  # not known yet
        run.update_metadata(fingerprint="abc")
        check_same_data(run, "abc-def", "DATASET", "must hold the same images")
        for other in ("abd-def", "abd"):
            with pytest.raises(InputError, match="give another --out"):
                check_same_data(run, other, "DATASET", "must hold the same images")
        run.update_metadata(fingerprint="abc-def")
        with pytest.raises(InputError, match="give another --out"):
            check_same_data(run, "abc-deg", "DATASET", "must hold the same images")
