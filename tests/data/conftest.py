"""Image files, folders and small data sets that several test files use: `from data.conftest import ...`."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from notbugs import data
from notbugs.errors import InputError

torch.set_num_threads(1)
FORMS = ("folder", "npz", "npz-channels-first", "parquet", "saved")


def random_image(seed: int, mode: str = "RGB", size: tuple[int, int] = (6, 6)) -> Image.Image:
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image_folder(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3, splits: tuple[str, ...] = ("train", "test")
) -> Path:
    for i, split in enumerate(splits):
        for j, name in enumerate(classes):
            for k in range(each):
                save(random_image(100 * i + 10 * j + k), root / split / name / f"{k}.png")
    return root


def random_dataset(n: int = 6, channels: int = 3, classes: tuple[str, ...] = ("a", "b")) -> data.Dataset:
    images = torch.randint(0, 256, (n, channels, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    labels = torch.arange(n) % len(classes)
    return data.Dataset(images, labels, classes, tuple(f"{classes[i % len(classes)]}/{i}.png" for i in range(n)))


def stored(dataset: data.Dataset) -> torch.Tensor:
    """All images, uint8."""
    return dataset.images[:]


def equal(one: data.Dataset, other: data.Dataset) -> bool:
    pixels = torch.equal(stored(one), stored(other))
    return pixels and torch.equal(one.labels, other.labels) and one.classes == other.classes and one.names == other.names


def load_error(dataset: object, **options: Any) -> str:
    """The one line with which a bad data set is rejected."""
    with pytest.raises(InputError) as caught:
        data.load(str(dataset), **options)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and len(text) < 500
    return text
