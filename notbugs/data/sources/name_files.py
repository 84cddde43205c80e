"""Files beside a data set whose classes are numbers, which say what the numbers mean: classes.txt, class_to_idx.json."""

import re
from collections.abc import Iterable
from pathlib import Path

from notbugs.data.names import is_number, is_printable, printable
from notbugs.data.sources.base import Located
from notbugs.data.sources.class_names import Naming, is_naming, naming_of, one_name
from notbugs.data.sources.listing import below
from notbugs.data.sources.splits import listed
from notbugs.data.sources.text import json_of, lines_of, text_of
from notbugs.data.sources.words import LISTS_OF_NAMES, words_of
from notbugs.errors import InputError

CARD = "README.md"
ENDINGS = (".txt", ".json", ".names")
MOST_IN_FRONT = 2**20  # characters before the text of a card: YAML takes a second for 200,000
MOST_BYTES = 2**22  # ImageNet's 1,000 names take 30 kB
NUMBER_AND_NAME = re.compile(r"(\d{1,9})\s*[\s,;:=|]\s*(\S.*)")


def with_names_beside(located: Located, root: Path, files: Iterable[Path]) -> Located:
    """A data set whose classes are numbers, with the names that a file beside it gives them. root: its folder.

    Raises
    ------
    InputError
        If two files give other names.
    """
    if not all(map(is_number, located.classes)):
        return located
    numbers = [int(name) for name in located.classes]
    found = {path: _names(path, numbers) for path in files if _may_name(path)}
    named = {path: names for path, names in found.items() if names}
    for path in named:
        first = next(iter(named))
        if named[path] != named[first]:
            got = f"{printable(first.name)} and {printable(path.name)}"
            raise InputError(printable(str(path.parent)), "must name the classes in one way", got, "move one of the two away")
    notes = [f"{printable(path.name)} is not read: it does not name each of the classes {listed(located.classes, 3)}"
             for path in sorted(found.keys() - named.keys()) if _is_called_so(path)]  # fmt: skip
    notes = [note for note in notes if note not in located.notes]  # the reader of image folders has looked at the same files
    if not named:
        return located._replace(notes=(*located.notes, *notes))
    path, names = next(iter(named.items()))
    meaning = listed([f"{number} is {name}" for number, name in zip(located.classes, names, strict=True)], 3)
    used = {below(file, root) for file in named}
    left_out = tuple(item for item in located.left_out if item.location not in used)
    notes.append(f"class names from {printable(path.name)}: {meaning}")
    return located._replace(classes=names, notes=(*located.notes, *notes), left_out=left_out)


def _may_name(path: Path) -> bool:
    if path.name == CARD:
        return 0 < path.stat().st_size <= MOST_BYTES
    called = _is_called_so(path) or (path.suffix.lower() == ".json" and bool(LISTS_OF_NAMES.intersection(words_of(path.stem))))
    return called and path.suffix.lower() in ENDINGS and 0 < path.stat().st_size <= MOST_BYTES


def _is_called_so(path: Path) -> bool:
    return is_naming(path.stem) or (path.stem.casefold(), path.suffix.lower()) == ("labels", ".txt")


def _names(path: Path, numbers: list[int]) -> tuple[str, ...]:
    """The names of numbers in a file; () unless each has one, and another one."""
    naming = _naming(path, numbers)
    names = tuple(one_name(naming[number]) for number in numbers if number in naming)
    whole = len(names) == len(numbers) == len(set(names)) and all(name and is_printable(name) for name in names)
    said = names != tuple(map(str, numbers)) or path.name != CARD  # cards of sets whose classes are called 0, 1, …
    return names if whole and said else ()


def _naming(path: Path, numbers: list[int]) -> Naming:
    try:
        content = text_of(path)[0]
    except (OSError, UnicodeDecodeError):
        return {}
    if path.name == CARD:
        return _of_card(content)
    if path.suffix.lower() == ".json":
        try:
            naming = naming_of(json_of(content)) or {}
        except (ValueError, RecursionError):
            return {}
        return naming if naming.keys() >= set(numbers) else _in_order(list(naming.values()), numbers)
    lines = [line.strip() for line in lines_of(content)]
    pairs = [match for line in lines if (match := NUMBER_AND_NAME.fullmatch(line))]
    if len(pairs) == len(lines):
        return {int(match[1]): match[2] for match in pairs}
    return _in_order(lines, numbers)


def _of_card(content: str) -> Naming:
    """The names on the card of a Hugging Face set; {} where it names none, or classes of several kinds."""
    import yaml

    front = content.split("\n---\n")[0]
    if not front.startswith("---\n") or len(front) > MOST_IN_FRONT:
        return {}
    try:
        head = yaml.safe_load(front)
        infos = head["dataset_info"] if isinstance(head["dataset_info"], list) else [head["dataset_info"]]
        kinds = [feature["dtype"] for info in infos for feature in info["features"] if isinstance(feature["dtype"], dict)]
        given = [kind["class_label"]["names"] for kind in kinds if "class_label" in kind]
        found = [_of_text(names.items() if isinstance(names, dict) else enumerate(names)) for names in given]
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found[0] if found and all(naming == found[0] for naming in found) else {}


def _of_text(pairs: Iterable[tuple[object, object]]) -> Naming:
    """The names of numbers that may be text. Raises TypeError where a name is none: by aliases of YAML it may be endless."""
    naming = dict[int, str]()
    for number, name in pairs:
        if not isinstance(number, str | int) or not isinstance(name, str):
            raise TypeError("names must be text")
        naming[int(number)] = name
    return naming


def _in_order(names: list[str], numbers: list[int]) -> Naming:
    """A name for each of so many numbers that follow each other."""
    in_a_row = sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    return dict(zip(sorted(numbers), names, strict=True)) if in_a_row and len(names) == len(numbers) else {}
