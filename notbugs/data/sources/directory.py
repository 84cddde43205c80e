"""Which reader a folder needs: by the files of one form that it holds, or as image files."""

import os
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from notbugs.data.names import IMAGE_SUFFIXES, Unreadable, printable
from notbugs.data.sources.base import HOLDS_ARCHIVES, Located
from notbugs.data.sources.cifar import cifar_files, locate_cifar, reject_pickles
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.forms import (
    ARRAY_FILES,
    ENDINGS,
    FOLDERS_ALONE,
    FOR_FOLDERS,
    locate_array_form,
    reject_options,
    scan,
    with_output_note,
)
from notbugs.data.sources.idx import is_idx, locate_idx
from notbugs.data.sources.label_columns import fitting_tables
from notbugs.data.sources.label_table import find_tables
from notbugs.data.sources.listing import LOOP, Listing, is_hidden
from notbugs.data.sources.name_files import with_names_beside
from notbugs.data.sources.pixel_text import locate_pixel_text, text_header
from notbugs.data.sources.pixels import locate_pixels, pixel_header
from notbugs.data.sources.refused import PACKED, ending
from notbugs.data.sources.shards import locate_tar
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.tables import locate_parquet, locate_saved, locate_saved_parts, saved_parts
from notbugs.data.sources.tar import ENDINGS as TAR
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

Locate = Callable[[Path, Sequence[Path], DataConfig], Located]  # source, its files, configuration
Readers = dict[str, tuple[list[Path], Locate]]  # by form
SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")  # files of a saved Hugging Face set
DEEPEST = 8  # folders that may lie around the files, one in the other


def locate_directory(path: Path, config: DataConfig) -> Located:
    """The images of a folder: of the files of one form that it holds, or image files. A file beside them may name the classes.

    Raises
    ------
    InputError
        If it holds files of several forms, or nothing that is read.
    """
    listing = Listing(path, follow_links=config.follow_links)
    base = _unwrapped(listing, path)
    files, folders = _entries(listing, base)
    saved = (base / "dataset_dict.json").is_file() or (base / "state.json").is_file()
    if saved or (parts := saved_parts(folders)):
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        others = {**_readers(listing, files, folders), **_parquet_reader(listing, base)}
        if others:
            rule, got = "holds a saved Hugging Face set and other data sets", listed(_names(others))
            raise InputError(printable(str(base)), rule, got, "move one of them out of this folder")
        located = locate_saved(base, config) if saved else locate_saved_parts(base, parts, config)
        own = [file for file in files if file.name in SAVED or file.suffix == ".arrow"]
        return _with_rest(located, listing, base, [*own, *(place for place in folders if (place / "state.json").is_file())])
    _reject_hub_cache(path)
    return with_names_beside(_of_folder(listing, base, files, folders, config), path, files)


def _of_folder(listing: Listing, base: Path, files: Sequence[Path], folders: Sequence[Path], config: DataConfig) -> Located:
    path, images_below = listing.root, _has_images(listing, folders)
    images = images_below or any(ending(file.name) in IMAGE_SUFFIXES for file in files)
    reject_pickles(base, [file.name for file in files])
    readers = _readers(listing, files, folders)
    if not images and not config.labels and (parquet := _parquet_reader(listing, base)):
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        readers |= parquet
    archives = [file.name for file in files if ending(file.name) in (".zip", *PACKED)]
    if archives and not readers and not images_below and not _table_labels_images(base, files, config):
        raise InputError(printable(str(base)), HOLDS_ARCHIVES, listed(archives), _how_to_unpack(archives))
    as_folder = config.labels or config.all_classes or config.label_regex
    if not readers and not images and (links := _refused_links(listing, base)):
        raise InputError(printable(str(path / links[0].location)), links[0].reason)
    if not readers or (as_folder and (images or set(readers) != {"tar"})):
        return locate_folder(config, path)
    if images_below or _table_labels_images(base, files, config):
        return _beside_images(locate_folder(config, path), [file for found, _ in readers.values() for file in found])
    if len(readers) > 1:
        rule, remedy = "holds data sets of several forms", "name one of the files as DATASET"
        raise InputError(printable(str(base)), rule, listed(_names(readers)), remedy)
    ((form, (found, locate)),) = readers.items()
    if form != "tar":
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
    located = _with_rest(locate(base, found, config), listing, base, found)
    return located if form in (".npz", "parquet") else with_output_note(located)


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


def _with_rest(located: Located, listing: Listing, base: Path, used: Sequence[Path]) -> Located:
    """A data set with what else is in its folder: listed, and refused where it is a link to data that is not followed."""
    known, above = set(used), {folder for file in used for folder in file.parents}
    left_out, stack = list[Unreadable](), [listing.root]
    for folder in stack:
        for entry in sorted(scan(folder), key=lambda entry: entry.name):
            place = Path(entry.path)
            if place in above:
                stack.append(place)
            elif place not in known:
                reason = "is a hidden or system file" if is_hidden(entry.name) else "is no part of the data set that is read"
                left_out.append(Unreadable(listing.relative(place), reason))
    links = _refused_links(listing, base)
    refused = {item.location for item in links}
    left_out = [item for item in left_out if item.location not in refused]
    return located._replace(left_out=(*located.left_out, *left_out), unreadable=(*located.unreadable, *links))


def _refused_links(listing: Listing, base: Path, deepest: int = 3) -> list[Unreadable]:
    """The links to folders and to files of data in a folder, and in those in it, that are not followed."""
    shown = [entry for entry in sorted(scan(base), key=lambda entry: entry.name) if not is_hidden(entry.name)]
    linked = [entry for entry in shown if entry.is_symlink() and (entry.is_dir() or _may_be_data(entry.name))]
    reasons = {entry.path: listing.refuses_link(entry) for entry in linked}
    own = [Unreadable(listing.relative(path), reason) for path, reason in reasons.items() if reason not in ("", LOOP)]
    folders = _entries(listing, base)[1] if deepest > 1 else []
    return own + [item for folder in folders for item in _refused_links(listing, folder, deepest - 1)]


def _may_be_data(name: str) -> bool:
    return is_idx(name) or ending(name) in (*ENDINGS, ".arrow", ".bin")


def _names(readers: Readers) -> list[str]:
    return [file.name for found, _ in readers.values() for file in found]


def _parquet_reader(listing: Listing, base: Path) -> Readers:
    """What reads the parquet files of a folder; nothing, if there are none."""
    found = _parquet_files(listing, base)
    return {"parquet": (found, lambda _, files, config: locate_parquet(config.dataset, list(files), config))} if found else {}


def _readers(listing: Listing, files: Sequence[Path], folders: Sequence[Path]) -> Readers:
    """The forms of which a folder holds files: those files, and what reads them."""
    below = [file for folder in folders for file in _data_files(listing, folder)]
    readers: Readers = {}
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


def _unwrapped(listing: Listing, path: Path) -> Path:
    """A folder, or the folder in it that has nothing beside it, and so on."""
    for _ in range(DEEPEST):
        files, folders = _entries(listing, path)
        links = any(listing.refuses_link(entry) for entry in scan(path) if not is_hidden(entry.name))
        if files or links or len(folders) != 1:
            break
        path = folders[0]
    return path


def _entries(listing: Listing, folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder by name, without hidden and system ones and links that are not followed."""
    entries = sorted(scan(folder), key=lambda entry: entry.name)
    shown = [entry for entry in entries if not is_hidden(entry.name) and not listing.refuses_link(entry)]
    return [Path(entry.path) for entry in shown if entry.is_file()], [Path(entry.path) for entry in shown if entry.is_dir()]


def _data_files(listing: Listing, folder: Path) -> list[Path]:
    """The idx files and tar archives in a folder, which may also be one of very many images."""
    others = [entry for entry in scan(folder) if not entry.name.lower().endswith(IMAGE_SUFFIXES)]
    found = [entry for entry in others if (is_idx(entry.name) or ending(entry.name) in TAR) and not is_hidden(entry.name)]
    return sorted(Path(entry.path) for entry in found if entry.is_file() and not listing.refuses_link(entry))


def _has_images(listing: Listing, folders: Collection[Path], deepest: int = 3) -> bool:
    """Whether there are image files in folders, or in the folders in them."""
    for folder in folders:
        if any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in scan(folder)):
            return True
    return any(deepest > 1 and _has_images(listing, _entries(listing, folder)[1], deepest - 1) for folder in folders)


def _parquet_files(listing: Listing, folder: Path) -> list[Path]:
    """The parquet files of a folder, or of the folders in it: data/ or CONFIG/, as downloads from the hub have them."""
    levels: list[list[Path]] = []
    folders = [folder]
    for _ in range(3):
        entries = [_entries(listing, place) for place in folders]
        found = sorted(path for found, _ in entries for path in found if is_table(path.name))
        folders = [place for _, inner in entries for place in inner]
        configurations = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
        if len(configurations) > 1 and not all(split_of(name) for name in configurations):
            names = listed(sorted(configurations))
            if all("=" in name for name in configurations):
                table = "pyarrow.dataset.dataset(FOLDER, partitioning='hive').to_table()"
                remedy = f"write one file: pyarrow.parquet.write_table({table}, FILE)"
                raise InputError(str(folder), "is divided by the values of a column, which its files do not hold", names, remedy)
            raise InputError(str(folder), "has several folders of parquet files", names, "name one of them as DATASET")
        levels += [found] if found else []
    if len(levels) > 1:
        got = listed([path.relative_to(folder).as_posix() for found in levels for path in found[:2]])
        rule = "has parquet files in folders of different depth"
        raise InputError(printable(str(folder)), rule, got, "name one of them, or its folder, as DATASET")
    return levels[0] if levels else []


def is_table(name: str) -> bool:
    """Whether a file is a parquet file of images by its name: metadata.parquet labels files."""
    return ending(name) == ".parquet" and Path(name).name.casefold() != "metadata.parquet"


def locate_downloaded(folder: Path, config: DataConfig) -> Located:
    """The images of a download of the hub: of its parquet files, whatever pictures its card shows; else as of any folder."""
    listing = Listing(folder, follow_links=config.follow_links)
    if not (found := _parquet_files(listing, folder)):
        return locate_directory(folder, config)
    located = _with_rest(locate_parquet(config.dataset, found, config), listing, folder, found)
    return with_names_beside(located, folder, _entries(listing, folder)[0])


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
