"""Scores for each file: robust and non-robust files, likely label errors, and spurious cues. By cross-fitted models."""

from notbugs.files.config import FilesConfig, crossfit_config
from notbugs.files.crossfit import CrossfitConfig
from notbugs.files.explorer import load_pictures
from notbugs.files.run import run
from notbugs.files.scores import per_file
from notbugs.files.selection import split_by_list
from notbugs.files.subsets import check_fraction, split_by_robustness

__all__ = [
    "CrossfitConfig",
    "FilesConfig",
    "check_fraction",
    "crossfit_config",
    "load_pictures",
    "per_file",
    "run",
    "split_by_list",
    "split_by_robustness",
]
