"""Problems of classes: too small, not in the test part, imbalanced, or another class once mirrored."""

from collections.abc import Sequence

import numpy as np

from notbugs.data import Dataset
from notbugs.datacheck.mirroring import Mirroring
from notbugs.runs.tables.data_check import DataCheckRow

FEW_TEST_IMAGES = 10  # of a class
UNEVEN, VERY_UNEVEN = 3, 10  # largest / smallest class
EXAMPLES = 3
MORE_IMAGES = "Add images to these classes, merge classes or remove them."
MIRRORING = "mirroring changes the class"


def class_findings(train: Dataset | None, test: Dataset, folds: int, *, chosen: bool = False) -> list[DataCheckRow]:
    """Findings on the number of images of each class; chosen: `test` are only some images of the test part, as asked for."""
    names = test.classes
    in_test = test.labels.bincount(minlength=len(names)).numpy()
    if chosen:
        meaning, remedy = "Nothing is measured on these classes: these images were not chosen.", "Attack more images."
        name = "classes without attacked images"
        return [_class_finding(name, in_test == 0, names, meaning, remedy, serious=False)] if (in_test == 0).any() else []
    in_train = train.labels.bincount(minlength=len(names)).numpy() if train else in_test
    findings = []
    if train and (in_train < folds).any():
        meaning = f"`notbugs files` with {folds} folds cannot score these classes, and no classifier learns much of them."
        findings.append(_class_finding(f"classes with fewer than {folds} training images", in_train < folds, names, meaning))
    if (in_test == 0).any():
        meaning = "Nothing is measured on these classes: accuracy and robust accuracy are those of the other classes."
        findings.append(_class_finding("classes without test images", in_test == 0, names, meaning))
    few = (in_test > 0) & (in_test < FEW_TEST_IMAGES)
    if few.any():
        meaning = "Accuracy of each of these classes has a wide confidence interval."
        name = f"classes with fewer than {FEW_TEST_IMAGES} test images"
        findings.append(_class_finding(name, few, names, meaning, serious=False))
    return findings + _imbalance(in_train, in_test, names)


def _class_finding(
    problem: str, which: np.ndarray, names: Sequence[str], meaning: str, remedy: str = MORE_IMAGES, *, serious: bool = True
) -> DataCheckRow:
    found = [name for name, chosen in zip(names, which, strict=True) if chosen]
    return DataCheckRow(
        problem=problem,
        serious=serious,
        count=len(found),
        n=len(names),
        unit="classes",
        examples=listed(found),
        meaning=meaning,
        remedy=remedy,
    )


def _imbalance(counts: np.ndarray, in_test: np.ndarray, names: Sequence[str]) -> list[DataCheckRow]:
    smallest, largest = int(counts[counts > 0].min()), int(counts.max())
    if largest < UNEVEN * smallest:
        return []
    share, common = in_test.max() / in_test.sum(), names[int(in_test.argmax())]
    small = [label for label in np.argsort(counts, kind="stable").tolist() if 0 < counts[label] * UNEVEN <= largest]
    row = DataCheckRow(
        problem="imbalanced classes",
        serious=largest >= VERY_UNEVEN * smallest,
        count=len(small),
        n=len(names),
        unit=f"classes have at most a third of the {largest:,} images of {names[int(counts.argmax())]}",
        examples=listed([f"{names[label]}: {counts[label]:,}" for label in small]),
        meaning=f"Always predicting {common} is right for {100 * share:.0f} % of the test images: compare accuracy with that.",
        remedy="Compare accuracies class by class, or balance the classes.",
    )
    return [row]


def mirroring_findings(found: Mirroring, *, flips: bool) -> list[DataCheckRow]:
    """A finding if mirroring is not safe: serious if training mirrors images."""
    if found.outcome != "not safe":
        return []
    row = DataCheckRow(
        problem=MIRRORING,
        serious=flips,
        count=round(found.drop * found.n),
        n=found.n,
        unit="held-out training images, misclassified once mirrored",
        examples=listed([f"{each.name} → {each.predicted}" for each in found.turned]),
        meaning="Training with horizontal flips shows images under a wrong label: accuracy comes out too low.",
        remedy="Train with --no-flip." if flips else "Training does not flip here, unless --flip is given.",
    )
    return [row]


def listed(names: Sequence[str]) -> str:
    """At most three, and whether there are more."""
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")
