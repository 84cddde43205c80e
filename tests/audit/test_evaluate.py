"""One batch under every threat model, and the sample of the sanity checks."""

from typing import Any

import pytest
import torch
from audit.conftest import IMAGES, quick
from torch import Tensor

from notbugs import attacks, models
from notbugs.attacks import sanity_checks
from notbugs.audit import AuditConfig, evaluate
from notbugs.audit.batch import attack_batch
from notbugs.data import Dataset
from notbugs.models.black_box import BlackBox
from notbugs.search import NormBall


class Rounding(torch.nn.Module):
    """A model whose gradients are all zero, so that Square Attack and HopSkipJump decide."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images * 15).round() / 15)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_nothing_that_the_ensemble_finds_is_lost_to_rounding(robust: models.Model, part: Dataset) -> None:
    """Attacks end on the boundary of the ball, where a perturbation measured again may be just outside."""
    images, labels = part.pixels(slice(0, 60)), part.labels[:60]
    for threat_model in (NormBall("linf", 0.1), NormBall("l2", 0.5)):
        model = Rounding(robust).eval()
        ensemble = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget="quick").margins >= 0
        result = attack_batch(model, images, labels, [threat_model], "quick")
        misclassified = result.misclassified[:, 0]
        assert int((ensemble & ~misclassified).sum()) <= 1
        assert torch.equal(misclassified, result.minimum_norms[:, 0] <= threat_model.epsilon)
        assert int(ensemble.sum()) > 10
        assert result.images.shape == (60, 1, 1, 8, 8) and result.images.dtype == torch.uint8


@pytest.mark.slow
def test_a_batch_has_clean_predictions_and_a_column_per_threat_model(robust: models.Model, part: Dataset) -> None:
    images, labels = part.pixels(slice(0, 20)), part.labels[:20]
    shares: list[float] = []
    threats = [NormBall("l2", 0.0), NormBall("l2", 0.3), NormBall("linf", 0.02)]
    result = attack_batch(robust, images, labels, threats, "quick", shares.append)
    predicted = robust(images).argmax(1)
    assert torch.equal(result.clean_predicted, predicted) and torch.equal(result.clean_misclassified, predicted != labels)
    assert result.minimum_norms.shape == (20, 2) and result.predicted.shape == (20, 3) == result.misclassified_8bit.shape
    assert torch.equal(result.misclassified[:, 0], result.clean_misclassified)  # epsilon 0
    assert torch.equal(result.images[:, 0].float() / 255, images)
    assert bool((result.misclassified[:, 0] <= result.misclassified[:, 1]).all())
    assert shares == [0, 1 / 3, 2 / 3]


@pytest.mark.slow
def test_the_minimum_norm_of_an_image_does_not_depend_on_how_many_are_attacked(robust: models.Model, part: Dataset) -> None:
    """Of a black box: searches start at the same images, and draw the same numbers."""
    images, labels, starts = part.pixels(slice(0, 20)), part.labels[:20], part.pixels(slice(30, 60))
    black_box = BlackBox(lambda array: robust(torch.from_numpy(array)).argmax(1), part.classes)
    every, few = (
        attack_batch(black_box, images[::step], labels[::step], [NormBall("l2", 0.3)], "quick", starts=starts).minimum_norms
        for step in (1, 2)
    )
    assert torch.allclose(every[::2], few, rtol=1e-4) and bool((few > 0).any())


def test_without_threat_models_with_a_norm_there_are_no_minimum_norms(robust: models.Model, part: Dataset) -> None:
    from notbugs.search import SpatialTransforms

    result = attack_batch(robust, part.pixels(slice(0, 5)), part.labels[:5], [SpatialTransforms(5, 0.5)], "quick")
    assert result.minimum_norms.shape == (5, 0) and result.predicted.shape == (5, 1)


@pytest.mark.slow
def test_a_sample_that_does_not_fit_into_memory_is_halved(config: AuditConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all = sanity_checks.run_all

    def limited(model: Any, images: Tensor, *rest: Any, **options: Any) -> Any:
        if len(images) > 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run_all(model, images, *rest, **options)

    monkeypatch.setattr(sanity_checks, "run_all", limited)
    rows = evaluate.run_checks(quick(config), lambda *_: None)
    sizes = {row.check: row.n for row in rows}
    assert sizes.pop("class order") == sizes.pop("above chance") == IMAGES  # of predictions alone
    assert {*sizes.values()} == {IMAGES // 2}
