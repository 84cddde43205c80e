"""What each stage of a study does: (plan, folder, seed, tell) -> rows for the tables.

A stage reads the run folder and the data, and writes models, datasets or pictures. Tables are its caller's business.
"""

import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from notbugs import __version__, attacks, construct, data, models, planted, scores, train
from notbugs.ball import Ball
from notbugs.data import Dataset
from notbugs.errors import BadInput
from notbugs.plan import Plan, known, load
from notbugs.pool import Told

Tables = dict[str, list[dict[str, Any]]]

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
        "standard model's. A classifier should learn nothing from it but which class an image is not.",
    ),
}


def train_model(plan: Plan, folder: Path, seed: int, tell: Told, *, name: str, on: str) -> Tables:
    """One classifier, trained on the original or a constructed set, saved, and measured on the real test set under attack."""
    splits, ball = load(plan, seed), Ball(plan.norm, known(plan.epsilon))
    part = splits.train if on == "original" else load_set(plan, folder, seed, on)
    model, curve = trained(
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


def trained(
    plan: Plan, part: Dataset, name: str, *, loss: str, on: str, seed: int, path: Path, tell: Told
) -> tuple[models.Model, list[train.Epoch]]:
    """A classifier trained by the plan on a set, saved to `path`, and its training curve. loss: plain, adversarial or trades."""
    ball, epochs = Ball(plan.norm, known(plan.epsilon)), known(plan.epochs)
    losses: dict[str, Callable[[], train.Loss]] = {
        "plain": lambda: train.plain,
        "adversarial": lambda: train.against(partial(attacks.pgd, ball=ball, steps=plan.adversarial_steps, by="loss")),
        "trades": lambda: train.trades(partial(attacks.diverge, ball=ball, steps=plan.adversarial_steps)),
    }
    if loss not in losses:
        raise BadInput("--loss", f"must be one of {', '.join(losses)}", repr(loss))
    faint = on.startswith(("random-labels", "next-labels"))  # what these teach is pixel-exact: augmentation would hide it
    augment = train.shifts(known(plan.shift), flip=bool(plan.flip)) if (plan.shift or plan.flip) and not faint else None
    model = models.build(
        str(plan.network),
        shape=part.shape,
        classes=len(part.classes),
        width=plan.width,
        seed=_seed(seed, name),
        **_pixel_statistics(load(plan, seed).train),
    )
    curve = train.fit(
        model,
        part,
        losses[loss](),
        epochs=epochs,
        batch_size=known(plan.batch_size),
        learning_rate=known(plan.relabel_learning_rate if faint else plan.learning_rate),
        weight_decay=known(plan.weight_decay),
        augment=augment,
        patience=known(plan.patience) if faint else 0,
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
    began, splits = time.perf_counter(), load(plan, seed)
    original, classes = splits.train, len(splits.train.classes)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        tell("", done / len(original), f"{done} of {len(original)} images")

    ball = Ball(plan.norm, known(plan.relabel_epsilon))
    source, about = SETS[name]
    model = models.load(model_path(plan, folder, seed, source), plan.network)[0] if source else None
    if model is None:
        made = construct.noise_like(original, load_set(plan, folder, seed, "random-labels"), seed=_seed(seed, name))
    elif name in ("robust", "nonrobust"):
        made = construct.inverted(
            model,
            original,
            start=plan.invert_start,
            steps=known(plan.invert_steps),
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
        "epsilon": ball.radius if "labels" in name else "",
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
    parts = {name: load_set(plan, folder, seed, name) for name in SETS} | {"original": load(plan, seed).train}
    sample = parts["original"].pixels(slice(0, 2))
    for number, model_name in enumerate(names):
        model, known = models.load(model_path(plan, folder, seed, model_name), plan.network)
        view = models.folded(model, sample, plan.device)
        for set_name, part in parts.items():
            index = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:2000].sort().values
            row = scores.clean(view, part.take(index), device=plan.device)
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
    original = load(plan, seed).train
    shown = torch.stack([(original.labels == k).nonzero()[0, 0] for k in range(min(len(original.classes), 8))])
    readers = {
        name: models.load(model_path(plan, folder, seed, name), plan.network)[0].to(plan.device)
        for name in ("standard", "adversarial")
    }
    images, labels, ball = original.pixels(shown), original.labels[shown], Ball(plan.norm, known(plan.epsilon))
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


def truth(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """What is true of every image of a planted world: the class its shape and its grating speak for, and its background."""
    splits = load(plan, seed)
    world = planted.world(seed=seed, train=len(splits.train), test=len(splits.test))
    rows = [
        {
            "file": name,
            "split": split,
            "seed": seed,
            "label": part.classes[int(part.labels[number])],
            "loud": part.classes[features.loud[number]],
            "faint": part.classes[features.faint[number]],
            "light": int(features.light[number]),
        }
        for split, part, features in (("train", world.train, world.train_truth), ("test", world.test, world.test_truth))
        for number, name in enumerate(part.names)
    ]
    return {"truth": rows}


# ---- places in the run folder --------------------------------------------------------------------------------------------


def load_set(plan: Plan, folder: Path, seed: int, name: str) -> Dataset:
    """A constructed set as it is stored."""
    return data.read_split(set_path(plan, folder, seed, name), load(plan, seed).form)


def model_path(plan: Plan, folder: Path, seed: int, name: str) -> Path:
    """Where a model's weights lie; the first seed's have the plain name."""
    return folder / "models" / f"{name}{_suffix(plan, seed)}.safetensors"


def set_path(plan: Plan, folder: Path, seed: int, name: str) -> Path:
    """Where a constructed set lies; likewise."""
    return folder / "datasets" / f"{name}{_suffix(plan, seed)}"


def _suffix(plan: Plan, seed: int) -> str:
    return "" if seed == plan.seed else f"-seed{seed}"


# ---- parts ---------------------------------------------------------------------------------------------------------------


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each stage: no two models of a study start from the same weights."""
    return zlib.crc32(f"{seed}/{name}".encode())


def _pixel_statistics(part: Dataset) -> dict[str, list[float]]:
    pixels = part.pixels(list(range(0, len(part), max(1, len(part) // 2000))))
    return {"mean": pixels.mean((0, 2, 3)).tolist(), "std": pixels.std((0, 2, 3)).clamp_min(0.05).tolist()}


ACCURACY = ("model", "trained_on", "set", "norm", "epsilon", "attack", "correct", "n", "accuracy", "low", "high", "seed")


def _in_order(row: dict[str, Any]) -> dict[str, Any]:
    return {column: row[column] for column in ACCURACY}


def _card(plan: Plan, name: str, about: str, row: dict[str, Any]) -> str:
    lines = [f"# {name}", "", about, "", f"Made by notbugs {__version__} from `{Path(plan.source).name}`, image for image.", ""]
    lines += [f"- {key}: {value}" for key, value in row.items() if value != ""]
    return "\n".join(
        [*lines, "", "Source of the method: Ilyas et al., Adversarial Examples Are Not Bugs, They Are Features, 2019.", ""]
    )
