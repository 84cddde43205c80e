"""Two Gaussian classes: where vulnerability comes from, what robust training changes, why its gradients align. Needs no torch.

A label y is +1 or −1 with equal chance, and x ~ N(y mean, covariance). A model is such a world with parameters of its own: it
says sign(x · covariance⁻¹ mean), and its gradient points along covariance⁻¹ mean.
Source: Ilyas et al. 2019, section 4 and appendix E.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from notbugs.errors import InputError

Array = NDArray[np.float64]
ADVERSARIES = ("ball", "budget")
LARGEST = 1e6  # radius: beyond it squares of squares overflow


@dataclass(frozen=True)
class Gaussians:
    """mean: (d,), of the class +1; covariance: (d, d), symmetric and positive, of both. Raises BadInput for anything else."""

    mean: Array
    covariance: Array

    def __post_init__(self) -> None:
        mean, covariance = np.asarray(self.mean, float), np.asarray(self.covariance, float)
        if mean.ndim != 1 or not len(mean) or not np.isfinite(mean).all():
            raise InputError("mean", "must be one finite number a dimension", self.mean)
        if covariance.ndim == 1:  # variances, without correlations
            covariance = np.diag(covariance)
        if covariance.shape != (len(mean),) * 2 or not np.isfinite(covariance).all():
            raise InputError("covariance", f"must be {len(mean)}x{len(mean)} like the mean, finite", covariance.shape)
        if not np.allclose(covariance, covariance.T, atol=1e-8 * np.abs(covariance).max()):
            raise InputError("covariance", "must be symmetric", "one that is not")
        if np.linalg.eigvalsh(covariance)[0] <= 0:
            raise InputError(
                "covariance", "must be positive definite", f"eigenvalues from {np.linalg.eigvalsh(covariance)[0]:.3g}"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @property
    def weights(self) -> Array:
        """covariance⁻¹ mean (d,): what the model multiplies x with, and the direction of its gradient everywhere."""
        return np.asarray(np.linalg.solve(self.covariance, self.mean))

    @property
    def condition(self) -> float:
        """Largest by smallest eigenvalue of the covariance, 1 or more: how unlike the model's metric is to L2."""
        values = np.linalg.eigvalsh(self.covariance)
        return float(values[-1] / values[0])


def draw(world: Gaussians, n: int, seed: int = 0) -> tuple[Array, Array]:
    """n examples: x (n, d) and y (n,), +1 or −1."""
    chance = np.random.default_rng(seed)
    y = chance.choice([-1.0, 1.0], n)
    noise = chance.standard_normal((n, len(world.mean)))
    return y[:, None] * world.mean + noise @ np.linalg.cholesky(world.covariance).T, y


def likeliest(x: ArrayLike, y: ArrayLike) -> Gaussians:
    """The model of maximum likelihood: ordinary training. x: (n, d), n above d; y: (n,), +1 or −1."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != (len(x),) or not np.isin(y, (-1, 1)).all():
        raise InputError("examples", "must be x (n, d) and y (n,) of +1 and −1", f"{x.shape} and {y.shape}")
    if len(x) <= x.shape[1] + 1:
        raise InputError("examples", f"must be more than {x.shape[1] + 1}, or the covariance has no inverse", len(x))
    told = y[:, None] * x
    mean = told.mean(0)
    return Gaussians(mean, (told - mean).T @ (told - mean) / len(x))


# ---- robust parameters -------------------------------------------------------------------------------------------------


def robust(world: Gaussians, epsilon: float) -> Gaussians:
    """The parameters that robust training ends at, in closed form: the mean stays, the covariance comes nearer to a ball.

    epsilon: L2, 0 or more. Covariance: Σ/2 + uI + √(uΣ + Σ²/4), u = 1/λ such that the adversary's change has a mean square of
    epsilon². That is theorem 2's adversary, who may spend less on one example and more on another ("budget" in `worst`); one
    held to epsilon on every example differs from it, less in more dimensions. Appendix E.3 writes the budget once with epsilon²
    and once with epsilon; it is epsilon² here, with which Σ_r = (I + M)² Σ holds exactly for the change Mv.
    """
    from scipy.optimize import brentq

    _check_radius(epsilon)
    if not epsilon:
        return world
    values, axes = np.linalg.eigh(world.covariance)

    def larger(u: float) -> Array:
        return np.asarray(values / 2 + u + np.sqrt(u * values + values**2 / 4))

    def spent(log_u: float) -> float:
        return float(np.sum((np.sqrt(larger(math.exp(log_u))) - np.sqrt(values)) ** 2) - epsilon**2)

    few, many = math.log(values[0]) - 60, math.log(values[-1] + epsilon**2) + 5
    found = larger(math.exp(brentq(spent, few, many, xtol=1e-14, rtol=1e-14)))
    return Gaussians(world.mean, (axes * found) @ axes.T)


def worst(x: Array, y: Array, model: Gaussians, epsilon: float, *, adversary: str = "ball") -> Array:
    """x (n, d) changed so that the model's likelihood is least, exactly.

    adversary: "ball", each change of L2 norm at most epsilon; "budget", their mean square at most epsilon².
    With v = x − y mean and A = covariance⁻¹ it is v + (tI + aI − A)⁻¹ A v, a the largest eigenvalue: t is one for each example
    in a ball, and one for all under a budget (lemma 1; the norm decides t).
    """
    _check_radius(epsilon)
    if adversary not in ADVERSARIES:
        raise InputError("adversary", "must be one of " + ", ".join(ADVERSARIES), repr(adversary))
    if not epsilon or not len(x):
        return x
    values, axes = np.linalg.eigh(model.covariance)  # ascending: the first axis is where the model is most easily surprised
    sharp = 1 / values
    off = (x - y[:, None] * model.mean) @ axes
    pull = sharp * off
    gap = sharp[0] - sharp  # 0 for the first
    spent = (pull**2).sum(0, keepdims=True) / len(x) if adversary == "budget" else pull**2  # one line, or one an example
    low, high = np.sqrt(spent[:, 0]) / epsilon, np.sqrt(spent.sum(1)) / epsilon
    for _ in range(60):  # halvings: to the last bit
        middle = (low + high) / 2
        long = (spent / np.maximum(middle[:, None] + gap, 1e-150) ** 2).sum(1) > epsilon**2
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    moved = pull / np.maximum(high[:, None] + gap, 1e-150)
    used = (moved**2).sum(1)  # where nothing pulls along the first axis, what is left of epsilon goes there: either way serves
    left = np.maximum(epsilon**2 - (used.mean() if adversary == "budget" else used), 0)
    moved[:, 0] = np.where(off[:, 0] < 0, -1, 1) * np.sqrt(left + moved[:, 0] ** 2)
    return np.asarray(x + moved @ axes.T)


def robustly_trained(
    x: Array, y: Array, epsilon: float, *, adversary: str = "ball", steps: int = 300, tolerance: float = 1e-9
) -> Gaussians:
    """Adversarial training itself: descent on the loss of what `worst` makes of the examples, until that loss settles.

    x: (n, d), y: (n,). Each step mixes the model's moments with those of the worst examples, which stay where they are while the
    parameters move (Danskin); that is the natural gradient. It is halved until the loss falls. The loss is convex in covariance⁻¹
    and covariance⁻¹ mean, so there is one minimum. tolerance: of the fall. Raises BadInput where `steps` do not settle.
    """
    model, size = likeliest(x, y), 1.0
    examples = worst(x, y, model, epsilon, adversary=adversary)
    loss = surprise(model, examples, y)
    for _ in range(steps):
        ahead = likeliest(examples, y)
        while True:
            mean = model.mean + size * (ahead.mean - model.mean)
            apart = ahead.mean - model.mean
            spread = model.covariance + size * (ahead.covariance - model.covariance + (1 - size) * np.outer(apart, apart))
            further = Gaussians(mean, spread)
            tried = worst(x, y, further, epsilon, adversary=adversary)
            new = surprise(further, tried, y)
            if new < loss or size < 1e-4:
                break
            size /= 2
        fall, model, examples, loss, size = loss - new, further, tried, new, min(1.0, 1.5 * size)
        if fall < tolerance * max(1.0, abs(loss)):
            return model
    raise InputError("steps", "must be enough for training to settle", steps, "raise it, or tolerance")


def surprise(model: Gaussians, x: Array, y: Array) -> float:
    """The mean negative log-likelihood of examples, without its constant: ½ vᵀ covariance⁻¹ v + ½ log det covariance."""
    off = x - y[:, None] * model.mean
    pulled = np.einsum("nd,nd->n", off, np.linalg.solve(model.covariance, off.T).T)
    return float(pulled.mean() + np.linalg.slogdet(model.covariance)[1]) / 2


# ---- what follows ------------------------------------------------------------------------------------------------------


def vulnerability(world: Gaussians, price: float) -> float:
    """What an adversary adds to the loss of the true parameters, tr[(I + (price Σ − I)⁻¹)²] − d: 0 or more, in theorem 1.

    price: of a change, (price / 2) ‖change‖², above 1 / the smallest eigenvalue (below it the adversary is not held at all).
    The unit is twice the negative log-likelihood ½ vᵀΣ⁻¹v: the theorem drops its ½. Least, at equal trace, for a ball.
    """
    values = np.linalg.eigvalsh(world.covariance)
    if not price > 1 / values[0]:
        raise InputError("price", f"must be above 1 / the smallest eigenvalue, {1 / values[0]:.4g}", price)
    return float(np.sum((1 + 1 / (price * values - 1)) ** 2) - len(values))


def alignment(world: Gaussians) -> float:
    """The least cosine between a mean and a model's gradient over all means, 2√κ / (1 + κ), in (0, 1] (theorem 3)."""
    return 2 * math.sqrt(world.condition) / (1 + world.condition)


def cosine(model: Gaussians) -> float:
    """The cosine between the model's own mean and its gradient: 1 where what it looks at is what tells the classes apart."""
    weights = model.weights
    length = float(np.linalg.norm(weights) * np.linalg.norm(model.mean))
    return float(weights @ model.mean) / length if length else math.nan


def accuracy(model: Gaussians, world: Gaussians, epsilon: float = 0.0) -> float:
    """The share of a world that a model still says right after any change of L2 norm epsilon, exactly."""
    from scipy.stats import norm

    _check_radius(epsilon)
    weights = model.weights
    if not weights.any():
        raise InputError("mean", "must not be 0 everywhere, or the classes do not differ", model.mean)
    margin = weights @ world.mean - epsilon * np.linalg.norm(weights)
    return float(norm.cdf(margin / math.sqrt(weights @ world.covariance @ weights)))


def table(world: Gaussians, epsilons: ArrayLike, *, samples: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each radius: condition and alignment in closed form, accuracies, and, of `samples` examples, by training.

    condition: κ ≥ 1; least_cosine: `alignment`; cosine; accuracy, and attacked, of the robust model, unchanged and after changes
    of that radius; plain_attacked, of the true parameters. ball_*, budget_*: adversarial training against either adversary.
    """
    rows = []
    x, y = draw(world, samples, seed) if samples else (None, None)
    for epsilon in np.asarray(epsilons, float).tolist():
        found = robust(world, epsilon)
        row: dict[str, Any] = {
            "epsilon": epsilon,
            "condition": found.condition,
            "least_cosine": alignment(found),
            "cosine": cosine(found),
            "accuracy": accuracy(found, world),
            "attacked": accuracy(found, world, epsilon),
            "plain_attacked": accuracy(world, world, epsilon),
        }
        if x is not None and y is not None:
            for adversary in ADVERSARIES:
                trained = robustly_trained(x, y, epsilon, adversary=adversary)
                row |= {f"{adversary}_condition": trained.condition, f"{adversary}_least_cosine": alignment(trained)}
            row["samples"] = samples
        rows.append(row)
    return rows


def _check_radius(epsilon: float) -> None:
    if not 0 <= epsilon <= LARGEST:
        raise InputError("epsilon", f"must be 0 or more, at most {LARGEST:g}", epsilon)
