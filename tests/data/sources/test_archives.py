"""Tar shards, which are never extracted, and .zip files, which are unpacked once into a private folder."""

import json
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save, stored
from data.sources.forms import archive, arrays, cifar, idx, image_zip, png, shard, tar, tree
from filelock import FileLock, Timeout

from notbugs import data
from notbugs.data.sources import limits, unpack
from notbugs.data.sources import tar as tar_files

# ---- tar -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["cls", "json", "txt"])
@pytest.mark.parametrize("packed", [False, True])
def test_shards(tmp_path: Path, ending: str, packed: bool) -> None:
    suffix, mode = (".tar.gz", "w:gz") if packed else (".tar", "w")
    shard(tmp_path / f"train-000000{suffix}", ending=ending, mode=mode)
    shard(tmp_path / f"train-000001{suffix}", 2, ending=ending, mode=mode)
    shard(tmp_path / f"val-000000{suffix}", 4, ending=ending, mode=mode)
    loaded = data.load(tmp_path)
    assert loaded.train.labels.tolist() == [0, 1] * 5 and loaded.test.labels.tolist() == [0, 1] * 2
    assert np.array_equal(stored(loaded.train)[3].permute(1, 2, 0).numpy(), np.asarray(random_image(3)))
    assert loaded.form == "webdataset" and "constructed sets are written as WebDataset shards" in loaded.notes
    assert f"labels are read from .{ending}" in loaded.notes
    assert len(data.load(tmp_path / f"train-000000{suffix}").train) == 6  # one shard is one part, which is split


def test_shards_in_folders_of_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        shard(tmp_path / part / "0000.tar", 4)
    assert (len((loaded := data.load(tmp_path)).train), len(loaded.test)) == (4, 4)


def test_shards_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.load(shard(tmp_path / "set.tar"))
    monkeypatch.setattr("notbugs.data.images.IN_MEMORY", 0)
    lazy = data.load(tmp_path / "set.tar")
    assert not isinstance(lazy.train.images, torch.Tensor) and torch.equal(stored(lazy.train), stored(whole.train))


def test_labels_in_shards(tmp_path: Path) -> None:
    words = {f"a/{i}.jpg": png(i) for i in range(8)} | {f"a/{i}.cls": ("cat", "dog")[i % 2].encode() for i in range(8)}
    assert data.load(tar(tmp_path / "words.tar", words)).train.classes == ("cat", "dog")
    both = words | {f"a/{i}.json": json.dumps({"label": 5, "class": 6}).encode() for i in range(8)}
    assert ".json is not read" in data.load(tar(tmp_path / "both.tar", both)).notes
    fields = {name: content for name, content in both.items() if not name.endswith("cls")}
    assert "got label, class; choose it with --label-column" in load_error(tar(tmp_path / "fields.tar", fields))
    some = {name: content for name, content in words.items() if name != "a/3.cls"}
    assert "some.tar: a/3: has no label" in load_error(tar(tmp_path / "some.tar", some))
    two = words | {"a/1.seg.png": png(0)}
    assert "must have one image, got .jpg, .seg.png" in load_error(tar(tmp_path / "two.tar", two))
    extra = words | {"README.md": b"x", "a/._1.jpg": b"x"}
    assert len(data.load(tar(tmp_path / "extra.tar", extra)).left_out) == 2
    odd = words | {"a/0.cls": b"[1, 0]" * 2**18}
    assert "must have at most" in load_error(tar(tmp_path / "odd.tar", odd))
    wrong = fields | {f"a/{i}.json": b'{"label": [1, 0]}' for i in range(8)}
    assert "one whole number or one word" in load_error(tar(tmp_path / "wrong.tar", wrong))


@pytest.mark.parametrize("begin", ["", "./", "pets/v1/"])
def test_a_tree_of_class_folders(tmp_path: Path, begin: str) -> None:
    loaded = data.load(tree(tmp_path / "pets.tar", begin=begin))
    assert loaded.train.classes == ("cat", "dog") and loaded.test.labels.tolist() == [0] * 3 + [1] * 3
    assert loaded.form == "folder" and "constructed sets are written as a folder of PNG" in loaded.notes
    classes = tar(tmp_path / "classes.tar", {f"{begin}{name}/{i}.png": png(i) for i in range(5) for name in ("a", "b")})
    assert len(data.load(classes).train) == 8


def test_names_in_a_tar_that_no_folder_can_have(tmp_path: Path) -> None:
    classes = {f"{name}/{i}.png": png(i) for i in range(3) for name in ("a", "b")}
    for name in ("../c/0.png", "/c/0.png", "a/../../c.png"):
        assert "out of the folder" in load_error(tar(tmp_path / "out.tar", classes | {name: png(9)}))
    assert "is twice in the archive" in load_error(tar(tmp_path / "twice.tar", classes | {"./a/0.png": png(9)}))
    assert "a name that no file can have" in load_error(tar(tmp_path / "long.tar", classes | {f"a/{'x' * 300}.png": png(9)}))


def test_archives_of_the_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        tar(tmp_path / f"{part}.tar", {f"{part}/{name}/{i}.png": png(i) for i in range(3) for name in ("a", "b")})
    found = data.load(tmp_path)
    assert (len(found.train), len(found.test)) == (6, 6) and found.train.names[0] == "a/0.png"
    assert "test: images are in test/test" in found.notes


def test_tar_without_labels(tmp_path: Path) -> None:
    text = load_error(tar(tmp_path / "flat.tar", {"1.png": png(1), "2.png": png(2)}))
    assert "flat.tar: holds no class folders" in text and "got 2 images without labels" in text and "put KEY.cls" in text
    mixed = {f"{folder}/{i}.png": png(i) for folder in ("train", "cat") for i in range(3)}
    assert data.load(tar(tmp_path / "mixed.tar", mixed)).notes[0].startswith("train is read as a class, like cat")
    unclear = mixed | {f"test/{i}.png": png(i) for i in range(3)}
    assert "unclear.tar: has folders that are called like parts" in load_error(tar(tmp_path / "unclear.tar", unclear))
    assert data.load(tmp_path / "mixed.tar", all_classes=True).train.classes == ("cat", "train")
    assert "no images" in load_error(tar(tmp_path / "none.tar", {"a.txt": b"x"}))
    pickles = {f"cifar-10-batches-py/{name}": b"\x80" for name in ("data_batch_1", "test_batch", "batches.meta")}
    assert "Python pickles" in load_error(tar(tmp_path / "cifar-10-python.tar.gz", pickles, "w:gz"))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path = shard(tmp_path / "set.tar")
        with tarfile.open(path, "a") as opened:
            info = tarfile.TarInfo("9.png")
            info.type, info.linkname = kind, "/etc/passwd"
            opened.addfile(info)
        assert "a link or no ordinary file: 9.png" in load_error(path)


def test_a_tar_that_is_cut_off_between_two_files_is_not_a_smaller_data_set(tmp_path: Path) -> None:
    content = shard(tmp_path / "set.tar").read_bytes()
    with tarfile.open(tmp_path / "set.tar") as archive:
        ends = [*[member.offset for member in archive][1:], archive.offset]
    for end in ends:
        (tmp_path / "cut.tar").write_bytes(content[:end])
        assert "it ends without a block of zeros: it is cut off, or was not closed" in load_error(tmp_path / "cut.tar")
        (tmp_path / "cut.tar").write_bytes(content[: end - 1])
        said = load_error(tmp_path / "cut.tar")
        assert any(
            words in said for words in ("is cut off, or has a damaged header", "truncated header", "unexpected end of data")
        )


def test_a_damaged_header_does_not_end_the_list(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar")
    content = bytearray(path.read_bytes())
    place = content.index(b"0004.png")
    content[place] ^= 1
    path.write_bytes(content)
    assert "damaged, or another archive follows" in load_error(path)
    path.write_bytes(shard(tmp_path / "a.tar").read_bytes() + shard(tmp_path / "b.tar", 2).read_bytes())
    assert "damaged, or another archive follows" in load_error(path)


def test_a_packed_tar_is_read_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_files, "FREE", 2**16)
    path = tar(tmp_path / "set.tgz", {"a/1.png": bytes(2**20)}, "w:gz")
    assert "at most 65,536 bytes to be read while packed; unpack it with gunzip" in load_error(path)


def test_a_packed_tar_may_hold_as_many_files_as_its_size_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_MEMBERS", 20)
    empty = {f"{i % 2}/{i:03}.png": b"" for i in range(200)}
    path, most = tar(tmp_path / "set.tgz", empty, "w:gz"), (tmp_path / "set.tgz").stat().st_size // 32
    listed = tarfile.TarFile.next
    read: list[int] = []
    monkeypatch.setattr(tarfile.TarFile, "next", lambda archive: read.append(1) or listed(archive))
    assert most < 100 and f"must hold at most {max(20, most)} files to be read while packed; unpack it" in load_error(path)
    assert len(read) < 100  # the others are not looked at
    with tarfile.open(tmp_path / "folders.tgz", "w:gz") as archive:
        for i in range(200):
            (folder := tarfile.TarInfo(f"{i:03}")).type = tarfile.DIRTYPE
            archive.addfile(folder)
    assert "files to be read while packed" in load_error(tmp_path / "folders.tgz")
    assert len(tar_files.open_archive(tar(tmp_path / "set.tar", empty)).members) == 200
    noise = {f"{i % 2}/{i:03}.png": np.random.default_rng(i).bytes(64) for i in range(50)}
    assert len(tar_files.open_archive(tar(tmp_path / "noise.tgz", noise, "w:gz")).members) == 50


# ---- zip -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "notbugs"


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def zipped(folder: Path, path: Path) -> Path:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return archive(path, {str(file.relative_to(folder)): file.read_bytes() for file in files})


def test_zip_of_images(tmp_path: Path, cache: Path) -> None:
    loaded = data.load(image_zip(tmp_path / "pets.zip"))
    assert len(loaded.train) == 6 and loaded.form == "folder" and loaded.train.names[0] == "cat/0.png"
    assert f"unpacked from pets.zip, read from {folders(cache)[0]}" in loaded.notes
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(folders(cache)[0].stat().st_mode) == 0o700


def test_zip_is_unpacked_once_and_again_if_it_changed(tmp_path: Path, cache: Path) -> None:
    first = data.load(image_zip(tmp_path / "pets.zip"))
    marker = folders(cache)[0] / ".marker"
    marker.touch()
    data.load(tmp_path / "pets.zip")
    assert marker.exists()
    next(folders(cache)[0].rglob("*.png")).unlink()  # by a cleaner
    again = data.load(tmp_path / "pets.zip")
    assert torch.equal(stored(again.train), stored(first.train)) and not marker.exists()
    image_zip(tmp_path / "pets.zip", "dogs/")
    data.load(tmp_path / "pets.zip")
    assert len(folders(cache)) == 2 and not list(cache.glob("*.part"))


def test_zip_of_other_forms(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays())  # type: ignore[arg-type]
    assert len(data.load(archive(tmp_path / "npz.zip", {"x/set.npz": (tmp_path / "set.npz").read_bytes()})).train) == 8
    assert len(data.load(zipped(idx(tmp_path / "idx"), tmp_path / "idx.zip")).train) == 8
    assert len(data.load(zipped(cifar(tmp_path / "cifar"), tmp_path / "cifar.zip")).train) == 8
    shard(tmp_path / "shards" / "train-0.tar")
    assert len(data.load(zipped(tmp_path / "shards", tmp_path / "shards.zip")).train) == 6
    for i in range(6):
        save(random_image(i), tmp_path / "table" / "images" / f"{i}.png")
    (tmp_path / "table" / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    assert data.load(zipped(tmp_path / "table", tmp_path / "table.zip")).train.classes == ("a", "b")
    clutter = zipped(image_folder(tmp_path / "mac"), tmp_path / "mac.zip")
    with zipfile.ZipFile(clutter, "a") as opened:
        opened.writestr("__MACOSX/train/cat/._0.png", b"x")
    assert any("__MACOSX" in item.location for item in data.load(clutter).left_out)


BAD_NAMES = [
    "/etc/cron.d/x",
    "../x.png",
    "a/../../x.png",
    "..\\x.png",
    "C:\\x.png",
    "a\x1b[2J.png",
    "b" * 300 + ".png",
    "c/" * 600 + "x",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, cache: Path, name: str) -> None:
    assert "holds a file that" in load_error(archive(tmp_path / "set.zip", {"a/1.png": png(1), name: png(2)}))
    assert not cache.exists()


def test_links_and_encrypted_files_are_refused(tmp_path: Path, cache: Path) -> None:
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    assert "is a link" in load_error(tmp_path / "set.zip")
    content = bytearray(image_zip(tmp_path / "set.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "set.zip").write_bytes(content)
    assert "is encrypted" in load_error(tmp_path / "set.zip")
    double = archive(tmp_path / "set.zip", {"a/1.png": b"x", "a\\1.png": b"y"})
    assert "two files of one name" in load_error(double)
    assert "cannot be unpacked" in load_error(archive(tmp_path / "set.zip", {"a": b"x", "a/1.png": b"y"}))


def test_zip_bombs_are_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 2**16)
    path = archive(tmp_path / "set.zip", {"a/1.png": bytes(2**21)}, compression=zipfile.ZIP_DEFLATED)
    assert "must not expand to more than 100 times its size, got 2,097,152 bytes" in load_error(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (1000).to_bytes(4, "little")  # the claim is what it lies about
    path.write_bytes(content)
    assert "set.zip" in load_error(path)
    assert not folders(cache)


def test_a_zip_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    content = bytearray(image_zip(tmp_path / "set.zip").read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    (tmp_path / "set.zip").write_bytes(content)
    assert "Bad CRC" in load_error(tmp_path / "set.zip") and not folders(cache)


def test_a_zip_is_unpacked_by_one_process_at_a_time(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, unpacked = unpack._extract, []

    def extract(path: Path, opened: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
        with pytest.raises(Timeout):  # as another process would have to
            FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0).acquire()
        unpacked.append(folder)
        whole(path, opened, members, folder)

    monkeypatch.setattr(unpack, "_extract", extract)
    for _ in range(2):
        data.load(image_zip(tmp_path / "pets.zip") if not unpacked else tmp_path / "pets.zip")
    assert unpacked == folders(cache)
    with FileLock(unpacked[0].with_name(f"{unpacked[0].name}.lock"), timeout=0):
        pass  # it is free again


def test_a_zip_that_does_not_fit_on_the_disk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_zip(tmp_path / "pets.zip")
    needed = 12 * 2 * unpack.DISK_BLOCK
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
    text = load_error(path)
    assert "does not fit on the disk, got 0.0 GB needed, 0.0 GB free in" in text and "set XDG_CACHE_HOME" in text
    assert not folders(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed))
    assert len(data.load(path).train) == 6


def test_a_cache_folder_of_someone_else_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache.parent.mkdir()
    os.symlink(tmp_path / "elsewhere", cache)
    assert "must be a folder of your own" in load_error(image_zip(tmp_path / "set.zip"))
