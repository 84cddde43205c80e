"""The recipes of robust_data.py: how a robust version of a data set is made, and how ordinary training on it is done.

Why each might help was written down before it was measured; what came out is in docs/results/robust-data.md.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import Row
from torch import Generator, Tensor, nn

import notbugs.train as train
from notbugs import attacks, construct, data, metrics, models
from notbugs.data import Dataset, from_8bit, to_8bit
from notbugs.search import NormBall
from notbugs.study.classifiers import pixel_statistics
from notbugs.study.store import derive_seed

EPSILON = 0.5  # L2, as in the paper
STEPS = 40  # of the inversion
DISTURB_STEPS = 10
LARGE_BATCH = 4000  # images of constructions: small networks leave a GPU idle
TRANSLATE = 4
THREAT_MODELS = (NormBall("l2", EPSILON / 2), NormBall("l2", EPSILON))


@dataclass(frozen=True, order=True)
class Source:
    """A model that constructions use, trained on the original images.

    Attributes
    ----------
    epsilon : float
        Of its adversarial training, relative to `EPSILON`; 0: standard training.
    width, epochs : float
        Relative to those of the classifiers.
    replica : int
        Another one trains the same from other initial weights.
    """

    epsilon: float = 1
    width: float = 1
    epochs: float = 1
    replica: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        return f"epsilon{self.epsilon:g}-width{self.width:g}-epochs{self.epochs:g}-{self.replica}"


@dataclass(frozen=True)
class Construction:
    """How the images are made.

    Attributes
    ----------
    base : {"inverted", "original", "adversarial stream"}
        Inverted features; the images as they are; or every adversarial example of the training of a further robust model.
    sources : tuple of Source
        Models whose features are inverted: a version of each image from each, in turn.
    versions : int
        Of each image, each from another start.
    start : {"image", "noise"}
    matched_under : {"", "shift", "noise"}
        Features have to match under random translations, or noise, that change at every step.
    keep : {"all", "correct", "robust at half", "robust"}
        Drop images that the sources together misclassify: clean, or under attack at half of epsilon or at epsilon.
    labels : {"true", "predicted", "soft"}
        Or the class that the sources together predict, or the probabilities that they predict for the constructed image.
    strengthen : float
        The features wanted are those of the image after a perturbation towards its own class, within so many epsilon.
    disturb : float
        Afterwards each image gets a perturbation of so many epsilon towards a random class, of ordinary classifiers that were
        trained on the set so far: whatever else they use then varies regardless of the label.
    rounds : int
        How often such a classifier is trained and joins the others.
    """

    base: str = "inverted"
    sources: tuple[Source, ...] = (Source(),)
    versions: int = 1
    start: str = "image"
    steps: int = STEPS
    matched_under: str = ""
    keep: str = "all"
    labels: str = "true"
    strengthen: float = 0
    disturb: float = 0
    rounds: int = 0


@dataclass(frozen=True)
class Training:
    """How ordinary training is done, beyond translations and flips.

    Attributes
    ----------
    steps, weight_decay : float
        Relative to the default.
    noise : float
        Standard deviation of Gaussian noise that is added to each image.
    cutout : int
        Side of a square that is blanked.
    mixup : bool
        Mix pairs of images and their labels (Zhang et al. 2018).
    smoothing : float
        Share of each label that goes to all classes alike (Szegedy et al. 2016).
    adapted : bool
        Afterwards the batch-norm statistics are taken from the original images, without their labels.
    """

    steps: float = 1
    weight_decay: float = 1
    noise: float = 0
    cutout: int = 0
    mixup: bool = False
    smoothing: float = 0
    adapted: bool = False


@dataclass(frozen=True)
class Recipe:
    """A construction and a training on it; without a construction: the default source itself."""

    construction: Construction | None
    training: Training = Training()

    @property
    def sources(self) -> tuple[Source, ...]:
        """Models that must exist before."""
        if self.construction is None:
            return (Source(),)
        return self.construction.sources if self.construction.base != "adversarial stream" else ()


STRONG, WIDE, STRONG_WIDE = Source(epsilon=2), Source(width=4), Source(epsilon=2, width=4)
FOUR_STRONG_WIDE = tuple(replace(STRONG_WIDE, replica=replica) for replica in range(4))
FOUR_STRONGEST_WIDE = tuple(Source(epsilon=3, width=4, replica=replica) for replica in range(4))
FOUR_SOURCES = tuple(Source(replica=replica) for replica in range(4))
FOUR_STRONGER = tuple(Source(epsilon=1.5, replica=replica) for replica in range(4))
ORIGINAL = Construction(base="original")
FOUR = Construction(versions=4)
EIGHT = Construction(versions=8)
CORRECT = replace(FOUR, keep="correct")
CORRECT_FOUR_SOURCES = replace(CORRECT, sources=FOUR_SOURCES)
CORRECT_STRONGER = replace(CORRECT, sources=FOUR_STRONGER)
CORRECT_TWO_SOURCES = replace(CORRECT, sources=FOUR_SOURCES[:2])
PREDICTED = replace(FOUR, labels="predicted", sources=FOUR_SOURCES)
TRAININGS = {
    "": Training(),
    ", half the steps": Training(steps=0.5),
    ", twice the steps": Training(steps=2),
    ", noise 0.05": Training(noise=0.05),
    ", noise 0.1": Training(noise=0.1),
    ", mixup": Training(mixup=True),
    ", cutout": Training(cutout=10),
    ", weight decay x4": Training(weight_decay=4),
    ", batch norm adapted": Training(adapted=True),
    ", noise 0.05, twice the steps": Training(noise=0.05, steps=2),
    ", noise 0.05, four times the steps": Training(noise=0.05, steps=4),  # as many passes as adversarial training
    ", noise 0.05, eight times the steps": Training(noise=0.05, steps=8),
    ", noise 0.05, smoothing 0.3": Training(noise=0.05, smoothing=0.3),
    ", noise 0.05, twice the steps, smoothing 0.3": Training(noise=0.05, steps=2, smoothing=0.3),
}
LONGER = (", noise 0.05, twice the steps", ", noise 0.05, four times the steps")
LONG = (", noise 0.05", *LONGER, ", noise 0.05, twice the steps, smoothing 0.3")
FEW = ("", ", noise 0.05", ", mixup")
CONSTRUCTIONS: dict[str, tuple[Construction, tuple[str, ...]]] = {
    # a wide source is more accurate, one trained at 2 or 3 ε more robust: together they may be both
    "4 versions, correct files, four wide sources 2 ε": (replace(CORRECT, sources=FOUR_STRONG_WIDE), LONG),
    "4 versions, correct files, four wide sources 3 ε": (replace(CORRECT, sources=FOUR_STRONGEST_WIDE), LONG),
    # files without robust evidence for their label need not be dropped if their label says so
    "4 versions, soft labels, four wide sources 2 ε": (replace(FOUR, labels="soft", sources=FOUR_STRONG_WIDE), LONG[:3]),
    "4 versions, soft labels, four sources 1.5 ε": (replace(FOUR, labels="soft", sources=FOUR_STRONGER), LONG[:3]),
    # half the steps lowered clean and robust accuracy
    "8 versions, correct files, four sources 1.5 ε": (replace(CORRECT_STRONGER, versions=8), LONG),
    "8 versions, correct files, four sources": (
        replace(CORRECT_FOUR_SOURCES, versions=8),
        (*LONGER, ", noise 0.05, eight times the steps"),
    ),
    # several sources gain little once only correct files are kept; of 50,000 images each takes minutes
    "8 versions, correct files, two sources": (replace(CORRECT_TWO_SOURCES, versions=8), LONGER),
    "original, soft labels, four sources 1.5 ε": (replace(ORIGINAL, labels="soft", sources=FOUR_STRONGER), LONG[:2]),
    "4 versions, correct files, four sources": (CORRECT_FOUR_SOURCES, (*FEW, ", noise 0.1")),
    "4 versions, correct files, four sources 1.5 ε": (CORRECT_STRONGER, FEW),
    "4 versions, predicted labels, four sources": (PREDICTED, (*FEW, ", noise 0.1")),
    "4 versions, predicted labels, four sources 1.5 ε": (replace(PREDICTED, sources=FOUR_STRONGER), FEW),
    "4 versions, correct files": (CORRECT, tuple(TRAININGS)),
    "4 versions, correct files, sources 1, 1.5, 2, 3 ε": (
        replace(CORRECT, sources=(Source(), Source(epsilon=1.5), STRONG, Source(epsilon=3))),
        ("", ", noise 0.05"),
    ),
    "4 versions, correct at ε / 2, four sources": (replace(CORRECT_FOUR_SOURCES, keep="robust at half"), ("", ", noise 0.05")),
    "4 versions, correct files, disturbed 1 ε, 2 rounds": (replace(CORRECT, disturb=1, rounds=2), ("",)),
    "original, correct files": (replace(ORIGINAL, keep="correct"), ("", ", noise 0.05", ", noise 0.05, four times the steps")),
    "original, predicted labels": (replace(ORIGINAL, labels="predicted", sources=FOUR_SOURCES), ("",)),
    "adversarial stream": (Construction(base="adversarial stream", sources=(Source(replica=9),)), ("",)),
    "4 versions, correct files, matched under shifts": (replace(CORRECT, matched_under="shift"), ("",)),
    "4 versions, correct files, matched under noise": (replace(CORRECT, matched_under="noise"), ("",)),
    "4 versions, correct files, source of twice the width, 2 ε": (replace(CORRECT, sources=(Source(epsilon=2, width=2),)), ("",)),
    "4 versions": (FOUR, ("", ", noise 0.05")),
    "default": (Construction(), ("",)),
    "original": (ORIGINAL, ("", ", noise 0.05")),
    "4 versions, correct files, from noise": (replace(CORRECT, start="noise"), ("",)),
    "8 versions, correct files": (replace(EIGHT, keep="correct"), ("",)),
    "8 versions, robustly correct files": (replace(EIGHT, keep="robust"), ("",)),
    "8 versions, four sources": (replace(EIGHT, sources=FOUR_SOURCES), ("",)),
    "8 versions, source 3 ε": (replace(EIGHT, sources=(Source(epsilon=3),)), ("",)),
    "8 versions, strengthened 1 ε": (replace(EIGHT, strengthen=1), ("",)),
    "8 versions, strengthened 2 ε": (replace(EIGHT, strengthen=2), ("",)),
    "8 versions, strengthened 4 ε": (replace(EIGHT, strengthen=4), ("",)),
    "8 versions, wide source": (replace(EIGHT, sources=(WIDE,)), ("",)),
    "8 versions, wide source 2 ε": (replace(EIGHT, sources=(STRONG_WIDE,)), ("",)),
}
ADVERSARIAL = "adversarial training"
LESS_CLEAN = 0.01  # clean accuracy that a recipe may lose against adversarial training
RECIPES: dict[str, Recipe] = {ADVERSARIAL: Recipe(None)} | {
    name + suffix: Recipe(construction, TRAININGS[suffix])
    for name, (construction, suffixes) in CONSTRUCTIONS.items()
    for suffix in suffixes
}


def best(rows: Sequence[Row]) -> list[str]:
    """The most robust that keeps the clean accuracy of adversarial training: of all, without soft labels, with true labels."""
    clean = {row["seed"]: row["clean_accuracy"] for row in rows if row["variant"] == ADVERSARIAL}
    fair = [row for row in rows if row["variant"] != ADVERSARIAL and row["clean_accuracy"] >= clean[row["seed"]] - LESS_CLEAN]
    hard = [row for row in fair if "soft labels" not in row["variant"]]
    true = [row for row in hard if "predicted labels" not in row["variant"]]
    return [max(some, key=lambda row: row["robust_accuracy"])["variant"] for some in (fair, hard, true)]


# ---- data and models -------------------------------------------------------------------------------------------------------


@cache
def _images(dataset: str, files: int, validation: int, count: int) -> tuple[Dataset, Dataset]:
    """Training images, and those of the evaluation."""
    splits = data.load(dataset)
    evaluated = splits.train.select(slice(len(splits.train) - validation, None)) if validation else splits.test
    return splits.train.select(slice(0, files)), evaluated.select(data.evenly_spaced(min(count, len(evaluated)), len(evaluated)))


def _of(options: argparse.Namespace) -> tuple[Dataset, Dataset]:
    return _images(options.dataset, options.files, options.validation, options.images)


def _untrained(options: argparse.Namespace, key: str, seed: int, width: float = 1) -> models.Model:
    dataset, _ = _of(options)
    return models.build(
        "resnet9",
        shape=dataset.shape,
        classes=len(dataset.classes),
        width=round(width * options.width),
        seed=derive_seed(seed, key),
        **pixel_statistics(dataset),
    )


def train_source(options: argparse.Namespace, source: Source, seed: int) -> models.Model:
    """A source model; trained and kept in the cache if it is missing."""
    torch.set_num_threads(options.threads)
    path = options.cache / f"{source.name}-seed{seed}.safetensors"
    if path.exists():
        return models.load(path)[0].to(options.device)
    model = _fit_source(options, source, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    models.save(model, path, classes=list(_of(options)[0].classes), trained_on="original", seed=seed, training={})
    return model


def _fit_source(
    options: argparse.Namespace, source: Source, seed: int, record: "list[tuple[Tensor, Tensor]] | None" = None
) -> models.Model:
    """Train a source model; record: gets the adversarial examples of every step, with their labels."""
    model = _untrained(options, source.name, seed, source.width)
    loss: train.Loss = train.cross_entropy
    if source.epsilon:
        attack = partial(attacks.training_pgd, threat_model=NormBall("l2", source.epsilon * EPSILON), steps=3)
        loss = train.adversarial_loss(attack)
    if record is not None:
        loss = _recorded(attack, record)
    epochs = round(source.epochs * options.epochs)
    _fit(options, model, _of(options)[0], loss, epochs, derive_seed(seed, source.name), Training())
    return model


def _recorded(attack: Any, record: "list[tuple[Tensor, Tensor]]") -> train.Loss:
    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with models.frozen(model):
            perturbed = attack(model, images, labels)
        record.append((to_8bit(perturbed).cpu(), labels.cpu()))
        return train.cross_entropy(model, perturbed, labels)

    return loss


# ---- construction ----------------------------------------------------------------------------------------------------------


class Matched(nn.Module):
    """The features of randomly translated or noisy images while gradients are taken, and of the images as they are otherwise."""

    def __init__(self, model: Any, under: str) -> None:
        super().__init__()
        self.model, self.under = model, under

    def features(self, images: Tensor) -> Tensor:
        """Images to features (N, F)."""
        if images.requires_grad and self.under == "noise":
            images = images + 0.05 * torch.randn_like(images)
        if images.requires_grad and self.under == "shift":
            down, right = torch.randint(-2, 3, (2,)).tolist()
            images = F.pad(images, [2] * 4, mode="reflect")[..., 2 + down : 34 + down, 2 + right : 34 + right]
        result: Tensor = self.model.features(images)
        return result


def constructed(options: argparse.Namespace, recipe: Construction, seed: int) -> tuple[Dataset, float | None, float]:
    """The set that a construction makes, its mean feature error and the seconds it took; made once and kept in the cache.

    With soft labels the label of an image is its position, and each image a class of its own: see `_targets`.
    """
    torch.set_num_threads(options.threads)
    path = options.cache / f"set-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}-seed{seed}.pt"
    if not path.exists():
        started = time.perf_counter()
        dataset, error = _constructed(options, recipe, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {"images": dataset.images[:], "labels": dataset.labels, "error": error, "seconds": time.perf_counter() - started},
            path,
        )
    saved = torch.load(path, weights_only=True)
    names = tuple(map(str, range(len(saved["labels"]))))
    soft = recipe.labels == "soft"
    labels = torch.arange(len(names)) if soft else saved["labels"]
    dataset = Dataset(saved["images"], labels, names if soft else _of(options)[0].classes, names)
    return dataset, saved["error"], saved["seconds"]


def _targets(options: argparse.Namespace, recipe: Construction, dataset: Dataset, seed: int) -> Tensor:
    """Probabilities (N, K) that the sources together predict for the images of the set."""
    together = Together([train_source(options, source, seed) for source in recipe.sources]).eval()

    def predicted(images: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = together(images).softmax(1)
            return found

    return data.map_batches(predicted, dataset, batch_size=LARGE_BATCH, device=options.device).to(options.device)


def _constructed(options: argparse.Namespace, recipe: Construction, seed: int) -> tuple[Dataset, float | None]:
    original, error = _of(options)[0], None
    if recipe.base == "adversarial stream":
        record: list[tuple[Tensor, Tensor]] = []
        _fit_source(options, recipe.sources[0], seed, record)
        images, labels = (torch.cat(parts) for parts in zip(*record, strict=True))
        return Dataset(images, labels, original.classes, original.repeated_names(len(labels) // len(original))), None
    sources = [train_source(options, source, seed) for source in recipe.sources]
    wanted = _strengthened(options, sources[0], _selected(options, sources, original, recipe), recipe.strengthen)
    if recipe.base == "original":
        versions = [wanted] * recipe.versions
    else:
        made = [
            construct.invert_features(
                Matched(models.fuse_batchnorm(source, wanted.pixels(slice(0, 100)), options.device), recipe.matched_under),  # type: ignore[arg-type]
                wanted,
                start=recipe.start,
                steps=recipe.steps,
                seed=1000 * seed + version,
                batch_size=LARGE_BATCH,
                device=options.device,
            )
            for version, source in ((version, sources[version % len(sources)]) for version in range(recipe.versions))
        ]
        versions = [each.dataset for each in made]
        error = sum(each.stats.feature_error or 0.0 for each in made) / len(made)
    versions = _disturbed(options, versions, recipe, seed)
    return _joined(versions), error


class Together(nn.Module):
    """The mean logits of several models."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits (N, K)."""
        return torch.stack([part(images) for part in self.parts]).mean(0)


def _selected(options: argparse.Namespace, sources: Sequence[models.Model], dataset: Dataset, recipe: Construction) -> Dataset:
    """The files that are kept, with their labels."""
    if recipe.keep == "all" and recipe.labels != "predicted":
        return dataset
    together = Together(sources).eval()

    def predicted(images: Tensor, index: Tensor) -> Tensor:
        if radius := {"robust": EPSILON, "robust at half": EPSILON / 2}.get(recipe.keep):
            labels = dataset.labels[index].to(images.device)
            with models.frozen(together):
                images = attacks.pgd(together, images, labels, threat_model=NormBall("l2", radius), steps=10).images
        with torch.no_grad():
            found: Tensor = together(images).argmax(1)
            return found

    predictions = data.map_batches(predicted, dataset, batch_size=LARGE_BATCH, device=options.device).cpu()
    if recipe.labels == "predicted":
        return dataset.with_labels(predictions)
    return dataset.select((predictions == dataset.labels).nonzero().squeeze(1))


def _strengthened(options: argparse.Namespace, source: models.Model, dataset: Dataset, radius: float) -> Dataset:
    return _perturbed(options, source, dataset, dataset.labels, radius) if radius else dataset


def _perturbed(options: argparse.Namespace, model: models.Model, dataset: Dataset, targets: Tensor, radius: float) -> Dataset:
    """Images perturbed towards classes; labels are kept."""
    threat_model = NormBall("l2", radius * EPSILON)
    settings: dict[str, Any] = {"steps": DISTURB_STEPS, "batch_size": LARGE_BATCH, "device": options.device}
    return construct.relabel(model, dataset, targets, threat_model=threat_model, **settings).dataset.with_labels(dataset.labels)


def _disturbed(options: argparse.Namespace, versions: list[Dataset], recipe: Construction, seed: int) -> list[Dataset]:
    """The versions after all rounds: each with the perturbations of one of the classifiers trained in between."""
    classifiers: list[models.Model] = []
    result = versions
    for number in range(recipe.rounds):
        classifiers.append(_trained(options, _joined(result), Training(), f"round {number}", seed))
        result = []
        for version, dataset in enumerate(versions):
            targets = construct.random_labels(dataset.labels, len(dataset.classes), include_true=True, seed=1000 * seed + version)
            result.append(_perturbed(options, classifiers[version % len(classifiers)], dataset, targets, recipe.disturb))
    return result


def _joined(parts: Sequence[Dataset]) -> Dataset:
    """Data sets one after another."""
    names = tuple(f"{number}/{name}" for number, part in enumerate(parts) for name in part.names)
    images = torch.cat([part.images[:] for part in parts])
    return Dataset(images, torch.cat([part.labels for part in parts]), parts[0].classes, names)


# ---- training and evaluation -----------------------------------------------------------------------------------------------


def measure_recipe(options: argparse.Namespace, name: str, seed: int) -> Row:
    """The row of a recipe: accuracy after ordinary training, clean and under attack."""
    torch.set_num_threads(options.threads)
    construction, path = RECIPES[name].construction, model_path(options, name, seed)
    if construction is None or path.exists():
        return {"variant": name, **_accuracies(options, models.load(path)[0])}
    dataset, error, seconds = constructed(options, construction, seed)
    started = time.perf_counter()
    targets = _targets(options, construction, dataset, seed) if construction.labels == "soft" else None
    model = _trained(options, dataset, RECIPES[name].training, "second training", seed, targets)
    row: Row = {"seconds": seconds, "training_seconds": time.perf_counter() - started, "training_images": len(dataset)}
    if error is not None:
        row["feature_error"] = error
    models.save(model, path, classes=list(_of(options)[0].classes), trained_on=name, seed=seed, training={})
    return {"variant": name, **_accuracies(options, model), **row}


def model_path(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Where the model of a recipe is kept."""
    recipe = RECIPES[name]
    key = Source().name if recipe.construction is None else f"recipe-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    path: Path = options.cache / f"{key}-seed{seed}.safetensors"
    return path


def _trained(
    options: argparse.Namespace, dataset: Dataset, training: Training, key: str, seed: int, targets: Tensor | None = None
) -> models.Model:
    """Ordinary training, with as many steps as on one version of each image; targets: soft labels (N, K)."""
    model = _untrained(options, key, seed)
    loss = partial(_cross_entropy, smoothing=training.smoothing, targets=targets)
    if training.mixup:
        loss = partial(_mixup_loss, generator=Generator(options.device).manual_seed(seed))
    epochs = max(1, round(training.steps * options.epochs * options.files / len(dataset)))
    _fit(options, model, dataset, loss, epochs, derive_seed(seed, key), training)
    if training.adapted:
        train.adapt_batchnorm(model, _of(options)[0], device=options.device)
    return model


def _fit(
    options: argparse.Namespace,
    model: models.Model,
    dataset: Dataset,
    loss: train.Loss,
    epochs: int,
    seed: int,
    training: Training,
) -> None:
    train.fit(
        model,
        dataset,
        loss,
        epochs=epochs,
        batch_size=options.batch_size,
        learning_rate=0.01,
        weight_decay=0.05 * training.weight_decay,
        augment=_augmentation(training),
        seed=seed,
        device=options.device,
    )


def _augmentation(training: Training) -> train.Augment:
    translate = train.random_translate(TRANSLATE, flip=True)

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = translate(images, generator)
        if training.noise:
            images = images + training.noise * torch.randn(images.shape, generator=generator, device=images.device)
        if training.cutout:
            images = images * _outside_square(images, training.cutout, generator)
        return images

    return augment


def _outside_square(images: Tensor, side: int, generator: Generator) -> Tensor:
    """A mask (N, 1, H, W) that is 0 in a square around a random pixel."""
    count, _, height, width = images.shape
    near = []
    for size in (height, width):
        center = torch.randint(size, (count, 1), generator=generator, device=images.device)
        near.append((torch.arange(size, device=images.device) - center).abs() <= side // 2)
    return (~(near[0][:, :, None] & near[1][:, None, :])).float()[:, None]


def _cross_entropy(
    model: nn.Module, images: Tensor, labels: Tensor, *, smoothing: float, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    logits = model(images)
    return F.cross_entropy(logits, labels if targets is None else targets[labels], label_smoothing=smoothing), logits


def _mixup_loss(model: nn.Module, images: Tensor, labels: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
    share = float(torch.rand((), generator=generator, device=images.device))
    order = torch.randperm(len(images), generator=generator, device=images.device)
    logits = model(share * images + (1 - share) * images[order])
    return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[order]), logits


def _accuracies(options: argparse.Namespace, model: models.Model) -> Row:
    evaluated = _of(options)[1]
    clean, half, full = metrics.robust_accuracy(model, evaluated, THREAT_MODELS, budget=options.budget, device=options.device)
    row: Row = {
        "clean_accuracy": clean.accuracy,
        "robust_accuracy_half_epsilon": half.accuracy,
        "robust_accuracy": full.accuracy,
        "n": clean.n,
    }
    if options.autoattack:
        row |= _autoattack(
            options, model, evaluated.select(data.evenly_spaced(min(options.autoattack, len(evaluated)), len(evaluated)))
        )
    return row


def _autoattack(options: argparse.Namespace, model: models.Model, dataset: Dataset) -> Row:
    """Images that are still classified correctly under AutoAttack, at epsilon."""
    import torchattacks

    images, labels = from_8bit(dataset.images[:]).to(options.device), dataset.labels.to(options.device)
    fused = models.fuse_batchnorm(model, images[:2], options.device)
    attack = torchattacks.AutoAttack(fused, norm="L2", eps=EPSILON, n_classes=len(dataset.classes), seed=0)
    started = time.perf_counter()
    with models.frozen(fused):
        perturbed = attack(images, labels)
        correct = int((fused(perturbed).argmax(1) == labels).sum())
    seconds = time.perf_counter() - started
    ensemble = metrics.robust_accuracy(model, dataset, THREAT_MODELS[1:], device=options.device)[-1]
    return {
        "autoattack_n": len(labels),
        "autoattack_correct": correct,
        "correct": ensemble.correct,
        "autoattack_seconds": seconds,
    }
