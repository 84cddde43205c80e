"""Code that loads the data sets of a run in the reader's own code."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import RunMetadata, parse
from notbugs.snippets import snippets

PREFERRED = "robust"  # shown as the example


@dataclass(frozen=True)
class Use:
    """How to load one data set. path: its folder; name: its name; others: the other sets; code: by library."""

    path: str
    name: str
    others: list[str]
    code: dict[str, str]


def use(run: RunFolder) -> Use | None:
    """How to load the data sets that a run has exported; None if it has none."""
    place, data = run.folder / "datasets", parse(RunMetadata, run.metadata).data
    names = sorted(entry.name for entry in place.iterdir() if (entry / "README.md").is_file()) if place.is_dir() else []
    if not names:
        return None
    name, split = PREFERRED if PREFERRED in names else names[0], "test" if run.kind == "audit" else "train"
    classes = _folders_of_classes(place / name) if data.form == "folder" else []
    code = snippets(
        place / name,
        data.form,
        data.shape,
        split=split,
        classes=classes,
        empty_class=any(_empty_folders(place / name / split)),
        unchanged=run.kind == "files",
        suffixes=sorted(_suffixes(place / name)) or ("png",),
    )
    return Use(str(place / name), name, [other for other in names if other != name], code) if code else None


def _folders_of_classes(folder: Path) -> list[str]:
    """The folders of the classes in the order of their indices, as the card has them; none if it cannot be read."""
    import yaml

    try:
        head = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0])
        named = head["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
        return [str(named[str(i)]) for i in range(len(named))]
    except (OSError, ValueError, KeyError, IndexError, TypeError, yaml.YAMLError):
        return []


def _suffixes(folder: Path) -> set[str]:
    """Of the images in shards: those of the first one tell."""
    for shard in sorted(folder.glob("*.tar"))[:1]:
        try:
            with tarfile.open(shard, "r:") as archive:
                return {name.partition(".")[2] for name in archive.getnames()} - {"cls", "json"}
        except (OSError, tarfile.TarError):  # whoever loads the set is told; the page is of use without it
            return set()
    return set()


def _empty_folders(parent: Path) -> Iterator[Path]:
    folders = parent.iterdir() if parent.is_dir() else ()
    return (folder for folder in folders if folder.is_dir() and not any(folder.iterdir()))
