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

from notbugs import __version__, attacks, construct, data, metrics, models, precision, train
from notbugs.data import Dataset, synthetic
from notbugs.errors import InputError
from notbugs.runs.scheduler import Progress
from notbugs.search import NormBall
from notbugs.study.config import StudyConfig, known, load
from notbugs.study.datasets import ALL, QUICK, BuildContext, is_inverted, is_relabeled, is_trainable

Tables = dict[str, list[dict[str, Any]]]
MONITORED = 500  # test images at most on which a training is watched


def train_model(
    plan: StudyConfig,
    folder: Path,
    seed: int,
    report_progress: Progress,
    *,
    name: str,
    on: str = "original",
    loss: str = "plain",
    start: str = "",
    network: str = "",
    radius: float = 1.0,
    epochs: int | None = None,
    pace: float = 1.0,
    budget: str = "standard",
) -> Tables:
    """One classifier, trained on the original or a constructed set, saved, and measured on the real test set under attack.

    start: the model with whose initial weights it begins (default: its own). network, epochs: others than the plan's; a network
    at its usual width. radius: of adversarial training, in epsilons. pace: of learning, in the plan's rate. budget: of the
    attack on the test images, a quick one at the full radius only. A set that could not be made teaches nobody.
    """
    splits, threat_model = load(plan, seed), NormBall(plan.norm, known(plan.epsilon))
    if on != "original" and not dataset_path(plan, folder, seed, on).exists():
        return {}
    part = splits.train if on == "original" else load_dataset(plan, folder, seed, on)
    own = replace(
        plan,
        network=network or plan.network,
        width=None if network else plan.width,
        epochs=epochs or plan.epochs,
        learning_rate=pace * known(plan.learning_rate),
    )
    model, curve = train_classifier(
        own,
        part,
        name,
        loss=loss,
        on=on,
        seed=seed,
        start=start,
        radius=radius,
        path=model_path(plan, folder, seed, name),
        report_progress=report_progress,
    )
    radii = [replace(threat_model, epsilon=threat_model.epsilon / 2), threat_model][budget == "quick" :]
    rows = metrics.robust_accuracy(model, splits.test, radii, budget=budget, device=plan.device)
    named = [{"set": "test", **row} for row in rows]
    if on.startswith("next-labels"):  # how far it learnt the labels as given: on real images these are the next class
        after = splits.test.with_labels(construct.next_labels(splits.test.labels, len(part.classes)))
        named.append({"set": "test-next", "norm": plan.norm, **metrics.clean_accuracy(model, after, device=plan.device)})
    return {
        "accuracy": [in_order({"model": name, "trained_on": on, "seed": seed, **row}) for row in named],
        "training": [{"model": name, "seed": seed, **epoch} for epoch in curve],
    }


def train_classifier(
    plan: StudyConfig,
    part: Dataset,
    name: str,
    *,
    loss: str,
    on: str,
    seed: int,
    path: Path | None,
    report_progress: Progress,
    start: str = "",
    radius: float = 1.0,
) -> tuple[models.Model, list[dict[str, Any]]]:
    """A classifier trained by the plan on a set, saved to `path` (None: not), and its curve. loss: plain, adversarial or trades.

    The weights are those of the last pass: no part of a relabelled set could tell which pass is best (Ilyas et al. 2019, appendix
    D.4). So that the choice can be judged, the curve has the accuracy on the real test images after each pass, too.
    """
    splits, curve = load(plan, seed), list[dict[str, Any]]()
    threat_model, times = NormBall(plan.norm, radius * known(plan.epsilon)), max(1, len(part) / len(splits.train))
    epochs = max(1, round(known(plan.epochs) / times))  # about as many steps as on the original
    losses: dict[str, Callable[[], train.Loss]] = {
        "plain": lambda: train.cross_entropy,
        "adversarial": lambda: train.adversarial_loss(
            partial(attacks.pgd, threat_model=threat_model, steps=plan.adversarial_steps, loss="cross_entropy")
        ),
        "trades": lambda: train.trades(partial(attacks.kl_pgd, threat_model=threat_model, steps=plan.adversarial_steps)),
    }
    if loss not in losses:
        raise InputError("--loss", f"must be one of {', '.join(losses)}", repr(loss))
    faint = is_relabeled(on)  # what these teach is pixel-exact: augmentation would hide it
    augment = train.random_translate(known(plan.shift), flip=bool(plan.flip)) if (plan.shift or plan.flip) and not faint else None
    model = models.build(
        str(plan.network),
        shape=part.shape,
        classes=len(part.classes),
        width=plan.width,
        seed=derive_seed(seed, start or name),
        **pixel_statistics(splits.train),
    )
    watched = splits.test.select(torch.arange(0, len(splits.test), max(1, len(splits.test) // MONITORED))[:MONITORED])

    def told(epoch: train.Epoch) -> None:
        report_progress("", 0.9 * min(epoch.epoch / epochs, 1), f"epoch {epoch.epoch} of {epochs}")
        curve.append(epoch._asdict())
        if on != "original":
            curve[-1]["test_accuracy"] = metrics.clean_accuracy(model, watched, device=plan.device)["accuracy"]

    train.fit(
        model,
        part,
        losses[loss](),
        epochs=epochs,
        batch_size=known(plan.batch_size),
        learning_rate=known(plan.relabel_learning_rate if faint else plan.learning_rate),
        weight_decay=known(plan.weight_decay),
        augment=augment,
        patience=known(plan.patience) if faint else 0,
        bf16=plan.bf16,
        compile=plan.compile,
        seed=derive_seed(seed, name),
        device=plan.device,
        progress=told,
    )
    if path is None:
        return model, curve
    models.save(
        model,
        path,
        classes=list(part.classes),
        trained_on=on,
        seed=seed,
        training={
            "loss": loss,
            "norm": threat_model.norm,
            "epsilon": threat_model.epsilon,
            "epochs": len(curve),
            "augmented": augment is not None,
        },
    )
    return model, curve


def build_dataset(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress, *, name: str) -> Tables:
    """One constructed set, written in the form the data came in; one that cannot be trained on is only told of."""
    began, splits = time.perf_counter(), load(plan, seed)
    done, total = 0, len(splits.train) * (plan.invert_times if is_inverted(name) else 1)

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report_progress("", done / total, f"{done} of {total} images")

    making = BuildContext(
        plan,
        splits.train,
        derive_seed(seed, name),
        model=lambda known: load_model(plan, folder, seed, known),
        made=lambda known: load_dataset(plan, folder, seed, known),
        progress=progress,
    )
    kind = ALL[name]
    made = kind.make(making)
    row = {
        "set": name,
        "seed": seed,
        "n": len(made.dataset),
        "made_from": kind.needs[0].removeprefix("set-"),
        "epsilon": making.threat_model.epsilon if is_relabeled(name) else "",
        "steps": "",
        "reached": "",
        "mean_l2": "",
        "max_l2": "",
        "max_linf": "",
        "feature_error": "",
        "changed_labels": 0,
        **made.stats,
        "seconds": round(time.perf_counter() - began, 2),
    }
    place = dataset_path(plan, folder, seed, name)
    shutil.rmtree(place, ignore_errors=True)  # of a stage that was stopped between writing and being marked as done
    if is_trainable(made):
        where = {file: number for number, file in enumerate(splits.train.names)}
        own = [where[file] for file in made.dataset.names if file in where]  # all of them, some, or none
        before = splits.train.select(own) if len(own) == len(made.dataset) else None
        data.export(made.dataset, place, splits.form, card=_card(plan, name, kind.about, row), original=before)
    return {"sets": [row]}


def accuracy_on_all_datasets(
    plan: StudyConfig, folder: Path, seed: int, report_progress: Progress, *, names: list[str]
) -> Tables:
    """Every model on every set, clean: the original's and each constructed set's training part (2,000 images drawn from it)."""
    rows = []
    parts = {name: load_dataset(plan, folder, seed, name) for name in QUICK} | {"original": load(plan, seed).train}
    sample = parts["original"].pixels(slice(0, 2))
    for number, model_name in enumerate(names):
        model, known = models.load(model_path(plan, folder, seed, model_name), plan.network)
        view = models.fuse_batchnorm(model, sample, plan.device)
        for set_name, part in parts.items():
            index = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:2000].sort().values
            row = metrics.clean_accuracy(view, part.select(index), device=plan.device)
            rows.append(
                in_order(
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
        report_progress("", (number + 1) / len(names), model_name)
    return {"accuracy": rows}


@precision.full_precision()
def pictures(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """The same few training files in every version, as pictures, with what two models read in each."""
    original = load(plan, seed).train
    shown = torch.stack([(original.labels == k).nonzero()[0, 0] for k in range(min(len(original.classes), 8))])
    readers = {name: load_model(plan, folder, seed, name).to(plan.device) for name in ("standard", "adversarial")}
    images, labels, threat_model = original.pixels(shown), original.labels[shown], NormBall(plan.norm, known(plan.epsilon))
    with models.frozen(readers["standard"]):
        found = attacks.pgd(
            readers["standard"], images.to(plan.device), labels.to(plan.device), threat_model=threat_model, steps=50
        ).images.cpu()
    attacked = threat_model.round_to_8bit(found, images)
    change = attacked - images
    largest = change.abs().flatten(1).amax(1).clamp_min(1e-6).reshape(-1, 1, 1, 1)
    versions: dict[str, tuple[Tensor, Tensor]] = {
        "original": (images, labels),
        "adversarial": (attacked, labels),
        "change": (0.5 + change / (2 * largest), labels),
    }
    for name in QUICK:
        part = load_dataset(plan, folder, seed, name).select(shown)
        versions[name] = (part.pixels(slice(None)), part.labels)
    rows = []
    for column, (pixels, given) in versions.items():
        with torch.no_grad():
            read = {name: model(pixels.to(plan.device)).argmax(1).tolist() for name, model in readers.items()}
        for number, file in enumerate(original.names[i] for i in shown.tolist()):
            picture = f"pictures/{number:02d}-{column}.png"
            data.save_image(pixels[number], folder / picture)
            says = {name: "" if column == "change" else original.classes[answer[number]] for name, answer in read.items()}
            rows.append(
                {"file": file, "column": column, "picture": picture, "label": original.classes[int(given[number])], **says}
            )
    return {"pictures": rows}


def synthetic_truth(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """What is true of every image of a planted world: the class its shape and its grating speak for, and its background."""
    splits = load(plan, seed)
    world = synthetic.make_synthetic(seed=seed, train=len(splits.train), test=len(splits.test))
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


def load_dataset(plan: StudyConfig, folder: Path, seed: int, name: str) -> Dataset:
    """A constructed set as it is stored."""
    return data.load_part(dataset_path(plan, folder, seed, name), load(plan, seed).form)


def load_model(plan: StudyConfig, folder: Path, seed: int, name: str) -> models.Model:
    """A trained classifier as it is stored."""
    return models.load(model_path(plan, folder, seed, name), plan.network)[0]


def model_path(plan: StudyConfig, folder: Path, seed: int, name: str) -> Path:
    """Where a model's weights lie; the first seed's have the plain name."""
    return folder / "models" / f"{name}{_suffix(plan, seed)}.safetensors"


def dataset_path(plan: StudyConfig, folder: Path, seed: int, name: str) -> Path:
    """Where a constructed set lies; likewise."""
    return folder / "datasets" / f"{name}{_suffix(plan, seed)}"


def _suffix(plan: StudyConfig, seed: int) -> str:
    return "" if seed == plan.seed else f"-seed{seed}"


# ---- parts ---------------------------------------------------------------------------------------------------------------


def derive_seed(seed: int, name: str) -> int:
    """A seed of its own for each stage: no two models of a study start from the same weights."""
    return zlib.crc32(f"{seed}/{name}".encode())


def pixel_statistics(part: Dataset) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, over about 2,000 images: what a network normalises by."""
    pixels = part.pixels(list(range(0, len(part), max(1, len(part) // 2000))))
    return {"mean": pixels.mean((0, 2, 3)).tolist(), "std": pixels.std((0, 2, 3)).clamp_min(0.05).tolist()}


ACCURACY = ("model", "trained_on", "set", "norm", "epsilon", "attack", "correct", "n", "accuracy", "low", "high", "seed")


def in_order(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of tables/accuracy.csv."""
    return {column: row[column] for column in ACCURACY}


def _card(plan: StudyConfig, name: str, about: str, row: dict[str, Any]) -> str:
    several = is_inverted(name) and plan.invert_times > 1
    how = f"{plan.invert_times} versions of each image, the second called NAME~2" if several else "image for image"
    lines = [f"# {name}", "", about, "", f"Made by notbugs {__version__} from `{Path(plan.source).name}`, {how}.", ""]
    lines += [f"- {key}: {value}" for key, value in row.items() if value != ""]
    return "\n".join(
        [*lines, "", "Source of the method: Ilyas et al., Adversarial Examples Are Not Bugs, They Are Features, 2019.", ""]
    )
