"""The options that several commands share."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import typer

from notbugs.data_config import DATA_FIELDS, DataConfig, check_outside
from notbugs.errors import InputError

DATASET_HELP = (
    "Labeled images: digits, mnist5k or planted (built in); a folder with train/CLASS/file and test/CLASS/file, or only CLASS "
    "folders; an .npz with train_images, train_labels, …; a parquet file or folder; a saved Hugging Face data set; a hub name, "
    "or CIFAR10. Also .npy, .h5, .pt, .safetensors, .csv of pixels, MNIST's idx, CIFAR's .bin, .tar shards, or a .zip of any."
)
NETWORK_MODEL_HELP = (
    "A .safetensors file of notbugs; timm:NAME, hf:NAME_OR_PATH or torchvision:NAME; a file of TorchScript or torch.export; a "
    "file of weights with --network"
)
MODEL_HELP = (
    f"{NETWORK_MODEL_HELP}; or module:function of your own, called with classes=K, that returns a trained network. "
    "Documentation: Models."
)
CLASSIFIER_HELP = (
    f"{NETWORK_MODEL_HELP}; an .onnx or .skops file; or module:function of your own, called with classes=K, that returns a "
    "trained PyTorch network, a fitted scikit-learn classifier, or a function of images. Documentation: Models."
)
ARCHITECTURE_HELP = (
    "small, resnet9, resnet18, resnet50, vgg, densenet, inception, mixer, linear; timm:NAME, hf:NAME_OR_PATH or "
    "torchvision:NAME; or module:function of your own"
)

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help=DATASET_HELP)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
AnyClassifier = Annotated[str, typer.Argument(metavar="MODEL", help=CLASSIFIER_HELP)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a study: what `notbugs run --out` wrote.")]

# ---- data --------------------------------------------------------------------------------------------------------------------

# How each field of `DataConfig` is asked for, in the order of --help. Types and defaults are those of the fields.
DATA_OPTIONS: dict[str, object] = {
    "resize": typer.Option(metavar="N", help="Resize all images to N x N pixels: see --resize-mode."),
    "resize_mode": typer.Option(
        metavar="MODE",
        help="How images that are not square become so: crop (the shorter side to N, then the center), squash (change the "
        "proportions) or pad (black borders).",
    ),
    "limit": typer.Option(metavar="N", help="At most N training images, and N/8 test images (planted: at least 40)."),
    "train": typer.Option(metavar="PART", help="The part to train on: a folder in DATASET, or a split. [default: by its name]"),
    "test": typer.Option(
        metavar="PART",
        help="The part to test on; . for all images. [default: test, else validation, else a fifth set aside]",
    ),
    "all_classes": typer.Option(
        "--all-classes", help="Every folder is a class, also those that are called train, test and the like."
    ),
    "labels": typer.Option(
        metavar="FILE", help="A table with a row per image: .csv, .tsv, .txt, .json, .jsonl or .parquet. [default: found]"
    ),
    "file_column": typer.Option(metavar="NAME", help="Its column of file names. [default: the one that fits]"),
    "label_column": typer.Option(metavar="NAME", help="Its column of labels, or that of a parquet file. [default: by its name]"),
    "label_regex": typer.Option(
        metavar="REGEX", help="Labels in file names: what this finds in each path, ([a-z]+)\\.\\d+ in train/cat.0.jpg."
    ),
    "group": typer.Option(
        metavar="REGEX|COLUMN",
        help="Keep images of one group, frames of one video for example, in one part and fold. The group is what this finds in "
        "each path, or a column of the table.",
    ),
    "follow_links": typer.Option("--follow-links", help="Follow links to folders, and to files outside DATASET."),
    "white": typer.Option(
        metavar="VALUE",
        help="The value that is white: up to 254 in all images, from 255 on in 16-bit gray ones. [default: 65535; of 8 bits 255]",
    ),
    "skip_unreadable": typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and list them."),
}
DataOptions = Mapping[str, Any]
MOST, MOST_SEED = 2**31 - 1, 2**63 - 1  # of a whole number: what torch and the system count with
OUTPUTS = ("out", "json", "junit", "sarif")  # options that name what a command writes
NO_OPTIONS: DataOptions = MappingProxyType({name: field.default for name, field in DATA_FIELDS.items()})


def _data_parameters() -> list[inspect.Parameter]:
    """A parameter for each field of `DataConfig`, as typer reads it. A field that is missing in `DATA_OPTIONS` is an error."""
    types = get_type_hints(DataConfig)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=NO_OPTIONS[name],
            annotation=Annotated[types[name], DATA_OPTIONS[name]],
        )
        for name in sorted(DATA_FIELDS, key=[*DATA_OPTIONS].index)
    ]


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `data_options`, a dictionary, comes from the options for the fields of `DataConfig`."""
    grouped = with_group(command, "data_options", _data_parameters())

    @wraps(grouped)
    def called(**given: object) -> None:
        outputs = {name: Path(str(given[name])) for name in OUTPUTS if given.get(name)}
        if given.get("dataset") and outputs:
            config = DataConfig(str(given["dataset"]), **{name: given[name] for name in DATA_FIELDS})  # type: ignore[arg-type]
            read = {name: value for name, value in given.items() if name not in OUTPUTS}
            for name, path in outputs.items():
                check_outside(config, *_written(name, path), option=f"--{name}")
                check_kept(read, name, path)
        grouped(**given)

    return called


def _written(name: str, out: Path) -> tuple[Path, ...]:
    """What a command writes: a run folder, or a file and, with --out, the notes beside it."""
    return (out, out.with_suffix(".json")) if name == "out" and out.suffix else (out,)


def check_kept(given: Mapping[str, object], name: str, out: Path) -> None:
    """Raises InputError for an output that would replace a file that the command reads: a model, a mask, a class map, a list."""
    images = (
        (out.with_suffix(".png"), out.with_name(f"{out.stem}-fourier.csv")) if name == "out" else ()
    )  # `explain`, `corruptions`
    written = {os.path.realpath(path): path for path in (*_written(name, out), *images)}
    each = [one for value in given.values() for one in (value if isinstance(value, list | tuple) else [value])]
    for value in each:
        if not isinstance(value, str | Path) or not os.path.isfile(value):
            continue
        described = os.path.splitext(value)[0] + ".json"  # beside a checkpoint
        for path in (str(value), *([described] if os.path.isfile(described) else [])):
            if found := written.get(os.path.realpath(path)):
                raise InputError(f"--{name}", f"must not replace {path}, which is read", str(found), "choose another")


def check_numbers(given: Mapping[str, object]) -> None:
    """Raises InputError for a whole number that is too large for anything: torch would say so with a traceback, or much later."""
    for name, value in given.items():
        most = MOST_SEED if name == "seed" else MOST
        if isinstance(value, int) and value > most:
            raise InputError("--" + name.replace("_", "-"), f"must be at most {most:,}", value)


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `model_options`, a dictionary, comes from the options that say what is to be known of MODEL."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in MODEL_OPTIONS.items()]
    return with_group(command, "model_options", parameters)


def with_group(command: Callable[..., None], name: str, parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """A command whose argument of this name is a dictionary of other parameters, as typer reads them."""
    signature = inspect.signature(command)
    before = list(signature.parameters.values())
    place = [parameter.name for parameter in before].index(name)
    after = [*before[:place], *parameters, *before[place + 1 :]]

    @wraps(command)
    def called(**given: object) -> None:
        command(**{name: {parameter.name: given.pop(parameter.name) for parameter in parameters}}, **given)

    called.__signature__ = signature.replace(parameters=after)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in after} | {"return": None}
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
        metavar="EPS",
        help="Largest perturbation: 0.5, 8/255 or linf:8/255. [default: what the model was trained with, else what suits the "
        "images]",
    ),
]

# ---- what is attacked --------------------------------------------------------------------------------------------------------

MaskFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Which pixels may change, in every threat model but rotations: an image of the size of the images, white where they "
        "may and black elsewhere (in color: channel by channel), or an .npy of 0 and 1.",
    ),
]
OnlyClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--only-class", metavar="CLASS", help="Attack only images of this class. Every class may be predicted. May be repeated."
    ),
]
Images = Annotated[int | None, typer.Option(metavar="N", help="Attack N test images, evenly spaced. [default: all]")]

# ---- network and training ----------------------------------------------------------------------------------------------------

Network = Annotated[str | None, typer.Option(help=f"{ARCHITECTURE_HELP}, called with classes=K. [default: by the images]")]
OwnNetwork = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the weights in the file of MODEL belong to: module:function of your own, called with classes=K, timm:NAME or "
        "torchvision:NAME.",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The module whose outputs are the features: of MODEL, else of --network. [default: the input of the last layer]",
    ),
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Begin with the weights of --network, and fine-tune. Documentation: Models.")
]
HeadOnly = Annotated[bool, typer.Option("--head-only", help="Fine-tune the last layer alone, which is faster.")]
RobustModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Begin adversarial training with the weights of a robust network: a file, hf:OWNER/REPOSITORY/FILE, timm:NAME, "
        "hf:NAME or torchvision:NAME. Weights in a file belong to --network.",
    ),
]
OutputNames = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the model's outputs in order: a line each, a JSON list, or JSON {index: name}. They are matched with the "
        "classes of DATASET. [default: its own names, else the order of the classes]",
    ),
]
ClassMap = Annotated[
    str | None,
    typer.Option(
        metavar="MAP",
        help="The model's outputs that each class of DATASET has, by index or name: cat=281+282,dog=151, or a .json or .csv "
        "file. Several are added.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="VALUES",
        help="What MODEL needs subtracted from the pixels and does not subtract itself, as many exported models: one number, or "
        "one for each channel, 0.485,0.456,0.406. Pixels are in [0, 1], or in --range.",
    ),
]
Std = Annotated[str | None, typer.Option(metavar="VALUES", help="Standard deviation to divide by, after --mean: as --mean.")]
PixelRange = Annotated[
    str | None,
    typer.Option(
        "--range", metavar="BLACK,WHITE", help="Pixels that MODEL expects, before --mean: 0,255 or -1,1. [default: 0,1]"
    ),
]
# What is said of MODEL: fields of `AuditConfig`, in the order of --help
MODEL_OPTIONS: Mapping[str, object] = {
    "network": OwnNetwork,
    "classes": OutputNames,
    "class_map": ClassMap,
    "mean": Mean,
    "std": Std,
    "pixel_range": PixelRange,
}
ModelOptions = Mapping[str, str | None]
NO_MODEL_OPTIONS: ModelOptions = MappingProxyType(dict.fromkeys(MODEL_OPTIONS))
Width = Annotated[int | None, typer.Option(help="Channels of the network's first layer. [default: by the images]")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each training. [default: by the number of images]")]
Seed = Annotated[int, typer.Option(help="Random seed, 0 or more.")]
Versions = Annotated[
    int,
    typer.Option(
        metavar="N", help="Versions of each image in D_R and D_NR, 1 or more. Training on them takes about as many steps."
    ),
]

RobustStrong = Annotated[
    bool,
    typer.Option(
        "--robust-strong",
        help="Also a stronger D_R: eight versions of each image that two robust models classify correctly. In `run`, training on "
        "it takes four times the steps, with noise; a control is trained alike on the original images.",
    ),
]

# ---- machine -----------------------------------------------------------------------------------------------------------------

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto.")]
Bf16 = Annotated[
    bool | None,
    typer.Option(
        "--bf16/--no-bf16",
        help="Train and construct data sets in bfloat16, never measure in it. "
        "[default: on a GPU that supports it, and on a CPU that a timed batch shows to be faster in it]",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the networks with torch.compile. Slower on a CPU.")]
Workers = Annotated[int | None, typer.Option(help="Stages at once, each in its own process. [default: one per core; per GPU]")]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="WHERE",
        help="Do stages on other machines: the scheduler file of a Dask cluster, its address (tcp://…), or module:function of "
        "your own that returns an Executor. --out must be on a disk that all share. Documentation: Several GPUs and machines.",
    ),
]

# ---- file scores -------------------------------------------------------------------------------------------------------------

Folds = Annotated[int, typer.Option(help="Folds, 2 or more: each file is scored by models trained on the other folds.")]
Repeats = Annotated[int, typer.Option(help="Repetitions with other folds, 1 or more. More give more reliable ranks.")]
SubsetRegression = Annotated[
    int,
    typer.Option(
        metavar="PAIRS",
        help="Train PAIRS pairs of classifiers on halves of the files, and learn from their robust accuracy a weight for each "
        "score: the columns subset_regression and subset_regression_equal_clean. `split --by-file` then ranks by the first. "
        "At least 20; 40 to 60 on the data measured. A pair takes about as long as one standard training, and an attack on a "
        "quarter of the files. 0: none.",
    ),
]
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
