"""Constructed images as PNG files in shards, while they are made: a data set may be larger than memory.

Each shard is written by the process that makes its images, in the form in which the data set will be written: a tar file of
WebDataset, a parquet file, or files in a folder. For a data set of another form it is a file of PNG files one after the other.
"""

import mmap
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar

from torch import Tensor

from notbugs.atomic import not_writable, part_of, sync_folder
from notbugs.data.convert import record_batch, row_features
from notbugs.data.images import encode_png
from notbugs.data.shard_files import Rows, file_in
from notbugs.data.shards import Sample, add_sample

AT_ONCE = 2**24  # bytes of images in a row group of a parquet file
SMALL_COLUMNS = {key: ["label", "file_name"] for key in ("use_dictionary", "write_statistics")}  # images have no use for these
HEAD = 64  # bytes of a PNG file by which it is found in a parquet file
TAR_HEADER = 512  # bytes before each file in a tar file
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


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
    >>> import torch
    >>> from notbugs.data.shard_files import Shard, shard_images
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
        file_in(self.fresh, len(self.places)).write_bytes(content)
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
