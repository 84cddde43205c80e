"""Labels in JSON: the forms in which labeling tools export them, as one record for each image."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import cast


def json_records(text: str) -> list[object]:
    """Records of a list, of {file: label}, of {"labels": [[file, label]]} or of COCO; [] for any other JSON.

    Many .json files beside images are no tables, so that none is an error.
    """
    try:
        content: object = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return []
    if isinstance(content, list):
        return content if all(isinstance(record, dict) for record in content) else []
    if not isinstance(content, dict):
        return []
    if {"images", "annotations", "categories"} <= content.keys():
        return _from_coco(content)
    labels = content.get("labels")
    pairs = labels if isinstance(labels, list) and len(content) == 1 else _items(content)
    return [{"file": pair[0], "label": pair[1]} for pair in pairs] if pairs and all(map(_is_pair, pairs)) else []


class _Repeated(dict[str, object]):
    """An object in which a name stands twice: what comes last is kept, and all of it in `pairs`."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def _items(content: dict[str, object]) -> list[list[object]]:
    return [list(item) for item in (content.pairs if isinstance(content, _Repeated) else content.items())]


def _is_pair(pair: object) -> bool:
    """Whether two values are the name of a file and a label."""
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        return False
    return bool(PurePosixPath(pair[0]).suffix) and isinstance(pair[1], str | int) and not isinstance(pair[1], bool)


def _from_coco(content: Mapping[str, object]) -> list[object]:
    """A record for each annotation. Those that are no whole ones make this no table."""
    lists = {name: cast(list[dict[str, object]], content[name]) for name in ("images", "annotations", "categories")}
    try:
        files = {image["id"]: image["file_name"] for image in lists["images"]}
        if len(files) < len(lists["images"]):
            return []  # two images of one number
        names = {category["id"]: category["name"] for category in lists["categories"]}
        if len(names) < len(lists["categories"]):
            return []  # two categories of one number
        return [{"file": files[about["image_id"]], "label": names[about["category_id"]]} for about in lists["annotations"]]
    except (KeyError, TypeError):
        return []


def with_class_names(record: Mapping[str, object]) -> dict[str, object]:
    """A record with the class names that SageMaker Ground Truth writes beside numbers, {"x": 0, "x-metadata": {"class-name": …}}.

    Examples
    --------
    >>> with_class_names({"source-ref": "s3://b/0.png", "pet": 0, "pet-metadata": {"class-name": "cat", "confidence": 1}})
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
