"""The card of a data set, README.md: metadata for the Hugging Face hub, notes, classes, origin, and code that loads it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from notbugs.data import markdown
from notbugs.data.dataset import Dataset
from notbugs.data.names import printable
from notbugs.snippets import snippets, sorts_differently

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
UNKNOWN = "unknown"  # the hub's identifier of an unknown license
CARD_BYTES = 2**16  # of another set's card that are read
# Its line in such a card. Not read as YAML: 12 short lines that merge each other grow to any size
LICENSE = re.compile(r"""^license:[ \t]*(?P<sign>["']?)([a-z0-9][a-z0-9.+-]{0,60})(?P=sign)[ \t]*(?:[ \t]#.*)?$""", re.MULTILINE)
READ_BY_ALL = (".png", ".jpg", ".jpeg", ".bmp")  # suffixes that both torchvision and Keras open
SHOWN = 5  # names in a sentence


class Origin(NamedTuple):
    """Where the images of a data set come from.

    Attributes
    ----------
    name : str
        Of the input, without the folders above it.
    fingerprint : str
        Of the input (`data.fingerprint`).
    license : str
        As the Hugging Face hub calls it. "unknown" unless the input's own card says it.
    """

    name: str
    fingerprint: str
    license: str = UNKNOWN


class Written(NamedTuple):
    """What a writer wrote. folders: of the classes; files: their names in them; suffixes: of the images, without dots."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ("png",)


def license_of(dataset: str) -> str:
    """The license that the README.md of a folder states, as the Hugging Face hub has it in front; else "unknown".

    Examples
    --------
    >>> license_of("digits")
    'unknown'
    """
    path = Path(dataset) / "README.md"
    if not path.is_file():  # opening a pipe would wait forever
        return UNKNOWN
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(CARD_BYTES)
    except (OSError, ValueError):
        return UNKNOWN
    stated = list(LICENSE.finditer(text.split("\n---\n")[0])) if text.startswith("---\n") else []
    return stated[0][2] if len(stated) == 1 else UNKNOWN


def empty_classes(dataset: Dataset) -> list[str]:
    """The classes without images.

    Examples
    --------
    >>> from notbugs import data
    >>> empty_classes(data.load("digits").train.select([0, 1, 2]))
    ['1', '4', '5', '6', '7', '8', '9']
    """
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    return [name for name, count in zip(dataset.classes, counts, strict=True) if not count]


def write_card(
    root: Path,
    dataset: Dataset,
    text: str,
    written: Written,
    *,
    folder: Path,
    form: str,
    split: str,
    origin: Origin | None,
    unchanged: bool,
) -> tuple[str, ...]:
    """Write README.md into `root`, and return its notes. folder: as the code on it is to name it."""
    notes = _notes(dataset, written, form, unchanged)
    parts = [
        _front_matter(dataset, written, form, origin),
        text.rstrip() + "\n",
        "\n## Notes\n\n" + "".join(f"- {markdown.plain(note)}\n" for note in notes) if notes else "",
        _classes(dataset, written),
        _origin(origin) if origin else "",
        _how_to_load(dataset, written, folder, form, split, unchanged),
    ]
    (root / "README.md").write_text("".join(parts), encoding="utf-8")
    return notes


def read_classes(root: Path) -> tuple[str, ...]:
    """The class names on the card of a set. Raises OSError, ValueError, KeyError, IndexError, TypeError or yaml.YAMLError."""
    import yaml

    head = yaml.safe_load((root / "README.md").read_text(encoding="utf-8").split("\n---\n")[0])
    if not isinstance(head, dict):
        raise TypeError("it has no front matter")
    own = head.get("notbugs", {})
    if "classes" in own:
        return tuple(own["classes"])
    labels = next(feature for feature in head["dataset_info"]["features"] if isinstance(feature["dtype"], dict))
    named = labels["dtype"]["class_label"]["names"]
    return tuple(named[str(i)] for i in range(len(named)))


def _front_matter(dataset: Dataset, written: Written, form: str, origin: Origin | None) -> str:
    """The head of the card in YAML, as the Hugging Face hub expects it; what only notbugs reads is under its name."""
    import yaml

    own: dict[str, Any] = {"input": origin.name, "fingerprint": origin.fingerprint} if origin else {}
    names = written.folders or dataset.classes  # readers of image folders take their names for those of the classes
    if names != dataset.classes:
        own["classes"] = list(dataset.classes)
    head: dict[str, Any] = {
        "license": origin.license if origin else UNKNOWN,
        "task_categories": ["image-classification"],
        "size_categories": [next((name for bound, name in SIZE_CATEGORIES if len(dataset) < bound), "1M<n<10M")],
        # no `configs`: with them Hugging Face caches a local set by these entries and the folder's name, so that another
        # set in a folder of that name is taken for it
        "dataset_info": {"features": _features(names, form, written.suffixes)},
    }
    if own:
        head["notbugs"] = own
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=10**6)}---\n\n"


def _features(classes: Sequence[str], form: str, suffixes: Sequence[str]) -> list[dict[str, Any]]:
    """The columns that load_dataset finds: exactly these, or it fails."""
    label = {"class_label": {"names": {str(i): name for i, name in enumerate(classes)}}}
    if form == "webdataset":
        about = [{"name": name, "dtype": "string"} for name in ("class", "name")]
        found: list[dict[str, Any]] = [{"name": suffix, "dtype": "image"} for suffix in suffixes]
        found += [{"name": "cls", "dtype": label}, {"name": "json", "struct": about}]
        return [*found, {"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]
    columns: list[dict[str, Any]] = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": label}]
    return [*columns, {"name": "file_name", "dtype": "string"}] if form in ("parquet", "saved") else columns


def _notes(dataset: Dataset, written: Written, form: str, unchanged: bool) -> tuple[str, ...]:
    """What a reader has to know before loading the set."""
    notes = []
    if empty := empty_classes(dataset):
        notes.append(f"No image has the label {shown(empty)}. Code that numbers the classes it finds gives others their numbers.")
    if written.folders and sorts_differently(written.folders):
        notes.append("Readers of image folders sort the classes by name, which is not their order here. The code below keeps it.")
    if written.folders and (renamed := sum(map(str.__ne__, written.folders, dataset.classes))):
        notes.append(f"{renamed} classes have names that no folder can have. manifest.csv has the true names.")
    if unchanged and form == "folder":
        last = [name.rpartition("/")[2] for name in dataset.names]
        if renamed := sum(map(str.__ne__, written.files, last)):
            notes.append(f"{renamed} files have another name here. manifest.csv has the original names.")
        if skipped := sorted({Path(file).suffix for file in written.files if Path(file).suffix.lower() not in READ_BY_ALL}):
            notes.append(f"torchvision or Keras skip files that end in {shown([suffix or 'no suffix' for suffix in skipped])}.")
    return tuple(notes)


def shown(names: Sequence[str]) -> str:
    """A few names, for a sentence.

    Examples
    --------
    >>> shown(["a", "b"]), shown([*"abcdefg"])
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more


def _classes(dataset: Dataset, written: Written) -> str:
    """The classes with their indices and numbers of images."""
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    lines = [f"{i}\t{count}\t{name}" for i, (name, count) in enumerate(zip(dataset.classes, counts, strict=True))]
    if written.folders and written.folders != dataset.classes:
        lines = [f"{line}\t{folder}" for line, folder in zip(lines, written.folders, strict=True)]
    columns = "index\timages\tclass" + ("\tfolder" if written.folders and written.folders != dataset.classes else "")
    return "\n## Classes\n\n```text\n" + "\n".join([columns, *lines]) + "\n```\n"


def _origin(origin: Origin) -> str:
    license = (
        f"`{origin.license}`, as its card says." if origin.license != UNKNOWN else "unknown. Look it up before sharing this set."
    )
    return (
        f"\n## Origin\n\n- Input: {markdown.code(origin.name)}, fingerprint `{origin.fingerprint}`\n"
        f"- License of the input: {license}\n"
    )


def _how_to_load(dataset: Dataset, written: Written, folder: Path, form: str, split: str, unchanged: bool) -> str:
    """The end of the card: code by library."""
    found = snippets(
        folder,
        form,
        dataset.shape,
        split=split,
        classes=written.folders,
        empty_class=bool(empty_classes(dataset)),
        unchanged=unchanged,
        suffixes=written.suffixes,
    )
    code = "".join(f"\n{library}:\n\n```python\n{text}\n```\n" for library, text in found.items())
    other = "" if form == "folder" else "\nFiftyOne opens image folders: `--write folder` writes one.\n"
    return f"\n## Load it\n{code}{other}"
