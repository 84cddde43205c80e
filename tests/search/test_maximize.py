"""The loop that perturbs images, against problems whose answer is known in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from notbugs import search
from notbugs.errors import InputError
from notbugs.models import Model, build
from notbugs.search import NormBall, Objective, UpdateRule, objectives

LinearModel = Callable[..., tuple[Callable[[Tensor], Tensor], Tensor]]
Decaying = Callable[[NormBall], UpdateRule]


def dual_norm(norm: str, vectors: Tensor) -> Tensor:
    return vectors.abs().sum(-1) if norm == "linf" else vectors.norm(dim=-1)


# ---- the answer in closed form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
@pytest.mark.parametrize("steps", [1, 10])
def test_margin_of_two_classes_grows_by_epsilon_times_dual_norm(
    threat_model: NormBall, steps: int, images: Tensor, linear_model: LinearModel, decaying: Decaying
) -> None:
    model, weights = linear_model(2)
    labels = model(images).argmax(1)
    wanted = -objectives.margin(model(images), labels)
    wanted = wanted + threat_model.epsilon * dual_norm(threat_model.norm, weights[1] - weights[0])
    for loss in ("margin", "cross_entropy"):
        objective = objectives.untargeted(model, labels, loss)
        for rule in (decaying(threat_model), search.cosine_steps(threat_model, threat_model.epsilon)):
            result = search.maximize(objective, images, threat_model, steps=steps, rule=rule)
            assert torch.allclose(result.margins, wanted, rtol=0, atol=1e-4)
            assert torch.allclose(-objectives.margin(model(result.images), labels), result.margins, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
def test_best_of_all_target_classes_is_the_closed_form(
    threat_model: NormBall, images: Tensor, linear_model: LinearModel, decaying: Decaying
) -> None:
    model, weights = linear_model(5)
    labels = model(images).argmax(1)
    margins = []
    for target in range(5):
        objective = objectives.untargeted_via(model, labels, torch.full_like(labels, target))
        margins.append(search.maximize(objective, images, threat_model, steps=8, rule=decaying(threat_model)).margins)
    gaps = weights[None] - weights[labels][:, None]
    clean_gaps = model(images) - model(images).gather(1, labels[:, None])
    largest = clean_gaps + threat_model.epsilon * dual_norm(threat_model.norm, gaps)
    wanted = largest.scatter(1, labels[:, None], -torch.inf).max(1).values
    assert torch.allclose(torch.stack(margins).max(0).values, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
def test_margin_objective_works_on_confident_logits(
    threat_model: NormBall, images: Tensor, linear_model: LinearModel, decaying: Decaying
) -> None:
    """Logits times 120: the gradient of cross-entropy is 0 in float32 where the margin is large. The answer scales with them."""
    model, weights = linear_model(2, scale=120.0)
    labels = model(images).argmax(1)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objectives.untargeted(model, labels, "cross_entropy").objective(model(leaf)).sum(), leaf)
    assert bool((gradient.flatten(1).abs().amax(1) == 0).any())
    objective = objectives.untargeted(model, labels, "margin")
    result = search.maximize(objective, images, threat_model, steps=10, rule=decaying(threat_model))
    wanted = -objectives.margin(model(images), labels)
    wanted = wanted + threat_model.epsilon * dual_norm(threat_model.norm, weights[1] - weights[0])
    assert torch.allclose(result.margins, wanted, rtol=0, atol=120 * 1e-4)


def test_gradients_whose_squares_underflow_are_used(images: Tensor, linear_model: LinearModel) -> None:
    """Cross-entropy at a margin of 60 has a gradient of 1e-26: its L2 norm, computed naively, is 0."""
    weights = linear_model(2)[1] * torch.tensor([[0.0], [1.0]])  # the gradient of the label's own logit, p - 1, is 0 here
    offset = torch.tensor([60.0, 0.0])
    labels, threat_model = torch.zeros(6, dtype=torch.int64), NormBall("l2", 0.2)

    def model(images: Tensor) -> Tensor:
        return images.flatten(1) @ weights.T + offset

    objective, rule = objectives.untargeted(model, labels, "cross_entropy"), search.cosine_steps(threat_model, 0.2)
    result = search.maximize(objective, images, threat_model, steps=1, rule=rule)
    wanted = -objectives.margin(model(images), labels) + 0.2 * weights[1].norm()
    assert torch.allclose(result.margins, wanted, rtol=0, atol=1e-4)


# ---- which iterate is kept ----------------------------------------------------------------------------------------------


def test_iterate_with_the_highest_criterion_is_kept() -> None:
    """A rule that passes the maximum: the last iterate is the worst, the best is one in between."""
    iterates: list[Tensor] = []

    def forward(images: Tensor) -> Tensor:
        iterates.append(images.detach().clone())
        return images.flatten(1)

    def criterion(pixels: Tensor) -> Tensor:
        return -(pixels - torch.arange(6)[:, None] / 10 - 0.3).abs().amax(1)

    objective = Objective(forward, lambda pixels: pixels.sum(1), criterion)
    images, threat_model = torch.full((6, 1, 2, 2), 0.3), NormBall("linf", 0.7)
    result = search.maximize(objective, images, threat_model, steps=7, rule=search.cosine_steps(threat_model, 0.1))
    values = torch.stack([criterion(iterate.flatten(1)) for iterate in iterates])
    assert torch.equal(result.margins, values.max(0).values)
    assert values.argmax(0).tolist() == [0, 1, 2, 3, 4, 5]  # the start may be the best; each image has its own best step
    assert bool((values[-1] < values.max(0).values - 0.1).all())
    best = [iterates[step][number] for number, step in enumerate(values.argmax(0).tolist())]
    assert torch.equal(result.images, torch.stack(best))
    last = search.last_iterate(objective, images, threat_model, steps=7, rule=search.cosine_steps(threat_model, 0.1))
    assert torch.equal(last, iterates[7])


def test_last_iterate_counts_too(images: Tensor, linear_model: LinearModel) -> None:
    model, _ = linear_model(2)
    labels, threat_model = model(images).argmax(1), NormBall("l2", 0.2)
    rule = search.cosine_steps(threat_model, 0.2)
    result = search.maximize(objectives.untargeted(model, labels), images, threat_model, steps=1, rule=rule)
    assert bool((threat_model.distance(result.images - images) > 0.19).all())


def test_nan_never_wins() -> None:
    """Above 0.6 the model returns NaN: the best iterate before is returned."""
    images, threat_model = torch.full((2, 1, 2, 2), 0.5), NormBall("linf", 0.4)
    rule = search.cosine_steps(threat_model, 0.05)

    def forward(images: Tensor) -> Tensor:
        return torch.where(images > 0.61, torch.nan, images).flatten(1)

    objective = Objective(forward, lambda outputs: outputs.sum(1), lambda outputs: outputs.sum(1))
    result = search.maximize(objective, images, threat_model, steps=8, rule=rule)
    assert result.margins.tolist() == pytest.approx([2.4, 2.4])
    assert result.images.isfinite().all()
    broken = Objective(lambda images: images * torch.nan, objective.objective, lambda outputs: outputs.flatten(1).sum(1))
    result = search.maximize(broken, images, threat_model, steps=2, rule=rule)
    assert torch.equal(result.images, images)
    assert result.margins.tolist() == [-torch.inf] * 2


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.3)], ids=str)
def test_start_outside_the_ball_is_projected(
    threat_model: NormBall, images: Tensor, linear_model: LinearModel, decaying: Decaying
) -> None:
    model, _ = linear_model(3)
    start = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    start[0, 0, 0, 0] = torch.nan
    labels = torch.zeros(6, dtype=torch.int64)
    objective = objectives.untargeted(model, labels)
    result = search.maximize(objective, images, threat_model, steps=0, rule=decaying(threat_model), start=start)
    assert torch.equal(result.images, threat_model.project(start, images))
    assert bool((threat_model.distance(result.images - images) <= threat_model.epsilon + 1e-6).all())
    assert torch.equal(result.margins, -objectives.margin(model(result.images), labels))


# ---- cost ---------------------------------------------------------------------------------------------------------------


class CountBackward(torch.autograd.Function):
    """The identity; counts backward passes."""

    count = 0

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        CountBackward.count += 1
        return gradient


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_one_forward_and_one_backward_pass_per_step_and_one_forward_pass_at_the_end(
    steps: int, images: Tensor, linear_model: LinearModel, decaying: Decaying
) -> None:
    forwards, linear = 0, linear_model(3)[0]

    def model(images: Tensor) -> Tensor:
        nonlocal forwards
        forwards += 1
        counted: Tensor = CountBackward.apply(images)  # type: ignore[no-untyped-call]
        return linear(counted)

    CountBackward.count, threat_model = 0, NormBall("l2", 0.3)
    objective = objectives.untargeted(model, torch.zeros(6, dtype=torch.int64))
    search.maximize(objective, images, threat_model, steps=steps, rule=decaying(threat_model))
    assert (forwards, CountBackward.count) == (steps + 1, steps)
    forwards = CountBackward.count = 0
    search.last_iterate(objective, images, threat_model, steps=steps, rule=decaying(threat_model))
    assert (forwards, CountBackward.count) == (steps, steps)


class NoHostCopy(TorchDispatchMode):
    """Raises where a value would be copied to the host: on a GPU each such copy waits for all work before it."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"{name} copies to the host"
        if name in ("index", "index_put"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a mask as index copies to the host"
        if name == "_to_copy":
            assert "device" not in (kwargs or {}) or kwargs["device"] is None, "copies to another device"
        return func(*args, **(kwargs or {}))


OBJECTIVES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Objective]] = {
    "margin": lambda model, images, labels: objectives.untargeted(model, labels),
    "cross-entropy": lambda model, images, labels: objectives.untargeted(model, labels, "cross_entropy"),
    "targeted": lambda model, images, labels: objectives.targeted(model, labels),
    "KL": lambda model, images, labels: objectives.kl_from_clean(model, model(images)),
    "feature matching": lambda model, images, labels: objectives.feature_matching(model, model(images)),
    "one feature": lambda model, images, labels: objectives.maximize_feature(model, labels, -1.0),
}


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.3), NormBall("l2", torch.inf)], ids=str)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_is_copied_to_the_host(
    name: str, threat_model: NormBall, images: Tensor, linear_model: LinearModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = OBJECTIVES[name](linear_model(3)[0], images, torch.arange(6) % 3)
    start = threat_model.sample(images, torch.Generator().manual_seed(0))

    def refuse(*_: object) -> None:
        raise AssertionError("copies to the host")

    for method in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(Tensor, method, refuse)
    for rule in (search.polyak_conjugate(), search.cosine_steps(threat_model, 0.1, end=0.01)):
        with NoHostCopy():
            search.maximize(objective, images, threat_model, steps=3, rule=rule, start=start)


def test_host_copies_are_detected() -> None:
    for copy in (lambda t: bool(t.sum() > 0), lambda t: t[t > 0], lambda t: t.sum().item()):
        with pytest.raises(AssertionError, match="host"), NoHostCopy():
            copy(torch.ones(3))


# ---- what stays as it was -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [True, False])
def test_only_images_get_gradients_and_inputs_are_unchanged(requires_grad: bool, images: Tensor, decaying: Decaying) -> None:
    model = build("small", shape=(1, 4, 4), classes=3, width=4).eval().requires_grad_(requires_grad)
    leaf, before = images.clone().requires_grad_(), images.clone()
    objective, threat_model = objectives.untargeted(model, torch.zeros(6, dtype=torch.int64)), NormBall("l2", 0.5)
    with torch.no_grad():  # the caller's mode does not matter
        result = search.maximize(objective, leaf, threat_model, steps=3, rule=decaying(threat_model))
    assert leaf.grad is None
    assert all(parameter.grad is None and parameter.requires_grad == requires_grad for parameter in model.parameters())
    assert not result.images.requires_grad
    assert not result.margins.requires_grad
    assert torch.equal(leaf, before)
    unperturbed = search.maximize(objective, images, threat_model, steps=0, rule=decaying(threat_model))
    unperturbed.images.zero_()
    assert torch.equal(images, before)  # the result shares no memory with the input


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_dtype_of_model_and_images(dtype: torch.dtype, images: Tensor, decaying: Decaying) -> None:
    model = build("small", shape=(1, 4, 4), classes=3, width=4).eval().to(dtype)
    with torch.no_grad():
        labels = model(images).argmax(1)
        clean = -objectives.margin(model(images).float(), labels)
    for inputs in (images, images.to(dtype)):
        for threat_model in (NormBall("linf", 0.2), NormBall("l2", 1.0)):
            objective = objectives.untargeted(model, labels)
            result = search.maximize(objective, inputs, threat_model, steps=5, rule=decaying(threat_model))
            assert result.images.dtype == inputs.dtype
            assert bool((result.margins >= clean - 1e-3).all())
            assert bool((result.margins > clean + 1e-3).any())
            slack = 20 * torch.finfo(inputs.dtype).eps
            assert bool((threat_model.distance((result.images - inputs).float()) <= threat_model.epsilon + slack).all())


def test_same_bytes_twice(standard: Model, decaying: Decaying) -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    objective, threat_model = objectives.untargeted(standard, torch.arange(20) % 10), NormBall("l2", 1.0)
    one, two = (search.maximize(objective, images, threat_model, steps=10, rule=decaying(threat_model)) for _ in range(2))
    assert one.images.numpy().tobytes() == two.images.numpy().tobytes()
    assert one.margins.numpy().tobytes() == two.margins.numpy().tobytes()


@pytest.mark.parametrize("kind", ["cosine", "conjugate"])
def test_images_of_a_batch_are_independent(standard: Model, kind: str, decaying: Decaying) -> None:
    """One by one as in a batch: no step, norm or best iterate is shared."""
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, threat_model = torch.arange(5), NormBall("l2", 1.0)
    rule = decaying(threat_model) if kind == "cosine" else search.polyak_conjugate()
    with torch.no_grad():
        wanted = standard.features(images.flip(0))

    def run(part: slice) -> search.AttackResult:
        objective = objectives.untargeted(standard, labels[part])
        if kind == "conjugate":
            objective = objectives.feature_matching(standard.features, wanted[part])
        return search.maximize(objective, images[part], threat_model, steps=4, rule=rule)

    batch, single = run(slice(None)), [run(slice(i, i + 1)) for i in range(5)]
    assert torch.allclose(torch.cat([result.images for result in single]), batch.images, rtol=0, atol=1e-4)
    assert torch.allclose(torch.cat([result.margins for result in single]), batch.margins, rtol=1e-4, atol=1e-3)


def test_bad_arguments_raise(images: Tensor, decaying: Decaying) -> None:
    threat_model = NormBall("l2", 100.0)
    objective = objectives.maximize_feature(nn.Flatten(), 0)
    with pytest.raises(InputError, match=r"^epsilon: two images of this size"):
        search.maximize(objective, images, threat_model, steps=1, rule=decaying(threat_model))
    with pytest.raises(InputError, match=r"^steps: must be 0 or more, got -1$"):
        search.maximize(objective, images, NormBall("l2", 1.0), steps=-1, rule=decaying(threat_model))
