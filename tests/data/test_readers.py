"""The code of the card, run by the libraries that it is for, where they are installed: exact pixels, labels, order of classes.

They are no requirements of the tests: torchvision and TensorFlow take gigabytes. Their rules are restated in test_card.py, which
runs everywhere. docs/writing.md has the versions that this file was run with.
"""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import FORMS, random_dataset, stored

from notbugs import data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries are large, and warn of each other

NUMBERS = tuple(map(str, range(12)))  # sorted by name: 0, 1, 10, 11, 2
SETS = {
    "sorted": random_dataset(9, 3, ("cat", "dog", "emu")),
    "numbers": random_dataset(24, 3, NUMBERS),
    "gray": random_dataset(24, 1, NUMBERS),
    "empty": random_dataset(24, 3, NUMBERS).with_labels(torch.arange(24) % 12 // 2 * 2),
    "unicode": random_dataset(10, 3, ("ant", "Zèbre", "日本", "d'été 1", "яблоко")),
}
Pair = tuple[bytes, int]  # the pixels of an image as (H, W, C), and its label


def need(library: str) -> None:
    try:
        module = import_module(library)
        if library == "fiftyone":
            module.list_datasets()  # without a MongoDB it can be imported, but not used
    except Exception as error:  # torchvision raises RuntimeError if it was built for another torch
        pytest.skip(f"{library}: {error}")


def pairs(images: Any, labels: Any) -> list[Pair]:
    """images : (N, H, W, C), (N, H, W) or (N, C, H, W), in [0, 1] or uint8."""
    array = np.asarray(images)
    if array.dtype != np.uint8:
        assert array.min() >= 0 and array.max() <= 1
        array = (array * 255).round().astype(np.uint8)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    return [(image.tobytes(), int(label)) for image, label in zip(array, np.asarray(labels), strict=True)]


def of_torchvision(found: dict[str, Any]) -> tuple[list[Pair], list[str]]:
    return [pair for images, labels in found["loader"] for pair in pairs(images, labels)], found["data"].classes


def of_hugging_face(found: dict[str, Any]) -> tuple[list[Pair], list[str]]:
    rows = found["data"]
    return pairs([np.asarray(image) for image in rows["image"]], rows["label"]), rows.features["label"].names


def of_keras(found: dict[str, Any]) -> tuple[list[Pair], None]:
    return [pair for images, labels in found["data"] for pair in pairs(images, labels)], None


def of_fastai(found: dict[str, Any]) -> tuple[list[Pair], list[str] | None]:
    loaders = found["loaders"]
    parts = [loader.new(num_workers=0, shuffle=False, drop_last=False) for loader in loaders.loaders]
    vocab = list(loaders.vocab) if "block" in found else None
    return [pair for part in parts for images, labels in part for pair in pairs(images.cpu(), labels.cpu())], vocab


def of_fiftyone(found: dict[str, Any]) -> tuple[list[Pair], list[str]]:
    from PIL import Image

    classes = found["data"].default_classes or found["data"].distinct("ground_truth.label")
    try:
        samples = [(np.asarray(Image.open(each.filepath)), classes.index(each.ground_truth.label)) for each in found["data"]]
    finally:
        found["data"].delete()
    return pairs(*zip(*samples, strict=True)), classes


READERS: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[list[Pair], list[str] | None]]]] = {
    "torchvision": ("torchvision", of_torchvision),
    "Hugging Face datasets": ("datasets", of_hugging_face),
    "Keras": ("tensorflow", of_keras),
    "fastai": ("fastai.vision.all", of_fastai),
    "FiftyOne": ("fiftyone", of_fiftyone),
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if "fiftyone" not in sys.modules:  # reads it once
        monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path_factory.mktemp("fiftyone")))
        monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")


def code_of(card: Path) -> dict[str, str]:
    return dict(re.findall(r"\n([\w ]+):\n\n```python\n(.*?)\n```\n", card.read_text(encoding="utf-8"), re.DOTALL))


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "<card>", "exec"), names)
    return names


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_folders_finds_pixels_labels_and_order(tmp_path: Path, reader: str, name: str) -> None:
    library, read = READERS[reader]
    need(library)
    whole = SETS[name]
    data.export(whole, tmp_path / "set", "folder", card="")
    found, classes = read(run(code_of(tmp_path / "set/README.md")[reader]))
    assert sorted(found) == sorted(pairs(stored(whole), whole.labels))
    assert classes is None or tuple(classes) == whole.classes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", [*FORMS[1:], "webdataset"])
def test_fastai_opens_the_other_forms(tmp_path: Path, form: str, channels: int) -> None:
    need("fastai.vision.all")
    whole = random_dataset(24, channels, NUMBERS)
    data.export(whole, tmp_path / "set", form, card="")
    found, _ = of_fastai(run(code_of(tmp_path / "set/README.md")["fastai"]))
    assert sorted(found) == sorted(pairs(stored(whole), whole.labels))


@pytest.mark.parametrize("channels", [1, 3])
def test_webdataset_opens_shards(tmp_path: Path, channels: int) -> None:
    need("webdataset")
    whole = random_dataset(24, channels, NUMBERS)
    data.export(whole, tmp_path / "set", "webdataset", card="")
    rows = list(run(code_of(tmp_path / "set/README.md")["WebDataset"])["data"])
    found = pairs([np.asarray(image) for image, _ in rows], [label for _, label in rows])
    assert found == pairs(stored(whole), whole.labels)
