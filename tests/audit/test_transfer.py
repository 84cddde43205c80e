"""Transfer of a saved model's examples: the rows of `metrics.transfer`, target by target, and rejected input."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from notbugs import data, models, train
from notbugs.audit import AuditConfig
from notbugs.audit import transfer as transfer_module
from notbugs.audit.transfer import run_transfer
from notbugs.data import DataConfig, loaded
from notbugs.data import images as data_images
from notbugs.decoding.headers import EncodedImage, ImageFacts
from notbugs.errors import InputError, NotbugsWarning
from notbugs.metrics import PERTURBATIONS, make_examples, transfer_rates
from notbugs.models import sklearn_learners
from notbugs.runs.scheduler import Job
from notbugs.search import NormBall
from notbugs.study import comparisons

DIGITS = DataConfig("digits")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, standard: models.Model, digits: data.Splits) -> AuditConfig:
    """The standard model as a file that says that it was trained at L2 epsilon 1."""
    path = tmp_path_factory.mktemp("models") / "standard.safetensors"
    models.save(standard, path, classes=list(digits.test.classes), training={"norm": "l2", "epsilon": 1.0})
    return AuditConfig(str(path), DIGITS, budget="quick", images=40)


@pytest.mark.slow
def test_rows_are_those_of_transfer_rates_target_by_target(
    saved: AuditConfig, standard: models.Model, digits: data.Splits
) -> None:
    """A learner that is trained here, and the model itself, at the epsilon that the file names."""
    progress: list[tuple[str, float, str]] = []
    targets = ["logistic-regression", saved.model, "logistic-regression"]
    rows = run_transfer(saved, targets, workers=1, report_progress=lambda *words: progress.append(words))
    assert [row.target for row in rows] == ["logistic-regression"] * 3 + [saved.model] * 3
    assert {(row.source, row.norm, row.epsilon, row.seed) for row in rows} == {(saved.model, "l2", 1.0, 0)}
    part = digits.test.select(torch.arange(40) * 450 // 40)
    examples = make_examples(standard, part, NormBall("l2", 1.0))
    wanted = transfer_rates(examples, part, sklearn_learners.fit_learner("logistic-regression", digits.train))
    wanted += transfer_rates(examples, part, standard)
    assert [{name: getattr(row, name) for name in wanted[0]._fields} for row in rows] == [each._asdict() for each in wanted]
    assert {name for name, _, _ in progress} == {"examples", "logistic-regression", saved.model}
    assert all(0 <= share <= 1 for _, share, _ in progress)


@pytest.mark.slow
def test_workers_find_an_index_of_image_files(
    saved: AuditConfig, digits: data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sets larger than memory: each worker would open all images."""
    for name, part in (("train", digits.train.select(slice(0, 60))), ("test", digits.test.select(slice(0, 20)))):
        data.export(part, tmp_path / name, "folder", card="", split=name)
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / name / name).rename(tmp_path / "set" / name)
    monkeypatch.setattr(data_images, "IN_MEMORY", 0)
    monkeypatch.setattr(data_images, "SAMPLE", 4)
    opened, headers = list[str](), data_images.read_header

    def counted(image: EncodedImage, **options: object) -> ImageFacts:
        opened.append(str(image))
        return headers(image, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(data_images, "read_header", counted)

    def run_graph(jobs: Mapping[str, Job[object]], *_: object, **__: object) -> list[tuple[str, object]]:
        """Each job as in a process of its own, which has loaded nothing."""
        found = []
        for name, job in jobs.items():
            loaded._Kept.splits.clear()
            opened.clear()
            found.append((name, job.work(lambda *_: None)))
            assert len(opened) <= 2 * data_images.SAMPLE
        return found

    monkeypatch.setattr(transfer_module, "run_graph", run_graph)
    config = replace(saved, data=DataConfig(str(tmp_path / "set")), images=20)
    assert len(run_transfer(config, ["logistic-regression"])) == 3


@pytest.mark.slow
def test_that_a_learner_is_fitted_to_fewer_images_is_said(saved: AuditConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "LEARNER_VALUES", 64 * 100)
    config = replace(saved, threats=("linf:0.05",), images=50)
    said = r"^non-neural classifiers are fitted to 100 of 1,347 training images: more take hours and gigabytes$"
    with pytest.warns(NotbugsWarning, match=said):
        run_transfer(config, ["nearest-neighbors"], workers=1)


@pytest.mark.slow
def test_an_architecture_is_trained_on_the_training_images(saved: AuditConfig) -> None:
    config = replace(saved, threats=("linf:0.05",), images=50)
    rows = run_transfer(config, ["mixer"], epochs=3, workers=1)
    assert [row.perturbation for row in rows] == list(PERTURBATIONS)
    assert {(row.norm, row.epsilon) for row in rows} == {("linf", 0.05)}
    assert rows[0].clean_accuracy > 0.6
    assert rows == run_transfer(config, ["mixer"], epochs=3, workers=1)


@pytest.mark.parametrize(
    ("changes", "against", "message"),
    [
        ({"threats": ("l1:3",)}, ["mixer"], r"^--epsilon: must be in l2 or linf for transfer, got .*"),
        ({"threats": ("spatial:15,1",)}, ["mixer"], r"^--epsilon: must be in l2 or linf for transfer, got .*"),
        ({}, ["mixer", "no-such-model.safetensors"], r"^no-such-model.safetensors: no such model"),
        ({}, ["logistic"], r"logistic: .*"),
        ({"images": 0}, ["mixer"], r"^--images: must be 1 or more, got 0$"),
        ({"data": DataConfig("planted")}, ["mixer"], r"^planted: must hold images of shape"),
    ],
)
def test_input_errors_come_before_any_training(
    saved: AuditConfig, changes: dict[str, Any], against: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("training started")

    monkeypatch.setattr(train, "fit", never)
    with pytest.raises(InputError, match=message) as caught:
        run_transfer(replace(saved, images=20, **changes) if "images" not in changes else replace(saved, **changes), against)
    assert "\n" not in str(caught.value)


def test_a_source_without_gradients_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "without_gradients.py").write_text(
        "import numpy as np\ndef model(classes):\n    return lambda images: np.eye(classes)[images[:, 0, 0, 0].astype(int)]\n"
    )
    monkeypatch.chdir(tmp_path)
    config = AuditConfig("without_gradients:model", DIGITS, ("l2:0.5",), "quick", 20)
    with pytest.raises(
        InputError,
        match=r"^MODEL: must have gradients: .*, got without_gradients:model, which has none: it is a function of arrays$",
    ):
        run_transfer(config, ["mixer"], workers=1)
