"""A study goes on with the options that it began with; what contradicts them is listed."""

import json
from pathlib import Path

import pytest
from cli.conftest import call_here, error_line

from notbugs.cli.earlier import continued, earlier_study, taken_over
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.study import pipeline
from notbugs.study.commands import command_of
from notbugs.study.config import StudyConfig
from notbugs.study.resolve import resolve

BEGAN = StudyConfig("digits", limit=60, epochs=1, seeds=1, width=4, invert_steps=1, epsilon=0.5)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A study that was begun, without any stage."""
    return pipeline.run(BEGAN, tmp_path / "run", only=("no such stage",), workers=1)


def test_what_was_asked_for_is_recorded_and_only_that(run: RunFolder) -> None:
    options = {"limit": 60, "epsilon": 0.5, "seeds": 1, "width": 4, "epochs": 1, "invert_steps": 1}
    assert run.study().options == options
    pipeline.run(StudyConfig("digits", **{**options, "full": True}), run.folder, only=("no such stage",), workers=1)  # type: ignore[arg-type]
    assert RunFolder.read(run.folder).study().options == {**options, "full": True}


def test_options_that_are_left_out_are_as_before(run: RunFolder) -> None:
    now = StudyConfig("digits", full=True, seeds=2)
    config = continued(run, now, ["dataset", "full", "seeds"])
    assert (config.limit, config.epochs, config.width, config.epsilon) == (60, 1, 4, 0.5)
    assert config.full and config.seeds == 2
    assert continued(run, now, []).seeds == 1  # nothing of it was given
    said = "--limit 60 --epsilon 0.5 --width 4 --epochs 1 --invert-steps 1"
    assert taken_over(run, ["dataset", "full", "seeds"]) == said and taken_over(run, []).startswith("digits --limit 60")
    from notbugs.study.config import load

    assert resolve(config, load(config)).patience == run.metadata["arguments"]["patience"]


def test_what_contradicts_the_study_is_listed_with_a_command_for_a_new_one(run: RunFolder) -> None:
    now = StudyConfig("digits", epochs=7, versions=4, width=4)
    with pytest.raises(InputError) as caught:
        continued(run, now, ["dataset", "epochs", "width", "versions"])
    assert str(caught.value) == (
        f"--epochs, --versions: must be as in {run.folder}/run.json, or left out, got 7 (there: 1), 4 (there: 1); for a new "
        f"study: notbugs run digits --limit 60 --epsilon 0.5 --seeds 1 --width 4 --epochs 7 --invert-steps 1 --versions 4 "
        f"--out {run.folder}-2"
    )
    with pytest.raises(InputError, match=r"^DATASET: must be as in .*, got planted \(there: digits\)"):
        continued(run, StudyConfig("planted"), ["dataset"])
    assert continued(run, StudyConfig("./digits/"), ["dataset"]).dataset == "digits"


def test_speed_is_decided_for_another_device(run: RunFolder) -> None:
    metadata = json.loads((run.folder / "run.json").read_text())
    changed = {"device": "cuda", "settings": {"bf16": True, "compile": True}, "options": {"bf16": True}}
    (run.folder / "run.json").write_text(json.dumps({**metadata, **changed}))
    other = RunFolder.read(run.folder)
    assert (continued(other, StudyConfig("digits"), []).bf16, continued(other, StudyConfig("digits"), []).compile) == (
        None,
        False,
    )
    assert continued(other, StudyConfig("digits", device="cuda"), []).bf16 is True
    (run.folder / "run.json").write_text(
        json.dumps({**metadata, **changed, "options": {}})
    )  # what was not asked for is decided anew
    assert continued(RunFolder.read(run.folder), StudyConfig("digits", device="cuda"), []).bf16 is None


def test_only_a_study_that_began_goes_on(tmp_path: Path) -> None:
    assert earlier_study(tmp_path) is None
    with RunFolder.open(tmp_path / "audit", {"kind": "audit"}):
        assert earlier_study(tmp_path / "audit") is None
    with RunFolder.open(tmp_path / "stopped", {"kind": "study"}):
        assert earlier_study(tmp_path / "stopped") is None


def test_a_command_is_as_it_is_typed() -> None:
    options = {"model": "my net:f", "bf16": False, "skip_unreadable": True, "relabel_epsilon": 8 / 255, "epsilon": 0.5}
    assert command_of("digits", options) == (
        "notbugs run digits --model 'my net:f' --no-bf16 --skip-unreadable --relabel-epsilon 8/255 --epsilon 0.5"
    )


@pytest.mark.slow
def test_a_follow_up_needs_only_what_is_new(tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert "DATASET: must be given" in error_line(call_here("run", "--out", place))
    first = ["digits", "--limit", 60, "--epochs", 1, "--width", 4, "--invert-steps", 1, "--relabel-steps", 1, "--patience", 0]
    done = call_here("run", *first, "--seeds", 1, "--workers", 1, "--out", place)
    assert done.returncode == 0 and "As in" not in done.stderr, done.stderr
    assert f"notbugs run --full --out {place}" in done.stdout
    again = call_here("run", "--workers", 1, "--seeds", 2, "--out", place)
    assert again.returncode == 0, again.stderr
    taken = "digits --limit 60 --width 4 --epochs 1 --invert-steps 1 --relabel-steps 1 --patience 0"
    assert again.stderr.startswith(f"As in {place}/run.json: {taken}\n")
    run = RunFolder.read(place)
    assert run.study().seeds == (0, 1) and run.metadata["finished"]
    assert run.study().command == f"notbugs run {taken.replace('60', '60 --seeds 2')} --out {place}"
    assert "--width, --versions: must be as in" in error_line(call_here("run", "--width", 5, "--versions", 2, "--out", place))
