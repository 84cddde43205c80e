"""Names of the outputs of an ONNX file, as it says them: in its metadata, or in the operator that gives labels.

Read without the package onnx, which onnxruntime does not need: a file is a message of Protocol Buffers, with numbered fields.
"""

import ast
import mmap
from collections.abc import Iterator
from pathlib import Path

from notbugs.data.sources.class_names import is_naming, naming_of
from notbugs.errors import InputError

# Fields of ModelProto, GraphProto, NodeProto, AttributeProto and StringStringEntryProto (onnx.proto3)
GRAPH, METADATA, NODE, ATTRIBUTE, ATTRIBUTE_NAME, ATTRIBUTE_STRINGS, KEY, VALUE = 7, 14, 1, 5, 1, 9, 1, 2
LABELS = (b"classlabels_strings", b"classes_strings")  # of ZipMap, LinearClassifier, TreeEnsembleClassifier, SVMClassifier, …


def onnx_names(path: Path) -> tuple[str, ...] | None:
    """Names of the outputs in order; None if the file has none, or cannot be read as ONNX (onnxruntime says that).

    Parameters
    ----------
    path : Path
        Metadata called `names`, `classes`, `id2label` and the like come first, then the labels of a classifier of scikit-learn.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            return _in_metadata(view) or _of_operators(view)
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


def _of_operators(model: memoryview) -> tuple[str, ...] | None:
    """The labels of the operator that gives them, if all that do have the same."""
    found = set()
    for graph in _fields(model, GRAPH):
        for node in _fields(graph, NODE):
            for attribute in _fields(node, ATTRIBUTE):
                if b"".join(_fields(attribute, ATTRIBUTE_NAME)) in LABELS:
                    names = tuple(str(name, "utf-8", "replace") for name in _fields(attribute, ATTRIBUTE_STRINGS))
                    found.update([names] if names else [])
    return found.pop() if len(found) == 1 else None


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of one field of a message: texts, or messages. Raises ValueError or IndexError for other bytes."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _number(message, place)
            continue
        length, place = _number(message, place) if kind == 2 else ({1: 8, 5: 4}[kind] if kind in (1, 5) else -1, place)
        if length < 0 or place + length > len(message):
            raise ValueError("no message of Protocol Buffers")
        if kind == 2 and tag >> 3 == wanted:
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
