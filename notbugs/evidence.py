"""What could refute a study, stage by stage: controls, transfer to other learners, and every model on every set under attack.

Each function is a stage: (plan, folder, seed, tell) -> rows for the tables. `lessons` lists the models it trains for that.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from notbugs import attacks, data, models, scores, transfer
from notbugs.ball import Ball
from notbugs.data import Dataset
from notbugs.models import FAMILIES, folded
from notbugs.plan import Plan, known, load
from notbugs.pool import Told
from notbugs.results import Run
from notbugs.sets import ALONE, QUICK, SETS
from notbugs.stages import Tables, in_order, load_model, load_set, model_path, set_path

EARLY = {"epochs": 2, "pace": 0.05}  # the weak model: at the usual rate it hardly errs on easy images (docs/lab-log.md)
SWEEP = {"adversarial-sixteenth": 1 / 16, "adversarial-eighth": 1 / 8, "adversarial-quarter": 1 / 4, "adversarial-half": 1 / 2}
SOURCES = ("standard", *SWEEP, "adversarial")
TARGETS = ("standard", "same-start", "fresh-1", *ALONE, *FAMILIES, "adversarial")
STORY = ("standard", "adversarial", *(f"on-{name}" for name in SETS))
CROSSED = 100  # images of each set on which each model is attacked
CHEAP = "lead 1 + lead 3 + loss 15"  # how
MOST = 1000  # test images for examples

# result: its controls, and what each would have refuted
PAIRS: dict[str, dict[str, str]] = {
    "on-random-labels": {
        "on-random-labels-noise": "that any change of this size would do",
        "on-random-labels-patterns": "that one pattern a label is all there is to learn",
        "on-random-labels-robust": "that what moves is what a robust model looks at",
        "on-errors-only": "that a model's mistakes teach as much without an attack",
        "on-photographs": "that a model's answers to any pictures teach as much",
    },
    "on-random-labels-unread": {"on-random-labels-noise": "that images which look like their new label do the teaching"},
    "on-random-labels-any": {"on-random-labels-any-patterns": "that the labels left right by chance do the teaching"},
    "on-next-labels": {
        "on-next-labels-noise": "that any change of this size would do",
        "on-next-labels-patterns": "that one pattern a label is all there is to learn",
        "on-next-labels-robust": "that what moves is what a robust model looks at",
        "on-next-labels-bugs": "that what misleads one model alone would do",
        "on-errors-only": "that a model's mistakes teach as much without an attack",
        "on-photographs": "that a model's answers to any pictures teach as much",
    },
    "on-next-labels-unread": {"on-next-labels-noise": "that images which look like their new label do the teaching"},
}
PROBED = ("random-labels", "random-labels-any", "next-labels", "random-labels-robust", "next-labels-bugs")
POISONED = (
    *("random-labels", "random-labels-any", "next-labels", "random-labels-noise", "next-labels-noise"),
    *("random-labels-patterns", "next-labels-patterns", "random-labels-robust", "next-labels-robust", "next-labels-bugs"),
)


def lessons() -> dict[str, dict[str, Any]]:
    """Models beyond those of the quick study: name -> options of `stages.train_model`."""
    beside: dict[str, dict[str, Any]] = {  # no claim rests on how robust these are
        "early": EARLY,
        "robust-linear": {"network": "linear", "loss": "adversarial"},
        "same-start": {"start": "standard"},
        **{name: {} for name in ("fresh-1", *ALONE)},
        **{name: {"loss": "adversarial", "radius": share} for name, share in SWEEP.items()},
        **{name: {"network": name} for name in FAMILIES},
        **{f"{name}-on-next-labels": {"on": "next-labels", "network": name} for name in FAMILIES},
        **{f"on-{name}-same-start": {"on": name, "start": "standard"} for name in ("random-labels", "next-labels")},
    }
    taught = {f"on-{name}": {"on": name} for name in SETS if name not in QUICK}
    return {name: {**options, "budget": "quick"} for name, options in beside.items()} | taught


def leaks(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """What robust features alone would teach of each relabelled set, in two models: a linear and a deep one."""
    splits, rows = load(plan, seed), []
    ball = Ball(plan.norm, known(plan.epsilon))
    held = splits.test.take(scores.balanced(splits.test.labels, 500))
    probes = {}
    for name in ("robust-linear", "adversarial"):
        model = load_model(plan, folder, seed, name)
        probes[name] = model, scores.robust_features(model, held, ball, device=plan.device)
    for number, on in enumerate(PROBED):
        made = load_set(plan, folder, seed, on)
        for name, (model, features) in probes.items():
            found = scores.leakage(model, features, made, splits.test, device=plan.device)
            rows.append({"set": on, "model": name, "seed": seed, **found})
        tell("", (number + 1) / len(PROBED), on)
    return {"leakage": rows}


def poison(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Of each relabelled set: how well its changes alone tell the new labels, and how many images mislead another model too."""
    original, rows = load(plan, seed).train, []
    other = load_model(plan, folder, seed, "fresh-1")
    for number, name in enumerate(POISONED):
        made = load_set(plan, folder, seed, name)
        chosen = torch.arange(min(len(made), 2000)) * len(made) // min(len(made), 2000)
        wanted, own = made.labels[chosen], original.labels[chosen]
        read = transfer.answers(other, made.take(chosen), plan.device)
        moved = wanted != own
        rows.append(
            {
                "set": name,
                "seed": seed,
                **scores.separable(original, made, seed=seed),
                "others_read_it": float((read == wanted)[moved].float().mean()),
                "others_keep": float((read == own)[moved].float().mean()),
            }
        )
        tell("", (number + 1) / len(POISONED), name)
    return {"poison": rows}


def make_examples(plan: Plan, folder: Path, seed: int, tell: Told, *, source: str) -> Tables:
    """Adversarial examples of one model for the test images, kept in examples/SOURCE.npz."""
    made = transfer.examples(
        load_model(plan, folder, seed, source),
        _tested(plan, seed),
        Ball(plan.norm, known(plan.epsilon)),
        seed=seed,
        device=plan.device,
    )
    path = model_path(plan, folder, seed, source)
    place = folder / "examples" / path.with_suffix(".npz").name
    place.parent.mkdir(exist_ok=True)
    data.write_arrays({name: column.numpy() for name, column in made._asdict().items()}, place)
    return {}


def networks(plan: Plan, folder: Path, seed: int, tell: Told, *, source: str) -> Tables:
    """The examples of one model on every other network."""
    rows, part, made = [], _tested(plan, seed), _examples(plan, folder, seed, source)
    for number, target in enumerate(TARGETS):
        if source != target:
            found = transfer.transferred(made, part, load_model(plan, folder, seed, target), device=plan.device)
            rows += _transferred(plan, seed, source, target, found)
        tell("", (number + 1) / len(TARGETS), target)
    return {"transfer": rows}


def learner(plan: Plan, folder: Path, seed: int, tell: Told, *, name: str) -> Tables:
    """The examples of the standard model on a learning algorithm that is no network, fitted to the training images."""
    fitted = transfer.learner(name, load(plan, seed).train, seed=seed)
    tell("", 0.6, "fitted")
    found = transfer.transferred(_examples(plan, folder, seed, "standard"), _tested(plan, seed), fitted)
    return {"transfer": _transferred(plan, seed, "standard", name, found)}


def cross(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Every model on every set, unchanged and, on fewer images, under three gradient attacks at half the radius."""
    splits, ball = load(plan, seed), Ball(plan.norm, known(plan.epsilon) / 2)
    parts = {"test": splits.test, "original": splits.train}
    parts |= {name: load_set(plan, folder, seed, name) for name in SETS if set_path(plan, folder, seed, name).exists()}
    attack = attacks.ensemble(ball, len(splits.train.classes))[:3]
    names, rows = [name for name in STORY if model_path(plan, folder, seed, name).exists()], []
    some = {on: _some(part, CROSSED) for on, part in parts.items() if on != "test"}
    images = torch.cat([part.pixels(slice(None)) for part in some.values()])  # of all sets at once: small batches cost as much
    labels = torch.cat([part.labels for part in some.values()])
    for number, name in enumerate(names):
        model, facts = models.load(model_path(plan, folder, seed, name), plan.network)
        view = folded(model, splits.train.pixels(slice(0, 2)), plan.device)
        about = {"model": name, "trained_on": facts["trained_on"], "seed": seed, "norm": plan.norm}
        quick = name.removeprefix("on-") in {*QUICK, "standard", "adversarial"}
        for on, part in parts.items():
            if on != "test" and not (quick and on in {*QUICK, "original"}):  # the others are in the tables already
                rows.append({**about, "set": on, **scores.clean(view, _some(part, 2000), device=plan.device)})

        def push(batch: Tensor, index: Tensor, view: Any = view) -> Tensor:
            found = attacks.worst_case(view, batch, labels[index].to(batch.device), attack)
            return found.values < 0

        left = data.sweep(push, images, batch_size=1000, device=plan.device).split([len(part) for part in some.values()])
        for on, kept in zip(some, left, strict=True):
            row = scores.row(int(kept.sum()), len(kept), epsilon=float(ball.radius), attack=CHEAP)
            rows.append({**about, "set": on, **row})
        tell("", (number + 1) / len(names), name)
    return {"accuracy": [in_order(row) for row in rows]}


def agree(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Every pair of models: do they read the test images alike, and make the same mistakes?"""
    part, rows = load(plan, seed).test, []
    read = {}
    for name in ("standard", "adversarial", *(f"on-{name}" for name in QUICK), *lessons()):
        if model_path(plan, folder, seed, name).exists():
            read[name] = transfer.answers(load_model(plan, folder, seed, name), part, plan.device).numpy()
    names = list(read)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            found = scores.agreement(read[one], read[other], part.labels.numpy())
            rows.append({"model": one, "other": other, "seed": seed, **found})
    return {"agreement": rows}


def controls(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Every relabelled result as its excess over each control, on the same test images."""
    run = Run.read(folder)
    part = load(plan, seed).test
    guess = part.labels.bincount().max().item() / len(part)
    clean = {row["model"]: row for row in run.table("accuracy") if (row["set"], row["epsilon"], row["seed"]) == ("test", 0, seed)}
    probes = {(row["set"], row["model"]): row for row in run.table("leakage") if row["seed"] == seed and row["accuracy"] != ""}
    rows = []
    for result, others in PAIRS.items():
        against = {name: (why, clean.get(name)) for name, why in others.items()}
        for probe in ("robust-linear", "adversarial"):
            found = probes.get((result.removeprefix("on-"), probe))
            against[f"probe of {probe}"] = ("that robust features alone give the labels away", found)
        for control, (why, row) in against.items():
            if row is not None and result in clean:
                rows.append(
                    {"result": result, "control": control, "refutes": why, "seed": seed, **excess(clean[result], row, guess)}
                )
    return {"controls": rows}


def excess(result: Any, control: Any, guess: float) -> dict[str, Any]:
    """accuracy, control_accuracy, excess of one over the other with Newcombe's 95 % interval, excess over guessing, n."""
    (p, low_p, high_p), (q, low_q, high_q) = (
        [float(row[name]) for name in ("accuracy", "low", "high")] for row in (result, control)
    )
    return {
        "accuracy": p,
        "control_accuracy": q,
        "excess": p - q,
        "excess_low": p - q - math.hypot(p - low_p, high_q - q),
        "excess_high": p - q + math.hypot(high_p - p, q - low_q),
        "over_guessing": p - guess,
        "over_guessing_low": low_p - guess,
        "over_guessing_high": high_p - guess,
        "n": result["n"],
    }


# ---- parts ---------------------------------------------------------------------------------------------------------------


def _tested(plan: Plan, seed: int) -> Dataset:
    return _some(load(plan, seed).test, MOST)


def _some(part: Dataset, most: int) -> Dataset:
    """At most so many images, drawn evenly at random."""
    if len(part) <= most:
        return part
    return part.take(torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:most].sort().values)


def _examples(plan: Plan, folder: Path, seed: int, source: str) -> transfer.Examples:
    found = data.read_arrays(folder / "examples" / model_path(plan, folder, seed, source).with_suffix(".npz").name)
    return transfer.Examples(**{name: torch.from_numpy(column) for name, column in found.items()})


def _transferred(plan: Plan, seed: int, source: str, target: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    common = {"source": source, "target": target, "seed": seed, "norm": plan.norm, "epsilon": plan.epsilon}
    return [{**common, **row} for row in rows]
