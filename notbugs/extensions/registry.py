"""The modules that packages and NOTBUGS_EXTENSIONS name, and what they register."""

import hashlib
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from notbugs import shell
from notbugs.errors import InputError
from notbugs.extensions.parts import Attack, Construction, Control, Metric
from notbugs.user_modules import import_error, import_module

GROUP, VARIABLE = "notbugs.extensions", "NOTBUGS_EXTENSIONS"
LISTS = ("ATTACKS", "CONTROLS", "CONSTRUCTIONS", "METRICS")
Part = TypeVar("Part")


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

    def check_names(self, taken: Collection[str]) -> None:
        """Raises InputError for a name that two entries have, or that is one of `taken`."""
        for name in self.names:
            if name in taken or self.names.count(name) > 1:
                raise InputError(VARIABLE, "must name entries with names of their own", name, "rename it")

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


def load_extensions() -> Extensions:
    """What all extensions register.

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
    found.check_names(())
    return found


@cache
def registered() -> Extensions:
    """What all extensions register, read once."""
    return load_extensions()


def _listed(imported: object, module: str, name: str, kind: type[Part]) -> list[Part]:
    """A list of a module; empty if it does not have it."""
    entries = getattr(imported, name, [])
    if not isinstance(entries, list | tuple) or not all(isinstance(each, kind) for each in entries):
        rule = f"{module} must have a list {name} of notbugs.extensions.{kind.__name__}"
        raise InputError(VARIABLE, rule, type(entries).__name__)
    return [*entries]


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
