"""Stages of the graph as the runner does them: each with the configuration of the machine where it is done."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from notbugs.runs.attempts import Attempt
from notbugs.runs.runner import Stage, describe_device
from notbugs.runs.tables.row import Row
from notbugs.study.config import ResolvedConfig
from notbugs.study.graph import Graph, StageId, Work
from notbugs.study.resolve import uses_bfloat16

TOGETHER = ("model", "dataset", "evaluation")  # kinds of stages that several processes share; of others each does one


class Place(NamedTuple):
    """What a stage is told of where it is done. bf16: as asked for; device: chosen there, if it is not None."""

    config: ResolvedConfig
    bf16: bool | None
    device: Callable[[], str] | None

    def config_there(self) -> ResolvedConfig:
        """The configuration, with what depends on the device."""
        if self.device is None:
            return self.config
        found = self.device()
        on_cpu = self.config.bf16 and self.config.device == "cpu"
        return replace(self.config, device=found, bf16=uses_bfloat16(self.bf16, found, on_cpu=on_cpu))


def runner_stage(graph: Graph, stage_id: StageId, place: Place, folder: Path) -> Stage:
    """A stage of the graph as the runner takes it. folder: of the run."""
    stage = graph[stage_id]
    work = partial(_done_there, stage.work, place, folder, stage_id.seed)
    return Stage(tuple(map(str, stage.needs)), work, partial(_stage_metadata, place), together=stage_id.kind in TOGETHER)


def _done_there(work: Work, place: Place, folder: Path, seed: int, attempt: Attempt) -> Sequence[Row]:
    return work(place.config_there(), folder, seed, attempt)


def _stage_metadata(place: Place) -> dict[str, object]:
    config = place.config_there()
    return {**describe_device(config), "bf16": config.bf16}
