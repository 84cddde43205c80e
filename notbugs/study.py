"""The story: from a labelled set of images to a run folder. `stages` lists what is done, in order; `run` does it.

Only this process writes tables and run.json, so a stage is whole or absent, and a run that was stopped goes on with the first
stage that is not whole.
"""

import platform
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from notbugs import __version__, attacks, evidence, models, paper, scores, transfer
from notbugs.ball import Ball
from notbugs.data import Dataset, Splits
from notbugs.errors import BadInput
from notbugs.further import FURTHER
from notbugs.plan import Plan, asked, complete, fingerprint, known, load
from notbugs.pool import Told, each_when_ready, machine, usual_workers
from notbugs.results import Run
from notbugs.sets import CONTROLS, PAPER, QUICK
from notbugs.stages import Tables, every_set, make_set, pictures, train_model, trained, truth


class Stage(NamedTuple):
    """What it needs, and the function that does it: (plan, folder, seed, tell) -> rows for the tables."""

    needs: tuple[str, ...]
    work: Callable[["Plan", Path, int, Told], Tables]


def stages(plan: Plan, *, further: bool = False) -> dict[str, Stage]:
    """The study as a graph, in the order in which one worker does it; names are seedN/STAGE. further: and what comes later."""
    story: dict[str, Stage] = {}
    for seed in range(plan.seed, plan.seed + (plan.seeds or 1)):

        def add(name: str, work: Callable[..., Tables], *needs: str, seed: int = seed) -> None:
            story[f"seed{seed}/{name}"] = Stage(tuple(f"seed{seed}/{need}" for need in needs), work)

        if plan.source == "planted":
            add("truth", truth)
        add("adversarial", partial(train_model, name="adversarial", loss="adversarial"))
        add("standard", partial(train_model, name="standard"))
        for name, kind in QUICK.items():
            add(f"set-{name}", partial(make_set, name=name), *kind.needs)
        for name in QUICK:
            add(f"on-{name}", partial(train_model, name=f"on-{name}", on=name), f"set-{name}")
        everything = ["adversarial", "standard", *(f"on-{name}" for name in QUICK)]
        add("every-set", partial(every_set, names=everything), *everything)
        if seed == plan.seed:
            add("pictures", pictures, "adversarial", *(f"set-{name}" for name in QUICK))
        if plan.full:
            _add_evidence(plan, add, everything)
        if plan.recipe:
            for name, kind in PAPER.items():
                add(f"set-{name}", partial(make_set, name=name), *kind.needs)
                add(f"on-{name}", partial(train_model, name=f"on-{name}", on=name), f"set-{name}")
            add("versions", paper.versions, "on-robust")
        for name, (work, needs, once) in FURTHER.items() if further else ():
            if not once or seed == plan.seed or plan.source == "planted":  # of which each seed has a world of its own
                add(name, work, *needs)
    return story


def _add_evidence(plan: Plan, add: Callable[..., None], everything: list[str]) -> None:
    """What could refute the story, and who else inherits the blind spots."""
    lessons = evidence.lessons()
    for name, options in lessons.items():
        if "on" not in options:
            add(name, partial(train_model, name=name, **options))
    for name, kind in CONTROLS.items():
        add(f"set-{name}", partial(make_set, name=name), *kind.needs)
    for name, options in lessons.items():
        if "on" in options:
            add(name, partial(train_model, name=name, **options), f"set-{options['on']}")
    sources, targets = evidence.SOURCES, evidence.TARGETS
    for source in sources:
        add(f"examples-{source}", partial(evidence.make_examples, source=source), source)
    for name in transfer.LEARNERS:
        add(f"learner-{name}", partial(evidence.learner, name=name), "examples-standard")
    for source in sources:
        add(f"transfer-{source}", partial(evidence.networks, source=source), f"examples-{source}", *targets)
    add("leakage", evidence.leaks, "robust-linear", "adversarial", *(f"set-{name}" for name in evidence.PROBED))
    add("poison", evidence.poison, "fresh-1", *(f"set-{name}" for name in evidence.POISONED))
    add("cross", evidence.cross, *everything, *(f"on-{name}" for name in CONTROLS))
    add("agreement", evidence.agree, *everything, *lessons)
    add("controls", evidence.controls, "leakage", *everything, *(f"on-{name}" for name in CONTROLS))


def run(
    plan: Plan,
    folder: Path,
    *,
    only: Collection[str] | None = None,
    command: str = "",
    workers: int | None = None,
    tell: Told | None = None,
) -> Run:
    """Do what is left to do of a study in `folder`; tell(stage, share done, words) is called as it goes.

    only: names of stages (without their seed) to do, with all that they need; the rest can be done later.
    workers: stages done at the same time, each in a process of its own (default: one a core; 1 on a GPU).
    Raises BadInput before anything is written when the input cannot be used. A KeyboardInterrupt keeps what is finished.
    """
    splits = load(plan)
    plan = complete(plan, splits)
    tell = tell or (lambda stage, share, words: None)
    began = time.perf_counter()
    with Run.open(folder, asked(plan)) as record:
        digest = fingerprint(splits.train, splits.test)
        if record.facts.get("fingerprint", digest) != digest:
            raise BadInput(
                plan.source, "must hold the same images as when this run began", remedy="give another --out for a new run"
            )
        for leftover in (*folder.glob("datasets/.*.part"), *folder.glob("models/*.part")):  # of a process that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        usual = {"seconds": 0.0, "seeds": [], "full": False, "paper": False}
        before, seeds, full, of_paper = (record.facts.get(name, value) for name, value in usual.items())
        plan = replace(
            plan, full=plan.full or full, recipe=plan.recipe or ("paper" if of_paper else "")
        )  # once asked, it stays so
        story, asked_now = stages(plan), stages(plan, further=only is not None)
        done = all(record.done(name) for name in story)
        settled = done and record.facts["finished"]  # what is asked further changes no fact of a finished study
        if not settled:
            record.note(**facts(plan, splits, command), fingerprint=digest)
        record.note(seeds=sorted({*seeds, *record.facts["seeds"]}))
        whole = stages(replace(plan, seeds=record.facts["seeds"][-1] - plan.seed + 1))
        todo = {name: asked_now[name] for name in wanted(asked_now, only) if not record.done(name)}
        if workers is None:
            workers = usual_workers(plan.device)
        jobs = {
            name: (tuple(need for need in stage.needs if need in todo), partial(_do, stage.work, plan, folder, name))
            for name, stage in todo.items()
        }
        for name, (tables, seconds) in each_when_ready(jobs, workers, tell):
            record.finish(name, seconds, tables, **_where(plan))
            if not settled:
                record.note(seconds=round(before + time.perf_counter() - began, 1))
        record.note(finished=all(record.done(name) for name in whole))
        return record


def ask_further(folder: Path, names: Collection[str], *, workers: int | None = None, tell: Told | None = None) -> Run:
    """Do further stages (`further.FURTHER`) of a study that is there, with what they need. Raises BadInput as `run` does."""
    if unknown := sorted({*names} - {*FURTHER}):
        raise BadInput("stage", "must be one of " + ", ".join(FURTHER), ", ".join(unknown))
    known_run = Run.read(folder)
    facts, given = known_run.facts, known_run.facts["asked"]
    if facts.get("kind") or not facts.get("seeds") or not {*given} <= {field.name for field in fields(Plan)}:
        raise BadInput("RUN", "must be a study's folder", folder, "make one: notbugs run SOURCE --out FOLDER")
    seeds = facts["seeds"][-1] - given["seed"] + 1
    recipe = "paper" if facts.get("paper") else ""
    how = {name: facts["recipe"][name] for name in ("half", "compile") if name in facts["recipe"]}
    plan = Plan(**given, seeds=seeds, full=facts["full"], recipe=recipe, device=facts["device"], **how)
    return run(plan, folder, only=names, command=facts["command"], workers=workers, tell=tell)


def wanted(story: Mapping[str, Stage], only: Collection[str] | None) -> list[str]:
    """The stages whose names (without seed) are in `only`, with all that they need, in the story's order; all, if None."""
    keep: set[str] = set()
    for name in reversed(list(story)):  # what is needed stands above what needs it
        if only is None or name.split("/")[1] in only or name in keep:
            keep |= {name, *story[name].needs}
    return [name for name in story if name in keep]


# ---- single jobs ---------------------------------------------------------------------------------------------------------


def train_one(plan: Plan, path: Path, *, loss: str = "plain", tell: Told | None = None) -> list[dict[str, Any]]:
    """One classifier of the original data, saved to `path`; returns its accuracy rows, clean and at half and all of epsilon."""
    splits = load(plan)
    plan = complete(plan, splits)
    models.check_place(path)
    model = trained(
        plan, splits.train, "standard", loss=loss, on="original", seed=plan.seed, path=path, tell=tell or (lambda *_: None)
    )[0]
    ball = Ball(plan.norm, known(plan.epsilon))
    return scores.under_attack(model, splits.test, [replace(ball, radius=ball.radius / 2), ball], device=plan.device)


# ---- parts ---------------------------------------------------------------------------------------------------------------


def facts(plan: Plan, splits: Splits, command: str) -> dict[str, Any]:
    """What run.json says of where and how."""
    import numpy
    import scipy

    recipe = {
        name: value
        for name, value in asdict(plan).items()
        if name not in ("source", "norm", "epsilon", "device", "skip_bad", "full", "recipe")
    }
    return {
        "notbugs": __version__,
        "command": command,
        "source": plan.source,
        "norm": plan.norm,
        "epsilon": plan.epsilon,
        "epsilon_text": _radius_text(known(plan.epsilon)),
        "recipe": {**recipe, "attack": attacks.standard_name(Ball(plan.norm, known(plan.epsilon)), len(splits.train.classes))},
        "device": plan.device,
        "machine": machine(plan.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
        },
        "data": {
            "classes": list(splits.train.classes),
            "train": len(splits.train),
            "test": len(splits.test),
            "shape": list(splits.train.shape),
            "form": splits.form,
            "note": splits.note,
            "skipped": list(splits.skipped),
            "commonest": splits.test.labels.bincount().max().item() / len(splits.test),
            "mean_l2": round(_typical_size(splits.test), 3),
        },
        "seeds": list(range(plan.seed, plan.seed + (plan.seeds or 1))),
        "full": plan.full,
        "paper": bool(plan.recipe),
        "finished": False,
    }


def _where(plan: Plan) -> dict[str, Any]:
    """What each stage's mark says: a run may go on elsewhere, or with another version."""
    return {"notbugs": __version__, "torch": torch.__version__, "device": plan.device, "half": bool(plan.half)}


def _do(work: Callable[..., Tables], plan: Plan, folder: Path, name: str, tell: Told) -> tuple[Tables, float]:
    began = time.perf_counter()
    tables = work(plan, folder, int(name.split("/")[0].removeprefix("seed")), lambda _, share, words: tell(name, share, words))
    return tables, time.perf_counter() - began


def _radius_text(radius: float) -> str:
    """As people write it: 0.5, but 8/255."""
    levels, plain = round(radius * 255), f"{radius:g}"
    return f"{levels}/255" if len(plain) > 5 and abs(radius * 255 - levels) < 1e-6 else plain


def _typical_size(part: Dataset) -> float:
    index = list(range(min(len(part), 1000)))
    return float(part.pixels(index).flatten(1).norm(dim=1).mean())
