"""WebDataset shards: plain tar files with KEY.png (or another image), KEY.cls and KEY.json of each image, one after the other."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

from notbugs.data.names import first_line
from notbugs.data.sources import Located
from notbugs.errors import InputError

SHARD_BYTES = 2**28  # of the images in one shard: 256 MB
TEXT_BYTES = 2**16  # of one .cls or .json that are read


class Sample(NamedTuple):
    """One image. suffix: of its format, without the dot; label: the index of its class."""

    suffix: str
    image: bytes
    label: int
    class_name: str
    name: str


class Member(NamedTuple):
    """Where an image is: bytes `start` to `start + size` of a shard."""

    shard: Path
    start: int
    size: int


@dataclass(frozen=True)
class ShardImages(Sequence[bytes]):
    """The encoded images of shards, read when indexed."""

    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "ShardImages": ...
    def __getitem__(self, index: int | slice) -> "bytes | ShardImages":
        if isinstance(index, slice):
            return ShardImages(self.members[index])
        shard, start, size = self.members[index]
        with shard.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)


def write_shards(folder: Path, split: str, samples: Iterable[Sample], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write SPLIT-000000.tar, SPLIT-000001.tar, … Times and owners are left out: the same images give the same bytes."""
    shard, number, room = None, 0, 0
    try:
        for index, sample in enumerate(samples):
            if shard is None or len(sample.image) > room:
                if shard is not None:
                    shard.close()
                shard = tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                number, room = number + 1, shard_bytes
            room -= len(sample.image)
            about = json.dumps({"class": sample.class_name, "name": sample.name})
            for suffix, content in ((sample.suffix, sample.image), ("cls", str(sample.label)), ("json", about)):
                _add(shard, f"{index:08d}.{suffix}", content if isinstance(content, bytes) else content.encode())
    finally:
        if shard is not None:
            shard.close()


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # the key has no dot: readers take all behind the first one as the suffix
    info.size = len(content)
    shard.addfile(info, io.BytesIO(content))


def locate_shards(folder: Path, split: str, classes: tuple[str, ...]) -> Located:
    """The images in the shards that `write_shards` wrote. Raises InputError."""
    members: list[Member] = []
    labels: list[int] = []
    names: list[str] = []
    for shard in sorted(folder.glob(f"{split}-*.tar")):
        for found in _samples(shard):
            try:
                about = json.loads(found["json"])
                labels.append(int(found["cls"]))
                names.append(str(about["name"]))
                members.append(found["image"])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(str(shard), "each image needs a .cls and a .json", first_line(error)) from None
    if not members:
        raise InputError(str(folder), f"has no shards {split}-*.tar with images")
    return Located(ShardImages(tuple(members)), labels, names, names, len(names), classes, "webdataset")


def _samples(shard: Path) -> list[dict[str, Any]]:
    """The files of each key: the text of .cls and .json, and the place of the image."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                key, _, suffix = info.name.partition(".")
                if suffix not in ("cls", "json"):
                    found.setdefault(key, {})["image"] = Member(shard, info.offset_data, info.size)
                elif (stream := archive.extractfile(info)) is not None:
                    found.setdefault(key, {})[suffix] = stream.read(TEXT_BYTES).decode()
    except (OSError, ValueError, tarfile.TarError) as error:
        raise InputError(str(shard), "cannot be read as a tar file", first_line(error)) from None
    return list(found.values())
