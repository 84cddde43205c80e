"""Features of a standard model on files that it was not trained on: categories, cues, and pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import notbugs.train as train
from notbugs import construct, data, metrics, models, predict
from notbugs.data import Dataset, Splits
from notbugs.files.config import FilesConfig, crossfit_config, load_splits
from notbugs.files.crossfit import (
    CrossfitConfig,
    adversarial_loss,
    fold_seed,
    stratified_folds,
    train_crossfit_model,
)
from notbugs.files.fold_scores import usefulness_kept
from notbugs.files.pictures import cue_pictures, feature_pictures
from notbugs.models import Model
from notbugs.runs.attempts import Attempt
from notbugs.runs.tables.features import FeatureCategoryRow, FeatureRow, SpuriousCueRow
from notbugs.runs.tables.row import Row

LAYER_IMAGES = 50


class FeatureEvidence(NamedTuple):
    """What is known of one feature beside its usefulness and robust usefulness. Decides no category.

    Attributes
    ----------
    kept_on_robust, kept_on_nonrobust : float, in [0, 1]
        Share of its usefulness on the robust and on the non-robust version of the files.
    drop : UsefulnessDrop
        From held-out files to the test part; `drop.spurious`: useful on held-out files, at most half as useful on the test part.
    """

    kept_on_robust: float
    kept_on_nonrobust: float
    drop: metrics.UsefulnessDrop


def features_stage(config: FilesConfig, attempt: Attempt) -> list[Row]:
    """Categorize all features of a standard model, on the first fold of the first repetition, and find spurious cues."""
    splits, device, folder = load_splits(config), config.device, attempt.folder
    crossfit = crossfit_config(config, splits)
    held_out = stratified_folds(splits.train.labels, config.folds, fold_seed(config.seed, 0), splits.train.groups) == 0
    files, others = (splits.train.select(side.nonzero().squeeze(1)) for side in (held_out, ~held_out))
    own = fold_seed(config.seed, 0, 0)
    train_model = partial(train_crossfit_model, config=crossfit, seed=own, device=device, unfinished=attempt.unfinished)
    attempt("", 0.0, "standard model")
    standard = train_model(others, "standard", train.cross_entropy)
    attempt("", 0.2, "robust model")
    robust = train_model(others, "robust", adversarial_loss(crossfit))
    _save_model(standard, "standard", "standard", crossfit, others, folder)
    _save_model(robust, "robust", "adversarial", crossfit, others, folder)
    attempt("", 0.6, "robust and non-robust versions")
    versions = invert_both(robust, standard, files, crossfit, config.seed, device)
    attempt("", 0.7, "features under attack")
    fused = models.fuse_batchnorm(standard, files.pixels(slice(0, 2)), device)
    rows = metrics.per_feature(fused, files, crossfit.threat_model, device=device, sample=100, steps=4)
    values = predict.features(standard, files, device)
    on_robust, on_nonrobust, on_test = (predict.features(standard, part, device) for part in (*versions, splits.test))
    evidence = feature_evidence(values, files, on_robust, on_nonrobust, on_test, splits.test)
    names, cues = metrics.cue_values(files, device=device)
    category_rows = _category_rows(rows, evidence, metrics.nearest_cue(values, names, cues))
    attempt("", 0.9, "pictures")
    pictures = feature_pictures(folder, category_rows, values, files, standard, device)
    images = data.balanced_subset(files, LAYER_IMAGES).pixels(slice(None)).to(device)
    layers = metrics.per_layer(standard, images, crossfit.threat_model)
    return [*rows, *category_rows, *layers, *pictures, *_cue_rows(splits, standard, folder, device)]


def invert_both(
    robust: Model, standard: Model, dataset: Dataset, config: CrossfitConfig, seed: int, device: torch.device | str
) -> tuple[Dataset, Dataset]:
    """The robust and the non-robust version of a data set."""
    invert = partial(construct.invert_features, steps=config.invert_steps, seed=seed, device=device)
    return invert(robust, dataset).dataset, invert(standard, dataset).dataset


def feature_evidence(
    values: Tensor, dataset: Dataset, on_robust: Tensor, on_nonrobust: Tensor, on_test: Tensor, test: Dataset
) -> list[FeatureEvidence]:
    """What each feature keeps of its usefulness on the versions of the files, and on the test part.

    Parameters
    ----------
    values : Tensor, (N, F)
        On files that the model was not trained on.
    dataset : Dataset
        These files.
    on_robust, on_nonrobust : Tensor, (N, F)
        On their versions.
    on_test : Tensor, (M, F)
    test : Dataset

    Returns
    -------
    list of FeatureEvidence
        One for each feature.
    """
    names, classes = [str(j) for j in range(values.shape[1])], len(dataset.classes)
    table, robust, nonrobust = (metrics.usefulness(each, dataset.labels, classes) for each in (values, on_robust, on_nonrobust))
    kept, kept_on_nonrobust = usefulness_kept(table, robust), usefulness_kept(table, nonrobust)
    drops = metrics.spurious_features(names, values, dataset.labels, on_test, test.labels, dataset.classes)
    drop_of = {drop.name: drop for drop in drops}
    return [FeatureEvidence(float(kept[j]), float(kept_on_nonrobust[j]), drop_of[name]) for j, name in enumerate(names)]


def _category_rows(
    rows: Sequence[FeatureRow], evidence: Sequence[FeatureEvidence], cues: Sequence[metrics.NearestCue]
) -> list[FeatureCategoryRow]:
    """One row per feature: its category for the class that it is most useful for, and the other evidence."""
    return [
        FeatureCategoryRow(
            feature=best.feature,
            category=best.category,
            class_name=best.class_name,
            sign="for" if best.sign > 0 else "against",
            usefulness=best.usefulness,
            robust_usefulness=best.robust_usefulness,
            spurious=drop.spurious,
            drop_class=drop.class_name,
            usefulness_drop=drop.usefulness_drop,
            test_usefulness=drop.test_usefulness,
            p_value=drop.p_value,
            usefulness_kept_on_robust=kept,
            usefulness_kept_on_nonrobust=kept_on_nonrobust,
            cue=cue.name,
            cue_correlation=cue.correlation,
        )
        for best, (kept, kept_on_nonrobust, drop), cue in zip(metrics.best_class_rows(rows), evidence, cues, strict=True)
    ]


def _save_model(model: Model, name: str, loss: str, config: CrossfitConfig, dataset: Dataset, folder: Path) -> None:
    """Save one model in models/."""
    threat_model = config.threat_model
    models.save(
        model,
        folder / "models" / f"{name}.safetensors",
        classes=list(dataset.classes),
        trained_on="all folds but the first",
        training={"loss": loss, "norm": threat_model.norm, "epsilon": threat_model.epsilon, "epochs": config.epochs},
    )


# ---- cues --------------------------------------------------------------------------------------------------------------------


def _cue_rows(splits: Splits, model: Model, folder: Path, device: str) -> list[Row]:
    """All cues: whether they are spurious, and whether the model depends on them. Pictures of the spurious ones."""
    names, values = metrics.cue_values(splits.train, device=device)
    _, test_values = metrics.cue_values(splits.test, device=device)
    predicted = predict.predict(model, splits.test, device)
    correct, classes = predicted == splits.test.labels, splits.train.classes
    drops = metrics.spurious_features(names, values, splits.train.labels, test_values, splits.test.labels, classes)
    rows: list[Row] = []
    pictures: list[Row] = []
    for drop in drops:
        cue, label = names.index(drop.name), classes.index(drop.class_name)
        gap = metrics.accuracy_gap(
            test_values[:, cue],
            splits.test.labels,
            correct,
            label=label,
            train_values=values[:, cue],
            train_labels=splits.train.labels,
        )
        rows.append(SpuriousCueRow(**drop._asdict(), **gap._asdict()))
        if drop.spurious:
            pictures += cue_pictures(splits, folder, drop, cue, values[:, cue], test_values[:, cue], predicted)
    return rows + pictures
