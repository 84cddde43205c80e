"""`notbugs run` and `notbugs train`: errors are one line and leave nothing; dry runs."""

import os
import re
import resource
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import QUICK, call, call_here, error_line
from PIL import Image

from notbugs.runs.folder import RunFolder


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
        (["digits", "--replicate", "--invert-start", "noise"], "--invert-start: must be image with --replicate"),
        (["digits", "--epochs", "0"], "epochs"),
        (["digits", "--device", "cuda:99"], "--device"),
        (["digits", "--workers", "0"], "--workers: must be 1 or more"),
        (["digits", "--translate", "8"], "--translate: must be below 8"),
        (["digits", "--versions", "0"], "--versions: must be 1 or more"),
        pytest.param(["no/such/path"], "does not exist", marks=pytest.mark.slow),  # imports what reads the hub
    ],
)
def test_unusable_arguments_are_one_line_and_leave_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    run = call if words == ["no/such/path"] else call_here
    assert says in error_line(run("run", *words, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_unusable_folders_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    (tmp_path / "set" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n")
    line = error_line(call_here("run", tmp_path / "set", "--out", tmp_path / "run", *QUICK))
    assert "broken.png" in line
    assert "--skip-unreadable" in line
    Image.new("L", (20, 9)).save(tmp_path / "set" / "a" / "broken.png")
    line = error_line(call_here("run", tmp_path / "set", "--out", tmp_path / "run"))
    assert "broken.png" in line
    assert "--resize" in line
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").touch()
    assert "--out" in error_line(call_here("run", "digits", *QUICK, "--out", tmp_path / "full"))
    assert not (tmp_path / "run").exists()
    assert os.listdir(tmp_path / "full") == ["diary.txt"]


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file may be larger: what a full disk does to a write
    try:
        done = call_here("train", "digits", *QUICK, "--out", tmp_path / "m.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    fixed, note, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and note.startswith("Data: --limit 100: 100 of 1,347 training and 10 of 450")
    assert (
        fixed.startswith("Data: the test part is 25% of each class") and "To list them: notbugs check digits --limit 100" in note
    )
    assert error.startswith("notbugs: ") and "m.safetensors" in error
    assert not list(tmp_path.iterdir())


def test_a_place_for_weights_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert "cannot be written" in error_line(call_here("train", "digits", "--out", tmp_path / "mine.txt" / "m.safetensors"))
    assert "must end in .safetensors" in error_line(call_here("train", "digits", "--out", tmp_path / "m.pt"))
    assert "--loss" in error_line(call_here("train", "digits", *QUICK, "--loss", "hinge", "--out", tmp_path / "n.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(("words", "stages"), [(["run"], "21 stages"), (["split"], "4 stages")])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path, words: list[str], stages: str) -> None:
    place = tmp_path / "run"
    options = ["digits", "--limit", 60, "--epochs", 1, "--width", 4, "--seed", 1, "--out", place, "--workers", 1, "--dry-run"]
    done = call_here(*words, *options, *(["--seeds", 1] if words == ["run"] else []))
    assert done.returncode == 0 and done.stdout == "Dry run: nothing is trained or written.\n", done.stderr
    assert "L2 ε = 0.75" in done.stderr and re.search(
        rf"^{stages}, 1 at once: about .* estimated from timed batches", done.stderr, re.M
    )
    assert not [*tmp_path.iterdir()]
    place.mkdir()
    (place / "run.json").write_text("{}")
    assert f"{place / 'run.json'}" in error_line(call_here(*words, *options))
    assert [path.name for path in place.iterdir()] == ["run.json"]


def test_a_dry_run_needs_a_folder_that_is_new_or_a_study(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", {"kind": "files"}).close()
    line = error_line(call_here("run", "digits", "--out", tmp_path / "run", "--dry-run"))
    assert "--out: must be new or hold a study with --dry-run" in line
