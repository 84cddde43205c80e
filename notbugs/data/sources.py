"""Where a set's images and labels are, in each form in which people keep them; nothing is decoded here."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from notbugs.data.decode import Source
from notbugs.data.names import check_class_name, first_line, is_printable, numbered, printable
from notbugs.errors import InputError

CLUTTER = ("thumbs.db", "desktop.ini")
BESIDE = (".md", ".csv", ".json", ".jsonl", ".txt", ".yaml", ".yml", "")  # may lie next to the class folders
TEST_PARTS = ("test", "val", "validation", "valid")


class Located(NamedTuple):
    """A set before decoding: the training part first, then the test part, if there is one."""

    files: Sequence[Source] | Tensor
    labels: list[int]
    names: list[str]
    places: list[str]  # where each is, for messages
    train: int  # how many belong to the training part; all of them if there is no test part
    classes: tuple[str, ...]
    form: str
    note: str = ""
    bad: tuple[tuple[str, str], ...] = ()  # (place, reason)


def locate(source: str) -> Located:
    """The set that SOURCE names. Raises BadInput."""
    path = Path(source)
    if source == "digits":
        return _locate_digits()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return locate_saved(path)
        if parquet := sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")]):
            return locate_parquet(source, parquet)
        npz = list(path.glob("*.npz"))
        return locate_npz(npz[0]) if len(npz) == 1 else _locate_folder(path)
    if path.is_file():
        if path.suffix == ".npz":
            return locate_npz(path)
        if path.suffix == ".parquet":
            return locate_parquet(source, [path])
        raise InputError(source, "must be an image folder, an .npz or a .parquet file, a saved set or a hub name")
    return _locate_hub("uoft-cs/cifar10" if source == "CIFAR10" else source)


def _locate_digits() -> Located:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    names = numbered(len(images))
    return Located(images, digits.target.tolist(), names, names, len(names), tuple("0123456789"), "folder")


def _locate_folder(root: Path) -> Located:
    here = {entry.name for entry in _visible(root) if entry.is_dir()}
    # A set of vehicles may have a class called "train": only a folder that itself holds folders is a part.
    parted = "train" in here and any(entry.is_dir() for entry in _visible(root / "train"))
    note = ""
    train = _list_part(root, "train" if parted else "")
    parts = [train]
    if parted:
        tests = [name for name in TEST_PARTS if name in here]
        parts += [_list_part(root, name) for name in tests[:1]]
        unused = sorted(here - {"train", *tests[:1]})
        note = f"not used: {', '.join(printable(name) for name in unused)}" if unused else ""
    classes = train.classes
    if not classes:
        remedy = "put the images of each class into a folder of its own: train/CLASS/file.png"
        raise InputError(str(root), "holds no class folders", remedy=remedy)
    for part in parts[1:]:
        if unknown := [name for name in part.classes if name not in classes]:
            place = f"{parts[1].place}/{printable(unknown[0])}"
            raise InputError(place, "is a class that the training part does not have", remedy="rename or remove the folder")
        if not part.classes:
            raise InputError(f"{root}/{part.place}", "holds no class folders", remedy="move or remove it")
    files = [path for part in parts for path in part.files]
    labels = [classes.index(name) for part in parts for name in part.labels]
    names = [path.relative_to(root / part.place).as_posix() for part in parts for path in part.files]
    places = [path.relative_to(root).as_posix() for path in files]
    bad = tuple(one for part in parts for one in part.bad)
    return Located(files, labels, names, places, len(train.files), classes, "folder", note, bad)


class Part(NamedTuple):
    """One part of an image folder, train or test: its files and the class of each; bad: those left out, with the reason."""

    place: str
    classes: tuple[str, ...]
    files: list[Path]
    labels: list[str]
    bad: list[tuple[str, str]]


def _list_part(root: Path, place: str) -> Part:
    if place:
        _check_no_link(root / place)
    inside = root.resolve()
    part = Part(place, (), [], [], [])
    classes: list[str] = []
    for entry in _visible(root / place):
        if entry.is_dir():
            _check_no_link(Path(entry.path))
            check_class_name(entry.name)
            classes.append(entry.name)
            _walk(Path(entry.path), entry.name, root, inside, part)
        elif Path(entry.name).suffix.lower() not in BESIDE:
            part.bad.append((f"{place}/{entry.name}".lstrip("/"), "lies outside the class folders"))
    return part._replace(classes=tuple(classes))


def _walk(folder: Path, label: str, root: Path, inside: Path, part: Part) -> None:
    """All files below a class folder into part, sorted; what must not be opened into part.bad."""
    for entry in _visible(folder):
        path = Path(entry.path)
        reason = ""
        if not is_printable(entry.name):
            reason = "has control characters or bytes that are not UTF-8 in its name"
        elif entry.is_symlink() and not path.resolve().is_relative_to(inside):
            reason = "is a link that leaves the folder"
        elif entry.is_symlink() and entry.is_dir():
            reason = "is a linked folder"  # it may lead back up, round and round
        elif entry.is_dir():
            _walk(path, label, root, inside, part)
            continue
        elif not entry.is_file():
            reason = "is not a file"  # opening a pipe would wait for ever
        if reason:
            part.bad.append((path.relative_to(root).as_posix(), reason))
        else:
            part.files.append(path)
            part.labels.append(label)


def _check_no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise InputError(printable(str(folder)), "is a linked folder", remedy="put the folder itself there")


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER]
    except OSError as error:
        raise InputError(printable(str(folder)), "cannot be opened", error.strerror) from None
    return sorted(kept, key=lambda entry: entry.name)


def locate_npz(path: Path, parts: Sequence[str] = ("train", "test", "val")) -> Located:
    """PART_images and PART_labels, perhaps PART_names, of the first of parts and, if there is one, of the next."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = [f"{part}_{what}" for part in parts for what in ("images", "labels", "names")]
            arrays = {key: archive[key] for key in (*wanted, "classes", "class_names") if key in archive}
    except Exception as error:  # also MemoryError: a header can claim any shape
        reason = "Python objects (pickle)" if "pickle" in str(error) else first_line(error)
        remedy = "write it with numpy.savez from plain arrays: uint8 images, integer labels, text classes"
        raise InputError(str(path), "cannot be read as an .npz file", reason, remedy) from None
    parts = [parts[0], *[part for part in parts[1:] if f"{part}_images" in arrays or f"{part}_labels" in arrays][:1]]
    images, labels, names, places, layouts = [], [], [], [], set()
    for part in parts:
        for key in (f"{part}_images", f"{part}_labels"):
            if key not in arrays:
                raise InputError(str(path), f"has no array {key}", ", ".join(arrays) or "none of use")
        images.append(_as_8bit(arrays[f"{part}_images"], f"{path}: {part}_images"))
        layouts.add(_layout(arrays[f"{part}_images"], f"{path}: {part}_images"))
        labels.append(_as_labels(arrays[f"{part}_labels"], f"{path}: {part}_labels"))
        count = len(labels[-1])
        if len(images[-1]) != count:
            raise InputError(str(path), f"{part}_images and {part}_labels must be equally many", f"{len(images[-1])} and {count}")
        own = [str(name) for name in arrays.get(f"{part}_names", np.array([])).ravel()]
        names += own if _usable(own, count) else numbered(count)
        places += [f"{path}: {part}_images[{i}]" for i in range(count)]
    if len({image.shape[1:] for image in images}) > 1:
        shapes = " and ".join(str(arrays[f"{part}_images"].shape) for part in parts)
        raise InputError(str(path), "training and test images must have one size", shapes)
    given = arrays.get("classes", arrays.get("class_names"))
    classes = range(max(labels[0], default=0) + 1) if given is None else given.ravel().tolist()
    return Located(
        torch.cat([torch.from_numpy(image) for image in images]),
        [label for part in labels for label in part],
        names,
        places,
        len(labels[0]),
        tuple(map(str, classes)),
        "npz" if layouts == {"last"} else "npz-channels-first",
    )


def _usable(names: Sequence[Any], count: int) -> bool:
    """Whether names from inside a file can serve: one for each image, all different, nothing that breaks a line."""
    return all(isinstance(name, str) and name and is_printable(name) for name in names) and len(set(names)) == len(names) == count


def _layout(array: np.ndarray, place: str) -> str:
    """Where an image array has its channels: "last" (also for grey N x H x W) or "first"."""
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        return "last"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "first"
    raise InputError(place, "must be N x H x W, N x H x W x 3 or N x 3 x H x W", f"shape {array.shape}")


def _as_8bit(array: np.ndarray, place: str) -> np.ndarray:
    """uint8 (N, C, H, W) of an image array; floats only if they are exactly k/255."""
    if array.dtype.kind == "f":
        remedy = "save (255 * images).round().astype('uint8')"
        if not np.isfinite(array).all():
            raise InputError(place, "must hold 8-bit pixels", "NaN or infinite values", remedy)
        if array.size and (array.min() < 0 or array.max() > 1):
            got = f"floats from {array.min():g} to {array.max():g}"
            raise InputError(place, "must hold 8-bit pixels", got, "scale them to 0 to 255 and save them as uint8")
        levels = np.round(array * 255)
        if np.abs(array * 255 - levels).max(initial=0) > (0.2 if array.dtype == np.float16 else 1e-3):
            raise InputError(place, "must hold 8-bit pixels", "floats that are no multiples of 1/255", remedy)
        array = levels.astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(place, "must hold 8-bit pixels (uint8)", array.dtype, "save it with .astype('uint8')")
    if array.ndim == 3:
        array = array[:, None]
    elif _layout(array, place) == "last":
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _as_labels(array: np.ndarray, place: str) -> list[int]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(place, "must be one whole number for each image", f"{array.dtype}, shape {array.shape}")
    return cast(list[int], array.tolist())


def locate_parquet(source: str, files: list[Path]) -> Located:
    """Parts by the beginning of the files' names; a single file is the training part whatever its name."""
    import datasets
    import pyarrow.parquet

    def table(paths: list[Path]) -> Any:
        try:
            return datasets.concatenate_datasets([datasets.Dataset(pyarrow.parquet.read_table(path)) for path in paths])
        except (OSError, ValueError, TypeError) as error:
            raise InputError(str(paths[0]), "cannot be read as parquet", first_line(error)) from None

    parts = {part: [path for path in files if path.name.startswith(part)] for part in ("train", *TEST_PARTS)}
    if len(files) == 1:
        parts = {"train": files}
    elif not parts["train"]:
        raise InputError(source, "has no train*.parquet", ", ".join(path.name for path in files[:4]))
    return _locate_rows(source, {part: table(paths) for part, paths in parts.items() if paths}, "parquet")


def locate_saved(folder: Path, part: str = "") -> Located:
    """A Dataset or a DatasetDict that `save_to_disk` wrote; part: only this one."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        parts = saved if isinstance(saved, dict) else {"train": saved}
        parts = {part: parts[part]} if part else parts
    except Exception as error:
        raise InputError(str(folder), "cannot be read as a saved Hugging Face set", first_line(error)) from None
    return _locate_rows(str(folder), parts, "saved")


def _locate_hub(source: str) -> Located:
    import datasets
    import huggingface_hub

    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source) or Path(source).suffix in (".npz", ".parquet"):
        raise InputError(printable(source), "does not exist", remedy="check the path")
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # Asked first because load_dataset retries for 23 s where there is no network.
            huggingface_hub.HfApi().dataset_info(source, timeout=10)
        with quiet():
            parts = datasets.load_dataset(source)
    except Exception as error:
        known = isinstance(error, huggingface_hub.errors.RepositoryNotFoundError)
        rule = "has no such set" if known else "could not be reached for a set of this name"
        reason = type(error).__name__ if known else first_line(error)
        raise InputError(source, f"this path does not exist, and the Hugging Face hub {rule}", reason, "check the path") from None
    return _locate_rows(source, dict(parts), "parquet", files_allowed=True)


def _locate_rows(source: str, parts: Mapping[str, Any], form: str, *, files_allowed: bool = False) -> Located:
    """From Hugging Face tables by part. files_allowed: a cell may name a file of this disk instead of holding its bytes."""
    import datasets
    import pyarrow.compute

    train = "train" if "train" in parts else next(iter(parts)) if len(parts) == 1 else ""
    if not train:
        raise InputError(source, "has no part called train", ", ".join(parts))
    chosen = [train, *[part for part in TEST_PARTS if part in parts and part != train][:1]]
    features = parts[train].features
    image = _column(source, features, datasets.Image, ("image", "img"), "images")
    label = _column(source, features, datasets.ClassLabel, ("label", "labels", "fine_label"), "labels")
    for part in chosen:
        if missing := {image, label} - set(parts[part].column_names):
            raise InputError(source, f"the part {part} has no column", ", ".join(sorted(missing)))
    values = [list(parts[part].with_format(None)[label]) for part in chosen]
    classes, labels = _classes_of(source, features[label], label, values)
    try:
        with quiet():
            cells = [parts[part].select_columns([image]).cast_column(image, datasets.Image(decode=False)) for part in chosen]
            column = datasets.concatenate_datasets(cells).with_format(None)[image]
            arrow = [cell.with_format("arrow")[:][image] for cell in cells]
        missing_bytes = any(pyarrow.compute.struct_field(one, "bytes").null_count for one in arrow)
        paths = [pyarrow.compute.struct_field(one, "path").to_pylist() for one in arrow]
    except Exception as error:
        raise InputError(source, f"the column {image} does not hold encoded images", first_line(error)) from None
    if missing_bytes and not files_allowed:  # a table from elsewhere could name any file of this machine
        raise InputError(source, f"the column {image} lacks the bytes of some images", remedy="embed the images")
    names: list[str] = []
    places: list[str] = []
    for part, own, one in zip(chosen, paths, labels, strict=True):
        given = list(parts[part].with_format(None)["file_name"]) if "file_name" in parts[part].column_names else []
        last = [os.path.basename(path) if path else "" for path in own]
        names += next((choice for choice in (given, last) if _usable(choice, len(one))), numbered(len(one)))
        places += [f"{source}: {part} row {i}" for i in range(len(one))]
    unused = sorted(set(parts) - set(chosen))
    note = f"not used: {', '.join(unused)}" if unused else ""
    return Located(column, [one for each in labels for one in each], names, places, len(labels[0]), classes, form, note)


def _column(source: str, features: Mapping[str, Any], kind: type, known: tuple[str, ...], what: str) -> str:
    """The one column of a kind; of several, or of none, the one with a known name."""
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    candidates = typed if len(typed) == 1 else [name for name in typed or features if name in known]
    if len(candidates) != 1:
        rule = f"it must be clear which column holds the {what}"
        raise InputError(source, rule, f"columns {', '.join(candidates or features)}", f"name one of them {known[0]}")
    return candidates[0]


def _classes_of(source: str, feature: Any, column: str, values: list[list[Any]]) -> tuple[tuple[str, ...], list[list[int]]]:
    """Class names and labels of a label column: named numbers, plain numbers, or text."""
    everything = [value for part in values for value in part]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in everything):
        names = getattr(feature, "names", None)
        return tuple(names if names else map(str, range(max(values[0], default=0) + 1))), values
    if not all(isinstance(value, str) for value in everything):
        raise InputError(source, f"the column {column} must hold one whole number or one word for each image")
    classes = tuple(sorted(set(values[0])))
    if unknown := sorted(set(everything) - set(classes)):
        raise InputError(source, "the test part has a class that the training part does not have", printable(unknown[0]))
    return classes, [[classes.index(value) for value in part] for part in values]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of Hugging Face datasets for a while; its setting stays as it was."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
