"""How it is found: the one loop, against problems whose answer is known in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from notbugs import search
from notbugs.errors import InputError
from notbugs.models import Model, build
from notbugs.search import NormBall, Objective, objectives

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3


def linear(classes: int, seed: int = 0, scale: float = 1.0) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A linear model of 16 pixels: its view and its weights (K, 16)."""
    weights = scale * torch.randn(classes, 16, generator=torch.Generator().manual_seed(seed))
    return lambda images: images.flatten(1) @ weights.to(images.dtype).T, weights


def dual(norm: str, vectors: Tensor) -> Tensor:
    return vectors.abs().sum(-1) if norm == "linf" else vectors.norm(dim=-1)


def falling(threat_model: NormBall) -> search.UpdateRule:
    return search.cosine_steps(threat_model, 2 * threat_model.epsilon, end=0.01)


# ---- the answer in closed form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
@pytest.mark.parametrize("steps", [1, 10])
def test_of_two_classes_the_lead_grows_by_radius_times_dual_norm(threat_model: NormBall, steps: int) -> None:
    view, weights = linear(2)
    labels = view(IMAGES).argmax(1)
    wanted = -objectives.margin(view(IMAGES), labels) + threat_model.epsilon * dual(threat_model.norm, weights[1] - weights[0])
    for loss in ("margin", "cross_entropy"):
        for rule in (falling(threat_model), search.cosine_steps(threat_model, threat_model.epsilon)):
            found = search.maximize(objectives.untargeted(view, labels, loss), IMAGES, threat_model, steps=steps, rule=rule)
            assert torch.allclose(found.margins, wanted, rtol=0, atol=1e-4)
            assert torch.allclose(-objectives.margin(view(found.images), labels), found.margins, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
def test_of_many_classes_the_best_over_all_rivals_is_the_closed_form(threat_model: NormBall) -> None:
    view, weights = linear(5)
    labels = view(IMAGES).argmax(1)
    towards = []
    for rival in range(5):
        goal = objectives.untargeted_via(view, labels, torch.full_like(labels, rival))
        towards.append(search.maximize(goal, IMAGES, threat_model, steps=8, rule=falling(threat_model)).margins)
    gaps = weights[None] - weights[labels][:, None]
    leads = view(IMAGES) - view(IMAGES).gather(1, labels[:, None]) + threat_model.epsilon * dual(threat_model.norm, gaps)
    wanted = leads.scatter(1, labels[:, None], -torch.inf).max(1).values
    assert torch.allclose(torch.stack(towards).max(0).values, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.05), NormBall("l2", 0.2)], ids=str)
def test_confident_logits_hide_nothing_from_the_lead(threat_model: NormBall) -> None:
    """Scaled by 120, cross-entropy's gradient vanishes in single precision where the lead is large; the answer scales along."""
    view, weights = linear(2, scale=120.0)
    labels = view(IMAGES).argmax(1)
    at = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objectives.untargeted(view, labels, "cross_entropy").objective(view(at)).sum(), at)
    assert bool((gradient.flatten(1).abs().amax(1) == 0).any())
    found = search.maximize(
        objectives.untargeted(view, labels, "margin"), IMAGES, threat_model, steps=10, rule=falling(threat_model)
    )
    wanted = -objectives.margin(view(IMAGES), labels) + threat_model.epsilon * dual(threat_model.norm, weights[1] - weights[0])
    assert torch.allclose(found.margins, wanted, rtol=0, atol=120 * 1e-4)


def test_gradients_whose_squares_vanish_still_point() -> None:
    """Cross-entropy at a lead of 60 has a gradient of 1e-26: its L2 norm, taken naively, is 0."""
    weights = linear(2)[1] * torch.tensor([[0.0], [1.0]])  # of the label's own logit the gradient is 0 by then: p - 1 is
    offset = torch.tensor([60.0, 0.0])
    labels, threat_model = torch.zeros(6, dtype=torch.int64), NormBall("l2", 0.2)

    def view(images: Tensor) -> Tensor:
        return images.flatten(1) @ weights.T + offset

    found = search.maximize(
        objectives.untargeted(view, labels, "cross_entropy"),
        IMAGES,
        threat_model,
        steps=1,
        rule=search.cosine_steps(threat_model, 0.2),
    )
    wanted = -objectives.margin(view(IMAGES), labels) + 0.2 * weights[1].norm()
    assert torch.allclose(found.margins, wanted, rtol=0, atol=1e-4)


def test_conjugate_steps_solve_least_squares() -> None:
    """Features A x of another image, 12 equations for 64 pixels: the top is 0, and is reached without a step length."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 64, generator=generator)
    wanted, start = (torch.rand(5, 1, 8, 8, generator=generator) * 0.4 + 0.3 for _ in range(2))

    def view(images: Tensor) -> Tensor:
        return images.flatten(1) @ matrix.T

    goal, free = objectives.feature_matching(view, view(wanted)), NormBall("l2", torch.inf)
    found = search.maximize(goal, start, free, steps=40, rule=search.polyak_conjugate())
    assert bool((goal.criterion(view(start)) < -0.2).all())
    assert bool((found.margins > -1e-4).all())


def test_the_first_conjugate_step_is_polyaks() -> None:
    """Along the gradient, as far as a straight line needs to the top: (top - value) / |gradient|, times the factor."""
    gradient = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
    now = search.StepState(0, 10, torch.full((1, 1, 1, 2), 0.5), torch.tensor([-2.0]), gradient)
    assert search.polyak_conjugate(0.5)(now, None)[0].flatten().tolist() == pytest.approx([0.5 * 2 / 5 * 0.6, 0.5 * 2 / 5 * 0.8])
    assert search.polyak_conjugate(1.0, top=3.0)(now, None)[0].flatten().tolist() == pytest.approx([5 / 5 * 0.6, 5 / 5 * 0.8])


def test_preconditioned_steps_are_the_plain_ones_in_other_coordinates() -> None:
    """Climbing in y where x = R y, R symmetric, is climbing in x with the precondition R R."""
    generator = torch.Generator().manual_seed(0)
    matrix, wanted = torch.randn(5, 16, generator=generator), torch.randn(6, 5, generator=generator)
    root = torch.randn(16, 16, generator=generator)
    root = (root @ root.T / 16 + torch.eye(16)) / 4
    start = 0.5 + 0.01 * torch.randn(6, 1, 4, 4, generator=generator)

    def path(weights: Tensor, point: Tensor, rule: search.UpdateRule) -> Tensor:
        memory = None
        for step in range(12):
            seen = point.flatten(1) @ weights.T - wanted
            gradient = (-(seen / seen.norm(dim=1, keepdim=True)) @ weights).reshape(point.shape)
            move, memory = rule(search.StepState(step, 12, torch.full_like(point, 0.5), -seen.norm(dim=1), gradient), memory)
            point = point + move
        return point

    def changed(images: Tensor, by: Tensor) -> Tensor:
        return (images.flatten(1) @ by).reshape(images.shape)

    plain = path(matrix @ root, changed(start, torch.linalg.inv(root)), search.polyak_conjugate())
    shaped = path(matrix, start, search.polyak_conjugate(precondition=lambda gradient: changed(gradient, root @ root)))
    assert torch.allclose(changed(plain, root), shaped, atol=1e-4)
    assert not torch.allclose(path(matrix, start, search.polyak_conjugate()), shaped, atol=0.1)


def test_conjugate_steps_leave_out_what_the_pixel_range_would_cut_off() -> None:
    images, gradient = (torch.tensor(v).reshape(1, 1, 1, 4) for v in ([0.0, 0.0, 1.0, 1.0], [-9.0, 3.0, 9.0, -4.0]))
    move, _ = search.polyak_conjugate(1.0)(search.StepState(0, 10, images, torch.tensor([-5.0]), gradient), None)
    assert move.flatten().tolist() == pytest.approx([0, 0.6, 0, -0.8])


def test_conjugate_steps_forget_values_that_are_no_numbers() -> None:
    rule = search.polyak_conjugate(1.0, end=1.0)
    half, slope = torch.full((2, 1, 1, 1), 0.5), torch.ones(2, 1, 1, 1)
    move, memory = rule(search.StepState(0, 5, half, torch.tensor([torch.nan, -1.0]), slope), None)
    assert move.flatten().tolist() == [0, 1]
    move, memory = rule(search.StepState(1, 5, half, torch.tensor([-1.0, -torch.inf]), slope), memory)
    assert move.flatten().tolist() == [1, 0]
    move, _ = rule(search.StepState(2, 5, half, torch.tensor([-1.0, -1.0]), torch.full_like(slope, torch.nan)), memory)
    assert move.flatten().tolist() == [0, 0]


# ---- what is kept -------------------------------------------------------------------------------------------------------


def test_the_best_iterate_by_the_judge_is_kept() -> None:
    """A rule that walks straight over the top: the last image is the worst, the best is one on the way."""
    seen: list[Tensor] = []

    def view(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return images.flatten(1)

    def judge(pixels: Tensor) -> Tensor:
        return -(pixels - torch.arange(6)[:, None] / 10 - 0.3).abs().amax(1)

    goal = Objective(view, lambda pixels: pixels.sum(1), judge)
    images, threat_model = torch.full((6, 1, 2, 2), 0.3), NormBall("linf", 0.7)
    found = search.maximize(goal, images, threat_model, steps=7, rule=search.cosine_steps(threat_model, 0.1))
    judged = torch.stack([judge(each.flatten(1)) for each in seen])
    assert torch.equal(found.margins, judged.max(0).values)
    assert judged.argmax(0).tolist() == [0, 1, 2, 3, 4, 5]  # the start may win, each image on its own
    assert bool((judged[-1] < judged.max(0).values - 0.1).all())
    assert torch.equal(found.images, torch.stack([seen[step][i] for i, step in enumerate(judged.argmax(0).tolist())]))


def test_the_last_image_is_judged_too() -> None:
    view, _ = linear(2)
    labels, threat_model = view(IMAGES).argmax(1), NormBall("l2", 0.2)
    found = search.maximize(
        objectives.untargeted(view, labels), IMAGES, threat_model, steps=1, rule=search.cosine_steps(threat_model, 0.2)
    )
    assert bool((threat_model.distance(found.images - IMAGES) > 0.19).all())


def test_what_is_no_number_never_wins() -> None:
    """Beyond 0.6 the model breaks down: what was best before that is returned, and so are the gradient's steps from there."""
    images, threat_model = torch.full((2, 1, 2, 2), 0.5), NormBall("linf", 0.4)

    def view(pixels: Tensor) -> Tensor:
        return torch.where(pixels > 0.61, torch.nan, pixels).flatten(1)

    goal = Objective(view, lambda seen: seen.sum(1), lambda seen: seen.sum(1))
    found = search.maximize(goal, images, threat_model, steps=8, rule=search.cosine_steps(threat_model, 0.05))
    assert found.margins.tolist() == pytest.approx([2.4, 2.4])
    assert found.images.isfinite().all()
    broken = search.maximize(Objective(lambda p: p * torch.nan, goal.objective, lambda s: s.flatten(1).sum(1)), images, threat_model, steps=2,
                             rule=search.cosine_steps(threat_model, 0.05))  # fmt: skip
    assert torch.equal(broken.images, images)
    assert broken.margins.tolist() == [-torch.inf] * 2


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.3)], ids=str)
def test_a_start_outside_is_brought_in(threat_model: NormBall) -> None:
    view, _ = linear(3)
    start = IMAGES + torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))
    start[0, 0, 0, 0] = torch.nan
    found = search.maximize(objectives.untargeted(view, torch.zeros(6, dtype=torch.int64)), IMAGES, threat_model, steps=0, rule=falling(threat_model),
                            start=start)  # fmt: skip
    assert torch.equal(found.images, threat_model.project(start, IMAGES))
    assert bool((threat_model.distance(found.images - IMAGES) <= threat_model.epsilon + 1e-6).all())
    assert torch.equal(found.margins, -objectives.margin(view(found.images), torch.zeros(6, dtype=torch.int64)))


# ---- what it costs ------------------------------------------------------------------------------------------------------


class Counted(torch.autograd.Function):
    """The identity; counts how often gradients pass."""

    backwards = 0

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Counted.backwards += 1
        return gradient


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_one_forward_and_one_backward_a_step_and_one_forward_at_the_end(steps: int) -> None:
    forwards, model = 0, linear(3)[0]

    def view(images: Tensor) -> Tensor:
        nonlocal forwards
        forwards += 1
        seen: Tensor = Counted.apply(images)  # type: ignore[no-untyped-call]
        return model(seen)

    Counted.backwards, threat_model = 0, NormBall("l2", 0.3)
    search.maximize(
        objectives.untargeted(view, torch.zeros(6, dtype=torch.int64)),
        IMAGES,
        threat_model,
        steps=steps,
        rule=falling(threat_model),
    )
    assert (forwards, Counted.backwards) == (steps + 1, steps)


class NoHostCopy(TorchDispatchMode):
    """Raises where a value would have to leave the device: on a GPU each of these waits for everything before it."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"{name} copies to the host"
        if name in ("index", "index_put"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a mask as index copies to the host"
        if name == "_to_copy":
            assert "device" not in (kwargs or {}) or kwargs["device"] is None, "moves to another device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.3), NormBall("l2", torch.inf)], ids=str)
@pytest.mark.parametrize("name", ["lead", "loss", "reach", "divergence", "features", "push"])
def test_nothing_is_copied_to_the_host(name: str, threat_model: NormBall, monkeypatch: pytest.MonkeyPatch) -> None:
    view, _ = linear(3)
    labels = torch.arange(6) % 3
    goal = {
        "lead": objectives.untargeted(view, labels),
        "loss": objectives.untargeted(view, labels, "cross_entropy"),
        "reach": objectives.targeted(view, labels),
        "divergence": objectives.kl_from_clean(view, view(IMAGES)),
        "features": objectives.feature_matching(view, view(IMAGES)),
        "push": objectives.maximize_feature(view, labels, -1.0),
    }[name]
    start = threat_model.sample(IMAGES, torch.Generator().manual_seed(0))

    def refuse(*_: object) -> None:
        raise AssertionError("copies to the host")

    for method in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(Tensor, method, refuse)
    for rule in (search.polyak_conjugate(), search.cosine_steps(threat_model, 0.1, end=0.01)):
        with NoHostCopy():
            search.maximize(goal, IMAGES, threat_model, steps=3, rule=rule, start=start)


def test_the_guard_against_host_copies_sees_them() -> None:
    for copy in (lambda t: bool(t.sum() > 0), lambda t: t[t > 0], lambda t: t.sum().item()):
        with pytest.raises(AssertionError, match="host"), NoHostCopy():
            copy(torch.ones(3))


# ---- what is left alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_the_images_only(wanted: bool) -> None:
    model = build("small", shape=(1, 4, 4), classes=3, width=4).eval().requires_grad_(wanted)
    images, before = IMAGES.clone().requires_grad_(), IMAGES.clone()
    goal, threat_model = objectives.untargeted(model, torch.zeros(6, dtype=torch.int64)), NormBall("l2", 0.5)
    with torch.no_grad():  # the caller's mode does not matter
        found = search.maximize(goal, images, threat_model, steps=3, rule=falling(threat_model))
    assert images.grad is None
    assert all(parameter.grad is None and parameter.requires_grad == wanted for parameter in model.parameters())
    assert not found.images.requires_grad
    assert not found.margins.requires_grad
    assert torch.equal(images, before)
    still = search.maximize(goal, IMAGES, threat_model, steps=0, rule=falling(threat_model))
    still.images.zero_()
    assert torch.equal(IMAGES, before)  # what is returned shares no memory with what was given


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_type_the_model_has(dtype: torch.dtype) -> None:
    model = build("small", shape=(1, 4, 4), classes=3, width=4).eval().to(dtype)
    with torch.no_grad():
        labels = model(IMAGES).argmax(1)
        before = -objectives.margin(model(IMAGES).float(), labels)
    for images in (IMAGES, IMAGES.to(dtype)):
        for threat_model in (NormBall("linf", 0.2), NormBall("l2", 1.0)):
            found = search.maximize(
                objectives.untargeted(model, labels), images, threat_model, steps=5, rule=falling(threat_model)
            )
            assert found.images.dtype == images.dtype
            assert bool((found.margins >= before - 1e-3).all())
            assert bool((found.margins > before + 1e-3).any())
            slack = 20 * torch.finfo(images.dtype).eps
            assert bool((threat_model.distance((found.images - images).float()) <= threat_model.epsilon + slack).all())


def test_the_same_bytes_twice(standard: Model) -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, threat_model = torch.arange(20) % 10, NormBall("l2", 1.0)
    one, two = (
        search.maximize(objectives.untargeted(standard, labels), images, threat_model, steps=10, rule=falling(threat_model))
        for _ in range(2)
    )
    assert one.images.numpy().tobytes() == two.images.numpy().tobytes()
    assert one.margins.numpy().tobytes() == two.margins.numpy().tobytes()


@pytest.mark.parametrize("kind", ["steepest", "conjugate"])
def test_images_do_not_see_their_neighbours(standard: Model, kind: str) -> None:
    """One by one as in a batch: no step, norm or verdict is shared between images."""
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, threat_model = torch.arange(5), NormBall("l2", 1.0)
    rule = falling(threat_model) if kind == "steepest" else search.polyak_conjugate()
    with torch.no_grad():
        wanted = standard.features(images.flip(0))

    def run(part: slice) -> search.AttackResult:
        goal = objectives.untargeted(standard, labels[part])
        if kind == "conjugate":
            goal = objectives.feature_matching(standard.features, wanted[part])
        return search.maximize(goal, images[part], threat_model, steps=4, rule=rule)

    whole, single = run(slice(None)), [run(slice(i, i + 1)) for i in range(5)]
    assert torch.allclose(torch.cat([each.images for each in single]), whole.images, rtol=0, atol=1e-4)
    assert torch.allclose(torch.cat([each.margins for each in single]), whole.values, rtol=1e-4, atol=1e-3)


# ---- the rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", [NormBall("linf", 0.1), NormBall("l2", 0.1)], ids=str)
def test_the_steepest_steps_have_the_length_that_was_asked_for(threat_model: NormBall) -> None:
    generator = torch.Generator().manual_seed(0)
    fixed, fall = search.cosine_steps(threat_model, 0.3), search.cosine_steps(threat_model, 0.3, end=0.1)
    memory = None
    for step in range(10):
        now = search.StepState(step, 10, IMAGES, torch.zeros(6), torch.randn(IMAGES.shape, generator=generator))
        assert torch.allclose(threat_model.distance(fixed(now, None)[0]), torch.tensor(0.3))
        move, memory = fall(now, memory)
        share = 0.1 + 0.9 * (1 + torch.cos(torch.tensor(torch.pi * step / 10))) / 2
        assert torch.allclose(threat_model.distance(move), 0.3 * share)


def test_bad_requests_are_refused() -> None:
    threat_model = NormBall("l2", 100.0)
    goal = objectives.maximize_feature(nn.Flatten(), 0)
    with pytest.raises(InputError, match=r"^epsilon: two images of this size"):
        search.maximize(goal, IMAGES, threat_model, steps=1, rule=falling(threat_model))
    with pytest.raises(InputError, match=r"^steps: must be 0 or more, got -1$"):
        search.maximize(goal, IMAGES, NormBall("l2", 1.0), steps=-1, rule=falling(threat_model))
