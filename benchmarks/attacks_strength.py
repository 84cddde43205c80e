"""Parts `strength` and `gradient-masking` of attacks.py: images still classified correctly, beside AutoAttack."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
import torchattacks
from attacks_common import (
    FOREIGN_NORMS,
    NORM_BALLS,
    SEED,
    Benchmark,
    Tool,
    about,
    evenly_spaced,
    in_batches,
    in_turns,
    is_correct,
    outcome,
)
from harness import Row
from torch import Tensor, nn

from notbugs import attacks, models
from notbugs.data import Dataset
from notbugs.search import NormBall

SMALLER_BALLS = (NormBall("linf", 1 / 255), NormBall("l2", 0.25))  # where the standard model has any robust accuracy
REPEATED = "notbugs, repeated"


class FunctionLayer(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        """The function's value."""
        return self.function(values)


# ---- the tools -------------------------------------------------------------------------------------------------------------


def adaptive_ensemble(model: Any, threat_model: NormBall) -> Tool:
    """What `metrics.robust_accuracy` does, returning the images."""

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        fused = models.fuse_batchnorm(model, images[:2])

        def attack_batch(images: Tensor, labels: Tensor) -> Tensor:
            return attacks.adaptive_ensemble(fused, images, labels, threat_model=threat_model).images

        return in_batches(attack_batch, images, labels)

    return attack


def autoattack(model: nn.Module, threat_model: NormBall, steps: int | None = None) -> Tool:
    """torchattacks' copy, whose gradient attacks take 10 steps, the paper's 100. steps: only these attacks, with so many."""
    attack = torchattacks.AutoAttack(
        model, norm=FOREIGN_NORMS[threat_model.norm], eps=threat_model.epsilon, n_classes=10, seed=SEED
    )
    if steps:
        parts = attack._autoattack.attacks
        parts.pop()  # Square Attack ran before: it would find the same again
        for part in parts:
            part.steps = steps
    return partial(in_batches, attack)


def plain_pgd(model: nn.Module, threat_model: NormBall, steps: int = 50) -> Tool:
    """With the step sizes of torchattacks."""
    kind, share = (torchattacks.PGD, 1 / 4) if threat_model.norm == "linf" else (torchattacks.PGDL2, 1 / 5)
    return partial(in_batches, kind(model, eps=threat_model.epsilon, alpha=share * threat_model.epsilon, steps=steps))


# ---- the parts -------------------------------------------------------------------------------------------------------------


def strength(benchmark: Benchmark) -> Iterator[Row]:
    """Each trained model within each ball, then a linear model."""
    for name, model in benchmark.trained.items():
        for threat_model in NORM_BALLS + (SMALLER_BALLS if name == "standard" else ()):
            fast = name == "standard" and threat_model in NORM_BALLS  # AutoAttack takes seconds per image that survives
            dataset = evenly_spaced(benchmark.splits.test, benchmark.images if fast else benchmark.fewer_images)
            yield from _beside_autoattack(name, model, threat_model, dataset, {})
    yield from _linear_model(benchmark.images)


def gradient_masking(benchmark: Benchmark) -> Iterator[Row]:
    """The standard model behind two operations that mask its gradients, and hardly change its predictions."""
    if "standard" not in benchmark.trained:
        return
    standard = benchmark.trained["standard"]
    masked = {
        "standard, input quantized to 16 levels": nn.Sequential(
            FunctionLayer(lambda pixels: (15 * pixels).round() / 15), standard
        ),
        # the softmax is then 0 or 1 to the last bit and the cross-entropy flat, while the prediction is the same
        "standard, logits × 1000": nn.Sequential(standard, FunctionLayer(lambda logits: 1000 * logits)),
    }
    for (name, model), threat_model in product(masked.items(), NORM_BALLS):
        dataset = evenly_spaced(benchmark.splits.test, benchmark.fewer_images)
        more = {"torchattacks PGD-50": plain_pgd(model, threat_model)}
        yield from _beside_autoattack(name, model.eval(), threat_model, dataset, more)


def _beside_autoattack(
    name: str, model: nn.Module, threat_model: NormBall, dataset: Dataset, more: Mapping[str, Tool]
) -> Iterator[Row]:
    """notbugs, AutoAttack, notbugs once more; without `more`, AutoAttack's gradient attacks again, with 100 steps."""
    images, labels = dataset.pixels(slice(None)), dataset.labels
    tools = {"notbugs": adaptive_ensemble(model, threat_model), **more, "AutoAttack": autoattack(model, threat_model)}
    tools[REPEATED] = tools["notbugs"]
    turns = in_turns({tool: partial(attack, images, labels) for tool, attack in tools.items()})
    common = about(name, threat_model, len(dataset)) | {"clean_correct": int(is_correct(model, images, labels).sum())}
    for tool, (perturbed, times) in turns.items():
        version = {"attack": attacks.ensemble_name("standard")} if tool in ("notbugs", REPEATED) else {}
        yield {**common, "tool": tool, **version, **outcome(model, images, labels, perturbed, threat_model), **times}
    if more:
        return
    perturbed, times = turns["AutoAttack"]
    remaining = is_correct(model, images, labels) & is_correct(model, perturbed, labels)
    if remaining.any():
        longer = partial(autoattack(model, threat_model, steps=100), images[remaining], labels[remaining])
        found, extra = in_turns({"longer": longer})["longer"]
        perturbed = perturbed.clone()
        perturbed[remaining] = found
        seconds = {column: times[column] + extra[column] for column in ("seconds", "cpu_seconds")}
        ratio = seconds["seconds"] / turns["notbugs"][1]["seconds"]
        counts = outcome(model, images, labels, perturbed, threat_model)
        yield {**common, "tool": "AutoAttack, then 100 steps", **counts, **seconds, "time_ratio": ratio}


def _linear_model(count: int) -> Iterator[Row]:
    """A linear model on images around gray: no perturbation is clipped, so the robust accuracy is known in closed form."""
    torch.manual_seed(SEED)
    linear = nn.Linear(3 * 32 * 32, 10)
    model = nn.Sequential(nn.Flatten(), linear).requires_grad_(False).eval()
    images = (0.5 + 0.05 * torch.randn(count, 3, 32, 32)).clamp(0.3, 0.7)
    logits, weights = model(images).double(), linear.weight.double()
    labels = logits.argmax(1)
    gaps = (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf)
    for norm, dual in (("linf", 1), ("l2", 2)):
        slopes = (weights[labels][:, None] - weights).norm(p=dual, dim=2)
        distances = (gaps / slopes).amin(1).sort().values
        middle = len(distances) // 2
        threat_model = NormBall(norm, float(distances[middle - 1 : middle + 1].mean()))
        call = partial(adaptive_ensemble(model, threat_model), images, labels)
        perturbed, times = in_turns({"notbugs": call})["notbugs"]
        common = about("linear", threat_model, len(images)) | {"clean_correct": len(images)}
        known = int((distances > threat_model.epsilon).sum())
        yield {**common, "tool": "closed form", "correct": known, "robust_accuracy": known / len(images)}
        found = outcome(model, images, labels, perturbed, threat_model)
        yield {**common, "tool": "notbugs", "attack": attacks.ensemble_name("standard"), **found, **times}
