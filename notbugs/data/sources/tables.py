"""Hugging Face tables: parquet files, saved data sets, and data sets on the hub."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from notbugs.data.decode import EncodedImage
from notbugs.data.names import first_line, numbered, printable
from notbugs.data.sources.base import TEST_SPLITS, Located, are_names
from notbugs.errors import InputError

Tables = Mapping[str, Any]  # split -> datasets.Dataset, which has no types


class ImageColumn(NamedTuple):
    """The encoded images of all splits, and for each split the paths that its cells carry."""

    images: Sequence[EncodedImage]
    paths: list[list[str | None]]


def locate_parquet(dataset: str, files: list[Path]) -> Located:
    """The images of parquet files. The beginning of a file's name is its split; a single file is the training part."""
    splits = {split: [path for path in files if path.name.startswith(split)] for split in ("train", *TEST_SPLITS)}
    if len(files) == 1:
        splits = {"train": files}
    elif not splits["train"]:
        raise InputError(dataset, "has no train*.parquet", ", ".join(path.name for path in files[:4]))
    return _locate_tables(dataset, {split: _read_parquet(paths) for split, paths in splits.items() if paths}, "parquet")


def _read_parquet(paths: list[Path]) -> Any:
    import datasets
    import pyarrow.parquet

    try:
        return datasets.concatenate_datasets([datasets.Dataset(pyarrow.parquet.read_table(path)) for path in paths])
    except (OSError, ValueError, TypeError) as error:
        raise InputError(str(paths[0]), "cannot be read as parquet", first_line(error)) from None


def locate_saved(folder: Path, split: str = "") -> Located:
    """The images of a Dataset or a DatasetDict that `save_to_disk` wrote, or of one split of it."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        tables = saved if isinstance(saved, dict) else {"train": saved}
        tables = {split: tables[split]} if split else tables
    except Exception as error:
        raise InputError(str(folder), "cannot be read as a saved Hugging Face set", first_line(error)) from None
    return _locate_tables(str(folder), tables, "saved")


def locate_hub(dataset: str) -> Located:
    """The images of a data set on the Hugging Face hub. Raises InputError where there is none of this name."""
    import datasets
    import huggingface_hub

    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", dataset) or Path(dataset).suffix in (".npz", ".parquet"):
        raise InputError(printable(dataset), "does not exist", remedy="check the path")
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # Asked first because load_dataset retries for 23 s where there is no network.
            huggingface_hub.HfApi().dataset_info(dataset, timeout=10)
        with without_progress_bars():
            tables = datasets.load_dataset(dataset)
    except Exception as error:
        missing = isinstance(error, huggingface_hub.errors.RepositoryNotFoundError)
        rule = "has no such set" if missing else "could not be reached for a set of this name"
        reason = type(error).__name__ if missing else first_line(error)
        raise InputError(
            dataset, f"this path does not exist, and the Hugging Face hub {rule}", reason, "check the path"
        ) from None
    return _locate_tables(dataset, dict(tables), "parquet", files_allowed=True)


def _locate_tables(dataset: str, tables: Tables, form: str, *, files_allowed: bool = False) -> Located:
    """The images of tables by split. files_allowed: a cell may name a file of this disk instead of holding its bytes."""
    import datasets

    splits = _chosen_splits(dataset, tables)
    features = tables[splits[0]].features
    image = _find_column(dataset, features, datasets.Image, ("image", "img"), "images")
    label = _find_column(dataset, features, datasets.ClassLabel, ("label", "labels", "fine_label"), "labels")
    for split in splits:
        if missing := {image, label} - set(tables[split].column_names):
            raise InputError(dataset, f"the part {split} has no column", ", ".join(sorted(missing)))
    values = [list(tables[split].with_format(None)[label]) for split in splits]
    classes, labels = _classes_and_labels(dataset, features[label], label, values)
    column = _image_column(dataset, [tables[split] for split in splits], image, files_allowed)
    unused = sorted(set(tables) - set(splits))
    return Located(
        column.images,
        [value for split_labels in labels for value in split_labels],
        [name for split, paths in zip(splits, column.paths, strict=True) for name in _names(tables[split], paths)],
        [f"{dataset}: {split} row {i}" for split, rows in zip(splits, labels, strict=True) for i in range(len(rows))],
        len(labels[0]),
        classes,
        form,
        f"not used: {', '.join(unused)}" if unused else "",
    )


def _chosen_splits(dataset: str, tables: Tables) -> list[str]:
    """The training part, and the test part if there is one."""
    train = "train" if "train" in tables else next(iter(tables)) if len(tables) == 1 else ""
    if not train:
        raise InputError(dataset, "has no part called train", ", ".join(tables))
    return [train, *[split for split in TEST_SPLITS if split in tables and split != train][:1]]


def _image_column(dataset: str, tables: list[Any], name: str, files_allowed: bool) -> ImageColumn:
    """The encoded images of one column. Raises InputError where a cell holds none."""
    import datasets
    import pyarrow.compute

    try:
        with without_progress_bars():
            cells = [table.select_columns([name]).cast_column(name, datasets.Image(decode=False)) for table in tables]
            images = datasets.concatenate_datasets(cells).with_format(None)[name]
            arrow = [table.with_format("arrow")[:][name] for table in cells]
        missing_bytes = any(pyarrow.compute.struct_field(column, "bytes").null_count for column in arrow)
        paths = [pyarrow.compute.struct_field(column, "path").to_pylist() for column in arrow]
    except Exception as error:
        raise InputError(dataset, f"the column {name} does not hold encoded images", first_line(error)) from None
    if missing_bytes and not files_allowed:  # a table from elsewhere could name any file of this machine
        raise InputError(dataset, f"the column {name} lacks the bytes of some images", remedy="embed the images")
    return ImageColumn(images, paths)


def _names(table: Any, paths: list[str | None]) -> list[str]:
    """Image names: the column file_name, else the file names that the image cells carry, else numbers."""
    given = list(table.with_format(None)["file_name"]) if "file_name" in table.column_names else []
    base = [os.path.basename(path) if path else "" for path in paths]
    return next((names for names in (given, base) if are_names(names, len(paths))), numbered(len(paths)))


def _find_column(dataset: str, features: Mapping[str, Any], kind: type, usual: tuple[str, ...], what: str) -> str:
    """The one column of a type; of several, or of none, the one with a usual name."""
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    candidates = typed if len(typed) == 1 else [name for name in typed or features if name in usual]
    if len(candidates) != 1:
        rule = f"it must be clear which column holds the {what}"
        raise InputError(dataset, rule, f"columns {', '.join(candidates or features)}", f"name one of them {usual[0]}")
    return candidates[0]


def _classes_and_labels(
    dataset: str, feature: Any, column: str, values: list[list[Any]]
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Class names and labels of a label column: named numbers, plain numbers, or text."""
    everything = [value for split in values for value in split]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in everything):
        names = getattr(feature, "names", None)
        return tuple(names if names else map(str, range(max(values[0], default=0) + 1))), values
    if not all(isinstance(value, str) for value in everything):
        raise InputError(dataset, f"the column {column} must hold one whole number or one word for each image")
    classes = tuple(sorted(set(values[0])))
    if unknown := sorted(set(everything) - set(classes)):
        raise InputError(dataset, "the test part has a class that the training part does not have", printable(unknown[0]))
    return classes, [[classes.index(value) for value in split] for split in values]


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No progress bars of Hugging Face datasets inside; its setting stays as it was."""
    import datasets

    enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()
