"""Parts of a data set by their names: which is trained on, which is tested on, and which look like parts but may be classes."""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from notbugs import shell
from notbugs.data.names import printable
from notbugs.data.sources.words import ANNOTATIONS, NEUTRAL, SPLITS, TEST, TRAIN, VALIDATION, words_of
from notbugs.errors import InputError

WHOLE = "."  # --test .: all images of a data set without parts are test images
LABELS_MISSING = "give its images labels, of image files in a table: --labels FILE"
SIGNS = " _-.,;:+()[]{}"  # between a part and a class. Of others, \W would take the vowels of Hindi, and accents of their own


class NamedSplit(NamedTuple):
    """What a name says: "train", "test", "validation" or "unlabeled", and the unusual words beside it."""

    split: str
    others: tuple[str, ...]


def parse_split(name: str) -> NamedSplit | None:
    """The split that a name contains; None if it contains none, or two.

    Examples
    --------
    >>> parse_split("Training"), parse_split("seg_test").split, parse_split("asl_alphabet_train").others, parse_split("cats")
    (NamedSplit(split='train', others=()), 'test', ('asl', 'alphabet'), None)
    """
    splits, others = [], []
    for word in words_of(name):
        if split := _split_of_word(word):
            splits.append(split)
        elif word not in NEUTRAL:
            others.append(word)
    return NamedSplit(splits[0], tuple(others)) if len(splits) == 1 else None


def split_of(name: str) -> str:
    """ "train", "test", "validation" or "unlabeled" for a name that says nothing else, "" for others.

    Examples
    --------
    >>> split_of("Testing"), split_of("train2017"), split_of("trainset"), split_of("steam_train")
    ('test', 'train', 'train', '')
    """
    named = parse_split(name)
    return named.split if named and not named.others else ""


def splits_among(names: Collection[str]) -> dict[str, str]:
    """The splits among names that stand side by side, by name.

    A name with other words counts where another split has the same ones: asl_train beside asl_test.

    Examples
    --------
    >>> splits_among(["asl_train", "asl_test", "extra"]), splits_among(["steam_train", "car"])
    ({'asl_train': 'train', 'asl_test': 'test'}, {})
    """
    found = {name: named for name in names if (named := parse_split(name))}
    return {
        name: named.split
        for name, named in found.items()
        if not named.others or any(other.others == named.others and other.split != named.split for other in found.values())
    }


def part_and_class(name: str) -> tuple[str, str] | None:
    """The part, and what is left of a name that says one; None if it says none, or nothing else.

    Examples
    --------
    >>> part_and_class("train_Cat"), part_and_class("sea-lion.test"), part_and_class("train_images"), part_and_class("cat")
    (('train', 'Cat'), ('test', 'sea-lion'), None, None)
    """
    named = parse_split(name)
    if not named or not named.others:
        return None
    words = re.split(r"([^\W\d_]+)", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    rest = "".join(word for word in words if not _split_of_word(word.casefold()))
    return named.split, rest.strip(SIGNS)


def is_neutral(name: str) -> bool:
    """Whether a name says only that there is data: images, my_data.

    Examples
    --------
    >>> is_neutral("Images"), is_neutral("cats")
    (True, False)
    """
    return all(word in NEUTRAL for word in words_of(name))


def is_annotation(name: str) -> bool:
    """Whether a folder's name says that it holds what is known about images, not images.

    Examples
    --------
    >>> is_annotation("Annotations"), is_annotation("cats")
    (True, False)
    """
    return bool(ANNOTATIONS & {*words_of(name)})


def _split_of_word(word: str) -> str:
    for split, words in SPLITS.items():
        if any(word == known or (word.startswith(known) and word[len(known) :] in NEUTRAL) for known in words):
            return split
    return ""


class Chosen(NamedTuple):
    """The parts that are used ("" for none), and those that are not."""

    train: str
    test: str
    unused: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that are used, the training part first."""
        return tuple(name for name in (self.train, self.test) if name)


def choose_splits(dataset: str, sizes: Mapping[str, int], train: str | None, test: str | None) -> Chosen:
    """Choose the training and the test part of a data set whose parts have names.

    Parameters
    ----------
    dataset : str
        For messages.
    sizes : mapping
        Number of labeled images of each part, in the order of the data set. A part without any is not chosen by itself.
    train, test : str, optional
        What was asked for; "." is all of a data set without parts. Otherwise the names decide, and the test part comes before a
        validation part.

    Returns
    -------
    Chosen
        Without a training part, if there is only a test or a validation part.

    Raises
    ------
    InputError
        If a part does not exist, or if it is unclear which one is meant.
    """
    if not any(sizes.values()):
        raise InputError(printable(dataset), "holds no labeled images", remedy="add images, each with its label")
    if test == WHOLE and len(sizes) == 1:
        return Chosen("", next(iter(sizes)), ())
    for option, name in (("--train", train), ("--test", test)):
        if name is not None and name not in sizes:
            raise InputError(option, f"must be a part of {printable(dataset)}: {listed(sizes)}", printable(name))
        if name is not None and not sizes[name]:
            raise InputError(option, "must be a part with labeled images", printable(name), LABELS_MISSING)
    if train is not None and train == test:
        raise InputError("--test", "must be another part than --train", printable(train), "leave one of them out")
    labeled = [name for name in sizes if sizes[name]]
    known = splits_among(labeled)

    def only(split: str, option: str) -> str:
        names = [name for name in labeled if known.get(name) == split and name not in (train, test)]
        if len(names) > 1:
            raise InputError(printable(dataset), "has several parts of one kind", listed(names), f"choose one with {option} PART")
        return names[0] if names else ""

    asked = test
    test = test or only(TEST, "--test") or only(VALIDATION, "--test")
    train = train or only(TRAIN, "--train")
    unknown = [name for name in labeled if name not in known and name not in (train, test)]
    if not train and (not test or (unknown and asked is None)):
        if len(labeled) != 1:
            rule = "it must be clear which part to train on"
            raise InputError(printable(dataset), rule, listed(sizes), "choose the parts with --train PART and --test PART")
        train = labeled[0]  # the one part of a set may have any name
    return Chosen(train, test, tuple(name for name in sizes if name not in (train, test)))


def to_test_on(name: str, labeled: int) -> str:
    """For the note on a part that is not used: how to test on it, if it is a validation part with labeled images.

    Examples
    --------
    >>> to_test_on("val", 5), to_test_on("val", 0), to_test_on("pictures", 5)
    ('; to test on it: --test val', '', '')
    """
    named = parse_split(name)
    return f"; to test on it: --test {shell.quote(name)}" if labeled and named and named.split == VALIDATION else ""


def listed(names: Collection[str], most: int = 6) -> str:
    """Names for a message, the first few.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(printable(name) for name in list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
