"""What is wanted: every goal against its formula, written out one image at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from notbugs.errors import InputError
from notbugs.search import Objective, objectives

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, -3.0], [-1.0, 4.0, 3.5], [1.0, 2.0, 9.0]])
LABELS = torch.tensor([0, 1, 2, 2])


def cross_entropy(row: list[float], label: int) -> float:
    top = max(row)
    return math.log(sum(math.exp(value - top) for value in row)) + top - row[label]


def given_logits(logits: Tensor) -> Objective:
    return objectives.untargeted(lambda images: logits, LABELS)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 10**6), st.booleans())
def test_lead_against_brute_force(classes: int, n: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator)
    logits = logits.round() if ties else logits
    labels = torch.randint(classes, (n,), generator=generator)
    wanted = [
        row[label] - max(value for k, value in enumerate(row) if k != label)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert objectives.margin(logits, labels).tolist() == pytest.approx(wanted)
    assert bool(((objectives.margin(logits, labels) > 0) <= (logits.argmax(1) == labels)).all())


def test_lead_of_a_tie_is_zero_and_of_two_classes_the_difference() -> None:
    assert objectives.margin(torch.tensor([[3.0, 3.0, 1.0]]), torch.tensor([0])).tolist() == [0]
    assert objectives.margin(torch.tensor([[1.0, 5.0], [1.0, 5.0]]), torch.tensor([0, 1])).tolist() == [-4, 4]


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_leave_class_and_reach_class(loss: str) -> None:
    leads = [1.5, 0.0, -0.5, 7.0]
    losses = [cross_entropy(row, label) for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]
    leave, reach = (
        objectives.untargeted(lambda images: LOGITS, LABELS, loss),
        objectives.targeted(lambda images: LOGITS, LABELS, loss),
    )
    assert leave.criterion(LOGITS).tolist() == pytest.approx([-value for value in leads])
    assert reach.criterion(LOGITS).tolist() == pytest.approx(leads)
    climbed = losses if loss == "cross_entropy" else [-value for value in leads]
    assert leave.objective(LOGITS).tolist() == pytest.approx(climbed, abs=1e-6)
    assert reach.objective(LOGITS).tolist() == pytest.approx([-value for value in climbed], abs=1e-6)


def test_reach_class_climbs_the_loss_and_leave_class_the_lead_unless_told() -> None:
    view = given_logits(LOGITS).forward
    assert torch.equal(
        objectives.targeted(view, LABELS).objective(LOGITS), -torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    )
    assert torch.equal(objectives.untargeted(view, LABELS).objective(LOGITS), -objectives.margin(LOGITS, LABELS))


@pytest.mark.parametrize("maker", [objectives.untargeted, objectives.targeted])
def test_an_unknown_way_to_climb_is_refused(maker: object) -> None:
    with pytest.raises(InputError, match=r"^loss: must be margin.* (or cross_entropy|dlr), got 'lead'$"):
        maker(lambda images: LOGITS, LABELS, "margin")  # type: ignore[operator]


def test_leave_class_towards_climbs_one_gap_and_is_judged_by_all() -> None:
    goal = objectives.untargeted_via(lambda images: LOGITS, LABELS, torch.tensor([2, 2, 0, 1]))
    assert goal.objective(LOGITS).tolist() == [-1.5, -3, -4.5, -7]
    assert goal.criterion(LOGITS).tolist() == [-1.5, 0, 0.5, -7]


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.booleans())
def test_reach_class_alone_against_brute_force(classes: int, n: int, others: int, seed: int, ties: bool) -> None:
    """Climbed by the losses, the others' as their mean; judged by the lowest of all leads: one other that turns is enough."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1 + others, n, classes, generator=generator)
    logits = logits.round() if ties else logits
    labels = torch.randint(classes, (n,), generator=generator)
    targets = (labels + 1) % classes
    goal = objectives.targeted_non_transferable(
        lambda images: logits[0], [lambda images, each=each: each for each in logits[1:]], targets, labels
    )
    seen = goal.forward(torch.zeros(n, 1, 2, 2))
    assert torch.equal(seen, logits)
    climbs, judged = [], []
    for image, (target, label) in enumerate(zip(targets.tolist(), labels.tolist(), strict=True)):
        own, *rest = (logits[model, image].tolist() for model in range(1 + others))
        climbs.append(-cross_entropy(own, target) - sum(cross_entropy(row, label) for row in rest) / others)
        rows = [(own, target), *((row, label) for row in rest)]
        judged.append(min(row[wanted] - max(value for k, value in enumerate(row) if k != wanted) for row, wanted in rows))
    assert goal.objective(seen).tolist() == pytest.approx(climbs, rel=1e-4, abs=1e-5)
    assert goal.criterion(seen).tolist() == pytest.approx(judged, rel=1e-4, abs=1e-5)
    holds = (logits[0].argmax(1) == targets) & (logits[1:].argmax(2) == labels).all(0)
    assert bool(((goal.criterion(seen) > 0) <= holds).all())


def test_leave_prediction_is_the_divergence_from_the_calm_prediction() -> None:
    calm, moved = LOGITS[:2], LOGITS[2:]
    goal = objectives.kl_from_clean(lambda images: moved, calm)
    wanted = []
    for p_row, q_row in zip(calm.softmax(1).tolist(), moved.softmax(1).tolist(), strict=True):
        wanted.append(sum(p * math.log(p / q) for p, q in zip(p_row, q_row, strict=True)))
    assert goal.objective(moved).tolist() == pytest.approx(wanted, rel=1e-5)
    assert goal.criterion(moved).tolist() == pytest.approx(wanted, rel=1e-5)
    assert goal.criterion(calm).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_match_features_is_minus_the_relative_distance() -> None:
    wanted = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    goal = objectives.feature_matching(lambda images: images, wanted)
    seen = torch.tensor([[3.0, 9.0], [1.0, 0.0]])
    assert goal.objective(seen).tolist() == goal.criterion(seen).tolist() == [-1, 0]
    at_the_top = wanted.clone().requires_grad_()
    goal.objective(at_the_top).sum().backward()  # the norm has a corner there
    assert at_the_top.grad is not None
    assert at_the_top.grad.isfinite().all()


@pytest.mark.parametrize(
    ("index", "sign", "wanted"),
    [
        (1, 1.0, [-1, 0, 4, 2]),
        (1, -1.0, [1, 0, -4, -2]),
        (torch.tensor([0, 1, 2, 0]), torch.tensor([1.0, 1.0, -1.0, -1.0]), [2, 0, -3.5, -1]),
    ],
)
def test_push_feature(index: Tensor | int, sign: Tensor | float, wanted: list[float]) -> None:
    goal = objectives.maximize_feature(lambda images: LOGITS, index, sign)
    assert goal.objective(LOGITS).tolist() == goal.criterion(LOGITS).tolist() == wanted


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("name", ["leave lead", "leave loss", "reach lead", "reach loss", "alone", "divergence", "match", "push"])
def test_gradients_of_huge_logits_are_finite(name: str, scale: float) -> None:
    def view(images: Tensor) -> Tensor:
        return images

    made = {
        "leave lead": objectives.untargeted(view, LABELS, "margin"),
        "leave loss": objectives.untargeted(view, LABELS, "cross_entropy"),
        "reach lead": objectives.targeted(view, LABELS, "margin"),
        "reach loss": objectives.targeted(view, LABELS, "cross_entropy"),
        "alone": objectives.targeted_non_transferable(view, [view, lambda images: -images], LABELS, LABELS.flip(0)),
        "divergence": objectives.kl_from_clean(view, scale * LOGITS.flip(0)),
        "match": objectives.feature_matching(view, LOGITS),
        "push": objectives.maximize_feature(view, 1),
    }
    goal = made[name]
    seen = goal.forward(min(scale, 1e15) * LOGITS if name == "match" else scale * LOGITS).requires_grad_()
    (gradient,) = torch.autograd.grad(goal.objective(seen).sum(), seen)
    assert gradient.isfinite().all()
    assert not goal.criterion(seen.detach()).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_goals_are_read_in_single_precision(dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    for goal in (
        objectives.untargeted(lambda images: logits, LABELS, "cross_entropy"),
        objectives.feature_matching(lambda images: logits, logits),
    ):
        seen = goal.forward(LOGITS)
        assert goal.objective(seen).dtype == goal.criterion(seen).dtype == torch.float32
