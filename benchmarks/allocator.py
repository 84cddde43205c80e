"""What it gains to keep freed memory (`notbugs.allocator`): a gradient of the pixels, and one of the weights, on a CPU.

    python benchmarks/allocator.py [--rounds 5] [--out benchmarks/results/allocator.json]

`resnet9` of width 8: pixels in batches of 250 with fused batch norm, as attacks and constructions; weights in batches of 64, as
training. Each round takes a new process for either allocator. A row has medians over the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))
CALLS, PIXELS = 8, 1_000_000  # that a timing takes at least
ALLOCATORS = ("default", "kept")

Times = dict[str, tuple[float, float]]  # seconds per image, and the share of it that the system took


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--child", choices=ALLOCATORS, help=argparse.SUPPRESS)
    return found


def main() -> None:
    """Time each shape with either allocator."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(_times(options.child)))
        return
    command = [sys.executable, __file__, "--threads", str(options.threads), "--child"]
    arguments = {name: value for name, value in recorded_arguments(options).items() if name != "child"}
    measure(ResultsFile(options.out), "allocator", _rows(command, options.rounds), arguments, key=("part", "dataset"))


def _rows(command: list[str], rounds: int) -> Iterator[Row]:
    found: list[dict[str, Times]] = []
    for number in range(rounds):  # each comes first in every second round
        order = ALLOCATORS if number % 2 else ALLOCATORS[::-1]
        calls = {each: subprocess.run([*command, each], capture_output=True, check=True) for each in order}
        found.append({each: json.loads(done.stdout) for each, done in calls.items()})
    for name in found[0]["kept"]:
        ratios = [each["default"][name][0] / each["kept"][name][0] for each in found]
        yield {
            "dataset": name,
            "seconds_per_step_and_image": statistics.median(each["kept"][name][0] for each in found),
            "time_ratio": statistics.median(ratios),
            "least_time_ratio": min(ratios),
            "largest_time_ratio": max(ratios),
            "system_share": statistics.median(each["kept"][name][1] for each in found),
            "default_system_share": statistics.median(each["default"][name][1] for each in found),
        }


def _times(allocator: str) -> Times:
    """Of each shape and gradient, in this process."""
    import torch

    from notbugs import models
    from notbugs.allocator import keep_freed_memory

    if allocator == "kept" and not keep_freed_memory():
        raise SystemExit("this is not glibc: there is nothing to compare")
    found: Times = {}
    for shape in SHAPES:
        images = torch.rand(250, *shape, generator=torch.Generator().manual_seed(0))
        network = models.build("resnet9", shape=shape, classes=10, width=8)
        fused, layout = models.fuse_batchnorm(network, images[:2]), models.memory_format(network)
        size, least = "x".join(map(str, shape)), PIXELS // (shape[1] * shape[2])
        found[f"{size}, pixels"] = _time(_of_pixels, fused, images.to(memory_format=layout), least)
        network.to(memory_format=layout)  # type: ignore[call-overload]
        found[f"{size}, weights"] = _time(_of_weights, network, images[:64].to(memory_format=layout), least)
    return found


def _of_pixels(model: "nn.Module", images: "Tensor") -> None:
    import torch

    batch = images.clone().requires_grad_()
    torch.autograd.grad(model(batch).logsumexp(1).sum(), batch)


def _of_weights(model: "nn.Module", images: "Tensor") -> None:
    import torch
    import torch.nn.functional as F

    F.cross_entropy(model(images), torch.arange(len(images)) % 10).backward()  # type: ignore[no-untyped-call]


def _time(call: "Callable[[nn.Module, Tensor], None]", model: "nn.Module", images: "Tensor", least: int) -> tuple[float, float]:
    """Seconds per image, of `least` images and CALLS calls or more, and the system's share of the CPU time."""
    import resource

    call(model, images)
    began, usage, count = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF), 0
    while count < max(least, CALLS * len(images)):
        call(model, images)
        count += len(images)
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    system, user = now.ru_stime - usage.ru_stime, now.ru_utime - usage.ru_utime
    return seconds / count, system / (system + user)


if __name__ == "__main__":
    main()
