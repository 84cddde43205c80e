"""Label errors: strong models find the changed labels and no other; weak ones call none, whatever the labels are."""

import numpy as np
import pytest

from notbugs.files.label_errors import LIKELY, TOO_WEAK, label_errors


def simulated(
    strength: float, changed: float, *, classes: int = 10, n: int = 3000, temperature: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, labels and which of them were changed.

    The clean label is drawn from calibrated probabilities: the models are as accurate as they are certain. These are then given
    with another temperature, as overconfident (below 1) or underconfident models would.
    """
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), generator.integers(0, classes, n)] += strength * generator.exponential(size=n)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < generator.random((n, 1))).sum(1)
    wrong = generator.random(n) < changed
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, wrong.sum())) % classes
    given = shares ** (1 / temperature)
    return given / given.sum(1, keepdims=True), labels, wrong


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize(("changed", "seed"), [(0.0, 0), (0.05, 1), (0.2, 2)])
def test_strong_models_find_label_errors_whatever_their_temperature(changed: float, seed: int, temperature: float) -> None:
    probabilities, labels, wrong = simulated(30.0, changed, temperature=temperature, seed=seed)
    found = label_errors(probabilities, labels)
    assert found.rate == pytest.approx(changed, abs=0.01)
    assert found.temperature == pytest.approx(1 / temperature, rel=0.15)
    assert not found.too_weak and (found.likely == (found.probability >= LIKELY)).all()
    assert found.likely[~wrong].sum() <= max(1, 0.05 * found.likely.sum())
    if changed:
        assert found.likely[wrong].mean() == pytest.approx(found.detectable, abs=0.06)  # what it says that it finds, it finds


@pytest.mark.parametrize("temperature", [0.4, 1.0])
@pytest.mark.parametrize("changed", [0.0, 0.05])
def test_weak_models_call_no_label_wrong(changed: float, temperature: float) -> None:
    """Of such accuracy that a third of all labels are disputed, by models that sound certain (temperature 0.4)."""
    probabilities, labels, wrong = simulated(3.0, changed, temperature=temperature)
    accuracy = (probabilities.argmax(1) == labels)[~wrong].mean()
    assert 0.45 < accuracy < 0.7
    found = label_errors(probabilities, labels)
    assert found.too_weak and found.detectable < TOO_WEAK and not found.likely.any()
    assert (found.probability >= LIKELY).sum() <= 0.01 * len(labels)


def test_a_probability_is_calibrated() -> None:
    """Of labels that are called wrong with a probability around 0.5, about half are wrong."""
    probabilities, labels, wrong = simulated(8.0, 0.1, n=20_000)
    found = label_errors(probabilities, labels)
    for low, high in ((0.05, 0.2), (0.3, 0.7), (0.8, 0.95)):
        own = (found.probability >= low) & (found.probability < high)
        assert own.sum() > 100
        assert wrong[own].mean() == pytest.approx(found.probability[own].mean(), abs=0.08)


def test_two_classes_and_certain_probabilities() -> None:
    labels = np.arange(600) % 2
    certain = np.eye(2)[labels].astype(np.float32)
    labels[:12] = 1 - labels[:12]
    found = label_errors(certain, labels)
    assert np.flatnonzero(found.likely).tolist() == [*range(12)]
    assert found.rate == pytest.approx(0.02, abs=1e-3)
    assert np.isfinite(found.probability).all()
    even = label_errors(np.full((600, 2), 0.5), labels)
    assert even.too_weak and not even.likely.any()
