"""Two commands and one output: one of them works, the other says so in one line before any work."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.conftest import NOTBUGS, call_here, error_line

from notbugs import models
from notbugs.atomic import only_writer


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_trainings_never_write_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "digits", "--epochs", "100000", "--width", "4", "--out", "m.safetensors"]
    first = subprocess.Popen([*NOTBUGS, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".*.lock")):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    second = call_here(*words)
    first.send_signal(signal.SIGTERM)
    said = "notbugs: --out: must not be in use, got m.safetensors, which another command is writing; wait for it or name another"
    assert error_line(second) == said
    assert first.wait(timeout=60) != 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--out", ["check", "digits", "--no-train"]),
        ("--out", ["features", "m.safetensors", "digits"]),
        ("--out", ["transfer", "m.safetensors", "digits"]),
        ("--out", ["explain", "m.safetensors", "digits"]),
        ("--out", ["corruptions", "m.safetensors", "digits"]),
        ("--json", ["attack", "m.safetensors", "digits", "--images", "20", "--budget", "quick"]),
    ],
)
def test_a_file_in_use_is_refused_and_free_afterwards(
    standard: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(standard, tmp_path / "m.safetensors")
    out = Path("a.json" if option == "--json" else "a.csv")
    with only_writer(out):
        assert f"{option}: must not be in use, got {out}, which another" in error_line(call_here(*words, option, out))
    assert not out.exists()
    if words[0] == "check":
        assert call_here(*words, option, out).returncode == 0 and out.exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_table_does_not_replace_the_description_of_a_model(
    standard: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(standard, tmp_path / "m.safetensors")
    said = error_line(call_here("check", "digits", "--no-train", "--out", "m.csv"))
    assert said == "notbugs: --out: must not replace m.json, the description of a model, got m.csv; choose another name"
    models.load(tmp_path / "m.safetensors")
