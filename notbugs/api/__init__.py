"""The functions that `import notbugs` offers: thin over the packages that do the work."""

from notbugs.api.classifiers import Attacked, attack, train
from notbugs.api.constructions import make_nonrobust, make_robust, relabel
from notbugs.api.finished_run import Run
from notbugs.api.inputs import LabeledData, load_dataset
from notbugs.api.runs import audit, score_files, study

__all__ = [
    "Attacked",
    "LabeledData",
    "Run",
    "attack",
    "audit",
    "load_dataset",
    "make_nonrobust",
    "make_robust",
    "relabel",
    "score_files",
    "study",
    "train",
]
