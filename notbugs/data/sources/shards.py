"""WebDataset shards, read in place: KEY.jpg with KEY.cls, KEY.json or KEY.txt. Other tar archives are for `archive_tree`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import basename, dirname, splitext
from typing import NamedTuple

from notbugs.data.names import IMAGE_SUFFIXES, Unreadable, check_class_name, first_line, one_form, printable
from notbugs.data.sources.archive_tree import ReadFiles, locate_extracted, locate_tree
from notbugs.data.sources.base import Located, Part, are_names, join, numbered_classes, sorted_classes
from notbugs.data.sources.cifar import reject_pickles
from notbugs.data.sources.class_names import as_one_name, is_name_column, naming_by_rows
from notbugs.data.sources.idx import is_idx
from notbugs.data.sources.numbered_files import joined_note, missing_files, without_number
from notbugs.data.sources.several_labels import HOLDS, KEEP_ONE, several_labels
from notbugs.data.sources.splits import choose_splits, listed, split_of, to_test_on
from notbugs.data.sources.tar import Archive, ArchivedFiles, Member, open_archive
from notbugs.data.sources.targets import check_no_measurements
from notbugs.data.sources.text import json_of
from notbugs.data.sources.words import NOT_IN_SHARDS, called_labels
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

LABEL_ENDINGS = (".cls", ".json", ".txt")  # in this order, if a key has several
DATA_FILES = (".npz", ".npy", ".h5", ".hdf5", ".pt", ".pth", ".safetensors", ".parquet", ".arrow", ".bin", ".csv")
MOST_LABEL = 2**20  # bytes of a file with a label
NOT_LABELED = "put KEY.cls, KEY.json or KEY.txt beside each KEY.jpg (a KEY ends at its first dot); class folders: --all-classes"


ONE_LABEL = "write the one label into it, or take it out of the archive"


class Labeled(NamedTuple):
    """The labeled images of archives.

    images: which archive, which file; labels: as text or number; class_names, names: what a .json says beside a number, or "".
    """

    images: list[tuple[int, Member]]
    labels: list[str | int]
    class_names: list[str]
    names: list[str]
    notes: set[str]
    left_out: list[Unreadable]


def locate_tar(source: Path, paths: Sequence[Path], config: DataConfig, read_files: ReadFiles | None = None) -> Located:
    """The images of tar archives. Their names say the parts: train-000000.tar, val-000000.tar, or train/000000.tar.

    Parameters
    ----------
    source : Path
        For messages.
    paths : sequence of Path
    config : DataConfig
    read_files : callable, optional
        Reads a folder of files that are no images, such as arrays: to one, archives without images are extracted for a while.

    Raises
    ------
    InputError
        If one is damaged, or images have no label.
    """
    by_part: dict[str, list[Path]] = {}
    for path in sorted(paths):
        by_part.setdefault(_part_name(path), []).append(path)
    archives = {name: [open_archive(path) for path in found] for name, found in by_part.items()}
    for found in archives.values():
        for archive in found:
            reject_pickles(archive.path, [basename(member.name) for member in archive.members])
    every = [archive for found in archives.values() for archive in found]
    endings = {splitext(member.name.lower())[1] for each in every for member in each.members}
    if read_files and not endings.intersection(IMAGE_SUFFIXES) and (endings.intersection(DATA_FILES) or _hold_idx(every)):
        return locate_extracted(source, archives, config, read_files)
    as_folder = config.labels or config.file_column or config.label_regex or config.all_classes
    if as_folder or not _has_labels(every):
        return locate_tree(source, archives, config)
    labeled = {name: _labeled(found, config) for name, found in archives.items()}
    sizes = {name: len(found.labels) for name, found in labeled.items()}
    chosen = choose_splits(str(source), sizes, config.train, config.test)
    parts = {name: _part_of_shards(name, archives[name], labeled[name]) for name in chosen.parts}
    notes = [note for name in chosen.parts for note in sorted(labeled[name].notes)]  # once the parts are made
    notes += missing_files(path.name for path in sorted(paths))
    notes += [note for name in chosen.parts for note in joined_note(name, (_stem(archive.path) for archive in archives[name]))]
    notes += [f"not used: {printable(name)} ({sizes[name]:,} images){to_test_on(name, sizes[name])}" for name in chosen.unused]
    folders = {dirname(member.name) for name in chosen.parts for _, member in labeled[name].images}
    if len(folders) > 1 and "labels are read from .cls" not in notes:
        notes.append(f"folders are not read as classes: {listed(sorted(folders), 3)} (to read them: --all-classes)")
    train, test = (parts[name] if name else None for name in (chosen.train, chosen.test))
    located = join(str(source), train, test, "webdataset", list(dict.fromkeys(notes)))
    unused = [
        f"{archives[name][number].path.name}: {member.name}" for name in chosen.unused for number, member in labeled[name].images
    ]
    left_out = [item for name in chosen.parts for item in labeled[name].left_out]
    left_out += [Unreadable(place, "is a part that is not used") for place in unused]
    return located._replace(left_out=tuple(left_out))


def _hold_idx(archives: Sequence[Archive]) -> bool:
    return any(is_idx(basename(member.name)) for archive in archives for member in archive.members)


def _stem(path: Path) -> str:
    return re.sub(r"(\.tar|\.tgz|\.gz)+$", "", path.name, flags=re.IGNORECASE)


def _part_name(path: Path) -> str:
    """The part that a shard belongs to: its name without the number, or its folder's name."""
    stem = without_number(_stem(path))
    return path.parent.name if split_of(path.parent.name) and not split_of(stem) else stem or "shards"


def _has_labels(archives: Sequence[Archive]) -> bool:
    """Whether at least half of the images have a file with a label: a single .json beside one says something else."""
    images, labeled = 0, 0
    for archive in archives:
        keys = {_key(member.name)[0] for member in archive.members if splitext(member.name.lower())[1] in IMAGE_SUFFIXES}
        images += len(keys)
        labeled += len(keys & {_key(member.name)[0] for member in archive.members if _key(member.name)[1] in LABEL_ENDINGS})
    return bool(images) and 2 * labeled >= images


def _key(name: str) -> tuple[str, str]:
    """What the files of one image have in common, and the ending: a/b.seg.png -> a/b, .seg.png, as WebDataset does it."""
    folder, (stem, dot, ending) = dirname(one_form(name)), basename(one_form(name)).partition(".")
    return (f"{folder}/{stem}" if folder else stem), f"{dot}{ending}".lower()


def _labeled(archives: Sequence[Archive], config: DataConfig) -> Labeled:
    """The images of shards and their labels, in the order of the shards."""
    found = Labeled([], [], [], [], set(), [])
    for number, archive in enumerate(archives):
        samples: dict[str, dict[str, Member]] = {}
        for member in archive.members:
            if basename(member.name).startswith("."):
                found.left_out.append(Unreadable(f"{archive.path.name}: {member.name}", "is a hidden file"))
                continue
            key, ending = _key(member.name)
            if samples.setdefault(key, {}).setdefault(ending, member) is not member:
                raise InputError(printable(f"{archive.path}: {member.name}"), "is twice in the archive", remedy="pack it again")
        for key, files in samples.items():
            _add_sample(found, number, archive, key, files, config)
    return found


def _add_sample(found: Labeled, number: int, archive: Archive, key: str, files: Mapping[str, Member], config: DataConfig) -> None:
    place = printable(f"{archive.path.name}: {key}")
    images = [ending for ending in files if f".{ending.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    labels = [ending for ending in LABEL_ENDINGS if ending in files and (ending == ".json" or not config.label_column)]
    if not images:
        found.left_out.extend(
            Unreadable(printable(f"{archive.path.name}: {file.name}"), "has no image") for file in files.values()
        )
        return
    if len(images) > 1:
        raise InputError(place, "must have one image", ", ".join(images), "keep one of them")
    read = ((ending, _label(archive, files[ending], ending, config)) for ending in labels)
    ending, label = next(((ending, label) for ending, label in read if label is not None), ("", None))
    if label is None:
        fields = _fields(archive, files[".json"]) if ".json" in files else []
        chosen = f"choose one of {listed(fields)} of the .json with --label-column NAME; " if fields else ""
        raise InputError(place, "has no label", listed(files), chosen + NOT_LABELED)
    about = _about(archive, files[".json"], config) if ".json" in files and isinstance(label, int) else {}
    unused = [other for other in files if other not in (images[0], ending) and not (about and other == ".json")]
    found.notes.update([f"labels are read from {ending}"] + [f"{other} is not read" for other in unused])
    found.images.append((number, files[images[0]]))
    found.labels.append(label)
    found.class_names.append(about.get("class", ""))
    found.names.append(about.get("name", ""))


def _fields(archive: Archive, member: Member) -> list[str]:
    """The fields of a .json file; [] if it has none."""
    try:
        content = json_of(archive.read(member)) if member.size <= MOST_LABEL else None
    except (ValueError, RecursionError):
        return []
    return list(content) if isinstance(content, dict) else []


def _about(archive: Archive, member: Member, config: DataConfig) -> dict[str, str]:
    """The name of the class and of the image in a .json beside a number, as `data.shards` writes them; {} if it has others."""
    if member.size > MOST_LABEL:
        return {}
    try:
        content = json_of(archive.read(member))
    except (ValueError, RecursionError):
        return {}
    known = {key: value for key, value in content.items() if isinstance(value, str)} if isinstance(content, dict) else {}
    classes = [key for key in known if key == "class" or is_name_column(key)]
    found = {"name": known["name"]} if "name" in known else {}
    return found | ({"class": known[classes[0]]} if classes and not config.label_column else {})


def _part_of_shards(name: str, archives: Sequence[Archive], found: Labeled) -> Part:
    """One part; its numbers have the names of classes that each .json says. Raises InputError where one has two."""
    part, note = _part(name, archives, found.images, found.labels)
    found.notes.update([note] if note else [])
    if all(isinstance(label, int) for label in found.labels) and all(found.class_names):
        remedy = "choose the field of the .json with --label-column NAME, or leave the name out"
        words = naming_by_rows(name, part.labels, found.class_names, ("the number", "the class name in .json"), remedy)
        part = part._replace(classes=tuple(words.get(number, text) for number, text in enumerate(part.classes)))
    elif any(found.class_names):
        found.notes.add("class names in .json are not used: some images have none")
    return part._replace(names=found.names) if are_names(found.names, len(found.names)) else part


def _label(archive: Archive, member: Member, ending: str, config: DataConfig) -> str | int | None:
    """The label in a file, a number if it is one; None if a .json has none. Raises InputError for anything else."""
    place = printable(f"{archive.path}: {member.name}")
    if member.size > MOST_LABEL:
        raise InputError(place, f"must have at most {MOST_LABEL:,} bytes", member.size, ONE_LABEL)
    try:
        text = archive.read(member).decode("utf-8-sig").strip()
        value = _field(json_of(text), place, config) if ending == ".json" else text
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(place, "must hold a label as text or JSON", first_line(error), ONE_LABEL) from None
    if value is None:
        return None
    if isinstance(value, list) and len(value) > 1:
        rule = "must hold one whole number or one word: several labels of one image (multi-label) are not supported"
        raise InputError(place, rule, printable(str(value)[:40]), KEEP_ONE)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(place, "must hold one whole number or one word", printable(str(value)[:40]), ONE_LABEL)
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value) else value


def _field(content: object, place: str, config: DataConfig) -> object:
    """The label of a .json file: the whole of it, or its one field that is called like a label."""
    if not isinstance(content, dict):
        return content
    names = [config.label_column] if config.label_column else called_labels(content, NOT_IN_SHARDS)
    numbers = [name for name in names if isinstance(content.get(name), int)]
    names = numbers if len(names) == 2 and len(numbers) == 1 else names  # "class" may be the name of the number "label"
    if len(names) > 1:
        raise InputError(
            place, "it must be clear which field holds the label", listed(names), "choose it with --label-column NAME"
        )
    return content.get(names[0]) if names else None


def _part(
    name: str, archives: Sequence[Archive], images: Sequence[tuple[int, Member]], labels: Sequence[str | int]
) -> tuple[Part, str]:
    """One part, and a note, or ""."""
    numbers, note = [label for label in labels if isinstance(label, int)], ""
    if len(numbers) == len(labels):
        indices, classes = numbered_classes(numbers)
    else:
        if several := several_labels(set(map(str, labels))):
            raise InputError(str(archives[0].path), HOLDS, listed(several, 3), KEEP_ONE)
        words, note = as_one_name(map(str, labels))
        check_no_measurements(f"{archives[0].path}: labels", words)
        classes = sorted_classes(words)
        index = {word: number for number, word in enumerate(classes)}
        indices = [index[word] for word in words]
    for label in classes:
        check_class_name(label)
    names = [one_form(member.name) for _, member in images]
    if not are_names(names, len(names)):
        names = [f"{archives[archive].path.name}/{name}" for (archive, _), name in zip(images, names, strict=True)]
    places = [f"{archives[archive].path.name}: {member.name}" for archive, member in images]
    return Part(name, ArchivedFiles(tuple(archives), tuple(images)), indices, classes, names, places), note
