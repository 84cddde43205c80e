"""`notbugs check`: the result first, then the findings, and a list of files."""

import csv
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from cli.conftest import call_here, error_line
from data.conftest import image_folder

from notbugs import data
from notbugs.datacheck import mirroring


@pytest.fixture
def leaking(tmp_path: Path, digits: data.Splits) -> Path:
    """A folder with 60 training digits, 20 test digits, and one training digit among the test images under another name."""
    folder = tmp_path / "set"
    parts = {"train": digits.train.select(slice(0, 60)), "test": digits.test.select(slice(0, 20))}
    for name, part in parts.items():
        for number, label in enumerate(part.labels.tolist()):
            data.save_image(part.pixels([number])[0], folder / name / part.classes[label] / f"{number:03d}.png")
    leaked = parts["train"]
    data.save_image(leaked.pixels([0])[0], folder / "test" / leaked.classes[int(leaked.labels[0])] / "copy.png")
    return folder


def test_findings_come_first_and_are_listed(leaking: Path, tmp_path: Path) -> None:
    done = call_here("check", leaking, "--no-train", "--out", tmp_path / "files.csv")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    text = " ".join(line.strip() for line in lines)
    assert lines[0].startswith(f"{leaking}:") and "1 serious. 60 training and 21 test images, 8x8, gray, 10 classes." in text
    (serious,) = [line for line in lines if line.startswith("! ")]
    assert serious.startswith("! duplicates in training and test part: 1 of 21 images")
    assert "Mirroring was not measured." in text and lines[-1] == f"{tmp_path / 'files.csv'}; notes on its data: files.json"
    with (tmp_path / "files.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["part"] == "test" and row["file"].endswith("copy.png") and row["other_file"] and row["value"] == "1.0"
    about = json.loads((tmp_path / "files.json").read_text())
    assert about["data"]["train"] == 60 and about["check"]["summary"]["test"] == 21
    assert about["check"]["findings"][0]["problem"] == "duplicates in training and test part"


def test_notes_are_kept_and_what_is_beyond_the_limit_is_said_once(tmp_path: Path) -> None:
    done = call_here("check", "digits", "--no-train", "--limit", "100", "--out", tmp_path / "files.csv")
    text = " ".join(line.strip() for line in done.stdout.splitlines())
    assert f"the first of each class. Listed in {tmp_path / 'files.csv'}." in text and "Left out" not in text
    about = json.loads((tmp_path / "files.json").read_text())["data"]
    assert "--limit 100: 100 of 1,347 training and 10 of 450 test images, the first of each class" in about["notes"]
    assert about["left_out"] == {"is beyond --limit 100": 1687} and (tmp_path / "files.csv").read_text().count("beyond") == 1687


def test_a_set_without_problems(tmp_path: Path) -> None:
    done = call_here("check", "digits", "--no-train", "--out", tmp_path / "files.csv")
    assert done.returncode == 0 and done.stdout.startswith("digits: no problems found. 1,347 training and 450 test images")
    assert (tmp_path / "files.csv").read_text() == "file,part,problem,other_file,value\n"


def test_mirroring_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "STEPS", 2000)
    done = call_here("check", "digits", "--limit", "200")
    text = " ".join(line.strip() for line in done.stdout.splitlines())
    assert "mirroring changes the class" in text and "Mirroring: not safe (accuracy" in text
    assert "percentage points [" in text and "n 200 held-out training images" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "--folds", "1"], "--folds: must be 2 or more, got 1"),
        (["nowhere"], "nowhere: this path does not exist"),
    ],
)
def test_unusable_options_are_one_line(words: list[str], message: str) -> None:
    assert message in error_line(call_here("check", *words))


def test_a_list_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in error_line(call_here("check", "nowhere", "--out", tmp_path / "file" / "x.csv"))


def test_escapes_in_the_name_of_a_data_set_do_not_reach_the_terminal(tmp_path: Path) -> None:
    image_folder(tmp_path / "a\x1b[31mb", splits=("test",))
    done = call_here("check", tmp_path / "a\x1b[31mb", "--no-train")
    assert "a\\x1b[31mb:" in done.stdout.replace("\n", "")
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_that_it_is_at_work_and_nothing_of_that_stays(leaking: Path) -> None:
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "notbugs", "check", str(leaking), "--no-train"]
    quiet = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TTY_COMPATIBLE")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env={**quiet, "TERM": "xterm"}) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # Linux: the other end is closed
            while part := os.read(main, 4096):
                shown += part
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(main)
    assert process.returncode == 0, shown
    assert b"checking" in shown
    assert b"\x1b[?25l" in shown and shown.rindex(b"\x1b[?25h") > shown.rindex(b"checking")  # the cursor is hidden, and back
    assert shown.rindex(b"\x1b[2K") > shown.rindex(b"checking")  # the line is erased
    assert printed.decode() == call_here("check", leaking, "--no-train").stdout  # not on a terminal: the same text
