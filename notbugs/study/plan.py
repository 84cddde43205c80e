"""What a study is about to do and how long that will take: known before any work, from one timed batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from notbugs import metrics, models, train
from notbugs.data import Splits
from notbugs.metrics import Accuracy
from notbugs.runs.scheduler import default_workers
from notbugs.study.catalog import DATASETS, MAIN_MODELS, MODELS, QUICK, dataset_of
from notbugs.study.config import ResolvedConfig
from notbugs.study.epsilon import NeighborDistances, neighbor_distances
from notbugs.study.given import GivenModel
from notbugs.study.graph import Graph, StageId

# Forward and backward passes per image and epsilon of an attack ensemble: most for what stays correct longest (docs/lab-log.md)
ENSEMBLE_PASSES = {"adversarial": 105.0, "standard": 45.0, "relabeled": 8.0}
QUICK_SHARE = 0.2  # of these, for the quick ensemble
TASK_PASSES = 20.0  # per test image, of a stage that is not foreseen here
FORWARD = 1 / 3  # of a forward and backward pass
STAGE_SECONDS = 0.3  # loading and saving, in any stage
TIMED_NUMBERS = 1_000_000  # pixels of a timed batch, in all channels


@dataclass(frozen=True)
class Plan:
    """A study before it starts.

    Attributes
    ----------
    config : ResolvedConfig
    splits : Splits
    distances : NeighborDistances
        Between training images, in the study's norm.
    stages : mapping of str to float
        Estimated seconds of each stage that is not done yet, by name, in order.
    workers : int
        Stages at once.
    seconds : float
        Estimated seconds of all of them, `workers` at a time.
    given : GivenModel or None
        The standard model, if it was given.
    given_accuracy : Accuracy or None
        Its clean accuracy on the test images.
    """

    config: ResolvedConfig
    splits: Splits
    distances: NeighborDistances
    stages: Mapping[str, float]
    workers: int
    seconds: float
    given: GivenModel | None = None
    given_accuracy: Accuracy | None = None


def make_plan(
    config: ResolvedConfig,
    splits: Splits,
    graph: Graph,
    todo: Sequence[StageId],
    workers: int | None = None,
    given: GivenModel | None = None,
) -> Plan:
    """Estimate what is left to do of a study.

    Parameters
    ----------
    config : ResolvedConfig
    splits : Splits
    graph : dict
        The study's stages.
    todo : sequence of StageId
        Those that are not done, in order.
    workers : int, optional
        Default: one per core on a CPU, 1 on a GPU.
    given : GivenModel, optional
        The study's standard model, if it was given.
    """
    workers = default_workers(config.device) if workers is None else workers
    each = seconds_per_pass(config, splits, one_thread=workers > 1) if todo else 0.0
    seconds = {stage: STAGE_SECONDS + each * stage_passes(stage, config, splits) for stage in todo}
    distances = neighbor_distances(splits.train, config.norm)
    named = {str(stage): value for stage, value in seconds.items()}
    accuracy = metrics.clean_accuracy(given.model, splits.test, device=config.device) if given else None
    return Plan(config, splits, distances, named, workers, _makespan(graph, seconds, workers), given, accuracy)


def stage_passes(stage: StageId, config: ResolvedConfig, splits: Splits) -> float:
    """About how many images pass forward and backward through the network in a stage."""
    count, test = len(splits.train), len(splits.test)
    if stage.kind == "model":
        spec = MODELS[stage.name]
        steps = config.adversarial_steps if spec.loss != "standard" else 0
        thresholds = 1 if spec.attack_budget == "quick" else len(config.threat_models)
        training = count * (spec.epochs or config.epochs) * (1 + steps)
        constructed = dataset_of(spec)
        monitored = min(test, 500) * FORWARD * (spec.epochs or config.epochs) if constructed else 0.0  # forward only
        kind = (
            "relabeled" if constructed and constructed.is_relabeled else spec.loss if spec.loss == "standard" else "adversarial"
        )
        ensemble = ENSEMBLE_PASSES[kind] * (QUICK_SHARE if spec.attack_budget == "quick" else 1)
        return training + monitored + test * thresholds * ensemble
    if stage.kind == "dataset":
        construction = DATASETS[stage.name].construction
        if construction == "invert":
            return float(count * config.versions * config.invert_steps)
        return float(count * config.relabel_steps) if construction == "relabel" else 0.0
    if stage.name == "accuracy-on-all-datasets":
        return count * FORWARD * len(MAIN_MODELS) * (1 + len(QUICK))
    return test * TASK_PASSES


def seconds_per_pass(config: ResolvedConfig, splits: Splits, *, one_thread: bool = False) -> float:
    """Seconds for one image to pass forward and backward through the study's network: two small epochs of training, timed."""
    shape = splits.train.shape
    count = min(len(splits.train), config.batch_size, max(8, TIMED_NUMBERS // math.prod(shape)))
    part = splits.train.select(slice(0, count))
    model = models.build(config.network, shape=shape, classes=len(part.classes), width=config.width)
    threads = torch.get_num_threads()
    try:
        if one_thread:
            torch.set_num_threads(1)
        curve = train.fit(model, part, epochs=3, batch_size=count, bf16=config.bf16, device=config.device)
    finally:
        torch.set_num_threads(threads)
    return (curve[-1].seconds - curve[0].seconds) / (2 * count)  # the first epoch is slower


def _makespan(graph: Graph, seconds: Mapping[StageId, float], workers: int) -> float:
    """When the last stage ends, if `workers` stages run at once, each as soon as those that it needs are done."""
    ends: dict[StageId, float] = {}
    free = [0.0] * max(1, workers)
    waiting = list(seconds)
    while waiting:
        ready = {
            stage: max((ends[need] for need in graph[stage].needs if need in seconds), default=0.0)
            for stage in waiting
            if all(need in ends or need not in seconds for need in graph[stage].needs)
        }
        worker = min(range(len(free)), key=free.__getitem__)
        stage = min(ready, key=lambda each: max(ready[each], free[worker]))
        free[worker] = ends[stage] = max(ready[stage], free[worker]) + seconds[stage]
        waiting.remove(stage)
    return max(ends.values(), default=0.0)
