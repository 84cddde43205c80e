"""From SOURCE to a training and a test set: find, check, split, limit, decode, check again."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from notbugs.data.dataset import Dataset, Images, LazyImages
from notbugs.data.decode import Source, decode, each, head, one_size, resized, stack
from notbugs.data.names import check_class_name, printable, reject_unreadable
from notbugs.data.sources import Located, locate
from notbugs.errors import InputError

IN_MEMORY = 2 * 2**30  # bytes of pixels above which images stay on disk and are decoded when asked for


class Splits(NamedTuple):
    """What `read` found. form: for `write`; note: what was decided on the way; skipped: "file: reason" of each bad file."""

    train: Dataset
    test: Dataset
    form: str
    note: str
    skipped: tuple[str, ...] = ()


def load(source: str, *, resize: int | None = None, limit: int | None = None, skip_bad: bool = False, seed: int = 0) -> Splits:
    """A labelled set of images, training and test part, from SOURCE:

    `digits` (scikit-learn's, built in); a folder `train/CLASS/file` with `test/CLASS/file` (or val, validation), or only CLASS
    folders; an .npz with train_images, train_labels, test_images, test_labels; a parquet file or a folder of them; a set saved
    by Hugging Face `save_to_disk`; a name on the Hugging Face hub. Where there is no test part, a fifth of each class is set
    aside (by seed) and `note` says so.

    Images become grey (1 channel) if all are grey, else RGB. Transparency is laid on white, the camera's orientation applied,
    16-bit grey scaled so that 65535 is white, of an animation the first frame taken. resize: to N x N pixels, the whole image,
    antialiased. limit: at most this many training and an eighth as many test images, the first of each class.
    skip_bad: go on without the files that cannot be read. Sets over 2 GB stay on disk (`Lazy`).
    Linked folders, and links to files outside the folder, are refused. Raises BadInput.
    """
    for option, value in (("--resize", resize), ("--limit", limit)):
        if value is not None and value < 1:
            raise InputError(option, "must be at least 1", value)
    found = locate(source)
    reject_unreadable(found.bad, skip_bad)
    if len(found.labels) == 0:
        raise InputError(source, "holds no labelled images")
    _check_classes(source, found)
    note, total = found.note, len(found.labels)
    train, test = list(range(found.train)), list(range(found.train, total))
    if not test:
        share, chance = (0.25, 0) if source == "digits" else (0.2, seed)
        train, test = stratified_split(found.labels, share, chance)
        if source != "digits":
            note = "; ".join(filter(None, (note, f"no test part: {share:.0%} of each class set aside, seed {seed}")))
    if limit is not None:
        train = _first_of_each_class(train, found, limit)
        test = _first_of_each_class(test, found, max(limit // 8, len(found.classes)))
    rows = train + test
    images, kept, bad = images_of(found.files, rows, [found.places[row] for row in rows], resize, skip_bad)
    dataset = Dataset(
        images,
        torch.tensor([found.labels[rows[i]] for i in kept], dtype=torch.int64),
        found.classes,
        tuple(found.names[rows[i]] for i in kept),
    )
    border = sum(i < len(train) for i in kept)
    splits = Splits(
        dataset.select(slice(0, border)),
        dataset.select(slice(border, None)),
        found.form,
        note,
        tuple(f"{place}: {reason}" for place, reason in (*found.bad, *bad)),
    )
    _check_none_empty(source, splits.train.labels, found.classes)
    if not len(splits.test):
        raise InputError(source, "has no test image that can be read")
    return splits


def _check_classes(source: str, found: Located) -> None:
    count = len(found.classes)
    for name in found.classes:
        check_class_name(name)
    if len(set(found.classes)) < count:
        raise InputError(source, "class names must differ", Counter(found.classes).most_common(1)[0][0])
    for place, label in zip(found.places, found.labels, strict=True):
        if not 0 <= label < count:
            raise InputError(place, f"labels must be from 0 to {count - 1}", label)
    if count < 2:
        raise InputError(source, "needs at least two classes", f"one, {printable(found.classes[0])}")
    labels = torch.tensor(found.labels[: found.train], dtype=torch.int64)
    _check_none_empty(source, labels, found.classes)
    for name, images in zip(found.classes, labels.bincount(minlength=count).tolist(), strict=True):
        if images < 2:
            raise InputError(source, "needs at least two training images of each class", f"one of class {printable(name)}")


def _check_none_empty(source: str, labels: Tensor, classes: tuple[str, ...]) -> None:
    for name, images in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
        if not images:
            raise InputError(source, f"class {printable(name)} has no training images", remedy="add some or remove the class")


def stratified_split(labels: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows kept and rows set aside: of each class the share, at least one and not all; both in their order."""
    chance = np.random.default_rng(seed)
    every = np.asarray(labels)
    aside: list[int] = []
    for label in np.unique(every):
        rows = chance.permutation(np.flatnonzero(every == label))
        aside += rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)].tolist()
    chosen = set(aside)
    return [row for row in range(len(labels)) if row not in chosen], sorted(aside)


def _first_of_each_class(rows: list[int], found: Located, limit: int) -> list[int]:
    each = limit // len(found.classes)
    if each < 1:
        raise InputError("--limit", f"must leave one image of each of the {len(found.classes)} classes", limit)
    seen: Counter[int] = Counter()
    kept = []
    for row in rows:
        seen[found.labels[row]] += 1
        if seen[found.labels[row]] <= each:
            kept.append(row)
    return kept


def images_of(
    files: Sequence[Source] | Tensor, rows: list[int], places: list[str], resize: int | None, skip_bad: bool
) -> tuple[Images, list[int], list[tuple[str, str]]]:
    """The images at rows, which of rows they are (all but the bad ones), and the bad ones."""
    everything = list(range(len(rows)))
    if isinstance(files, Tensor):
        images = files[rows]
        return (resized(images, resize) if resize else images), everything, []
    some, _ = each(lambda row: head(files[row], resize), rows[:32], places[:32])
    largest = max((3 * size[1] * size[2] for size in some if size), default=0)
    if largest * len(rows) > IN_MEMORY:
        heads, bad = each(lambda row: head(files[row], resize), rows, places)
        reject_unreadable(bad, skip_bad)
        kept = [i for i in everything if heads[i] is not None]
        own = [places[i] for i in kept]
        size = one_size([cast(tuple[int, int, int], heads[i]) for i in kept], own)
        return LazyImages(files, tuple(rows[i] for i in kept), tuple(own), size, resize), kept, bad
    arrays, bad = each(lambda row: decode(files[row], resize), rows, places)
    reject_unreadable(bad, skip_bad)
    kept = [i for i in everything if arrays[i] is not None]
    if not kept:
        raise InputError(printable(places[0]), "no image could be read")
    decoded = [cast(np.ndarray, arrays[i]) for i in kept]
    own = [places[i] for i in kept]
    size = one_size([(3 if array.ndim == 3 else 1, *array.shape[:2]) for array in decoded], own)
    return stack(decoded, own, size), kept, bad


def fingerprint(*parts: Dataset) -> str:
    """Of labels, names and, where they are in memory, pixels: a run does not go on with other data."""
    digest = sha256()
    for part in parts:
        digest.update(repr((part.classes, part.names, part.labels.tolist())).encode())
        if isinstance(part.images, Tensor):
            digest.update(part.images.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
