"""What could refute a study, stage by stage: controls, transfer to other learners, and every model on every set under attack.

Each function is a stage: (plan, folder, seed, tell) -> rows for the tables. `lessons` lists the models it trains for that.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from notbugs import attacks, data, metrics, models, predict
from notbugs.data import Dataset, subset
from notbugs.metrics import transfer
from notbugs.models import TRANSFER_ARCHITECTURES, fuse_batchnorm, sklearn_learners
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress
from notbugs.search import NormBall
from notbugs.stats import excess
from notbugs.study.config import StudyConfig, known, load
from notbugs.study.datasets import INDEPENDENT_MODELS, QUICK, SETS
from notbugs.study.tasks import Tables, dataset_path, in_order, load_dataset, load_model, model_path

UNDERTRAINED = {"epochs": 2, "pace": 0.05}  # the weak model: at the usual rate it hardly errs on easy images (docs/lab-log.md)
SWEEP = {"adversarial-sixteenth": 1 / 16, "adversarial-eighth": 1 / 8, "adversarial-quarter": 1 / 4, "adversarial-half": 1 / 2}
SOURCES = ("standard", *SWEEP, "adversarial")
TARGETS = ("standard", "same-start", "fresh-1", *INDEPENDENT_MODELS, *TRANSFER_ARCHITECTURES, "adversarial")
MAIN_MODELS = ("standard", "adversarial", *(f"on-{name}" for name in SETS))
CROSS_IMAGES = 100  # images of each set on which each model is attacked
GRADIENT_ENSEMBLE = "lead 1 + lead 3 + loss 15"  # how
MAX_EXAMPLES = 1000  # test images for examples

# result: its controls, and what each would have refuted
CONTROLS_OF: dict[str, dict[str, str]] = {
    "on-random-labels": {
        "on-random-labels-noise": "that any change of this size would do",
        "on-random-labels-patterns": "that one pattern a label is all there is to learn",
        "on-random-labels-robust": "that what moves is what a robust model looks at",
        "on-errors-only": "that a model's mistakes teach as much without an attack",
        "on-photographs": "that a model's answers to any pictures teach as much",
    },
    "on-random-labels-unread": {"on-random-labels-noise": "that images which look like their new label do the teaching"},
    "on-random-labels-any": {"on-random-labels-any-patterns": "that the labels left right by chance do the teaching"},
    "on-next-labels": {
        "on-next-labels-noise": "that any change of this size would do",
        "on-next-labels-patterns": "that one pattern a label is all there is to learn",
        "on-next-labels-robust": "that what moves is what a robust model looks at",
        "on-next-labels-bugs": "that what misleads one model alone would do",
        "on-errors-only": "that a model's mistakes teach as much without an attack",
        "on-photographs": "that a model's answers to any pictures teach as much",
    },
    "on-next-labels-unread": {"on-next-labels-noise": "that images which look like their new label do the teaching"},
}
LEAKAGE_DATASETS = ("random-labels", "random-labels-any", "next-labels", "random-labels-robust", "next-labels-bugs")
PERTURBATION_DATASETS = (
    *("random-labels", "random-labels-any", "next-labels", "random-labels-noise", "next-labels-noise"),
    *("random-labels-patterns", "next-labels-patterns", "random-labels-robust", "next-labels-robust", "next-labels-bugs"),
)


def extra_models() -> dict[str, dict[str, Any]]:
    """Models beyond those of the quick study: name -> options of `stages.train_model`."""
    beside: dict[str, dict[str, Any]] = {  # no claim rests on how robust these are
        "early": UNDERTRAINED,
        "robust-linear": {"network": "linear", "loss": "adversarial"},
        "same-start": {"start": "standard"},
        **{name: {} for name in ("fresh-1", *INDEPENDENT_MODELS)},
        **{name: {"loss": "adversarial", "radius": share} for name, share in SWEEP.items()},
        **{name: {"network": name} for name in TRANSFER_ARCHITECTURES},
        **{f"{name}-on-next-labels": {"on": "next-labels", "network": name} for name in TRANSFER_ARCHITECTURES},
        **{f"on-{name}-same-start": {"on": name, "start": "standard"} for name in ("random-labels", "next-labels")},
    }
    taught = {f"on-{name}": {"on": name} for name in SETS if name not in QUICK}
    return {name: {**options, "budget": "quick"} for name, options in beside.items()} | taught


def robust_feature_leakage(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """What robust features alone would teach of each relabelled set, in two models: a linear and a deep one."""
    splits, rows = load(plan, seed), []
    threat_model = NormBall(plan.norm, known(plan.epsilon))
    held = splits.test.select(subset.balanced(splits.test.labels, 500))
    probes = {}
    for name in ("robust-linear", "adversarial"):
        model = load_model(plan, folder, seed, name)
        probes[name] = model, metrics.robust_features(model, held, threat_model, device=plan.device)
    for number, on in enumerate(LEAKAGE_DATASETS):
        made = load_dataset(plan, folder, seed, on)
        for name, (model, features) in probes.items():
            found = metrics.robust_feature_leakage(model, features, made, splits.test, device=plan.device)
            rows.append({"set": on, "model": name, "seed": seed, **found})
        report_progress("", (number + 1) / len(LEAKAGE_DATASETS), on)
    return {"leakage": rows}


def label_leakage_of_perturbations(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Of each relabelled set: how well its changes alone tell the new labels, and how many images mislead another model too."""
    original, rows = load(plan, seed).train, []
    other = load_model(plan, folder, seed, "fresh-1")
    for number, name in enumerate(PERTURBATION_DATASETS):
        made = load_dataset(plan, folder, seed, name)
        chosen = torch.arange(min(len(made), 2000)) * len(made) // min(len(made), 2000)
        wanted, own = made.labels[chosen], original.labels[chosen]
        read = predict.predict_any(other, made.select(chosen), plan.device)
        moved = wanted != own
        rows.append(
            {
                "set": name,
                "seed": seed,
                **metrics.perturbation_separability(original, made, seed=seed),
                "others_read_it": float((read == wanted)[moved].float().mean()),
                "others_keep": float((read == own)[moved].float().mean()),
            }
        )
        report_progress("", (number + 1) / len(PERTURBATION_DATASETS), name)
    return {"poison": rows}


def make_examples(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress, *, source: str) -> Tables:
    """Adversarial examples of one model for the test images, kept in examples/SOURCE.npz."""
    made = transfer.make_examples(
        load_model(plan, folder, seed, source),
        _test_subset(plan, seed),
        NormBall(plan.norm, known(plan.epsilon)),
        seed=seed,
        device=plan.device,
    )
    path = model_path(plan, folder, seed, source)
    place = folder / "examples" / path.with_suffix(".npz").name
    place.parent.mkdir(exist_ok=True)
    data.save_arrays({name: column.numpy() for name, column in made._asdict().items()}, place)
    return {}


def transfer_to_networks(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress, *, source: str) -> Tables:
    """The examples of one model on every other network."""
    rows, part, made = [], _test_subset(plan, seed), _examples(plan, folder, seed, source)
    for number, target in enumerate(TARGETS):
        if source != target:
            found = transfer.transfer_rates(made, part, load_model(plan, folder, seed, target), device=plan.device)
            rows += _transferred(plan, seed, source, target, found)
        report_progress("", (number + 1) / len(TARGETS), target)
    return {"transfer": rows}


def transfer_to_learner(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress, *, name: str) -> Tables:
    """The examples of the standard model on a learning algorithm that is no network, fitted to the training images."""
    fitted = sklearn_learners.fit_learner(name, load(plan, seed).train, seed=seed)
    report_progress("", 0.6, "fitted")
    found = transfer.transfer_rates(_examples(plan, folder, seed, "standard"), _test_subset(plan, seed), fitted)
    return {"transfer": _transferred(plan, seed, "standard", name, found)}


def robust_accuracy_on_all_datasets(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Every model on every set, unchanged and, on fewer images, under three gradient attacks at half the radius."""
    splits, threat_model = load(plan, seed), NormBall(plan.norm, known(plan.epsilon) / 2)
    parts = {"test": splits.test, "original": splits.train}
    parts |= {name: load_dataset(plan, folder, seed, name) for name in SETS if dataset_path(plan, folder, seed, name).exists()}
    attack = attacks.gradient_ensemble(threat_model, len(splits.train.classes))[:3]
    names, rows = [name for name in MAIN_MODELS if model_path(plan, folder, seed, name).exists()], []
    some = {on: _some(part, CROSS_IMAGES) for on, part in parts.items() if on != "test"}
    images = torch.cat([part.pixels(slice(None)) for part in some.values()])  # of all sets at once: small batches cost as much
    labels = torch.cat([part.labels for part in some.values()])
    for number, name in enumerate(names):
        model, facts = models.load(model_path(plan, folder, seed, name), plan.network)
        view = fuse_batchnorm(model, splits.train.pixels(slice(0, 2)), plan.device)
        about = {"model": name, "trained_on": facts["trained_on"], "seed": seed, "norm": plan.norm}
        quick = name.removeprefix("on-") in {*QUICK, "standard", "adversarial"}
        for on, part in parts.items():
            if on != "test" and not (quick and on in {*QUICK, "original"}):  # the others are in the tables already
                rows.append({**about, "set": on, **metrics.clean_accuracy(view, _some(part, 2000), device=plan.device)})

        def push(batch: Tensor, index: Tensor, view: Any = view) -> Tensor:
            found = attacks.worst_case(view, batch, labels[index].to(batch.device), attack)
            return found.margins < 0

        left = data.map_batches(push, images, batch_size=1000, device=plan.device).split([len(part) for part in some.values()])
        for on, kept in zip(some, left, strict=True):
            row = metrics.accuracy_row(int(kept.sum()), len(kept), epsilon=float(threat_model.epsilon), attack=GRADIENT_ENSEMBLE)
            rows.append({**about, "set": on, **row})
        report_progress("", (number + 1) / len(names), name)
    return {"accuracy": [in_order(row) for row in rows]}


def error_consistency(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Every pair of models: do they read the test images alike, and make the same mistakes?"""
    part, rows = load(plan, seed).test, []
    read = {}
    for name in ("standard", "adversarial", *(f"on-{name}" for name in QUICK), *extra_models()):
        if model_path(plan, folder, seed, name).exists():
            read[name] = predict.predict_any(load_model(plan, folder, seed, name), part, plan.device).numpy()
    names = list(read)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            found = metrics.error_consistency(read[one], read[other], part.labels.numpy())
            rows.append({"model": one, "other": other, "seed": seed, **found})
    return {"agreement": rows}


def excess_over_controls(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Every relabelled result as its excess over each control, on the same test images."""
    run = RunFolder.read(folder)
    part = load(plan, seed).test
    guess = part.labels.bincount().max().item() / len(part)
    clean = {row["model"]: row for row in run.table("accuracy") if (row["set"], row["epsilon"], row["seed"]) == ("test", 0, seed)}
    probes = {(row["set"], row["model"]): row for row in run.table("leakage") if row["seed"] == seed and row["accuracy"] != ""}
    rows = []
    for result, others in CONTROLS_OF.items():
        against = {name: (why, clean.get(name)) for name, why in others.items()}
        for probe in ("robust-linear", "adversarial"):
            found = probes.get((result.removeprefix("on-"), probe))
            against[f"probe of {probe}"] = ("that robust features alone give the labels away", found)
        for control, (why, row) in against.items():
            if row is not None and result in clean:
                rows.append(
                    {"result": result, "control": control, "refutes": why, "seed": seed, **excess(clean[result], row, guess)}
                )
    return {"controls": rows}


# ---- parts ---------------------------------------------------------------------------------------------------------------


def _test_subset(plan: StudyConfig, seed: int) -> Dataset:
    return _some(load(plan, seed).test, MAX_EXAMPLES)


def _some(part: Dataset, most: int) -> Dataset:
    """At most so many images, drawn evenly at random."""
    if len(part) <= most:
        return part
    return part.select(torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:most].sort().values)


def _examples(plan: StudyConfig, folder: Path, seed: int, source: str) -> transfer.AdversarialExamples:
    found = data.load_arrays(folder / "examples" / model_path(plan, folder, seed, source).with_suffix(".npz").name)
    return transfer.AdversarialExamples(**{name: torch.from_numpy(column) for name, column in found.items()})


def _transferred(plan: StudyConfig, seed: int, source: str, target: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    common = {"source": source, "target": target, "seed": seed, "norm": plan.norm, "epsilon": plan.epsilon}
    return [{**common, **row} for row in rows]
