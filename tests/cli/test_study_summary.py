"""What the terminal shows of a finished study."""

from pathlib import Path

import pytest
from report.conftest import MEASURED, full_study, quick_study

from notbugs.cli.study_summary import print_summary
from notbugs.report.next_steps import next_steps
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder


def test_answers_come_first_then_the_tables_behind_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = quick_study(tmp_path / "run", complete=False)
    print_summary(folder, folder / "report.html")
    text = capsys.readouterr().out
    places = [
        text.index(words)
        for words in (
            "Is standard training vulnerable to small perturbations?\n  Yes, with 95 % confidence. Standard training:",
            "Accuracy on 500 test images, in percent [95 % CI]\ntrained on",
            "D_R minus others: robust accuracy in percentage points [95 % CI for both ε]\nrobust (D_R) minus",
            "Trained on wrong labels: test images predicted as …, in percent [95 % CI]\ntrained on",
            "What to do now:\n- Measure how robust a classifier of yours is",
        )
    ]
    assert places == sorted(places) and "supported" not in text
    assert max(map(len, text.partition("What to do now")[0].splitlines())) <= 80
    assert "Controls: test accuracy" not in text and text.rstrip().endswith("report.html")


def test_a_full_study_has_its_controls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = full_study(tmp_path, 2)
    print_summary(results.folder, results.folder / "report.html")
    text = capsys.readouterr().out
    assert "\nControls: test accuracy in percent, excess in percentage points [95 % CI]\ntrained on" in text
    assert "  control: shuffled perturbations" in text and "--full" not in text.partition("What to do now")[2]


def test_the_next_commands_have_the_options_of_the_study(tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "run", seeds=1, complete=False)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(options={"limit": 400, "epochs": 3})
    results = StudyResults.read(folder)
    steps = {step.words: step.code for step in next_steps(results)}
    assert f"notbugs run --robust-strong --out {folder}" in steps.values()
    assert (
        steps["Run all controls, that of D_det among them: they test other explanations of these results."]
        == f"notbugs run --full --out {folder}"
    )
    assert f"notbugs run --seeds 3 --out {folder}" in steps.values()
    assert f"notbugs attack MODEL digits --limit 400 --epsilon l2:1.5 --out {folder}-audit" in steps.values()
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(options={"limit": 400, "model": "mine:net"})
    given = {step.words: step.code for step in next_steps(StudyResults.read(folder))}
    assert given["Attack the given model in other threat models:"].startswith("notbugs attack mine:net digits --limit 400")
    assert not any("--model MODEL" in command for command in given.values())


def test_images_beyond_the_limit_are_the_way_to_narrower_intervals(tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "run", seeds=1, complete=False)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        data = run.metadata["data"] | {"train": 1500, "test": 500, "left_out": {"is beyond --limit 1500": 3000, "is no image": 2}}
        run.update_metadata(options={"limit": 1500, "epochs": 3}, data=data)
    (step,) = [step for step in next_steps(StudyResults.read(folder)) if step.words.startswith("Repeat the study with all")]
    assert step.short == "Repeat the study with all 5,000 images and two more seeds:"
    assert "alone leave up to ±4 percentage points. That takes about 8 times as long:" in step.words
    assert step.code == f"notbugs run digits --epochs 3 --seeds 3 --out {folder}-all"
    (controls,) = [step for step in next_steps(StudyResults.read(folder)) if step.code == f"notbugs run --full --out {folder}"]
    assert controls.short.endswith("(or add --full to step 3, for all its seeds):")
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(data=data | {"left_out": {"is no image": 2}})
    assert not any("step 3" in step.short for step in next_steps(StudyResults.read(folder)))


def test_steps_keep_the_threat_model_and_what_is_skipped_and_name_no_weaker_model_as_stronger(tmp_path: Path) -> None:
    equal = MEASURED | {"adversarial": (0.95, 0.5, 0.2)}
    folder = quick_study(tmp_path / "run", equal, seeds=1, complete=False)
    (folder / "datasets" / "robust").mkdir(parents=True)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(options={"epsilon": 1.5, "skip_unreadable": True})
    steps = [*next_steps(StudyResults.read(folder))]
    assert f"notbugs files digits --skip-unreadable --epsilon 1.5 --out {folder}-files" in {step.code for step in steps}
    (robust,) = [step.words for step in steps if step.code == str(folder / "datasets" / "robust")]
    assert "(94.0 % clean, 20.0 % within L2 ε = 1.5, below chance (25.0 %))" in robust and "no defense at this ε" in robust


def test_no_step_recommends_a_set_on_which_training_stays_at_chance_level(tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "run", MEASURED | {"trained-on-robust": (0.25, 0.1, 0.0)}, seeds=1, complete=False)
    (folder / "datasets" / "robust").mkdir(parents=True)
    steps = [*next_steps(StudyResults.read(folder))]
    assert not any(step.code == str(folder / "datasets" / "robust") for step in steps)
    assert any(
        step.words.startswith("Improve D_R: the classifier trained on D_R has a clean accuracy of 25.0 %") for step in steps
    )


def test_a_report_of_the_current_folder_has_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = quick_study(tmp_path / "run", seeds=1, complete=False)
    monkeypatch.chdir(folder)
    codes = {step.code for step in next_steps(StudyResults.read(Path()))}
    assert any(code.endswith("--out ../run-files") for code in codes), codes
