"""Time of a gradient, and of a forward pass, per image by the batch size, on a CPU: the reason for `precision.steady_batch_size`.

    python benchmarks/batch_size.py [--rounds 7] [--out benchmarks/results/batch-size.json]

`resnet9` of width 8 with fused batch norm, as constructions and attacks use it. Every round takes each batch size once, in turn;
a row has the median of the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128))
BATCHES = (16, 32, 64, 128, 250)
PIXELS = 500_000  # of all images that a timing takes


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("--rounds", type=int, default=7)
    return found


def main() -> None:
    """Time each shape."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    results = ResultsFile(options.out)
    rows = (row for shape in SHAPES for row in _rows(shape, options.rounds))
    key = ("part", "dataset", "batch_size")
    measure(results, "batch size", rows, recorded_arguments(options), key=key, limit=TimeLimit(options.minutes))


def _rows(shape: tuple[int, int, int], rounds: int) -> Iterator[Row]:
    """One row for each batch size and pass."""
    import torch

    from notbugs import models, precision

    network = models.build("resnet9", shape=shape, classes=10, width=8)
    images = torch.rand(max(BATCHES), *shape, generator=torch.Generator().manual_seed(0))
    model, layout = models.fuse_batchnorm(network, images[:2]), models.memory_format(network)

    def gradient(batch: "Tensor") -> None:
        batch = batch.clone(memory_format=layout).requires_grad_()
        torch.autograd.grad(model(batch).logsumexp(1).sum(), batch)

    def forward(batch: "Tensor") -> None:
        with torch.no_grad():
            model(batch.clone(memory_format=layout))

    for name, call in (("gradient", gradient), ("forward pass", forward)):
        seconds: dict[int, list[float]] = {size: [] for size in BATCHES}
        for _ in range(rounds):
            for size in BATCHES:
                seconds[size].append(_seconds(call, images[:size], max(1, PIXELS // (shape[1] * shape[2] * size))))
        chosen = precision.steady_batch_size("cpu", shape, gradients=name == "gradient")
        for size in BATCHES:
            about = {"dataset": f"{name}, {'x'.join(map(str, shape))}, chosen {chosen}", "batch_size": size}
            yield {**about, "seconds_per_step_and_image": statistics.median(seconds[size])}


def _seconds(call: "Callable[[Tensor], None]", batch: "Tensor", times: int) -> float:
    """Of one call, per image."""
    began = time.perf_counter()
    for _ in range(times):
        call(batch)
    return (time.perf_counter() - began) / times / len(batch)


if __name__ == "__main__":
    main()
