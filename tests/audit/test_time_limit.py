"""An audit that ends at a time limit."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from audit.conftest import quick

from notbugs import audit
from notbugs.audit import AuditConfig, time_limit
from notbugs.audit.gate import evaluate
from notbugs.audit.time_limit import TimeLimitError, ending_at
from notbugs.runs.engine import Engine, lost
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Job, run_graph
from notbugs.runs.tables.audit import AuditAccuracyRow, ImageRow


@contextmanager
def threads(count: int) -> Iterator[Engine]:
    with ThreadPoolExecutor(count) as executor:
        yield Engine(executor, lambda: count, lost)


def test_nothing_begins_after_the_time_limit_and_what_was_done_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time_limit, "CLOCK", lambda: now)
    jobs = {str(number): Job((), lambda report_progress: None) for number in range(5)}
    found = []

    def take_a_second_each(engine: Engine) -> None:
        nonlocal now
        for name, _ in run_graph(jobs, 1, lambda *_: None, engine=engine, progress_in=tmp_path):
            found.append(name)
            now += 1.0

    with threads(1) as engine, ending_at(2.5, engine, None, "cpu") as ending, pytest.raises(TimeLimitError):
        take_a_second_each(ending)
    assert found == ["0", "1", "2"]


def test_what_runs_at_the_time_limit_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(ThreadPoolExecutor):
        def submit(self, *work: object, **more: object) -> "Future[object]":  # type: ignore[override]
            monkeypatch.setattr(time_limit, "CLOCK", lambda: 3.0)
            return Future()

    monkeypatch.setattr(time_limit, "CLOCK", lambda: 0.0)
    monkeypatch.setattr("notbugs.runs.scheduler.SECONDS_BETWEEN_LOOKS", 0.001)
    engine = Engine(Never(1), lambda: 1, lost)
    with ending_at(2.5, engine, None, "cpu") as ending, pytest.raises(TimeLimitError, match="--time-limit: is reached"):
        list(run_graph({"a": Job((), lambda _: None)}, 1, lambda *_: None, engine=ending, progress_in=tmp_path))


@pytest.mark.slow
def test_an_audit_says_what_it_reached_and_goes_on(config: AuditConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = sys.modules["notbugs.audit.run"]
    monkeypatch.setattr(stages, "PARTS_IN_TIME", 3)  # of 12 images
    monkeypatch.setattr(stages, "run_checks", lambda config, report_progress: [])  # they take longest
    now, few = 0.0, quick(config, images=12)

    def finished(stage: str, share: float, words: str) -> None:
        nonlocal now
        now += (share == 1.0 and not words) * 1.0

    for module in (time_limit, stages):
        monkeypatch.setattr(module, "CLOCK", lambda: now)
    with threads(1) as engine:
        cut = audit.run(few, tmp_path / "run", engine=engine, report_progress=finished, time_limit=1.5)
    assert not cut.audit().finished and len(cut.rows(ImageRow)) == 4 and not cut.rows(AuditAccuracyRow)
    found = evaluate(few, cut, time_limit=1.5)
    limit = found.decision.time_limit
    assert limit is not None and limit.left == ("part 2 of 3", "part 3 of 3")
    assert limit.sentence == "4 of 12 images attacked in 1.5 s, each by all attacks of the ensemble; sanity checks done"
    assert [(row.threat, row.n) for row in found.rows] == [("clean", 4), ("l2 0.5", 4)] and found.decision.exit_code == 0
    whole = audit.run(few, tmp_path / "run", workers=1)  # without a limit; it keeps its small parts
    assert whole.audit().finished and {"part 2 of 3", "part 3 of 3", "summary"} < {*whole.metadata["stages"]}
    found = evaluate(few, RunFolder.read(tmp_path / "run"), time_limit=1.5)
    assert found.decision.time_limit is None and [row.n for row in found.rows] == [12, 12]


def test_audits_with_and_without_a_time_limit_attack_the_same_images_first() -> None:
    first_rows = sys.modules["notbugs.audit.run"]._first_rows
    for count, shape in ((450, (1, 8, 8)), (200, (3, 64, 64)), (37, (3, 224, 224))):
        attacked = []
        for limit in (None, 60.0):
            record = SimpleNamespace(metadata={})
            record.update_metadata = record.metadata.update
            rows = first_rows(record, Images(count, shape), "cpu", limit)
            assert sorted(rows) == list(range(len(rows)))  # each image is in one part
            assert first_rows(record, Images(count, shape), "cpu", None) == rows  # one that goes on keeps its own
            attacked.append([[*range(row, count, len(rows))] for row in rows])
        whole, limited = attacked
        assert len(limited) > len(whole)
        pieces = len(limited) // len(whole)
        for number, images in enumerate(whole):
            divided = limited[number * pieces : (number + 1) * pieces]
            assert sorted(row for piece in divided for row in piece) == images


class Images:
    """As much of a data set as parts depend on."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.count, self.shape = count, shape

    def __len__(self) -> int:
        return self.count
