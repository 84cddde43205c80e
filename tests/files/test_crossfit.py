"""Cross-fitting: balanced folds, and no file is scored by a model that was trained on it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from files.conftest import QUICK, stop_once_in
from hypothesis import given
from hypothesis import strategies as st

from notbugs import construct, train
from notbugs.data import Dataset
from notbugs.data.single_files import save_arrays
from notbugs.errors import InputError
from notbugs.files import crossfit


@pytest.mark.slow
@given(st.lists(st.integers(0, 4), min_size=30, max_size=80), st.integers(2, 4), st.integers(0, 99))
def test_folds_are_balanced_over_the_classes(labels: list[int], folds: int, seed: int) -> None:
    counts = np.bincount(labels)
    if counts[counts > 0].min() < folds:
        with pytest.raises(InputError, match=r"^--folds: must be from 2 to|two files or more of each class"):
            crossfit.stratified_folds(torch.tensor(labels), folds, seed)
        return
    found = crossfit.stratified_folds(torch.tensor(labels), folds, seed)
    assert int(found.min()) == 0 and int(found.max()) == folds - 1
    for label in set(labels):
        sizes = found[torch.tensor(labels) == label].bincount(minlength=folds)
        assert int(sizes.max() - sizes.min()) <= 1
    assert int(found.bincount().max() - found.bincount().min()) <= 1


def test_merged_folds_are_in_the_order_of_the_data_set() -> None:
    folds = torch.tensor([1, 0, 2, 0, 1])
    parts = [{"score": np.flatnonzero(folds.numpy() == fold)} for fold in range(3)]
    assert crossfit.merge_folds(folds, parts)["score"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_no_model_scores_a_file_that_it_was_trained_on(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[set[str]] = []
    inverted: list[set[str]] = []
    fit, invert = train.fit, construct.invert_features

    def recorded_fit(model: Any, part: Any, *args: Any, **options: Any) -> Any:
        trained_on.append({*part.names})
        return fit(model, part, *args, **options)

    def recorded_invert(model: Any, part: Any, **options: Any) -> Any:
        inverted.append({*part.names})
        return invert(model, part, **options)

    monkeypatch.setattr(train, "fit", recorded_fit)
    monkeypatch.setattr(construct, "invert_features", recorded_invert)
    held_out = crossfit.stratified_folds(few.labels, 3, 0) == 1
    found = crossfit.score_fold(few, QUICK, held_out, seed=5)
    files = {name for name, held in zip(few.names, held_out.tolist(), strict=True) if held}
    assert len(trained_on) == 4  # standard, robust, and on either version
    assert all(not names & files and len(names) == len(few) - len(files) for names in trained_on)
    assert len(inverted) == 3  # both versions of the others, and the robust one of the files: each from images of its own set
    assert all(not names & files or names == files for names in inverted)
    assert all(len(column) == len(files) for column in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", [("standard", 1), ("standard", 2), ("robust", 2)])
def test_a_fold_that_was_stopped_goes_on_with_the_same_scores(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: tuple[str, int]
) -> None:
    config, held_out = replace(QUICK, epochs=2), crossfit.stratified_folds(few.labels, 3, 0) == 1
    expected = crossfit.score_fold(few, config, held_out, seed=5)
    epochs = stop_once_in(killed_in, tmp_path, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        crossfit.score_fold(few, config, held_out, seed=5, unfinished=tmp_path)
    found = crossfit.score_fold(few, config, held_out, seed=5, unfinished=tmp_path)
    names = ("standard", "robust", "trained_on_robust", "trained_on_nonrobust")
    done = [(name, epoch) for name in names for epoch in (1, 2)]
    assert epochs == [*done[: done.index(killed_in) + 1], *done[done.index(killed_in) :]]  # no other epoch is done again
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name], equal_nan=True) for name in expected)


@pytest.mark.parametrize("arrays", [{}, {"logits": np.zeros((2, 3))}, {"logits": np.array(["a"])}])
def test_logits_of_a_stopped_fold_that_somebody_changed_are_refused(
    arrays: Mapping[str, np.ndarray], few: Dataset, tmp_path: Path
) -> None:
    save_arrays(arrays, tmp_path / "logits-0001.npz")
    with pytest.raises(InputError, match=r"logits-0001\.npz: must hold logits, float32 of shape .*, got .*; remove "):
        crossfit._EpochLogits(few, "cpu", tmp_path).whole(1)


def test_fewer_groups_than_folds() -> None:
    labels = torch.tensor([i % 2 for i in range(20)])
    with pytest.raises(InputError, match="must be at most 4, the groups, got 5"):
        crossfit.stratified_folds(labels, 5, 0, [str(i // 5) for i in range(20)])
