"""Attacks, controls, constructions and metrics of one's own: one hook, entry points or an environment variable."""

import os
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from notbugs import data, models, report
from notbugs.attacks import ensemble_name
from notbugs.cli.console import command_line
from notbugs.errors import InputError
from notbugs.extensions import Construction, Control, Metric, registry
from notbugs.extensions.registry import Extensions, check_present, check_unchanged, function_of, load_extensions
from notbugs.predict import predict
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, MetricRow, SetRow
from notbugs.runs.tables.transferability import ControlRow
from notbugs.stats import mean_interval, wilson_interval
from notbugs.study import datasets, pipeline
from notbugs.study.commands import command_of
from notbugs.study.config import StudyConfig
from notbugs.study.own_metrics import summarize

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAME = "random-labels-shuffled-pixels"
ENVIRONMENT = {
    **os.environ,
    "NOTBUGS_EXTENSIONS": "own_control,own_parts",
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


def test_a_control_and_a_construction_are_a_data_set_and_a_model_without_torch() -> None:
    code = f"""
import sys
from notbugs.study import comparisons
from notbugs.study.catalog import datasets, models
spec, model = datasets.DATASETS["{NAME}"], models.MODELS["trained-on-{NAME}"]
assert spec.is_relabeled and spec.source_dataset == spec.control_of == "random-labels"
assert datasets.OWN_DATASETS == ("robust-certain", "{NAME}") and model.role == "own"
assert not datasets.DATASETS["robust-certain"].is_relabeled
assert models.OWN_MODELS == models.TABLE_MODELS[-2:]
print(comparisons.CONTROLS_OF["trained-on-random-labels"][model.name], comparisons.control_short(model.name), sep="; ")
assert "torch" not in sys.modules
"""
    assert python(code) == "the size of the perturbations is enough; shuffled pixels\n"


def test_the_example_keeps_the_size_of_each_perturbation(example: None, digits: data.Splits) -> None:
    (control,) = load_extensions().controls
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
    entries = [EntryPoint("anything", "own_control", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.GROUP else [])
    assert load_extensions().names == [NAME]  # named twice, once
    assert load_extensions().hashes() == {"own_control": sha256(Path("own_control.py").read_bytes()).hexdigest()}
    monkeypatch.delenv("NOTBUGS_EXTENSIONS")
    assert load_extensions().names == [NAME]


def test_commands_name_the_controls_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTBUGS_EXTENSIONS", "my_controls,others")
    assert command_of("digits", {"full": True}) == "NOTBUGS_EXTENSIONS=my_controls,others notbugs run digits --full"
    assert command_line().startswith("NOTBUGS_EXTENSIONS=my_controls,others notbugs")
    monkeypatch.delenv("NOTBUGS_EXTENSIONS")
    assert command_of("digits", {}) == "notbugs run digits" and command_line().startswith("notbugs")


def test_what_cannot_be_used_is_an_input_error(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"names of their own, got {NAME}"):
        load_extensions().check_names((NAME,))
    wrong = SimpleNamespace(METRICS=["accuracy"])
    monkeypatch.setitem(sys.modules, "wrong_metrics", wrong)  # type: ignore[arg-type]
    for given, says in (
        ("none_such", "must name modules that can be imported"),
        ("json", "json must have a list ATTACKS or CONTROLS or CONSTRUCTIONS or METRICS, got none"),
        ("wrong_metrics", "wrong_metrics must have a list METRICS of notbugs.extensions.Metric, got list"),
    ):
        monkeypatch.setenv("NOTBUGS_EXTENSIONS", given)
        with pytest.raises(InputError, match=says):
            load_extensions()
    with pytest.raises(InputError, match="must name a function, got json:none"):
        function_of("json:none")
    with pytest.raises(InputError, match="lower-case letters"):
        Control("Mine!", "a:b", "", "")
    with pytest.raises(InputError, match=r"control_of: must be one of random-labels, next-labels, got 'robust'"):
        Control("mine", "a:b", "", "", "robust")
    with pytest.raises(InputError, match="must be module:function"):
        Control("mine", "a", "", "")
    with pytest.raises(InputError, match=r"Construction\.name: must be lower-case letters"):
        Construction("Mine!", "a:b", "")
    with pytest.raises(InputError, match=r"Metric\.measure: must be module:function"):
        Metric("mine", "a", "")
    with pytest.raises(InputError, match="set NOTBUGS_EXTENSIONS=MODULE"):
        check_present(["mine"], [])


def test_functions_are_looked_for_and_tried_before_any_work(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {
        "good": lambda original, relabeled, model, seed: None,
        "anything": lambda **given: None,
        "positional": lambda original, relabeled, model, seed, /: None,
        "few": lambda original, seed: None,
    }
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(**functions, number=3))  # type: ignore[arg-type]

    def check(*parts: str) -> None:
        Extensions([Control(f"c{number}", part, "", "") for number, part in enumerate(parts)]).check_functions()

    load_extensions().check_functions()
    check("mine:good", "mine:anything")
    for part, says in (
        ("mine:missing", "must name a function, got mine:missing"),
        ("mine:number", "must name a function, got mine:number"),
        ("mine:few", "mine:few: must take the keyword arguments original, relabeled, model, seed, got .*'relabeled'"),
        ("mine:positional", "mine:positional: must take the keyword arguments original, relabeled, model, seed"),
    ):
        with pytest.raises(InputError, match=says):
            check("mine:good", part)
    with pytest.raises(InputError, match="must name a function, got mine:none"):
        Extensions(metrics=[Metric("m", "mine:none", "")]).check_functions()
    missing = Extensions([Control("c", "mine:missing", "", "")], modules=["own_control"])
    monkeypatch.setattr(pipeline, "EXTENSIONS", missing)
    with pytest.raises(InputError, match="must name a function, got mine:missing"):
        pipeline.run(StudyConfig("digits"), "never-made")
    monkeypatch.setenv("NOTBUGS_EXTENSIONS", "own_control,late")
    with pytest.raises(InputError, match="first used, got own_control, late now, own_control before"):
        pipeline.run(StudyConfig("digits"), "never-made")
    assert not Path("never-made").exists()


def test_a_module_that_changed_since_a_run_began_is_an_error() -> None:
    """The data sets in the folder are those of the code as it was: they would be reported as those of the new one."""
    check_unchanged({"mine": "a1", "gone": "b2"}, {"mine": "a1", "new": "c3"})
    with pytest.raises(InputError, match="must name modules that are as when this run began, got mine, changed"):
        check_unchanged({"mine": "a1"}, {"mine": "a2"})


def test_what_a_control_returns_is_checked(monkeypatch: pytest.MonkeyPatch, digits: data.Splits, standard: models.Model) -> None:
    part = digits.train.select(slice(0, 10))
    given: dict[str, object] = {"made": part}
    monkeypatch.setattr(datasets, "function_of", lambda name: lambda **named: given["made"])
    context = SimpleNamespace(
        config=SimpleNamespace(device="cpu"), spec=SimpleNamespace(function="a:b"), original=part, source=lambda: part,
        model=lambda: standard, random_seed=0,
    )  # fmt: skip
    found = datasets._own_control(context)  # type: ignore[arg-type]
    assert (found.stats.n, found.stats.relabeled, found.stats.max_l2) == (10, 0, 0.0)
    given["made"] = part.with_labels((predict(standard, part) + (torch.arange(10) < 3)) % 10)
    assert datasets._own_control(context).stats.target_reached == pytest.approx(0.7)  # type: ignore[arg-type]
    for made, got in ((None, "NoneType"), (digits.train.select([0]).__class__.__name__, "str")):
        given["made"] = made
        with pytest.raises(InputError, match=f"must return a Dataset with the classes and the image size .*, got {got}"):
            datasets._own_control(context)  # type: ignore[arg-type]


def test_what_a_metric_returns_is_summarized_or_refused() -> None:
    assert summarize(torch.tensor([True, False, True, True]), 4, "a:b") == (0.75, *wilson_interval(3, 4), True)
    numbers = np.array([0.0, 1.0, 1.0, 1.0])
    mean = mean_interval(numbers)
    assert summarize(numbers, 4, "a:b") == (0.75, mean.ci_low, mean.ci_high, False)
    assert summarize(3, 4, "a:b") == (3.0, None, None, False)
    for found in (
        torch.zeros(3),
        [0.0, float("nan"), 0.0, 0.0],
        "words",
        None,
        torch.zeros(4, 2),
        torch.zeros(4, requires_grad=True) / 0,
    ):
        with pytest.raises(InputError, match="a:b: must return one finite number, or one for each of 4 images"):
            summarize(found, 4, "a:b")


@pytest.mark.slow
def test_all_kinds_in_a_quick_study_and_its_report(tmp_path: Path) -> None:
    """Entry points, in a real package on the path, for the control; the variable for the others."""
    package = tmp_path / "site"
    (package / "mine-1.dist-info").mkdir(parents=True)
    (package / "mine-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "mine-1.dist-info" / "entry_points.txt").write_text("[notbugs.extensions]\nanything = own_control\n")
    environment = {
        **ENVIRONMENT,
        "NOTBUGS_EXTENSIONS": "own_parts,own_attack",
        "PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(package)]),
    }
    options = "--limit 100 --width 4 --epochs 1 --seeds 1 --relabel-steps 1 --invert-steps 2 --patience 0 --workers 1"
    code = "import small_budgets, notbugs.cli; small_budgets.use(); notbugs.cli.main()"
    command = [sys.executable, "-c", code, "run", "digits", *options.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = RunFolder.read(tmp_path / "run")
    assert run.metadata["extensions"] == ["robust-certain", NAME, "own-attack", "wrong-probability"] and run.metadata["finished"]
    attacked = {row.attack for row in run.rows(AccuracyRow) if row.set == "test" and row.epsilon}
    assert attacked == {f"{ensemble_name(budget)} + wrong-probability" for budget in ("quick", "standard")}
    assert run.metadata["settings"]["attack"] == f"{ensemble_name('standard')} + wrong-probability"
    assert {"robust-certain", NAME} <= {row.set for row in run.rows(SetRow)}
    assert {"trained-on-robust-certain", f"trained-on-{NAME}"} <= {row.model for row in run.rows(AccuracyRow)}
    compared = [(row.model, row.control.removeprefix("trained-on-random-labels-")) for row in run.rows(ControlRow)]
    assert compared == [("trained-on-random-labels", "shuffled"), ("trained-on-random-labels", "shuffled-pixels")]
    metrics = {row.model: row for row in run.rows(MetricRow)}
    clean = {row.model: row for row in run.rows(AccuracyRow) if (row.set, row.epsilon) == ("test", 0)}
    assert set(metrics) == set(clean) and all(row.is_share and row.n == clean[row.model].n for row in metrics.values())
    assert all(row.value <= clean[row.model].accuracy for row in metrics.values())  # its search starts at the clean image
    page = (tmp_path / "run" / "report.html").read_text()
    for words in (
        *(
            "the pixels of each perturbation shuffled",
            "the size of the perturbations is enough",
            "exceed the controls that were run?",
        ),
        *(
            "images of which the robust model is most certain",
            "robust accuracy, own attack",
            f"{ensemble_name('standard')} + wrong-probability",
        ),
    ):
        assert words in page
    assert "robust accuracy, own attack" in done.stdout and "control: shuffled pixels" in done.stdout
    with pytest.raises(InputError, match=f"none with own-attack, {NAME}, robust-certain, wrong-probability"):
        report.write(tmp_path / "run")
