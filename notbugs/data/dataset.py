"""The one type that every stage passes on: labeled images, in memory or on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from posixpath import splitext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from notbugs import inline
from notbugs.data import convert
from notbugs.data.eight_bits import as_arrays, from_8bit
from notbugs.data.images import Images, Index, encode_png, positions
from notbugs.errors import InputError

SHOWN = 10  # images in a notebook


@dataclass(frozen=True)
class Dataset:
    """N labeled images.

    Parameters
    ----------
    images : Tensor or LazyImages, uint8, (N, C, H, W)
        C is 1 (gray) or 3 (RGB).
    labels : Tensor, int64, (N,)
        Indices into `classes`.
    classes : tuple of str, (K,)
        Class names.
    names : tuple of str, (N,)
        File names, "CLASS/file.png" as a rule.
    groups : tuple of str, (N,), or empty
        What belongs together, frames of one video for example: see `DataConfig.group`.

    Raises
    ------
    InputError
        If lengths, types or label range do not fit together.

    Examples
    --------
    >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    >>> dataset = Dataset(images, torch.tensor([0, 1, 0]), ("cat", "dog"), ("a.png", "b.png", "c.png"))
    >>> len(dataset), dataset.shape, dataset.select([1]).names
    (3, (1, 8, 8), ('b.png',))
    """

    images: Images
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.names):
            counts = f"{len(self.images)} images, {len(self.labels)} labels, {len(self.names)} names"
            raise InputError("dataset", "needs one label and one name for each image", counts)
        if len(self.groups) not in (0, len(self.labels)):
            raise InputError("groups", "must be one for each image, or none", f"{len(self.groups)} for {len(self.labels)} images")
        if len(self.images.shape) != 4 or (isinstance(self.images, Tensor) and self.images.dtype != torch.uint8):
            raise InputError("images", "must be 8-bit, N x C x H x W", tuple(self.images.shape), "see to_8bit")
        if self.labels.dtype != torch.int64:
            raise InputError("labels", "must be int64", self.labels.dtype)
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            got = f"{int(self.labels.min())} to {int(self.labels.max())}"
            raise InputError("labels", f"must be from 0 to {len(self.classes) - 1}", got)

    def __len__(self) -> int:
        return len(self.labels)

    def _repr_html_(self) -> str:
        """In a notebook: what it is, and one image of each of the first classes."""
        channels, height, width = self.shape
        counts = [int((self.labels == label).sum()) for label in range(len(self.classes))]
        first = [int((self.labels == label).nonzero()[0]) for label, count in enumerate(counts) if count][:SHOWN]
        shown = [self.classes[int(self.labels[row])] for row in first]
        images = encode_png(self.images[first]) if first else []
        columns, cells = ("images", "shape", "classes"), (len(self), f"{channels}x{height}x{width}", len(self.classes))
        return inline.table(columns, [cells]) + inline.pictures(zip(images, shown, strict=True))

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def pixels(self, index: Index) -> Tensor:
        """The images at index as float32 (n, C, H, W) in [0, 1]."""
        return from_8bit(self.images[index])

    def select(self, index: Index) -> "Dataset":
        """The subset at index, in the order of index."""
        images = self.images[index] if isinstance(self.images, Tensor) else self.images.select(index)
        chosen = positions(index, len(self))
        names, groups = (tuple(values[i] for i in chosen) if values else () for values in (self.names, self.groups))
        return Dataset(images, self.labels[index], self.classes, names, groups)

    def versions(self, images: Images, times: int) -> "Dataset":
        """Several versions of each image, uint8 (times * N, C, H, W): those of a.png are named a.png, a~2.png, a~3.png, …

        Raises
        ------
        InputError
            If such a name is already taken.
        """
        return Dataset(images, self.labels.repeat(times), self.classes, self.repeated_names(times), self.groups * times)

    def repeated_names(self, times: int) -> tuple[str, ...]:
        """The names of so many versions of each image."""
        if times == 1:
            return self.names
        names = list(self.names)
        for number in range(2, times + 1):
            names += [f"~{number}".join(splitext(name)) for name in self.names]
        if len(set(names)) < len(set(self.names)) * times:
            raise InputError("versions", "need file names that are not taken", "files called NAME~2", "rename them")
        return tuple(names)

    @classmethod
    def from_numpy(
        cls,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int],
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> "Dataset":
        """A data set of arrays.

        Parameters
        ----------
        images : ndarray, (N, H, W), (N, H, W, 1) or (N, H, W, 3)
            uint8, or floats in [0, 1] that are multiples of 1/255.
        labels : ndarray or sequence of int, (N,)
        classes : sequence of str, optional
            Default: "0", "1", …
        names : sequence of str, optional
            Default: "00000.png", "00001.png", …

        Raises
        ------
        InputError
            For other shapes and types, and for pixels that 8 bits do not hold.

        Examples
        --------
        >>> dataset = Dataset.from_numpy(np.zeros((2, 8, 8), np.uint8), [0, 1], classes=["cat", "dog"])
        >>> dataset.shape, dataset.names
        ((1, 8, 8), ('00000.png', '00001.png'))
        """
        return cls(*convert.parts_of_numpy(images, labels, classes, names))

    def to_numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 (N, H, W) or (N, H, W, 3), and labels, int64 (N,). `from_numpy` inverts it.

        Examples
        --------
        >>> from notbugs import data
        >>> images, labels = data.load("digits").test.to_numpy()
        >>> images.shape, images.dtype, labels.shape
        ((450, 8, 8), dtype('uint8'), (450,))
        """
        return as_arrays(self.images[:]).copy(), self.labels.numpy().copy()

    @classmethod
    def from_torch(cls, dataset: Any, *, classes: Sequence[str] | None = None, names: Sequence[str] | None = None) -> "Dataset":
        """A data set of a map-style torch data set, such as those of torchvision: all items are read once, into memory.

        Parameters
        ----------
        dataset : torch.utils.data.Dataset, or any sequence
            Of (image, label). An image is a PIL image, a uint8 tensor or one of floats in [0, 1] that are multiples of 1/255,
            (C, H, W), or a uint8 array (H, W) or (H, W, 3).
        classes : sequence of str, optional
            Default: `dataset.classes`; else "0", "1", …
        names : sequence of str, optional
            Default: `dataset.names`; else "00000.png", "00001.png", …

        Raises
        ------
        InputError
            For other items, images of several sizes, and pixels that 8 bits do not hold.

        Examples
        --------
        >>> from torch.utils.data import TensorDataset
        >>> Dataset.from_torch(TensorDataset(torch.ones(2, 3, 8, 8), torch.tensor([0, 1]))).classes
        ('0', '1')
        """
        return cls(*convert.parts_of_torch(dataset, classes, names))

    def to_torch(self) -> convert.LabeledImages:
        """A map-style torch data set of (image, label), for a DataLoader. `from_torch` inverts it.

        Examples
        --------
        >>> from notbugs import data
        >>> image, label = data.load("digits").test.to_torch()[0]
        >>> image.shape, image.dtype, label
        (torch.Size([1, 8, 8]), torch.float32, 1)
        """
        return convert.LabeledImages(convert.Parts(self.images, self.labels, self.classes, self.names))

    @classmethod
    def from_huggingface(
        cls, rows: Any, *, image: str | None = None, label: str | None = None, names: Sequence[str] | None = None
    ) -> "Dataset":
        """A data set of one split of a Hugging Face set.

        Images are decoded as in `data.load`.

        Parameters
        ----------
        rows : datasets.Dataset
        image, label : str, optional
            Columns. Default: the only one with images and the only one with class labels, else those called image and label.
        names : sequence of str, optional
            Default: the column file_name; else "00000.png", "00001.png", …

        Raises
        ------
        InputError
            For other types, images of several sizes, and labels that are no whole numbers.

        Examples
        --------
        >>> from notbugs import data
        >>> digits = data.load("digits").test.select([0, 1])
        >>> Dataset.from_huggingface(digits.to_huggingface()).labels
        tensor([1, 5])
        """
        return cls(*convert.parts_of_rows(rows, image, label, names))

    def to_huggingface(self) -> Any:
        """A `datasets.Dataset` with the columns image (PNG), label and file_name. `from_huggingface` inverts it.

        Examples
        --------
        >>> from notbugs import data
        >>> rows = data.load("digits").test.select([0, 1]).to_huggingface()
        >>> rows.column_names, rows[0]["label"]
        (['image', 'label', 'file_name'], 1)
        """
        return convert.rows_of(encode_png(self.images), self.labels, self.classes, self.names)

    def with_images(self, images: Images) -> "Dataset":
        """The same labels and names with other images, uint8 (N, C, H, W)."""
        return replace(self, images=images)

    def with_labels(self, labels: Tensor) -> "Dataset":
        """The same images and names with other labels, int64 (N,)."""
        return replace(self, labels=labels)
