"""Names of the outputs of an ONNX file, as it says them: in its metadata, or in the operator that gives labels.

Read without the package onnx, which onnxruntime does not need: a file is a message of Protocol Buffers, with numbered fields.
"""

import ast
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

from notbugs.data.sources.class_names import is_naming, naming_of
from notbugs.errors import InputError

# Fields of ModelProto, GraphProto, NodeProto, AttributeProto and StringStringEntryProto (onnx.proto3)
GRAPH, METADATA, NODE, ATTRIBUTE, ATTRIBUTE_NAME, ATTRIBUTE_INTS, ATTRIBUTE_STRINGS, KEY, VALUE = 7, 14, 1, 5, 1, 8, 9, 1, 2
# Of ZipMap, LinearClassifier, TreeEnsembleClassifier, SVMClassifier, …
TEXTS = (b"classlabels_strings", b"classes_strings")
NUMBERS = (b"classlabels_int64s", b"classlabels_ints", b"classes_ints")
Labels = tuple[str, ...] | tuple[int, ...]


def onnx_names(path: Path) -> tuple[str, ...] | None:
    """Names of the outputs in order; None if the file has none, or cannot be read as ONNX (onnxruntime says that).

    Parameters
    ----------
    path : Path
        Metadata called `names`, `classes`, `id2label` and the like come first, then the labels of a classifier of scikit-learn,
        if they are text.
    """
    known = _read(path, lambda model: _in_metadata(model) or _of_operators(model))
    return None if known is None else tuple(name for name in known if isinstance(name, str)) or None


def onnx_labels(path: Path) -> Labels | None:
    """Labels, texts or numbers, that the classifier of scikit-learn in an ONNX file gives, in the order of its scores.

    None if it has none, or cannot be read as ONNX.
    """
    return _read(path, _of_operators)


def _read(path: Path, find: Callable[[memoryview], Labels | None]) -> Labels | None:
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            return find(view)
    except (OSError, ValueError, IndexError, BufferError):  # the last: an error's traceback still holds a part of the file
        return None


def _in_metadata(model: memoryview) -> tuple[str, ...] | None:
    for entry in _fields(model, METADATA):
        key, value = (b"".join(_fields(entry, number)).decode(errors="replace") for number in (KEY, VALUE))
        if (key == "names" or is_naming(key)) and (found := _naming(value)):
            return found
    return None


def _naming(text: str) -> tuple[str, ...] | None:
    """The names in JSON or in a Python literal, which some exporters write."""
    try:
        naming = naming_of(text) or naming_of(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError, InputError):
        return None
    return tuple(naming.values()) if naming and [*naming] == list(range(len(naming))) else None


def _of_operators(model: memoryview) -> Labels | None:
    """The labels of the operator that gives them, if all that do have the same."""
    found = set[Labels]()
    for graph in _fields(model, GRAPH):
        for node in _fields(graph, NODE):
            for attribute in _fields(node, ATTRIBUTE):
                name = b"".join(_fields(attribute, ATTRIBUTE_NAME))
                if name in TEXTS and (texts := [*_fields(attribute, ATTRIBUTE_STRINGS)]):
                    found.add(tuple(str(text, "utf-8", "replace") for text in texts))
                elif name in NUMBERS and (numbers := (*_numbers(attribute, ATTRIBUTE_INTS),)):
                    found.add(numbers)
    return found.pop() if len(found) == 1 else None


def _numbers(message: memoryview, wanted: int) -> Iterator[int]:
    """The whole numbers of one field of a message, one by one or packed."""
    for entry in _entries(message, wanted):
        place, packed = 0, entry if isinstance(entry, memoryview) else memoryview(b"")
        if isinstance(entry, int):
            yield _signed(entry)
        while place < len(packed):
            value, place = _number(packed, place)
            yield _signed(value)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of one field of a message: texts, or messages."""
    return (entry for entry in _entries(message, wanted) if isinstance(entry, memoryview))


def _entries(message: memoryview, wanted: int) -> Iterator[memoryview | int]:
    """The values of one field of a message: whole numbers, texts, messages. Raises ValueError or IndexError for other bytes."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind, is_wanted = tag & 7, tag >> 3 == wanted
        if kind == 0:
            value, place = _number(message, place)
            if is_wanted:
                yield value
            continue
        length, place = _number(message, place) if kind == 2 else ({1: 8, 5: 4}[kind] if kind in (1, 5) else -1, place)
        if length < 0 or place + length > len(message):
            raise ValueError("no message of Protocol Buffers")
        if kind == 2 and is_wanted:
            yield message[place : place + length]
        place += length


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("no message of Protocol Buffers")
