"""Names of files and classes: checks, how messages show them, and names that every file system and reader accepts."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from notbugs.errors import InputError
from notbugs.errors import printable as printable

MAX_NAME_BYTES = 240  # a file system's limit is 255, and `~2` may follow
MAX_CLASS_NAME = 1000  # characters: each message, table and chart holds it
MAX_DIGITS = 18  # of what is taken for a number, and fits into 64 bits
MANIFEST = ("file", "label", "original_label", "original_name")  # the columns of the manifest.csv beside a written folder
IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".ico",
)  # fmt: skip

# What operating systems, storage devices and tools put into folders. Names that begin with a dot are left out, too.
SYSTEM = frozenset(
    (
        "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle",
        "@recently-snapshot", "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder",
        "temporary items", "__pycache__",
    )
)  # fmt: skip


class Unreadable(NamedTuple):
    """A file that is not used: where it is, and why."""

    location: str
    reason: str


def is_printable(text: str) -> bool:
    """Whether text fits into one line, one table cell and one file name: no control characters, no broken Unicode."""
    return text.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def one_form(text: str) -> str:
    """Text in one Unicode form (NFC). An accented letter can be one character, or a letter and an accent, as macOS writes it."""
    return unicodedata.normalize("NFC", text)


def is_number(text: str) -> bool:
    """Whether text is a whole number of at most 18 digits. Python refuses to read one of more than 4,300.

    Examples
    --------
    >>> is_number("007"), is_number("-1"), is_number("9" * 19)
    (True, False, False)
    """
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its type if it has no text."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])


def check_class_name(name: str) -> None:
    """Raises InputError for a class name that is empty or too long, and for one with control characters."""
    if len(name) > MAX_CLASS_NAME:
        got = f"{len(name):,}: {printable(name[:40])}…"
        raise InputError("a class name", f"must have at most {MAX_CLASS_NAME:,} characters", got, "rename the class")
    if not name or not is_printable(name):
        raise InputError(f"class {printable(name)!r}", "must be UTF-8 text without control characters", remedy="rename the class")


class MissingError(InputError):
    """A data set that is not where it was said to be."""


class UnreadableError(InputError):
    """An image that cannot be read: as `InputError` has it, the file first and then the reason."""


def reject_unreadable(unreadable: Sequence[Unreadable], skip_unreadable: bool) -> None:
    """Raises UnreadableError for the first unreadable file, unless unreadable files are to be skipped."""
    if unreadable and not skip_unreadable:
        location, reason = unreadable[0]
        others = f" ({len(unreadable)} such files in all)" if len(unreadable) > 1 else ""
        remedy = f"repair or remove it, or pass --skip-unreadable to leave it out{others}"
        raise UnreadableError(printable(location), reason, remedy=remedy)


def regular_expression(option: str, text: str, rule: str = "must be a regular expression") -> re.Pattern[str]:
    """The regular expression that an option has. Raises InputError if it is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(option, rule, text, str(error)) from None


def found_in(pattern: re.Pattern[str], text: str) -> str:
    r"""What a regular expression finds: its groups, joined by /, or all that it matches; "" if it finds nothing.

    Examples
    --------
    >>> found_in(re.compile(r"(\w+)/(\d+)_"), "stop/00012_7.ppm"), found_in(re.compile("x"), "y")
    ('stop/00012', '')
    """
    if not (match := pattern.search(text)):
        return ""
    return "/".join(part for part in match.groups() if part) if pattern.groups else match[0]


def numbered(count: int) -> list[str]:
    """File names for images without names: 00000.png, 00001.png, …"""
    return [f"{i:05d}.png" for i in range(count)]


def flat_name(name: str) -> str:
    """The file name inside a class folder: `CLASS/sub/file.jpg` -> `sub--file.jpg`."""
    _, _, below = name.rpartition("/") if name.count("/") < 2 else name.partition("/")
    return below.replace("/", "--")


def png_names(parts: Sequence[tuple[object, str]]) -> list[str]:
    """Names of PNG files, one for each image; whatever their order, an image gets the same one.

    Parameters
    ----------
    parts : sequence of (folder, name)

    Returns
    -------
    list of str
        `x.png` keeps its name, `x.jpg` becomes `x.png`. Where several images of a folder would get one name, those that are no
        PNG files keep their suffix: `x.jpg.png`.

    Examples
    --------
    >>> png_names([("cat", "cat/0.jpg"), ("cat", "cat/0.png"), ("dog", "dog/0.jpg")])
    ['0.jpg.png', '0.png', '0.png']
    """
    flat = [(folder, *os.path.splitext(flat_name(name))) for folder, name in parts]
    of_stem = Counter((folder, stem) for folder, stem, _ in flat)
    names = []
    for folder, stem, suffix in flat:
        is_png, alone = suffix.lower() == ".png", of_stem[folder, stem] == 1
        names.append(f"{stem}{suffix if is_png else '.png' if alone else suffix + '.png'}")
    return names


def path_part(text: str) -> str:
    """Text as one part of a path: stays in its folder, is not hidden, and is not skipped by readers of image folders."""
    part = "".join("_" if letter in "/\\" or not is_printable(letter) else letter for letter in text)
    if part.startswith("__"):
        part = "_" + part.lstrip("_")
    if part.startswith(".") or part.casefold() in SYSTEM:
        part = "_" + part
    if len(part.encode()) > MAX_NAME_BYTES:
        suffix = os.path.splitext(part)[1]
        ending = suffix if suffix.lower() in IMAGE_SUFFIXES else ""
        part = part.encode()[:200].decode(errors="ignore") + "~" + sha256(part.encode()).hexdigest()[:8] + ending
    return part or "_"


def same_file(name: str) -> str:
    """What two names have in common that are one file to macOS and Windows, which a data set may be taken to.

    Examples
    --------
    >>> same_file("Straße.PNG") == same_file("STRASSE.png")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def deduplicate(parts: Sequence[tuple[object, str]], first: Sequence[tuple[bool, str]] = ()) -> list[str]:
    """Names that are unique within their folder, also on file systems to which `A.PNG` is `a.png`: others get a number, `x~2`.

    Parameters
    ----------
    parts : sequence of (folder, name)
    first : sequence, optional
        A key for each part: among equal names, the one with the lowest key keeps it. Default: the first one.

    Returns
    -------
    list of str
        One name per part. A number never produces a name that another part already has.

    Examples
    --------
    >>> deduplicate([("", "x"), ("", "x"), ("", "x~2")])
    ['x', 'x~3', 'x~2']
    >>> deduplicate([("", "x"), ("", "x")], first=[(True, "b"), (False, "a")])
    ['x~2', 'x']
    >>> deduplicate([("", "Cat"), ("", "cat")])
    ['Cat', 'cat~2']
    """
    given = Counter((folder, same_file(name)) for folder, name in parts)
    taken: set[tuple[object, str]] = set()
    result = [name for _, name in parts]
    for index in sorted(range(len(parts)), key=first.__getitem__) if first else range(len(parts)):
        folder, name = parts[index]
        chosen, number = name, 1
        while (key := (folder, same_file(chosen))) in taken or (number > 1 and key in given):
            number += 1
            stem, suffix = os.path.splitext(name)
            chosen = f"{stem}~{number}{suffix}"
        taken.add(key)
        result[index] = chosen
    return result
