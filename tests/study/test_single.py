"""One classifier, trained and saved: its files, stopping and going on, and unusable settings."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from notbugs.errors import InputError, NotbugsWarning
from notbugs.study.config import StudyConfig
from notbugs.study.single import train_and_save
from notbugs.train import state


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["standard", "adversarial", "trades"])
def test_a_single_classifier_is_trained_saved_and_evaluated(tmp_path: Path, loss: str) -> None:
    tiny = StudyConfig("digits", limit=60, epochs=1, width=8, adversarial_steps=1)
    accuracies = train_and_save(tiny, tmp_path / "models/one.safetensors", loss=loss)
    assert [(accuracy.epsilon, accuracy.norm) for accuracy in accuracies] == [(0.0, "l2"), (0.375, "l2"), (0.75, "l2")]
    training = json.loads((tmp_path / "models/one.json").read_text())["training"]
    assert (training["loss"], training["epsilon"], training["epochs"]) == (loss, 0.75, 1)


@pytest.mark.slow
def test_a_single_training_that_was_stopped_goes_on_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    tiny = StudyConfig("digits", limit=60, epochs=3, width=8)
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    epochs: list[str] = []

    def interrupt(_stage: str, _share: float, words: str) -> None:
        epochs.append(words)
        if words == "epoch 3 of 3" and epochs.count(words) == 1:
            raise KeyboardInterrupt

    expected = train_and_save(tiny, whole)
    assert not (tmp_path / "whole.training.pt").exists()
    with pytest.raises(KeyboardInterrupt):
        train_and_save(tiny, stopped, report_progress=interrupt)
    assert (tmp_path / "stopped.training.pt").exists() and not stopped.exists()
    assert train_and_save(tiny, stopped, report_progress=interrupt) == expected
    assert [words for words in epochs if words] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3", "epoch 3 of 3"]
    assert stopped.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "stopped.training.pt").exists()


@pytest.mark.slow
def test_early_stopping_and_sgd_of_a_single_training_go_on_with_the_same_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    tiny, options = StudyConfig("digits", limit=60, epochs=6, network="linear"), {"optimizer": "sgd", "stop_early": 9}
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"

    def interrupt(_stage: str, _share: float, words: str) -> None:
        if words == "epoch 4 of 6":
            raise KeyboardInterrupt

    expected = train_and_save(tiny, whole, **options)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        train_and_save(tiny, stopped, report_progress=interrupt, **options)  # type: ignore[arg-type]
    kept = stopped.with_suffix(".training.pt").read_bytes()
    assert train_and_save(tiny, stopped, **options) == expected  # type: ignore[arg-type]
    assert stopped.read_bytes() == whole.read_bytes()
    about = json.loads(stopped.with_suffix(".json").read_text())
    training = about["training"]
    assert (training["optimizer"], training["validation_images"], training["epochs"]) == ("sgd", 10, 6)
    assert about["notes"][-1].startswith(f"early stopping: the weights are those of epoch {training['best_epoch']} of 6")
    stopped.with_suffix(".training.pt").write_bytes(kept)
    with pytest.warns(NotbugsWarning, match="is of a training with another early stopping, images, labels: training"):
        train_and_save(tiny, stopped, optimizer="sgd")


@pytest.mark.slow
def test_a_single_training_does_not_go_on_with_that_of_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    tiny, path = StudyConfig(str(tmp_path / "set.npz"), epochs=2, width=8, epsilon=0.1), tmp_path / "one.safetensors"
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8), np.arange(60) % 2
    np.savez(tmp_path / "set.npz", images=images, labels=labels)

    def interrupt(_stage: str, _share: float, words: str) -> None:
        if words == "epoch 2 of 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_save(tiny, path, report_progress=interrupt)
    np.savez(tmp_path / "set.npz", images=images[::-1], labels=labels)
    with pytest.warns(
        NotbugsWarning, match=r"one\.training\.pt is of a training with another data, first weights: training starts"
    ):
        train_and_save(tiny, path)


def test_a_loss_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--loss: must be one of standard, adversarial, trades, got 'plain'"):
        train_and_save(StudyConfig("digits", limit=60), tmp_path / "one.safetensors", loss="plain")
    with pytest.raises(InputError, match=r"^--optimizer: must be one of adamw, sgd, got 'adam'"):
        train_and_save(StudyConfig("digits", limit=60), tmp_path / "one.safetensors", optimizer="adam")
    with pytest.raises(InputError, match=r"^--stop-early: must be a number of epochs, 1 or more, got 0"):
        train_and_save(StudyConfig("digits", limit=60), tmp_path / "one.safetensors", stop_early=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("loss", ["standard", "adversarial"])
def test_noise_in_training_is_in_the_file_and_leaves_pixels_that_attacks_take(loss: str, tmp_path: Path) -> None:
    tiny = StudyConfig("digits", limit=60, epochs=1, network="linear", bf16=False)
    weights = {}
    for noise in (0.0, 0.5):
        train_and_save(tiny, tmp_path / f"{noise}.safetensors", loss=loss, noise=noise)
        weights[noise] = load_file(tmp_path / f"{noise}.safetensors")
        assert json.loads((tmp_path / f"{noise}.json").read_text())["training"].get("noise", 0.0) == noise
    assert any(not torch.equal(weights[0.0][name], weights[0.5][name]) for name in weights[0.0])


def test_noise_that_is_no_standard_deviation_of_pixels_is_refused(tmp_path: Path) -> None:
    for noise in (-0.1, 25.5, math.nan):
        with pytest.raises(InputError, match=r"^--noise: must be a standard deviation from 0 to 1, for pixels in \[0, 1\], got"):
            train_and_save(StudyConfig("digits", limit=60), tmp_path / "one.safetensors", noise=noise)
