"""What a user's own code returns: `module:function`."""

import os
from types import ModuleType
from typing import Any

from torch import nn

from notbugs.errors import InputError, one_line
from notbugs.models.adapt import settled
from notbugs.models.reading import FixedProgram
from notbugs.user_modules import import_error, import_module, working_directory_first


def user_network(name: str, classes: int) -> nn.Module:
    """The network that a user's `module:function` returns. Raises InputError for anything else."""
    network = user_object(name, classes, "--network")
    if not isinstance(network, nn.Module):
        raise InputError("--network", f"{name} must return a torch.nn.Module", type(network).__name__)
    if isinstance(settled(network), FixedProgram):
        rule = f"{name} must return a network that can be trained, not a program of TorchScript or torch.export"
        raise InputError("--network", rule, type(network).__name__)
    return network.train()


def user_object(name: str, classes: int, option: str) -> Any:
    """What a user's `module:function` returns when called with classes=K. This runs the user's code.

    Parameters
    ----------
    name : str
        `module:function`; the working directory is searched first.
    classes : int
    option : str
        The option that named it, for errors.

    Raises
    ------
    InputError
        If the code cannot be imported or raises.
    """
    function = name.partition(":")[2]
    with working_directory_first():
        imported = _imported(name, option)
        try:
            return getattr(imported, function)(classes=classes)
        except Exception as error:  # a user's own code may raise anything
            rule = (
                f"{name} must be a function(classes=…) that returns a {'torch.nn.Module' if option == '--network' else 'model'}"
            )
            raise InputError(option, rule, one_line(error)) from None


def _imported(name: str, option: str) -> ModuleType:
    """The module of `module:function`."""
    module, rule = name.partition(":")[0], f"{name} must name a module that can be imported"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        here = f"{module.replace('.', '/')}.py is looked for in {os.getcwd()} first" if error.name == module else ""
        raise InputError(option, rule, one_line(error), here) from None
    except Exception as error:  # a user's own code may raise anything
        raise InputError(option, rule, import_error(error)) from None
