"""Part `speed` of attacks.py: PGD-20 beside the same of other tools, and the cross-entropy that each reaches."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import foolbox
import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from attacks_common import NORM_BALLS, SEED, Benchmark, Tool, about, evenly_spaced, in_turns, outcome
from harness import Row
from torch import Tensor, nn

from notbugs import attacks, models
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.search import NormBall

STEPS = 20
# Step sizes of the other tools, as shares of epsilon: 2.5 / steps is Madry's, 1/4 that of torchattacks
SHARES = (1 / 10, 1 / 8, 1 / 4)
# Architecture, width, images per call, balls
NETWORKS = (("small", 32, 256, NORM_BALLS), ("resnet18", 16, 200, NORM_BALLS), ("resnet18", 64, 32, NORM_BALLS[:1]))


def speed(benchmark: Benchmark) -> Iterator[Row]:
    """Images per second on untrained networks, then the cross-entropy reached on trained ones."""
    for name, width, count, balls in NETWORKS:
        model = _untrained(name, width, benchmark)
        dataset = evenly_spaced(benchmark.splits.test, min(count, benchmark.images))
        for threat_model in balls:
            yield from _images_per_second(f"{name}, width {width}, untrained", model, threat_model, dataset, benchmark.rounds)
    for name, threat_model in product(("standard", "linf"), NORM_BALLS):
        if name in benchmark.trained:
            dataset = evenly_spaced(benchmark.splits.test, min(100, benchmark.images))
            yield from _cross_entropy_reached(name, benchmark.trained[name], threat_model, dataset)


def _untrained(name: str, width: int, benchmark: Benchmark) -> Model:
    """A network with random weights, which are as fast as any others, and batch norm statistics of 300 images."""
    model = models.build(name, shape=(3, 32, 32), classes=10, width=width, seed=SEED).train()
    with torch.no_grad():
        for batch in torch.split(evenly_spaced(benchmark.splits.train, 300).pixels(slice(None)), 30):
            model(batch)
    return model.eval()  # its parameters require gradients, as a user's do: tools that compute those, too, take longer


def _images_per_second(name: str, model: Model, threat_model: NormBall, dataset: Dataset, rounds: int) -> Iterator[Row]:
    images, labels = dataset.pixels(slice(None)), dataset.labels
    tools = pgd_tools(model, threat_model, SHARES[1], len(dataset))
    for attack in tools.values():
        if attack:
            attack(images[:2], labels[:2])  # a warm-up
    turns = in_turns({tool: partial(attack, images, labels) for tool, attack in tools.items() if attack}, rounds)
    for tool in tools:
        row = {**about(name, threat_model, len(dataset)), "tool": tool, "steps": STEPS}
        if tool in turns:
            times = turns[tool][1]
            yield {**row, "images_per_second": len(dataset) / times["seconds"], **times}
        else:
            yield {**row, "status": "not installed"}


def _cross_entropy_reached(name: str, model: Model, threat_model: NormBall, dataset: Dataset) -> Iterator[Row]:
    """The mean cross-entropy after PGD-20; of the other tools with the step size that reaches most."""
    images, labels = dataset.pixels(slice(None)), dataset.labels
    best: dict[str, Row] = {}
    for share in SHARES:
        tools = pgd_tools(model, threat_model, share, len(dataset))
        calls = {tool: partial(attack, images, labels) for tool, attack in tools.items() if attack}
        for tool, (perturbed, times) in in_turns(calls).items():
            with torch.no_grad():
                loss = F.cross_entropy(model(perturbed), labels).item()
            if tool not in best or loss > best[tool]["cross_entropy"]:
                counts = outcome(model, images, labels, perturbed, threat_model)
                size = "default" if tool == "notbugs" else share
                best[tool] = {"step_over_epsilon": size, "cross_entropy": loss, **counts, **times}
    for tool, row in best.items():
        yield {**about(name, threat_model, len(dataset)), "steps": STEPS, "tool": tool, **row}


# ---- the tools -------------------------------------------------------------------------------------------------------------


def pgd_tools(model: Any, threat_model: NormBall, share: float, batch_size: int) -> dict[str, Tool | None]:
    """PGD-20 on the cross-entropy; the other tools start at random, with steps of this share of epsilon."""
    epsilon = float(threat_model.epsilon)
    step = share * epsilon
    foolbox_pgd = (foolbox.attacks.LinfPGD if threat_model.norm == "linf" else foolbox.attacks.L2PGD)(
        steps=STEPS, abs_stepsize=step
    )
    foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    torchattacks_pgd = torchattacks.PGD if threat_model.norm == "linf" else torchattacks.PGDL2

    def notbugs_pgd(images: Tensor, labels: Tensor) -> Tensor:
        fused = models.fuse_batchnorm(model, images[:2])
        return attacks.pgd(fused, images, labels, threat_model=threat_model, steps=STEPS, loss="cross_entropy").images

    return {
        "notbugs": notbugs_pgd,
        "foolbox": lambda images, labels: foolbox_pgd(foolbox_model, images, labels, epsilons=epsilon)[1],
        "torchattacks": torchattacks_pgd(model, eps=epsilon, alpha=step, steps=STEPS),
        "ART": _art_pgd(model, threat_model, step, batch_size),
        "bare loop": partial(_bare_pgd, model, threat_model, step),
    }


def _bare_pgd(model: nn.Module, threat_model: NormBall, step: float, images: Tensor, labels: Tensor) -> Tensor:
    """The least that PGD can do: a baseline for the time, not a tool."""
    epsilon, iterate = float(threat_model.epsilon), images
    for _ in range(STEPS):
        iterate = iterate.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(iterate), labels, reduction="sum"), iterate)
        with torch.no_grad():
            if threat_model.norm == "linf":
                perturbation = (iterate + step * gradient.sign() - images).clamp(-epsilon, epsilon)
            else:
                perturbation = iterate + step * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None] - images
                perturbation *= (epsilon / perturbation.flatten(1).norm(dim=1)).clamp_max(1)[:, None, None, None]
            iterate = (images + perturbation).clamp(0, 1)
    return iterate


def _art_pgd(model: nn.Module, threat_model: NormBall, step: float, batch_size: int) -> Tool | None:
    """None if ART is not installed."""
    try:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        return None
    classifier = PyTorchClassifier(
        model,
        device_type="cpu",
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 32, 32),
        nb_classes=10,
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=np.inf if threat_model.norm == "linf" else 2,
        eps=threat_model.epsilon,
        eps_step=step,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=batch_size,
        verbose=False,
    )
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), y=labels.numpy()))
