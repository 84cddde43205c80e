"""Code that loads the data sets of a run in the reader's own code."""

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
    empty_class = data.form == "folder" and any(_empty_folders(place / name / split))
    code = snippets(place / name, data.form, data.shape, split=split, empty_class=empty_class)
    return Use(str(place / name), name, [other for other in names if other != name], code) if code else None


def _empty_folders(parent: Path) -> Iterator[Path]:
    folders = parent.iterdir() if parent.is_dir() else ()
    return (folder for folder in folders if folder.is_dir() and not any(folder.iterdir()))
