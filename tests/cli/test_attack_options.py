"""--mask, --target, --only-class, limits of channels, --mean, --std and --range: what commands say of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import call_here, error_line
from prototypes import prototype_classifier

from notbugs import audit, data, models
from notbugs.audit.gate import evaluate
from notbugs.cli.attack_summary import print_audit
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow

MODULE = """
from torch import nn
from prototypes import prototype_classifier
from notbugs import data
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rest = prototype_classifier(data.load("digits").train, list(range(10)))
    def forward(self, images): return self.rest((images + 1) / 2)
def net(classes): return Net()
"""
NET = "centered_net:net"  # takes pixels from -1 to 1
RANGE = ["--range", "-1,1"]
SAID = f"Model {NET}: it gets pixels from -1 to 1, as you say."


@pytest.fixture
def folder(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    models.save(prototype_classifier(digits.train, list(range(10))), tmp_path / "m.safetensors")
    (tmp_path / "centered_net.py").write_text(MODULE)
    np.save("half.npy", np.arange(64).reshape(8, 8) % 8 < 4)
    np.save("other.npy", np.ones((9, 9)))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "words", "says"),
    [
        ("m.safetensors", ["--mask", "none.png"], "--mask: no such file, got none.png"),
        ("m.safetensors", ["--mask", "other.npy"], "--mask: must have the size of the images, 8x8 pixels"),
        ("m.safetensors", ["--mask", "half.npy", "--epsilon", "spatial:5,1"], "--mask: has no meaning for rotations"),
        ("m.safetensors", ["--epsilon", "linf:0.1,0,0"], "one for each of the 1 channels of the images, got 3 limits"),
        ("m.safetensors", ["--target", "cat"], "--target: must be a class of digits, random or least-likely"),
        ("m.safetensors", ["--target", "none.csv"], "--target: no such file, got none.csv"),
        ("m.safetensors", ["--only-class", "cat"], "--only-class: must be a class of digits"),
        (
            "m.safetensors",
            ["--mean", "0.5"],
            "--mean, --std, --range: must be left out: m.safetensors states its own normalization",
        ),
        (NET, ["--mean", "0.5,x"], "--mean: must be numbers with commas between them"),
        (NET, ["--mean", "0.5,0.5"], "--mean: must have one value, or one for each of the 1 or 3 channels, got 2"),
        (NET, ["--std", "0"], "--std: must be above 0"),
        (NET, ["--range", "255"], "--range: must be two different numbers"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_any_work(folder: Path, model: str, words: list[str], says: str) -> None:
    given = [] if "--epsilon" in words else ["--epsilon", "l2:0.5"]
    assert says in error_line(call_here("attack", model, "digits", *given, *words, "--out", "run"))
    assert not Path("run").exists()


def test_a_targeted_success_rate_stands_below_the_robust_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {"n": 50, "correct_by_minimum_norm": 41, "target": "3"}
    clean = AuditAccuracyRow(
        threat="clean", norm="", epsilon=0.0, correct=45, accuracy=0.9, ci_low=0.79, ci_high=0.96, attack="none",
        correct_8bit=None, reached=1, success_rate=0.02, success_ci_low=0.0, success_ci_high=0.1, **common,
    )  # fmt: skip
    attacked = AuditAccuracyRow(
        threat="l2 0.5, target 3", norm="l2", epsilon=0.5, correct=40, accuracy=0.8, ci_low=0.67, ci_high=0.89, attack="all",
        correct_8bit=41, reached=6, success_rate=0.12, success_ci_low=0.06, success_ci_high=0.24, reached_8bit=5, **common,
    )  # fmt: skip
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as run:
        run.record_stage("all", 1.0, [clean, attacked])
        run.update_metadata(conditions=["Only images of these classes are attacked: 8. Every class may be predicted"])
    print_audit(run, evaluate(audit.AuditConfig("m.onnx", data.DataConfig("digits")), run))
    assert capsys.readouterr().out.splitlines() == [
        "Only images of these classes are attacked: 8. Every class may be predicted.",
        "clean             90.0 %  [79.0, 96.0]   45 of 50  none",
        "  without an attack classified as their target 2.0 %  [0.0, 10.0]  1 of 50",
        "l2 0.5, target 3  80.0 %  [67.0, 89.0]   40 of 50 (stored in 8 bits: 41)  all",
        "  targeted success rate 12.0 %  [6.0, 24.0]  6 of 50 (stored in 8 bits: 5)",
    ]


@pytest.mark.slow
def test_an_attack_with_all_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules[f"{audit.__name__}.run"], "run_checks", lambda config, report_progress: []
    )  # they take longest
    quick = ["--budget", "quick", "--images", 8, "--workers", 1]
    words = ["--mask", "half.npy", "--target", "3", "--only-class", "3", "--only-class", "8", *RANGE]
    done = call_here("attack", NET, "digits", "--epsilon", "l2:1", *quick, *words)
    assert done.returncode == 0 and SAID in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" is half.npy: 32 of 64 pixels may change.")[0][:5] for line in lines if "half.npy" in line] == [
        "Mask "
    ]
    assert "Only images of these classes are attacked: 3, 8. Every class may be predicted." in lines
    assert lines[-2].startswith("l2 1, mask ") and ", target 3 " in lines[-2] and " of 8 " in lines[-2]
    assert lines[-1].startswith("  targeted success rate ") and "8 of 10 classes" not in done.stderr


@pytest.mark.slow
def test_the_other_commands_on_a_model_take_its_preprocessing_and_masks(folder: Path) -> None:
    mask, classes = ["--mask", "half.npy"], ["--only-class", "3", "--only-class", "8"]
    transfer = ["--against", "nearest-neighbors", "--epsilon", "0.5", "--images", 20, "--workers", 1, *mask, *classes]
    for words in (
        ("features", NET, "digits", "--epsilon", "0.5", "--sample", "2", "--steps", "0", "--layer", "network.rest", *mask),
        ("transfer", NET, "digits", *transfer),
        ("explain", NET, "digits"),
        ("corruptions", NET, "digits"),
    ):
        done = call_here(*words, "--limit", "400", *RANGE)
        assert done.returncode == 0 and SAID in done.stderr and "trusted" not in done.stderr, done.stderr
        assert ("is half.npy: 32 of 64 pixels may change." in done.stdout) == ("half.npy" in words)
        assert ("Only images of these classes are attacked: 3, 8." in done.stdout) == ("3" in words)


def test_what_is_said_of_a_model_is_refused_for_a_study() -> None:
    for words, names in ((RANGE, "--range"), (["--network", "timm:tiny", "--mean", "0.5"], "--network, --mean")):
        said = error_line(call_here("explain", "runs/none", *words))
        assert said.startswith(f"notbugs: {names}: can only be used with a MODEL and a DATASET")
