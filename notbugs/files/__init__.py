"""Scores for each file: robust and non-robust evidence, likely label errors, spurious cues."""

from notbugs.files.run import FilesConfig, run, split

__all__ = ["FilesConfig", "run", "split"]
