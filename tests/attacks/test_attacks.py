"""How a classifier is fooled: what every attack returns, and the verdict against closed forms and other people's attacks."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import attacks, data, search
from notbugs.attacks.ensemble import EnsembleState
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import Attack, AttackResult, NormBall, SpatialTransforms, objectives

BALLS = [NormBall("l2", 0.75), NormBall("linf", 0.15)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def untargeted(threat_model: NormBall) -> dict[str, Attack]:
    """Every attack away from the labels, by name."""
    return {
        "fgsm": partial(attacks.fgsm, threat_model=threat_model),
        "pgd lead": partial(attacks.pgd, threat_model=threat_model, steps=8),
        "pgd loss": partial(attacks.pgd, threat_model=threat_model, steps=8, loss="cross_entropy"),
        "pgd random": partial(attacks.pgd, threat_model=threat_model, steps=8, generator=seeded()),
        "pgd restarts": partial(attacks.pgd, threat_model=threat_model, steps=8, restarts=3, generator=seeded()),
        "first rival": partial(attacks.rank_targeted_pgd, threat_model=threat_model, rank=1, steps=8),
        "last rival": partial(attacks.rank_targeted_pgd, threat_model=threat_model, rank=9, steps=8),
        "worst case": partial(attacks.worst_case, attacks=attacks.gradient_ensemble(threat_model, 10)),
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
        return -objectives.margin(model(images), labels)


def inside(found: Tensor, images: Tensor, threat_model: NormBall) -> bool:
    in_range = bool(((found >= 0) & (found <= 1)).all())
    return in_range and bool((threat_model.distance(found - images) <= threat_model.epsilon * (1 + 1e-5)).all())


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
    found = attacks.minimum_norm(model, images, labels, norm=norm)  # type: ignore[arg-type]
    gaps = model(images).gather(1, labels[:, None]) - model(images)
    between = weights.T[labels][:, None] - weights.T[None]
    dual = {"linf": between.abs().sum(2), "l2": between.norm(dim=2), "l1": between.abs().amax(2)}[norm]
    exact = (gaps / dual).scatter(1, labels[:, None], torch.inf).amin(1).clamp_min(0)
    assert found.margins[0] == 0 and torch.equal(found.images[0], images[0])
    assert bool((found.margins >= exact * (1 - 1e-4)).all())
    assert bool((found.margins <= exact * 1.03 + 1e-5).all())
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
    found = attacks.minimum_norm(model, images, labels, norm=norm)
    assert bool(found.margins.isfinite().all())
    assert torch.allclose(NormBall(norm, 0).distance(found.images - images), found.margins, atol=1e-6)
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    assert bool((says(model, found.images, labels) > -1e-4).all())
    near = images + 0.9 * (found.images - images)
    assert bool((says(model, near, labels)[found.margins > 0] < 0).all())  # drawn as near as that way allows
    again = attacks.minimum_norm(model, images, labels, norm=norm)
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
    ours = attacks.minimum_norm(model, images, labels).margins
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        referee = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
        theirs = foolbox.attacks.DDNAttack(steps=100)(referee, images, labels, epsilons=None)
    distances = torch.where(theirs[2], (theirs[0] - images).flatten(1).norm(dim=1), torch.inf)
    assert float(ours.median()) <= float(distances.median()) * 1.005
    assert float(ours.mean()) <= float(distances[distances.isfinite()].mean()) * 1.005
    for radius in (0.375, 0.75):
        verdict = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(NormBall("l2", radius), 10)).margins < 0
        assert abs(int((ours > radius).sum()) - int(verdict.sum())) <= 3


def test_what_cannot_be_fooled_has_no_smallest_radius(few: tuple[Tensor, Tensor]) -> None:
    images, _ = few
    weights = torch.eye(3)[:1] * 5
    found = attacks.minimum_norm(
        lambda seen: seen.flatten(1).mean(1, keepdim=True) * 0 + weights,  # type: ignore[arg-type]
        images,
        torch.zeros(60, dtype=torch.int64),
    )
    assert bool(found.margins.isinf().all())
    assert torch.equal(found.images, images)
    with pytest.raises(InputError, match=r"^norm: must be linf, l2 or l1"):
        attacks.minimum_norm(nn.Identity(), images, torch.zeros(60, dtype=torch.int64), norm="l0")


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
    assert torch.equal(found.margins >= 0, worst >= 0)  # whoever is fooled is left alone: the first that fools is kept
    assert torch.allclose(found.margins[worst < 0], worst[worst < 0], atol=1e-4)
    promising = attacks.few_pixels(standard, images, labels, tries=20)
    assert int((promising.margins >= 0).sum()) >= int((worst > 0).sum()) - 2


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
    assert torch.allclose(found.margins, says(standard, found.images, labels), atol=1e-4)
    more = attacks.few_pixels(standard, images, labels, pixels=pixels + 2, tries=30, gradient=gradient)
    assert int((more.margins >= 0).sum()) >= int((found.margins >= 0).sum())
    if gradient:
        blind = attacks.few_pixels(standard, images, labels, pixels=pixels, tries=30, gradient=False)
        assert int((found.margins >= 0).sum()) > int((blind.margins >= 0).sum())


def test_a_pixel_counts_once_whatever_its_channels_and_no_gradient_is_needed() -> None:
    """Class 1 wins where one pixel is pure yellow: one change of three channels, asked of a function without gradients."""
    images = torch.full((2, 3, 4, 4), 0.5)

    def black_box(seen: Tensor) -> Tensor:
        yellow = (seen[:, 0] * seen[:, 1] * (1 - seen[:, 2])).amax((1, 2)).detach()
        return torch.stack([torch.full_like(yellow, 0.9), yellow], dim=1)

    zeros = torch.zeros(2, dtype=torch.int64)
    found = attacks.few_pixels(black_box, images, zeros, tries=None, gradient=False)  # type: ignore[arg-type]
    assert bool((found.margins > 0).all())
    assert NormBall("l0", 1).distance(found.images - images).tolist() == [1, 1]
    assert torch.equal(attacks.few_pixels(black_box, images, zeros, pixels=0).images, images)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^tries: must be 1 or more, got 0$"):
        attacks.few_pixels(black_box, images, zeros, tries=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("norm", "small", "large"), [("l1", 1.0, 3.0), ("l0", 1, 4)])
def test_the_verdict_in_l1_and_l0(norm: str, small: float, large: float, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    left = []
    for radius in (small, large):
        threat_model = NormBall(norm, radius)
        found = attacks.worst_case(robust, images, labels, attacks.gradient_ensemble(threat_model, 10))
        assert inside(found.images, images, threat_model)
        assert torch.allclose(found.margins, says(robust, found.images, labels), rtol=1e-3, atol=1e-3)
        left.append(int((found.margins < 0).sum()))
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


@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.75), NormBall("linf", 0.15), NormBall("l1", 2.0), NormBall("l0", 3)], ids=str)
def test_square_fools_without_gradients(threat_model: NormBall, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    asked = torch.zeros(60)

    def black_box(seen: Tensor) -> Tensor:
        asked[0] += len(seen)
        return standard(seen).detach()

    found = attacks.square_attack(black_box, images, labels, threat_model=threat_model, queries=200)
    assert inside(found.images, images, threat_model)
    assert torch.allclose(found.margins, says(standard, found.images, labels), atol=1e-3)
    left, start = int((found.margins < 0).sum()), int((says(standard, images, labels) <= 0).sum())
    white = int((attacks.adaptive_ensemble(standard, images, labels, threat_model=threat_model).margins < 0).sum())
    assert white <= left < 0.7 * start
    assert int(asked[0]) <= 60 * 201
    again = attacks.square_attack(black_box, images, labels, threat_model=threat_model, queries=200)
    assert torch.equal(again.images, found.images)
    other = attacks.square_attack(
        black_box, images, labels, threat_model=threat_model, queries=200, generator=torch.Generator().manual_seed(1)
    )
    assert not torch.equal(other.images, found.images)


@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.75), NormBall("linf", 0.15)], ids=str)
def test_square_is_at_least_as_strong_as_torchattacks_square(
    threat_model: NormBall, standard: Model, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = "L2" if threat_model.norm == "l2" else "Linf"
        theirs = torchattacks.Square(standard, norm=norm, eps=threat_model.epsilon, n_queries=300, n_restarts=1, seed=0)(
            images, labels
        )
    ours = attacks.square_attack(standard, images, labels, threat_model=threat_model, queries=300)
    assert int((ours.margins < 0).sum()) <= int((says(standard, theirs, labels) <= 0).sum())


def test_square_needs_no_network(digits: data.Splits) -> None:
    """A scikit-learn pipeline."""
    from sklearn.linear_model import LogisticRegression

    pixels = digits.train.pixels(slice(None)).flatten(1).numpy()
    learner = LogisticRegression(max_iter=300).fit(pixels, digits.train.labels.numpy())
    images, labels = digits.test.pixels(slice(0, 100)), digits.test.labels[:100]

    def logits(seen: Tensor) -> Tensor:
        return torch.from_numpy(learner.decision_function(seen.flatten(1).double().numpy()))

    found = attacks.square_attack(logits, images, labels, threat_model=NormBall("l2", 1.0), queries=300)
    clean, left = int((says(logits, images, labels) <= 0).sum()), int((found.margins < 0).sum())
    assert clean > 90 and left < 40
    with pytest.raises(InputError, match=r"^queries: must be 1 or more, got 0$"):
        attacks.square_attack(logits, images, labels, threat_model=NormBall("l2", 1.0), queries=0)


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
        attacks.adaptive_ensemble(mean_model, images, labels, threat_model=NormBall(norm, 0)),  # type: ignore[arg-type]
        attacks.square_attack(mean_model, images, labels, threat_model=NormBall(norm, 0), queries=3),
        attacks.pgd(mean_model, images, labels, threat_model=NormBall(norm, 0), generator=seeded()),  # type: ignore[arg-type]
    ):
        assert torch.equal(found.images, images)
        assert found.margins.shape == (count,)
    if norm != "l0":
        assert attacks.minimum_norm(mean_model, images, labels, norm=norm).margins.shape == (count,)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_the_whole_pixel_range_is_enough(norm: str) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    threat_model = NormBall(norm, torch.inf)
    assert bool((attacks.adaptive_ensemble(mean_model, images, labels, threat_model=threat_model).margins > 0).all())  # type: ignore[arg-type]
    assert bool((attacks.square_attack(mean_model, images, labels, threat_model=threat_model, queries=100).margins > 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_other_precisions_find_the_same(norm: str, dtype: torch.dtype) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    wanted = attacks.minimum_norm(mean_model, images, labels, norm=norm).margins  # type: ignore[arg-type]
    found = attacks.minimum_norm(mean_model, images.to(dtype), labels, norm=norm)  # type: ignore[arg-type]
    assert found.images.dtype == dtype
    assert torch.allclose(found.margins, wanted, rtol=0.05)
    drawn = NormBall("l1", 5.0).sample(torch.rand(200, 3, 32, 32, generator=seeded()).to(dtype), seeded())
    assert drawn.dtype == dtype and not bool(drawn.isnan().any())


def test_a_radius_for_each_image_is_for_single_searches(few: tuple[Tensor, Tensor], standard: Model) -> None:
    each = NormBall("l2", torch.linspace(0, 1, 60))
    found = attacks.pgd(standard, *few, threat_model=each)
    assert bool((each.distance(found.images - few[0]) <= each.epsilon + 1e-5).all())
    for attack in (
        partial(attacks.adaptive_ensemble, threat_model=each),
        partial(attacks.square_attack, threat_model=each),
        partial(attacks.pgd, threat_model=each, restarts=2, generator=seeded()),
    ):
        with pytest.raises(InputError, match=r"^radius: must be one for all images"):
            attack(standard, *few)


# ---- what is returned ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
@pytest.mark.parametrize("name", list(untargeted(BALLS[0])))
def test_images_are_inside_and_values_are_what_the_model_says_of_them(
    name: str, threat_model: NormBall, standard: Model, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    found = untargeted(threat_model)[name](standard, images, labels)
    assert inside(found.images, images, threat_model)
    assert torch.allclose(found.margins, says(standard, found.images, labels), rtol=1e-3, atol=1e-3)
    assert bool((found.margins >= says(standard, images, labels) - 1e-3).all())  # the start is kept where nothing is better
    assert int((found.margins >= 0).sum()) > int((says(standard, images, labels) > 0).sum())


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_targeted_and_label_free_attacks_do_what_they_say(
    threat_model: NormBall, robust: Model, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    targets = (labels + 1) % 10
    for loss in ("margin", "cross_entropy"):
        reached = attacks.targeted_pgd(robust, images, targets, threat_model=threat_model, loss=loss)
        assert inside(reached.images, images, threat_model)
        assert torch.allclose(reached.margins, -says(robust, reached.images, targets), rtol=1e-3, atol=1e-3)
        assert int((reached.margins >= 0).sum()) > 3 * int((robust(images).argmax(1) == targets).sum())
    drifted = attacks.kl_pgd(robust, images, labels, threat_model=threat_model)
    assert inside(drifted.images, images, threat_model)
    divergence = F.kl_div(robust(drifted.images).log_softmax(1), robust(images).softmax(1), reduction="none").sum(1)
    assert torch.allclose(drifted.margins, divergence, rtol=1e-2, atol=1e-3)
    assert float(divergence.mean()) > 0.1
    assert torch.equal(drifted.images, attacks.kl_pgd(robust, images, labels.flip(0), threat_model=threat_model).images)


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_diverging_starts_where_the_divergence_is_not_flat(threat_model: NormBall) -> None:
    """At the calm prediction itself, here one half each, its gradient is exactly 0."""
    images = torch.full((3, 1, 8, 8), 0.5)
    weights = torch.randn(64, 2, generator=seeded())
    found = attacks.kl_pgd(
        lambda images: (images.flatten(1) - 0.5) @ weights,  # type: ignore[arg-type]
        images,
        torch.zeros(3, dtype=torch.int64),
        threat_model=threat_model,
    )
    assert bool((found.margins > 0.5).all())


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_stronger_attacks_fool_more(threat_model: NormBall, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    fooled = {name: attack(robust, images, labels).margins > 0 for name, attack in untargeted(threat_model).items()}
    assert int(fooled["fgsm"].sum()) <= int(fooled["pgd lead"].sum()) <= int(fooled["worst case"].sum())
    assert int(fooled["pgd random"].sum()) <= int(fooled["pgd restarts"].sum())
    for attack in attacks.gradient_ensemble(threat_model, 10):  # no single one finds what all of them together miss
        single = attack(robust, images, labels).margins > 1e-3
        assert int((single & ~fooled["worst case"]).sum()) == 0


def test_the_same_generator_gives_the_same_images(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    for name in ("pgd random", "pgd restarts", "worst case"):
        one, two = (untargeted(BALLS[0])[name](standard, *few) for _ in range(2))
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.margins, two.margins)


def test_more_pixels_less_survival(robust: Model, few: tuple[Tensor, Tensor]) -> None:
    survivors = []
    for radius in (0.0, 0.25, 0.75, 2.0):
        found = attacks.worst_case(robust, *few, attacks.gradient_ensemble(NormBall("l2", radius), 10))
        survivors.append(int((found.margins < 0).sum()))
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

    def attack(step: float, model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
        met.append([round(value, 2) for value in images.flatten().tolist()])
        moved = images + step
        return AttackResult(moved, says(model, moved, labels))

    images = torch.tensor([0.1, 0.9, 0.45, 0.3]).reshape(4, 1, 1, 1)
    steps = (0.1, -0.1, 0.3, 0.9, 0.9)
    found = attacks.worst_case(model, images, torch.zeros(4, dtype=torch.int64), [partial(attack, step) for step in steps])  # type: ignore[arg-type]
    assert met == [[0.1, 0.45, 0.3], [0.1, 0.3], [0.1, 0.3], [0.1]]  # and nobody is left for the last
    assert found.images.flatten().tolist() == pytest.approx([1.0, 0.9, 0.55, 0.6])
    assert found.margins.tolist() == pytest.approx([1.0, 0.8, 0.1, 0.2])
    assert images.flatten().tolist() == pytest.approx([0.1, 0.9, 0.45, 0.3])


def test_the_best_failure_is_kept() -> None:
    def attack(value: float, model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
        return AttackResult(images + value, torch.full((len(images),), value))

    images = torch.zeros(2, 1, 1, 1)
    found = attacks.worst_case(
        lambda images: torch.tensor([[9.0, 0.0]] * len(images)),  # type: ignore[arg-type]
        images, torch.zeros(2, dtype=torch.int64),
        [partial(attack, value) for value in (-3.0, -1.0, -2.0, -99.0)],
    )  # fmt: skip
    assert found.margins.tolist() == [-1, -1]
    assert found.images.flatten().tolist() == [-1, -1]


# ---- the verdict in closed form -----------------------------------------------------------------------------------------


def linear_world(classes: int, scale: float, threat_model: NormBall) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A linear model, images around grey, their labels as it reads them, and the share that survives, known exactly."""
    generator = torch.Generator().manual_seed(classes)
    weights = scale * torch.randn(classes, 64, generator=generator)
    images = 0.5 + 0.08 * torch.randn(300, 1, 8, 8, generator=generator).clamp(-3, 3)

    def model(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ weights.T

    logits = model(images)
    labels = logits.argmax(1)
    gaps = weights[None] - weights[labels][:, None]
    dual = gaps.abs().sum(2) if threat_model.norm == "linf" else gaps.norm(dim=2)
    rivals = logits - logits.gather(1, labels[:, None]) + threat_model.epsilon * dual
    worst = rivals.scatter(1, labels[:, None], -torch.inf).amax(1)
    return model, images, labels, worst


@pytest.mark.parametrize("scale", [1.0, 120.0])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.06), NormBall("linf", 0.01)], ids=str)
def test_of_a_linear_model_the_verdict_is_exact(threat_model: NormBall, classes: int, scale: float) -> None:
    """Binary and three classes too; and with logits 120 times as sure, where cross-entropy's gradient is gone."""
    model, images, labels, worst = linear_world(classes, scale, threat_model)
    robust = worst <= 0
    assert 0.05 < float(robust.float().mean()) < 0.95
    found = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(threat_model, classes))
    clear = worst.abs() > 1e-3 * scale
    assert torch.equal((found.margins < 0)[clear], robust[clear])
    assert bool((found.margins <= worst + 1e-3 * scale).all())


def test_cross_entropy_alone_is_trapped_by_confident_logits() -> None:
    """Why the lead is climbed: of this model half the images that can be fooled survive the climb of the loss."""
    threat_model = NormBall("l2", 0.1)
    model, images, labels, worst = linear_world(2, 1000.0, threat_model)
    truth = int((worst <= 0).sum())
    by_loss = int((attacks.pgd(model, images, labels, threat_model=threat_model, loss="cross_entropy").margins < 0).sum())
    by_lead = int((attacks.pgd(model, images, labels, threat_model=threat_model).margins < 0).sum())
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


@pytest.mark.parametrize(
    ("where", "ball"),
    [
        *(
            ("nowhere", threat_model)
            for threat_model in (NormBall("l2", 0.375), NormBall("l2", 0.75), NormBall("linf", 0.05), NormBall("linf", 0.15))
        ),
        *(
            (where, threat_model)
            for where in ("pixels", "logits")
            for threat_model in (NormBall("l2", 0.75), NormBall("linf", 0.05))
        ),
    ],
    ids=str,
)
def test_the_verdict_loses_nothing_by_leaving_out_the_hopeless(
    where: str, threat_model: NormBall, standard: Model, robust: Model, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    for model in (standard, robust):
        view = Saturated(model, where)
        everything = attacks.worst_case(view, images, labels, attacks.gradient_ensemble(threat_model, 10))
        assert (
            int(
                (
                    (attacks.adaptive_ensemble(view, images, labels, threat_model=threat_model).margins < 0)
                    & (everything.margins > 0)
                ).sum()
            )
            == 0
        )


def test_a_hunt_meets_whom_it_is_told_and_keeps_the_worst() -> None:
    """Leads of 4: shrunk by 1 they are a quarter on the way, by 2 a half."""
    seen: list[int] = []

    def by(*changes: float) -> Attack:
        def attack(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
            seen.append(len(images))
            return AttackResult(images + changes[0], torch.tensor([-4.0] * len(images)) + torch.tensor(changes[: len(images)]))

        return attack

    images, labels = torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    hunt = EnsembleState(lambda images: torch.tensor([[4.0, 0.0]]).expand(len(images), 2), images, labels)
    assert hunt.run(by(0.0, 1.0, 2.0)).tolist() == [-4, -3, -2]
    assert hunt.margin_lost().tolist() == [0, 0.25, 0.5]
    tried = hunt.run(by(0.5, 0.0, 0.0))
    assert tried.tolist() == [-3.5, -4, -4]
    assert hunt.margin_lost(tried).tolist() == [0.125, 0, 0]
    assert hunt.run(by(9.0), hunt.margin_lost() >= 0.4).tolist() == [-torch.inf, -torch.inf, 5]
    assert seen == [3, 3, 1]
    assert hunt.left.tolist() == [True, True, False]
    assert hunt.found.margins.tolist() == [-3.5, -3, 5]
    assert hunt.found.images[:, 0, 0, 0].tolist() == [0.5, 0, 9]
    assert hunt.run(by(9.0), ~hunt.left).tolist() == [-torch.inf] * 3
    assert seen == [3, 3, 1]


def survivors_of_foolbox(model: nn.Module, images: Tensor, labels: Tensor, threat_model: NormBall) -> int:
    foolbox = pytest.importorskip("foolbox")
    attack = (foolbox.attacks.L2PGD if threat_model.norm == "l2" else foolbox.attacks.LinfPGD)(steps=50)
    torch.manual_seed(0)
    _, clipped, fooled = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=threat_model.epsilon)
    assert inside(clipped, images, threat_model)
    return int((~fooled).sum())


def survivors_of_torchattacks(model: nn.Module, images: Tensor, labels: Tensor, threat_model: NormBall) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = "L2" if threat_model.norm == "l2" else "Linf"
        alive = model(images).argmax(1) == labels
        for attack in (
            torchattacks.APGD(model, norm=norm, eps=threat_model.epsilon, steps=50, loss="ce"),
            torchattacks.APGDT(model, norm=norm, eps=threat_model.epsilon, steps=20, n_classes=10),
        ):
            if bool(alive.any()):
                left = alive.nonzero().squeeze(1)
                found = attack(images[left], labels[left])
                assert inside(found, images[left], threat_model)
                alive[left] = model(found).argmax(1) == labels[left]
        return int(alive.sum())


@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.5), NormBall("linf", 0.1)], ids=str)
@pytest.mark.parametrize(
    ("which", "referee"),
    [("standard", survivors_of_foolbox), ("robust", survivors_of_foolbox), ("robust", survivors_of_torchattacks)],
)
def test_no_referee_fools_more(
    which: str, threat_model: NormBall, referee: Callable[..., int], request: pytest.FixtureRequest, batch: tuple[Tensor, Tensor]
) -> None:
    model, (images, labels) = request.getfixturevalue(which), batch
    ours = int((attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model).margins < 0).sum())
    theirs = referee(model, images, labels, threat_model)
    assert ours <= theirs + 1
    assert ours < int((model(images).argmax(1) == labels).sum())


# ---- what is refused ----------------------------------------------------------------------------------------------------


def test_requests_that_make_no_sense_are_refused(standard: Model, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"^restarts: needs a generator: .*, got 2$"):
        attacks.pgd(standard, *batch, threat_model=BALLS[0], restarts=2)
    for rank in (0, 10):
        with pytest.raises(InputError, match=rf"^rank: must be from 1 to 9, .*, got {rank}$"):
            attacks.rank_targeted_pgd(standard, *batch, threat_model=BALLS[0], rank=rank)
    with pytest.raises(InputError, match=r"^epsilon: two images of this size"):
        attacks.fgsm(standard, *batch, threat_model=NormBall("l2", 8.1))


# ---- adaptive steps, turns and moves, labels alone --------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.75), NormBall("linf", 0.15)], ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_apgd_is_as_strong_as_torchattacks(
    loss: str, threat_model: NormBall, robust: Model, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        referee = torchattacks.APGD(
            robust.eval(),
            norm=threat_model.norm.capitalize(),
            eps=threat_model.epsilon,
            steps=50,
            loss="ce" if loss == "cross_entropy" else "dlr",
        )
        theirs = int((says(robust, referee(images, labels), labels) < 0).sum())
    found = attacks.apgd(robust, images, labels, threat_model=threat_model, steps=50, loss=loss, generator=seeded())
    assert inside(found.images, images, threat_model)
    assert torch.allclose(found.margins, says(robust, found.images, labels), rtol=1e-3, atol=1e-3)
    assert int((found.margins < 0).sum()) <= theirs + 2


def test_apgd_halves_its_steps_where_they_do_not_pay() -> None:
    """A ridge that fixed steps of two radii jump across for ever: halving them, the search ends at the top."""
    images, labels = torch.full((4, 1, 1, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    tops = torch.tensor([0.32, 0.41, 0.6, 0.69])

    def model(seen: Tensor) -> Tensor:
        height = -(seen[:, 0, 0, 0] - tops).abs() - 1
        return torch.stack([torch.zeros_like(height), height], dim=1)

    threat_model = NormBall("linf", 0.2)
    found = attacks.apgd(model, images, labels, threat_model=threat_model, steps=100, loss="margin")
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx(tops.tolist(), abs=2e-3)
    fixed = search.maximize(
        objectives.untargeted(model, labels), images, threat_model, steps=100, rule=search.cosine_steps(threat_model, 0.4)
    )
    assert float((fixed.images[:, 0, 0, 0] - tops).abs().max()) > 0.05


def test_dlr_needs_its_classes_and_the_verdict_does_not(few: tuple[Tensor, Tensor]) -> None:
    images, labels = 0.1 * few[0], torch.zeros(60, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^loss: dlr needs 3 classes or more, got 2; use margin$"):
        attacks.apgd(mean_model, images, labels, threat_model=BALLS[0], loss="dlr")
    with pytest.raises(InputError, match=r"^loss: must be margin or dlr towards a class, got 'cross_entropy'$"):
        attacks.apgd(mean_model, images, labels, threat_model=BALLS[0], rank=1)
    for budget in attacks.BUDGETS:
        attacks.adaptive_ensemble(mean_model, images, labels, threat_model=BALLS[0], budget=budget)


def test_the_worst_turn_and_move(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    grid = attacks.spatial_attack(standard, images, labels, threat_model=SpatialTransforms(25, 0), turns=9, moves=1, steps=0)
    every = torch.stack(
        [
            SpatialTransforms(25, 0).apply(images, torch.tensor([[share, 0.0, 0.0]]).expand(60, 3))
            for share in torch.linspace(-1, 1, 9)
        ]
    )
    worst = torch.stack([says(standard, turned, labels) for turned in every]).amax(0)
    assert torch.equal(grid.margins >= 0, worst >= 0)
    assert torch.allclose(grid.margins[worst < 0], worst[worst < 0], atol=1e-4)
    assert torch.allclose(grid.margins, says(standard, grid.images, labels), atol=1e-4)
    better = attacks.spatial_attack(standard, images, labels, threat_model=SpatialTransforms(25, 0), turns=9, moves=1, steps=20)
    assert bool((better.margins >= grid.margins - 1e-4).all())
    assert float((better.margins - grid.margins)[grid.margins < 0].mean()) > 1e-3
    still = attacks.spatial_attack(standard, images, labels, threat_model=SpatialTransforms(0, 0))
    assert torch.allclose(still.images, images, atol=1e-5)


def test_turns_and_moves_are_what_they_say() -> None:
    image = torch.rand(1, 3, 6, 8, generator=seeded())
    moved = SpatialTransforms(0, 2).apply(image, torch.tensor([[0.0, 1.0, -0.5]]))
    assert torch.allclose(moved[:, :, 1:, :6], image[:, :, :5, 2:], atol=1e-5)
    assert float(moved[:, :, 0].max()) < 1e-5
    square = image[:, :, :, :6]
    assert torch.allclose(SpatialTransforms(90, 0).apply(square, torch.tensor([[1.0, 0, 0]])), square.rot90(1, (2, 3)), atol=1e-4)
    assert torch.allclose(SpatialTransforms(45, 0).apply(image, torch.zeros(1, 3)), image, atol=1e-5)
    for bad in ((-1, 0), (200, 0), (0, -1), (0, torch.nan)):
        with pytest.raises(InputError, match=r"^(degrees|pixels): must be"):
            SpatialTransforms(*bad)
    with pytest.raises(InputError, match=r"^pixels: must be below 6"):
        SpatialTransforms(0, 6).fit(image.shape)


class LabelsOnly(nn.Module):
    """The predicted class and nothing else; counts how many images it was asked about."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        with torch.no_grad():
            return 2 * F.one_hot(self.model(images).argmax(1), 10).float() - 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_labels_alone_are_enough(norm: str, which: str, request: pytest.FixtureRequest, few: tuple[Tensor, Tensor]) -> None:
    """Nearer than foolbox's HopSkipJump with at least as many questions, no nearer than with gradients by more than luck."""
    model, (images, labels) = request.getfixturevalue(which), few
    asked = LabelsOnly(model)
    found = attacks.hop_skip_jump(asked, images, labels, norm=norm, queries=1000)
    assert asked.asked <= 60 * 1000
    assert bool(found.margins.isfinite().all())
    assert torch.allclose(NormBall(norm, 0).distance(found.images - images), found.margins, atol=1e-5)
    assert bool((model(found.images).argmax(1) != labels).all())
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    exact = attacks.minimum_norm(model, images, labels, norm=norm).margins
    assert float(exact.mean()) < float(found.margins.mean()) < 1.5 * float(exact.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
        counted = LabelsOnly(model).eval()
        torch.manual_seed(0)
        referee = foolbox.attacks.HopSkipJumpAttack(steps=6, constraint=norm)
        theirs = referee(foolbox.PyTorchModel(counted, bounds=(0, 1)), images, labels, epsilons=None)
    assert counted.asked > asked.asked
    assert float(found.margins.mean()) < float(NormBall(norm, 0).distance(theirs[0] - images).mean())


def test_a_walk_stops_at_its_questions_and_where_it_is_near_enough(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    for queries in (1, 5, 30, 200):
        asked = LabelsOnly(standard)
        found = attacks.hop_skip_jump(asked, images, labels, queries=queries)
        assert asked.asked <= 60 * queries
        assert bool(((found.margins == 0) == (standard(images).argmax(1) != labels)).all())
    enough = attacks.hop_skip_jump(standard, images, labels, queries=600, enough=5.0)
    nearest = attacks.hop_skip_jump(standard, images, labels, queries=600)
    assert float(enough.margins.mean()) > float(nearest.margins.mean())
    one = attacks.hop_skip_jump(standard, images[3:4], labels[3:4], queries=600)  # no other image to start from: noise
    assert 0 < float(one.margins) < 8
    with pytest.raises(InputError, match=r"^norm: must be l2 or linf"):
        attacks.hop_skip_jump(standard, images, labels, norm="l1")


# ---- the dial -----------------------------------------------------------------------------------------------------------------


SETS: list[Any] = [
    NormBall("l2", 0.75),
    NormBall("linf", 0.15),
    NormBall("l1", 2.0),
    NormBall("l0", 2),
    SpatialTransforms(20, 0.3),
]


@pytest.mark.parametrize("allowed", SETS, ids=str)
@pytest.mark.parametrize("gradient", [True, False])
def test_a_larger_budget_leaves_no_more(allowed: Any, gradient: bool, robust: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few[0][:30], few[1][:30]
    model: Any = robust if gradient else LabelsOnly(robust)
    assert attacks.has_gradient(model, images) == gradient
    left = []
    for budget in attacks.BUDGETS if gradient else attacks.BUDGETS[:2]:
        found = attacks.adaptive_ensemble(model, images, labels, threat_model=allowed, budget=budget)
        if isinstance(allowed, NormBall):
            assert inside(found.images, images, allowed)
        assert torch.equal(says(model, found.images, labels) >= 0, found.margins >= 0)
        left.append(int((found.margins < 0).sum()))
        again = attacks.adaptive_ensemble(model, images, labels, threat_model=allowed, budget=budget)
        assert torch.equal(again.images, found.images)
    clean = int((says(robust, images, labels) < 0).sum())
    assert all(before + 1 >= after for before, after in pairwise([clean, *left]))
    assert left[-1] < clean
    with pytest.raises(InputError, match=r"^--budget: must be one of quick, standard, thorough"):
        attacks.adaptive_ensemble(model, images, labels, threat_model=allowed, budget="huge")


class Masked(nn.Module):
    """A model whose gradients vanish: pixels of 16 levels, logits that saturate, or probabilities of a very sure one."""

    def __init__(self, model: Model, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "levels":
            return self.model((images * 15).round() / 15)  # type: ignore[no-any-return]
        logits = self.model(images)
        return 3 * torch.tanh(100 * logits / 3) if self.how == "saturated" else (20 * logits).softmax(1)


@pytest.mark.parametrize("how", ["levels", "saturated", "probabilities"])
@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_masked_gradients_do_not_help(how: str, threat_model: NormBall, robust: Model, batch: tuple[Tensor, Tensor]) -> None:
    """At least 20 points (of probabilities 10) below plain PGD with 50 steps, which stalls, at the usual budget."""
    model, (images, labels) = Masked(robust, how).eval(), batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        kind = torchattacks.PGDL2 if threat_model.norm == "l2" else torchattacks.PGD
        torch.manual_seed(0)
        plain = kind(model, eps=threat_model.epsilon, alpha=threat_model.epsilon / 8, steps=50)(images, labels)
    stalled = int((model(plain).argmax(1) == labels).sum())
    left = int((attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model).margins < 0).sum())
    assert left <= stalled - (20 if how == "probabilities" else 40)


class Stepped(nn.Module):
    """A model behind a step that has no gradient, written in one of the ways that people write one."""

    def __init__(self, model: Model, how: str) -> None:
        super().__init__()
        self.model, self.how, self.front = model, how, Eightbit() if how == "8-bit module" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        seen = self.front(images)
        if self.how == "round":
            seen = torch.round_to_8bit(15 * images) / 15
        elif self.how == "in place":
            seen = (images * 15).round_().div_(15)
        elif self.how == "decimals":
            seen = images.round(decimals=1)
        elif self.how == "quotient":
            seen = (images // (1 / 15)) / 15
        elif self.how == "sign":
            seen = (images + 0.1 * torch.sign(images - 0.5)).clamp(0, 1)
        return self.model(seen)  # type: ignore[no-any-return]


class Eightbit(nn.Module):
    """Leaves the graph: what comes out has no gradient at all."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 15).to(torch.uint8).float() / 15


@pytest.mark.parametrize("how", ["round", "in place", "decimals", "quotient", "sign", "8-bit module"])
def test_gradients_go_straight_through_steps(how: str, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    """To the last bit the same model, with gradients; and steps do not save it: as few images are left as without them."""
    (images, labels), model, threat_model = few, Stepped(standard, how).eval(), NormBall("l2", 0.75)
    straight = attacks.straight_through(model, images)
    assert straight is not None
    assert torch.equal(straight(images), model(images))
    assert torch.equal(straight(images.clone().requires_grad_()).detach(), model(images))
    pixels = images.clone().requires_grad_()
    straight(pixels).sum().backward()
    assert pixels.grad is not None and (pixels.grad.flatten(1).abs().amax(1) > 0).all()
    left = int((attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model).margins < 0).sum())
    without = int((attacks.adaptive_ensemble(standard, images, labels, threat_model=threat_model).margins < 0).sum())
    assert left <= (12 if how == "sign" else without + 3)  # that step changes what the model reads


def test_where_there_is_no_step_nothing_is_straightened(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    assert attacks.straight_through(standard, few[0]) is None
    assert attacks.straight_through(LabelsOnly(standard), few[0]) is None
    assert not torch.nn.modules.module._global_forward_hooks  # nothing is left behind


def test_no_squares_are_spent_where_gradients_work(robust: Model, batch: tuple[Tensor, Tensor]) -> None:
    asked = 0

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal asked
            asked += len(images)
            return robust(images)  # type: ignore[no-any-return]

    attacks.adaptive_ensemble(Counted(), *batch, threat_model=NormBall("l2", 0.75))
    assert asked < 200 * 230  # a thousand squares for every survivor would be half as much again


# ---- what comes in at the door ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda logits: (logits, logits), "must return a tensor of logits, images x classes, got tuple"),
        (lambda logits: logits.numpy(), "got ndarray; wrap it"),
        (lambda logits: logits[0], r"must return logits of shape \(5, classes\), got \(3,\)"),
        (lambda logits: logits[:, :1], r"must have two classes or more, got 1; of one output z make logits \(0, z\)"),
        (lambda logits: logits * torch.nan, "must give finite logits, got others for 5 of 5 images"),
    ],
)
def test_models_that_answer_nonsense_are_refused(answer: Callable[[Tensor], Any], says: str) -> None:
    images, labels = torch.rand(5, 1, 4, 4, generator=seeded()), torch.zeros(5, dtype=torch.int64)

    def model(seen: Tensor) -> Any:
        return answer(torch.ones(len(seen), 3).detach())

    for attack in (
        partial(attacks.adaptive_ensemble, threat_model=NormBall("l2", 0.5)),
        attacks.minimum_norm,
        attacks.one_pixel,
        attacks.hop_skip_jump,
        partial(attacks.square_attack, threat_model=NormBall("l2", 0.5)),
        partial(attacks.spatial_attack, threat_model=SpatialTransforms(10, 1)),
        partial(attacks.worst_case, attacks=[]),
    ):
        with pytest.raises(InputError, match="^model: .*" + says):
            attack(model, images, labels)


def test_images_and_labels_that_make_no_sense_are_refused(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    attack = partial(attacks.adaptive_ensemble, standard, threat_model=NormBall("l2", 0.5))
    for bad_images, bad_labels, what in (
        (images * 255, labels, r"^images: must lie in \[0, 1\], got 0 to 255; divide by 255"),
        (images - 0.5, labels, r"^images: must lie in \[0, 1\], got -0.5 to 0.5; make normalisation"),
        (images * torch.nan, labels, r"^images: must lie in \[0, 1\]"),
        ((images * 255).byte(), labels, r"^images: must be a float tensor, N x C x H x W, got torch.uint8"),
        (images[0], labels, r"^images: must be a float tensor"),
        (images.numpy(), labels, r"^images: must be a float tensor.*got ndarray"),
        (images[:, :, :5], labels, r"^model: must take torch.float32 images of shape \(60, 1, 5, 8\)"),
        (images, labels + 9, r"^labels: must be from 0 to 9, the model's classes, got 9 to 18"),
        (images, labels - 1, r"^labels: must be from 0 to 9"),
        (images, labels.float(), r"^labels: must be an int64 tensor"),
        (images, labels[:3], r"^labels: must be an int64 tensor, one for each of the 60 images"),
    ):
        with pytest.raises(InputError, match=what):
            attack(bad_images, bad_labels)
        if what.startswith("^images"):
            with pytest.raises(InputError, match=what):
                attacks.pgd(standard, bad_images, bad_labels, threat_model=NormBall("l2", 0.5))
    half = copy.deepcopy(standard).network if hasattr(standard, "network") else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"^model: must take torch.float32 images .* on cpu, got .*dtype"):
        attacks.adaptive_ensemble(half.half(), images, labels, threat_model=NormBall("l2", 0.5))


def test_objects_with_logits_are_models(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    class Answer(NamedTuple):
        logits: Tensor

    plain = attacks.adaptive_ensemble(standard, *few, threat_model=NormBall("l2", 0.5))
    wrapped = attacks.adaptive_ensemble(lambda images: Answer(standard(images)), *few, threat_model=NormBall("l2", 0.5))  # type: ignore[arg-type, return-value]
    assert torch.equal(plain.images, wrapped.images)


def test_every_attack_sees_evaluation_mode_and_restores_each_modules_own(digits: data.Splits, few: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.9), nn.BatchNorm1d(32), nn.Linear(32, 10))
    model[3].eval()  # a part that its owner froze
    model[1].weight.requires_grad_(False)
    modes, statistics = [module.training for module in model.modules()], model[3].running_mean.clone()
    threat_model = NormBall("l2", 0.5)
    names = {
        **untargeted(threat_model),
        "one pixel": attacks.one_pixel,
        "smallest": attacks.minimum_norm,
        "square": partial(attacks.square_attack, threat_model=threat_model, queries=5),
        "labels": partial(attacks.hop_skip_jump, queries=50),
        "spatial": partial(attacks.spatial_attack, threat_model=SpatialTransforms(10, 0)),
        "standard": partial(attacks.adaptive_ensemble, threat_model=threat_model),
    }
    for name, attack in names.items():
        one, two = (attack(model, *few) for _ in range(2))
        if name not in ("pgd random", "pgd restarts"):
            assert torch.equal(one.images, two.images), name  # no dropout
        assert [module.training for module in model.modules()] == modes, name
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True], name
        assert torch.equal(model[3].running_mean, statistics), name


def test_an_answer_that_is_no_number_counts_as_fooled(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    """Whoever answers nan once things get close has not read the image."""
    images, labels = few

    def model(seen: Tensor) -> Tensor:
        logits = standard(seen)
        return torch.where(
            (objectives.margin(logits, labels[: len(seen)] * 0 + logits.argmax(1)) < 2)[:, None], torch.nan, logits
        )

    sure = says(standard, images, labels) < -3
    found = attacks.adaptive_ensemble(model, images[sure], labels[sure], threat_model=NormBall("l2", 0.75))
    plain = attacks.adaptive_ensemble(standard, images[sure], labels[sure], threat_model=NormBall("l2", 0.75))
    assert int((found.margins >= 0).sum()) >= int((plain.margins >= 0).sum()) > 0


@pytest.mark.parametrize("how", ["one-hot", "sure"])
def test_models_without_any_slope_are_walked_around(how: str, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    """Gradients of exactly zero, hidden or not, give about the same verdict: squares and walks, which ask for labels."""
    images, labels = few

    class Flat(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            logits = standard(seen)
            return (2 * F.one_hot(logits.argmax(1), 10) - 1) + 0 * logits if how == "one-hot" else (200 * logits).softmax(1)

    bare = LabelsOnly(standard)
    found = [
        attacks.adaptive_ensemble(model, images, labels, threat_model=NormBall("l2", 0.5)).margins for model in (Flat(), bare)
    ]
    seen, hidden = (int((values >= 0).sum()) for values in found)
    clean = int((says(standard, images, labels) >= 0).sum())
    assert seen >= hidden - 3
    assert hidden > clean + 8


def test_a_tie_counts_as_fooled(few: tuple[Tensor, Tensor]) -> None:
    images, _ = few
    labels = torch.zeros(60, dtype=torch.int64)
    found = attacks.adaptive_ensemble(lambda seen: seen.flatten(1)[:, :3] * 0, images, labels, threat_model=NormBall("l2", 0.5))
    assert found.margins.tolist() == [0.0] * 60
    assert torch.equal(found.images, images)


def test_the_verdict_takes_many_images_batch_by_batch(robust: Model, batch: tuple[Tensor, Tensor]) -> None:
    largest = 0

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, len(images))
            return robust(images)  # type: ignore[no-any-return]

    found = attacks.adaptive_ensemble(Watched(), *batch, threat_model=NormBall("l2", 0.75), batch_size=60)
    assert largest == 60
    assert torch.allclose(found.margins, says(robust, found.images, batch[1]), atol=1e-4)
    whole = attacks.adaptive_ensemble(robust, *batch, threat_model=NormBall("l2", 0.75))
    assert abs(int((found.margins < 0).sum()) - int((whole.values < 0).sum())) <= 1


def test_the_verdict_goes_on_with_smaller_batches_where_memory_runs_out(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    met: list[int] = []

    def hungry(seen: Tensor) -> Tensor:
        met.append(len(seen))
        if len(seen) > 20:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return standard(seen)  # type: ignore[no-any-return]

    with pytest.warns(RuntimeWarning) as said:
        found = attacks.adaptive_ensemble(hungry, images, labels, threat_model=NormBall("l2", 0.5), budget="quick")
    assert [str(one.message).split(" with ")[1] for one in said] == ["30 images at a time", "15 images at a time"]
    assert max(met) == 60 and torch.allclose(found.margins, says(standard, found.images, labels), atol=1e-4)
