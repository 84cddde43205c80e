"""Arrays by name, as .npz, .npy, .h5 and .pt files hold them: which are images, which are labels, and of which part."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from notbugs.data.config import DataConfig
from notbugs.data.names import Unreadable, first_line, numbered, printable
from notbugs.data.sources.base import MOST_CLASSES, Located, Part, are_names, join, numbered_classes, sorted_classes, unused_names
from notbugs.data.sources.splits import (
    NEUTRAL,
    SPLIT_COLUMNS,
    TEST,
    UNLABELED,
    VALIDATION,
    choose_splits,
    listed,
    parse_split,
    plain_name,
    split_of,
)
from notbugs.data.sources.splits import WORDS as SPLIT_WORDS
from notbugs.errors import InputError

Reader = Callable[[Path], Mapping[str, np.ndarray]]  # a file -> its arrays by name
ARRAYS = "arrays"  # the only part of a file without parts
KINDS = {
    "images": ("images", "image", "imgs", "img", "x", "pixels", "inputs", "input", "data", "features"),
    "labels": ("labels", "label", "y", "targets", "target", "classid", "classids"),
    "names": ("names", "name", "filenames", "filename", "files", "ids"),
    "classes": ("classes", "classnames", "labelnames", "listclasses", "categories"),
}
EXPECTED = "name them train_images, train_labels, test_images, test_labels, or x_train, y_train, …"


class Key(NamedTuple):
    """What an array's name says: the part that it belongs to ("" for none), and what it holds."""

    part: str
    kind: str


def parse_key(name: str) -> Key | None:
    """What an array holds, by its name; None if that is unclear.

    Examples
    --------
    >>> parse_key("train_images"), parse_key("y_test"), parse_key("X")
    (Key(part='train', kind='images'), Key(part='test', kind='labels'), Key(part='', kind='images'))
    >>> parse_key("class_names"), parse_key("weights")
    (Key(part='', kind='classes'), None)
    """
    words = [word for text in re.findall(r"[a-z]+", name.casefold()) for word in _without_kind(text)]
    if _kind("".join(words)) == "classes":
        return Key("", "classes")
    named = next((word for word in words if parse_split(word)), "")
    rest = [word for word in words if word != named]
    kinds = [kind for word in rest if (kind := _kind(word))]
    specific = kinds if len(kinds) == 1 else [_kind(word) for word in rest if word not in NEUTRAL and _kind(word)]
    unknown = [word for word in rest if not _kind(word) and word not in NEUTRAL]
    return Key(named, specific[0]) if len(specific) == 1 and not unknown else None


def _without_kind(word: str) -> list[str]:
    """xtrain, trainx and Xtr as the words x and train; another word as it is."""
    short = {"tr": "train", "te": "test", **{known: known for words in SPLIT_WORDS.values() for known in words}}
    for kind in ("x", "y"):
        if word.startswith(kind) and word[1:] in short:
            return [kind, short[word[1:]]]
        if word.endswith(kind) and word[:-1] in short:
            return [short[word[:-1]], kind]
    return [word]


def _kind(word: str) -> str:
    return next((kind for kind, words in KINDS.items() if word in words), "")


@dataclass(frozen=True, eq=False)
class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each of which is read when it is first asked for."""

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    known: dict[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.known:
            self.known[name] = self.read(name)
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """What goes wrong inside, while a file is read, becomes an InputError. Damaged files make readers raise almost anything."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # also MemoryError: a header can claim any shape
        reason = "Python objects (pickle)" if "pickle" in str(error) else first_line(error)
        raise InputError(printable(str(path)), f"cannot be read as {what}", reason, remedy) from None


def locate_array_files(source: Path, paths: Sequence[Path], read: Reader, config: DataConfig) -> Located:
    """The images of files of arrays. Where there are several, their names say the parts: train.h5 and test.h5.

    Raises
    ------
    InputError
        If a file cannot be read, or if it is unclear what its arrays hold.
    """
    if len(paths) == 1:
        return locate_arrays(paths[0], read(paths[0]), config)
    files = {path: read(path) for path in paths}
    found = {name: (path, inner) for path, arrays in files.items() for inner in arrays if (name := _full_name(path, inner))}
    keys = {name: key for name, (path, inner) in found.items() if (key := _key_in_file(path, inner))}
    arrays = LazyArrays(tuple(found), lambda name: files[found[name][0]][found[name][1]])
    return locate_arrays(source, arrays, config, keys=keys)


def _full_name(path: Path, inner: str) -> str:
    return f"{path.name}/{inner}" if inner != path.stem else path.name


def _key_in_file(path: Path, name: str) -> Key | None:
    """What an array of one of several files holds: the part by its own name, else by that of its file."""
    key = parse_key(name)
    if key is None or key.part:
        return key
    return Key(next((word for word in re.findall(r"[a-z]+", path.stem.casefold()) if parse_split(word)), ""), key.kind)


def locate_arrays(
    source: Path,
    arrays: Mapping[str, np.ndarray],
    config: DataConfig,
    form: str = "npz",
    *,
    keys: Mapping[str, Key] | None = None,
    notes: Sequence[str] = (),
) -> Located:
    """The images of arrays by name.

    Parameters
    ----------
    source : Path
        For messages.
    arrays : mapping
    config : DataConfig
    form : str
        For `data.export`; "-channels-first" is added where the arrays have their channels first.
    keys : mapping, optional
        What each array holds, by its name. Default: what `parse_key` says.
    notes : sequence of str
        What the user is told besides.

    Raises
    ------
    InputError
        If an array is missing, or if two could be one thing. It names all arrays.
    """
    names = _names_by_key(source, {name: key for name in arrays if (key := parse_key(name))} if keys is None else keys)
    parts = _parts(source, names, arrays)
    sizes = {part or ARRAYS: _count(arrays[names[Key(part, "labels")]]) for part in parts}
    chosen = choose_splits(str(source), sizes, config.train, config.test)
    parts_read = {name: _read_part(source, arrays, names, name) for name in chosen.parts}
    read = {name: (part, channels) for name, (part, channels, _) in parts_read.items()}
    _check_one_shape(source, arrays, names, read)
    last = all(channels == "last" for _, channels in read.values())
    train, test = (read[name][0] if name else None for name in (chosen.train, chosen.test))
    notes = [*notes, *(note for *_, note in parts_read.values() if note)]
    notes += [f"not used: {printable(name)} ({sizes[name]:,} images)" for name in chosen.unused]
    unlabeled = {key: name for key, name in names.items() if key.kind == "images" and key.part not in parts}
    notes += [f"not used: {printable(key.part)} ({len(arrays[name]):,} images without labels)" for key, name in unlabeled.items()]
    located = join(str(source), train, test, form if last else f"{form}-channels-first", notes)
    unknown = [name for name in arrays if name not in names.values()]
    parts_of = [name for name in unknown if plain_name(name) in SPLIT_COLUMNS]
    located = located._replace(
        notes=(*located.notes, *(f"the array {printable(name)} is not used: parts need arrays of their own" for name in parts_of))
    )
    left_out = [Unreadable(f"{source}: {name}", "is an array of unknown use") for name in unknown]
    left_out += [Unreadable(f"{source}: {name}", "has no array of labels") for name in unlabeled.values()]
    return located._replace(left_out=tuple(left_out))


def _parts(source: Path, names: Mapping[Key, str], arrays: Collection[str]) -> list[str]:
    """The parts that have images and labels. Raises InputError where a part has only one of them, or there is none."""
    parts = list(dict.fromkeys(key.part for key in names if key.kind in ("images", "labels")))
    labeled = [part for part in parts if Key(part, "images") in names and Key(part, "labels") in names]
    without = [part for part in parts if Key(part, "labels") not in names and split_of(part) in (TEST, VALIDATION, UNLABELED)]
    parts = (
        [part for part in parts if part not in without] if labeled else parts
    )  # a competition keeps the labels of its test part
    for part in parts:
        for kind in ("images", "labels"):
            if Key(part, kind) not in names:
                what = f"array of {kind}" + (f" for the part {part}" if part else "")
                raise InputError(str(source), f"has no {what}", f"arrays {listed(arrays)}", EXPECTED)
    if not parts:
        got = f"arrays {listed(arrays)}" if arrays else "none"
        raise InputError(str(source), "has no arrays of images and labels by their names", got, EXPECTED)
    return parts


def _count(array: np.ndarray) -> int:
    """Number of labels of an array; of N x 1 and 1 x N, too."""
    return array.size if array.size == max(array.shape, default=0) else len(array) if array.ndim else 0


def _names_by_key(source: Path, keys: Mapping[str, Key]) -> dict[Key, str]:
    names: dict[Key, str] = {}
    for name, key in keys.items():
        if key in names:
            what = f"{key.part} {key.kind}".strip()
            got = f"{printable(names[key])} and {printable(name)}"
            raise InputError(str(source), f"it must be clear which array holds the {what}", got, EXPECTED)
        names[key] = name
    return names


def _check_one_shape(
    source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], read: Mapping[str, tuple[Part, str]]
) -> None:
    if len({cast(torch.Tensor, part.files).shape[1:] for part, _ in read.values()}) > 1:
        shapes = " and ".join(str(arrays[keys[_key(name, "images")]].shape) for name in read)
        raise InputError(str(source), "training and test images must have one size", shapes)


def _key(part: str, kind: str) -> Key:
    return Key("" if part == ARRAYS else part, kind)


def _read_part(source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], name: str) -> tuple[Part, str, str]:
    """One part, where its images have their channels, and a note, or ""."""
    images_key, labels_key = keys[_key(name, "images")], keys[_key(name, "labels")]
    location = f"{source}: {images_key}"
    images, channels = _as_8bit(arrays[images_key], location), _channels(arrays[images_key], location)
    classes_key = keys.get(_key(name, "classes"), keys.get(Key("", "classes"), ""))
    given = tuple(_text(name) for name in arrays[classes_key].ravel().tolist()) if classes_key else ()
    labels, classes = _as_labels(arrays[labels_key], f"{source}: {labels_key}", given)
    if len(images) != len(labels):
        raise InputError(str(source), f"{images_key} and {labels_key} must be equally many", f"{len(images)} and {len(labels)}")
    names_key = keys.get(_key(name, "names"), "")
    names = [_text(value) for value in arrays[names_key].ravel().tolist()] if names_key else []
    note = "" if not names_key or are_names(names, len(labels)) else unused_names(f"the array {printable(names_key)}")
    part = Part(
        name,
        torch.from_numpy(images),
        labels,
        classes,
        names if names_key and not note else numbered(len(labels)),
        [f"{location}[{i}]" for i in range(len(labels))],
    )
    return part, channels, note


def _text(value: object) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _channels(array: np.ndarray, location: str) -> str:
    """Where an image array has its channels: "last" (also for gray N x H x W) or "first"."""
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        return "last"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "first"
    raise InputError(location, "must be N x H x W, N x H x W x 3 or N x 3 x H x W", f"shape {array.shape}")


def _as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    """An image array as uint8 (N, C, H, W); floats only if they are exactly k/255."""
    if 0 in array.shape[1:]:
        raise InputError(location, "must have pixels", f"shape {array.shape}")
    if array.dtype.kind == "f":
        array = _floats_as_8bit(array, location)
    if array.dtype != np.uint8:
        raise InputError(location, "must hold 8-bit pixels (uint8)", *_other_pixels(array))
    if array.ndim == 3:
        array = array[:, None]
    elif _channels(array, location) == "last":
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _other_pixels(array: np.ndarray) -> tuple[str, str]:
    """What pixels that are not 8-bit are, and how to save them: a plain conversion would turn 256 into 0, and True into 1."""
    if array.dtype == bool:
        return "bool", "save (255 * images.astype('uint8'))"
    if array.dtype.kind not in "iu" or not array.size:
        return str(array.dtype), "save whole numbers from 0 to 255 as uint8"
    low, high = int(array.min()), int(array.max())
    whole = low >= 0 and high <= 255
    remedy = "save it with .astype('uint8')" if whole else "scale them to 0 to 255 before .astype('uint8')"
    return f"{array.dtype} from {low:,} to {high:,}", remedy


def _floats_as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    remedy = "save (255 * images).round().astype('uint8')"
    if not np.isfinite(array).all():
        raise InputError(location, "must hold 8-bit pixels", "NaN or infinite values", remedy)
    if array.size and (array.min() < 0 or array.max() > 1):
        got = f"floats from {array.min():g} to {array.max():g}"
        whole = array.min() >= 0 and array.max() <= 255
        how = "save images.round().astype('uint8')" if whole else "scale them to 0 to 255 and save them as uint8"
        raise InputError(location, "must hold 8-bit pixels", got, how)
    levels = np.round(array * 255)
    if np.abs(array * 255 - levels).max(initial=0) > (0.2 if array.dtype == np.float16 else 1e-3):
        raise InputError(location, "must hold 8-bit pixels", "floats that are no multiples of 1/255", remedy)
    return levels.astype(np.uint8)


def _as_labels(array: np.ndarray, location: str, given: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Labels as indices into the classes that are given, or that they imply: 0 to the highest number, or the different words."""
    if array.ndim > 1 and array.size == max(array.shape):  # N x 1, 1 x N, N x 1 x 1 x 1
        array = array.reshape(-1)
    if array.ndim == 1 and array.dtype.kind in "US":
        words = [_text(value) for value in array.tolist()]
        classes = given or sorted_classes(words)
        index = {name: number for number, name in enumerate(classes)}
        if other := next((word for word in words if word not in index), None):
            raise InputError(location, f"must be one of the classes {listed(classes)}", printable(other))
        return [index[word] for word in words], classes
    if _is_one_hot(array):
        return array.argmax(axis=1).tolist(), given or tuple(map(str, range(array.shape[1])))
    if array.ndim == 1 and array.dtype == bool:
        return array.astype(int).tolist(), given or ("False", "True")
    if array.ndim == 1 and array.dtype.kind == "f" and (array == np.round(array)).all() and (np.abs(array) < MOST_CLASSES).all():
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        rule = "must be one whole number for each image, one word, or a row with a single 1"
        raise InputError(location, rule, f"{array.dtype}, shape {array.shape}")
    numbers = cast(list[int], array.tolist())
    return (numbers, given) if given else numbered_classes(numbers)


def _is_one_hot(array: np.ndarray) -> bool:
    """Whether each row has a 1 for its class, and 0 for all others."""
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())
