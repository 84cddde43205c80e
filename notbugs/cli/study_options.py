"""Options of `notbugs run` and `split` alone."""

from pathlib import Path
from typing import Annotated

import typer

from notbugs.cli.options import DATASET_HELP

RelabelEpsilon = Annotated[
    str | None,
    typer.Option(
        metavar="EPS", help="Epsilon of D_rand and D_det. [default: epsilon; in L2 twice that for simple images such as digits]"
    ),
]
RelabelReach = Annotated[
    float | None,
    typer.Option(
        help="While a smaller share of a set's images than this reaches its new label, enlarge that ε by half, at most 4 times. "
        "[default: 0.75; 0 with --relabel-epsilon]",
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Repeat everything with N seeds, for intervals. [default: 3 for digits, else 1]")]
EarlierDataset = Annotated[
    str | None, typer.Argument(metavar="DATASET", help=f"{DATASET_HELP} May be left out to resume the study in --out.")
]
GivenModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Study a trained classifier of yours as the standard model, instead of one trained here. It needs gradients. As "
        "`notbugs attack` takes it.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Images per training step. [default: by the number of images]")]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate of AdamW. [default: by the images]")]
RelabelLearningRate = Annotated[
    float | None, typer.Option(help="The same for training on relabeled sets. [default: by the images]")
]
WeightDecay = Annotated[float | None, typer.Option(help="Weight decay of AdamW. [default: by the images]")]
Translate = Annotated[
    int | None,
    typer.Option(help="Augmentation: random translations up to N pixels. [default: 1/8 of the height; 0 up to 16x16]"),
]
RelabelTranslate = Annotated[int | None, typer.Option(help="The same in training on relabeled sets. [default: 0; 3 for mnist5k]")]
AdaptBatchnorm = Annotated[
    bool | None,
    typer.Option(
        "--adapt-batchnorm/--no-adapt-batchnorm",
        help="After training on a relabeled set, take batch-norm statistics from the original training images, without labels. "
        "[default: no; yes for mnist5k]",
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Augmentation: random horizontal flips. [default: for color images, unless mirroring changes the class]",
    ),
]
AdversarialSteps = Annotated[int, typer.Option(help="PGD steps of adversarial training.")]
AdversarialNoise = Annotated[
    float | None,
    typer.Option(
        metavar="STD",
        help="Gaussian noise added to each image in adversarial training: standard deviation, pixels in [0, 1]. [default: 0; for "
        "mnist5k in L2 a tenth of epsilon]",
    ),
]
InvertSteps = Annotated[
    int | None,
    typer.Option(help="Steps of feature inversion (D_R, D_NR). [default: 40; 25 up to 16x16; 20 for mnist5k and planted]"),
]
InvertStart = Annotated[str, typer.Option(help="Where inversion starts: image (another training image) or noise.")]
RelabelSteps = Annotated[int, typer.Option(help="PGD steps of D_rand and D_det.")]
Patience = Annotated[
    int | None,
    typer.Option(
        help="Extra epochs for a relabeled set while accuracy is at chance level. [default: half the epochs, 8 or more]"
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Also all controls, transferability, and every model attacked on every set. Takes several times as long.",
    ),
]
Replicate = Annotated[
    bool,
    typer.Option("--replicate", help="--full, and all else that the paper measured on CIFAR-10, with its figures beside."),
]
StratifiedTargets = Annotated[
    bool,
    typer.Option(
        "--stratified-targets",
        help="Draw random labels so that each class is drawn equally often: with few images none is left out.",
    ),
]

# ---- split -------------------------------------------------------------------------------------------------------------------

ByFile = Annotated[bool, typer.Option("--by-file", help="Change no image: sort the files by robustness, see `notbugs files`.")]
ListedFiles = Annotated[
    Path | None,
    typer.Option(
        metavar="LIST",
        help="Change no image: write the training files in LIST and all others as two subsets. One name per line, as the report "
        "of `notbugs files` exports it.",
    ),
]
Top = Annotated[
    float, typer.Option(metavar="SHARE", help="With --by-file: the share of each class in either subset, in (0, 0.5].")
]
