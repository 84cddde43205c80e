"""Constructed images in shards, as `shard_writers` writes them: a data set that may be larger than memory.

`export` gives shards of its form their names. For data sets of other forms it reads the images from them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from notbugs.data.images import DEFAULT, Images, LazyImages, encode_png
from notbugs.data.sources.base import ChainedFiles
from notbugs.decoding.headers import encoded_bytes
from notbugs.errors import InputError


class Rows(NamedTuple):
    """What is known of a data set before its images are made: int64 (N,), (K,) and (N,) as of a `Dataset`."""

    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def equal(self, other: "Rows") -> bool:
        """Whether both are the same."""
        return torch.equal(self.labels, other.labels) and (self.classes, self.names) == (other.classes, other.names)


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
            return all(sizes.get(file_in(self.path, row).name) == size for row, size in enumerate(self.places[:, 1].tolist()))
        return self.path.exists() and self.path.stat().st_size >= int(self.places[:, 1].max())

    def __getitem__(self, row: int) -> bytes:
        """The PNG file of an image. Raises InputError if it was changed meanwhile."""
        begin, end = self.places[row].tolist()
        try:
            with (file_in(self.path, row) if self.path.is_dir() else self.path).open("rb") as stream:
                stream.seek(begin)
                content = stream.read(end - begin)
        except OSError as error:
            raise InputError(str(self.path), "cannot be read", error.strerror, "repeat the command") from None
        if len(content) < end - begin:
            raise InputError(
                str(self.path), "must be as it was written", f"{len(content)} bytes of an image", "remove it and repeat"
            )
        return content


def file_in(folder: Path, row: int) -> Path:
    """Where an image is in a shard that is a folder."""
    return folder / f"{row:08d}.png"


@dataclass(frozen=True, eq=False)
class ShardFiles(ChainedFiles):
    """The images of several shards, one after the other; each is read when it is indexed. form, rows: in which they were made."""

    parts: tuple[Shard, ...]
    form: str = ""
    rows: Rows | None = None


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
    return files.parts if whole and (form == "folder" or (files.rows is not None and files.rows.equal(rows))) else ()


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
    return shard_images([shard for each in files for shard in each.parts], parts[0].shape, form)


def link(made: Path, place: Path) -> None:
    """Give a file another name beside its own; a copy where the disk has no links."""
    try:
        os.link(made, place)
    except OSError:
        shutil.copyfile(made, place)
