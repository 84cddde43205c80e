"""Two Gaussian classes: the paper's figures and theorems, against other forms of the same answers, brute force and simulation."""

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from notbugs import theory
from notbugs.errors import InputError
from notbugs.theory import Gaussians

Array = NDArray[np.float64]
PAPER = Gaussians(np.array([-10.0, 1.0]), np.array([25.0, 0.5]))
CLOSED = {0: (50, 0.277), 0.1: (38.7, 0.313), 0.5: (18.3, 0.443), 1: (10.2, 0.571), 2: (5.22, 0.735), 5: (2.45, 0.908),
          10: (1.67, 0.968)}  # fmt: skip
seeds, sizes, radii = st.integers(0, 10_000), st.integers(1, 20), st.floats(0.01, 20)


def rotation(chance: np.random.Generator, d: int) -> Array:
    return np.asarray(np.linalg.qr(chance.standard_normal((d, d)))[0])


def world(seed: int, d: int, spread: float = 100.0) -> Gaussians:
    """A full covariance with eigenvalues within a factor `spread`."""
    chance = np.random.default_rng(seed)
    turn = rotation(chance, d)
    return Gaussians(chance.standard_normal(d), (turn * spread ** chance.uniform(-0.5, 0.5, d)) @ turn.T)


def heights(model: Gaussians, x: Array, y: Array) -> Array:
    """½ vᵀ covariance⁻¹ v, example by example, of x (…, n, d)."""
    off = x - y[:, None] * model.mean
    return np.asarray(np.einsum("...d,de,...e->...", off, np.linalg.inv(model.covariance), off) / 2)


# ---- robust parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", CLOSED)
def test_the_figures_of_the_example(epsilon: float) -> None:
    found = theory.robust(PAPER, epsilon)
    condition, least = CLOSED[epsilon]
    assert found.condition == pytest.approx(condition, rel=3e-3)
    assert theory.alignment(found) == pytest.approx(least, abs=6e-4)
    assert (found.mean == PAPER.mean).all()


@settings(max_examples=60)
@given(seeds, sizes, radii)
def test_robust_parameters_are_those_of_the_changed_examples_and_the_change_is_the_best_against_them(
    seed: int, d: int, epsilon: float
) -> None:
    """Σ_r = (I + M)² Σ with E‖Mv‖² = ε², and Mv = (C Σ_r − I)⁻¹ v, the adversary's best answer to Σ_r, for one C."""
    given = world(seed, d)
    before, after = given.covariance, theory.robust(given, epsilon).covariance
    np.testing.assert_allclose(before @ after, after @ before, atol=1e-9 * np.abs(before @ after).max())
    values, axes = np.linalg.eigh(before)
    raised = np.diag(axes.T @ after @ axes)
    change = (axes * (np.sqrt(raised / values) - 1)) @ axes.T
    np.testing.assert_allclose((np.eye(d) + change) @ (np.eye(d) + change) @ before, after, rtol=1e-7, atol=1e-9)
    assert np.trace(change @ before @ change) == pytest.approx(epsilon**2, rel=1e-6)
    prices = (1 + 1 / (np.sqrt(raised / values) - 1)) / raised
    np.testing.assert_allclose(prices, prices[0], rtol=1e-6)
    assert prices[0] > 1 / raised.min()  # the best, not a saddle


@settings(max_examples=30)
@given(seeds, sizes, radii)
def test_robust_parameters_turn_and_scale_with_the_world(seed: int, d: int, epsilon: float) -> None:
    given, turn = world(seed, d), rotation(np.random.default_rng(seed + 1), d)
    after = theory.robust(given, epsilon).covariance
    turned = theory.robust(Gaussians(turn @ given.mean, turn @ given.covariance @ turn.T), epsilon)
    np.testing.assert_allclose(turned.covariance, turn @ after @ turn.T, rtol=1e-6, atol=1e-7 * after.max())
    scaled = theory.robust(Gaussians(given.mean, 9 * given.covariance), 3 * epsilon)
    np.testing.assert_allclose(scaled.covariance, 9 * after, rtol=1e-6, atol=1e-7 * after.max())


@settings(max_examples=30)
@given(seeds, st.integers(2, 20))
def test_more_robust_is_rounder(seed: int, d: int) -> None:
    given = world(seed, d)
    assert theory.robust(given, 0.0) is given
    found = [theory.robust(given, epsilon) for epsilon in (0.0, 1e-12, 1e-6, 0.01, 0.1, 1.0, 10.0, 1e6)]
    conditions = np.array([one.condition for one in found])
    assert (np.diff(conditions) <= 1e-9 * conditions[0]).all() and conditions[-1] == pytest.approx(1, abs=1e-4)
    least = [theory.alignment(one) for one in found]
    assert (np.diff(least) >= -1e-12).all()
    assert (np.linalg.eigvalsh(found[4].covariance - given.covariance) > 0).all()


# ---- theorems ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seeds, st.integers(1, 12), st.floats(1.01, 30))
def test_theorem_1_the_gap_of_the_loss_is_half_of_vulnerability(seed: int, d: int, above: float) -> None:
    given = world(seed, d)
    price = above / np.linalg.eigvalsh(given.covariance)[0]
    inverse = np.linalg.inv(given.covariance)
    best = np.linalg.inv(price * given.covariance - np.eye(d))
    chance = np.random.default_rng(seed)
    v = chance.standard_normal(d)
    paid = [  # the best change for its price, of small ones around it and random ones
        (v + change) @ inverse @ (v + change) / 2 - price / 2 * change @ change
        for change in (best @ v, *(best @ v + 0.1 * chance.standard_normal((20, d))), *chance.standard_normal((20, d)))
    ]
    assert max(paid) == paid[0]
    moved = np.eye(d) + best
    gap = np.trace(moved @ inverse @ moved @ given.covariance) / 2 - d / 2  # its mean over v, exactly
    assert theory.vulnerability(given, price) == pytest.approx(2 * gap, rel=1e-6)
    assert theory.vulnerability(given, price) > theory.vulnerability(given, 2 * price) > 0


def test_theorem_1_by_simulation() -> None:
    given, price = world(3, 4, 5.0), 4.0
    x, y = theory.draw(given, 200_000, seed=1)
    v = y[:, None] * x - given.mean
    changed = v + v @ np.linalg.inv(price * given.covariance - np.eye(4))
    inverse = np.linalg.inv(given.covariance)
    gap = np.einsum("nd,de,ne->n", changed, inverse, changed) - np.einsum("nd,de,ne->n", v, inverse, v)
    assert theory.vulnerability(given, price) == pytest.approx(gap.mean(), abs=4 * gap.std() / len(gap) ** 0.5)


@settings(max_examples=40)
@given(seeds, st.integers(2, 12), st.floats(1.01, 30))
def test_theorem_1_a_ball_is_the_least_vulnerable_at_equal_trace(seed: int, d: int, above: float) -> None:
    given = world(seed, d)
    price = above / np.linalg.eigvalsh(given.covariance)[0]
    threat_model = Gaussians(given.mean, np.full(d, np.trace(given.covariance) / d))
    assert theory.vulnerability(threat_model, price) < theory.vulnerability(given, price)


@settings(max_examples=60)
@given(seeds, sizes, st.floats(0, 5))
def test_theorem_3_no_mean_has_a_smaller_cosine_and_one_has_it(seed: int, d: int, epsilon: float) -> None:
    spread = theory.robust(world(seed, d), epsilon).covariance
    values, axes = np.linalg.eigh(spread)
    least = theory.alignment(Gaussians(np.ones(d), spread))
    extreme = math.sqrt(values[0]) * axes[:, 0] + math.sqrt(values[-1]) * axes[:, -1]  # for one dimension: the axis itself
    assert theory.cosine(Gaussians(extreme, spread)) == pytest.approx(least, rel=1e-6)
    for mean in np.random.default_rng(seed).standard_normal((30, d)):
        model = Gaussians(mean, spread)
        weights = np.linalg.inv(spread) @ mean
        np.testing.assert_allclose(model.weights, weights, rtol=1e-6, atol=1e-9)
        straight = weights @ mean / np.linalg.norm(weights) / np.linalg.norm(mean)
        assert theory.cosine(model) == pytest.approx(straight) and least - 1e-9 <= straight <= 1 + 1e-12
    assert 0 < least <= 1


@pytest.mark.parametrize("d", [2, 5, 20])
def test_theorem_3_robust_training_raises_the_least_cosine(d: int) -> None:
    given = world(1, d)
    assert theory.alignment(theory.robust(given, 1.0)) > theory.alignment(given) + 0.1
    assert math.isnan(theory.cosine(Gaussians(np.zeros(2), np.ones(2))))


# ---- the worst change ----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seeds, st.integers(1, 8), st.floats(0.01, 5))
def test_nothing_in_the_ball_does_better_than_the_worst(seed: int, d: int, epsilon: float) -> None:
    """Not chance, not projected gradient ascent; and the certificate of a trust region: A(v + δ) = tδ with t ≥ all of A."""
    model = world(seed, d)
    x, y = theory.draw(model, 6, seed)
    before = x.copy()
    found = theory.worst(x, y, model, epsilon)
    assert (x == before).all()
    change = found - x
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), epsilon, rtol=1e-9)
    inverse = np.linalg.inv(model.covariance)
    pulled = (found - y[:, None] * model.mean) @ inverse
    t = (pulled * change).sum(1) / epsilon**2
    np.testing.assert_allclose(pulled, t[:, None] * change, atol=1e-6 * np.abs(pulled).max())
    top = np.linalg.eigvalsh(inverse)[-1]
    assert (t >= top * (1 - 1e-6)).all()
    tried = np.random.default_rng(seed).standard_normal((40, 6, d))
    tried *= epsilon / np.linalg.norm(tried, axis=-1, keepdims=True)
    reached = heights(model, found, y) * (1 + 1e-9)
    for _ in range(50):
        assert (heights(model, x + tried, y) <= reached).all()
        tried = tried + (x + tried - y[:, None] * model.mean) @ inverse / top
        tried *= np.minimum(1, epsilon / np.linalg.norm(tried, axis=-1, keepdims=True))


OFF = {
    "no pull along the sharpest axis": [0.0, 1.0, -1.0],
    "hardly any": [1e-14, 1.0, -1.0],
    "hardly any, the other way": [-1e-200, 1.0, -1.0],
    "nor along the next": [0.0, 0.0, 2.0],
    "only along the sharpest": [0.3, 0.0, 0.0],
    "at the mean": [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("variances", [(0.5, 2.0, 9.0), (0.5, 0.5, 9.0), (1.0, 1.0, 1.0)], ids=["apart", "tied", "ball"])
@pytest.mark.parametrize("name", OFF)  # the tie is broken either way
@pytest.mark.parametrize("label", [1.0, -1.0])
def test_hard_cases_of_the_ball(name: str, variances: tuple[float, ...], label: float) -> None:
    model, y = Gaussians(np.array([1.0, -2.0, 0.5]), np.array(variances)), np.full(4, label)
    x = np.array([OFF[name]] * 4) + label * model.mean
    for epsilon in (1e-3, 0.7, 30.0):
        change = theory.worst(x, y, model, epsilon) - x
        np.testing.assert_allclose(np.linalg.norm(change, axis=1), epsilon, rtol=1e-6)
        turn = np.random.default_rng(0).standard_normal((5000, 1, 3))
        turn *= epsilon / np.linalg.norm(turn, axis=-1, keepdims=True)
        assert (heights(model, x + change, y) >= heights(model, x + turn, y).max(0) - 1e-9).all()


@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
def test_one_dimension_is_pushed_outwards(adversary: str) -> None:
    model, y = Gaussians(np.array([0.5]), np.array([2.0])), np.array([1.0, 1.0, -1.0, -1.0])
    v = np.array([[1.0], [-3.0], [2.0], [-0.1]])
    x = v + y[:, None] * 0.5
    change = theory.worst(x, y, model, 0.7, adversary=adversary) - x
    wanted = 0.7 * np.sign(v) if adversary == "ball" else 0.7 * v / math.sqrt((v**2).mean())
    np.testing.assert_allclose(change, wanted, rtol=1e-9)


@settings(max_examples=40)
@given(seeds, st.integers(1, 8), st.floats(0.01, 5))
def test_a_budget_is_spent_at_one_price(seed: int, d: int, epsilon: float) -> None:
    """δ = (tI − A)⁻¹ A v with one t, above all of A, for all examples: the dual certificate; and its mean square is epsilon²."""
    model = world(seed, d)
    x, y = theory.draw(model, 30, seed)
    found = theory.worst(x, y, model, epsilon, adversary="budget")
    change = found - x
    assert (change**2).sum(1).mean() == pytest.approx(epsilon**2, rel=1e-9)
    inverse = np.linalg.inv(model.covariance)
    pulled = (found - y[:, None] * model.mean) @ inverse
    t = (pulled * change).sum() / (change**2).sum()
    np.testing.assert_allclose(pulled, t * change, atol=1e-6 * np.abs(pulled).max())
    assert t > np.linalg.eigvalsh(inverse)[-1]
    held = theory.worst(x, y, model, epsilon)
    assert heights(model, found, y).mean() >= heights(model, held, y).mean() * (1 - 1e-9)  # who may save may do no less


def test_the_hard_case_of_a_budget() -> None:
    model, y = Gaussians(np.zeros(2), np.array([0.5, 4.0])), np.ones(2)
    x = np.array([[0.0, 1.0], [0.0, -2.0]])
    change = theory.worst(x, y, model, 5.0, adversary="budget") - x
    assert (change**2).sum(1).mean() == pytest.approx(25)


def test_a_budget_where_nothing_pulls() -> None:
    change = theory.worst(np.zeros((3, 2)), np.ones(3), Gaussians(np.zeros(2), np.array([0.5, 4.0])), 1.0, adversary="budget")
    assert (change**2).sum(1).mean() == pytest.approx(1)


def test_no_radius_no_change() -> None:
    x, y = theory.draw(PAPER, 10)
    for adversary in theory.ADVERSARIES:
        assert (theory.worst(x, y, PAPER, 0.0, adversary=adversary) == x).all()
    few = theory.worst(x[:0], y[:0], PAPER, 1.0)
    assert few.shape == (0, 2)


# ---- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0, 5.0])
def test_training_against_a_budget_ends_at_the_closed_form(d: int, epsilon: float) -> None:
    x, y = theory.draw(world(5, d), 400, seed=2)
    own = theory.likeliest(x, y)
    trained = theory.robustly_trained(x, y, epsilon, adversary="budget", tolerance=1e-13)
    wanted = theory.robust(own, epsilon)
    np.testing.assert_allclose(trained.mean, own.mean, atol=1e-6)
    np.testing.assert_allclose(trained.covariance, wanted.covariance, rtol=1e-4, atol=1e-4 * wanted.covariance.max())


@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_training_settles_at_the_one_minimum(adversary: str, epsilon: float) -> None:
    """What it ends at is what its own worst examples call likeliest, and no other parameters, near or far, do better."""
    x, y = theory.draw(PAPER, 1000, seed=3)
    found = theory.robustly_trained(x, y, epsilon, adversary=adversary, tolerance=1e-12)

    def loss(model: Gaussians) -> float:
        return theory.surprise(model, theory.worst(x, y, model, epsilon, adversary=adversary), y)

    again = theory.likeliest(theory.worst(x, y, found, epsilon, adversary=adversary), y)
    np.testing.assert_allclose(again.covariance, found.covariance, rtol=0.02, atol=0.02 * found.covariance[1, 1])
    least = loss(found)
    chance = np.random.default_rng(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(10):
            bent = np.eye(2) + scale * chance.uniform(-0.5, 0.5, (2, 2))
            other = Gaussians(found.mean + scale * chance.standard_normal(2), bent @ found.covariance @ bent.T)
            assert loss(other) >= least - 1e-7
    for start in (theory.likeliest(x, y), theory.robust(PAPER, epsilon), Gaussians(np.zeros(2), np.ones(2))):
        assert loss(start) >= least - 1e-7


@settings(max_examples=40)
@given(seeds, st.integers(1, 5), st.floats(0.01, 5), st.sampled_from(theory.ADVERSARIES))
def test_the_loss_is_convex_in_the_natural_parameters(seed: int, d: int, epsilon: float, adversary: str) -> None:
    models = [world(seed, d), world(seed + 1, d)]
    x, y = theory.draw(models[0], 50, seed)
    precision = sum(np.linalg.inv(model.covariance) for model in models) / 2
    middle = Gaussians(np.linalg.solve(precision, sum(model.weights for model in models) / 2), np.linalg.inv(precision))
    losses = []
    for model in (*models, middle):
        losses.append(theory.surprise(model, theory.worst(x, y, model, epsilon, adversary=adversary), y))
    assert losses[2] <= (losses[0] + losses[1]) / 2 + 1e-9 * abs(losses[0] + losses[1])


def test_a_ball_comes_nearer_to_a_budget_in_more_dimensions() -> None:
    apart = []
    for d in (2, 60):
        x, y = theory.draw(Gaussians(np.ones(d), np.linspace(0.8, 1.2, d)), 3000, seed=4)
        epsilon = 0.5 * math.sqrt(d)
        threat_model = theory.robustly_trained(x, y, epsilon).covariance
        budget = theory.robust(theory.likeliest(x, y), epsilon).covariance
        apart.append(np.linalg.norm(threat_model - budget) / np.linalg.norm(budget))
    assert apart[1] < apart[0] / 3


@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
def test_every_radius_of_the_example_settles(adversary: str) -> None:
    x, y = theory.draw(PAPER, 2000, seed=5)
    conditions = [theory.robustly_trained(x, y, epsilon, adversary=adversary).condition for epsilon in CLOSED]
    assert conditions == sorted(conditions, reverse=True)
    for found, (wanted, _) in zip(conditions, CLOSED.values(), strict=True):
        assert found == pytest.approx(wanted, rel=0.2 if adversary == "ball" else 0.1)
    with pytest.raises(InputError, match=r"^steps: .* got 1; raise it"):
        theory.robustly_trained(x, y, 5.0, adversary=adversary, steps=1)


def test_surprise_is_the_negative_log_likelihood() -> None:
    from scipy.stats import multivariate_normal

    model = world(7, 3)
    x, y = theory.draw(world(8, 3), 40, seed=1)
    logs = [multivariate_normal(sign * model.mean, model.covariance).logpdf(one) for one, sign in zip(x, y, strict=True)]
    assert theory.surprise(model, x, y) == pytest.approx(-np.mean(logs) - 1.5 * math.log(2 * math.pi))
    own = theory.surprise(theory.likeliest(x, y), x, y)
    for seed in range(20):
        assert theory.surprise(world(seed, 3), x, y) > own


# ---- accuracy ------------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(seeds, st.integers(1, 6), st.floats(0, 1.5))
def test_accuracy_is_what_a_simulation_reads(seed: int, d: int, epsilon: float) -> None:
    given, model = world(seed, d, 5.0), world(seed + 1, d, 5.0)
    model = Gaussians(given.mean + model.mean / 3, model.covariance)
    x, y = theory.draw(given, 20_000, seed)
    weights = model.weights
    step = epsilon * weights / np.linalg.norm(weights)
    read = (np.sign((x - y[:, None] * step) @ weights) == y).mean()
    assert theory.accuracy(model, given, epsilon) == pytest.approx(read, abs=5 * math.sqrt(0.25 / 20_000))
    assert theory.accuracy(model, given, epsilon) <= theory.accuracy(given, given) + 1e-12  # nobody reads more than the truth


def test_robust_parameters_read_more_under_attack_and_less_unchanged() -> None:
    rows = theory.table(PAPER, [0, 0.5, 1.0, 2.0])
    assert [row["epsilon"] for row in rows] == [0, 0.5, 1, 2]
    assert rows[0]["attacked"] == rows[0]["plain_attacked"] == rows[0]["accuracy"]
    for row in rows[1:]:
        assert row["attacked"] > row["plain_attacked"] and row["attacked"] < row["accuracy"] < rows[0]["accuracy"]
        assert row["cosine"] >= row["least_cosine"]


def test_classes_that_do_not_differ() -> None:
    with suppress(InputError):
        theory.table(Gaussians(np.zeros(2), np.ones(2)), [0.0, 1.0])


def test_a_table_holds_both_adversaries_and_is_the_same_twice() -> None:
    rows = theory.table(PAPER, [0.0, 1.0], samples=300, seed=1)
    assert rows == theory.table(PAPER, [0.0, 1.0], samples=300, seed=1) != theory.table(PAPER, [0.0, 1.0], samples=300, seed=2)
    for row in rows:
        assert row["samples"] == 300
        for name in theory.ADVERSARIES:
            condition = row[f"{name}_condition"]
            assert row[f"{name}_least_cosine"] == pytest.approx(2 * math.sqrt(condition) / (1 + condition))
    assert rows[0]["ball_condition"] == rows[0]["budget_condition"] == theory.likeliest(*theory.draw(PAPER, 300, 1)).condition


def test_examples_are_of_the_world() -> None:
    given = world(2, 3)
    x, y = theory.draw(given, 50_000, seed=1)
    assert set(y) == {-1.0, 1.0} and abs(y.mean()) < 0.02
    found = theory.likeliest(x, y)
    np.testing.assert_allclose(found.mean, given.mean, atol=0.03 * given.covariance.max() ** 0.5)
    np.testing.assert_allclose(found.covariance, given.covariance, atol=0.05 * given.covariance.max())
    assert all((one == other).all() for one, other in zip((x, y), theory.draw(given, 50_000, seed=1), strict=True))


# ---- bad input -----------------------------------------------------------------------------------------------------------

X, Y = theory.draw(PAPER, 20)
BAD: dict[str, tuple[Any, str]] = {
    "no dimensions": (lambda: Gaussians([], []), "mean: must be one finite number a dimension"),
    "a number": (lambda: Gaussians(1.0, 1.0), "mean: must"),
    "mean is no number": (lambda: Gaussians([math.nan], [1.0]), "mean: must"),
    "more variances": (lambda: Gaussians([1.0], [1.0, 1.0]), r"covariance: must be 1x1 like the mean"),
    "not square": (lambda: Gaussians([1.0, 1.0], np.ones((2, 3))), "covariance: must be 2x2"),
    "infinite": (lambda: Gaussians([1.0, 1.0], [1.0, math.inf]), "covariance: must"),
    "not symmetric": (lambda: Gaussians([1.0, 1.0], [[2.0, 1.0], [0.0, 2.0]]), "covariance: must be symmetric"),
    "flat": (lambda: Gaussians([1.0, 1.0], [1.0, 0.0]), "covariance: must be positive definite, got eigenvalues from 0"),
    "not positive": (lambda: Gaussians([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance: must be positive definite"),
    "labels 0 and 1": (lambda: theory.likeliest(X, Y > 0), r"examples: must be x \(n, d\) and y \(n,\) of \+1 and −1"),
    "fewer labels": (lambda: theory.likeliest(X, Y[:-1]), "examples: must"),
    "flat examples": (lambda: theory.likeliest(X[:, 0], Y), "examples: must"),
    "too few": (lambda: theory.likeliest(X[:3], Y[:3]), "examples: must be more than 3"),
    "radius below 0": (lambda: theory.robust(PAPER, -0.1), "epsilon: must be 0 or more, at most 1e\\+06, got -0.1"),
    "no radius": (lambda: theory.robust(PAPER, math.nan), "epsilon: must"),
    "infinite radius": (lambda: theory.worst(X, Y, PAPER, math.inf), "epsilon: must"),
    "accuracy": (lambda: theory.accuracy(PAPER, PAPER, -1.0), "epsilon: must"),
    "training": (lambda: theory.robustly_trained(X, Y, -1.0), "epsilon: must"),
    "adversary": (lambda: theory.worst(X, Y, PAPER, 1.0, adversary="box"), "adversary: must be one of ball, budget, got 'box'"),
    "adversary in training": (lambda: theory.robustly_trained(X, Y, 1.0, adversary=""), "adversary: must"),
    "steps": (lambda: theory.robustly_trained(X, Y, 1.0, steps=0), "steps: must be enough for training to settle, got 0"),
    "price": (lambda: theory.vulnerability(PAPER, 2.0), "price: must be above 1 / the smallest eigenvalue, 2, got 2.0"),
    "no price": (lambda: theory.vulnerability(PAPER, math.nan), "price: must"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    work, words = BAD[case]
    with pytest.raises(InputError, match=f"^{words}"):
        work()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_symmetry_is_looked_at_in_the_covariances_own_unit(scale: float) -> None:
    with pytest.raises(InputError, match="symmetric"):
        Gaussians(np.ones(2), scale * np.array([[2.0, 1.0], [0.0, 2.0]]))
