"""Arrays by name, as .npz, .npy, .h5 and .pt files hold them: which are images, which are labels, and of which part."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from notbugs.data.names import Unreadable, first_line, numbered, printable
from notbugs.data.pixel_arrays import PixelArrays, StoredArray, channels_note, channels_of
from notbugs.data.sources.array_names import Key, parse_key
from notbugs.data.sources.array_values import as_labels
from notbugs.data.sources.base import Located, Part, are_names, join, unused_names
from notbugs.data.sources.class_names import Naming, as_one_name, naming_by_rows, naming_in, text
from notbugs.data.sources.refused import reject_foreign
from notbugs.data.sources.splits import choose_splits, listed, parse_split, split_of, to_test_on
from notbugs.data.sources.words import SPLIT_COLUMNS, TEST, UNLABELED, VALIDATION, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

Reader = Callable[[Path], Mapping[str, np.ndarray]]  # a file -> its arrays by name
ARRAYS = "arrays"  # the only part of a file without parts
EXPECTED = "name them train_images, train_labels, test_images, test_labels, or x_train, y_train, …"


@dataclass(frozen=True, eq=False)
class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each of which is read when it is first asked for.

    opened: what an array is, to be read a few rows at a time. `read` and `opened` raise InputError where it is damaged.
    """

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    opened: Callable[[str], StoredArray]
    known: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: Callable[[str], StoredArray], names: Sequence[str]) -> "LazyArrays":
        """Arrays that are read by their rows."""
        return cls(tuple(names), lambda name: whole(opened(name)), opened)

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


def whole(array: StoredArray) -> np.ndarray:
    """All rows of an array."""
    found = list(array.pieces())
    return np.concatenate(found) if len(found) > 1 else found[0] if found else np.empty(array.shape, array.dtype)


def opened(arrays: Mapping[str, np.ndarray], name: str) -> StoredArray:
    """An array of a file, to be read a few rows at a time if it is not in memory anyway."""
    return arrays.opened(name) if isinstance(arrays, LazyArrays) and name not in arrays.known else StoredArray.of(arrays[name])


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """What goes wrong inside, while a file is read, becomes an InputError. Damaged files make readers raise almost anything."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # also MemoryError: a header can claim any shape
        reject_foreign(path)
        reason = "Python objects (pickle)" if "pickle" in str(error) else first_line(error)
        raise InputError(printable(str(path)), f"cannot be read as {what}", reason, remedy) from None


def check_one_of_each(path: Path, names: Collection[str]) -> None:
    """Raises InputError where a file holds two arrays of one name, of which one would be lost."""
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise InputError(printable(str(path)), "holds two arrays of one name", printable(name), "save it again")


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
    arrays = LazyArrays(
        tuple(found),
        lambda name: files[found[name][0]][found[name][1]],
        lambda name: opened(files[found[name][0]], found[name][1]),
    )
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
        Notes on it for the user.

    Raises
    ------
    InputError
        If an array is missing, or if two could be one thing. It names all arrays.
    """
    keys = {name: key for name in arrays if (key := parse_key(name))} if keys is None else keys
    names = _names_by_key(source, _with_one_naming(source, arrays, keys))
    parts = _parts(source, names, arrays)
    sizes = {part or ARRAYS: _count(arrays[names[Key(part, "labels")]]) for part in parts}
    chosen = choose_splits(str(source), sizes, config.train, config.test)
    parts_read = {name: _read_part(source, arrays, names, name) for name in chosen.parts}
    read = {name: (part, channels) for name, (part, channels, _) in parts_read.items()}
    _check_one_shape(source, arrays, names, read)
    last = all(channels == "last" for _, channels in read.values())
    train, test = (read[name][0] if name else None for name in (chosen.train, chosen.test))
    notes = [*notes, *dict.fromkeys(note for *_, found in parts_read.values() for note in found)]
    notes += [f"not used: {printable(name)} ({sizes[name]:,} images){to_test_on(name, sizes[name])}" for name in chosen.unused]
    unlabeled = {key: name for key, name in names.items() if key.kind == "images" and key.part not in parts}
    counts = {name: len(opened(arrays, name)) for name in unlabeled.values()}
    notes += [f"not used: {printable(key.part)} ({counts[name]:,} images without labels)" for key, name in unlabeled.items()]
    located = join(str(source), train, test, form if last else f"{form}-channels-first", notes)
    unknown = [name for name in arrays if name not in names.values() and name not in keys]
    parts_of = [name for name in unknown if plain_name(name) in SPLIT_COLUMNS or parse_split(name)]
    located = located._replace(
        notes=(*located.notes, *(f"the array {printable(name)} is not used: parts need arrays of their own" for name in parts_of))
    )
    left_out = [Unreadable(f"{source}: {name}", "is an array of unknown use") for name in unknown]
    without = [(name, count, "has no array of labels") for name, count in counts.items()]
    unused = [(names[_key(part, "images")], sizes[part], "is a part that is not used") for part in chosen.unused]
    left_out += [
        Unreadable(f"{source}: {name}[{i}]", reason) for name, count, reason in (*without, *unused) for i in range(count)
    ]
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


def _with_one_naming(source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[str, Key]) -> dict[str, Key]:
    """The keys with one array of class names for each part: several are one, if they say the same.

    Raises
    ------
    InputError
        If they do not.
    """
    kept: dict[Key, str] = {}
    for name, key in keys.items():
        if key.kind != "classes":
            continue
        first = kept.setdefault(key, name)
        if naming_in(arrays[first], f"{source}: {first}") != naming_in(arrays[name], f"{source}: {name}"):
            got = f"{printable(first)} and {printable(name)}"
            raise InputError(str(source), "must name the classes in one way", got, "save one of the two")
    return {name: key for name, key in keys.items() if key.kind != "classes" or kept[key] == name}


def _check_one_shape(
    source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], read: Mapping[str, tuple[Part, str]]
) -> None:
    if len({cast(PixelArrays, part.files).shape[1:] for part, _ in read.values()}) > 1:
        shapes = " and ".join(str(opened(arrays, keys[_key(name, "images")]).shape) for name in read)
        raise InputError(
            str(source), "training and test images must have one size", shapes, "save both with one size, and as many channels"
        )


def _key(part: str, kind: str) -> Key:
    return Key("" if part == ARRAYS else part, kind)


def _read_part(source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], name: str) -> tuple[Part, str, list[str]]:
    """One part, where its images have their channels, and notes."""
    images_key, labels_key = keys[_key(name, "images")], keys[_key(name, "labels")]
    location = f"{source}: {images_key}"
    stored = opened(arrays, images_key)
    images, channels, channels_said = (
        PixelArrays.of(stored, location),
        channels_of(stored, location),
        channels_note(stored, images_key),
    )
    classes_key = keys.get(_key(name, "classes"), keys.get(Key("", "classes"), ""))
    of_this_part = _key(name, "classes") in keys
    given = _naming(source, arrays, labels_key, classes_key, of_this_part=of_this_part) if classes_key else {}
    labels, classes, note = as_labels(arrays[labels_key], f"{source}: {labels_key}", given)
    if len(images) != len(labels):
        raise InputError(
            str(source),
            f"{images_key} and {labels_key} must be equally many",
            f"{len(images)} and {len(labels)}",
            "save one label for each image",
        )
    names_key = keys.get(_key(name, "names"), "")
    names = [text(value) for value in arrays[names_key].ravel().tolist()] if names_key else []
    unused = unused_names(f"the array {printable(names_key)}") if names_key and not are_names(names, len(labels)) else ""
    part = Part(
        name,
        images,
        labels,
        classes,
        names if names_key and not unused else numbered(len(labels)),
        [f"{location}[{i}]" for i in range(len(labels))],
    )
    return part, channels, [found for found in (channels_said, note, unused) if found]


def _naming(source: Path, arrays: Mapping[str, np.ndarray], labels: str, classes: str, *, of_this_part: bool) -> Naming:
    """The class names of an array: a name for each number, or, if it belongs to the part, a word for each image beside it."""
    naming, numbers = naming_in(arrays[classes], f"{source}: {classes}"), arrays[labels].ravel()
    one_for_each = not arrays[classes].dtype.names and len(naming) == len(numbers) and len(set(naming.values())) < len(naming)
    if not one_for_each or not of_this_part or numbers.dtype.kind not in "iu":
        return naming
    words = as_one_name(naming.values())[0]
    return naming_by_rows(str(source), numbers.tolist(), words, (labels, classes), "save only one of the two")
