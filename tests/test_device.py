"""On a (fake) GPU: every tensor is on its device, no step synchronizes, and figures are those of a CPU. See fake_cuda.py."""

import copy
import math
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_budgets
import torch
import torch.nn.functional as F
from fake_cuda import fake_gpu
from torch import Tensor

from notbugs import attacks, audit, construct, data, metrics, models, train
from notbugs.attacks import ensemble, sanity_checks
from notbugs.audit import AuditConfig
from notbugs.data import DataConfig, Dataset
from notbugs.files import crossfit, features
from notbugs.models import Model
from notbugs.runs.tables.audit import AuditFileRow
from notbugs.runs.tables.study import AccuracyRow
from notbugs.search import NormBall, SpatialTransforms
from notbugs.study import evaluation, pipeline
from notbugs.study.catalog.datasets import QUICK
from notbugs.study.config import StudyConfig, load
from notbugs.study.resolve import resolve

THREAT_MODEL = NormBall("l2", 0.75)


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """60 training digits."""
    return data.balanced_subset(digits.train, 60)


def seeded(device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def as_arrays(result: Any) -> Any:
    """Any result as arrays and numbers on the CPU, without times."""
    if isinstance(result, Tensor):
        return result.detach().cpu().numpy()
    if isinstance(result, Dataset):
        return [result.images[:].numpy(), result.labels.numpy()]
    if is_dataclass(result):
        return as_arrays(vars(result))
    if isinstance(result, dict):
        return [(name, as_arrays(each)) for name, each in result.items() if "seconds" not in name]
    if isinstance(result, list | tuple):
        return [as_arrays(each) for each in result]
    if isinstance(result, np.generic):
        return result.item()
    assert result is None or isinstance(result, str | int | float | np.ndarray), type(result)
    return result


def assert_close(one: Any, other: Any) -> None:
    """Equal up to the last digits, which differ because the batches of a GPU are larger."""
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, others in zip(one, other, strict=True):
            assert_close(mine, others)
    elif isinstance(one, np.ndarray):
        if one.dtype == np.uint8:  # 8-bit pixels
            assert np.abs(one.astype(int) - other).max() <= 1
        elif one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)
    else:
        assert one == other


# ---- the fake GPU --------------------------------------------------------------------------------------------------------


def test_fake_gpu_raises_where_a_gpu_raises() -> None:
    with fake_gpu() as gpu:
        on_gpu, on_cpu = torch.ones(3, 4).to("cuda"), torch.ones(3, 4)
        assert on_gpu.device == torch.device("cuda:0") and on_gpu.is_cuda
        errors: dict[str, Callable[[], Any]] = {
            "same device": lambda: on_gpu + on_cpu,
            "to numpy": lambda: on_gpu.numpy(),
            "generator": lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
            "cpu generator": lambda: torch.randn(3, generator=torch.Generator("cuda")),
            "indices": lambda: on_cpu[torch.tensor([0]).to("cuda")],
            "same device: aten.addmm": lambda: F.linear(on_gpu, torch.ones(2, 4), torch.ones(2)),
        }
        for message, operation in errors.items():
            with pytest.raises((RuntimeError, TypeError), match=message):
                operation()
        assert gpu.synchronizations == 2  # two copies from the CPU
        # allowed: an index on the CPU, and scalars
        assert (on_gpu + 1)[torch.tensor([0, 2])].sum().item() == 16 and (2.0 * on_gpu).cpu().equal(2 * on_cpu)
        assert (on_gpu * torch.tensor(2.0)).tolist() == (2 * on_cpu).tolist()
        assert gpu.synchronizations == 6  # one index from the CPU, three results
    with pytest.raises(AssertionError, match="outside"):
        on_gpu + 1


def test_networks_on_the_fake_gpu_are_those_on_the_cpu(standard: Model, part: Dataset) -> None:
    def gradients(device: str) -> tuple[Tensor, Tensor]:
        model = copy.deepcopy(standard).to(device).train().requires_grad_()
        pixels = part.pixels(slice(None)).to(device).requires_grad_()
        loss = F.cross_entropy(model(pixels), part.labels.to(device))
        of_pixels, of_weights, *_ = torch.autograd.grad(loss, [pixels, *model.parameters()])
        return of_pixels.cpu(), of_weights.cpu()

    with fake_gpu() as gpu:
        on_gpu = gradients("cuda")
        assert gpu.launches > 50
    for one, other in zip(gradients("cpu"), on_gpu, strict=True):
        assert one.norm() > 0 and torch.equal(one, other)


# ---- attacks -------------------------------------------------------------------------------------------------------------

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": lambda *at, **_: attacks.fgsm(*at, threat_model=NormBall("linf", 0.1)),
    "pgd": lambda *at, **_: attacks.pgd(*at, threat_model=THREAT_MODEL, steps=4),
    "pgd with restarts": lambda *at, device: attacks.pgd(
        *at, threat_model=THREAT_MODEL, steps=3, restarts=2, generator=seeded(device)
    ),
    "pgd l1": lambda *at, **_: attacks.pgd(*at, threat_model=NormBall("l1", 3), steps=4, loss="cross_entropy"),
    "apgd": lambda *at, device: attacks.apgd(
        *at, threat_model=THREAT_MODEL, steps=12, loss="dlr", restarts=2, generator=seeded(device)
    ),
    "apgd targeted": lambda *at, **_: attacks.apgd(*at, threat_model=NormBall("linf", 0.1), steps=12, rank=2, loss="dlr"),
    "targeted pgd": lambda model, images, labels, **_: attacks.targeted_pgd(
        model, images, (labels + 1) % 10, threat_model=THREAT_MODEL, steps=4
    ),
    "rank-targeted pgd": lambda *at, **_: attacks.rank_targeted_pgd(*at, threat_model=THREAT_MODEL, rank=2, steps=4),
    "kl pgd": lambda *at, device: attacks.kl_pgd(*at, threat_model=THREAT_MODEL, steps=3, generator=seeded(device)),
    "minimum norm": lambda *at, **_: attacks.minimum_norm(*at, rounds=2, steps=4),
    "nearest classes": lambda *at, **_: attacks.nearest_classes(*at),
    "one pixel": lambda *at, device: attacks.one_pixel(*at, candidates=4, generator=seeded(device)),
    "few pixels, no gradient": lambda *at, device: attacks.few_pixels(
        *at, pixels=2, candidates=4, gradient=False, generator=seeded(device)
    ),
    "square": lambda *at, device: attacks.square_attack(*at, threat_model=THREAT_MODEL, queries=20, generator=seeded(device)),
    "square, linf": lambda *at, device: attacks.square_attack(
        *at, threat_model=NormBall("linf", 0.1), queries=20, generator=seeded(device)
    ),
    "hop skip jump": lambda *at, device: attacks.hop_skip_jump(*at, queries=60, generator=seeded(device)),
    "spatial": lambda *at, **_: attacks.spatial_attack(
        *at, threat_model=SpatialTransforms(20, 1), angles=3, translations=3, steps=2
    ),
    "worst case": lambda *at, **_: attacks.worst_case(*at, attacks=attacks.gradient_ensemble(THREAT_MODEL, 10)[:4]),
    "adaptive ensemble": lambda *at, **_: attacks.adaptive_ensemble(*at, threat_model=THREAT_MODEL),
    "adaptive ensemble, infinite epsilon": lambda *at, **_: attacks.adaptive_ensemble(
        *at, threat_model=NormBall("l2", math.inf), budget="quick"
    ),
    "clean logits": lambda *at, **_: attacks.clean_logits(*at),
    "sanity checks": lambda *at, **_: [
        check._asdict() for check in sanity_checks.run_all(*at, threat_model=THREAT_MODEL, budget="quick", others=[at[0]])
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name: str, robust: Model, part: Dataset) -> None:
    def run(device: str) -> Any:
        model = copy.deepcopy(robust).to(device)
        return as_arrays(ATTACKS[name](model, part.pixels(slice(0, 12)).to(device), part.labels[:12].to(device), device=device))

    with fake_gpu():
        on_gpu = run("cuda")
    assert_close(run("cpu"), on_gpu)


# ---- constructions and metrics ---------------------------------------------------------------------------------------------


def next_labels(part: Dataset) -> Tensor:
    return (part.labels + 1) % 10


def trained(part: Dataset, loss: train.Loss, device: str, **options: Any) -> list[Tensor]:
    model = models.build("resnet9", shape=part.shape, classes=10, width=4)
    curve = train.fit(model, part, loss, epochs=1, batch_size=20, device=device, **options)
    return [torch.tensor([each.accuracy for each in curve]), *(each.detach().cpu() for each in list(model.parameters())[:3])]


def transfer_rates(model: Model, part: Dataset, device: str) -> list[metrics.TransferRates]:
    examples = metrics.make_examples(model, part, THREAT_MODEL, steps=3, device=device)
    return metrics.transfer_rates(examples, part, copy.deepcopy(model), device=device)


CALLS: dict[str, Callable[[Model, Dataset, str], Any]] = {
    "training": lambda _, part, device: trained(part, train.cross_entropy, device, augment=train.random_translate(1, flip=True)),
    "adversarial training": lambda _, part, device: trained(
        part, train.adversarial_loss(partial(attacks.pgd, threat_model=THREAT_MODEL, steps=2, loss="cross_entropy")), device
    ),
    "TRADES": lambda _, part, device: trained(
        part, train.trades(partial(attacks.kl_pgd, threat_model=THREAT_MODEL, steps=2)), device, patience=1
    ),
    "D_R": lambda model, part, device: construct.invert_features(model, part, steps=4, device=device),
    "D_R from noise, the paper's steps": lambda model, part, device: construct.invert_features(
        model, part, start="noise", steps=4, rule=construct.paper_update_rule(), device=device
    ),
    "relabel": lambda model, part, device: construct.relabel(
        model, part, next_labels(part), threat_model=THREAT_MODEL, steps=4, device=device
    ),
    "relabel, not transferable": lambda model, part, device: construct.relabel(
        model, part, next_labels(part), threat_model=THREAT_MODEL, steps=4, keep_label_on=[copy.deepcopy(model)], device=device
    ),
    "clean accuracy": lambda model, part, device: metrics.clean_accuracy(model, part, device=device),
    "robust accuracy": lambda model, part, device: metrics.robust_accuracy(
        model, part, [THREAT_MODEL], budget="quick", device=device
    ),
    "corruptions": lambda model, part, device: metrics.corruption_accuracy(model, part, device=device),
    "fourier": lambda model, part, device: metrics.fourier_sensitivity(model, part, device=device),
    "cues": lambda model, part, device: metrics.cue_values(part, device=device),
    "saliency": lambda model, part, device: [
        metrics.saliency(model, part, metrics.class_means(part), method=method, device=device) for method in metrics.METHODS
    ],
    "features": lambda model, part, device: metrics.per_feature(model, part, THREAT_MODEL, steps=2, device=device),
    "robust feature leakage": lambda model, part, device: metrics.robust_feature_leakage(
        model, [0, 3, 5], part, part, device=device
    ),
    "robust features": lambda model, part, device: metrics.robust_features(model, part, THREAT_MODEL, device=device),
    "transfer": transfer_rates,
    "ntk": lambda _, part, device: metrics.EigenFeatures(part).to(device)(part.pixels(slice(0, 9)).to(device)),
    "files": lambda _, part, device: crossfit.score_fold(
        part.select(slice(0, 20)),
        crossfit.CrossfitConfig(THREAT_MODEL, "small", 4, 1, 32, 1, 2),
        torch.arange(20) % 2 == 0,
        seed=0,
        device=device,
    )["standard_margin"],
    "invert both": lambda model, part, device: features.invert_both(
        model, copy.deepcopy(model), part, crossfit.CrossfitConfig(THREAT_MODEL, invert_steps=2), 0, device
    ),
    "misclassified only": lambda _, part, device: construct.misclassified_only(
        models.build("small", shape=part.shape, classes=10, width=4), part, device=device
    ),
    "pseudo-label": lambda model, part, device: construct.pseudo_label(model, part, count=20, device=device),
    "drop already predicted": lambda model, part, device: construct.drop_already_predicted(
        model, part, part.with_labels(next_labels(part)), device=device
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_training_constructions_and_metrics(name: str, robust: Model, part: Dataset) -> None:
    with fake_gpu():
        on_gpu = as_arrays(CALLS[name](copy.deepcopy(robust), part, "cuda"))
    assert_close(as_arrays(CALLS[name](copy.deepcopy(robust), part, "cpu")), on_gpu)


# one stage of each kind, and all data sets; the others call the same functions
ON_DEVICE = (
    *(f"evaluation-{name}" for name in ("adversarial", "standard", "trained-on-robust", "trained-on-next-labels")),
    *("pictures", *(f"dataset-{name}" for name in QUICK)),
)


@pytest.mark.slow
def test_a_study_and_an_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of two commands, tables included. The standard ensemble and all sanity checks have tests of their own above."""
    monkeypatch.setattr(
        ensemble, "BUDGETS", dict.fromkeys(attacks.BUDGETS, replace(small_budgets.with_queries(5)["quick"], apgd_steps=3))
    )
    monkeypatch.setattr(ensemble, "UNTARGETED_ATTACKS", ((1, "margin"), (2, "cross_entropy")))
    monkeypatch.setattr(evaluation, "CURVE", (0.25, 1.5))
    monkeypatch.setattr(sanity_checks, "run_all", lambda model, images, *_, **__: [sanity_checks.deterministic(model, images)])
    study = StudyConfig(
        "digits", seeds=1, limit=60, epochs=1, width=4, invert_steps=2, relabel_steps=2, patience=0, device="cuda"
    )
    model = str(tmp_path / "study" / "models" / "standard.safetensors")
    threats = ("l2:0.75", "spatial:20,1")
    classifier = AuditConfig(model, DataConfig("digits"), threats=threats, images=10, budget="quick", device="cuda")
    with fake_gpu():
        studied = pipeline.run(study, tmp_path / "study", only=ON_DEVICE, workers=1)
        place = (resolve(study, load(study)), studied.folder, 0, lambda *_: None)
        evaluated = evaluation.accuracy_on_all_datasets(*place, models=("standard",))
        audited = audit.run(classifier, tmp_path / "audit", workers=1)
    assert audited.metadata["finished"] and studied.metadata["device"] == "cuda"
    assert {*ON_DEVICE} <= {name.removeprefix("seed0/") for name in studied.metadata["stages"]}
    assert len(studied.rows(AccuracyRow)) == 13 + 4 * 2 + 1 and len(evaluated) == 6 and len(audited.rows(AuditFileRow)) == 10


# ---- synchronization -------------------------------------------------------------------------------------------------------

WITH_STEPS: dict[str, Callable[[Model, Dataset, int], Any]] = {
    "attack": lambda model, part, steps: attacks.pgd(
        copy.deepcopy(model).to("cuda"),
        part.pixels(slice(None)).to("cuda"),
        part.labels.to("cuda"),
        threat_model=THREAT_MODEL,
        steps=steps,
    ),
    "relabel": lambda model, part, steps: construct.relabel(
        model, part, next_labels(part), threat_model=THREAT_MODEL, steps=steps, device="cuda"
    ),
    "D_R": lambda model, part, steps: construct.invert_features(model, part, steps=steps, device="cuda"),
    "apgd": lambda model, part, steps: attacks.apgd(
        copy.deepcopy(model).to("cuda"),
        part.pixels(slice(None)).to("cuda"),
        part.labels.to("cuda"),
        threat_model=THREAT_MODEL,
        steps=steps,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_STEPS)
def test_no_step_synchronizes(name: str, standard: Model, part: Dataset) -> None:
    """The CPU queues steps ahead of the GPU; one result per step copied to the CPU would leave both idle in turn."""
    synchronizations, launches = [], []
    for steps in (4, 12):
        with fake_gpu() as gpu:
            WITH_STEPS[name](copy.deepcopy(standard), part, steps)
            synchronizations.append(gpu.synchronizations)
            launches.append(gpu.launches)
    assert synchronizations[0] == synchronizations[1] and launches[1] > launches[0] + 200


@pytest.mark.slow
def test_progress_of_an_evaluation_does_not_synchronize(robust: Model, part: Dataset) -> None:
    counts, shares = [], list[float]()
    for progress in (None, shares.append):
        with fake_gpu() as gpu:
            metrics.robust_accuracy(copy.deepcopy(robust), part, [THREAT_MODEL], device="cuda", progress=progress)
            counts.append((gpu.synchronizations, gpu.launches))
    assert counts[0] == counts[1] and len(shares) > 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "per_batch", "checks"),
    [(train.cross_entropy, 0, 0), (train.adversarial_loss(partial(attacks.pgd, threat_model=THREAT_MODEL, steps=2)), 1, 2)],
)
def test_training_synchronizes_per_epoch_and_once_per_attack(
    loss: train.Loss, per_batch: int, checks: int, part: Dataset
) -> None:
    """checks: of the fused copy, at batches 0, 1 and 2 of 4, and at 0, 1, 2, 4 and 8 of 12."""
    synchronizations = []
    for batches in (2, 6):
        with fake_gpu() as gpu:
            model = models.build("small", shape=part.shape, classes=10, width=4)
            train.fit(model, part, loss, epochs=2, batch_size=60 // batches, device="cuda")
        synchronizations.append(gpu.synchronizations)
    assert synchronizations[1] - synchronizations[0] == 2 * 4 * per_batch + checks
