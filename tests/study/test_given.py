"""A classifier of the user as the standard model of a study: what is refused, what its features are, what a run says of it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli.conftest import QUICK, call_here, error_line
from prototypes import prototype_classifier
from study.conftest import QUICK_STUDY, resolved

from notbugs import data, models, predict, report
from notbugs.errors import InputError
from notbugs.models.notes import reporting_notes
from notbugs.report.findings.models import given_model_warning
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, PictureRow, TrainingRow
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig, config_of_run, load
from notbugs.study.given import given_model, with_warning
from notbugs.study.plan import Plan
from notbugs.study.store import has_model, load_model

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 20), nn.ReLU(), nn.Linear(20, classes))
    def forward(self, images):
        return self.layers(images)

class Detached(Net):
    def forward(self, images):
        return super().forward(images).detach()

def net(classes): return Net(classes)
def five(classes): return Net(5)
def bands(classes): return Net(classes, channels=5)
def detached(classes): return Detached(classes)
def predictions(classes): return lambda images: images.reshape(len(images), -1)[:, :classes]
"""


@pytest.fixture(scope="module")
def mine(standard: models.Model, digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network as a file."""
    path = tmp_path_factory.mktemp("given") / "mine.safetensors"
    models.save(standard, path, classes=list(digits.train.classes))
    return path


@pytest.fixture(scope="module")
def given_run(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Plan]:
    """A study of two seeds whose standard model was given."""
    plans: list[Plan] = []
    config = replace(QUICK_STUDY, model=str(mine), seeds=2, epochs=1, invert_steps=1, relabel_steps=1)
    run = pipeline.run(config, tmp_path_factory.mktemp("study") / "run", workers=1, on_plan=plans.append)
    return run, plans[0]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("five", "given_models:five: must have one output for each of the 10 classes of digits, got 5"),
        ("bands", r"given_models:bands: must take torch.float32 images of shape \(1, 1, 8, 8\)"),
        ("predictions", "--model: must have gradients: D_NR, D_rand and D_det.*got given_models:predictions, a black box; "
         "for its robust accuracy alone: notbugs attack given_models:predictions digits$"),
        ("detached", "--model: must have gradients.*given_models:detached, whose logits cannot be differentiated: "
         "its outputs do not depend on the pixels for PyTorch: look for no_grad"),
        ("nothing", "MODEL: given_models:nothing must be a function"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_studied_is_an_error_before_any_work(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{says}"):
        pipeline.run(replace(QUICK_STUDY, model=f"given_models:{name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_of_other_images_or_classes_names_both(tmp_path: Path, digits: data.Splits) -> None:
    models.save(models.build("small", shape=(1, 12, 12), classes=10, width=4), tmp_path / "larger.safetensors")
    with pytest.raises(InputError, match=r"^digits: must hold images of shape \[1, 12, 12\], as the model .*; use --resize 12$"):
        given_model(resolved(replace(QUICK_STUDY, model=str(tmp_path / "larger.safetensors"))))
    models.save(
        models.build("small", shape=(1, 8, 8), classes=10, width=4),
        tmp_path / "other.safetensors",
        classes=[*"0123456789"[:9], "x"],
    )
    with pytest.raises(
        InputError, match=r"other.safetensors: must have one output for each class of digits, got none called 9 among 10"
    ):
        given_model(resolved(replace(QUICK_STUDY, model=str(tmp_path / "other.safetensors"))))


def test_a_model_whose_outputs_stand_in_another_order_is_read_by_their_names(tmp_path: Path, digits: data.Splits) -> None:
    """As its file says, as a file of the user says, or as a class map says."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    right, permuted = prototype_classifier(digits.train), prototype_classifier(digits.train, order)
    models.save(permuted, tmp_path / "named.safetensors", classes=[*map(str, order)])
    models.save(permuted, tmp_path / "plain.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(map(str, order)))
    text = ",".join(f"{name}={output}" for output, name in enumerate(order))
    images = digits.test.pixels(slice(0, 5))
    digests = set()
    for name, options in (("named", {}), ("plain", {"classes": str(tmp_path / "names.txt")}), ("plain", {"class_map": text})):
        config = replace(QUICK_STUDY, model=str(tmp_path / f"{name}.safetensors"), **options)
        said: list[str] = []
        with reporting_notes(lambda _, notes: said.extend(notes)):  # noqa: B023
            given = given_model(resolved(config))
        how = "as --class-map says" if "class_map" in options else "by their names"
        assert said == [f"its outputs stand in another order than the classes of digits and are read {how}"]
        assert given and torch.allclose(given.model(images), right(images)) and given.features == "the input of its last layer"
        assert with_warning(given, digits.test, "cpu").warning == ""
        digests.add(given.sha256)
    assert len(digests) == 3
    plain = given_model(resolved(replace(QUICK_STUDY, model=str(tmp_path / "plain.safetensors"))))
    assert plain and plain.sha256_of == "its file" and not plain.notes
    warning = with_warning(plain, digits.test, "cpu").warning
    assert "read in another order. If that is so: --class-map 0=3,1=1,2=6,3=0,4=2,5=4,6=7,7=9,8=8,9=5" in warning


@pytest.mark.usefixtures("modules")
def test_code_is_known_by_its_logits_and_its_last_linear_layer_has_the_features() -> None:
    given = given_model(resolved(replace(QUICK_STUDY, model="given_models:net")))
    assert given and given.features == "the input of its layer layers.3" and given.sha256_of == "its logits on 20 images"
    images = load(QUICK_STUDY).test.pixels([0, 1])
    assert given.model.features(images).shape == (2, 20) and len(given.sha256) == 64
    assert given_model(QUICK_STUDY) is None


@pytest.mark.slow
def test_a_study_measures_the_given_model_and_trains_all_others(
    given_run: tuple[RunFolder, Plan], mine: Path, digits: data.Splits, standard: models.Model
) -> None:
    run, plan = given_run
    digest, settings = hashlib.sha256(mine.read_bytes()).hexdigest(), run.study().settings
    assert (settings["model"], settings["model_sha256"], settings["model_sha256_of"]) == (str(mine), digest, "its file")
    assert settings["model_features"] == "the input of its last layer" and config_of_run(run).model == str(mine)
    assert plan.given and plan.given_accuracy and plan.given.sha256 == digest
    test = load(QUICK_STUDY).test
    correct = int((predict.predict(standard, test) == test.labels).sum())
    clean = [row for row in run.rows(AccuracyRow) if (row.model, row.set, row.epsilon) == ("standard", "test", 0)]
    assert [(row.seed, row.correct) for row in clean] == [(0, correct), (1, correct)]
    assert plan.given_accuracy.correct == correct
    assert "standard" not in {row.model for row in run.rows(TrainingRow)} and run.metadata["finished"]
    assert {(row.model, row.seed) for row in run.rows(TrainingRow)} >= {("reference", 0), ("reference", 1), ("adversarial", 1)}
    assert not (run.folder / "models" / "standard.safetensors").exists()
    config = resolved(config_of_run(run))
    assert has_model(config, run.folder, 1, "standard") and not has_model(config, run.folder, 0, "same-init")
    loaded = load_model(config, run.folder, 1, "standard")
    assert torch.equal(predict.logits(loaded, digits.test), predict.logits(standard, digits.test))
    originals = [row for row in run.rows(PictureRow) if row.column == "original"]
    assert sum(row.standard == row.label for row in originals) >= 7  # a network of three epochs more knows its training images


@pytest.mark.slow
def test_the_results_name_the_given_model_and_compare_with_the_reference(given_run: tuple[RunFolder, Plan], mine: Path) -> None:
    run, _ = given_run
    results = StudyResults.read(run.folder)
    assert results.given_model == "mine.safetensors" and results.baseline == "reference" and results.models()[1] == "reference"
    assert results.title("standard") == "mine.safetensors (given): not trained here, the same in every seed"
    page = report.write(run.folder).read_text()
    assert "Is the given model vulnerable to small perturbations?" in page and "mine.safetensors (given)" in page
    assert hashlib.sha256(mine.read_bytes()).hexdigest() in page
    card = (run.folder / "datasets" / "nonrobust" / "README.md").read_text()
    assert "The standard model was given: `mine.safetensors`." in card
    assert "was given" not in (run.folder / "datasets" / "robust" / "README.md").read_text()


@pytest.mark.slow
def test_a_given_model_far_below_training_here_is_a_warning(given_run: tuple[RunFolder, Plan]) -> None:
    results = StudyResults.read(given_run[0].folder)
    assert given_model_warning(results) == ""  # it was trained for longer than the reference
    rows = results.rows(AccuracyRow)
    lower = [replace(row, accuracy=0.0, ci_low=0.0, ci_high=0.16) if row.model == "standard" else row for row in rows]
    results._rows[AccuracyRow] = [*lower]
    assert "not measurably above chance level on clean images (0.0 %). Check that" in given_model_warning(results)
    shares = {"standard": (0.5, 0.4, 0.6), "reference": (0.9, 0.8, 0.95)}
    results._rows[AccuracyRow] = [
        replace(row, **dict(zip(("accuracy", "ci_low", "ci_high"), shares.get(row.model, (0.5, 0.4, 0.6)), strict=True)))
        for row in rows
    ]
    assert "clean accuracy of 50.0 %, far below the 90.0 % of standard training. Check" in given_model_warning(results)
    results.metadata.settings["model_warning"] = "its outputs stand in another order"
    assert given_model_warning(results) == "Its outputs stand in another order."


@pytest.mark.slow
def test_a_model_that_changed_does_not_resume(mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    path.write_bytes(mine.read_bytes())
    path.with_suffix(".json").write_bytes(mine.with_suffix(".json").read_bytes())
    config = replace(QUICK_STUDY, model=str(path))
    pipeline.run(config, tmp_path / "run", only=("dataset-random-labels",), workers=1)
    classes = json.loads(path.with_suffix(".json").read_text())["classes"]
    models.save(models.build("small", shape=(1, 8, 8), classes=10, width=8), path, classes=classes)
    with pytest.raises(InputError, match=r"^--model: must be the same model as when this run began, got .*which has changed"):
        pipeline.run(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("modules")
def test_the_command_says_which_model_it_is_and_warns_at_chance_level(tmp_path: Path) -> None:
    words = ["run", "digits", *QUICK, "--seeds", 1, "--workers", 1, "--invert-steps", 1, "--relabel-steps", 1, "--patience", 0]
    done = call_here(*words, "--model", "given_models:net", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "Standard model: given_models:net, given: not trained here, and the same in every seed." in said
    assert "which D_NR keeps: the input of its layer layers.3. sha256 of its logits on 20 images: " in said
    assert "WARNING: that is not measurably above chance level, 10.0 %." in said
    assert "WARNING: The given model is not measurably above chance level on clean images" in " ".join(done.stdout.split())
    line = error_line(call_here(*words, "--model", "given_models:predictions", "--out", tmp_path / "other"))
    assert "a black box; for its robust accuracy alone: notbugs attack" in line


def test_a_study_without_a_model_is_as_before() -> None:
    assert resolved(StudyConfig("digits", limit=100)).model is None
