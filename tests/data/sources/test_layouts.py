"""How people keep image folders, and how each is understood: as its owner means it, or refused with what was seen."""

import json
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save

from notbugs import data
from notbugs.data.sources.array_values import as_labels
from notbugs.errors import InputError

Tree = Mapping[str, int | str | None]  # number of images in a folder; a file's text; None: an image file


def tree(root: Path, files: Tree) -> Path:
    for number, (path, what) in enumerate(files.items()):
        if isinstance(what, str):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(what)
        elif what is None:
            save(random_image(number), root / path)
        else:
            for i in range(what):
                save(random_image(100 * number + i), root / path / f"{i}.png")
    return root


def pets(part: str, each: int = 3) -> Tree:
    return {f"{part}/cat": each, f"{part}/dog": each}


def images(*names: str) -> Tree:
    return dict.fromkeys(names)


def named(form: str, each: int = 3) -> Tree:
    """form: an image's path, with {c} its class, cat or dog, and {i} its number."""
    return images(*(form.format(c=c, i=i) for c in ("cat", "dog") for i in range(each)))


def lines(form: str, rows: int = 6) -> str:
    """A line for each of so many images, with {i} the number, {c} the class a or b, {n} 0 or 1 and {m} 1 or 0."""
    return "".join(form.format(i=i, c="ab"[i % 2], n=i % 2, m=1 - i % 2) + "\n" for i in range(rows))


def listing(form: str, numbers: Sequence[int]) -> str:
    return "".join(form.format(c=c, i=i) + "\n" for c in ("cat", "dog") for i in numbers)


def table(header: str, rows: int, line: str) -> str:
    """line: a row, with {i} its number and {c} its class, a or b in turn."""
    return header + "\n" + "".join(line.format(i=i, c="ab"[i % 2], n=i % 2) + "\n" for i in range(rows))


def counted(dataset: data.Dataset) -> str:
    counts = Counter(dataset.classes[label] for label in dataset.labels.tolist())
    return " ".join(f"{name} {counts[name]}" for name in dataset.classes if counts[name])


PETS = "cat 3 dog 3", "cat 2 dog 2"
WITHOUT_TEST = "cat 2 dog 2", "cat 1 dog 1"
# The folder; images by class in training and in test; what the notes must say.
UNDERSTOOD: dict[str, tuple[Tree, tuple[str, str], str]] = {
    "Training and Testing": ({**pets("Training"), **pets("Testing", 2)}, PETS, ""),
    "Train and Test": ({**pets("Train"), **pets("Test", 2)}, PETS, ""),
    "with _set": ({**pets("training_set"), **pets("test_set", 2)}, PETS, ""),
    "years": ({**pets("train2017"), **pets("val2017", 2)}, PETS, ""),
    "one name before both": ({**pets("asl_alphabet_train"), **pets("asl_alphabet_test", 2)}, PETS, ""),
    "seg_ twice": (
        {**pets("seg_train/seg_train"), **pets("seg_test/seg_test", 2), "seg_pred/seg_pred": 4},
        PETS,
        r"seg_train/seg_train.*not used: seg_pred \(4 images\)",
    ),
    "a folder around": ({**pets("archive/x/train"), **pets("archive/x/test", 2)}, PETS, "read from archive/x"),
    "a folder around classes": (pets("default"), WITHOUT_TEST, "read from default.*20% of each class set aside"),
    "validation instead of an unlabeled test part": (
        {**pets("train"), **pets("val", 2), "test": 5},
        PETS,
        r"not used: test \(5 images without labels\)",
    ),
    "an unused part": ({**pets("train"), **pets("test", 2), **pets("valid")}, PETS, r"not used: valid \(6 images\)"),
    "parts inside the classes": (
        {"cat/train": 3, "cat/test": 2, "dog/train": 3, "dog/test": 2},
        PETS,
        "the parts lie inside the class folders",
    ),
    "only a test part": (pets("test"), ("", "cat 3 dog 3"), "only a test part"),
    "a class called train": ({"train": 3, "bus": 3}, ("bus 2 train 2", "bus 1 train 1"), "train is read as a class, like bus"),
    "valid and invalid": ({"valid": 3, "invalid": 3}, ("invalid 2 valid 2", "invalid 1 valid 1"), "valid is read as a class"),
    "an unlabeled part": ({**pets("labeled"), "unlabeled": 9}, WITHOUT_TEST, "read from labeled"),
    "classes that the test part lacks": (
        {**pets("train"), "train/emu": 3, "test/cat": 1, "test/emu": 2},
        ("cat 3 dog 3 emu 3", "cat 1 emu 2"),
        "",
    ),
    "one table": (
        {"train": 6, "test": 2, "labels.csv": table("id,breed", 6, "{i},{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "labels from labels.csv: column breed; files: column id.*not used: test",
    ),
    "a table for each part": (
        {
            "train": 6,
            "test": 2,
            "train.csv": table("image_id,label", 6, "{i}.png,{c}"),
            "test.csv": table("image_id,label", 2, "{i}.png,{c}"),
            "sample_submission.csv": table("image_id,label", 2, "{i}.png,b"),
        },
        ("a 3 b 3", "a 1 b 1"),
        "labels from test.csv.*labels from train.csv",
    ),
    "one table for parts with the same file names": (
        {"train": 4, "test": 2, "l.csv": table("f,label,split", 4, "{i}.png,{c},train") + "0.png,b,test\n1.png,a,test\n"},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "a column of parts": (
        {"images": 6, "meta.csv": table("file,class,split", 4, "images/{i}.png,{c},train") + "4.png,a,test\n5.png,b,test\n"},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "imagefolder with metadata": (
        {
            "train": 6,
            "test": 2,
            "train/metadata.csv": table("file_name,label", 6, "{i}.png,{c}"),
            "test/metadata.jsonl": '{"file_name": "0.png", "label": "b"}\n{"file_name": "1.png", "label": "a"}\n',
        },
        ("a 3 b 3", "a 1 b 1"),
        "",
    ),
    "traffic signs": (
        {
            "Final_Training/Images/00000": 3,
            "Final_Training/Images/00001": 3,
            "Final_Training/Images/00000/GT-00000.csv": "Filename;ClassId\n0.png;0\n",
            "Final_Test/Images": 3,
            "Final_Test/Images/GT-final_test.csv": "Filename;Width;ClassId\n0.png;9;0\n1.png;9;1\n2.png;9;1\n",
        },
        ("00000 3 00001 3", "00000 1 00001 2"),
        "classes are matched as numbers",
    ),
    "paths of another machine": (
        {"data": 6, "l.tsv": table("path\tlabel", 6, "C:\\me\\data\\{i}.png\t{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "a list without header": ({"data": 6, "list.txt": table("data/0.png a", 5, "data/{i}.png {c}")}, ("a 2 b 1", "a 1 b 1"), ""),
    "a column for each class": (
        {"imgs": 6, "gt.csv": table("image,b,a", 6, "{i},{n}.0,0.0").replace("0.0,0.0", "0.0,1.0")},
        ("b 2 a 2", "b 1 a 1"),
        "2 columns of 0 and 1",
    ),
    "a number and a word for each class": (
        {"imgs": 6, "l.csv": table("f,class_id,class", 6, "{i}.png,{n},{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "column class;",
    ),
    "names of training images among the unlabeled ones": (
        {"train": 8, "test": 8, "labels.csv": table("id,label", 8, "{i},{c}")},
        ("a 3 b 3", "a 1 b 1"),
        r"not used: test \(8 images without labels\)",
    ),
    "an index beside the files' names": (
        {"x": 6, "l.csv": "idx,photo,label\n" + "".join(f"{i},{5 - i}.png,{'ab'[i % 2]}\n" for i in range(6))},
        ("a 2 b 2", "a 1 b 1"),
        "files: column photo",
    ),
    "masks beside the images of each class": (
        {"ill/images": 3, "ill/masks": 3, "well/images": 3, "well/masks": 3},
        ("ill 2 well 2", "ill 1 well 1"),
        "",
    ),
    "masks beside all images": (
        {"images": 6, "masks": 6, "l.csv": table("id,label", 6, "{i},{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "zeros and case that a spreadsheet changed": (
        {"x": 6, "l.csv": table("id,label", 6, "00{i}.PNG,{c}").replace("00", "")},
        ("a 2 b 2", "a 1 b 1"),
        "without regard to case",
    ),
    "a column of parts with other words": (
        {"x": 6, "l.csv": table("f,label,split", 6, "{i}.png,{c},{n}")},
        ("a 2 b 2", "a 1 b 1"),
        "column split is not used: 0, 1",
    ),
    "annotations and lists beside the images": (
        {**pets("Images"), "Annotation/cat/0": "<annotation/>", "meta/train.txt": "cat/0\n", "lists/x.json": "{}"},
        WITHOUT_TEST,
        "read from Images",
    ),
    "a folder around images with a table": (
        {"pets": 6, "pets/l.csv": table("f,label", 6, "{i}.png,{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "a table that is no list of labels": ({**pets("."), "scores.csv": "f,score\n0.png,0.3\n"}, WITHOUT_TEST, ""),
    "one-hot columns beside others (HAM10000)": (
        {"x": 6, "l.csv": "image,MEL,NV,BKL,sex\n" + lines("{i},{n}.0,{m}.0,0.0,{c}")},
        ("MEL 2 NV 2", "MEL 1 NV 1"),
        "3 columns of 0 and 1: MEL, NV, BKL; files: column image",
    ),
    "one-hot words": (
        {"x": 6, "l.csv": "f,p,q\n" + lines("{i}.png,{n},{m}").replace(",0", ",False").replace(",1", ",True")},
        ("p 2 q 2", "p 1 q 1"),
        "",
    ),
    "pixels in one cell (FER2013)": (
        {
            "f.csv": "emotion,pixels,Usage\n"
            + "".join(lines(f"{{n}},{' '.join('7' * 25)},{part}", 4) for part in ("Training", "PublicTest", "PrivateTest"))
        },
        ("0 2 1 2", "0 2 1 2"),
        r"not used: PublicTest \(4 images\)",
    ),
    "lists of CUB-200": (
        {
            **pets("images"),
            "images.txt": "1 cat/0.png\n2 cat/1.png\n3 cat/2.png\n4 dog/0.png\n5 dog/1.png\n6 dog/2.png\n",
            "train_test_split.txt": "1 1\n2 1\n3 0\n4 1\n5 0\n6 1\n",
            "image_class_labels.txt": "1 1\n2 1\n3 1\n4 2\n5 2\n6 2\n",
        },
        ("cat 2 dog 2", "cat 1 dog 1"),
        "parts from images.txt and train_test_split.txt",
    ),
    "lists of Food-101": (
        {**pets("images"), "meta/train.txt": listing("{c}/{i}", (0, 2)), "meta/test.txt": listing("{c}/{i}", (1,))},
        ("cat 2 dog 2", "cat 1 dog 1"),
        "parts from meta/test.txt and meta/train.txt",
    ),
    "lists with labels (DomainNet)": (
        {
            **pets("real", 4),
            "real_train.txt": listing("real/{c}/{i}.png 0", (0, 1)),
            "real_test.txt": listing("real/{c}/{i}.png 0", (2,)),
        },
        ("cat 2 dog 2", "cat 1 dog 1"),
        "2 images are in none of them and are left out",
    ),
    "lists in a folder, also one for validation": (
        {**pets("images"), **{f"splits/{part}.txt": listing("{c}/{i}.png", (i,)) for i, part in enumerate(("val", "test"))}}
        | {"images/cat": 4, "images/dog": 4, "splits/train.txt": listing("{c}/{i}.png", (2, 3))},
        ("cat 2 dog 2", "cat 1 dog 1"),
        r"not used: val \(2 images\)",
    ),
    "a list of which a line names no image": (
        {**pets("Images"), "TrainImages.txt": listing("{c}/{i}.png", (0, 1)), "TestImages.txt": "cat/2.png\nfox/2.png\n"},
        WITHOUT_TEST,
        "TestImages.txt, TrainImages.txt may say which images are test images; not read",
    ),
    "lists that share an image": (
        {**pets("Images"), "train.txt": listing("{c}/{i}.png", (0, 1)), "test.txt": listing("{c}/{i}.png", (1, 2))},
        WITHOUT_TEST,
        "may say which images are test images; not read",
    ),
    "lists of MATLAB": (
        {**pets("Images"), "train_list.mat": "x", "test_list.mat": "x"},
        WITHOUT_TEST,
        "test_list.mat, train_list.mat may say which images are test images; not read",
    ),
    "a split list per part without header": (
        {"train": 6, "test": 2, "train.txt": lines("{i}.png {n}"), "test.txt": lines("{i}.png {n}", 2)},
        ("0 3 1 3", "0 1 1 1"),
        "",
    ),
    "annotations of MATLAB beside the classes (Caltech)": (
        {**pets("101_ObjectCategories"), "Annotations/cat/a.mat": "x", "Annotations/dog/a.mat": "x"},
        WITHOUT_TEST,
        "read from 101_ObjectCategories",
    ),
    "case and blanks": (
        {"Cat": 3, "cat": 3, "cat ": 3},
        ("Cat 2 cat 2 cat  2", "Cat 1 cat 1 cat  1"),
        "differ only in case, blanks, zeros in front or Unicode form are kept apart: 'Cat' and 'cat' and 'cat '",
    ),
    "JSON lines with a line separator, a BOM and CRLF": (
        {"x": 6, "l.jsonl": "\ufeff" + lines('{{"file": "{i}.png", "label": "{c}", "about": "x\u2028y"}}').replace("\n", "\r\n")},
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "a test folder twice, labels in its names (ASL alphabet)": (
        {**pets("asl_train/asl_train"), **images("asl_test/asl_test/A_test.jpg")},
        WITHOUT_TEST,
        r"not used: asl_test \(1 images\)",
    ),
    "a table of pictograms (GTSRB on Kaggle)": (
        {
            "Train/0": 3,
            "Train/1": 3,
            **images("Test/00000.png", "Test/00001.png", "Meta/0.png"),
            "Test.csv": "Width,ClassId,Path\n9,1,Test/00000.png\n9,0,Test/00001.png\n",
            "Meta.csv": "Path,ClassId,ShapeId\nMeta/0.png,0,1\nMeta/1.png,1,1\n",
        },
        ("0 3 1 3", "0 1 1 1"),
        "labels from Test.csv",
    ),
    "zeros that a spreadsheet left out": (
        {**images(*(f"x/0000{i}.png" for i in range(6))), "l.csv": "f,label\n" + lines("{i}.png,{c}")},
        ("a 2 b 2", "a 1 b 1"),
        "matched as numbers",
    ),
    "arrays beside labeled images": (
        {**images(*(f"{i}.png" for i in range(6))), "l.csv": "f,label\n" + lines("{i}.png,{c}"), "features.npz": "x"},
        ("a 2 b 2", "a 1 b 1"),
        "to read features.npz instead",
    ),
    "a table of pixels beside labeled images": (
        {
            **images(*(f"{i}.png" for i in range(6))),
            "l.csv": "f,label\n" + lines("{i}.png,{c}"),
            "hmnist.csv": ",".join(f"p{i}" for i in range(25)) + ",label\n" + "1," * 25 + "0\n",
        },
        ("a 2 b 2", "a 1 b 1"),
        "labels from l.csv.*to read hmnist.csv instead",
    ),
    "a column of parts with another name": (
        {"x": 6, "l.csv": "f,labels,data set\n" + lines("{i}.png,{c},train", 4) + "4.png,a,test\n5.png,b,test\n"},
        ("a 2 b 2", "a 1 b 1"),
        "parts: column data set",
    ),
    "is_valid (fastai)": (
        {"x": 6, "l.csv": "f,label,is_valid\n" + lines("{i}.png,{c},False", 4) + "4.png,a,True\n5.png,b,True\n"},
        ("a 2 b 2", "a 1 b 1"),
        "parts: column is_valid",
    ),
    "Google AutoML": (
        {"x": 6, "d.csv": lines("TRAIN,gs://b/x/{i}.png,{c}", 4) + "TEST,gs://b/x/4.png,a\nTEST,gs://b/x/5.png,b\n"},
        ("a 2 b 2", "a 1 b 1"),
        "column 3; files: column 2; parts: column 1",
    ),
    "Roboflow": (
        {"train": 6, "train/_classes.csv": "filename, p, q\n" + lines("{i}.png, {n}, {m}"), "valid": 2}
        | {"valid/_classes.csv": "filename, p, q\n" + lines("{i}.png, {n}, {m}", 2)},
        ("p 3 q 3", "p 1 q 1"),
        "",
    ),
    "Label Studio": (
        {"x": 6, "p.csv": "annotation_id,choice,id,image,lead_time\n" + lines("{i},{c},{i},/data/upload/1/{i}.png,3.1")},
        ("a 2 b 2", "a 1 b 1"),
        "column choice; files: column image",
    ),
    "Label Studio, JSON": (
        {"x": 6, "p.json": json.dumps([{"id": i, "image": f"/data/{i}.png", "choice": "ab"[i % 2]} for i in range(6)])},
        ("a 2 b 2", "a 1 b 1"),
        "labels from p.json",
    ),
    "SageMaker Ground Truth": (
        {"x": 6, "o.manifest": lines('{{"source-ref": "s3://b/{i}.png", "l": {n}, "l-metadata": {{"class-name": "{c}"}}}}')},
        ("a 2 b 2", "a 1 b 1"),
        "labels from o.manifest",
    ),
    "COCO": (
        {
            "x": 6,
            "c.json": json.dumps(
                {
                    "images": [{"id": 9 - i, "file_name": f"{i}.png"} for i in range(6)],
                    "annotations": [{"image_id": 9 - i, "category_id": i % 2} for i in range(6)],
                    "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
                }
            ),
        },
        ("a 2 b 2", "a 1 b 1"),
        "",
    ),
    "labels by file in JSON, and one that is no table": (
        {"x": 6, "l.json": json.dumps({f"{i}.png": "ab"[i % 2] for i in range(6)}), "classes.json": '{"0": "a", "1": "b"}'},
        ("a 2 b 2", "a 1 b 1"),
        "labels from l.json",
    ),
    "dataset.json of StyleGAN": (
        {"00000": 6, "dataset.json": json.dumps({"labels": [[f"00000/{i}.png", i % 2] for i in range(6)]})},
        ("0 2 1 2", "0 1 1 1"),
        "",
    ),
    "Tiny ImageNet": (
        {"train/n1/images": 3, "train/n2/images": 3, "val/images": 2}
        | {"val/val_annotations.txt": "0.png\tn1\t0\t0\t9\t9\n1.png\tn2\t0\t0\t9\t9\n"},
        ("n1 3 n2 3", "n1 1 n2 1"),
        "labels from val_annotations.txt: column 2",
    ),
    "digits": ({"0": 3, "1": 3, "2": 3}, ("0 2 1 2 2 2", "0 1 1 1 2 1"), ""),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_a_folder_is_read_as_its_owner_means_it(tmp_path: Path, case: str) -> None:
    files, counts, notes = UNDERSTOOD[case]
    found = data.load(tree(tmp_path, files))
    assert (counted(found.train), counted(found.test)) == counts
    assert re.search(notes, "; ".join(found.notes)), found.notes


# Each kind of decision once: parts, classes, tables, lists, what is left out.
IN_ARCHIVES = (
    "seg_ twice", "parts inside the classes", "a class called train", "an unlabeled part", "a table for each part",
    "traffic signs", "masks beside the images of each class", "masks beside all images", "lists of CUB-200", "COCO",
    "arrays beside labeled images",
)  # fmt: skip


@pytest.mark.parametrize("case", IN_ARCHIVES)
def test_a_tar_is_read_as_the_folder_is(tmp_path: Path, case: str) -> None:
    files, counts, _ = UNDERSTOOD[case]
    root = tree(tmp_path / "pets", files)
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(root, "pets")
    one, other = data.load(root), data.load(tmp_path / "pets.tar")
    assert (counted(other.train), counted(other.test)) == counts and other.train.names == one.train.names
    assert torch.equal(other.train.images[:], one.train.images[:])
    said = {note for note in one.notes if "to read features.npz instead" not in note}
    assert said <= {note.replace("pets/", "").replace(" pets", " ") for note in other.notes} | {*other.notes}


# The folder; options; what the error must say.
REFUSED: dict[str, tuple[Tree, dict[str, Any], str]] = {
    "parts without labels": ({"train": 3, "test": 2}, {}, r"train \(3 images, no class folders\).*--train PART.*--all-classes"),
    "a divided train folder among others": (
        {**pets("train"), "bus": 3},
        {},
        r"train \(6 images in class folders\), bus.*--train",
    ),
    "two training parts": ({**pets("Train"), **pets("training")}, {}, "Train, training; choose one with --train PART"),
    "two test parts": ({**pets("Train"), **pets("Val"), **pets("dev")}, {}, "Val, dev; choose one with --test PART"),
    "some classes divided": ({"cat/train": 3, "cat/test": 2, "dog": 3}, {}, "cat is divided, dog is not"),
    "folders that are no classes": (
        {"part_1": 3, "part_2/x": 3, "m.csv": table("id,dx,age", 3, "part_1/{i}.png,{c},5") + "part_2/x/0.png,a,5\n"},
        {},
        "2 labels in m.csv for the folders part_1, part_2; the table: --labels FILE; the folders: --all-classes",
    ),
    "rows without files": (
        {"train": 8, "test": 8, "train.csv": table("f,label", 9, "{i}.png,{c}")},
        {},
        "train.csv: 8.png: is not there",
    ),
    "rows without files in any part": (
        {"train": 8, "test": 8, "labels.csv": table("id,label", 9, "{i},{c}")},
        {},
        "labels.csv: 8: is not there",
    ),
    "two columns that name files": (
        {"x": 6, "l.csv": "idx,photo,label\n" + "".join(f"{i},{5 - i},{'ab'[i % 2]}\n" for i in range(6))},
        {},
        "which column names the files, got idx, photo; choose it with --file-column",
    ),
    "a copy of the classes beside them": (
        {**pets("."), **pets("pets")},
        {},
        "pets, which holds cat, dog; move it away",
    ),
    "chunks without labels": ({"images_001": 3, "images_002": 3}, {}, "names say nothing of classes, got images_001, images_002"),
    "classes beside an unlabeled test part": ({**pets("DATA"), "TEST": 3}, {}, "TEST .3 images, no class folders., DATA"),
    "more cells than columns": ({"x": 4, "l.csv": "f,label\n0.png,a, b\n"}, {"labels": "l.csv"}, "3 cells in the row"),
    "a column where no table is read": (pets("train"), {"label_column": "sex"}, "--label-column: is for a table"),
    "an empty group": (
        {"x": 6, "l.csv": table("f,label,video", 6, "{i}.png,{c},v{i}").replace("v3", "")},
        {"group": "video"},
        "--group: must be given for each image",
    ),
    "a group in one part only": (
        {
            "train": 6,
            "test": 4,
            "train.csv": table("f,label,v", 6, "{i}.png,{c},{i}"),
            "test.csv": table("f,label", 4, "{i}.png,{c}"),
        },
        {"group": "v"},
        "--group: must be a column of each part, got none in test",
    ),
    "variants of all classes": (
        {**pets("color"), **pets("gray")},
        {},
        "color, gray, each with cat, dog; the inner folders: name one of the outer as DATASET; the outer folders: --all-classes",
    ),
    "another class in test": ({**pets("train"), **pets("test"), "test/fox": 1}, {}, "training part does not have: fox"),
    "two tables": (
        {"x": 4, "one.csv": table("f,label", 4, "{i}.png,{c}"), "two.csv": table("f,label", 4, "{i}.png,{c}")},
        {},
        "several tables with labels, got one.csv, two.csv; choose one with --labels FILE",
    ),
    "two columns": (
        {"x": 4, "l.csv": table("f,age,sex", 4, "{i}.png,{n},{c}")},
        {},
        "columns f, age, sex; choose it with --label-",
    ),
    "two labels": (
        {"x": 4, "l.csv": table("f,label", 4, "{i}.png,{c}") + "0.png,b\n"},
        {},
        "x/0.png: has two labels in l.csv: a and",
    ),
    "a file that is not there": ({"x": 4, "l.csv": table("f,label", 5, "{i}.png,{c}")}, {}, "l.csv: 4.png: is not there"),
    "no label": ({"x": 4, "l.csv": table("f,label", 4, "{i}.png,{c}").replace("0.png,a", "0.png,")}, {}, "0.png: has no label"),
    "no images": ({"README.md": "x"}, {}, "got no images"),
    "a part that is not there": (pets("train"), {"test": "tset"}, "must be folders in .*, which has train, got tset"),
    "a part twice": (pets("train"), {"train": "train", "test": "train"}, "another part than --train"),
    "a table that is not there": (pets("train"), {"labels": "l.csv"}, "--labels: must be a file, got l.csv"),
    "a table of something else": ({**pets("train"), "l.csv": "a,b\n71,72\n"}, {"labels": "l.csv"}, "must name image files"),
    "a column that is not there": (
        {"x": 4, "l.csv": table("f,label", 4, "{i}.png,{c}")},
        {"label_column": "y"},
        "f, label, got y",
    ),
    "two readings at once": (pets("train"), {"all_classes": True, "test": "x"}, "--all-classes: cannot be used with"),
    "no group in a path": (pets("train"), {"group": r"track_(\d)"}, r"--group: .* not in train/cat/0.png"),
    "no expression": (pets("train"), {"group": "("}, "--group: must be a column of the table, or a regular expression"),
    "one group": (
        pets("train"),
        {"group": "cat|dog"},
        "--group: must leave each class at least two groups, got one for class cat",
    ),
    "several labels in a cell": (
        {"x": 5, "l.csv": 'f,label\n0.png,"cat,sky"\n1.png,"cat,dog"\n2.png,dog\n3.png,cat\n4.png,cat\n'},
        {},
        r"column label holds several labels of one image \(multi-label\).* got cat,\w+.*--label-column NAME",
    ),
    "several words in a cell": (
        {"x": 6, "l.csv": "f,tags\n0.png,cat dog\n1.png,cat\n2.png,dog\n3.png,cat\n4.png,dog\n5.png,cat dog\n"},
        {},
        "column tags holds several labels",
    ),
    "several ones in a row": (
        {"x": 6, "l.csv": "f,p,q\n" + lines("{i}.png,1,{n}")},
        {},
        r"only if each row has a single 1: p, q, got rows with 1, 2; several labels of one image \(multi-label\) are not",
    ),
    "is_male and is_female beside another column": (
        {"x": 6, "l.csv": "f,is_male,is_female,grade\n" + lines("{i}.png,{n},{m},{c}")},
        {},
        "which column holds the labels, got columns f, is_male, is_female, grade",
    ),
    "labels in the names of files (Dogs vs. Cats)": (
        {**named("train/{c}.{i}.jpg"), **images("test/1.jpg")},
        {},
        r"labels in the file names \(cat, dog\): --label-regex ",
    ),
    "labels in the names of files (Oxford pets)": (
        {**named("images/{c}_{i}.jpg"), "annotations/test.txt": listing("{c}_{i} 1 1 1", (2,))},
        {},
        r"the tables annotations/test.txt, which label none of them; labels in the file names \(cat, dog\): --label-regex ",
    ),
    "labels of MATLAB (Flowers-102)": (
        {**images("jpg/image_00001.jpg", "jpg/image_00002.jpg"), "imagelabels.mat": "x"},
        {},
        "one, jpg, imagelabels.mat, of a form that is not read; save the labels as labels.csv with the columns file and label",
    ),
    "names in another case in the test part": (
        {**pets("train"), "test/Cat": 2, "test/dog": 2},
        {},
        "does not have: Cat, got test/Cat/0.png; write it like cat in training",
    ),
    "folders of every thousandth image": ({"00000": 3, "01000": 3}, {}, "names say nothing of classes"),
    "a download of the Hugging Face hub": (
        {"blobs/a": "x", "refs/main": "x", "snapshots/ab/README.md": "x"},
        {},
        "where Hugging Face keeps downloads.* pass .*snapshots/ab with --follow-links, or the name of the set",
    ),
    "the downloads of the Hugging Face hub": (
        {"hub/datasets--me--pets/refs/main": "x"},
        {},
        "where Hugging Face keeps downloads, .* got me/pets; the name of the set",
    ),
    "an archive for each part": ({"train.zip": "x", "test.zip": "x"}, {}, "unpack all into this folder: each is one part"),
    "boxes beside the images (YOLO)": (
        {"train/images": 3, "train/labels/0.txt": "0 .5 .5 .1 .1\n", "valid/images": 2},
        {},
        r"has boxes of objects \(YOLO\), and one label for each image is needed, got train/labels/0.txt",
    ),
    "a line that is no JSON object": (
        {"x": 2, "l.jsonl": '{"file": "0.png", "label": "a"}\n[1]\n'},
        {},
        "a JSON object in each line",
    ),
    "an expression that is none": (pets("x"), {"label_regex": "("}, "--label-regex: must be a regular expression, got"),
    "an expression and a table": (
        pets("x"),
        {"label_regex": "x", "labels": "l.csv"},
        "--label-regex: cannot be used with --labels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unclear_is_refused_with_what_was_seen(tmp_path: Path, case: str) -> None:
    files, options, message = REFUSED[case]
    text = load_error(tree(tmp_path, files), **options)
    assert re.search(message, text), text


def test_options_choose_between_the_readings(tmp_path: Path) -> None:
    parts = tree(tmp_path / "parts", {**pets("a"), **pets("b", 2), **pets("c", 1)})
    found = data.load(parts, train="a", test="b")
    assert (counted(found.train), counted(found.test)) == PETS
    assert counted(data.load(parts, all_classes=True).train) == "a 5 b 3 c 1"
    assert counted(data.load(parts, train="a", test=str(tmp_path / "parts/c")).test) == "cat 1 dog 1"
    assert counted(data.load(tmp_path / "parts/a", test=".").test) == "cat 3 dog 3"
    labels = table("f,label", 4, "x/{i}.png,{c}") + "y/0.png,b\ny/1.png,a\n"
    split = tree(tmp_path / "split", {"x": 4, "y": 2, "extra": 1, "t.csv": labels})
    found = data.load(split, train="x", test="y", labels="t.csv")
    assert (counted(found.train), counted(found.test)) == ("a 2 b 2", "a 1 b 1")
    assert found.left_out == (("extra/0.png", "has no label in t.csv"),)


def test_labels_in_the_names_of_files(tmp_path: Path) -> None:
    root = tree(tmp_path, {**named("train/{c}.{i}.jpg"), **named("test/{c}.{i}.jpg", 2)})
    found = data.load(root, label_regex=r"([a-z]+)\.\d+")
    assert (counted(found.train), counted(found.test)) == PETS and found.train.names[0] == "cat/cat.0.jpg"
    assert found.notes == (r"labels from the names of files: ([a-z]+)\.\d+",)
    suggested = re.search("--label-regex '(.*?)'", load_error(root))
    assert suggested and counted(data.load(root, label_regex=suggested[1]).test) == PETS[1]
    save(random_image(0), root / "train/0.jpg")
    assert "train/0.jpg: has no label" in load_error(root, label_regex="cat|dog")
    (root / "train/0.jpg").unlink()
    assert "dog.0.jpg" in load_error(root, label_regex="cat")
    unlabeled = tree(tmp_path / "kaggle", {**named("train/{c}.{i}.jpg"), **images("test1/1.jpg")})
    found = data.load(unlabeled, label_regex="cat|dog")
    assert (counted(found.train), counted(found.test)) == WITHOUT_TEST
    assert found.notes[1] == "not used: test1 (1 images without labels)"


def test_lists_of_parts_can_be_declined(tmp_path: Path) -> None:
    lists = {"meta/train.txt": listing("{c}/{i}", (0, 2)), "meta/test.txt": listing("{c}/{i}", (1,))}
    root = tree(tmp_path, {**pets("images", 4), **lists})
    found = data.load(root)
    assert (counted(found.train), counted(found.test)) == ("cat 2 dog 2", "cat 1 dog 1")
    listed = {(f"images/{name}/3.png", "is in none of test.txt, train.txt") for name in ("cat", "dog")}
    assert listed < {*found.left_out}
    assert counted(data.load(root, all_classes=True).train) == "cat 3 dog 3"
    assert counted(data.load(root, test=".").test) == "cat 4 dog 4"


def test_a_file_with_two_labels_is_not_used(tmp_path: Path) -> None:
    root = tree(tmp_path, {"x": 7, "l.csv": "f,label\n" + lines("{i}.png,{c}", 7) + "6.png,b\n"})
    found = data.load(root, skip_unreadable=True)
    assert (counted(found.train), counted(found.test)) == ("a 2 b 2", "a 1 b 1")
    assert found.left_out == (("x/6.png", "has two labels in l.csv: a and b: multi-label is not supported"),)
    assert not any("no label" in note for note in found.notes)


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    files = {
        **pets("train"),
        **pets("test", 2),
        "__MACOSX/train/cat": 2,
        "train/cat/._0.png": "x",
        ".DS_Store": "x",
        "train/@eaDir/x": 1,
        "train/cat/0.xml": "<annotation/>",
        "README.md": "x",
    }
    found = data.load(tree(tmp_path, files))
    assert (counted(found.train), counted(found.test)) == PETS
    assert sorted(found.left_out) == [
        (".DS_Store", "is a hidden or system file"),
        ("README.md", "is no image (.md)"),
        ("__MACOSX", "is a hidden or system folder, with all that is in it"),
        ("train/@eaDir", "is a hidden or system folder, with all that is in it"),
        ("train/cat/._0.png", "is a hidden or system file"),
        ("train/cat/0.xml", "is no image (.xml)"),
    ]
    rows = data.file_rows(found)
    assert len(rows) == 6 + 4 + 6 and {row.part for row in rows} == {"train", "test", "left out"}
    assert data.summary(found)["left_out"] == {
        "is no image": 2,
        "is a hidden or system file": 2,
        "is a hidden or system folder, with all that is in it": 2,
    }


def test_names_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    found = data.load(tree(tmp_path, {f"train/{one}": 3, f"train/{other}": 2, "train/x": 3, f"test/{other}": 2, "test/x": 1}))
    assert (counted(found.train), counted(found.test)) == (f"{one} 5 x 3", f"{one} 2 x 1")
    assert f"one class: {one}" in found.notes[0]


def test_groups_stay_together_and_the_limit_takes_of_each(tmp_path: Path) -> None:
    root = tree(tmp_path, {f"{name}/track{track}": 4 for name in ("stop", "yield") for track in range(5)})
    found = data.load(root, group=r"[a-z]+/track\d")
    assert len(found.train) == 32 and len(found.test) == 8 and "by groups" in found.notes[0]
    assert not set(found.train.groups) & set(found.test.groups)
    limited = data.load(root, group=r"[a-z]+/track\d", limit=8)
    assert limited.notes[1] == "--limit 8: 8 of 32 training and 2 of 8 test images, the first of each group"
    assert sorted(Counter(limited.train.groups).values()) == [1] * 8
    column = tree(tmp_path / "table", {"x": 12, "l.csv": table("f,label,video", 12, "{i}.png,{c},v{i}").replace("v1\n", "v0\n")})
    found = data.load(column, group="video", limit=8)
    assert {"v0", "v2"} <= {*found.train.groups, *found.test.groups} and not set(found.train.groups) & set(found.test.groups)
    crossing = data.load(image_folder(tmp_path / "both"), group=r"\d")
    assert crossing.notes == ("3 groups are in the training and in the test part, 0 for example",)


def test_links_are_followed_where_this_is_asked_for(tmp_path: Path) -> None:
    cache = tree(tmp_path / "cache", pets("blobs"))
    root = tree(tmp_path / "snapshot", {"train/cat": 1, "train/dog": 1})
    for name in ("cat", "dog"):
        for i in range(3):
            (root / f"train/{name}/link{i}.png").symlink_to(cache / f"blobs/{name}/{i}.png")
    (root / "test").symlink_to(cache / "blobs")
    (root / "train/cat/loop").symlink_to(root / "train")
    assert "--follow-links" in load_error(root)
    found = data.load(root, follow_links=True)
    assert (counted(found.train), counted(found.test)) == ("cat 4 dog 4", "cat 3 dog 3")
    assert any("links lead out of the folder" in note for note in found.notes)
    assert found.left_out == (("train/cat/loop", "is a link to a folder that it lies in"),)


def test_labels_without_a_column_take_no_memory() -> None:
    """A file of a few bytes may claim 4 billion rows of nothing."""
    with pytest.raises(InputError, match=r"must be one whole number for each image.*shape \(4294967295, 0\)"):
        as_labels(np.zeros((2**32 - 1, 0)), "a.npz", {})
