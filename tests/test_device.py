"""On a GPU: no tensor is left behind, nothing waits for it where it need not, and figures are those of a CPU (see pretend.py)."""

import copy
import math
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_cuda import pretended
from torch import Tensor

from notbugs import attacks, audit, construct, data, metrics, models, train
from notbugs.attacks import sanity_checks
from notbugs.audit import AuditConfig
from notbugs.data import Dataset, subset
from notbugs.files import crossfit, run, scores
from notbugs.metrics import transfer
from notbugs.models import Model
from notbugs.search import NormBall, SpatialTransforms
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

BALL = NormBall("l2", 0.75)


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """60 training digits."""
    return digits.train.select(subset.balanced(digits.train.labels, 60))


def chance(device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def plainly(found: Any) -> Any:
    """Whatever was found, as arrays and numbers here; without how long it took, and without what cannot be compared."""
    if isinstance(found, Tensor):
        return found.detach().cpu().numpy()
    if isinstance(found, Dataset):
        return [found.images[:].numpy(), found.labels.numpy()]
    if is_dataclass(found):
        return plainly(vars(found))
    if isinstance(found, dict):
        return [(name, plainly(each)) for name, each in found.items() if "seconds" not in name]
    if isinstance(found, list | tuple):
        return [plainly(each) for each in found]
    if isinstance(found, np.generic):
        return found.item()
    assert found is None or isinstance(found, str | int | float | np.ndarray), type(found)
    return found


def alike(one: Any, other: Any) -> None:
    """Equal, but for the last digits: where what came before differs by them (the batches of a GPU are larger)."""
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, its in zip(one, other, strict=True):
            alike(mine, its)
    elif isinstance(one, np.ndarray):
        if one.dtype == np.uint8:  # pixels as they are stored
            assert np.abs(one.astype(int) - other).max() <= 1
        elif one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)
    else:
        assert one == other


# ---- what is pretended ---------------------------------------------------------------------------------------------------


def test_what_a_gpu_would_refuse() -> None:
    with pretended() as gpu:
        there, here = torch.ones(3, 4).to("cuda"), torch.ones(3, 4)
        assert there.device == torch.device("cuda:0") and there.is_cuda
        refused: dict[str, Callable[[], Any]] = {
            "same device": lambda: there + here,
            "to numpy": lambda: there.numpy(),
            "generator": lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
            "cpu generator": lambda: torch.randn(3, generator=torch.Generator("cuda")),
            "indices": lambda: here[torch.tensor([0]).to("cuda")],
            "same device: aten.addmm": lambda: F.linear(there, torch.ones(2, 4), torch.ones(2)),
        }
        for words, work in refused.items():
            with pytest.raises((RuntimeError, TypeError), match=words):
                work()
        assert gpu.waits == 2  # two copies from here
        assert (there + 1)[torch.tensor([0, 2])].sum().item() == 16 and (2.0 * there).cpu().equal(2 * here)  # these it allows
        assert (there * torch.tensor(2.0)).tolist() == (2 * here).tolist()
        assert gpu.waits == 6  # an index from here, three answers
    with pytest.raises(AssertionError, match="outside"):
        there + 1


def test_its_networks_are_a_cpus(standard: Model, part: Dataset) -> None:
    def slopes(device: str) -> tuple[Tensor, Tensor]:
        model = copy.deepcopy(standard).to(device).train().requires_grad_()
        pixels = part.pixels(slice(None)).to(device).requires_grad_()
        loss = F.cross_entropy(model(pixels), part.labels.to(device))
        found = torch.autograd.grad(loss, [pixels, *model.parameters()])
        return found[0].cpu(), found[1].cpu()

    with pretended() as gpu:
        there = slopes("cuda")
        assert gpu.launches > 50
    for mine, its in zip(slopes("cpu"), there, strict=True):
        assert mine.norm() > 0 and torch.equal(mine, its)


# ---- attacks -------------------------------------------------------------------------------------------------------------

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": lambda *at, **_: attacks.fgsm(*at, threat_model=NormBall("linf", 0.1)),
    "pgd": lambda *at, **_: attacks.pgd(*at, threat_model=BALL, steps=4),
    "pgd restarted": lambda *at, where: attacks.pgd(*at, threat_model=BALL, steps=3, restarts=2, generator=chance(where)),
    "pgd l1": lambda *at, **_: attacks.pgd(*at, threat_model=NormBall("l1", 3), steps=4, loss="cross_entropy"),
    "apgd": lambda *at, where: attacks.apgd(*at, threat_model=BALL, steps=12, loss="dlr", restarts=2, generator=chance(where)),
    "apgd targeted": lambda *at, **_: attacks.apgd(*at, threat_model=NormBall("linf", 0.1), steps=12, rank=2, loss="dlr"),
    "reach": lambda model, images, labels, **_: attacks.targeted_pgd(
        model, images, (labels + 1) % 10, threat_model=BALL, steps=4
    ),
    "runner-up": lambda *at, **_: attacks.rank_targeted_pgd(*at, threat_model=BALL, rank=2, steps=4),
    "diverge": lambda *at, where: attacks.kl_pgd(*at, threat_model=BALL, steps=3, generator=chance(where)),
    "smallest radius": lambda *at, **_: attacks.minimum_norm(*at, rounds=2, steps=4),
    "nearest classes": lambda *at, **_: attacks.nearest_classes(*at),
    "one pixel": lambda *at, where: attacks.one_pixel(*at, candidates=4, generator=chance(where)),
    "few pixels, blind": lambda *at, where: attacks.few_pixels(
        *at, pixels=2, candidates=4, gradient=False, generator=chance(where)
    ),
    "square": lambda *at, where: attacks.square_attack(*at, threat_model=BALL, queries=20, generator=chance(where)),
    "square, linf": lambda *at, where: attacks.square_attack(
        *at, threat_model=NormBall("linf", 0.1), queries=20, generator=chance(where)
    ),
    "hop skip jump": lambda *at, where: attacks.hop_skip_jump(*at, queries=60, generator=chance(where)),
    "spatial": lambda *at, **_: attacks.spatial_attack(
        *at, threat_model=SpatialTransforms(20, 1), angles=3, translations=3, steps=2
    ),
    "worst case": lambda *at, **_: attacks.worst_case(*at, attacks=attacks.gradient_ensemble(BALL, 10)[:4]),
    "standard": lambda *at, **_: attacks.adaptive_ensemble(*at, threat_model=BALL),
    "standard, bare range": lambda *at, **_: attacks.adaptive_ensemble(
        *at, threat_model=NormBall("l2", math.inf), budget="quick"
    ),
    "clean logits": lambda *at, **_: attacks.clean_logits(*at),
    "checks": lambda *at, **_: [check._asdict() for check in sanity_checks.run_all(*at, threat_model=BALL, others=[at[0]])],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name: str, robust: Model, part: Dataset) -> None:
    def found(where: str) -> Any:
        model = copy.deepcopy(robust).to(where)
        return plainly(ATTACKS[name](model, part.pixels(slice(0, 12)).to(where), part.labels[:12].to(where), where=where))

    with pretended():
        there = found("cuda")
    alike(found("cpu"), there)


# ---- constructions and scores ----------------------------------------------------------------------------------------------


def moved(part: Dataset) -> Tensor:
    return (part.labels + 1) % 10


def taught(part: Dataset, loss: train.Loss, device: str, **options: Any) -> list[Tensor]:
    model = models.build("resnet9", shape=part.shape, classes=10, width=4)
    curve = train.fit(model, part, loss, epochs=1, batch_size=20, device=device, **options)
    return [torch.tensor([each.accuracy for each in curve]), *(each.detach().cpu() for each in list(model.parameters())[:3])]


def transferred(model: Model, part: Dataset, device: str) -> list[dict[str, Any]]:
    made = transfer.make_examples(model, part, BALL, steps=3, device=device)
    return transfer.transfer_rates(made, part, copy.deepcopy(model), device=device)


WORK: dict[str, Callable[[Model, Dataset, str], Any]] = {
    "training": lambda _, part, device: taught(part, train.cross_entropy, device, augment=train.random_translate(1, flip=True)),
    "adversarial training": lambda _, part, device: taught(
        part, train.adversarial_loss(partial(attacks.pgd, threat_model=BALL, steps=2, loss="cross_entropy")), device
    ),
    "TRADES": lambda _, part, device: taught(
        part, train.trades(partial(attacks.kl_pgd, threat_model=BALL, steps=2)), device, patience=1
    ),
    "D_R": lambda model, part, device: construct.invert_features(model, part, steps=4, device=device),
    "D_R from noise, the paper's steps": lambda model, part, device: construct.invert_features(
        model, part, start="noise", steps=4, rule=construct.paper_update_rule(), device=device
    ),
    "relabelled": lambda model, part, device: construct.relabel(
        model, part, moved(part), threat_model=BALL, steps=4, device=device
    ),
    "relabelled alone": lambda model, part, device: construct.relabel(
        model, part, moved(part), threat_model=BALL, steps=4, keep_label_on=[copy.deepcopy(model)], device=device
    ),
    "clean": lambda model, part, device: metrics.clean_accuracy(model, part, device=device),
    "under attack": lambda model, part, device: metrics.robust_accuracy(model, part, [BALL], budget="quick", device=device),
    "corrupted": lambda model, part, device: metrics.corruption_accuracy(model, part, device=device),
    "frequencies": lambda model, part, device: metrics.fourier_sensitivity(model, part, device=device),
    "cues": lambda model, part, device: metrics.cue_values(part, device=device),
    "explained": lambda model, part, device: [
        metrics.saliency(model, part, metrics.class_means(part), method=method, device=device) for method in metrics.METHODS
    ],
    "features": lambda model, part, device: metrics.per_feature(model, part, BALL, steps=2, device=device),
    "leakage": lambda model, part, device: metrics.robust_feature_leakage(model, [0, 3, 5], part, part, device=device),
    "robust features": lambda model, part, device: metrics.robust_features(model, part, BALL, device=device),
    "transfer": transferred,
    "kernel": lambda _, part, device: metrics.EigenFeatures(part).to(device)(part.pixels(slice(0, 9)).to(device)),
    "files": lambda _, part, device: [
        row["standard_lead"]
        for row in scores.per_file(
            part, crossfit.CrossfitConfig(BALL, epochs=1, invert_steps=2), folds=2, repeats=1, device=device
        )
    ],
    "versions by file": lambda model, part, device: run.invert_both(
        model, copy.deepcopy(model), part, crossfit.CrossfitConfig(BALL, invert_steps=2), 0, device
    ),
    "errors only": lambda _, part, device: construct.misclassified_only(
        models.build("small", shape=part.shape, classes=10, width=4), part, device=device
    ),
    "taught": lambda model, part, device: construct.pseudo_label(model, part, count=20, device=device),
    "unread": lambda model, part, device: construct.drop_already_predicted(
        model, part, part.with_labels(moved(part)), device=device
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_work(name: str, robust: Model, part: Dataset) -> None:
    with pretended():
        there = plainly(WORK[name](copy.deepcopy(robust), part, "cuda"))
    alike(plainly(WORK[name](copy.deepcopy(robust), part, "cpu")), there)


def test_a_study_and_an_audit(tmp_path: Path) -> None:
    """From one command's worth of work to the tables."""
    asked = StudyConfig("digits", seeds=1, limit=100, epochs=1, width=4, invert_steps=2, relabel_steps=2, device="cuda")
    model = str(tmp_path / "study" / "models" / "standard.safetensors")
    about = AuditConfig(model, "digits", within=("l2:0.75", "spatial:20,1"), images=10, budget="quick", device="cuda")
    with pretended():
        run = pipeline.run(asked, tmp_path / "study", workers=1)
        audited = audit.run(about, tmp_path / "audit", workers=1)
    assert run.metadata["finished"] and audited.metadata["finished"] and run.metadata["device"] == "cuda"
    assert len(run.table("accuracy")) > 10 and len(audited.table("files")) == 10


# ---- waiting ---------------------------------------------------------------------------------------------------------------

STEPPED: dict[str, Callable[[Model, Dataset, int], Any]] = {
    "attack": lambda model, part, steps: attacks.pgd(
        copy.deepcopy(model).to("cuda"),
        part.pixels(slice(None)).to("cuda"),
        part.labels.to("cuda"),
        threat_model=BALL,
        steps=steps,
    ),
    "relabelled": lambda model, part, steps: construct.relabel(
        model, part, moved(part), threat_model=BALL, steps=steps, device="cuda"
    ),
    "D_R": lambda model, part, steps: construct.invert_features(model, part, steps=steps, device="cuda"),
    "apgd": lambda model, part, steps: attacks.apgd(
        copy.deepcopy(model).to("cuda"),
        part.pixels(slice(None)).to("cuda"),
        part.labels.to("cuda"),
        threat_model=BALL,
        steps=steps,
    ),
}


@pytest.mark.parametrize("name", STEPPED)
def test_no_step_waits(name: str, standard: Model, part: Dataset) -> None:
    """The processor hands steps over as fast as it can; one answer asked of the GPU in each would make both stand idle."""
    waits, launches = [], []
    for steps in (4, 12):
        with pretended() as gpu:
            STEPPED[name](copy.deepcopy(standard), part, steps)
            waits.append(gpu.waits)
            launches.append(gpu.launches)
    assert waits[0] == waits[1] and launches[1] > launches[0] + 200


@pytest.mark.parametrize(
    ("loss", "each"), [(train.cross_entropy, 0), (train.adversarial_loss(partial(attacks.pgd, threat_model=BALL, steps=2)), 1)]
)
def test_training_waits_for_its_curve_and_once_for_each_attack(loss: train.Loss, each: int, part: Dataset) -> None:
    waits = []
    for batches in (2, 6):
        with pretended() as gpu:
            model = models.build("small", shape=part.shape, classes=10, width=4)
            train.fit(model, part, loss, epochs=2, batch_size=60 // batches, device="cuda")
        waits.append(gpu.waits)
    assert waits[1] - waits[0] == 2 * 4 * each
