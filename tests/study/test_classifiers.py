"""Training of a study's classifiers: initial weights, loss, curve, and evaluation by old and new labels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from study.conftest import FULL_STUDY, ignore, only, resolved

from notbugs import models
from notbugs.predict import predict
from notbugs.runs.attempts import Attempt
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, TrainingRow
from notbugs.study import classifiers, store
from notbugs.study.catalog.models import EPSILON_SWEEP, MODELS, trained_on
from notbugs.study.classifiers import (
    _augmentation,
    epochs_on,
    evaluate_model,
    noise_std,
    pixel_statistics,
    train_classifier,
    train_model,
)
from notbugs.study.config import StudyConfig, load
from notbugs.train import state


def test_models_with_the_same_initialization_begin_alike_and_others_do_not() -> None:
    config = replace(resolved(FULL_STUDY), epochs=1, learning_rate=1e-12, weight_decay=0.0)

    def initial(name: str) -> torch.Tensor:
        model = train_classifier(config, load(config).train, MODELS[name], seed=0, report_progress=ignore).model
        return torch.cat([weight.flatten() for weight in model.parameters()])

    torch.testing.assert_close(initial("same-init"), initial("standard"), rtol=0, atol=1e-6)
    assert (initial("reinit-1") - initial("standard")).abs().max() > 0.01


def test_a_spec_overrides_the_configuration() -> None:
    config = resolved(StudyConfig("digits", limit=60, epochs=3, width=8))
    trained = train_classifier(config, load(config).train, MODELS["undertrained"], seed=0, report_progress=ignore)
    assert [row.epoch for row in trained.curve] == [1, 2] and {row.test_accuracy for row in trained.curve} == {None}
    usual = train_classifier(config, load(config).train, MODELS["standard"], seed=0, report_progress=ignore)
    assert max(row.learning_rate for row in trained.curve) < 0.06 * max(row.learning_rate for row in usual.curve)
    linear = train_classifier(config, load(config).train, MODELS["robust-linear"], seed=0, report_progress=ignore).model
    assert linear.architecture["name"] == "linear" and linear.architecture["width"] is None


def test_progress_is_that_of_the_epochs_and_of_the_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    config = resolved(StudyConfig("digits", limit=60, epochs=2, width=8))
    events: list[tuple[str, float, str]] = []
    for folder in (tmp_path / "models", tmp_path / "datasets"):
        folder.mkdir()
    train_model(config, tmp_path, 0, Attempt(tmp_path, lambda *event: events.append(event), tmp_path), spec=MODELS["standard"])
    assert events == [("", 0.5, "epoch 1 of 2"), ("", 1.0, "epoch 2 of 2")]
    assert (tmp_path / "training.pt").exists()  # from which a killed training goes on
    evaluate_model(config, tmp_path, 0, lambda *event: events.append(event), spec=MODELS["standard"])
    shares = [share for _, share, _ in events[2:]]
    assert shares == sorted({*shares}) and shares[-1] == 1 and len(shares) > 2
    assert [words for *_, words in events[2:]] == [f"attacked: {share:.0%}" for share in shares]


def test_extra_epochs_are_called_so() -> None:
    config = replace(resolved(StudyConfig("digits", limit=60, epochs=1, width=8, relabel_learning_rate=1e-9)), patience=1)
    part, events = load(config).train, []
    train_classifier(config, part, MODELS["trained-on-next-labels"], seed=0, report_progress=lambda *event: events.append(event))
    assert events[0] == ("", 1.0, "epoch 1 of 1")
    assert {event[1:] for event in events[1:]} == {
        (1.0, f"epoch {number} of 1, more while accuracy is at chance level") for number in (2, 3)
    }


def test_without_its_data_set_a_model_is_not_trained(tmp_path: Path) -> None:
    config = resolved(StudyConfig("digits", limit=60, epochs=1, width=8))
    RunFolder.open(tmp_path, {"kind": "study"}).close()
    before = {*tmp_path.iterdir()}
    for stage in (train_model, evaluate_model):
        assert stage(config, tmp_path, 0, ignore, spec=MODELS[trained_on("misclassified-only")]) == []
    assert {*tmp_path.iterdir()} == before


def test_pixel_statistics_are_those_of_each_channel() -> None:
    train = load(StudyConfig("planted", limit=80)).train
    statistics, pixels = pixel_statistics(train), train.pixels(slice(None))
    assert statistics["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert statistics["std"] == pytest.approx(pixels.std((0, 2, 3)).tolist())


def test_pixel_statistics_of_large_images_are_those_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    train = load(StudyConfig("planted", limit=80)).train
    monkeypatch.setattr(classifiers, "STATISTICS_NUMBERS", 20 * 3 * 32 * 32)
    statistics, pixels = pixel_statistics(train), train.pixels(slice(None, None, 4))
    assert statistics["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist())


@pytest.mark.slow
def test_the_curve_of_a_relabeled_data_set_ends_in_its_accuracy(full_run: RunFolder) -> None:
    curve = [row for row in full_run.rows(TrainingRow) if row.model == trained_on("random-labels")]
    clean = only(full_run.rows(AccuracyRow), model=trained_on("random-labels"), set="test", epsilon=0)
    assert curve[-1].test_accuracy == clean.accuracy  # the weights are the last epoch's, whatever earlier ones achieved


@pytest.mark.slow
def test_models_trained_on_next_labels_are_evaluated_by_both_labels(full_run: RunFolder) -> None:
    config = resolved(FULL_STUDY)
    test, rows = load(config).test, full_run.rows(AccuracyRow)
    for name in (trained_on("next-labels"), trained_on("next-labels-non-transferable"), "vgg-trained-on-next-labels"):
        predicted = predict(store.load_model(config, full_run.folder, 0, name), test)
        correct = {row.set: row.correct for row in rows if row.model == name and not row.epsilon}
        assert correct["test"] == int((predicted == test.labels).sum())
        assert correct["test-next"] == int((predicted == (test.labels + 1) % 10).sum())


@pytest.mark.slow
def test_the_sources_of_the_sweep_were_trained_at_their_epsilon(full_run: RunFolder) -> None:
    for name, fraction in EPSILON_SWEEP.items():
        path = store.model_path(resolved(FULL_STUDY), full_run.folder, 0, name)
        assert models.load(path)[1].epsilon == fraction * 0.75
        assert json.loads(path.with_suffix(".json").read_text())["training"]["loss"] == "adversarial"


@pytest.mark.parametrize(
    ("trained", "given", "augmented"),
    [("standard", {"translate": 1}, True), ("standard", {"relabel_translate": 1}, False),
     ("trained-on-next-labels", {"translate": 1, "flip": True}, False),
     ("trained-on-next-labels", {"relabel_translate": 1}, True)],
)  # fmt: skip
def test_relabeled_sets_have_translations_of_their_own(trained: str, given: dict[str, Any], augmented: bool) -> None:
    config = resolved(replace(StudyConfig("digits", limit=60), **given))
    assert (_augmentation(config, MODELS[trained], (1, 8, 8)) is not None) == augmented


@pytest.mark.parametrize(
    ("norm", "epsilon", "shape", "std"),
    [("l2", 0.5, (3, 32, 32), 0.05), ("l2", 1.0, (3, 64, 64), 0.05), ("l2", 1.5, (1, 28, 28), 0.297),
     ("l2", 0.75, (1, 8, 8), 0.3), ("linf", 8 / 255, (3, 32, 32), 0.05)],
)  # fmt: skip
def test_noise_of_the_stronger_d_r_grows_with_epsilon(norm: str, epsilon: float, shape: tuple[int, ...], std: float) -> None:
    config = resolved(StudyConfig("digits", limit=60, norm=norm, epsilon=epsilon))
    assert noise_std(config, shape) == pytest.approx(std, abs=1e-3)
    images, generator = torch.full((20, *shape), 0.5), torch.Generator().manual_seed(0)
    for name in ("trained-on-robust-strong", "trained-on-correct-only"):
        augment = _augmentation(config, MODELS[name], shape)
        assert augment is not None and float(augment(images, generator).std()) == pytest.approx(std, rel=0.1)


def test_models_of_the_stronger_d_r_have_four_times_the_steps() -> None:
    config = resolved(StudyConfig("digits", limit=60, epochs=6))
    strong, control, robust = (MODELS[trained_on(name)] for name in ("robust-strong", "correct-only", "robust"))
    assert [epochs_on(config, strong, size) for size in (8, 4)] == [3, 6] and epochs_on(config, control, 0.5) == 48
    assert [epochs_on(config, robust, size) for size in (2, 1, 0.5)] == [3, 6, 6]


@pytest.mark.parametrize("trained", ["trained-on-random-labels", "trained-on-robust"])
def test_batch_norm_statistics_are_adapted_after_training_on_relabeled_sets_only(trained: str) -> None:
    found = []
    for adapt in (False, True):
        config = resolved(StudyConfig("digits", limit=60, epochs=1, width=4, adapt_batchnorm=adapt))
        images = load(config, 0).train.with_images(255 - load(config, 0).train.images)
        model = train_classifier(config, images, MODELS[trained], seed=0, report_progress=ignore).model
        found.append({name: value for name, value in model.state_dict().items() if name.endswith("running_mean")})
    same = all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert same == (trained == "trained-on-robust")
    assert (
        resolved(StudyConfig("mnist5k", limit=60)).adapt_batchnorm
        and not resolved(StudyConfig("digits", limit=60)).adapt_batchnorm
    )
