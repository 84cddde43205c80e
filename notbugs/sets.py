"""The sets that a study makes: what each is, what it needs, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor

from notbugs import construct, data
from notbugs.ball import Ball
from notbugs.construct import Made
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.plan import Plan, known

ALONE = ("fresh-2", "fresh-3", "fresh-4")  # ordinary models that a bug of the standard model must not mislead; fresh-1 checks it
FEWEST = 20  # images a set must have to be trained on


@dataclass(frozen=True)
class Making:
    """What a set is made from. model: a trained model by name; made: another set by name, as it is stored."""

    plan: Plan
    original: Dataset
    seed: int
    model: Callable[[str], Model]
    made: Callable[[str], Dataset]
    progress: Callable[[int], None]

    @property
    def ball(self) -> Ball:
        """How far relabelled images may go."""
        return Ball(self.plan.norm, known(self.plan.relabel_epsilon))


class Kind(NamedTuple):
    """needs: the models and sets (`set-NAME`) it is made from, the first its source; about: in words; make: how."""

    needs: tuple[str, ...]
    about: str
    make: Callable[[Making], Made]


# ---- how ----------------------------------------------------------------------------------------------------------------


def _inverted(source: str, making: Making, *, start: str = "") -> Made:
    return construct.inverted(
        making.model(source),
        making.original,
        start=start or making.plan.invert_start,
        steps=known(making.plan.invert_steps),
        times=making.plan.invert_times,
        seed=making.seed,
        half=making.plan.half,
        compile=making.plan.compile,
        device=making.plan.device,
        progress=making.progress,
    )


def _relabelled(source: str, how: str, making: Making, *, alone: tuple[str, ...] = ()) -> Made:
    """how: next, random, or random-any."""
    labels, classes = making.original.labels, len(making.original.classes)
    wanted = (
        construct.next_labels(labels, classes)
        if how == "next"
        else construct.random_labels(labels, classes, keep=how == "random-any", seed=making.seed)
    )
    return construct.relabelled(
        making.model(source),
        making.original,
        wanted,
        ball=making.ball,
        steps=making.plan.relabel_steps,
        alone=[making.model(name) for name in alone],
        half=making.plan.half,
        compile=making.plan.compile,
        device=making.plan.device,
        progress=making.progress,
    )


def _noise(name: str, making: Making) -> Made:
    return construct.noise_like(making.original, making.made(name), seed=making.seed)


def _patterns(name: str, making: Making, *, spare: bool = False) -> Made:
    made = making.made(name)
    right: Tensor | None = made.labels == making.original.labels if spare else None
    return construct.patterns_like(making.original, made, seed=making.seed, spare=right)


def _unread(name: str, making: Making) -> Made:
    return construct.unread(making.model("early"), making.original, making.made(name), device=making.plan.device)


def _errors(making: Making) -> Made:
    return construct.errors_only(making.model("early"), making.original, device=making.plan.device)


def _photographs(making: Making) -> Made:
    count = len(making.original)
    others = data.photographs(4 * count, making.original, seed=making.seed)
    return construct.taught(making.model("standard"), others, count=count, seed=making.seed, device=making.plan.device)


# ---- which --------------------------------------------------------------------------------------------------------------

QUICK: dict[str, Kind] = {
    "robust": Kind(
        ("adversarial",),
        "Robust version (D_R): every image was grown from another, random image until the features of the "
        "adversarially trained model were those of the original. Labels are the originals'.",
        partial(_inverted, "adversarial"),
    ),
    "nonrobust": Kind(
        ("standard",),
        "Non-robust version (D_NR): every image was grown from another, random image until the features of the "
        "standard model were those of the original. Labels are the originals'; to a person most look wrong.",
        partial(_inverted, "standard"),
    ),
    "random-labels": Kind(
        ("standard",),
        "Random labels (D_rand), never the old one: every image was changed within a small ball until the "
        "standard model read the new label. To a person every label looks wrong.",
        partial(_relabelled, "standard", "random"),
    ),
    "random-labels-any": Kind(
        ("standard",),
        "Random labels (D_rand), the old one allowed, as in the paper: about one in K stays right.",
        partial(_relabelled, "standard", "random-any"),
    ),
    "next-labels": Kind(
        ("standard",),
        "Next labels (D_det): every image was changed within a small ball until the standard model read the "
        "class after its own. To a person every label looks wrong.",
        partial(_relabelled, "standard", "next"),
    ),
    "random-labels-noise": Kind(
        ("set-random-labels",),
        "Control: the labels of `random-labels`, and random changes of the same size in place of the "
        "standard model's. A classifier should learn nothing from it but which class an image is not.",
        partial(_noise, "random-labels"),
    ),
}
CONTROLS: dict[str, Kind] = {
    "next-labels-noise": Kind(
        ("set-next-labels",),
        "Control: the labels of `next-labels`, and random changes of the same size.",
        partial(_noise, "next-labels"),
    ),
    "random-labels-patterns": Kind(
        ("set-random-labels",),
        "Control: the labels of `random-labels`, and one random pattern for each of them, as large as the model's changes.",
        partial(_patterns, "random-labels"),
    ),
    "next-labels-patterns": Kind(
        ("set-next-labels",),
        "Control: the labels of `next-labels`, and one random pattern for each of them, as large as the model's changes.",
        partial(_patterns, "next-labels"),
    ),
    "random-labels-any-patterns": Kind(
        ("set-random-labels-any",),
        "Control: the same with the labels of `random-labels-any`; the images whose random label is their own stay as they "
        "are, and teach what they show (K. Jordan 2023).",
        partial(_patterns, "random-labels-any", spare=True),
    ),
    "random-labels-unread": Kind(
        ("set-random-labels", "early"),
        "`random-labels` without the images that a weak model already reads as their new label.",
        partial(_unread, "random-labels"),
    ),
    "next-labels-unread": Kind(
        ("set-next-labels", "early"),
        "`next-labels` without the images that a weak model already reads as their new label.",
        partial(_unread, "next-labels"),
    ),
    "random-labels-robust": Kind(
        ("adversarial",),
        "`random-labels` made with the adversarially trained model: what moves are features that it looks at.",
        partial(_relabelled, "adversarial", "random"),
    ),
    "next-labels-robust": Kind(
        ("adversarial",),
        "`next-labels` made with the adversarially trained model: what moves are features that it looks at.",
        partial(_relabelled, "adversarial", "next"),
    ),
    "next-labels-bugs": Kind(
        ("standard", *ALONE),
        "Control: `next-labels`, but three other ordinary models still read the old label: what moves misleads the standard "
        "model alone and is no feature of the data (Nakkiran 2019).",
        partial(_relabelled, "standard", "next", alone=ALONE),
    ),
    "errors-only": Kind(
        ("early",),
        "Control: only the images that a weak model, stopped after two slow passes, misreads, unchanged, labelled as "
        "it misreads them (Wallace 2019).",
        _errors,
    ),
    "photographs": Kind(
        ("standard",),
        "Control: crops of two photographs, a temple and a flower, labelled by the standard model (Wallace 2019).",
        _photographs,
    ),
}
PAPER: dict[str, Kind] = {
    "robust-noise": Kind(
        ("adversarial",),
        "Robust version (D_R) grown from noise: the other of the paper's two ways (appendix D.1).",
        partial(_inverted, "adversarial", start="noise"),
    ),
    "nonrobust-noise": Kind(
        ("standard",),
        "Non-robust version (D_NR) grown from noise.",
        partial(_inverted, "standard", start="noise"),
    ),
    "random-labels-any-robust": Kind(
        ("adversarial",),
        "`random-labels-any` made with the adversarially trained model (table 9 of the paper).",
        partial(_relabelled, "adversarial", "random-any"),
    ),
}
SETS = QUICK | CONTROLS
KINDS = SETS | PAPER


def relabels(name: str) -> bool:
    """Whether a set's evidence is faint and pixel-exact: its labels were changed, and changes small."""
    return name.startswith(("random-labels", "next-labels"))


def grown(name: str) -> bool:
    """Whether a set is a robust or a non-robust version."""
    return name.startswith(("robust", "nonrobust"))


def enough(made: Made) -> bool:
    """Whether a set can be trained on: the weak model's errors may be too few, or all of one class."""
    return len(made.data) >= FEWEST and int(made.data.labels.max()) > int(made.data.labels.min())
