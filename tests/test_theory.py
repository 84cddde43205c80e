"""Two Gaussian classes: the paper's figures and theorems, against other derivations, brute force and simulation."""

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
PAPER_FIGURES = {0: (50, 0.277), 0.1: (38.7, 0.313), 0.5: (18.3, 0.443), 1: (10.2, 0.571), 2: (5.22, 0.735), 5: (2.45, 0.908),
          10: (1.67, 0.968)}  # fmt: skip
seeds, sizes, radii = st.integers(0, 10_000), st.integers(1, 20), st.floats(0.01, 20)


def rotation(generator: np.random.Generator, d: int) -> Array:
    return np.asarray(np.linalg.qr(generator.standard_normal((d, d)))[0])


def random_classes(seed: int, d: int, spread: float = 100.0) -> Gaussians:
    """A full covariance with eigenvalues within a factor `spread`."""
    generator = np.random.default_rng(seed)
    axes = rotation(generator, d)
    return Gaussians(generator.standard_normal(d), (axes * spread ** generator.uniform(-0.5, 0.5, d)) @ axes.T)


def energies(model: Gaussians, x: Array, y: Array) -> Array:
    """½ vᵀ covariance⁻¹ v of each example, x: (…, n, d)."""
    residual = x - y[:, None] * model.mean
    return np.asarray(np.einsum("...d,de,...e->...", residual, np.linalg.inv(model.covariance), residual) / 2)


# ---- robust parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", PAPER_FIGURES)
def test_the_figures_of_the_example(epsilon: float) -> None:
    found = theory.robust_parameters(PAPER, epsilon)
    condition_number, min_cosine = PAPER_FIGURES[epsilon]
    assert found.condition_number == pytest.approx(condition_number, rel=3e-3)
    assert theory.min_cosine(found) == pytest.approx(min_cosine, abs=6e-4)
    assert (found.mean == PAPER.mean).all()


@pytest.mark.slow
@settings(max_examples=60)
@given(seeds, sizes, radii)
def test_robust_parameters_and_perturbation_are_optimal_against_each_other(seed: int, d: int, epsilon: float) -> None:
    """Σ_r = (I + M)² Σ with E‖Mv‖² = ε², and Mv = (C Σ_r − I)⁻¹ v, the optimal perturbation against Σ_r, for one C."""
    true = random_classes(seed, d)
    before, after = true.covariance, theory.robust_parameters(true, epsilon).covariance
    np.testing.assert_allclose(before @ after, after @ before, atol=1e-9 * np.abs(before @ after).max())
    values, axes = np.linalg.eigh(before)
    robust = np.diag(axes.T @ after @ axes)
    m = (axes * (np.sqrt(robust / values) - 1)) @ axes.T
    np.testing.assert_allclose((np.eye(d) + m) @ (np.eye(d) + m) @ before, after, rtol=1e-7, atol=1e-9)
    assert np.trace(m @ before @ m) == pytest.approx(epsilon**2, rel=1e-6)
    multipliers = (1 + 1 / (np.sqrt(robust / values) - 1)) / robust
    np.testing.assert_allclose(multipliers, multipliers[0], rtol=1e-6)
    assert multipliers[0] > 1 / robust.min()  # the maximum, not a saddle


@settings(max_examples=30)
@given(seeds, sizes, radii)
def test_robust_parameters_rotate_and_scale_with_the_classes(seed: int, d: int, epsilon: float) -> None:
    true, rotate = random_classes(seed, d), rotation(np.random.default_rng(seed + 1), d)
    after = theory.robust_parameters(true, epsilon).covariance
    rotated = theory.robust_parameters(Gaussians(rotate @ true.mean, rotate @ true.covariance @ rotate.T), epsilon)
    np.testing.assert_allclose(rotated.covariance, rotate @ after @ rotate.T, rtol=1e-6, atol=1e-7 * after.max())
    scaled = theory.robust_parameters(Gaussians(true.mean, 9 * true.covariance), 3 * epsilon)
    np.testing.assert_allclose(scaled.covariance, 9 * after, rtol=1e-6, atol=1e-7 * after.max())


@pytest.mark.slow
@settings(max_examples=30)
@given(seeds, st.integers(2, 20))
def test_more_robust_is_better_conditioned(seed: int, d: int) -> None:
    true = random_classes(seed, d)
    assert theory.robust_parameters(true, 0.0) is true
    found = [theory.robust_parameters(true, epsilon) for epsilon in (0.0, 1e-12, 1e-6, 0.01, 0.1, 1.0, 10.0, 1e6)]
    conditions = np.array([one.condition_number for one in found])
    assert (np.diff(conditions) <= 1e-9 * conditions[0]).all() and conditions[-1] == pytest.approx(1, abs=1e-4)
    cosines = [theory.min_cosine(one) for one in found]
    assert (np.diff(cosines) >= -1e-12).all()
    assert (np.linalg.eigvalsh(found[4].covariance - true.covariance) > 0).all()


# ---- theorems ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seeds, st.integers(1, 12), st.floats(1.01, 30))
def test_theorem_1_the_gap_of_the_loss_is_half_of_vulnerability(seed: int, d: int, above: float) -> None:
    true = random_classes(seed, d)
    multiplier = above / np.linalg.eigvalsh(true.covariance)[0]
    inverse = np.linalg.inv(true.covariance)
    optimal = np.linalg.inv(multiplier * true.covariance - np.eye(d))
    generator = np.random.default_rng(seed)
    v = generator.standard_normal(d)
    penalized = [  # the optimal perturbation, some around it and random ones
        (v + delta) @ inverse @ (v + delta) / 2 - multiplier / 2 * delta @ delta
        for delta in (optimal @ v, *(optimal @ v + 0.1 * generator.standard_normal((20, d))), *generator.standard_normal((20, d)))
    ]
    assert max(penalized) == penalized[0]
    perturbed = np.eye(d) + optimal
    gap = np.trace(perturbed @ inverse @ perturbed @ true.covariance) / 2 - d / 2  # its mean over v, exactly
    assert theory.vulnerability(true, multiplier) == pytest.approx(2 * gap, rel=1e-6)
    assert theory.vulnerability(true, multiplier) > theory.vulnerability(true, 2 * multiplier) > 0


def test_theorem_1_by_simulation() -> None:
    true, multiplier = random_classes(3, 4, 5.0), 4.0
    x, y = theory.sample(true, 200_000, seed=1)
    v = y[:, None] * x - true.mean
    perturbed = v + v @ np.linalg.inv(multiplier * true.covariance - np.eye(4))
    inverse = np.linalg.inv(true.covariance)
    gap = np.einsum("nd,de,ne->n", perturbed, inverse, perturbed) - np.einsum("nd,de,ne->n", v, inverse, v)
    assert theory.vulnerability(true, multiplier) == pytest.approx(gap.mean(), abs=4 * gap.std() / len(gap) ** 0.5)


@settings(max_examples=40)
@given(seeds, st.integers(2, 12), st.floats(1.01, 30))
def test_theorem_1_a_ball_is_least_vulnerable_at_equal_trace(seed: int, d: int, above: float) -> None:
    true = random_classes(seed, d)
    multiplier = above / np.linalg.eigvalsh(true.covariance)[0]
    ball = Gaussians(true.mean, np.full(d, np.trace(true.covariance) / d))
    assert theory.vulnerability(ball, multiplier) < theory.vulnerability(true, multiplier)


@pytest.mark.slow
@settings(max_examples=60)
@given(seeds, sizes, st.floats(0, 5))
def test_theorem_3_no_mean_has_a_smaller_cosine_and_one_attains_it(seed: int, d: int, epsilon: float) -> None:
    covariance = theory.robust_parameters(random_classes(seed, d), epsilon).covariance
    values, axes = np.linalg.eigh(covariance)
    least = theory.min_cosine(Gaussians(np.ones(d), covariance))
    extreme = math.sqrt(values[0]) * axes[:, 0] + math.sqrt(values[-1]) * axes[:, -1]  # for one dimension: the axis itself
    assert theory.cosine(Gaussians(extreme, covariance)) == pytest.approx(least, rel=1e-6)
    for mean in np.random.default_rng(seed).standard_normal((30, d)):
        model = Gaussians(mean, covariance)
        weights = np.linalg.inv(covariance) @ mean
        np.testing.assert_allclose(model.weights, weights, rtol=1e-6, atol=1e-9)
        cosine = weights @ mean / np.linalg.norm(weights) / np.linalg.norm(mean)
        assert theory.cosine(model) == pytest.approx(cosine) and least - 1e-9 <= cosine <= 1 + 1e-12
    assert 0 < least <= 1


@pytest.mark.parametrize("d", [2, 5, 20])
def test_theorem_3_robust_training_raises_the_minimum_cosine(d: int) -> None:
    true = random_classes(1, d)
    assert theory.min_cosine(theory.robust_parameters(true, 1.0)) > theory.min_cosine(true) + 0.1
    assert math.isnan(theory.cosine(Gaussians(np.zeros(2), np.ones(2))))


# ---- worst cases ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40)
@given(seeds, st.integers(1, 8), st.floats(0.01, 5))
def test_no_perturbation_in_the_ball_is_worse(seed: int, d: int, epsilon: float) -> None:
    """Not random ones, not projected gradient ascent; and the certificate of a trust region: A(v + δ) = tδ with t ≥ all of A."""
    model = random_classes(seed, d)
    x, y = theory.sample(model, 6, seed)
    before = x.copy()
    found = theory.worst_case(x, y, model, epsilon)
    assert (x == before).all()
    perturbation = found - x
    np.testing.assert_allclose(np.linalg.norm(perturbation, axis=1), epsilon, rtol=1e-9)
    inverse = np.linalg.inv(model.covariance)
    gradient = (found - y[:, None] * model.mean) @ inverse
    t = (gradient * perturbation).sum(1) / epsilon**2
    np.testing.assert_allclose(gradient, t[:, None] * perturbation, atol=1e-6 * np.abs(gradient).max())
    top = np.linalg.eigvalsh(inverse)[-1]
    assert (t >= top * (1 - 1e-6)).all()
    tried = np.random.default_rng(seed).standard_normal((40, 6, d))
    tried *= epsilon / np.linalg.norm(tried, axis=-1, keepdims=True)
    highest = energies(model, found, y) * (1 + 1e-9)
    for _ in range(50):
        assert (energies(model, x + tried, y) <= highest).all()
        tried = tried + (x + tried - y[:, None] * model.mean) @ inverse / top
        tried *= np.minimum(1, epsilon / np.linalg.norm(tried, axis=-1, keepdims=True))


RESIDUALS = {
    "no gradient along the first axis": [0.0, 1.0, -1.0],
    "hardly any": [1e-14, 1.0, -1.0],
    "hardly any, the other sign": [-1e-200, 1.0, -1.0],
    "nor along the next": [0.0, 0.0, 2.0],
    "only along the first": [0.3, 0.0, 0.0],
    "at the mean": [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("variances", [(0.5, 2.0, 9.0), (0.5, 0.5, 9.0), (1.0, 1.0, 1.0)], ids=["apart", "tied", "ball"])
@pytest.mark.parametrize("name", RESIDUALS)  # both signs are optimal
@pytest.mark.parametrize("label", [1.0, -1.0])
def test_degenerate_cases_of_the_ball(name: str, variances: tuple[float, ...], label: float) -> None:
    model, y = Gaussians(np.array([1.0, -2.0, 0.5]), np.array(variances)), np.full(4, label)
    x = np.array([RESIDUALS[name]] * 4) + label * model.mean
    for epsilon in (1e-3, 0.7, 30.0):
        perturbation = theory.worst_case(x, y, model, epsilon) - x
        np.testing.assert_allclose(np.linalg.norm(perturbation, axis=1), epsilon, rtol=1e-6)
        tried = np.random.default_rng(0).standard_normal((5000, 1, 3))
        tried *= epsilon / np.linalg.norm(tried, axis=-1, keepdims=True)
        assert (energies(model, x + perturbation, y) >= energies(model, x + tried, y).max(0) - 1e-9).all()


@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
def test_in_one_dimension_examples_move_away_from_the_mean(adversary: str) -> None:
    model, y = Gaussians(np.array([0.5]), np.array([2.0])), np.array([1.0, 1.0, -1.0, -1.0])
    v = np.array([[1.0], [-3.0], [2.0], [-0.1]])
    x = v + y[:, None] * 0.5
    perturbation = theory.worst_case(x, y, model, 0.7, adversary=adversary) - x
    wanted = 0.7 * np.sign(v) if adversary == "ball" else 0.7 * v / math.sqrt((v**2).mean())
    np.testing.assert_allclose(perturbation, wanted, rtol=1e-9)


@settings(max_examples=40)
@given(seeds, st.integers(1, 8), st.floats(0.01, 5))
def test_a_budget_has_one_multiplier(seed: int, d: int, epsilon: float) -> None:
    """δ = (tI − A)⁻¹ A v with one t, above all of A, for all examples: the dual certificate; and its mean square is epsilon²."""
    model = random_classes(seed, d)
    x, y = theory.sample(model, 30, seed)
    found = theory.worst_case(x, y, model, epsilon, adversary="budget")
    perturbation = found - x
    assert (perturbation**2).sum(1).mean() == pytest.approx(epsilon**2, rel=1e-9)
    inverse = np.linalg.inv(model.covariance)
    gradient = (found - y[:, None] * model.mean) @ inverse
    t = (gradient * perturbation).sum() / (perturbation**2).sum()
    np.testing.assert_allclose(gradient, t * perturbation, atol=1e-6 * np.abs(gradient).max())
    assert t > np.linalg.eigvalsh(inverse)[-1]
    in_ball = theory.worst_case(x, y, model, epsilon)
    assert energies(model, found, y).mean() >= energies(model, in_ball, y).mean() * (1 - 1e-9)  # a ball is one way to spend it


def test_the_degenerate_case_of_a_budget() -> None:
    model, y = Gaussians(np.zeros(2), np.array([0.5, 4.0])), np.ones(2)
    x = np.array([[0.0, 1.0], [0.0, -2.0]])
    perturbation = theory.worst_case(x, y, model, 5.0, adversary="budget") - x
    assert (perturbation**2).sum(1).mean() == pytest.approx(25)


def test_a_budget_where_all_gradients_are_zero() -> None:
    perturbation = theory.worst_case(
        np.zeros((3, 2)), np.ones(3), Gaussians(np.zeros(2), np.array([0.5, 4.0])), 1.0, adversary="budget"
    )
    assert (perturbation**2).sum(1).mean() == pytest.approx(1)


def test_epsilon_0_changes_nothing() -> None:
    x, y = theory.sample(PAPER, 10)
    for adversary in theory.ADVERSARIES:
        assert (theory.worst_case(x, y, PAPER, 0.0, adversary=adversary) == x).all()
    none = theory.worst_case(x[:0], y[:0], PAPER, 1.0)
    assert none.shape == (0, 2)


# ---- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0, 5.0])
def test_training_against_a_budget_ends_at_the_closed_form(d: int, epsilon: float) -> None:
    x, y = theory.sample(random_classes(5, d), 400, seed=2)
    standard = theory.maximum_likelihood(x, y)
    trained = theory.adversarial_training(x, y, epsilon, adversary="budget", tolerance=1e-13)
    wanted = theory.robust_parameters(standard, epsilon)
    np.testing.assert_allclose(trained.mean, standard.mean, atol=1e-6)
    np.testing.assert_allclose(trained.covariance, wanted.covariance, rtol=1e-4, atol=1e-4 * wanted.covariance.max())


@pytest.mark.slow
@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_training_converges_to_the_one_minimum(adversary: str, epsilon: float) -> None:
    """Its result maximizes the likelihood of its own worst cases, and no other parameters, near or far, have a lower loss."""
    x, y = theory.sample(PAPER, 1000, seed=3)
    found = theory.adversarial_training(x, y, epsilon, adversary=adversary, tolerance=1e-12)

    def loss(model: Gaussians) -> float:
        return theory.negative_log_likelihood(model, theory.worst_case(x, y, model, epsilon, adversary=adversary), y)

    again = theory.maximum_likelihood(theory.worst_case(x, y, found, epsilon, adversary=adversary), y)
    np.testing.assert_allclose(again.covariance, found.covariance, rtol=0.02, atol=0.02 * found.covariance[1, 1])
    least = loss(found)
    generator = np.random.default_rng(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(10):
            distortion = np.eye(2) + scale * generator.uniform(-0.5, 0.5, (2, 2))
            other = Gaussians(found.mean + scale * generator.standard_normal(2), distortion @ found.covariance @ distortion.T)
            assert loss(other) >= least - 1e-7
    for start in (theory.maximum_likelihood(x, y), theory.robust_parameters(PAPER, epsilon), Gaussians(np.zeros(2), np.ones(2))):
        assert loss(start) >= least - 1e-7


@pytest.mark.slow
@settings(max_examples=40)
@given(seeds, st.integers(1, 5), st.floats(0.01, 5), st.sampled_from(theory.ADVERSARIES))
def test_the_loss_is_convex_in_the_natural_parameters(seed: int, d: int, epsilon: float, adversary: str) -> None:
    models = [random_classes(seed, d), random_classes(seed + 1, d)]
    x, y = theory.sample(models[0], 50, seed)
    precision = sum(np.linalg.inv(model.covariance) for model in models) / 2
    middle = Gaussians(np.linalg.solve(precision, sum(model.weights for model in models) / 2), np.linalg.inv(precision))
    losses = []
    for model in (*models, middle):
        losses.append(theory.negative_log_likelihood(model, theory.worst_case(x, y, model, epsilon, adversary=adversary), y))
    assert losses[2] <= (losses[0] + losses[1]) / 2 + 1e-9 * abs(losses[0] + losses[1])


@pytest.mark.slow
def test_a_ball_is_closer_to_a_budget_in_more_dimensions() -> None:
    differences = []
    for d in (2, 60):
        x, y = theory.sample(Gaussians(np.ones(d), np.linspace(0.8, 1.2, d)), 3000, seed=4)
        epsilon = 0.5 * math.sqrt(d)
        ball = theory.adversarial_training(x, y, epsilon).covariance
        budget = theory.robust_parameters(theory.maximum_likelihood(x, y), epsilon).covariance
        differences.append(np.linalg.norm(ball - budget) / np.linalg.norm(budget))
    assert differences[1] < differences[0] / 3


@pytest.mark.slow
@pytest.mark.parametrize("adversary", theory.ADVERSARIES)
def test_training_converges_at_every_radius_of_the_example(adversary: str) -> None:
    x, y = theory.sample(PAPER, 2000, seed=5)
    conditions = [theory.adversarial_training(x, y, epsilon, adversary=adversary).condition_number for epsilon in PAPER_FIGURES]
    assert conditions == sorted(conditions, reverse=True)
    for found, (wanted, _) in zip(conditions, PAPER_FIGURES.values(), strict=True):
        assert found == pytest.approx(wanted, rel=0.2 if adversary == "ball" else 0.1)
    with pytest.raises(InputError, match=r"^steps: .* got 1; raise it"):
        theory.adversarial_training(x, y, 5.0, adversary=adversary, steps=1)


def test_the_loss_is_the_negative_log_likelihood_of_scipy() -> None:
    from scipy.stats import multivariate_normal

    model = random_classes(7, 3)
    x, y = theory.sample(random_classes(8, 3), 40, seed=1)
    logs = [multivariate_normal(sign * model.mean, model.covariance).logpdf(one) for one, sign in zip(x, y, strict=True)]
    assert theory.negative_log_likelihood(model, x, y) == pytest.approx(-np.mean(logs) - 1.5 * math.log(2 * math.pi))
    least = theory.negative_log_likelihood(theory.maximum_likelihood(x, y), x, y)
    for seed in range(20):
        assert theory.negative_log_likelihood(random_classes(seed, 3), x, y) > least


# ---- accuracy ------------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(seeds, st.integers(1, 6), st.floats(0, 1.5))
def test_accuracy_is_that_of_a_simulation(seed: int, d: int, epsilon: float) -> None:
    true, model = random_classes(seed, d, 5.0), random_classes(seed + 1, d, 5.0)
    model = Gaussians(true.mean + model.mean / 3, model.covariance)
    x, y = theory.sample(true, 20_000, seed)
    weights = model.weights
    step = epsilon * weights / np.linalg.norm(weights)
    simulated = (np.sign((x - y[:, None] * step) @ weights) == y).mean()
    assert theory.accuracy(model, true, epsilon) == pytest.approx(simulated, abs=5 * math.sqrt(0.25 / 20_000))
    assert theory.accuracy(model, true, epsilon) <= theory.accuracy(true, true) + 1e-12  # the true parameters are optimal


def test_robust_parameters_have_higher_robust_and_lower_clean_accuracy() -> None:
    rows = theory.table(PAPER, [0, 0.5, 1.0, 2.0])
    assert [row.epsilon for row in rows] == [0, 0.5, 1, 2]
    assert rows[0].robust_accuracy == rows[0].true_parameters_robust_accuracy == rows[0].accuracy
    for row in rows[1:]:
        assert row.robust_accuracy > row.true_parameters_robust_accuracy
        assert row.robust_accuracy < row.accuracy < rows[0].accuracy
        assert row.cosine >= row.min_cosine
        assert row.min_cosine == pytest.approx(2 * math.sqrt(row.condition_number) / (1 + row.condition_number))
        assert (row.samples, row.ball_condition_number, row.budget_condition_number) == (None, None, None)


def test_classes_that_do_not_differ() -> None:
    with suppress(InputError):
        theory.table(Gaussians(np.zeros(2), np.ones(2)), [0.0, 1.0])


@pytest.mark.slow
def test_a_table_has_both_adversaries_and_is_reproducible() -> None:
    rows = theory.table(PAPER, [0.0, 1.0], samples=300, seed=1)
    assert rows == theory.table(PAPER, [0.0, 1.0], samples=300, seed=1) != theory.table(PAPER, [0.0, 1.0], samples=300, seed=2)
    drawn = theory.sample(PAPER, 300, 1)
    for row in rows:
        assert row.samples == 300
        for adversary, found in (("ball", row.ball_condition_number), ("budget", row.budget_condition_number)):
            assert found == theory.adversarial_training(*drawn, row.epsilon, adversary=adversary).condition_number
    standard = theory.maximum_likelihood(*drawn).condition_number
    assert rows[0].ball_condition_number == rows[0].budget_condition_number == standard


def test_samples_have_the_mean_and_covariance_of_the_classes() -> None:
    true = random_classes(2, 3)
    x, y = theory.sample(true, 50_000, seed=1)
    assert set(y) == {-1.0, 1.0} and abs(y.mean()) < 0.02
    found = theory.maximum_likelihood(x, y)
    np.testing.assert_allclose(found.mean, true.mean, atol=0.03 * true.covariance.max() ** 0.5)
    np.testing.assert_allclose(found.covariance, true.covariance, atol=0.05 * true.covariance.max())
    assert all((one == other).all() for one, other in zip((x, y), theory.sample(true, 50_000, seed=1), strict=True))


# ---- bad input -----------------------------------------------------------------------------------------------------------

X, Y = theory.sample(PAPER, 20)
BAD: dict[str, tuple[Any, str]] = {
    "no dimensions": (lambda: Gaussians([], []), "mean: must be one finite number a dimension"),
    "a number": (lambda: Gaussians(1.0, 1.0), "mean: must"),
    "NaN in the mean": (lambda: Gaussians([math.nan], [1.0]), "mean: must"),
    "more variances": (lambda: Gaussians([1.0], [1.0, 1.0]), r"covariance: must be 1x1 like the mean"),
    "not square": (lambda: Gaussians([1.0, 1.0], np.ones((2, 3))), "covariance: must be 2x2"),
    "infinite": (lambda: Gaussians([1.0, 1.0], [1.0, math.inf]), "covariance: must"),
    "not symmetric": (lambda: Gaussians([1.0, 1.0], [[2.0, 1.0], [0.0, 2.0]]), "covariance: must be symmetric"),
    "singular": (lambda: Gaussians([1.0, 1.0], [1.0, 0.0]), "covariance: must be positive definite, got eigenvalues from 0"),
    "not positive": (lambda: Gaussians([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance: must be positive definite"),
    "labels 0 and 1": (lambda: theory.maximum_likelihood(X, Y > 0), r"examples: must be x \(n, d\) and y \(n,\) of \+1 and −1"),
    "fewer labels": (lambda: theory.maximum_likelihood(X, Y[:-1]), "examples: must"),
    "one dimension of examples": (lambda: theory.maximum_likelihood(X[:, 0], Y), "examples: must"),
    "too few": (lambda: theory.maximum_likelihood(X[:3], Y[:3]), "examples: must be more than 3"),
    "epsilon below 0": (lambda: theory.robust_parameters(PAPER, -0.1), "epsilon: must be 0 or more, at most 1e\\+06, got -0.1"),
    "NaN as epsilon": (lambda: theory.robust_parameters(PAPER, math.nan), "epsilon: must"),
    "infinite epsilon": (lambda: theory.worst_case(X, Y, PAPER, math.inf), "epsilon: must"),
    "accuracy": (lambda: theory.accuracy(PAPER, PAPER, -1.0), "epsilon: must"),
    "training": (lambda: theory.adversarial_training(X, Y, -1.0), "epsilon: must"),
    "adversary": (
        lambda: theory.worst_case(X, Y, PAPER, 1.0, adversary="box"),
        "adversary: must be one of ball, budget, got 'box'",
    ),
    "adversary in training": (lambda: theory.adversarial_training(X, Y, 1.0, adversary=""), "adversary: must"),
    "steps": (lambda: theory.adversarial_training(X, Y, 1.0, steps=0), "steps: must be enough for training to converge, got 0"),
    "multiplier": (lambda: theory.vulnerability(PAPER, 2.0), "multiplier: must be above 1 / the smallest eigenvalue, 2, got 2.0"),
    "NaN as multiplier": (lambda: theory.vulnerability(PAPER, math.nan), "multiplier: must"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_symmetry_is_checked_relative_to_the_covariance(scale: float) -> None:
    with pytest.raises(InputError, match="symmetric"):
        Gaussians(np.ones(2), scale * np.array([[2.0, 1.0], [0.0, 2.0]]))
