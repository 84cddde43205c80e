"""The further attacks of the ensemble on a linear model, whose robust accuracy is known in closed form."""

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.models.linear import closed_form
from notbugs.search import NormBall, objectives

EPSILON = 0.05


@pytest.fixture(scope="module")
def linear(digits: data.Splits) -> nn.Module:
    """Linear discriminant analysis of digits: classes that are far away by their logits may be the nearest ones."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows = digits.train.pixels(slice(None)).flatten(1).numpy()
    estimator = LinearDiscriminantAnalysis().fit(rows, digits.train.labels.numpy())
    network = closed_form(estimator, estimator.decision_function)
    assert network is not None
    return nn.Sequential(nn.Flatten(), network).requires_grad_(False).eval()


def highest_margins(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The highest margin of another class in the L-inf ball of each image, cut at 0 and 1: (N,)."""
    weight, pixels = model[1].weight.double(), images.flatten(1).double()  # type: ignore[index]
    logits = model(images).double()
    slopes = weight[None] - weight[labels][:, None]
    low, high = (pixels - EPSILON).clamp_min(0) - pixels, (pixels + EPSILON).clamp_max(1) - pixels
    gains = torch.where(slopes > 0, slopes * high[:, None], slopes * low[:, None]).sum(2)
    margins: Tensor = logits - logits.gather(1, labels[:, None]) + gains
    return margins.scatter(1, labels[:, None], -torch.inf).amax(1)


@pytest.mark.slow
def test_classes_that_no_attack_led_to(linear: nn.Module, digits: data.Splits) -> None:
    part = digits.test.select(data.evenly_spaced(60, len(digits.test)))
    images, labels = part.pixels(slice(None)), part.labels
    exact = highest_margins(linear, images, labels) < 0
    found = attacks.adaptive_ensemble(linear, images, labels, threat_model=NormBall("linf", EPSILON))
    assert torch.equal(found.margins < 0, exact) and 0 < int(exact.sum()) < 20
    # the gradient attacks on the margin alone, at three classes, leave more: they all find the same maximum
    nearest = [
        attacks.rank_targeted_pgd(linear, images, labels, threat_model=NormBall("linf", EPSILON), rank=k) for k in (1, 2, 3)
    ]
    margins = torch.stack([each.margins for each in nearest]).amax(0)
    assert int((margins < 0).sum()) > int(exact.sum())
    assert torch.allclose(-objectives.margin(linear(found.images), labels), found.margins, atol=1e-4)
