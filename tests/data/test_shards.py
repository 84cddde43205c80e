"""WebDataset shards: the layout, bounded and reproducible; and what a reader is told of damaged ones."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from data.conftest import equal, random_dataset

from notbugs import data
from notbugs.data.shards import Sample, write_shards
from notbugs.data.sources import locate_tar
from notbugs.errors import InputError


def samples(count: int) -> list[Sample]:
    return [Sample("png", bytes([index]) * 100, index % 2, "ab"[index % 2], f"{index}.png") for index in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_loaded_again(tmp_path: Path, channels: int) -> None:
    whole = random_dataset(12, channels, ("dog", "a/b"))
    data.export(whole, tmp_path / "set", "webdataset", card="# Mine")
    assert equal(data.load_part(tmp_path / "set", "webdataset"), whole)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["README.md", "train-000000.tar"]
    with tarfile.open(tmp_path / "set/train-000000.tar") as shard:
        assert shard.getnames()[:4] == ["00000000.png", "00000000.cls", "00000000.json", "00000001.png"]
        about = shard.extractfile("00000001.json")
        assert about is not None and json.load(about) == {"class": "a/b", "name": "a/b/1.png"}
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in shard} == {(0, 0, 0, "", "")}


def test_the_same_images_give_the_same_bytes_in_shards_of_bounded_size(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shards(tmp_path / name, "test", samples(7), shard_bytes=250)
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [path.name for path in files[0]] == [f"test-{number:06d}.tar" for number in range(4)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    located = locate_tar(tmp_path / "one", files[0], data.DataConfig(str(tmp_path), train="test"))
    assert [located.files[index] for index in range(7)] == [sample.image for sample in samples(7)]
    assert located.labels == [0, 1] * 3 + [0] and located.names[6] == "6.png" and located.classes == ("a", "b")


def test_damaged_shards_are_errors(tmp_path: Path) -> None:
    data.export(random_dataset(), tmp_path / "set", "webdataset", card="")
    shard = tmp_path / "set/train-000000.tar"
    shutil.copy(shard, tmp_path / "whole.tar")
    shard.write_bytes(b"no tar file" * 100)
    with pytest.raises(InputError, match="cannot be read as a tar archive"):
        data.load_part(tmp_path / "set", "webdataset")
    with tarfile.open(shard, "w") as archive:
        archive.add(tmp_path / "whole.tar", "00000000.png")
    with pytest.raises(InputError, match=r"label"):
        data.load_part(tmp_path / "set", "webdataset")
    shard.unlink()
    with pytest.raises(InputError, match=r"has no shards train-\*\.tar"):
        data.load_part(tmp_path / "set", "webdataset")
    (tmp_path / "set/README.md").write_text("no front matter")
    with pytest.raises(InputError, match=r"README.md: must list the classes"):
        data.load_part(tmp_path / "set", "webdataset")


def test_a_written_set_is_a_data_set_again(tmp_path: Path) -> None:
    whole = random_dataset(24, 3, ("dog", "cat"))  # not in alphabetical order
    data.export(whole, tmp_path / "set", "webdataset", card="")
    loaded = data.load(tmp_path / "set", test=".")
    assert loaded.test.classes == ("dog", "cat") and loaded.form == "webdataset" and equal(loaded.test, whole)
