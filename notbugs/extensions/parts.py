"""What a module can register: an attack, a control, a construction, a metric."""

import re
from dataclasses import dataclass

from notbugs.errors import InputError

CONTROLLED = ("random-labels", "next-labels")
NAME = re.compile("[a-z][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class Control:
    """A data set of your own: what it teaches a classifier is compared with what a relabeled set teaches.

    Every study constructs it, trains on it like on the set that it controls, evaluates the classifier, and reports the difference
    among the controls.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and hyphens. It names the data set, and decides its random seed.
    construct : str
        "module:function", called with original (Dataset), relabeled (Dataset: the set that it controls), model (the standard
        classifier) and seed as keyword arguments; returns a Dataset of the same classes and image size.
    title : str
        For tables, one line.
    rules_out : str
        The other explanation. It completes the sentence "rules out that …": "the size of the perturbations is enough". It is
        ruled out if the controlled set exceeds the control.
    control_of : {"random-labels", "next-labels"}
        D_rand or D_det.
    short : str
        For narrow tables. Default: the name.

    Raises
    ------
    InputError
        For a name or a `control_of` that cannot be used.

    Examples
    --------
    >>> Control("rotated", "my_module:rotate", "perturbations rotated by 90 degrees", "their orientation does not matter").short
    'rotated'
    """

    name: str
    construct: str
    title: str
    rules_out: str
    control_of: str = "random-labels"
    short: str = ""

    def __post_init__(self) -> None:
        _check("Control", self.name, construct=self.construct)
        if self.control_of not in CONTROLLED:
            raise InputError("Control.control_of", f"must be one of {', '.join(CONTROLLED)}", repr(self.control_of))
        object.__setattr__(self, "short", self.short or self.name)

    @property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """Its functions, with the keyword arguments that they are called with."""
        return {self.construct: ("original", "relabeled", "model", "seed")}


@dataclass(frozen=True)
class Construction:
    """A data set of your own that keeps its labels, like D_R and D_NR.

    Every study constructs it, trains on it, and evaluates the classifier clean and under attack: a row of the main table.
    A set with changed labels and small perturbations is a `Control`.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and hyphens. It names the data set, and decides its random seed.
    construct : str
        "module:function", called with original (Dataset), model (the standard classifier), robust_model (the adversarially
        trained one) and seed as keyword arguments; returns a Dataset of the same classes and image size.
    title : str
        For tables, one line.

    Raises
    ------
    InputError
        For a name that cannot be used.
    """

    name: str
    construct: str
    title: str

    def __post_init__(self) -> None:
        _check("Construction", self.name, construct=self.construct)

    @property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """Its functions, with the keyword arguments that they are called with."""
        return {self.construct: ("original", "model", "robust_model", "seed")}


@dataclass(frozen=True)
class Metric:
    """A metric of your own: every study measures it on each classifier of its main table.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and hyphens.
    measure : str
        "module:function", called with model (nn.Module on `device`, in evaluation mode), dataset (the test images),
        threat_model (the study's), seed and device as keyword arguments. It returns one value per image: booleans are reported
        as a percentage with Wilson's 95 % CI, numbers as a mean with Student's. One number for all images has no interval.
    title : str
        The heading of its column.

    Raises
    ------
    InputError
        For a name that cannot be used.
    """

    name: str
    measure: str
    title: str

    def __post_init__(self) -> None:
        _check("Metric", self.name, measure=self.measure)

    @property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """Its functions, with the keyword arguments that they are called with."""
        return {self.measure: ("model", "dataset", "threat_model", "seed", "device")}


@dataclass(frozen=True)
class Attack:
    """An attack of your own, for instance one that knows a defense: every robust accuracy counts what it finds, too.

    It runs after the attack ensemble, on the images that are still classified correctly; robust accuracy can only fall. Its name
    stands in the column `attack`. Give an objective, an update rule, or both: projected gradient ascent with them. Or give the
    whole attack. It runs in threat models that can project: in all but rotations and translations.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and hyphens.
    objective : str
        "module:function", called with logits (Tensor (N, K)) and labels (N,) as keyword arguments; returns what is maximized for
        each image, (N,). Default: the margin of the best wrong class. Needs gradients.
    rule : str
        "module:function", called with now (`search.StepState`), state (its own, None at first) and threat_model; returns the
        update of the images (N, C, H, W) and its new state. Default: steepest steps that decay from 2 epsilon. Needs gradients.
    steps : int
        Of the search, 1 or more.
    attack : str
        In place of all of these, "module:function", called with model (images to logits), images (N, C, H, W) in [0, 1], labels
        (N,) and threat_model; returns the perturbed images. They are projected into the threat model.

    Raises
    ------
    InputError
        For a name or number of steps that cannot be used, and where nothing is given, or both kinds.

    References
    ----------
    Tramer et al. 2020, "On Adaptive Attacks to Adversarial Example Defenses".

    Examples
    --------
    >>> Attack("sum-of-wrong", objective="my_module:wrong_probability", steps=50).functions
    {'my_module:wrong_probability': ('logits', 'labels')}
    """

    name: str
    objective: str = ""
    rule: str = ""
    steps: int = 100
    attack: str = ""

    def __post_init__(self) -> None:
        parts = {name: value for name in ("objective", "rule", "attack") if (value := getattr(self, name))}
        if not parts or (self.attack and len(parts) > 1):
            rule = "must have an objective, a rule, or both; or else an attack"
            raise InputError("Attack", rule, ", ".join(parts) or "none")
        _check("Attack", self.name, **parts)
        if self.steps < 1:
            raise InputError("Attack.steps", "must be 1 or more", self.steps)

    @property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """Its functions, with the keyword arguments that they are called with."""
        keywords = {
            self.objective: ("logits", "labels"),
            self.rule: ("now", "state", "threat_model"),
            self.attack: ("model", "images", "labels", "threat_model"),
        }
        return {name: keywords[name] for name in keywords if name}


def _check(kind: str, name: str, **functions: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(f"{kind}.name", "must be lower-case letters, digits and hyphens", repr(name))
    for field_name, function in functions.items():
        if ":" not in function:
            raise InputError(f"{kind}.{field_name}", "must be module:function", repr(function))
