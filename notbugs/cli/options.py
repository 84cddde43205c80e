"""The options that several commands share."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

DATASET_HELP = (
    "Labeled images: digits, mnist5k or planted (built in); a folder with train/CLASS/file and test/CLASS/file, or only CLASS "
    "folders; an .npz with train_images, train_labels, …; a parquet file or folder; a saved Hugging Face data set; a hub name, "
    "or CIFAR10. Also .npy, .h5, .pt, .safetensors, .csv of pixels, MNIST's idx, CIFAR's .bin, .tar shards, or a .zip of any."
)
MODEL_HELP = (
    "A .safetensors file of notbugs, or module:function of your own, called with classes=K, that returns a trained network."
)
CLASSIFIER_HELP = (
    "A .safetensors file of notbugs, an .onnx file, or module:function of your own, called with classes=K, that returns a "
    "trained PyTorch network, a fitted scikit-learn classifier, or a function of images."
)
ARCHITECTURE_HELP = "small, resnet9, resnet18, resnet50, vgg, densenet, inception, mixer, linear, or module:function of your own"

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help=DATASET_HELP)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
AnyClassifier = Annotated[str, typer.Argument(metavar="MODEL", help=CLASSIFIER_HELP)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a study: what `notbugs run --out` wrote.")]

# ---- data --------------------------------------------------------------------------------------------------------------------

Resize = Annotated[int | None, typer.Option(metavar="N", help="Resize all images to N x N pixels: see --resize-mode.")]
ResizeMode = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="How images that are not square become so: crop (the shorter side to N, then the center), squash (change the "
        "proportions) or pad (black borders).",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="At most N training images, and N/8 test images (planted: at least 40)."),
]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and list them.")]
TrainPart = Annotated[
    str | None, typer.Option(metavar="PART", help="The part to train on: a folder in DATASET, or a split. [default: by its name]")
]
TestPart = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="The part to test on; . for all images. [default: test, else validation, else a fifth set aside]",
    ),
]
AllClasses = Annotated[
    bool, typer.Option("--all-classes", help="Every folder is a class, also those that are called train, test and the like.")
]
LabelTable = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A table with a row per image: .csv, .tsv, .txt, .json, .jsonl or .parquet. [default: found]"
    ),
]
FileColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Its column of file names. [default: the one that fits]")]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its column of labels, or that of a parquet file. [default: by its name]")
]
LabelRegex = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Labels in file names: what this finds in each path, ([a-z]+)\\.\\d+ in train/cat.0.jpg."),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX|COLUMN",
        help="Keep images of one group, frames of one video for example, in one part and fold. The group is what this finds in "
        "each path, or a column of the table.",
    ),
]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Follow links to folders, and to files outside DATASET.")]
White = Annotated[
    int | None,
    typer.Option(
        metavar="VALUE",
        help="The value that is white: up to 254 in all images, from 255 on in 16-bit gray ones. [default: 65535; of 8 bits 255]",
    ),
]

# Fields of `data.DataConfig`, with their defaults, in the order in which --help lists them.
DATA_OPTIONS: dict[str, tuple[object, object]] = {
    "resize": (Resize, None),
    "resize_mode": (ResizeMode, "crop"),
    "limit": (Limit, None),
    "train": (TrainPart, None),
    "test": (TestPart, None),
    "all_classes": (AllClasses, False),
    "labels": (LabelTable, None),
    "file_column": (FileColumn, None),
    "label_column": (LabelColumn, None),
    "label_regex": (LabelRegex, None),
    "group": (Group, None),
    "follow_links": (FollowLinks, False),
    "white": (White, None),
    "skip_unreadable": (SkipUnreadable, False),
}
DataOptions = Mapping[str, Any]
NO_OPTIONS: DataOptions = MappingProxyType({name: default for name, (_, default) in DATA_OPTIONS.items()})


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `data_options`, a dictionary, comes from the options in `DATA_OPTIONS`."""
    signature = inspect.signature(command)
    before = list(signature.parameters.values())
    place = [parameter.name for parameter in before].index("data_options")
    options = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in DATA_OPTIONS.items()
    ]
    parameters = [*before[:place], *options, *before[place + 1 :]]

    @wraps(command)
    def called(**given: object) -> None:
        if given.get("dataset") and given.get("out"):
            from notbugs.data.config import check_outside

            check_outside(str(given["dataset"]), str(given["out"]))
        command(data_options={name: given.pop(name) for name in DATA_OPTIONS}, **given)

    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return called


# ---- threat model ------------------------------------------------------------------------------------------------------------

Norm = Annotated[str, typer.Option(help="Norm of the perturbation: l2 or linf.")]
Epsilon = Annotated[
    str | None,
    typer.Option(metavar="EPS", help="Largest perturbation, for pixels in [0, 1]: 0.5 or 8/255. [default: by the images]"),
]
OneEpsilon = Annotated[
    str | None,
    typer.Option(
        metavar="EPS", help="Largest perturbation: 0.5, 8/255 or linf:8/255. [default: what the model was trained with]"
    ),
]

# ---- network and training ----------------------------------------------------------------------------------------------------

Network = Annotated[str | None, typer.Option(help=f"{ARCHITECTURE_HELP}, called with classes=K. [default: by the images]")]
OwnNetwork = Annotated[
    str | None, typer.Option(metavar="module:function", help="The network that the file of MODEL names, if it is your own.")
]
Width = Annotated[int | None, typer.Option(help="Channels of the network's first layer. [default: by the images]")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each training. [default: by the number of images]")]
Seed = Annotated[int, typer.Option(help="Random seed, 0 or more.")]
Versions = Annotated[
    int,
    typer.Option(
        metavar="N", help="Versions of each image in D_R and D_NR, 1 or more. Training on them takes about as many steps."
    ),
]

# ---- machine -----------------------------------------------------------------------------------------------------------------

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto.")]
Bf16 = Annotated[
    bool | None,
    typer.Option(
        "--bf16/--no-bf16",
        help="Train and construct data sets in bfloat16, never measure in it. [default: on a GPU that supports it]",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the networks with torch.compile. Slower on a CPU.")]
Workers = Annotated[int | None, typer.Option(help="Stages at once, each in its own process. [default: one per core; 1 on a GPU]")]

# ---- file scores -------------------------------------------------------------------------------------------------------------

Folds = Annotated[int, typer.Option(help="Folds, 2 or more: each file is scored by models trained on the other folds.")]
Repeats = Annotated[int, typer.Option(help="Repetitions with other folds, 1 or more. More give more reliable ranks.")]
Pictures = Annotated[
    float,
    typer.Option(
        metavar="MB",
        help="Store the adversarial examples, D_R and D_NR of all files for the report, if they have at most MB megabytes before "
        "compression. 0: never.",
    ),
]

# ---- output ------------------------------------------------------------------------------------------------------------------

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder. The same command resumes a stopped run.")]
Write = Annotated[
    str | None,
    typer.Option(
        metavar="FORM",
        help="Write data sets as folder, parquet, npz or webdataset (tar shards). [default: as the input is]",
    ),
]
