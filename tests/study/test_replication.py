"""The replication's own stage: the classifier trained on D_R, on robust versions of images."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from study.conftest import resolved

from notbugs import attacks, construct, metrics
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.replication import RobustVersionRow
from notbugs.runs.tables.study import AccuracyRow
from notbugs.search import NormBall
from notbugs.study import pipeline, replication, store
from notbugs.study.catalog.models import trained_on
from notbugs.study.config import ResolvedConfig, StudyConfig, load

pytestmark = pytest.mark.slow
STUDY = StudyConfig("digits", limit=240, epochs=3, seeds=1, width=8, invert_steps=4)
MODEL = trained_on("robust")


class Measured(NamedTuple):
    folder: Path
    config: ResolvedConfig
    rows: list[RobustVersionRow]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder, config = tmp_path_factory.mktemp("runs") / "run", resolved(STUDY)
    pipeline.run(STUDY, folder, only=(f"evaluation-{MODEL}",), workers=1)
    shares: list[float] = []
    rows = replication.robust_version_accuracy(config, folder, 0, lambda _, share, words: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 20
    return Measured(folder, config, rows)


def test_the_model_of_the_robust_version_is_evaluated_on_that_version(measured: Measured) -> None:
    folder, config, rows = measured
    assert [(row.set, row.epsilon) for row in rows] == [
        (name, epsilon) for name in ("robust", "robust-test", "test") for epsilon in (0.0, 0.375, 0.75)
    ]
    model = store.load_model(config, folder, 0, MODEL)
    robust = store.load_dataset(config, folder, 0, "robust")
    with torch.no_grad():
        correct = int((model(robust.pixels(slice(None))).argmax(1) == robust.labels).sum())
    assert len(robust) == 240 and (rows[0].correct, rows[0].n) == (correct, 240)
    for clean, half, full in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert clean.correct >= half.correct >= full.correct and clean.n == half.n == full.n
    study = [row for row in RunFolder.read(folder).rows(AccuracyRow) if (row.model, row.set) == (MODEL, "test")]
    main = {row.epsilon: row.correct for row in study if row.attack != attacks.ensemble_name("quick")}
    assert {row.epsilon: row.correct for row in rows[6:]} == main


@pytest.mark.slow
def test_the_test_images_have_a_robust_version_of_their_own(measured: Measured) -> None:
    folder, config, rows = measured
    splits = load(config)
    source = store.load_model(config, folder, 0, "adversarial")
    made = construct.invert_features(source, splits.test, steps=4, seed=store.derive_seed(0, "robust-test")).dataset
    model = store.load_model(config, folder, 0, MODEL)
    wanted = metrics.robust_accuracy(model, made, [NormBall("l2", 0.375), NormBall("l2", 0.75)])
    assert [row.correct for row in rows[3:6]] == [row.correct for row in wanted] and rows[3].n == len(splits.test)
