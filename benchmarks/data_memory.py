"""How much memory reading takes in each form of file, beside the pixels: python benchmarks/data_memory.py [--images 12000]

Each form is read in a process of its own, twice: a set of 40 images, then the set itself, of 64x64 pixels in color. What the
second takes more than the first at its peak is compared with its pixels. Encoded images are noise, as large as their pixels: the
worst case. Pages of mapped files are counted, though the system takes them back when it needs memory. The last column is what is
held at the end, without them. Prints a table for docs/results/data.md.
"""

import argparse
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE, CLASSES, FEW = 64, 10, 40
CHILD = """
import json, re, sys
from notbugs import data
def held(name):
    return int(re.findall(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[0]) / 1024
few = data.load(sys.argv[1])
before, anonymous = held("VmHWM"), held("RssAnon")
found = data.load(sys.argv[2])
pixels = sum(part.images.numel() for part in (found.train, found.test)) / 2**20
print(json.dumps({"pixels": pixels, "peak": held("VmHWM") - before, "anonymous": held("RssAnon") - anonymous}))
"""


def named(images: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of a data set."""
    return {"images": images, "labels": np.arange(len(images)) % CLASSES}


def encoded(images: np.ndarray) -> list[bytes]:
    """PNG files."""
    from PIL import Image

    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        files.append(buffer.getvalue())
    return files


def npz(images: np.ndarray, folder: Path) -> Path:
    """As numpy.savez writes it."""
    np.savez(folder / "a.npz", **named(images))  # type: ignore[arg-type]
    return folder / "a.npz"


def packed_npz(images: np.ndarray, folder: Path) -> Path:
    """As numpy.savez_compressed writes it."""
    np.savez_compressed(folder / "a.npz", **named(images))  # type: ignore[arg-type]
    return folder / "a.npz"


def npy(images: np.ndarray, folder: Path) -> Path:
    """Two files."""
    for name, array in named(images).items():
        np.save(folder / f"{name}.npy", array)
    return folder


def hdf5(images: np.ndarray, folder: Path) -> Path:
    """As h5py writes it."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in named(images).items():
            file[name] = array
    return folder / "a.h5"


def pt(images: np.ndarray, folder: Path) -> Path:
    """As torch.save writes it."""
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in named(images).items()}, folder / "a.pt")
    return folder / "a.pt"


def safetensors(images: np.ndarray, folder: Path) -> Path:
    """As safetensors writes it."""
    from safetensors.numpy import save_file

    save_file(named(images), folder / "a.safetensors")
    return folder / "a.safetensors"


def idx(images: np.ndarray, folder: Path) -> Path:
    """MNIST's form: gray."""
    gray = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, SIDE, SIDE)
    for name, array in (("images-idx3", gray), ("labels-idx1", (np.arange(len(gray)) % CLASSES).astype(np.uint8))):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
    return folder


def cifar(images: np.ndarray, folder: Path) -> Path:
    """CIFAR-10's binary form: 32x32."""
    pixels = images.reshape(-1, 3 * 32 * 32)
    labels = (np.arange(len(pixels)) % CLASSES).astype(np.uint8)[:, None]
    for name, rows in (("data_batch_1.bin", slice(None, -40)), ("test_batch.bin", slice(-40, None))):
        (folder / name).write_bytes(np.hstack([labels[rows], pixels[rows]]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(map(str, range(CLASSES))))
    return folder


def pixel_table(images: np.ndarray, folder: Path) -> Path:
    """A row of 784 gray pixels for each image."""
    import pyarrow
    import pyarrow.csv

    pixels = images.reshape(-1)[: images.size // 784 // CLASSES * CLASSES * 784].reshape(-1, 784)
    columns = {"label": np.arange(len(pixels)) % CLASSES, **{f"pixel{i}": pixels[:, i] for i in range(784)}}
    pyarrow.csv.write_csv(pyarrow.table(columns), folder / "a.csv")
    return folder / "a.csv"


def parquet(images: np.ndarray, folder: Path) -> Path:
    """One group of rows."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": encoded(images), "label": np.arange(len(images)) % CLASSES})
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


def saved(images: np.ndarray, folder: Path) -> Path:
    """As Hugging Face datasets saves it."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"image": encoded(images), "label": np.arange(len(images)) % CLASSES})
    rows.save_to_disk(str(folder / "set"))
    return folder / "set"


def webdataset(images: np.ndarray, folder: Path) -> Path:
    """A shard."""
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, file in enumerate(encoded(images)):
            for ending, content in (("png", file), ("cls", str(number % CLASSES).encode())):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder / "a.tar"


def image_folder(images: np.ndarray, folder: Path) -> Path:
    """Class folders of PNG files."""
    for number, file in enumerate(encoded(images)):
        path = folder / "set" / f"class{number % CLASSES}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
    return folder / "set"


def zipped(images: np.ndarray, folder: Path) -> Path:
    """Class folders in a .zip."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for number, file in enumerate(encoded(images)):
            archive.writestr(f"class{number % CLASSES}/{number:06d}.png", file)
    return folder / "a.zip"


FORMS: dict[str, Callable[[np.ndarray, Path], Path]] = {
    ".npz": npz, ".npz, compressed": packed_npz, ".npy": npy, ".h5": hdf5, ".pt": pt, ".safetensors": safetensors, "idx": idx,
    "CIFAR, binary": cifar, ".csv of pixels": pixel_table, "parquet": parquet, "saved by Hugging Face": saved,
    "WebDataset": webdataset, "folders": image_folder, ".zip of folders": zipped,
}  # fmt: skip


def main() -> None:
    """Print a row for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    given = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (given.images, SIDE, SIDE, 3), dtype=np.uint8)
    print("| form | pixels, MiB | peak beside a small set, MiB | times the pixels | kept without mapped files, times |")
    print("|---|---:|---:|---:|---:|")
    for name in given.forms:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, kind) for kind in ("few", "all", "cache")]
            for path in paths:
                path.mkdir()
            read = [FORMS[name](some, path) for some, path in zip((images[:FEW], images), paths[:2], strict=True)]
            command = [sys.executable, "-c", CHILD, *map(str, read)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found = json.loads(re.findall(rb"\{.*\}", done.stdout)[0])
        times = [found[kind] / found["pixels"] for kind in ("peak", "anonymous")]
        print(f"| {name} | {found['pixels']:.0f} | {found['peak']:.0f} | {times[0]:.2f} | {times[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
