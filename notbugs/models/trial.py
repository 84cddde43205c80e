"""A program of TorchScript or torch.export is first run in a process of its own: a damaged or malicious one can end a process."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import torch_files
from notbugs.models.adapt import adapt, settled
from notbugs.models.reading import Reading

LOADED = 2**30  # bytes to load a program, as any file may expand to, beside EXPANDED times the file
MEMORY = 2**32  # the same to run it, too
EXPANDED = 8  # weights while they are loaded
SECONDS = 60  # of CPU time: loading PyTorch takes two
WAIT = 600  # of wall time, on a busy machine
IMAGES = 2
BEGUN, DONE, NO_MEMORY = b"begun ", b"done", b"memory"
CODE = """
import sys
sys.path[:] = sys.argv[2:]
from notbugs.parent import end_with_parent
end_with_parent(int(sys.argv[1]))
from notbugs.models.trial import serve
serve()
"""


class Trial(NamedTuple):
    """What is tried.

    Attributes
    ----------
    path : str
        The program's file.
    shape : tuple of int, (C, H, W)
        Of the images that it will get. Empty: it is loaded, but not run.
    classes : int
    """

    path: str
    shape: tuple[int, ...]
    classes: int


class _Passed:
    """What has run to its end in this process, by the SHA-256 of its file."""

    trials: set[tuple[str, Trial]] = set()  # noqa: RUF012  # one for the process


def check_runs(path: Path, shape: Sequence[int], classes: int) -> None:
    """Load a program and run it on two images in another process, with their gradients; once for each content of the file.

    Workers of a study do not repeat it: the command that started them has tried the program.

    Parameters
    ----------
    path : Path
    shape : sequence of int, (C, H, W), or empty
        Empty: it is loaded, but not run.
    classes : int

    Raises
    ------
    InputError
        If the process ended before the program did, or the program takes too much memory or time. What else is wrong with the
        program, the caller sees without harm.
    """
    if multiprocessing.parent_process() is not None:
        return
    trial = Trial(str(path), tuple(shape), classes)
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest(), trial
    if key not in _Passed.trials:
        got = _ended_by(*_run(trial))
        if got:
            rule = "must be a program that runs to its end: it is damaged or malicious"
            raise InputError(str(path), rule, got, "export it again, from a network that you trust")
        _Passed.trials.add(key)


def _run(trial: Trial) -> tuple[int | None, bytes]:
    """Try it in a new process: its exit code, None if it took too long, and what it said."""
    command = [sys.executable, "-P", "-c", CODE, str(os.getpid()), *sys.path]
    given = "\0".join([trial.path, str(trial.classes), *map(str, trial.shape)]).encode("utf-8", "surrogateescape")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0,  # Ctrl-C does not reach it: it ends with this process
            timeout=WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, BEGUN
    except OSError as error:
        raise InputError(trial.path, "needs a process of its own, in which it is tried", str(error)) from None
    return done.returncode, done.stdout


def _ended_by(code: int | None, said: bytes) -> str:
    """What ended the process before the program did; empty if it ran to its end.

    Examples
    --------
    >>> _ended_by(0, b"begun done"), _ended_by(-11, b"begun ")
    ('', 'one that ended its process with signal 11 (SIGSEGV)')
    """
    if code == 0 and said.endswith(DONE):
        return ""
    if not said.startswith(BEGUN):
        return f"none that could be tried: Python did not start in a process of its own (exit code {code})"
    if said.endswith(NO_MEMORY):
        return f"one that takes more than {LOADED / 2**30:g} GB to load, or {MEMORY / 2**30:g} GB for {IMAGES} images"
    if code is None or (hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU):
        return f"one that takes more than {SECONDS} s for {IMAGES} images"
    if code < 0:
        named = {each.value: each.name for each in signal.Signals}
        return f"one that ended its process with signal {-code} ({named.get(-code, 'unknown')})"
    return f"one that ended its process with exit code {code}"


# ---- in the process ----------------------------------------------------------------------------------------------------------


def serve() -> None:
    """In the process: try what the standard input names."""
    path, classes, *shape = os.fsdecode(sys.stdin.buffer.read()).split("\0")
    torch.set_num_threads(1)
    attempt(Trial(path, tuple(map(int, shape)), int(classes)), sys.stdout.fileno())


def attempt(trial: Trial, output: int) -> None:
    """Load and run a program, within limits. What Python can raise is left to the process that asked.

    Parameters
    ----------
    trial : Trial
    output : int
        The descriptor of the file to which is written how far it came.
    """
    os.write(output, BEGUN)
    try:
        _use(trial)
    except (Exception, _NoMemory) as error:
        if _is_of_memory(error):
            os.write(output, NO_MEMORY)
            return
    os.write(output, DONE)


def _use(trial: Trial) -> None:
    """What a command does with a program: how it takes images is found out, and gradients are computed."""
    size = os.path.getsize(trial.path)
    _limit(LOADED + EXPANDED * size)
    program = torch_files.load_file(Path(trial.path))
    _limit(MEMORY + EXPANDED * size)
    if not isinstance(program, torch_files.Program) or not trial.shape:
        return
    network = _Watched(settled(program.network))
    images = torch.randint(256, (IMAGES, *trial.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = tuple(f"{number}.png" for number in range(IMAGES))
    part = Dataset(images, torch.zeros(IMAGES, dtype=torch.int64), tuple(map(str, range(trial.classes))), names)
    model = adapt(network, part, trial.path, Reading(batch_size=program.batch_size)).network
    search.gradients(lambda pixels: model(pixels).flatten(1)[:, :1], part.pixels(slice(None)))


class _Watched(nn.Module):
    """A program that is not tried in another way once memory was short."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> object:
        try:
            return self.program(images)
        except Exception as error:
            if _is_of_memory(error):
                raise _NoMemory from None
            raise


class _NoMemory(BaseException):  # an Exception would be caught where a network is tried
    """There was no memory for a program."""


def _is_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | _NoMemory) or any(words in str(error) for words in ("allocate memory", "bad_alloc"))


def _limit(memory: int) -> None:
    """So much more memory, and a limit of CPU time, where the system has them; no core file is written."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + SECONDS}
    if sys.platform == "linux":  # what is set aside and can be written: not the address space, of which libraries take much
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        limits[resource.RLIMIT_DATA] = 1024 * int(status.split("VmData:")[1].split()[0]) + memory
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
