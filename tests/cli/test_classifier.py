"""Commands on one classifier: attack, features, transfer."""

import json
import pickle
import re
from pathlib import Path

import pytest
from cli.conftest import QUICK, call_here, error_line

from notbugs.audit import AuditConfig
from notbugs.audit.gate import evaluate
from notbugs.cli.attack_summary import print_audit
from notbugs.data import DataConfig
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow


@pytest.mark.slow
def test_train_attack_and_their_unusable_input(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    done = call_here("train", "digits", *QUICK, "--loss", "trades", "--out", model)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["clean", "l2", "l2"] and lines[-1] == str(model)
    quick = ["--limit", "100", "--budget", "quick", "--workers", "1"]
    done = call_here("attack", model, "digits", *quick, "--epsilon", "0", "--epsilon", "64/255", "--out", tmp_path / "attacked")
    assert done.returncode == 0, done.stderr
    accuracy = done.stdout.splitlines()[0]
    assert done.stderr.startswith("Data: the test part is 25% of each class") and accuracy.startswith("clean ")
    assert done.stderr.splitlines()[1].startswith("Data: --limit 100: ")
    assert "Data check: 1 finding that is not serious (" in done.stderr and "), see tables/data_check.csv." in done.stderr
    assert "stored in 8 bits" in done.stdout
    assert (tmp_path / "attacked" / "report.html").is_file()
    stored = tmp_path / "attacked" / "datasets" / "attacked-l2-64of255" / "test"
    assert len(list(stored.rglob("*.png"))) == int(accuracy.split(" of ")[1].split()[0])
    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "evil.json").write_text((tmp_path / "m.json").read_text())
    assert "is damaged" in error_line(call_here("attack", tmp_path / "evil.safetensors", "digits"))
    (tmp_path / "m.pt").write_bytes(pickle.dumps({"a": 1}))
    assert "pickles" in error_line(call_here("attack", tmp_path / "m.pt", "digits"))
    assert "no such model" in error_line(call_here("attack", tmp_path / "none.safetensors", "digits"))
    assert "shape" in error_line(call_here("attack", model, "planted"))


@pytest.mark.slow
def test_attack_takes_norm_and_epsilon_from_the_model_and_asks_if_it_has_none(tmp_path: Path) -> None:
    model = tmp_path / "linf.safetensors"
    done = call_here("train", "digits", *QUICK, "--norm", "linf", "--epsilon", "0.1", "--out", model)
    assert done.returncode == 0, done.stderr
    quick = ["--limit", "100", "--budget", "quick", "--workers", "1"]
    done = call_here("attack", model, "digits", *quick)
    assert done.returncode == 0, done.stderr
    *accuracies, checks = done.stdout.splitlines()[1:]
    assert [line.split()[:2] for line in accuracies] == [["linf", "0.05"], ["linf", "0.1"]]
    assert re.fullmatch(r"sanity checks: \d+ passed, \d+ not made \(--verbose: why\)", checks)
    assert "WARNING" not in done.stdout
    done = call_here("attack", model, "digits", *quick, "--norm", "l0", "--epsilon", "2", "--out", tmp_path / "pixels")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:2]] == [["l0", "2"]]
    for words, says in (
        (["--epsilon", "8/0"], "--epsilon: must be a number, or a fraction"),
        (["--epsilon", "l3:1"], "must start with one of linf, l2, l1, l0, spatial"),
        (["--epsilon", "spatial:30"], "DEGREES,PIXELS"),
        (["--budget", "endless"], "--budget: must be one of"),
        (["--images", "0"], "--images: must be 1 or more"),
        (["--norm", "l7"], "--norm: must be one of"),
        (["--workers", "0"], "--workers: must be 1 or more"),
        (["--norm", "l0", "--epsilon", "1.5"], "epsilon: must be a whole number of pixels in L0, got 1.5"),
    ):
        assert says in error_line(call_here("attack", model, "digits", *words))
    (tmp_path / "mine.txt").touch()
    assert "must be a new folder or an earlier run" in error_line(call_here("attack", model, "digits", "--out", tmp_path))
    words = json.loads((tmp_path / "linf.json").read_text())
    (tmp_path / "linf.json").write_text(json.dumps({"architecture": words["architecture"]}))
    chosen = call_here("attack", model, "digits", *quick).stdout
    assert re.search(r"^l2 (\S+) and half of it: it was chosen by notbugs \(--epsilon changes it\)", chosen, re.MULTILINE)
    assert call_here("attack", model, "digits", *quick, "--epsilon", "0.5").returncode == 0


def test_a_failed_check_is_a_warning_before_the_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = CheckRow(check="gradients", passed="no", observed="zero", rationale="Why.", fix="What.", threat="l2 0.5", n=100)
    row = AuditAccuracyRow(
        threat="l2 0.5", norm="l2", epsilon=0.5, correct=42, n=100, accuracy=0.42, ci_low=0.33, ci_high=0.52,
        attack="ensemble-standard v6", correct_by_minimum_norm=43, correct_8bit=42,
    )  # fmt: skip
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as run:
        run.record_stage("all", 1.0, [row, check])
    print_audit(run, evaluate(AuditConfig("m.onnx", DataConfig("digits")), run))
    warning, rationale, fix, accuracy, checks = capsys.readouterr().out.splitlines()
    assert checks == "sanity checks: 0 passed, 1 failed"
    assert warning == "WARNING: robust accuracy may be overestimated: gradients: zero"
    assert (rationale, fix) == ("  Why.", "  What.")
    assert " ".join(accuracy.split()) == "l2 0.5 42.0 % [33.0, 52.0] 42 of 100 (stored in 8 bits: 42) ensemble-standard v6"


@pytest.mark.slow
def test_training_stops_early_and_says_by_which_images(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[train]\nstop-early = 2\noptimizer = "sgd"\nlearning-rate = 0.05\nbatch-size = 32\n')
    out, words = tmp_path / "m.safetensors", ["--limit", "100", "--network", "linear", "--epochs", "60"]
    done = call_here("train", "digits", *words, "--config", tmp_path / "c.toml", "--out", out)
    assert done.returncode == 0, done.stderr
    training = json.loads(out.with_suffix(".json").read_text())["training"]
    assert training["epochs"] == training["best_epoch"] + 2 < 60 and training["optimizer"] == "sgd"
    assert "Model linear: early stopping: 10 of 100 training images are set aside for validation" in done.stderr
    assert f"early stopping: the weights are those of epoch {training['best_epoch']} of {training['epochs']}" in done.stderr
    assert "--stop-early: must be a number of epochs" in error_line(
        call_here("train", "digits", "--stop-early", "0", "--out", out)
    )


@pytest.mark.slow
def test_features_and_their_unusable_input(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert call_here("train", "digits", "--out", model, *QUICK).returncode == 0
    table = tmp_path / "features.csv"
    quick = ["--limit", "100", "--epsilon", "0.5", "--steps", "1", "--sample", "10"]
    done = call_here("features", model, "digits", "--out", table, *quick)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "16 features on 10 test images; robust usefulness within l2 0.5 on 10 of them"
    assert sum(int(line.split()[1].rstrip(",")) for line in lines if not line.startswith((" ", "16", str(table)))) == 16
    rows = table.read_text().splitlines()
    assert len(rows) == 161 and json.loads(table.with_suffix(".json").read_text())["data"]["test"] == 10
    assert rows[0].startswith("feature,class_name,sign,usefulness,")
    assert call_here("features", model, "digits", "--layer", "body.0", *quick).stdout.startswith("8 features on")
    for words, says in (
        (["--layer", "nowhere"], "layer: must be a module of the network"),
        (["--sample", "0"], "--sample: must be 1 or more, got 0"),
        (["--epsilon", "spatial:10,1"], "--epsilon: must be in linf, l2 or l1 for features"),
        (["--epsilon", "l2:x"], "--epsilon: must be a number"),
    ):
        assert says in error_line(call_here("features", model, "digits", "--limit", "100", *words))


@pytest.mark.slow
def test_transfer_to_another_model_and_to_a_learner(tmp_path: Path) -> None:
    for name in ("a", "b"):
        words = ["--seed", "1"] if name == "b" else []
        assert (
            call_here(
                "train", "digits", "--limit", "400", "--epochs", "4", *words, "--out", tmp_path / f"{name}.safetensors"
            ).returncode
            == 0
        )
    table, other = tmp_path / "transfer.csv", tmp_path / "b.safetensors"
    words = ["--against", other, "--against", "nearest-neighbors", "--limit", "400", "--epsilon", "1", "--out", table]
    done = call_here("transfer", tmp_path / "a.safetensors", "digits", *words, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "Transfer rates within l2 1, in percent [95 % CI]" in done.stdout
    lines = table.read_text().splitlines()
    assert lines[0].startswith("source,target,seed,norm,epsilon,perturbation,n,not_misclassified,same_mistake,")
    assert len(lines) == 1 + 2 * 3 and json.loads(table.with_suffix(".json").read_text())["arguments"]["limit"] == 400
    assert "--workers" in error_line(call_here("transfer", tmp_path / "a.safetensors", "digits", "--workers", "0"))
    assert "must be in l2 or linf for transfer" in error_line(
        call_here("transfer", tmp_path / "a.safetensors", "digits", "--epsilon", "l0:1")
    )
