"""Who judges files, and what they see: classifiers that were trained on other files.

For one fold an ordinary and an adversarially trained model learn from the files outside it, and two more learn in the ordinary
way from the robust and from the non-robust version of these; all four then look at the fold's files.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import attacks, construct, models, predict, search, train
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.metrics import usefulness
from notbugs.metrics.features import Usefulness
from notbugs.models import frozen, fuse_batchnorm
from notbugs.predict import features
from notbugs.search import NormBall, objectives

Progress = Callable[[float, str], None]  # share done in [0, 1], a few words
FoldScores = dict[str, np.ndarray]  # by name: one entry, or one row, a file
ATTACK_STEPS = 10  # of the attack behind confidence under attack and steps to flip


@dataclass(frozen=True)
class CrossfitConfig:
    """How readers are trained. ball: what robust ones are trained against, and files are attacked within.

    versions: also train on the robust and the non-robust version of the files, which costs two inversions.
    """

    threat_model: NormBall
    network: str = "small"
    width: int | None = 16
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 0.05
    shift: int = 0
    flip: bool = False
    adversarial_steps: int = 3
    invert_steps: int = 20
    versions: bool = True


def stratified_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """A fold for each file, at random, as even over the classes as can be: int64 (N,), from 0 to folds - 1.

    Raises BadInput where a class has fewer files than there are folds: a fold's readers would not know it.
    """
    counts = labels.bincount()
    fewest = int(counts[counts > 0].min()) if len(labels) else 0
    if fewest < 2:
        raise InputError("data", "must have two files or more of each class, for each is judged by readers of the others", fewest)
    if not 2 <= folds <= fewest:
        raise InputError("--folds", f"must be from 2 to {fewest}, the files of the smallest class", folds)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(labels)) % folds)


def fold_seed(seed: int, repeat: int, fold: int | None = None) -> int:
    """The seed of a repetition, or of one of its folds."""
    return zlib.crc32(f"{seed}/{repeat}/{fold}".encode())


def merge_folds(dealt: Tensor, parts: Sequence[FoldScores]) -> FoldScores:
    """What the folds of one repetition saw, in the order of the set."""
    order = np.argsort(np.argsort(dealt.numpy(), kind="stable"), kind="stable")
    return {name: np.concatenate([each[name] for each in parts])[order] for name in parts[0]}


def score_fold(
    part: Dataset,
    recipe: CrossfitConfig,
    held: Tensor,
    *,
    seed: int,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> FoldScores:
    """What readers trained on the files that are not held see in those that are: one entry, or row, for each of them, in order.

    held: bool (N,). Readers start from seeds of their own, drawn from `seed`. test: the set's other part, for carried_spurious.
    """
    report_progress = progress or (lambda share, words: None)
    others, mine = part.select((~held).nonzero().squeeze(1)), part.select(held.nonzero().squeeze(1))
    learned: list[Tensor] = []  # logits after each pass

    made = partial(train_crossfit_model, recipe=recipe, seed=seed, device=device)
    report_progress(0.0, "an ordinary model")
    standard = made(
        others, "standard", train.cross_entropy, after=lambda model: learned.append(predict.logits(model, mine, device))
    )
    report_progress(0.1, "a robust model")
    push = partial(attacks.pgd, threat_model=recipe.threat_model, steps=recipe.adversarial_steps, loss="cross_entropy")
    robust = made(others, "robust", train.adversarial_loss(push))
    report_progress(0.5, "robust and non-robust versions")
    seen = {"standard": standard, "robust": robust}
    # apart: a version is grown from another image of its set, and readers must not meet the files held back even so
    grow = partial(construct.invert_features, steps=recipe.invert_steps, seed=seed, device=device)
    grown = grow(robust, mine).dataset
    if recipe.versions:
        versions = {"on_robust": grow(robust, others).dataset, "on_nonrobust": grow(standard, others).dataset}
        report_progress(0.7, "models of the versions")
        seen |= {name: made(version, name, train.cross_entropy) for name, version in versions.items()}
    report_progress(0.8, "the files held back")
    found: FoldScores = {}
    for name, model in seen.items():
        logits = predict.logits(model, mine, device)
        found[f"{name}_lead"] = objectives.margin(logits, mine.labels).numpy()
        found[f"{name}_probabilities"] = logits.softmax(1).numpy()
    for name in ("standard", "robust"):
        found |= {f"{name}_{key}": value for key, value in _attack_scores(seen[name], mine, recipe.threat_model, device).items()}
    found["inversion_error"] = _inversion_errors(robust, mine, grown, device)
    found |= _margin_by_features(standard, mine, grown, test, device)
    right = torch.stack([objectives.margin(logits, mine.labels) for logits in learned]) > 0
    sure = torch.stack([logits.softmax(1).gather(1, mine.labels[:, None]).squeeze(1) for logits in learned])
    found["epochs_learned"], found["epochs_confidence"] = right.float().mean(0).numpy(), sure.mean(0).numpy()
    found["forgotten"] = (right[:-1] & ~right[1:]).sum(0).numpy().astype(np.float32)
    report_progress(1.0, "")
    return found


def train_crossfit_model(
    part: Dataset,
    name: str,
    loss: train.Loss,
    *,
    recipe: CrossfitConfig,
    seed: int,
    device: torch.device | str,
    after: Callable[[nn.Module], None] | None = None,
) -> models.Model:
    """A model trained on these files; after: told the model after every pass."""
    own = zlib.crc32(f"{seed}/{name}".encode())
    pixels = part.pixels(torch.arange(0, len(part), -(-len(part) // 2000)))
    model = models.build(
        recipe.network,
        shape=part.shape,
        classes=len(part.classes),
        width=recipe.width,
        seed=own,
        mean=pixels.mean((0, 2, 3)).tolist(),
        std=pixels.std((0, 2, 3)).clamp_min(0.05).tolist(),
    )
    train.fit(
        model,
        part,
        loss,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        augment=train.random_translate(recipe.shift, flip=recipe.flip) if recipe.shift or recipe.flip else None,
        seed=own,
        device=device,
        progress=(lambda _: after(model)) if after else None,
    )
    return model


def _attack_scores(model: models.Model, part: Dataset, threat_model: NormBall, device: torch.device | str) -> FoldScores:
    """radius, attacked_lead, drop, steps_to_flip of each file under one model."""
    view = fuse_batchnorm(model, part.pixels(slice(0, 2)), device)

    def push(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels, seen = part.labels[index].to(images.device), []
        goal = objectives.untargeted(view, labels, "cross_entropy")

        def judge(logits: Tensor) -> Tensor:
            value = goal.criterion(logits)
            seen.append(value)
            return value

        with frozen(view), torch.no_grad():
            calm = objectives.logits(view, images)
            rule = search.cosine_steps(threat_model, threat_model.epsilon / 4)
            found = search.maximize(goal._replace(criterion=judge), images, threat_model, steps=ATTACK_STEPS, rule=rule)
            under = objectives.logits(view, found.images)
        flipped = torch.stack(seen) >= 0
        steps = torch.where(flipped.any(0), flipped.float().argmax(0), ATTACK_STEPS + 1)
        sure, least = (each.softmax(1).gather(1, labels[:, None]).squeeze(1) for each in (calm, under))
        radius = attacks.minimum_norm(view, images, labels, norm=threat_model.norm, rounds=3).margins
        return radius, objectives.margin(under, labels), sure - least, steps.float()

    columns = map_batches(push, part, batch_size=250, device=device)
    names = ("radius", "attacked_lead", "drop", "steps_to_flip")
    return {name: column.numpy() for name, column in zip(names, columns, strict=True)}


def _inversion_errors(model: models.Model, part: Dataset, grown: Dataset, device: torch.device | str) -> np.ndarray:
    """How far the features of each robust version are from its file's, relative to their size."""

    def compared(images: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            goal = objectives.feature_matching(model.features, model.features(images))
            return -goal.criterion(model.features(grown.pixels(index).to(images.device)))

    with frozen(model):
        found: Tensor = map_batches(compared, part, batch_size=500, device=device)
    return found.numpy()


def _margin_by_features(
    model: models.Model, part: Dataset, grown: Dataset, test: Dataset | None, device: torch.device | str
) -> FoldScores:
    """The lead over the runner-up, less its mean over all files, as robust, other and spurious features carry it.

    A feature counts as robust by the share of its usefulness that it keeps on the robust version, over all classes together, as
    spurious by the share that it loses on the test part. All are nan for a model whose last layer is not linear.
    """
    names = ["carried_robust", "carried_nonrobust", *(["carried_spurious"] if test else [])]
    head = linear_head(model, part.pixels(slice(0, 2)).to(device))
    if head is None:
        return {name: np.full(len(part), np.nan) for name in names}
    values, again = (features(model, each, device) for each in (part, grown))
    robust = _kept(values, part.labels, again, grown.labels, len(part.classes))
    weights, bias = head.weight.detach().cpu().float(), 0.0 if head.bias is None else head.bias.detach().cpu().float()
    rival = (values @ weights.T + bias).scatter(1, part.labels[:, None], -torch.inf).argmax(1)
    carried = (weights[part.labels] - weights[rival]) * (values - values.mean(0))
    shares = [robust, 1 - robust]
    if test:
        shares.append(1 - _kept(values, part.labels, features(model, test, device), test.labels, len(part.classes)))
    return {name: (carried @ torch.from_numpy(share).float()).numpy() for name, share in zip(names, shares, strict=True)}


def _kept(values: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor, classes: int) -> np.ndarray:
    return usefulness_kept(usefulness(values, labels, classes), usefulness(others, their_labels, classes))


def linear_head(model: models.Model, images: Tensor) -> nn.Linear | None:
    """The last layer of a classifier, where it is linear: of its features it makes the logits, as is seen on a few images."""
    head = getattr(model, "head", None)
    if head is None and isinstance(model, models.WrappedClassifier):
        head = model.network.get_submodule(model.layer)
    if not isinstance(head, nn.Linear):
        return None
    with frozen(model), torch.no_grad():
        features, logits = model.features(images).float(), objectives.logits(model, images)
        if features.shape[1] != head.in_features or logits.shape[1] != head.out_features:
            return None
        return head if torch.allclose(head(features.to(head.weight.dtype)).float(), logits, rtol=1e-3, atol=1e-3) else None


def usefulness_kept(here: Usefulness, there: Usefulness) -> np.ndarray:
    """What share of its usefulness each feature keeps from one set to another: (F,), in [0, 1].

    The slope of usefulness there over usefulness here, over the classes.
    """
    share: np.ndarray = (here.value * there.value).sum(1) / np.maximum(np.square(here.value).sum(1), 1e-12)
    return share.clip(0, 1)
