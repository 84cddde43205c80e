"""What every page says at its end of the run: what it was made with, and links to its files and to the runs beside it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from notbugs.report.citation import bibtex
from notbugs.report.runs_beside import INDEX, Neighbor, index_of, neighbors, parent_of
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import Json, RunMetadata, parse

FURTHER_SEED = re.compile(r"-seed\d+(\.|$)")  # in names of files
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class About:
    """About one run.

    Attributes
    ----------
    metadata : RunMetadata
    fingerprint : str
        Hash of all pixels and labels; "" if the run records none.
    model : str
        Of an audit; "" for other runs.
    extensions : dict
        SHA-256 of each module of the user's own.
    seeds : tuple of int
    settings : dict
        The resolved configuration of a study or of file scores.
    stages : dict
        Seconds by stage.
    devices : dict
        Stages by device, where they were done on more than one.
    tables : dict
        By the name of the table, its files: CSV, and parquet where there is one.
    datasets, models : list of str
        Paths in the run folder, without those of further seeds.
    review : str
        Path of the page for human review; "" if there is none.
    index : str
        Path of the list of all runs of the parent folder; "" if there is none.
    runs : list of Neighbor
        The other runs of the parent folder.
    citation : str
        BibTeX.
    """

    metadata: RunMetadata
    fingerprint: str
    model: str
    extensions: dict[str, str]
    seeds: tuple[int, ...]
    settings: dict[str, Json]
    stages: dict[str, float]
    devices: dict[str, int]
    tables: dict[str, list[str]]
    datasets: list[str]
    models: list[str]
    review: str
    index: str
    runs: list[Neighbor]
    citation: str


def about(run: RunFolder) -> About:
    """What a page says of its run."""
    metadata = parse(RunMetadata, run.metadata)
    review = "review/review.html"
    return About(
        metadata=metadata,
        fingerprint=str(run.metadata.get("fingerprint", "")),
        model=str(run.metadata.get("model", "")),
        extensions={str(name): str(digest) for name, digest in run.metadata.get("extension_files", {}).items()},
        seeds=_seeds(run),
        settings=_settings(run),
        stages={stage: float(mark.get("seconds", 0)) for stage, mark in run.metadata["stages"].items()},
        devices=found if len(found := stages_by_device(run.metadata["stages"])) > 1 else {},
        tables=_tables(run.folder),
        datasets=_listed(run.folder, "datasets", directories=True),
        models=[name for name in _listed(run.folder, "models") if name.endswith(WEIGHTS)],
        review=review if (run.folder / review).is_file() else "",
        index=f"../{INDEX}" if index_of(parent_of(run.folder)) else "",
        runs=neighbors(run.folder),
        citation=bibtex(metadata.notbugs, metadata.commit, metadata.commit_date),
    )


def stages_by_device(stages: Mapping[str, Mapping[str, Json]]) -> dict[str, int]:
    """How many stages were done on each device and version of PyTorch, most first; older runs record none.

    Parameters
    ----------
    stages : mapping
        Of run.json.

    Examples
    --------
    >>> gpu = {"device": "cuda", "machine": "NVIDIA H200", "torch": "2.11.0"}
    >>> stages_by_device({"seed0/standard": gpu, "seed0/adversarial": gpu, "data-check": {}})
    {'NVIDIA H200, cuda, torch 2.11.0': 2}
    """
    known = [mark for mark in stages.values() if "device" in mark]
    return dict(Counter(f"{mark['machine']}, {mark['device']}, torch {mark['torch']}" for mark in known).most_common())


def _settings(run: RunFolder) -> dict[str, Json]:
    """The resolved configuration; of a study with its threat model."""
    norm, epsilon = run.metadata.get("norm"), run.metadata.get("epsilon_text")
    threat: dict[str, Json] = (
        {"norm": norm, "epsilon, of training and attacks": epsilon} if run.kind == "study" and norm and epsilon else {}
    )
    return {**threat, **run.metadata.get("settings", {})}


def _seeds(run: RunFolder) -> tuple[int, ...]:
    """Of a study all its seeds, of other runs the one that they were given."""
    given = run.metadata.get("seeds") or [run.metadata.get("seed", run.metadata["arguments"].get("seed"))]
    return tuple(seed for seed in given if isinstance(seed, int))


def _tables(folder: Path) -> dict[str, list[str]]:
    """CSV and parquet by table."""
    found: dict[str, list[str]] = {}
    for name in _listed(folder, "tables"):
        if name.endswith((".csv", ".parquet")):
            found.setdefault(Path(name).stem, []).append(name)
    return found


def _listed(folder: Path, kind: str, *, directories: bool = False) -> list[str]:
    """Files in one folder of a run, or folders, without those of further seeds."""
    place = folder / kind
    entries: Iterable[Path] = place.iterdir() if place.is_dir() else ()
    names = sorted(entry.name for entry in entries if entry.is_dir() == directories and not entry.name.startswith("."))
    return [f"{kind}/{name}" for name in names if not FURTHER_SEED.search(name)]
