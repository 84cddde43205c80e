"""An extension of griffe, which collects the reference: there `train`, `audit` and `study` are packages."""

from pathlib import Path
from typing import Any

import griffe


class PackagesStayPackages(griffe.Extension):  # type: ignore[misc]
    """The stub of `notbugs` declares objects of these names, for type checkers alone."""

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Once the members of a file are collected, before a stub is merged into its module."""
        if isinstance(mod.filepath, Path) and mod.filepath.suffix == ".pyi":
            for name in ("train", "audit", "study"):
                mod.members.pop(name, None)
