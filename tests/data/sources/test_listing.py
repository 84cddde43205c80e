"""Listing many files: what is done once for each folder, and not for each file."""

from collections import Counter
from pathlib import Path

import pytest
from data.conftest import image_folder

from notbugs import data
from notbugs.data.sources import locate, official
from notbugs.data.sources.listing import Listing
from notbugs.data_config import DataConfig


def test_a_folder_is_read_once_by_all_listings_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    (tmp_path / "train/cat/.hidden").touch()
    counts: Counter[Path] = Counter()
    read = Listing._read
    monkeypatch.setattr(Listing, "_read", staticmethod(lambda folder: counts.update([folder]) or read(folder)))
    located = locate(DataConfig(str(tmp_path)))
    assert counts and set(counts.values()) == {1}
    assert [item.location for item in located.left_out] == ["train/cat/.hidden"]  # by each listing that sees the folder


def test_each_listing_leaves_out_what_it_sees(tmp_path: Path) -> None:
    for name in (".hidden", "notes.txt", "1.png", "thumbs.db"):
        (tmp_path / name).touch()
    listing = Listing(tmp_path)
    for one in (listing, listing.another(), listing.another().another()):
        assert one.left_out == [] and [*one.walk(tmp_path)] == [str(tmp_path / "1.png")]
        assert [item.location for item in one.left_out] == [".hidden", "thumbs.db", "notes.txt"]


def test_files_are_not_looked_up_in_lists_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, asked = official._keys, []
    monkeypatch.setattr(official, "_keys", lambda *given: asked.append(given) or keys(*given))
    image_folder(tmp_path, splits=("",))
    assert locate(DataConfig(str(tmp_path))).files and not asked
    for part, number in (("train", 0), ("test", 1)):
        (tmp_path / f"{part}.txt").write_text(f"cat/{number}.png\ndog/{number}.png\n")
    assert len(locate(DataConfig(str(tmp_path))).files) == 4 and asked


def test_files_are_paths_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    located = locate(DataConfig("."))
    assert located.files[0] == located.locations[0] == "train/cat/0.png"
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"train/cat/{i}.png,{i // 2}\n" for i in range(3)))
    assert list(locate(DataConfig(".", labels="labels.csv")).files) == [f"train/cat/{i}.png" for i in range(3)]
    assert data.load(".").train.names[0] == "cat/0.png"
