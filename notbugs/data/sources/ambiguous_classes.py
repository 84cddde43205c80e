"""Signs that folders beside each other are no classes: folds, modalities, recordings, copies, folders whose names say nothing."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from notbugs.data.names import printable
from notbugs.data.sources.base import Part
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.splits import is_annotation, is_neutral, listed
from notbugs.data.sources.words import ANNOTATIONS, FOLDS, NEUTRAL, words_of

# Pictures of the same things, taken or made in another way
MODALITIES = frozenset(
    (
        "rgb", "rgbd", "depth", "disparity", "thermal", "infrared", "ir", "nir", "swir", "lwir", "vis", "visible",
        "optical", "sar", "lidar", "radar", "multispectral", "hyperspectral", "panchromatic", "flow", "normals", "albedo",
        "heatmap", "heatmaps", "gt", "groundtruth", "lr", "hr", "lq", "hq",
    )
)  # fmt: skip
# The same, where nothing else stands beside them; else they may be classes
PAIRED = frozenset(
    (
        "left", "right", "gray", "grey", "grayscale", "greyscale", "color", "colour", "colors", "bw", "input", "inputs",
        "output", "outputs", "target", "targets", "edge", "edges", "alpha", "semantic", "instance", "raw", "processed",
        "preprocessed", "original", "augmented", "enhanced",
    )
)  # fmt: skip
# With a number: a part of the images of each class, or images of one person, place or time
RUNS = FOLDS | frozenset(
    (
        "cam", "camera", "view", "sensor", "channel", "band", "patient", "case", "session",
        "seq", "sequence", "video", "clip", "track", "slide", "scan", "series", "frame", "frames", "recording", "trial",
        "shard", "client", "worker", "site", "center", "hospital", "device", "experiment", "exp", "seed", "run", "visit",
    )
)  # fmt: skip
# Called as if they had been put aside
ASIDE = frozenset(
    (
        "trash", "tmp", "temp", "old", "backup", "bak", "excluded", "deleted", "removed", "rejected", "discarded", "ignored",
        "thumbnails", "thumbs", "docs", "doc", "results", "figures", "plots", "logs", "scripts", "notebooks",
    )
)  # fmt: skip
COPY = re.compile(
    r"(?<![\W_])([\W_]*\(\d+\)|[\W_]+(copy|backup|bak|old|aug|augmented|augmentation|resized|cropped|original)[\W_\d]*)$"
)
DEEPEST = 8  # folders that may lie around others, one in the other
FOLDS_OF = "folds:"
INNER = "--label-regex '([^/]+)/[^/]+$'"  # the folder of each file is its class
TABLE = "labels of a table: --labels FILE"


class Ambiguity(NamedTuple):
    """Why folders may be no classes: the rule, what was seen, what to do if they are none, and what they are if they are."""

    rule: str
    seen: str
    remedy: str
    otherwise: str = "folders as classes"
    more: str = ""


def find_ambiguity(listing: Listing, folders: Sequence[Path], part: Part) -> Ambiguity | None:
    """The first sign that folders with images are no classes; None if there is none. part: their images, by folder."""
    names = part.classes
    if same := same_folders(listing, folders):
        rule = "has folders that all hold the same folders, and it is unclear which of them are the classes"
        named = ambiguity_of_names(names)
        folds = f"{named.remedy.split('; ')[0]}; " if named and named.remedy.startswith(FOLDS_OF) else ""
        return Ambiguity(
            rule,
            f"{listed(names)}, each with {listed(same)}",
            f"{folds}the inner folders: name one of the outer as DATASET",
            "the outer folders",
            f"; the inner folders of all: {INNER}",
        )
    if seen := _copy_inside(listing, folders):
        return Ambiguity(
            "has a folder beside the classes that holds folders of the same names", seen, "move it away", "to read it as a class"
        )
    if ambiguity := ambiguity_of_names(names):
        return ambiguity
    if (all(map(is_neutral, names)) and not _are_counted(names)) or _are_hexadecimal(names):
        inner = _alike_inside(listing, folders)
        of_all = f"; the inner folders of all ({listed(inner, 3)}): {INNER}" if inner else ""
        return Ambiguity("has folders whose names say nothing of classes", listed(names), TABLE + of_all)
    if seen := _same_files(part):
        rule = (
            "has a folder whose name says nothing of a class, and beside it folders with files of the same names, as masks have"
        )
        return Ambiguity(rule, seen, f"name the folder of the class folders as DATASET; {TABLE}")
    return None


def ambiguity_in_part(listing: Listing, folder: Path, folders: Sequence[Path], part: Part) -> Ambiguity | None:
    """As `find_ambiguity`, for the folders in that of a part, where --all-classes would read the parts as classes."""
    ambiguity = None if all(name.isdecimal() for name in part.classes) else find_ambiguity(listing, folders, part)
    if ambiguity is None:
        return None
    above = "[^/]+/" * len(listing.relative(folder).split("/"))
    inner = f"the inner folders: {INNER}" if same_folders(listing, folders) else f"move away what is none; {TABLE}"
    remedy = f"{inner}; {ambiguity.otherwise}: --label-regex '^{above}([^/]+)/'"
    return ambiguity._replace(remedy=remedy)


def ambiguity_of_divided(listing: Listing, parts: Sequence[Path], names: Sequence[str]) -> Ambiguity | None:
    """The sign that folders which all hold the parts are no classes. parts: those folders; names: of the folders around them."""
    if same := same_folders(listing, parts):
        rule = "has folders that all hold parts with the same folders, and it is unclear which of them are the classes"
        return Ambiguity(
            rule,
            f"{listed(names)}, each with {listed(same)}",
            "the inner folders: name one of the outer as DATASET",
            "the outer folders",
        )
    if all(map(is_neutral, names)) and not _are_counted(names):
        return Ambiguity("has folders whose names say nothing of classes", listed(names), "one of them: name it as DATASET")
    return ambiguity_of_names(names)


def ambiguity_of_names(names: Sequence[str]) -> Ambiguity | None:
    """The sign that folders are called like modalities, folds or recordings.

    Examples
    --------
    >>> ambiguity_of_names(["rgb", "depth"]).rule, ambiguity_of_names(["cat", "depth"])
    ('has folders called like modalities of the same images, or like classes', None)
    """
    words = [set(words_of(name)) for name in names]
    known = MODALITIES | PAIRED | NEUTRAL | ANNOTATIONS
    if all(known >= own and own for own in words) and any(own & (MODALITIES | PAIRED) for own in words):
        remedy = f"modalities: name the folder of the one to read as DATASET; {TABLE}"
        return Ambiguity("has folders called like modalities of the same images, or like classes", listed(names), remedy)
    if all(own <= RUNS | NEUTRAL and own & RUNS and re.search(r"\d", name) for own, name in zip(words, names, strict=True)):
        folds = all(own & FOLDS for own in words) and len(names) > 1
        what = "folds of the same classes" if folds else "recordings of any class"
        first = f"{FOLDS_OF} --train {printable(names[0])} --test {printable(names[1])}; " if folds else ""
        return Ambiguity(f"has folders called like {what}, or like classes", listed(names), first + TABLE)
    return None


def odd_classes_note(names: Sequence[str]) -> str:
    """A note on folders that are read as classes, and called like copies of others, other modalities or waste; "" if none is.

    Examples
    --------
    >>> odd_classes_note(["cat", "cat - Copy", "dog"]), odd_classes_note(["photo", "photocopy"])
    ('cat - Copy is read as a class, like cat, dog (if it is none: move it away)', '')
    """
    folded = {name.casefold() for name in names}
    no_class = MODALITIES | ANNOTATIONS | ASIDE
    found = [name for name in names if (words_of(name) and no_class.issuperset(words_of(name))) or _original_of(name) in folded]
    others = [name for name in names if name not in found]
    what, aside = (
        ("is read as a class", "it is none: move it away")
        if len(found) == 1
        else ("are read as classes", "they are none: move them away")
    )
    seen = f"{listed(found)} {what}, like {listed(others, 3)} (if {aside})"
    return seen if found and others else ""


def _original_of(name: str) -> str:
    """What a name is that says that it is a copy, without that; "" if it does not."""
    original = COPY.sub("", name.casefold())
    return original if original != name.casefold() else ""


def same_folders(listing: Listing, folders: Sequence[Path]) -> list[str]:
    """The names of two or more folders that each of several folders holds, with no images beside them; [] if they differ.

    A folder around them, whose name says only images, is passed through. Numbered ones do not count, as the tracks or patients of
    each class often have the same numbers; those in them do: fog/1/cat, fog/2/cat, blur/1/cat, …
    """
    while True:
        outer = [_inmost(listing, folder) for folder in folders]
        inside = [[path for path in listing.own_folders(folder) if not is_annotation(path.name)] for folder in outer]
        names = [[path.name for path in paths] for paths in inside]
        if len(outer) < 2 or not names[0] or any(each != names[0] for each in names) or any(map(listing.files, outer)):
            return []
        if len({re.sub(r"\d+", "", name) for name in names[0]}) > 1:
            return names[0]
        if not re.search(r"\d", names[0][0]):
            return []
        folders = [path for paths in inside for path in paths]


def _alike_inside(listing: Listing, folders: Sequence[Path]) -> list[str]:
    """The names of the folders in folders, two or more, if each holds most of them: 0 and 1 of each patient."""
    inside = [{path.name for path in listing.own_folders(folder)} for folder in folders]
    names = sorted(set().union(*inside))
    return names if len(names) > 1 and 2 * sum(map(len, inside)) > len(names) * len(inside) else []


def _inmost(listing: Listing, folder: Path) -> Path:
    """A folder, or the only one in it, if its name says only that there is data."""
    for _ in range(DEEPEST):
        inside = listing.own_folders(folder)
        if len(inside) != 1 or not is_neutral(inside[0].name) or listing.files(folder):
            break
        folder = inside[0]
    return folder


def _copy_inside(listing: Listing, folders: Sequence[Path]) -> str:
    """A folder that holds folders called like two or more of those beside it: what was seen, "" if there is none."""
    names = {path.name for path in folders}
    for path in folders:
        inside = [entry.name for entry in listing.own_folders(path) if entry.name in names - {path.name}]
        if len(inside) > 1:
            return f"{printable(path.name)}, which holds {listed(inside)}"
    return ""


def _are_counted(names: Sequence[str]) -> bool:
    """Whether names are the numbers from 0 or from 1 on, as those of digits."""
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    return len(numbers) == len(names) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _are_hexadecimal(names: Sequence[str]) -> bool:
    """Whether names are those of folders among which files are spread, 0a, 1b, ff: of one length, some begin with a digit."""
    one_length = len({*map(len, names)}) == 1 and len(names[0]) > 1
    spread = one_length and all(re.fullmatch(r"[0-9a-f]+", name) for name in names)
    return spread and len({name[0].isdigit() for name in names}) == 2


def _same_files(part: Part) -> str:
    """A folder whose name says nothing, images for example, beside others with files of the same names: "" if there is none."""
    neutral = [name for name in part.classes if is_neutral(name) and any(map(str.isalpha, name))]  # numbers may be classes
    if not neutral:
        return ""
    stems: dict[str, set[str]] = {name: set() for name in part.classes}
    for file, label in zip(part.files, part.labels, strict=True):
        if isinstance(file, str):
            stems[part.classes[label]].add(Path(file).stem)
    for name in neutral:
        if same := [other for other in stems if not is_neutral(other) and stems[other] and stems[other] <= stems[name]]:
            return f"{printable(name)} and {listed(same)}"
    return ""
