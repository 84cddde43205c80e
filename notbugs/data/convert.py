"""Images and labels of NumPy, torch and Hugging Face as the parts of a `Dataset`, and back. Pixels stay exact."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from notbugs.data.decode_notes import DARK
from notbugs.data.eight_bits import from_8bit
from notbugs.data.images import Images, load_images
from notbugs.data.names import first_line, numbered
from notbugs.data.sources.base import MOST_CLASSES
from notbugs.decoding.decode import place
from notbugs.errors import InputError, NotbugsWarning

if TYPE_CHECKING:
    from collections.abc import Iterable

    import datasets
    import pyarrow

LEVEL = 1e-3  # of 1/255: how far a float may be from a level that 8 bits hold
MODES = ("1", "L", "RGB")  # of Pillow's images, that become gray or RGB as they are
TO_8BIT = "round them: (255 * images).round().astype('uint8')"


class Parts(NamedTuple):
    """The fields of a `Dataset`."""

    images: Images
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]


class LabeledImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A map-style torch data set of (image, label): float32 (C, H, W) in [0, 1], and int. Made by `Dataset.to_torch`.

    Attributes
    ----------
    classes, names : tuple of str
    """

    def __init__(self, parts: Parts) -> None:
        self.images, self.labels, self.classes, self.names = parts

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends a plain loop
        row = index % len(self)
        return from_8bit(self.images[[row]])[0], int(self.labels[row])


def parts_of_numpy(
    images: np.ndarray, labels: "np.ndarray | Sequence[int]", classes: Sequence[str] | None, names: Sequence[str] | None
) -> Parts:
    """Of images (N, H, W), (N, H, W, 1) or (N, H, W, 3). Raises InputError."""
    if not isinstance(images, np.ndarray) or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        got = f"shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        remedy = _reshaped(images) if isinstance(images, np.ndarray) else "make it a NumPy array: numpy.asarray(images)"
        raise InputError("images", "must be a NumPy array N x H x W, N x H x W x 1 or N x H x W x 3", got, remedy)
    pixels = torch.from_numpy(np.ascontiguousarray(_levels(images, "images")))
    if 0 < (highest := int(pixels.amax()) if pixels.numel() else 0) < 255 // DARK:
        words = f"the images use only values up to {highest} of 255 and are nearly black: multiply them if that is their white"
        warnings.warn(words, NotbugsWarning, stacklevel=3)  # the caller of Dataset.from_numpy
    return _parts(pixels[:, None] if pixels.ndim == 3 else pixels.movedim(3, 1).contiguous(), labels, classes, names)


def _reshaped(images: np.ndarray) -> str:
    """How to bring an array into a shape that is taken; "" if that is not known."""
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return "move the channels to the end: images.transpose(0, 2, 3, 1)"
    if images.ndim == 4 and images.shape[3] == 4:
        return "leave the alpha channel out: images[..., :3]"
    sides = {channels: math.isqrt(images.shape[1] // channels) for channels in (1, 3)} if images.ndim == 2 else {}
    fitting = [(channels, side) for channels, side in sides.items() if side and channels * side**2 == images.shape[1]]
    if not fitting:
        return ""
    channels, side = fitting[0]
    if channels == 1:
        return f"give each image its shape: images.reshape(-1, {side}, {side})"
    first, last = f"images.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)", f"images.reshape(-1, {side}, {side}, 3)"
    return f"give each image its shape: {first} if a channel follows the other, as in CIFAR-10, else {last}"


def parts_of_torch(dataset: Any, classes: Sequence[str] | None, names: Sequence[str] | None) -> Parts:
    """Of a map-style torch data set of (image, label). Raises InputError."""
    if isinstance(dataset, torch.utils.data.IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        remedy = "collect its items in a list first"
        raise InputError("dataset", "must be map-style: with a length, and items by index", type(dataset).__name__, remedy)
    arrays, labels = list[np.ndarray](), list[int]()
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise InputError(f"item {index}", "must be (image, label)", type(item).__name__)
        arrays.append(as_array(item[0], f"item {index}"))
        labels.append(item[1])
    classes = classes or getattr(dataset, "classes", None)
    return _parts(_stacked(arrays), labels, classes, names or getattr(dataset, "names", None))


def parts_of_rows(rows: Any, image: str | None, label: str | None, names: Sequence[str] | None) -> Parts:
    """Of a Hugging Face set. Raises InputError."""
    import datasets

    if not isinstance(rows, datasets.Dataset):
        remedy = "take one split: rows['train']"
        raise InputError("rows", "must be a datasets.Dataset", type(rows).__name__, remedy)
    image = _column(rows.features, image, datasets.Image, "image")
    label = _column(rows.features, label, datasets.ClassLabel, "label")
    encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format(None)[image]
    images = load_images(encoded, range(len(rows)), [f"row {index}" for index in range(len(rows))]).images
    plain = rows.with_format(None)
    if names is None and "file_name" in rows.column_names:
        column = list(plain["file_name"])
        names = column if all(isinstance(name, str) for name in column) else None
    return _parts(images, list(plain[label]), getattr(rows.features[label], "names", None), names)


def rows_of(files: "Iterable[bytes]", labels: Tensor, classes: Sequence[str], names: Sequence[str]) -> Any:
    """A Hugging Face set with the columns image, label and file_name. files: encoded images."""
    import datasets

    columns = {
        "image": [{"bytes": content, "path": None} for content in files],
        "label": labels.tolist(),
        "file_name": list(names),
    }
    return datasets.Dataset.from_dict(columns, features=row_features(classes))


def row_features(classes: Sequence[str]) -> "datasets.Features":
    """The columns of a Hugging Face set: image, label and file_name."""
    import datasets

    # Names in a column of their own: Hugging Face shortens the path inside an image cell to its last part.
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(classes)),
        "file_name": datasets.Value("string"),
    }
    return datasets.Features(features)


def record_batch(rows: Sequence[tuple[bytes, int, str]], schema: "pyarrow.Schema") -> "pyarrow.RecordBatch":
    """Rows of these columns: encoded image, label and file name of each."""
    import pyarrow

    files, labels, names = zip(*rows, strict=True) if rows else ((), (), ())
    columns = [[{"bytes": content, "path": None} for content in files], labels, names]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pyarrow.record_batch(arrays, schema=schema)


def as_array(image: Any, location: str) -> np.ndarray:
    """One image as uint8 (H, W) or (H, W, 3).

    Parameters
    ----------
    image : PIL.Image.Image, Tensor or ndarray
        A tensor is (C, H, W) or (H, W), an array (H, W), (H, W, 1) or (H, W, 3).
    location : str
        For messages.

    Raises
    ------
    InputError
        For another type or shape, and for values that 8 bits do not hold.

    Examples
    --------
    >>> as_array(torch.tensor([[[0.0, 1.0]]]), "item 0")
    array([[  0, 255]], dtype=uint8)
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            remedy = "convert it: image.convert('RGB')"
            raise InputError(location, f"must be of one of the modes {', '.join(MODES)}", image.mode, remedy)
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    if not isinstance(image, Tensor | np.ndarray):
        remedy = "give a PIL image, an array or a tensor (transforms.ToTensor())"
        raise InputError(location, "must be an image", type(image).__name__, remedy)
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if isinstance(image, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise InputError(location, "must have 1 or 3 channels, in tensors first, in arrays last", f"shape {tuple(image.shape)}")
    return _levels(array, location)


def _levels(array: np.ndarray, location: str) -> np.ndarray:
    """Pixels as uint8: as they are, or floats in [0, 1] that are multiples of 1/255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        remedy = "255 * images.astype('uint8')" if array.dtype == bool else "for 0 to 255: images.astype('uint8')"
        raise InputError(location, "must be uint8, or floats in [0, 1]", array.dtype, remedy)
    levels = np.round(array * 255)
    if not (np.abs(array * 255 - levels).max(initial=0) <= LEVEL and levels.min(initial=0) >= 0 and levels.max(initial=0) <= 255):
        got = f"floats from {array.min():g} to {array.max():g}"
        raise InputError(
            location, "floats must be multiples of 1/255 in [0, 1], which 8 bits hold", got, f"undo normalization, {TO_8BIT}"
        )
    return levels.astype(np.uint8)


def _stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    """uint8 (N, C, H, W): RGB if any image is."""
    if not arrays:
        raise InputError("dataset", "holds no images")
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) > 1:
        got = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:2])
        raise InputError("images", "must have one size", got, "resize them first, as with transforms.Resize((H, W))")
    channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    images = np.empty((len(arrays), channels, *arrays[0].shape[:2]), np.uint8)
    for row, array in enumerate(arrays):
        place(images, row, array)
    return torch.from_numpy(images)


def _parts(
    images: Images, labels: "np.ndarray | Sequence[int]", classes: Sequence[str] | None, names: Sequence[str] | None
) -> Parts:
    """With default classes "0", "1", … and names."""
    try:
        given = np.asarray(labels)
    except (TypeError, ValueError, OverflowError) as error:  # lists of several lengths, for example
        raise InputError("labels", "must be one whole number for each image", first_line(error)) from None
    if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu"):
        remedy = "classes, labels = numpy.unique(labels, return_inverse=True)"
        raise InputError("labels", "must be one whole number for each image", f"{given.dtype}, shape {given.shape}", remedy)
    found = torch.from_numpy(given.astype(np.int64))
    if len(found) and int(found.min()) < 0:
        remedy = "leave such images out, or number the labels: classes, labels = numpy.unique(labels, return_inverse=True)"
        raise InputError("labels", "must be 0 or more", int(found.min()), remedy)
    if classes is None and len(found) and int(found.max()) >= MOST_CLASSES:
        raise InputError("labels", f"must be below {MOST_CLASSES:,}, or have names (classes)", int(found.max()))
    if isinstance(classes, str) or (classes is not None and len({*map(str, classes)}) < len(classes)):
        got = repr(classes) if isinstance(classes, str) else "a name twice"
        raise InputError("classes", "must be a sequence of different names", got)
    named = map(str, range(int(found.max()) + 1 if len(found) else 0)) if classes is None else map(str, classes)
    return Parts(images, found, tuple(named), tuple(numbered(len(found)) if names is None else names))


def _column(features: Any, name: str | None, kind: type, what: str) -> str:
    """The column that was named, the only one of its type, or the one with the usual name."""
    typed = [column for column, feature in features.items() if isinstance(feature, kind)]
    chosen = name or (typed[0] if len(typed) == 1 else what)
    if chosen not in features:
        raise InputError(what, "must be the name of a column", name or ", ".join(features), f"name it: {what}=...")
    return chosen
