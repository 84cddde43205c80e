"""Files of tensors: .pt and .pth of plain tensors, read without running code; .safetensors."""

import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from notbugs.data.names import printable
from notbugs.data.pixel_arrays import StoredArray, read_pieces, rows_of_piece
from notbugs.data.sources.arrays import LazyArrays, check_one_of_each, reading, whole
from notbugs.data.sources.class_names import is_naming, named_array
from notbugs.data.sources.limits import check_expansion, check_members, is_zip, words_array
from notbugs.errors import InputError

SAVE = 'save plain tensors: torch.save({"train_images": images, "train_labels": labels}, path)'
DEEPEST = 4  # dictionaries in dictionaries
PLAIN_TYPES = {"U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
MOST_ENTRIES = 1000  # one dictionary can stand in itself, or in others, any number of times


def read_torch(path: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a .pt file: a dictionary of them, (images, labels), or a list of (image, label). Raises InputError."""
    with reading(path, "a file of tensors", SAVE):
        try:
            content = load_saved(path, mapped=True)
        except Exception as error:
            if "Unsupported" not in str(error) and "TorchScript" not in str(error):
                raise
            rule = "holds more than tensors, and reading it could run any code"
            raise InputError(printable(str(path)), rule, "Python objects (pickle)", SAVE) from None
        found = list(_flatten(path, "", content, DEEPEST, iter(range(MOST_ENTRIES))))
        check_one_of_each(path, [name for name, _ in found])
        arrays = {
            name: value if isinstance(value, StoredArray) else StoredArray.of(_array(path, name, value)) for name, value in found
        }
        return LazyArrays.of(arrays.__getitem__, tuple(arrays))


def load_saved(path: Path, *, mapped: bool = False) -> object:
    """What `torch.save` wrote, on the CPU. No code of the file runs, and no more memory is set aside than the file has bytes.

    mapped: tensors stay in the file until they are looked at, unless its form is old. It raises what PyTorch raises.
    """
    packed = is_zip(path)
    if packed:
        _check_stored(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # from bytes in memory nothing larger than the file is set aside, whatever an old file claims
        source = path if packed else io.BytesIO(path.read_bytes())
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped and packed)


def _check_stored(path: Path) -> None:
    """Raises ValueError where the file is packed: torch.save stores, and what is packed may expand to any size."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in archive.infolist()):
            raise ValueError("it is packed, unlike the files of torch.save")
        check_members(path, archive.infolist())


def holds_its_values(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary one on the CPU that has all values it shows: one can be shown any number of times."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _named(path: Path, place: str, content: object) -> object:
    """(images, labels) and a list of (image, label) as a dictionary; all else as it is."""
    if not isinstance(content, list | tuple) or all(isinstance(item, str | int) for item in content):
        return content
    if all(isinstance(item, Tensor) for item in content):
        large, small = ([item for item in content if (item.ndim >= 3) == wanted] for wanted in (True, False))
        if len(large) == len(small) == 1:
            return {"images": large[0], "labels": small[0]}
    if all(_is_example(item) for item in content):
        # A list may hold one tensor any number of times, of which the file has a single copy
        check_expansion(path, sum(item[0].numel() * item[0].element_size() for item in content))
        labels = torch.tensor([int(item[1]) for item in content])
        return {"images": _stacked([item[0] for item in content]), "labels": labels}
    rule = "must be a dictionary of tensors, (images, labels), or a list of (image, label)"
    got = f"a {type(content).__name__} of {len(content)}"
    if all(isinstance(item, list | tuple) and len(item) == 2 for item in content):
        got += " pairs, which may be parts or batches"
    raise InputError(printable(place), rule, got, SAVE)


def _stacked(images: Sequence[Tensor]) -> StoredArray:
    """Tensors of one shape as an array, of which a few are put together at a time. Raises ValueError for several shapes."""
    kinds = {(tuple(image.shape), image.dtype) for image in images}
    if len(kinds) > 1:
        raise ValueError("images must have one size and type")
    row = images[0].detach().numpy()
    shape = (len(images), *row.shape)
    step = rows_of_piece(shape, row.dtype)
    return StoredArray(
        shape,
        row.dtype,
        lambda: (torch.stack(images[start : start + step]).numpy() for start in range(0, len(images), step)),  # type: ignore[arg-type]
    )


def _is_example(item: object) -> bool:
    """Whether this is one image with its label, a whole number."""
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[0], Tensor) or item[0].ndim not in (2, 3):
        return False
    label = item[1]
    if isinstance(label, Tensor):
        return label.numel() == 1 and not label.is_floating_point() and not label.is_complex()
    return isinstance(label, int)


def _flatten(
    path: Path, name: str, content: object, deepest: int, left: Iterator[int]
) -> Iterator[tuple[str, Tensor | np.ndarray | StoredArray | list[str] | list[int]]]:
    """The tensors and lists of words or numbers in dictionaries, by the keys that lead to them: train/images, class_to_idx."""
    if next(left, None) is None:
        raise InputError(printable(str(path)), f"must have at most {MOST_ENTRIES:,} entries", remedy=SAVE)
    content = _named(path, f"{path}: {name}" if name else str(path), content)
    if isinstance(content, Mapping) and is_naming(name):
        yield name, named_array(f"{path}: {name}", content)
    elif isinstance(content, Mapping) and deepest:
        for key, value in content.items():
            yield from _flatten(path, f"{name}/{key}".strip("/"), value, deepest - 1, left)
    elif isinstance(content, Tensor | StoredArray):
        yield name, content
    elif isinstance(content, Sequence) and content and not isinstance(content, str):
        for kind in (str, int):
            if all(type(item) is kind for item in content):
                yield name, list(content)


def _array(path: Path, name: str, value: Tensor | np.ndarray | list[str] | list[int]) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, Tensor):
        return words_array(path, value) if isinstance(value[0], str) else np.array(value)
    tensor = value.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise InputError(printable(f"{path}: {name}"), "must be an ordinary tensor", str(tensor.layout), SAVE)
    if not holds_its_values(tensor):
        raise InputError(
            printable(f"{path}: {name}"), "must hold its values", f"shape {tuple(tensor.shape)} of fewer values", SAVE
        )
    return tensor.numpy()


def read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a .safetensors file, and the class names in its metadata. Raises InputError."""
    with _safetensors(path) as file:
        about, names = file.metadata() or {}, tuple(file.keys())
    named = {key: named_array(f"{path}: {key}", value) for key, value in about.items() if is_naming(key)}
    check_one_of_each(path, [*names, *named])
    return LazyArrays((*names, *named), lambda name: whole(_stored(path, name)), partial(_stored, path), named)


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    remedy = "write it with safetensors.torch.save_file"
    with reading(path, "a .safetensors file", remedy), safe_open(path, framework="np") as file:
        yield file


def _stored(path: Path, name: str) -> StoredArray:
    """A tensor. Where its values lie is in the header, which safetensors has compared with the file."""
    with _safetensors(path) as file:
        found = file.get_slice(name)
        shape, dtype = tuple(found.get_shape()), PLAIN_TYPES.get(found.get_dtype())
        if dtype is None or not shape:
            return StoredArray.of(file.get_tensor(name))
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            begin = 8 + length + json.loads(stream.read(length))[name]["data_offsets"][0]

    @contextmanager
    def values() -> Iterator[BinaryIO]:
        with _safetensors(path), path.open("rb") as stream:
            stream.seek(begin)
            yield stream

    return StoredArray(shape, np.dtype(dtype), lambda: read_pieces(values, shape, np.dtype(dtype)))
