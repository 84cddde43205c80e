"""A data set to disk, in the form in which it was loaded, and back."""

import csv
import errno
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from notbugs.atomic import atomic_write
from notbugs.data.config import DataConfig
from notbugs.data.dataset import Dataset
from notbugs.data.decode import as_arrays
from notbugs.data.images import Images, load_images, to_8bit
from notbugs.data.names import check_class_name, deduplicate, first_line, path_part, png_name, printable
from notbugs.data.sources import Located, locate_npz, locate_parquet, locate_saved, without_progress_bars
from notbugs.data.threads import in_threads
from notbugs.errors import InputError
from notbugs.snippets import snippets

PNG_BATCH = 1024  # images encoded at a time: a data set need not fit into memory
SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def check_unused(folder: Path) -> None:
    """Raises InputError where `export` would find something else in its place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "exists and is not empty", remedy="choose another folder")


def export(
    dataset: Dataset, folder: Path, form: str, *, card: str, original: Dataset | None = None, split: str = "train"
) -> None:
    """Write one part of a data set into a new folder, with a card. The folder appears whole or not at all.

    In the form "folder", all files are PNG: `a.jpg` becomes `a.png`, `CLASS/sub/a.png` becomes `sub--a.png`. Where two files
    would get one name in their new class, all get the prefix `OLDCLASS--`. A class without images gets an empty folder, which
    Hugging Face's reader leaves out. Characters that no path can hold become `_`. Names that are then equal are numbered `~2`.
    The card and manifest.csv keep the true names.

    Parameters
    ----------
    dataset : Dataset
    folder : Path
        New or empty.
    form : {"folder", "npz", "npz-channels-first", "parquet", "saved"}
        folder: `split/CLASS/file.png`, CLASS being the label, and manifest.csv with one row per file, in order.
        npz: data.npz with split_images (N, H, W or N, H, W, 3; npz-channels-first: N, C, H, W), split_labels, classes.
        parquet: split.parquet with columns image, label and file_name. saved: a Hugging Face DatasetDict with one split.
    card : str
        Text of README.md; code that loads the data set with other libraries is added.
    original : Dataset, optional
        The same files before relabeling, for their old classes.
    split : str

    Raises
    ------
    InputError
        If the folder exists and is not empty, the disk is full, or a name cannot be written.
    """
    folder = Path(folder)
    if form not in WRITERS:
        raise InputError("form", f"must be one of {', '.join(WRITERS)}", form)
    if dataset.shape[0] not in (1, 3):
        raise InputError("images", "must have 1 or 3 channels to be written", dataset.shape[0])
    for name in dataset.classes:
        check_class_name(name)
    temporary = folder.absolute().parent / f".{folder.name[:100]}.{os.getpid()}.part"
    try:
        check_unused(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        WRITERS[form](Job(dataset, original or dataset, temporary, form, split))
        text = _front_matter(dataset, form) + card.rstrip() + "\n" + _how_to_load(dataset, folder, form, split)
        (temporary / "README.md").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"{'free some space or ' if full else ''}choose another folder"
        raise InputError(str(folder), "cannot be written", error.strerror or first_line(error), remedy) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_part(folder: Path, form: str, split: str = "train") -> Dataset:
    """What `export` wrote, whole and in the same order: pixels, labels, classes and names. Raises InputError."""
    folder, config = Path(folder), DataConfig(str(folder), train=split)
    if form == "folder":
        located = _locate_exported(folder, split)
    elif form.startswith("npz"):
        located = locate_npz(folder / "data.npz", config)
    elif form == "parquet":
        located = locate_parquet(str(folder), [folder / f"{split}.parquet"], DataConfig(str(folder)))
    else:
        located = locate_saved(folder, config)
    images = load_images(located.files, list(range(len(located.labels))), located.locations).images
    return Dataset(images, torch.tensor(located.labels, dtype=torch.int64), located.classes, tuple(located.names))


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Arrays by name into one .npz file, which appears whole or not at all. Raises InputError if it cannot be written."""
    atomic_write(path, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]  # numpy types the flag among the arrays


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote. Raises InputError if it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:  # closes damaged files, too
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(str(path), "must be what the run wrote", first_line(error), "run again into another folder") from None


def save_image(image: torch.Tensor, path: Path) -> None:
    """Save one float image (C, H, W) in [0, 1] as an 8-bit PNG. Raises InputError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(next(_pngs(to_8bit(image[None]))))
    except OSError as error:
        raise InputError(str(path), "cannot be written", error.strerror) from None


def _pngs(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order."""
    from PIL import Image

    def encode(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # 6 takes three times as long for a tenth less
        return buffer.getvalue()

    for start in range(0, len(images), PNG_BATCH):
        yield from in_threads(encode, list(as_arrays(images[start : start + PNG_BATCH])))


class Job(NamedTuple):
    """What is written where."""

    dataset: Dataset
    original: Dataset
    folder: Path
    form: str
    split: str


def _write_folder(job: Job) -> None:
    dataset, original, root = job.dataset, job.original, job.folder
    folders, files = _file_names(dataset, original)
    for folder in folders:
        (root / job.split / folder).mkdir(parents=True)
    labels = dataset.labels.tolist()
    for label, file, png in zip(labels, files, _pngs(dataset.images), strict=True):
        (root / job.split / folders[label] / file).write_bytes(png)
    with open(root / "manifest.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("file", "label", "original_label", "original_name"))
        for label, file, old, name in zip(labels, files, original.labels.tolist(), dataset.names, strict=True):
            table.writerow((f"{job.split}/{folders[label]}/{file}", dataset.classes[label], original.classes[old], name))


def _file_names(dataset: Dataset, original: Dataset) -> tuple[list[str], list[str]]:
    """The folder of each class and the file name of each image, all different."""
    folders = deduplicate([("", path_part(name)) for name in dataset.classes])
    old = original.labels.tolist()
    new = dataset.labels.tolist()
    flat = [path_part(png_name(name)) for name in dataset.names]
    files = deduplicate(list(zip(old, flat, strict=True)))
    if len(set(zip(new, files, strict=True))) < len(files):
        files = [path_part(f"{original.classes[label]}--{file}") for label, file in zip(old, files, strict=True)]
    return folders, deduplicate(list(zip(new, files, strict=True)))


def _locate_exported(folder: Path, split: str) -> Located:
    """The files that a manifest lists, with the class names of the card."""
    import yaml

    try:
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        front = (folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0]
        named = yaml.safe_load(front)["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
        classes = tuple(named[str(i)] for i in range(len(named)))
        labels = [classes.index(row["label"]) for row in rows]
        files = [row["file"] for row in rows]
        names = [row["original_name"] for row in rows]
    except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError) as error:
        raise InputError(str(folder), "its manifest.csv and README.md cannot be read", first_line(error)) from None
    for file in files:
        if not file.startswith(f"{split}/") or ".." in file.split("/"):
            raise InputError(f"{folder}/manifest.csv", f"may only list files below {split}/", printable(file))
    return Located([folder / file for file in files], labels, names, files, len(rows), classes, "folder")


def _write_npz(job: Job) -> None:
    images = job.dataset.images[:]
    arrays = {
        f"{job.split}_images": images.numpy() if job.form == "npz-channels-first" else as_arrays(images),
        f"{job.split}_labels": job.dataset.labels.numpy(),
        f"{job.split}_names": np.array(job.dataset.names, dtype=str),
        "classes": np.array(job.dataset.classes, dtype=str),
    }
    np.savez(job.folder / "data.npz", **arrays)  # type: ignore[arg-type]  # numpy types the flag among the arrays


def _write_rows(job: Job) -> None:
    """parquet and saved."""
    import datasets

    # Names in a column of their own: Hugging Face shortens the path inside an image cell to its last part.
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(job.dataset.classes)),
        "file_name": datasets.Value("string"),
    }
    columns = {
        "image": [{"bytes": png, "path": None} for png in _pngs(job.dataset.images)],
        "label": job.dataset.labels.tolist(),
        "file_name": list(job.dataset.names),
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    with without_progress_bars():
        if job.form == "parquet":
            table.to_parquet(str(job.folder / f"{job.split}.parquet"))
        else:
            datasets.DatasetDict({job.split: table}).save_to_disk(str(job.folder))


WRITERS: dict[str, Callable[[Job], None]] = {
    "folder": _write_folder,
    "parquet": _write_rows,
    "saved": _write_rows,
    "npz": _write_npz,
    "npz-channels-first": _write_npz,
}


def _front_matter(dataset: Dataset, form: str) -> str:
    """The head of the card in YAML, as the Hugging Face hub expects it."""
    import yaml

    names = {str(i): name for i, name in enumerate(dataset.classes)}
    features: list[dict[str, object]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
    ]
    if form in ("parquet", "saved"):  # must list exactly the columns, or load_dataset fails
        features.append({"name": "file_name", "dtype": "string"})
    head = {
        "task_categories": ["image-classification"],
        "size_categories": [next((name for bound, name in SIZE_CATEGORIES if len(dataset) < bound), "1M<n<10M")],
        "dataset_info": {"features": features},
    }
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=10**6)}---\n\n"


def _how_to_load(dataset: Dataset, folder: Path, form: str, split: str) -> str:
    """The end of the card: code by library."""
    empty_class = len(set(dataset.labels.tolist())) < len(dataset.classes)
    found = snippets(folder, form, dataset.shape, split=split, empty_class=empty_class)
    return "\n## Load it\n" + "".join(f"\n{library}:\n\n```python\n{code}\n```\n" for library, code in found.items())
