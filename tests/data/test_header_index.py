"""The index of image files in a run folder: files that are as they were are not opened again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from data.conftest import equal, image_folder, random_image, save

from notbugs import data
from notbugs.data import header_index, images
from notbugs.data.loaded import Splits
from notbugs.data.sources import limits
from notbugs.decoding.headers import EncodedImage, ImageFacts, hash_of, read_header
from notbugs.errors import NotbugsWarning
from notbugs.runs import ranks


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A data set that stays on disk, a run folder, and the names of files whose headers or bytes are read."""
    found: list[str] = []

    def reading(image: EncodedImage, resize: int | None) -> ImageFacts:
        found.append(Path(str(image)).name)
        return read_header(image, resize)

    def hashing(image: EncodedImage) -> bytes:
        found.append(Path(str(image)).name)
        return hash_of(image)

    monkeypatch.setattr(images, "IN_MEMORY", 100)
    monkeypatch.setattr(images, "SAMPLE", 1)  # these are read before it is known that a set stays on disk, or decoded
    monkeypatch.setattr(images, "read_header", reading)
    monkeypatch.setattr(images, "hash_of", hashing)
    image_folder(tmp_path / "set")
    with data.keeping_loads():
        data.use_index(tmp_path)
        yield found


def loaded(folder: Path, resize: int | None = None) -> tuple[Splits, str]:
    """The data set, and its fingerprint; the index is written."""
    splits = data.load(folder / "set", resize=resize)
    assert isinstance(splits.train.images, data.LazyImages)
    fingerprint = data.fingerprint(splits.train, splits.test)
    data.keep_index(folder, splits, resize)
    return splits, fingerprint


def test_files_that_are_as_they_were_are_not_opened_again(opened: list[str], tmp_path: Path) -> None:
    first, fingerprint = loaded(tmp_path)
    count = len(first.train) + len(first.test)
    assert len(opened) == 2 * count + 1
    written = (tmp_path / header_index.NAME).stat()
    opened.clear()
    again, same = loaded(tmp_path)
    assert len(opened) == 1 and same == fingerprint and again.notes == first.notes
    assert equal(again.train, first.train) and equal(again.test, first.test)
    found = (tmp_path / header_index.NAME).stat()
    assert (found.st_ino, found.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    table = pyarrow.parquet.read_table(tmp_path / header_index.NAME).to_pylist()
    one = next(row for row in table if row["file"] == os.fsencode(tmp_path / "set/train/dog/1.png"))
    assert one["size"] == (tmp_path / "set/train/dog/1.png").stat().st_size and one["width"] == first.train.shape[2]
    assert len(table) == count


def test_a_stage_uses_the_index_of_its_run(opened: list[str], tmp_path: Path) -> None:
    loaded(tmp_path)
    data.use_index(None)
    opened.clear()
    with ranks.in_stage(tmp_path / ".unfinished" / "one", tmp_path):
        _, fingerprint = loaded(tmp_path)
    assert len(opened) == 1
    assert loaded(tmp_path)[1] == fingerprint and len(opened) > 20  # outside of stages and runs there is none


def test_a_file_that_was_written_again_is_noticed(opened: list[str], tmp_path: Path) -> None:
    _, fingerprint = loaded(tmp_path)
    place = tmp_path / "set/train/dog/1.png"
    before = place.stat()
    save(random_image(99), place)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    opened.clear()
    _, changed = loaded(tmp_path)
    assert changed != fingerprint and opened.count("1.png") == 2 and len(opened) <= 3
    opened.clear()
    assert loaded(tmp_path)[1] == changed and len(opened) == 1  # the index is that of the new file


def test_an_index_of_images_that_are_resized_otherwise_is_not_used(opened: list[str], tmp_path: Path) -> None:
    loaded(tmp_path)
    opened.clear()
    splits, _ = loaded(tmp_path, resize=4)
    assert len(opened) > len(splits.train) and splits.train.shape == (3, 4, 4)


def test_a_damaged_index_is_said_and_written_again(opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 2**20)
    first, fingerprint = loaded(tmp_path)
    place = tmp_path / header_index.NAME
    whole = pyarrow.parquet.read_table(place)
    words = whole.set_column(whole.column_names.index("width"), "width", pyarrow.array(["wide"] * len(whole)))
    pyarrow.parquet.write_table(words, tmp_path / "words.parquet")
    rows = whole.slice(0, 1).to_pylist()[0]
    claims = pyarrow.Table.from_pylist([{**rows, "file": bytes(2**16)}] * 300, schema=whole.schema)  # 20 MB in a small file
    pyarrow.parquet.write_table(claims, tmp_path / "claims.parquet")
    assert (tmp_path / "claims.parquet").stat().st_size < 100_000
    changed = [(tmp_path / name).read_bytes() for name in ("words.parquet", "claims.parquet")]
    for content in (b"", b"PAR1 of a stranger", place.read_bytes()[:-30], *changed):
        (tmp_path / header_index.NAME).write_bytes(content)
        with pytest.warns(NotbugsWarning, match=r"data-index\.parquet cannot be read \(.*\): all image files are opened"):
            again, same = loaded(tmp_path)
        assert same == fingerprint and equal(again.train, first.train)
        opened.clear()
        loaded(tmp_path)
        assert len(opened) == 1
