"""Cross-fitted models: every file is scored by models that were trained on other files.

For each fold, a standard and a robust model are trained on all other folds, and two more on the robust and on the non-robust
version of these. All four then score the files of the fold.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import notbugs.train as train
from notbugs import attacks, construct, data, models, predict
from notbugs.data import Dataset
from notbugs.data.single_files import load_arrays, save_arrays
from notbugs.errors import InputError
from notbugs.files import fold_scores
from notbugs.files.examples import nearest_files
from notbugs.files.fold_scores import FoldScores
from notbugs.models import Model
from notbugs.search import NormBall

Progress = Callable[[float, str], None]  # share done in [0, 1], a few words
Keep = Callable[[str, np.ndarray], None]  # a name, and one entry for each file

SEED_KEYS = {  # cross-fitted models, and what their random seeds derive from
    "standard": "standard",
    "robust": "robust",
    "trained_on_robust": "on_robust",
    "trained_on_nonrobust": "on_nonrobust",
}
PIXEL_STATISTICS_IMAGES = 2000  # for the mean and standard deviation of the normalization


@dataclass(frozen=True)
class CrossfitConfig:
    """How cross-fitted models are trained.

    Parameters
    ----------
    threat_model : NormBall
        Of adversarial training and of the attacks on files.
    network, width, epochs, batch_size, learning_rate, weight_decay, translate, flip, adversarial_steps, invert_steps
    pretrained, head_only, layer
        As in `study.config.StudyConfig`.
    train_on_versions : bool
        Also train on the robust and on the non-robust version of the files, which costs two inversions.
    """

    threat_model: NormBall
    network: str = "small"
    width: int | None = 16
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 0.05
    translate: int = 0
    flip: bool = False
    adversarial_steps: int = 3
    invert_steps: int = 20
    train_on_versions: bool = True
    pretrained: bool = False
    head_only: bool = False
    layer: str | None = None


# ---- folds -----------------------------------------------------------------------------------------------------------------


def stratified_folds(labels: Tensor, folds: int, seed: int, groups: Sequence[str] = ()) -> Tensor:
    """Random folds, as balanced over the classes as possible.

    Parameters
    ----------
    labels : Tensor, int64, (N,)
    folds : int
        2 or more.
    seed : int
    groups : sequence of str, (N,), or empty
        Files of one group are in one fold.

    Returns
    -------
    Tensor, int64, (N,)
        The fold of each file, from 0.

    Raises
    ------
    InputError
        If a class has fewer files than there are folds: the models of a fold would not know it.

    Examples
    --------
    >>> stratified_folds(torch.tensor([0, 0, 0, 0, 1, 1]), 2, seed=0).bincount()
    tensor([3, 3])
    """
    counts = labels.bincount()
    fewest = int(counts[counts > 0].min()) if len(labels) else 0
    if fewest < 2:
        raise InputError("data", "must have two files or more of each class: models trained on the others score each", fewest)
    if not 2 <= folds <= fewest:
        raise InputError("--folds", f"must be from 2 to {fewest}, the files of the smallest class", folds)
    if groups:
        return torch.from_numpy(data.grouped_folds(labels.tolist(), groups, folds, seed))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(labels)) % folds)


def fold_seed(seed: int, repeat: int, fold: int | None = None) -> int:
    """The seed of a repetition, or of one of its folds."""
    return zlib.crc32(f"{seed}/{repeat}/{fold}".encode())


def merge_folds(folds: Tensor, parts: Sequence[FoldScores]) -> FoldScores:
    """The scores of all folds of one repetition, in the order of the data set; folds: (N,), from `stratified_folds`."""
    order = np.argsort(np.argsort(folds.numpy(), kind="stable"), kind="stable")
    common = [name for name in parts[0] if all(name in part for part in parts)]  # a fold of an older version has fewer scores
    return {name: np.concatenate([part[name] for part in parts])[order] for name in common}


# ---- one fold ----------------------------------------------------------------------------------------------------------------


def score_fold(
    dataset: Dataset,
    config: CrossfitConfig,
    held_out: Tensor,
    *,
    seed: int,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    keep: Keep | None = None,
    keep_pictures: bool = False,
    unfinished: Path | None = None,
) -> FoldScores:
    """Scores of the held-out files, by models trained on all others.

    Parameters
    ----------
    dataset : Dataset
        N files.
    config : CrossfitConfig
    held_out : Tensor, bool, (N,)
    seed : int
        Each model derives its own from it.
    test : Dataset, optional
        The test part, for margin_lost_on_test_part.
    device : torch.device or str
    progress : callable, optional
        Called with the share done and a few words.
    keep : callable, optional
        Called with a name and an array: the parts of `nearest_files` in the features of the robust model, one entry per held-out
        file.
    keep_pictures : bool
        Also keep standard_NAME and robust_NAME for the names in `fold_scores.EXAMPLES`, one entry per held-out file, and
        robust_version and nonrobust_version, one per other file.
    unfinished : Path, optional
        A folder of checkpoints, from which the trainings of a fold that was stopped go on.

    Returns
    -------
    FoldScores
        For each held-out file, in order.
    """
    report_progress = progress or (lambda share, words: None)
    others, files = dataset.select((~held_out).nonzero().squeeze(1)), dataset.select(held_out.nonzero().squeeze(1))
    train_model = partial(train_crossfit_model, config=config, seed=seed, device=device, unfinished=unfinished)
    # the files and the others apart: a version starts from another image of its set, and no held-out image may enter a training
    invert = partial(construct.invert_features, steps=config.invert_steps, seed=seed, device=device)
    report_progress(0.0, "standard model")
    epoch_logits = _EpochLogits(files, device, unfinished)
    standard = train_model(others, "standard", train.cross_entropy, after_epoch=epoch_logits)
    report_progress(0.1, "robust model")
    robust = train_model(others, "robust", adversarial_loss(config))
    report_progress(0.5, "robust and non-robust versions")
    fitted = {"standard": standard, "robust": robust}
    robust_version = invert(robust, files).dataset
    if config.train_on_versions:
        versions = {
            "trained_on_robust": invert(robust, others).dataset,
            "trained_on_nonrobust": invert(standard, others).dataset,
        }
        if keep and keep_pictures:
            keep("robust_version", versions["trained_on_robust"].images[:].numpy())
            keep("nonrobust_version", versions["trained_on_nonrobust"].images[:].numpy())
        report_progress(0.7, "models trained on the versions")
        fitted |= {name: train_model(version, name, train.cross_entropy) for name, version in versions.items()}
    report_progress(0.8, "scores of the held-out files")
    scores = fold_scores.prediction_scores(fitted, files, device)
    for name in ("standard", "robust"):
        attacked = fold_scores.attack_scores(fitted[name], files, config.threat_model, device, with_examples=keep_pictures)
        for score, values in attacked.items():
            if score not in fold_scores.EXAMPLES:
                scores[f"{name}_{score}"] = values
            elif keep:
                keep(f"{name}_{score}", values)
    scores["influence"] = fold_scores.influence(standard, files, config.threat_model, device)
    scores["inversion_error"] = fold_scores.inversion_errors(robust, files, robust_version, device)
    scores |= fold_scores.margin_by_features(standard, files, robust_version, test, device)
    scores |= fold_scores.training_scores(epoch_logits.whole(config.epochs), files.labels)
    if keep:
        for name, values in nearest_files(predict.features(robust, files, device), files.labels).items():
            keep(name, values)
    report_progress(1.0, "")
    return scores


class _EpochLogits:
    """Logits of files after each epoch of a training. Those of the epochs of its checkpoint are kept beside that.

    Parameters
    ----------
    files : Dataset
    device : torch.device or str
    folder : Path, optional
        Of the checkpoint.
    """

    def __init__(self, files: Dataset, device: torch.device | str, folder: Path | None) -> None:
        self.files, self.device, self.folder = files, device, folder
        self.found: dict[int, Tensor] = {}
        self.kept: set[int] = set()

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """After an epoch, from 1."""
        self.found[epoch] = predict.logits(model, self.files, self.device)

    def keep(self) -> None:
        """Write those that are not written yet."""
        for epoch in self.found.keys() - self.kept:
            save_arrays({"logits": self.found[epoch].numpy()}, self._path(epoch))
            self.kept.add(epoch)

    def whole(self, epochs: int) -> Tensor:
        """Of all epochs, (epochs, N, K)."""
        numbers = range(1, epochs + 1)
        return torch.stack([self.found[each] if each in self.found else self._read(each) for each in numbers])

    def _read(self, epoch: int) -> Tensor:
        path, shape = self._path(epoch), (len(self.files), len(self.files.classes))
        found = load_arrays(path).get("logits")
        if found is None or found.shape != shape or found.dtype != np.float32:
            observed = "no logits" if found is None else f"{found.dtype} of shape {found.shape}"
            raise InputError(str(path), f"must hold logits, float32 of shape {shape}", observed, f"remove {path.parent}")
        return torch.from_numpy(found)

    def _path(self, epoch: int) -> Path:
        assert self.folder is not None  # there is a checkpoint
        return self.folder / f"logits-{epoch:04d}.npz"


def adversarial_loss(config: CrossfitConfig) -> train.Loss:
    """The loss of robust cross-fitted models."""
    attack = partial(attacks.training_pgd, threat_model=config.threat_model, steps=config.adversarial_steps)
    return train.adversarial_loss(attack)


def train_crossfit_model(
    dataset: Dataset,
    name: str,
    loss: train.Loss,
    *,
    config: CrossfitConfig,
    seed: int,
    device: torch.device | str,
    after_epoch: _EpochLogits | None = None,
    unfinished: Path | None = None,
) -> Model:
    """Train one cross-fitted model.

    Parameters
    ----------
    dataset : Dataset
    name : str
        A key of `SEED_KEYS`, or any other; the seed derives from it.
    loss : train.Loss
    config : CrossfitConfig
    seed : int
        Of the fold.
    device : torch.device or str
    after_epoch : callable, optional
        Called with the model and the number of each epoch.
    unfinished : Path, optional
        A folder of checkpoints, from which training goes on.
    """
    kept = train.Checkpoint(unfinished / f"{name}.pt", {}, after_epoch.keep if after_epoch else None) if unfinished else None
    model_seed = zlib.crc32(f"{seed}/{SEED_KEYS.get(name, name)}".encode())
    pixels = dataset.pixels(torch.arange(0, len(dataset), -(-len(dataset) // PIXEL_STATISTICS_IMAGES)))
    model = models.build(
        config.network,
        shape=dataset.shape,
        classes=len(dataset.classes),
        width=config.width,
        seed=model_seed,
        mean=pixels.mean((0, 2, 3)).tolist(),
        std=pixels.std((0, 2, 3)).clamp_min(0.05).tolist(),
        pretrained=config.pretrained,
        layer=config.layer,
    )
    train.fit(
        model,
        dataset,
        loss,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        augment=train.random_translate(config.translate, flip=config.flip) if config.translate or config.flip else None,
        head_only=config.head_only,
        seed=model_seed,
        device=device,
        progress=(lambda epoch: after_epoch(model, epoch.epoch)) if after_epoch else None,
        checkpoint=kept,
    )
    return model
