"""Every data set and every model of a study, as data: what each is made from, and how it is called. Imports no torch.

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
Role = Literal["main", "reference", "source", "strong", "control", "replication", "transfer", "own"]
Loss = Literal["standard", "adversarial", "trades"]

ORIGINAL = "original"  # the data set as it was loaded
# Share of images: while fewer reach their new label, the epsilon of relabeling grows, and a set of which fewer do shows nothing
MIN_TARGET_REACHED = 0.75  # at least 0.76 in docs/results


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


@dataclass(frozen=True)
class ModelSpec:
    """One classifier of a study.

    Attributes
    ----------
    name : str
        Also its file in models/ and the column `model` of tables.
    title : str
        For tables, one line.
    trained_on : str
        "original" or the name of a constructed set.
    loss : {"standard", "adversarial", "trades"}
    epsilon_fraction : float
        Of the study's epsilon, for adversarial training.
    architecture : str
        "" for the configured one.
    init_from : str
        The model whose initial weights it starts from; "" for its own.
    epochs : int or None
        None for the configured number.
    learning_rate_factor : float
    steps : float or None
        Training steps, relative to those on the original images; None: as many epochs as there, fewer on a larger set.
    noise : float
        Standard deviation of Gaussian noise that augmentation adds, pixels in [0, 1].
    attack_budget : {"quick", "standard"}
        Of its evaluation; quick at the full epsilon only.
    seed_key : str
        What its random seed is derived from. It never changes.
    role : str
        main: a row of the main table; reference: beside them, where the standard model was given; source: only used to construct;
        strong: of `--robust-strong`; control: trained on a control; replication; transfer: source or target of transfer;
        own: trained on a set of the user's own.
    """

    name: str
    title: str
    seed_key: str
    trained_on: str = ORIGINAL
    loss: Loss = "standard"
    epsilon_fraction: float = 1.0
    architecture: str = ""
    init_from: str = ""
    epochs: int | None = None
    learning_rate_factor: float = 1.0
    steps: float | None = None
    noise: float = 0.0
    attack_budget: Literal["quick", "standard"] = "standard"
    role: Role = "main"


# ---- data sets -------------------------------------------------------------------------------------------------------------

SECOND_SOURCE = "adversarial-2"
STRONG_VERSIONS, STRONG_STEPS, STRONG_NOISE = 8, 4.0, 0.05  # chosen on CIFAR-10: docs/results/robust-data.md
INDEPENDENT_MODELS = ("reinit-2", "reinit-3", "reinit-4")  # must keep the original label of next-labels-non-transferable

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
# Rows of the column `set` in tables: the constructed sets and these
SETS: dict[str, str] = {
    "test": "test images, never trained on",
    "test-next": "test images, counted by the next class",
    "original": "the original training images",
    **{name: spec.title for name, spec in DATASETS.items()},
}

# ---- models ----------------------------------------------------------------------------------------------------------------

ARCHITECTURES = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet", "inception": "Inception", "mixer": "MLP-Mixer"}
LEARNERS = {
    "logistic-regression": "logistic regression",
    "linear-svm": "linear SVM",
    "rbf-svm": "RBF SVM",
    "random-forest": "random forest",
    "boosting": "gradient-boosted trees",
    "nearest-neighbors": "5 nearest neighbors",
}
# Models adversarially trained at a share of epsilon: do slightly robust sources transfer best?
EPSILON_SWEEP = {
    "adversarial-sixteenth": 1 / 16,
    "adversarial-eighth": 1 / 8,
    "adversarial-quarter": 1 / 4,
    "adversarial-half": 1 / 2,
}
EPSILON_TEXTS = {
    "standard": "0",
    "adversarial-sixteenth": "ε/16",
    "adversarial-eighth": "ε/8",
    "adversarial-quarter": "ε/4",
    "adversarial-half": "ε/2",
    "adversarial": "ε",
}


def trained_on(dataset: str) -> str:
    """The model trained on a constructed set."""
    return f"trained-on-{dataset}"


def dataset_of(model: ModelSpec) -> DatasetSpec | None:
    """The constructed data set that a model is trained on; None for the original images."""
    return DATASETS.get(model.trained_on)


# Of the model trained on a set of each group
ROLES: dict[Group, Role] = {
    "quick": "main", "strong": "strong", "controls": "control", "replication": "replication", "own": "own"
}  # fmt: skip


def _models() -> dict[str, ModelSpec]:
    specs = [
        ModelSpec("standard", "standard training on the original images", "standard"),
        ModelSpec(
            "adversarial", "adversarial training (training on worst-case perturbed images)", "adversarial", loss="adversarial"
        ),
        ModelSpec(
            SECOND_SOURCE,
            "adversarial training from another random initialization",
            SECOND_SOURCE,
            loss="adversarial",
            role="source",
        ),
        # what `standard` would be, had no model been given: hence its seed key
        ModelSpec("reference", "standard training of the study's network, beside the given model", "standard", role="reference"),
    ]
    specs += [
        ModelSpec(
            trained_on(name),
            spec.title,
            f"on-{spec.seed_key}",
            trained_on=name,
            role=ROLES[spec.group],
            steps=STRONG_STEPS if spec.group == "strong" else None,
            noise=STRONG_NOISE if spec.group == "strong" else 0.0,
        )
        for name, spec in DATASETS.items()
    ]
    # The undertrained model: at the usual learning rate it hardly errs on easy images (docs/lab-log.md)
    transfer = [
        ModelSpec("undertrained", "two epochs at a low learning rate", "early", epochs=2, learning_rate_factor=0.05),
        ModelSpec(
            "robust-linear", "adversarially trained linear classifier", "robust-linear", loss="adversarial", architecture="linear"
        ),
        ModelSpec(
            "same-init", "the study's network, the same initialization, other training", "same-start", init_from="standard"
        ),
    ]
    transfer += [
        ModelSpec(f"reinit-{k}", "the study's network, another random initialization", f"fresh-{k}") for k in (1, 2, 3, 4)
    ]
    transfer += [
        ModelSpec(name, f"adversarial training at {EPSILON_TEXTS[name]}", name, loss="adversarial", epsilon_fraction=share)
        for name, share in EPSILON_SWEEP.items()
    ]
    transfer += [ModelSpec(name, title, name, architecture=name) for name, title in ARCHITECTURES.items()]
    transfer += [
        ModelSpec(f"{name}-trained-on-next-labels", f"{title} trained on next-labels", f"{name}-on-next-labels",
                  trained_on="next-labels", architecture=name)
        for name, title in ARCHITECTURES.items()
    ]  # fmt: skip
    transfer += [
        ModelSpec(f"{trained_on(name)}-same-init", f"trained on {name} from the source's initialization", f"on-{name}-same-start",
                  trained_on=name, init_from="standard")
        for name in ("random-labels", "next-labels")
    ]  # fmt: skip
    # No claim rests on how robust these are: a quick attack at the full epsilon will do
    specs += [ModelSpec(**{**vars(spec), "attack_budget": "quick", "role": "transfer"}) for spec in transfer]
    return {spec.name: spec for spec in specs}


MODELS: dict[str, ModelSpec] = _models()
MAIN_MODELS = tuple(name for name, spec in MODELS.items() if spec.role == "main")
OWN_MODELS = tuple(trained_on(name) for name in OWN_DATASETS)
STRONG_MODELS = tuple(name for name, spec in MODELS.items() if spec.role == "strong")
# rows of the main table
TABLE_MODELS = ("standard", "reference", *(name for name in MAIN_MODELS if name != "standard"), *STRONG_MODELS, *OWN_MODELS)
ANALYZED_MODELS = ("standard", "adversarial", "trained-on-robust", "trained-on-nonrobust")
ANALYZED_TITLES = {
    "standard": "the standard classifier",
    "adversarial": "the adversarially trained one",
    "trained-on-robust": "the one trained on D_R",
    "trained-on-nonrobust": "the one trained on D_NR",
}
