"""What every form of a data set is located as, and how its parts become one set."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol, overload

from notbugs.data.names import Unreadable, is_number, is_printable, one_form, printable
from notbugs.data.pixel_arrays import PixelArrays
from notbugs.data.sources.splits import listed
from notbugs.data.sources.targets import measurement_note
from notbugs.decoding.headers import EncodedImage
from notbugs.errors import InputError

HOLDS_ARCHIVES = "holds archives"  # a rule of errors
NO_GROUP = "add the column there, or leave --group out"
Files = Sequence[EncodedImage] | PixelArrays
# How tables write that there is no label
MISSING = (
    "nan",
    "<na>",
    "na",
    "n/a",
    "null",
    "none",
    "?",
    "-",
    "-1",
    "unknown",
    "undefined",
    "missing",
    "ignore",
    "void",
    "todo",
    "tbd",
)
SIGNS = re.compile(r"(?<=[^\W\d])[._-]+|[._-]+(?=[^\W\d])")  # beside letters: those between numbers tell 1.5 from 15
MOST_CLASSES = 2**20  # a damaged label must not become a list of as many class names


class Part(NamedTuple):
    """One part of a data set, as its source has it.

    Attributes
    ----------
    name : str
        As the source calls it, "train" for example.
    files : sequence of EncodedImage, or PixelArrays
    labels : list of int, (N,)
        Indices into `classes`.
    classes : tuple of str
    names : list of str, (N,)
    locations : list of str, (N,)
        Where each image is, for messages.
    groups : list of str, (N,), or empty
        The value of the column that `DataConfig.group` names.
    """

    name: str
    files: Files
    labels: list[int]
    classes: tuple[str, ...]
    names: list[str]
    locations: list[str]
    groups: list[str] = []  # noqa: RUF012  # never changed


class Located(NamedTuple):
    """A data set before decoding: the training part first, then the test part, if there is one.

    Attributes
    ----------
    files : sequence of EncodedImage, or PixelArrays
    labels : list of int, (N,)
    names : list of str, (N,)
    locations : list of str, (N,)
        Where each image is, for messages.
    n_train : int
        Size of the training part; 0 if there is only a test part, N if there is none.
    classes : tuple of str
    form : str
        The form for `data.export`.
    notes : tuple of str
        What was decided on the way, for the user: one sentence each.
    unreadable : tuple of Unreadable
        Files that should have been read and cannot be.
    left_out : tuple of Unreadable
        What is left out on purpose, with the reason: system files, tables beside the images, unused parts.
    groups : list of str, (N,), or empty
    only_test : bool
        Whether there is no training part.
    """

    files: Files
    labels: list[int]
    names: list[str]
    locations: list[str]
    n_train: int
    classes: tuple[str, ...]
    form: str
    notes: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    left_out: tuple[Unreadable, ...] = ()
    groups: list[str] = []  # noqa: RUF012  # never changed
    only_test: bool = False


@contextmanager
def errors_about(source: Path, folder: Path) -> Iterator[None]:
    """Errors inside name what the user gave in place of a folder to which it was unpacked."""
    try:
        yield
    except InputError as error:
        names = ((str(folder), str(source)), (printable(str(folder)), printable(str(source))))
        parameter, rule, got, remedy = (
            text and reduce(lambda text, name: text.replace(*name), names, text) for text in error.args
        )
        if rule == HOLDS_ARCHIVES:  # they lie in the cache
            remedy = f"unpack {printable(source.name)}, and what is in it"
        raise InputError(parameter, rule, got, remedy) from None


def about(located: Located, source: Path, folder: Path) -> Located:
    """A data set whose messages name what the user gave in place of a folder to which it was unpacked."""

    def renamed(items: Sequence[Unreadable]) -> tuple[Unreadable, ...]:
        return tuple(Unreadable(place.replace(str(folder), str(source)), reason) for place, reason in items)

    places = [place.replace(str(folder), str(source)) for place in located.locations]
    return located._replace(locations=places, unreadable=renamed(located.unreadable), left_out=renamed(located.left_out))


def are_names(names: Sequence[object], count: int) -> bool:
    """Whether values can serve as image names: `count` different, printable, non-empty strings."""
    valid = all(isinstance(name, str) and name and is_printable(name) for name in names)
    return valid and len(set(names)) == len(names) == count


def unused_names(what: str) -> str:
    """The note on names that cannot serve as image names."""
    return f"{what} is not used, images are numbered: it does not name each image, and each by another name"


def join(dataset: str, train: Part | None, test: Part | None, form: str, notes: Sequence[str] = ()) -> Located:
    """The parts as one set. Labels are matched by the names of the classes, never by number.

    The training part says which classes there are, and in which order. Names that are whole numbers are matched as numbers where
    they differ only in zeros in front: 00007 and 7.

    Raises
    ------
    InputError
        If the test part has images of a class that the training part does not have.
    """
    parts = [part for part in (train, test) if part is not None]
    if len({bool(part.groups) for part in parts}) > 1:
        raise InputError(
            "--group",
            "must be a column of each part",
            f"none in {next(part.name for part in parts if not part.groups)}",
            NO_GROUP,
        )
    classes = parts[0].classes
    labels, found = list(parts[0].labels), [*notes, *_similar_names(classes)]
    found += [note] if (note := measurement_note(labels, classes)) else []
    for part in parts[1:]:
        matched, note = _match_classes(dataset, part, classes)
        labels += matched
        found += [note] if note else []
    return Located(
        _concatenated([part.files for part in parts]),
        labels,
        [name for part in parts for name in part.names],
        [location for part in parts for location in part.locations],
        len(train.labels) if train else 0,
        classes,
        form,
        tuple(found),
        groups=[group for part in parts for group in part.groups],
        only_test=train is None,
    )


def _similar_names(classes: Sequence[str]) -> list[str]:
    """Notes on classes whose names hardly differ, which may be one class; and on those called like a missing label."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        key = SIGNS.sub("", "".join(one_form(name).split())).casefold()
        alike.setdefault(key.lstrip("0") if key.isdecimal() else key, []).append(name)
    pairs = [" and ".join(repr(printable(name)) for name in names) for names in alike.values() if len(names) > 1]
    more = f", and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    of_signs = any(SIGNS.search(name) for names in alike.values() if len(names) > 1 for name in names)
    how = f"case, blanks, {'signs, ' * of_signs}zeros in front or Unicode form"
    kept = f"classes whose names differ only in {how} are kept apart: {', '.join(pairs[:3])}{more}"
    signs = {"-1", "1"} >= {*classes}  # of two classes
    missing = [
        f"class {printable(name)} may be of missing labels" for name in classes if name.casefold() in MISSING and not signs
    ]
    return [*([kept] if pairs else []), *missing]


def _match_classes(dataset: str, part: Part, classes: tuple[str, ...]) -> tuple[list[int], str]:
    """The labels of a part as indices into the classes of the training part, and a note if something had to be decided."""
    if part.classes == classes:
        return part.labels, ""
    different = len({*map(one_form, classes)}) == len(classes)  # else each name stands for itself
    index, note = {one_form(name) if different else name: number for number, name in enumerate(classes)}, ""
    used = set(part.labels)
    theirs = {label: one_form(name) if different else name for label, name in enumerate(part.classes) if label in used}
    if any(name not in index for name in theirs.values()) and (numbers := _as_numbers(classes)) and _as_numbers(part.classes):
        theirs = {label: numbers.get(int(name), name) for label, name in theirs.items()}
        note = f"classes are matched as numbers: {printable(part.name)} writes them differently, {classes[0]} in training"
    missing = [label for label, name in theirs.items() if name not in index]
    if missing:
        place = printable(part.locations[part.labels.index(missing[0])])
        rule = f"has a class that the training part does not have: {printable(theirs[missing[0]])}"
        like = next((name for name in classes if name.casefold() == theirs[missing[0]].casefold()), "")
        remedy = f"write it like {printable(like)} in training" if like else "rename or remove these images"
        raise InputError(f"{printable(dataset)}, part {printable(part.name)}", rule, place, remedy)
    if not note and (others := sorted(part.classes[label] for label in theirs if part.classes[label] not in classes)):
        note = f"classes are matched in one Unicode form: {printable(part.name)} writes {listed(others)} in another one"
    return [index[theirs[label]] if label in theirs else label for label in part.labels], note


def _as_numbers(classes: Sequence[str]) -> dict[int, str]:
    """Class names by the whole number that they are; empty unless all are different ones."""
    if not all(map(is_number, classes)):
        return {}
    numbers = {int(name): name for name in classes}
    return numbers if len(numbers) == len(classes) else {}


class _FilesByRow(Protocol):
    """What is chained: a sequence, or a shard of constructed images."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> EncodedImage: ...


@dataclass(frozen=True)
class ChainedFiles(Sequence[EncodedImage]):
    """Several sequences of encoded images, one after the other. None of them is read or copied."""

    parts: tuple[_FilesByRow, ...]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(map(len, self.parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedImage]: ...
    def __getitem__(self, index: int | slice) -> EncodedImage | Sequence[EncodedImage]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        number = bisect_right(self._starts, row) - 1
        return self.parts[number][row - self._starts[number]]


def _concatenated(files: Sequence[Files]) -> Files:
    if len(files) == 1:
        return files[0]
    pixels = [part for part in files if isinstance(part, PixelArrays)]
    if len(pixels) == len(files):
        return PixelArrays(tuple(array for part in pixels for array in part.arrays))
    return ChainedFiles(tuple(part for part in files if not isinstance(part, PixelArrays)))


def numbered_classes(labels: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """Labels without names as indices into classes that are called like the numbers: from 0, or from the lowest where that is 1.

    -1 and 1 are two classes.

    Raises
    ------
    InputError
        If a label is 2**20 or more.

    Examples
    --------
    >>> numbered_classes([0, 2, 1]), numbered_classes([1, 2])
    (([0, 2, 1], ('0', '1', '2')), ([0, 1], ('1', '2')))
    """
    if (highest := max(labels, default=0)) >= MOST_CLASSES:
        raise InputError("labels", f"must be below {MOST_CLASSES:,}", highest, "save the labels as words")
    if {*labels} == {-1, 1}:
        return [max(label, 0) for label in labels], ("-1", "1")
    first = 1 if labels and min(labels) == 1 else 0
    return [label - first for label in labels], tuple(map(str, range(first, highest + 1)))


def sorted_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Different class names in order: whole numbers by value, others as text.

    Examples
    --------
    >>> sorted_classes(["10", "2", "2"]), sorted_classes(["dog", "Cat"])
    (('2', '10'), ('Cat', 'dog'))
    """
    different = set(names)
    return tuple(sorted(different, key=int) if _as_numbers(list(different)) else sorted(different))
