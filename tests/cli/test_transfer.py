"""The command `transfer`: the printed table is that of the CSV file, and bad options leave nothing."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli.conftest import call_here, error_line

from notbugs import data, models
from notbugs.cli.classifier import _print_transfer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, standard: models.Model, digits: data.Splits) -> Path:
    path = tmp_path_factory.mktemp("models") / "standard.safetensors"
    models.save(standard, path, classes=list(digits.test.classes), training={"norm": "l2", "epsilon": 1.0})
    return path


@pytest.mark.slow
def test_the_printed_table_is_that_of_the_csv_file(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    words = ["--images", 30, "--epsilon", 0.75, "--workers", 1, "--out", tmp_path / "t.csv"]
    done = call_here("transfer", saved, "digits", *words, "--against", "nearest-neighbors", "--against", saved)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["target"], row["perturbation"]) for row in rows] == [
        (target, kind) for target in ("nearest-neighbors", str(saved)) for kind in ("untargeted", "targeted", "random")
    ]
    line = next(line for line in done.stdout.splitlines() if line.startswith("nearest-neighbors"))
    own = {row["perturbation"]: row for row in rows[:3]}
    untargeted, shown = own["untargeted"], ("random", "untargeted", "targeted")
    rates = [float(own[kind]["transfer_rate"]) for kind in shown]
    same = int(untargeted["same_mistake"]) / int(untargeted["n"])
    wanted = [float(untargeted["clean_accuracy"]), *rates[:2], same, rates[2]]
    assert re.sub(r"\[.*?\]|%", " ", line).split()[1:] == [f"{100 * share:.1f}" for share in wanted]
    intervals = [[round(100 * float(own[kind][end])) for end in ("ci_low", "ci_high")] for kind in shown]
    found = [[round(float(end)) for end in re.findall(r"[\d.]+", text)] for text in re.findall(r"\[(.*?)\]", line)]
    assert same_but_for_rounding(found, intervals)
    assert "\nstandard " in done.stdout and str(tmp_path / "t.csv") in done.stdout.replace("\n", "")


def same_but_for_rounding(found: list[list[int]], wanted: list[list[int]]) -> bool:
    """Equal but for rounding twice."""
    return all(abs(a - b) <= 1 for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "nobody"], "nobody"),
        (["--workers", "0"], "--workers: must be 1 or more, got 0"),
        (["--epsilon", "l0:1"], "--epsilon: must be in l2 or linf for transfer"),
        (["--out", f"{__file__}/t.csv"], "t.csv"),
    ],
)
def test_bad_options_are_rejected(saved: Path, words: list[str], message: str) -> None:
    assert message in error_line(call_here("transfer", saved, "digits", "--images", "20", *words))


def test_targets_of_one_file_name_are_shown_by_their_paths(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    rates = {"norm": "l2", "epsilon": 0.5, "clean_accuracy": 1.0, "same_mistake": 0, "n": 4, "transfer_rate": 0.5, "ci_low": 0.1}
    two = [
        SimpleNamespace(target=target, perturbation=kind, ci_high=0.9, **rates)
        for target in ("a/standard.safetensors", "b/standard.safetensors")
        for kind in ("untargeted", "targeted", "random")
    ]
    _print_transfer(two)  # type: ignore[arg-type]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if "standard" in line] == [
        two[0].target,
        two[3].target,
    ]
    _print_transfer(two[:3])  # type: ignore[arg-type]
    assert "\nstandard " in capsys.readouterr().out
