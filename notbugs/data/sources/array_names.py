"""What arrays hold, by their names: train_images, y_test, X."""

import re
from typing import NamedTuple

from notbugs.data.sources.class_names import is_name_column, is_naming
from notbugs.data.sources.splits import parse_split
from notbugs.data.sources.words import ARRAYS, NEUTRAL, SHORT_SPLITS, SPLITS


class Key(NamedTuple):
    """What an array's name says: the part that it belongs to ("" for none), and what it holds."""

    part: str
    kind: str


def parse_key(name: str) -> Key | None:
    """What an array holds, by its name; None if that is unclear.

    Examples
    --------
    >>> parse_key("train_images"), parse_key("y_test"), parse_key("X")
    (Key(part='train', kind='images'), Key(part='test', kind='labels'), Key(part='', kind='images'))
    >>> parse_key("class_names"), parse_key("weights")
    (Key(part='', kind='classes'), None)
    """
    words = [word for text in re.findall(r"[a-z]+", name.casefold()) for word in _without_kind(text)]
    named = next((word for word in words if parse_split(word)), "")
    rest = [word for word in words if word != named]
    if is_naming(name) or is_naming("".join(rest)) or is_name_column("".join(rest)):
        return Key(named, "classes")
    kinds = [kind for word in rest if (kind := _kind(word))]
    specific = kinds if len(kinds) == 1 else [_kind(word) for word in rest if word not in NEUTRAL and _kind(word)]
    unknown = [word for word in rest if not _kind(word) and word not in NEUTRAL]
    return Key(named, specific[0]) if len(specific) == 1 and not unknown else None


def _without_kind(word: str) -> list[str]:
    """xtrain, trainx and Xtr as the words x and train; another word as it is."""
    short = SHORT_SPLITS | {known: known for words in SPLITS.values() for known in words}
    for kind in ("x", "y"):
        if word.startswith(kind) and word[1:] in short:
            return [kind, short[word[1:]]]
        if word.endswith(kind) and word[:-1] in short:
            return [short[word[:-1]], kind]
    return [word]


def _kind(word: str) -> str:
    return next((kind for kind, words in ARRAYS.items() if word in words), "")
