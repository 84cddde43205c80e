"""Hugging Face tables: parquet files and saved data sets."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from notbugs.data.names import Unreadable, first_line, numbered, printable
from notbugs.data.sources.arrays import reading
from notbugs.data.sources.arrow_files import check_arrow
from notbugs.data.sources.base import Located, Part, are_names, join, unused_names
from notbugs.data.sources.image_cells import ImageCells, cells_in_place, cells_on_disk
from notbugs.data.sources.limits import read_column, read_parquet
from notbugs.data.sources.listing import LEAVES
from notbugs.data.sources.numbered_files import joined_note, missing_files, without_number
from notbugs.data.sources.splits import choose_splits, listed, split_of, splits_among, to_test_on
from notbugs.data.sources.table_labels import find_column, label_column_of, labeled_rows, labels_of, missing_labels
from notbugs.data.sources.words import IMAGE_COLUMNS, LABELS_FIRST, SPLIT_COLUMNS, TRAIN, named_column, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

PLAIN = "notbugs"  # instead of a hash of a table, for which it would be copied twice
NAME_IMAGES = "name the one with the bytes of images image; pixels: save an .npz"
OTHERS = "other files"  # parquet files whose names say no part, beside such whose names do
SAVE_AGAIN = "save it again with save_to_disk"
AGAIN = "write it again"
Tables = Mapping[str, Any]  # split -> datasets.Dataset, which has no types


def locate_parquet(dataset: str, paths: list[Path], config: DataConfig) -> Located:
    """The images of parquet files. Their names or folders say the parts; without any, all are the training part."""
    prefixes = [without_number(path.stem) for path in paths]
    known, by_part = splits_among(prefixes), dict[str, list[Path]]()
    for path, prefix in zip(paths, prefixes, strict=True):
        in_folder = path.parent.name if split_of(path.parent.name) else ""
        by_part.setdefault(prefix if prefix in known else in_folder or (prefix if known else ""), []).append(path)
    if set(by_part) == {""}:
        by_part = {TRAIN: paths}
    files = {name or OTHERS: found for name, found in by_part.items()}
    tables = {name: _read_parquet(found) for name, found in files.items()}
    notes = missing_files(path.name for path in paths)
    notes += [note for name, found in files.items() for note in joined_note(name, (path.stem for path in found))]
    return _locate_tables(dataset, tables, config, "parquet", notes=notes, files=files)


def _read_parquet(paths: list[Path]) -> Any:
    """All columns but the one of the images, whose cells are empty: they are read once it is known which parts are used."""
    import datasets

    with reading(paths[0], "parquet", AGAIN):
        read = read_parquet(paths, without=_encoded_images(paths[0]))
        return datasets.concatenate_datasets([datasets.Dataset(table, fingerprint=PLAIN) for table in read])


def _encoded_images(path: Path) -> str | None:
    """The column of encoded images, or None if that is unclear."""
    import datasets
    import pyarrow

    schema = pyarrow.parquet.read_schema(path)
    try:
        name = _image_column(str(path), datasets.Features.from_arrow_schema(schema))
    except InputError:
        return None
    kind = schema.field(name).type
    held = (pyarrow.types.is_struct, pyarrow.types.is_binary, pyarrow.types.is_large_binary, pyarrow.types.is_string)
    return name if any(is_kind(kind) for is_kind in held) else None


def _image_column(dataset: str, features: Mapping[str, Any]) -> str:
    import datasets

    return find_column(dataset, features, datasets.Image, _called_images, "images", NAME_IMAGES)


def saved_parts(folders: list[Path]) -> list[Path]:
    """The folders in a folder, if `save_to_disk` wrote each of them and they are parts; else []."""
    saved = all((path / "state.json").is_file() for path in folders) and all(split_of(path.name) for path in folders)
    return folders if saved else []


def locate_saved_parts(folder: Path, parts: Sequence[Path], config: DataConfig) -> Located:
    """The images of a Dataset in each of several folders, which are the parts."""
    import datasets

    tables = {}
    for part in parts:
        with reading(part, "a saved Hugging Face set", SAVE_AGAIN):
            _check_saved(part, config)
            tables[part.name] = datasets.load_from_disk(str(part))
    return _locate_tables(str(folder), tables, config, "saved")


def locate_saved(folder: Path, config: DataConfig) -> Located:
    """The images of a Dataset or a DatasetDict that `save_to_disk` wrote."""
    import datasets

    with reading(folder, "a saved Hugging Face set", SAVE_AGAIN):
        _check_saved(folder, config)
        saved = datasets.load_from_disk(str(folder))
    return _locate_tables(str(folder), saved if isinstance(saved, dict) else {TRAIN: saved}, config, "saved")


def _check_saved(folder: Path, config: DataConfig) -> None:
    """Raises InputError where a saved set names files outside its folder, which may be anyone's, or has a damaged one.

    Links that leave it are followed if that was asked for; names that leave it never are.
    """
    places = [folder]
    if (folder / "dataset_dict.json").is_file():
        places = [folder / str(split) for split in _listed(folder / "dataset_dict.json", "splits")]
    for place in places:
        _check_within(folder, place, config)
        if pipe := next((path for path in place.iterdir() if not path.is_file() and not path.is_dir()), None):
            raise InputError(printable(str(pipe)), "is not a file", remedy=SAVE_AGAIN)  # opening a pipe would wait forever
        state = json.loads((place / "state.json").read_text("utf-8"))
        if state.get("_output_all_columns") not in (None, False, True) or not isinstance(state.get("_format_type"), str | None):
            raise ValueError("its state.json is damaged")
        for file in _listed(place / "state.json", "_data_files"):
            path = place / cast(Mapping[str, str], file)["filename"]
            _check_within(folder, path, config)
            check_arrow(path)


def _listed(path: Path, key: str) -> list[object]:
    return list(json.loads(path.read_text("utf-8"))[key])


def _check_within(folder: Path, path: Path, config: DataConfig) -> None:
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise InputError(printable(str(folder)), "must hold all of its files", printable(str(path)), SAVE_AGAIN)
    if not config.follow_links and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(printable(str(path)), LEAVES)


def _locate_tables(
    dataset: str,
    tables: Tables,
    config: DataConfig,
    form: str,
    *,
    notes: Sequence[str] = (),
    files: Mapping[str, Sequence[Path]] = MappingProxyType({}),
) -> Located:
    """The images of tables by part.

    files: the parquet files of each part, from which images are still to be read.
    """
    sizes = {name: labeled_rows(dataset, table, config) for name, table in tables.items()}
    for table in tables.values() if not any(sizes.values()) else ():
        label_column_of(dataset, table, config)  # says why there is none
    chosen = choose_splits(dataset, sizes, config.train, config.test)
    both = {name: _read_part(dataset, tables[name], name, config, files.get(name, ())) for name in chosen.parts}
    read = {name: part for name, (part, *_) in both.items()}
    notes = [*notes]
    notes += [f"{printable(name)}: {note}" for name, (_, found, _) in both.items() for note in found]
    notes += [note for name in chosen.parts for note in _split_columns(tables, name, config)]
    notes += [
        f"not used: {printable(name)} ({_rows_text(sizes[name], tables[name].num_rows)}){to_test_on(name, sizes[name])}"
        for name in chosen.unused
    ]
    train, test = (read[name] if name else None for name in (chosen.train, chosen.test))
    left_out = [
        Unreadable(f"{dataset}: {name} row {i}", "is a part that is not used")
        for name in chosen.unused
        for i in range(tables[name].num_rows)
    ]
    unreadable = tuple(item for *_, refused in both.values() for item in refused)
    return join(dataset, train, test, form, notes)._replace(left_out=tuple(left_out), unreadable=unreadable)


def _split_columns(tables: Tables, name: str, config: DataConfig) -> list[str]:
    """Notes on columns that are called like parts: the parts are those of the files."""
    table = tables[name]
    found = [column for column in table.column_names if plain_name(column) in SPLIT_COLUMNS]
    found = [column for column in found if column not in (config.label_column, named_column(table.column_names, config.group))]
    values = {column: sorted({str(value) for value in table.with_format(None)[column]}) for column in found}
    return [f"{printable(name)}: column {printable(column)} is not used: {listed(values[column], 3)}" for column in found]


def _rows_text(labeled: int, rows: int) -> str:
    return f"{labeled:,} images" if labeled else f"{rows:,} images without labels"


def _read_part(
    dataset: str, table: Any, name: str, config: DataConfig, files: Sequence[Path]
) -> tuple[Part, list[str], list[Unreadable]]:
    """One part, notes, and the rows that have no image or no label."""
    import datasets

    image = _image_column(dataset, table.features)
    label = label_column_of(dataset, table, config)
    cells = _image_cells(dataset, table, image, files)
    unusable = _unusable_rows(cells, table.with_format(None)[label], label)
    rows = [row for row in range(table.num_rows) if row not in unusable]
    table = table.select(rows) if unusable else table
    labels, classes, said = labels_of(dataset, table, label, explicit=config.label_column is not None)
    by_word = not config.label_column and label not in LABELS_FIRST and not isinstance(table.features[label], datasets.ClassLabel)
    column = f"labels from the column {printable(label)}" if by_word else ""
    images = replace(cells, rows=rows)
    _check_bytes(dataset, image, images)
    group = named_column(table.column_names, config.group)
    names, note = _names(table, [cells.paths[row] for row in rows])
    places = [f"{dataset}: {name} row {i}" for i in rows]
    groups = ["" if value is None else str(value) for value in table.with_format(None)[group]] if group else []
    others = [column for column in table.features if column != image and _may_hold_images(table.features[column])]
    not_read = f"not read, though they may be images: {listed(others)}" if others else ""
    part = Part(name, images, labels, classes, names, places, groups)
    refused = [Unreadable(f"{dataset}: {name} row {row}", reason) for row, reason in sorted(unusable.items())]
    return part, [text for text in (column, said, note, not_read) if text], refused


def _called_images(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in IMAGE_COLUMNS]


def _unusable_rows(images: ImageCells, labels: Sequence[object], column: str) -> dict[int, str]:
    """The rows that have no image or no label, and why."""
    reasons = dict.fromkeys(sorted(images.empty), "has no image")
    return reasons | dict.fromkeys(missing_labels(labels), f"has no label in the column {column}")


def _may_hold_images(feature: object) -> bool:
    import datasets

    packed = isinstance(feature, dict) and "bytes" in feature
    return packed or isinstance(feature, datasets.Image) or getattr(feature, "dtype", "") in ("binary", "large_binary")


def _image_cells(dataset: str, table: Any, name: str, files: Sequence[Path]) -> ImageCells:
    """The encoded images of one column, of parquet files if there are any. Raises InputError where a cell can hold none."""
    import datasets
    import pyarrow

    column = table.select_columns([name]).with_format("arrow")[:][name]
    kind, rule = column.type, f"the column {name} does not hold encoded images"
    remedy = "save the bytes of a .png of each image, or an .npz of arrays"
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or isinstance(kind, pyarrow.ExtensionType):
        raise InputError(dataset, rule, "lists of numbers", remedy)  # they would be encoded in silence, as images of 16 bits
    form = datasets.Image(decode=False)
    try:
        if files:
            with reading(files[0], "parquet", AGAIN):
                return cells_on_disk(map(form.cast_storage, read_column(files, name)))
        return cells_in_place([form.cast_storage(piece) for piece in column.chunks])
    except InputError:
        raise
    except Exception as error:
        raise InputError(dataset, rule, first_line(error), remedy) from None


def _check_bytes(dataset: str, name: str, cells: ImageCells) -> None:
    """Raises InputError where a cell has no bytes: a table from elsewhere could name any file of this machine."""
    missing = [row for row in cells.rows if row in cells.without] if cells.without else []
    if missing:
        path = next((path for row in cells.rows if (path := cells.paths[row])), "")
        table_name = printable(Path(dataset).name) if dataset.endswith(".parquet") else "FILE"
        remedy = f"save the bytes of each image, or pass the folder of the files with --labels {table_name}"
        raise InputError(dataset, f"the column {name} lacks the bytes of some images", f"the path {printable(path[:60])}", remedy)


def _names(table: Any, paths: list[str | None]) -> tuple[list[str], str]:
    """Image names: the column file_name, else the file names that the image cells carry, else numbers; and a note."""
    given = list(table.with_format(None)["file_name"]) if "file_name" in table.column_names else []
    base = [os.path.basename(path) if path else "" for path in paths]
    names = next((names for names in (given, base) if are_names(names, len(paths))), numbered(len(paths)))
    return names, unused_names("the column file_name") if given and names is not given else ""
