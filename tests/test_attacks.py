"""How a classifier is fooled: what every attack returns, and the verdict against closed forms and other people's attacks."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import attacks, data, goals
from notbugs.ball import Ball
from notbugs.errors import BadInput
from notbugs.models import Model
from notbugs.search import Attack, Found

BALLS = [Ball("l2", 0.75), Ball("linf", 0.15)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def untargeted(ball: Ball) -> dict[str, Attack]:
    """Every attack away from the labels, by name."""
    return {
        "fgsm": partial(attacks.fgsm, ball=ball),
        "pgd lead": partial(attacks.pgd, ball=ball, steps=8),
        "pgd loss": partial(attacks.pgd, ball=ball, steps=8, by="loss"),
        "pgd random": partial(attacks.pgd, ball=ball, steps=8, generator=seeded()),
        "pgd restarts": partial(attacks.pgd, ball=ball, steps=8, restarts=3, generator=seeded()),
        "first rival": partial(attacks.runner_up, ball=ball, rank=1, steps=8),
        "last rival": partial(attacks.runner_up, ball=ball, rank=9, steps=8),
        "worst case": partial(attacks.worst_case, attacks=attacks.ensemble(ball, 10)),
    }


@pytest.fixture(scope="module")
def batch(digits: data.Splits) -> tuple[Tensor, Tensor]:
    """200 test digits."""
    return digits.test.pixels(slice(0, 200)), digits.test.labels[:200]


@pytest.fixture(scope="module")
def few(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """60 of them."""
    return batch[0][:60], batch[1][:60]


def says(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """The lead of the best other class, by the model itself."""
    with torch.no_grad():
        return -goals.lead(model(images), labels)


def inside(found: Tensor, images: Tensor, ball: Ball) -> bool:
    in_range = bool(((found >= 0) & (found <= 1)).all())
    return in_range and bool((ball.size(found - images) <= ball.radius * (1 + 1e-5)).all())


# ---- the smallest radius ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 5])
def test_of_a_linear_model_the_smallest_radius_is_gap_over_dual_norm(norm: str, classes: int) -> None:
    """Grey images, far from black and white: the nearest border between two classes is known exactly."""
    images = 0.5 + 0.1 * torch.rand(50, 1, 8, 8, generator=seeded())
    weights = torch.randn(64, classes, generator=seeded())

    def model(seen: Tensor) -> Tensor:
        return (seen.flatten(1) - 0.55) @ weights

    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % classes  # misread as it is
    found = attacks.smallest_radius(model, images, labels, norm=norm)  # type: ignore[arg-type]
    gaps = model(images).gather(1, labels[:, None]) - model(images)
    between = weights.T[labels][:, None] - weights.T[None]
    dual = {"linf": between.abs().sum(2), "l2": between.norm(dim=2), "l1": between.abs().amax(2)}[norm]
    exact = (gaps / dual).scatter(1, labels[:, None], torch.inf).amin(1).clamp_min(0)
    assert found.values[0] == 0 and torch.equal(found.images[0], images[0])
    assert bool((found.values >= exact * (1 - 1e-4)).all())
    assert bool((found.values <= exact * 1.03 + 1e-5).all())
    targets, distances = attacks.nearest_classes(model, images[1:], labels[1:], norm=norm)  # type: ignore[arg-type]
    assert torch.allclose(distances[:, 0], exact[1:], rtol=1e-3)
    assert targets.shape == (49, classes - 1)
    assert not bool((targets == labels[1:, None]).any())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_the_smallest_radius_is_the_size_of_a_change_that_fools(
    norm: str, which: str, request: pytest.FixtureRequest, few: tuple[Tensor, Tensor]
) -> None:
    model, (images, labels) = request.getfixturevalue(which), few
    found = attacks.smallest_radius(model, images, labels, norm=norm)
    assert bool(found.values.isfinite().all())
    assert torch.allclose(Ball(norm, 0).size(found.images - images), found.values, atol=1e-6)
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    assert bool((says(model, found.images, labels) > -1e-4).all())
    near = images + 0.9 * (found.images - images)
    assert bool((says(model, near, labels)[found.values > 0] < 0).all())  # drawn as near as that way allows
    again = attacks.smallest_radius(model, images, labels, norm=norm)
    assert torch.equal(again.images, found.images)


@pytest.mark.parametrize("which", ["standard", "robust"])
def test_the_smallest_radius_is_as_small_as_others_find_it(
    which: str, request: pytest.FixtureRequest, batch: tuple[Tensor, Tensor]
) -> None:
    """foolbox's DDN, 100 gradients each as we take, and at every radius about as many left as the ensemble leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
    model, (images, labels) = request.getfixturevalue(which), batch
    ours = attacks.smallest_radius(model, images, labels).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        referee = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
        theirs = foolbox.attacks.DDNAttack(steps=100)(referee, images, labels, epsilons=None)
    distances = torch.where(theirs[2], (theirs[0] - images).flatten(1).norm(dim=1), torch.inf)
    assert float(ours.median()) <= float(distances.median()) * 1.005
    assert float(ours.mean()) <= float(distances[distances.isfinite()].mean()) * 1.005
    for radius in (0.375, 0.75):
        verdict = attacks.worst_case(model, images, labels, attacks.ensemble(Ball("l2", radius), 10)).values <= 0
        assert abs(int((ours > radius).sum()) - int(verdict.sum())) <= 3


def test_what_cannot_be_fooled_has_no_smallest_radius(few: tuple[Tensor, Tensor]) -> None:
    images, _ = few
    weights = torch.eye(3)[:1] * 5
    found = attacks.smallest_radius(
        lambda seen: seen.flatten(1).mean(1, keepdim=True) * 0 + weights,  # type: ignore[arg-type]
        images,
        torch.zeros(60, dtype=torch.int64),
    )
    assert bool(found.values.isinf().all())
    assert torch.equal(found.images, images)
    with pytest.raises(BadInput, match=r"^norm: must be linf, l2 or l1"):
        attacks.smallest_radius(nn.Identity(), images, torch.zeros(60, dtype=torch.int64), norm="l0")


# ---- few pixels -------------------------------------------------------------------------------------------------------------


def test_trying_every_change_of_one_pixel_finds_the_worst(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few[0][:20], few[1][:20]
    found = attacks.few_pixels(standard, images, labels, tries=None)
    worst = says(standard, images, labels)
    started = worst > 0
    for place in range(64):
        for colour in (0.0, 1.0):
            changed = images.flatten(1).clone()
            changed[:, place] = colour
            worst = torch.where(started, worst, torch.maximum(worst, says(standard, changed.reshape(images.shape), labels)))
    assert torch.allclose(found.values, worst, atol=1e-4)
    promising = attacks.few_pixels(standard, images, labels, tries=20)
    assert int((promising.values > 0).sum()) >= int((worst > 0).sum()) - 2


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("pixels", [1, 3])
def test_few_pixels_change_and_corners_are_reached(
    pixels: int, gradient: bool, standard: Model, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    found = attacks.few_pixels(standard, images, labels, pixels=pixels, tries=30, gradient=gradient)
    changed = found.images != images
    assert int(changed.flatten(1).sum(1).max()) == pixels
    assert bool(((found.images == 0) | (found.images == 1))[changed].all())
    assert torch.allclose(found.values, says(standard, found.images, labels), atol=1e-4)
    more = attacks.few_pixels(standard, images, labels, pixels=pixels + 2, tries=30, gradient=gradient)
    assert int((more.values > 0).sum()) >= int((found.values > 0).sum())
    if gradient:
        blind = attacks.few_pixels(standard, images, labels, pixels=pixels, tries=30, gradient=False)
        assert int((found.values > 0).sum()) > int((blind.values > 0).sum())


def test_a_pixel_counts_once_whatever_its_channels_and_no_gradient_is_needed() -> None:
    """Class 1 wins where one pixel is pure yellow: one change of three channels, asked of a function without gradients."""
    images = torch.full((2, 3, 4, 4), 0.5)

    def black_box(seen: Tensor) -> Tensor:
        yellow = (seen[:, 0] * seen[:, 1] * (1 - seen[:, 2])).amax((1, 2)).detach()
        return torch.stack([torch.full_like(yellow, 0.9), yellow], dim=1)

    zeros = torch.zeros(2, dtype=torch.int64)
    found = attacks.few_pixels(black_box, images, zeros, tries=None, gradient=False)  # type: ignore[arg-type]
    assert bool((found.values > 0).all())
    assert Ball("l0", 1).size(found.images - images).tolist() == [1, 1]
    assert torch.equal(attacks.few_pixels(black_box, images, zeros, pixels=0).images, images)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"^tries: must be 1 or more, got 0$"):
        attacks.few_pixels(black_box, images, zeros, tries=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("norm", "small", "large"), [("l1", 1.0, 3.0), ("l0", 1, 4)])
def test_the_verdict_in_l1_and_l0(norm: str, small: float, large: float, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    left = []
    for radius in (small, large):
        ball = Ball(norm, radius)
        found = attacks.worst_case(robust, images, labels, attacks.ensemble(ball, 10))
        assert inside(found.images, images, ball)
        assert torch.allclose(found.values, says(robust, found.images, labels), rtol=1e-3, atol=1e-3)
        left.append(int((found.values <= 0).sum()))
    assert left[0] > 40 > 20 > left[1]
    if norm == "l1":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            foolbox = pytest.importorskip("foolbox")
            referee = foolbox.PyTorchModel(robust.eval(), bounds=(0, 1))
            attack = foolbox.attacks.EADAttack(steps=100, binary_search_steps=4, decision_rule="L1")
            theirs = (attack(referee, images, labels, epsilons=None)[0] - images).abs().flatten(1).sum(1)
        assert [left[0] <= int((theirs > small).sum()), left[1] <= int((theirs > large).sum())] == [True, True]


# ---- without gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [Ball("l2", 0.75), Ball("linf", 0.15), Ball("l1", 2.0), Ball("l0", 3)], ids=str)
def test_square_fools_without_gradients(ball: Ball, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    asked = torch.zeros(60)

    def black_box(seen: Tensor) -> Tensor:
        asked[0] += len(seen)
        return standard(seen).detach()

    found = attacks.square(black_box, images, labels, ball=ball, queries=200)
    assert inside(found.images, images, ball)
    assert torch.allclose(found.values, says(standard, found.images, labels), atol=1e-3)
    left, start = int((found.values <= 0).sum()), int((says(standard, images, labels) <= 0).sum())
    white = int((attacks.standard(standard, images, labels, ball=ball).values <= 0).sum())
    assert white <= left < 0.7 * start
    assert int(asked[0]) <= 60 * 201
    again = attacks.square(black_box, images, labels, ball=ball, queries=200)
    assert torch.equal(again.images, found.images)
    other = attacks.square(black_box, images, labels, ball=ball, queries=200, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(other.images, found.images)


@pytest.mark.parametrize("ball", [Ball("l2", 0.75), Ball("linf", 0.15)], ids=str)
def test_square_is_at_least_as_strong_as_torchattacks_square(ball: Ball, standard: Model, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = "L2" if ball.norm == "l2" else "Linf"
        theirs = torchattacks.Square(standard, norm=norm, eps=ball.radius, n_queries=300, n_restarts=1, seed=0)(images, labels)
    ours = attacks.square(standard, images, labels, ball=ball, queries=300)
    assert int((ours.values <= 0).sum()) <= int((says(standard, theirs, labels) <= 0).sum())


def test_square_needs_no_network(digits: data.Splits) -> None:
    """A scikit-learn pipeline."""
    from sklearn.linear_model import LogisticRegression

    pixels = digits.train.pixels(slice(None)).flatten(1).numpy()
    learner = LogisticRegression(max_iter=300).fit(pixels, digits.train.labels.numpy())
    images, labels = digits.test.pixels(slice(0, 100)), digits.test.labels[:100]

    def logits(seen: Tensor) -> Tensor:
        return torch.from_numpy(learner.decision_function(seen.flatten(1).double().numpy()))

    found = attacks.square(logits, images, labels, ball=Ball("l2", 1.0), queries=300)
    clean, left = int((says(logits, images, labels) <= 0).sum()), int((found.values <= 0).sum())
    assert clean > 90 and left < 40
    with pytest.raises(BadInput, match=r"^queries: must be 1 or more, got 0$"):
        attacks.square(logits, images, labels, ball=Ball("l2", 1.0), queries=0)


# ---- odd requests -------------------------------------------------------------------------------------------------------


def mean_model(seen: Tensor) -> Tensor:
    """Two classes: dark and light."""
    mean = seen.float().mean((1, 2, 3))
    return torch.stack([0.6 - mean, mean - 0.1], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("count", [0, 3])
def test_no_images_and_no_radius(norm: str, count: int) -> None:
    images, labels = 0.3 * torch.rand(count, 3, 5, 7, generator=seeded()), torch.zeros(count, dtype=torch.int64)
    for found in (
        attacks.standard(mean_model, images, labels, ball=Ball(norm, 0)),  # type: ignore[arg-type]
        attacks.square(mean_model, images, labels, ball=Ball(norm, 0), queries=3),
        attacks.pgd(mean_model, images, labels, ball=Ball(norm, 0), generator=seeded()),  # type: ignore[arg-type]
    ):
        assert torch.equal(found.images, images)
        assert found.values.shape == (count,)
    if norm != "l0":
        assert attacks.smallest_radius(mean_model, images, labels, norm=norm).values.shape == (count,)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_the_whole_pixel_range_is_enough(norm: str) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    ball = Ball(norm, torch.inf)
    assert bool((attacks.standard(mean_model, images, labels, ball=ball).values > 0).all())  # type: ignore[arg-type]
    assert bool((attacks.square(mean_model, images, labels, ball=ball, queries=100).values > 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_other_precisions_find_the_same(norm: str, dtype: torch.dtype) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    wanted = attacks.smallest_radius(mean_model, images, labels, norm=norm).values  # type: ignore[arg-type]
    found = attacks.smallest_radius(mean_model, images.to(dtype), labels, norm=norm)  # type: ignore[arg-type]
    assert found.images.dtype == dtype
    assert torch.allclose(found.values, wanted, rtol=0.05)
    drawn = Ball("l1", 5.0).sample(torch.rand(200, 3, 32, 32, generator=seeded()).to(dtype), seeded())
    assert drawn.dtype == dtype and not bool(drawn.isnan().any())


def test_a_radius_for_each_image_is_for_single_searches(few: tuple[Tensor, Tensor], standard: Model) -> None:
    each = Ball("l2", torch.linspace(0, 1, 60))
    found = attacks.pgd(standard, *few, ball=each)
    assert bool((each.size(found.images - few[0]) <= each.radius + 1e-5).all())
    for attack in (
        partial(attacks.standard, ball=each),
        partial(attacks.square, ball=each),
        partial(attacks.pgd, ball=each, restarts=2, generator=seeded()),
    ):
        with pytest.raises(BadInput, match=r"^radius: must be one for all images"):
            attack(standard, *few)


# ---- what is returned ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("name", list(untargeted(BALLS[0])))
def test_images_are_inside_and_values_are_what_the_model_says_of_them(
    name: str, ball: Ball, standard: Model, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    found = untargeted(ball)[name](standard, images, labels)
    assert inside(found.images, images, ball)
    assert torch.allclose(found.values, says(standard, found.images, labels), rtol=1e-3, atol=1e-3)
    assert bool((found.values >= says(standard, images, labels) - 1e-3).all())  # the start is kept where nothing is better
    assert int((found.values > 0).sum()) > int((says(standard, images, labels) > 0).sum())


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_targeted_and_label_free_attacks_do_what_they_say(ball: Ball, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    targets = (labels + 1) % 10
    for by in ("lead", "loss"):
        reached = attacks.reach(robust, images, targets, ball=ball, by=by)
        assert inside(reached.images, images, ball)
        assert torch.allclose(reached.values, -says(robust, reached.images, targets), rtol=1e-3, atol=1e-3)
        assert int((reached.values > 0).sum()) > 3 * int((robust(images).argmax(1) == targets).sum())
    drifted = attacks.diverge(robust, images, labels, ball=ball)
    assert inside(drifted.images, images, ball)
    divergence = F.kl_div(robust(drifted.images).log_softmax(1), robust(images).softmax(1), reduction="none").sum(1)
    assert torch.allclose(drifted.values, divergence, rtol=1e-2, atol=1e-3)
    assert float(divergence.mean()) > 0.1
    assert torch.equal(drifted.images, attacks.diverge(robust, images, labels.flip(0), ball=ball).images)


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_diverging_starts_where_the_divergence_is_not_flat(ball: Ball) -> None:
    """At the calm prediction itself, here one half each, its gradient is exactly 0."""
    images = torch.full((3, 1, 8, 8), 0.5)
    weights = torch.randn(64, 2, generator=seeded())
    found = attacks.diverge(
        lambda images: (images.flatten(1) - 0.5) @ weights,  # type: ignore[arg-type]
        images,
        torch.zeros(3, dtype=torch.int64),
        ball=ball,
    )
    assert bool((found.values > 0.5).all())


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_stronger_attacks_fool_more(ball: Ball, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    fooled = {name: attack(robust, images, labels).values > 0 for name, attack in untargeted(ball).items()}
    assert int(fooled["fgsm"].sum()) <= int(fooled["pgd lead"].sum()) <= int(fooled["worst case"].sum())
    assert int(fooled["pgd random"].sum()) <= int(fooled["pgd restarts"].sum())
    for attack in attacks.ensemble(ball, 10):  # no single one finds what all of them together miss
        single = attack(robust, images, labels).values > 1e-3
        assert int((single & ~fooled["worst case"]).sum()) == 0


def test_the_same_generator_gives_the_same_images(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    for name in ("pgd random", "pgd restarts", "worst case"):
        one, two = (untargeted(BALLS[0])[name](standard, *few) for _ in range(2))
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.values, two.values)


def test_more_pixels_less_survival(robust: Model, few: tuple[Tensor, Tensor]) -> None:
    survivors = []
    for radius in (0.0, 0.25, 0.75, 2.0):
        found = attacks.worst_case(robust, *few, attacks.ensemble(Ball("l2", radius), 10))
        survivors.append(int((found.values <= 0).sum()))
    assert survivors == sorted(survivors, reverse=True)
    assert survivors[0] == int((robust(few[0]).argmax(1) == few[1]).sum())
    assert survivors[-1] == 0


# ---- the worst case -----------------------------------------------------------------------------------------------------


def test_each_attack_meets_only_the_survivors() -> None:
    """A model that reads the first pixel: class 1 above one half. Mistakes count as fooled, and are returned as they are."""

    def model(images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([0.5 - first, first - 0.5], dim=1)

    met: list[list[float]] = []

    def attack(step: float, model: nn.Module, images: Tensor, labels: Tensor) -> Found:
        met.append([round(value, 2) for value in images.flatten().tolist()])
        moved = images + step
        return Found(moved, says(model, moved, labels))

    images = torch.tensor([0.1, 0.9, 0.45, 0.3]).reshape(4, 1, 1, 1)
    steps = (0.1, -0.1, 0.3, 0.9, 0.9)
    found = attacks.worst_case(model, images, torch.zeros(4, dtype=torch.int64), [partial(attack, step) for step in steps])  # type: ignore[arg-type]
    assert met == [[0.1, 0.45, 0.3], [0.1, 0.3], [0.1, 0.3], [0.1]]  # and nobody is left for the last
    assert found.images.flatten().tolist() == pytest.approx([1.0, 0.9, 0.55, 0.6])
    assert found.values.tolist() == pytest.approx([1.0, 0.8, 0.1, 0.2])
    assert images.flatten().tolist() == pytest.approx([0.1, 0.9, 0.45, 0.3])


def test_the_best_failure_is_kept() -> None:
    def attack(value: float, model: nn.Module, images: Tensor, labels: Tensor) -> Found:
        return Found(images + value, torch.full((len(images),), value))

    images = torch.zeros(2, 1, 1, 1)
    found = attacks.worst_case(
        lambda images: torch.tensor([[9.0, 0.0]] * len(images)),  # type: ignore[arg-type]
        images, torch.zeros(2, dtype=torch.int64),
        [partial(attack, value) for value in (-3.0, -1.0, -2.0, -99.0)],
    )  # fmt: skip
    assert found.values.tolist() == [-1, -1]
    assert found.images.flatten().tolist() == [-1, -1]


# ---- the verdict in closed form -----------------------------------------------------------------------------------------


def linear_world(classes: int, scale: float, ball: Ball) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A linear model, images around grey, their labels as it reads them, and the share that survives, known exactly."""
    generator = torch.Generator().manual_seed(classes)
    weights = scale * torch.randn(classes, 64, generator=generator)
    images = 0.5 + 0.08 * torch.randn(300, 1, 8, 8, generator=generator).clamp(-3, 3)

    def model(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ weights.T

    logits = model(images)
    labels = logits.argmax(1)
    gaps = weights[None] - weights[labels][:, None]
    dual = gaps.abs().sum(2) if ball.norm == "linf" else gaps.norm(dim=2)
    rivals = logits - logits.gather(1, labels[:, None]) + ball.radius * dual
    worst = rivals.scatter(1, labels[:, None], -torch.inf).amax(1)
    return model, images, labels, worst


@pytest.mark.parametrize("scale", [1.0, 120.0])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
@pytest.mark.parametrize("ball", [Ball("l2", 0.06), Ball("linf", 0.01)], ids=str)
def test_of_a_linear_model_the_verdict_is_exact(ball: Ball, classes: int, scale: float) -> None:
    """Binary and three classes too; and with logits 120 times as sure, where cross-entropy's gradient is gone."""
    model, images, labels, worst = linear_world(classes, scale, ball)
    robust = worst <= 0
    assert 0.05 < float(robust.float().mean()) < 0.95
    found = attacks.worst_case(model, images, labels, attacks.ensemble(ball, classes))
    clear = worst.abs() > 1e-3 * scale
    assert torch.equal((found.values <= 0)[clear], robust[clear])
    assert bool((found.values <= worst + 1e-3 * scale).all())


def test_cross_entropy_alone_is_trapped_by_confident_logits() -> None:
    """Why the lead is climbed: of this model half the images that can be fooled survive the climb of the loss."""
    ball = Ball("l2", 0.1)
    model, images, labels, worst = linear_world(2, 1000.0, ball)
    truth = int((worst <= 0).sum())
    by_loss = int((attacks.pgd(model, images, labels, ball=ball, by="loss").values <= 0).sum())
    by_lead = int((attacks.pgd(model, images, labels, ball=ball).values <= 0).sum())
    assert by_lead == truth
    assert by_loss > truth + 10


# ---- the verdict against referees ---------------------------------------------------------------------------------------


class Saturated(nn.Module):
    """A model behind a layer that hides its gradients: squashed pixels or squashed logits."""

    def __init__(self, model: Model, where: str) -> None:
        super().__init__()
        self.model, self.where = model, where

    def forward(self, images: Tensor) -> Tensor:
        if self.where == "pixels":
            return self.model(torch.sigmoid(12 * (images - 0.5)))  # type: ignore[no-any-return]
        return 3 * torch.tanh(self.model(images) / 3) if self.where == "logits" else self.model(images)


@pytest.mark.parametrize("ball", [Ball("l2", 0.375), Ball("l2", 0.75), Ball("linf", 0.05), Ball("linf", 0.15)], ids=str)
@pytest.mark.parametrize("where", ["nowhere", "pixels", "logits"])
def test_the_verdict_loses_nothing_by_leaving_out_the_hopeless(
    where: str, ball: Ball, standard: Model, robust: Model, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    for model in (standard, robust):
        view = Saturated(model, where)
        everything = attacks.worst_case(view, images, labels, attacks.ensemble(ball, 10))
        assert int(((attacks.standard(view, images, labels, ball=ball).values <= 0) & (everything.values > 0)).sum()) == 0


def test_the_hopeless_are_left_out_from_the_third_attack_on() -> None:
    """Leads of 4: shrunk by 1 they are a quarter on the way, by 2 a half."""
    seen: list[int] = []

    def by(change: Tensor) -> Attack:
        def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Found:
            seen.append(len(images))
            return Found(images, -says_four(images) + change[: len(images)])

        return attack

    def says_four(images: Tensor) -> Tensor:
        return torch.full((len(images),), 4.0)

    def model(images: Tensor) -> Tensor:
        return torch.tensor([[4.0, 0.0]]).expand(len(images), 2)

    images, labels = torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    steps = [by(torch.tensor([0.0, 1.0, 2.0])), by(torch.zeros(3)), by(torch.zeros(3)), by(torch.zeros(3))]
    found = attacks.worst_case(model, images, labels, steps, least=0.4)  # type: ignore[arg-type]
    assert seen == [3, 3, 1, 1]
    assert found.values.tolist() == [-4, -3, -2]
    seen.clear()
    attacks.worst_case(model, images, labels, steps)  # type: ignore[arg-type]
    assert seen == [3, 3, 3, 3]


def survivors_of_foolbox(model: nn.Module, images: Tensor, labels: Tensor, ball: Ball) -> int:
    foolbox = pytest.importorskip("foolbox")
    attack = (foolbox.attacks.L2PGD if ball.norm == "l2" else foolbox.attacks.LinfPGD)(steps=50)
    torch.manual_seed(0)
    _, clipped, fooled = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=ball.radius)
    assert inside(clipped, images, ball)
    return int((~fooled).sum())


def survivors_of_torchattacks(model: nn.Module, images: Tensor, labels: Tensor, ball: Ball) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = "L2" if ball.norm == "l2" else "Linf"
        alive = model(images).argmax(1) == labels
        for attack in (
            torchattacks.APGD(model, norm=norm, eps=ball.radius, steps=50, loss="ce"),
            torchattacks.APGDT(model, norm=norm, eps=ball.radius, steps=20, n_classes=10),
        ):
            if bool(alive.any()):
                left = alive.nonzero().squeeze(1)
                found = attack(images[left], labels[left])
                assert inside(found, images[left], ball)
                alive[left] = model(found).argmax(1) == labels[left]
        return int(alive.sum())


@pytest.mark.parametrize("ball", [Ball("l2", 0.5), Ball("linf", 0.1)], ids=str)
@pytest.mark.parametrize(
    ("which", "referee"),
    [("standard", survivors_of_foolbox), ("robust", survivors_of_foolbox), ("robust", survivors_of_torchattacks)],
)
def test_no_referee_fools_more(
    which: str, ball: Ball, referee: Callable[..., int], request: pytest.FixtureRequest, batch: tuple[Tensor, Tensor]
) -> None:
    model, (images, labels) = request.getfixturevalue(which), batch
    ours = int((attacks.standard(model, images, labels, ball=ball).values <= 0).sum())
    theirs = referee(model, images, labels, ball)
    assert ours <= theirs + 1
    assert ours < int((model(images).argmax(1) == labels).sum())


# ---- what is refused ----------------------------------------------------------------------------------------------------


def test_requests_that_make_no_sense_are_refused(standard: Model, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(BadInput, match=r"^restarts: needs a generator: .*, got 2$"):
        attacks.pgd(standard, *batch, ball=BALLS[0], restarts=2)
    for rank in (0, 10):
        with pytest.raises(BadInput, match=rf"^rank: must be from 1 to 9, .*, got {rank}$"):
            attacks.runner_up(standard, *batch, ball=BALLS[0], rank=rank)
    with pytest.raises(BadInput, match=r"^epsilon: two images of this size"):
        attacks.fgsm(standard, *batch, ball=Ball("l2", 8.1))
