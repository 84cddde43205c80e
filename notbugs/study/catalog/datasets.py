"""The data sets of a study, as data: what each is made from, and how it is called. Imports no torch.

Nobody parses a name: what a name stands for is looked up here.
"""

from dataclasses import dataclass
from typing import Literal

from notbugs.extensions import Construction as OwnConstruction
from notbugs.extensions import Control
from notbugs.extensions.registry import registered

Labels = Literal["original", "random", "random_incl_true", "next", "predicted"]
Construction = Literal[
    "invert",
    "relabel",
    "shuffle",
    "class_patterns",
    "filter",
    "misclassified",
    "correct",
    "unrelated_photos",
    "own",
    "own_control",
]
Group = Literal["quick", "strong", "controls", "replication", "own"]

ORIGINAL = "original"  # the data set as it was loaded
# Share of images: while fewer reach their new label, the epsilon of relabeling grows, and a set of which fewer do shows nothing
MIN_TARGET_REACHED = 0.75  # at least 0.76 in docs/results
SECOND_SOURCE = "adversarial-2"
STRONG_VERSIONS = 8  # chosen on CIFAR-10: docs/results/robust-data.md
INDEPENDENT_MODELS = ("reinit-2", "reinit-3", "reinit-4")  # must keep the original label of next-labels-non-transferable


@dataclass(frozen=True)
class DatasetSpec:
    """One constructed data set.

    Attributes
    ----------
    name : str
        Also its folder in datasets/ and the column `set` of tables.
    construction : str
        How it is constructed (`study.datasets`).
    source_model : str
        The model it is constructed with; "" if none.
    source_dataset : str
        The constructed set it starts from; "" for the original training images.
    labels : str
        Towards which labels.
    control_of : str
        The set whose result it could explain away; "" if it is no control.
    title, description, short : str
        For tables (one line), for the dataset card (sentences), for narrow tables.
    start : str
        For inversions: "image", "noise", or "" for the configured one.
    preserved_by : tuple of str
        Models that must keep predicting the original label.
    other_models : tuple of str
        Further models beside `source_model`: versions are inverted from all of them in turn. Only the images that all together
        classify correctly are used.
    versions : int
        Of each image; 0: as configured for inversions.
    leave_correct : bool
        For class patterns: images whose random label is right stay unperturbed.
    seed_key : str
        What the set's random seed is derived from. It never changes, so that renaming a set never changes a figure.
    group : str
        Which studies construct it.
    function : str
        Of a set of the user's own: "module:function".
    """

    name: str
    construction: Construction
    title: str
    description: str
    seed_key: str
    source_model: str = ""
    source_dataset: str = ""
    labels: Labels = "original"
    control_of: str = ""
    short: str = ""
    start: str = ""
    preserved_by: tuple[str, ...] = ()
    other_models: tuple[str, ...] = ()
    versions: int = 0
    leave_correct: bool = False
    group: Group = "quick"
    function: str = ""

    @property
    def is_relabeled(self) -> bool:
        """Whether labels were changed and perturbations are small: its signal is faint and pixel-exact."""
        return self.construction in ("relabel", "shuffle", "class_patterns", "filter", "own_control")

    @property
    def is_inverted(self) -> bool:
        """Whether it is D_R or D_NR."""
        return self.construction == "invert"

    @property
    def made_from(self) -> str:
        """The set or the model it is made from, as tables name it."""
        return self.source_dataset or self.source_model


_INVERTED = "until the penultimate-layer features of the {} are those of the original. Labels are the original ones."
DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "robust", "invert", "D_R: features inverted from other training images, robust model",
            "D_R, the robust version. Each image was optimized from another, random training image "
            + _INVERTED.format("adversarially trained model"),
            "robust", source_model="adversarial",
        ),
        DatasetSpec(
            "nonrobust", "invert", "D_NR: features inverted from other training images, standard model",
            "D_NR, the non-robust version. Each image was optimized from another, random training image "
            + _INVERTED.format("standard model") + " To a person most labels look wrong.",
            "nonrobust", source_model="standard",
        ),
        DatasetSpec(
            "random-labels", "relabel", "D_rand without the true class: perturbed towards a random other class and relabeled",
            "D_rand, never the true label. Each image was perturbed within epsilon towards a random other class and relabeled "
            "as that class. To a person every label looks wrong.",
            "random-labels", source_model="standard", labels="random",
        ),
        DatasetSpec(
            "random-labels-incl-true", "relabel", "D_rand as in the paper: the random class may be the true one",
            "D_rand as in the paper: the random class may be the true one, so about one label in K stays right.",
            "random-labels-any", source_model="standard", labels="random_incl_true", group="controls",
        ),
        DatasetSpec(
            "next-labels", "relabel", "D_det: perturbed towards the next class and relabeled",
            "D_det. Each image was perturbed within epsilon towards the class after its own and relabeled as that class. To a "
            "person every label looks wrong.",
            "next-labels", source_model="standard", labels="next",
        ),
        DatasetSpec(
            "random-labels-shuffled", "shuffle", "control: labels of random-labels, perturbations shuffled over the pixels",
            "Control: the labels of `random-labels`, and each image's perturbation shuffled over its pixels with random signs. "
            "From it a classifier should learn only that the class of an image is never its label.",
            "random-labels-noise", source_dataset="random-labels", labels="random", control_of="random-labels",
            short="shuffled perturbations",
        ),
        DatasetSpec(
            "next-labels-shuffled", "shuffle", "control: labels of next-labels, perturbations shuffled over the pixels",
            "Control: the labels of `next-labels`, and each image's perturbation shuffled over its pixels with random signs.",
            "next-labels-noise", source_dataset="next-labels", labels="next", control_of="next-labels",
            short="shuffled perturbations", group="controls",
        ),
        DatasetSpec(
            "random-labels-class-patterns", "class_patterns", "control: labels of random-labels, one random pattern per class",
            "Control: the labels of `random-labels`, and one random pattern per label, as large as the model's perturbations.",
            "random-labels-patterns", source_dataset="random-labels", labels="random", control_of="random-labels",
            short="class patterns", group="controls",
        ),
        DatasetSpec(
            "next-labels-class-patterns", "class_patterns", "control: labels of next-labels, one random pattern per class",
            "Control: the labels of `next-labels`, and one random pattern per label, as large as the model's perturbations.",
            "next-labels-patterns", source_dataset="next-labels", labels="next", control_of="next-labels",
            short="class patterns", group="controls",
        ),
        DatasetSpec(
            "random-labels-incl-true-class-patterns", "class_patterns",
            "control: the same for random-labels-incl-true, correctly labeled images unperturbed",
            "Control: the same with the labels of `random-labels-incl-true`. Images whose random label is right stay "
            "unperturbed (K. Jordan 2023).",
            "random-labels-any-patterns", source_dataset="random-labels-incl-true", labels="random_incl_true",
            control_of="random-labels-incl-true", short="class patterns and right labels", leave_correct=True, group="controls",
        ),
        DatasetSpec(
            "random-labels-filtered", "filter", "random-labels without images that an undertrained model already predicts so",
            "`random-labels` without the images for which an undertrained model already predicts the new label.",
            "random-labels-unread", source_model="undertrained", source_dataset="random-labels", labels="random",
            group="controls",
        ),
        DatasetSpec(
            "next-labels-filtered", "filter", "next-labels without images that an undertrained model already predicts so",
            "`next-labels` without the images for which an undertrained model already predicts the new label.",
            "next-labels-unread", source_model="undertrained", source_dataset="next-labels", labels="next", group="controls",
        ),
        DatasetSpec(
            "random-labels-robust", "relabel", "random-labels made with the adversarially trained model",
            "`random-labels` made with the adversarially trained model: its perturbations are features that this model uses.",
            "random-labels-robust", source_model="adversarial", labels="random", control_of="random-labels",
            short="made with the robust model", group="controls",
        ),
        DatasetSpec(
            "next-labels-robust", "relabel", "next-labels made with the adversarially trained model",
            "`next-labels` made with the adversarially trained model: its perturbations are features that this model uses.",
            "next-labels-robust", source_model="adversarial", labels="next", control_of="next-labels",
            short="made with the robust model", group="controls",
        ),
        DatasetSpec(
            "next-labels-non-transferable", "relabel", "control: next-labels, but three other models keep the original label",
            "Control: `next-labels`, but three other standard models keep predicting the original label. The perturbation "
            "misleads the standard model alone and is no feature of the data (Nakkiran 2019).",
            "next-labels-bugs", source_model="standard", labels="next", control_of="next-labels",
            short="non-transferable", preserved_by=INDEPENDENT_MODELS, group="controls",
        ),
        DatasetSpec(
            "misclassified-only", "misclassified", "control: only images that an undertrained model misclassifies, unperturbed",
            "Control: only the images that an undertrained model (two epochs at a low learning rate) misclassifies, "
            "unperturbed, with its predictions as labels (Wallace 2019).",
            "errors-only", source_model="undertrained", labels="predicted", short="undertrained model's errors",
            group="controls",
        ),
        DatasetSpec(
            "unrelated-photos", "unrelated_photos", "control: crops of two unrelated photographs, labeled by the standard model",
            "Control: crops of two photographs, a temple and a flower, with the standard model's predictions as labels "
            "(Wallace 2019).",
            "photographs", source_model="standard", labels="predicted", short="unrelated photos", group="controls",
        ),
        DatasetSpec(
            "robust-strong", "invert", "stronger D_R: eight versions of each image that two robust models classify correctly",
            "A stronger D_R. Of each image that two adversarially trained models together classify correctly there are eight "
            "versions, four from each model. Each was optimized from another, random training image "
            + _INVERTED.format("model"),
            "robust-strong", source_model="adversarial", other_models=(SECOND_SOURCE,), versions=STRONG_VERSIONS,
            group="strong",
        ),
        DatasetSpec(
            "correct-only", "correct", "control: the original images that two robust models classify correctly",
            "Control of `robust-strong`: the original images that the two adversarially trained models together classify "
            "correctly, unperturbed.",
            "correct-only", source_model="adversarial", other_models=(SECOND_SOURCE,), control_of="robust-strong",
            short="original images", group="strong",
        ),
        DatasetSpec(
            "robust-from-noise", "invert", "D_R, features inverted from noise",
            "D_R with uniform noise as the starting point: the other of the paper's two ways (appendix D.1).",
            "robust-noise", source_model="adversarial", start="noise", group="replication",
        ),
        DatasetSpec(
            "nonrobust-from-noise", "invert", "D_NR, features inverted from noise",
            "D_NR with uniform noise as the starting point.",
            "nonrobust-noise", source_model="standard", start="noise", group="replication",
        ),
        DatasetSpec(
            "random-labels-incl-true-robust", "relabel", "random-labels-incl-true made with the adversarially trained model",
            "`random-labels-incl-true` made with the adversarially trained model (table 9 of the paper).",
            "random-labels-any-robust", source_model="adversarial", labels="random_incl_true", group="replication",
        ),
    )
}  # fmt: skip
EXTENSIONS = registered()
EXTENSIONS.check_names(DATASETS)


def _own(part: Control | OwnConstruction) -> DatasetSpec:
    """The spec of a data set of the user's own."""
    words, seed_key = f"constructed by {part.construct}: {part.title}.", f"own-{part.name}"
    if isinstance(part, Control):
        return DatasetSpec(
            part.name,
            "own_control",
            f"control: {part.title}",
            f"A control of your own, {words}",
            seed_key,
            source_model="standard",
            source_dataset=part.control_of,
            control_of=part.control_of,
            short=part.short,
            group="own",
            function=part.construct,
        )
    return DatasetSpec(
        part.name, "own", part.title, f"A construction of your own, {words}", seed_key,
        source_model="standard", other_models=("adversarial",), group="own", function=part.construct,
    )  # fmt: skip


DATASETS |= {part.name: _own(part) for part in EXTENSIONS.datasets}
PAPER_NAMES = {"robust": "D_R", "nonrobust": "D_NR", "random-labels": "D_rand", "next-labels": "D_det"}
STRONG_DATASETS = tuple(name for name, spec in DATASETS.items() if spec.group == "strong")
QUICK = tuple(name for name, spec in DATASETS.items() if spec.group == "quick")
CONTROL_DATASETS = tuple(name for name, spec in DATASETS.items() if spec.group == "controls")
OWN_DATASETS = tuple(part.name for part in EXTENSIONS.datasets)
REPLICATION_DATASETS = tuple(name for name, spec in DATASETS.items() if spec.group == "replication")
TEST_SETS = ("test", "test-next", "test-training-attack")
# Rows of the column `set` in tables: the constructed sets and these
SETS: dict[str, str] = {
    "test": "test images, never trained on",
    "test-next": "test images, counted by the next class",
    "test-training-attack": "test images, under the attack of adversarial training",
    "original": "the original training images",
    **{name: spec.title for name, spec in DATASETS.items()},
}
