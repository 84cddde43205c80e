"""Constructed images as PNG files in shards: a data set that is larger than memory, while it is made.

Each shard is written by the process that makes its images, in the form in which the data set will be written: a tar file of
WebDataset, a parquet file, or files in a folder. `export` gives them their names. For data sets of other forms it reads them from
files that have PNG files one after the other.
"""

import mmap
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from notbugs.atomic import not_writable, part_of, sync_folder
from notbugs.data.convert import record_batch, row_features
from notbugs.data.images import DEFAULT, Images, LazyImages, encode_png
from notbugs.data.shards import Sample, add_sample
from notbugs.decoding.headers import EncodedImage, encoded_bytes
from notbugs.errors import InputError

AT_ONCE = 2**24  # bytes of images in a row group of a parquet file
SMALL_COLUMNS = {key: ["label", "file_name"] for key in ("use_dictionary", "write_statistics")}  # images have no use for these
HEAD = 64  # bytes of a PNG file by which it is found in a parquet file
TAR_HEADER = 512  # bytes before each file in a tar file
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class Rows(NamedTuple):
    """What is known of a data set before its images are made: int64 (N,), (K,) and (N,) as of a `Dataset`."""

    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def equal(self, other: "Rows") -> bool:
        """Whether both are the same."""
        return torch.equal(self.labels, other.labels) and (self.classes, self.names) == (other.classes, other.names)


# ---- writing -----------------------------------------------------------------------------------------------------------------


class ShardWriter:
    """PNG files one after the other in a file, which appears whole or not at all.

    Parameters
    ----------
    path : Path
        Without a suffix. Its folder is created.
    rows : Rows, optional
        Of the whole data set.
    start : int
        Which of its images is the first one.

    Attributes
    ----------
    places : list of (int, int)
        Once it is closed: where each image begins and ends in the file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    >>> with TemporaryDirectory() as folder:
    ...     with ShardWriter(Path(folder) / "images") as writer:
    ...         writer.add(images)
    ...     torch.equal(shard_images([Shard(writer.path, torch.tensor(writer.places))], images.shape)[:], images)
    True
    """

    suffix: ClassVar[str] = ".png-files"

    def __init__(self, path: Path, rows: Rows | None = None, start: int = 0) -> None:
        self.path, self.rows, self.start = path.with_suffix(self.suffix), rows, start
        self.fresh, self.places = part_of(path), list[tuple[int, int]]()

    def __enter__(self) -> "ShardWriter":
        try:
            self.fresh.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise not_writable(self.path, error) from None
        return self

    def add(self, images: Tensor) -> None:
        """Write images, uint8 (n, C, H, W). Raises InputError if there is no room."""
        for content in encode_png(images):
            try:
                self._write(content)
            except OSError as error:
                raise not_writable(self.path, error) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._close()
            if error is None:
                self._replace()
        except OSError as problem:
            if error is None:
                raise not_writable(self.path, problem) from None
        finally:
            shutil.rmtree(self.fresh, ignore_errors=True) if self.fresh.is_dir() else self.fresh.unlink(missing_ok=True)

    def _replace(self) -> None:
        sync_folder(self.fresh)  # or a power cut could leave its name, and the block that says it is whole, without its content
        self.fresh.replace(self.path)

    def _open(self) -> None:
        self.stream: IO[bytes] = self.fresh.open("wb")

    def _write(self, content: bytes) -> None:
        start = self.places[-1][1] if self.places else 0
        self.stream.write(content)
        self.places.append((start, start + len(content)))

    def _close(self) -> None:
        self.stream.close()


class FolderWriter(ShardWriter):
    """PNG files in a folder, named by their number."""

    suffix = ".folder"

    def _open(self) -> None:
        self.fresh.mkdir()

    def _write(self, content: bytes) -> None:
        _file_in(self.fresh, len(self.places)).write_bytes(content)
        self.places.append((0, len(content)))

    def _close(self) -> None:
        pass


class TarWriter(ShardWriter):
    """A shard of WebDataset."""

    suffix = ".tar"

    def _open(self) -> None:
        self.tar = tarfile.open(self.fresh, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def _write(self, content: bytes) -> None:
        assert self.rows is not None
        index, begin = self.start + len(self.places), self.tar.offset + TAR_HEADER
        label = int(self.rows.labels[index])
        add_sample(self.tar, index, Sample("png", content, label, self.rows.classes[label], self.rows.names[index]))
        self.places.append((begin, begin + len(content)))

    def _close(self) -> None:
        self.tar.close()


class TableWriter(ShardWriter):
    """A parquet file."""

    suffix = ".parquet"

    def _open(self) -> None:
        from pyarrow.parquet import ParquetWriter

        assert self.rows is not None
        self.schema = row_features(self.rows.classes).arrow_schema
        # images as they are, so that they are found again
        self.table = ParquetWriter(self.fresh, self.schema, compression="none", **SMALL_COLUMNS)
        self.cells, self.size, self.heads = list[tuple[bytes, int, str]](), 0, list[tuple[bytes, int]]()

    def _write(self, content: bytes) -> None:
        assert self.rows is not None
        index = self.start + len(self.heads)
        self.cells.append((content, int(self.rows.labels[index]), self.rows.names[index]))
        self.heads.append((content[:HEAD], len(content)))
        self.size += len(content)
        if self.size >= AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self.table.write_batch(record_batch(self.cells, self.schema))
        self.cells, self.size = [], 0

    def _close(self) -> None:
        if self.cells:
            self._flush()
        self.table.close()

    def _replace(self) -> None:
        with self.fresh.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = 0
            for head, size in self.heads:
                begin = content.find(head, end)
                end = begin + size
                if begin < 0 or content[end - len(PNG_END) : end] != PNG_END:
                    raise RuntimeError(f"{self.fresh}: an image is not stored as it was written")
                self.places.append((begin, end))
        super()._replace()


WRITERS: dict[str, type[ShardWriter]] = {"folder": FolderWriter, "parquet": TableWriter, "webdataset": TarWriter}
_form: ContextVar[str] = ContextVar("_form", default="")


@contextmanager
def made_as(form: str) -> Iterator[None]:
    """Inside, shards are made in a form of `export`."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def form_of_shards(rows: Rows | None) -> str:
    """In which form they are made: "" if none was given, or if it has labels and these are not known."""
    form = _form.get()
    return form if form == "folder" or (form in WRITERS and rows is not None) else ""


# ---- reading -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shard:
    """What a writer wrote. places: where each image begins and ends in it, int64 (n, 2)."""

    path: Path
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def is_whole(self) -> bool:
        """Whether it is there, with all of its images."""
        if self.places.dtype != torch.int64 or self.places.shape[1:] != (2,) or not bool((self.places >= 0).all()):
            return False
        if self.path.is_dir():
            sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.path)}
            return all(sizes.get(_file_in(self.path, row).name) == size for row, size in enumerate(self.places[:, 1].tolist()))
        return self.path.exists() and self.path.stat().st_size >= int(self.places[:, 1].max())

    def read(self, row: int) -> bytes:
        """The PNG file of an image. Raises InputError if it was changed meanwhile."""
        begin, end = self.places[row].tolist()
        try:
            with (_file_in(self.path, row) if self.path.is_dir() else self.path).open("rb") as stream:
                stream.seek(begin)
                content = stream.read(end - begin)
        except OSError as error:
            raise InputError(str(self.path), "cannot be read", error.strerror, "repeat the command") from None
        if len(content) < end - begin:
            raise InputError(
                str(self.path), "must be as it was written", f"{len(content)} bytes of an image", "remove it and repeat"
            )
        return content


def _file_in(folder: Path, row: int) -> Path:
    return folder / f"{row:08d}.png"


@dataclass(frozen=True, eq=False)
class ShardFiles(Sequence[EncodedImage]):
    """The images of several shards, one after the other; each is read when it is indexed. form, rows: in which they were made."""

    shards: tuple[Shard, ...]
    form: str = ""
    rows: Rows | None = None
    _starts: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.cumsum([0, *map(len, self.shards)]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedImage]: ...
    def __getitem__(self, index: int | slice) -> EncodedImage | Sequence[EncodedImage]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.shards[number].read(row - int(self._starts[number]))


def shard_images(shards: Sequence[Shard], shape: Sequence[int], form: str = "", rows: Rows | None = None) -> LazyImages:
    """The images of shards, (N, C, H, W), decoded when they are indexed."""
    files = ShardFiles(tuple(shards), form, rows)
    places = tuple(chain.from_iterable(repeat(str(shard.path), len(shard)) for shard in shards))
    return LazyImages(files, tuple(range(len(files))), places, (shape[1], shape[2], shape[3]), DEFAULT)


def shards_of(images: Images, form: str, rows: Rows) -> tuple[Shard, ...]:
    """The shards of a data set that was made in this form, with these labels and names; none for others."""
    if not isinstance(images, LazyImages) or not isinstance(files := images.files, ShardFiles) or files.form != form:
        return ()
    whole = images.rows == tuple(range(len(files)))
    return files.shards if whole and (form == "folder" or (files.rows is not None and files.rows.equal(rows))) else ()


def as_png(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order: those of shards as they are."""
    if isinstance(images, LazyImages) and isinstance(images.files, ShardFiles):
        return (encoded_bytes(images.files[row]) for row in images.rows)
    return encode_png(images)


def joined(parts: Sequence[Images]) -> Images:
    """Constructed images one after the other, uint8 (N, C, H, W)."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    files = [part.files for part in parts if isinstance(part, LazyImages) and isinstance(part.files, ShardFiles)]
    form = "folder" if all(each.form == "folder" for each in files) else ""  # others have names of the parts
    return shard_images([shard for each in files for shard in each.shards], parts[0].shape, form)


def link(made: Path, place: Path) -> None:
    """Give a file another name beside its own; a copy where the disk has no links."""
    try:
        os.link(made, place)
    except OSError:
        shutil.copyfile(made, place)
