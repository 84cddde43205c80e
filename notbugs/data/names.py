"""Names of files and classes: whether they are sound, how a message shows them, how a path holds them."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from notbugs.errors import InputError


def is_printable(text: str) -> bool:
    """Whether text can stand in a line, a table and a file: no control characters, no broken Unicode."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def printable(text: str) -> str:
    """For messages: what would break the line or the terminal is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def first_line(error: BaseException) -> str:
    """What an error says, on one line and short enough for a message; its type where it says nothing."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])


def check_class_name(name: str) -> None:
    if not name or not is_printable(name):
        raise InputError(f"class {printable(name)!r}", "must be text without control characters", remedy="rename the class")


def reject_unreadable(bad: Sequence[tuple[str, str]], skip_bad: bool) -> None:
    if bad and not skip_bad:
        place, reason = bad[0]
        others = f" ({len(bad)} such files in all)" if len(bad) > 1 else ""
        raise InputError(printable(place), reason, remedy=f"mend or remove it, or pass --skip-bad to go on without{others}")


def numbered(count: int) -> list[str]:
    return [f"{i:05d}.png" for i in range(count)]


def png_name(name: str) -> str:
    """`CLASS/sub/file.jpg` -> `sub--file.png`."""
    _, _, below = name.rpartition("/") if name.count("/") < 2 else name.partition("/")
    stem, suffix = os.path.splitext(below.replace("/", "--"))
    return f"{stem}{suffix if suffix.lower() == '.png' else '.png'}"


def path_part(text: str) -> str:
    """text as one part of a path that stays where it is put, is not hidden and is not left out by readers of folders."""
    part = "".join("_" if letter in "/\\" or not is_printable(letter) else letter for letter in text)
    if part.startswith("__"):
        part = "_" + part.lstrip("_")
    if part.startswith("."):
        part = "_" + part
    if len(part.encode()) > 240:  # a file system's limit is 255 bytes, and `~2` may follow
        ending = part[-4:] if part.lower().endswith(".png") else ""
        part = part.encode()[:200].decode(errors="ignore") + "~" + sha256(part.encode()).hexdigest()[:8] + ending
    return part or "_"


def deduplicate(parts: Sequence[tuple[object, str]]) -> list[str]:
    """The names, those that occur again in the same place numbered."""
    own = Counter(parts)
    taken: set[tuple[object, str]] = set()
    result = []
    for place, name in parts:
        chosen, number = name, 1
        while (place, chosen) in taken or (number > 1 and (place, chosen) in own):
            number += 1
            stem, suffix = os.path.splitext(name)
            chosen = f"{stem}~{number}{suffix}"
        taken.add((place, chosen))
        result.append(chosen)
    return result
