"""Update rules with a fixed schedule: step lengths."""

import pytest
import torch
from torch import Tensor

from notbugs import search
from notbugs.search import NormBall


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.1)], ids=str)
def test_cosine_steps_have_the_length_of_the_schedule(threat_model: NormBall, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    constant, decaying = search.cosine_steps(threat_model, 0.3), search.cosine_steps(threat_model, 0.3, end=0.1)
    state = None
    for step in range(10):
        now = search.StepState(step, 10, images, torch.zeros(6), torch.randn(images.shape, generator=generator))
        assert torch.allclose(threat_model.distance(constant(now, None)[0]), torch.tensor(0.3))
        update, state = decaying(now, state)
        factor = 0.1 + 0.9 * (1 + torch.cos(torch.tensor(torch.pi * step / 10))) / 2
        assert torch.allclose(threat_model.distance(update), 0.3 * factor)
