"""Run folder to pages. Imports no torch."""

from notbugs.report.write import write

__all__ = ["write"]
