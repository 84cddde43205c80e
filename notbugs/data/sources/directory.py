"""Which reader a folder needs: by the files of one form that it holds, or as image files."""

import os
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from notbugs.data.config import FOR_FOLDERS, DataConfig, reject_options
from notbugs.data.names import IMAGE_SUFFIXES, SYSTEM, Unreadable, printable
from notbugs.data.sources.base import HOLDS_ARCHIVES, Located
from notbugs.data.sources.cifar import cifar_files, locate_cifar, reject_pickles
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.forms import ARRAY_FILES, FOLDERS_ALONE, locate_array_form, scan, with_output_note
from notbugs.data.sources.idx import is_idx, locate_idx
from notbugs.data.sources.label_columns import fitting_tables
from notbugs.data.sources.label_table import find_tables
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.name_files import with_names_beside
from notbugs.data.sources.pixel_text import locate_pixel_text, text_header
from notbugs.data.sources.pixels import locate_pixels, pixel_header
from notbugs.data.sources.refused import PACKED, ending
from notbugs.data.sources.shards import ENDINGS as TAR
from notbugs.data.sources.shards import locate_tar
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.tables import locate_parquet, locate_saved, locate_saved_parts, saved_parts
from notbugs.errors import InputError

Locate = Callable[[Path, Sequence[Path], DataConfig], Located]  # source, its files, configuration
DEEPEST = 8  # folders that may lie around the files, one in the other


def locate_directory(path: Path, config: DataConfig) -> Located:
    """The images of a folder: of the files of one form that it holds, or image files. A file beside them may name the classes.

    Raises
    ------
    InputError
        If it holds files of several forms, or nothing that is read.
    """
    base = _unwrapped(path)
    saved = (base / "dataset_dict.json").is_file() or (base / "state.json").is_file()
    if saved or (parts := saved_parts(base)):
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        return locate_saved(base, config) if saved else locate_saved_parts(base, parts, config)
    _reject_hub_cache(path)
    files, folders = _entries(base)
    return with_names_beside(_of_folder(path, base, files, folders, config), path, files)


def _of_folder(path: Path, base: Path, files: Sequence[Path], folders: Sequence[Path], config: DataConfig) -> Located:
    images = _has_images(folders) or any(ending(file.name) in IMAGE_SUFFIXES for file in files)
    if not images and not config.labels and (parquet := _parquet_files(path)):
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        return locate_parquet(config.dataset, parquet, config)
    reject_pickles(base, [file.name for file in files])
    readers = _readers(base, files, folders)
    if not readers and not folders and (archives := [file.name for file in files if ending(file.name) in (".zip", *PACKED)]):
        raise InputError(printable(str(base)), HOLDS_ARCHIVES, listed(archives), _how_to_unpack(archives))
    as_folder = config.labels or config.all_classes or config.label_regex
    if not readers or (as_folder and (images or set(readers) != {"tar"})):
        return locate_folder(config, path)
    if _has_images(folders) or _table_labels_images(base, files, config):
        return _beside_images(locate_folder(config, path), [file for found, _ in readers.values() for file in found])
    if len(readers) > 1:
        got = listed([file.name for found, _ in readers.values() for file in found])
        raise InputError(printable(str(base)), "holds data sets of several forms", got, "name one of the files as DATASET")
    ((form, (found, locate)),) = readers.items()
    if form != "tar":
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
    located = locate(base, found, config)
    rest = [entry for entry in (*files, *folders) if entry not in found and not any(file.is_relative_to(entry) for file in found)]
    left_out = [Unreadable(entry.name, "is no part of the data set that is read") for entry in rest]
    located = located._replace(left_out=(*located.left_out, *left_out))
    return located if form == ".npz" else with_output_note(located)


def _how_to_unpack(archives: Sequence[str]) -> str:
    """What to do with the archives that a folder holds, by their names."""
    if len({split for name in archives if (split := split_of(name.partition(".")[0]))}) > 1:
        return "unpack all into this folder: each is one part"
    if len(archives) > 1 and len({re.sub(r"\d+", "", name) for name in archives}) == 1:
        return "unpack all into one folder: these are pieces of one download"
    unpack_them = "unpack it" if len(archives) == 1 else "unpack each into a folder of its own"
    return (
        unpack_them
        if not all(name.lower().endswith(".zip") for name in archives)
        else f"pass one of them as DATASET, or {unpack_them}"
    )


def _readers(base: Path, files: Sequence[Path], folders: Sequence[Path]) -> dict[str, tuple[list[Path], Locate]]:
    """The forms of which a folder holds files: those files, and what reads them."""
    below = [file for folder in folders for file in _data_files(folder)]
    readers: dict[str, tuple[list[Path], Locate]] = {}
    for form, near in (("idx", files), ("idx", below)):
        if (found := [file for file in near if is_idx(file.name)]) and form not in readers:
            readers[form] = found, locate_idx
    if found := cifar_files(files):
        readers["cifar"] = found, locate_cifar
    in_parts = [file for file in below if split_of(file.parent.name)]
    if found := [file for file in (*files, *in_parts) if ending(file.name) in TAR]:
        readers["tar"] = found, locate_archives
    if found := [file for file in files if ending(file.name) == ".csv" and pixel_header(file)]:
        readers["pixels"] = found, locate_pixels
    if found := [file for file in files if ending(file.name) == ".csv" and text_header(file)]:
        readers["pixel text"] = found, locate_pixel_text
    for form, reader in ARRAY_FILES.items():
        if found := [file for file in files if ending(file.name) == form]:
            readers[form] = found, partial(locate_array_form, reader)
    return readers


def _beside_images(located: Located, files: Sequence[Path]) -> Located:
    """An image folder with other files at its top, which are not read."""
    known = {location for location, _ in (*located.left_out, *located.unreadable)}
    left_out = [Unreadable(file.name, "is not read: the folder is read as images") for file in files if file.name not in known]
    note = f"the folder is read as images; to read {listed([file.name for file in files])} instead, name it as DATASET"
    return located._replace(notes=(*located.notes, note), left_out=(*located.left_out, *left_out))


def _unwrapped(path: Path) -> Path:
    """A folder, or the folder in it that has nothing beside it, and so on."""
    for _ in range(DEEPEST):
        files, folders = _entries(path)
        if files or len(folders) != 1:
            break
        path = folders[0]
    return path


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder by name, without hidden and system ones and links to folders."""
    entries = sorted(scan(folder), key=lambda entry: entry.name)
    shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name.casefold() not in SYSTEM]
    files = [Path(entry.path) for entry in shown if entry.is_file(follow_symlinks=False)]
    return files, [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]


def _data_files(folder: Path) -> list[Path]:
    """The idx files and tar archives in a folder, which may also be one of very many images."""
    others = [entry for entry in scan(folder) if not entry.name.lower().endswith(IMAGE_SUFFIXES)]
    found = [Path(entry.path) for entry in others if is_idx(entry.name) or ending(entry.name) in TAR]
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and not path.name.startswith("."))


def _has_images(folders: Collection[Path], deepest: int = 3) -> bool:
    """Whether there are image files in folders, or in the folders in them."""
    for folder in folders:
        if any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in scan(folder)):
            return True
    return any(deepest > 1 and _has_images(_entries(folder)[1], deepest - 1) for folder in folders)


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or of the folders in it: data/ or CONFIG/, as downloads from the hub have them."""
    levels: list[list[Path]] = []
    any_case = "*.[pP][aA][rR][qQ][uU][eE][tT]"
    for pattern in (any_case, f"*/{any_case}", f"*/*/{any_case}"):
        found = sorted(path for path in folder.glob(pattern) if path.name.casefold() != "metadata.parquet")  # which labels files
        found = [
            path
            for path in found
            if not any(part.startswith(".") for part in path.relative_to(folder).parts) and not path.is_dir()
        ]
        configurations = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
        if len(configurations) > 1 and not all(split_of(name) for name in configurations):
            names = listed(sorted(configurations))
            raise InputError(str(folder), "has several folders of parquet files", names, "name one of them as DATASET")
        levels += [found] if found else []
    if len(levels) > 1:
        got = listed([path.relative_to(folder).as_posix() for found in levels for path in found[:2]])
        rule = "has parquet files in folders of different depth"
        raise InputError(printable(str(folder)), rule, got, "name one of them, or its folder, as DATASET")
    return levels[0] if levels else []


def locate_archives(source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The images of tar archives, also of such that hold files of arrays. Raises InputError."""
    return locate_tar(source, paths, config, locate_directory)


def _table_labels_images(base: Path, files: Sequence[Path], config: DataConfig) -> bool:
    """Whether a table beside image files has their labels: then these are the data set, and not an array beside them."""
    if not any(ending(file.name) in IMAGE_SUFFIXES for file in files):
        return False
    listing = Listing(base)
    index = FileIndex.of(listing, base)
    tables = [path for path in find_tables(listing, base) if not pixel_header(path) and not text_header(path)]
    return any(True for _ in fitting_tables(tables, index, config))


def _reject_hub_cache(path: Path) -> None:
    """Raises InputError for the folders in which Hugging Face keeps downloads, with the way out."""
    repository = path.name.startswith("datasets--") or all((path / name).is_dir() for name in ("blobs", "refs", "snapshots"))
    inside = [entry for folder in (path, path / "hub") for entry in sorted(folder.glob("datasets--*")) if entry.is_dir()]
    if not repository and not inside:
        return
    names = [entry.name.removeprefix("datasets--").replace("--", "/") for entry in ([path] if repository else inside)]
    snapshots = sorted((path / "snapshots").glob("*")) if repository else []
    remedy = f"pass {snapshots[0]} with --follow-links, or " if snapshots else ""
    got = listed(names) if not repository or path.name.startswith("datasets--") else ""
    rule = "is where Hugging Face keeps downloads, and no data set itself"
    raise InputError(printable(str(path)), rule, got or None, f"{remedy}the name of the set on the hub as DATASET")
