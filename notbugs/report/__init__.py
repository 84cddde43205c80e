"""Run folder to pages. Imports no torch."""

from notbugs.report.runs_beside import index_beside
from notbugs.report.write import write

__all__ = ["index_beside", "write"]
