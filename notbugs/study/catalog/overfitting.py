"""Catastrophic overfitting of adversarial training: when it is said, and what helps."""

import math
from collections.abc import Sequence

MIN_SHARE = 0.1  # of images that PGD as in training leaves correct and more steps do not: less is common (docs/lab-log.md)
MIN_DROP = 0.2  # of accuracy from the attack of training to the ensemble
MORE_STEPS = 10
NOISE_L2 = 2.8  # L2 norm of noise that helped, relative to epsilon: docs/lab-log.md


def remedy(
    norm: str, epsilon: float, steps: int, shape: Sequence[int], *, noise: float, option: str, python: bool = False
) -> str:
    """What helps: more steps; in L2 also noise, if there is less.

    Parameters
    ----------
    norm : {"l2", "linf"}
    epsilon : float
    steps : int
        Of the attack in training.
    shape : sequence of int, (C, H, W)
    noise : float
        In training, its standard deviation.
    option : str
        What the noise is called.
    python : bool
        Also as arguments in Python.

    Examples
    --------
    >>> remedy("l2", 1.5, 3, (1, 28, 28), noise=0.0, option="--noise")
    'Train with more steps (--adversarial-steps 10) or noise (--noise 0.15).'
    """
    more, enough = max(MORE_STEPS, 2 * steps), float(f"{NOISE_L2 * epsilon / math.sqrt(math.prod(shape)):.2g}")
    asked = [("more steps", "--adversarial-steps", f"{more}")]
    if norm == "l2" and noise < enough <= 1:
        asked.append(("noise", option, f"{enough:g}"))
    found = []
    for what, name, value in asked:
        argument = f", {name[2:].replace('-', '_')}={value}" if python else ""
        found.append(f"{what} ({name} {value}{argument})")
    return f"Train with {' or '.join(found)}."
