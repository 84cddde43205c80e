"""What a study on several processes and machines survives. Prints the second table of docs/reliability.md.

    python benchmarks/cluster_faults.py [--faults NAMES] [--tries N] [--out benchmarks/results/cluster-faults.json]

As benchmarks/faults.py, whose study this is, with more epochs, on a Dask scheduler and two workers, and under torchrun with two
ranks. Each fault strikes at a moment drawn at random; what the run has written in the end is compared with a run that nothing
disturbed, on the same engine. A partition needs root: each worker has a network namespace of its own, whose link is cut for
longer than the scheduler waits for a worker (10 s): a stage is done again elsewhere while the worker that was cut off does it.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults import Bench, Command  # the file beside this one
from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

OPTIONS = ("--width=8", "--epsilon=0.5")
EPOCHS = {"Dask": 40, "Dask, apart": 800, "torchrun": 40}  # by engine: a stage that is cut off has to take longer than a moment
DASK, APART, TORCHRUN = EPOCHS
SECONDS_TO_LIVE = 10  # of a worker without a sign of life
SECONDS_CUT = 25
FEW = 4  # tries
NETWORK = "10.231"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    found.add_argument("--tries", type=int, default=FEW, help="of each fault")
    found.add_argument("--seed", type=int, default=0, help="of the moments")
    return found


def main() -> None:
    """Strike, go on, compare."""
    options = parser().parse_args()
    results = ResultsFile(options.out, packages=("distributed",))
    with tempfile.TemporaryDirectory() as place:
        benches: dict[str, Several] = {}

        def rows() -> Iterator[Row]:
            for name in options.faults:
                engine, fault = FAULTS[name]
                bench = benches.get(engine) or _started(engine, Path(place) / engine, options.seed)
                benches[engine] = bench
                yield from bench.strike(name, fault, options.tries)

        arguments = {**recorded_arguments(options), "faults": options.faults, "options": list(OPTIONS)}
        measure(results, "clusters", rows(), arguments, key=("part", "fault"))


@dataclass
class Several(Bench):
    """The study on several processes. engine: of EPOCHS."""

    engine: str = DASK
    cluster: "Cluster | None" = field(default=None, repr=False)

    @property
    def program(self) -> tuple[str, ...]:
        """What executes the command."""
        if self.engine == TORCHRUN:
            several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
            return (sys.executable, *several, "-m", "notbugs")
        return super().program

    @property
    def words(self) -> list[str]:
        """The command."""
        executor = ["--executor", str(self.cluster.file)] if self.cluster else []
        return [self.command, str(self.source), *OPTIONS, f"--epochs={EPOCHS[self.engine]}", *executor, "--out", str(self.out)]


def _started(engine: str, place: Path, seed: int) -> Several:
    """A bench with its images, and what an undisturbed run writes."""
    place.mkdir()
    bench = Several(place, random.Random(seed), engine=engine)
    bench.make_images()
    with ExitStack() if engine == TORCHRUN else bench_cluster(bench):
        bench.undisturbed()
    return bench


# ---- a cluster ---------------------------------------------------------------------------------------------------------------


class Cluster:
    """A Dask scheduler and two workers. apart: each worker behind a link of its own, which can be cut."""

    def __init__(self, folder: Path, *, apart: bool = False) -> None:
        self.file, self.folder, self.apart = folder / "scheduler.json", folder, apart
        self.file.unlink(missing_ok=True)
        self.links = [_Link(number) for number in range(2)] if apart else []
        host = self.links[0].here if apart else "127.0.0.1"
        self.scheduler = self._start([], "scheduler", "--port", "0", "--host", host, "--scheduler-file", str(self.file))
        while not self.file.exists():
            time.sleep(0.05)
        self.workers = [self.start_worker(number) for number in range(2)]

    def start_worker(self, number: int) -> "subprocess.Popen[bytes]":
        """A worker of one thread."""
        words = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--scheduler-file", str(self.file)]
        link = self.links[number] if self.links else None
        prefix, words = (link.prefix, [*words, "--host", link.there]) if link else ([], words)
        return self._start(prefix, "worker", *words)

    def _start(self, prefix: list[str], *words: str) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{SECONDS_TO_LIVE}s",
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            command = [*prefix, sys.executable, "-m", "dask", *words, "--no-dashboard"]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)

    def end(self) -> None:
        """End all."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        for link in self.links:
            link.remove()


class _Link:
    """A network namespace for a worker, and its link to this one."""

    def __init__(self, number: int) -> None:
        self.name, self.device = f"notbugs{number}", f"notbugs{number}"
        self.here, self.there = f"{NETWORK}.{number}.1", f"{NETWORK}.{number}.2"
        self.prefix = ["ip", "netns", "exec", self.name]
        self.remove()
        _ip("netns", "add", self.name)
        _ip("link", "add", self.device, "type", "veth", "peer", "name", "out", "netns", self.name)
        _ip("addr", "add", f"{self.here}/30", "dev", self.device)
        _ip("link", "set", self.device, "up")
        inside = ["-n", self.name]
        _ip(*inside, "addr", "add", f"{self.there}/30", "dev", "out")
        _ip(*inside, "link", "set", "out", "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "route", "add", "default", "via", self.here)

    def cut(self, *, off: bool) -> None:
        """Cut the link, or mend it."""
        _ip("link", "set", self.device, "down" if off else "up")

    def remove(self) -> None:
        """Remove it, if it is there."""
        for words in (("link", "del", self.device), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                _ip(*words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def bench_cluster(bench: Bench, *, apart: bool = False) -> Iterator[Cluster]:
    """A cluster for the commands of a bench."""
    assert isinstance(bench, Several)
    made = bench.cluster = Cluster(bench.place, apart=apart)
    try:
        yield made
    finally:
        bench.cluster = None
        made.end()


# ---- faults: each yields what was wrong in a try -----------------------------------------------------------------------------


def _attempts(bench: Bench) -> set[str]:
    """Names of the attempts that have written something, and of the files of progress."""
    with suppress(OSError):
        return {path.name for path in (bench.out / ".attempts").iterdir() if path.is_dir() or path.suffix == ".json"}
    return set()


def _working(bench: Bench, command: Command) -> bool:
    """Wait until stages are done, and then a random while; whether the command still works."""
    while command.process.poll() is None and not _attempts(bench):
        time.sleep(0.01)
    time.sleep(bench.moments.uniform(0, 0.7 * bench.seconds))
    return command.process.poll() is None


def _finished(bench: Bench, command: Command) -> str:
    """What is wrong with a command that is to finish in spite of the fault."""
    wrong = command.end()
    if not wrong and command.process.returncode:
        wrong = f"exit code {command.process.returncode}: {command.said[-300:]}"
    return wrong or ("" if bench.content() == bench.reference else "what it wrote differs")


def _dask_worker_killed(bench: Bench, count: int) -> Iterator[str]:
    """SIGKILL to a worker; another takes its place. The command goes on."""
    for _ in range(count):
        bench.forget()
        with bench_cluster(bench) as cluster:
            command = Command(bench)
            if _working(bench, command):
                number = bench.moments.randrange(2)
                cluster.workers[number].kill()
                cluster.workers[number].wait()
                cluster.workers[number] = cluster.start_worker(number)
            yield _finished(bench, command)


def _dask_scheduler_killed(bench: Bench, count: int) -> Iterator[str]:
    """SIGKILL to the scheduler: one line. With another scheduler the same command finishes."""
    for _ in range(count):
        bench.forget()
        wrong = ""
        with bench_cluster(bench) as cluster:
            command = Command(bench)
            if _working(bench, command):
                cluster.scheduler.kill()
                wrong = command.refusal("--executor", "repeat the command")
            else:
                wrong = command.end()
        with bench_cluster(bench):
            yield wrong or bench.finish()


def _dask_partition(bench: Bench, count: int) -> Iterator[str]:
    """The link of a worker is cut while it does a stage. A try counts if another one did the stage, too."""
    done = 0
    while done < count:
        bench.forget()
        with bench_cluster(bench, apart=True) as cluster:
            seen: set[str] = set()
            command = Command(bench)
            while command.process.poll() is None and len(_attempts(bench)) < 2:  # two stages have told how far they are
                time.sleep(0.01)
            time.sleep(bench.moments.uniform(0, 2))
            link = bench.moments.choice(cluster.links)
            link.cut(off=True)
            cut = time.monotonic()
            while command.process.poll() is None:
                seen |= _attempts(bench)
                if cut and time.monotonic() - cut > SECONDS_CUT:
                    link.cut(off=False)
                    cut = 0.0
                time.sleep(0.005)
            wrong = _finished(bench, command)
        if wrong or len([name for name in seen if not name.endswith(".json")]) > 4:  # more attempts than stages
            done += 1
            yield wrong


def _rank_killed(bench: Bench, count: int) -> Iterator[str]:
    """SIGKILL to a rank: torchrun ends the other one; the same command resumes it."""
    yield from _torchrun(bench, count, lambda command: os.kill(bench.moments.choice(_ranks(bench)), signal.SIGKILL))


def _torchrun_stopped(bench: Bench, count: int) -> Iterator[str]:
    """SIGINT to torchrun; the same command resumes it."""
    yield from _torchrun(bench, count, lambda command: command.process.send_signal(signal.SIGINT))


def _torchrun(bench: Bench, count: int, strike: Callable[[Command], None]) -> Iterator[str]:
    for _ in range(count):
        bench.forget()
        command = Command(bench)
        if _working(bench, command):
            with suppress(ProcessLookupError, IndexError):  # it ended in this moment
                strike(command)
        wrong = command.end().replace("a traceback", "")  # torchrun's own, of the ranks that ended
        deadline = time.monotonic() + 5
        while (left := _ranks(bench)) and time.monotonic() < deadline:
            time.sleep(0.01)
        wrong = wrong or ("left: a rank" if left else "")
        yield wrong or bench.finish()


def _ranks(bench: Bench) -> list[int]:
    """Processes of the ranks of this run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
            if str(bench.out).encode() in words and b"\0RANK=" in b"\0" + Path("/proc", pid, "environ").read_bytes():
                found.append(int(pid))
    return found


FAULTS: dict[str, tuple[str, Callable[[Bench, int], Iterator[str]]]] = {
    "Dask: worker killed": (DASK, _dask_worker_killed),
    "Dask: scheduler killed": (DASK, _dask_scheduler_killed),
    "Dask: partition": (APART, _dask_partition),
    "torchrun: rank killed": (TORCHRUN, _rank_killed),
    "torchrun: Ctrl-C": (TORCHRUN, _torchrun_stopped),
}

if __name__ == "__main__":
    main()
