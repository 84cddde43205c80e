"""WebDataset shards: plain tar files with KEY.png (or another image), KEY.cls and KEY.json of each image, one after the other."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SHARD_BYTES = 2**28  # of the images in one shard: 256 MB


class Sample(NamedTuple):
    """One image. suffix: of its format, without the dot; label: the index of its class."""

    suffix: str
    image: bytes
    label: int
    class_name: str
    name: str


def write_shards(folder: Path, split: str, samples: Iterable[Sample], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write SPLIT-000000.tar, SPLIT-000001.tar, … Times and owners are left out: the same images give the same bytes."""
    shard, number, room = None, 0, 0
    try:
        for index, sample in enumerate(samples):
            if shard is None or len(sample.image) > room:
                if shard is not None:
                    shard.close()
                shard = tarfile.open(folder / shard_name(split, number), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                number, room = number + 1, shard_bytes
            room -= len(sample.image)
            add_sample(shard, index, sample)
    finally:
        if shard is not None:
            shard.close()


def shard_name(split: str, number: int) -> str:
    """SPLIT-000000.tar, SPLIT-000001.tar, …"""
    return f"{split}-{number:06d}.tar"


def add_sample(shard: tarfile.TarFile, index: int, sample: Sample) -> None:
    """Add the files of an image, the image first. index: its number in the data set."""
    about = json.dumps({"class": sample.class_name, "name": sample.name})
    for suffix, content in ((sample.suffix, sample.image), ("cls", str(sample.label)), ("json", about)):
        _add(shard, f"{index:08d}.{suffix}", content if isinstance(content, bytes) else content.encode())


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # the key has no dot: readers take all behind the first one as the suffix
    info.size = len(content)
    shard.addfile(info, io.BytesIO(content))
