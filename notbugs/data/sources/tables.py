"""Hugging Face tables: parquet files, saved data sets, and data sets on the hub."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from notbugs.data.config import DataConfig
from notbugs.data.names import Unreadable, first_line, numbered, printable
from notbugs.data.sources.arrays import reading
from notbugs.data.sources.base import Located, Part, are_names, join, numbered_classes, unused_names
from notbugs.data.sources.class_names import Naming, apply_naming, as_one_name, is_name_column, naming_by_rows
from notbugs.data.sources.limits import check_expansion, read_parquet
from notbugs.data.sources.splits import SPLIT_COLUMNS, TRAIN, choose_splits, listed, plain_name, split_of, splits_among
from notbugs.data.sources.targets import REMEDY as GROUP
from notbugs.data.sources.targets import check_no_measurements
from notbugs.decoding.decode import EncodedImage
from notbugs.errors import InputError

PLAIN = "notbugs"  # instead of a hash of a table, for which it would be copied twice
Tables = Mapping[str, Any]  # split -> datasets.Dataset, which has no types


def locate_parquet(dataset: str, files: list[Path], config: DataConfig) -> Located:
    """The images of parquet files. Their names or folders say the parts; without any, all are the training part."""
    prefixes = [re.split(r"[-_.]?\d", path.stem)[0] for path in files]
    known, by_part = splits_among(prefixes), dict[str, list[Path]]()
    for path, prefix in zip(files, prefixes, strict=True):
        in_folder = path.parent.name if split_of(path.parent.name) else ""
        by_part.setdefault(prefix if prefix in known else in_folder or (prefix if known else ""), []).append(path)
    if set(by_part) == {""}:
        by_part = {TRAIN: files}
    tables = {name or "other files": _read_parquet(paths) for name, paths in by_part.items()}
    return _locate_tables(dataset, tables, config, "parquet")


def _read_parquet(paths: list[Path]) -> Any:
    import datasets

    with reading(paths[0], "parquet", "write it again"):
        return datasets.concatenate_datasets([datasets.Dataset(table, fingerprint=PLAIN) for table in read_parquet(paths)])


def locate_saved(folder: Path, config: DataConfig) -> Located:
    """The images of a Dataset or a DatasetDict that `save_to_disk` wrote."""
    import datasets

    with reading(folder, "a saved Hugging Face set", "save it again with save_to_disk"):
        _check_saved(folder)
        saved = datasets.load_from_disk(str(folder))
    return _locate_tables(str(folder), saved if isinstance(saved, dict) else {TRAIN: saved}, config, "saved")


def _check_saved(folder: Path) -> None:
    """Raises InputError where a saved set names files outside its folder, which may be anyone's, or has a damaged one."""
    places = [folder]
    if (folder / "dataset_dict.json").is_file():
        places = [folder / str(split) for split in _listed(folder / "dataset_dict.json", "splits")]
    for place in places:
        _check_within(folder, place)
        for file in _listed(place / "state.json", "_data_files"):
            path = place / cast(Mapping[str, str], file)["filename"]
            _check_within(folder, path)
            _check_arrow(path)


def _listed(path: Path, key: str) -> list[object]:
    return list(json.loads(path.read_text("utf-8"))[key])


def _check_within(folder: Path, path: Path) -> None:
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise InputError(printable(str(folder)), "must hold all of its files", printable(str(path)))


def _check_arrow(path: Path) -> None:
    """Raises an error where an Arrow file is damaged: reading beyond its end would end the process without a word."""
    import pyarrow

    size = 0
    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
        for batch in batches:
            batch.validate(full=True)
            size += batch.nbytes
            check_expansion(path, size)


def locate_hub(dataset: str, config: DataConfig) -> Located:
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
    return _locate_tables(dataset, dict(tables), config, "parquet", files_allowed=True)


def _locate_tables(dataset: str, tables: Tables, config: DataConfig, form: str, *, files_allowed: bool = False) -> Located:
    """The images of tables by part. files_allowed: a cell may name a file of this disk instead of holding its bytes."""
    sizes = {name: _labeled_rows(dataset, table, config) for name, table in tables.items()}
    for table in tables.values() if not any(sizes.values()) else ():
        _label_column(dataset, table, config)  # says why there is none
    chosen = choose_splits(dataset, sizes, config.train, config.test)
    both = {name: _read_part(dataset, tables[name], name, config, files_allowed) for name in chosen.parts}
    read = {name: part for name, (part, _) in both.items()}
    notes = [f"{printable(name)}: {note}" for name, (_, found) in both.items() for note in found]
    notes += [note for name in chosen.parts for note in _split_columns(tables, name, config)]
    notes += [f"not used: {printable(name)} ({_rows_text(sizes[name], tables[name].num_rows)})" for name in chosen.unused]
    train, test = (read[name] if name else None for name in (chosen.train, chosen.test))
    left_out = [
        Unreadable(f"{dataset}: {name}", f"is a part that is not used ({tables[name].num_rows:,} rows)") for name in chosen.unused
    ]
    return join(dataset, train, test, form, notes)._replace(left_out=tuple(left_out))


def _split_columns(tables: Tables, name: str, config: DataConfig) -> list[str]:
    """Notes on columns that are called like parts: the parts are those of the files."""
    table = tables[name]
    found = [column for column in table.column_names if plain_name(column) in SPLIT_COLUMNS]
    found = [column for column in found if column not in (config.label_column, config.group)]
    values = {column: sorted({str(value) for value in table.with_format(None)[column]}) for column in found}
    return [f"{printable(name)}: column {printable(column)} is not used: {listed(values[column], 3)}" for column in found]


def _rows_text(labeled: int, rows: int) -> str:
    return f"{labeled:,} images" if labeled else f"{rows:,} images without labels"


def _labeled_rows(dataset: str, table: Any, config: DataConfig) -> int:
    """Rows with a label. Parts without labels have no column for them, or -1 in each row."""
    try:
        column = _label_column(dataset, table, config)
    except InputError:
        if config.label_column and config.label_column in table.column_names:
            raise
        return 0
    values = table.with_format(None)[column]
    return table.num_rows if any(value not in (None, -1) for value in values) else 0


def _label_column(dataset: str, table: Any, config: DataConfig) -> str:
    import datasets

    if config.label_column:
        if config.label_column not in table.column_names:
            raise InputError("--label-column", f"must be a column: {listed(table.column_names)}", config.label_column)
        return config.label_column
    usual = ("label", "labels", "fine_label")
    return _find_column(dataset, table.features, datasets.ClassLabel, usual, "labels", "--label-column NAME")


def _read_part(dataset: str, table: Any, name: str, config: DataConfig, files_allowed: bool) -> tuple[Part, list[str]]:
    """One part, and notes."""
    import datasets

    image = _find_column(dataset, table.features, datasets.Image, ("image", "img"), "images", "")
    label = _label_column(dataset, table, config)
    labels, classes, said = _labels(dataset, table, label, explicit=config.label_column is not None)
    images, paths = _image_column(dataset, table, image, files_allowed)
    group = config.group if config.group in table.column_names else None
    names, note = _names(table, paths)
    places = [f"{dataset}: {name} row {i}" for i in range(len(labels))]
    groups = [str(value) for value in table.with_format(None)[group]] if group else []
    return Part(name, images, labels, classes, names, places, groups), [text for text in (said, note) if text]


def _image_column(dataset: str, table: Any, name: str, files_allowed: bool) -> tuple[Sequence[EncodedImage], list[str | None]]:
    """The encoded images of one column, and the paths that its cells carry. Raises InputError where a cell holds none."""
    import datasets
    import pyarrow.compute

    try:
        with without_progress_bars():
            cells = table.select_columns([name]).cast_column(name, datasets.Image(decode=False))
        column = cells.with_format("arrow")[:][name]
        missing_bytes = pyarrow.compute.struct_field(column, "bytes").null_count
        paths = pyarrow.compute.struct_field(column, "path").to_pylist()
    except Exception as error:
        raise InputError(dataset, f"the column {name} does not hold encoded images", first_line(error)) from None
    if missing_bytes and not files_allowed:  # a table from elsewhere could name any file of this machine
        raise InputError(dataset, f"the column {name} lacks the bytes of some images", remedy="embed the images")
    if missing_bytes:
        _check_downloaded(dataset, cells.with_format(None)[name])
    return cells.with_format(None)[name], paths


def _check_downloaded(dataset: str, cells: Iterable[Mapping[str, str | bytes | None]]) -> None:
    """Raises InputError where a cell without bytes names a file that was not downloaded: it could be any file of this machine."""
    import datasets
    import huggingface_hub

    caches = (huggingface_hub.constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    roots = [Path(cache).resolve() for cache in caches]
    for cell in cells:
        if cell["bytes"] is None:
            path = Path(os.fsdecode(cell["path"] or "")).resolve()
            if not any(path.is_relative_to(root) for root in roots):
                raise InputError(
                    printable(dataset), "must hold its images, or name files that were downloaded", printable(str(path))
                )


def _names(table: Any, paths: list[str | None]) -> tuple[list[str], str]:
    """Image names: the column file_name, else the file names that the image cells carry, else numbers; and a note."""
    given = list(table.with_format(None)["file_name"]) if "file_name" in table.column_names else []
    base = [os.path.basename(path) if path else "" for path in paths]
    names = next((names for names in (given, base) if are_names(names, len(paths))), numbered(len(paths)))
    return names, unused_names("the column file_name") if given and names is not given else ""


def _find_column(dataset: str, features: Mapping[str, Any], kind: type, usual: tuple[str, ...], what: str, option: str) -> str:
    """The one column of a type; of several, or of none, the one with a usual name."""
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    candidates = typed if len(typed) == 1 else [name for name in typed or features if name in usual]
    if len(candidates) != 1:
        rule = f"it must be clear which column holds the {what}"
        remedy = f"choose it with {option}" if option else f"name one of them {usual[0]}"
        raise InputError(dataset, rule, f"columns {', '.join(candidates or features)}", remedy)
    return candidates[0]


def _labels(dataset: str, table: Any, column: str, *, explicit: bool) -> tuple[list[int], tuple[str, ...], str]:
    """Labels and class names of a label column, and a note, or "": named numbers, plain numbers, or text.

    explicit: whether the user chose the column; else numbers get the words of a column such as label_name beside it.
    """
    values, place = list(table.with_format(None)[column]), f"{dataset}: column {column}"
    if not explicit:
        check_no_measurements(place, values, column, f"{GROUP}; each number as a class: --label-column {printable(column)}")
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # as pandas writes whole numbers of which some were missing
    elif explicit and all(isinstance(value, float) for value in values):
        values = [str(value) for value in values]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        names = getattr(table.features[column], "names", None)
        if names:
            return (*apply_naming(values, dict(enumerate(names)), place), "")
        naming, said = ({}, "") if explicit else _naming_column(dataset, table, column, values)
        return (*(apply_naming(values, naming, place) if naming else numbered_classes(values)), said)
    if not all(isinstance(value, str) for value in values):
        raise InputError(dataset, f"the column {column} must hold one whole number or one word for each image")
    words, note = as_one_name(values)
    classes = tuple(sorted(set(words)))
    index = {name: number for number, name in enumerate(classes)}
    return [index[word] for word in words], classes, note


def _naming_column(dataset: str, table: Any, column: str, numbers: list[int]) -> tuple[Naming, str]:
    """The class names in a column of words beside one of numbers, and a note; none if there is no such column."""
    for name in table.column_names:
        words = list(table.with_format(None)[name]) if name != column and is_name_column(name) else []
        if words and all(isinstance(word, str) for word in words):
            remedy = f"choose one with --label-column {printable(column)} or {printable(name)}"
            naming = naming_by_rows(dataset, numbers, as_one_name(words)[0], (column, name), remedy)
            return naming, f"class names from the column {printable(name)}"
    return {}, ""


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
