"""How the data sets of the catalog are constructed: the stage, the constructions by name, and the dataset card."""

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch

from notbugs import __version__, construct, data, metrics
from notbugs.construct import Constructed, ConstructionStats
from notbugs.construct.base import perturbation_norms
from notbugs.data import Dataset, markdown, synthetic
from notbugs.errors import InputError
from notbugs.extensions.registry import function_of
from notbugs.models import Model
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, epsilon_text
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.study import SetRow, SyntheticTruthRow
from notbugs.search import NormBall
from notbugs.study.catalog.datasets import Construction, DatasetSpec
from notbugs.study.config import ResolvedConfig, load, written_form
from notbugs.study.epsilon import neighbor_distances
from notbugs.study.given import GIVEN
from notbugs.study.resolve import MIN_IMAGES
from notbugs.study.store import dataset_path, derive_seed, load_dataset, load_model

ENLARGED = 4  # times at most that a relabeling epsilon is enlarged
SOURCE_IMAGES = 1000  # test images at most on which the models are evaluated that D_R and D_NR are made from
NOT_ON_CARD = ("written", "source_accuracy", "source_ci_low", "source_ci_high", "source_images")  # or in words
PILOT_IMAGES = 200  # on which it is tried which epsilon is enough
PHOTO_CROPS = 4  # unrelated images for each that is kept: classes are more balanced then


def build_dataset(config: ResolvedConfig, folder: Path, seed: int, attempt: Attempt, *, spec: DatasetSpec) -> list[SetRow]:
    """Stage: construct one data set and write it; one that cannot be trained on is not written."""
    began, splits = time.perf_counter(), load(config, seed)
    images = versions_of(config, spec) * len(splits.train)
    context = BuildContext(config, folder, seed, spec, splits.train, count_progress(images, attempt))
    form = written_form(config, splits)
    with data.made_as(form):
        made = CONSTRUCTIONS[spec.construction](context)
    stats = {**asdict(made.stats), "epsilon": _relabel_epsilon(context, made) if spec.is_relabeled else None}
    seconds = round(time.perf_counter() - began, 2)
    row = SetRow(
        set=spec.name,
        seed=seed,
        made_from=spec.made_from,
        seconds=seconds,
        empty_classes=", ".join(data.empty_classes(made.dataset)) or None,
        written=is_trainable(made.dataset),
        **_source(context, splits.test),
        **stats,
    )
    if row.written and attempt.publishes:
        original = _with_old_labels(made.dataset, splits.train)
        origin = data.origin_of(config.dataset, splits)
        data.export(
            made.dataset,
            dataset_path(config, attempt.folder, seed, spec.name),
            form,
            card=_card(config, spec, row),
            original=original,
            origin=origin,
        )
    return [row]


def synthetic_truth(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[SyntheticTruthRow]:
    """Stage: the true features of each synthetic image."""
    splits = load(config, seed)
    made = synthetic.make_synthetic(seed=seed, train=len(splits.train), test=len(splits.test))
    return [
        SyntheticTruthRow(
            file=name,
            split=split,
            seed=seed,
            label=part.classes[int(part.labels[index])],
            shape_class=part.classes[truth.shape_class[index]],
            texture_class=part.classes[truth.texture_class[index]],
            light_background=bool(truth.light_background[index]),
        )
        for split, part, truth in (("train", made.train, made.train_truth), ("test", made.test, made.test_truth))
        for index, name in enumerate(part.names)
    ]


def versions_of(config: ResolvedConfig, spec: DatasetSpec) -> int:
    """Versions of each image in a data set."""
    return (spec.versions or config.versions) if spec.is_inverted else 1


def is_trainable(dataset: Dataset) -> bool:
    """Whether there are enough images, of two classes or more: a model's errors may be too few, or all of one class."""
    return len(dataset) >= MIN_IMAGES and int(dataset.labels.max()) > int(dataset.labels.min())


# ---- constructions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildContext:
    """What a construction needs. seed: the study's; original: the training images; progress: called with counts of images."""

    config: ResolvedConfig
    folder: Path
    seed: int
    spec: DatasetSpec
    original: Dataset
    progress: Callable[[int], None]

    @property
    def random_seed(self) -> int:
        """The data set's."""
        return derive_seed(self.seed, self.spec.seed_key)

    def model(self) -> Model:
        """The model it is constructed with."""
        return load_model(self.config, self.folder, self.seed, self.spec.source_model)

    def models(self) -> list[Model]:
        """All models it is constructed with."""
        names = (self.spec.source_model, *self.spec.other_models)
        return [load_model(self.config, self.folder, self.seed, name) for name in names]

    def source(self) -> Dataset:
        """The constructed data set it starts from, as it is stored."""
        return load_dataset(self.config, self.folder, self.seed, self.spec.source_dataset)


def _invert(context: BuildContext) -> Constructed:
    config = context.config
    return construct.invert_features(
        context.models() if context.spec.other_models else context.model(),
        _correct(context).dataset if context.spec.other_models else context.original,
        start=context.spec.start or config.invert_start,
        steps=config.invert_steps,
        versions=versions_of(config, context.spec),
        seed=context.random_seed,
        bf16=config.bf16,
        compile=config.compile,
        device=config.device,
        progress=context.progress,
    )


def _relabel(context: BuildContext) -> Constructed:
    config, spec = context.config, context.spec
    labels, classes = context.original.labels, len(context.original.classes)
    if spec.labels == "next":
        targets = construct.next_labels(labels, classes)
    else:
        include_true = spec.labels == "random_incl_true"
        targets = construct.random_labels(
            labels, classes, include_true=include_true, seed=context.random_seed, stratified=config.stratified_targets
        )
    relabel = partial(
        construct.relabel,
        context.model(),
        steps=config.relabel_steps,
        keep_label_on=[load_model(config, context.folder, context.seed, name) for name in spec.preserved_by],
        bf16=config.bf16,
        compile=config.compile,
        device=config.device,
    )
    if spec.control_of:  # perturbations of the same size, however many of these images reach their label
        same_size = replace(config.relabel_threat_model, epsilon=_epsilon_of(context, spec.control_of))
        return relabel(context.original, targets, threat_model=same_size, progress=context.progress)
    made = relabel(context.original, targets, threat_model=config.relabel_threat_model, progress=context.progress)
    if _reached(made) >= config.relabel_reach:
        return made
    if not (larger := _larger_epsilons(context)):
        return made
    index = torch.randperm(len(targets), generator=torch.Generator().manual_seed(context.random_seed))[:PILOT_IMAGES]
    sample = partial(relabel, context.original.select(index), targets[index])
    # the larger epsilon is, the more images reach their label: three tries at most find the first that is enough, if any is
    enough = bisect_left(larger, config.relabel_reach, key=lambda each: _reached(sample(threat_model=each)))
    return relabel(context.original, targets, threat_model=[*larger, larger[-1]][enough], progress=context.progress)


def _reached(made: Constructed) -> float:
    """The share of the images that reached their new label."""
    return made.stats.target_reached or 0.0


def _larger_epsilons(context: BuildContext) -> list[NormBall]:
    """Threat models, each larger by half, as long as an image cannot become one of another class within them."""
    threat_model = context.config.relabel_threat_model
    nearest = neighbor_distances(context.original, threat_model.norm).other_class
    larger: list[NormBall] = []
    for _ in range(ENLARGED):
        threat_model = replace(threat_model, epsilon=float(f"{1.5 * threat_model.epsilon:.4g}"))
        larger += [threat_model] if threat_model.epsilon < nearest else []
    return larger


def _relabel_epsilon(context: BuildContext, made: Constructed) -> float:
    """Epsilon of a relabeled set; of a control that of the set it was made from."""
    if made.stats.epsilon is not None or not context.spec.source_dataset:
        return made.stats.epsilon or context.config.relabel_epsilon
    return _epsilon_of(context, context.spec.source_dataset)


def _epsilon_of(context: BuildContext, name: str) -> float:
    """Epsilon of a relabeled set that is finished."""
    rows = RunFolder.read(context.folder).rows(SetRow)
    found = [row.epsilon for row in rows if (row.set, row.seed) == (name, context.seed)]
    return found[0] if found and found[0] is not None else context.config.relabel_epsilon


def _shuffle(context: BuildContext) -> Constructed:
    return construct.shuffled_perturbations(context.original, context.source(), seed=context.random_seed)


def _own_control(context: BuildContext) -> Constructed:
    """With the share of images that the model of the controlled set predicts as their new label, too."""
    model = context.model()
    made = _own_set(context, relabeled=context.source(), model=model)
    if not len(made.dataset):
        return made
    reached = metrics.clean_accuracy(model, made.dataset, device=context.config.device).accuracy
    return made._replace(stats=replace(made.stats, target_reached=reached))


def _own(context: BuildContext) -> Constructed:
    model, robust_model = context.models()
    return _own_set(context, model=model, robust_model=robust_model)


def _own_set(context: BuildContext, **given: object) -> Constructed:
    """A set of the user's own, which is checked: same classes, same size of images."""
    made = function_of(context.spec.function)(original=context.original, seed=context.random_seed, **given)
    if not isinstance(made, Dataset) or made.classes != context.original.classes or made.shape != context.original.shape:
        got = f"{len(made.classes)} classes of {made.shape}" if isinstance(made, Dataset) else type(made).__name__
        raise InputError(context.spec.function, "must return a Dataset with the classes and the image size of the original", got)
    same = made.names == context.original.names
    relabeled = int((made.labels != context.original.labels).sum()) if same else 0
    norms = perturbation_norms(context.original, made.images[:])._asdict() if same else {}
    return Constructed(made, ConstructionStats(n=len(made), relabeled=relabeled, **norms))


def _class_patterns(context: BuildContext) -> Constructed:
    relabeled = context.source()
    correct = relabeled.labels == context.original.labels if context.spec.leave_correct else None
    return construct.class_patterns(context.original, relabeled, seed=context.random_seed, unperturbed=correct)


def _filter(context: BuildContext) -> Constructed:
    return construct.drop_already_predicted(context.model(), context.original, context.source(), device=context.config.device)


def _misclassified(context: BuildContext) -> Constructed:
    return construct.misclassified_only(context.model(), context.original, device=context.config.device)


def _correct(context: BuildContext) -> Constructed:
    return construct.correct_only(context.models(), context.original, device=context.config.device)


def _unrelated_photos(context: BuildContext) -> Constructed:
    count, seed = len(context.original), context.random_seed
    crops = data.photo_crops(PHOTO_CROPS * count, context.original, seed=seed)
    return construct.pseudo_label(context.model(), crops, count=count, seed=seed, device=context.config.device)


CONSTRUCTIONS: Mapping[Construction, Callable[[BuildContext], Constructed]] = {
    "invert": _invert,
    "relabel": _relabel,
    "shuffle": _shuffle,
    "class_patterns": _class_patterns,
    "filter": _filter,
    "misclassified": _misclassified,
    "correct": _correct,
    "unrelated_photos": _unrelated_photos,
    "own": _own,
    "own_control": _own_control,
}


# ---- parts -----------------------------------------------------------------------------------------------------------------


def count_progress(total: int, report_progress: Progress) -> Callable[[int], None]:
    """A callback that adds up counts of images and reports their sum."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        again = (done - 1) % total + 1  # a set may be constructed again, at a larger epsilon
        report_progress("", again / total, f"{again} of {total} images")

    return progress


def _with_old_labels(constructed: Dataset, original: Dataset) -> Dataset | None:
    """The constructed data set with the labels of the original files; None if not all of its files are original ones."""
    index = {file: number for number, file in enumerate(original.names)}
    found = [index[file] for file in constructed.names if file in index]
    return constructed.with_labels(original.labels[found]) if len(found) == len(constructed) else None


class _Source(TypedDict, total=False):
    """Columns of `SetRow`."""

    source_accuracy: float
    source_ci_low: float
    source_ci_high: float
    source_images: int


def _source(context: "BuildContext", test: Dataset) -> _Source:
    """How good the model is that a set is inverted from: of a weak one nothing is to be expected. Nothing for other sets."""
    if context.spec.construction != "invert" or not len(test):
        return {}
    part = data.random_subset(test, SOURCE_IMAGES)
    found = metrics.clean_accuracy(context.model(), part, device=context.config.device)
    return {
        "source_accuracy": found.accuracy,
        "source_ci_low": found.ci_low,
        "source_ci_high": found.ci_high,
        "source_images": found.n,
    }


def _card(config: ResolvedConfig, spec: DatasetSpec, row: SetRow) -> str:
    """The text of the data set's README.md."""
    versions = versions_of(config, spec)
    several = versions > 1
    how = f"{versions} versions of each image, the second called NAME~2" if several else "image for image"
    lines = [f"# {spec.name}", "", spec.description, ""]
    lines += [f"Constructed by notbugs {__version__} from {markdown.code(Path(config.dataset).name)}, {how}.", ""]
    if config.model is not None and spec.source_model == GIVEN:
        lines += [f"The standard model was given: {markdown.code(Path(config.model).name)}.", ""]
    lines += [
        f"- {column}: {markdown.plain(str(value))}"
        for column, value in cells(row).items()
        if value is not None and column not in NOT_ON_CARD
    ]
    if row.source_accuracy is not None and row.source_ci_low is not None and row.source_ci_high is not None:
        ends = f"[{100 * row.source_ci_low:.1f}, {100 * row.source_ci_high:.1f}]"
        accuracy = f"{100 * row.source_accuracy:.1f} %, 95 % CI {ends} on {row.source_images} test images"
        lines.append(f"- clean accuracy of the model that it was made from: {accuracy}")
    size = "x".join(map(str, load(config).train.shape[1:]))
    resized = f", made by resizing ({config.resize_mode}): test on images that are resized alike" if config.resize else ""
    lines.append(f"- pixels: {size}{resized}")
    lines.append(
        f"- threat model of the study: {NORM_NAMES[config.norm]} epsilon {epsilon_text(config.epsilon)}, pixels in [0, 1]"
    )
    lines += ["", "Source of the method: Ilyas et al., Adversarial Examples Are Not Bugs, They Are Features, 2019.", ""]
    return "\n".join(lines)
