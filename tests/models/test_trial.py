"""Programs are first run in a process of their own: what ends it is refused in one line."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fuzz.guard import in_a_fork
from torch import Tensor, nn

from notbugs.data import Dataset
from notbugs.models import trial
from notbugs.models.by_name import classifier_by_name
from notbugs.models.finetune import build_from
from notbugs.models.torch_files import Program
from notbugs.models.trial import BEGUN, DONE, NO_MEMORY, Trial, check_runs

Raises = Callable[[str], AbstractContextManager[None]]
REAL = trial._run


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A TorchScript file that runs."""
    path = tmp_path / "m.torchscript"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(2, 1, 8, 8)).save(str(path))  # type: ignore[no-untyped-call]
    return path


class _Ends(nn.Module):
    """Stands in for a damaged program: it ends its process."""

    def __init__(self, how: Callable[[], object]) -> None:
        super().__init__()
        self.how = how

    def forward(self, images: Tensor) -> Tensor:
        self.how()
        return images.flatten(1)[:, :2]


def short_of_memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1000000000000 bytes")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), r"one that ended its process with signal 11 \(SIGSEGV\)"),
        (lambda: os.kill(os.getpid(), signal.SIGXCPU), "one that takes more than 60 s for 2 images"),
        (short_of_memory, "one that takes more than 1 GB to load, or 4 GB for 2 images"),
        (lambda: os._exit(3), "one that ended its process with exit code 3"),
    ],
)
def test_a_program_that_ends_its_process_is_refused(
    how: Callable[[], object], says: str, program: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises
) -> None:
    monkeypatch.setattr(trial, "_run", in_a_fork)
    monkeypatch.setattr(trial.torch_files, "load_file", lambda path: Program(_Ends(how), None, ""))
    with raises_one_line(rf"m.torchscript: must be a program that runs to its end: it is damaged or malicious, got {says}; exp"):
        check_runs(program, (1, 8, 8), 2)


def test_memory_is_limited(program: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises) -> None:
    monkeypatch.setattr(trial, "_run", in_a_fork)
    monkeypatch.setattr(trial, "MEMORY", 2**28)
    # more than this process may have freed and kept, which a fork of it would be given without asking the system
    hungry = _Ends(lambda: torch.empty(2**32, dtype=torch.uint8))
    monkeypatch.setattr(trial.torch_files, "load_file", lambda path: Program(hungry, None, ""))
    with raises_one_line("got one that takes more than 1 GB to load, or 0.25 GB for 2 images"):
        check_runs(program, (1, 8, 8), 2)


def test_each_content_is_tried_once_and_workers_trust_it(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[Trial]()
    monkeypatch.setattr(trial, "_run", lambda given: (tried.append(given), (0, BEGUN + DONE))[1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(trial._Passed, "trials", set())
    part = Dataset(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2), ("cat", "dog"), ("a", "b"))
    for _ in range(2):
        classifier_by_name(str(program), classes=part.classes, part=part)
    assert tried == [Trial(str(program), (1, 8, 8), 2)]
    check_runs(program, (3, 8, 8), 2)
    program.write_bytes(program.read_bytes() + b" ")
    check_runs(program, (1, 8, 8), 2)
    assert len(tried) == 3
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace())
    check_runs(program, (1, 16, 16), 2)
    assert len(tried) == 3


def test_what_python_can_say_is_left_to_the_caller(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_run", in_a_fork)
    check_runs(program, (3, 9, 9), 5)  # for other images
    program.write_bytes(program.read_bytes()[:-500])
    check_runs(program, (), 2)


def test_no_process_no_trial(program: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises) -> None:
    monkeypatch.setattr(trial, "_run", REAL)
    monkeypatch.setattr(trial.sys, "executable", "/none")
    with raises_one_line("m.torchscript: needs a process of its own, in which it is tried, got .*No such file"):
        check_runs(program, (1, 8, 8), 2)
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    with raises_one_line("got none that could be tried: Python did not start in a process of its own"):
        check_runs(program, (1, 8, 8), 2)
    monkeypatch.setattr(trial, "WAIT", 0)
    monkeypatch.setattr(trial.sys, "executable", "/bin/cat")
    assert trial._ended_by(*trial._run(Trial(str(program), (1, 8, 8), 2))) == "one that takes more than 60 s for 2 images"
    assert trial._ended_by(0, BEGUN + NO_MEMORY).startswith("one that takes more than 1 GB")


def test_networks_to_train_further_are_no_programs(
    program: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises
) -> None:
    monkeypatch.setattr(trial.torch_files, "load_file", lambda path: pytest.fail("it is refused before it is loaded"))
    with raises_one_line("--robust-model: must hold weights, which can be trained further, got .*m.torchscript, TorchScript"):
        build_from(str(program), network="small", shape=(1, 8, 8), classes=2)


@pytest.mark.slow
def test_the_process_itself(program: Path) -> None:
    assert REAL(Trial(str(program), (1, 8, 8), 2)) == (0, BEGUN + DONE)
