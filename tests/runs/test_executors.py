"""Executors that users name: Dask with a real scheduler and real workers, and functions that return any Executor."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import scheduler_jobs as jobs
from cli.conftest import call_here, error_line

from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions.registry import load_extensions
from notbugs.runs import executors, scheduler
from notbugs.runs.engine import Engine
from notbugs.runs.executors import open_engine
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Job, ignore_progress, run_graph
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

SPLIT = StudyConfig("digits", limit=60, epochs=1, width=4, epsilon=0.5, seeds=1, invert_steps=40)
ONLY = ("dataset-robust", "dataset-nonrobust")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.json", r"must be the scheduler file .*, got missing\.json, which is no file"),
        ("nothing", r".*, got nothing, which is no file"),
        ("missing_module:make", r"missing_module:make must be a function\(\) that returns an Executor, got ModuleNotFoundError"),
        ("scheduler_jobs:no_such", r"scheduler_jobs:no_such must be a function\(\) that .*, got AttributeError"),
        ("os:getcwd", r"os:getcwd must return a concurrent\.futures\.Executor, got str"),
        ("scheduler_jobs:ends", r"scheduler_jobs:ends must be a function\(\) that .*, got SystemExit: no cluster today"),
        ("http://cluster:1", r"must be an address like tcp://HOST:PORT, got http://cluster:1; start `dask scheduler`"),
        ("tcp://", r"must be an address like tcp://HOST:PORT, got tcp://; "),
        ("tls://host", r"must be an address like tcp://HOST:PORT, got tls://host; "),
        ("a folder/mine:make", r"must be the scheduler file .*, got a folder/mine:make, which is no file"),
    ],
)
def test_what_is_no_executor_is_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^--executor: {says}"), open_engine(name, None):
        pass


def test_commands_name_an_executor_that_is_none_before_any_work() -> None:
    done = call_here("files", "digits", "--executor", "none.json", "--out", "run")
    assert "--executor: must be the scheduler file" in error_line(done)


def test_a_function_in_the_working_directory_returns_an_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pool_of_processes.py").write_text(
        "from concurrent.futures import ProcessPoolExecutor\n\ndef make():\n    return ProcessPoolExecutor(2)\n"
    )
    monkeypatch.chdir(tmp_path)
    with open_engine("my_pool_of_processes:make", 1) as engine:
        assert engine.at_once() == 1 and engine.remote
        assert dict(run_graph({"a": Job((), partial(jobs.square, 3))}, 1, ignore_progress, engine=engine)) == {"a": 9}
    with pytest.raises(InputError, match=r"^a: must be done by a worker of --executor, got RuntimeError: cannot schedule"):
        list(run_graph({"a": Job((), jobs.fail)}, 1, ignore_progress, engine=engine))  # it was shut down


def test_threads_of_the_command_do_no_stage() -> None:
    """They would share random numbers and the working directory: of five studies on two threads two were silently different."""
    rule = r"^--executor: must do stages in processes of their own, got threads of the command's process; return a ProcessPoolEx"
    with open_engine("scheduler_jobs:threads_of_this_process", None) as engine, pytest.raises(InputError, match=rule):
        list(run_graph({"a": Job((), partial(jobs.square, 3))}, 1, ignore_progress, engine=engine))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("refuses", r"^a: must be done by a worker of --executor, got ValueError: the queue is full; repeat the command"),
        ("other", r"^a: must be done by a worker of --executor, got TypeError: submit returned int, no Future"),
        ("wrong", r"^a: must be done by a worker of --executor, got TypeError: its future has str, not what the stage returned"),
    ],
)
def test_an_executor_that_does_not_do_as_it_should_is_one_line(kind: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KIND", kind)
    with open_engine("scheduler_jobs:odd", None) as engine, pytest.raises(InputError, match=says):
        list(run_graph({"a": Job((), partial(jobs.square, 3))}, 1, ignore_progress, engine=engine))


def test_an_executor_that_cannot_be_shut_down_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KIND", "stays")
    with pytest.warns(NotbugsWarning, match=r"^--executor: scheduler_jobs:odd could not be shut down: OSError: it stays$"):  # noqa: SIM117
        with open_engine("scheduler_jobs:odd", None):
            pass


@pytest.mark.parametrize("text", ["", "[", "[1]", "{}", '{"id": "no address"}', "\x00" * 50])
def test_a_file_that_no_scheduler_wrote_is_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "SECONDS_TO_WRITE", 0.1)
    (tmp_path / "s.json").write_text(text)
    rule = r"^--executor: must be a file that `dask scheduler --scheduler-file` wrote, got .*s\.json: "
    with pytest.raises(InputError, match=rule):
        open_engine(str(tmp_path / "s.json"), None).__enter__()


@pytest.mark.parametrize("begun", ["", '{"id": "Scheduler-1", "addr'])
def test_a_scheduler_file_that_is_being_written_is_waited_for(
    begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, looked = tmp_path / "s.json", []
    file.write_text(begun)

    def write_the_rest(seconds: float) -> None:
        looked.append(seconds)
        file.write_text('{"id": "Scheduler-1", "address": "tcp://127.0.0.1:1"}')

    monkeypatch.setattr(executors.time, "sleep", write_the_rest)
    assert executors._address_in(file) == "tcp://127.0.0.1:1" and len(looked) == 1


def test_dask_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"^--executor: needs notbugs\[dask\], got .*; pip install 'notbugs\[dask\]'$"):
        open_engine("tcp://127.0.0.1:1", None).__enter__()


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "SECONDS_TO_CONNECT", 0.2)
    (tmp_path / "s.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a server of something else
        for name in ("tcp://127.0.0.1:1", str(tmp_path / "s.json"), f"tcp://127.0.0.1:{silent.getsockname()[1]}"):
            rule = (
                r"^--executor: must be the scheduler of a Dask cluster that can be reached, got .* at tcp://.*; start `dask sch"
            )
            with pytest.raises(InputError, match=rule):
                open_engine(name, None).__enter__()


class Broken(Executor):
    """Gives up every job."""

    def submit(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> "Future[object]":  # type: ignore[override]
        future = Future[object]()
        if "cancel" in str(args):
            future.cancel()
        else:
            future.set_exception(OSError("the cluster\nis on fire"))
        return future


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a", r"^a: must be done by a worker of --executor, got OSError: the cluster is on fire; repeat the command"),
        ("cancel", r"^--executor: must stay reachable, and cancel no stage, got cancel cancelled; repeat the command"),
    ],
)
def test_what_an_executor_gives_up_is_one_line(name: str, says: str) -> None:
    from notbugs.runs.engine import lost

    class Named:
        """Work that says which job it is."""

        def __repr__(self) -> str:
            return name

    graph: dict[str, Job[object]] = {name: Job((), Named())}  # type: ignore[arg-type]
    with pytest.raises(InputError, match=says):
        list(run_graph(graph, 1, ignore_progress, engine=Engine(Broken(), lambda: 1, lost)))


class FewWorkers:
    """In place of a Dask client."""

    def __init__(self, *answers: dict[str, int] | Exception) -> None:
        self.answers = list(answers)

    status, scheduler = "running", SimpleNamespace(ncores=None)

    def sync(self, *_: object, **__: object) -> dict[str, int]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_cluster_without_workers_with_threads_or_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "SECONDS_BETWEEN_QUESTIONS", 0.0)
    cluster = executors._Cluster(FewWorkers({}, {"tcp://a": 1, "tcp://b": 1}), None)  # type: ignore[arg-type]
    cluster.wait()
    assert cluster.at_once() == 2
    assert executors._Cluster(FewWorkers({"tcp://a": 1}), 5).at_once() == 5  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"do one stage at a time, got tcp://a; start them with `dask worker --nthreads 1`"):
        executors._Cluster(FewWorkers({"tcp://a": 4}), 5).check()  # type: ignore[arg-type]
    busy = executors._Cluster(FewWorkers({"tcp://a": 1}, OSError("busy")), None)  # type: ignore[arg-type]
    busy.wait()
    busy.check()
    assert busy.at_once() == 1
    monkeypatch.setattr(executors, "SECONDS_TO_ANSWER", 0.0)
    with pytest.raises(InputError, match=r"^--executor: must stay reachable, got no answer for 0 seconds; repeat the command"):
        busy.check()
    monkeypatch.setattr(executors, "SECONDS_TO_ANSWER", 60.0)
    monkeypatch.setattr(executors, "SECONDS_WITHOUT_WORKERS", 0.0)
    with pytest.raises(InputError, match=r"^--executor: must have a worker within 0 seconds, got none; start workers, then"):
        executors._Cluster(FewWorkers({}), None).wait()  # type: ignore[arg-type]


# ---- a real cluster ----------------------------------------------------------------------------------------------------------


class Cluster:
    """A scheduler and workers, as processes that are started and killed here."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.file, self.folder = folder / "s.json", folder
        options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file)]
        self.scheduler = self.start("scheduler", *options)
        while not self.file.exists():
            assert self.scheduler.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--scheduler-file", str(self.file)]
        self.workers = [self.start("worker", *options) for _ in range(workers)]

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        pytest.importorskip("distributed")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words], stdout=log, stderr=log, env=environment, cwd=self.folder
            )

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_command_without_its_scheduler_ends_with_one_line_at_once(tmp_path: Path) -> None:
    """A client that was not closed kept it for a minute, and then printed what failed in it."""
    pytest.importorskip("distributed")
    (tmp_path / "s.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    code = (
        "import sys; from notbugs.runs import executors; from notbugs.cli import main; executors.SECONDS_TO_CONNECT = 0.5;"
        "sys.argv = ['notbugs', 'split', 'digits', '--out', 'run', '--executor', 's.json']; main()"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "can be reached, got OSError" in done.stderr, done.stderr
    assert time.monotonic() - began < 30


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    folder.mkdir()
    made = Cluster(folder, workers)
    try:
        yield made
    finally:
        made.end()


def content(run: Path) -> dict[str, object]:
    """What a run has written, but for times and the order of rows: rows are in the order in which stages finished."""
    assert not list(run.rglob("*.part")) and not (run / ".attempts").exists()
    found: dict[str, object] = {}
    for path in (path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".csv" and path.parent.name == "tables":
            lines = path.read_text().splitlines()
            timed = [number for number, column in enumerate(lines[0].split(",")) if column == "seconds"]
            cells = [[cell for number, cell in enumerate(line.split(",")) if number not in timed] for line in lines]
            found[name] = sorted(map(str, cells))
        elif path.name == "README.md":
            found[name] = re.sub(r"- seconds: .*", "", path.read_text().replace(str(run), "RUN"))
        elif path.suffix not in (".parquet", ".lock") and path.name != "run.json":
            found[name] = path.read_bytes()
    return found


def split(run: Path, engine: Engine | None, on: Callable[[str, float], None] = lambda *_: None) -> RunFolder:
    report = lambda stage, share, words: on(stage, share)  # noqa: E731
    return pipeline.run(SPLIT, run, only=ONLY, workers=1, engine=engine, report_progress=report)


@pytest.mark.slow
def test_on_dask_killed_workers_and_a_killed_scheduler_change_no_file(tmp_path: Path) -> None:
    undisturbed = content(split(tmp_path / "undisturbed", None).folder)
    run, struck = tmp_path / "run", list[str]()
    with cluster(tmp_path / "first", 2) as first, open_engine(str(first.file), None) as engine:

        def kill_during_a_training(stage: str, share: float) -> None:
            if stage == "seed0/adversarial" and not struck:  # its worker or the other one: both train
                struck.append(stage)
                first.workers[0].kill()
            if stage == "seed0/dataset-robust" and first.scheduler.poll() is None:  # needs that training
                first.scheduler.kill()

        with pytest.raises(InputError, match=r"^--executor: must stay reachable, .*; repeat the command: it resumes") as caught:
            split(run, engine, kill_during_a_training)
        assert struck and "\n" not in str(caught.value)
    assert RunFolder.read(run).done("seed0/adversarial")
    with cluster(tmp_path / "second", 2) as second, open_engine(str(second.file), None) as engine:

        def kill_during_an_inversion(stage: str, share: float) -> None:
            if stage.startswith("seed0/dataset-") and second.workers[0].poll() is None:
                second.workers[0].kill()

        record = split(run, engine, kill_during_an_inversion)
        assert content(run) == undisturbed
        stages: Sequence[str] = ("seed0/standard", "seed0/dataset-robust")
        assert all(record.metadata["stages"][stage]["device"] == "cpu" for stage in stages)


@pytest.mark.slow
def test_on_dask_a_worker_without_the_modules_of_the_command_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave out attacks of one's own without a word."""
    (tmp_path / "of_the_command.py").write_text("CONTROLS = []\n")  # a name that no other test imports
    monkeypatch.syspath_prepend(tmp_path)
    with cluster(tmp_path / "cluster", 1) as made, open_engine(str(made.file), None) as engine:
        monkeypatch.setenv("NOTBUGS_EXTENSIONS", "of_the_command")
        monkeypatch.setattr(scheduler, "registered", lambda: load_extensions())
        with pytest.raises(
            InputError, match=r"on each worker as for the command, got of_the_command in one of them; set it where"
        ):
            list(run_graph({"a": Job((), partial(jobs.square, 3))}, 1, ignore_progress, engine=engine))


@pytest.mark.slow
def test_on_dask_a_stage_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    graph = {"fine": Job((), partial(jobs.square, 3)), "deadly": Job(("fine",), jobs.die)}
    with cluster(tmp_path / "cluster", 2) as made, open_engine(str(made.file), None) as engine:
        with pytest.raises(InputError, match=r"^deadly: must be done by a worker of --executor, got KilledWorker: .* 2 diff"):
            list(run_graph(graph, 1, ignore_progress, engine=engine))
        assert [worker.wait(5) for worker in made.workers] == [-signal.SIGKILL] * 2
