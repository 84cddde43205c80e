"""Part `minimum-norm` of attacks.py: the smallest perturbation that causes misclassification, beside other tools."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import foolbox
import torch
import torchattacks
from attacks_common import FOREIGN_NORMS, SEED, Benchmark, correctly_classified, counting, in_turns, is_correct
from harness import Row
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.search import NormBall

BUDGET = 110  # gradients per image: notbugs takes 10 rounds of 10 steps, and one for each of the 9 nearest classes
TRIAL_IMAGES = 20  # on which settings of other tools are chosen; they are among those measured, to the tools' advantage
NORMS = {"standard": ("l2", "linf", "l1"), "l2": ("l2",), "linf": ("linf",)}
FIXED_FMN, DDN = "foolbox FMN, projection fixed", "foolbox DDN"
LONGER = "{}, three times the steps"


class NormTool(NamedTuple):
    """A tool: settings to choose from, and (model, images, labels, **settings) -> perturbed images."""

    settings: list[Row]
    call: Callable[..., Tensor]


def minimum_norms(benchmark: Benchmark) -> Iterator[Row]:
    """Each norm on each model, on images that the model classifies correctly."""
    for name, norms in NORMS.items():
        if name in benchmark.trained:
            model, count = benchmark.trained[name], min(benchmark.images, benchmark.minimum_norm_images)
            dataset = correctly_classified(model, benchmark.splits.test, count)
            for norm in norms:
                yield from _smallest_perturbations(name, model, norm, dataset)


def _smallest_perturbations(name: str, model: Model, norm: str, dataset: Dataset) -> Iterator[Row]:
    """One row per tool, with its best settings."""
    images, labels, tools = dataset.pixels(slice(None)), dataset.labels, _tools(norm)
    chosen = _choose_settings(tools, model, images, labels, norm)
    for tool in [tool for tool in tools if tool in (FIXED_FMN, DDN)]:
        longer = LONGER.format(tool)
        tools[longer], chosen[longer] = tools[tool], {**chosen[tool], "steps": 3 * BUDGET}

    def run(tool: str) -> tuple[Tensor, Counter[str]]:
        with counting(model) as count:
            return tools[tool].call(model, images, labels, **chosen[tool]), count

    turns = in_turns({tool: partial(run, tool) for tool in tools})
    norms = {tool: _norms(model, images, labels, perturbed, norm) for tool, ((perturbed, _), _) in turns.items()}
    for tool, ((_, count), times) in turns.items():
        found = norms[tool].isfinite()
        yield {
            "model": name,
            "tool": tool,
            "norm": norm,
            "n": len(dataset),
            "misclassified": int(found.sum()),
            "median": float(norms[tool].quantile(0.5)) if 2 * found.sum() > len(dataset) else None,
            "mean": float(norms[tool][found].mean()) if found.any() else None,
            "notbugs_smaller": float((norms["notbugs"] < norms[tool]).double().mean()),
            "notbugs_larger": float((norms["notbugs"] > norms[tool]).double().mean()),
            "gradients_per_image": count["gradients"] / len(dataset),
            "forwards_per_image": count["forwards"] / len(dataset),
            "settings": chosen[tool],
            **times,
        }


def _norms(model: nn.Module, images: Tensor, labels: Tensor, perturbed: Tensor, norm: str) -> Tensor:
    """Norms of the perturbations that the plain model misclassifies, inf for the others: (N,)."""
    perturbed = perturbed.clamp(0, 1)
    return torch.where(is_correct(model, perturbed, labels), torch.inf, NormBall(norm, 0.0).distance(perturbed - images))


def _choose_settings(tools: dict[str, NormTool], model: Model, images: Tensor, labels: Tensor, norm: str) -> dict[str, Row]:
    """Of each tool the settings with the lowest median norm on a few of the images."""
    trial = data.evenly_spaced(TRIAL_IMAGES, len(images))

    def median_norm(call: Callable[..., Tensor], settings: Row) -> float:
        torch.manual_seed(SEED)
        perturbed = call(model, images[trial], labels[trial], **settings)
        return float(_norms(model, images[trial], labels[trial], perturbed, norm).median())

    return {
        name: min(tool.settings, key=partial(median_norm, tool.call)) if len(tool.settings) > 1 else tool.settings[0]
        for name, tool in tools.items()
    }


# ---- the tools -------------------------------------------------------------------------------------------------------------


def _tools(norm: str) -> dict[str, NormTool]:
    """The tools that know this norm, notbugs first."""
    kinds = foolbox.attacks
    fmn = partial(_foolbox, {"l2": kinds.L2FMNAttack, "linf": kinds.LInfFMNAttack, "l1": kinds.L1FMNAttack}[norm])
    fmn_settings = _grid(steps=[BUDGET], max_stepsize=(1.0, 0.3, 0.1) if norm != "l1" else (3.0, 1.0, 0.3), gamma=(0.05, 0.2))
    tools = {
        "notbugs": NormTool([{}], partial(_notbugs, norm=norm)),
        "foolbox FMN": NormTool(fmn_settings, fmn),
        # untargeted FAB takes a gradient for each class
        "torchattacks FAB": NormTool([{"steps": BUDGET // 10}], partial(_fab, norm=norm, targeted=False)),
        "torchattacks FAB, each class": NormTool([{"steps": BUDGET // 9 + 1}], partial(_fab, norm=norm, targeted=True)),
    }
    if norm == "l2":
        ddn_settings = _grid(steps=[BUDGET], init_epsilon=(1.0, 0.3, 0.1), gamma=(0.05, 0.1))
        tools[FIXED_FMN] = NormTool(fmn_settings, partial(fmn, fixed=True))
        tools[DDN] = NormTool(ddn_settings, partial(_foolbox, kinds.DDNAttack))
    if norm != "l1":
        deepfool = partial(_foolbox, kinds.L2DeepFoolAttack if norm == "l2" else kinds.LinfDeepFoolAttack)
        tools["foolbox DeepFool"] = NormTool(_grid(steps=[50], overshoot=[0.02, 0.005]), deepfool)
    return tools


def _grid(**choices: Sequence[Any]) -> list[Row]:
    """All combinations."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _notbugs(model: Any, images: Tensor, labels: Tensor, *, norm: str) -> Tensor:
    return attacks.minimum_norm(models.fuse_batchnorm(model, images[:2]), images, labels, norm=norm).images


def _foolbox(
    kind: Callable[..., Any], model: nn.Module, images: Tensor, labels: Tensor, *, fixed: bool = False, **settings: Any
) -> Tensor:
    """fixed: L2FMN as published; foolbox 3.3.4 divides a norm by itself where it means to project, and never projects."""
    attack = kind(**settings)
    if fixed:
        attack.project = _project_l2
    perturbed: Tensor = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None)[0]
    return perturbed


def _project_l2(x: Any, x0: Any, epsilon: Any) -> Any:
    """The projection that FMN is published with; in foolbox's own tensors."""
    norms = (x - x0).flatten(1).square().sum(1).sqrt().maximum(1e-12)
    return x0 + (x - x0) * (epsilon / norms).minimum(1).reshape((-1, 1, 1, 1))


def _fab(model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, steps: int, targeted: bool) -> Tensor:
    """Its inner function: the outer one stops at the first perturbation below a given epsilon, and does not know L1."""
    attack = torchattacks.FAB(model, norm=FOREIGN_NORMS[norm], steps=steps, n_classes=10)
    if not targeted:
        found: Tensor = attack.attack_single_run(images, labels)
        return found
    attack.multi_targeted = True
    best, norms = images.clone(), torch.full(labels.shape, torch.inf)
    for target in range(2, 11):  # the class with the target-th highest logit
        attack.target_class = target
        perturbed = attack.attack_single_run_targeted(images, labels)
        found = NormBall(norm, 0.0).distance(perturbed - images)
        better = (found > 0) & (found < norms)
        best[better], norms[better] = perturbed[better], found[better]
    return best
