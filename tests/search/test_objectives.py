"""Objectives: each against its formula, written out one image at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from notbugs.errors import InputError
from notbugs.search import Objective, objectives

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, -3.0], [-1.0, 4.0, 3.5], [1.0, 2.0, 9.0]])
LABELS = torch.tensor([0, 1, 2, 2])
MARGINS = [1.5, 0.0, -0.5, 7.0]


def model(images: Tensor) -> Tensor:
    """Returns LOGITS for any images."""
    return LOGITS


def cross_entropy(row: list[float], label: int) -> float:
    top = max(row)
    return math.log(sum(math.exp(value - top) for value in row)) + top - row[label]


def margin(row: list[float], label: int) -> float:
    return row[label] - max(value for k, value in enumerate(row) if k != label)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 10**6), st.booleans())
def test_margin_against_brute_force(classes: int, n: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator)
    logits = logits.round() if ties else logits
    labels = torch.randint(classes, (n,), generator=generator)
    wanted = [margin(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert objectives.margin(logits, labels).tolist() == pytest.approx(wanted)
    assert bool(((objectives.margin(logits, labels) > 0) <= (logits.argmax(1) == labels)).all())


def test_of_no_images_the_model_is_not_asked() -> None:
    """Most networks that flatten by view(len(images), -1) fail on none."""

    def model(images: Tensor) -> Tensor:
        return images.view(len(images), -1)

    none = torch.zeros(0, 1, 2, 2, requires_grad=True)
    found = objectives.logits(model, none)
    assert found.shape == (0, 4) and torch.autograd.grad(found.sum(), none)[0].shape == none.shape


def test_margin_of_a_tie_is_zero_and_of_two_classes_the_difference() -> None:
    assert objectives.margin(torch.tensor([[3.0, 3.0, 1.0]]), torch.tensor([0])).tolist() == [0]
    assert objectives.margin(torch.tensor([[1.0, 5.0], [1.0, 5.0]]), torch.tensor([0, 1])).tolist() == [-4, 4]


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_untargeted_and_targeted(loss: str) -> None:
    losses = [cross_entropy(row, label) for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]
    untargeted, targeted = objectives.untargeted(model, LABELS, loss), objectives.targeted(model, LABELS, loss)
    assert untargeted.criterion(LOGITS).tolist() == pytest.approx([-value for value in MARGINS])
    assert targeted.criterion(LOGITS).tolist() == pytest.approx(MARGINS)
    wanted = losses if loss == "cross_entropy" else [-value for value in MARGINS]
    assert untargeted.objective(LOGITS).tolist() == pytest.approx(wanted, abs=1e-6)
    assert targeted.objective(LOGITS).tolist() == pytest.approx([-value for value in wanted], abs=1e-6)


def test_targeted_maximizes_cross_entropy_by_default_and_untargeted_the_margin() -> None:
    wanted = -torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    assert torch.equal(objectives.targeted(model, LABELS).objective(LOGITS), wanted)
    assert torch.equal(objectives.untargeted(model, LABELS).objective(LOGITS), -objectives.margin(LOGITS, LABELS))


@pytest.mark.parametrize("build", [objectives.untargeted, objectives.targeted])
def test_unknown_loss_raises(build: Callable[..., Objective]) -> None:
    with pytest.raises(InputError, match=r"^loss: must be margin.* (or cross_entropy|dlr), got 'hinge'$"):
        build(model, LABELS, "hinge")


def test_untargeted_via_maximizes_one_gap_and_its_criterion_counts_all_classes() -> None:
    objective = objectives.untargeted_via(model, LABELS, torch.tensor([2, 2, 0, 1]))
    assert objective.objective(LOGITS).tolist() == [-1.5, -3, -4.5, -7]
    assert objective.criterion(LOGITS).tolist() == [-1.5, 0, 0.5, -7]


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.booleans())
def test_targeted_non_transferable_against_brute_force(classes: int, n: int, others: int, seed: int, ties: bool) -> None:
    """The objective takes the mean loss of the other models, the criterion the lowest margin: one wrong model is enough."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1 + others, n, classes, generator=generator)
    logits = logits.round() if ties else logits
    labels = torch.randint(classes, (n,), generator=generator)
    targets = (labels + 1) % classes
    other_models = [lambda images, each=each: each for each in logits[1:]]
    objective = objectives.targeted_non_transferable(lambda images: logits[0], other_models, targets, labels)
    outputs = objective.forward(torch.zeros(n, 1, 2, 2))
    assert torch.equal(outputs, logits)
    values, criteria = [], []
    for image, (target, label) in enumerate(zip(targets.tolist(), labels.tolist(), strict=True)):
        own, *rest = (logits[number, image].tolist() for number in range(1 + others))
        values.append(-cross_entropy(own, target) - sum(cross_entropy(row, label) for row in rest) / others)
        criteria.append(min(margin(row, wanted) for row, wanted in [(own, target), *((row, label) for row in rest)]))
    assert objective.objective(outputs).tolist() == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert objective.criterion(outputs).tolist() == pytest.approx(criteria, rel=1e-4, abs=1e-5)
    reached = (logits[0].argmax(1) == targets) & (logits[1:].argmax(2) == labels).all(0)
    assert bool(((objective.criterion(outputs) > 0) <= reached).all())


def test_kl_from_clean_is_the_divergence_from_the_clean_prediction() -> None:
    clean, perturbed = LOGITS[:2], LOGITS[2:]
    objective = objectives.kl_from_clean(lambda images: perturbed, clean)
    wanted = []
    for p_row, q_row in zip(clean.softmax(1).tolist(), perturbed.softmax(1).tolist(), strict=True):
        wanted.append(sum(p * math.log(p / q) for p, q in zip(p_row, q_row, strict=True)))
    assert objective.objective(perturbed).tolist() == pytest.approx(wanted, rel=1e-5)
    assert objective.criterion(perturbed).tolist() == pytest.approx(wanted, rel=1e-5)
    assert objective.criterion(clean).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_feature_matching_is_minus_the_relative_distance() -> None:
    wanted = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    objective = objectives.feature_matching(lambda images: images, wanted)
    features = torch.tensor([[3.0, 9.0], [1.0, 0.0]])
    assert objective.objective(features).tolist() == objective.criterion(features).tolist() == [-1, 0]
    maximum = wanted.clone().requires_grad_()
    objective.objective(maximum).sum().backward()  # the norm is not differentiable there
    assert maximum.grad is not None
    assert maximum.grad.isfinite().all()


@pytest.mark.parametrize(
    ("index", "sign", "wanted"),
    [
        (1, 1.0, [-1, 0, 4, 2]),
        (1, -1.0, [1, 0, -4, -2]),
        (torch.tensor([0, 1, 2, 0]), torch.tensor([1.0, 1.0, -1.0, -1.0]), [2, 0, -3.5, -1]),
    ],
)
def test_maximize_feature(index: Tensor | int, sign: Tensor | float, wanted: list[float]) -> None:
    objective = objectives.maximize_feature(model, index, sign)
    assert objective.objective(LOGITS).tolist() == objective.criterion(LOGITS).tolist() == wanted


OBJECTIVES: dict[str, Callable[[Callable[[Tensor], Tensor], float], Objective]] = {
    "untargeted margin": lambda model, scale: objectives.untargeted(model, LABELS, "margin"),
    "untargeted cross-entropy": lambda model, scale: objectives.untargeted(model, LABELS, "cross_entropy"),
    "targeted margin": lambda model, scale: objectives.targeted(model, LABELS, "margin"),
    "targeted cross-entropy": lambda model, scale: objectives.targeted(model, LABELS, "cross_entropy"),
    "non-transferable": lambda model, scale: objectives.targeted_non_transferable(
        model, [model, lambda images: -images], LABELS, LABELS.flip(0)
    ),
    "KL": lambda model, scale: objectives.kl_from_clean(model, scale * LOGITS.flip(0)),
    "feature matching": lambda model, scale: objectives.feature_matching(model, LOGITS),
    "one feature": lambda model, scale: objectives.maximize_feature(model, 1),
}


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_of_huge_logits_are_finite(name: str, scale: float) -> None:
    def identity(images: Tensor) -> Tensor:
        return images

    objective = OBJECTIVES[name](identity, scale)
    outputs = objective.forward(min(scale, 1e15) * LOGITS if name == "feature matching" else scale * LOGITS).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.objective(outputs).sum(), outputs)
    assert gradient.isfinite().all()
    assert not objective.criterion(outputs.detach()).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_objectives_are_float32(dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    for objective in (
        objectives.untargeted(lambda images: logits, LABELS, "cross_entropy"),
        objectives.feature_matching(lambda images: logits, logits),
    ):
        outputs = objective.forward(LOGITS)
        assert objective.objective(outputs).dtype == objective.criterion(outputs).dtype == torch.float32


def test_nan_and_an_infinite_logit_count_as_misclassified() -> None:
    inf, nan = torch.inf, torch.nan
    rows = [[3.0, 1, 2], [inf, 1, 2], [nan, 1, 2], [1, nan, 0], [1, inf, 0], [-inf, -inf, -inf], [1, -inf, -inf]]
    logits, labels = torch.tensor(rows), torch.zeros(7, dtype=torch.int64)
    assert objectives.margin(logits, labels).tolist() == [1, -inf, -inf, -inf, -inf, -inf, inf]  # log 0 is a probability
    finite = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with_gradient = objectives.margin(finite.clone().requires_grad_(), labels[:5])
    assert torch.equal(objectives.margin(finite, labels[:5]), with_gradient)
