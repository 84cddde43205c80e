"""Which outputs of a model are a class of a data set: by their names, or as the user says."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from notbugs.data.names import is_number, one_form, printable
from notbugs.data.sources.splits import listed
from notbugs.errors import InputError
from notbugs.models.output_names import ClassMap, class_map_text

SHOWN = 3  # classes that a message names
GIVEN, BY_NAME = "as --class-map says", "by their names"
MOST_OUTPUTS = 100_000  # a label beyond is no number of a class
NUMBER = re.compile(r"(?:label|class|output)?[\s_\-]*([0-9]+)")  # a name that says no more than a number
Outputs = tuple[tuple[int, ...], ...]  # for each class its outputs


class Mapped(NamedTuple):
    """Which outputs the classes are.

    Attributes
    ----------
    outputs : tuple of tuple of int, or None
        For each class its outputs. None: they stand in the order of the classes.
    how : str
        How that is known, in words. Without outputs: what is said of their names, "" if nothing is.
    """

    outputs: Outputs | None
    how: str = ""


def outputs_of_classes(
    model: str, outputs: int, names: Sequence[str] | None, class_map: ClassMap | None, classes: Sequence[str], dataset: str
) -> Mapped:
    """Which outputs each class of a data set has.

    Parameters
    ----------
    model : str
        Its name, for messages.
    outputs : int
        How many it has.
    names : sequence of str, optional
        Names of its outputs, in order.
    class_map : ClassMap, optional
        Which outputs each class has, as the user says.
    classes : sequence of str
        Of the data set.
    dataset : str
        Its name, for messages.

    Raises
    ------
    InputError
        If that is not clear: a name is missing, or means two outputs, or there are more outputs than classes and no names.

    Examples
    --------
    >>> outputs_of_classes("m.onnx", 3, ["Dog", "sofa", "tabby cat"], None, ["dog", "tabby_cat"], "pets")
    Mapped(outputs=((0,), (2,)), how='by their names')
    """
    if names is not None and len(names) != outputs:
        got = f"{outputs} outputs and {len(names)} names"
        raise InputError(model, "must have a name for each of its outputs", got, "pass them with --classes FILE")
    if class_map is not None:
        found = _as_given(model, outputs, names, class_map, classes, dataset)
        how = GIVEN
    else:
        by_name = _by_name(model, names, classes, dataset) if names is not None else None
        if by_name is None:
            return _in_order(model, outputs, names, classes, dataset)
        found, how = by_name, BY_NAME
    return Mapped(None if found == tuple((index,) for index in range(outputs)) else found, how)


def note(mapped: Mapped, kind: str, outputs: int, dataset: str) -> str:
    """What is said of the outputs of a model, "" if nothing is. kind: as in `class_outputs.kind_of`; outputs: how many there are.

    Examples
    --------
    >>> note(Mapped(((0,), (2,)), "by their names"), "logits", 3, "pets")
    '2 of its 3 outputs are the classes of pets, by their names; the others are not used'
    """
    if mapped.outputs is None:
        return "" if mapped.how in (GIVEN, BY_NAME) else mapped.how
    used = sum(map(len, mapped.outputs))
    if used == outputs == len(mapped.outputs):
        return f"its outputs stand in another order than the classes of {dataset} and are read {mapped.how}"
    if kind == "labels":
        return f"{used:,} of its labels are the classes of {dataset}, {mapped.how}; images with another count as misclassified"
    rest = "; the others are not used" if used < outputs else ""
    return f"{used:,} of its {outputs:,} outputs are the classes of {dataset}, {mapped.how}{rest}"


def choice(classes: Sequence[str], outputs: Sequence[str] = ()) -> str:
    """What to do where it is not clear which outputs the classes are. outputs: names or numbers of them, if they are known."""
    return f"say which they are: --class-map {example(classes, outputs)}, or --classes FILE with their names"


def _in_order(model: str, outputs: int, names: Sequence[str] | None, classes: Sequence[str], dataset: str) -> Mapped:
    """The outputs as they stand, where no name says more. Raises InputError unless there is one for each class."""
    if outputs != len(classes):
        rule = f"must have one output for each of the {len(classes)} classes of {dataset}"
        if outputs < len(classes):
            raise InputError(model, rule, outputs, "give it only images of the classes that it knows: a folder of these")
        raise InputError(model, rule, outputs, choice(classes, names or [*map(str, range(outputs))]))
    if names is None:
        return Mapped(None)
    return Mapped(None, f"the names of its outputs ({listed(names, SHOWN)}) say nothing of the classes: they are read in order")


def example(classes: Sequence[str], outputs: Sequence[str] = ()) -> str:
    """A class map that shows how one is written; without outputs that are known, with words for them.

    Examples
    --------
    >>> example(["cat", "dog"], ["0", "1"]), example(["a", "b", "c"], ["x", "y", "z", "u"]), example(["cat", "dog"])
    ("'cat=0,dog=1'", "'a=x+y,b=z,…'", "'cat=OUTPUT+OUTPUT,dog=OUTPUT'")
    """
    names = [name if class_map_text([name], [[0]]) else f"CLASS{place}" for place, name in enumerate(classes[:2], 1)]
    known = [name for name in outputs if name and class_map_text([name], [[0]]) and not {*name} & {*" +'"}]
    if len(known) > len(classes):
        tokens = ["+".join(known[:2]), known[2]]
    else:
        tokens = known[:2] if len(known) >= 2 else ["OUTPUT+OUTPUT", "OUTPUT"]
    shown = ",".join(f"{name}={token}" for name, token in zip(names, tokens, strict=False))
    return f"'{shown}{',…' if len(classes) > 2 else ''}'"


# ---- by name -----------------------------------------------------------------------------------------------------------------


def _by_name(model: str, names: Sequence[str], classes: Sequence[str], dataset: str) -> Outputs | None:
    """The output of each class; None if one side has numbers for names, and the other words.

    Raises
    ------
    InputError
        If a class has no output, or several.
    """
    index = NameIndex(names)
    found = {name: index.places(name) for name in classes}
    if not any(found.values()) and _are_numbers([name for name in names if name]) != _are_numbers(classes):
        return None
    remedy = choice(classes, names)
    rule = f"must have one output for each class of {dataset}"
    if missing := [name for name, indices in found.items() if not indices]:
        known = [name for name in names if name]
        got = f"none called {listed(missing, SHOWN)} among {len(known)} outputs: {listed(known, SHOWN)}"
        raise InputError(model, rule, got, remedy)
    for name, indices in found.items():
        if len(indices) > 1:
            raise InputError(model, rule, f"{len(indices)} called {printable(name)}: {listed([*map(str, indices)])}", remedy)
    _check_different(model, tuple((indices[0],) for indices in found.values()), classes, names, remedy)
    return tuple((indices[0],) for indices in found.values())


class NameIndex:
    """Places of names in a sequence, written in one way or another.

    Examples
    --------
    >>> index = NameIndex(["tench, Tinca tinca", "sea_lion", "Sea Lion", "007"])
    >>> index.places("tench"), index.places("Sea Lion"), index.places("sea lion"), index.places("7"), index.places("cat")
    ([0], [2], [1, 2], [3], [])
    """

    def __init__(self, names: Sequence[str]) -> None:
        # letter for letter, or else but for case, blanks, dashes and zeros in front, or else as a synonym
        self._ways: tuple[Callable[[str], str], ...] = (one_form, _key, _key)
        self._places: tuple[dict[str, list[int]], ...] = ({}, {}, {})
        for place, name in enumerate(names):
            for way, places, forms in zip(self._ways, self._places, ([name], [name], _synonyms(name)), strict=True):
                for form in dict.fromkeys(map(way, forms)):
                    places.setdefault(form, []).append(place)

    def places(self, name: str) -> list[int]:
        """Where the name stands; empty if it does not."""
        return next((found[way(name)] for way, found in zip(self._ways, self._places, strict=True) if way(name) in found), [])


def _key(name: str) -> str:
    """What is compared of two names.

    Examples
    --------
    >>> _key("Sea_Lion") == _key("sea lion"), _key("LABEL_7") == _key("007"), _key("cat") == _key("cats")
    (True, True, False)
    """
    if number := NUMBER.fullmatch(name.strip().casefold()):
        return number[1].lstrip("0") or "0"
    return re.sub(r"[\s_\-]+", "", one_form(name).casefold())


def _synonyms(name: str) -> list[str]:
    """The names in one: "tench, Tinca tinca", with the number of WordNet before them or not.

    Examples
    --------
    >>> _synonyms("n01440764 tench, Tinca tinca")
    ['n01440764', 'tench', 'Tinca tinca']
    """
    number, rest = match.groups() if (match := re.fullmatch(r"(n\d{8})[\s,]+(.+)", name)) else ("", name)
    return [part.strip() for part in (*([number] if number else []), *rest.split(","))]


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names say no more than numbers: 0, 007, LABEL_3, class 3.

    Examples
    --------
    >>> _are_numbers(["0", "LABEL_1", "class 2"]), _are_numbers(["0", "stop"])
    (True, False)
    """
    return all(NUMBER.fullmatch(name.strip().casefold()) for name in names)


def estimator_names(estimator: object, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of a scikit-learn classifier: those of the data set, unless it was trained with other labels.

    Numbers from 0 to K - 1 are indices of the classes. Others can only be names: 1 to 12 of the classes "1" to "12".

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> estimator_names(SimpleNamespace(classes_=["Cat", "dog"]), ["cat", "dog"])
    ('Cat', 'dog')
    >>> estimator_names(SimpleNamespace(classes_=[1, 2]), ["1", "2"])
    ('0', '1', '2')
    """
    known = np.asarray(getattr(estimator, "classes_", ()))
    if known.ndim == 1 and len(known):
        if all(isinstance(name, str) for name in known.tolist()) and not {*known.tolist()} <= {*classes}:
            return tuple(known.tolist())
        if known.dtype.kind in "iu":
            return names_of_numbers(known.tolist(), classes)
    return tuple(classes)


def names_of_numbers(labels: Sequence[int], classes: Sequence[str]) -> tuple[str, ...]:
    """Names of outputs that a classifier knows by numbers: those of the classes if it can mean their indices.

    Else each output has its number for a name, and stands at that place. A number that it does not know has no name, "", unless
    all of its numbers are names of classes: then it may be a class that it never saw.

    Examples
    --------
    >>> names_of_numbers([0, 2], ["a", "b", "c"]), names_of_numbers([1, 2], ["1", "2"]), names_of_numbers([1, 2], ["0", "1"])
    (('a', 'b', 'c'), ('0', '1', '2'), ('', '1', '2'))
    """
    if not labels or min(labels) < 0 or not len(classes) <= max(labels) < MOST_OUTPUTS:
        return tuple(classes)
    index = NameIndex(classes)
    fits = all(index.places(str(label)) for label in labels)
    return tuple(str(label) if fits or label in {*labels} else "" for label in range(max(labels) + 1))


# ---- as the user says --------------------------------------------------------------------------------------------------------


def _as_given(
    model: str, outputs: int, names: Sequence[str] | None, class_map: ClassMap, classes: Sequence[str], dataset: str
) -> Outputs:
    """The outputs of each class, as a class map says. Raises InputError unless it names each class, and each output once."""
    given: dict[str, tuple[int, ...]] = {}
    known, index = NameIndex(classes), None if names is None else NameIndex(names)
    for name, tokens in class_map:
        places = known.places(name)
        if len(places) != 1:
            raise InputError("--class-map", f"must name classes of {dataset}", printable(name), f"these are {listed(classes)}")
        label = classes[places[0]]
        if label in given:
            raise InputError("--class-map", "must name each class once", printable(label))
        given[label] = tuple(_output(token, outputs, index, model) for token in tokens)
    if missing := [name for name in classes if name not in given]:
        rule = f"must say the outputs of each class of {dataset}"
        raise InputError("--class-map", rule, f"none for {listed(missing, SHOWN)}")
    found = tuple(given[name] for name in classes)
    _check_different("--class-map", found, classes, names, "")
    return found


def _output(token: int | str, outputs: int, names: NameIndex | None, model: str) -> int:
    """The output that a token of a class map means."""
    meant: set[int] = {*(names.places(token) if names and isinstance(token, str) else ())}
    is_index = isinstance(token, int) or is_number(token)
    if is_index and 0 <= int(token) < outputs:
        meant.add(int(token))
    if names and meant <= {*names.places("")}:
        meant.clear()  # a number that it does not know
    if len(meant) == 1:
        return meant.pop()
    rule = f"must name outputs of {model}, by an index from 0 to {outputs - 1}{' or by a name' if names else ''}"
    if meant:
        remedy = "in a .json file numbers are indices, and text is a name" if is_index else "pass its index"
        raise InputError("--class-map", rule, f"{printable(str(token))}, which {listed([*map(str, sorted(meant))])} are", remedy)
    remedy = "" if names or is_index else "to use names: --classes FILE"
    raise InputError("--class-map", rule, printable(str(token)), remedy)


def _check_different(parameter: str, found: Outputs, classes: Sequence[str], names: Sequence[str] | None, remedy: str) -> None:
    """Raises InputError if two classes have one output."""
    owners: dict[int, str] = {}
    for name, indices in zip(classes, found, strict=True):
        for index in indices:
            if index in owners:
                known = f" ({printable(names[index])})" if names else ""
                got = f"{index}{known} for {printable(owners[index])} and {printable(name)}"
                raise InputError(parameter, "must give each output to one class", got, remedy)
            owners[index] = name
