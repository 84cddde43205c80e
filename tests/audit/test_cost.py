"""What an audit would cost, by what a short attack leaves of a few images."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from notbugs.attacks import BUDGETS
from notbugs.attacks.budgets import ATTACKS_ON_TRIAL, FURTHER_ATTACKS, REFINED, REFINED_STEPS
from notbugs.audit import cost
from notbugs.search import NormBall
from notbugs.stats import wilson_interval

SPEED = cost._Speed(gradient=2.0, query=0.5, waited=1.0)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_what_lies_between_least_and_most_is_in_the_parts(budget: str, norm: str) -> None:
    """Of the further attacks after those on trial, only what images get on average."""
    found = cost._cost(budget, NormBall(norm, 0.5), 10, gradient=True, first=True)
    further = [each.steps for each in FURTHER_ATTACKS] if budget in cost.GOING_ON else []
    others = sum(further[ATTACKS_ON_TRIAL:]) + (len(REFINED) * REFINED_STEPS if further else 0)
    share = sum(share for _, share in cost.GOING_ON.get(budget, ()))
    in_parts = sum(count for _, count in found.by_margin_lost)
    assert share < 1 and in_parts == pytest.approx(found.most_gradients - found.least_gradients - (1 - share) * others)


def test_images_that_a_short_attack_misclassifies_are_cheap_and_others_by_the_margin_they_lost() -> None:
    found = cost._cost("standard", NormBall("l2", 0.5), 10, gradient=True, first=True)
    (_, untargeted), *further = found.by_margin_lost
    shares = [share for share, _ in further]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1
    least, most = found.least_gradients * 2 + found.least_queries / 2, found.most_gradients * 2 + found.most_queries / 2
    assert cost._seconds(found, SPEED, None) == (least, most)
    fooled = cost._seconds(found, SPEED, torch.full((32,), 1.2))
    in_parts = found.most_queries / 2 + 2 * sum(count for _, count in found.by_margin_lost)
    assert fooled == pytest.approx((least, least + wilson_interval(0, 32)[1] * in_parts))

    lost = torch.tensor([1.0] * 16 + [0.0] * 8 + [shares[0]] * 6 + [shares[-1]] * 2)  # 16 left, 8 go on, 2 of these further
    parts = [(16, found.most_queries / 2 + untargeted * 2)]
    parts += [(8 if share == shares[0] else 2, gradients * 2) for share, gradients in further]
    expected = [least + sum(wilson_interval(count, 32)[end] * seconds for count, seconds in parts) for end in (0, 1)]
    assert cost._seconds(found, SPEED, lost) == pytest.approx(expected)


def test_without_parts_all_correct_images_may_go_through_everything() -> None:
    found = cost._cost("standard", NormBall("l0", 1), 10, gradient=True, first=True)
    lost = torch.tensor([0.0] * 24 + [1.0] * 8)
    least, most = cost._seconds(found, SPEED, None)
    assert cost._seconds(found, SPEED, lost) == pytest.approx((least, least + wilson_interval(24, 32)[1] * (most - least)))


def test_the_margin_that_is_lost_is_0_without_an_attack_and_1_or_more_where_it_misclassifies() -> None:
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    model = nn.Sequential(nn.Flatten(), layer)
    images = torch.full((3, 1, 2, 2), 0.5)
    images[0, 0, 0], images[1, 0, 0] = torch.tensor([0.9, 0.1]), torch.tensor([0.52, 0.5])
    labels = torch.tensor([0, 0, 1])  # far from the boundary, near it, on it
    found = cost._margin_lost(model, images, labels, NormBall("l2", 0.1), gradient=True)
    assert found[0] == pytest.approx(0.1 * math.sqrt(2) / 0.8, rel=1e-3) and found[1] > 1 and found[2] == 1
    for threat, gradient in ((NormBall("l2", 0.1), False), (NormBall("l0", 1), True)):
        assert cost._margin_lost(model, images, labels, threat, gradient=gradient).tolist() == [0, 0, 1]


def test_a_model_that_waits_takes_the_time_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other work, too: no more than that."""
    for processor, expected in ((10.0, 10.0), (6.0, 6.0), (0.1, 5.0)):
        monkeypatch.setattr(cost, "CLOCK", partial(next, iter([0.0, 10.0])))
        monkeypatch.setattr(cost, "PROCESSOR_CLOCK", partial(next, iter([0.0, processor])))
        assert cost._timed(lambda: torch.zeros(1), on_gpu=False) == pytest.approx((10.0, expected))
