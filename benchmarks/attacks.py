"""The attacks beside those of other tools: how strong, how fast, how small a change, how few pixels, how much memory.

    python benchmarks/attacks.py --data cifar8k.npz --models models [--out benchmarks/results/attacks.json]
        [--parts strength masked speed radius pixel memory] [--images 500] [--autoattack-images 40] [--radius-images 100]
        [--rounds 5]

What is in the folder of models, each made by one command (a missing one is left out):

    notbugs train cifar8k.npz --out models/standard.safetensors --epochs 12
    notbugs train cifar8k.npz --out models/linf.safetensors --loss adversarial --norm linf --epsilon 8/255 --epochs 12
    notbugs train cifar8k.npz --out models/l2.safetensors --loss adversarial --norm l2 --epsilon 0.5 --epochs 12
    notbugs train cifar8k.npz --out models/trades.safetensors --loss trades --norm linf --epsilon 8/255 --epochs 12

strength  images left (fewer is stronger) beside AutoAttack, and where the answer is known
masked    the same behind masked gradients, and beside plain projected gradient descent
speed     projected gradient descent of 20 steps beside foolbox, torchattacks, ART and a bare loop; the cross-entropy it reaches
radius    the smallest change that fools, beside foolbox and torchattacks, at no more gradients than they get
pixel     one pixel, beside differential evolution at as many queries (Su et al. 2019)
memory    the peak of a whole verdict, less that of a single pass, in MiB

One thread. All tools get the same images, spread evenly over the test set, and the same model: frozen, but for `speed`, where its
parameters want gradients, as they do where a model comes from training. Ours folds it as `scores` does, which is part of its
time. The tools take turns; seconds are medians over rounds, of the wall and of the processor, and `times_ours` the median over
rounds of a tool's seconds over ours. `speed` has several rounds, the others one, `memory` two. Rows that an earlier call measured
stay in the file. ART takes part if adversarial-robustness-toolbox is installed.
"""

import argparse
import json
import multiprocessing
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import foolbox
import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from scipy.optimize import differential_evolution
from torch import Tensor, nn
from environment import facts  # the file beside this one

from notbugs import attacks, data, metrics, models, stats, train
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.runs.folder import write_atomic
from notbugs.search import NormBall, objectives

Row = dict[str, Any]
Tool = Callable[[Tensor, Tensor], Tensor]  # images and labels to attacked images

SEED = 0
BATCH = 250
MODELS = ("standard", "linf", "l2", "trades")
BALLS = (NormBall("linf", 8 / 255), NormBall("l2", 0.5))
SMALLER = (NormBall("linf", 1 / 255), NormBall("l2", 0.25))  # where the standard model has anything left
THEIR_NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Bench(NamedTuple):
    """What every part is given."""

    splits: data.Splits
    trained: dict[str, Model]
    images: int
    autoattack_images: int
    radius_images: int
    rounds: int


class Through(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


# ---- measuring ------------------------------------------------------------------------------------------------------


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int = 1) -> dict[str, tuple[Any, Row]]:
    """What each call returned, and its times; every second round goes backwards. Ratios are to the first call's, ours."""
    found: dict[str, Any] = {}
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # ART draws from here
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = calls[name]()
            clocks[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    ours = next(iter(clocks.values()))

    def times(mine: list[tuple[float, float]]) -> Row:
        result = {"rounds": rounds}
        for which, prefix in enumerate(("", "cpu_")):
            result[f"{prefix}seconds"] = median(each[which] for each in mine)
            result[f"{prefix}times_ours"] = median(each[which] / our[which] for each, our in zip(mine, ours, strict=True))
        return result

    return {name: (found[name], times(clocks[name])) for name in calls}


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """How many images go forward and how many gradients come back, by a hook that copies of the model keep."""
    count: Counter[str] = Counter()

    def hook(_: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
        count["forwards"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda slope: count.update(gradients=len(slope)))

    handle = model.register_forward_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def evenly(part: Dataset, count: int) -> Dataset:
    """So many images, spread over the set."""
    count = min(count, len(part))
    return part.select(torch.arange(count) * len(part) // count)


def batched(tool: Tool, images: Tensor, labels: Tensor) -> Tensor:
    return torch.cat([tool(*batch) for batch in zip(images.split(BATCH), labels.split(BATCH), strict=True)])


def reads(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the model reads rightly: bool (N,)."""
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)]) == labels


def left(model: nn.Module, images: Tensor, labels: Tensor, attacked: Tensor, threat_model: NormBall) -> Row:
    """Images that the plain model reads before and after, and how far the largest change goes, as a share of the radius."""
    assert 0 <= attacked.min() <= attacked.max() <= 1
    alive = int((reads(model, images, labels) & reads(model, attacked, labels)).sum())
    largest = float(threat_model.distance(attacked.detach() - images).max()) / float(threat_model.epsilon)
    return {"left": alive, "robust_accuracy": alive / len(images), "largest_change": largest}


# ---- strength -------------------------------------------------------------------------------------------------------


def verdict(model: Any, threat_model: NormBall) -> Tool:
    """What `scores.under_attack` does, but the images are returned."""

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        view = models.fuse_batchnorm(model, images[:2])
        return batched(
            lambda some, theirs: attacks.adaptive_ensemble(view, some, theirs, threat_model=threat_model).images, images, labels
        )

    return attack


def autoattack(model: nn.Module, threat_model: NormBall, steps: int | None = None) -> Tool:
    """torchattacks' copy: its gradient attacks take 10 steps, the paper's 100. Given steps, only these attacks, with so many."""
    whole = torchattacks.AutoAttack(model, norm=THEIR_NAMES[threat_model.norm], eps=threat_model.epsilon, n_classes=10, seed=SEED)
    if steps:
        parts = whole._autoattack.attacks
        parts.pop()  # the squares have had their go: they would be the same again
        for part in parts:
            part.steps = steps
    return partial(batched, whole)


def plain_pgd(model: nn.Module, threat_model: NormBall, steps: int = 50) -> Tool:
    """With torchattacks' own shares of the radius as step."""
    kind, share = (torchattacks.PGD, 1 / 4) if threat_model.norm == "linf" else (torchattacks.PGDL2, 1 / 5)
    return partial(batched, kind(model, eps=threat_model.epsilon, alpha=share * threat_model.epsilon, steps=steps))


def strength(bench: Bench) -> Iterator[Row]:
    for name, model in bench.trained.items():
        for threat_model in BALLS + (SMALLER if name == "standard" else ()):
            quick = name == "standard" and threat_model in BALLS  # AutoAttack takes seconds an image that survives
            yield from beside_autoattack(
                name, model, threat_model, evenly(bench.splits.test, bench.images if quick else few(bench))
            )
    yield from against_the_answer(bench)


def masked(bench: Bench) -> Iterator[Row]:
    if "standard" in bench.trained:
        plain = bench.trained["standard"]
        masks = {
            "standard, pixels in 16 levels": nn.Sequential(Through(lambda pixels: (15 * pixels).round() / 15), plain),
            # the softmax is then 0 or 1 to the last bit and the cross-entropy flat, while the prediction is the same
            "standard, logits x 1000": nn.Sequential(plain, Through(lambda logits: 1000 * logits)),
        }
        for (name, model), threat_model in product(masks.items(), BALLS):
            part = evenly(bench.splits.test, few(bench))
            yield from beside_autoattack(
                name, model.eval(), threat_model, part, {"torchattacks PGD-50": plain_pgd(model, threat_model)}
            )


def few(bench: Bench) -> int:
    return min(bench.images, bench.autoattack_images)


def beside_autoattack(
    name: str, model: nn.Module, threat_model: NormBall, part: Dataset, more: dict[str, Tool] | None = None
) -> Iterator[Row]:
    """Ours, theirs, ours once more. Without `more`, what AutoAttack left then meets its gradient attacks with 100 steps."""
    images, labels = part.pixels(slice(None)), part.labels
    tools = {"notbugs": verdict(model, threat_model), **(more or {}), "AutoAttack": autoattack(model, threat_model)}
    tools["notbugs again"] = tools["notbugs"]
    turns = in_turns({tool: partial(attack, images, labels) for tool, attack in tools.items()})
    common = {"model": name, "norm": threat_model.norm, "radius": threat_model.epsilon, "n": len(part)}
    common["clean"] = int(reads(model, images, labels).sum())
    for tool, (attacked, times) in turns.items():
        yield {**common, "tool": tool, **left(model, images, labels, attacked, threat_model), **times}
    attacked, before = turns["AutoAttack"]
    alive = reads(model, images, labels) & reads(model, attacked, labels)
    if alive.any() and not more:
        longer = partial(autoattack(model, threat_model, steps=100), images[alive], labels[alive])
        again, extra = in_turns({"longer": longer})["longer"]
        attacked = attacked.clone()
        attacked[alive] = again
        seconds = {key: before[key] + extra[key] for key in ("seconds", "cpu_seconds")}
        row = {**common, "tool": "AutoAttack, then 100 steps", **left(model, images, labels, attacked, threat_model), **seconds}
        yield {**row, "times_ours": seconds["seconds"] / turns["notbugs"][1]["seconds"]}


def against_the_answer(bench: Bench) -> Iterator[Row]:
    """A linear model and images around grey: no change meets the pixel range, and what is left is known."""
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).requires_grad_(False).eval()
    images = (0.5 + 0.05 * torch.randn(bench.images, 3, 32, 32)).clamp(0.3, 0.7)
    logits, weights = model(images).double(), model[1].weight.double()
    labels = logits.argmax(1)
    gaps = (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf)
    for norm, dual in (("linf", 1), ("l2", 2)):
        slopes = (weights[labels][:, None] - weights).norm(p=dual, dim=2)
        farthest = (gaps / slopes).amin(1).sort().values
        middle = len(farthest) // 2
        threat_model = NormBall(norm, float(farthest[middle - 1 : middle + 1].mean()))
        attacked, times = in_turns({"notbugs": partial(verdict(model, threat_model), images, labels)})["notbugs"]
        common = {"model": "linear", "norm": norm, "radius": threat_model.epsilon, "n": len(images), "clean": len(images)}
        known = int((farthest > threat_model.epsilon).sum())
        yield {**common, "tool": "closed form", "left": known, "robust_accuracy": known / len(images)}
        yield {**common, "tool": "notbugs", **left(model, images, labels, attacked, threat_model), **times}


# ---- speed ----------------------------------------------------------------------------------------------------------

STEPS = 20
SHARES = (1 / 10, 1 / 8, 1 / 4)  # of the radius, as the step of other tools; 2.5 / steps is Madry's, 1/4 torchattacks' own
NETWORKS = (("small", 32, 256, BALLS), ("resnet18", 16, 200, BALLS), ("resnet18", 64, 32, BALLS[:1]))  # and images a call


def bare(model: nn.Module, threat_model: NormBall, step: float, images: Tensor, labels: Tensor) -> Tensor:
    """The least that projected gradient descent can do: a floor, no tool."""
    radius, point = float(threat_model.epsilon), images
    for _ in range(STEPS):
        point = point.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(point), labels, reduction="sum"), point)
        with torch.no_grad():
            if threat_model.norm == "linf":
                change = (point + step * slope.sign() - images).clamp(-radius, radius)
            else:
                change = point + step * slope / slope.flatten(1).norm(dim=1)[:, None, None, None] - images
                change *= (radius / change.flatten(1).norm(dim=1)).clamp_max(1)[:, None, None, None]
            point = (images + change).clamp(0, 1)
    return point


def art_pgd(model: nn.Module, threat_model: NormBall, step: float, count: int) -> Tool | None:
    """None where ART is not installed."""
    try:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        return None
    known = {"loss": nn.CrossEntropyLoss(), "input_shape": (3, 32, 32), "nb_classes": 10, "clip_values": (0.0, 1.0)}
    attack = ProjectedGradientDescentPyTorch(
        PyTorchClassifier(model, device_type="cpu", **known),
        norm=np.inf if threat_model.norm == "linf" else 2,
        eps=threat_model.epsilon,
        eps_step=step,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=count,
        verbose=False,
    )
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), y=labels.numpy()))


def pgd_tools(model: Any, threat_model: NormBall, share: float, count: int) -> dict[str, Tool | None]:
    """20 steps up the cross-entropy by each tool; others step by this share of the radius, from a random start."""
    step = share * float(threat_model.epsilon)
    by_foolbox = (foolbox.attacks.LinfPGD if threat_model.norm == "linf" else foolbox.attacks.L2PGD)(
        steps=STEPS, abs_stepsize=step
    )
    seen = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def ours(images: Tensor, labels: Tensor) -> Tensor:
        view = models.fuse_batchnorm(model, images[:2])
        return attacks.pgd(view, images, labels, threat_model=threat_model, steps=STEPS, loss="cross_entropy").images

    return {
        "notbugs": ours,
        "foolbox": lambda images, labels: by_foolbox(seen, images, labels, epsilons=threat_model.epsilon)[1],
        "torchattacks": (torchattacks.PGD if threat_model.norm == "linf" else torchattacks.PGDL2)(
            model, eps=threat_model.epsilon, alpha=step, steps=STEPS
        ),
        "ART": art_pgd(model, threat_model, step, count),
        "bare loop": partial(bare, model, threat_model, step),
    }


def speed(bench: Bench) -> Iterator[Row]:
    for name, width, count, balls in NETWORKS:
        part = evenly(bench.splits.test, min(count, bench.images))
        images, labels = part.pixels(slice(None)), part.labels
        model = models.build(name, shape=(3, 32, 32), classes=10, width=width, seed=SEED).train()
        with torch.no_grad():  # statistics of batch norm; random weights are as fast as others
            for batch in evenly(bench.splits.train, 300).pixels(slice(None)).split(30):
                model(batch)
        model.eval()  # its parameters want gradients, as a user's do: tools that take these along pay for it
        for threat_model in balls:
            tools = pgd_tools(model, threat_model, SHARES[1], len(part))
            calls = {tool: partial(attack, images, labels) for tool, attack in tools.items() if attack}
            for attack in tools.values():
                if attack:
                    attack(images[:2], labels[:2])  # a warm-up
            turns = in_turns(calls, bench.rounds)
            common = {
                "model": f"{name}, width {width}, untrained",
                "norm": threat_model.norm,
                "radius": threat_model.epsilon,
                "n": len(part),
            }
            for tool in tools:
                row = {**common, "tool": tool, "steps": STEPS}
                if tool in turns:
                    yield {**row, "images_a_second": len(part) / turns[tool][1]["seconds"], **turns[tool][1]}
                else:
                    yield {**row, "state": "not installed"}
    for name, threat_model in product(("standard", "linf"), BALLS):
        if name in bench.trained:
            yield from loss_reached(name, bench.trained[name], threat_model, evenly(bench.splits.test, min(100, bench.images)))


def loss_reached(name: str, model: Model, threat_model: NormBall, part: Dataset) -> Iterator[Row]:
    """The mean cross-entropy after as many steps; of other tools the step size that reaches most."""
    images, labels = part.pixels(slice(None)), part.labels
    best: dict[str, Row] = {}
    for share in SHARES:
        tools = pgd_tools(model, threat_model, share, len(part))
        calls = {tool: partial(attack, images, labels) for tool, attack in tools.items() if attack}
        for tool, (attacked, times) in in_turns(calls).items():
            with torch.no_grad():
                loss = F.cross_entropy(model(attacked), labels).item()
            if tool not in best or loss > best[tool]["cross_entropy"]:
                result = {"cross_entropy": loss, **left(model, images, labels, attacked, threat_model), **times}
                best[tool] = {"step": "own" if tool == "notbugs" else share, **result}
    common = {"model": name, "norm": threat_model.norm, "radius": threat_model.epsilon, "n": len(part), "steps": STEPS}
    for tool, row in best.items():
        yield {**common, "tool": tool, **row}


# ---- radius ---------------------------------------------------------------------------------------------------------

BUDGET = 110  # gradients an image: ours takes 10 rounds of 10 steps, and one for each of the 9 nearest classes
TRIAL = 20  # images on which settings of other tools are chosen; these are among those measured, to their advantage
NORMS = {"standard": ("l2", "linf", "l1"), "l2": ("l2",), "linf": ("linf",)}


def our_smallest(model: Any, images: Tensor, labels: Tensor, *, norm: str) -> Tensor:
    return attacks.minimum_norm(models.fuse_batchnorm(model, images[:2]), images, labels, norm=norm).images


def by_foolbox(
    kind: Callable[..., Any], model: nn.Module, images: Tensor, labels: Tensor, *, mended: bool = False, **settings: Any
) -> Tensor:
    """mended: L2FMN as published; foolbox 3.3.4 divides a norm by itself where it means to project, and never does."""
    attack = kind(**settings)
    if mended:

        def project(x: Any, x0: Any, epsilon: Any) -> Any:
            size = (x - x0).flatten(1).square().sum(1).sqrt().maximum(1e-12)
            return x0 + (x - x0) * (epsilon / size).minimum(1).reshape((-1, 1, 1, 1))

        attack.project = project
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None)[0]


def fab(model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, steps: int, targeted: bool) -> Tensor:
    """Its inner function: the outer one stops at the first change below a given radius, and knows no L1."""
    attack = torchattacks.FAB(model, norm=THEIR_NAMES[norm], steps=steps, n_classes=10)
    if not targeted:
        return attack.attack_single_run(images, labels)
    attack.multi_targeted = True
    best, size = images.clone(), torch.full(labels.shape, torch.inf)
    for attack.target_class in range(2, 11):
        found = attack.attack_single_run_targeted(images, labels)
        length = NormBall(norm, 0.0).distance(found - images)
        wins = (length > 0) & (length < size)
        best[wins], size[wins] = found[wins], length[wins]
    return best


def radius_tools(norm: str) -> dict[str, tuple[list[Row], Callable[..., Tensor]]]:
    """Each tool's settings to choose from, and its call; ours has none."""

    def grid(**choices: Sequence[Any]) -> list[Row]:
        return [dict(zip(choices, each, strict=True)) for each in product(*choices.values())]

    kinds = foolbox.attacks
    fmn = partial(by_foolbox, {"l2": kinds.L2FMNAttack, "linf": kinds.LInfFMNAttack, "l1": kinds.L1FMNAttack}[norm])
    fmn_grid = {"max_stepsize": (1.0, 0.3, 0.1) if norm != "l1" else (3.0, 1.0, 0.3), "gamma": (0.05, 0.2)}
    tools: dict[str, tuple[list[Row], Callable[..., Tensor]]] = {
        "notbugs": ([{}], partial(our_smallest, norm=norm)),
        "foolbox FMN": (grid(steps=[BUDGET], **fmn_grid), fmn),
        "torchattacks FAB": (grid(steps=[BUDGET // 10]), partial(fab, norm=norm, targeted=False)),  # a gradient for each class
        "torchattacks FAB, each class": (grid(steps=[BUDGET // 9 + 1]), partial(fab, norm=norm, targeted=True)),
    }
    if norm == "l2":
        mended, ddn = partial(fmn, mended=True), partial(by_foolbox, kinds.DDNAttack)
        ddn_grid = {"init_epsilon": (1.0, 0.3, 0.1), "gamma": (0.05, 0.1)}
        tools["foolbox FMN, projection mended"] = (grid(steps=[BUDGET], **fmn_grid), mended)
        tools["foolbox DDN"] = (grid(steps=[BUDGET], **ddn_grid), ddn)
    if norm != "l1":
        deepfool = partial(by_foolbox, kinds.L2DeepFoolAttack if norm == "l2" else kinds.LinfDeepFoolAttack)
        tools["foolbox DeepFool"] = (grid(steps=[50], overshoot=[0.02, 0.005]), deepfool)
    return tools


def sizes(model: nn.Module, images: Tensor, labels: Tensor, attacked: Tensor, norm: str) -> Tensor:
    """The norm of each change that fools the plain model, inf for the others: (N,)."""
    length = NormBall(norm, 0.0).distance(attacked.clamp(0, 1) - images)
    return torch.where(reads(model, attacked.clamp(0, 1), labels), torch.inf, length)


def radius(bench: Bench) -> Iterator[Row]:
    for name, norms in NORMS.items():
        if name in bench.trained:
            part = read_rightly(bench.trained[name], bench.splits.test, min(bench.images, bench.radius_images))
            for norm in norms:
                yield from smallest_changes(name, bench.trained[name], norm, part)


def read_rightly(model: Model, part: Dataset, count: int) -> Dataset:
    """So many of the images that the model reads, spread over the set."""
    return evenly(part.select(reads(model, part.pixels(slice(None)), part.labels).nonzero().squeeze(1)), count)


def smallest_changes(name: str, model: Model, norm: str, part: Dataset) -> Iterator[Row]:
    """Settings of other tools are the best of a few on some of the images."""
    images, labels, tools = part.pixels(slice(None)), part.labels, radius_tools(norm)
    trial = torch.arange(min(TRIAL, len(part))) * len(part) // min(TRIAL, len(part))

    def middle(call: Callable[..., Tensor], setting: Row) -> float:
        torch.manual_seed(SEED)
        found = call(model, images[trial], labels[trial], **setting)
        return float(sizes(model, images[trial], labels[trial], found, norm).median())

    chosen = {
        tool: min(settings, key=partial(middle, call)) if len(settings) > 1 else settings[0]
        for tool, (settings, call) in tools.items()
    }

    for tool in {"foolbox FMN, projection mended", "foolbox DDN"} & tools.keys():
        longer = f"{tool}, three times the steps"
        tools[longer], chosen[longer] = tools[tool], {**chosen[tool], "steps": 3 * BUDGET}

    def measured(tool: str) -> tuple[Tensor, Counter[str]]:
        with counted(model) as count:
            return tools[tool][1](model, images, labels, **chosen[tool]), count

    turns = in_turns({tool: partial(measured, tool) for tool in tools})
    size = {tool: sizes(model, images, labels, attacked, norm) for tool, ((attacked, _), _) in turns.items()}
    for tool, ((_, count), times) in turns.items():
        found = size[tool].isfinite()
        yield {
            "model": name,
            "tool": tool,
            "norm": norm,
            "n": len(part),
            "found": int(found.sum()),
            "median": float(size[tool].quantile(0.5)) if 2 * found.sum() > len(part) else None,
            "mean": float(size[tool][found].mean()) if found.any() else None,
            "ours_smaller": float((size["notbugs"] < size[tool]).double().mean()),
            "ours_larger": float((size["notbugs"] > size[tool]).double().mean()),
            "gradients": count["gradients"] / len(part),
            "forwards": count["forwards"] / len(part),
            "setting": chosen[tool],
            **times,
        }


# ---- pixel ----------------------------------------------------------------------------------------------------------


def evolution(model: nn.Module, image: Tensor, label: Tensor, *, tries: int, population: int, strategy: str) -> bool:
    """One pixel by differential evolution, place and colours, the start as in the paper; whether any that it looked at fools.

    Judged by the lead, as ours, which finds more than the paper's probability of the label. A generation is one batch.
    """
    channels, height, width = image.shape
    fooled = False

    def lead(points: np.ndarray) -> np.ndarray:
        nonlocal fooled
        count = points.shape[1]
        seen = image.repeat(count, 1, 1, 1)
        row, column = torch.from_numpy(points[:2]).long()
        colours = torch.from_numpy(points[2:].T).to(image)
        seen[torch.arange(count), :, row.clamp(0, height - 1), column.clamp(0, width - 1)] = colours
        with torch.no_grad():
            found = objectives.margin(model(seen), label.expand(count))
        fooled |= bool((found < 0).any())
        return found.numpy()

    bounds = [(0, height), (0, width), *[(0, 1)] * channels]
    draw = np.random.default_rng(SEED)
    start = np.hstack([draw.random((population, 2)) * [height, width], draw.normal(0.5, 0.5, (population, channels)).clip(0, 1)])
    differential_evolution(
        lead,
        bounds,
        strategy=strategy,
        init=start,
        maxiter=tries // population - 1,
        mutation=0.5,
        recombination=1.0,
        tol=0.0,
        atol=-1.0,
        rng=SEED,
        polish=False,
        vectorized=True,
        updating="deferred",
        callback=lambda *_: fooled,
    )
    return fooled


def pixel(bench: Bench) -> Iterator[Row]:
    digits = data.load("digits")
    small = models.build("small", shape=digits.train.shape, classes=10, width=16, seed=SEED)
    train.fit(small, digits.train, train.cross_entropy, epochs=6, seed=SEED)
    small.eval().requires_grad_(False)
    yield from one_pixel("digits", small, read_rightly(small, digits.test, min(150, bench.images)), (40, 100, None))
    if "standard" in bench.trained:
        model = bench.trained["standard"]
        yield from one_pixel("standard", model, read_rightly(model, bench.splits.test, min(150, bench.images)), (100, 400))


def one_pixel(name: str, model: Any, part: Dataset, budgets: Sequence[int | None]) -> Iterator[Row]:
    """tries None: every corner of every pixel, which is ours alone."""
    images, labels = part.pixels(slice(None)), part.labels

    def ours(tries: int | None, gradient: bool) -> tuple[int, Counter[str]]:
        with counted(model) as count:
            view = models.fuse_batchnorm(model, images[:2])
            found = attacks.few_pixels(view, images, labels, pixels=1, tries=tries, gradient=gradient)
        return int((~reads(model, found.images, labels)).sum()), count

    def theirs(**settings: Any) -> tuple[int, Counter[str]]:
        with counted(model) as count:
            return sum(evolution(model, *each, **settings) for each in zip(images, labels, strict=True)), count

    for tries in budgets:
        calls: dict[str, Callable[[], tuple[int, Counter[str]]]] = {"notbugs": partial(ours, tries, True)}
        if tries:
            calls["notbugs, no gradients"] = partial(ours, tries, False)
            for strategy, generations in product(
                ("rand1bin", "best1bin", "currenttobest1bin"), (8, 32)
            ):  # the first is the paper's
                if tries // generations >= 5:  # scipy's least population
                    named = f"differential evolution, {strategy}, {generations} generations"
                    calls[named] = partial(theirs, tries=tries, population=tries // generations, strategy=strategy)
        for tool, ((fooled, count), times) in in_turns(calls).items():
            yield {
                "model": name,
                "tool": tool,
                "norm": "l0",
                "radius": 1,
                "n": len(part),
                "tries": tries or "all",
                "fooled": fooled,
                "success": fooled / len(part),
                "queries": count["forwards"] / len(part),
                "gradients": count["gradients"] / len(part),
                **times,
            }


# ---- memory ---------------------------------------------------------------------------------------------------------


WHOLE = NormBall("linf", 2 / 255)  # of 8/255 few would meet the costly attacks


def peak(what: str, path: Path, count: int) -> float:
    """MiB that this process has held at most, once the set is in memory, repeated, and one thing done to a small network.

    The most this program held, not `ru_maxrss`: that counts what the program held which started this one.
    """
    torch.set_num_threads(1)
    part = data.load(path).test
    part = part.select(torch.arange(count) % len(part))
    model = models.build("small", shape=part.shape, classes=10, width=8, seed=SEED).eval().requires_grad_(False)
    part = part.with_labels(torch.cat([model(part.pixels(slice(i, i + 20))).argmax(1) for i in range(0, count, 20)]))
    stats.wilson_interval(1, 2)  # or scipy's import would count as the verdict's
    if what == "a verdict":
        metrics.robust_accuracy(model, part, [WHOLE], batch_size=BATCH)
    elif what != "the set alone":
        view = models.fuse_batchnorm(model, part.pixels(slice(0, 2))) if what == "one pass, folded" else model
        images = part.pixels(slice(0, BATCH)).requires_grad_()
        torch.autograd.grad(F.cross_entropy(view(images), part.labels[:BATCH]), images)
    (most,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(most) / 1024


def memory(bench: Bench, path: Path) -> Iterator[Row]:
    """Each in a fresh process, in turns."""
    count, found = 20 * bench.images, {}
    kinds = ("a verdict", "one pass", "one pass, folded", "the set alone")
    for what in kinds * 2:
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            most = pool.apply(peak, (what, path, count))
        found.setdefault(what, []).append((most, time.perf_counter() - began))
    mib = {what: median(most for most, _ in each) for what, each in found.items()}
    for what in kinds:
        row = {
            "model": "small, width 8, untrained",
            "tool": f"notbugs, {what}",
            "norm": WHOLE.norm,
            "radius": WHOLE.epsilon,
            "n": count,
        }
        above = {f"above {other}": mib[what] - mib[other] for other in kinds[1:]} if what == kinds[0] else {}
        yield {**row, "mib": mib[what], **above, "seconds": median(seconds for _, seconds in found[what]), "rounds": 2}


# ---- one command ----------------------------------------------------------------------------------------------------

PARTS = ("strength", "masked", "speed", "radius", "pixel", "memory")


def line(row: Row) -> str:
    """One row in short: what it is about, then every figure by its name."""
    first = ("part", "model", "norm", "radius", "tool")
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()}
    head = "  ".join(shown[key] for key in first if key in shown)
    return head + ": " + " ".join(f"{key}={value}" for key, value in shown.items() if key not in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--autoattack-images", type=int, default=40, help="where AutoAttack takes seconds an image")
    parser.add_argument("--radius-images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # other tools' own

    trained, missing = {}, []
    for name in MODELS:
        path = options.models / f"{name}.safetensors"
        if path.exists():
            trained[name] = models.load(path)[0].eval().requires_grad_(False)
        else:
            missing.append(name)
            print(f"{path}: no such model, left out")
    bench = Bench(
        data.load(options.dataset), trained, options.images, options.autoattack_images, options.radius_images, options.rounds
    )
    ways: dict[str, Callable[[], Iterator[Row]]] = {
        "strength": partial(strength, bench),
        "masked": partial(masked, bench),
        "speed": partial(speed, bench),
        "radius": partial(radius, bench),
        "pixel": partial(pixel, bench),
        "memory": partial(memory, bench, options.dataset),
    }
    report = json.loads(options.out.read_text()) if options.out and options.out.exists() else {"measured": {}, "rows": []}
    for part in options.parts:
        began = time.perf_counter()
        for row in ways[part]():
            row = {"part": part, **row}
            print(line(row), flush=True)
            now = facts(packages=("foolbox", "torchattacks", "adversarial-robustness-toolbox", "scipy"))
            now |= {"threads": torch.get_num_threads(), "seeds": [SEED]}
            how = {
                "images": options.images,
                "autoattack_images": options.autoattack_images,
                "radius_images": options.radius_images,
                "missing_models": missing,
            }
            measured = {name: now[name] for name in ("date", "commit", "machine")}
            measured |= {"minutes": (time.perf_counter() - began) / 60, **how}
            rows = [old for old in report["rows"] if identity(old) != identity(row)] + [row]
            report = {**now, "measured": {**report["measured"], part: measured}, "rows": rows}
            if options.out:
                write_atomic(options.out, json.dumps(report, indent=1) + "\n")


def identity(row: Row) -> tuple[Any, ...]:
    """What makes a row another one: a later call's takes its place."""
    return tuple(row.get(key) for key in ("part", "model", "norm", "radius", "tool", "tries", "gradient", "steps"))


if __name__ == "__main__":
    main()
