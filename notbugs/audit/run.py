"""The audit of one classifier: how easily each image fools it, and whether the figures can be believed. Writes a run folder.

The images are looked at in parts, several at once, each a stage: what is finished is kept. For each image and norm the smallest
change that fools is found once; at each radius asked for, the ensemble then meets only the images which that left.
Rooms: ask (what is asked), look (what is done with some of the images), summary (tables, sets and pictures of all).
"""

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from notbugs import __version__, attacks
from notbugs.audit.config import (
    AuditConfig,
    Tables,
    Threat,
    data_notes,
    digest,
    load_classifier,
    search_copy,
    test_part,
    threat_models,
)
from notbugs.audit.evaluate import evaluate_part, run_checks
from notbugs.audit.tables import summarize
from notbugs.data import Dataset
from notbugs.data.load import fingerprint
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress, default_workers, describe_machine, run_graph

PART_IMAGES = 100  # images a part: a stage of half a minute or so


def run(
    audit: AuditConfig, folder: Path, *, command: str = "", workers: int | None = None, report_progress: Progress | None = None
) -> RunFolder:
    """Do what is left to do of an audit in `folder`; raises BadInput before anything is written if the input cannot be used."""
    began, report_progress = time.perf_counter(), report_progress or (lambda stage, share, words: None)
    if audit.budget not in attacks.BUDGETS:
        raise InputError("--budget", f"must be one of {', '.join(attacks.BUDGETS)}", repr(audit.budget))
    part, form = test_part(audit)
    sets = threat_models(audit)
    for other in (audit.model, *audit.others):
        load_classifier(audit, other)
    asked = {name: value for name, value in asdict(audit).items() if name != "device"} | {"kind": "audit"}
    with RunFolder.open(folder, asked) as record:
        known = {
            "fingerprint": fingerprint(part),
            "digests": {name: digest(audit, name) for name in (audit.model, *audit.others)},
        }
        for name, what in (("fingerprint", f"{audit.source} must hold the same images"), ("digests", "models must be the same")):
            if record.metadata.get(name, known[name]) != known[name]:
                raise InputError("--out", f"{what} as when this audit began", folder, "give another folder")
        before = record.metadata.get("seconds", 0.0)
        record.update_metadata(**_metadata(audit, part, sets, form, command), **known)
        parts = -(-len(part) // PART_IMAGES)  # they take turns, image by image, so that each has all classes
        work: dict[str, Any] = {
            f"part {number + 1} of {parts}": partial(evaluate_part, audit, folder, number, parts) for number in range(parts)
        }
        work["checks"] = partial(run_checks, audit)
        todo = {name: ((), partial(_timed, name, job)) for name, job in work.items() if not record.done(name)}
        if workers is None:
            workers = default_workers(audit.device)
        for name, (tables, seconds) in run_graph(todo, workers, report_progress):
            record.record_stage(name, seconds, tables)
            record.update_metadata(seconds=round(before + time.perf_counter() - began, 1))
        if not record.done("summary"):
            at = time.perf_counter()
            tables = summarize(audit, record, part, sets, form)
            record.record_stage("summary", time.perf_counter() - at, tables)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        record.update_metadata(finished=True, seconds=round(before + time.perf_counter() - began, 1))
        return record


def _timed(name: str, work: Callable[[Progress], Tables], report_progress: Progress) -> tuple[Tables, float]:
    began = time.perf_counter()
    return work(lambda _, share, words: report_progress(name, share, words)), time.perf_counter() - began


def _metadata(audit: AuditConfig, part: Dataset, sets: Sequence[Threat], form: str, command: str) -> dict[str, Any]:
    model = search_copy(audit, audit.model)
    gradient = attacks.has_gradient(model, part.pixels([0]).to(audit.device))
    note, skipped = data_notes(audit)
    return {
        "kind": "audit",
        "notbugs": __version__,
        "command": command,
        "source": audit.source,
        "model": audit.model,
        "within": [str(one) for one in sets],
        "budget": audit.budget,
        "gradient": gradient,
        "device": audit.device,
        "machine": describe_machine(audit.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": {
            "classes": list(part.classes),
            "n": len(part),
            "shape": list(part.shape),
            "form": form,
            "note": note,
            "skipped": skipped,
        },
        "finished": False,
    }
