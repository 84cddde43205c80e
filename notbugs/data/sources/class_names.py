"""Names of classes that stand beside numbers, in a column, a list or a mapping of their own; and names that are one name."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from notbugs.data.names import one_form, printable
from notbugs.data.sources.splits import listed
from notbugs.data.sources.text import json_of
from notbugs.data.sources.words import NAME_COLUMN, plain_name
from notbugs.errors import InputError

Naming = Mapping[int, str]  # the name of each number

# Lists and mappings: class_names, class_to_idx, id2label
NAMINGS = frozenset(
    (
        "classes", "classnames", "labelnames", "listclasses", "categories", "targetnames", "classlist", "labellist", "classtoidx",
        "classtoindex", "classtoid", "class2idx", "class2id", "idxtoclass", "indextoclass", "idx2class", "id2class", "label2id",
        "labeltoid", "label2idx", "labeltoidx", "id2label", "idtolabel", "idx2label", "idxtolabel", "labelmap", "classmap",
        "labelmapping", "classmapping", "cattoname", "labeltoname", "idtoname", "classindict", "nametoidx", "categorynames",
    )
)  # fmt: skip
NUMBERED = np.dtype([("number", np.int64), ("name", object)])  # an array of names whose numbers are not 0, 1, 2, …
BRACKETS = re.compile(r"\s*(\[.*\]|\{.*\}|\(.*\))\s*", re.DOTALL)  # "['cat', 'dog']" is Python, not JSON
NAMED = "a list of words, or a mapping of words to whole numbers"


def is_naming(key: str) -> bool:
    """Whether something is called like a list or a mapping of class names; of a path, its end.

    Examples
    --------
    >>> is_naming("class_to_idx"), is_naming("meta/id2label"), is_naming("labels")
    (True, True, False)
    """
    return plain_name(key.rpartition("/")[2]) in NAMINGS


def is_name_column(column: str) -> bool:
    """Whether a column is called like one that has a word for each number of another one.

    Examples
    --------
    >>> is_name_column("label_name"), is_name_column("Class Text"), is_name_column("file_name")
    (True, True, False)
    """
    return NAME_COLUMN.fullmatch(plain_name(column)) is not None


def naming_of(value: object) -> Naming | None:
    """The names that a list or a mapping gives to numbers, also as JSON or as words with commas; None if it does not.

    Examples
    --------
    >>> naming_of(["cat", "dog"]), naming_of({"cat": 1, "dog": 2}), naming_of('{"0": "cat", "1": "dog"}'), naming_of(10)
    ({0: 'cat', 1: 'dog'}, {1: 'cat', 2: 'dog'}, {0: 'cat', 1: 'dog'}, None)
    >>> naming_of("cat, dog"), naming_of("['cat', 'dog']")
    ({0: 'cat', 1: 'dog'}, None)
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        try:
            value = json_of(value)
        except (ValueError, RecursionError):
            words = [] if BRACKETS.fullmatch(cast(str, value)) else cast(str, value).split(",")
            value = [word.strip() for word in words] if len(words) > 1 else None
    if isinstance(value, Mapping):
        pairs = [(_number(name), text) if isinstance(text, str) else (_number(text), name) for name, text in value.items()]
    elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        pairs = list(enumerate(value))
    else:
        return None
    words = [text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text for _, text in pairs]
    numbers = [number for number, _ in pairs if number is not None]
    if len(set(numbers)) < len(pairs) or not pairs or not all(isinstance(word, str) for word in words):
        return None
    return dict(sorted(zip(numbers, words, strict=True)))


def _number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def named_array(place: str, value: object) -> np.ndarray:
    """A list or a mapping of class names as an array. Raises InputError where it is none."""
    naming = naming_of(value)
    if naming is None:
        raise InputError(printable(place), f"must be {NAMED}", printable(str(value)[:60]), "save the class names as a list")
    return np.array(list(naming.items()), dtype=NUMBERED)


def naming_in(array: np.ndarray, place: str) -> Naming:
    """The names that an array gives to numbers: to 0, 1, 2, … unless it says others. Raises InputError for other fields."""
    if array.dtype.names and array.dtype != NUMBERED:
        got = f"the fields {listed(array.dtype.names)}"
        raise InputError(printable(place), f"must be {NAMED}", got, "save the class names as a list")
    if array.dtype.names:
        return {int(number): str(name) for number, name in array.tolist()}
    return dict(enumerate(text(name) for name in array.ravel().tolist()))


def text(value: object) -> str:
    """A value of an array as text."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def naming_by_rows(place: str, numbers: Sequence[int], words: Sequence[str], columns: tuple[str, str], remedy: str) -> Naming:
    """The one word that stands beside each number, in as many rows.

    Parameters
    ----------
    place : str
        For messages.
    numbers, words : sequence, (N,)
    columns : (str, str)
        What the numbers and the words are called.
    remedy : str
        Of the error.

    Raises
    ------
    InputError
        If a number has two words, or a word two numbers: one of them may be no label, or wrong.
    """
    pairs = sorted(set(zip(numbers, words, strict=True)))
    naming = dict(pairs)
    if len(naming) < len(pairs) or len(set(naming.values())) < len(pairs):
        number, word = columns
        rule = f"{number} and {word} must mean the same classes"
        doubled = {number for number, times in Counter(number for number, _ in pairs).items() if times > 1}
        doubled_words = {word for word, times in Counter(word for _, word in pairs).items() if times > 1}
        seen = [f"{number} = {word}" for number, word in pairs if number in doubled or word in doubled_words]
        raise InputError(printable(place), rule, listed(seen, 3), remedy)
    return naming


def apply_naming(labels: Sequence[int], naming: Naming, place: str) -> tuple[list[int], tuple[str, ...]]:
    """Numbers as indices into the names, in the order of their numbers. Raises InputError for a number without a name."""
    index = {number: i for i, number in enumerate(sorted(naming))}
    if unnamed := [label for label in labels if label not in index]:
        names = listed([f"{number} = {name}" for number, name in sorted(naming.items())], 3)
        raise InputError(printable(place), f"must be numbers that have a class name: {names}", unnamed[0], "name all classes")
    return [index[label] for label in labels], tuple(naming[number] for number in sorted(naming))


def one_name(word: str) -> str:
    """A class name in one Unicode form, without blanks around it."""
    return one_form(word).strip()


def as_one_name(words: Iterable[str]) -> tuple[list[str], str]:
    """Labels in one form each, and a note with what was changed, "" if nothing was.

    Examples
    --------
    >>> as_one_name(["cat", "cat ", "dog"])
    (['cat', 'cat', 'dog'], "labels are read without blanks around them and in one Unicode form: 1 of 3, 'cat ' for example")
    """
    given = list(words)
    forms = {word: one_name(word) for word in set(given)}
    changed = [word for word in given if forms[word] != word]
    how = "labels are read without blanks around them and in one Unicode form"
    example = f"{len(changed):,} of {len(given):,}, {printable(changed[0])!r} for example" if changed else ""
    return [forms[word] for word in given], f"{how}: {example}" if changed else ""
