"""Labels in JSON: the forms in which labeling tools and libraries write them, as one record for each image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import cast

from notbugs.data.sources.ambiguous_classes import ambiguity_of_names
from notbugs.data.sources.class_names import is_naming, naming_of
from notbugs.data.sources.splits import is_annotation, is_neutral, listed, split_of
from notbugs.data.sources.words import NUMBERED_LABELS, plain_name

Record = dict[str, object]
DEEPEST = 12  # objects one in the other


class NoTableError(ValueError):
    """Why JSON has no label for each image, or not clearly one."""


def json_records(text: str) -> list[object]:
    """One record for each image, of any of these forms; [] for any other JSON.

    - a list of records; an object in a record is a part of it: {"image": {"path": …}} has the column image.path;
    - {file: label} and {file: {"label": …}};
    - {class: [file, …]};
    - {"labels": [[file, label], …]} (StyleGAN), and other lists of rows;
    - {"images": […], "annotations": […]}, with "categories" (COCO) or without;
    - {"file": [file, …], "label": [label, …]}, and what pandas writes by columns or split;
    - {"train": …, "test": …} of any of these;
    - an object around one of them: {"data": …}, {"info": …, "annotations": [record, …]}.

    Many .json files beside images are no tables, so that none is an error.
    """
    try:
        return list(_records(_loaded(text), DEEPEST))
    except (ValueError, RecursionError):
        return []


def why_no_records(text: str) -> str:
    """Why JSON has no label for each image; "" if it has."""
    try:
        _records(_loaded(text), DEEPEST)
    except (ValueError, RecursionError) as error:
        return str(error) if isinstance(error, NoTableError) else "no JSON"
    return ""


class _Repeated(dict[str, object]):
    """An object in which a name stands twice: what comes last is kept, and all of it in `pairs`."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _loaded(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def _items(content: Record) -> list[tuple[str, object]]:
    return content.pairs if isinstance(content, _Repeated) else list(content.items())


# ---- which form it is ----------------------------------------------------------------------------------------------------------


def _records(content: object, deepest: int) -> Sequence[Record]:
    """The records of JSON. Raises NoTableError with what was seen."""
    if isinstance(content, list):
        return _of_list(content)
    if not isinstance(content, dict) or not content or not deepest:
        raise NoTableError(_seen(content))
    pairs = _items(content)
    if {"images", "annotations"} <= content.keys() or {"images", "categories"} <= content.keys():
        return _of_coco(content)
    if all(map(_is_file, content)):
        return _by_file(pairs)
    if all(map(split_of, content)):
        return _by_part(content, deepest)
    if all(_are(value, _is_file) for value in content.values()) and len(content) > 1:
        return _by_class(pairs)
    if rows := _by_column(content):
        return rows
    inside = {name: value for name, value in content.items() if _may_hold_records(name, value)}
    if len(inside) != 1:
        raise NoTableError(_seen(content))
    ((name, value),) = inside.items()
    try:
        return _named(_records(value, deepest - 1), content)
    except NoTableError as error:
        raise NoTableError(f"{listed([name])}: {error}") from None


def _seen(content: object) -> str:
    if isinstance(content, dict):
        return f"an object with {listed(list(content))}" if content else "an empty object"
    return f"a list of {len(content):,} values" if isinstance(content, list) else f"one {type(content).__name__}"


def _is_file(value: object) -> bool:
    """Whether a value is the name of a file: text with an ending, which has a letter. 1.0 has none."""
    return isinstance(value, str) and any(map(str.isalpha, PurePosixPath(value).suffix[1:]))


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _are(values: object, kind: object) -> bool:
    return isinstance(values, list) and bool(values) and all(map(kind, values))  # type: ignore[call-overload]


def _may_hold_records(name: str, value: object) -> bool:
    """Whether something in an object may be the records, and not what is known of all of them."""
    if is_naming(name) or not value:
        return False
    if isinstance(value, list):
        return isinstance(value[0], dict | list)
    return isinstance(value, dict) and any(isinstance(inner, dict | list) or _is_file(key) for key, inner in value.items())


# ---- each form -----------------------------------------------------------------------------------------------------------------


def _of_list(content: list[object]) -> list[Record]:
    if all(isinstance(record, dict) for record in content):
        return [flat_record(cast(Record, record)) for record in content]
    widths = {len(row) for row in content if isinstance(row, list)}
    rows = cast(list[list[object]], content)
    if len(widths) != 1 or not all(isinstance(row, list) and all(map(_is_scalar, row)) for row in rows) or widths == {0}:
        raise NoTableError(_seen(content))
    if widths == {2} and all(_is_file(row[0]) for row in rows):
        return [{"file": file, "label": label} for file, label in rows]
    return [{str(number): value for number, value in enumerate(row, 1)} for row in rows]  # as tables without a header


def _by_file(pairs: Sequence[tuple[str, object]]) -> list[Record]:
    if all(isinstance(value, dict) for _, value in pairs):
        return [{"file": file, **flat_record(cast(Record, value))} for file, value in pairs]
    if all(_is_scalar(value) or _are(value, _is_scalar) for _, value in pairs):
        return [{"file": file, "label": _flat_value(value)} for file, value in pairs]
    raise NoTableError("files with lists, or with several kinds of values")


def _by_part(content: Record, deepest: int) -> list[Record]:
    """{"train": …, "test": …}: each record gets its part. Records that say a part of their own may contradict it."""
    found: list[Record] = []
    for name, value in content.items():
        if _are(value, lambda item: isinstance(item, str)):
            raise NoTableError(f"files of the part {listed([name])}, without labels")
        for record in _records(value, deepest - 1) if value else ():
            if "split" in record:
                raise NoTableError("parts of parts")
            found.append({**record, "split": name})
    return found


def _by_class(pairs: Sequence[tuple[str, object]]) -> list[Record]:
    """{class: [file, …]}, unless the names are those of kinds of pictures, of folds or of recordings."""
    names = [name for name, _ in pairs]
    if any((is_neutral(name) and not name.isdecimal()) or is_annotation(name) or split_of(name) for name in names):
        raise NoTableError(f"lists of files called {listed(names)}, which are no classes")
    if ambiguity_of_names(names):
        raise NoTableError(f"lists of files called {listed(names)}, which may be no classes")
    return [{"file": file, "label": name} for name, files in pairs for file in cast(list[str], files)]


def _by_column(content: Record) -> list[Record]:
    """{"file": [file, …], "label": [label, …]}, or what pandas writes: by columns, or split into columns and data."""
    values = list(content.values())
    columns, data = content.get("columns"), content.get("data")
    if _are(columns, lambda name: isinstance(name, str)) and _are(data, lambda row: isinstance(row, list)):
        return [dict(zip(cast(list[str], columns), row, strict=True)) for row in cast(list[list[object]], data)]
    lists = {name: value for name, value in content.items() if _are(value, _is_scalar) and not is_naming(name)}
    if len({len(cast(list[object], value)) for value in lists.values()}) == 1 and len(lists) > 1:
        if any(isinstance(value, dict | list) and name not in lists and not is_naming(name) for name, value in content.items()):
            return []
        rows = zip(*cast(list[list[object]], list(lists.values())), strict=True)
        return list(_named([dict(zip(lists, row, strict=True)) for row in rows], content))
    if len(values) > 1 and all(isinstance(value, dict) and value and all(map(str.isdecimal, value)) for value in values):
        columns_of = cast(dict[str, Record], content)
        keys = list(columns_of[next(iter(content))])
        if all(list(value) == keys and all(map(_is_scalar, value.values())) for value in columns_of.values()):
            return [{name: value[key] for name, value in columns_of.items()} for key in keys]
    return []


def _of_coco(content: Mapping[str, object]) -> list[Record]:
    """A record for each annotation, with the file of its image; without annotations for each image."""
    lists = {name: cast(list[Record], content.get(name)) for name in ("images", "annotations", "categories") if content.get(name)}
    if not all(_are(value, lambda item: isinstance(item, dict)) for value in lists.values()) or "images" not in lists:
        raise NoTableError(_seen(content))
    images = lists["images"]
    try:
        names = {category["id"]: category["name"] for category in lists.get("categories", ())}
        if len(names) < len(lists.get("categories", ())):
            raise NoTableError("two categories of one id")
        if "annotations" not in lists:
            return [flat_record(_with_category(image, names)) for image in images]
        by_id = {image["id"]: image for image in images}
        if len(by_id) < len(images):
            raise NoTableError("two images of one id")
        about = [(_file_of(by_id[note["image_id"]]), _with_category(note, names)) for note in lists["annotations"]]
    except (KeyError, TypeError) as error:
        raise NoTableError(f"images and annotations of which some lack {error}") from None
    if names:
        return [{"file": file, "label": note["label"]} for file, note in about]
    kept = ({key: value for key, value in note.items() if key not in ("id", "image_id")} for _, note in about)
    return [{"file": file, **flat_record(note)} for (file, _), note in zip(about, kept, strict=True)]


def _file_of(image: Record) -> object:
    found = [value for key, value in image.items() if key == "file_name"] or [
        value for value in image.values() if _is_file(value) and "://" not in str(value)
    ]
    if len(found) != 1:
        raise NoTableError(f"images with {listed(list(image))}, of which it is unclear which names the file")
    return found[0]


def _with_category(note: Record, names: Mapping[object, object]) -> Record:
    if "category_id" not in note:
        if names:
            raise KeyError("category_id")
        return note
    kept = {key: value for key, value in note.items() if key != "category_id"}
    return {**kept, "label": names[note["category_id"]] if names else note["category_id"]}


def _named(records: Sequence[Record], content: Record) -> Sequence[Record]:
    """The records with the class names that a list or a mapping beside them gives to their numbers."""
    naming = next((found for name, value in content.items() if is_naming(name) and (found := naming_of(value))), None)
    if naming is None:
        return records
    fields = [name for name in (records[0] if records else ()) if plain_name(name).endswith(NUMBERED_LABELS)]
    fields = [name for name in fields if all(isinstance(record.get(name), int) for record in records)]
    if len(fields) != 1:
        return records
    if other := next((record[fields[0]] for record in records if record[fields[0]] not in naming), None):
        raise NoTableError(f"the label {other}, which has no class name")
    return [{**record, fields[0]: naming[cast(int, record[fields[0]])]} for record in records]


# ---- records -------------------------------------------------------------------------------------------------------------------


def flat_record(record: Mapping[str, object]) -> Record:
    """A record without objects in it, {"label": {"name": "cat"}} as {"label.name": "cat"}; a list of one is what it holds.

    Examples
    --------
    >>> flat_record({"image": {"path": "0.png"}, "annotations": [{"label": "cat"}]})
    {'image.path': '0.png', 'annotations.label': 'cat'}
    """
    return dict(_flat("", _with_class_names(record), DEEPEST))


def _flat(name: str, value: object, deepest: int) -> Iterator[tuple[str, object]]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, Mapping) and deepest:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner, deepest - 1)
    else:
        yield name, _flat_value(value)


def _flat_value(value: object) -> object:
    """A list of labels as Python writes it, as in tables; None for other lists and objects."""
    if isinstance(value, list):
        return str(value) if value and all(isinstance(item, str | int) for item in value) else None
    return value if _is_scalar(value) else None


def _with_class_names(record: Mapping[str, object]) -> Record:
    """A record with the class names that SageMaker Ground Truth writes beside numbers, {"x": 0, "x-metadata": {"class-name": …}}.

    Examples
    --------
    >>> _with_class_names({"source-ref": "s3://b/0.png", "pet": 0, "pet-metadata": {"class-name": "cat", "confidence": 1}})
    {'source-ref': 's3://b/0.png', 'pet': 'cat'}
    """
    named = {
        key.removesuffix("-metadata"): about["class-name"]
        for key, about in record.items()
        if key.endswith("-metadata") and isinstance(about, dict) and "class-name" in about
    }
    return {
        key: named.get(key, value) for key, value in record.items() if key.removesuffix("-metadata") not in named or key in named
    }
