"""Controls of one's own: one hook, entry points or an environment variable."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from notbugs import data, extensions, report
from notbugs.cli.console import command_line
from notbugs.errors import InputError
from notbugs.extensions import Control, check_present, function_of, own_controls
from notbugs.study import datasets
from notbugs.study.commands import command_of

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAME = "random-labels-shuffled-pixels"
ENVIRONMENT = {
    **os.environ,
    "NOTBUGS_EXTENSIONS": "own_control",
    "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *sys.path]),
}


def python(code: str, *arguments: object) -> str:
    """What code prints that runs beside the example."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=EXAMPLES, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("NOTBUGS_EXTENSIONS", " own_control ,")


def test_a_control_is_a_data_set_a_model_and_a_row_of_the_report_without_torch() -> None:
    code = f"""
import sys
from notbugs.study import catalog
spec, model = catalog.DATASETS["{NAME}"], catalog.MODELS["trained-on-{NAME}"]
assert spec.is_relabeled and spec.source_dataset == spec.control_of == "random-labels"
assert "{NAME}" in catalog.CONTROL_DATASETS and model.role == "control"
print(catalog.CONTROLS_OF["trained-on-random-labels"][model.name], catalog.control_short(model.name), sep="; ")
assert "torch" not in sys.modules
"""
    assert python(code) == "the size of the perturbations is enough; shuffled pixels\n"


def test_the_example_keeps_the_size_of_each_perturbation(example: None, digits: data.Splits) -> None:
    (control,) = own_controls(())
    original = digits.train.select(slice(0, 20))
    pixels = (original.pixels(slice(None)) * 0.5 + 0.25) * 255
    gray = original.with_images(pixels.round().to(torch.uint8))
    noise = torch.randint(-9, 10, gray.images[:].shape, generator=torch.Generator().manual_seed(0))
    relabeled = gray.with_images((gray.images[:].int() + noise).to(torch.uint8))
    made = function_of(control.construct)(original=gray, relabeled=relabeled, model=None, seed=3)
    found = (made.images[:].int() - gray.images[:].int()).flatten(1)
    assert torch.equal(found.sort(1).values, noise.flatten(1).sort(1).values) and not torch.equal(found, noise.flatten(1))
    assert torch.equal(made.labels, relabeled.labels)


def test_entry_points_and_the_variable_are_one_hook(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("anything", "own_control", extensions.GROUP)]
    monkeypatch.setattr(extensions, "entry_points", lambda group: entries if group == extensions.GROUP else [])
    assert [control.name for control in own_controls(())] == [NAME]  # named twice, once
    monkeypatch.delenv("NOTBUGS_EXTENSIONS")
    assert [control.name for control in own_controls(())] == [NAME]


def test_commands_name_the_controls_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTBUGS_EXTENSIONS", "my_controls,others")
    assert command_of("digits", {"full": True}) == "NOTBUGS_EXTENSIONS=my_controls,others notbugs run digits --full"
    assert command_line().startswith("NOTBUGS_EXTENSIONS=my_controls,others notbugs")
    monkeypatch.delenv("NOTBUGS_EXTENSIONS")
    assert command_of("digits", {}) == "notbugs run digits" and command_line().startswith("notbugs")


def test_what_cannot_be_used_is_an_input_error(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"must have names of their own, got {NAME}"):
        own_controls((NAME,))
    for given, says in (("none_such", "must name modules that can be imported"), ("json", "json must have a list CONTROLS")):
        monkeypatch.setenv("NOTBUGS_EXTENSIONS", given)
        with pytest.raises(InputError, match=says):
            own_controls(())
    with pytest.raises(InputError, match="must name a function, got json:none"):
        function_of("json:none")
    with pytest.raises(InputError, match="lower-case letters"):
        Control("Mine!", "a:b", "", "")
    with pytest.raises(InputError, match=r"control_of: must be one of random-labels, next-labels, got 'robust'"):
        Control("mine", "a:b", "", "", "robust")
    with pytest.raises(InputError, match="must be module:function"):
        Control("mine", "a", "", "")
    with pytest.raises(InputError, match="set NOTBUGS_EXTENSIONS=MODULE"):
        check_present(["mine"], [])


def test_what_a_control_returns_is_checked(monkeypatch: pytest.MonkeyPatch, digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 10))
    given: dict[str, object] = {"made": part}
    monkeypatch.setattr(datasets, "function_of", lambda name: lambda **named: given["made"])
    context = SimpleNamespace(
        spec=SimpleNamespace(function="a:b"), original=part, source=lambda: part, model=lambda: None, random_seed=0
    )
    found = datasets._own(context)  # type: ignore[arg-type]
    assert (found.stats.n, found.stats.relabeled, found.stats.max_l2) == (10, 0, 0.0)
    for made, got in ((None, "NoneType"), (digits.train.select([0]).__class__.__name__, "str")):
        given["made"] = made
        with pytest.raises(InputError, match=f"must return a Dataset with the classes and the image size .*, got {got}"):
            datasets._own(context)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_example_in_a_study_and_its_report(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from notbugs import report
from notbugs.runs.tables.study import AccuracyRow, SetRow
from notbugs.study import controls, pipeline
from notbugs.study.config import StudyConfig
folder, names = Path(sys.argv[1]), ("random-labels", "{NAME}")
config = StudyConfig("digits", limit=100, width=4, epochs=1, seeds=1, full=True, relabel_steps=1, patience=0)
run = pipeline.run(config, folder, only=["evaluation-trained-on-" + name for name in names], workers=1)
assert {{row.set for row in run.rows(SetRow)}} == {{*names}}
assert "trained-on-{NAME}" in {{row.model for row in run.rows(AccuracyRow)}}
rows = controls.excess_over_controls(config, folder, 0, lambda *_: None)  # its stage needs all other controls
run.record_stage("seed0/controls", 1.0, rows)
assert [row.control for row in rows] == ["trained-on-{NAME}"], rows
print(report.write(folder).read_text())
"""
    page = python(code, tmp_path / "run")
    assert "the pixels of each perturbation shuffled" in page and "the size of the perturbations is enough" in page
    with pytest.raises(InputError, match=f"none with {NAME}"):
        report.write(tmp_path / "run")
