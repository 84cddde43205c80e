"""The models of a study, as data: what each is trained on, and how it is called. Imports no torch.

Nobody parses a name: what a name stands for is looked up here.
"""

from dataclasses import dataclass
from typing import Literal

from notbugs.study.catalog.datasets import DATASETS, ORIGINAL, OWN_DATASETS, SECOND_SOURCE, DatasetSpec, Group

Role = Literal["main", "reference", "source", "strong", "control", "replication", "transfer", "own"]
Loss = Literal["standard", "adversarial", "trades"]

STRONG_STEPS = 4.0  # chosen on CIFAR-10: docs/results/robust-data.md
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
    noise : float or None
        Standard deviation of Gaussian noise that augmentation adds, pixels in [0, 1]; None: by epsilon (`classifiers.noise_std`).
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
    noise: float | None = 0.0
    attack_budget: Literal["quick", "standard"] = "standard"
    role: Role = "main"


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
            noise=None if spec.group == "strong" else 0.0,
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
