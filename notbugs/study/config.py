"""What a study will do: `Plan`, its settings; `complete` decides the open ones from the data; `load` reads the data it names."""

from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, TypeVar

import torch

from notbugs import data, models, precision
from notbugs.data import Dataset, Splits, synthetic
from notbugs.errors import InputError
from notbugs.search import NormBall

Value = TypeVar("Value")


@dataclass(frozen=True)
class StudyConfig:
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
    relabel_learning_rate: float | None = None  # of classifiers trained on relabelled sets
    weight_decay: float | None = None
    shift: int | None = None  # augmentation: pixels either way; 0 is none
    flip: bool | None = None
    adversarial_steps: int = 3
    invert_steps: int | None = None
    invert_start: str = "image"
    invert_times: int = 1  # versions of each image
    relabel_steps: int = 20
    patience: int | None = None  # further epochs for relabelled sets that are still at chance
    full: bool = False  # also all controls, transfer to other learners, and every model on every set under attack
    recipe: str = ""  # "paper": full, and what else the paper measured (`paper`)
    bf16: bool | None = None  # train and grow images in bfloat16
    compile: bool = False  # networks first
    device: str = "cpu"


@cache
def _load(source: str, resize: int | None, limit: int | None, skip_bad: bool, seed: int) -> Splits:
    if source == "planted":
        world = synthetic.make_synthetic(seed=seed, **({"train": limit, "test": max(limit // 8, 40)} if limit else {}))
        return Splits(world.train, world.test, "folder", "generated", ())
    return data.load(source, resize=resize, limit=limit, skip_bad=skip_bad)


def load(plan: StudyConfig, seed: int | None = None) -> Splits:
    """The data, read once a process; raises BadInput, of the plan's settings first.

    seed: of the repetition, for which `planted` has a world of its own (default: the plan's first).
    """
    check(plan)
    seed = plan.seed if seed is None else seed
    return _load(plan.source, plan.resize, plan.limit, plan.skip_bad, seed if plan.source == "planted" else 0)


MINIMA = {
    "seed": 0, "seeds": 1, "width": 1, "epochs": 1, "batch_size": 2, "shift": 0, "adversarial_steps": 1, "invert_steps": 1,
    "invert_times": 1,
    "relabel_steps": 1, "patience": 0, "learning_rate": 1e-12, "relabel_learning_rate": 1e-12, "weight_decay": 0,
    "epsilon": 1e-12, "relabel_epsilon": 1e-12,
}  # fmt: skip


def check(plan: StudyConfig) -> None:
    """What can be seen to be wrong without the data: raises BadInput."""
    for name, least in MINIMA.items():
        value = getattr(plan, name)
        if value is not None and not least <= value < torch.inf:
            rule = f"must be {least} or more" if isinstance(least, int) else "must be a number above 0"
            raise InputError("--" + name.replace("_", "-"), rule, value)
    if plan.norm not in ("l2", "linf"):
        raise InputError("--norm", "must be l2 or linf for training and studies", repr(plan.norm))
    NormBall(plan.norm, plan.epsilon or 0.0)
    if plan.source == "planted" and plan.resize:
        raise InputError("--resize", "cannot be used with planted, whose images are drawn at 32x32", plan.resize)
    if plan.compile:
        precision.check_compiler(plan.device)
    if plan.recipe not in ("", "paper"):
        raise InputError("--recipe", "must be paper, or left out", repr(plan.recipe))
    if plan.recipe and plan.invert_start != "image":
        raise InputError(
            "--invert-start", "must be image with --recipe paper, which grows both versions from noise, too", "noise"
        )
    if plan.invert_start not in ("image", "noise"):
        raise InputError("--invert-start", "must be image or noise", repr(plan.invert_start))


def resolve(plan: StudyConfig, splits: Splits) -> StudyConfig:
    """The plan with every open setting decided from the data: what `run.json` records."""
    plan = replace(plan, full=plan.full or bool(plan.recipe))
    shape = splits.train.shape
    usual = _defaults(plan, shape, len(splits.train))
    if plan.network:
        usual["width"] = None
    plan = replace(plan, **{name: value for name, value in usual.items() if getattr(plan, name) is None})
    # where their defaults follow those of others:
    tiny, learning_rate = usual["network"] == "small", known(plan.learning_rate)
    follow: dict[str, Any] = {
        # at 8x8 there is little room: what a model sees needs twice the radius to turn from one class into the next
        "relabel_epsilon": known(plan.epsilon) * (2 if tiny and plan.norm == "l2" else 1),
        # faint evidence is not found at the rate that suits the rest, and at a low one it is learnt by heart (docs/lab-log.md)
        "relabel_learning_rate": learning_rate if tiny or plan.source == "planted" else learning_rate / 5,
        "patience": max(8, known(plan.epochs) // 2),
        "half": precision.supports_bfloat16(plan.device),
    }
    plan = replace(plan, **{name: value for name, value in follow.items() if getattr(plan, name) is None})
    for name in ("epsilon", "relabel_epsilon"):
        _check_epsilon("--" + name.replace("_", "-"), NormBall(plan.norm, getattr(plan, name)), splits.train)
    if not known(plan.shift) < min(shape[1:]):
        raise InputError("--shift", f"must be below {min(shape[1:])}, the images' shorter side", plan.shift)
    if plan.invert_times > known(plan.epochs):
        rule = f"must be at most {plan.epochs}, the epochs, which the versions share"
        raise InputError("--invert-times", rule, plan.invert_times, "train for more --epochs")
    splits.train.repeated_names(plan.invert_times)  # names that would meet fail here
    if plan.source != "planted" and min(shape[1:]) < 8:
        raise InputError(plan.source, "images must be at least 8 pixels wide and high", f"{shape[2]}x{shape[1]}", "use --resize")
    models.build(str(plan.network), shape=shape, classes=len(splits.train.classes), width=plan.width)  # a bad one fails here
    return plan


def _defaults(plan: StudyConfig, shape: tuple[int, int, int], count: int) -> dict[str, Any]:
    """Settings for tiny images, for the planted world, and for all others; how they were found is in docs/lab-log.md."""
    radius = {"l2": 0.5, "linf": 8 / 255}
    usual = {
        "seeds": 1,
        "network": "resnet9",
        "width": 16,
        "epochs": max(12, min(60, round(190_000 / count))),
        "batch_size": 64 if count < 20_000 else 256,
        "learning_rate": 0.01,
        "weight_decay": 0.05,
        "shift": max(1, min(shape[1:]) // 8),
        "flip": shape[0] == 3,
        "invert_steps": 40,
    }
    if plan.source == "planted":
        radius["l2"] = 0.8
        usual |= {"width": 8, "epochs": 14, "flip": False, "invert_steps": 20}
    elif max(shape[1:]) <= 16:
        radius = {"l2": 0.75, "linf": 0.1}
        usual |= {"seeds": 3 if plan.source == "digits" else 1, "network": "small", "width": 32, "epochs": 14}
        usual |= {"batch_size": 128, "learning_rate": 0.02, "weight_decay": 1.0, "shift": 0, "invert_steps": 25}
    return usual | {"epsilon": radius[plan.norm]}


def _check_epsilon(option: str, threat_model: NormBall, part: Dataset) -> None:
    """A radius at which an image can become one of another class outright tests nothing: raises BadInput."""
    index = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:500]
    flat, labels = part.pixels(index).flatten(1), part.labels[index]
    apart = torch.cdist(flat, flat, p=2.0 if threat_model.norm == "l2" else torch.inf)
    nearest = apart.masked_fill((labels[:, None] == labels) | (apart == 0), torch.inf).amin(1).median().item()
    if not threat_model.epsilon < nearest:
        raise InputError(
            option,
            f"must be below {nearest:.3g}, the usual distance to the nearest image of another class ({threat_model.norm})",
            f"{threat_model.epsilon:g}",
            f"for {threat_model.epsilon:g}/255 pass {threat_model.epsilon:g}/255" if threat_model.epsilon >= 1 else "",
        )


def resumable_arguments(plan: StudyConfig) -> dict[str, Any]:
    """What a run must be asked again to go on. Seeds, controls, the paper's recipe may be added, device and speed may change."""
    free = ["seeds", "full", "recipe", "half", "compile", "device", *(["invert_times"] if plan.invert_times == 1 else [])]
    return {name: value for name, value in asdict(plan).items() if name not in free}


def known(value: Value | None) -> Value:
    assert value is not None, "complete() decides every setting"
    return value
