"""A data set to disk, in the form in which it was loaded or another one."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import ZipFile

import numpy as np

from notbugs.atomic import StrPath, sync_folder
from notbugs.data.card import Origin, Written, write_card
from notbugs.data.convert import record_batch, row_features
from notbugs.data.dataset import Dataset
from notbugs.data.eight_bits import as_arrays
from notbugs.data.names import MANIFEST, check_class_name, deduplicate, first_line, flat_name, path_part, png_names, same_file
from notbugs.data.shard_files import Rows, as_png, link, shards_of
from notbugs.data.shard_writers import SMALL_COLUMNS
from notbugs.data.shards import Sample, shard_name, write_shards
from notbugs.data.single_files import write_npz
from notbugs.decoding.headers import EncodedImage, encoded_bytes, image_format
from notbugs.errors import InputError
from notbugs.runs.tables.row import write_records

if TYPE_CHECKING:
    from pyarrow import RecordBatch

AT_ONCE, MOST_ROWS = 2**24, 1000  # bytes of encoded images, and rows, that are written to a table at a time
SHARD_BYTES = 2**29  # of the rows in one parquet file: 512 MB, about what Hugging Face cuts data sets into
WRITE = ("folder", "parquet", "npz", "webdataset")  # the forms to choose from; the others are those of inputs


def check_form(option: str, form: str | None) -> None:
    """Raises InputError unless a form can be chosen; None is the input's."""
    if form is not None and form not in WRITE:
        raise InputError(option, f"must be one of {', '.join(WRITE)}", repr(form))


def check_unused(folder: StrPath) -> None:
    """Raises InputError where `export` would find something else in its place."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "exists and is not empty", remedy="choose another folder")


def export(
    dataset: Dataset,
    folder: StrPath,
    form: str,
    *,
    card: str,
    original: Dataset | None = None,
    split: str = "train",
    encoded: Sequence[EncodedImage] | None = None,
    origin: Origin | None = None,
) -> tuple[str, ...]:
    """Write one part of a data set into a new folder, with a card. The folder appears whole or not at all.

    In the form "folder", all files are PNG: `a.jpg` becomes `a.png`, `CLASS/sub/a.png` becomes `sub--a.png`. Of several files of
    one stem, those that are no PNG files keep their suffix: `a.jpg.png`. Where two files would get one name in their new class,
    all get the prefix `OLDCLASS--`. Characters that no path can hold become `_`. Names that are then equal are numbered `~2`.
    The card and manifest.csv keep the true names. A class without images gets an empty folder.

    Parameters
    ----------
    dataset : Dataset
    folder : str or path
        New or empty.
    form : {"folder", "npz", "npz-channels-first", "parquet", "saved", "webdataset"}
        folder: `split/CLASS/file.png`, CLASS being the label, and manifest.csv with one row per file, in order.
        npz: data.npz with split_images (N, H, W or N, H, W, 3; npz-channels-first: N, C, H, W), split_labels, classes.
        parquet: split.parquet with columns image, label and file_name; over 512 MB several files,
        split-00000-of-00002.parquet, …. saved: a Hugging Face DatasetDict with one split.
        webdataset: split-000000.tar, … with KEY.png, KEY.cls and KEY.json (class, name) of each image.
    card : str
        Text of README.md; notes, classes, origin, and code that loads the data set with other libraries are added.
    original : Dataset, optional
        The same files before relabeling, for their old classes.
    split : str
    encoded : sequence of EncodedImage, optional
        The original file of each image: written byte for byte in place of its pixels, under its own name. Not for npz.
    origin : Origin, optional
        What the card says of the input.

    Returns
    -------
    tuple of str
        The notes on the card: classes without images, an order of classes that readers of folders do not keep, other names.

    Raises
    ------
    InputError
        If the folder exists and is not empty, the disk is full, or a name cannot be written.
    """
    folder = Path(folder)
    _check_writable(dataset, form, encoded)
    temporary = folder.absolute().parent / f".{folder.name[:100]}.{os.getpid()}.part"
    try:
        check_unused(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        written = WRITERS[form](Job(dataset, original or dataset, temporary, form, split, encoded))
        unchanged = encoded is not None
        notes = write_card(
            temporary, dataset, card, written, folder=folder, form=form, split=split, origin=origin, unchanged=unchanged
        )
        sync_folder(temporary)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"{'free some space or ' if full else ''}choose another folder"
        raise InputError(str(folder), "cannot be written", error.strerror or first_line(error), remedy) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return notes


def _check_writable(dataset: Dataset, form: str, encoded: Sequence[EncodedImage] | None) -> None:
    if form not in WRITERS:
        raise InputError("form", f"must be one of {', '.join(WRITERS)}", form)
    if dataset.shape[0] not in (1, 3):
        raise InputError("images", "must have 1 or 3 channels to be written", dataset.shape[0])
    if encoded is not None and (form.startswith("npz") or len(encoded) != len(dataset)):
        raise InputError(
            "encoded", "must be one file for each image, and not for npz, which holds pixels", f"{len(encoded)}, {form}"
        )
    for name in dataset.classes:
        check_class_name(name)


class Job(NamedTuple):
    """What is written where. encoded: the files themselves, written in place of pixels."""

    dataset: Dataset
    original: Dataset
    folder: Path
    form: str
    split: str
    encoded: Sequence[EncodedImage] | None = None


def _files(job: Job) -> Iterator[bytes]:
    """Each image as a file, in order: its own, or a PNG."""
    if job.encoded is None:
        return as_png(job.dataset.images)
    return (encoded_bytes(job.encoded[index]) for index in range(len(job.encoded)))


def _made(job: Job) -> list[Path]:
    """The shards of a constructed set that was made in this form; none for others."""
    if job.encoded is not None:
        return []
    rows = Rows(job.dataset.labels, job.dataset.classes, job.dataset.names)
    return [shard.path for shard in shards_of(job.dataset.images, job.form, rows)]


def _write_folder(job: Job) -> Written:
    dataset, original, root = job.dataset, job.original, job.folder
    folders, files = _file_names(job)
    for folder in folders:
        (root / job.split / folder).mkdir(parents=True)
    labels = dataset.labels.tolist()
    places = (root / job.split / folders[label] / file for label, file in zip(labels, files, strict=True))
    if made := _made(job):
        sources = (path for shard in made for path in sorted(shard.iterdir()))
        for path, place in zip(sources, places, strict=True):
            link(path, place)
    else:
        for content, place in zip(_files(job), places, strict=True):
            place.write_bytes(content)
    with open(root / "manifest.csv", "w", newline="", encoding="utf-8") as stream:
        columns = zip(labels, files, original.labels.tolist(), dataset.names, strict=True)
        rows = (
            (f"{job.split}/{folders[label]}/{file}", dataset.classes[label], original.classes[old], name)
            for label, file, old, name in columns
        )
        write_records(stream, [MANIFEST])
        write_records(stream, rows)
    return Written(tuple(folders), tuple(files))


def _file_names(job: Job) -> tuple[list[str], list[str]]:
    """The folder of each class and the file name of each image, all different. They do not depend on the order of the images."""
    dataset, original = job.dataset, job.original
    own = [(path_part(name) != name, name) for name in dataset.classes]  # a_b keeps its name beside a/b
    folders = deduplicate([("", path_part(name)) for name in dataset.classes], own)
    old, new = original.labels.tolist(), dataset.labels.tolist()
    given = [flat_name(name) for name in dataset.names]
    wanted = given if job.encoded is not None else png_names(list(zip(old, dataset.names, strict=True)))
    flat = [path_part(name) for name in wanted]
    # among files that would get one name, the one that is called so keeps it
    first = [(name != own.rpartition("/")[2], own) for name, own in zip(flat, dataset.names, strict=True)]
    files = deduplicate(list(zip(old, flat, strict=True)), first)
    if len({(label, same_file(file)) for label, file in zip(new, files, strict=True)}) < len(files):
        files = [path_part(f"{original.classes[label]}--{file}") for label, file in zip(old, files, strict=True)]
    return folders, deduplicate(list(zip(new, files, strict=True)), first)


def _write_npz(job: Job) -> Written:
    """As `numpy.savez` does, but for the images: a few at a time."""
    dataset, channels_first = job.dataset, job.form == "npz-channels-first"
    arrays = {
        f"{job.split}_labels": dataset.labels.numpy(),
        f"{job.split}_names": np.array(dataset.names, dtype=str),
        "classes": np.array(dataset.classes, dtype=str),
    }
    write_npz(arrays, job.folder / "data.npz")
    with ZipFile(job.folder / "data.npz", "a") as archive, archive.open(f"{job.split}_images.npy", "w", force_zip64=True) as file:
        for start in range(0, max(1, len(dataset)), MOST_ROWS):
            part = dataset.images[start : start + MOST_ROWS]
            array = part.contiguous().numpy() if channels_first else as_arrays(part)
            if not start:
                about = {"descr": array.dtype.str, "fortran_order": False, "shape": (len(dataset), *array.shape[1:])}
                np.lib.format.write_array_header_1_0(file, about)
            file.write(array.data)
    return Written()


def _write_shards(job: Job) -> Written:
    if made := _made(job):
        for number, path in enumerate(made):
            link(path, job.folder / shard_name(job.split, number))
        return Written()
    dataset, suffixes = job.dataset, dict[str, None]()

    def samples() -> Iterator[Sample]:
        for label, name, content in zip(dataset.labels.tolist(), dataset.names, _files(job), strict=True):
            suffix = "png" if job.encoded is None else image_format(content)
            suffixes[suffix] = None
            yield Sample(suffix, content, label, dataset.classes[label], name)

    write_shards(job.folder, job.split, samples())
    return Written(suffixes=tuple(suffixes))


def _write_parquet(job: Job) -> Written:
    """split.parquet, or split-00000-of-00002.parquet, …: readers open them in order."""
    if made := _made(job):
        for number, path in enumerate(made):
            link(path, job.folder / _table_name(job.split, number, len(made)))
        return Written()
    from pyarrow.parquet import ParquetWriter

    names: list[str] = []
    written, writer = 0, None
    try:
        for batch in _row_batches(job):
            if writer is None or written >= SHARD_BYTES:
                if writer is not None:
                    writer.close()
                names.append(f"{len(names):05d}.part")
                writer, written = ParquetWriter(job.folder / names[-1], batch.schema, **SMALL_COLUMNS), 0
            writer.write_batch(batch)
            written += batch.nbytes
    finally:
        if writer is not None:
            writer.close()
    for number, name in enumerate(names):
        (job.folder / name).rename(job.folder / _table_name(job.split, number, len(names)))
    return Written()


def _table_name(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05d}-of-{count:05d}.parquet" if count > 1 else f"{split}.parquet"


def _write_saved(job: Job) -> Written:
    """From a file of rows on the disk: a data set need not fit into memory."""
    import datasets

    rows = job.folder / "rows.part"
    fingerprint = _write_stream(job, rows)
    table = datasets.Dataset(datasets.table.MemoryMappedTable.from_file(str(rows)), fingerprint=fingerprint)
    with _no_progress_bars():
        datasets.DatasetDict({job.split: table}).save_to_disk(str(job.folder))
    rows.unlink()
    return Written()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """No progress bars of Hugging Face datasets inside; its setting stays as it was."""
    import datasets

    enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()


def _write_stream(job: Job, path: Path) -> str:
    """Write the rows as an Arrow stream, and return a hash of them, by which Hugging Face tells sets apart."""
    import pyarrow

    digest = sha256(repr(job.dataset.classes).encode("utf-8", "surrogateescape"))

    def look(content: bytes, label: int, name: str) -> None:
        digest.update(repr((label, name, len(content))).encode("utf-8", "surrogateescape") + content)

    with pyarrow.ipc.new_stream(str(path), row_features(job.dataset.classes).arrow_schema) as writer:
        for batch in _row_batches(job, look):
            writer.write_batch(batch)
    return digest.hexdigest()[:16]


def _row_batches(job: Job, look: Callable[[bytes, int, str], object] | None = None) -> Iterator["RecordBatch"]:
    """The columns image, label and file_name, some rows at a time; one batch without rows of an empty set. look: at each row."""
    schema = row_features(job.dataset.classes).arrow_schema
    cells, size = list[tuple[bytes, int, str]](), 0
    for cell in zip(_files(job), job.dataset.labels.tolist(), job.dataset.names, strict=True):
        if look:
            look(*cell)
        cells.append(cell)
        size += len(cell[0])
        if size >= AT_ONCE or len(cells) == MOST_ROWS:
            yield record_batch(cells, schema)
            cells, size = [], 0
    if cells or not len(job.dataset):
        yield record_batch(cells, schema)


WRITERS: dict[str, Callable[[Job], Written]] = {
    "folder": _write_folder,
    "parquet": _write_parquet,
    "saved": _write_saved,
    "npz": _write_npz,
    "npz-channels-first": _write_npz,
    "webdataset": _write_shards,
}
