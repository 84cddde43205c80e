"""A constructed set to disk, in the form its source had, and back."""

import csv
import errno
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from notbugs.data.dataset import Dataset, Images, to_8bit
from notbugs.data.decode import THREADS, as_arrays
from notbugs.data.load import images_of
from notbugs.data.names import check_class_name, deduplicate, first_line, path_part, png_name, printable
from notbugs.data.sources import Located, locate_npz, locate_parquet, locate_saved, quiet
from notbugs.errors import InputError


def check_unused(folder: Path) -> None:
    """Raises BadInput where `write` would find something else in its place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "exists and is not empty", remedy="choose another folder")


def export(
    dataset: Dataset, folder: Path, form: str, *, card: str, original: Dataset | None = None, split: str = "train"
) -> None:
    """One part of a set into a new folder, in the form in which its source was read, with a card (README.md: card is its text).

    folder: `split/CLASS/file.png` under the names the files had, CLASS being the label they now have, and manifest.csv with one
    row a file in the set's order. Everything is stored as PNG, so `a.jpg` becomes `a.png`; `CLASS/sub/a.png` becomes
    `sub--a.png`. Where two files would meet in their new class, all get the prefix `OLDCLASS--` (the class that original says).
    A class without images gets an empty folder; Hugging Face's reader leaves such a class out.
    Letters that no path can hold become `_`; what then still meets is numbered `~2`. The card and the manifest keep true names.
    npz: data.npz with split_images (N, H, W or N, H, W, 3; npz-channels-first: N, C, H, W), split_labels, classes.
    parquet: split.parquet with columns image, label and file_name. saved: a Hugging Face DatasetDict with the part split.

    The folder appears whole or not at all. Raises BadInput if it exists and is not empty, or if the disk is full.
    """
    folder = Path(folder)
    writers = {"folder": _write_folder, "parquet": _write_rows, "saved": _write_rows}
    writers |= {"npz": _write_npz, "npz-channels-first": _write_npz}
    if form not in writers:
        raise InputError("form", f"must be one of {', '.join(writers)}", form)
    if dataset.shape[0] not in (1, 3):
        raise InputError("images", "must have 1 or 3 channels to be written", dataset.shape[0])
    for name in dataset.classes:
        check_class_name(name)
    temporary = folder.absolute().parent / f".{folder.name[:100]}.{os.getpid()}.part"
    try:
        check_unused(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        writers[form](dataset, temporary, form, original or dataset, split)
        (temporary / "README.md").write_text(_front_matter(dataset, form) + card.rstrip() + "\n", encoding="utf-8")
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
    """What `write` wrote, whole and in the same order: pixels, labels, classes, names. Raises BadInput."""
    folder = Path(folder)
    if form == "folder":
        found = _find_written(folder, split)
    elif form.startswith("npz"):
        found = locate_npz(folder / "data.npz", [split])
    elif form == "parquet":
        found = locate_parquet(str(folder), [folder / f"{split}.parquet"])
    else:
        found = locate_saved(folder, split)
    images, _, _ = images_of(found.files, list(range(len(found.labels))), found.places, None, skip_bad=False)
    return Dataset(images, torch.tensor(found.labels, dtype=torch.int64), found.classes, tuple(found.names))


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Arrays by name into one .npz, which appears whole or not at all; raises BadInput where it cannot be written."""
    _whole(path, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]  # numpy types the flag among the arrays


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote; raises BadInput where that is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(str(path), "must be what the run wrote", first_line(error), "run again into another folder") from None


def write_table(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Rows, all with the same columns, as .parquet or .csv, whole or not at all; raises BadInput where it cannot be written."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.Table.from_pylist([dict(row) for row in rows])
    write = parquet.write_table if path.suffix == ".parquet" else csv.write_csv
    _whole(path, lambda stream: write(table, stream))


def _whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Fill a file under another name, then give it its own."""
    fresh = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as stream:
            write(stream)
        os.replace(fresh, path)
    except OSError as error:
        raise InputError(str(path), "cannot be written", error.strerror or first_line(error)) from None
    finally:
        fresh.unlink(missing_ok=True)


def save_image(image: torch.Tensor, path: Path) -> None:
    """One float image (C, H, W) in [0, 1] as an 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(next(_pngs(to_8bit(image[None]))))
    except OSError as error:
        raise InputError(str(path), "cannot be written", error.strerror) from None


def _pngs(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order; a batch at a time, for a set that does not fit into memory."""
    from PIL import Image

    def encode(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # 6 takes three times as long for a tenth less
        return buffer.getvalue()

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), 1024):
            yield from pool.map(encode, as_arrays(images[start : start + 1024]))


def _write_folder(dataset: Dataset, folder: Path, form: str, original: Dataset, split: str) -> None:
    homes, files = _file_names(dataset, original)
    for home in homes:
        (folder / split / home).mkdir(parents=True)
    labels = dataset.labels.tolist()
    for label, file, png in zip(labels, files, _pngs(dataset.images), strict=True):
        (folder / split / homes[label] / file).write_bytes(png)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("file", "label", "original_label", "original_name"))
        for label, file, old, name in zip(labels, files, original.labels.tolist(), dataset.names, strict=True):
            table.writerow((f"{split}/{homes[label]}/{file}", dataset.classes[label], original.classes[old], name))


def _file_names(dataset: Dataset, original: Dataset) -> tuple[list[str], list[str]]:
    """The folder of each class and the file name of each image, such that no two images meet."""
    homes = deduplicate([("", path_part(name)) for name in dataset.classes])
    old = original.labels.tolist()
    new = dataset.labels.tolist()
    flat = [path_part(png_name(name)) for name in dataset.names]
    files = deduplicate(list(zip(old, flat, strict=True)))
    if len(set(zip(new, files, strict=True))) < len(files):
        files = [path_part(f"{original.classes[label]}--{file}") for label, file in zip(old, files, strict=True)]
    return homes, deduplicate(list(zip(new, files, strict=True)))


def _find_written(folder: Path, split: str) -> Located:
    import yaml

    try:
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        front = (folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0]
        named = yaml.safe_load(front)["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
        classes = tuple(named[str(i)] for i in range(len(named)))
        labels = [classes.index(row["label"]) for row in rows]
        places = [row["file"] for row in rows]
        names = [row["original_name"] for row in rows]
    except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError) as error:
        raise InputError(str(folder), "its manifest.csv and README.md cannot be read", first_line(error)) from None
    for place in places:
        if not place.startswith(f"{split}/") or ".." in place.split("/"):
            raise InputError(f"{folder}/manifest.csv", f"may only list files below {split}/", printable(place))
    return Located([folder / place for place in places], labels, names, places, len(rows), classes, "folder")


def _write_npz(dataset: Dataset, folder: Path, form: str, original: Dataset, split: str) -> None:
    images = dataset.images[:]
    arrays = {
        f"{split}_images": images.numpy() if form == "npz-channels-first" else as_arrays(images),
        f"{split}_labels": dataset.labels.numpy(),
        f"{split}_names": np.array(dataset.names, dtype=str),
        "classes": np.array(dataset.classes, dtype=str),
    }
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]  # numpy types the flag among the arrays


def _write_rows(dataset: Dataset, folder: Path, form: str, original: Dataset, split: str) -> None:
    import datasets

    # Names in a column of their own: Hugging Face shortens the path it keeps inside an image to its last part.
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(dataset.classes)),
        "file_name": datasets.Value("string"),
    }
    columns = {
        "image": [{"bytes": png, "path": None} for png in _pngs(dataset.images)],
        "label": dataset.labels.tolist(),
        "file_name": list(dataset.names),
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    with quiet():
        if form == "parquet":
            table.to_parquet(str(folder / f"{split}.parquet"))
        else:
            datasets.DatasetDict({split: table}).save_to_disk(str(folder))


def _front_matter(dataset: Dataset, form: str) -> str:
    """The card's head in YAML, as the Hugging Face hub reads it."""
    import yaml

    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    names = {str(i): name for i, name in enumerate(dataset.classes)}
    features: list[dict[str, object]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
    ]
    if form in ("parquet", "saved"):  # must list exactly the columns, or load_dataset fails
        features.append({"name": "file_name", "dtype": "string"})
    head = {
        "task_categories": ["image-classification"],
        "size_categories": [next((name for bound, name in steps if len(dataset) < bound), "1M<n<10M")],
        "dataset_info": {"features": features},
    }
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=10**6)}---\n\n"
