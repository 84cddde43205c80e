"""The command line as a person meets it: real processes, exit codes, one clear line."""

import csv
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from notbugs import cli

NOTBUGS = [sys.executable, "-m", "notbugs"]
QUICK = ["--limit", "100", "--epochs", "1", "--width", "8"]


def call(*words: object, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NOTBUGS, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300, check=False, **options
    )


def inside(*words: object) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has torch already: for the many that are refused at once."""
    said, wrong, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with patch.object(sys, "argv", ["notbugs", *map(str, words)]), redirect_stdout(said), redirect_stderr(wrong):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return subprocess.CompletedProcess(list(map(str, words)), code, said.getvalue(), wrong.getvalue())


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Exit code 2 and one line; returns the line."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("notbugs: ")
    return lines[0]


def test_help_and_version_need_no_torch() -> None:
    loaded = "import sys; import notbugs.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'datasets', 'rich')))"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
    done = call("--help")
    assert done.returncode == 0
    for command in ("demo", "run", "train", "attack", "features", "files", "split", "report"):
        assert f"\n  {command} " in done.stdout
    assert call("--version").stdout.strip() == "notbugs 0.1.0"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["digits", "--epsilon", "8"], "--epsilon: must be below"),
        (["digits", "--epsilon=-1"], "above 0"),
        (["digits", "--epsilon", "nan"], "above 0"),
        (["digits", "--epsilon", "8/0"], "8/255"),
        (["digits", "--norm", "linf", "--epsilon", "8"], "for 8/255 pass 8/255"),
        (["digits", "--norm", "l7"], "must be l2 or linf for training and studies"),
        (["digits", "--norm", "l1"], "must be l2 or linf for training and studies"),
        (["digits", "--network", "alexnet"], "--network: must be one of"),
        (["digits", "--network", "nosuch:thing"], "--network"),
        (["digits", "--invert-start", "zeros"], "image or noise"),
        (["digits", "--recipe", "ilyas"], "--recipe: must be paper, or left out"),
        (["digits", "--epochs", "0"], "epochs"),
        (["digits", "--device", "cuda:99"], "--device"),
        (["no/such/path"], "does not exist"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    ask = call if words == ["no/such/path"] else inside
    assert says in refused(ask("run", *words, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_bad_folders_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    (tmp_path / "set" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n")
    line = refused(call("run", tmp_path / "set", "--out", tmp_path / "run", *QUICK))
    assert "broken.png" in line
    assert "--skip-unreadable" in line
    Image.new("L", (20, 9)).save(tmp_path / "set" / "a" / "broken.png")
    line = refused(call("run", tmp_path / "set", "--out", tmp_path / "run"))
    assert "broken.png" in line
    assert "--resize" in line
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").touch()
    assert "--out" in refused(call("run", "digits", *QUICK, "--out", tmp_path / "full"))
    assert not (tmp_path / "run").exists()
    assert os.listdir(tmp_path / "full") == ["diary.txt"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    limit = resource.RLIMIT_FSIZE  # no file may grow beyond this: what a full disk does to a write
    done = call(
        "train", "digits", *QUICK, "--out", tmp_path / "m.safetensors", preexec_fn=lambda: resource.setrlimit(limit, (4096, 4096))
    )
    assert "m.safetensors" in refused(done)
    assert not list(tmp_path.iterdir())


def test_train_attack_and_their_bad_input(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    done = call("train", "digits", *QUICK, "--loss", "trades", "--out", model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(model)
    done = call(
        "attack",
        model,
        "digits",
        "--limit",
        "100",
        "--epsilon",
        "0",
        "--epsilon",
        "64/255",
        "--out",
        tmp_path / "attacked",
        "--budget",
        "quick",
    )
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout
    assert "stored in 8 bits" in done.stdout
    assert (tmp_path / "attacked" / "report.html").is_file()
    stored = tmp_path / "attacked" / "datasets" / "attacked-l2-64of255" / "test"
    assert len(list(stored.rglob("*.png"))) == int(done.stdout.split(" of ")[1].split()[0])
    assert "must end in .safetensors" in refused(call("train", "digits", "--out", tmp_path / "m.pt"))
    assert "--loss" in refused(call("train", "digits", *QUICK, "--loss", "hinge", "--out", tmp_path / "n.safetensors"))
    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "evil.json").write_text((tmp_path / "m.json").read_text())
    assert "is damaged" in refused(call("attack", tmp_path / "evil.safetensors", "digits"))
    assert "pickles" in refused(call("attack", tmp_path / "m.pt", "digits")) or not (tmp_path / "m.pt").exists()
    assert "no such model" in refused(call("attack", tmp_path / "none.safetensors", "digits"))
    assert "shape" in refused(call("attack", model, "planted"))


def test_features_and_their_bad_input(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert call("train", "digits", "--out", model, *QUICK).returncode == 0
    table = tmp_path / "features.csv"
    quick = ["--limit", "100", "--epsilon", "0.5", "--steps", "1", "--sample", "10"]
    done = call("features", model, "digits", "--out", table, *quick)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "16 features on 10 test images, l2 0.5; what a change takes, on 10 of them"
    assert sum(int(line.split()[1].rstrip(",")) for line in lines if not line.startswith((" ", "16", str(table)))) == 16
    rows = table.read_text().splitlines()
    assert len(rows) == 161
    assert rows[0].startswith("feature,class,sign,usefulness,")
    assert call("features", model, "digits", "--layer", "body.0", *quick).stdout.startswith("8 features on")
    for words, says in (
        (["--layer", "nowhere"], "layer: must be a module of the network"),
        (["--sample", "0"], "--sample: must be 1 or more, got 0"),
        (["--epsilon", "spatial:10,1"], "--epsilon: must be in linf, l2 or l1 for features"),
        (["--epsilon", "l2:x"], "--epsilon: must be a number"),
    ):
        assert says in refused(call("features", model, "digits", "--limit", "100", *words))


def test_split_then_report_then_the_rest(tmp_path: Path) -> None:
    done = call("split", "digits", *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "datasets" / "robust" / "train").rglob("*.png"))) == 100
    assert not (tmp_path / "run" / "datasets" / "next-labels").exists()
    done = call("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    assert "run.json" in refused(call("report", tmp_path))


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def network(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, classes))\n"
    )
    words = ["split", "digits", "--limit", "100", "--epochs", "1", "--network", "mine:network", "--out", "run"]
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "adversarial.safetensors").is_file()


def test_attack_takes_norm_and_radius_from_the_model_and_asks_where_it_says_none(tmp_path: Path) -> None:
    model = tmp_path / "linf.safetensors"
    done = call("train", "digits", *QUICK, "--norm", "linf", "--epsilon", "0.1", "--out", model)
    assert done.returncode == 0, done.stderr
    done = call("attack", model, "digits", "--limit", "100", "--budget", "quick")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["linf", "0.05"], ["linf", "0.1"]]
    assert "NOT TO BE TRUSTED" not in done.stdout
    assert "--epsilon: must be a number, or a fraction" in refused(inside("attack", model, "digits", "--epsilon", "8/0"))
    assert "must start with one of linf, l2, l1, l0, spatial" in refused(inside("attack", model, "digits", "--epsilon", "l3:1"))
    assert "DEGREES,PIXELS" in refused(inside("attack", model, "digits", "--epsilon", "spatial:30"))
    assert "--budget: must be one of" in refused(inside("attack", model, "digits", "--budget", "endless"))
    assert "--images: must be 1 or more" in refused(inside("attack", model, "digits", "--images", "0"))
    done = call(
        "attack",
        model,
        "digits",
        "--limit",
        "100",
        "--norm",
        "l0",
        "--epsilon",
        "2",
        "--budget",
        "quick",
        "--out",
        tmp_path / "pixels",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:2]] == [["l0", "2"]]
    line = refused(inside("attack", model, "digits", "--norm", "l0", "--epsilon", "1.5"))
    assert "epsilon: must be a whole number of pixels in L0, got 1.5" in line
    (tmp_path / "mine.txt").touch()
    line = refused(inside("attack", model, "digits", "--out", tmp_path))
    assert "must be a new folder or an earlier run" in line
    words = json.loads((tmp_path / "linf.json").read_text())
    (tmp_path / "linf.json").write_text(json.dumps({"architecture": words["architecture"]}))
    assert "--epsilon: must be given" in refused(inside("attack", model, "digits"))
    assert inside("attack", model, "digits", "--limit", "100", "--epsilon", "0.5", "--budget", "quick").returncode == 0
    assert "cannot be written" in refused(inside("train", "digits", "--out", tmp_path / "mine.txt" / "m.safetensors"))


def test_a_classifier_of_ones_own_meets_corruptions_and_waves(tmp_path: Path) -> None:
    call("train", "digits", *QUICK, "--out", "net.safetensors", cwd=tmp_path)
    done = call("corruptions", "net.safetensors", "digits", "--limit", 160, "--out", "worse.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "What it reads of 20 test images" in done.stdout and "Misread with one wave added" in done.stdout
    for name, count in (("worse.csv", 26), ("worse-frequencies.csv", 34)):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == count
    done = call("explain", "net.safetensors", "digits", "--limit", 160, "--out", "why.csv", cwd=tmp_path)
    assert done.returncode == 0 and "gradient" in done.stdout and "integrated" in done.stdout, done.stderr
    with (tmp_path / "why.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    mean = sum(float(row["gradient_alignment"]) for row in rows) / len(rows)
    assert len(rows) == len({row["file"] for row in rows}) == 20 and f"{mean:.2f} [" in done.stdout.replace("−", "-")
    with Image.open(tmp_path / "why.png") as sheet:
        assert sheet.size == (3 * 128, 8 * 128)
    (tmp_path / "dark.py").write_text(
        "def make(classes):\n    return lambda images: images.reshape(len(images), -1)[:, :classes]\n"
    )
    assert "dark:make: must be a torch network" in refused(call("explain", "dark:make", "digits", "--limit", 160, cwd=tmp_path))
    assert "must hold images of shape [1, 8, 8]" in refused(
        call("corruptions", "net.safetensors", "planted", "--limit", 80, cwd=tmp_path)
    )


def test_a_study_is_reviewed_from_the_command_line(tmp_path: Path) -> None:
    call("split", "digits", *QUICK, "--out", "run", cwd=tmp_path)
    done = call("review", "run", "--count", 5, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split() == ["run/review/review.html"]
    with (tmp_path / "run/review/key.csv").open(newline="", encoding="utf-8") as file:
        key = list(csv.DictReader(file))
    said = "".join(f"Anna,{row['id']},{row['label']},2.5\n" for row in key)
    (tmp_path / "run/review/anna.csv").write_text("reviewer,id,answer,seconds\n" + said)
    done = call("review", "run", "--count", 5, cwd=tmp_path)
    assert done.returncode == 0 and "blinded images: of D_R 100.0 %" in done.stdout and "one person" in done.stdout
    assert "100.0 %" in done.stdout and "What people see" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    (tmp_path / "run/review/anna.csv").write_text("reviewer,id,answer\n")
    assert "anna.csv: must have the columns reviewer,id,answer,seconds" in refused(call("report", "run", cwd=tmp_path))
