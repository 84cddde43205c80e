"""Files of tensors: .pt and .pth of plain tensors, read without running code; .safetensors."""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from notbugs.data.names import printable
from notbugs.data.sources.arrays import check_one_of_each, reading
from notbugs.data.sources.class_names import is_naming, named_array
from notbugs.data.sources.limits import check_expansion, check_members, words_array
from notbugs.errors import InputError

SAVE = 'save plain tensors: torch.save({"train_images": images, "train_labels": labels}, path)'
DEEPEST = 4  # dictionaries in dictionaries
MOST_ENTRIES = 1000  # one dictionary can stand in itself, or in others, any number of times


def read_torch(path: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a .pt file: a dictionary of them, (images, labels), or a list of (image, label). Raises InputError."""
    with reading(path, "a file of tensors", SAVE):
        try:
            content = load_saved(path)
        except Exception as error:
            if "Unsupported" not in str(error) and "TorchScript" not in str(error):
                raise
            rule = "holds more than tensors, and reading it could run any code"
            raise InputError(printable(str(path)), rule, "Python objects (pickle)", SAVE) from None
        found = list(_flatten(path, "", content, DEEPEST, iter(range(MOST_ENTRIES))))
        check_one_of_each(path, [name for name, _ in found])
        return {name: value if isinstance(value, np.ndarray) else _array(path, name, value) for name, value in found}


def load_saved(path: Path) -> object:
    """What `torch.save` wrote, on the CPU. No code of the file runs, and no more memory is set aside than the file has bytes.

    It raises what PyTorch raises for other files.
    """
    packed = zipfile.is_zipfile(path)
    if packed:
        _check_stored(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # from bytes in memory nothing larger than the file is set aside, whatever an old file claims
        return torch.load(path if packed else io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)


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
        return {"images": torch.stack([item[0] for item in content]), "labels": labels}
    rule = "must be a dictionary of tensors, (images, labels), or a list of (image, label)"
    got = f"a {type(content).__name__} of {len(content)}"
    if all(isinstance(item, list | tuple) and len(item) == 2 for item in content):
        got += " pairs, which may be parts or batches"
    raise InputError(printable(place), rule, got, SAVE)


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
) -> Iterator[tuple[str, Tensor | np.ndarray | list[str] | list[int]]]:
    """The tensors and lists of words or numbers in dictionaries, by the keys that lead to them: train/images, class_to_idx."""
    if next(left, None) is None:
        raise InputError(printable(str(path)), f"must have at most {MOST_ENTRIES:,} entries", remedy=SAVE)
    content = _named(path, f"{path}: {name}" if name else str(path), content)
    if isinstance(content, Mapping) and is_naming(name):
        yield name, named_array(f"{path}: {name}", content)
    elif isinstance(content, Mapping) and deepest:
        for key, value in content.items():
            yield from _flatten(path, f"{name}/{key}".strip("/"), value, deepest - 1, left)
    elif isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Sequence) and content and not isinstance(content, str):
        for kind in (str, int):
            if all(type(item) is kind for item in content):
                yield name, list(content)


def _array(path: Path, name: str, value: Tensor | list[str] | list[int]) -> np.ndarray:
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
    from safetensors import safe_open
    from safetensors.numpy import load_file

    with reading(path, "a .safetensors file", "write it with safetensors.torch.save_file"):
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
        named = {key: named_array(f"{path}: {key}", value) for key, value in about.items() if is_naming(key)}
        tensors = load_file(path)
        check_one_of_each(path, [*tensors, *named])
        return {**tensors, **named}
