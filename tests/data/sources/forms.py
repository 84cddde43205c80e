"""A small data set in every form of file that is read: `from data.sources.forms import ...`."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from data.conftest import random_image
from safetensors.numpy import save_file

CLASSES = ("cat", "dog")


def arrays(side: int = 5, channels: int = 0) -> dict[str, np.ndarray]:
    """Eight training and four test images of two classes."""
    generator = np.random.default_rng(0)
    shape = (side, side, channels) if channels else (side, side)
    return {
        "x_train": generator.integers(0, 256, (8, *shape), dtype=np.uint8),
        "y_train": np.arange(8) % 2,
        "x_test": generator.integers(0, 256, (4, *shape), dtype=np.uint8),
        "y_test": np.arange(4) % 2,
    }


def idx(folder: Path, *, gz: bool = False, begin: str = "", sign: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = arrays()
    for part, name in (("train", "train"), ("test", "t10k")):
        for kind, array in (("images", data[f"x_{part}"]), ("labels", data[f"y_{part}"].astype(np.uint8))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            file = folder / f"{begin}{name}-{kind}{sign}idx{array.ndim}-ubyte"
            content = head + array.tobytes()
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(content)) if gz else file.write_bytes(content)
    return folder


def cifar(folder: Path, *, hundred: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    names = {"train.bin": 4, "test.bin": 2} if hundred else {"data_batch_1.bin": 4, "data_batch_2.bin": 4, "test_batch.bin": 2}
    for name, count in names.items():
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = (np.arange(count, dtype=np.uint8) % 2)[:, None]
        (folder / name).write_bytes(np.hstack([1 - fine, fine, pixels] if hundred else [fine, pixels]).tobytes())
    for name in ("fine_label_names.txt", "coarse_label_names.txt") if hundred else ("batches.meta.txt",):
        (folder / name).write_text("cat\ndog\n\n" if not name.startswith("coarse") else "wild\ntame\n")
    return folder


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    random_image(seed).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is not a literal
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, count: int = 8, ending: str = "cls", mode: str = "w") -> Path:
    files = {}
    for i in range(count):
        files[f"{i:04d}.png"] = png(i)
        files[f"{i:04d}.{ending}"] = json.dumps({"label": i % 2}).encode() if ending == "json" else str(i % 2).encode()
    return tar(path, files, mode)


def tree(path: Path, mode: str = "w", begin: str = "") -> Path:
    names = [f"{begin}{part}/{name}/{i}.png" for part in ("train", "test") for name in CLASSES for i in range(3)]
    return tar(path, {name: png(seed) for seed, name in enumerate(names)}, mode)


def archive(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as opened:  # type: ignore[arg-type]
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def image_zip(path: Path, begin: str = "pets/") -> Path:
    names = [f"{begin}{part}/{name}/{i}.png" for part in ("train", "test") for name in CLASSES for i in range(3)]
    return archive(path, {name: png(seed) for seed, name in enumerate(names)})


def tensors(path: Path) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in arrays(channels=3).items()}, path)
    return path


def safetensors(path: Path) -> Path:
    save_file(arrays(channels=3), path)
    return path


def pixel_table(path: Path, count: int = 8, *, label: bool = True, side: int = 5, begin: str = "pixel") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(count).integers(0, 256, (count, side * side))
    header = (["label"] if label else []) + [f"{begin}{i}" for i in range(side * side)]
    rows = [([str(3 * (i % 2))] if label else []) + list(map(str, row)) for i, row in enumerate(pixels.tolist())]
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    return path
