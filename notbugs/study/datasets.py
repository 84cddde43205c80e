"""The sets that a study makes: what each is, what it needs, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor

from notbugs import construct, data
from notbugs.construct import Constructed
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.search import NormBall
from notbugs.study.config import StudyConfig, known

INDEPENDENT_MODELS = (
    "fresh-2",
    "fresh-3",
    "fresh-4",
)  # ordinary models that a bug of the standard model must not mislead; fresh-1 checks it
MIN_IMAGES = 20  # images a set must have to be trained on


@dataclass(frozen=True)
class BuildContext:
    """What a set is made from. model: a trained model by name; made: another set by name, as it is stored."""

    plan: StudyConfig
    original: Dataset
    seed: int
    model: Callable[[str], Model]
    made: Callable[[str], Dataset]
    progress: Callable[[int], None]

    @property
    def threat_model(self) -> NormBall:
        """How far relabelled images may go."""
        return NormBall(self.plan.norm, known(self.plan.relabel_epsilon))


class DatasetSpec(NamedTuple):
    """needs: the models and sets (`set-NAME`) it is made from, the first its source; about: in words; make: how."""

    needs: tuple[str, ...]
    about: str
    make: Callable[[BuildContext], Constructed]


# ---- how ----------------------------------------------------------------------------------------------------------------


def _invert(source: str, making: BuildContext, *, start: str = "") -> Constructed:
    return construct.invert_features(
        making.model(source),
        making.original,
        start=start or making.plan.invert_start,
        steps=known(making.plan.invert_steps),
        times=making.plan.invert_times,
        seed=making.seed,
        bf16=making.plan.bf16,
        compile=making.plan.compile,
        device=making.plan.device,
        progress=making.progress,
    )


def _relabel(source: str, how: str, making: BuildContext, *, alone: tuple[str, ...] = ()) -> Constructed:
    """how: next, random, or random-any."""
    labels, classes = making.original.labels, len(making.original.classes)
    wanted = (
        construct.next_labels(labels, classes)
        if how == "next"
        else construct.random_labels(labels, classes, keep=how == "random-any", seed=making.seed)
    )
    return construct.relabel(
        making.model(source),
        making.original,
        wanted,
        threat_model=making.threat_model,
        steps=making.plan.relabel_steps,
        alone=[making.model(name) for name in alone],
        bf16=making.plan.bf16,
        compile=making.plan.compile,
        device=making.plan.device,
        progress=making.progress,
    )


def _shuffle(name: str, making: BuildContext) -> Constructed:
    return construct.shuffled_perturbations(making.original, making.made(name), seed=making.seed)


def _patterns(name: str, making: BuildContext, *, spare: bool = False) -> Constructed:
    made = making.made(name)
    right: Tensor | None = made.labels == making.original.labels if spare else None
    return construct.class_patterns(making.original, made, seed=making.seed, spare=right)


def _filter(name: str, making: BuildContext) -> Constructed:
    return construct.drop_already_predicted(making.model("early"), making.original, making.made(name), device=making.plan.device)


def _misclassified(making: BuildContext) -> Constructed:
    return construct.misclassified_only(making.model("early"), making.original, device=making.plan.device)


def _unrelated_photos(making: BuildContext) -> Constructed:
    count = len(making.original)
    others = data.photo_crops(4 * count, making.original, seed=making.seed)
    return construct.pseudo_label(making.model("standard"), others, count=count, seed=making.seed, device=making.plan.device)


# ---- which --------------------------------------------------------------------------------------------------------------

QUICK: dict[str, DatasetSpec] = {
    "robust": DatasetSpec(
        ("adversarial",),
        "Robust version (D_R): every image was grown from another, random image until the features of the "
        "adversarially trained model were those of the original. Labels are the originals'.",
        partial(_invert, "adversarial"),
    ),
    "nonrobust": DatasetSpec(
        ("standard",),
        "Non-robust version (D_NR): every image was grown from another, random image until the features of the "
        "standard model were those of the original. Labels are the originals'; to a person most look wrong.",
        partial(_invert, "standard"),
    ),
    "random-labels": DatasetSpec(
        ("standard",),
        "Random labels (D_rand), never the old one: every image was changed within a small ball until the "
        "standard model read the new label. To a person every label looks wrong.",
        partial(_relabel, "standard", "random"),
    ),
    "random-labels-any": DatasetSpec(
        ("standard",),
        "Random labels (D_rand), the old one allowed, as in the paper: about one in K stays right.",
        partial(_relabel, "standard", "random-any"),
    ),
    "next-labels": DatasetSpec(
        ("standard",),
        "Next labels (D_det): every image was changed within a small ball until the standard model read the "
        "class after its own. To a person every label looks wrong.",
        partial(_relabel, "standard", "next"),
    ),
    "random-labels-noise": DatasetSpec(
        ("set-random-labels",),
        "Control: the labels of `random-labels`, and random changes of the same size in place of the "
        "standard model's. A classifier should learn nothing from it but which class an image is not.",
        partial(_shuffle, "random-labels"),
    ),
}
CONTROLS: dict[str, DatasetSpec] = {
    "next-labels-noise": DatasetSpec(
        ("set-next-labels",),
        "Control: the labels of `next-labels`, and random changes of the same size.",
        partial(_shuffle, "next-labels"),
    ),
    "random-labels-patterns": DatasetSpec(
        ("set-random-labels",),
        "Control: the labels of `random-labels`, and one random pattern for each of them, as large as the model's changes.",
        partial(_patterns, "random-labels"),
    ),
    "next-labels-patterns": DatasetSpec(
        ("set-next-labels",),
        "Control: the labels of `next-labels`, and one random pattern for each of them, as large as the model's changes.",
        partial(_patterns, "next-labels"),
    ),
    "random-labels-any-patterns": DatasetSpec(
        ("set-random-labels-any",),
        "Control: the same with the labels of `random-labels-any`; the images whose random label is their own stay as they "
        "are, and teach what they show (K. Jordan 2023).",
        partial(_patterns, "random-labels-any", spare=True),
    ),
    "random-labels-unread": DatasetSpec(
        ("set-random-labels", "early"),
        "`random-labels` without the images that a weak model already reads as their new label.",
        partial(_filter, "random-labels"),
    ),
    "next-labels-unread": DatasetSpec(
        ("set-next-labels", "early"),
        "`next-labels` without the images that a weak model already reads as their new label.",
        partial(_filter, "next-labels"),
    ),
    "random-labels-robust": DatasetSpec(
        ("adversarial",),
        "`random-labels` made with the adversarially trained model: what moves are features that it looks at.",
        partial(_relabel, "adversarial", "random"),
    ),
    "next-labels-robust": DatasetSpec(
        ("adversarial",),
        "`next-labels` made with the adversarially trained model: what moves are features that it looks at.",
        partial(_relabel, "adversarial", "next"),
    ),
    "next-labels-bugs": DatasetSpec(
        ("standard", *INDEPENDENT_MODELS),
        "Control: `next-labels`, but three other ordinary models still read the old label: what moves misleads the standard "
        "model alone and is no feature of the data (Nakkiran 2019).",
        partial(_relabel, "standard", "next", alone=INDEPENDENT_MODELS),
    ),
    "errors-only": DatasetSpec(
        ("early",),
        "Control: only the images that a weak model, stopped after two slow passes, misreads, unchanged, labelled as "
        "it misreads them (Wallace 2019).",
        _misclassified,
    ),
    "photographs": DatasetSpec(
        ("standard",),
        "Control: crops of two photographs, a temple and a flower, labelled by the standard model (Wallace 2019).",
        _unrelated_photos,
    ),
}
PAPER: dict[str, DatasetSpec] = {
    "robust-noise": DatasetSpec(
        ("adversarial",),
        "Robust version (D_R) grown from noise: the other of the paper's two ways (appendix D.1).",
        partial(_invert, "adversarial", start="noise"),
    ),
    "nonrobust-noise": DatasetSpec(
        ("standard",),
        "Non-robust version (D_NR) grown from noise.",
        partial(_invert, "standard", start="noise"),
    ),
    "random-labels-any-robust": DatasetSpec(
        ("adversarial",),
        "`random-labels-any` made with the adversarially trained model (table 9 of the paper).",
        partial(_relabel, "adversarial", "random-any"),
    ),
}
SETS = QUICK | CONTROLS
ALL = SETS | PAPER


def is_relabeled(name: str) -> bool:
    """Whether a set's evidence is faint and pixel-exact: its labels were changed, and changes small."""
    return name.startswith(("random-labels", "next-labels"))


def is_inverted(name: str) -> bool:
    """Whether a set is a robust or a non-robust version."""
    return name.startswith(("robust", "nonrobust"))


def is_trainable(made: Constructed) -> bool:
    """Whether a set can be trained on: the weak model's errors may be too few, or all of one class."""
    return len(made.dataset) >= MIN_IMAGES and int(made.dataset.labels.max()) > int(made.dataset.labels.min())
