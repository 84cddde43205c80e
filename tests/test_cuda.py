"""On a real GPU, skipped where torch finds none: every command, and figures close to those of a CPU. See also test_device.py."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.conftest import call_here
from test_device import ATTACKS, CALLS, as_arrays

from notbugs import cli, data, metrics, precision
from notbugs.models import Model
from notbugs.search import NormBall, objectives

pytestmark = pytest.mark.filterwarnings("default")  # of a driver or library of the machine
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

QUICK = ("--limit", 200, "--epochs", 2, "--width", 8, "--device", "cuda")
DIGITS = ("digits", "--limit", 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of digits on the GPU, and an adversarially trained model beside it."""
    folder = tmp_path_factory.mktemp("cuda")
    _check("run", "digits", "--seeds", 1, *QUICK, "--out", folder / "run")
    _check("train", "digits", "--loss", "adversarial", *QUICK, "--out", folder / "m.safetensors")
    return folder


def _check(*words: object) -> str:
    done = call_here(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


COMMANDS: dict[str, tuple[tuple[object, ...], ...]] = {
    "demo": (("demo", "--device", "cuda", "--out", "DIR/demo"),),
    "run": (
        ("run", "digits", "--replicate", "--seeds", 1, *QUICK, "--workers", 3, "--out", "DIR/replicate"),
        ("run", "planted", *QUICK, "--out", "DIR/planted"),
        ("run", "digits", "--seeds", 1, "--norm", "linf", "--no-bf16", *QUICK, "--out", "DIR/linf"),
        ("run", "digits", "--seeds", 1, "--compile", "--network", "resnet9", *QUICK, "--out", "DIR/compile"),
    ),
    "split": (
        ("split", "digits", "--versions", 2, *QUICK, "--out", "DIR/split"),
        ("split", "digits", "--by-file", "--repeats", 1, *QUICK, "--out", "DIR/halves"),
    ),
    "files": (("files", "digits", "--repeats", 1, *QUICK, "--out", "DIR/files"),),
    "train": (("train", "digits", "--loss", "trades", *QUICK, "--out", "DIR/t.safetensors"),),
    "attack": (
        (
            *("attack", "DIR/m.safetensors", *DIGITS, "--device", "cuda", "--out", "DIR/audit", "--budget", "thorough"),
            *(
                "--epsilon",
                "l2:0.5",
                "--epsilon",
                "linf:0.1",
                "--epsilon",
                "l1:2",
                "--epsilon",
                "l0:1",
                "--epsilon",
                "spatial:30,1",
            ),
        ),
    ),
    "compare": (
        ("attack", "DIR/m.safetensors", *DIGITS, "--device", "cuda", "--epsilon", "l2:0.5", "--out", "DIR/audit-2"),
        ("compare", "DIR/audit-2", "DIR/audit-2"),
    ),
    "check": (("check", "digits", "--limit", 200, "--out", "DIR/check.csv"),),
    "features": (("features", "DIR/m.safetensors", *DIGITS, "--device", "cuda", "--out", "DIR/features.csv"),),
    "transfer": (("transfer", "DIR/m.safetensors", *DIGITS, "--epochs", 1, "--device", "cuda", "--out", "DIR/transfer.csv"),),
    "explain": (("explain", "DIR/run"), ("explain", "DIR/m.safetensors", *DIGITS, "--out", "DIR/explain.csv")),
    "corruptions": (("corruptions", "DIR/run"), ("corruptions", "DIR/m.safetensors", *DIGITS, "--out", "DIR/corruptions.csv")),
    "ntk": (("ntk", "DIR/run"),),
    "review": (("review", "DIR/run"),),
    "theory": (("theory", "--out", "DIR/theory"),),
    "report": (("report", "DIR/run"),),
}


def test_no_command_is_missing() -> None:
    assert {command.callback.__name__ for command in cli.app.registered_commands if command.callback} == COMMANDS.keys()


@needs_gpu
@pytest.mark.slow
@pytest.mark.parametrize(("command", "number"), [(name, i) for name, calls in COMMANDS.items() for i in range(len(calls))])
def test_command(command: str, number: int, folder: Path) -> None:
    _check(*(str(word).replace("DIR", str(folder)) if isinstance(word, str) else word for word in COMMANDS[command][number]))


# without a generator; of the others only that they run: a GPU draws other numbers
DETERMINISTIC = ("fgsm", "pgd", "apgd targeted", "targeted pgd", "rank-targeted pgd", "clean logits")


@needs_gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_find_the_same_as_on_a_cpu(name: str, robust: Model, digits: data.Splits) -> None:
    part = data.balanced_subset(digits.train, 60)

    def run(device: str) -> Any:
        images, labels = part.pixels(slice(None)).to(device), part.labels.to(device)
        return as_arrays(ATTACKS[name](copy.deepcopy(robust).to(device), images, labels, device=device))

    with precision.full_precision():
        on_gpu, on_cpu = run("cuda"), run("cpu")
    assert len(on_gpu) == len(on_cpu)
    if name in DETERMINISTIC:
        for one, other in zip(on_gpu, on_cpu, strict=True):
            assert np.abs(one - other).mean() < 0.01


@needs_gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, robust: Model, digits: data.Splits) -> None:
    CALLS[name](copy.deepcopy(robust), data.balanced_subset(digits.train, 60), "cuda")


@needs_gpu
@pytest.mark.slow
def test_figures_are_those_of_a_cpu(robust: Model, digits: data.Splits) -> None:
    threat_models = [NormBall("l2", 0.375), NormBall("l2", 0.75)]
    on_gpu, on_cpu = (
        metrics.robust_accuracy(copy.deepcopy(robust), digits.test, threat_models, device=device) for device in ("cuda", "cpu")
    )
    assert all(abs(one.correct - other.correct) <= 2 for one, other in zip(on_gpu, on_cpu, strict=True))


@needs_gpu
@pytest.mark.slow
def test_float32_is_not_rounded_where_it_counts(robust: Model, digits: data.Splits) -> None:
    """TF32 would be off by about 1e-3."""
    images, model = digits.test.pixels(slice(0, 100)), copy.deepcopy(robust).to("cuda")
    exact = copy.deepcopy(robust).double()(images.double()).float()
    on_gpu = data.map_batches(lambda batch, _: objectives.logits(model, batch), images, device="cuda")
    assert (on_gpu - exact).abs().max() < 1e-4 * exact.abs().max()
