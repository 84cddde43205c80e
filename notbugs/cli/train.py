"""`notbugs train`: one classifier, standard or robust."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import accuracy_line, progress, study_config
from notbugs.cli.options import (
    NO_OPTIONS,
    Bf16,
    Compile,
    DataOptions,
    DatasetArgument,
    Device,
    Epochs,
    Epsilon,
    HeadOnly,
    Network,
    Norm,
    Pretrained,
    RobustModel,
    Seed,
    Width,
    with_data_options,
)
from notbugs.cli.say import say
from notbugs.cli.study_options import BatchSize, Flip
from notbugs.cli.study_progress import finding_lines
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.study.config import StudyConfig

Optimizer = Annotated[
    str,
    typer.Option(
        help="adamw (warm-up, then linear decay), or sgd (momentum 0.9; the learning rate falls to a tenth after each third "
        "of the steps), as Ilyas et al. 2019."
    ),
]
StopEarly = Annotated[
    int | None,
    typer.Option(
        metavar="EPOCHS",
        help="Set a tenth of the training images aside, end once accuracy on them (with an adversarial loss: under PGD) has "
        "not risen for EPOCHS epochs, and take the best weights. Test images are not used.",
    ),
]
Noise = Annotated[
    float | None,
    typer.Option(
        metavar="STD",
        help="Gaussian noise added to each training image: standard deviation, pixels in [0, 1]. [default: 0; in adversarial "
        "training on mnist5k in L2 a tenth of epsilon]",
    ),
]


@with_data_options
def train(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The weights, NAME.safetensors; NAME.json is written beside it.")],
    loss: Annotated[
        str, typer.Option(help="standard, adversarial (Madry et al. 2018) or trades (Zhang et al. 2019).")
    ] = "standard",
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    robust_model: RobustModel = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = "adamw",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate. [default: by the images; with sgd 0.1, or 0.01 where weights are fine-tuned]"),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay. [default: by the images; with sgd 0.0005]")] = None,
    stop_early: StopEarly = None,
    adversarial_steps: Annotated[int | None, typer.Option(help="PGD steps with an adversarial loss. [default: 3]")] = None,
    noise: Noise = None,
    flip: Flip = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
) -> None:
    """Train one classifier, standard or robust.

    Prints its clean and robust accuracy. The same command resumes a training that was stopped
    after its first 10 seconds.
    """
    from notbugs.study import single

    if out.suffix != ".safetensors":
        raise InputError("--out", "must end in .safetensors", out)
    config = study_config({**locals(), **data_options, "adversarial_steps": 3})
    with progress() as report_progress:
        rows = single.train_and_save(
            config,
            out,
            loss=loss,
            optimizer=optimizer,
            stop_early=stop_early,
            noise=noise,
            adversarial_steps=adversarial_steps,
            report_progress=report_progress,
        )
    for line in _mirroring_lines(config):
        say(line, file=sys.stderr)
    for row in rows:
        threat = f"{row.norm} {row.epsilon:.4g}" if row.epsilon else "clean"
        say(accuracy_line(threat, row.accuracy, row.ci_low, row.ci_high, row.correct, row.n, row.attack))
    say(out)


def _mirroring_lines(config: "StudyConfig") -> Iterable[str]:
    """Why training did not mirror images, where that was measured."""
    from notbugs.datacheck import measure_mirroring
    from notbugs.datacheck.classes import mirroring_findings
    from notbugs.study.config import load
    from notbugs.study.resolve import flip_is_measured

    train = load(config).train
    measured = flip_is_measured(config.flip, config.dataset, train)
    return finding_lines(mirroring_findings(measure_mirroring(train), flips=False)) if measured else ()
