"""Each remedy works: the data set is refused, what the message says to do is done, and then it is read."""

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save
from data.sources.forms import arrays, cifar, idx, pixel_table, png, tar

from notbugs import data

FILES, WORDS, NUMBERS = [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4, [0, 1] * 4
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DVC = b"outs:\n- md5: 1b\n  path: set\n"
LABELS = "\n".join(["file,label", *(f"{file},{word}" for file, word in zip(FILES, WORDS, strict=True))])


class Case(NamedTuple):
    """A data set that is refused, and what the message says: its words, and how it is done. options, then: of `load`."""

    make: Callable[[Path], object]
    says: str
    mend: Callable[[Path], object] = lambda root: None
    name: str = "."  # of the data set in the folder
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    then: dict[str, Any] = {}  # noqa: RUF012
    new_name: str = ""


def flat(root: Path, *folders: str) -> None:
    for folder in folders or ("x",):
        for i, name in enumerate(FILES):
            save(random_image(i), root / folder / name)


def folders(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        for i in range(3):
            save(random_image(10 * number + i), root / name / f"{number}{i}.png")


def text(name: str, content: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)

    return write


def raw(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def latin_names(root: Path) -> None:
    folders(root / "set", "cat", "dog")
    for path in (root / "set").glob("*/*"):
        path.rename(os.fsdecode(os.fsencode(path).replace(b".png", b"\xe9.png")))


def renamed(root: Path) -> None:
    for path in (root / "set").glob("*/*"):
        path.rename(os.fsencode(path).decode("latin-1"))


def linked(root: Path) -> None:
    for path in (root / "elsewhere").glob("*/*"):
        link = root / "set" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)


def npz(**given: Any) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        known = {"images": arrays(channels=3)["x_train"], "labels": np.array(NUMBERS)}
        np.savez(root / "s.npz", **{key: value for key, value in {**known, **given}.items() if value is not None})

    return write


def parquet(**given: Any) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        columns = {"image": [{"bytes": png(i), "path": FILES[i]} for i in range(8)], "label": NUMBERS, **given}
        columns = {key: value for key, value in columns.items() if value is not None}
        pyarrow.parquet.write_table(pyarrow.table(columns), root / "s.parquet")

    return write


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [step(root) for step in steps]


def move(old: str, new: str) -> Callable[[Path], object]:
    def rename(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return rename


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def zipped(name: str, files: dict[str, bytes]) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        with zipfile.ZipFile(root / name, "w") as archive:
            for inner, content in files.items():
                archive.writestr(inner, content)

    return write


def unzipped(name: str, folder: str = ".") -> Callable[[Path], object]:
    def extract(root: Path) -> None:
        with zipfile.ZipFile(root / name) as archive:
            archive.extractall(root / folder)
        (root / name).unlink()

    return extract


IMAGES = arrays(channels=3)["x_train"]
FLOATS = (IMAGES / 255).astype(np.float32)
RECORDS = [{"file": file, "a": word, "b": i} for i, (file, word) in enumerate(zip(FILES, WORDS, strict=True))]
PNGS = {f"{name}/{i}.png": png(i) for name in ("cat", "dog") for i in range(3)}
MADE: dict[str, Callable[[Path], object]] = {
    "s.npz": npz(),
    "s.parquet": parquet(),
    "s.zip": zipped("s.zip", PNGS),
    "s.tar": lambda root: tar(root / "s.tar", PNGS),
    "s.csv": lambda root: pixel_table(root / "s.csv"),
}
FORMS = {
    ".mat": ".mat; scipy.io.loadmat",
    ".pkl": ".pkl; read it with its own library and save an .npz",
    ".mdb": ".mdb; read it",
    ".tfrecord-00000-of-00001": ".tfrecord; read it",
}
JSONS = {f"{i}.json": json.dumps({"animal": word, "id": i}).encode() for i, word in enumerate(WORDS)}
CASES: dict[str, Case] = {
    # ---- no image that may be opened
    "names that are no UTF-8": Case(latin_names, "holds only images that cannot be used, got 6; the first, cat/", renamed, "set"),
    "links out of the folder": Case(
        both(lambda root: folders(root / "elsewhere", "cat", "dog"), linked),
        "--follow-links",
        name="set",
        then={"follow_links": True},
    ),
    # ---- arrays
    "floats from -1 to 1": Case(
        npz(images=2 * FLOATS - 1),
        "((images + 1) * 127.5).round().astype('uint8')",
        npz(images=((2 * FLOATS - 1 + 1) * 127.5).round().astype("uint8")),
        "s.npz",
    ),
    "floats to 255": Case(
        npz(images=IMAGES.astype(float)),
        "images.round().astype('uint8')",
        npz(images=IMAGES.astype(float).round().astype("uint8")),
        "s.npz",
    ),
    "whole numbers": Case(
        npz(images=IMAGES.astype(int)), ".astype('uint8')", npz(images=IMAGES.astype(int).astype("uint8")), "s.npz"
    ),
    "booleans": Case(
        npz(images=IMAGES > 127), "(255 * images.astype('uint8'))", npz(images=255 * (IMAGES > 127).astype("uint8")), "s.npz"
    ),
    "halves": Case(
        npz(images=FLOATS * 0.999),
        "(255 * images).round().astype('uint8')",
        npz(images=(255 * (FLOATS * 0.999)).round().astype("uint8")),
        "s.npz",
    ),
    "images counted last": Case(
        npz(images=IMAGES.transpose(1, 2, 3, 0)),
        "images.transpose(3, 0, 1, 2)",
        npz(images=IMAGES.transpose(1, 2, 3, 0).transpose(3, 0, 1, 2)),
        "s.npz",
    ),
    "two channels": Case(npz(images=IMAGES[..., :2]), "images[..., 0]", npz(images=IMAGES[..., 0]), "s.npz"),
    "two channels first": Case(
        npz(images=IMAGES.transpose(0, 3, 1, 2)[:, :2]), "images[:, 0]", npz(images=IMAGES.transpose(0, 3, 1, 2)[:, 0]), "s.npz"
    ),
    "four channels": Case(npz(images=np.repeat(IMAGES[..., :1], 4, -1)), "images[..., :3]", npz(), "s.npz"),
    "four channels first": Case(
        npz(images=np.repeat(IMAGES[..., :1], 4, -1).transpose(0, 3, 1, 2)),
        "images[:, :3]",
        npz(images=np.repeat(IMAGES[..., :1], 4, -1).transpose(0, 3, 1, 2)[:, :3]),
        "s.npz",
    ),
    "flat pixels": Case(
        npz(images=IMAGES.reshape(8, -1)), "(-1, height, width, 3)", npz(images=IMAGES.reshape(-1, 5, 5, 3)), "s.npz"
    ),
    "NaN as labels": Case(
        npz(labels=np.array([np.nan, *NUMBERS[1:]])),
        "1 of 8 NaN or infinite; leave out these images",
        npz(images=IMAGES[1:], labels=np.array(NUMBERS[1:], float)),
        "s.npz",
    ),
    "probabilities": Case(
        npz(labels=np.array([[0.7, 0.3], [0.2, 0.8]] * 4)),
        "labels.argmax(1)",
        npz(labels=np.array([[0.7, 0.3], [0.2, 0.8]] * 4).argmax(1)),
        "s.npz",
    ),
    "several labels": Case(
        npz(labels=np.array([[1, 1], [0, 1]] * 4)),
        "several labels of one image (multi-label) are not supported: keep one",
        npz(labels=np.array([[1, 1], [0, 1]] * 4)[:, 0]),
        "s.npz",
    ),
    "dates as labels": Case(
        npz(labels=np.array(["2020", "2021"] * 4, "datetime64[Y]")),
        "labels.astype(str)",
        npz(labels=np.array(["2020", "2021"] * 4, "datetime64[Y]").astype(str)),
        "s.npz",
    ),
    "numbers with gaps": Case(
        npz(labels=np.array([5, 9] * 4)), "save the labels as words", npz(labels=np.array([5, 9] * 4).astype(str)), "s.npz"
    ),
    "missing labels": Case(
        npz(labels=np.array([-1, *NUMBERS[1:]])),
        "leave out images without a label",
        npz(images=IMAGES[1:], labels=np.array(NUMBERS[1:])),
        "s.npz",
    ),
    "decimals": Case(
        npz(labels=np.arange(8) / 3), "save a word or a whole number for each group", npz(labels=np.arange(8) // 4), "s.npz"
    ),
    "unequal counts": Case(npz(labels=np.array(NUMBERS[:7])), "got 8 and 7; save one label for each image", npz(), "s.npz"),
    "names of arrays": Case(
        npz(images=None, labels=None, a=IMAGES),
        "name them train_images",
        npz(images=None, labels=None, x_train=IMAGES, y_train=NUMBERS),
        "s.npz",
    ),
    "no images": Case(npz(images=IMAGES[:0], labels=np.array([], int)), "holds no labeled images; add images", npz(), "s.npz"),
    "one class": Case(npz(labels=np.zeros(8, int)), "add images of another class", npz(), "s.npz"),
    "two sizes": Case(
        npz(images=None, labels=None, x_train=IMAGES, y_train=NUMBERS, x_test=IMAGES[:, :4], y_test=NUMBERS),
        "save both with one size",
        npz(images=None, labels=None, x_train=IMAGES, y_train=NUMBERS, x_test=IMAGES, y_test=NUMBERS),
        "s.npz",
    ),
    "one .npy": Case(
        lambda root: np.save(root / "x_train.npy", IMAGES),
        "y_train.npy, … or X.npy, y.npy into one folder",
        lambda root: np.save(root / "y_train.npy", NUMBERS),
        "x_train.npy",
        new_name=".",
    ),
    "an .npy for each image": Case(
        lambda root: [(root / str(i)).mkdir() or np.save(root / str(i) / "0.npy", IMAGES[i]) for i in range(6)],
        "no images, files 6 .npy; save each array as CLASS/file.png",
        lambda root: folders(root, "cat", "dog"),
    ),
    "labels of idx files": Case(
        lambda root: (idx(root), (root / "train-labels-idx1-ubyte").rename(root / "away")),
        "images alone; put train-labels-idx1-ubyte beside it",
        move("away", "train-labels-idx1-ubyte"),
    ),
    "images of idx files": Case(
        lambda root: (idx(root), (root / "t10k-images-idx3-ubyte").rename(root / "away")),
        "labels alone; put t10k-images-idx3-ubyte beside it",
        move("away", "t10k-images-idx3-ubyte"),
    ),
    "several idx sets": Case(
        lambda root: (idx(root, begin="a-"), idx(root, begin="b-")),
        "name one file of the set as DATASET",
        new_name="a-train-images-idx3-ubyte",
    ),
    "a .bin of CIFAR": Case(lambda root: cifar(root), "pass the folder", name="test_batch.bin", new_name="."),
    "tensors": Case(
        lambda root: torch.save([IMAGES], root / "s.pt"),
        'torch.save({"train_images": images, "train_labels": labels}, path)',
        lambda root: torch.save({"train_images": torch.tensor(IMAGES), "train_labels": torch.tensor(NUMBERS)}, root / "s.pt"),
        "s.pt",
    ),
    # ---- tables of pixels and parquet
    "pixels without labels": Case(
        lambda root: text("s.csv", pixel_table(root / "s.csv").read_text().replace("label", "emo"))(root),
        "choose it with --label-column NAME",
        name="s.csv",
        then={"label_column": "emo"},
    ),
    "lists of labels in parquet": Case(
        parquet(label=[[i] for i in NUMBERS]), "got [0]; save the one label of each image", parquet(), "s.parquet"
    ),
    "objects as labels in parquet": Case(
        parquet(label=[{"name": word} for word in WORDS]), "save one of its fields as a column", parquet(label=WORDS), "s.parquet"
    ),
    "no label in a row": Case(
        parquet(label=[None, *NUMBERS[1:]]),
        "row 0: has no label in the column label",
        name="s.parquet",
        then={"skip_unreadable": True},
    ),
    "-1 in a row": Case(
        parquet(label=[2, -1, 0, 1, 0, 1, 0, 2]),
        "row 1: has no label",
        name="s.parquet",
        then={"skip_unreadable": True},
    ),
    "no image in a row": Case(
        parquet(image=[None, *({"bytes": png(i), "path": ""} for i in range(7))]),
        "row 0: has no image",
        name="s.parquet",
        then={"skip_unreadable": True},
    ),
    "paths in parquet": Case(
        both(flat, parquet(image=FILES)),
        "got the path 0.png; save the bytes of each image, or pass the folder of the files with --labels s.parq",
        name="s.parquet",
        then={"labels": "s.parquet"},
        new_name=".",
    ),
    "lists of pixels in parquet": Case(
        parquet(image=IMAGES[..., 0].tolist()),
        "got lists of numbers; save the bytes of a .png of each image",
        parquet(),
        "s.parquet",
    ),
    "other columns in parquet": Case(
        parquet(image=None, jpg=[png(i) for i in range(8)]),
        "columns label, jpg; name the one with the bytes of images image",
        parquet(),
        "s.parquet",
    ),
    "labels in parquet": Case(
        parquet(label=None, kind=WORDS), "--label-column NAME", name="s.parquet", then={"label_column": "kind"}
    ),
    # ---- what only stands for files
    **{
        f"pointer {name}": Case(
            raw(name, POINTER), f"{name}: is a pointer of Git LFS, whose content is not here; get it with", make, name
        )
        for name, make in MADE.items()
    },
    "pointers in place of images": Case(
        lambda root: (folders(root, "cat", "dog"), raw("cat/00.png", POINTER)(root)),
        "it is a pointer of Git LFS",
        lambda root: folders(root, "cat", "dog"),
    ),
    "a pointer in place of labels": Case(
        both(flat, raw("labels.csv", POINTER)), "labels.csv: is a pointer", text("labels.csv", LABELS)
    ),
    "DVC": Case(
        raw("set.dvc", DVC),
        "no images, set.dvc, which is a pointer of DVC, whose content is not here; get it with `dvc pull`",
        lambda root: folders(root / "set", "cat", "dog"),
    ),
    "a web page in place of an image": Case(
        lambda root: (folders(root, "cat", "dog"), raw("cat/00.png", b"<!DOCTYPE html><html>")(root)),
        "it is a web page",
        lambda root: folders(root, "cat", "dog"),
    ),
    "a web page in place of an archive": Case(raw("s.zip", b"<html>"), "download it again", zipped("s.zip", PNGS), "s.zip"),
    # ---- archives
    "a damaged archive": Case(raw("s.zip", b"x"), "download it again", zipped("s.zip", PNGS), "s.zip"),
    "an archive in an archive": Case(
        lambda root: (
            zipped("in.zip", PNGS)(root),
            zipped("s.zip", {"set/in.zip": (root / "in.zip").read_bytes()})(root),
            remove("in.zip")(root),
        ),
        "got in.zip; unpack s.zip, and what is in it",
        both(unzipped("s.zip"), unzipped("set/in.zip", "set")),
        "s.zip",
        new_name=".",
    ),
    "an archive in a tar": Case(
        lambda root: tar(root / "s.tar", {"in.zip": b"x"}),
        "no images, files 1 .zip; unpack them, and pass the folder",
        lambda root: folders(root / "set", "cat", "dog"),
        "s.tar",
        new_name="set",
    ),
    "pieces of a download": Case(
        both(*(zipped(f"set-00{i}.zip", {f"{name}/{j}.png": png(j) for j in range(3)}) for i, name in enumerate(("cat", "dog")))),
        "unpack all into one folder",
        both(unzipped("set-000.zip"), unzipped("set-001.zip")),
    ),
    "an archive of each class": Case(
        both(*(zipped(f"{name}.zip", {f"{j}.png": png(j) for j in range(3)}) for name in ("cat", "dog"))),
        "pass one of them as DATASET, or unpack each into a folder of its own",
        both(unzipped("cat.zip", "cat"), unzipped("dog.zip", "dog")),
    ),
    "an archive that is not read": Case(
        raw("set.7z", b"7z"),
        "holds archives, got set.7z; unpack it",
        both(lambda root: folders(root, "cat", "dog"), remove("set.7z")),
    ),
    "a packed file": Case(
        raw("s.npz.gz", gzip.compress(b"x")), "is packed; unpack it and pass what it holds", npz(), "s.npz.gz", new_name="s.npz"
    ),
    **{
        f"a folder of {form}": Case(raw(f"a{form}", b"x"), f"no images, files 1 {says}", npz(), new_name="s.npz")
        for form, says in FORMS.items()
    },
    "a field of the .json in shards": Case(
        lambda root: tar(root / "s.tar", {**dict(zip(FILES, map(png, range(8)), strict=True)), **JSONS}),
        "choose one of animal, id of the .json with --label-column NAME",
        name="s.tar",
        then={"label_column": "animal"},
    ),
    # ---- folders
    "folds": Case(
        lambda root: [folders(root / name, "cat", "dog") for name in ("fold1", "fold2")],
        "folds: --train fold1 --test fold2; the inner folders: name one of the outer as DATASET",
        then={"train": "fold1", "test": "fold2"},
    ),
    "one of two training parts": Case(
        lambda root: image_folder(root, splits=("train", "Training", "test")),
        "choose one with --train PART",
        then={"train": "train"},
    ),
    "a part that is no folder": Case(image_folder, "must be folders in", options={"train": "nowhere"}, then={"train": "train"}),
    "a table that is none": Case(
        both(flat, raw("l.mat", b"x")),
        "must end in .csv",
        text("labels.csv", LABELS),
        options={"labels": "l.mat"},
        then={"labels": "labels.csv"},
    ),
    "boxes of objects": Case(
        both(flat, text("labels/0.txt", "0 0.5 0.5 0.2 0.2\n")),
        "give each image one label in a table: --labels FILE",
        text("l.csv", LABELS),
        then={"labels": "l.csv"},
    ),
    "two lists of class names": Case(
        both(
            lambda root: folders(root, "0", "1"),
            text("classes.txt", "cat\ndog\n"),
            text("class_to_idx.json", '{"cat": 1, "dog": 0}'),
        ),
        "move one of the two away",
        remove("classes.txt"),
    ),
    "class folders of which some are divided": Case(
        lambda root: (folders(root / "cat", "train", "test"), folders(root, "dog")),
        "read what is in them as one class: --all-classes",
        then={"all_classes": True},
    ),
    "a copy among the class folders": Case(
        lambda root: (folders(root, "cat", "dog"), folders(root / "old", "cat", "dog")), "move it away", remove("old")
    ),
    "several labels in columns": Case(
        both(flat, text("l.csv", "file,a,b,c\n" + "".join(f"{i}.png,{i % 2},1,0\n" for i in range(8)))),
        "one column: --label-column NAME",
        then={"label_column": "a"},
    ),
    "measured numbers": Case(
        both(flat, text("l.csv", "file,age\n" + "".join(f"{i}.png,{i // 2}\n" for i in range(8)))),
        "each number as a class: --label-column age",
        then={"label_column": "age"},
    ),
    "a missing file": Case(
        both(flat, text("l.csv", LABELS + "\n8.png,cat")), "pass --skip-unreadable", then={"skip_unreadable": True}
    ),
    "commas in cells": Case(
        both(flat, text("l.csv", LABELS.replace("cat", "cat, black"))),
        "quote commas",
        text("l.csv", LABELS.replace("cat", '"cat, black"')),
    ),
    "labels in the names of files": Case(
        lambda root: [save(random_image(i), root / f"{word}.{i}.png") for i, word in enumerate(WORDS)],
        r"--label-regex '([^/]+?)[._ -]*\(?\d+\)?\.\w+$'",
        then={"label_regex": r"([^/]+?)[._ -]*\(?\d+\)?\.\w+$"},
    ),
    "a clear table beside an unclear one": Case(
        both(
            flat,
            text("about.csv", "image,age,sex\n" + "".join(f"{i},50,f\n" for i in range(8))),
            text("truth.csv", "image,A,B,C\n" + "".join(f"{i},{1 - i % 2},{i % 2},0\n" for i in range(8))),
        ),
        "to read truth.csv instead: --labels FILE",
        then={"labels": "truth.csv"},
    ),
    "classes in the folder of each patient": Case(
        lambda root: [folders(root / patient, "0", "1") for patient in ("8860", "8861", "8863")],
        "the inner folders of all (0, 1): --label-regex '([^/]+)/[^/]+$'",
        then={"label_regex": "([^/]+)/[^/]+$"},
    ),
    "an archive beside class folders": Case(
        both(lambda root: folders(root, "cat"), zipped("dog.zip", {f"dog/{i}.png": png(i) for i in range(3)})),
        "needs at least two class folders, got one, cat",
        unzipped("dog.zip"),
    ),
    "folders of modalities": Case(
        lambda root: [folders(root / name, "cat", "dog") for name in ("rgb", "depth")],
        "the inner folders: name one of the outer as DATASET",
        new_name="rgb",
    ),
    "links to folders": Case(
        lambda root: (
            folders(root / "real", "cat", "dog"),
            (root / "set").mkdir(),
            [(root / "set" / name).symlink_to(root / "real" / name) for name in ("cat", "dog")],
        ),
        "to follow it: --follow-links",
        name="set",
        then={"follow_links": True},
    ),
    "an empty class folder": Case(
        lambda root: (folders(root, "cat", "dog"), (root / "owl").mkdir()),
        "class owl has no training images; add some, or remove the class",
        remove("owl"),
    ),
    "one image of a class": Case(
        lambda root: (folders(root, "cat", "dog"), save(random_image(0), root / "owl" / "0.png")),
        "add one, or remove the class",
        remove("owl"),
    ),
    "one class folder": Case(
        lambda root: folders(root, "cat"),
        "put the images of each class into a folder of its own",
        lambda root: folders(root, "cat", "dog"),
    ),
    "no labels": Case(
        flat,
        "put the images of each class into a folder of its own",
        both(lambda root: folders(root / "train", "cat", "dog"), remove("x")),
    ),
    "a table of another form": Case(
        both(flat, raw("labels.mat", b"x")),
        "labels.mat, of a form that is not read; save the labels as labels.csv with the columns file and label",
        text("labels.csv", LABELS),
    ),
    "a table that labels nothing": Case(
        both(flat, text("about.csv", "a,b\nx,u\ny,v\n")),
        "the tables about.csv, which label none of them",
        text("labels.csv", LABELS),
        then={"labels": "labels.csv"},
    ),
    "--labels labels nothing": Case(
        both(flat, text("about.csv", "a,b\nx,u\ny,v\n")),
        "about.csv with the columns a, b; choose the columns",
        text("about.csv", LABELS.replace("file,label", "a,b")),
        options={"labels": "about.csv"},
        then={"labels": "about.csv", "file_column": "a", "label_column": "b"},
    ),
    "a damaged table": Case(
        both(
            flat,
            text("l.jsonl", '{"a": '),
        ),
        "l.jsonl: cannot be read as a table",
        both(remove("l.jsonl"), text("labels.csv", LABELS)),
    ),
    "parts without labels": Case(
        lambda root: flat(root, "train", "test"), "--train PART --test PART, with --labels FILE", then={"all_classes": True}
    ),
    "folders that say nothing": Case(
        lambda root: folders(root, "2021-01-02", "2021-01-03"), "folders as classes: --all-classes", then={"all_classes": True}
    ),
    "names of another case": Case(
        lambda root: (image_folder(root), (root / "test/cat").rename(root / "test/Cat")),
        "write it like cat in training",
        move("test/Cat", "test/cat"),
    ),
    "a class of the test part": Case(
        lambda root: (image_folder(root), folders(root / "test", "owl")), "rename or remove these images", remove("test/owl")
    ),
    "two sizes of images": Case(
        lambda root: (folders(root, "cat", "dog"), save(random_image(0, size=(9, 9)), root / "cat" / "9.png")),
        "pass --resize N to make all N x N",
        then={"resize": 4},
    ),
    "an unreadable image": Case(
        lambda root: (folders(root, "cat", "dog"), text("cat/9.png", "")(root)),
        "--skip-unreadable",
        then={"skip_unreadable": True},
    ),
    "too low a limit": Case(
        lambda root: folders(root, "cat", "dog"), "pass --limit 2 or more", options={"limit": 1}, then={"limit": 2}
    ),
    "two columns of labels": Case(
        both(flat, text("l.json", json.dumps(RECORDS))),
        "choose it with --label-column NAME",
        then={"label_column": "a"},
    ),
    "two tables": Case(
        both(flat, text("a.csv", LABELS), text("b.csv", LABELS.replace("cat", "owl"))),
        "choose one with --labels FILE",
        then={"labels": "a.csv"},
    ),
    "a group in no path": Case(
        image_folder, "write an expression that is found in each path", options={"group": "x_"}, then={"group": r"\d\.png"}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_message_says_works(tmp_path: Path, case: str) -> None:
    make, says, mend, name, options, then, new_name = CASES[case]
    make(tmp_path)
    assert says in load_error(tmp_path / name, **options)
    mend(tmp_path)
    loaded = data.load(tmp_path / (new_name or name), **then)
    assert len(loaded.train) + len(loaded.test) > 3


def test_minus_one_and_one_are_two_classes(tmp_path: Path) -> None:
    npz(labels=np.array([-1, 1] * 4))(tmp_path)
    parquet(label=[-1, 1] * 4)(tmp_path)
    for name in ("s.npz", "s.parquet"):
        loaded = data.load(tmp_path / name, test=".").test
        assert loaded.classes == ("-1", "1") and loaded.labels.tolist() == NUMBERS


def test_labels_in_parquet_that_are_true_or_false(tmp_path: Path) -> None:
    parquet(label=[True, False] * 4)(tmp_path)
    loaded = data.load(tmp_path / "s.parquet", test=".").test
    assert loaded.classes == ("False", "True") and loaded.labels.tolist() == [1, 0] * 4


def test_rows_whose_image_has_no_bytes_and_no_path_are_left_out(tmp_path: Path) -> None:
    cells = [{"bytes": png(i), "path": None} for i in range(7)] + [{"bytes": None, "path": None}]
    parquet(image=cells)(tmp_path)
    assert "train row 7: has no image; repair or remove it, or pass --skip-unreadable" in load_error(tmp_path / "s.parquet")
    assert len(data.load(tmp_path / "s.parquet", test=".", skip_unreadable=True).test) == 7
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    pieces = [pyarrow.table({"image": pyarrow.array(cells[i:], kind), "label": NUMBERS[i:]}) for i in (0, 5, 7)]
    table = pyarrow.concat_tables(pieces)
    pyarrow.parquet.write_table(table, tmp_path / "pieces.parquet", row_group_size=3)
    loaded = data.load(tmp_path / "pieces.parquet", test=".", skip_unreadable=True)
    assert [item.location.rpartition(" ")[2] for item in loaded.left_out] == ["7", "10", "11"] and len(loaded.test) == 9
    cells[7]["path"] = "7.png"
    parquet(image=cells, mask=cells)(tmp_path)
    assert "lacks the bytes of some images, got the path 7.png" in load_error(tmp_path / "s.parquet", skip_unreadable=True)


def test_a_second_column_of_images_is_said(tmp_path: Path) -> None:
    parquet(mask=[{"bytes": png(i), "path": None} for i in range(8)])(tmp_path)
    (said,) = [note for note in data.load(tmp_path / "s.parquet").notes if "not read" in note]
    assert said.endswith("not read, though they may be images: mask")


def test_parquet_files_in_folders_by_label(tmp_path: Path) -> None:
    table = pyarrow.table({"image": [{"bytes": png(i), "path": None} for i in range(8)], "label": NUMBERS})
    pyarrow.parquet.write_to_dataset(table, tmp_path / "set", partition_cols=["label"])
    assert "set: is divided by the values of a column, which its files do not hold, got label=0, label=1" in load_error(
        tmp_path / "set"
    )
    whole = pyarrow.dataset.dataset(tmp_path / "set", partitioning="hive").to_table()
    pyarrow.parquet.write_table(whole, tmp_path / "s.parquet")
    assert data.load(tmp_path / "s.parquet", test=".").test.labels.tolist() == sorted(NUMBERS)


def test_rows_that_are_left_out_are_listed_under_their_own_numbers(tmp_path: Path) -> None:
    parquet(label=[0, 1, None, 1, 0, -1, 0, 1])(tmp_path)
    loaded = data.load(tmp_path / "s.parquet", test=".", skip_unreadable=True)
    places = [item.location.rpartition(" ")[2] for item in loaded.left_out]
    assert places == ["2", "5"] and loaded.test.names == tuple(FILES[i] for i in (0, 1, 3, 4, 6, 7))


def test_files_called_alike_beside_the_one_that_is_read_are_said(tmp_path: Path) -> None:
    for i in (1, 2):
        zipped(f"set-00{i}.zip", PNGS)(tmp_path)
        zipped(f"train-0000{i}-of-00002.parquet", {})(tmp_path)
    said = "not read, though called like set-001.zip: set-002.zip (to read all: unpack all into one folder)"
    assert said in data.load(tmp_path / "set-001.zip").notes
    parquet()(tmp_path)
    assert not any("called like" in note for note in data.load(tmp_path / "s.parquet").notes)


def test_archives_and_pointers_beside_the_images_are_said(tmp_path: Path) -> None:
    folders(tmp_path, "cat", "dog")
    for name in ("owl.zip", "cat/more.tar.gz", "ape.dvc"):
        (tmp_path / name).write_bytes(b"x")
    (said,) = [note for note in data.load(tmp_path).notes if "not read" in note]
    assert all(name in said for name in ("owl.zip", "cat/more.tar.gz", "ape.dvc")) and "unpack" in said


def test_class_names_that_differ_in_signs_are_said(tmp_path: Path) -> None:
    folders(tmp_path, "sea lion", "sea_lion", "cat.", "cat", "1.5", "15")
    (said,) = [note for note in data.load(tmp_path).notes if "kept apart" in note]
    assert "signs" in said and "'cat' and 'cat.'" in said and "'sea lion' and 'sea_lion'" in said and "15" not in said


def test_a_file_of_another_kind_beside_one_folder(tmp_path: Path) -> None:
    folders(tmp_path / "set", "cat", "dog")
    for name in ("set.dvc", "clip.mp4", "data.mdb", "x.tfrecord-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    loaded = data.load(tmp_path)
    assert "read from set" in loaded.notes and len(loaded.left_out) == 4
