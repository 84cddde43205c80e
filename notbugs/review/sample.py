"""A blinded sample of a study's data sets for human reviewers, and the key that says which image is which."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random

from notbugs.atomic import atomic_write_text
from notbugs.data import Dataset
from notbugs.data.load import fingerprint
from notbugs.data_config import check_outside
from notbugs.errors import InputError
from notbugs.review.files import KEY_FILE, read_file, review_folder
from notbugs.runs.folder import RunFolder
from notbugs.runs.runner import same_fingerprint
from notbugs.runs.tables.row import records_as_csv
from notbugs.study import store
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.config import StudyConfig, load, stored_config
from notbugs.study.resume import naming_run

DEFAULT_SETS = ("original", "robust", "nonrobust")
ID_LETTERS = "bcdfghjklmnpqrstvwxz"  # no spreadsheet reads these ids as a number or a formula, and nobody reads a word
ID_LENGTH = 10


@dataclass(frozen=True)
class SampledImage:
    """One image of a review.

    Attributes
    ----------
    id : str
        All that the page and the answers name.
    set, file, label : str
        What the key says of it; the label is the one that its set gives it.
    picture : str
        The image as a data URL.
    """

    id: str
    set: str
    file: str
    label: str
    picture: str


@dataclass(frozen=True)
class ReviewSample:
    """The images of a review, in the order of the page. id: of the review; height, width: of an image, in pixels."""

    id: str
    classes: tuple[str, ...]
    height: int
    width: int
    images: tuple[SampledImage, ...]

    def key(self) -> str:
        """The text of key.csv: id, set, file, label."""
        return records_as_csv(
            {"id": image.id, "set": image.set, "file": image.file, "label": image.label} for image in self.images
        )


def draw_sample(folder: Path, *, sets: Sequence[str] = DEFAULT_SETS, count: int, seed: int = 0) -> ReviewSample:
    """Draw the images of a review from the data sets of a study.

    Parameters
    ----------
    folder : Path
        Of a study.
    sets : sequence of str
        `original` (the training images) and finished sets of the study's first seed.
    count : int
        Images per set, as balanced over its labels as possible. No file is shown in two sets.
    seed : int
        Of the choice, the order and the ids.

    Returns
    -------
    ReviewSample

    Raises
    ------
    InputError
        If the folder is no study, a set is not there, the data have changed, or there are too few images.
    """
    run = RunFolder.read(folder)
    config = replace(stored_config(run), device="cpu")
    check_outside(config, run.folder)
    for option, value, least in (("--count", count, 1), ("--seed", seed, 0)):
        if value < least:
            raise InputError(option, f"must be {least} or more", value)
    datasets = _load_datasets(run, config, sets)
    chosen = _choose(datasets, count, Random(seed))
    pictures = _pictures(datasets, chosen)
    rows = [_key_row(name, datasets[name], index) for name, indices in chosen.items() for index in indices]
    # not from the seed alone: it could be guessed, and another page with the same seed must not have the same ids
    generator = Random(sha256(repr((seed, rows, pictures)).encode()).hexdigest())
    review_id, *ids = _draw_ids(generator, len(rows) + 1)
    order = generator.sample(range(len(rows)), len(rows))
    first = next(iter(datasets.values()))
    return ReviewSample(
        id=review_id,
        classes=tuple(first.classes),
        height=first.shape[1],
        width=first.shape[2],
        images=tuple(SampledImage(id=image_id, picture=pictures[i], **rows[i]) for image_id, i in zip(ids, order, strict=True)),
    )


def save_key(folder: Path, sample: ReviewSample) -> None:
    """Write review/key.csv. Raises InputError if a key of another review is there: its answers would lose their meaning."""
    path, key = review_folder(folder) / KEY_FILE, sample.key()
    if path.exists() and read_file(path) != key.encode(errors="replace"):
        raise InputError(
            "RUN",
            "must hold no review with other sets, count or seed, so that answers keep their meaning",
            str(path.parent),
            "repeat its arguments, or move that folder away",
        )
    atomic_write_text(path, key)


def _key_row(name: str, dataset: Dataset, index: int) -> dict[str, str]:
    return {"set": name, "file": dataset.names[index], "label": dataset.classes[int(dataset.labels[index])]}


def _draw_ids(generator: Random, count: int) -> list[str]:
    """Different random ids."""
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids["".join(generator.choices(ID_LETTERS, k=ID_LENGTH))] = None
    return list(ids)


def _load_datasets(run: RunFolder, config: StudyConfig, sets: Sequence[str]) -> dict[str, Dataset]:
    """The sets by name. Raises InputError for one that is not there, and if the data are no longer those of the run."""
    if not sets or len({*sets}) < len(sets):
        raise InputError("--sets", "must be one set or several different ones", ", ".join(sets) or "none")
    if unknown := [name for name in sets if name not in ("original", *DATASETS)]:
        raise InputError("--sets", f"must be of original, {', '.join(DATASETS)}", repr(unknown[0]))
    for name in sets:
        if name != "original" and not run.done(f"seed{config.seed}/dataset-{name}"):
            got = f"{name}, which {run.folder} does not have yet"
            raise InputError("--sets", "must be finished sets", got, "resume that run")
        if name != "original" and not store.has_dataset(config, run.folder, config.seed, name):
            got = f"{name}, which {run.folder} does not have"
            raise InputError("--sets", "must be sets that could be constructed", got)
    with naming_run(run.folder, config.dataset):
        splits = load(config)
    if not same_fingerprint(run.metadata.get("fingerprint"), fingerprint(splits.train, splits.test)):
        rule = "must hold the same images as when the run began"
        raise InputError(config.dataset, rule, f"others than {run.folder} has", "restore them, or begin a new run")
    datasets = {}
    for name in sets:
        if name == "original":
            datasets[name] = splits.train
            continue
        dataset = store.load_dataset(config, run.folder, config.seed, name)
        # of several versions of a file the first, which has the file's name: nobody is to see one file twice
        datasets[name] = dataset.select(slice(len(splits.train))) if DATASETS[name].is_inverted else dataset
    return datasets


def _choose(datasets: Mapping[str, Dataset], count: int, generator: Random) -> dict[str, list[int]]:
    """Indices in each set. In turn, each set takes an image of its rarest label so far; ties are broken alike in all sets."""
    labels = list(range(max(len(dataset.classes) for dataset in datasets.values())))
    generator.shuffle(labels)
    left: dict[str, dict[int, list[int]]] = {name: {label: [] for label in labels} for name in datasets}
    for name, dataset in datasets.items():
        for drawn in generator.sample(range(len(dataset)), len(dataset)):
            left[name][int(dataset.labels[drawn])].append(drawn)
    chosen: dict[str, list[int]] = {name: [] for name in datasets}
    taken = {name: dict.fromkeys(labels, 0) for name in datasets}
    used: set[str] = set()
    fewest_first = sorted(datasets, key=lambda name: len(datasets[name]))
    for done in range(count):
        for name in fewest_first:
            index = _next_index(left[name], taken[name], labels, datasets[name].names, used)
            if index is None:
                raise InputError("--count", f"must be at most {done} for these sets, no file being shown in two", count)
            chosen[name].append(index)
            used.add(datasets[name].names[index])
            taken[name][int(datasets[name].labels[index])] += 1
    return chosen


def _next_index(
    left: dict[int, list[int]], taken: Mapping[int, int], labels: Sequence[int], names: Sequence[str], used: set[str]
) -> int | None:
    """Takes the next image of the rarest label from `left`, skipping files that are used; None if there is none."""
    for label in sorted(labels, key=taken.__getitem__):
        while left[label]:
            index = left[label].pop()
            if names[index] not in used:
                return index
    return None


def _pictures(datasets: Mapping[str, Dataset], chosen: Mapping[str, Sequence[int]]) -> list[str]:
    """The images as data URLs: PNGs of one mode, without metadata, uncompressed; or their length would tell the sets apart."""
    from PIL import Image

    mode = "RGB" if any(dataset.shape[0] == 3 for dataset in datasets.values()) else "L"
    pictures = []
    for name, indices in chosen.items():
        for image in datasets[name].images[list(indices)]:
            buffer = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).convert(mode).save(buffer, "PNG", compress_level=0)
            pictures.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    return pictures
