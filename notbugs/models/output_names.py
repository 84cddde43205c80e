"""What a user says of a model's outputs: their names (`--classes`), and which of them are a class (`--class-map`)."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from notbugs.data.names import one_form, printable
from notbugs.data.sources.class_names import is_naming, naming_of
from notbugs.data.sources.text import json_of, text_of
from notbugs.errors import InputError

# Classes and their outputs, each by index, or as text that is an index or a name
ClassMap = tuple[tuple[str, tuple[int | str, ...]], ...]

CLASSES_RULE = "must be a file with the names of the model's outputs in order: a line each, a JSON list, or {index: name}"
MAP_RULE = "must say which outputs each class has, cat=281+282,dog=151, or be a .json or .csv file that does"


@dataclass(frozen=True)
class OutputNames:
    """What the user says of a model's outputs.

    Attributes
    ----------
    names : tuple of str or None
        Their names, in order.
    class_map : ClassMap or None
        Which outputs each class has.
    """

    names: tuple[str, ...] | None = None
    class_map: ClassMap | None = None

    @classmethod
    def read(cls, classes: str | None, class_map: str | None) -> "OutputNames":
        """From a file of names and a class map, as `--classes` and `--class-map` take them."""
        names = None if classes is None else read_classes(classes)
        return cls(names, None if class_map is None else read_class_map(class_map))

    @property
    def digest(self) -> str:
        """What tells it from another; "" if nothing was said."""
        return "" if self == OutputNames() else sha256(repr(self).encode("utf-8", "surrogateescape")).hexdigest()


def read_classes(path: str) -> tuple[str, ...]:
    """Names of a model's outputs from a file: a line each, a JSON list, or JSON with the index of each name, in either direction.

    A name may be a list of names that mean the same, as in Keras' list of the classes of ImageNet. The configuration of a Hugging
    Face model has its names in `id2label`.

    Raises
    ------
    InputError
        If the file cannot be read, or leaves an output without a name.
    """
    text = _text("--classes", path, CLASSES_RULE)
    if not text.lstrip().startswith(("[", "{")):
        names = [one_form(line).strip() for line in text.rstrip().splitlines()]
        if not all(names):
            raise InputError("--classes", CLASSES_RULE, f"{path}, whose line {names.index('') + 1} is empty")
        return tuple(names)
    value = _json("--classes", path, text, CLASSES_RULE)
    if isinstance(value, Mapping):
        value = next((value[key] for key in value if is_naming(key) and isinstance(value[key], Mapping | list)), value)
    naming = naming_of(_with_synonyms(value))
    if naming is None or [*naming] != list(range(len(naming))):
        got = f"{path}, whose indices are not 0, 1, 2, …" if naming else path
        raise InputError("--classes", CLASSES_RULE, got)
    return tuple(one_form(name).strip() for name in naming.values())


def _with_synonyms(value: object) -> object:
    """Lists of names that mean the same as one text, as Hugging Face writes them: "tench, Tinca tinca"."""
    if isinstance(value, Mapping):
        return {key: _joined(each) for key, each in value.items()}
    return [*map(_joined, value)] if isinstance(value, list) else value


def _joined(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value


def read_class_map(text: str) -> ClassMap:
    """Which outputs each class has, from text or from a file.

    Parameters
    ----------
    text : str
        `cat=281+282,dog=151`, or the name of a file: .json, {"cat": [281, 282], "dog": "chow"}, or .csv with a row for each
        output, `class,output`. An output is an index or a name; in JSON numbers are indices and text is a name.

    Raises
    ------
    InputError
        If it cannot be read, or says two things of one class.

    Examples
    --------
    >>> read_class_map("cat=281+282,dog=151")
    (('cat', ('281', '282')), ('dog', ('151',)))
    """
    if Path(text).suffix.lower() == ".json":
        return _of_json(text, _json("--class-map", text, _text("--class-map", text, MAP_RULE), MAP_RULE))
    if Path(text).suffix.lower() == ".csv":
        return _of_rows(text, _text("--class-map", text, MAP_RULE))
    found: dict[str, tuple[int | str, ...]] = {}
    for part in text.split(","):
        name, equals, outputs = part.partition("=")
        tokens = tuple(token.strip() for token in outputs.split("+"))
        if not equals or not all(tokens):
            raise InputError("--class-map", MAP_RULE, repr(part.strip()))
        _add(found, name.strip(), tokens)
    return tuple(found.items())


def _of_json(path: str, value: object) -> ClassMap:
    if not isinstance(value, Mapping):
        raise InputError("--class-map", MAP_RULE, path)
    found: dict[str, tuple[int | str, ...]] = {}
    for name, outputs in value.items():
        tokens = outputs if isinstance(outputs, list) else [outputs]
        if not tokens or not all(isinstance(token, int | str) and not isinstance(token, bool) for token in tokens):
            raise InputError("--class-map", MAP_RULE, f"{path}, where {printable(name)} is {printable(str(outputs)[:40])}")
        _add(found, name, tuple(tokens))
    return tuple(found.items())


def _of_rows(path: str, text: str) -> ClassMap:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError("--class-map", MAP_RULE, f"{path}: {error}") from None
    if bad := [row for row in rows if len(row) != 2 or not all(row)]:
        raise InputError("--class-map", MAP_RULE, f"{path} with the row {printable(','.join(bad[0])[:60])}")
    header = [cell.casefold() for cell in rows[0]] if rows else []
    named = sorted(header) == ["class", "output"]
    place = header.index("class") if named else 0
    found: dict[str, tuple[int | str, ...]] = {}
    for row in rows[named:]:
        found[row[place]] = (*found.get(row[place], ()), row[1 - place])
    return tuple(found.items())


def _add(found: dict[str, tuple[int | str, ...]], name: str, tokens: tuple[int | str, ...]) -> None:
    """Raises InputError for a class that is there already."""
    if name in found:
        raise InputError("--class-map", "must name each class once", printable(name), "several outputs of it: cat=281+282")
    found[name] = tokens


def class_map_text(classes: Sequence[str], outputs: Sequence[Sequence[int]]) -> str:
    """A class map as `--class-map` takes it on the command line; "" if a name does not fit.

    Examples
    --------
    >>> class_map_text(["cat", "dog"], [[281, 282], [151]]), class_map_text(["a,b"], [[0]])
    ('cat=281+282,dog=151', '')
    """
    if any(name != name.strip() or set(name) & set(",=") for name in classes):
        return ""
    return ",".join(f"{name}={'+'.join(map(str, each))}" for name, each in zip(classes, outputs, strict=True))


def _text(option: str, path: str, rule: str) -> str:
    try:
        return text_of(Path(path))[0]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(option, rule, path, getattr(error, "strerror", None) or "it is not text") from None


def _json(option: str, path: str, text: str, rule: str) -> object:
    try:
        return json_of(text)
    except (ValueError, RecursionError) as error:
        raise InputError(option, rule, path, f"it is not JSON: {printable(str(error))[:100]}") from None
