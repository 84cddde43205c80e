"""Gradients of models whose graph cannot be used twice, or that refuse `autograd.grad`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from notbugs import attacks, search
from notbugs.attacks import sanity_checks
from notbugs.search import NormBall, objectives


class UsedOnce(torch.autograd.Function):
    """Twice its input; its backward pass refuses to be kept, as that of a compiled model with donated buffers does."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return 2 * images

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        if torch._C._autograd._get_current_graph_task_keep_graph():
            raise RuntimeError("This backward function was compiled with non-empty donated buffers")
        return 2 * gradients[0]


class Reentrant(torch.autograd.Function):
    """A checkpoint as other libraries write it: no graph in the forward pass, a second one in the backward pass."""

    @staticmethod
    def forward(ctx: Any, network: nn.Module, images: Tensor) -> Tensor:
        ctx.network, ctx.images = network, images.detach()
        return network(images)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None]:
        if not torch.autograd._is_checkpoint_valid():
            raise RuntimeError("Checkpointing is not compatible with .grad(), please use .backward() if possible")
        images = ctx.images.requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(ctx.network(images), gradients[0])
        return None, images.grad


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def reentrant(network: nn.Module, images: Tensor, use_reentrant: bool = True) -> Tensor:
    logits: Tensor = checkpoint(network, images, use_reentrant=use_reentrant)
    return logits


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda network, images: UsedOnce.apply(network(images)) / 2, id="graph used once"),
        pytest.param(lambda network, images: Reentrant.apply(network, images), id="checkpoint of another library"),
        pytest.param(reentrant, id="reentrant checkpoint", marks=pytest.mark.slow),  # it imports torch.compile
        pytest.param(partial(reentrant, use_reentrant=False), id="checkpoint", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_gradients_of_checkpoints_and_compiled_models_are_those_of_the_network(
    forward: Callable[[nn.Module, Tensor], Tensor], network: nn.Sequential, images: Tensor
) -> None:
    model, labels = partial(forward, network), torch.tensor([0, 1, 2, 0])
    assert attacks.has_gradient(model, images)
    for wanted, found in zip(search.gradients(network, images), search.gradients(model, images), strict=True):
        assert torch.allclose(wanted, found, atol=1e-6)
    plain, same = (attacks.pgd(each, images, labels, threat_model=NormBall("l2", 0.3), steps=5) for each in (network, model))
    assert torch.allclose(plain.images, same.images, atol=1e-5)


def test_the_reason_for_missing_gradients_is_said(network: nn.Sequential, images: Tensor) -> None:
    class NoDerivative(torch.autograd.Function):
        @staticmethod
        def forward(_: object, images: Tensor) -> Tensor:
            return images.clone()

    def without_graph(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network(images)  # type: ignore[no-any-return]

    assert attacks.missing_gradient(network, images) == ""
    assert "look for no_grad, detach" in attacks.missing_gradient(without_graph, images)
    reason = attacks.missing_gradient(lambda images: network(NoDerivative.apply(images)), images)
    assert reason.startswith("NotImplementedError: You must implement")
    reason = attacks.missing_gradient(lambda images: network(torch.from_numpy(images.numpy())), images)
    assert reason.startswith("RuntimeError: Can't call numpy() on Tensor that requires grad")
    check = sanity_checks.gradients(without_graph, images, torch.zeros(4).long(), threat_model=NormBall("l2", 0.1))
    assert check.passed is False and "look for no_grad, detach" in check.observed


@pytest.mark.slow
def test_compiled_models_keep_their_gradients_whatever_the_batch_size(network: nn.Sequential) -> None:
    """With other batch sizes torch.compile makes graphs with donated buffers: their backward pass runs once."""
    try:
        model = torch.compile(network, backend="aot_eager")
        for size in (5, 2, 3):
            images = torch.rand(size, 1, 4, 4, generator=torch.Generator().manual_seed(0))
            assert attacks.has_gradient(model, images)
            found = search.gradients(lambda images: objectives.logits(model, images), images)[1]
            assert torch.allclose(found, search.gradients(network, images)[1], atol=1e-6)
    finally:
        torch._dynamo.reset()
