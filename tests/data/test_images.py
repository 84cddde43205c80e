"""8-bit images in memory and on disk."""

import os
import resource
import shutil
import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import equal, image_folder, random_image, save, stored
from PIL import Image

from notbugs import data
from notbugs.data import images
from notbugs.data.header_index import Known
from notbugs.decoding import headers
from notbugs.errors import InputError


def test_8_bit_values_are_restored_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_8bit(data.from_8bit(levels)), levels)
    assert data.to_8bit(torch.tensor([-0.1, 1.2])).tolist() == [0, 255]


def test_large_data_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    whole = data.load(str(tmp_path))
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    lazy = data.load(str(tmp_path))
    assert isinstance(lazy.train.images, data.LazyImages) and equal(lazy.train, whole.train) and equal(lazy.test, whole.test)
    assert equal(lazy.train.select([3, 1]), whole.train.select([3, 1])) and lazy.train.shape == whole.train.shape
    assert torch.equal(data.map_batches(lambda x, i: x, lazy.test, batch_size=4), data.map_batches(lambda x, i: x, whole.test))
    data.export(lazy.train, tmp_path / "again", "folder", card="")
    assert equal(data.load_part(tmp_path / "again", "folder"), whole.train)
    (tmp_path / "train/dog/1.png").write_bytes((tmp_path / "train/dog/1.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"train/dog/1.png"):
        lazy.train.images[[0, 4]]


def test_a_replaced_file_of_a_large_data_set_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    image_folder(tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "copy", copy_function=shutil.copyfile)  # not its dates
    loaded = data.load(tmp_path / "set")
    known = data.fingerprint(loaded.train, loaded.test)
    copy = data.load(tmp_path / "copy")
    assert isinstance(copy.train.images, data.LazyImages) and data.fingerprint(copy.train, copy.test) == known
    monkeypatch.setattr(headers, "SMALL", 10)  # large files are read in parts
    again = data.load(tmp_path / "copy")
    assert data.fingerprint(again.train, again.test) == known
    old = (tmp_path / "copy/train/dog/1.png").stat()
    save(random_image(99), tmp_path / "copy/train/dog/1.png")
    os.utime(tmp_path / "copy/train/dog/1.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    changed = data.load(tmp_path / "copy")
    other = data.fingerprint(changed.train, changed.test)
    assert other != known and other.partition("-")[0] == known.partition("-")[0], "names and labels are the same"
    assert data.fingerprint(changed.test) == data.fingerprint(loaded.test)
    (tmp_path / "copy/train/dog/1.png").unlink()
    assert data.fingerprint(changed.train.select([4])) != data.fingerprint(loaded.train.select([4])), "each is read once"
    with pytest.raises(InputError, match=r"dog/1\.png"):
        replace(copy.train.images, known=Known()).hashes()


def test_unreadable_files_of_a_large_data_set_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    (tmp_path / "train/dog/1.png").write_bytes(b"")
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    with pytest.raises(InputError, match=r"train/dog/1.png.*--skip-unreadable"):
        data.load(str(tmp_path))
    lazy = data.load(str(tmp_path), skip_unreadable=True)
    assert isinstance(lazy.train.images, data.LazyImages) and len(lazy.train) == 5 and len(lazy.left_out) == 1
    assert lazy.train.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/2.png")


def test_notes_on_a_large_data_set_come_from_headers_and_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path, each=30)
    for path in sorted((tmp_path / "train").glob("*/*.png")):
        save(Image.fromarray(np.linspace(0, 4095, 54).reshape(6, 9).astype(np.uint16)), path)
    options = {"resize": 4, "resize_mode": "pad"}
    whole = data.load(tmp_path, **options)
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    lazy = data.load(tmp_path, **options)
    assert isinstance(lazy.train.images, data.LazyImages) and equal(lazy.train, whole.train)
    assert whole.notes[1] == "60 of 120 images are gray, and become RGB like the others"
    assert lazy.notes == (*whole.notes[:2], f"{whole.notes[2]} (of 60, 30 were looked at)")
    assert data.load(tmp_path, white=4095, **options).notes == whole.notes[:2]


def test_rotated_images_of_a_large_data_set_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    for split in ("train", "test"):
        for name in ("x/0.jpg", "x/1.jpg", "y/0.jpg", "y/1.jpg"):
            save(random_image(1, size=(6, 9)), tmp_path / split / name, exif=rotated)
    whole = data.load(tmp_path)
    assert whole.train.shape == (3, 6, 9) and whole.notes[0].startswith("8 of 8 images are rotated or mirrored")
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    lazy = data.load(tmp_path)
    assert isinstance(lazy.train.images, data.LazyImages) and equal(lazy.train, whole.train) and lazy.notes == whole.notes
    save(random_image(1, size=(6, 9)), tmp_path / "train/x/0.jpg")  # not as its header said
    with pytest.raises(InputError, match=r"train/x/0.jpg: .*6 x 9 pixels, all others 9 x 6: pass --resize N"):
        stored(lazy.train)


def test_color_after_many_gray_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("x", "y"):
            for number in range(20):
                save(random_image(number, "L"), tmp_path / split / label / f"{number:02}.png")
    save(random_image(99), tmp_path / "train/y/19.png")  # beyond the headers that are looked at first
    (tmp_path / "train/y/05.png").write_bytes(b"")
    loaded = data.load(tmp_path, skip_unreadable=True)
    assert loaded.train.shape == (3, 6, 6) and len(loaded.train) == 39
    assert np.array_equal(stored(loaded.train)[25, 1], random_image(6, "L"))
    assert np.array_equal(stored(loaded.train)[38].permute(1, 2, 0), random_image(99))


def test_pixels_of_images_that_will_be_refused_are_not_kept(tmp_path: Path) -> None:
    for i in range(120):
        save(Image.new("L", (4, 4) if i < 90 else (500, 500)), tmp_path / f"{'ab'[i % 2]}/{i:03}.png")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"/\d+\.png: all images must have one size, .* 4 x 4 pixels, got 500 x 500"):
            data.load(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 500 * 500, "of 30 such images"
    finally:
        tracemalloc.stop()


def mapped_file(tensor: torch.Tensor) -> str:
    """The file that a tensor is mapped from; "" for one in memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.partition("/")[2]
    return ""


def test_large_arrays_are_a_file_of_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "new" / "run"  # as at the start of a command
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "set.npz", train_images=pixels, train_labels=labels, test_images=pixels[:9], test_labels=labels[:9])
    config = data.DataConfig(str(tmp_path / "set.npz"))
    expected = data.load_dataset(config).train.images
    monkeypatch.setattr(images, "IN_MEMORY", 30 * 192 - 1)
    assert not mapped_file(data.load_dataset(config).train.images[:])  # nobody's run
    with data.keeping_loads():
        data.use_index(run)
        found = data.load_dataset(config)
        assert torch.equal(found.train.images[:], expected[:]) and str(tmp_path)[1:] in mapped_file(found.train.images[:])
        assert str(tmp_path)[1:] in mapped_file(found.test.images[:]) and len([*tmp_path.iterdir()]) == 1  # it has no name
        data.use_index(run, is_run=False)
        assert not mapped_file(data.load_dataset(replace(config, limit=29)).train.images[:])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with data.keeping_loads():
            data.use_index(run)
            with pytest.raises(InputError, match=r": must be on a disk with room, got a full one"):
                data.load_dataset(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
