"""Reviewers' answers: accuracy of people on each set, and the difference from another set. Imports no torch.

Correct is the label that the image's set gives it: on a relabeled set a person who sees well is wrong.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from notbugs import stats
from notbugs.errors import InputError
from notbugs.review.files import (
    ANSWER_COLUMNS,
    KEY_COLUMNS,
    KEY_FILE,
    MAX_PAGE_BYTES,
    PAGE_FILE,
    REVIEWER_NAME,
    answer_files,
    quoted,
    read_csv,
    read_file,
    review_folder,
)
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.tables.review import ReviewAnswerRow, ReviewDifferenceRow, ReviewSummaryRow
from notbugs.runs.tables.row import Row
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import SETS

CANNOT_TELL = "cannot tell"

# ---- reading answers ---------------------------------------------------------------------------------------------------------


def load_answers(folder: Path) -> list[ReviewAnswerRow]:
    """What reviewers answered: the key and every other .csv in review/.

    Of several answers of a reviewer to one image the last one counts, in the order of `files.answer_files`.

    Parameters
    ----------
    folder : Path
        Of a study.

    Returns
    -------
    list of ReviewAnswerRow
        Empty if nobody has answered.

    Raises
    ------
    InputError
        For a file that is no such table, and for a row with an id or a class that the review does not have.
    """
    run = RunFolder.read(folder)
    review = review_folder(run.folder)
    files = answer_files(run.folder)
    if not (review / KEY_FILE).exists():
        if not files:
            return []
        raise InputError(str(review), f"must hold {KEY_FILE}, which says what the answers are about", remedy="put it back")
    key = _read_key(review)
    classes = frozenset(run.study().data.classes)
    found: dict[tuple[str, str], ReviewAnswerRow] = {}
    for path in files:
        for line, cells in read_csv(path, ANSWER_COLUMNS):
            row = _answer_row(f"{path}, line {line}", cells, key, classes)
            found[row.reviewer, cells[1]] = row
    return list(found.values())


def answers_or_problem(folder: Path) -> tuple[list[ReviewAnswerRow], str]:
    """The answers and "", or no answers and what is wrong with a file: a report is not to fail for it."""
    try:
        return load_answers(folder), ""
    except InputError as error:
        return [], str(error)


def merge(run: RunFolder) -> None:
    """Write the tables of the answers; without answers, or with a damaged file, there are none."""
    rows, _ = answers_or_problem(run.folder)
    tables: dict[type[Row], Sequence[Row]] = {
        ReviewSummaryRow: summary(rows),
        ReviewDifferenceRow: differences(rows),
        ReviewAnswerRow: rows,
    }
    for row_type, table in tables.items():
        path = run.folder / "tables" / f"{row_type.table}.csv"
        if table:
            write_table(table, path)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".parquet").unlink(missing_ok=True)


class _KeyEntry(NamedTuple):
    set: str
    file: str
    label: str


def _read_key(review: Path) -> dict[str, _KeyEntry]:
    """By id, which image it is."""
    return {image_id: _KeyEntry(*entry) for _, (image_id, *entry) in read_csv(review / KEY_FILE, KEY_COLUMNS)}


def _answer_row(location: str, cells: Sequence[str], key: dict[str, _KeyEntry], classes: frozenset[str]) -> ReviewAnswerRow:
    reviewer, image_id, answer, seconds = cells
    reviewer = reviewer.strip()
    if not re.fullmatch(REVIEWER_NAME, reviewer):
        rule = "must name its reviewer, with at most 100 characters, the first of them no =, +, - or @"
        raise InputError(location, rule, quoted(reviewer))
    if image_id not in key:
        raise InputError(location, "must have an id of this review", quoted(image_id), "remove what belongs to another page")
    if answer and answer not in classes:
        raise InputError(location, "must have a class of the data as its answer, or nothing", quoted(answer))
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", seconds, re.ASCII):
        raise InputError(location, "must have its seconds, as a number", quoted(seconds))
    entry = key[image_id]
    return ReviewAnswerRow(
        reviewer=reviewer,
        **entry._asdict(),
        answer=answer,
        correct=answer == entry.label,
        seconds=float(seconds),
    )


# ---- accuracy of people ------------------------------------------------------------------------------------------------------


def summary(rows: Sequence[ReviewAnswerRow]) -> list[ReviewSummaryRow]:
    """One row per set: the accuracy of people on it.

    `accuracy` is the mean of the reviewers' accuracies; `unsure` and `other_class` are shares of the answers; `seconds` is the
    median. For the interval see `_interval`.
    """
    found = []
    for name in in_order(SETS, (row.set for row in rows)):
        sample = [row for row in rows if row.set == name]
        accuracies, interval = by_reviewer(sample), _interval([sample])
        unsure = sum(row.answer == "" for row in sample)
        found.append(
            ReviewSummaryRow(
                set=name,
                reviewers=len(accuracies),
                images=len({row.file for row in sample}),
                answers=len(sample),
                correct=sum(row.correct for row in sample),
                accuracy=fmean(accuracies.values()),
                ci_low=max(interval.low, 0.0),
                ci_high=min(interval.high, 1.0),
                unsure=unsure / len(sample),
                other_class=sum(not row.correct for row in sample) / len(sample) - unsure / len(sample),
                seconds=median(row.seconds for row in sample),
                interval_over=interval.over,
            )
        )
    return found


def differences(rows: Sequence[ReviewAnswerRow], against: str = "original") -> list[ReviewDifferenceRow]:
    """One row per other set: its accuracy minus that on `against`, of the reviewers who saw both; in [-1, 1]."""
    names = in_order(SETS, (row.set for row in rows))
    reference = [row for row in rows if row.set == against]
    found = []
    for name in names:
        sample = [row for row in rows if row.set == name]
        both = by_reviewer(sample).keys() & by_reviewer(reference).keys()
        if name == against or not both:
            continue
        pair = [[row for row in part if row.reviewer in both] for part in (sample, reference)]
        accuracy, accuracy_against = (fmean(by_reviewer(part).values()) for part in pair)
        interval = _interval(pair)
        found.append(
            ReviewDifferenceRow(
                set=name,
                against=against,
                reviewers=len(both),
                accuracy=accuracy,
                accuracy_against=accuracy_against,
                difference=accuracy - accuracy_against,
                ci_low=max(interval.low, -1.0),
                ci_high=min(interval.high, 1.0),
                interval_over=interval.over,
            )
        )
    return found


def by_reviewer(rows: Iterable[ReviewAnswerRow]) -> dict[str, float]:
    """Each reviewer's accuracy.

    Examples
    --------
    >>> row = ReviewAnswerRow(reviewer="A", set="robust", file="1.png", label="7", answer="7", correct=True, seconds=2.0)
    >>> by_reviewer([row])
    {'A': 1.0}
    """
    correct: dict[str, list[bool]] = {}
    for row in rows:
        correct.setdefault(row.reviewer, []).append(row.correct)
    return {reviewer: sum(flags) / len(flags) for reviewer, flags in correct.items()}


class _Interval(NamedTuple):
    low: float
    high: float
    over: str


def _interval(samples: Sequence[Sequence[ReviewAnswerRow]]) -> _Interval:
    """95 % CI of the accuracy on one set, or of its difference from that on another, and what it is over.

    Over images: Wilson's interval of the mean accuracy, Newcombe's of a difference. Of several reviewers, who are a sample, too:
    also Student's from a variance clustered by images and by reviewers; the wider end counts on either side, so that agreement
    is not taken for certainty.
    """
    means = [fmean(by_reviewer(sample).values()) for sample in samples]
    low, high = _interval_over_images(means, [len({row.file for row in sample}) for sample in samples])
    if len(by_reviewer(samples[0])) == 1:
        return _Interval(low, high, "images")
    half_width, value = _clustered_half_width(samples, means), means[0] - sum(means[1:])
    if half_width > 0:
        low, high = min(low, value - half_width), max(high, value + half_width)
    return _Interval(low, high, "images and reviewers")


def _interval_over_images(means: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    intervals = [stats.wilson_interval(round(mean * n), n) for mean, n in zip(means, counts, strict=True)]
    if len(means) == 1:
        return intervals[0]
    _, low, high = stats.newcombe_difference((means[0], *intervals[0]), (means[1], *intervals[1]))
    return low, high


def _clustered_half_width(samples: Sequence[Sequence[ReviewAnswerRow]], means: Sequence[float]) -> float:
    """Half of Student's 95 % interval, clustered by images and by reviewers, with Satterthwaite's degrees of freedom; or 0.

    Source: Cameron, Gelbach & Miller 2011.
    """
    from scipy.stats import t

    of_images, of_answers, images = 0.0, 0.0, 0
    of_reviewers = dict.fromkeys(by_reviewer(samples[0]), 0.0)
    for sign, mean, sample in zip((1, -1), means, samples, strict=False):
        by_image: dict[str, float] = {}
        for row, influence in zip(sample, _influences(sample, sign, mean), strict=True):
            by_image[row.file] = by_image.get(row.file, 0.0) + influence
            of_reviewers[row.reviewer] += influence
            of_answers += influence**2
        of_images += sum(influence**2 for influence in by_image.values()) * len(by_image) / max(len(by_image) - 1, 1)
        images += len(by_image) - 1
    reviewers = len(of_reviewers)
    among_reviewers = sum(influence**2 for influence in of_reviewers.values()) * reviewers / (reviewers - 1)
    variance = max(of_images + among_reviewers - of_answers, of_images, among_reviewers)
    if variance <= 0:
        return 0.0
    degrees = variance**2 / (of_images**2 / max(images, 1) + among_reviewers**2 / (reviewers - 1) or variance**2)
    return float(t.ppf(0.975, max(degrees, 1.0))) * math.sqrt(variance)


def _influences(sample: Sequence[ReviewAnswerRow], sign: int, mean: float) -> list[float]:
    """Of each answer on the value: how far it moves the mean of the reviewers' means."""
    counts = Counter(row.reviewer for row in sample)
    return [sign * (row.correct - mean) / (len(counts) * counts[row.reviewer]) for row in sample]


# ---- images that people misclassified ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MisclassifiedImage:
    """An image that people did not classify as labeled.

    Attributes
    ----------
    file, label : str
    wrong, answers : int
        Answers that are not the label, of so many.
    given : str
        Those answers, most common first.
    picture : str
        A data URL from review.html; "" if that is gone.
    """

    file: str
    label: str
    wrong: int
    answers: int
    given: str
    picture: str


def misclassified_images(folder: Path, rows: Sequence[ReviewAnswerRow], most: int = 6) -> dict[str, list[MisclassifiedImage]]:
    """By set, the images that the largest share of people did not classify as labeled.

    Parameters
    ----------
    folder : Path
        Of a study; review.html has the pictures.
    rows : sequence of ReviewAnswerRow
    most : int
        Images per set at most.
    """
    by_image: dict[tuple[str, str], list[ReviewAnswerRow]] = {}
    for row in rows:
        by_image.setdefault((row.set, row.file), []).append(row)
    pictures = _page_pictures(folder) if by_image else {}
    found: dict[str, list[MisclassifiedImage]] = {name: [] for name in in_order(SETS, (name for name, _ in by_image))}
    for (name, file), answers in by_image.items():
        if wrong := [row.answer or CANNOT_TELL for row in answers if not row.correct]:
            picture = pictures.get((name, file), "")
            image = MisclassifiedImage(file, answers[0].label, len(wrong), len(answers), _listed(wrong, len(answers)), picture)
            found[name].append(image)
    return {
        name: sorted(images, key=lambda image: (-image.wrong / image.answers, -image.wrong))[:most]
        for name, images in found.items()
        if images
    }


def _listed(given: Sequence[str], answers: int) -> str:
    """Answers, most common first, with their counts if there are several answers."""
    counts = sorted(Counter(given).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{word} ({count})" if answers > 1 else word for word, count in counts)


def _page_pictures(folder: Path) -> dict[tuple[str, str], str]:
    """By set and file, the data URL in review.html. Empty if the page is gone or another."""
    review = review_folder(folder)
    key = _read_key(review)
    try:
        text = read_file(review / PAGE_FILE, MAX_PAGE_BYTES).decode("utf-8")
        content = re.findall(r'<script type="application/json" id="review">(.*?)</script>', text, re.S)[0]
        images = json.loads(content)["images"]
        found = {key[image["id"]]: str(image["source"]) for image in images if image["id"] in key}
    except (InputError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    valid = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
    return {(entry.set, entry.file): source for entry, source in found.items() if valid.fullmatch(source)}
