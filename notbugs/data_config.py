"""Which data set, and how it is read: the settings that Python, the command line and run folders share.

Imports no torch: the command line makes its options of these fields (`cli.options`), a report its suggestions.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from notbugs.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # s3://…, as a path has it
RESIZE_MODES = ("crop", "squash", "pad")
BEYOND_LIMIT = "is beyond --limit"  # why images are left out that a note counts


@dataclass(frozen=True)
class DataConfig:
    """Which data to load.

    Parameters
    ----------
    dataset : str or path
        As for `load`.
    resize : int, optional
        Resize all images to N x N pixels.
    limit : int, optional
        At most this many training images, and an eighth as many test images.
    skip_unreadable : bool
        Leave out files that cannot be read, instead of raising InputError.
    train, test : str, optional
        The parts to train and to test on: folders inside `dataset` or absolute paths, or names of its splits. Default: by their
        names, as `sources.splits.choose_splits` says. test ".": all images of a data set without parts.
    all_classes : bool
        Every folder is a class, also one called train or test.
    labels : str, optional
        A table with a row for each file, inside `dataset` or a path of its own.
    file_column, label_column : str, optional
        Its columns. label_column also chooses the label column of a parquet file or of a set on the hub.
    label_regex : str, optional
        A regular expression that is searched in each file's path: its groups in parentheses, or all that it matches, are the
        label. For labels in the names of files, cat.0.jpg.
    follow_links : bool
        Follow links to folders and to files outside the data set.
    white : int, optional
        The value that is white; higher ones are white, too. Up to 254 of all images; from 255 to 65535 of those of 16-bit gray.
        Default: 65535 of 16 bits, 255 of 8.
    resize_mode : {"crop", "squash", "pad"}
        What `resize` does with images that are not square: resize the shorter side to N and keep the center, change the
        proportions, or resize the longer side to N and add black borders.
    group : str, optional
        Images of one group are never in two parts or folds. A column of the table, or a regular expression that is searched in
        each file's path: its groups in parentheses, or all that it matches, name the group.
    """

    dataset: str
    resize: int | None = None
    limit: int | None = None
    skip_unreadable: bool = False
    train: str | None = None
    test: str | None = None
    all_classes: bool = False
    labels: str | None = None
    file_column: str | None = None
    label_column: str | None = None
    label_regex: str | None = None
    follow_links: bool = False
    white: int | None = None
    resize_mode: str = "crop"
    group: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", fspath(self.dataset))

    @property
    def data(self) -> "DataConfig":
        """These settings alone, where a subclass has more."""
        return DataConfig(**{field.name: getattr(self, field.name) for field in fields(DataConfig)})

    @property
    def arguments(self) -> dict[str, object]:
        """What a run folder keeps of these settings, to be resumed with the same: those at their defaults may be left out."""
        always = ("dataset", "resize", "limit", "skip_unreadable")
        defaults = {field.name: field.default for field in fields(DataConfig)}
        return {name: value for name, value in vars(self.data).items() if name in always or value != defaults[name]}


def asked_options(config: "DataclassInstance") -> dict[str, object]:
    """What of a configuration differs from its defaults, but for the device.

    Examples
    --------
    >>> asked_options(DataConfig("digits", limit=100, follow_links=False))
    {'limit': 100}
    """
    return {
        each.name: getattr(config, each.name)
        for each in fields(config)
        if each.name != "device" and each.default is not MISSING and getattr(config, each.name) != each.default
    }


class DataOptions(TypedDict, total=False):
    """The fields of `DataConfig` but for the data set, as keyword arguments of `load`.

    The one further list of them: type checkers make no keyword arguments of a dataclass. They refuse what is no field.
    """

    resize: int | None
    limit: int | None
    skip_unreadable: bool
    train: str | None
    test: str | None
    all_classes: bool
    labels: str | None
    file_column: str | None
    label_column: str | None
    label_regex: str | None
    follow_links: bool
    white: int | None
    resize_mode: str
    group: str | None


# What is asked for beside the data set, by name: options of commands and of suggested commands
DATA_FIELDS = {field.name: field for field in fields(DataConfig) if field.name != "dataset"}


def check_outside(config: DataConfig, *outputs: Path | str, option: str = "--out") -> None:
    """Raises InputError for an output inside the data set, of which it would become a part, and for one that would hold it.

    Compared are the places themselves, whatever links and mounts lead to them. Called before anything is read or written. option:
    what the outputs are called.

    Examples
    --------
    >>> check_outside(DataConfig("digits"), "runs/digits")
    """
    written = [Path(os.path.realpath(output)) for output in outputs]
    for source in _places(config):
        for output in written:
            if _is_within(output, source):
                what = "or it becomes a part of the data set" if source.is_dir() else "or it replaces it"
                rule = f"must lie outside {config.dataset if source.is_dir() else source}, {what}"
                raise InputError(option, rule, str(output), "choose another")
            if _is_within(source, output):
                raise InputError(option, "must not hold the data set, or parts of it", f"{source} in {output}", "choose another")


def _is_within(path: Path, place: Path) -> bool:
    """Whether a path is a place or below it, also where another mount, or another case of its letters, leads there."""
    if not place.exists():
        return False
    return any(each.exists() and each.samefile(place) for each in (path, *(path.parents if place.is_dir() else ())))


def _places(config: DataConfig) -> Iterator[Path]:
    """What is read: the data set, its parts and its table where they are elsewhere, and what links that are followed lead to."""
    below = [os.path.join(config.dataset, name) for name in (config.train, config.test, config.labels) if name]
    for path in (config.dataset, *below, *([config.labels] if config.labels else [])):
        if not os.path.exists(path):  # the name of a set on the hub, or of a split
            continue
        yield Path(os.path.realpath(path))
        if config.follow_links and os.path.isdir(path):
            yield from _linked_folders(path)


def _linked_folders(folder: str) -> Iterator[Path]:
    """The folders to which links in a folder lead, at any depth, each once."""
    seen, left = {os.path.realpath(folder)}, [folder]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_symlink() and entry.is_dir() and (place := os.path.realpath(entry.path)) not in seen:
                    seen.add(place)
                    left.append(place)
                    yield Path(place)
                elif entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
