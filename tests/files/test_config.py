"""How cross-fitted models are trained by default."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from notbugs.data import DataConfig
from notbugs.errors import InputError
from notbugs.files import CrossfitConfig, FilesConfig, crossfit_config
from notbugs.files.config import load_splits, resumable_arguments
from notbugs.search import NormBall
from notbugs.study.config import StudyConfig
from notbugs.study.resolve import resolve


def crossfit(config: FilesConfig) -> CrossfitConfig:
    return crossfit_config(config, load_splits(config))


def test_tiny_images_get_the_settings_of_a_study() -> None:
    config = FilesConfig(DataConfig("digits", limit=200))
    study = resolve(StudyConfig("digits", limit=200), load_splits(config))
    assert crossfit(config) == CrossfitConfig(
        NormBall("l2", 0.75),
        study.network,
        study.width,
        study.epochs,
        study.batch_size,
        study.learning_rate,
        study.weight_decay,
        invert_steps=20,
    )


def test_other_images_get_a_small_network_for_half_the_epochs() -> None:
    found = crossfit(FilesConfig(DataConfig("digits", resize=24, limit=4000)))
    assert (found.network, found.width, found.batch_size, found.learning_rate) == ("small", 16, 128, 0.02)
    assert found.epochs == 30 and found.translate == 3
    assert crossfit(FilesConfig(DataConfig("digits", resize=24, limit=4000), epochs=5)).epochs == 5


@pytest.mark.parametrize("options", [{"network": "resnet9"}, {"width": 4}])
def test_a_chosen_network_is_trained_as_in_a_study(options: dict[str, object]) -> None:
    config = FilesConfig(DataConfig("digits", resize=24, limit=400), **options)  # type: ignore[arg-type]
    study = resolve(StudyConfig("digits", resize=24, limit=400, **options), load_splits(config))  # type: ignore[arg-type]
    found = crossfit(config)
    assert (found.network, found.width, found.epochs) == (study.network, study.width, study.epochs)
    assert (found.batch_size, found.learning_rate) == (study.batch_size, study.learning_rate)


def test_the_synthetic_data_set_gets_its_own_settings() -> None:
    found = crossfit(FilesConfig(DataConfig("planted", limit=200)))
    assert (found.network, found.width, found.epochs) == ("resnet9", 8, 14)


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(InputError, match=r"^--norm: must be l2 or linf"):
        load_splits(FilesConfig(DataConfig("digits"), norm="l1"))
    config = FilesConfig(DataConfig("digits", limit=200), epsilon=50.0)
    with pytest.raises(InputError, match=r"^--epsilon: must be below"):
        crossfit(config)


def test_a_run_is_resumed_with_all_arguments_but_repeats_and_device() -> None:
    one, other = (FilesConfig(DataConfig("digits"), repeats=repeats, device=device) for repeats, device in ((1, "cpu"), (3, "x")))
    assert resumable_arguments(one) == resumable_arguments(other)
    assert resumable_arguments(one) == {
        "kind": "files", "dataset": "digits", "resize": None, "limit": None, "skip_unreadable": False, "norm": "l2",
        "epsilon": None, "seed": 0, "network": None, "width": None, "epochs": None, "folds": 3,
    }  # fmt: skip


@pytest.mark.usefixtures("stand_in")
def test_fine_tuning_is_that_of_a_study() -> None:
    config = FilesConfig(DataConfig("digits", limit=100), network="timm:tiny", pretrained=True, head_only=True)
    found = crossfit(config)
    assert (found.network, found.pretrained, found.head_only, found.learning_rate) == ("timm:tiny", True, True, 2e-3)
    assert resumable_arguments(config)["pretrained"]
    assert "pretrained" not in resumable_arguments(replace(config, pretrained=False))  # as in runs that began before the option


@pytest.mark.usefixtures("stand_in")
def test_notes_on_the_network_are_kept_in_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise InterruptedError

    files_run = import_module("notbugs.files.run")  # the package has a function of that name
    monkeypatch.setattr(files_run, "run_stages", stop)
    config = FilesConfig(DataConfig("digits", limit=60), network="timm:tiny", pretrained=True, layer="stem")
    with pytest.raises(InterruptedError):
        files_run.run(config, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["network_notes"]["timm:tiny"][0].startswith("it began with pretrained weights and a new last layer")
    assert kept["arguments"]["layer"] == kept["settings"]["layer"] == "stem"
