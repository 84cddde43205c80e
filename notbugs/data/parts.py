"""Which images are trained on and which are tested on: the parts of the data set, a part set aside, and a limit."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from notbugs.data.groups import grouped_folds
from notbugs.data.names import Unreadable
from notbugs.data.sources import EMBEDDED, Located
from notbugs.data_config import BEYOND_LIMIT
from notbugs.errors import InputError

TEST_SHARE = 0.2  # of each class, where there is no test part
EMBEDDED_SHARE = 0.25  # of a built-in set
NO_TEST_PART = "no test part"  # how the note begins where a part was set aside


class Rows(NamedTuple):
    """The rows of both parts, the notes, and the images that --limit leaves out."""

    train: list[int]
    test: list[int]
    notes: tuple[str, ...]
    left_out: tuple[Unreadable, ...] = ()


def split_rows(dataset: str, located: Located, seed: int) -> Rows:
    """The parts of a data set; a fifth of each class is set aside where it has no test part."""
    train, test = list(range(located.n_train)), list(range(located.n_train, len(located.labels)))
    if test:
        return Rows(train, test, (*located.notes, *_crossing_groups(located)))
    if dataset in EMBEDDED:  # a quarter, always the same
        train, test = stratified_split(located.labels, EMBEDDED_SHARE, 0)
        note = f"the test part is {EMBEDDED_SHARE:.0%} of each class, {len(test):,} images, the same for every seed"
        return Rows(train, test, (*located.notes, note))
    how = f"about {TEST_SHARE:.0%} of each class, by groups," if located.groups else f"{TEST_SHARE:.0%} of each class"
    train, test = (
        _grouped_split(located, TEST_SHARE, seed) if located.groups else stratified_split(located.labels, TEST_SHARE, seed)
    )
    few = not located.groups and min(Counter(located.labels).values()) * TEST_SHARE < 1
    least = " (at least one image)" if few else ""
    note = f"{NO_TEST_PART}: {how} set aside with seed {seed}{least}, {len(test):,} images (--test . takes all as test images)"
    return Rows(train, test, (*located.notes, note))


def _crossing_groups(located: Located) -> list[str]:
    """A note if groups have images in both parts."""
    crossing = sorted(set(located.groups[: located.n_train]) & set(located.groups[located.n_train :]))
    what = f"{len(crossing):,} groups are in the training and in the test part, {crossing[0]} for example" if crossing else ""
    return [what] if what and located.n_train else []


def stratified_split(labels: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows kept and rows set aside: of each class the share, at least one and not all; both in their order."""
    generator = np.random.default_rng(seed)
    array = np.asarray(labels)
    aside: list[int] = []
    for label in np.unique(array):
        rows = generator.permutation(np.flatnonzero(array == label))
        aside += rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)].tolist()
    chosen = set(aside)
    return [row for row in range(len(labels)) if row not in chosen], sorted(aside)


def _grouped_split(located: Located, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows kept and rows set aside, about the share of each class, so that no group is in both. Raises InputError."""
    folds = max(2, min(round(1 / share), len(set(located.groups)), *Counter(located.labels).values()))
    remedy = "take smaller groups, or put the test images into a folder of their own"
    aside = grouped_folds(located.labels, located.groups, folds, seed, located.classes, remedy) == 0
    return np.flatnonzero(~aside).tolist(), np.flatnonzero(aside).tolist()


def limited(limit: int, located: Located, rows: Rows) -> Rows:
    """The rows within --limit. The notes say how many there were; each image that is left out is listed."""
    fewest = max(limit // 8, len(located.classes))
    train, test = _some_of_each_class(rows.train, located, limit), _some_of_each_class(rows.test, located, fewest)
    left = sorted({*rows.train, *rows.test}.difference(train, test))
    if not left:
        return rows
    counts = f"{len(train):,} of {len(rows.train):,} training and {len(test):,} of {len(rows.test):,} test images"
    which = "the first of each group" if located.groups else "the first of each class"
    left_out = tuple(Unreadable(located.locations[row], f"{BEYOND_LIMIT} {limit}") for row in left)
    return Rows(train, test, (*rows.notes, f"--limit {limit}: {counts}, {which}"), left_out)


def _some_of_each_class(rows: list[int], located: Located, limit: int) -> list[int]:
    """Equally many rows of each class, at most `limit` in all: the first ones; with groups, the first of each group in turn."""
    if not rows:
        return rows
    per_class = limit // len(located.classes)
    if per_class < 1:
        raise InputError(
            "--limit",
            f"must leave one image of each of the {len(located.classes)} classes",
            limit,
            f"pass --limit {len(located.classes)} or more",
        )
    turns: Counter[tuple[int, str]] = Counter()
    turn_of = {}
    for row in rows:  # in which turn a row is taken, if each turn takes one of each group
        key = (located.labels[row], located.groups[row]) if located.groups else (located.labels[row], str(row))
        turn_of[row] = turns[key]
        turns[key] += 1
    counts: Counter[int] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: (turn_of[row], row)):
        counts[located.labels[row]] += 1
        if counts[located.labels[row]] <= per_class:
            kept.append(row)
    return sorted(kept)
