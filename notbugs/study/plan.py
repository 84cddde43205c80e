"""What a study is about to do and how long that will take: known before any work, from a few timed batches."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from notbugs import metrics, models
from notbugs.data import Splits
from notbugs.metrics import Accuracy
from notbugs.runs.scheduler import default_workers, start_seconds, times_longer
from notbugs.runs.tables.data_check import DataCheckRow
from notbugs.study import cost
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.config import ResolvedConfig, network_layer
from notbugs.study.cost import Speed, measure_speed, network_of, stage_seconds
from notbugs.study.epsilon import NeighborDistances, neighbor_distances
from notbugs.study.given import GIVEN, GivenModel
from notbugs.study.graph import Graph, StageId
from notbugs.study.time_left import makespan


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
        Estimated seconds of all of them, `workers` at a time, and of the start; on a busy machine as many times longer as the
        timed batches took.
    given : GivenModel or None
        The standard model, if it was given.
    given_accuracy : Accuracy or None
        Its clean accuracy on the test images.
    findings : sequence of DataCheckRow
        Of the data check.
    relabels : bool
        Whether images are relabeled in any of the stages.
    begun : sequence of str
        Stages that were interrupted, and go on where they were. Estimated as a whole.
    titles : mapping of str to str
        What to call each of `stages` on a terminal; the seed is in it where there are several.
    needs, kinds : mapping
        Of `stages`: the names of those that each needs, and what kind each is.
    slower : float
        How many times longer the timed batches took than their CPU time.
    knows_workers : bool
        Whether `workers` stages do something at once, not only wait in an executor.
    together : bool
        Whether all workers do each stage together.
    """

    config: ResolvedConfig
    splits: Splits
    distances: NeighborDistances
    stages: Mapping[str, float]
    workers: int
    seconds: float
    given: GivenModel | None = None
    given_accuracy: Accuracy | None = None
    findings: Sequence[DataCheckRow] = ()
    relabels: bool = False
    begun: Sequence[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    slower: float = 1.0
    knows_workers: bool = True
    together: bool = False


def make_plan(
    config: ResolvedConfig,
    splits: Splits,
    graph: Graph,
    todo: Sequence[StageId],
    workers: int | None = None,
    given: GivenModel | None = None,
    findings: Sequence[DataCheckRow] = (),
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
        Default: one per core on a CPU, one per GPU.
    given : GivenModel, optional
        The study's standard model, if it was given.
    findings : sequence of DataCheckRow
        Of the data check.
    """
    workers = default_workers(config.device) if workers is None else workers
    wall, processor = cost.CLOCK(), time.process_time()
    seconds = _stage_seconds(config, splits, todo, given, one_thread=workers > 1)
    waited = 1.0
    if workers > 1 and config.device == "cpu":  # several threads, or a processor that waits for a GPU, say nothing of other work
        waited = times_longer(cost.CLOCK() - wall, time.process_time() - processor)
    distances = neighbor_distances(splits.train, config.norm)
    if config.norm != "l2":  # its limit is one of L2 distances
        distances = distances._replace(same_scene=neighbor_distances(splits.train, "l2").same_scene)
    named = {str(stage): value for stage, value in seconds.items()}
    accuracy = metrics.clean_accuracy(given.model, splits.test, device=config.device) if given else None
    relabels = any(stage.kind == "dataset" and DATASETS[stage.name].is_relabeled for stage in todo)
    needs = {stage: graph[stage].needs for stage in todo}
    whole = waited * (start_seconds(workers) + makespan(needs, seconds, workers)) if todo else 0.0
    names = {str(stage): tuple(map(str, needs[stage])) for stage in todo}
    kinds = {str(stage): stage.kind for stage in todo}
    titles = {str(stage): f"{stage.title}{f', seed {stage.seed}' if config.seeds > 1 else ''}" for stage in todo}
    return Plan(
        config,
        splits,
        distances,
        named,
        workers,
        whole,
        given,
        accuracy,
        findings,
        relabels,
        titles=titles,
        needs=names,
        kinds=kinds,
        slower=waited,
    )


def _stage_seconds(
    config: ResolvedConfig, splits: Splits, todo: Sequence[StageId], given: GivenModel | None, *, one_thread: bool
) -> dict[StageId, float]:
    """Seconds of each stage, with the speed of its network; each network is timed once."""
    speeds: dict[str, Speed] = {}
    shape, classes = splits.train.shape, len(splits.train.classes)
    for name in dict.fromkeys(network_of(stage, config) for stage in todo):
        if given and name == GIVEN:
            speeds[name] = measure_speed(config, splits.train, given.model, one_thread=one_thread, trained=False)
        else:
            width = None if name else config.width
            layer = None if name else network_layer(config)
            model = models.build(name or config.network, shape=shape, classes=classes, width=width, layer=layer)
            speeds[name] = measure_speed(config, splits.train, model, one_thread=one_thread)
    return {stage: stage_seconds(stage, config, splits, speeds[network_of(stage, config)]) for stage in todo}
