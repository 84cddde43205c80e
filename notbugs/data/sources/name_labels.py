"""Labels in the names of files: cat.0.jpg, n01440764_18.JPEG."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from notbugs.data.names import check_class_name, found_in, path_part, regular_expression
from notbugs.data.sources.base import Part, sorted_classes
from notbugs.data.sources.candidates import walk_images
from notbugs.data.sources.class_names import as_one_name
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import listed
from notbugs.data_config import DataConfig

# What names of files say in front of a number, or of the first underscore
USUAL = (r"([^/]+?)[._ -]*\(?\d+\)?\.\w+$", r"([^/_]+)_[^/]*$")
LONGEST = 100  # characters of a name whose label is suggested: one of 240 dashes takes 0.1 s, as any three of them may divide it


def part_by_names(listing: Listing, folder: Path, name: str, config: DataConfig) -> tuple[Part | None, int, str]:
    """The images below a folder whose paths have a label, the number of all images, and a note. None if no path has one.

    A path without one among others is refused.
    """
    assert config.label_regex is not None
    pattern = regular_expression("--label-regex", config.label_regex)
    found = {path: found_in(pattern, listing.relative(path)) for path in walk_images(listing, folder)}
    words, note = as_one_name(found.values())
    labels = dict(zip(found, words, strict=True))
    files = [path for path, label in labels.items() if label]
    for path in (path for path, label in labels.items() if files and not label):
        listing.refuse(path, f"has no label: {config.label_regex} is not found in its path")
    classes = sorted_classes([labels[path] for path in files])
    for label in classes:
        check_class_name(label)
    index = {label: number for number, label in enumerate(classes)}
    part = Part(
        name,
        files,
        [index[labels[path]] for path in files],
        classes,
        [f"{path_part(labels[path])}/{below(path, folder)}" for path in files],
        [listing.relative(path) for path in files],
    )
    return (part if files else None), len(labels), note


def suggestion(names: Sequence[str]) -> str:
    """The option that reads labels from such names, with the labels; "" if they say none.

    Examples
    --------
    >>> suggestion(["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"])
    "labels in the file names (cat, dog): --label-regex '([^/]+?)[._ -]*\\\\(?\\\\d+\\\\)?\\\\.\\\\w+$'"
    >>> suggestion(["0001.jpg", "0002.jpg"]), suggestion(["image_1.jpg", "image_2.jpg"])
    ('', '')
    """
    if any(len(name) > LONGEST for name in names):
        return ""
    for text in USUAL:
        pattern = re.compile(text)
        found = Counter(found_in(pattern, name) for name in names)
        if len(found) > 1 and "" not in found and min(found.values()) > 1 and all(map(_is_word, found)):
            return f"labels in the file names ({listed(sorted(found), 3)}): --label-regex '{text}'"
    return ""


def _is_word(text: str) -> bool:
    return any(letter.isalpha() for letter in text)
