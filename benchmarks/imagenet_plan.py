"""A plan of ImageNet: GPU hours, bytes, and the schedule of many seeds on many workers, computed from measured figures.

    python benchmarks/imagenet_plan.py [--seeds 10] [--workers 64] [--price 3]

Nothing is trained. The floating-point operations per second are those measured on CIFAR-10 in bfloat16
(benchmarks/results/cifar10-gpu.json), the seconds of a decoded image those of benchmarks/results/large-sets.json. What each stage
computes is what `notbugs run` estimates (`study.cost`), and stages start in the order of its scheduler.

Assumed: ResNet-50 reaches the same operations per second at 224x224; every worker reads decoded pixels as fast as it computes.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from notbugs.study.config import ResolvedConfig
    from notbugs.study.cost import Speed
    from notbugs.study.graph import Graph, StageId

RESULTS = Path(__file__).with_name("results")
TRAIN, TEST, CLASSES, SHAPE = 1_281_167, 50_000, 1000, (3, 224, 224)
SETTINGS = {"network": "resnet50", "width": None, "epochs": 90, "batch_size": 256, "adversarial_steps": 3, "invert_steps": 100}
FORWARD_GFLOPS = 8.2  # of ResNet-50 at 224x224: 4.1 billion multiply-adds (He et al. 2016), each two operations
ATTACK, TRAINING = "relabeling, 10 steps, bfloat16", "standard training, augmented, bfloat16"  # measured work


SET_GIGABYTES = TRAIN * SHAPE[0] * SHAPE[1] * SHAPE[2] / 1e9
NODES, GPUS = 8, 8


class Images(NamedTuple):
    """As much of a data set as an estimate looks at."""

    number: int
    shape: tuple[int, ...] = SHAPE
    classes: Sequence[str] = tuple(map(str, range(CLASSES)))

    def __len__(self) -> int:
        return self.number


class Parts(NamedTuple):
    """As much of the parts of a data set."""

    train: Images
    test: Images


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--seeds", type=int, default=10)
    found.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64], help="GPUs, each with a stage at a time")
    found.add_argument("--price", type=float, help="of a GPU hour, in any currency")
    return found


def main() -> None:
    """Print the tables."""
    options = parser().parse_args()
    from markdown_format import table  # the file beside this one

    from notbugs.study.graph import study_graph

    config, speed, parts = _config(), _speed(), Parts(Images(TRAIN), Images(TEST))
    print(f"{1 / speed.gradient:,.0f} attack passes and {1 / speed.train:,.0f} training images a second on one GPU")
    print(_reading(speed))
    print()
    print(
        table(
            ["study, one seed", "stages", "GPU hours", "longest stage, hours", "cost"],
            _studies(config, parts, speed, options.price),
        )
    )
    print()
    together = f"together on {NODES} x {GPUS} GPUs, hours"
    print(
        table(
            [
                "study, one seed",
                f"side by side on {NODES} x {GPUS} GPUs, hours",
                "cost",
                together,
                "cost",
                "GB read",
                "GB written",
            ],
            _on_cluster(config, parts, speed, options.price),
        )
    )
    print()
    print(table(["kind of stage, all controls", "stages", "GPU hours", "GB written"], _kinds(config, parts, speed)))
    print()
    config = _with(config, full=True, seeds=options.seeds)
    graph = study_graph(config)
    seconds = _seconds(graph, config, parts, speed)
    print(table(["workers", "hours", "share of time at work"], _schedule(graph, seconds, options.workers)))


def _with(config: "ResolvedConfig", **changes: Any) -> "ResolvedConfig":
    from dataclasses import replace

    return replace(config, **changes)


def _config() -> "ResolvedConfig":
    """The settings of a study; what is decided from data has no influence on its time."""
    from notbugs.study.config import StudyConfig, load
    from notbugs.study.resolve import resolve

    digits = StudyConfig("digits", seeds=1)
    return _with(resolve(digits, load(digits)), dataset="imagenet", **SETTINGS)


def _speed() -> "Speed":
    """Of ResNet-50, if it reaches the operations per second that were measured. An attack pass needs no gradients of weights."""
    from notbugs.study.cost import Speed

    measured = {row["work"]: row for row in _rows("cifar10-gpu") if row["part"] == "floor"}
    training, attack = (1e9 * measured[work]["gflops_per_second"] for work in (TRAINING, ATTACK))
    forward = 1e9 * FORWARD_GFLOPS
    return Speed(train=3 * forward / training, gradient=2 * forward / attack, call=0.0, query=0.0)


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return rows


def _reading(speed: "Speed") -> str:
    """Bytes of decoded images, and how many cores decode as fast as a GPU trains."""
    decode, encode = _core_seconds("decode"), _core_seconds("decode, encode") - _core_seconds("decode")
    return (
        f"decoded: {SET_GIGABYTES:,.0f} GB for each set\n"
        f"JPEG of 224x224: {1e3 * decode:.1f} ms of a core an image, {TRAIN * decode / 3600:.1f} core hours an epoch; "
        f"{decode / speed.train:.0f} cores decode as fast as a GPU trains\n"
        f"PNG: {1e3 * encode:.1f} ms of a core an image, {TRAIN * encode / 3600:.1f} core hours for each constructed set"
    )


def _core_seconds(method: str) -> float:
    """Of one image, in a loop of benchmarks/large_sets.py."""
    row = next(row for row in _rows("large-sets") if row["method"] == method)
    seconds: float = row["cpu_seconds"] / row["images"]
    return seconds


def _seconds(graph: "Graph", config: "ResolvedConfig", parts: Parts, speed: "Speed") -> "dict[StageId, float]":
    """Of each stage, with the network of the study for all: the other architectures cost about as much."""
    from notbugs.study.cost import stage_seconds

    return {stage: stage_seconds(stage, config, parts, speed) for stage in graph}  # type: ignore[arg-type]


def _studies(config: "ResolvedConfig", parts: Parts, speed: "Speed", price: float | None) -> list[list[str]]:
    found = []
    for name, _, seconds in _each_study(config, parts, speed):
        hours = sum(seconds.values()) / 3600
        longest = f"{max(seconds.values()) / 3600:,.1f}"
        found.append([name, f"{len(seconds)}", f"{hours:,.0f}", longest, _cost(price, hours)])
    return found


def _each_study(config: "ResolvedConfig", parts: Parts, speed: "Speed") -> "Iterator[tuple[str, Graph, dict[StageId, float]]]":
    """Name, stages, and seconds of those that it does."""
    from notbugs.study.graph import select_stages, study_graph

    for name, changes, only in (
        ("D_R and D_NR (`split`)", {}, ["dataset-robust", "dataset-nonrobust"]),
        ("the study (`run`)", {}, None),
        ("with all controls (`run --full`)", {"full": True}, None),
    ):
        changed = _with(config, **changes)
        graph = study_graph(changed)
        chosen = {*select_stages(graph, only)}
        yield name, graph, {stage: each for stage, each in _seconds(graph, changed, parts, speed).items() if stage in chosen}


def _cost(price: float | None, gpu_hours: float) -> str:
    return "" if price is None else f"{price * gpu_hours:,.0f}"


def _on_cluster(config: "ResolvedConfig", parts: Parts, speed: "Speed", price: float | None) -> list[list[str]]:
    """All GPUs are paid for until the last stage has ended. Together: each stage on all of them, were it divided without loss."""
    from notbugs.study.time_left import makespan

    found, count = [], NODES * GPUS
    for name, graph, seconds in _each_study(config, parts, speed):
        beside = makespan({stage: graph[stage].needs for stage in seconds}, seconds, count) / 3600
        together = sum(seconds.values()) / 3600 / count
        read = sum({"model": config.epochs, "dataset": 2}.get(stage.kind, 0) for stage in seconds) * SET_GIGABYTES
        written = sum(stage.kind == "dataset" for stage in seconds) * SET_GIGABYTES
        costs = [_cost(price, count * each) for each in (beside, together)]
        found.append([name, f"{beside:,.1f}", costs[0], f"{together:,.1f}", costs[1], f"{read:,.0f}", f"{written:,.0f}"])
    return found


def _kinds(config: "ResolvedConfig", parts: Parts, speed: "Speed") -> list[list[str]]:
    from notbugs.study.graph import study_graph

    changed = _with(config, full=True)
    seconds, found = _seconds(study_graph(changed), changed, parts, speed), []
    for kind in dict.fromkeys(stage.kind for stage in seconds):
        each = [value for stage, value in seconds.items() if stage.kind == kind]
        gigabytes = len(each) * SET_GIGABYTES if kind == "dataset" else 0.0
        found.append([kind, f"{len(each)}", f"{sum(each) / 3600:,.1f}", f"{gigabytes:,.0f}" if gigabytes else ""])
    return found


def _schedule(graph: "Graph", seconds: "dict[StageId, float]", workers: Sequence[int]) -> list[list[str]]:
    from notbugs.study.time_left import makespan

    found = []
    for count in workers:
        hours = makespan({stage: graph[stage].needs for stage in seconds}, seconds, count) / 3600
        found.append([f"{count}", f"{hours:,.1f}", f"{100 * sum(seconds.values()) / 3600 / hours / count:.0f} %"])
    return found


if __name__ == "__main__":
    main()
