"""The one hook for code of others: controls and constructions of your own, which a study does beside its own. Imports no torch.

A package names a module in its entry points; a file beside your data is named in an environment variable:

    [project.entry-points."notbugs.extensions"]        NOTBUGS_EXTENSIONS=own_control notbugs run digits --full --out runs/own
    anything = "my_package.controls"

The module has a list CONTROLS. examples/own_control.py is one.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import cast

from notbugs import shell
from notbugs.errors import InputError

GROUP, VARIABLE = "notbugs.extensions", "NOTBUGS_EXTENSIONS"
CONTROLLED = ("random-labels", "next-labels")
NAME = re.compile("[a-z][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class Control:
    """A data set of your own: what it teaches a classifier is compared with what a relabeled set teaches.

    A study with `--full` constructs it, trains on it like on the set that it controls, evaluates it on clean test images, and
    reports the difference among the controls.

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
        The other explanation that is ruled out if classifiers learn nothing from it.
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
        if not NAME.fullmatch(self.name):
            raise InputError("Control.name", "must be lower-case letters, digits and hyphens", repr(self.name))
        if self.control_of not in CONTROLLED:
            raise InputError("Control.control_of", f"must be one of {', '.join(CONTROLLED)}", repr(self.control_of))
        if ":" not in self.construct:
            raise InputError("Control.construct", "must be module:function", repr(self.construct))
        object.__setattr__(self, "short", self.short or self.name)


def own_controls(taken: Collection[str]) -> tuple[Control, ...]:
    """The controls of all extensions. taken: names that the study has itself.

    Raises
    ------
    InputError
        If a module cannot be imported, has no list CONTROLS, or two controls have one name.
    """
    found: list[Control] = []
    for module in _modules():
        controls = getattr(_imported(module), "CONTROLS", None)
        if not isinstance(controls, list | tuple) or not all(isinstance(each, Control) for each in controls):
            raise InputError(
                VARIABLE, f"{module} must have a list CONTROLS of notbugs.extensions.Control", type(controls).__name__
            )
        found += controls
    names = [control.name for control in found]
    for name in names:
        if name in taken or names.count(name) > 1:
            raise InputError(VARIABLE, "controls must have names of their own", name, "rename it")
    return tuple(found)


def command_prefix() -> str:
    """What a command begins with so that the controls of the environment variable are there again; "" without it."""
    named = os.environ.get(VARIABLE, "").strip()
    return f"{VARIABLE}={shell.quote(named)} " if named else ""


def _modules() -> list[str]:
    """Modules of installed packages, then those of the environment variable; each once."""
    installed = sorted(entry.value for entry in entry_points(group=GROUP))
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    return list(dict.fromkeys([*installed, *named]))


def _imported(module: str) -> object:
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a file beside the user's data can be imported
    try:
        return importlib.import_module(module)
    except Exception as error:  # others' code may raise anything
        raise InputError(
            VARIABLE, f"must name modules that can be imported, {module}", f"{type(error).__name__}: {error}"
        ) from None
    finally:
        sys.path.pop(0)


def function_of(control: str) -> Callable[..., object]:
    """The function of a control, "module:function". Raises InputError if it cannot be imported."""
    module, _, name = control.partition(":")
    function = getattr(_imported(module), name, None)
    if not callable(function):
        raise InputError("Control.construct", "must name a function", control)
    return cast(Callable[..., object], function)


def check_present(recorded: Collection[str], present: Collection[str]) -> None:
    """Raises InputError where a run has controls of which nothing is known now."""
    if missing := sorted({*recorded} - {*present}):
        rule = "must name the modules with the controls of this run"
        raise InputError(VARIABLE, rule, f"none with {', '.join(missing)}", f"set {VARIABLE}=MODULE")
