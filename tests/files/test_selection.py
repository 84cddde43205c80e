"""Lists of files: what they may hold, and the two data sets that they make of one."""

from pathlib import Path

import pytest
import torch
from cli.conftest import call_here, error_line
from data.conftest import random_image, save

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.selection import find_files, read_list


def test_a_list_has_one_name_per_line(tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_bytes('\ufeffcat/a.png\r\n\r\n  dog/b c.png \n"two\\nlines"\n"\\"quoted\\""\n'.encode())
    assert read_list(tmp_path / "files.txt") == ["cat/a.png", "dog/b c.png", "two\nlines", '"quoted"']


def test_a_list_may_be_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_bytes("cat/a.png\r\nhund/ä.png\r\n".encode("utf-16"))
    assert read_list(tmp_path / "files.txt") == ["cat/a.png", "hund/ä.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "must name a file"),
        (b"\xff\xfe", "must name a file"),
        (b"\xff", "must be a text file"),
        (b'"open', "must be a text file"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"^--files: {message}"):
        read_list(tmp_path / "files.txt")
    with pytest.raises(InputError, match="must be a text file"):
        read_list(tmp_path / "none.txt")


def test_names_are_found_as_the_tables_write_them() -> None:
    names = ("a.png", "b\udcff.png", "a.png", "c.png")
    dataset = Dataset(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ("x",), names)
    assert find_files(dataset, ["b?.png", "a.png"]) == [0, 1, 2]
    with pytest.raises(InputError, match=r"d\.png, e\.png, f\.png and 2 more"):
        find_files(dataset, ["a.png", "d.png", "e.png", "f.png", "g.png", "h.png"])
    test = Dataset(dataset.images[:1], dataset.labels[:1], ("x",), ("t.png",))
    with pytest.raises(InputError, match=r"got t\.png, u\.png, of which 1 in the test part; take names as in .*, a\.png for one"):
        find_files(dataset, ["t.png", "u.png"], test)


@pytest.mark.slow
def test_the_command_writes_the_listed_files_and_all_others(digits: data.Splits, tmp_path: Path) -> None:
    data.export(digits.train.select(slice(0, 60)), tmp_path / "set", "folder", card="Some digits.")
    files = data.load(str(tmp_path / "set")).train
    listed = [files.names[index] for index in (3, 20, 7)]
    (tmp_path / "files.txt").write_text("\n".join(listed))
    words = ["split", str(tmp_path / "set"), "--files", str(tmp_path / "files.txt"), "--out", str(tmp_path / "out")]
    done = call_here(*words)
    assert done.returncode == 0, done.stderr
    parts = {name: data.load_part(tmp_path / "out" / "datasets" / f"{name}-files", "folder") for name in ("listed", "other")}
    assert [*parts["listed"].names] == [files.names[index] for index in (3, 7, 20)]
    assert {*parts["listed"].names} | {*parts["other"].names} == {*files.names}
    assert len(parts["other"]) == len(files) - 3
    for part in parts.values():
        places = [files.names.index(name) for name in part.names]
        assert torch.equal(part.images[:], files.images[places])
        assert [part.classes[label] for label in part.labels] == [files.classes[label] for label in files.labels[places]]
    assert f"listed      3 files  {tmp_path / 'out' / 'datasets' / 'listed-files'}" in done.stdout
    assert "exists and is not empty" in error_line(call_here(*words))


def listed_photographs(folder: Path) -> list[str]:
    """Photographs of several sizes, one of them listed; the words of the command."""
    for index, name in enumerate(("cat/0.jpg", "cat/1.png", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.png")):
        for part in ("train", "test"):
            save(random_image(index, size=(30 + index, 20)), folder / "set" / part / name)
    (folder / "files.txt").write_text("cat/0.jpg\n")
    return ["split", str(folder / "set"), "--files", str(folder / "files.txt"), "--resize", "8", "--out", str(folder / "out")]


def test_listed_files_are_copied_whatever_was_loaded(tmp_path: Path) -> None:
    done = call_here(*listed_photographs(tmp_path))
    assert done.returncode == 0, done.stderr
    statement = "Files are copied byte for byte, in their original size and format."
    assert done.stdout.count(statement) == 2 and "No image has the label dog." in done.stdout
    listed, other = (tmp_path / "out/datasets" / f"{name}-files" for name in ("listed", "other"))
    card = (listed / "README.md").read_text()
    assert f"Labels are unchanged. {statement} Made by notbugs" in card and "No image has the label dog." in card
    names = sorted(path.relative_to(other / "train").as_posix() for path in other.rglob("*.[jp][pn]g"))
    assert names == ["cat/1.png", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.png"]
    for name in names:
        assert (other / "train" / name).read_bytes() == (tmp_path / "set/train" / name).read_bytes()


@pytest.mark.parametrize("form", ["parquet", "npz", "webdataset"])
def test_the_form_of_the_two_data_sets_can_be_chosen(tmp_path: Path, form: str) -> None:
    done = call_here(*listed_photographs(tmp_path), "--write", form)
    assert done.returncode == 0, done.stderr
    decoded = "Arrays hold pixels: the files are decoded, resized to 8x8 pixels."
    assert (decoded in done.stdout) == (form == "npz")
    file = {"parquet": "train.parquet", "npz": "data.npz", "webdataset": "train-000000.tar"}[form]
    other = tmp_path / "out/datasets/other-files"
    assert {path.name for path in other.iterdir()} == {"README.md", file}
    if form == "npz":
        assert data.load_part(other, form).shape == (3, 8, 8)
    else:
        assert (tmp_path / "set/train/cat/2.jpg").read_bytes() in (other / file).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write", "zip"], "--write: must be one of folder, parquet, npz, webdataset, got 'zip'"),
        (["--by-file"], "--files: cannot be used with --by-file"),
        (["--versions", "2"], "--versions: cannot be used with --files"),
        (["--bf16"], "--bf16, --compile: cannot be used with --files"),
        ([], "--files: must name training files of the data set"),
    ],
)
def test_input_errors_come_before_anything_is_written(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_text("no/such.png")
    command = ["split", "digits", "--files", str(tmp_path / "files.txt"), *words, "--out", str(tmp_path / "out")]
    assert message in error_line(call_here(*command))
    assert not (tmp_path / "out").exists()
