"""Defaults in Python are those of the commands."""

import inspect

import pytest
import torch

from notbugs import api, construct, data
from notbugs.api import constructions
from notbugs.cli.attack import attack
from notbugs.cli.files import files
from notbugs.cli.study import run
from notbugs.cli.train import train
from notbugs.study.config import StudyConfig
from notbugs.study.resolve import resolve

# Each function and the command that does the same
COMMANDS = {"study": run, "score_files": files, "audit": attack, "attack": attack, "train": train}
PLACES = {"out", "device", "workers", "progress", "callback"}  # where it is done and kept is the caller's choice


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_those_of_the_command(name: str) -> None:
    """Whatever nothing is written as: None, False or empty."""
    here, there = (inspect.signature(each).parameters for each in (getattr(api, name), COMMANDS[name]))
    shared = [each for each in here if each in there and each not in PLACES]
    assert {"dataset", "budget" if name in ("attack", "audit") else "epochs"} <= {*shared}
    for each in shared:
        ours, theirs = here[each].default, there[each].default
        if inspect.Parameter.empty not in (ours, theirs):  # the data set of a study that goes on may be left out
            assert ours == theirs or (not ours and not theirs), each


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "resize", "steps"), [("digits", None, 25), ("digits", 32, 40), ("mnist5k", None, 20), ("planted", None, 20)]
)
def test_inversions_take_the_steps_of_the_command(
    dataset: str, resize: int | None, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mnist5k and planted by name; other images by their size, also in memory."""
    splits = data.load(dataset, limit=20, resize=resize)
    assert resolve(StudyConfig(dataset, flip=False, limit=20, resize=resize), splits).invert_steps == steps
    taken: list[int] = []
    monkeypatch.setattr(construct, "invert_features", lambda *_, steps, **__: taken.append(steps))
    for name in ("_warn_of_weak_source", "_with_features", "classifier", "clean_images"):
        monkeypatch.setattr(constructions, name, lambda *_: None)
    monkeypatch.setattr(constructions, "training_part", lambda _: splits.train)
    given = splits if resize or dataset == "digits" else dataset
    for make in (api.make_robust, api.make_nonrobust):
        make(torch.nn.Identity(), given)
        make(torch.nn.Identity(), given, steps=7)
    assert taken == [steps, 7] * 2


def test_relabeling_takes_the_steps_of_the_command() -> None:
    steps = inspect.signature(api.relabel).parameters["steps"].default
    assert steps == inspect.signature(run).parameters["relabel_steps"].default == StudyConfig("digits").relabel_steps


def test_the_device_is_the_cpu_where_commands_choose_one() -> None:
    for name in ("make_robust", "relabel", *COMMANDS):
        function = getattr(api, name)
        assert inspect.signature(function).parameters["device"].default == "cpu"
        assert "commands take a GPU where there is one" in (inspect.getdoc(function) or ""), name
    assert {inspect.signature(each).parameters["device"].default for each in COMMANDS.values()} == {"auto"}
