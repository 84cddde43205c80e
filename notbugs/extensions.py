"""The one hook for code of others: attacks, controls, constructions and metrics of your own. Imports no torch.

A package names a module in its entry points; a file beside your data is named in an environment variable:

    [project.entry-points."notbugs.extensions"]        NOTBUGS_EXTENSIONS=own_control notbugs run digits --out runs/own
    anything = "my_package.controls"

The module has lists ATTACKS, CONTROLS, CONSTRUCTIONS, METRICS, or some of them. examples/own_control.py is one.
"""

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from notbugs import shell
from notbugs.errors import InputError
from notbugs.user_modules import import_error, import_module

GROUP, VARIABLE = "notbugs.extensions", "NOTBUGS_EXTENSIONS"
LISTS = ("ATTACKS", "CONTROLS", "CONSTRUCTIONS", "METRICS")
CONTROLLED = ("random-labels", "next-labels")
NAME = re.compile("[a-z][a-z0-9-]{0,40}")
Part = TypeVar("Part")


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
        The other explanation, as a sentence: "the size of the perturbations is enough". It is ruled out if the controlled set
        exceeds the control.
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


@dataclass(frozen=True)
class Extensions:
    """Everything that modules registered."""

    controls: list[Control] = field(default_factory=list)
    constructions: list[Construction] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> list[Control | Construction]:
        """Constructions, then controls."""
        return [*self.constructions, *self.controls]

    @property
    def parts(self) -> list[Control | Construction | Metric | Attack]:
        """All of them."""
        return [*self.datasets, *self.metrics, *self.attacks]

    @property
    def names(self) -> list[str]:
        """Of all, as run.json lists them."""
        return [each.name for each in self.parts]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file of each module, as run.json keeps them: a figure is that of this code."""
        functions = [name for part in self.parts for name in part.functions]
        modules = dict.fromkeys([*self.modules, *(name.partition(":")[0] for name in functions)])
        files = {name: getattr(_imported(name), "__file__", None) for name in modules}
        return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}

    def check_in_time(self) -> None:
        """Raises InputError where the variable was set or changed too late: the list is made once."""
        if (now := _modules()) != self.modules:
            got = f"{', '.join(now) or 'none'} now, {', '.join(self.modules) or 'none'} before"
            raise InputError(VARIABLE, "must be set before notbugs is first used", got, "set it first, in a new process")

    def check_functions(self) -> None:
        """Before any work: every function is there and takes its keyword arguments.

        Raises
        ------
        InputError
            For the first that is not, or does not.
        """
        for name, keywords in (pair for part in self.parts for pair in part.functions.items()):
            function = function_of(name)
            try:
                inspect.signature(function).bind(**dict.fromkeys(keywords))
            except TypeError as error:
                raise InputError(name, f"must take the keyword arguments {', '.join(keywords)}", str(error)) from None
            except ValueError:  # a function in C may have no signature
                continue


def load_extensions(taken: Collection[str]) -> Extensions:
    """What all extensions register. taken: names of data sets that the study has itself.

    Raises
    ------
    InputError
        If a module cannot be imported, has none of the lists, or two entries have one name.
    """
    found = Extensions(modules=_modules())
    for module in found.modules:
        imported = _imported(module)
        if not any(hasattr(imported, name) for name in LISTS):
            raise InputError(VARIABLE, f"{module} must have a list {' or '.join(LISTS)}", "none")
        found.controls.extend(_listed(imported, module, "CONTROLS", Control))
        found.constructions.extend(_listed(imported, module, "CONSTRUCTIONS", Construction))
        found.metrics.extend(_listed(imported, module, "METRICS", Metric))
        found.attacks.extend(_listed(imported, module, "ATTACKS", Attack))
    for name in found.names:
        if name in taken or found.names.count(name) > 1:
            raise InputError(VARIABLE, "must name entries with names of their own", name, "rename it")
    return found


@cache
def registered() -> Extensions:
    """What all extensions register, read once."""
    return load_extensions(())


def _listed(imported: object, module: str, name: str, kind: type[Part]) -> list[Part]:
    """A list of a module; empty if it does not have it."""
    entries = getattr(imported, name, [])
    if not isinstance(entries, list | tuple) or not all(isinstance(each, kind) for each in entries):
        rule = f"{module} must have a list {name} of notbugs.extensions.{kind.__name__}"
        raise InputError(VARIABLE, rule, type(entries).__name__)
    return [*entries]


def _check(kind: str, name: str, **functions: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(f"{kind}.name", "must be lower-case letters, digits and hyphens", repr(name))
    for field_name, function in functions.items():
        if ":" not in function:
            raise InputError(f"{kind}.{field_name}", "must be module:function", repr(function))


def command_prefix() -> str:
    """What a command begins with so that the extensions of the environment variable are there again; "" without it."""
    named = os.environ.get(VARIABLE, "").strip()
    return f"{VARIABLE}={shell.quote(named)} " if named else ""


def _modules() -> list[str]:
    """Modules of installed packages, then those of the environment variable; each once."""
    installed = sorted(entry.value for entry in entry_points(group=GROUP))
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    return list(dict.fromkeys([*installed, *named]))


def _imported(module: str) -> object:
    try:
        return import_module(module)
    except Exception as error:  # others' code may raise anything
        raise InputError(VARIABLE, f"must name modules that can be imported, {module}", import_error(error)) from None


def function_of(name: str) -> Callable[..., object]:
    """A function, "module:function". Raises InputError if it cannot be imported."""
    module, _, attribute = name.partition(":")
    function = getattr(_imported(module), attribute, None)
    if not callable(function):
        raise InputError(VARIABLE, "must name a function", name)
    return cast(Callable[..., object], function)


def check_unchanged(recorded: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Raises InputError where a module is not what it was when a run began: its data sets would be those of the old code."""
    changed = sorted(name for name, digest in recorded.items() if present.get(name, digest) != digest)
    if changed:
        remedy = "name another folder with --out, or restore what it was"
        raise InputError(VARIABLE, "must name modules that are as when this run began", f"{', '.join(changed)}, changed", remedy)


def check_as_in_command(of_command: Mapping[str, str]) -> None:
    """Raises InputError on a worker that has other modules than the command: it would leave out attacks without a word.

    of_command: `Extensions.hashes` where the command was given.
    """
    if (here := registered().hashes()) != of_command:
        differ = sorted(name for name in {*here, *of_command} if here.get(name) != of_command.get(name))
        got = ", ".join(f"{name} {'changed' if name in here and name in of_command else 'in one of them'}" for name in differ)
        remedy = "set it where workers start, with the same files"
        raise InputError(VARIABLE, "must name the same modules on each worker as for the command", got, remedy)


def check_present(recorded: Collection[str], present: Collection[str]) -> None:
    """Raises InputError where a run has extensions of which nothing is known now."""
    if missing := sorted({*recorded} - {*present}):
        rule = "must name the modules with the attacks, controls, constructions and metrics of this run"
        raise InputError(VARIABLE, rule, f"none with {', '.join(missing)}", f"set {VARIABLE}=MODULE")
