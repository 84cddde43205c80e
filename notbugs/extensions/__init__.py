"""The one hook for code of others: attacks, controls, constructions and metrics of your own. Imports no torch.

A package names a module in its entry points; a file beside your data is named in an environment variable:

    [project.entry-points."notbugs.extensions"]        NOTBUGS_EXTENSIONS=own_control notbugs run digits --out runs/own
    anything = "my_package.controls"

The module has lists ATTACKS, CONTROLS, CONSTRUCTIONS, METRICS, or some of them. examples/own_control.py is one.
"""

from notbugs.extensions.parts import Attack, Construction, Control, Metric

__all__ = ["Attack", "Construction", "Control", "Metric"]
