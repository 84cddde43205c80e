"""D_rand and D_det: targets, balls, rounding, and perturbations that other models must not respond to."""

import math
from typing import Any

import pytest
import torch
from construct.conftest import (
    BALLS,
    assert_norms,
    assert_same_files,
    dataset,
    levels,
    linear_model,
    pixels,
    random_dataset,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from notbugs import attacks, construct, models, search
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.predict import predict
from notbugs.search import NormBall, objectives


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_relabeled_images_are_stored_inside_the_ball(threat_model: NormBall, standard: models.Model, part: Dataset) -> None:
    labels = construct.next_labels(part.labels, 10)
    made = construct.relabel(standard, part, labels, threat_model=threat_model, steps=10, batch_size=50)
    assert_same_files(made, part)
    assert_norms(made, part)
    perturbation = (made.dataset.images[:].int() - part.images[:].int()).flatten(1)  # in 255ths: nothing to round
    if threat_model.norm == "l2":
        assert float(perturbation.square().sum(1).max()) <= (threat_model.epsilon * 255) ** 2
    else:
        assert float(perturbation.abs().max()) <= threat_model.epsilon * 255
    reached = float((standard(pixels(made.dataset)).argmax(1) == labels).float().mean())
    assert made.stats.target_reached == pytest.approx(reached, abs=1e-6)
    assert (reached > 0.5) == (threat_model.epsilon in (1.5, 0.2))
    assert torch.equal(made.dataset.labels, labels)
    assert (made.stats.relabeled, made.stats.epsilon) == (120, threat_model.epsilon)


@pytest.mark.parametrize(("last", "scale"), [(nn.Softmax(1), 3), (nn.Sigmoid(), 0.5)], ids=["softmax", "sigmoid"])
def test_a_model_that_returns_probabilities_is_followed_as_far_as_its_logits(
    last: nn.Module, scale: float, part: Dataset
) -> None:
    """Probabilities in place of logits have hardly a gradient: two thirds of the targets were reached."""
    logits = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        logits[1].weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(scale)
    targets = construct.next_labels(part.labels, 10)
    reached = [
        construct.relabel(model, part, targets, threat_model=NormBall("l2", 0.75), steps=10).stats.target_reached
        for model in (logits, nn.Sequential(logits, last))
    ]
    assert reached[0] is not None and reached[1] is not None and reached[1] > reached[0] - 0.05 > 0.3


def test_steps_are_those_of_the_attacks_within_l1_too(standard: models.Model, part: Dataset) -> None:
    """Steps that change few values at once, as before, reach fewer of the targets."""
    ball, targets = NormBall("l1", 4.0), construct.random_labels(part.labels, 10)
    made = construct.relabel(standard, part, targets, threat_model=ball, steps=20)
    steps = search.cosine_steps(ball, 2 * ball.epsilon, end=0.01)
    objective = objectives.targeted(standard, targets, "cross_entropy")
    with models.frozen(standard):
        found = search.maximize(objective, part.pixels(slice(None)), ball, steps=20, rule=steps).images
        before = (standard(found).argmax(1) == targets).float().mean()
    assert made.stats.target_reached is not None and made.stats.target_reached > float(before) + 0.02


@pytest.mark.parametrize("broken", ["source", "other"])
def test_images_without_finite_logits_are_refused_by_name(broken: str, standard: models.Model, part: Dataset) -> None:
    class NotFinite(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            bright = images.mean((1, 2, 3)) > part.pixels(slice(None)).mean()
            outputs: Tensor = standard(images) * torch.where(bright, torch.nan, 1.0)[:, None]
            return outputs

    model, others = (NotFinite(), []) if broken == "source" else (standard, [NotFinite()])
    labels = construct.next_labels(part.labels, 10)
    with pytest.raises(InputError, match=r"^\w+\.png: the model must return finite logits for this image, got NaN"):
        construct.relabel(model, part, labels, threat_model=NormBall("l2", 0.5), steps=3, keep_label_on=others)  # type: ignore[arg-type]


def test_targets_that_rounding_undoes_are_not_counted(part: Dataset) -> None:
    """In a ball of less than half a level targets are reached, but no file can hold it: nothing is stored, none counted."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.normal_(network[1].weight)
    model, threat_model = models.wrap(network.requires_grad_(False), part.pixels(slice(0, 2))), NormBall("linf", 0.48 / 255)
    second = model(pixels(part)).topk(2).indices[:, 1]
    found = attacks.targeted_pgd(model, pixels(part), second, threat_model=threat_model)
    assert int((found.margins > 0).sum()) > 3
    made = construct.relabel(model, part, second, threat_model=threat_model)
    assert torch.equal(made.dataset.images[:], part.images[:])
    assert (made.stats.target_reached, made.stats.max_linf) == (0, 0)


@pytest.mark.slow
def test_in_a_large_ball_every_target_is_reached(standard: models.Model, part: Dataset) -> None:
    labels = construct.random_labels(part.labels, 10)
    for loss in ("cross_entropy", "margin"):
        made = construct.relabel(standard, part, labels, threat_model=NormBall("l2", 2.0), steps=20, loss=loss)
        assert made.stats.target_reached is not None
        assert made.stats.target_reached > 0.97


def test_labels_that_stay_true_are_not_counted_as_relabeled(standard: models.Model, part: Dataset) -> None:
    labels = construct.random_labels(part.labels, 10, include_true=True, seed=4)
    made = construct.relabel(standard, part, labels, threat_model=NormBall("l2", 0.5), steps=1)
    assert made.stats.relabeled == int((labels != part.labels).sum()) < len(part)


# ---- labels -------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 50))
def test_new_labels_are_never_the_true_ones(classes: int, seed: int, n: int) -> None:
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    new = construct.random_labels(labels, classes, seed=seed)
    assert new.dtype == torch.int64
    assert not bool((new == labels).any())
    assert bool(((new >= 0) & (new < classes)).all())
    assert construct.next_labels(labels, classes).tolist() == [(label + 1) % classes for label in labels.tolist()]


def test_new_labels_are_drawn_uniformly_by_seed() -> None:
    labels = torch.full((9000,), 3)
    others = construct.random_labels(labels, 10).bincount(minlength=10)
    assert stats.chisquare(torch.cat([others[:3], others[4:]])).pvalue > 0.01
    anything = construct.random_labels(labels, 10, include_true=True).bincount(minlength=10)
    assert stats.chisquare(anything).pvalue > 0.01
    for include_true in (True, False):
        one, two, other = (construct.random_labels(labels, 10, include_true=include_true, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 60), st.booleans())
def test_stratified_labels_are_equally_often_and_never_the_true_ones(classes: int, seed: int, n: int, include_true: bool) -> None:
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    options: dict[str, Any] = {"include_true": include_true, "seed": seed, "stratified": True}
    room = n - labels.bincount(minlength=classes)
    if not include_true and int((room < n // classes).sum() + torch.relu(n % classes - (room > n // classes).sum())):
        with pytest.raises(InputError, match="equally often"):
            construct.random_labels(labels, classes, **options)
        return
    new = construct.random_labels(labels, classes, **options)
    counts = new.bincount(minlength=classes)
    assert new.shape == labels.shape and int(counts.max() - counts.min()) <= 1
    assert include_true or not bool((new == labels).any())
    assert torch.equal(new, construct.random_labels(labels, classes, **options))


def test_stratified_labels_depend_on_the_seed_and_others_are_as_before() -> None:
    labels = torch.arange(40) % 4
    one, other = (construct.random_labels(labels, 4, seed=seed, stratified=True) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert construct.random_labels(torch.arange(8), 8).tolist() == [5, 5, 3, 6, 6, 0, 5, 3]


# ---- non-transferable perturbations -------------------------------------------------------------------------------------


def test_the_non_transferable_objective_is_its_formula() -> None:
    """Three models, four images: objective and criterion written out one image at a time."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4, 5, generator=generator)
    targets, labels = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 1, 2])
    objective = objectives.targeted_non_transferable(
        lambda _: logits[0], [lambda _: logits[1], lambda _: logits[2]], targets, labels
    )
    outputs = objective.forward(torch.zeros(4, 1, 2, 2))
    assert torch.equal(outputs, logits)

    def margin(row: list[float], label: int) -> float:
        return row[label] - max(value for k, value in enumerate(row) if k != label)

    def loss(row: list[float], label: int) -> float:
        return math.log(sum(map(math.exp, row))) - row[label]

    maximized, kept_by = [], []
    for image, (target, label) in enumerate(zip(targets.tolist(), labels.tolist(), strict=True)):
        source, *others = (logits[model, image].double().tolist() for model in range(3))
        maximized.append(-loss(source, target) - sum(loss(row, label) for row in others) / 2)
        kept_by.append(min(margin(source, target), *(margin(row, label) for row in others)))
    assert objective.objective(outputs).tolist() == pytest.approx(maximized, rel=1e-4)
    assert objective.criterion(outputs).tolist() == pytest.approx(kept_by, rel=1e-4)


def test_non_transferable_perturbations_do_not_change_the_predictions_of_others() -> None:
    """Both models use the first half of the pixels, only one the second: without `keep_label_on` both are misled."""
    shared, private = torch.zeros(2, 16), torch.zeros(2, 16)
    shared[0, :8], shared[1, :8], private[0, 8:], private[1, 8:] = 4.0, -4.0, 4.0, -4.0
    source, other = linear_model(shared + private, (1, 4, 4)), linear_model(shared, (1, 4, 4))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    gray = 128 + 12 * (1 - 2 * labels)[:, None] + torch.randint(-3, 4, (40, 16), generator=generator)
    part = dataset(gray.reshape(40, 1, 4, 4), labels, 2)
    assert torch.equal(predict(source, part), labels) and torch.equal(predict(other, part), labels)
    options: dict[str, Any] = {"threat_model": NormBall("l2", 0.6), "steps": 20}
    transferable = construct.relabel(source, part, 1 - labels, **options)
    private_only = construct.relabel(source, part, 1 - labels, keep_label_on=[other], **options)
    assert transferable.stats.target_reached == private_only.stats.target_reached == 1
    assert (transferable.stats.other_models_keep_label, private_only.stats.other_models_keep_label) == (None, 1)
    assert torch.equal(predict(other, transferable.dataset), 1 - labels)
    assert torch.equal(predict(other, private_only.dataset), labels)
    assert torch.equal(private_only.dataset.labels, 1 - labels)
    assert float(((levels(private_only.dataset) - levels(part)).double() / 255).norm(dim=1).max()) <= 0.6


def test_other_models_keep_label_is_the_share_of_images_on_which_all_do() -> None:
    """Three models that use parts of what the source uses, on images of various margins: as stored, counted by hand."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, generator=generator) for _ in range(3)]
    weights = [torch.stack([-each, each]) for each in (weights[0] + weights[1], weights[0] + 0.3 * weights[2], weights[1])]
    source, *others = (linear_model(each, (1, 4, 4)) for each in weights)
    part = random_dataset(200, (1, 4, 4), 90, 166, classes=2).with_labels(torch.zeros(200, dtype=torch.int64))
    predicted = torch.stack([predict(each, part) for each in (source, *others)])
    part = part.select((predicted == predicted[0]).all(0).nonzero().squeeze(1))
    part = part.with_labels(predict(source, part))
    threat_model = NormBall("l2", 0.4)
    made = construct.relabel(source, part, 1 - part.labels, threat_model=threat_model, steps=10, keep_label_on=others)
    kept = torch.stack([predict(each, made.dataset) == part.labels for each in others])
    share = float(kept.all(0).float().mean())
    assert made.stats.other_models_keep_label == pytest.approx(share) and 0 < share < float(kept.float().mean(1).min())
    reached = float((predict(source, made.dataset) == 1 - part.labels).float().mean())
    assert made.stats.target_reached == pytest.approx(reached)


def test_keep_label_on_needs_the_cross_entropy() -> None:
    part, model = random_dataset(4, (1, 2, 2), 60, 190), linear_model(torch.eye(4), (1, 2, 2))
    options: dict[str, Any] = {"threat_model": NormBall("l2", 0.1), "steps": 1, "loss": "margin"}
    with pytest.raises(InputError, match=r"^loss: must be cross_entropy where other models are to keep the label, got 'margin'$"):
        construct.relabel(model, part, (part.labels + 1) % 4, keep_label_on=[model], **options)
    assert construct.relabel(model, part, (part.labels + 1) % 4, **options).stats.other_models_keep_label is None
