"""Scores of one fold: what features contribute to the margin, and the influence of files on others."""

import numpy as np
import pytest
import torch
from torch import Tensor

from notbugs import attacks, data, models, predict, train
from notbugs.data import Dataset
from notbugs.files.fold_scores import ATTACK_STEPS, influence, linear_head, margin_by_features
from notbugs.search import NormBall


def test_contributions_of_features_add_up_to_the_margin_minus_its_mean(few: Dataset, digits: data.Splits) -> None:
    model = models.build("small", shape=few.shape, classes=10, width=8)
    train.fit(model, few, epochs=3)
    found = margin_by_features(model, few, few, digits.test, "cpu")
    values = predict.features(model, few)
    weights = model.get_submodule("head").weight.detach()
    logits = values @ weights.T + model.get_submodule("head").bias.detach()
    runner_up = logits.scatter(1, few.labels[:, None], -torch.inf).argmax(1)
    wanted = ((weights[few.labels] - weights[runner_up]) * (values - values.mean(0))).sum(1)
    kept, lost = found["margin_kept_on_robust_version"], found["margin_lost_on_robust_version"]
    assert kept + lost == pytest.approx(wanted.numpy(), abs=1e-4)
    assert lost == pytest.approx(0, abs=1e-4)  # the version is the data set itself: all usefulness is kept
    assert np.abs(found["margin_lost_on_test_part"]).max() > 0


class OtherHead(torch.nn.Module):
    """A user's network whose last linear layer does not compute the logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.hidden = kind, torch.nn.Linear(8 if kind == "tokens" else 64, 10 if kind == "tokens" else 32)
        self.last = torch.nn.Parameter(torch.randn(32, 10))

    def forward(self, images: Tensor) -> Tensor:
        if self.kind == "tokens":
            return self.hidden(images.flatten(2)[:, 0].reshape(-1, 8, 8)).mean(1)  # type: ignore[no-any-return]
        return self.hidden(images.flatten(1)) @ self.last  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["tokens", "hidden"])
def test_without_a_linear_head_contributions_are_nan(kind: str, few: Dataset, digits: data.Splits) -> None:
    model = models.wrap(OtherHead(kind), few.pixels(slice(0, 2)))
    assert linear_head(model, few.pixels(slice(0, 2))) is None
    found = margin_by_features(model, few, few, digits.test, "cpu")
    assert all(np.isnan(column).all() and len(column) == len(few) for column in found.values())


def test_the_linear_head_of_a_network_with_a_chosen_layer_counts_if_that_feeds_it(few: Dataset) -> None:
    images = few.pixels(slice(0, 2))
    before, earlier = (models.build("small", shape=few.shape, classes=10, width=4, layer=layer) for layer in ("body", "body.0"))
    assert linear_head(before, images) is before.get_submodule("network.head") and linear_head(earlier, images) is None


def test_influence_is_the_product_of_gradients_of_the_last_layer(few: Dataset) -> None:
    files, threat_model = few.select(slice(0, 12)), NormBall("l2", 0.8)
    model = models.build("small", shape=files.shape, classes=10, width=2, seed=0)
    found = influence(model, files, threat_model, "cpu")
    images, gradients = files.pixels(slice(0, 12)), []
    model.eval()
    head = model.get_submodule(models.head_name(model))
    nearer = NormBall("l2", 0.4)
    attacked = attacks.pgd(model, images, files.labels, threat_model=nearer, steps=ATTACK_STEPS, loss="cross_entropy").images
    for batch in (images, attacked):
        losses = torch.nn.functional.cross_entropy(model(batch), files.labels, reduction="none")
        rows = [torch.autograd.grad(loss, list(head.parameters()), retain_graph=True) for loss in losses]
        gradients.append(torch.stack([torch.cat([each.flatten() for each in row]) for row in rows]))
    products = gradients[0] @ gradients[1].T
    np.testing.assert_allclose(found, products.sum(1) - products.diagonal(), rtol=1e-3, atol=1e-4)


def test_without_a_linear_head_influence_is_nan(few: Dataset) -> None:
    model = models.wrap(OtherHead("hidden"), few.pixels(slice(0, 2)))
    assert np.isnan(influence(model, few, NormBall("l2", 0.4), "cpu")).all()
