"""The file that `--class-map` takes, where the outputs of an audited model seem to stand in another order than the classes."""

import json
from collections.abc import Sequence

import numpy as np

from notbugs.atomic import atomic_write_text
from notbugs.attacks.sanity_checks.class_order import MAP_FILE
from notbugs.models.class_order import find_order
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditFileRow


def write_class_map(run: RunFolder, classes: Sequence[str]) -> None:
    """Write the output of each class, if the clean predictions of a finished audit show another order; the check says so, too."""
    index, rows = {name: number for number, name in enumerate(classes)}, run.rows(AuditFileRow)
    predicted = np.array([index.get(row.predicted, -1) for row in rows], dtype=np.int64)
    known = predicted >= 0
    labels = np.array([index[row.label] for row in rows], dtype=np.int64)
    if found := find_order(predicted[known], labels[known], classes):
        outputs = dict(zip(classes, found.outputs, strict=True))
        atomic_write_text(run.folder / MAP_FILE, json.dumps(outputs, indent=1, ensure_ascii=False) + "\n")
