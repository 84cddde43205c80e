"""The story: from a labelled set of images to a run folder. `STORY` lists the stages in order; the functions below it do them.

A stage reads the run folder and the data, writes models or datasets, and returns rows. Only the parent process writes tables and
run.json, so a stage is whole or absent, and a run that was stopped goes on with the first stage that is not whole.
"""

import os
import platform
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from notbugs import __version__, attacks, construct, data, models, planted, scores, train
from notbugs.ball import Ball
from notbugs.data import Dataset, Splits
from notbugs.errors import BadInput
from notbugs.pool import Told, each_when_ready
from notbugs.results import Run

Tables = dict[str, list[dict[str, Any]]]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """Everything that decides a study's figures. Fields left at None are filled in by `complete` from the data."""

    source: str
    resize: int | None = None
    limit: int | None = None
    skip_bad: bool = False
    norm: str = "l2"
    epsilon: float | None = None  # what models are trained against and judged at, and at half of it
    relabel_epsilon: float | None = None  # how far relabelled images may go
    seed: int = 0
    seeds: int | None = None
    network: str | None = None
    width: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    shift: int | None = None  # augmentation: pixels either way; 0 is none
    flip: bool | None = None
    adversarial_steps: int = 3
    invert_steps: int | None = None
    invert_start: str = "image"
    relabel_steps: int = 20
    patience: int | None = None  # further epochs for relabelled sets that are still at chance
    device: str = "cpu"


class Stage(NamedTuple):
    """What it needs, and the function that does it: (plan, folder, seed, tell) -> rows for the tables."""

    needs: tuple[str, ...]
    work: Callable[["Plan", Path, int, Told], Tables]


# ---- the story ----------------------------------------------------------------------------------------------------------

SETS = {
    "robust": (
        "adversarial",
        "Robust version (D_R): every image was grown from another, random image until the features of the "
        "adversarially trained model were those of the original. Labels are the originals'.",
    ),
    "nonrobust": (
        "standard",
        "Non-robust version (D_NR): every image was grown from another, random image until the features of the "
        "standard model were those of the original. Labels are the originals'; to a person most look wrong.",
    ),
    "random-labels": (
        "standard",
        "Random labels (D_rand), never the old one: every image was changed within a small ball until the "
        "standard model read the new label. To a person every label looks wrong.",
    ),
    "random-labels-any": (
        "standard",
        "Random labels (D_rand), the old one allowed, as in the paper: about one in K stays right.",
    ),
    "next-labels": (
        "standard",
        "Next labels (D_det): every image was changed within a small ball until the standard model read the "
        "class after its own. To a person every label looks wrong.",
    ),
    "random-labels-noise": (
        "",
        "Control: the labels of `random-labels`, and random changes of the same size in place of the "
        "standard model's. A classifier should learn nothing from it.",
    ),
}


def stages(plan: Plan) -> dict[str, Stage]:
    """The study as a graph, in the order in which a single worker does it; names are seedN/STAGE."""
    story: dict[str, Stage] = {}
    for seed in range(plan.seed, plan.seed + (plan.seeds or 1)):

        def add(name: str, work: Callable[..., Tables], *needs: str, seed: int = seed) -> None:
            story[f"seed{seed}/{name}"] = Stage(tuple(f"seed{seed}/{need}" for need in needs), work)

        add("adversarial", partial(train_model, name="adversarial", on="original"))
        add("standard", partial(train_model, name="standard", on="original"))
        for name, (source, _) in SETS.items():
            add(f"set-{name}", partial(make_set, name=name), source or "set-random-labels")
        for name in SETS:
            add(f"on-{name}", partial(train_model, name=f"on-{name}", on=name), f"set-{name}")
        everything = ["adversarial", "standard", *(f"on-{name}" for name in SETS)]
        add("every-set", partial(every_set, names=everything), *everything)
        if seed == plan.seed:
            add("pictures", pictures, "adversarial", *(f"set-{name}" for name in SETS))
    return story


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
        digest = fingerprint(splits)
        if record.facts.get("fingerprint", digest) != digest:
            raise BadInput(
                plan.source, "must hold the same images as when this run began", remedy="give another --out for a new run"
            )
        for leftover in (*folder.glob("datasets/.*.part"), *folder.glob("models/*.part")):  # of a process that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        before = record.facts.get("seconds", 0.0)
        record.note(**facts(plan, splits, command), fingerprint=digest)
        if plan.source == "planted" and not record.done("truth"):
            record.finish("truth", 0.0, {"truth": _truth(plan)})
        story = stages(plan)
        todo = {name: story[name] for name in wanted(story, only) if not record.done(name)}
        if workers is None:
            workers = 1 if plan.device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        jobs = {
            name: (tuple(need for need in stage.needs if need in todo), partial(_do, stage.work, plan, folder, name))
            for name, stage in todo.items()
        }
        for name, (tables, seconds) in each_when_ready(jobs, workers, tell):
            record.finish(name, seconds, tables)
            record.note(seconds=round(before + time.perf_counter() - began, 1))
        record.note(finished=all(record.done(name) for name in story))
        return record


def wanted(story: Mapping[str, Stage], only: Collection[str] | None) -> list[str]:
    """The stages whose names (without seed) are in `only`, with all that they need, in the story's order; all, if None."""
    keep: set[str] = set()
    for name in reversed(list(story)):  # what is needed stands above what needs it
        if only is None or name.split("/")[1] in only or name in keep:
            keep |= {name, *story[name].needs}
    return [name for name in story if name in keep]


# ---- the stages ---------------------------------------------------------------------------------------------------------


def train_model(plan: Plan, folder: Path, seed: int, tell: Told, *, name: str, on: str) -> Tables:
    """One classifier, trained on the original or a constructed set, saved, and measured on the real test set under attack."""
    splits, ball = load(plan), Ball(plan.norm, _known(plan.epsilon))
    part = splits.train if on == "original" else load_set(plan, folder, seed, on)
    model, curve = _trained(
        plan,
        part,
        name,
        loss="adversarial" if name == "adversarial" else "plain",
        on=on,
        seed=seed,
        path=model_path(plan, folder, seed, name),
        tell=tell,
    )
    rows = scores.under_attack(model, splits.test, [replace(ball, radius=ball.radius / 2), ball], device=plan.device)
    return {
        "accuracy": [_in_order({"model": name, "trained_on": on, "seed": seed, "set": "test", **row}) for row in rows],
        "training": [{"model": name, "seed": seed, **epoch._asdict()} for epoch in curve],
    }


def _trained(
    plan: Plan, part: Dataset, name: str, *, loss: str, on: str, seed: int, path: Path, tell: Told
) -> tuple[models.Model, list[train.Epoch]]:
    ball, epochs = Ball(plan.norm, _known(plan.epsilon)), _known(plan.epochs)
    losses: dict[str, Callable[[], train.Loss]] = {
        "plain": lambda: train.plain,
        "adversarial": lambda: train.against(partial(attacks.pgd, ball=ball, steps=plan.adversarial_steps, by="loss")),
        "trades": lambda: train.trades(partial(attacks.diverge, ball=ball, steps=plan.adversarial_steps)),
    }
    if loss not in losses:
        raise BadInput("--loss", f"must be one of {', '.join(losses)}", repr(loss))
    faint = on.startswith(("random-labels", "next-labels"))  # what these teach is pixel-exact: augmentation would hide it
    augment = train.shifts(_known(plan.shift), flip=bool(plan.flip)) if (plan.shift or plan.flip) and not faint else None
    model = models.build(
        str(plan.network),
        shape=part.shape,
        classes=len(part.classes),
        width=plan.width,
        seed=_seed(seed, name),
        **_pixel_statistics(load(plan).train),
    )
    curve = train.fit(
        model,
        part,
        losses[loss](),
        epochs=epochs,
        batch_size=_known(plan.batch_size),
        learning_rate=_known(plan.learning_rate),
        weight_decay=_known(plan.weight_decay),
        augment=augment,
        patience=_known(plan.patience) if faint else 0,
        seed=_seed(seed, name),
        device=plan.device,
        progress=lambda epoch: tell("", 0.9 * min(epoch.epoch / epochs, 1), f"epoch {epoch.epoch} of {epochs}"),
    )
    models.save(
        model,
        path,
        classes=list(part.classes),
        trained_on=on,
        seed=seed,
        training={
            "loss": loss,
            "norm": ball.norm,
            "epsilon": ball.radius,
            "epochs": len(curve),
            "augmented": augment is not None,
        },
    )
    return model, curve


def make_set(plan: Plan, folder: Path, seed: int, tell: Told, *, name: str) -> Tables:
    """One constructed set, written in the form the data came in."""
    began, splits = time.perf_counter(), load(plan)
    original, classes = splits.train, len(splits.train.classes)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        tell("", done / len(original), f"{done} of {len(original)} images")

    ball = Ball(plan.norm, _known(plan.relabel_epsilon))
    source, about = SETS[name]
    model = models.load(model_path(plan, folder, seed, source), plan.network)[0] if source else None
    if model is None:
        made = construct.noise_like(original, load_set(plan, folder, seed, "random-labels"), ball=ball, seed=_seed(seed, name))
    elif name in ("robust", "nonrobust"):
        made = construct.inverted(
            model,
            original,
            start=plan.invert_start,
            steps=_known(plan.invert_steps),
            seed=_seed(seed, name),
            device=plan.device,
            progress=progress,
        )
    else:
        labels = (
            construct.next_labels(original.labels, classes)
            if name == "next-labels"
            else construct.random_labels(original.labels, classes, keep=name == "random-labels-any", seed=_seed(seed, name))
        )
        made = construct.relabelled(
            model, original, labels, ball=ball, steps=plan.relabel_steps, device=plan.device, progress=progress
        )
    seconds = round(time.perf_counter() - began, 2)
    row = {
        "set": name,
        "seed": seed,
        "n": len(original),
        "made_from": source or "random-labels",
        "epsilon": "",
        "steps": "",
        "reached": "",
        "mean_l2": "",
        "max_l2": "",
        "max_linf": "",
        "feature_error": "",
        "changed_labels": 0,
        **made.facts,
        "seconds": seconds,
    }
    place = set_path(plan, folder, seed, name)
    shutil.rmtree(place, ignore_errors=True)  # of a stage that was stopped between writing and being marked as done
    data.write(made.data, place, splits.form, card=_card(plan, name, about, row), original=original)
    return {"sets": [row]}


def every_set(plan: Plan, folder: Path, seed: int, tell: Told, *, names: list[str]) -> Tables:
    """Every model on every set, clean: the original's and each constructed set's training part (2,000 images drawn from it)."""
    rows = []
    parts = {name: load_set(plan, folder, seed, name) for name in SETS} | {"original": load(plan).train}
    for number, model_name in enumerate(names):
        model, known = models.load(model_path(plan, folder, seed, model_name), plan.network)
        for set_name, part in parts.items():
            index = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:2000].sort().values
            row = scores.clean(model, part.take(index), device=plan.device)
            rows.append(
                _in_order(
                    {
                        "model": model_name,
                        "trained_on": known["trained_on"],
                        "seed": seed,
                        "set": set_name,
                        "norm": plan.norm,
                        **row,
                    }
                )
            )
        tell("", (number + 1) / len(names), model_name)
    return {"accuracy": rows}


def pictures(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """The same few training files in every version, as pictures, with what two models read in each."""
    original = load(plan).train
    shown = torch.stack([(original.labels == k).nonzero()[0, 0] for k in range(min(len(original.classes), 8))])
    readers = {
        name: models.load(model_path(plan, folder, seed, name), plan.network)[0].to(plan.device)
        for name in ("standard", "adversarial")
    }
    images, labels, ball = original.pixels(shown), original.labels[shown], Ball(plan.norm, _known(plan.epsilon))
    with models.frozen(readers["standard"]):
        found = attacks.pgd(readers["standard"], images.to(plan.device), labels.to(plan.device), ball=ball, steps=50).images.cpu()
    attacked = ball.round(found, images)
    change = attacked - images
    largest = change.abs().flatten(1).amax(1).clamp_min(1e-6).reshape(-1, 1, 1, 1)
    versions: dict[str, tuple[Tensor, Tensor]] = {
        "original": (images, labels),
        "adversarial": (attacked, labels),
        "change": (0.5 + change / (2 * largest), labels),
    }
    for name in SETS:
        part = load_set(plan, folder, seed, name).take(shown)
        versions[name] = (part.pixels(slice(None)), part.labels)
    rows = []
    for column, (pixels, given) in versions.items():
        with torch.no_grad():
            read = {name: model(pixels.to(plan.device)).argmax(1).tolist() for name, model in readers.items()}
        for number, file in enumerate(original.names[i] for i in shown.tolist()):
            picture = f"pictures/{number:02d}-{column}.png"
            data.save_picture(pixels[number], folder / picture)
            says = {name: "" if column == "change" else original.classes[answer[number]] for name, answer in read.items()}
            rows.append(
                {"file": file, "column": column, "picture": picture, "label": original.classes[int(given[number])], **says}
            )
    return {"pictures": rows}


# ---- single jobs ---------------------------------------------------------------------------------------------------------


def train_one(plan: Plan, path: Path, *, loss: str = "plain", tell: Told | None = None) -> list[dict[str, Any]]:
    """One classifier of the original data, saved to `path`; returns its accuracy rows, clean and at half and all of epsilon."""
    splits = load(plan)
    plan = complete(plan, splits)
    model = _trained(
        plan, splits.train, "standard", loss=loss, on="original", seed=plan.seed, path=path, tell=tell or (lambda *_: None)
    )[0]
    ball = Ball(plan.norm, _known(plan.epsilon))
    return scores.under_attack(model, splits.test, [replace(ball, radius=ball.radius / 2), ball], device=plan.device)


def attack_one(
    path: Path, plan: Plan, radii: Sequence[float], out: Path | None, *, tell: Told | None = None
) -> list[dict[str, Any]]:
    """A saved classifier on the test part of a set at each radius (default: what it was trained with, and half); returns rows.

    out: the images attacked at the largest radius, 8 bits, as a set in the form that was read; the last row is measured on these.
    """
    model, known = models.load(path, plan.network)
    splits = load(plan)
    if list(known.get("classes", [])) != list(splits.test.classes) or model.architecture["shape"] != list(splits.test.shape):
        raise BadInput(
            plan.source,
            f"must hold images of shape {model.architecture['shape']} of the model's {len(known['classes'])} classes",
            f"{list(splits.test.shape)}, {len(splits.test.classes)} classes",
        )
    usual = known["training"]["epsilon"]
    balls = [Ball(plan.norm, radius).fit(torch.Size((1, *splits.test.shape))) for radius in sorted(radii or (usual / 2, usual))]
    rows = scores.under_attack(model, splits.test, [ball for ball in balls if ball.radius > 0] or balls, device=plan.device)
    if out:
        stored = scores.attacked(model, splits.test, balls[-1], device=plan.device)
        data.write(
            stored,
            out,
            splits.form,
            split="test",
            original=splits.test,
            card=f"# Attacked images\n\n{splits.test.shape} test images, each changed by at most {balls[-1].radius:g} "
            f"({plan.norm}) to mislead {path.name}; labels are the originals'.\n",
        )
        rows.append(
            {
                **scores.clean(model, stored, device=plan.device),
                "norm": plan.norm,
                "epsilon": balls[-1].radius,
                "attack": "as stored, 8 bits",
            }
        )
    return rows


# ---- data, places, settings ----------------------------------------------------------------------------------------------


@cache
def _load(source: str, resize: int | None, limit: int | None, skip_bad: bool, seed: int) -> Splits:
    if source == "planted":
        world = planted.world(seed=seed, **({"train": limit, "test": max(limit // 3, 40)} if limit else {}))
        return Splits(world.train, world.test, "folder", "generated", ())
    return data.read(source, resize=resize, limit=limit, skip_bad=skip_bad)


def load(plan: Plan) -> Splits:
    """The data, read once a process; raises BadInput, of the plan's settings first."""
    check(plan)
    return _load(plan.source, plan.resize, plan.limit, plan.skip_bad, plan.seed if plan.source == "planted" else 0)


def load_set(plan: Plan, folder: Path, seed: int, name: str) -> Dataset:
    """A constructed set as it is stored."""
    return data.read_split(set_path(plan, folder, seed, name), load(plan).form)


def model_path(plan: Plan, folder: Path, seed: int, name: str) -> Path:
    return folder / "models" / f"{name}{_suffix(plan, seed)}.safetensors"


def set_path(plan: Plan, folder: Path, seed: int, name: str) -> Path:
    return folder / "datasets" / f"{name}{_suffix(plan, seed)}"


LEAST = {
    "seed": 0, "seeds": 1, "width": 1, "epochs": 1, "batch_size": 2, "shift": 0, "adversarial_steps": 1, "invert_steps": 1,
    "relabel_steps": 1, "patience": 0, "learning_rate": 1e-12, "weight_decay": 0, "epsilon": 1e-12, "relabel_epsilon": 1e-12,
}  # fmt: skip


def check(plan: Plan) -> None:
    """What can be seen to be wrong without the data: raises BadInput."""
    for name, least in LEAST.items():
        value = getattr(plan, name)
        if value is not None and not least <= value < torch.inf:
            rule = f"must be {least} or more" if isinstance(least, int) else "must be a number above 0"
            raise BadInput("--" + name.replace("_", "-"), rule, value)
    Ball(plan.norm, plan.epsilon or 0.0)
    if plan.invert_start not in ("image", "noise"):
        raise BadInput("--invert-start", "must be image or noise", repr(plan.invert_start))


def complete(plan: Plan, splits: Splits) -> Plan:
    """The plan with every open setting decided from the data: what `run.json` records."""
    shape, count = splits.train.shape, len(splits.train)
    tiny = max(shape[1:]) <= 16
    epsilon = (
        plan.epsilon
        if plan.epsilon is not None
        else ((0.75 if tiny else 0.8 if plan.source == "planted" else 0.5) if plan.norm == "l2" else 0.1 if tiny else 8 / 255)
    )
    decided: dict[str, Any] = {
        "epsilon": epsilon,
        # at 8x8 there is little room: what a model sees needs twice the radius to turn from one class into the next
        "relabel_epsilon": 2 * epsilon if tiny and plan.norm == "l2" else epsilon,
        "seeds": 3 if plan.source == "digits" else 1,
        "network": "small" if tiny else "resnet9",
        "width": None if plan.network else 32 if tiny else 8 if plan.source == "planted" else 16,
        "invert_steps": 20 if plan.source == "planted" else 40,
        "epochs": 14 if tiny else 14 if plan.source == "planted" else max(12, min(60, round(190_000 / count))),
        "weight_decay": 1.0 if tiny else 0.05,
        "learning_rate": 0.02 if tiny else 0.01,
        "batch_size": 128 if tiny else 64 if count < 20_000 else 256,
        "shift": 0 if tiny else max(1, shape[1] // 8),
        "flip": shape[0] == 3 and plan.source != "planted",
        "patience": 20,
    }
    plan = replace(plan, **{name: value for name, value in decided.items() if getattr(plan, name) is None})
    for name in ("epsilon", "relabel_epsilon"):
        _check_radius("--" + name.replace("_", "-"), Ball(plan.norm, getattr(plan, name)), splits.train)
    if plan.source != "planted" and min(shape[1:]) < 8:
        raise BadInput(plan.source, "images must be at least 8 pixels wide and high", f"{shape[2]}x{shape[1]}", "use --resize")
    models.build(str(plan.network), shape=shape, classes=len(splits.train.classes), width=plan.width)  # a bad one fails here
    return plan


def _check_radius(option: str, ball: Ball, part: Dataset) -> None:
    """A radius at which an image can become one of another class outright tests nothing: raises BadInput."""
    index = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:500]
    flat, labels = part.pixels(index).flatten(1), part.labels[index]
    apart = torch.cdist(flat, flat, p=2.0 if ball.norm == "l2" else torch.inf)
    nearest = apart.masked_fill(labels[:, None] == labels, torch.inf).amin(1).median().item()
    if not ball.radius < nearest:
        raise BadInput(
            option,
            f"must be below {nearest:.3g}, the usual distance to the nearest image of another class ({ball.norm})",
            f"{ball.radius:g}",
            f"for {ball.radius:g}/255 pass {ball.radius:g}/255" if ball.radius >= 1 else "",
        )


def asked(plan: Plan) -> dict[str, Any]:
    """What a run must be asked again to go on. The number of seeds may grow, and the device may change."""
    return {name: value for name, value in asdict(plan).items() if name not in ("seeds", "device")}


def facts(plan: Plan, splits: Splits, command: str) -> dict[str, Any]:
    """What run.json says of where and how."""
    import numpy
    import scipy

    recipe = {
        name: value for name, value in asdict(plan).items() if name not in ("source", "norm", "epsilon", "device", "skip_bad")
    }
    return {
        "notbugs": __version__,
        "command": command,
        "source": plan.source,
        "norm": plan.norm,
        "epsilon": plan.epsilon,
        "epsilon_text": f"{plan.epsilon:g}",
        "recipe": {**recipe, "attack": attacks.ENSEMBLE},
        "device": plan.device,
        "machine": torch.cuda.get_device_name(plan.device)
        if plan.device.startswith("cuda")
        else f"{platform.machine()}, {os.cpu_count()} cores",
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
            "mean_l2": round(_typical_size(splits.test), 3),
        },
        "seeds": list(range(plan.seed, plan.seed + (plan.seeds or 1))),
        "finished": False,
    }


def fingerprint(splits: Splits) -> str:
    """Of labels, names and, where they are in memory, pixels: a run does not go on with other data."""
    digest = sha256()
    for part in splits[:2]:
        digest.update(repr((part.classes, part.names, part.labels.tolist())).encode())
        if isinstance(part.images, Tensor):
            digest.update(part.images.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _do(work: Callable[..., Tables], plan: Plan, folder: Path, name: str, tell: Told) -> tuple[Tables, float]:
    began = time.perf_counter()
    tables = work(plan, folder, int(name.split("/")[0].removeprefix("seed")), lambda _, share, words: tell(name, share, words))
    return tables, time.perf_counter() - began


def _known(value: Value | None) -> Value:
    assert value is not None, "complete() decides every setting"
    return value


def _suffix(plan: Plan, seed: int) -> str:
    return "" if seed == plan.seed else f"-seed{seed}"


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each stage: no two models of a study start from the same weights."""
    return zlib.crc32(f"{seed}/{name}".encode())


def _typical_size(part: Dataset) -> float:
    index = list(range(min(len(part), 1000)))
    return float(part.pixels(index).flatten(1).norm(dim=1).mean())


def _pixel_statistics(part: Dataset) -> dict[str, list[float]]:
    pixels = part.pixels(list(range(0, len(part), max(1, len(part) // 2000))))
    return {"mean": pixels.mean((0, 2, 3)).tolist(), "std": pixels.std((0, 2, 3)).clamp_min(0.05).tolist()}


ACCURACY = ("model", "trained_on", "set", "norm", "epsilon", "attack", "correct", "n", "accuracy", "low", "high", "seed")


def _in_order(row: dict[str, Any]) -> dict[str, Any]:
    return {column: row[column] for column in ACCURACY}


def _truth(plan: Plan) -> list[dict[str, Any]]:
    size = {"train": plan.limit, "test": max(plan.limit // 3, 40)} if plan.limit else {}
    world = planted.world(seed=plan.seed, **size)

    def rows(split: str, part: Dataset, truth: planted.Truth) -> Iterator[dict[str, Any]]:
        for number, name in enumerate(part.names):
            yield {
                "file": name,
                "split": split,
                "label": part.classes[int(part.labels[number])],
                "loud": part.classes[truth.loud[number]],
                "faint": part.classes[truth.faint[number]],
                "light": int(truth.light[number]),
            }

    return [*rows("train", world.train, world.train_truth), *rows("test", world.test, world.test_truth)]


def _card(plan: Plan, name: str, about: str, row: dict[str, Any]) -> str:
    lines = [f"# {name}", "", about, "", f"Made by notbugs {__version__} from `{Path(plan.source).name}`, image for image.", ""]
    lines += [f"- {key}: {value}" for key, value in row.items() if value != ""]
    return "\n".join(
        [*lines, "", "Source of the method: Ilyas et al., Adversarial Examples Are Not Bugs, They Are Features, 2019.", ""]
    )
