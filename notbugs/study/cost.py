"""What the stages of a study cost: what each computes, and how fast a network computes it here, from a few timed batches."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

import notbugs.train as train
from notbugs import attacks, models, precision
from notbugs.attacks.budgets import UNTARGETED_ATTACKS
from notbugs.data import Dataset, Splits
from notbugs.data.images import encode_png
from notbugs.data.load import SYNTHETIC
from notbugs.models import fuse_batchnorm
from notbugs.models.sklearn_learners import boosting_iterations
from notbugs.predict import BATCH_SIZE
from notbugs.search import NormBall
from notbugs.study.catalog.datasets import DATASETS, QUICK
from notbugs.study.catalog.models import MAIN_MODELS, MODELS, ModelSpec, dataset_of
from notbugs.study.classifiers import MONITORED_IMAGES, with_spec
from notbugs.study.comparisons import learner_images
from notbugs.study.config import ResolvedConfig
from notbugs.study.datasets import versions_of
from notbugs.study.evaluation import CLEAN_IMAGES, CURVE_ROLES
from notbugs.study.given import GIVEN
from notbugs.study.graph import StageId
from notbugs.study.pictures import ATTACK_STEPS

CLOCK: Callable[[], float] = time.perf_counter
TIMED_NUMBERS = 200_000  # pixels of a timed batch, in all channels
TIMED_SECONDS = 0.25  # after which a call is not repeated
FEW = 2  # images of a batch whose time is that of the calls alone
MASKED_NUMBERS = 256  # pixels in all channels, up to which random search does as well as gradients: they look masked
MASKED_ONE_IN = 50  # images: of so many, one or more look masked
HELPFUL_QUERIES = (
    2.0  # times the time of queries that never help, which are timed: those after one that helps are evaluated again
)
WRITE_SECONDS, READ_SECONDS = 6e-4, 2e-4  # of an image file
STAGE_SECONDS = 0.1  # loading and saving a model
TASK_SECONDS = 1.5  # of a stage that is no model and no data set, besides
CURVE_PASSES = 6.5  # per test image, at the further epsilons of the accuracy curve together; mean over the models of `mnist5k`
# CPU seconds of a non-neural classifier for each image and pixel value, with 500 to 8,000 images of CIFAR-10; of boosted trees
# for each class, too, and of a kernel machine for each pair of images
LEARNER_SECONDS = {"boosting": 2e-6, "random-forest": 4e-6, "linear-svm": 2e-6, "rbf-svm": 6e-10}
OTHER_LEARNER_SECONDS = 5e-7
TASK_PASSES = 20.0  # per test image, of a stage that is not foreseen here


class EnsembleCost(NamedTuple):
    """What the attack ensemble spends at one epsilon, as measured (docs/lab-log.md).

    Attributes
    ----------
    passes : float
        Of the gradients of `UNTARGETED_ATTACKS`, the share that an image gets before it is misclassified.
    calls : float
        The same of a batch, until none of its images is left.
    further_passes : float
        Gradients per test image of `FURTHER_ATTACKS` and the short steps after them.
    further_calls : float
        The steps of a batch that these take.
    quick_queries : float
        Black-box queries of the quick ensemble on a batch in which an image's gradients look masked; after `FURTHER_ATTACKS` none
        of the study's networks does.
    """

    passes: float
    calls: float
    further_passes: float
    further_calls: float
    quick_queries: float


ENSEMBLES = {
    "adversarial": EnsembleCost(0.82, 1.0, 53, 550, 400),
    "standard": EnsembleCost(0.52, 1.0, 43, 280, 100),
    "inverted": EnsembleCost(0.5, 0.9, 54, 450, 100),
    "relabeled": EnsembleCost(0.03, 0.25, 0, 0, 0),
}


@dataclass(frozen=True)
class Speed:
    """How fast a network computes; in seconds.

    Attributes
    ----------
    train : float
        An image in a training step.
    gradient, call : float
        A step of a gradient attack: for each image, and besides.
    query : float
        A black-box query of few images; 0 where none is expected.
    read, write : float
        An image: decoding one that stays on the disk, and encoding and writing a constructed one.
    """

    train: float
    gradient: float
    call: float
    query: float
    read: float = 0.0
    write: float = WRITE_SECONDS

    def steps(self, count: float, steps: float, batch_size: int) -> float:
        """Gradient steps on so many images."""
        return steps * (count * self.gradient + math.ceil(count / batch_size) * self.call)

    @property
    def forward(self) -> float:
        """An image in a forward pass of a large batch."""
        return self.gradient / 2


def network_of(stage: StageId, config: ResolvedConfig) -> str:
    """The network that a stage computes with: the given one (`GIVEN`), an architecture, or "" for the study's."""
    of_model = stage.kind in ("model", "evaluation")
    of_given = stage.name if of_model else DATASETS[stage.name].source_model if stage.kind == "dataset" else ""
    if config.model is not None and of_given == GIVEN:
        return GIVEN
    return MODELS[stage.name].architecture if of_model else ""


def measure_speed(
    config: ResolvedConfig, train_images: Dataset, model: models.Model, *, one_thread: bool = False, trained: bool = True
) -> Speed:
    """Time training and attacks of a network on one batch, each a few times: the fastest counts, the first ones being slower.

    Parameters
    ----------
    config : ResolvedConfig
    train_images : Dataset
    model : Model
        It is not changed.
    one_thread : bool
        As in a worker process beside others.
    trained : bool
        Whether the study trains such networks.
    """
    batch_size = precision.default_batch_size(config.device, train_images.shape)
    room = max(3 * FEW, TIMED_NUMBERS // math.prod(train_images.shape))
    threads = torch.get_num_threads()
    try:
        if one_thread:
            torch.set_num_threads(1)
        many, few = (train_images.select(slice(0, count)) for count in (min(len(train_images), batch_size, room), FEW))
        fused = fuse_batchnorm(model, few.pixels(slice(None)), config.device)
        large, small = _attack_seconds(fused, many, config, steps=4), _attack_seconds(fused, few, config, steps=12)
        gradient = max(0.0, large - small) / max(1, len(many) - len(few))
        query = _query_seconds(fused, few, config) if math.prod(train_images.shape) <= MASKED_NUMBERS else 0.0
        batch = train_images.select(slice(0, min(len(train_images), config.batch_size, room)))
        training = _training_seconds(config, batch, model) if trained else 0.0
        read = 0.0 if isinstance(many.images, Tensor) else _fastest(lambda: many.images[:]) / len(many)
        write = _fastest(lambda: torch.tensor([len(each) for each in encode_png(many.images[:])])) / len(many) - read
    finally:
        torch.set_num_threads(threads)
    return Speed(training, gradient, max(0.0, small - FEW * gradient), query, read, max(WRITE_SECONDS, write))


def stage_seconds(stage: StageId, config: ResolvedConfig, splits: Splits, speed: Speed) -> float:
    """About how long a stage takes with a network of this speed."""
    count, batch_size = len(splits.train), precision.default_batch_size(config.device, splits.train.shape)
    if stage.kind == "model":
        seconds = _training_stage_seconds(MODELS[stage.name], config, splits, speed)
    elif stage.kind == "evaluation":
        given_again = network_of(stage, config) == GIVEN and stage.seed > config.seed and config.dataset != SYNTHETIC
        seconds = 0.0 if given_again else _ensemble_seconds(MODELS[stage.name], config, splits, speed)
    elif stage.kind == "dataset":
        spec = DATASETS[stage.name]
        count *= versions_of(config, spec)
        # the features of an image, and of what is found, take two forward passes; an inversion starts from another image
        steps, read = {"invert": (config.invert_steps + 1, 2), "relabel": (config.relabel_steps, 1)}.get(
            spec.construction, (0, 2)
        )
        seconds = speed.steps(count, steps, batch_size) + count * (read * speed.read + speed.write)
    elif stage.kind == "learner":
        fitted = learner_images(splits.train.shape, count)
        classes = len(splits.train.classes)
        times = {"boosting": classes * boosting_iterations(classes) / 100, "rbf-svm": fitted}.get(stage.name, 1)
        each = LEARNER_SECONDS.get(stage.name, OTHER_LEARNER_SECONDS) * math.prod(splits.train.shape) * times
        seconds = fitted * (each + speed.read)
    elif stage.name == "accuracy-on-all-datasets":
        each = min(count, CLEAN_IMAGES) * speed.forward
        seconds = TASK_SECONDS + len(MAIN_MODELS) * (1 + len(QUICK)) * each + len(QUICK) * count * READ_SECONDS
    elif stage.name == "pictures":
        seconds = TASK_SECONDS + ATTACK_STEPS * speed.call
    else:
        seconds = speed.steps(len(splits.test), TASK_PASSES, batch_size)
    return STAGE_SECONDS + seconds


def _training_stage_seconds(spec: ModelSpec, config: ResolvedConfig, splits: Splits, speed: Speed) -> float:
    """Training, and the accuracies in its curve."""
    count, test, trained_on = len(splits.train), len(splits.test), dataset_of(spec)
    config = with_spec(config, spec)
    epochs = config.epochs * (spec.steps or 1)
    steps = config.adversarial_steps if spec.loss != "standard" else 0
    seconds = epochs * (count * speed.train + speed.steps(count, steps, config.batch_size))
    if trained_on:
        size = precision.bounded_batch_size(BATCH_SIZE, config.device, splits.test.shape)
        batches = math.ceil(min(test, MONITORED_IMAGES) / size)
        seconds += epochs * (min(test, MONITORED_IMAGES) * speed.forward + batches * speed.call) + count * READ_SECONDS
    return seconds


def _kind(spec: ModelSpec) -> str:
    """How a classifier was trained: a key of `ENSEMBLES`."""
    trained_on = dataset_of(spec)
    if trained_on:
        return "relabeled" if trained_on.is_relabeled else "inverted"
    return "adversarial" if spec.loss != "standard" else "standard"


def _ensemble_seconds(spec: ModelSpec, config: ResolvedConfig, splits: Splits, speed: Speed) -> float:
    """The attack ensemble on the test images: gradients, and black-box queries of the quick one where gradients look masked."""
    quick, test = spec.attack_budget == "quick", len(splits.test)
    epsilons = 1 if quick else len(config.threat_models)
    steps = sum(steps for steps, _ in UNTARGETED_ATTACKS)
    batches, cost = math.ceil(test / precision.default_batch_size(config.device, splits.train.shape)), ENSEMBLES[_kind(spec)]
    passes, calls = cost.passes * steps, cost.calls * steps
    if not quick:
        passes, calls = passes + cost.further_passes, calls + cost.further_calls
    seconds = passes * test * speed.gradient + calls * batches * speed.call
    if quick and math.prod(splits.train.shape) <= MASKED_NUMBERS:
        seconds += batches * min(1.0, test / batches / MASKED_ONE_IN) * cost.quick_queries * speed.query
    if spec.role in CURVE_ROLES:
        return epsilons * seconds + speed.steps(test, CURVE_PASSES, math.ceil(test / batches))
    return epsilons * seconds


# ---- timing ------------------------------------------------------------------------------------------------------------------


def _attack_seconds(model: nn.Module, part: Dataset, config: ResolvedConfig, *, steps: int) -> float:
    """One step of PGD on a batch."""
    images, labels = part.pixels(slice(None)).to(config.device), part.labels.to(config.device)
    return _fastest(lambda: attacks.pgd(model, images, labels, threat_model=config.threat_model, steps=steps).margins) / steps


def _query_seconds(model: nn.Module, part: Dataset, config: ResolvedConfig) -> float:
    """One query of Square Attack, on images that it cannot change."""
    images, queries = part.pixels(slice(None)).to(config.device), 100
    with torch.no_grad():
        labels = attacks.clean_logits(model, images, part.labels.to(config.device)).argmax(1)
    nothing = NormBall(config.norm, 1e-9)
    seconds = _fastest(lambda: attacks.square_attack(model, images, labels, threat_model=nothing, queries=queries).margins)
    return HELPFUL_QUERIES * seconds / queries


def _training_seconds(config: ResolvedConfig, part: Dataset, model: models.Model) -> float:
    """Training on one image, in a batch of all of them: the fastest of a few epochs."""
    ends: list[float] = []
    copy = models.frozen_copy(model, config.device).requires_grad_(True)

    def record(_: train.Epoch) -> None:
        ends.append(CLOCK())

    train.fit(copy, part, epochs=8, batch_size=len(part), bf16=config.bf16, device=config.device, progress=record)
    return min(after - before for before, after in itertools.pairwise(ends)) / len(part)


def _fastest(work: Callable[[], Tensor]) -> float:
    """Seconds of the fastest of a few calls: others share the machine. A result on a GPU is waited for."""
    found: list[float] = []
    while len(found) < 2 or (len(found) < 8 and sum(found) < TIMED_SECONDS):
        began = CLOCK()
        work().cpu()
        found.append(CLOCK() - began)
    return min(found)
