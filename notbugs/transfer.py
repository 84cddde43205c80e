"""The same adversarial examples against other networks and other learning algorithms: who inherits a model's blind spots?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notbugs import attacks, blackbox, construct, goals, scores, speed
from notbugs.ball import Ball
from notbugs.blackbox import BlackBox
from notbugs.data import Dataset, sweep, to_8bit
from notbugs.errors import BadInput
from notbugs.models import folded

CHANGES = ("untargeted", "targeted", "random")


class Examples(NamedTuple):
    """Images as one model is misled, uint8 (N, C, H, W) each, and int64 (N,): what it reads in them.

    untargeted: away from the label. targeted: towards `targets`, another class for each. random: the untargeted change scattered
    over the image, signs too, every norm the same (but see `construct.noise_like`). read: by the source, of the images as they
    are; read_untargeted, read_targeted, read_random: of these.
    """

    untargeted: Tensor
    targeted: Tensor
    random: Tensor
    targets: Tensor
    read: Tensor
    read_untargeted: Tensor
    read_targeted: Tensor
    read_random: Tensor


def examples(
    model: nn.Module,
    part: Dataset,
    ball: Ball,
    *,
    steps: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Examples:
    """Adversarial examples of a model for every image, as strong inside the ball as the search makes them, and as stored.

    Every image is pushed to the end, also once it is misread: what only just misleads one model seldom misleads another.
    """
    view = folded(model, part.pixels(slice(0, 2)), device)
    targets = construct.random_labels(part.labels, len(part.classes), seed=seed)

    def push(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels, wanted = part.labels[index].to(images.device), targets[index].to(images.device)
        away = ball.round(attacks.pgd(view, images, labels, ball=ball, steps=steps, by="loss").images, images)
        towards = ball.round(attacks.reach(view, images, wanted, ball=ball, steps=steps, by="loss").images, images)
        with torch.no_grad():
            read = [goals.logits(view, each).argmax(1) for each in (images, away, towards)]
        return to_8bit(away), to_8bit(towards), *read

    untargeted, targeted, *reads = sweep(push, part, batch_size=batch_size or speed.at_once(device, part.shape), device=device)
    scattered = construct.noise_like(part, part.with_images(untargeted), seed=seed).data.images
    assert isinstance(scattered, Tensor)
    noisy = answers(model, part.with_images(scattered), device)
    return Examples(untargeted, targeted, scattered, targets, reads[0], reads[1], reads[2], noisy)


def transferred(
    made: Examples, part: Dataset, target: Callable[[Tensor], Tensor], *, device: torch.device | str = "cpu"
) -> list[dict[str, Any]]:
    """What another model makes of these examples: one row a kind of change.

    target: images in [0, 1] -> logits; part: the images as they were. Counted are the n images that both models read unchanged.
    unfooled: the target still reads the label; same: it makes the source's own mistake (targeted: it reads the class wanted);
    other: another mistake. rate, with its 95 % interval: same + other (targeted: same), over n. source_rate: the source's own.
    Source of the three counts: Waseda et al. 2023.
    """
    labels = part.labels
    calm = answers(target, part, device)
    both = (calm == labels) & (made.read == labels)
    n = int(both.sum())
    rows = []
    sources = {"untargeted": made.read_untargeted, "targeted": made.read_targeted, "random": made.read_random}
    for change in CHANGES:
        answer = answers(target, part.with_images(getattr(made, change)), device)
        wanted = made.targets if change == "targeted" else sources[change]
        same = int((both & (answer == wanted) & (answer != labels)).sum())
        unfooled = int((both & (answer == labels)).sum())
        hits = same if change == "targeted" else n - unfooled
        low, high = scores.interval(hits, n) if n else (0.0, 1.0)
        own = sources[change] == made.targets if change == "targeted" else sources[change] != labels
        rows.append(
            {
                "change": change,
                "n": n,
                "unfooled": unfooled,
                "same": same,
                "other": n - unfooled - same,
                "rate": hits / n if n else "",
                "low": low,
                "high": high,
                "source_rate": float((both & own).sum() / n) if n else "",
                "clean": float((calm == labels).float().mean()),
            }
        )
    return rows


def answers(model: Callable[[Tensor], Tensor], part: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The class a model, or a function of images, reads in each: int64 (N,)."""
    if isinstance(model, nn.Module):
        return construct.reads(model, part, device)
    found: Tensor = sweep(lambda images, _: model(images).argmax(1), part, batch_size=500, device=device)
    return found


# ---- learners that are no networks --------------------------------------------------------------------------------------


def learner(name: str, part: Dataset, *, seed: int = 0) -> BlackBox:
    """A learning algorithm of scikit-learn, fitted to the pixels of a set; name: one of LEARNERS. One thread."""
    from threadpoolctl import threadpool_limits

    if name not in LEARNERS:
        raise BadInput("learner", f"must be one of {', '.join(LEARNERS)}", repr(name))
    if len(part.labels.unique()) < 2:  # type: ignore[no-untyped-call]
        raise BadInput("data", "must hold two classes or more to learn from", len(part.labels.unique()))  # type: ignore[no-untyped-call]
    pixels = part.pixels(slice(None)).flatten(1).numpy()
    with threadpool_limits(1):
        fitted = LEARNERS[name](pixels.shape[1], seed).fit(pixels, part.labels.numpy())
    return blackbox.from_sklearn(fitted, part.classes)


def _logistic(pixels: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0 if pixels < 500 else 0.01, max_iter=200, tol=1e-3)


def _linear_svm(pixels: int, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=0.1 if pixels < 500 else 0.001, dual="auto", max_iter=2000, tol=1e-3, random_state=seed)


def _rbf_svm(pixels: int, seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(C=10.0, gamma="scale", random_state=seed)


def _forest(pixels: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(300, n_jobs=1, random_state=seed)


def _boosting(pixels: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    share = min(1.0, 100 / pixels)  # of the pixels, looked at for each split: all would take hours on large images
    return HistGradientBoostingClassifier(max_iter=100, max_features=share, early_stopping=False, random_state=seed)


def _neighbours(pixels: int, seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(5)


LEARNERS: dict[str, Callable[[int, int], Any]] = {
    "logistic-regression": _logistic,
    "linear-svm": _linear_svm,
    "rbf-svm": _rbf_svm,
    "random-forest": _forest,
    "boosting": _boosting,
    "nearest-neighbours": _neighbours,
}
