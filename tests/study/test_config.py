"""A study's configuration: defaults follow the data, and what cannot be used is an error with its option."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from study.conftest import QUICK_STUDY, first, resolved, store_digits

from notbugs import data
from notbugs.data import DataConfig
from notbugs.errors import InputError
from notbugs.files import FilesConfig
from notbugs.files import run as run_files
from notbugs.search import NormBall
from notbugs.study import pipeline, resolve
from notbugs.study.catalog.models import MODELS
from notbugs.study.classifiers import with_spec
from notbugs.study.config import StudyConfig, check, load, resumable_arguments


def test_defaults_follow_the_images_and_unusable_settings_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = numpy.random.default_rng([ord(name), number]).integers(0, 255, (64, 9), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    tall = StudyConfig(str(tmp_path))
    assert resolved(tall).translate == 1
    with pytest.raises(InputError, match=r"^--translate: must be below 9"):
        resolved(replace(tall, translate=9))
    with pytest.raises(InputError, match=r"^--resize"):
        load(StudyConfig("planted", resize=64))
    synthetic = StudyConfig("planted", limit=80)
    images, other_images = (load(synthetic, seed).train.images[:] for seed in (0, 1))
    assert not torch.equal(images, other_images)  # the synthetic data differ by seed


@pytest.mark.parametrize(("side", "batch_size"), [(20, 256), (66, 64)])
def test_large_batches_are_for_many_small_images(side: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 images of 224x224 took two gigabytes in each process."""
    monkeypatch.setattr(resolve, "MANY_IMAGES", 40)
    pixels = torch.randint(256, (40, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train = data.Dataset(pixels, torch.arange(40) % 2, ("a", "b"), tuple(map(str, range(40))))
    assert resolve._defaults_from_scratch(StudyConfig("images"), train).batch_size == batch_size


def test_a_resolved_configuration_is_complete() -> None:
    config = resolved(StudyConfig("digits"))
    unset = {name for name, value in asdict(DataConfig("digits")).items() if value is None}
    assert {name for name, value in asdict(config).items() if value is None} == {
        *("model", "classes", "class_map", "layer", "robust_model", "write", "from_scratch"),
        *unset,
    }
    assert (config.network, config.width, config.seeds, config.epsilon, config.relabel_epsilon) == ("small", 32, 3, 0.75, 1.5)
    assert (config.bf16, config.patience, config.relabel_learning_rate) == (False, 8, config.learning_rate)
    assert config.data == DataConfig("digits") and config.threat_model == NormBall("l2", 0.75)
    with pytest.raises(InputError, match=r"^--classes, --class-map: can only be used with --model"):
        resolved(StudyConfig("digits", class_map="0=1"))
    assert [ball.epsilon for ball in config.threat_models] == [0.375, 0.75] and config.relabel_threat_model.epsilon == 1.5


def test_a_network_by_name_has_its_usual_width_and_other_defaults_follow_what_is_given() -> None:
    config = resolved(StudyConfig("digits", network="linear", epochs=40, epsilon=0.3, learning_rate=0.1))
    assert config.width is None and config.patience == 20
    assert (config.relabel_epsilon, config.relabel_learning_rate) == (0.6, 0.1)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("seed", -1, "--seed: must be 0 or more"),
        ("seeds", 0, "--seeds: must be 1 or more"),
        ("seeds", 10**9, "--seeds: must be at most 1,000"),
        ("width", 2**64, "--width: must be at most 1,048,576"),
        ("seed", 2**64, "--seed: must be at most 9,223,372,036,854,775,807"),
        ("batch_size", 1, "--batch-size: must be 2 or more"),
        ("versions", 0, "--versions: must be 1 or more"),
        ("learning_rate", float("nan"), "--learning-rate: must be a number above 0"),
        ("weight_decay", float("inf"), "--weight-decay: must be 0 or more"),
        ("epsilon", -0.5, "--epsilon: must be a number above 0"),
        ("norm", "l1", "--norm: must be l2 or linf"),
        ("invert_start", "text", "--invert-start: must be image or noise"),
    ],
)
def test_settings_that_no_data_could_use(name: str, value: object, rule: str) -> None:
    with pytest.raises(InputError, match=f"^{rule}"):
        check(replace(StudyConfig("digits"), **{name: value}))


def test_a_replication_constructs_from_images_and_from_noise() -> None:
    with pytest.raises(InputError, match=r"^--invert-start: must be image with --replicate"):
        check(StudyConfig("digits", replicate=True, invert_start="noise"))
    config = resolved(StudyConfig("digits", replicate=True))
    assert config.full and config.replicate


def test_an_epsilon_that_reaches_another_class_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^--epsilon: must be below .*, the median distance .*got 8; for 8/255 pass 8/255"):
        resolved(StudyConfig("digits", epsilon=8))
    with pytest.raises(InputError, match=r"^--relabel-epsilon: must be below"):
        resolved(StudyConfig("digits", relabel_epsilon=7))


def test_versions_that_cannot_be_are_errors_before_anything_is_done(digits: data.Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--versions: must be at most 2, the epochs.*got 3"):
        pipeline.run(replace(QUICK_STUDY, versions=3), tmp_path / "run")
    source = store_digits(first(digits), tmp_path, "npz")
    with numpy.load(source) as arrays:
        numpy.savez(source, **arrays, train_names=["a.png", "a~2.png", *digits.train.names[2:60]])
    with pytest.raises(InputError, match=r"need file names that are not taken"):
        pipeline.run(StudyConfig(str(source), epochs=2, width=8, versions=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("stand_in")
def test_fine_tuning_has_its_own_rate_and_few_epochs() -> None:
    config = StudyConfig("digits", network="timm:tiny", pretrained=True)
    full, head, chosen = map(resolved, (config, replace(config, head_only=True), replace(config, learning_rate=0.1, epochs=3)))
    assert (full.learning_rate, head.learning_rate, chosen.learning_rate) == (1e-3, 2e-3, 0.1)
    assert (full.epochs, chosen.epochs, full.width) == (14, 3, None)
    # networks that begin with random weights, as targets of transferability, keep the settings of such a training
    plain, vgg = resolved(StudyConfig("digits")), MODELS["vgg-trained-on-next-labels"]
    names = ("epochs", "batch_size", "learning_rate", "relabel_learning_rate", "weight_decay", "patience")
    for name in names:
        assert getattr(with_spec(full, vgg), name) == getattr(plain, name), name
        assert getattr(with_spec(full, MODELS["reinit-1"]), name) == getattr(full, name), name
    assert (with_spec(chosen, vgg).learning_rate, with_spec(chosen, vgg).epochs) == (0.1, 3)  # what was asked for holds for all
    assert plain.from_scratch is None and with_spec(plain, vgg).learning_rate == plain.learning_rate
    with pytest.raises(InputError, match=r"^--robust-model: needs the standard classifiers to be fine-tuned, too"):
        pipeline.run(StudyConfig("digits", robust_model="robust.pt"), "unused")


def test_a_run_is_resumed_with_other_seeds_controls_device_and_speed() -> None:
    arguments = resumable_arguments(resolved(QUICK_STUDY))
    assert "from_scratch" not in arguments
    newer = {
        "stratified_targets": True,
        "pretrained": True,
        "head_only": True,
        "robust_model": "robust.safetensors",
        "layer": "2",
        "adversarial_noise": 0.1,
    }
    free = {"seeds", "full", "replicate", "robust_strong", "bf16", "compile", "device", *newer}
    free |= {*asdict(QUICK_STUDY.data)} - {*QUICK_STUDY.arguments}  # they are at their defaults
    assert arguments.keys() == {"kind", *asdict(QUICK_STUDY)} - free and arguments["versions"] == 1
    for name, value in newer.items():  # what began without the option has no entry for it
        changed = resumable_arguments(replace(resolved(QUICK_STUDY), **{name: value}))
        assert changed == {**arguments, name: value}


def test_a_form_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^--write: must be one of folder, parquet, npz, webdataset"):
        load(StudyConfig("digits", write="zip"))


@pytest.mark.parametrize("work", [pipeline.run, run_files])
@pytest.mark.parametrize(("limit", "remedy"), [(18, "raise --limit, or add images"), (None, "add images")])
def test_a_set_too_small_for_a_later_stage_is_refused_at_the_start(
    work: Callable[..., object], limit: int | None, remedy: str, tmp_path: Path
) -> None:
    images, labels = numpy.random.default_rng(0).integers(0, 255, (18, 8, 8), dtype=numpy.uint8), numpy.arange(18) % 2
    numpy.savez(tmp_path / "set.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    config = DataConfig(str(tmp_path / "set.npz"), limit=limit)
    asked = StudyConfig(**vars(config)) if work is pipeline.run else FilesConfig(config)
    with pytest.raises(InputError, match=rf"set\.npz: needs at least 20 training images, got 18; {remedy}$"):
        work(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()
