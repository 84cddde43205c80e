"""Damaged files of every form: they are read, or refused by an InputError; nothing else comes out, and memory stays bounded."""

import shutil
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from data.conftest import random_image, save
from data.sources.forms import arrays, cifar, idx, image_zip, pixel_table, png, safetensors, shard, tensors, tree

from notbugs import data
from notbugs.errors import InputError

if TYPE_CHECKING:
    import datasets

CASES = 20  # of each form


def npz(path: Path) -> Path:
    np.savez(path, **arrays())  # type: ignore[arg-type]
    return path


def packed_npz(path: Path) -> Path:
    np.savez_compressed(path, **arrays())  # type: ignore[arg-type]
    return path


def npy(folder: Path) -> Path:
    folder.mkdir()
    for name, array in arrays().items():
        np.save(folder / f"{name}.npy", array)
    return folder


def old_tensors(path: Path) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in arrays().items()}, path, _use_new_zipfile_serialization=False)
    return path


def hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays().items():
            file.create_dataset(name, data=array, compression="gzip", chunks=True)
    return path


def rows() -> "datasets.Dataset":
    import datasets

    kind = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(12)], "label": [0, 1] * 6}
    return datasets.Dataset.from_dict(columns, features=kind)


def parquet(path: Path) -> Path:
    rows().to_parquet(path)
    return path


def saved(folder: Path) -> Path:
    rows().save_to_disk(folder)
    return folder


def table_beside_images(folder: Path) -> Path:
    import pyarrow.parquet

    for i in range(8):
        save(random_image(i), folder / f"{i}.png")
    table = pyarrow.table({"file_name": [f"{i}.png" for i in range(8)], "label": ["cat", "dog"] * 4})
    pyarrow.parquet.write_table(table, folder / "metadata.parquet")
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "set.npz": npz,
    "packed.npz": packed_npz,
    "npy": npy,
    "idx": idx,
    "idx-gz": lambda path: idx(path, gz=True),
    "cifar": cifar,
    "cifar100": lambda path: cifar(path, hundred=True),
    "train.csv": pixel_table,
    "set.tar": shard,
    "json.tar": lambda path: shard(path, ending="json"),
    "set.tar.gz": lambda path: shard(path, mode="w:gz"),
    "tree.tar": tree,
    "set.zip": image_zip,
    "set.pt": tensors,
    "old.pt": old_tensors,
    "set.safetensors": safetensors,
    "set.parquet": parquet,
    "saved": saved,
    "table": table_beside_images,
}
if find_spec("h5py"):
    FORMS["set.h5"] = hdf5


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with some bits turned, most of them near the beginning or the end, where the headers are; or cut off."""
    kind, place = generator.integers(4), int(generator.integers(len(content)))
    if kind == 0:
        return content[:place]
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 9))):
        near = {1: int(generator.integers(min(len(content), 600))), 2: -1 - int(generator.integers(min(len(content), 600)))}
        changed[near.get(int(kind), int(generator.integers(len(content))))] ^= 1 << int(generator.integers(8))
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_damaged_files(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = FORMS[form](tmp_path / form)
    data.load(whole)
    files = sorted(whole.iterdir()) if whole.is_dir() else [whole]
    contents = [file.read_bytes() for file in files]
    generator = np.random.default_rng(0)
    errors = []
    request.addfinalizer(tracemalloc.stop)
    tracemalloc.start()
    for _ in range(CASES):
        number = int(generator.integers(len(files)))
        files[number].unlink()  # not written over: an array of the last case may still be mapped
        files[number].write_bytes(damaged(contents[number], generator))
        try:
            data.load(whole)
        except InputError as error:
            errors.append(str(error))
        files[number].write_bytes(contents[number])
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    assert errors and not any("\n" in text or len(text) > 700 for text in errors)
