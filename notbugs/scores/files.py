"""Which files carry robust and which non-robust evidence: every file is judged by models that never saw it.

The files are dealt into folds. For each fold an ordinary and an adversarially trained model learn from the other files, and two
more learn in the ordinary way from the robust and from the non-robust version of these; all four then look at the fold's files.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import attacks, construct, goals, models, search, train
from notbugs.ball import Ball
from notbugs.data import Dataset, sweep
from notbugs.errors import BadInput
from notbugs.models import folded, frozen
from notbugs.scores.features import Usefulness, usefulness

Told = Callable[[float, str], None]  # share done in [0, 1], a few words
Looked = dict[str, np.ndarray]  # by name: one entry, or one row, a file

STEPS = 10  # of the attack behind confidence under attack and steps to flip
COLUMNS = {  # name: (range, what a high value means, what it is)
    "robustness": ("0 to 1", "a person's evidence carries it", "rank, within the class, of the evidence that robust readers find "
                   "in the file, for the evidence that ordinary readers find"),
    "kind": ("", "", "robust, non-robust (robustness below 0.5), mislabelled-looking (all readers see the same other class) or "
             "ambiguous (read wrongly by most readers)"),
    "suggested": ("", "", "the class that readers see, all taken together"),
    "label_quality": ("0 to 1", "the label looks right", "probability of the label less that of the best other class, mean over "
                      "all readers, halved and raised by a half"),
    "standard_radius": ("0 up", "hard to flip", "smallest change that flips an ordinary model; 0: misread as it is"),
    "robust_radius": ("0 up", "hard to flip", "smallest change that flips a robust model; 0: misread as it is"),
    "standard_lead": ("any", "clear to an ordinary model", "logit of the label less the best other"),
    "robust_lead": ("any", "clear to a robust model", "logit of the label less the best other"),
    "carried_robust": ("any", "robust features speak for the label", "part of the ordinary model's lead over its runner-up that "
                       "its features carry as far as they stay useful on the robust version"),
    "carried_nonrobust": ("any", "non-robust features speak for the label", "the rest of that lead, but for its mean"),
    "carried_spurious": ("any", "features that fail elsewhere speak for the label", "part of that lead that features carry as "
                         "far as they are less useful on the test part"),
    "on_robust_right": ("0 to 1", "right", "share of models, trained only on the robust version of other files, that read it"),
    "on_robust_lead": ("any", "clear to them", "their logit of the label less the best other"),
    "on_nonrobust_right": ("0 to 1", "right", "the same, trained only on the non-robust version of other files"),
    "on_nonrobust_lead": ("any", "clear to them", "their logit of the label less the best other"),
    "standard_confidence": ("0 to 1", "sure", "probability that an ordinary model gives the label"),
    "robust_confidence": ("0 to 1", "sure", "probability that a robust model gives the label"),
    "standard_drop": ("-1 to 1", "easily talked out of it", "that probability less the one under attack, ordinary model"),
    "robust_drop": ("-1 to 1", "easily talked out of it", "that probability less the one under attack, robust model"),
    "steps_to_flip": (f"0 to {STEPS + 1}", "hard to flip", f"steps of an attack that flip the robust model; {STEPS + 1}: none"),
    "inversion_error": ("0 up", "not held by robust features", "relative error of its robust version's features"),
    "epochs_learned": ("0 to 1", "learned early", "share of passes after which an ordinary model in training reads it"),
    "epochs_confidence": ("0 to 1", "learned early and surely", "mean probability of the label after each of these passes"),
    "forgotten": ("0 up", "unlearned again and again", "how often a pass undid what one before had learned"),
}  # fmt: skip
ROBUST_EVIDENCE = ("robust_radius", "robust_attacked_lead", "on_robust_lead")
STANDARD_EVIDENCE = ("standard_radius", "standard_lead", "on_nonrobust_lead")


@dataclass(frozen=True)
class Recipe:
    """How readers are trained. ball: what robust ones are trained against, and files are attacked within.

    versions: also train on the robust and the non-robust version of the files, which costs two inversions.
    """

    ball: Ball
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


def deal(labels: Tensor, folds: int, seed: int) -> Tensor:
    """A fold for each file, at random, as even over the classes as can be: int64 (N,), from 0 to folds - 1.

    Raises BadInput where a class has fewer files than there are folds: a fold's readers would not know it.
    """
    counts = labels.bincount()
    fewest = int(counts[counts > 0].min()) if len(labels) else 0
    if fewest < 2:
        raise BadInput("data", "must have two files or more of each class, for each is judged by readers of the others", fewest)
    if not 2 <= folds <= fewest:
        raise BadInput("--folds", f"must be from 2 to {fewest}, the files of the smallest class", folds)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(labels)) % folds)


def look(
    part: Dataset,
    recipe: Recipe,
    held: Tensor,
    *,
    seed: int,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Told | None = None,
) -> Looked:
    """What readers trained on the files that are not held see in those that are: one entry, or row, for each of them, in order.

    held: bool (N,). Readers start from seeds of their own, drawn from `seed`. test: the set's other part, for carried_spurious.
    """
    tell = progress or (lambda share, words: None)
    others, mine = part.take((~held).nonzero().squeeze(1)), part.take(held.nonzero().squeeze(1))
    learned: list[Tensor] = []  # logits after each pass

    made = partial(reader, recipe=recipe, seed=seed, device=device)
    tell(0.0, "an ordinary model")
    standard = made(others, "standard", train.plain, after=lambda model: learned.append(answers(model, mine, device)))
    tell(0.1, "a robust model")
    push = partial(attacks.pgd, ball=recipe.ball, steps=recipe.adversarial_steps, by="loss")
    robust = made(others, "robust", train.against(push))
    tell(0.5, "robust and non-robust versions")
    seen = {"standard": standard, "robust": robust}
    # apart: a version is grown from another image of its set, and readers must not meet the files held back even so
    grow = partial(construct.inverted, steps=recipe.invert_steps, seed=seed, device=device)
    grown = grow(robust, mine).data
    if recipe.versions:
        versions = {"on_robust": grow(robust, others).data, "on_nonrobust": grow(standard, others).data}
        tell(0.7, "models of the versions")
        seen |= {name: made(version, name, train.plain) for name, version in versions.items()}
    tell(0.8, "the files held back")
    found: Looked = {}
    for name, model in seen.items():
        logits = answers(model, mine, device)
        found[f"{name}_lead"] = goals.lead(logits, mine.labels).numpy()
        found[f"{name}_probabilities"] = logits.softmax(1).numpy()
    for name in ("standard", "robust"):
        found |= {f"{name}_{key}": value for key, value in _attacked(seen[name], mine, recipe.ball, device).items()}
    found["inversion_error"] = _inversion_errors(robust, mine, grown, device)
    found |= _carried(standard, mine, grown, test, device)
    right = torch.stack([goals.lead(logits, mine.labels) for logits in learned]) > 0
    sure = torch.stack([logits.softmax(1).gather(1, mine.labels[:, None]).squeeze(1) for logits in learned])
    found["epochs_learned"], found["epochs_confidence"] = right.float().mean(0).numpy(), sure.mean(0).numpy()
    found["forgotten"] = (right[:-1] & ~right[1:]).sum(0).numpy().astype(np.float32)
    tell(1.0, "")
    return found


def per_file(
    part: Dataset,
    recipe: Recipe,
    *,
    folds: int = 3,
    repeats: int = 3,
    seed: int = 0,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Told | None = None,
) -> list[dict[str, Any]]:
    """One row a file in the set's order, with the scores of `COLUMNS`. No model ever scores a file that it was trained on.

    folds: files are dealt into so many; repeats: this is done so often, dealt anew, with fresh models. See `combined`.
    """
    if repeats < 1:
        raise BadInput("--repeats", "must be 1 or more", repeats)
    whole = []
    for repeat in range(repeats):
        dealt, parts = deal(part.labels, folds, seed_of(seed, repeat)), []
        for fold in range(folds):
            share = (repeat * folds + fold) / (repeats * folds)
            told = (lambda done, words, share=share: progress(share + done / (repeats * folds), words)) if progress else None
            own = seed_of(seed, repeat, fold)
            parts.append(look(part, recipe, dealt == fold, seed=own, test=test, device=device, progress=told))
        whole.append(joined(dealt, parts))
    return combined(part, whole)


def seed_of(seed: int, repeat: int, fold: int | None = None) -> int:
    """The seed of a repetition, or of one of its folds."""
    return zlib.crc32(f"{seed}/{repeat}/{fold}".encode())


def joined(dealt: Tensor, parts: Sequence[Looked]) -> Looked:
    """What the folds of one repetition saw, in the order of the set."""
    order = np.argsort(np.argsort(dealt.numpy(), kind="stable"), kind="stable")
    return {name: np.concatenate([each[name] for each in parts])[order] for name in parts[0]}


def combined(part: Dataset, whole: Sequence[Looked]) -> list[dict[str, Any]]:
    """Rows of `per_file` from what the repetitions saw: means over them, ranks within classes, and the word for each file.

    robustness: see `robustness_of`. The rest are means; a smallest radius that was not found counts as the largest that was.
    """
    labels, names = part.labels.numpy(), part.classes
    mean = _finite(whole)
    readers = [name.removesuffix("_probabilities") for name in whole[0] if name.endswith("_probabilities")]
    robustness = robustness_of(mean, labels)
    right = {name: np.stack([each[f"{name}_lead"] > 0 for each in whole]).mean(0) for name in readers}
    probabilities = np.mean([mean[f"{name}_probabilities"] for name in readers], axis=0)
    quality, suggested = label_quality(probabilities, labels), probabilities.argmax(1)
    doubted = mislabelled(mean, readers, labels)
    read = np.mean(list(right.values()), axis=0)
    rows = []
    for number, file in enumerate(part.names):
        kind = "robust" if robustness[number] >= 0.5 else "non-robust"
        kind = "mislabelled-looking" if doubted[number] else "ambiguous" if read[number] < 0.5 else kind
        row: dict[str, Any] = {"number": number, "file": file, "label": names[labels[number]]}
        known = {
            "robustness": float(robustness[number]),
            "kind": kind,
            "suggested": names[suggested[number]],
            "label_quality": float(quality[number]),
            "standard_confidence": float(mean["standard_probabilities"][number, labels[number]]),
            "robust_confidence": float(mean["robust_probabilities"][number, labels[number]]),
            "steps_to_flip": float(mean["robust_steps_to_flip"][number]),
            **{f"{name}_right": float(right[name][number]) for name in readers},
        }
        for name in COLUMNS:
            if name in known or (name in mean and mean[name].ndim == 1):
                row[name] = known[name] if name in known else float(mean[name][number])
        rows.append(row)
    return rows


def robustness_of(mean: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """How much robust evidence a file has for its ordinary evidence, as a rank within its class: (N,), in [0, 1].

    R and T are mean ranks within the class: R of the smallest change that flips robust readers, their lead under attack and the
    lead of readers of robust versions; T of the smallest change that flips ordinary readers, their lead and the lead of readers
    of non-robust versions. Ranked is R - s T: what T does not explain of R, so that files do not end up high for being easy
    for all readers. s is the slope of R over T, over the reliability of T (Cronbach's alpha of its three ranks):
    a slope over something measured with noise comes out too flat (Spearman 1904).
    """
    robust, standard = (
        np.stack([ranks(mean[name], labels) for name in names if name in mean]) for names in (ROBUST_EVIDENCE, STANDARD_EVIDENCE)
    )
    alone, together = standard.var(1, ddof=1).sum(), max(float(standard.sum(0).var(ddof=1)), 1e-12)
    reliability = len(standard) / (len(standard) - 1) * (1 - alone / together)
    one, other = robust.mean(0), standard.mean(0)
    slope = np.cov(one, other)[0, 1] / max(float(other.var(ddof=1)), 1e-12) / max(reliability, 0.5)
    return ranks(one - slope * other, labels)


def steadiness(whole: Sequence[Looked], labels: np.ndarray) -> float:
    """How well the ranks of `robustness` would agree with those of as many other repetitions: Spearman's, in [-1, 1].

    From the agreement of single repetitions, by the Spearman-Brown formula; nan for one repetition.
    """
    from scipy.stats import spearmanr

    if len(whole) < 2:
        return float("nan")
    single = [robustness_of(_finite([each]), labels) for each in whole]
    pairs = [spearmanr(one, other)[0] for place, one in enumerate(single) for other in single[place + 1 :]]
    agreement = float(np.mean(pairs))
    if agreement <= 0:
        return agreement
    return len(whole) * agreement / (1 + (len(whole) - 1) * agreement)


def _finite(whole: Sequence[Looked]) -> Looked:
    """Means over repetitions; what was not found counts as the largest that was."""
    mean: Looked = {}
    for name in whole[0]:
        stack = np.stack([each[name] for each in whole]).astype(np.float64)
        known = stack[np.isfinite(stack)]
        top = known.max() if known.size and known.max() > 0 else 1.0  # of what was never found any number will do: all are alike
        mean[name] = np.where(np.isposinf(stack), top, stack).mean(0)
    return mean


def ranks(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its class, from 0 (the lowest) to 1; ties share the mean, a class of one has 0.5."""
    from scipy.stats import rankdata

    found = np.full(len(values), 0.5)
    for label in np.unique(labels):
        own = labels == label
        if own.sum() > 1:
            found[own] = (rankdata(values[own]) - 1) / (own.sum() - 1)
    return found


def label_quality(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of the label less the best other's, brought from [−1, 1] into [0, 1]: (N,)."""
    given = probabilities[np.arange(len(labels)), labels]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    quality: np.ndarray = (1 + given - others.max(1)) / 2
    return quality


def mislabelled(mean: Mapping[str, np.ndarray], readers: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Which files all readers take for the same other class, and as surely as files that bear its label are taken for it: (N,).

    The threshold is that of confident learning (Northcutt et al. 2021, section 3.1): the mean probability of a class over the
    files labelled so.
    """
    answers = np.stack([mean[f"{name}_probabilities"].argmax(1) for name in readers])
    same = (answers == answers[0]).all(0) & (answers[0] != labels)
    probabilities = np.mean([mean[f"{name}_probabilities"] for name in readers], axis=0)
    sure = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else 1.0 for k in range(probabilities.shape[1])])
    found: np.ndarray = same & (probabilities[np.arange(len(labels)), answers[0]] >= sure[answers[0]])
    return found


def halves(rows: Sequence[Mapping[str, Any]], top: float, by: str = "robustness") -> tuple[list[int], list[int]]:
    """Numbers of the files with the highest and with the lowest score, a share `top` of each class, in the set's order."""
    classes: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        classes.setdefault(str(row["label"]), []).append(number)
    check_top(top, min(map(len, classes.values())))
    high: list[int] = []
    low: list[int] = []
    for numbers in classes.values():
        ranked = sorted(numbers, key=lambda number: (float(rows[number][by]), number))
        count = int(top * len(ranked) + 1e-9)
        high, low = high + ranked[len(ranked) - count :], low + ranked[:count]
    return sorted(high), sorted(low)


def check_top(top: float, fewest: int) -> None:
    """Raises BadInput unless this share of a class, of which the smallest has so many files, can go to either half."""
    if not 0 < top <= 0.5:
        raise BadInput("--top", "is a share of each class that goes to either half: above 0, at most 0.5", top)
    if int(top * fewest + 1e-9) < 1:
        raise BadInput("--top", f"must leave a file of each class: {1 / fewest:.3g} or more", top)


# ---- one reader, and what it sees --------------------------------------------------------------------------------------


def reader(
    part: Dataset,
    name: str,
    loss: train.Loss,
    *,
    recipe: Recipe,
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
        augment=train.shifts(recipe.shift, flip=recipe.flip) if recipe.shift or recipe.flip else None,
        seed=own,
        device=device,
        progress=(lambda _: after(model)) if after else None,
    )
    return model


def answers(model: nn.Module, part: Dataset, device: torch.device | str) -> Tensor:
    """What a model says of each file: logits (N, K) on the CPU."""

    def asked(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return goals.logits(model, images)

    with frozen(model):
        found: Tensor = sweep(asked, part, batch_size=500, device=device)
    return found


def _attacked(model: models.Model, part: Dataset, ball: Ball, device: torch.device | str) -> Looked:
    """radius, attacked_lead, drop, steps_to_flip of each file under one model."""
    view = folded(model, part.pixels(slice(0, 2)), device)

    def push(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels, seen = part.labels[index].to(images.device), []
        goal = goals.leave_class(view, labels, "loss")

        def judge(logits: Tensor) -> Tensor:
            value = goal.judge(logits)
            seen.append(value)
            return value

        with frozen(view), torch.no_grad():
            calm = goals.logits(view, images)
            rule = search.steepest(ball, ball.radius / 4)
            found = search.maximize(goal._replace(judge=judge), images, ball, steps=STEPS, rule=rule)
            under = goals.logits(view, found.images)
        flipped = torch.stack(seen) >= 0
        steps = torch.where(flipped.any(0), flipped.float().argmax(0), STEPS + 1)
        sure, least = (each.softmax(1).gather(1, labels[:, None]).squeeze(1) for each in (calm, under))
        radius = attacks.smallest_radius(view, images, labels, norm=ball.norm, rounds=3).values
        return radius, goals.lead(under, labels), sure - least, steps.float()

    columns = sweep(push, part, batch_size=250, device=device)
    names = ("radius", "attacked_lead", "drop", "steps_to_flip")
    return {name: column.numpy() for name, column in zip(names, columns, strict=True)}


def _inversion_errors(model: models.Model, part: Dataset, grown: Dataset, device: torch.device | str) -> np.ndarray:
    """How far the features of each robust version are from its file's, relative to their size."""

    def compared(images: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            goal = goals.match_features(model.features, model.features(images))
            return -goal.judge(model.features(grown.pixels(index).to(images.device)))

    with frozen(model):
        found: Tensor = sweep(compared, part, batch_size=500, device=device)
    return found.numpy()


def _carried(model: models.Model, part: Dataset, grown: Dataset, test: Dataset | None, device: torch.device | str) -> Looked:
    """The lead over the runner-up, less its mean over all files, as robust, other and spurious features carry it.

    A feature counts as robust by the share of its usefulness that it keeps on the robust version, over all classes together, as
    spurious by the share that it loses on the test part. All are nan for a model whose last layer is not linear.
    """
    names = ["carried_robust", "carried_nonrobust", *(["carried_spurious"] if test else [])]
    head = linear_head(model, part.pixels(slice(0, 2)).to(device))
    if head is None:
        return {name: np.full(len(part), np.nan) for name in names}
    values, again = (features_of(model, each, device) for each in (part, grown))
    robust = _kept(values, part.labels, again, grown.labels, len(part.classes))
    weights, bias = head.weight.detach().cpu().float(), 0.0 if head.bias is None else head.bias.detach().cpu().float()
    rival = (values @ weights.T + bias).scatter(1, part.labels[:, None], -torch.inf).argmax(1)
    carried = (weights[part.labels] - weights[rival]) * (values - values.mean(0))
    shares = [robust, 1 - robust]
    if test:
        shares.append(1 - _kept(values, part.labels, features_of(model, test, device), test.labels, len(part.classes)))
    return {name: (carried @ torch.from_numpy(share).float()).numpy() for name, share in zip(names, shares, strict=True)}


def features_of(model: models.Model, part: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The penultimate layer's values on the CPU: float (N, F)."""
    with frozen(model):
        found: Tensor = sweep(lambda images, _: model.features(images).float(), part, batch_size=500, device=device)
    return found


def _kept(values: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor, classes: int) -> np.ndarray:
    return kept_share(usefulness(values, labels, classes), usefulness(others, their_labels, classes))


def linear_head(model: models.Model, images: Tensor) -> nn.Linear | None:
    """The last layer of a classifier, where it is linear: of its features it makes the logits, as is seen on a few images."""
    head = getattr(model, "head", None)
    if head is None and isinstance(model, models.Wrapped):
        head = model.network.get_submodule(model.layer)
    if not isinstance(head, nn.Linear):
        return None
    with frozen(model), torch.no_grad():
        features, logits = model.features(images).float(), goals.logits(model, images)
        if features.shape[1] != head.in_features or logits.shape[1] != head.out_features:
            return None
        return head if torch.allclose(head(features.to(head.weight.dtype)).float(), logits, rtol=1e-3, atol=1e-3) else None


def kept_share(here: Usefulness, there: Usefulness) -> np.ndarray:
    """What share of its usefulness each feature keeps from one set to another: (F,), in [0, 1].

    The slope of usefulness there over usefulness here, over the classes.
    """
    share: np.ndarray = (here.value * there.value).sum(1) / np.maximum(np.square(here.value).sum(1), 1e-12)
    return share.clip(0, 1)
