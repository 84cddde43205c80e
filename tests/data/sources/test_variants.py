"""The same data written in another way, with other endings, cases, encodings, in archives: read alike, and errors name it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.conftest import load_error, random_image, save
from data.sources.forms import archive, arrays, cifar, idx, pixel_table, png, tar
from data.sources.test_said import numbered, parquet, table

from notbugs import data

FILES = [f"{i}.png" for i in range(8)]
PETS = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "notbugs"


def npz(**content: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


# ---- endings, cases and encodings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG"])
def test_other_endings_of_images_in_shards(tmp_path: Path, ending: str) -> None:
    files = {f"{i}.{ending}": png(i) for i in range(8)} | {f"{i}.cls": str(i % 2).encode() for i in range(8)}
    assert len(data.load(tar(tmp_path / "a.tar", files)).train) == 6


@pytest.mark.parametrize("other", ["json", "txt"])
def test_one_description_in_an_archive_of_class_folders_is_no_label(tmp_path: Path, other: str) -> None:
    files = {f"{name}/{i}.png": png(i) for name in PETS for i in range(4)} | {f"cat/0.{other}": b"{}"}
    loaded = data.load(tar(tmp_path / "a.tar", files))
    assert loaded.train.classes == PETS and (f"a.tar: cat/0.{other}", f"is no image (.{other})") in loaded.left_out


def test_parts_in_capitals_are_the_same_parts(tmp_path: Path) -> None:
    parts = ["TRAIN", "train", "Train", "train", "test", "TEST", "test", "Test"]
    loaded = data.load(table(numbered(tmp_path), "file,label,split", FILES, list(PETS) * 4, parts))
    assert (len(loaded.train), len(loaded.test)) == (4, 4)


def test_parquet_files_in_capitals(tmp_path: Path) -> None:
    parquet(tmp_path / "TRAIN.PARQUET")
    parquet(tmp_path / "TEST.Parquet", 4)
    loaded = data.load(tmp_path)
    assert (len(loaded.train), len(loaded.test)) == (8, 4)


def test_each_part_a_saved_set(tmp_path: Path) -> None:
    from data.conftest import random_dataset

    for part, count in (("train", 8), ("test", 4)):
        data.export(random_dataset(count), tmp_path / f"{part}-whole", "saved", card="", split=part)
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / f"{part}-whole" / part).rename(tmp_path / "set" / part)
    loaded = data.load(tmp_path / "set")
    assert (len(loaded.train), len(loaded.test), loaded.train.classes) == (8, 4, ("a", "b"))
    (tmp_path / "set" / "test" / "state.json").unlink()
    assert "set" in load_error(tmp_path / "set")


def test_a_group_is_a_column_in_any_case(tmp_path: Path) -> None:
    root = table(numbered(tmp_path), "file,label,Patient ID", FILES, list(PETS) * 4, "aabbccdd")
    assert set(data.load(root, group="patient_id").train.groups) <= set("abcd")
    path = parquet(tmp_path / "other" / "a.parquet", Patient=list("aabbccdd"))
    assert set(data.load(path, group="patient").train.groups) <= set("abcd")
    assert "--group" in load_error(root, group="[0")


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.json", "labels.csv"])
def test_tables_in_utf_16(tmp_path: Path, name: str) -> None:
    records = [{"file": file, "label": PETS[i % 2]} for i, file in enumerate(FILES)]
    lines = {
        "labels.jsonl": "\n".join(map(json.dumps, records)),
        "labels.json": json.dumps(records),
        "labels.csv": "\n".join(["file,label", *(f"{each['file']},{each['label']}" for each in records)]),
    }
    (numbered(tmp_path) / name).write_text(lines[name], encoding="utf-16")
    assert data.load(tmp_path).train.classes == PETS


@pytest.mark.parametrize("sign", [", ", ";", "\t"])
def test_tables_of_pixels_with_blanks_or_other_signs(tmp_path: Path, sign: str) -> None:
    path = pixel_table(tmp_path / "a.csv")
    same = data.load(path)
    head, *rows = path.read_text().splitlines()
    rows = rows if sign == ", " else [row.replace(",", sign) for row in rows]
    path.write_text("\n".join([head.replace(",", sign), *rows]))
    assert data.fingerprint(data.load(path).train) == data.fingerprint(same.train)


# ---- archives ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"0.png": png(0), "1.png": png(1)},
        {"a.npz": npz(foo=np.zeros(3))},
        {"train/0.png": png(0), "test/0.png": png(1)},
        {"a/b.csv": b"x"},
    ],
)
def test_errors_name_the_archive_and_not_where_it_was_unpacked(tmp_path: Path, cache: Path, files: dict[str, bytes]) -> None:
    for path in (archive(tmp_path / "set.zip", files), tar(tmp_path / "set.tar", files)):
        text = load_error(path)
        assert str(path) in text and str(cache) not in text and "notbugs-" not in text


def test_what_is_left_out_of_a_zip_is_named_by_the_zip(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"b.npz": npz(**arrays(), weights=np.zeros(2))})
    assert data.load(path).left_out == ((f"{path}/b.npz: weights", "is an array of unknown use"),)


def folder_of(make: Callable[[Path], Path], root: Path) -> dict[str, bytes]:
    return {f"set/{path.name}": path.read_bytes() for path in sorted(make(root / "made").iterdir())}


IN_TAR: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "npz": lambda root: {"set/a.npz": npz(**arrays())},
    "pixels": lambda root: {"train.csv": pixel_table(root / "a.csv").read_bytes()},
    "idx": lambda root: folder_of(idx, root),
    "cifar": lambda root: folder_of(cifar, root),
    "parquet": lambda root: {"train.parquet": parquet(root / "a.parquet").read_bytes()},
}


@pytest.mark.parametrize("form", IN_TAR)
@pytest.mark.parametrize("packed", [False, True])
def test_arrays_and_tables_in_a_tar(tmp_path: Path, form: str, packed: bool) -> None:
    path = tar(tmp_path / ("a.tar.gz" if packed else "a.tar"), IN_TAR[form](tmp_path), "w:gz" if packed else "w")
    loaded = data.load(path)
    assert len(loaded.train.classes) == 2 and len(loaded.train) >= 6 and loaded.train.images[:].float().std() > 0
    assert sum("constructed sets are written as" in note for note in loaded.notes) == 1


def test_images_whose_names_do_not_say_so_beside_a_table_in_a_tar(tmp_path: Path) -> None:
    files = {f"images/{i}": png(i) for i in range(8)}
    files["labels.csv"] = "\n".join(["file,label", *(f"{i},{PETS[i % 2]}" for i in range(8))]).encode()
    loaded = data.load(tar(tmp_path / "a.tar", files))
    assert np.array_equal(loaded.train.images[0].permute(1, 2, 0), np.asarray(random_image(int(loaded.train.names[0][-1]))))


def test_bytes_in_a_tar_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    assert "leads out of the folder" in load_error(tar(tmp_path / "a.tar", {"../a.npz": npz(**arrays())}))
    save(random_image(0), tmp_path / "x.png")
    assert "is twice in the archive" in load_error(tar(tmp_path / "b.tar", {"a.npz": b"x", "./a.npz": b"y"}))
    for name in PETS:
        tar(tmp_path / "classes" / f"{name}.tar", {"0.png": png(0), "1.png": png(1)})
    text = load_error(tmp_path / "classes")
    assert "dog.tar: 0.png: is in another archive, too; pack it again, or unpack each archive into a folder of its own" in text
