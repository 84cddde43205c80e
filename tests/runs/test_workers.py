"""Workers end with the process that started them, and the end of a worker, at any moment, is one line."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import scheduler_jobs as jobs
from sessions import python, session, wait_until_empty

from notbugs import parent
from notbugs.errors import InputError
from notbugs.runs import engine, workers
from notbugs.runs.scheduler import Job, default_workers, ignore_progress, run_graph

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
    with python(SERVER) as process:
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
    code = f"import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path({str(script)!r}, run_name='__main__')"
    with python(code, script, tmp_path) as process:
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


def no_process(error: Exception) -> Callable[[object], None]:
    def start(self: object) -> None:
        raise error

    return start


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), EOFError()])
def test_a_worker_that_cannot_be_started_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", no_process(error))
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


@linux
@pytest.mark.slow
def test_a_worker_whose_end_is_not_known_yet_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has removed the process, but its server has not said so yet."""
    with workers.WorkerProcesses(1, [{}]) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.001)
        monkeypatch.setattr(workers._Slot, "alive", True)
        assert executor.submit(os.getpid).result(timeout=30) != pid


@linux
@pytest.mark.slow
def test_half_a_message_of_a_killed_worker_is_its_end() -> None:
    """A process that could write into its own end would wait for the other half for ever."""
    with workers.WorkerProcesses(1, [{}]) as executor:
        assert executor.submit(os.getpid).result() != os.getpid()
        future = executor.submit(jobs.end_in_half_a_message)
        with pytest.raises(workers.WorkerEndedError) as error:
            future.result(timeout=10)
        assert str(executor.lost("a", future, error.value)) == KILLED


@linux
@pytest.mark.slow
def test_how_a_worker_ended_is_known_when_another_has_its_place() -> None:
    """A job that kills its worker at once does so before the next one is given out."""
    with workers.WorkerProcesses(1, [{}]) as executor:
        for job, ending in ((jobs.die, "was killed"), (jobs.leave, "ended with exit code 9")):
            future = executor.submit(job, ignore_progress)
            error = future.exception(timeout=30)
            assert isinstance(error, workers.WorkerEndedError)
            assert executor.submit(os.getpid).result(timeout=30) != os.getpid()
            assert f"a: its process {ending};" in str(executor.lost("a", future, error))


KILLED = "a: its process was killed; if memory ran out, use --workers 1"


@linux
@pytest.mark.slow
def test_workers_hold_no_semaphores_of_the_system() -> None:
    """A killed command would leave them, with a line on them; without the process that counts them they cause a traceback."""
    from multiprocessing import resource_tracker

    registered: list[object] = []
    with pytest.MonkeyPatch.context() as patch, workers.WorkerProcesses(1, [{}]) as executor:
        patch.setattr(resource_tracker._resource_tracker, "_send", lambda *words: registered.append(words))
        assert executor.submit(abs, -1).result() == 1
    assert not registered


def test_each_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert workers.one_gpu_each() == []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv(workers.VISIBLE, raising=False)
    assert workers.one_gpu_each() == [{workers.VISIBLE: "0"}, {workers.VISIBLE: "1"}]
    assert default_workers("cuda") == 2 and default_workers("cuda:1") == 1
    monkeypatch.setenv(workers.VISIBLE, "4, GPU-8a")
    assert [slot.environment for slot in workers.WorkerProcesses(3)._slots] == [
        {workers.VISIBLE: name} for name in ("4", "GPU-8a", "4")
    ]


@pytest.mark.slow
def test_a_worker_has_the_environment_of_its_place() -> None:
    environments = [{workers.VISIBLE: "4"}, {workers.VISIBLE: "5"}]
    with workers.WorkerProcesses(2, environments) as executor:
        both = [executor.submit(jobs.environment, workers.VISIBLE, 0.3) for _ in range(2)]
        assert {future.result() for future in both} == {"4", "5"}


def test_errors_of_a_worker_say_where_they_were_raised() -> None:
    class OddError(Exception):
        """A local class cannot be pickled."""

    for error, kind, text in ((KeyError("bug"), KeyError, "'bug'"), (OddError("local"), RuntimeError, "OddError: local")):
        portable = engine.portable(error)
        assert type(portable) is kind and str(portable) == text and "in a worker process" in portable.__notes__[0]
    assert engine.portable(InputError("--epsilon", "must be above 0")).__class__ is InputError
    outcome = engine.attempt(jobs.fail, Path("nowhere/progress"))
    assert outcome.error is not None and outcome.error.args[0] == "--epsilon"


def test_progress_is_told_at_once_then_a_few_times_a_second_and_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    def work(report: engine.Progress) -> None:
        for share in range(100):
            report("", share / 100, "words")

    path = tmp_path / "0.json"
    assert engine.told(path) is None
    assert engine.attempt(work, path).error is None
    assert engine.told(path) == ("", 0.0, "words") and [each.name for each in tmp_path.iterdir()] == ["0.json"]
    assert engine.attempt(work, tmp_path / "away" / "0.json").error is None
    path.write_text("[")
    assert engine.told(path) is None
