"""The labels of Hugging Face tables: which column holds them, and which classes they mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from notbugs.data.names import printable
from notbugs.data.sources.base import numbered_classes, sorted_classes
from notbugs.data.sources.class_names import Naming, apply_naming, as_one_name, is_name_column, naming_by_rows
from notbugs.data.sources.several_labels import HOLDS, KEEP_ONE, REMEDY, several_labels
from notbugs.data.sources.splits import listed
from notbugs.data.sources.targets import REMEDY as GROUP
from notbugs.data.sources.targets import check_no_measurements
from notbugs.data.sources.words import LABELS_FIRST, called_labels
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

SAVE_LABELS = "save whole numbers or words"
OTHER_LABELS = {list: "save the one label of each image, not in a list", dict: "save one of its fields as a column"}


def label_column_of(dataset: str, table: Any, config: DataConfig) -> str:
    """The column of the labels: the one that was asked for, that has their type, or that is called so. Raises InputError."""
    import datasets

    if config.label_column:
        if config.label_column not in table.column_names:
            raise InputError("--label-column", f"must be a column: {listed(table.column_names)}", config.label_column)
        return config.label_column
    return find_column(
        dataset, table.features, datasets.ClassLabel, _called_labels, "labels", "choose it with --label-column NAME"
    )


def labeled_rows(dataset: str, table: Any, config: DataConfig) -> int:
    """Rows with a label. Parts without labels have no column for them, or -1 in each row."""
    try:
        column = label_column_of(dataset, table, config)
    except InputError:
        if config.label_column and config.label_column in table.column_names:
            raise
        return 0
    values = table.with_format(None)[column]
    return table.num_rows if any(value not in (None, -1) for value in values) else 0


def _called_labels(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in LABELS_FIRST] or called_labels(columns)


def find_column(
    dataset: str, features: Mapping[str, Any], kind: type, called_so: Callable[[Sequence[str]], list[str]], what: str, remedy: str
) -> str:
    """The one column of a type; of several, or of none, the one that is called so."""
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    candidates = typed if len(typed) == 1 else called_so(typed or [*features])
    if len(candidates) != 1:
        rule = f"it must be clear which column holds the {what}"
        raise InputError(dataset, rule, f"columns {listed(candidates or list(features), 12)}", remedy)
    return candidates[0]


def labels_of(dataset: str, table: Any, column: str, *, explicit: bool) -> tuple[list[int], tuple[str, ...], str]:
    """Labels and class names of a label column, and a note, or "": named numbers, plain numbers, or text.

    explicit: whether the user chose the column; else numbers get the words of a column such as label_name beside it.
    """
    values, place = list(table.with_format(None)[column]), f"{dataset}: column {column}"
    if not explicit:
        check_no_measurements(place, values, column, f"{GROUP}; each number as a class: --label-column {printable(column)}")
    if all(isinstance(value, bool) for value in values):
        return [int(value) for value in values], ("False", "True"), ""
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # as pandas writes whole numbers of which some were missing
    elif explicit and all(isinstance(value, float) for value in values):
        values = [str(value) for value in values]
    if values and all(isinstance(value, bool) for value in values):
        return list(map(int, values)), ("False", "True"), ""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        names = getattr(table.features[column], "names", None)
        if names:
            return (*apply_naming(values, dict(enumerate(names)), place), "")
        naming, said = ({}, "") if explicit else _naming_column(dataset, table, column, values)
        return (*(apply_naming(values, naming, place) if naming else numbered_classes(values)), said)
    if not all(isinstance(value, str) for value in values):
        other = next((value for value in values if not isinstance(value, str | int)), values[0])
        if several := next((value for value in values if isinstance(value, list) and len(value) > 1), None):
            raise InputError(dataset, f"the column {printable(column)} {HOLDS}", printable(str(several)[:60]), KEEP_ONE)
        rule = f"the column {column} must hold one whole number or one word for each image"
        remedy = next((way_out for kind, way_out in OTHER_LABELS.items() if isinstance(other, kind)), SAVE_LABELS)
        raise InputError(dataset, rule, printable(str(other)[:60]), remedy)
    if not explicit and (found := several_labels(set(values))):
        raise InputError(dataset, f"the column {printable(column)} {HOLDS}", listed(found, 3), REMEDY)
    words, note = as_one_name(values)
    classes = sorted_classes(words)
    index = {name: number for number, name in enumerate(classes)}
    return [index[word] for word in words], classes, note


def missing_labels(values: Sequence[object]) -> list[int]:
    """The rows without a label: None, NaN, and -1 beside other numbers, as Hugging Face has it. -1 and 1 may be two classes."""
    signs = {*values} <= {-1, 1} if all(isinstance(value, int) for value in values) else False
    return [i for i, value in enumerate(values) if value is None or value != value or (value == -1 and not signs)]


def _naming_column(dataset: str, table: Any, column: str, numbers: list[int]) -> tuple[Naming, str]:
    """The class names in a column of words beside one of numbers, and a note; none if there is no such column."""
    for name in table.column_names:
        words = list(table.with_format(None)[name]) if name != column and is_name_column(name) else []
        if words and all(isinstance(word, str) for word in words):
            remedy = f"choose one with --label-column {printable(column)} or {printable(name)}"
            naming = naming_by_rows(dataset, numbers, as_one_name(words)[0], (column, name), remedy)
            return naming, f"class names from the column {printable(name)}"
    return {}, ""
