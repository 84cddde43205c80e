"""Catastrophic overfitting: more steps of PGD against those of training, the warning, the row, and noise by default."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import notbugs
from notbugs import attacks, data, models, predict
from notbugs.errors import InputError, NotbugsWarning
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall
from notbugs.study import classifiers, pipeline, single
from notbugs.study.catalog.models import MODELS
from notbugs.study.catalog.overfitting import remedy
from notbugs.study.classifiers import evaluate_model, save_classifier, train_classifier
from notbugs.study.config import StudyConfig, load, resumable_arguments
from notbugs.study.overfitting import overfitting_warning, training_attack_accuracy
from notbugs.study.resolve import resolve
from notbugs.study.resume import without_later_noise
from notbugs.study.single import SingleTraining
from notbugs.study.store import model_path

BALL = NormBall("l2", 0.5)
TINY = StudyConfig("digits", limit=60, epochs=1, width=8)


def ignore(*_: object) -> None:
    pass


@pytest.mark.slow
def test_the_accuracy_is_that_under_the_attack_of_training(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 100))
    with models.frozen(standard):
        attacked = attacks.training_pgd(standard, part.pixels(slice(None)), part.labels, threat_model=BALL, steps=2)
    correct = int((standard(attacked).argmax(1) == part.labels).sum())
    found = training_attack_accuracy(standard, part, BALL, 2)
    assert (found.correct, found.n, found.norm, found.epsilon) == (correct, 100, "l2", 0.5)
    assert correct < int((predict.predict(standard, part) == part.labels).sum())


@pytest.mark.slow
def test_a_classifier_that_more_steps_break_overfits_and_a_linear_one_does_not(
    standard: models.Model, digits: data.Splits
) -> None:
    """One step leaves most images of a standard classifier correct, and 20 steps do not; of a linear one it is nearly optimal."""
    text = overfitting_warning(standard, digits.train, BALL, 1)
    first, second = (
        training_attack_accuracy(standard, digits.train.select(data.evenly_spaced(200, len(digits.train))), BALL, steps).accuracy
        for steps in (1, 20)
    )
    assert f"of 200 training images {100 * first:.0f} % are" in text and f"it, {100 * second:.0f} % under 20 steps" in text
    assert text.endswith("Train with more steps (--adversarial-steps 10) or noise (--noise 0.17).") and first > second + 0.1
    linear = notbugs.train(digits, network="linear", epochs=4)
    assert overfitting_warning(linear, digits.train, BALL, 1) == ""


@pytest.mark.parametrize(
    ("norm", "epsilon", "steps", "noise", "words"),
    [
        ("l2", 1.5, 3, 0.0, "more steps (--adversarial-steps 10) or noise (--noise 0.15)."),
        ("l2", 1.5, 3, 0.15, "more steps (--adversarial-steps 10)."),
        ("l2", 1.5, 10, 0.1, "more steps (--adversarial-steps 20) or noise (--noise 0.15)."),
        ("l2", 15, 3, 0.0, "more steps (--adversarial-steps 10)."),  # no standard deviation above 1 can be asked for
        ("linf", 8 / 255, 3, 0.0, "more steps (--adversarial-steps 10)."),  # noise was not tried
    ],
)
def test_the_remedy_has_numbers_and_is_not_what_was_done(norm: str, epsilon: float, steps: int, noise: float, words: str) -> None:
    assert remedy(norm, epsilon, steps, (1, 28, 28), noise=noise, option="--noise") == f"Train with {words}"
    both = remedy("l2", 1.5, 3, (1, 28, 28), noise=0.0, option="--noise", python=True)
    assert "(--adversarial-steps 10, adversarial_steps=10) or noise (--noise 0.15, noise=0.15)" in both


def test_a_training_that_overfits_says_so_in_python_and_in_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement is replaced, which would need a long training."""
    monkeypatch.setattr(single, "overfitting_warning", lambda *_, **__: "it overfits")
    few = notbugs.load_dataset("digits", limit=60)
    with pytest.warns(NotbugsWarning, match="^it overfits$"):
        model = notbugs.train(few, loss="adversarial", epochs=1, width=4)
    assert model.notes[-1] == "it overfits"
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotbugsWarning)
        for loss in ("standard", "trades"):  # TRADES has another attack
            assert notbugs.train(few, loss=loss, epochs=1, width=4).notes == ()


@pytest.mark.slow
def test_a_robust_classifier_has_a_row_under_the_attack_of_training(tmp_path: Path) -> None:
    config = resolve(TINY, load(TINY))
    RunFolder.open(tmp_path, {"kind": "study"}).close()
    for name in ("standard", "adversarial"):
        trained = train_classifier(config, load(config).train, MODELS[name], seed=0, report_progress=ignore)
        path = model_path(config, tmp_path, 0, name)
        save_classifier(trained, config, load(config).train, MODELS[name], seed=0, path=path)
        rows = [
            row for row in evaluate_model(config, tmp_path, 0, ignore, spec=MODELS[name]) if row.set == "test-training-attack"
        ]
        found = [(row.epsilon, row.n, row.attack) for row in rows]
        assert found == ([(0.75, 10, "PGD of training, 3 steps")] if name == "adversarial" else [])


@pytest.mark.slow
def test_noise_is_added_in_adversarial_training_alone_and_for_mnist_by_default() -> None:
    mnist = StudyConfig("mnist5k", limit=100)
    assert resolve(mnist, load(mnist)).adversarial_noise == 0.15
    assert resolve(replace(mnist, epsilon=1.0), load(mnist)).adversarial_noise == 0.1
    assert resolve(replace(mnist, norm="linf"), load(mnist)).adversarial_noise == 0
    assert resolve(replace(mnist, adversarial_noise=0.0), load(mnist)).adversarial_noise == 0
    assert resolve(TINY, load(TINY)).adversarial_noise == 0
    noisy = resolve(replace(TINY, adversarial_noise=0.2), load(TINY))
    half = replace(MODELS["adversarial"], epsilon_fraction=0.5)
    shape = load(TINY).train.shape
    assert [classifiers.noise_of(noisy, spec, shape) for spec in (MODELS["standard"], MODELS["adversarial"], half)] == [
        0,
        0.2,
        0.1,
    ]
    images = torch.full((4, *shape), 0.5)
    augment = classifiers._augmentation(noisy, MODELS["adversarial"], shape)
    assert augment is not None
    added = augment(images, torch.Generator().manual_seed(0)) - images
    assert added.std().item() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize(("noise", "kept"), [(None, 0.15), (0.0, 0.0), (0.3, 0.3)])
def test_the_noise_of_one_training_is_that_of_a_study_or_as_asked_for(noise: float | None, kept: float) -> None:
    mnist = StudyConfig("mnist5k", limit=100)
    training = SingleTraining("adversarial", noise=noise)
    resolved = resolve(training.with_defaults(mnist), load(mnist))
    assert classifiers.noise_of(resolved, training.spec, (1, 28, 28)) == kept
    for loss in ("standard", "trades"):
        other = SingleTraining(loss, noise=noise)
        assert classifiers.noise_of(resolve(other.with_defaults(mnist), load(mnist)), other.spec, (1, 28, 28)) == (noise or 0)


def test_a_study_from_before_the_option_has_no_noise(tmp_path: Path) -> None:
    config = StudyConfig("mnist5k", limit=100)
    resolved = resolve(config, load(config))
    with RunFolder.open(tmp_path / "old", resumable_arguments(replace(resolved, adversarial_noise=0.0))) as run:
        assert "adversarial_noise" not in run.metadata["arguments"]
    with RunFolder.open(tmp_path / "new", resumable_arguments(resolved)):
        pass
    found = {name: without_later_noise(config, tmp_path / name).adversarial_noise for name in ("old", "new", "none")}
    assert found == {"old": 0.0, "new": None, "none": None}
    asked = replace(config, adversarial_noise=0.15)
    assert without_later_noise(asked, tmp_path / "old") == asked  # refused later: it must be as before


@pytest.mark.slow
def test_any_command_resumes_a_study_from_before_the_option(tmp_path: Path) -> None:
    config = StudyConfig("mnist5k", limit=80, epochs=1, width=2, network="linear", invert_steps=1)
    only, folder = ["dataset-nonrobust"], tmp_path / "run"
    pipeline.run(replace(config, adversarial_noise=0.0), folder, only=only, workers=1)
    assert "adversarial_noise" not in json.loads((folder / "run.json").read_text())["arguments"]
    record = pipeline.run(config, folder, only=["dataset-robust"], workers=1)  # as `split`, `demo` and `notbugs.study` call it
    assert record.study().settings["adversarial_noise"] == 0
    assert "noise" not in json.loads((folder / "models/adversarial.json").read_text())["training"]


def test_a_checkpoint_is_of_the_noise_that_is_used(tmp_path: Path) -> None:
    mnist = StudyConfig("mnist5k", limit=100)
    splits = load(mnist)

    def identity(loss: str, noise: float | None) -> dict[str, object]:
        training = SingleTraining(loss, noise=noise)
        with single.resumable(
            tmp_path / "net.safetensors", resolve(training.with_defaults(mnist), splits), splits, training
        ) as kept:
            return dict(kept.identity)

    assert identity("standard", None) == identity("standard", 0.0) and "noise" not in identity("trades", None)
    assert identity("adversarial", None) == identity("adversarial", 0.15) != identity("adversarial", 0.0)
    assert identity("adversarial", None)["noise"] == 0.15 and identity("standard", 0.1)["noise"] == 0.1


def test_steps_of_an_attack_have_no_effect_in_standard_training() -> None:
    with pytest.raises(InputError, match=r"^adversarial_steps: has no effect in standard training"):
        notbugs.train("digits", adversarial_steps=5)
    adversarial = SingleTraining("adversarial", adversarial_steps=5)
    assert adversarial.with_defaults(TINY).adversarial_steps == 5


def test_noise_that_cannot_be_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^--adversarial-noise: must be a standard deviation from 0 to 1"):
        load(replace(TINY, adversarial_noise=1.5))
