"""Data sets to and from NumPy, torch and Hugging Face: exact round trips, and what is refused."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import equal, image_folder, random_dataset, random_image, stored
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from notbugs import data
from notbugs.data import Dataset
from notbugs.data.images import LazyImages
from notbugs.decoding.decode import DecodeOptions
from notbugs.errors import InputError, NotbugsWarning

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trips_are_exact(channels: int) -> None:
    whole = random_dataset(7, channels, ("b", "a"))
    images, labels = whole.to_numpy()
    assert equal(Dataset.from_numpy(images, labels, classes=whole.classes, names=whole.names), whole)
    assert equal(Dataset.from_torch(whole.to_torch()), whole)
    assert equal(Dataset.from_huggingface(whole.to_huggingface()), whole)
    images[:] = 0
    assert not torch.equal(stored(whole), torch.zeros_like(stored(whole))), "arrays are copies"


def test_a_torch_data_set_works_in_a_loader_and_in_other_processes() -> None:
    whole = random_dataset(6)
    images, labels = next(iter(DataLoader(pickle.loads(pickle.dumps(whole.to_torch())), batch_size=6)))
    assert torch.equal(data.to_8bit(images), stored(whole)) and torch.equal(labels, whole.labels)
    assert len([*whole.to_torch()]) == 6 and torch.equal(whole.to_torch()[-1][0], images[5])


def test_images_on_disk_are_decoded_when_they_are_needed(tmp_path: Path) -> None:
    image_folder(tmp_path, splits=("",))
    files = sorted(tmp_path.rglob("*.png"))
    names = tuple(path.name for path in files)
    lazy = LazyImages(files, tuple(range(6)), names, (3, 6, 6), DecodeOptions())
    whole = Dataset(lazy, torch.arange(6) // 3, ("cat", "dog"), names)
    assert equal(Dataset.from_torch(whole.to_torch()), whole) and equal(Dataset.from_huggingface(whole.to_huggingface()), whole)


def test_all_usual_images_are_accepted_and_levels_are_exact() -> None:
    array = stored(random_dataset(1))[0].permute(1, 2, 0).numpy()
    items: list[Any] = [
        Image.fromarray(array),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        data.from_8bit(stored(random_dataset(1)))[0],
    ]
    made = Dataset.from_torch([(item, np.int64(0)) for item in items])
    assert all(torch.equal(image, made.images[0]) for image in stored(made)) and torch.equal(made.images[0], items[2])
    for floats in (data.from_8bit(LEVELS), LEVELS.double() * (1 / 255)):
        assert torch.equal(stored(Dataset.from_torch(TensorDataset(floats, torch.tensor([0])))), LEVELS)
    gray = [(Image.new("L", (4, 3), 7), 0), (Image.new("1", (4, 3), 1), 1), (np.full((3, 4, 1), 9, np.uint8), 1)]
    assert stored(Dataset.from_torch(gray)).flatten(1)[:, 0].tolist() == [7, 255, 9]
    mixed = Dataset.from_torch([*gray, (Image.new("RGB", (4, 3), (1, 2, 3)), 0)])
    assert mixed.shape == (3, 3, 4) and (stored(mixed)[0] == 7).all() and mixed.classes == ("0", "1")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGBA", (2, 2)), r"item 0: must be of one of the modes .* got RGBA; convert it"),
        (torch.randn(3, 2, 2), "multiples of 1/255.*undo normalization"),
        (torch.full((1, 2, 2), 1.5), "multiples of 1/255"),
        (torch.full((1, 2, 2), float("nan")), "multiples of 1/255"),
        (torch.full((1, 2, 2), 0.5), "round them"),
        (torch.zeros(1, 2, 2, dtype=torch.int32), "must be uint8, or floats"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), "must have 1 or 3 channels"),
        ("cat.png", "must be an image, got str"),
    ],
)
def test_other_images_are_refused_with_a_remedy(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.from_torch([(image, 0)])


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    """No items."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return iter(())


def test_other_data_sets_are_refused_with_a_remedy() -> None:
    import datasets

    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="map-style"):
        Dataset.from_torch(Stream())
    with pytest.raises(InputError, match=r"item 0: must be \(image, label\)"):
        Dataset.from_torch([pixels[0]])
    with pytest.raises(InputError, match=r"must have one size.*resize them first"):
        Dataset.from_torch([(random_image(0), 0), (random_image(0, size=(3, 3)), 0)])
    with pytest.raises(InputError, match="holds no images"):
        Dataset.from_torch([])
    with pytest.raises(InputError, match=r"transpose\(0, 2, 3, 1\)"):
        Dataset.from_numpy(pixels.transpose(0, 3, 1, 2), [0, 1])
    with pytest.raises(InputError, match=r"leave the alpha channel out: images\[\.\.\., :3\]"):
        Dataset.from_numpy(np.zeros((2, 4, 4, 4), np.uint8), [0, 1])
    of_cifar = (
        r"images.reshape\(-1, 3, 32, 32\).transpose\(0, 2, 3, 1\) if .* as in CIFAR-10, else images.reshape\(-1, 32, 32, 3\)"
    )
    for columns, remedy in ((64, r"images.reshape\(-1, 8, 8\)$"), (3072, of_cifar)):
        with pytest.raises(InputError, match=f"give each image its shape: {remedy}"):
            Dataset.from_numpy(np.zeros((2, columns), np.uint8), [0, 1])
    with pytest.raises(InputError, match=r"got bool; 255 \* images.astype\('uint8'\)"):
        Dataset.from_numpy(pixels.astype(bool), [0, 1])
    with pytest.raises(InputError, match="labels: must be 0 or more, got -1; leave such images out"):
        Dataset.from_numpy(pixels, [-1, -1])
    with pytest.warns(NotbugsWarning, match="the images use only values up to 1 of 255 and are nearly black: multiply them"):
        Dataset.from_numpy(pixels + 1, [0, 1])
    with pytest.raises(InputError, match=r"numpy\.unique"):
        Dataset.from_numpy(pixels, np.array(["cat", "dog"]))
    with pytest.raises(InputError, match="labels: must be from 0 to 0"):
        Dataset.from_numpy(pixels, [0, 1], classes=["cat"])
    for classes, got in (("ab", "'ab'"), (["a", "a"], "a name twice")):
        with pytest.raises(InputError, match=f"classes: must be a sequence of different names, got {got}"):
            Dataset.from_numpy(pixels, [0, 1], classes=classes)
    with pytest.raises(InputError, match=r"images: must be a NumPy array .*, got Tensor; make it a NumPy array"):
        Dataset.from_numpy(torch.from_numpy(pixels), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs one label and one name for each image"):
        Dataset.from_numpy(pixels, [0])
    rows = random_dataset().to_huggingface()
    with pytest.raises(InputError, match="take one split"):
        Dataset.from_huggingface(datasets.DatasetDict({"train": rows}))
    with pytest.raises(InputError, match="must be the name of a column"):
        Dataset.from_huggingface(rows, image="picture")


def test_columns_of_other_names_are_found() -> None:
    whole = random_dataset()
    rows = whole.to_huggingface().rename_columns({"image": "img", "label": "kind"}).remove_columns("file_name")
    made = Dataset.from_huggingface(rows)
    assert torch.equal(stored(made), stored(whole)) and made.classes == whole.classes and made.names[0] == "00000.png"
    assert equal(Dataset.from_huggingface(rows, image="img", label="kind", names=whole.names), whole)
