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
from notbugs.audit.ask import Audit, Set, Tables, allowed, classifier, digest, notes, test_part, view
from notbugs.audit.look import checked, look_at
from notbugs.audit.summary import summarised
from notbugs.data import Dataset
from notbugs.errors import BadInput
from notbugs.plan import fingerprint
from notbugs.pool import Told, each_when_ready, machine, usual_workers
from notbugs.results import Run

__all__ = ["Audit", "Set", "run"]

AT_ONCE = 100  # images a part: a stage of half a minute or so


def run(audit: Audit, folder: Path, *, command: str = "", workers: int | None = None, tell: Told | None = None) -> Run:
    """Do what is left to do of an audit in `folder`; raises BadInput before anything is written if the input cannot be used."""
    began, tell = time.perf_counter(), tell or (lambda stage, share, words: None)
    if audit.budget not in attacks.BUDGETS:
        raise BadInput("--budget", f"must be one of {', '.join(attacks.BUDGETS)}", repr(audit.budget))
    part, form = test_part(audit)
    sets = allowed(audit)
    for other in (audit.model, *audit.others):
        classifier(audit, other)
    asked = {name: value for name, value in asdict(audit).items() if name != "device"} | {"kind": "audit"}
    with Run.open(folder, asked) as record:
        known = {
            "fingerprint": fingerprint(part),
            "digests": {name: digest(audit, name) for name in (audit.model, *audit.others)},
        }
        for name, what in (("fingerprint", f"{audit.source} must hold the same images"), ("digests", "models must be the same")):
            if record.facts.get(name, known[name]) != known[name]:
                raise BadInput("--out", f"{what} as when this audit began", folder, "give another folder")
        before = record.facts.get("seconds", 0.0)
        record.note(**_facts(audit, part, sets, form, command), **known)
        parts = -(-len(part) // AT_ONCE)  # they take turns, image by image, so that each has all classes
        work: dict[str, Any] = {
            f"part {number + 1} of {parts}": partial(look_at, audit, folder, number, parts) for number in range(parts)
        }
        work["checks"] = partial(checked, audit)
        todo = {name: ((), partial(_do, name, job)) for name, job in work.items() if not record.done(name)}
        if workers is None:
            workers = usual_workers(audit.device)
        for name, (tables, seconds) in each_when_ready(todo, workers, tell):
            record.finish(name, seconds, tables)
            record.note(seconds=round(before + time.perf_counter() - began, 1))
        if not record.done("summary"):
            at = time.perf_counter()
            tables = summarised(audit, record, part, sets, form)
            record.finish("summary", time.perf_counter() - at, tables)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        record.note(finished=True, seconds=round(before + time.perf_counter() - began, 1))
        return record


def _do(name: str, work: Callable[[Told], Tables], tell: Told) -> tuple[Tables, float]:
    began = time.perf_counter()
    return work(lambda _, share, words: tell(name, share, words)), time.perf_counter() - began


def _facts(audit: Audit, part: Dataset, sets: Sequence[Set], form: str, command: str) -> dict[str, Any]:
    model = view(audit, audit.model)
    gradient = attacks.has_gradient(model, part.pixels([0]).to(audit.device))
    note, skipped = notes(audit)
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
        "machine": machine(audit.device),
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
