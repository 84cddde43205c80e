"""The data check: from the images to findings, the most serious first."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from notbugs.data import Dataset
from notbugs.datacheck.classes import class_findings, listed, mirroring_findings
from notbugs.datacheck.fingerprints import fingerprints
from notbugs.datacheck.images import AllImages, Problem, problems
from notbugs.datacheck.mirroring import Mirroring, measurable, measure_mirroring
from notbugs.errors import InputError
from notbugs.runs.tables.data_check import DataCheckFileRow, DataCheckRow, DataCheckSummaryRow

SERIOUS = 0.01  # share of the images from which a problem is serious


class DataCheck(NamedTuple):
    """What was checked; the problems, the most serious first; each file with a problem."""

    summary: DataCheckSummaryRow
    findings: list[DataCheckRow]
    files: list[DataCheckFileRow]


def check_data(
    train: Dataset | None,
    test: Dataset,
    *,
    folds: int = 3,
    mirroring: bool = True,
    flips: bool = False,
    chosen: bool = False,
) -> DataCheck:
    """Check a data set before anything is trained on it.

    Parameters
    ----------
    train : Dataset, optional
        None: only test images, as in an audit.
    test : Dataset
    folds : int
        Each class needs as many training images.
    mirroring : bool
        Whether to measure if mirroring is safe, which takes seconds. Needs a training part of a few images of each class.
    flips : bool
        Whether training is going to mirror images: then it is serious if that is not safe.
    chosen : bool
        Whether `test` are only some images of the test part, as asked for: then its counts say nothing of the data set.

    Returns
    -------
    DataCheck

    Raises
    ------
    InputError
        If there is no test image.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits")
    >>> check = check_data(digits.train, digits.test, mirroring=False)
    >>> check.summary.train, check.summary.imbalance < 1.1, check.findings
    (1347, True, [])
    """
    if not len(test):
        raise InputError("test", "must have at least one image")
    parts = [part for part in (train, test) if part is not None]
    images = AllImages(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.labels.numpy() for part in parts]),
        np.arange(sum(map(len, parts))) >= (len(train) if train else 0),
        fingerprints(*parts),
        test.shape,
    )
    of_images = problems(images)
    found = measure_mirroring(train) if mirroring and train and measurable(train) else None
    findings = [
        *(mirroring_findings(found, flips=flips) if found else ()),
        *(_finding(problem, images) for problem in of_images),
        *class_findings(train, test, folds, chosen=chosen),
    ]
    files = [row for problem in of_images for row in _files(problem, images)]
    return DataCheck(_summary(train, test, images, found), sorted(findings, key=lambda row: not row.serious), files)


def _finding(problem: Problem, images: AllImages) -> DataCheckRow:
    others = problem.images if problem.others is None else problem.others
    pairs = dict.fromkeys(tuple(sorted({int(i), int(j)})) for i, j in zip(problem.images, others, strict=True))
    examples = [" = ".join(_name(images, i, with_part=len({*images.in_test[list(pair)]}) > 1) for i in pair) for pair in pairs]
    return DataCheckRow(
        problem=problem.name,
        serious=problem.may_be_serious and len(problem.images) >= SERIOUS * problem.n,
        count=len(problem.images),
        n=problem.n,
        unit="images",
        examples=listed(examples),
        meaning=problem.meaning,
        remedy=problem.remedy,
    )


def _name(images: AllImages, number: int, *, with_part: bool) -> str:
    part = "test/" if images.in_test[number] else "train/"
    return f"{part if with_part else ''}{images.names[number]}"


def _files(problem: Problem, images: AllImages) -> Iterator[DataCheckFileRow]:
    for place, i in enumerate(problem.images.tolist()):
        yield DataCheckFileRow(
            file=images.names[i],
            part="test" if images.in_test[i] else "train",
            problem=problem.name,
            other_file="" if problem.others is None else images.names[problem.others[place]],
            value=None if problem.values is None else round(float(problem.values[place]), 4),
        )


def _summary(train: Dataset | None, test: Dataset, images: AllImages, found: Mirroring | None) -> DataCheckSummaryRow:
    channels, height, width = test.shape
    counts = (train or test).labels.bincount(minlength=len(test.classes))
    return DataCheckSummaryRow(
        train=len(train) if train else 0,
        test=len(test),
        classes=len(test.classes),
        width=width,
        height=height,
        channels=channels,
        compared=images.compared,
        most_common=test.labels.bincount().max().item() / len(test),
        imbalance=counts.max().item() / counts[counts > 0].min().item(),
        mirroring=found.outcome if found else "not measured",
        mirroring_n=found.n if found else None,
        accuracy=found.accuracy if found else None,
        mirrored_accuracy=found.mirrored_accuracy if found else None,
        mirroring_drop=found.drop if found else None,
        mirroring_drop_ci_low=found.ci_low if found else None,
        mirroring_drop_ci_high=found.ci_high if found else None,
    )
