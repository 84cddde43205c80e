"""Small files that would take much time or memory, wait forever, or end in a traceback."""

import json
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data.conftest import image_folder, load_error, random_image, save
from data.sources.forms import archive, arrays, cifar, pixel_table, png, tar

from notbugs import data
from notbugs.data.card import license_of
from notbugs.data.convert import parts_of_torch
from notbugs.data.names import found_in, regular_expression
from notbugs.data.sources import directory, label_table, limits, tables
from notbugs.data.sources.detection import _yolo
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.name_labels import USUAL, suggestion
from notbugs.data.sources.official import _named
from notbugs.data.sources.targets import _as_number
from notbugs.errors import InputError

MANY = 20_000  # characters or cells: at once if each is looked at once, and over 5 seconds if each is looked at for each


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """What waits, or takes for ever, fails after 5 seconds."""

    def stop(_: int, frame: FrameType | None) -> None:
        pytest.fail(f"takes over 5 seconds: {frame}")  # which nothing catches

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 2**16)
    monkeypatch.setattr(label_table, "MOST_CELLS", 9999)


def peak(function: Callable[[], object]) -> int:
    """The most bytes that a call takes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- patterns ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "boxes"),
    [
        ("0" + " 0.5" * 40 + " -0.01", False),
        ("0" + " 0.5" * 40, True),
        ("15 0.5 .25 1 0", True),
        ("15 1. 2.5e-05 1 0", True),
        ("15 2 0.5 0.5 0.5", False),
        ("0 0.5 0.5 0.5", False),
        ("10000 0.5 0.5 0.5 0.5", False),
        ("0 0.5 0.5 0.5 0.5x", False),
    ],
)
def test_a_line_that_is_nearly_one_of_boxes(line: str, boxes: bool) -> None:
    assert _yolo("", line) is boxes


def test_text_that_is_nearly_a_number() -> None:
    assert _as_number("1" * MANY + "x") is None
    assert [_as_number(text) for text in ("5", "5,5 cm", "-.5", "+12.25kg", "5.", "1,2,3")] == [5, 5.5, -0.5, 12.25, 5, None]


def test_names_that_nearly_say_a_label() -> None:
    for sign in "-a1.(":
        assert suggestion([sign * 240 + "!"] * 50 + ["a" + sign * 240 + "!"] * 50) == ""
    patterns = [regular_expression("--label-regex", text) for text in USUAL]
    names = [
        "cat.0.jpg",
        "cat12.jpg",
        "img12_3.jpg",
        "sea lion (4).png",
        "train/a/cat-1.jpg",
        "v1.2.3",
        "x.jpg",
        "a_b_c.jpg",
        "_a_1",
    ]
    found = [[found_in(pattern, name) for pattern in patterns] for name in names]
    assert [first for first, _ in found] == ["cat", "cat", "img12", "sea lion", "cat", "v1", "", "", ""]
    assert [second for _, second in found] == ["", "", "img12", "", "", "", "", "a", "a"]
    many = [f"class{chr(97 + i // 26)}{chr(97 + i % 26)}_{k}.jpg" for i in range(300) for k in range(2)]
    assert "labels in the file names (" in suggestion(many), "each class is in the names twice, also in 200 of them"


# ---- tables --------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_short_rows_below_a_long_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"labels.{ending}"
    lines = {
        "csv": ["file,label" + "," * 998, *["x"] * 11],
        "jsonl": [json.dumps({str(i): 1}) for i in range(101)],
    }[ending]
    path.write_text("\n".join(lines))
    seen = "12 rows of 1,000" if ending == "csv" else "101 rows of 101"
    with pytest.raises(InputError, match=f"must have at most 9,999 cells, got {seen}"):
        label_table.read_table(path)
    path.write_text("\n".join(["file,label" + "," * 998] * 20))  # what is written one by one takes no more than the file
    assert len(label_table.read_table(path.rename(path.with_suffix(".csv"))).rows) == 19


def test_a_list_with_a_long_header(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("," * 500 + "\n" + "a.png,1\n" * 500)
    assert peak(lambda: _named(path, {"a.png": "a.png"})) < 2**20
    assert len(_named(path, {"a.png": "a.png"})) == 500


@pytest.mark.usefixtures("small_limits")
def test_a_long_label_of_pixels_in_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text("emotion,pixels\n" + f"{'x' * 5000},1 2 3 4\n" + "y,1 2 3 4\n" * 500)
    assert "faces.csv: must not expand to more than 100 times its size, got 10,020,000 bytes" in load_error(path)
    cifar(tmp_path / "cifar")
    (tmp_path / "cifar" / "batches.meta.txt").write_text("x" * 5000 + "\ny" * 500)
    assert "batches.meta.txt: must not expand to more than 100 times its size" in load_error(tmp_path / "cifar")


@pytest.mark.parametrize("form", ["csv", "npz", "pixels"])
def test_a_label_of_too_many_digits(tmp_path: Path, form: str) -> None:
    label, path = "1" * 5000, tmp_path / "set"
    if form == "csv":
        for i in range(4):
            save(random_image(i), path / f"{i}.png")
        (path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{(label, '2')[i % 2]}\n" for i in range(4)))
    elif form == "npz":
        path = path.with_suffix(".npz")
        np.savez(path, x_train=arrays()["x_train"], y_train=np.array([label, "2"] * 4))
    else:
        path = pixel_table(tmp_path / "train.csv")
        path.write_text(path.read_text().replace("\n3,", f"\n{label},"))
    assert "a class name: must have at most 1,000 characters, got 5,000" in load_error(path)


def test_a_column_of_pixels_with_too_many_digits(tmp_path: Path) -> None:
    path = pixel_table(tmp_path / "train.csv")
    path.write_text(path.read_text().replace("pixel0,", f"pixel{'1' * 5000},", 1))
    assert "train.csv: " in load_error(path)


def test_groups_of_one_of_two_tables(tmp_path: Path) -> None:
    for i in range(8):
        save(random_image(i), tmp_path / f"{i}.png")
    for name, names, numbers in (("train", "file,label,split,patient", range(6)), ("test", "file,label,split", range(6, 8))):
        lines = [f"{i}.png,{'ab'[i % 2]},{'test' if i > 3 else 'train'}" + f",{i}" * (name == "train") for i in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join([names, *lines]))
    assert "--group: must be a column of each part, got none in test.csv" in load_error(tmp_path, group="patient")
    assert len(data.load(tmp_path).test) == 4


def test_an_empty_group_of_a_parquet_file(tmp_path: Path) -> None:
    cells = {"image": [png(i) for i in range(8)], "label": [0, 1] * 4, "patient": ["x", None] * 4}
    pyarrow.parquet.write_table(pyarrow.table(cells), tmp_path / "set.parquet")
    assert "--group: must be given for each image, got an empty cell for" in load_error(tmp_path / "set.parquet", group="patient")


# ---- pipes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.csv", "README.md", "x.parquet", "x.csv", "classes.txt", "x.npz"])
def test_a_pipe_beside_images_is_not_opened(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path / "set")
    os.mkfifo(tmp_path / "set" / name)
    assert license_of(str(tmp_path / "set")) == "unknown" and not directory._parquet_files(
        Listing(tmp_path / "set", follow_links=False), tmp_path / "set"
    )
    assert len(data.load(tmp_path / "set", skip_unreadable=True).train) == 6
    (tmp_path / "alone").mkdir()
    os.mkfifo(tmp_path / "alone" / name)
    assert "holds no class folders" in load_error(tmp_path / "alone")


@pytest.mark.parametrize("name", ["set.npz", "set.parquet", "set"])
def test_a_pipe_is_no_data_set(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    error = load_error(tmp_path / name)
    assert error.endswith(f"{name}: must be a file or a folder, got a pipe, socket or device; save it as a file")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_pipe_in_a_saved_set_is_not_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(tables, "check_arrow", lambda path: pytest.fail("it is opened"))  # which no signal ends

    whole = datasets.Dataset.from_dict({"image": [png(i) for i in range(8)], "label": [0, 1] * 4})
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "set")
    (tmp_path / "set/train" / name).unlink()
    os.mkfifo(tmp_path / "set/train" / name)
    assert f"set/train/{name}: is not a file; save it again" in load_error(tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("license: mit", "mit"),
        ("license: 'cc-by-4.0'  # by hand", "cc-by-4.0"),
        ("pretty_name: x\nlicense: mit\ntags:\n- license: apache-2.0", "mit"),
        ("license: mit\nlicense: gpl", "unknown"),
        ("license: mit extra", "unknown"),
        ("license: 'mit", "unknown"),
        ("license:\n- mit", "unknown"),
        ("a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 10)), "unknown"),
    ],
)
def test_the_license_on_a_card(tmp_path: Path, text: str, license: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n\nlicense: other\n")
    assert license_of(str(tmp_path)) == license


# ---- folders in folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_folders_in_folders_of_an_archive(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = tar if form == "tar" else archive
    path = write(tmp_path / f"set.{form}", {f"{label}/" + "a/" * 400 + f"{i}.png": png(i) for label in "xy" for i in range(3)})
    assert {"tar": "has a name that no file can have, got it is too long", "zip": "a name that is too long"}[form] in load_error(
        path
    )


@pytest.mark.parametrize("name", ["a", "1"])
def test_folders_in_folders(tmp_path: Path, name: str) -> None:
    for label in ("cat", "dog"):
        for i in range(2):
            save(random_image(i), tmp_path / label / "/".join([name] * 120) / f"{i}.png")
    before, used = sys.getrecursionlimit(), len(_frames())
    sys.setrecursionlimit(used + 110)
    try:
        assert len(data.load(tmp_path).train) == 2
    finally:
        sys.setrecursionlimit(before)


def _frames() -> list[FrameType]:
    frame, found = sys._getframe(), list[FrameType]()
    while frame:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


# ---- arrays and rows -----------------------------------------------------------------------------------------------------------


def test_one_number_in_place_of_images_and_fields_in_place_of_names(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x_train=arrays()["x_train"], y_train=arrays()["y_train"], test_images=np.array(0))
    assert "not used: test (0 images without labels)" in data.load(path).notes
    fields = np.array([("cat", 3), ("dog", 4)], dtype=[("name", "U3"), ("count", "i4")])
    np.savez(path, x_train=arrays()["x_train"], y_train=arrays()["y_train"], classes=fields)
    assert "set.npz: classes: must be a list of words, or a mapping of words to whole numbers, got the fields name, count" in (
        load_error(path)
    )


def test_labels_of_torch_that_are_no_numbers() -> None:
    pixels = np.zeros((4, 4), np.uint8)
    for labels in ([[1], [1, 2]], [1, [2]]):
        with pytest.raises(InputError, match="labels: must be one whole number for each image"):
            parts_of_torch(list(zip([pixels] * 2, labels, strict=True)), None, None)
    with pytest.raises(InputError, match=r"labels: must be below 1,048,576, or have names .* got 1000000000000"):
        parts_of_torch([(pixels, 0), (pixels, 10**12)], None, None)
