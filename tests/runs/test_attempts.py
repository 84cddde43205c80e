"""A stage writes into a folder of its own; only the process that holds the run folder publishes, wherever stages are done."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import scheduler_jobs as jobs
from study.conftest import resolved

from notbugs.atomic import atomic_write_text
from notbugs.errors import InputError
from notbugs.runs import attempts, engine
from notbugs.runs.attempts import ATTEMPTS, Attempt, Finished, make_attempt, publish, share, unfinished_folder
from notbugs.runs.engine import Engine
from notbugs.runs.folder import UNFINISHED, RunFolder
from notbugs.runs.runner import Stage, describe_device, on_device, run_stages
from notbugs.runs.tables.files import CategoryRow
from notbugs.study.config import StudyConfig
from notbugs.study.stages import Place

STAGES = {
    "a": Stage((), partial(jobs.write_files, {"models/a.json": "1", "models/a.safetensors": "2", "datasets/a/0.png": "3"})),
    "b": Stage((), partial(jobs.write_files, {"pictures/b.png": "4"})),
    "c": Stage(("a", "b"), partial(jobs.copy_file, "datasets/a/0.png", "examples/c.npz")),
}
WRITTEN = {
    "models/a.json": "1", "models/a.safetensors": "2", "datasets/a/0.png": "3", "pictures/b.png": "4", "examples/c.npz": "3",
}  # fmt: skip


def files(run: Path) -> dict[str, str]:
    """All that stages wrote into a run folder."""
    own = ("run.json", "run.lock")
    found = [path for path in run.rglob("*") if path.is_file() and path.name not in own and path.parent.name != "tables"]
    return {path.relative_to(run).as_posix(): path.read_text() for path in found}


def stages(run: Path) -> dict[str, Stage]:
    return {name: replace(stage, work=partial(stage.work, run)) for name, stage in STAGES.items()}


class Twice(Executor):
    """Does each job twice, and hands out the result of the first or of the second attempt; the other one goes on after that."""

    def __init__(self, *, first: bool, late: bool) -> None:
        self.first, self.late = first, late
        self.left: list[Callable[[], object]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        for again in self.left:
            again()
        self.left = []
        work, future = partial(function, *args, **kwargs), Future[Any]()
        one = work()
        other = None if self.late else work()
        if self.late:  # cut off, it finishes while others read what the first one wrote
            self.left.append(work)
        future.set_result(one if self.first else other)
        return future


@pytest.mark.parametrize(
    "executor", [Twice(first=True, late=False), Twice(first=False, late=False), Twice(first=True, late=True)]
)
def test_of_two_attempts_at_a_stage_one_is_discarded(executor: Executor, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {}) as run:
        run_stages(run, stages(tmp_path), device="cpu", engine=Engine(executor, lambda: 2, engine.lost))
        assert files(tmp_path) == WRITTEN and not (tmp_path / ATTEMPTS).exists()
        assert [row.files for row in run.rows(CategoryRow)] == [3, 1, 1]


def test_no_read_fails_while_two_attempts_write(tmp_path: Path) -> None:
    """Four threads read what is published, others write the same again and again into folders of their own."""
    with RunFolder.open(tmp_path, {}) as run, ThreadPoolExecutor(4) as pool:
        run_stages(run, stages(tmp_path), device="cpu", workers=1)
        others = [pool.submit(again, tmp_path, stage) for stage in ("a", "b") for _ in range(2)]
        while not all(other.done() for other in others):
            assert {name: (tmp_path / name).read_text() for name in WRITTEN} == WRITTEN
        assert all(len(other.result()) == 20 for other in others)
        assert len({folder for other in others for folder in other.result()}) == 80
        assert {name: (tmp_path / name).read_text() for name in WRITTEN} == WRITTEN


def again(run: Path, name: str) -> list[Path]:
    """Attempts at one stage."""
    work = stages(run)[name].work
    return [make_attempt(run, name, work, dict, None, lambda *_: None).folder for _ in range(20)]


def test_what_a_killed_command_has_published_is_replaced_and_its_attempts_are_removed(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, {}).close()
    for name in ("datasets/a/old.png", "models/a.json", ".attempts/0a/models/a.json", ".attempts/0.json", "tables/.0b.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    with RunFolder.open(tmp_path, {}) as run:
        assert files(tmp_path) == {"datasets/a/old.png": "old", "models/a.json": "old"}
        run_stages(run, stages(tmp_path), device="cpu", workers=1)
    assert files(tmp_path) == WRITTEN


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {}) as run, pytest.raises(InputError, match=r"^--epsilon: must be above 0"):
        run_stages(run, {"a": Stage((), jobs.write_and_fail)}, device="cpu", workers=1)
    assert files(tmp_path) == {} and [path.name for path in tmp_path.iterdir()] in (["run.json"], ["run.lock", "run.json"],
                                                                                   ["run.json", "run.lock"])  # fmt: skip


def test_a_card_names_the_folder_as_it_will_be(tmp_path: Path) -> None:
    work = partial(jobs.write_own_place, "datasets/robust/README.md")
    finished = make_attempt(tmp_path, "a", work, dict, None, lambda *_: None)
    publish(finished, tmp_path)
    assert (tmp_path / "datasets/robust/README.md").read_text() == f"folder = {str(tmp_path / 'datasets/robust')!r}"


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").touch()  # a file where a folder must be
    (tmp_path / "0a/models").mkdir(parents=True)
    (tmp_path / "0a/models/a.json").touch()
    with pytest.raises(InputError, match=r"must be in a folder that can be written"):
        publish(Finished(tmp_path / "0a", ("models/a.json",), (), 0.0, {}), tmp_path)


# ---- disks that several machines share -----------------------------------------------------------------------------------------


def run_elsewhere(run: RunFolder, pool: Executor) -> None:
    elsewhere = Engine(pool, lambda: 2, engine.lost, remote=True)
    run_stages(run, stages(run.folder), device="cpu", engine=elsewhere)


def test_elsewhere_stages_are_done_in_the_working_directory_and_wait_for_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name of a file is there only at the third look."""
    looks: dict[Path, int] = {}
    seen = Path.exists

    def late(path: Path) -> bool:
        looks[path] = looks.get(path, 0) + 1
        return looks[path] > 2 and seen(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attempts, "SECONDS_BETWEEN_LOOKS", 0.001)
    with RunFolder.open("run", {}) as run, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(Path, "exists", late)
        run_elsewhere(run, pool)
        monkeypatch.undo()
    assert files(tmp_path / "run") == WRITTEN
    assert {path.name for path in looks} >= {"a", "a.json", "a.safetensors", "b.png"}  # c looks for what a and b wrote


def test_a_worker_that_does_not_see_the_run_folder_names_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "SECONDS_TO_SEE", 0.0)
    (tmp_path / "run" / ATTEMPTS).mkdir(parents=True)
    shared = share(tmp_path / "run")
    tell, there = (lambda *_: None), partial(make_attempt, work=lambda attempt: [], describe=dict)
    assert there(tmp_path / "run", "a", shared=shared, report_progress=tell).rows == []
    (tmp_path / "other" / ATTEMPTS).mkdir(parents=True)  # a folder of that name, on a disk of its own
    with pytest.raises(InputError, match=r"^--out: must be on a disk that all workers share, got .*other, which .* does not see"):
        there(tmp_path / "other", "a", shared=shared, report_progress=tell)
    with pytest.raises(InputError, match=r"^--executor: must have workers that see the working directory, got .*nowhere"):
        there(tmp_path, "a", shared=replace(shared, here=str(tmp_path / "nowhere")), report_progress=tell)
    with pytest.raises(InputError, match=r"^--executor: must have workers with notbugs 0\.0, got "):
        there(tmp_path, "a", shared=replace(shared, version="0.0"), report_progress=tell)
    with pytest.raises(InputError, match=r"got .*models/a\.json, which .* does not see"):
        there(tmp_path / "run", "a", shared=replace(shared, files=("models/a.json",)), report_progress=tell)
    RunFolder.open(tmp_path / "run2", {}).close()
    (tmp_path / "run2" / ATTEMPTS).mkdir()
    with pytest.raises(InputError, match=r"got .*run\.json, which .* does not see"):
        there(tmp_path / "run2", "a", shared=replace(share(tmp_path / "run2"), stages=("b",)), report_progress=tell)
    assert os.getcwd() != str(tmp_path)


def test_a_job_without_a_run_folder_is_done_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared = attempts.no_run_folder()
    monkeypatch.chdir("/")
    tell = lambda *_: None  # noqa: E731
    assert attempts.done_there(shared, lambda _: Path.cwd(), tell) == tmp_path
    assert attempts.done_there(None, lambda _: Path.cwd(), tell) == Path("/") == Path.cwd()


def test_the_device_is_chosen_where_a_stage_is_done() -> None:
    config = replace(resolved(StudyConfig("digits", limit=60)), device="here", bf16=True)
    there = Engine(ThreadPoolExecutor(1), lambda: 1, engine.lost, device=lambda: "cpu")
    assert on_device(lambda config, *more: (config.device, *more), config, there, 1)(2) == ("cpu", 1, 2)
    assert on_device(describe_device, config, there)()["device"] == "cpu"
    assert on_device(lambda config: config.device, config, None)() == "here"
    assert Place(config, None, None).config_there() is config
    for asked, found in ((None, False), (True, True)):
        place = Place(config, asked, lambda: "cpu").config_there()
        assert (place.device, place.bf16) == ("cpu", found)


def test_an_attempt_reports_progress_under_the_name_of_its_stage(tmp_path: Path) -> None:
    events: list[tuple[str, float, str]] = []

    def work(attempt: Attempt) -> list[CategoryRow]:
        attempt("other", 0.5, "half")
        return []

    make_attempt(tmp_path, "a", work, dict, None, lambda *event: events.append(event))
    assert events == [("a", 0.5, "half")]


def go_on(steps: list[str], attempt: Attempt) -> list[CategoryRow]:
    """Keeps a file, and fails the first time."""
    steps.append((attempt.unfinished / "kept").read_text() if (attempt.unfinished / "kept").exists() else "")
    atomic_write_text(attempt.unfinished / "kept", "half")
    if len(steps) == 1:
        raise InputError("--epsilon", "must be above 0", -1)
    return []


def test_what_a_stage_keeps_is_there_again_when_it_is_repeated_and_is_removed_with_it(tmp_path: Path) -> None:
    steps: list[str] = []
    todo = {"seed0/a b": Stage((), partial(go_on, steps)), "seed0/a-b": Stage((), partial(go_on, ["", ""]))}
    with RunFolder.open(tmp_path, {}) as run, pytest.raises(InputError):
        run_stages(run, todo, device="cpu", workers=1)
    with RunFolder.open(tmp_path, {}) as run:
        run_stages(run, todo, device="cpu", workers=1)
    assert steps == ["", "half"] and not (tmp_path / UNFINISHED).exists()


def test_what_a_slower_attempt_keeps_after_its_stage_was_recorded_is_removed_by_the_next_command(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {}) as run:
        run_stages(run, {"a": Stage((), partial(go_on, [""]))}, device="cpu", workers=1)
        atomic_write_text(unfinished_folder(tmp_path, "a") / "kept", "late")
        run_stages(run, {"b": Stage((), partial(go_on, [""]))}, device="cpu", workers=1)
    assert not (tmp_path / UNFINISHED).exists()
