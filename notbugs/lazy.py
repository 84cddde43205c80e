"""A package whose functions and submodules load when they are first used (PEP 562), some of them under one name.

`notbugs.train` is the package with `fit` and its losses, and a function: `notbugs.train(data)`. The import system makes a
submodule an attribute of its package whenever anybody imports it, and a function of the same name would be gone. Such a submodule
is therefore callable itself.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import ModuleType

EXAMPLES = "Examples\n--------"  # in a docstring


class CallableModule(ModuleType):
    """A submodule that is also a function: it calls the one of its name in `_functions_in`."""

    _functions_in: str
    _own_doc: str

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """Of the function, without its examples, then of the package: what `help` shows."""
        summary, _, text = (inspect.getdoc(self._function) or "").partition(EXAMPLES)[0].partition("\n")
        bare = [each.replace(annotation=each.empty) for each in self.__signature__.parameters.values()]
        call = f"{self.__name__}{inspect.Signature(bare)}"
        return f"{summary}\n\n{call}\n{text.rstrip()}\n\nAs a package: {self._own_doc}"

    def __call__(self, *arguments: object, **named: object) -> object:
        """Call the function of the same name."""
        return self._function(*arguments, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        """Of the function, for `inspect.signature` and editors."""
        return inspect.signature(self._function)

    @property
    def _function(self) -> Callable[..., object]:
        function: Callable[..., object] = getattr(import_module(self._functions_in), self.__name__.rpartition(".")[2])
        return function


class _Package(ModuleType):
    """A package that makes submodules callable as they are set."""

    _callable: Mapping[str, str]

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._callable and isinstance(value, ModuleType) and not isinstance(value, CallableModule):
            value.__dict__.update(_functions_in=self._callable[name], _own_doc=value.__doc__ or "")
            value.__class__ = CallableModule
        super().__setattr__(name, value)


def attach(
    package: str, *, functions: Mapping[str, str], submodules: Collection[str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Parameters
    ----------
    package : str
        Its name.
    functions : mapping
        Where each function is. One that is called like a submodule is that submodule, called.
    submodules : collection of str

    Returns
    -------
    getter, lister : callable
    """
    module = sys.modules[package]
    module.__dict__["_callable"] = {name: place for name, place in functions.items() if name in submodules}
    module.__class__ = _Package

    def getter(name: str) -> object:
        if name in submodules:
            return import_module(f"{package}.{name}")
        if name in functions:
            return getattr(import_module(functions[name]), name)
        close = difflib.get_close_matches(name, [*functions, *submodules], 1)
        hint = f". Did you mean: {close[0]!r}?" if close and not name.startswith("_") else ""
        # with an object of its own: Python would add the same hint once more
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}", name=name, obj=None)

    def lister() -> list[str]:
        return sorted({*functions, *submodules, "__version__", "__doc__", "__file__", "__name__", "__path__"})

    return getter, lister
