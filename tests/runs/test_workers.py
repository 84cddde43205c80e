"""Workers end with the process that started them, and the end of a worker, at any moment, is one line."""

import os
import pickle
import signal
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
import scheduler_jobs as jobs
from sessions import python, session, wait_until_empty

from notbugs import parent
from notbugs.errors import InputError
from notbugs.runs import workers
from notbugs.runs.scheduler import Job, ignore_progress, run_graph

linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forks of a server on Linux only")

SERVER = """
import os, signal
from multiprocessing import forkserver
from notbugs.runs.workers import start_server
start_server(1)
assert forkserver._forkserver._forkserver_pid is None
start_server(2)
server = forkserver._forkserver._forkserver_pid
(blocked,) = [line.split()[1] for line in open(f"/proc/{server}/status") if line.startswith("SigBlk")]
print(*(int(blocked, 16) >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)))
print({signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.environ.get("NOTBUGS_PARENT"))
os.kill(os.getpid(), signal.SIGKILL)
"""

STUDY = """
import sys
from functools import partial
from pathlib import Path
import scheduler_jobs as jobs
from notbugs.runs import server, workers
from notbugs.runs.scheduler import Job, ignore_progress, run_graph
if __name__ == "__main__":
    context = workers.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([server.__name__])  # no torch: its import takes seconds
    workers._context, workers._start_worker = lambda: context, int
    folder = Path(sys.argv[1])
    endless = Job((), partial(jobs.write_for_ever, folder))
    list(run_graph({"a": endless, "b": endless}, 2, ignore_progress))
"""


@linux
def test_a_server_that_still_imports_ends_with_its_parent_and_leaves_signals_to_it() -> None:
    process = python(SERVER)
    said, failed = process.communicate()
    assert said.split() == ["1", "1", "0", "set()", "None"], failed
    assert wait_until_empty(process.pid) == [] and failed == ""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("workers_there", [0, 1, 2])
def test_workers_of_a_killed_process_end_at_once_and_write_nothing_more(workers_there: int, tmp_path: Path) -> None:
    """Killed before the first worker is there, while the second is made, and while both work."""
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    process = python(f"import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path({str(script)!r}, run_name='__main__')",
                     script, tmp_path)  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.count"))) < workers_there or len(session(process.pid)) < 3:  # with tracker and server
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    process.kill()
    assert wait_until_empty(process.pid) == []
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.count")}
    _, failed = process.communicate()
    assert failed == "" and len(written) >= workers_there
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.count")} == written


@linux
def test_a_parent_that_ended_before_the_first_look_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent.ctypes, "CDLL", lambda name: type("Library", (), {"prctl": lambda self, *words: 0})())
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    parent.end_with_parent(os.getppid())
    assert codes == []
    parent.end_with_parent(os.getpid())  # not the parent of this process: that has ended
    assert codes == [1]


class NoProcess:
    """In place of a process: one that ended."""

    pid, exitcode = None, -signal.SIGKILL

    def join(self, seconds: float) -> None:
        """It has ended."""

    def is_alive(self) -> bool:
        """It has not."""
        return False

    def start(self) -> None:
        """As if the server of workers was killed meanwhile."""
        raise EOFError("unexpected EOF")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> "workers.Worker[int]":
    """A worker without a process; its other end is `_theirs`."""
    found: workers.Worker[int] = workers.Worker()
    monkeypatch.setattr(found, "_process", NoProcess())
    return found


def test_half_a_message_is_the_end_of_a_worker(worker: "workers.Worker[int]") -> None:
    ours, theirs = Pipe()
    theirs.send_bytes(pickle.dumps(workers.Finished((3,))))
    size = len(ours.recv_bytes())
    os.write(worker._theirs.fileno(), size.to_bytes(4) + b"the begin")  # killed while it wrote
    worker._theirs.close()
    with pytest.raises(workers.WorkerEndedError, match=r"^was killed$"):
        worker.said()


def test_a_worker_that_ended_is_given_nothing(worker: "workers.Worker[int]") -> None:
    worker._theirs.close()
    with pytest.raises(workers.WorkerEndedError, match=r"^was killed$"):
        worker.give(ignore_progress)  # type: ignore[arg-type]
    worker.end()
    worker.end()


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), EOFError()])
def test_a_worker_that_cannot_be_started_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: object) -> None:
        raise error

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    monkeypatch.setattr(workers, "start_server", lambda count: None)
    graph = {name: Job((), jobs.process_id) for name in "ab"}
    with pytest.raises(InputError, match=r"^a: its process could not be started \(.*\); if memory ran out, use --workers 1$"):
        list(run_graph(graph, 2, ignore_progress))


@pytest.mark.slow
def test_a_worker_that_is_killed_between_two_jobs_costs_nothing() -> None:
    graph = {"a": Job((), jobs.process_id), "b": Job(("a",), jobs.process_id), "c": Job(("a", "b"), jobs.process_id)}
    found: dict[str, int] = {}
    for name, pid in run_graph(graph, 2, ignore_progress):
        found[name] = pid
        if name == "a":
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.001)
    assert found["a"] != found["b"] == found["c"]


def test_errors_of_a_worker_say_where_they_were_raised() -> None:
    class OddError(Exception):
        """A local class cannot be pickled."""

    ours, theirs = Pipe()
    for error, kind, text in ((KeyError("bug"), KeyError, "'bug'"), (OddError("local"), RuntimeError, "OddError: local")):
        portable = workers._portable(error)
        assert type(portable) is kind and str(portable) == text and "in a worker process" in portable.__notes__[0]
    assert workers._portable(InputError("--epsilon", "must be above 0")).__class__ is InputError
    assert pickle.loads(workers._answer(pickle.dumps(jobs.fail), theirs)).error.args[0] == "--epsilon"
    assert pickle.loads(workers._answer(b"no job", theirs)).error is not None
    assert not ours.poll()
