"""Transfer in a full study: the stored examples give the counts in the table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from study.conftest import FULL_STUDY, only, resolved

from notbugs import data
from notbugs.models import sklearn_learners
from notbugs.predict import predict
from notbugs.runs.attempts import Attempt
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.transferability import TransferRow
from notbugs.study import comparisons, controls, store, transferability
from notbugs.study.catalog.models import LEARNERS
from notbugs.study.comparisons import TRANSFER_SOURCES, TRANSFER_TARGETS
from notbugs.study.config import load

pytestmark = pytest.mark.slow


def test_examples_and_leakage_report_their_progress(full_run: RunFolder, tmp_path: Path) -> None:
    shares: list[float] = []
    attempt = Attempt(tmp_path, lambda _, share, words: shares.append(share), tmp_path)
    transferability.make_examples(resolved(FULL_STUDY), full_run.folder, 0, attempt, source="standard")
    assert shares == [0.5, 1.0]
    shares.clear()
    controls.robust_feature_leakage(resolved(FULL_STUDY), full_run.folder, 0, attempt)
    assert shares == sorted(set(shares)) and len(shares) > 5 and shares[0] < 0.2 and shares[-1] == 1.0


def test_every_pair_of_models_and_every_learner_is_measured(full_run: RunFolder) -> None:
    pairs = {(row.source, row.target) for row in full_run.rows(TransferRow)}
    networks = {(source, target) for source in TRANSFER_SOURCES for target in TRANSFER_TARGETS if source != target}
    assert pairs == networks | {("standard", name) for name in LEARNERS}


def test_learners_of_large_sets_are_fitted_to_as_many_images_as_are_feasible(
    full_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    fit = sklearn_learners.fit_learner

    def watched(name: str, dataset: data.Dataset, *, seed: int) -> object:
        fitted.append(len(dataset))
        return fit(name, dataset, seed=seed)

    words: list[str] = []
    monkeypatch.setattr(sklearn_learners, "fit_learner", watched)
    monkeypatch.setattr(comparisons, "LEARNER_VALUES", 64 * 50)
    config = resolved(FULL_STUDY)
    transferability.transfer_to_learner(
        config, full_run.folder, 0, lambda stage, share, said: words.append(said), learner="nearest-neighbors"
    )
    assert fitted == [50] and words == [f"fitted to 50 of {len(load(config).train)} images"]


def test_examples_stay_within_epsilon_and_shuffled_ones_keep_the_norm(full_run: RunFolder) -> None:
    test, arrays = load(resolved(FULL_STUDY)).test, np.load(full_run.folder / "examples" / "standard.npz")
    norms = {
        name: np.sqrt((((arrays[name].astype(float) - test.images[:].numpy()) / 255) ** 2).sum((1, 2, 3)))
        for name in ("untargeted", "random")
    }
    assert norms["untargeted"].max() <= 0.75 + 1e-6
    np.testing.assert_allclose(norms["random"], norms["untargeted"], atol=1e-6)


def test_counts_are_those_of_the_stored_examples_and_models(full_run: RunFolder) -> None:
    config, rows = resolved(FULL_STUDY), full_run.rows(TransferRow)
    test, arrays = load(config).test, np.load(full_run.folder / "examples" / "standard.npz")
    source, target = (store.load_model(config, full_run.folder, 0, name) for name in ("standard", "reinit-1"))
    both = (predict(source, test) == test.labels) & (predict(target, test) == test.labels)
    predicted = predict(target, test.with_images(torch.from_numpy(arrays["untargeted"])))
    row = only(rows, source="standard", target="reinit-1", perturbation="untargeted")
    assert row.n == int(both.sum())
    assert row.not_misclassified == int((both & (predicted == test.labels)).sum())
    for row in rows:
        assert row.not_misclassified + row.same_mistake + row.other_mistake == row.n
        assert (row.norm, row.epsilon, row.seed) == ("l2", 0.75, 0)
