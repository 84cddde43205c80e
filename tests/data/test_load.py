"""Loading: splits, limits, and configurations."""

import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
from data.conftest import equal, image_folder, load_error, random_image, save, stored
from PIL import Image

from notbugs import audit, data, files
from notbugs.audit.transfer import run_transfer
from notbugs.data import DataConfig, synthetic
from notbugs.data.loaded import _Kept
from notbugs.errors import InputError
from notbugs.study import pipeline


def test_digits_are_always_split_alike() -> None:
    one, other = data.load("digits"), data.load("digits", seed=5)
    assert one.train.shape == (1, 8, 8) and len(one.train) + len(one.test) == 1797 and one.form == "folder"
    assert equal(one.train, other.train) and not set(one.train.names) & set(one.test.names)
    assert stored(one.train).max() == 255 and one.train.names[0] == "00000.png"
    assert one.notes == other.notes == ("the test part is 25% of each class, 450 images, the same for every seed",)
    shares = one.test.labels.bincount() / (one.test.labels.bincount() + one.train.labels.bincount())
    assert (shares - 0.25).abs().max() < 0.01


@pytest.mark.parametrize("splits", [("",), ("train",)])
def test_without_a_test_part_a_split_is_made_and_noted(tmp_path: Path, splits: tuple[str, ...]) -> None:
    image_folder(tmp_path, each=10, splits=splits)
    one, other = data.load(str(tmp_path)), data.load(str(tmp_path), seed=1)
    assert one.test.labels.tolist() == [0, 0, 1, 1] and len(one.train) == 16
    assert "20% of each class set aside with seed 0, 4 images" in one.notes[0]
    assert set(one.test.names) != set(other.test.names) and not set(one.train.names) & set(one.test.names)
    assert equal(one.train, data.load(str(tmp_path)).train)


def test_limit_keeps_the_first_of_each_class_and_decodes_no_others(tmp_path: Path) -> None:
    image_folder(tmp_path, each=5)
    (tmp_path / "train/cat/4.png").write_bytes(b"broken")
    loaded = data.load(str(tmp_path), limit=5)
    assert loaded.train.names == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert loaded.test.names == ("cat/0.png", "dog/0.png")
    left_out = [
        f"{part}/{name}/{i}.png"
        for part, least in (("train", 2), ("test", 1))
        for name in ("cat", "dog")
        for i in range(least, 5)
    ]
    assert loaded.left_out == tuple((file, "is beyond --limit 5") for file in left_out)
    assert {row.file for row in data.file_rows(loaded) if row.part == "left out"} == {*left_out}
    assert "--limit" in load_error(tmp_path, limit=1) and "--limit" in load_error(tmp_path, limit=0)


def test_a_configuration_is_loaded_once_in_a_run(tmp_path: Path) -> None:
    image_folder(tmp_path, each=4)
    config = DataConfig(str(tmp_path), limit=4)
    with data.keeping_loads():
        loaded = data.load_dataset(config)
        assert data.load_dataset(DataConfig(str(tmp_path), limit=4), seed=1) is loaded  # real data are the same for every seed
        with data.keeping_loads():
            assert data.load_dataset(config) is loaded
        save(random_image(99), tmp_path / "train/cat/9.png")
        assert data.load_dataset(DataConfig(str(tmp_path), limit=4)) is loaded, "all stages of a run have the same images"
    assert len(data.load_dataset(config).left_out) == len(loaded.left_out) + 1, "the next run finds the files as they are"
    (tmp_path / "train/cat/9.png").unlink()
    assert equal(loaded.train, data.load(str(tmp_path), limit=4).train) and len(loaded.train) == 4
    (tmp_path / "train/cat/0.png").write_bytes(b"")
    with pytest.raises(InputError, match="--skip-unreadable"):
        data.load_dataset(DataConfig(str(tmp_path)))
    assert len(data.load_dataset(DataConfig(str(tmp_path), skip_unreadable=True)).train) == 7


def test_of_a_small_class_more_than_a_fifth_is_set_aside_which_is_said(tmp_path: Path) -> None:
    image_folder(tmp_path, each=3, splits=("",))
    assert "20% of each class set aside with seed 0 (at least one image), 2 images" in data.load(str(tmp_path)).notes[0]
    Image.new("RGB", (8, 6)).save(tmp_path / "cat" / "0.png")
    assert "all images must have one size, the most common is 6 x 6 pixels, got 8 x 6" in load_error(tmp_path)


def test_the_synthetic_data_set_differs_by_seed_and_has_one_size() -> None:
    config = DataConfig("planted", limit=24)
    one, other = data.load_dataset(config), data.load_dataset(config, seed=1)
    made = synthetic.make_synthetic(train=24, test=40, seed=1)
    assert equal(other.train, made.train) and equal(other.test, made.test) and not equal(one.train, other.train)
    assert other is data.load_dataset(config, seed=1) and (one.form, one.notes) == ("folder", ("generated",))
    with pytest.raises(InputError, match=r"^--resize: cannot be used with planted, .* drawn at 32x32; leave it out$"):
        data.load_dataset(DataConfig("planted", resize=16))


def test_planted_is_loaded_by_its_name_and_its_limit_is_checked() -> None:
    assert equal(data.load("planted", limit=24, seed=1).train, synthetic.make_synthetic(train=24, test=40, seed=1).train)
    assert load_error("planted", limit=4) == "--limit: must be at least 8 with planted, got 4"
    with pytest.raises(InputError, match="--resize: must be at most 8,192, as wide as an image may be, got 100000"):
        data.load("digits", resize=100_000)
    with pytest.raises(InputError, match="--limit: must be at least 1, got 0"):
        data.load_dataset(DataConfig("planted", limit=0))


def test_groups_that_are_too_large_to_set_a_part_aside_name_no_other_option(tmp_path: Path) -> None:
    for i, (label, group) in enumerate(zip([2, 2, 0, 2, 1, 1, 2, 1, 0], "aadadcbca", strict=True)):
        save(random_image(i), tmp_path / f"class {label}/{group}_{i}.png")
    what = r"must be small enough to be divided into 2, got class class \d, whose groups are all in one"  # which: of scikit-learn
    remedy = "take smaller groups, or put the test images into a folder of their own"
    assert re.fullmatch(f"--group: {what}; {remedy}", load_error(tmp_path, group=r"/(\w)_"))


class Stops:
    """An argument that ends a run when it is first looked at, with how many runs there are then."""

    def __getattr__(self, name: str) -> None:
        raise KeyError(_Kept.depth)

    def __fspath__(self) -> str:
        raise KeyError(_Kept.depth)


@pytest.mark.parametrize(
    "run", [pipeline.run, pipeline.run_analyses, audit.run, run_transfer, files.run, files.split_by_robustness]
)
def test_each_run_keeps_its_data_until_it_ends(run: Callable[..., object]) -> None:
    needed = [each for each in signature(run).parameters.values() if each.default is each.empty]
    with pytest.raises(KeyError, match="1"):
        run(*[Stops()] * len(needed))
    assert _Kept.depth == 0 and not _Kept.splits
