"""Polyak's step along conjugate directions, against least squares and by hand. Auto-PGD is tested with the attacks."""

import pytest
import torch
from torch import Tensor

from notbugs import search
from notbugs.search import NormBall, objectives


def test_conjugate_steps_solve_least_squares() -> None:
    """Features A x of another image, 12 equations for 64 pixels: the maximum 0 is reached without choosing a step length."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 64, generator=generator)
    wanted, start = (torch.rand(5, 1, 8, 8, generator=generator) * 0.4 + 0.3 for _ in range(2))

    def features(images: Tensor) -> Tensor:
        return images.flatten(1) @ matrix.T

    objective, pixel_range = objectives.feature_matching(features, features(wanted)), NormBall("l2", torch.inf)
    result = search.maximize(objective, start, pixel_range, steps=40, rule=search.polyak_conjugate())
    assert bool((objective.criterion(features(start)) < -0.2).all())
    assert bool((result.margins > -1e-4).all())


def test_first_conjugate_step_is_polyaks() -> None:
    """Along the gradient, of length (top - value) / |gradient| times the factor."""
    gradient = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
    now = search.StepState(0, 10, torch.full((1, 1, 1, 2), 0.5), torch.tensor([-2.0]), gradient)
    assert search.polyak_conjugate(0.5)(now, None)[0].flatten().tolist() == pytest.approx([0.5 * 2 / 5 * 0.6, 0.5 * 2 / 5 * 0.8])
    assert search.polyak_conjugate(1.0, top=3.0)(now, None)[0].flatten().tolist() == pytest.approx([5 / 5 * 0.6, 5 / 5 * 0.8])


def test_preconditioned_steps_are_plain_steps_in_other_coordinates() -> None:
    """Steps in y with x = R y, R symmetric, are steps in x with the preconditioner R R."""
    generator = torch.Generator().manual_seed(0)
    matrix, wanted = torch.randn(5, 16, generator=generator), torch.randn(6, 5, generator=generator)
    root = torch.randn(16, 16, generator=generator)
    root = (root @ root.T / 16 + torch.eye(16)) / 4
    start = 0.5 + 0.01 * torch.randn(6, 1, 4, 4, generator=generator)

    def last_iterate(weights: Tensor, iterate: Tensor, rule: search.UpdateRule) -> Tensor:
        state = None
        for step in range(12):
            residual = iterate.flatten(1) @ weights.T - wanted
            length = residual.norm(dim=1)
            gradient = (-(residual / length[:, None]) @ weights).reshape(iterate.shape)
            now = search.StepState(step, 12, torch.full_like(iterate, 0.5), -length, gradient)
            update, state = rule(now, state)
            iterate = iterate + update
        return iterate

    def times(images: Tensor, map: Tensor) -> Tensor:
        return (images.flatten(1) @ map).reshape(images.shape)

    plain = last_iterate(matrix @ root, times(start, torch.linalg.inv(root)), search.polyak_conjugate())
    rule = search.polyak_conjugate(precondition=lambda gradient: times(gradient, root @ root))
    preconditioned = last_iterate(matrix, start, rule)
    assert torch.allclose(times(plain, root), preconditioned, atol=1e-4)
    assert not torch.allclose(last_iterate(matrix, start, search.polyak_conjugate()), preconditioned, atol=0.1)


def test_conjugate_steps_leave_out_values_at_the_border_of_the_pixel_range() -> None:
    images, gradient = (torch.tensor(v).reshape(1, 1, 1, 4) for v in ([0.0, 0.0, 1.0, 1.0], [-9.0, 3.0, 9.0, -4.0]))
    update, _ = search.polyak_conjugate(1.0)(search.StepState(0, 10, images, torch.tensor([-5.0]), gradient), None)
    assert update.flatten().tolist() == pytest.approx([0, 0.6, 0, -0.8])


def test_conjugate_steps_recover_from_nan() -> None:
    rule = search.polyak_conjugate(1.0, end=1.0)
    images, gradient = torch.full((2, 1, 1, 1), 0.5), torch.ones(2, 1, 1, 1)
    update, state = rule(search.StepState(0, 5, images, torch.tensor([torch.nan, -1.0]), gradient), None)
    assert update.flatten().tolist() == [0, 1]
    update, state = rule(search.StepState(1, 5, images, torch.tensor([-1.0, -torch.inf]), gradient), state)
    assert update.flatten().tolist() == [1, 0]
    not_a_number = torch.full_like(gradient, torch.nan)
    update, _ = rule(search.StepState(2, 5, images, torch.tensor([-1.0, -1.0]), not_a_number), state)
    assert update.flatten().tolist() == [0, 0]
