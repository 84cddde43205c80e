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

from notbugs import __version__, attacks, metrics, models
from notbugs.data import Dataset, Splits
from notbugs.data.load import fingerprint
from notbugs.errors import InputError
from notbugs.models import sklearn_learners
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress, default_workers, describe_machine, run_graph
from notbugs.search import NormBall
from notbugs.study import controls, replication
from notbugs.study.analyses import ANALYSES
from notbugs.study.config import StudyConfig, known, load, resolve, resumable_arguments
from notbugs.study.datasets import CONTROLS, PAPER, QUICK
from notbugs.study.tasks import (
    Tables,
    accuracy_on_all_datasets,
    build_dataset,
    pictures,
    synthetic_truth,
    train_classifier,
    train_model,
)


class Stage(NamedTuple):
    """What it needs, and the function that does it: (plan, folder, seed, tell) -> rows for the tables."""

    needs: tuple[str, ...]
    work: Callable[["StudyConfig", Path, int, Progress], Tables]


def study_graph(plan: StudyConfig, *, further: bool = False) -> dict[str, Stage]:
    """The study as a graph, in the order in which one worker does it; names are seedN/STAGE. further: and what comes later."""
    story: dict[str, Stage] = {}
    for seed in range(plan.seed, plan.seed + (plan.seeds or 1)):

        def add(name: str, work: Callable[..., Tables], *needs: str, seed: int = seed) -> None:
            story[f"seed{seed}/{name}"] = Stage(tuple(f"seed{seed}/{need}" for need in needs), work)

        if plan.source == "planted":
            add("truth", synthetic_truth)
        add("adversarial", partial(train_model, name="adversarial", loss="adversarial"))
        add("standard", partial(train_model, name="standard"))
        for name, kind in QUICK.items():
            add(f"set-{name}", partial(build_dataset, name=name), *kind.needs)
        for name in QUICK:
            add(f"on-{name}", partial(train_model, name=f"on-{name}", on=name), f"set-{name}")
        everything = ["adversarial", "standard", *(f"on-{name}" for name in QUICK)]
        add("every-set", partial(accuracy_on_all_datasets, names=everything), *everything)
        if seed == plan.seed:
            add("pictures", pictures, "adversarial", *(f"set-{name}" for name in QUICK))
        if plan.full:
            _add_controls(plan, add, everything)
        if plan.recipe:
            for name, kind in PAPER.items():
                add(f"set-{name}", partial(build_dataset, name=name), *kind.needs)
                add(f"on-{name}", partial(train_model, name=f"on-{name}", on=name), f"set-{name}")
            add("versions", replication.robust_version_accuracy, "on-robust")
        for name, (work, needs, once) in ANALYSES.items() if further else ():
            if not once or seed == plan.seed or plan.source == "planted":  # of which each seed has a world of its own
                add(name, work, *needs)
    return story


def _add_controls(plan: StudyConfig, add: Callable[..., None], everything: list[str]) -> None:
    """What could refute the story, and who else inherits the blind spots."""
    lessons = controls.extra_models()
    for name, options in lessons.items():
        if "on" not in options:
            add(name, partial(train_model, name=name, **options))
    for name, kind in CONTROLS.items():
        add(f"set-{name}", partial(build_dataset, name=name), *kind.needs)
    for name, options in lessons.items():
        if "on" in options:
            add(name, partial(train_model, name=name, **options), f"set-{options['on']}")
    sources, targets = controls.SOURCES, controls.TARGETS
    for source in sources:
        add(f"examples-{source}", partial(controls.make_examples, source=source), source)
    for name in sklearn_learners.LEARNERS:
        add(f"learner-{name}", partial(controls.transfer_to_learner, name=name), "examples-standard")
    for source in sources:
        add(f"transfer-{source}", partial(controls.transfer_to_networks, source=source), f"examples-{source}", *targets)
    add(
        "leakage",
        controls.robust_feature_leakage,
        "robust-linear",
        "adversarial",
        *(f"set-{name}" for name in controls.LEAKAGE_DATASETS),
    )
    add("poison", controls.label_leakage_of_perturbations, "fresh-1", *(f"set-{name}" for name in controls.PERTURBATION_DATASETS))
    add("cross", controls.robust_accuracy_on_all_datasets, *everything, *(f"on-{name}" for name in CONTROLS))
    add("agreement", controls.error_consistency, *everything, *lessons)
    add("controls", controls.excess_over_controls, "leakage", *everything, *(f"on-{name}" for name in CONTROLS))


def run(
    plan: StudyConfig,
    folder: Path,
    *,
    only: Collection[str] | None = None,
    command: str = "",
    workers: int | None = None,
    report_progress: Progress | None = None,
) -> RunFolder:
    """Do what is left to do of a study in `folder`; tell(stage, share done, words) is called as it goes.

    only: names of stages (without their seed) to do, with all that they need; the rest can be done later.
    workers: stages done at the same time, each in a process of its own (default: one a core; 1 on a GPU).
    Raises BadInput before anything is written when the input cannot be used. A KeyboardInterrupt keeps what is finished.
    """
    splits = load(plan)
    plan = resolve(plan, splits)
    report_progress = report_progress or (lambda stage, share, words: None)
    began = time.perf_counter()
    with RunFolder.open(folder, resumable_arguments(plan)) as record:
        digest = fingerprint(splits.train, splits.test)
        if record.metadata.get("fingerprint", digest) != digest:
            raise InputError(
                plan.source, "must hold the same images as when this run began", remedy="give another --out for a new run"
            )
        for leftover in (*folder.glob("datasets/.*.part"), *folder.glob("models/*.part")):  # of a process that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        usual = {"seconds": 0.0, "seeds": [], "full": False, "paper": False}
        before, seeds, full, of_paper = (record.metadata.get(name, value) for name, value in usual.items())
        plan = replace(
            plan, full=plan.full or full, recipe=plan.recipe or ("paper" if of_paper else "")
        )  # once asked, it stays so
        story, asked_now = study_graph(plan), study_graph(plan, further=only is not None)
        done = all(record.done(name) for name in story)
        settled = done and record.metadata["finished"]  # what is asked further changes no fact of a finished study
        if not settled:
            record.update_metadata(**study_metadata(plan, splits, command), fingerprint=digest)
        record.update_metadata(seeds=sorted({*seeds, *record.metadata["seeds"]}))
        whole = study_graph(replace(plan, seeds=record.metadata["seeds"][-1] - plan.seed + 1))
        todo = {name: asked_now[name] for name in select_stages(asked_now, only) if not record.done(name)}
        if workers is None:
            workers = default_workers(plan.device)
        jobs = {
            name: (tuple(need for need in stage.needs if need in todo), partial(_timed, stage.work, plan, folder, name))
            for name, stage in todo.items()
        }
        for name, (tables, seconds) in run_graph(jobs, workers, report_progress):
            record.record_stage(name, seconds, tables, **_where(plan))
            if not settled:
                record.update_metadata(seconds=round(before + time.perf_counter() - began, 1))
        record.update_metadata(finished=all(record.done(name) for name in whole))
        return record


def run_analyses(
    folder: Path, names: Collection[str], *, workers: int | None = None, report_progress: Progress | None = None
) -> RunFolder:
    """Do further stages (`further.FURTHER`) of a study that is there, with what they need. Raises BadInput as `run` does."""
    if unknown := sorted({*names} - {*ANALYSES}):
        raise InputError("stage", "must be one of " + ", ".join(ANALYSES), ", ".join(unknown))
    known_run = RunFolder.read(folder)
    facts, given = known_run.metadata, known_run.metadata["asked"]
    if facts.get("kind") or not facts.get("seeds") or not {*given} <= {field.name for field in fields(StudyConfig)}:
        raise InputError("RUN", "must be a study's folder", folder, "make one: notbugs run SOURCE --out FOLDER")
    seeds = facts["seeds"][-1] - given["seed"] + 1
    recipe = "paper" if facts.get("paper") else ""
    how = {name: facts["recipe"][name] for name in ("half", "compile") if name in facts["recipe"]}
    plan = StudyConfig(**given, seeds=seeds, full=facts["full"], recipe=recipe, device=facts["device"], **how)
    return run(plan, folder, only=names, command=facts["command"], workers=workers, report_progress=report_progress)


def select_stages(story: Mapping[str, Stage], only: Collection[str] | None) -> list[str]:
    """The stages whose names (without seed) are in `only`, with all that they need, in the story's order; all, if None."""
    keep: set[str] = set()
    for name in reversed(list(story)):  # what is needed stands above what needs it
        if only is None or name.split("/")[1] in only or name in keep:
            keep |= {name, *story[name].needs}
    return [name for name in story if name in keep]


# ---- single jobs ---------------------------------------------------------------------------------------------------------


def train_single(
    plan: StudyConfig, path: Path, *, loss: str = "plain", report_progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One classifier of the original data, saved to `path`; returns its accuracy rows, clean and at half and all of epsilon."""
    splits = load(plan)
    plan = resolve(plan, splits)
    models.check_writable(path)
    model = train_classifier(
        plan,
        splits.train,
        "standard",
        loss=loss,
        on="original",
        seed=plan.seed,
        path=path,
        report_progress=report_progress or (lambda *_: None),
    )[0]
    threat_model = NormBall(plan.norm, known(plan.epsilon))
    return metrics.robust_accuracy(
        model, splits.test, [replace(threat_model, epsilon=threat_model.epsilon / 2), threat_model], device=plan.device
    )


# ---- parts ---------------------------------------------------------------------------------------------------------------


def study_metadata(plan: StudyConfig, splits: Splits, command: str) -> dict[str, Any]:
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
        "recipe": {
            **recipe,
            "attack": attacks.describe_ensemble(NormBall(plan.norm, known(plan.epsilon)), len(splits.train.classes)),
        },
        "device": plan.device,
        "machine": describe_machine(plan.device),
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


def _where(plan: StudyConfig) -> dict[str, Any]:
    """What each stage's mark says: a run may go on elsewhere, or with another version."""
    return {"notbugs": __version__, "torch": torch.__version__, "device": plan.device, "half": bool(plan.bf16)}


def _timed(
    work: Callable[..., Tables], plan: StudyConfig, folder: Path, name: str, report_progress: Progress
) -> tuple[Tables, float]:
    began = time.perf_counter()
    tables = work(
        plan, folder, int(name.split("/")[0].removeprefix("seed")), lambda _, share, words: report_progress(name, share, words)
    )
    return tables, time.perf_counter() - began


def _radius_text(radius: float) -> str:
    """As people write it: 0.5, but 8/255."""
    levels, plain = round(radius * 255), f"{radius:g}"
    return f"{levels}/255" if len(plain) > 5 and abs(radius * 255 - levels) < 1e-6 else plain


def _typical_size(part: Dataset) -> float:
    index = list(range(min(len(part), 1000)))
    return float(part.pixels(index).flatten(1).norm(dim=1).mean())
