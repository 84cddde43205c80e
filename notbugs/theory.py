"""Two Gaussian classes: where vulnerability comes from, what robust training changes, why its gradients align. Needs no torch.

A label y is +1 or −1 with equal probability, and x ~ N(y mean, covariance). A model has parameters of the same kind: it predicts
sign(x · covariance⁻¹ mean), and its gradient points along covariance⁻¹ mean.

References
----------
Ilyas et al. 2019, section 4 and appendix E.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from notbugs.errors import InputError
from notbugs.runs.tables.theory import TheoryRow

Array = NDArray[np.float64]
ADVERSARIES = ("ball", "budget")
MAX_EPSILON = MAX_MEAN = 1e6  # beyond it, squares of squares overflow
MAX_VARIANCE = 1e12
BISECTIONS = 60  # to the last bit


@dataclass(frozen=True)
class Gaussians:
    """Two Gaussian classes, as the data or as the parameters of a model.

    Parameters
    ----------
    mean : array, (d,)
        Of the class +1; the class −1 has the opposite.
    covariance : array, (d, d) or (d,)
        Of both classes: symmetric and positive definite, or variances without correlations.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> classes = Gaussians([-10.0, 1.0], [25.0, 0.5])
    >>> classes.condition_number, accuracy(classes, classes) > 0.99
    (50.0, True)
    """

    mean: Array
    covariance: Array

    def __post_init__(self) -> None:
        mean, covariance = np.asarray(self.mean, float), np.asarray(self.covariance, float)
        if mean.ndim != 1 or not len(mean) or not np.isfinite(mean).all():
            raise InputError("mean", "must be one finite number a dimension", self.mean)
        if covariance.ndim == 1:
            covariance = np.diag(covariance)
        if covariance.shape != (len(mean),) * 2 or not np.isfinite(covariance).all():
            raise InputError("covariance", f"must be {len(mean)}x{len(mean)} like the mean, finite", covariance.shape)
        if not np.allclose(covariance, covariance.T, atol=1e-8 * np.abs(covariance).max()):
            raise InputError("covariance", "must be symmetric", "one that is not")
        smallest, largest = np.linalg.eigvalsh(covariance)[[0, -1]]
        if smallest <= 0:
            raise InputError("covariance", "must be positive definite", f"eigenvalues from {smallest:.3g}")
        if np.abs(mean).max() > MAX_MEAN:
            raise InputError("mean", f"must be at most {MAX_MEAN:g} in size", np.abs(mean).max())
        if not 1 / MAX_VARIANCE <= smallest <= largest <= MAX_VARIANCE:
            rule = f"must have eigenvalues from {1 / MAX_VARIANCE:g} to {MAX_VARIANCE:g}"
            raise InputError("covariance", rule, f"from {smallest:.3g} to {largest:.3g}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @property
    def weights(self) -> Array:
        """covariance⁻¹ mean, (d,): the weights of the linear model, and the direction of its gradient everywhere."""
        return np.asarray(np.linalg.solve(self.covariance, self.mean))

    @property
    def condition_number(self) -> float:
        """Largest by smallest eigenvalue of the covariance, 1 or more: how much the model's metric differs from L2."""
        values = np.linalg.eigvalsh(self.covariance)
        return float(values[-1] / values[0])


def sample(classes: Gaussians, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Draw n examples: x (n, d) and y (n,), +1 or −1."""
    generator = np.random.default_rng(seed)
    y = generator.choice([-1.0, 1.0], n)
    noise = generator.standard_normal((n, len(classes.mean)))
    return y[:, None] * classes.mean + noise @ np.linalg.cholesky(classes.covariance).T, y


def maximum_likelihood(x: ArrayLike, y: ArrayLike) -> Gaussians:
    """The model of maximum likelihood: standard training.

    Parameters
    ----------
    x : array, (n, d)
        n above d + 1.
    y : array, (n,)
        +1 or −1.

    Returns
    -------
    Gaussians
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != (len(x),) or not np.isin(y, (-1, 1)).all():
        raise InputError("examples", "must be x (n, d) and y (n,) of +1 and −1", f"{x.shape} and {y.shape}")
    if len(x) <= x.shape[1] + 1:
        raise InputError("examples", f"must be more than {x.shape[1] + 1}, or the covariance has no inverse", len(x))
    signed = y[:, None] * x
    mean = signed.mean(0)
    return Gaussians(mean, (signed - mean).T @ (signed - mean) / len(x))


# ---- robust parameters -------------------------------------------------------------------------------------------------


def robust_parameters(classes: Gaussians, epsilon: float) -> Gaussians:
    """The parameters at which robust training ends, in closed form: the mean is the same, the covariance is closer to a ball.

    The covariance is Σ/2 + uI + √(uΣ + Σ²/4), with u = 1/λ such that the perturbations have a mean square of epsilon². This is
    the adversary of theorem 2, who may spend less on one example and more on another ("budget" in `worst_case`). One with at most
    epsilon on every example gives another optimum; the difference shrinks with the dimension. Appendix E.3 writes the budget once
    with epsilon² and once with epsilon. It is epsilon² here, with which Σ_r = (I + M)² Σ holds exactly for the perturbation Mv.

    Parameters
    ----------
    classes : Gaussians
        The true parameters.
    epsilon : float, 0 or more
        L2 radius.

    Returns
    -------
    Gaussians

    References
    ----------
    Ilyas et al. 2019, theorem 2 and appendix E.3.

    Examples
    --------
    >>> classes = Gaussians([-10.0, 1.0], [25.0, 0.5])
    >>> [round(robust_parameters(classes, epsilon).condition_number, 1) for epsilon in (0, 1, 10)]
    [50.0, 10.2, 1.7]
    """
    from scipy.optimize import brentq

    _check_epsilon(epsilon)
    if not epsilon:
        return classes
    values, axes = np.linalg.eigh(classes.covariance)

    def enlarged(u: float) -> Array:
        return np.asarray(values / 2 + u + np.sqrt(u * values + values**2 / 4))

    def excess(log_u: float) -> float:
        return float(np.sum((np.sqrt(enlarged(math.exp(log_u))) - np.sqrt(values)) ** 2) - epsilon**2)

    low, high = math.log(values[0]) - 60, math.log(values[-1] + epsilon**2) + 5
    robust = enlarged(math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14)))
    return Gaussians(classes.mean, (axes * robust) @ axes.T)


def worst_case(x: Array, y: Array, model: Gaussians, epsilon: float, *, adversary: str = "ball") -> Array:
    """Perturb examples so that the model's likelihood is minimal, exactly.

    With v = x − y mean and A = covariance⁻¹, the perturbation is (tI + aI − A)⁻¹ A v, a being the largest eigenvalue of A. There
    is one t for each example in a ball, and one for all under a budget (lemma 1; the norm decides t).

    Parameters
    ----------
    x : array, (n, d)
    y : array, (n,)
        +1 or −1.
    model : Gaussians
    epsilon : float, 0 or more
    adversary : {"ball", "budget"}
        Each perturbation of L2 norm at most epsilon, or their mean square at most epsilon².

    Returns
    -------
    array, (n, d)
        The perturbed examples.
    """
    _check_epsilon(epsilon)
    if adversary not in ADVERSARIES:
        raise InputError("adversary", "must be one of " + ", ".join(ADVERSARIES), repr(adversary))
    if not epsilon or not len(x):
        return x
    values, axes = np.linalg.eigh(model.covariance)  # ascending: along the first axis the likelihood falls fastest
    inverse = 1 / values
    residual = (x - y[:, None] * model.mean) @ axes
    gradient = inverse * residual
    gap = inverse[0] - inverse  # 0 for the first
    shared = adversary == "budget"
    squares = (gradient**2).sum(0, keepdims=True) / len(x) if shared else gradient**2  # one row, or one per example
    multiplier = _multiplier(squares, gap, epsilon)
    perturbation = gradient / np.maximum(multiplier[:, None] + gap, 1e-150)
    # where the gradient along the first axis is 0, the rest of epsilon is spent there: both signs are optimal
    used = (perturbation**2).sum(1)
    left = np.maximum(epsilon**2 - (used.mean() if shared else used), 0)
    perturbation[:, 0] = np.where(residual[:, 0] < 0, -1, 1) * np.sqrt(left + perturbation[:, 0] ** 2)
    return np.asarray(x + perturbation @ axes.T)


def _multiplier(squares: Array, gap: Array, epsilon: float) -> Array:
    """The t, (n,), at which the sum of squares / (t + gap)² is epsilon², by bisection. squares: (n, d)."""
    low, high = np.sqrt(squares[:, 0]) / epsilon, np.sqrt(squares.sum(1)) / epsilon
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_long = (squares / np.maximum(middle[:, None] + gap, 1e-150) ** 2).sum(1) > epsilon**2
        low, high = np.where(too_long, middle, low), np.where(too_long, high, middle)
    return np.asarray(high)


def adversarial_training(
    x: Array, y: Array, epsilon: float, *, adversary: str = "ball", steps: int = 300, tolerance: float = 1e-9
) -> Gaussians:
    """Adversarial training on examples: gradient descent on the loss of their worst cases, until the loss converges.

    Each step mixes the model's moments with those of the worst cases, which are held fixed meanwhile (Danskin): that is the
    natural gradient. The step is halved until the loss falls. The loss is convex in covariance⁻¹ and covariance⁻¹ mean, so there
    is one minimum.

    Parameters
    ----------
    x : array, (n, d)
    y : array, (n,)
        +1 or −1.
    epsilon : float, 0 or more
    adversary : {"ball", "budget"}
        As in `worst_case`.
    steps : int
        At most.
    tolerance : float
        Of the relative fall of the loss in one step.

    Returns
    -------
    Gaussians

    Raises
    ------
    InputError
        If training has not converged after `steps`.
    """
    model, size = maximum_likelihood(x, y), 1.0
    examples = worst_case(x, y, model, epsilon, adversary=adversary)
    loss = negative_log_likelihood(model, examples, y)
    for _ in range(steps):
        target = maximum_likelihood(examples, y)
        while True:
            candidate = _mixture(model, target, size)
            perturbed = worst_case(x, y, candidate, epsilon, adversary=adversary)
            new = negative_log_likelihood(candidate, perturbed, y)
            if new < loss or size < 1e-4:
                break
            size /= 2
        fall, model, examples, loss, size = loss - new, candidate, perturbed, new, min(1.0, 1.5 * size)
        if fall < tolerance * max(1.0, abs(loss)):
            return model
    raise InputError("steps", "must be enough for training to converge", steps, "raise it, or tolerance")


def _mixture(model: Gaussians, target: Gaussians, share: float) -> Gaussians:
    """The mean and covariance of a mixture of two models; share: of the second."""
    difference = target.mean - model.mean
    mean = model.mean + share * difference
    spread = target.covariance - model.covariance + (1 - share) * np.outer(difference, difference)
    return Gaussians(mean, model.covariance + share * spread)


def negative_log_likelihood(model: Gaussians, x: Array, y: Array) -> float:
    """Mean over examples, without its constant: ½ vᵀ covariance⁻¹ v + ½ log det covariance, with v = x − y mean."""
    residual = x - y[:, None] * model.mean
    squares = np.einsum("nd,nd->n", residual, np.linalg.solve(model.covariance, residual.T).T)
    return float(squares.mean() + np.linalg.slogdet(model.covariance)[1]) / 2


# ---- what follows ------------------------------------------------------------------------------------------------------


def vulnerability(classes: Gaussians, multiplier: float) -> float:
    """What an adversary adds to the loss of the true parameters, tr[(I + (multiplier Σ − I)⁻¹)²] − d (theorem 1).

    The unit is twice the negative log-likelihood ½ vᵀΣ⁻¹v: the theorem drops its ½. At equal trace, a ball has the least.

    Parameters
    ----------
    classes : Gaussians
    multiplier : float
        C of the Lagrangian penalty (C / 2) ‖perturbation‖², above 1 / the smallest eigenvalue: below, the loss is unbounded.

    Returns
    -------
    float
        0 or more; higher is more vulnerable.
    """
    values = np.linalg.eigvalsh(classes.covariance)
    if not multiplier > 1 / values[0]:
        raise InputError("multiplier", f"must be above 1 / the smallest eigenvalue, {1 / values[0]:.4g}", multiplier)
    return float(np.sum((1 + 1 / (multiplier * values - 1)) ** 2) - len(values))


def min_cosine(classes: Gaussians) -> float:
    """The least cosine between a mean and the model's gradient over all means, 2√κ / (1 + κ), in (0, 1] (theorem 3)."""
    return 2 * math.sqrt(classes.condition_number) / (1 + classes.condition_number)


def cosine(model: Gaussians) -> float:
    """The cosine between a model's mean and its gradient: 1 where the gradient points from one class to the other."""
    weights = model.weights
    norms = float(np.linalg.norm(weights) * np.linalg.norm(model.mean))
    return float(weights @ model.mean) / norms if norms else math.nan


def accuracy(model: Gaussians, classes: Gaussians, epsilon: float = 0.0) -> float:
    """Exact accuracy of a model; with epsilon above 0, its robust accuracy at that L2 radius.

    Parameters
    ----------
    model : Gaussians
        The classifier.
    classes : Gaussians
        The true parameters of the data.
    epsilon : float, 0 or more

    Returns
    -------
    float, in [0, 1]

    Examples
    --------
    >>> classes = Gaussians([2.0], [1.0])
    >>> round(accuracy(classes, classes), 3), accuracy(classes, classes, epsilon=2.0)
    (0.977, 0.5)
    """
    from scipy.stats import norm

    _check_epsilon(epsilon)
    weights = model.weights
    if not weights.any():
        raise InputError("mean", "must not be 0 everywhere, or the classes do not differ", model.mean)
    margin = weights @ classes.mean - epsilon * np.linalg.norm(weights)
    return float(norm.cdf(margin / math.sqrt(weights @ classes.covariance @ weights)))


def table(classes: Gaussians, epsilons: ArrayLike, *, samples: int = 0, seed: int = 0) -> list[TheoryRow]:
    """One row per radius: robust parameters in closed form and, for comparison, by adversarial training.

    Parameters
    ----------
    classes : Gaussians
    epsilons : array of float
        L2 radii of robust training and of the attack.
    samples : int
        Examples for adversarial training; 0: none.
    seed : int

    Returns
    -------
    list of TheoryRow

    Examples
    --------
    >>> row = table(Gaussians([-10.0, 1.0], [25.0, 0.5]), [1.0])[0]
    >>> round(row.condition_number, 1), round(row.min_cosine, 2), row.robust_accuracy > row.true_parameters_robust_accuracy
    (10.2, 0.57, True)
    """
    drawn = sample(classes, samples, seed) if samples else None
    return [_row(classes, epsilon, drawn) for epsilon in np.asarray(epsilons, float).tolist()]


def _row(classes: Gaussians, epsilon: float, drawn: tuple[Array, Array] | None) -> TheoryRow:
    robust = robust_parameters(classes, epsilon)
    trained: dict[str, float] = {}
    if drawn is not None:
        for adversary in ADVERSARIES:
            found = adversarial_training(drawn[0], drawn[1], epsilon, adversary=adversary)
            trained |= {f"{adversary}_condition_number": found.condition_number, f"{adversary}_min_cosine": min_cosine(found)}
    return TheoryRow(
        epsilon=epsilon,
        condition_number=robust.condition_number,
        min_cosine=min_cosine(robust),
        cosine=cosine(robust),
        accuracy=accuracy(robust, classes),
        robust_accuracy=accuracy(robust, classes, epsilon),
        true_parameters_robust_accuracy=accuracy(classes, classes, epsilon),
        ball_condition_number=trained.get("ball_condition_number"),
        ball_min_cosine=trained.get("ball_min_cosine"),
        budget_condition_number=trained.get("budget_condition_number"),
        budget_min_cosine=trained.get("budget_min_cosine"),
        samples=len(drawn[1]) if drawn else None,
    )


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon <= MAX_EPSILON:
        raise InputError("epsilon", f"must be 0 or more, at most {MAX_EPSILON:g}", epsilon)
