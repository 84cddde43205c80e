"""Further commands: saliency and corruptions of one classifier, human review, the two-Gaussian model."""

import csv
import json
from pathlib import Path

import pytest
from cli.conftest import QUICK, call_here, error_line
from PIL import Image

LIMIT = ["--limit", 160]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_saliency_and_corruptions_of_one_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call_here("train", "digits", *QUICK, "--out", "net.safetensors")
    done = call_here("corruptions", "net.safetensors", "digits", *LIMIT, "--out", "corruptions.csv")
    assert done.returncode == 0, done.stderr
    assert "Accuracy on 20 test images by severity" in done.stdout and "one Fourier basis vector added" in done.stdout
    assert len(read(tmp_path / "corruptions.csv")) == 26 and len(read(tmp_path / "corruptions-fourier.csv")) == 34
    test_part, limit, *_ = json.loads((tmp_path / "corruptions.json").read_text())["data"]["notes"]
    assert test_part.startswith("the test part is") and limit.startswith("--limit 160")
    done = call_here("explain", "net.safetensors", "digits", *LIMIT, "--out", "saliency.csv")
    assert done.returncode == 0 and "gradient" in done.stdout and "integrated" in done.stdout, done.stderr
    rows = read(tmp_path / "saliency.csv")
    mean = sum(float(row["gradient_alignment"]) for row in rows) / len(rows)
    assert len(rows) == len({row["file"] for row in rows}) == 20 and f"{mean:.2f} [" in done.stdout.replace("−", "-")
    assert json.loads((tmp_path / "saliency.json").read_text())["dataset"] == "digits"
    with Image.open(tmp_path / "saliency.png") as sheet:
        assert sheet.size == (3 * 128, 8 * 128)
    (tmp_path / "dark.py").write_text(
        "def make(classes):\n    return lambda images: images.reshape(len(images), -1)[:, :classes]\n"
    )
    assert "dark:make: must be a PyTorch network" in error_line(call_here("explain", "dark:make", "digits", *LIMIT))
    assert "must hold images of shape [1, 8, 8]" in error_line(
        call_here("corruptions", "net.safetensors", "planted", "--limit", 80)
    )


@pytest.mark.slow
def test_a_study_is_reviewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call_here("split", "digits", *QUICK, "--workers", 1, "--out", "run")
    done = call_here("review", "run", "--count", 5)
    assert done.returncode == 0 and done.stdout.split() == ["run/review/review.html"], done.stderr
    said = "".join(f"Anna,{row['id']},{row['label']},2.5\n" for row in read(tmp_path / "run/review/key.csv"))
    (tmp_path / "run/review/anna.csv").write_text("reviewer,id,answer,seconds\n" + said)
    done = call_here("review", "run", "--count", 5)
    assert done.returncode == 0 and "blinded images: D_R 100.0 %" in done.stdout, done.stderr
    assert "Accuracy of people" in done.stdout and "100.0 %" in done.stdout
    assert "100.0 %" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    (tmp_path / "run/review/anna.csv").write_text("reviewer,id,answer\n")
    assert "anna.csv: must have the columns reviewer,id,answer,seconds" in error_line(call_here("report", "run"))


def test_analyses_of_what_is_no_study_are_one_line(tmp_path: Path) -> None:
    for command in ("explain", "corruptions", "ntk", "review"):
        assert "must hold a run.json" in error_line(call_here(command, tmp_path))
    assert "--workers: must be 1 or more" in error_line(call_here("ntk", tmp_path, "--workers", 0))


@pytest.mark.slow
def test_the_two_gaussian_model(tmp_path: Path) -> None:
    words = ["theory", "--out", tmp_path / "run", "--epsilon", "0,1", "--samples", "0"]
    done = call_here(*words)
    assert done.returncode == 0, done.stderr
    assert "min cosine" in done.stdout and f"The report: {tmp_path / 'run' / 'report.html'}" in done.stdout.replace("\n", "")
    rows = read(tmp_path / "run" / "tables" / "theory.csv")
    assert [row["epsilon"] for row in rows] == ["0.0", "1.0"] and rows[0]["ball_condition_number"] == ""
    assert call_here(*words).stdout == done.stdout  # resumed: nothing is left to do
    again = call_here("theory", "--out", tmp_path / "second", *words[3:])
    assert (
        again.stdout.splitlines()[-1] == f"All runs in that folder: {tmp_path / 'index.html'}" and "All runs" not in done.stdout
    )
    assert "--epsilon: must be as before" in error_line(call_here(*words[:3], "--epsilon", "0,2", "--samples", "0"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mean", "1,x"], "--mean: must be numbers with commas between them"),
        (["--mean", "1,2,3"], "--variances: must be as many as --mean, 3, got 2"),
        (["--variances", "1,0"], "--variances: must be above 0"),
        (["--epsilon=-1"], "--epsilon: must be 0 or more"),
        (["--samples", "3"], "--samples: must be 0, or more than 3 in 2 dimensions"),
        (["--samples=-1"], "--samples: must be 0 or more"),
        (["--seed=-1"], "--seed: must be 0 or more"),
        (["--mean", "0,0"], "mean"),
        (["--samples", "2000000000"], "--samples: must be 0 or more, at most 10,000,000"),
        (["--samples", str(2**64)], "--samples: must be at most 2,147,483,647"),
        (["--mean", "1e308,1"], "mean: must be at most 1e+06 in size, got 1e+308"),
        (["--variances", "1e-320,1"], "covariance: must have eigenvalues from 1e-12 to 1e+12, got from"),
        (["--variances", "1e300,1"], "covariance: must have eigenvalues from 1e-12 to 1e+12, got from 1 to 1e+300"),
    ],
)
def test_unusable_options_of_the_theory_are_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in error_line(call_here("theory", "--out", tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["explain", "net.safetensors", "digits", "--out", "a.png"],
            "--out: must not end in .png, where another file is written",
        ),
        (
            ["corruptions", "net.safetensors", "digits", "--out", "a-fourier.csv"],
            "a-fourier-fourier.csv: cannot be written, got a folder",
        ),
        (["explain", "net.safetensors", "digits", "--out", "b.csv"], "b.png: cannot be written, got a folder"),
        (["explain", "net.safetensors"], "DATASET: must be given with a MODEL"),
        (["explain", "run", "--out", "a.csv"], "--out: can only be used with a MODEL and a DATASET: a study has its own"),
        (["corruptions", "run", "--seed", "0"], "--seed: can only be used with a MODEL and a DATASET: a study has its own"),
    ],
)
def test_what_cannot_be_written_or_has_no_effect_is_refused_before_the_work(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "b.png", "a-fourier-fourier.csv"):
        (tmp_path / folder).mkdir()
    (tmp_path / "net.safetensors").write_bytes(b"")
    before = {*tmp_path.iterdir()}
    assert message in error_line(call_here(*words))
    assert {*tmp_path.iterdir()} == before
