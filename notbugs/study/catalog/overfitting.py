"""Catastrophic overfitting of adversarial training: when it is said, and what helps."""

import math
from collections.abc import Sequence

MIN_SHARE = 0.1  # of images that only the attack of training leaves correct: less is common (docs/lab-log.md)
MORE_STEPS = 10
NOISE_L2 = 2.8  # L2 norm of noise that helped, relative to epsilon: docs/lab-log.md
NOISE_LINF = 2 / math.sqrt(3)  # its standard deviation, as that of uniform noise of 2 epsilon (de Jorge et al. 2022); not tried


def overfits(ci_low: float) -> bool:
    """Whether measurably so many images are robust against the attack of training alone. ci_low: of their share."""
    return ci_low > MIN_SHARE


def remedy(norm: str, epsilon: float, steps: int, shape: Sequence[int], option: str) -> str:
    """What helps.

    Parameters
    ----------
    norm : {"l2", "linf"}
    epsilon : float
    steps : int
        Of the attack in training.
    shape : sequence of int, (C, H, W)
    option : str
        What the noise is called.

    Examples
    --------
    >>> remedy("l2", 1.5, 3, (1, 28, 28), "--noise")
    'Train with more steps (--adversarial-steps 10) or noise (--noise 0.15).'
    """
    noise = NOISE_L2 * epsilon / math.sqrt(math.prod(shape)) if norm == "l2" else NOISE_LINF * epsilon
    return f"Train with more steps (--adversarial-steps {max(MORE_STEPS, 2 * steps)}) or noise ({option} {noise:.2g})."
