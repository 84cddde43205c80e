"""`notbugs split`: what it writes and prints, also `notbugs report` of it."""

import re
from pathlib import Path

import pytest
from cli.conftest import QUICK, call_here, error_line


@pytest.mark.slow
def test_split_and_report(tmp_path: Path) -> None:
    done = call_here("split", "digits", *QUICK, "--workers", 1, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["standard", "clean", "accuracy"],
        ["standard", "robust", "accuracy"],
        ["adversarial", "clean", "accuracy"],
        ["adversarial", "robust", "accuracy"],
        ["robust", "100", "images,"],
        ["nonrobust", "100", "images,"],
    ]
    assert done.stderr.endswith("  notbugs attack MODEL digits --epsilon l2:0.75 --epsilon l2:0.375\n")
    # one epoch on 100 images: nothing is learned
    assert "notbugs: D_R can hardly make a classifier more robust: " in done.stderr and ", chance level: 10." in done.stderr
    assert "notbugs: the adversarially trained model is not measurably more robust than the standard one" in done.stderr
    card = (tmp_path / "run" / "datasets" / "robust" / "README.md").read_text()
    assert re.search(r"- clean accuracy of the model that it was made from: \d+\.\d %, 95 % CI \[.*\] on 10 test images", card)
    assert len(list((tmp_path / "run" / "datasets" / "robust" / "train").rglob("*.png"))) == 100
    assert not (tmp_path / "run" / "datasets" / "next-labels").exists()
    done = call_here("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    assert "run.json" in error_line(call_here("report", tmp_path))


@pytest.mark.slow
def test_split_does_not_warn_of_an_adversarially_trained_model_that_works(tmp_path: Path) -> None:
    words = ["--limit", 300, "--epochs", 8, "--width", 8, "--workers", 1]
    done = call_here("split", "digits", *words, "--out", tmp_path / "run")
    assert done.returncode == 0 and "can hardly make" not in done.stderr
    assert re.search(
        r"^adversarial    clean accuracy \d+\.\d % \[\d+\.\d, \d+\.\d\] on 30 test images$", done.stdout, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--bf16"], "--bf16, --compile: cannot be used with --by-file"),
        (["--versions", "2"], "--versions: cannot be used with --by-file"),
        (["--robust-strong"], "--robust-strong: cannot be used with --by-file"),
        (["--top", "0.7"], "--top"),
        (["--folds", "1"], "--folds"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_unusable_options_of_a_split_by_file_are_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in error_line(call_here("split", "digits", *QUICK, "--by-file", *words, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--files", "list.txt", "--top", "0.2"], "--top: has no effect with --files, where nothing is trained, got 0.2"),
        (["--files", "list.txt", "--network", "resnet18"], "--network: has no effect with --files"),
        (["--files", "list.txt", "--executor", "none.json"], "--executor: has no effect with --files"),
        (["--files", "list.txt", "--by-file"], "--files: cannot be used with --by-file"),
        (["--top", "0.2"], "--top: ranks files: it needs --by-file, got 0.2"),
        (["--pictures", "3", "--dry-run"], "--pictures: ranks files: it needs --by-file"),
        (["--repeats", "3"], "--repeats: ranks files: it needs --by-file"),  # the default, but given
    ],
)
def test_an_option_without_effect_is_an_error(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in error_line(call_here("split", "digits", *words, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_network_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def network(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["split", "digits", "--limit", "100", "--epochs", "1", "--network", "mine:network", "--workers", 1, "--out", "run"]
    done = call_here(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "adversarial.safetensors").is_file()


def test_a_dry_run_is_of_a_construction_alone(tmp_path: Path) -> None:
    assert "--dry-run: cannot be used with --by-file" in error_line(
        call_here("split", "digits", "--by-file", "--dry-run", "--out", tmp_path / "run")
    )
