"""The one hook for code of others: attacks, controls, constructions and metrics of your own. Imports no torch.

A package names a module in its entry points; a file beside your data is named in an environment variable:

    [project.entry-points."notbugs.extensions"]        NOTBUGS_EXTENSIONS=own_control notbugs run digits --out runs/own
    anything = "my_package.controls"

The module has lists ATTACKS, CONTROLS, CONSTRUCTIONS, METRICS, or some of them. examples/own_control.py is one.
"""

from notbugs.extensions.parts import Attack, Construction, Control, Metric
from notbugs.extensions.registry import (
    VARIABLE,
    Extensions,
    check_as_in_command,
    check_present,
    check_unchanged,
    command_prefix,
    function_of,
    load_extensions,
    registered,
)

__all__ = [
    "VARIABLE",
    "Attack",
    "Construction",
    "Control",
    "Extensions",
    "Metric",
    "check_as_in_command",
    "check_present",
    "check_unchanged",
    "command_prefix",
    "function_of",
    "load_extensions",
    "registered",
]
