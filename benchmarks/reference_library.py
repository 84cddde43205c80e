"""The same work by the paper's own library (`robustness`) and by notbugs: speed, and what comes out.

    python benchmarks/reference_library.py CIFAR10 --run runs/cifar10 --out benchmarks/results/reference-library-gpu.json
    python benchmarks/reference_library.py cifar8k.npz --run runs/cifar --out benchmarks/results/reference-library-cpu.json
        --device cpu --images 100

RUN is a study's folder with the models `standard` and `adversarial`. Both tools get the same network with the same weights, the
same images, targets and batches, on the same device, and take turns. The shortest of the rounds counts. Constructed images are
rounded to 8 bits and evaluated by one plain pass of the model on the CPU, the same for both.

relabeling            D_rand from the standard model: the library's targeted attack with the paper's settings, and with as many
                      steps as notbugs; `construct.relabel` with the study's settings
robust-version        D_R from the adversarial model: the library's inversion, 1,000 steps of 0.1, and with as many steps as
                      notbugs; `construct.invert_features` with the study's settings
adversarial-training  one epoch, no augmentation: the library's loop with 7 steps, `train.fit` with the study's steps and with 7

`seconds_per_step_and_image` is the whole time over steps and images, including what a tool does before and after its steps. Rows
with a `comparison` divide two others: above 1, notbugs is faster. CPU time is disturbed less by a busy machine, and says nothing
about a GPU. Rounding to the nearest level takes many images slightly out of the ball; notbugs rounds inside it.
`target_reached_within_epsilon` is the share of targets reached after projection onto the ball. The library's inversion has three
methods:

notebook       steps of a fixed length, the last iterate: as in the code that the authors published
best           the same, and the iterate with the lowest loss is kept: the library's default
unconstrained  0.1 times the plain gradient of the batch's mean loss: the larger the batch, the shorter the steps

Each tool computes as it does by default: on a GPU notbugs perturbs images and trains in bfloat16 (--no-bf16: it does not), the
library in float32. Its inversion passes every image through the network twice per step, once for logits that are not used. The
library calls .cuda() wherever it works; with --device cpu these calls do nothing, and each row says so. It needs torchvision:

    pip install torchvision dill pandas tqdm tensorboardX && pip install --no-deps robustness cox
"""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from harness import (  # the file beside this one
    ResultsFile,
    Row,
    TimeLimit,
    argument_parser,
    measure,
    recorded_arguments,
    require_study,
    study_arguments,
)

if TYPE_CHECKING:
    from study_benchmark import Benchmark

PARTS = ("relabeling", "robust-version", "adversarial-training")
METHODS = ("notebook", "best", "unconstrained")  # of the library's inversion
PAPER_INVERT_STEPS = 1000
MODELS = ("standard", "adversarial")
PACKAGES = ("robustness", "torchvision")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS, device="auto")
    study_arguments(found)
    found.add_argument("--images", type=int, default=200, help="of `relabeling` and `robust-version`")
    found.add_argument("--batch-size", type=int, default=250, help="of both tools, in `relabeling` and `robust-version`")
    found.add_argument("--library-steps", type=int, default=PAPER_INVERT_STEPS, help="of the library's inversion")
    found.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="of the library's inversion")
    return found


def main() -> None:
    """Measure the parts that were asked for; rows of the others stay in the file."""
    options = parser().parse_args()
    require_study(parser(), options)
    import torch
    from reference_adapter import load_library, without_cuda
    from reference_work import WORK
    from study_benchmark import Benchmark

    library = load_library()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser().error("the library needs a CUDA device, and torch finds none; use --device cpu")
    torch.set_num_threads(options.threads)
    limit = TimeLimit(options.minutes)
    benchmark = Benchmark.of_study(options, limit)
    options.seed = benchmark.config.seed if options.seed is None else options.seed
    check_models(benchmark, parser())
    device = benchmark.config.device
    if ":" in device:
        torch.cuda.set_device(device)  # where .cuda() leads
    results = ResultsFile(options.out, device=device, packages=PACKAGES)
    with without_cuda() if device == "cpu" else nullcontext():
        for part in options.parts:
            if limit.over:
                break
            results.drop(part=part)
            rows = ({**row, **_common_columns(benchmark)} for row in WORK[part](benchmark, library))
            measure(results, part, rows, recorded_arguments(options))


def check_models(benchmark: "Benchmark", arguments: argparse.ArgumentParser) -> None:
    """Exit unless the study has the models, in the paper's norm."""
    from notbugs.study.store import model_path

    for name in MODELS:
        path = model_path(benchmark.config, benchmark.folder, benchmark.options.seed, name)
        if not path.exists():
            arguments.error(f"{path} does not exist: that stage is not finished, or --seed is none of the study's")
    if benchmark.config.norm != "l2":
        arguments.error("the paper's settings are in L2, this study's are not")


def _common_columns(benchmark: "Benchmark") -> Row:
    """What every row says."""
    return {
        "seed": benchmark.options.seed,
        "threads": benchmark.options.threads,
        "cuda_calls": "disabled" if benchmark.config.device == "cpu" else "enabled",
        "bf16": benchmark.config.bf16,
        "compile": benchmark.config.compile,
    }


if __name__ == "__main__":
    main()
