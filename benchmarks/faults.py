"""What a study survives: killed, stopped, without room, with lost or changed files. Prints the table of docs/reliability.md.

    python benchmarks/faults.py [--faults NAMES] [--tries N] [--out benchmarks/results/faults.json]

The study is `notbugs split` on 60 images of digits in a folder, 2 workers, 4 stages; `attack` and `files` are killed, too, on
the same images. Each fault strikes at a moment drawn at random. Then the same command resumes the run, until it is finished:
its tables, models and images are compared with those of a run that nothing disturbed. A try is lost if anything differs, if a
traceback was printed, if a process was left a second later, or if the command said nothing of what it met. Linux; the full and
the read-only disk need root, for a small tmpfs of their own.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

TRAINING = ("--epochs=1", "--width=4")
OPTIONS = {
    "split": (*TRAINING, "--epsilon=0.5", "--workers=2"),
    "attack": ("--epsilon=0.5", "--workers=2"),
    "files": (*TRAINING, "--epsilon=0.5", "--workers=2"),
}
MODEL = "model.safetensors"  # that is attacked
TRAIN, TEST = 60, 20  # images
SECONDS_TO_END = 1.0  # after a fault that ends the command, for its processes
HANG = 10  # times as long as an undisturbed run, without an end
NOBODY = 65534
TRIES = {"parent killed": 50, "worker killed": 20, "attack killed": 20, "files killed": 20, "disk full": 12}
FEW = 4  # tries of the others
UNTIMED = ("seconds",)  # columns that differ from run to run


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    found.add_argument("--tries", type=int, help="of each fault; default: 50 of `parent killed`, 20 of `worker killed`, ...")
    found.add_argument("--seed", type=int, default=0, help="of the moments")
    return found


def main() -> None:
    """Strike, go on, compare."""
    options = parser().parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # commands inherit that nohup ignores it
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # for the user without rights
        bench = Bench(Path(place), random.Random(options.seed))
        bench.make_images()
        bench.undisturbed()
        results = ResultsFile(options.out)
        for part, of_part in (("faults", {*FAULTS} - {*OTHERS}), ("other commands", {*OTHERS})):
            names = [name for name in options.faults if name in of_part]
            rows = (row for name in names for row in bench.rows(name, options.tries or TRIES.get(name, FEW)))
            words = [word for name in (["split"] if part == "faults" else OTHERS.values()) for word in OPTIONS[name]]
            arguments = {**recorded_arguments(options), "faults": names, "options": words}
            if names:
                measure(results, part, rows, arguments, key=("part", "fault"))


# ---- a command ---------------------------------------------------------------------------------------------------------------


class Command:
    """A running command in a session of its own: what it says, and its processes."""

    def __init__(self, bench: "Bench", *prefix: str, **environment: str) -> None:
        words = [*prefix, *bench.program, *bench.words]
        self.bench, self.began, self.went_on, self.said = bench, time.monotonic(), 0.0, ""
        self.process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=bench.place,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if not self.went_on and ("estimated" in line or line.startswith("done:")):
                self.went_on = time.monotonic() - self.began
            self.said += line

    def wait_until(self, seconds: float) -> bool:
        """Whether it still works so many seconds after it began."""
        while self.process.poll() is None and time.monotonic() - self.began < seconds:
            time.sleep(0.005)
        return self.process.poll() is None

    def wait_for_handlers(self) -> bool:
        """Whether it has said what signals do, which takes Python a quarter of a second; before that they end it as they do."""
        status = Path(f"/proc/{self.process.pid}/status")
        while self.process.poll() is None:
            caught = next((int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("SigCgt")), 0)
            if caught >> (signal.SIGTERM - 1) & 1:
                return True
            time.sleep(0.005)
        return False

    def processes(self) -> list[int]:
        """All that it started, and itself, but for zombies."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                state, _, _, leader = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):  # ended meanwhile
                continue
            if int(leader) == self.process.pid and state != "Z":
                found.append(int(pid))
        return found

    def end(self) -> str:
        """Wait for its end; what is wrong with it, "" if nothing is."""
        try:
            self.process.wait(HANG * max(self.bench.seconds, 60))
        except subprocess.TimeoutExpired:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            return "it hung"
        deadline = time.monotonic() + SECONDS_TO_END
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.005)
        names = [said_of(pid) for pid in left]
        for pid in left:
            with suppress(ProcessLookupError):  # it ended late
                os.kill(pid, signal.SIGKILL)
        self.reader.join()
        return f"left: {'; '.join(names)}" if left else "a traceback" if "Traceback" in self.said else ""

    def refusal(self, *words: str) -> str:
        """What is wrong with it if it is to end with one line that has these words."""
        wrong = self.end()
        lines = [line for line in self.said.splitlines() if line.startswith("notbugs: ")]
        if not wrong and (self.process.returncode != 2 or not lines or not all(word in lines[-1] for word in words)):
            wrong = f"exit code {self.process.returncode}: {self.said[-300:]}"
        return wrong


def said_of(pid: int) -> str:
    """State and command of a process."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return f"{state} {Path(f'/proc/{pid}/cmdline').read_text().replace(chr(0), ' ')[:120]}"
    except OSError:
        return "ended late"


@dataclass
class Bench:
    """The study, or another command, that is struck.

    Attributes
    ----------
    place : Path
        A folder for everything.
    moments : random.Random
    reference : dict
        What an undisturbed run has written.
    seconds : float
        That it took.
    times : list
        Seconds until what was stopped went on.
    command : str
        Of OPTIONS.
    """

    place: Path
    moments: random.Random
    reference: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    command: str = "split"

    @property
    def source(self) -> Path:
        """The images."""
        return self.place / "images"

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.place / "runs" / self.command

    @property
    def program(self) -> tuple[str, ...]:
        """What executes the command."""
        return (sys.executable, "-m", "notbugs")

    @property
    def words(self) -> list[str]:
        """The command."""
        model = [MODEL] if self.command == "attack" else []
        return [self.command, *model, str(self.source), *OPTIONS[self.command], "--out", str(self.out)]

    def make_images(self) -> None:
        """Digits as files, by part and class."""
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        for row in range(TRAIN + TEST):
            part = "train" if row < TRAIN else "test"
            path = self.source / part / f"digit {digits.target[row]}" / f"{row:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 255 / 16).astype("uint8")).save(path)

    def undisturbed(self) -> None:
        """Run it once, to compare with."""
        began = time.monotonic()
        if wrong := self.finish():
            raise RuntimeError(wrong)
        self.seconds, self.reference = time.monotonic() - began, self.content()
        self.times.clear()

    def forget(self) -> None:
        """Begin again with no run."""
        shutil.rmtree(self.out, ignore_errors=True)

    def finish(self, *prefix: str, **environment: str) -> str:
        """Go on until the run is finished; what is wrong with that, "" if nothing is."""
        command = Command(self, *prefix, **environment)
        wrong = command.end()
        if command.went_on:
            self.times.append(command.went_on)
        if not wrong and command.process.returncode != 0:
            wrong = f"exit code {command.process.returncode}: {command.said[-300:]}"
        return wrong or ("what it wrote differs" if self.reference and self.content() != self.reference else "")

    def content(self) -> dict[str, object]:
        """What a run has written, but for times: its stages, tables, models and images."""
        metadata = json.loads((self.out / "run.json").read_text())
        found: dict[str, object] = {"stages": sorted(metadata["stages"])}
        for path in self.out.glob("tables/*.csv"):
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [{name: cell for name, cell in row.items() if name not in UNTIMED} for row in csv.DictReader(stream)]
            found[path.name] = sorted(map(repr, rows))
        others = ("models/*.safetensors", "datasets/*/**/*", "pictures/*", "explorer/*")
        for path in (path for pattern in others for path in self.out.glob(pattern)):
            if path.is_file() and path.name != "README.md":  # which says how long it took
                found[str(path.relative_to(self.out))] = path.read_bytes()
        if left := [path.name for path in (*self.out.rglob("*.part"), *self.out.glob(".attempts"))]:
            found["half written"] = left
        return found

    def moment(self, least: float = 0.0) -> float:
        """Seconds after the start of a command."""
        return self.moments.uniform(least, self.seconds)

    def rows(self, name: str, tries: int) -> Iterator[Row]:
        """Strike so often."""
        return self.strike(name, FAULTS[name], tries)

    def strike(self, name: str, fault: "Callable[[Bench, int], Iterator[str]]", tries: int) -> Iterator[Row]:
        """After each try its row, which replaces the last one: a benchmark that is stopped keeps what it has."""
        self.times = []
        self.forget()
        lost = 0
        for number, wrong in enumerate(fault(self, tries)):
            if wrong:
                print(f"{name}: {wrong}", file=sys.stderr)
            lost += bool(wrong)
            found: Row = {"fault": name, "tries": number + 1, "lost": lost}
            if self.times:
                found |= {"median_seconds_to_go_on": statistics.median(self.times), "largest_seconds_to_go_on": max(self.times)}
            yield found


# ---- faults: each yields what was wrong in a try -----------------------------------------------------------------------------


def _ended(strike: Callable[[Bench, Command], str]) -> Callable[[Bench, int], Iterator[str]]:
    """A fault that ends the command at any moment. The same run is struck until it is finished, then a new one."""

    def tries(bench: Bench, count: int) -> Iterator[str]:
        done = 0
        while done < count:
            command = Command(bench)
            working = command.wait_until(bench.moment())
            wrong = strike(bench, command) if working else command.end()
            if command.went_on:
                bench.times.append(command.went_on)
            if not working:  # it was faster than the fault
                wrong = wrong or bench.finish()
                bench.forget()
                if wrong:
                    yield wrong
                continue
            done += 1
            if done == count:
                wrong = wrong or bench.finish()
            yield wrong

    return tries


def _kill_parent(bench: Bench, command: Command) -> str:
    command.process.kill()
    return command.end()


def _kill_worker(bench: Bench, command: Command) -> str:
    """Any of its processes: a worker, the server that they are forked from, the tracker of resources."""
    while command.process.poll() is None:
        if others := [pid for pid in command.processes() if pid != command.process.pid]:
            os.kill(bench.moments.choice(others), signal.SIGKILL)
            break
        time.sleep(0.005)
    wrong = command.end()
    known = command.process.returncode == 0 or (command.process.returncode == 2 and "its process " in command.said)
    return wrong or ("" if known else f"exit code {command.process.returncode}: {command.said[-300:]}")


def _other(command: str) -> Callable[[Bench, int], Iterator[str]]:
    """Kills of another command than `split`."""

    def tries(bench: Bench, count: int) -> Iterator[str]:
        other = replace(bench, command=command, reference={})
        if command == "attack":
            words = ["train", str(bench.source), *TRAINING, "--out", MODEL]
            subprocess.run([sys.executable, "-m", "notbugs", *words], cwd=bench.place, check=True, capture_output=True)
        other.undisturbed()
        other.forget()
        yield from _ended(_kill_parent)(other, count)

    return tries


def _stop(*numbers: int, seconds_between: float = 0.1) -> Callable[[Bench, Command], str]:
    """Signals to all processes of a terminal, as Ctrl-C and its end send them."""

    def strike(bench: Bench, command: Command) -> str:
        command.wait_for_handlers()
        for number in numbers:
            if command.process.poll() is None:
                os.killpg(command.process.pid, number)
            time.sleep(bench.moments.uniform(0, seconds_between) if number != numbers[-1] else 0)
        struck = time.monotonic()
        wrong, code = command.end(), command.process.returncode
        finished = code == 0 and time.monotonic() - struck < SECONDS_TO_END  # the signal came while it ended by itself
        known = finished or ((code in (0, 130) or -code in numbers) and "stopped." in command.said)
        return wrong or ("" if known else f"exit code {code}: {command.said[-300:]}")

    return strike


def _tmpfs(bench: Bench, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(bench.out.parent)], check=True)


def _disk_full(bench: Bench, count: int) -> Iterator[str]:
    """A disk of a part of the size that the run needs; then there is room."""
    size = sum(path.stat().st_blocks * 512 for path in bench.out.rglob("*")) if bench.out.exists() else 0
    bench.finish()
    size = max(size, sum(path.stat().st_blocks * 512 for path in bench.out.rglob("*")))
    for number in range(count):
        bench.forget()
        _tmpfs(bench, f"size={max(4096, size * (number + 1) // (count + 1))}")
        try:
            command = Command(bench)
            wrong = command.refusal()
            if command.process.returncode == 0:  # there was room enough
                wrong = ""
            subprocess.run(["mount", "-o", "remount,size=64m", str(bench.out.parent)], check=True)
            yield wrong or bench.finish()
        finally:
            subprocess.run(["umount", str(bench.out.parent)], check=True)


def _read_only(bench: Bench, count: int) -> Iterator[str]:
    """A disk that becomes read-only while the run works, or was so before; then it can be written."""
    for number in range(count):
        bench.forget()
        _tmpfs(bench, "size=64m")
        try:
            command = Command(bench) if number else None
            if command and command.wait_until(bench.moment()):
                command.process.kill()
            if command:
                command.end()
            subprocess.run(["mount", "-o", "remount,ro", str(bench.out.parent)], check=True)
            wrong = Command(bench).refusal(str(bench.out))
            subprocess.run(["mount", "-o", "remount,rw", str(bench.out.parent)], check=True)
            yield wrong or bench.finish()
        finally:
            subprocess.run(["umount", str(bench.out.parent)], check=True)


def _interrupted(bench: Bench) -> None:
    """A run that was killed, with at least one constructed set."""
    while True:
        bench.forget()
        command = Command(bench)
        while command.process.poll() is None and not list(bench.out.glob("datasets/*")):
            time.sleep(0.002)
        command.process.kill()
        command.end()
        if (bench.out / "run.json").exists():
            return


def _image(change: Callable[[Path], object]) -> Callable[[Bench, int], Iterator[str]]:
    """An image of the input that is deleted or changed after a kill; then it is as it was."""

    def tries(bench: Bench, count: int) -> Iterator[str]:
        for _ in range(count):
            _interrupted(bench)
            path = bench.moments.choice(sorted(bench.source.rglob("*.png")))
            content = path.read_bytes()
            change(path)
            wrong = Command(bench).refusal("must hold the same images")
            path.write_bytes(content)
            yield wrong or bench.finish()

    return tries


def _replace(path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8), 77).save(path)


def _set_lost(bench: Bench, count: int) -> Iterator[str]:
    """A constructed set or a model of an unfinished run that is taken away; then it is there again."""
    for _ in range(count):
        _interrupted(bench)
        marks = json.loads((bench.out / "run.json").read_text())["stages"]
        names = [name.partition("/")[2].removeprefix("dataset-") for name in marks if "/" in name]
        places = [*bench.out.glob("datasets/[!.]*"), *bench.out.glob("models/*.safetensors")]
        place = bench.moments.choice([each for each in places if each.stem in names] or places)
        away = bench.place / "away"
        place.rename(away)
        command = Command(bench)
        wrong = command.end()
        if not wrong and str(place.name) not in command.said and place.stem in names:
            wrong = f"not named: {place.name}: {command.said[-300:]}"
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        away.rename(place)
        yield wrong or bench.finish()


def _twice(bench: Bench, count: int) -> Iterator[str]:
    """The same command a second time while the first one works."""
    for _ in range(count):
        bench.forget()
        first = Command(bench)
        while first.process.poll() is None and not (bench.out / "run.json").exists():
            time.sleep(0.005)
        second = Command(bench)
        wrong = second.refusal("which another run is writing") or first.end()
        yield wrong or bench.finish()


def _clock(bench: Bench, count: int) -> Iterator[str]:
    """Years forward and back between the start and the going on, and an hour within each."""
    library = next(iter(sorted(Path("/usr/lib").rglob("libfaketime.so.1"))), None)
    if library is None:
        print("clock jumps: no libfaketime", file=sys.stderr)
        return
    file = bench.place / "clock"
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    for number in range(count):
        bench.forget()
        file.write_text("+3650d" if number % 2 else "-3650d")
        command = Command(bench, **faked)
        if command.wait_until(bench.moment()):
            file.write_text("+3649d" if number % 2 else "-3649d")
            time.sleep(0.5)
            command.process.kill()
        wrong = command.end()
        file.write_text("-3650d" if number % 2 else "+3650d")
        yield wrong or bench.finish(**faked)


def _nobody(bench: Bench, count: int) -> Iterator[str]:
    """A user without rights: refused in a folder of somebody else, killed and going on in one of their own."""
    home = bench.place / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    # may read everything, as Python may be in a folder of root
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reads)
    for _ in range(count):
        bench.forget()
        bench.out.parent.mkdir(exist_ok=True)
        os.chown(bench.out.parent, 0, 0)
        wrong = Command(bench, *prefix, HOME=str(home)).refusal("--out")
        os.chown(bench.out.parent, NOBODY, NOBODY)
        command = Command(bench, *prefix, HOME=str(home))
        if command.wait_until(bench.moment()):
            command.process.kill()
        wrong = wrong or command.end()
        yield wrong or bench.finish(*prefix, HOME=str(home))
    os.chown(bench.out.parent, os.getuid(), os.getgid())


OTHERS = {"attack killed": "attack", "files killed": "files"}
FAULTS: dict[str, Callable[[Bench, int], Iterator[str]]] = {
    "parent killed": _ended(_kill_parent),
    "worker killed": _ended(_kill_worker),
    "terminal closed": _ended(_stop(signal.SIGHUP)),
    "Ctrl-C": _ended(_stop(signal.SIGINT)),
    "Ctrl-C twice": _ended(_stop(signal.SIGINT, signal.SIGINT)),
    "Ctrl-C, then TERM": _ended(_stop(signal.SIGINT, signal.SIGTERM)),
    "TERM to all": _ended(_stop(signal.SIGTERM)),
    "disk full": _disk_full,
    "disk read-only": _read_only,
    "input deleted": _image(Path.unlink),
    "input changed": _image(_replace),
    "result deleted": _set_lost,
    "two at once": _twice,
    "clock jumps": _clock,
    "user without rights": _nobody,
    **{name: _other(command) for name, command in OTHERS.items()},
}

if __name__ == "__main__":
    main()
