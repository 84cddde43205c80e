"""Stages that test what else could explain a study's results: leakage, error consistency, excess over controls.

A stage is a function (config, folder, seed, report_progress) -> rows for the tables.
"""

from pathlib import Path
from typing import Protocol

from notbugs import data, metrics
from notbugs.predict import predict
from notbugs.runs.engine import Progress
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow
from notbugs.runs.tables.transferability import ControlRow, ErrorConsistencyRow, PerturbationLeakageRow, RobustFeatureLeakageRow
from notbugs.stats import newcombe_difference
from notbugs.study.catalog.datasets import EXTENSIONS, QUICK
from notbugs.study.catalog.models import MODELS, OWN_MODELS, Role, trained_on
from notbugs.study.comparisons import (
    CONTROLS_OF,
    LEAKAGE_DATASETS,
    LEAKAGE_PROBES,
    PERTURBATION_DATASETS,
    ROBUST_FEATURES_ALONE,
    probe_name,
)
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.store import has_model, load_dataset, load_model

FEATURE_IMAGES = 500  # test images on which robust features are chosen
TRANSFERRED_IMAGES = 2000  # images of each relabeled data set that another model classifies
OTHER_MODEL = "reinit-1"  # no relabeled data set is constructed with it
COMPARED_ROLES: tuple[Role, ...] = ("main", "transfer", "control", "own")  # of `error_consistency`, in this order


class Proportion(Protocol):
    """An accuracy with its 95 % CI."""

    @property
    def accuracy(self) -> float | None: ...
    @property
    def ci_low(self) -> float | None: ...
    @property
    def ci_high(self) -> float | None: ...


def robust_feature_leakage(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress
) -> list[RobustFeatureLeakageRow]:
    """How far robust features alone predict the labels of each relabeled data set, for a linear and for a deep model."""
    splits, rows = load(config, seed), []
    held_out = data.balanced_subset(splits.test, FEATURE_IMAGES)
    probes = {name: load_model(config, folder, seed, name) for name in LEAKAGE_PROBES}
    features, steps = {}, len(probes) * (1 + len(LEAKAGE_DATASETS))
    for number, (name, model) in enumerate(probes.items(), start=1):
        features[name] = metrics.robust_features(model, held_out, config.threat_model, device=config.device)
        report_progress("", number / steps, "robust features")
    for number, name in enumerate(LEAKAGE_DATASETS):
        relabeled = load_dataset(config, folder, seed, name)
        for probe, model in probes.items():
            leakage = metrics.robust_feature_leakage(model, features[probe], relabeled, splits.test, device=config.device)
            rows.append(RobustFeatureLeakageRow(set=name, model=probe, seed=seed, **leakage._asdict()))
        report_progress("", (number + 2) * len(probes) / steps, name)
    return rows


def perturbation_leakage(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress
) -> list[PerturbationLeakageRow]:
    """How far the perturbations alone predict the new labels of each relabeled data set, and how far they transfer."""
    original, rows = load(config, seed).train, []
    other = load_model(config, folder, seed, OTHER_MODEL)
    for number, name in enumerate(PERTURBATION_DATASETS):
        relabeled = load_dataset(config, folder, seed, name)
        chosen = data.evenly_spaced(TRANSFERRED_IMAGES, len(relabeled))
        labels, old_labels = relabeled.labels[chosen], original.labels[chosen]
        predicted, changed = predict(other, relabeled.select(chosen), config.device), labels != old_labels
        rows.append(
            PerturbationLeakageRow(
                set=name,
                seed=seed,
                **metrics.perturbation_separability(original, relabeled, seed=seed)._asdict(),
                other_model_predicts_new_label=float((predicted == labels)[changed].float().mean()),
                other_model_keeps_label=float((predicted == old_labels)[changed].float().mean()),
            )
        )
        report_progress("", (number + 1) / len(PERTURBATION_DATASETS), name)
    return rows


def error_consistency(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[ErrorConsistencyRow]:
    """Whether each pair of models makes the same mistakes on the clean test images."""
    test = load(config, seed).test
    names = [name for role in COMPARED_ROLES for name, spec in MODELS.items() if spec.role == role]
    predictions = {
        name: predict(load_model(config, folder, seed, name), test, config.device).numpy()
        for name in names
        if has_model(config, folder, seed, name)
    }
    names, rows = list(predictions), []
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            consistency = metrics.error_consistency(predictions[name], predictions[other], test.labels.numpy())
            rows.append(ErrorConsistencyRow(model=name, other_model=other, seed=seed, **consistency._asdict()))
    return rows


def excess_over_controls(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[ControlRow]:
    """Test accuracy of each model trained on a relabeled data set, minus that of each control that the study has itself."""
    run, chance, clean = _clean(config, folder, seed)
    probes = {(row.set, row.model): row for row in run.rows(RobustFeatureLeakageRow) if row.seed == seed}
    rows = []
    for model, controls in CONTROLS_OF.items():
        if model not in clean:
            continue
        for control, rules_out in controls.items():
            if control not in OWN_MODELS:
                rows += _excess(clean[model], control, rules_out, clean.get(control), chance)
        for probe in LEAKAGE_PROBES:
            leakage = probes.get((MODELS[model].trained_on, probe))
            rows += _excess(clean[model], probe_name(probe), ROBUST_FEATURES_ALONE, leakage, chance)
    return rows


def excess_over_own_controls(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[ControlRow]:
    """The same for the controls of the user's own, and in a quick study for the one that it has itself."""
    _, chance, clean = _clean(config, folder, seed)
    rows = []
    for model, control in own_comparisons(full=config.full):
        if model in clean:
            rows += _excess(clean[model], control, CONTROLS_OF[model][control], clean.get(control), chance)
    return rows


def own_comparisons(*, full: bool) -> list[tuple[str, str]]:
    """Models and the controls that `excess_over_own_controls` compares them with."""
    controlled = {trained_on(control.control_of) for control in EXTENSIONS.controls}
    shown = OWN_MODELS if full else (*map(trained_on, QUICK), *OWN_MODELS)  # a full study compares its own elsewhere
    pairs = ((model, control) for model, named in CONTROLS_OF.items() for control in named)
    return [(model, control) for model, control in pairs if model in controlled and control in shown]


def _clean(config: ResolvedConfig, folder: Path, seed: int) -> tuple[RunFolder, float, dict[str, AccuracyRow]]:
    """The run, chance level, and the clean accuracy of each model on the test images."""
    run, test = RunFolder.read(folder), load(config, seed).test
    chance = test.labels.bincount().max().item() / len(test)
    found = {row.model: row for row in run.rows(AccuracyRow) if (row.set, row.epsilon, row.seed) == ("test", 0, seed)}
    return run, chance, found


def _excess(result: AccuracyRow, control: str, rules_out: str, found: Proportion | None, chance: float) -> list[ControlRow]:
    """One row; none if the control has no accuracy."""
    if found is None or found.accuracy is None or found.ci_low is None or found.ci_high is None:
        return []
    accuracy = (result.accuracy, result.ci_low, result.ci_high)
    excess, low, high = newcombe_difference(accuracy, (found.accuracy, found.ci_low, found.ci_high))
    row = ControlRow(
        model=result.model,
        control=control,
        rules_out=rules_out,
        seed=result.seed,
        accuracy=result.accuracy,
        control_accuracy=found.accuracy,
        excess=excess,
        excess_ci_low=low,
        excess_ci_high=high,
        above_chance=result.accuracy - chance,
        above_chance_ci_low=result.ci_low - chance,
        above_chance_ci_high=result.ci_high - chance,
        n=result.n,
    )
    return [row]
