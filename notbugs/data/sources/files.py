"""Which reader a file or a folder needs: by its ending, or by the names of the files in it."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from notbugs.data.config import FOR_FOLDERS, DataConfig, reject_options
from notbugs.data.names import IMAGE_SUFFIXES, SYSTEM, Unreadable, printable
from notbugs.data.sources.arrays import EXPECTED, Reader, locate_array_files
from notbugs.data.sources.base import Located
from notbugs.data.sources.cifar import cifar_files, locate_cifar, reject_pickles
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.hdf5 import read_hdf5
from notbugs.data.sources.idx import is_idx, locate_idx
from notbugs.data.sources.label_columns import fitting_tables
from notbugs.data.sources.label_table import find_tables
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.name_files import with_names_beside
from notbugs.data.sources.npz import read_npy, read_npz
from notbugs.data.sources.pixel_text import locate_pixel_text, text_header
from notbugs.data.sources.pixels import locate_pixels, pixel_header
from notbugs.data.sources.shards import ENDINGS as TAR
from notbugs.data.sources.shards import locate_tar
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.tables import locate_parquet, locate_saved
from notbugs.data.sources.tensors import read_safetensors, read_torch
from notbugs.data.sources.unpack import unpack
from notbugs.errors import InputError

Locate = Callable[[Path, Sequence[Path], DataConfig], Located]  # source, its files, configuration

ARRAY_FILES: Mapping[str, Reader] = {
    ".npz": read_npz, ".npy": read_npy, ".h5": read_hdf5, ".hdf5": read_hdf5, ".pt": read_torch, ".pth": read_torch,
    ".safetensors": read_safetensors,
}  # fmt: skip
ENDINGS = (*ARRAY_FILES, *TAR, ".parquet", ".csv", ".zip")
ACCEPTED = (
    "DATASET can be a folder of images or of such files, a .parquet, .npz, .h5, .pt, .safetensors, .tar or .zip file, "
    "a .csv of pixels, an idx file of MNIST, or a hub name"
)
CONVERT = "read it with its own library and save an .npz: train_images, train_labels, …"
# What is not read: what it is, and the way out
PACKED = (".tar.bz2", ".tar.xz", ".7z", ".rar")
REFUSED = {
    ".mat": ("is a file of MATLAB", "scipy.io.loadmat reads it; save an .npz with train_images, train_labels, …"),
    ".tfrecord": ("is a file of TensorFlow", CONVERT),
    ".tfrecords": ("is a file of TensorFlow", CONVERT),
    ".rec": ("is a file of MXNet", CONVERT),
    ".lmdb": ("is an LMDB database", CONVERT),
    ".mdb": ("is an LMDB database", CONVERT),
    ".beton": ("is a file of FFCV", CONVERT),
    ".pkl": ("is a Python pickle, which can run any code when it is read", CONVERT),
    ".pickle": ("is a Python pickle, which can run any code when it is read", CONVERT),
    ".arrow": ("is one file of a saved Hugging Face set", "pass the folder that it lies in"),
    ".json": ("is a table or a description, and no data set", "pass the folder that also has the images, with --labels FILE"),
    ".jsonl": ("is a table, and no data set", "pass the folder that also has the images, with --labels FILE"),
    ".tsv": ("is a table, and no data set", "pass the folder that also has the images, with --labels FILE"),
    ".txt": ("is a table, and no data set", "pass the folder that also has the images, with --labels FILE"),
    ".gz": ("is packed with gzip", "unpack it and pass what it holds"),
    ".bin": ("is a file of unknown bytes", "of CIFAR's binary version pass the folder"),
    ".npy": ("is one array", "put x_train.npy, y_train.npy, … or X.npy, y.npy into one folder and pass the folder"),
    ".csv": ("is a table without columns of pixels", "pass the folder that also has the images, with --labels FILE"),
}  # fmt: skip
REFUSED |= dict.fromkeys(PACKED, ("is an archive of a kind that is not read", "unpack it and pass the folder"))
REFUSED |= dict.fromkeys(IMAGE_SUFFIXES, ("is one image", "pass the folder with all images"))
FOLDERS_ALONE = "is for folders of image files"
DEEPEST = 8  # folders that may lie around the files, one in the other
WRITTEN_AS = {
    "npz": "one .npz", "npz-channels-first": "one .npz, channels first", "parquet": "parquet", "webdataset": "WebDataset shards",
    "folder": "a folder of PNG",
}  # fmt: skip


def ending(name: str) -> str:
    """The ending of a file's name that says its form, in lower case.

    Examples
    --------
    >>> ending("train-000.TAR.gz"), ending("data.npz"), ending("README")
    ('.tar.gz', '.npz', '')
    """
    lower = name.lower()
    double = next((known for known in (".tar.gz", ".tar.bz2", ".tar.xz") if lower.endswith(known)), "")
    return double or os.path.splitext(lower)[1]


# ---- one file ------------------------------------------------------------------------------------------------------------------


def locate_file(path: Path, config: DataConfig) -> Located:
    """The images of one file. Raises InputError for a form that is not read, with the way out."""
    form = ending(path.name)
    if form not in (".zip", *TAR):
        reject_options(config, (*FOR_FOLDERS, "follow_links"), FOLDERS_ALONE)
    if form == ".zip":
        folder = unpack(path)
        located = locate_directory(folder, replace(config.data, dataset=str(folder)))
        return located._replace(notes=(f"unpacked from {printable(path.name)}, read from {folder}", *located.notes))
    if is_idx(path.name):
        return _told(_idx_beside(path, config))
    if form == ".parquet":
        return locate_parquet(config.dataset, [path], config)
    if form in TAR:
        return _told(locate_tar(path, [path], config))
    if form == ".csv" and pixel_header(path):
        return _told(locate_pixels(path, [path], config))
    if form == ".csv" and text_header(path):
        return _told(locate_pixel_text(path, [path], config))
    if form in ARRAY_FILES and form not in REFUSED:
        located = _locate_arrays(ARRAY_FILES[form], path, [path], config)
        return located if form == ".npz" else _told(located)
    reject_pickles(path, [path.name, "test_batch"] if path.name.startswith("data_batch_1") else [path.name])
    what, remedy = REFUSED.get(form, ("is no data set of a form that is read here", ACCEPTED))
    raise InputError(printable(config.dataset), what, remedy=remedy)


def _idx_beside(path: Path, config: DataConfig) -> Located:
    """The data set of one of MNIST's files: those beside it with the same beginning."""
    names = sorted(entry.name for entry in _scan(path.parent) if is_idx(entry.name) and entry.is_file())
    splits = ("train", "t10k", "test", "dev", "val")
    begin = next(path.name[: path.name.lower().rindex(split)] for split in splits if split in path.name.lower())
    same = [path.parent / name for name in names if any(name.lower().startswith((begin + split).lower()) for split in splits)]
    return locate_idx(path, same, config)


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


def _told(located: Located) -> Located:
    """With a note on the form in which constructed sets are written, where it is not that of the input."""
    return located._replace(notes=(*located.notes, f"constructed sets are written as {WRITTEN_AS[located.form]}"))


# ---- a folder ------------------------------------------------------------------------------------------------------------------


def locate_directory(path: Path, config: DataConfig) -> Located:
    """The images of a folder: of the files of one form that it holds, or image files. A file beside them may name the classes.

    Raises
    ------
    InputError
        If it holds files of several forms, or nothing that is read.
    """
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        return locate_saved(path, config)
    _reject_hub_cache(path)
    base = _unwrapped(path)
    files, folders = _entries(base)
    return with_names_beside(_of_folder(path, base, files, folders, config), files)


def _of_folder(path: Path, base: Path, files: Sequence[Path], folders: Sequence[Path], config: DataConfig) -> Located:
    images = _has_images(folders) or any(ending(file.name) in IMAGE_SUFFIXES for file in files)
    if not images and not config.labels and (parquet := _parquet_files(path)):
        reject_options(config, FOR_FOLDERS, FOLDERS_ALONE)
        return locate_parquet(config.dataset, parquet, config)
    reject_pickles(base, [file.name for file in files])
    readers = _readers(base, files, folders)
    if not readers and not folders and (archives := [file.name for file in files if ending(file.name) in (".zip", *PACKED)]):
        parts = len({split for name in archives if (split := split_of(name.partition(".")[0]))}) > 1
        remedy = "unpack all into this folder: each is one part" if parts else "pass one of them as DATASET, or unpack them"
        raise InputError(printable(str(base)), "holds archives", listed(archives), remedy)
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
    return located if form == ".npz" else _told(located)


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
        readers["tar"] = found, locate_tar
    if found := [file for file in files if ending(file.name) == ".csv" and pixel_header(file)]:
        readers["pixels"] = found, locate_pixels
    if found := [file for file in files if ending(file.name) == ".csv" and text_header(file)]:
        readers["pixel text"] = found, locate_pixel_text
    for form, reader in ARRAY_FILES.items():
        if found := [file for file in files if ending(file.name) == form]:
            readers[form] = found, partial(_locate_arrays, reader)
    return readers


def _locate_arrays(reader: Reader, source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    if config.label_column:
        raise InputError("--label-column", "is for tables", printable(str(source)), EXPECTED)
    return locate_array_files(source, paths, reader, config)


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
    entries = sorted(_scan(folder), key=lambda entry: entry.name)
    shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name.casefold() not in SYSTEM]
    files = [Path(entry.path) for entry in shown if entry.is_file(follow_symlinks=False)]
    return files, [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder. Raises InputError if it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            printable(str(folder)), "cannot be opened", error.strerror, "make it readable, or move it away"
        ) from None


def _data_files(folder: Path) -> list[Path]:
    """The idx files and tar archives in a folder, which may also be one of very many images."""
    others = [entry for entry in _scan(folder) if not entry.name.lower().endswith(IMAGE_SUFFIXES)]
    found = [Path(entry.path) for entry in others if is_idx(entry.name) or ending(entry.name) in TAR]
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and not path.name.startswith("."))


def _has_images(folders: Collection[Path], deepest: int = 3) -> bool:
    """Whether there are image files in folders, or in the folders in them."""
    for folder in folders:
        if any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in _scan(folder)):
            return True
    return any(deepest > 1 and _has_images(_entries(folder)[1], deepest - 1) for folder in folders)


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or of the folders in it: data/ or CONFIG/, as downloads from the hub have them."""
    levels: list[list[Path]] = []
    for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
        found = sorted(path for path in folder.glob(pattern) if path.name != "metadata.parquet")  # which labels files
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
