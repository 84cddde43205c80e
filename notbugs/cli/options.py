"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DATASET_HELP = (
    "Labeled images: digits, mnist5k or planted (built in); a folder with train/CLASS/file and test/CLASS/file, or only CLASS "
    "folders; an .npz with train_images, train_labels, …; a parquet file or folder; a saved Hugging Face data set; a hub name, "
    "or CIFAR10."
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

Resize = Annotated[int | None, typer.Option(metavar="N", help="Resize all images to N x N pixels.")]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="At most N training images, and N/8 test images (planted: at least 40)."),
]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Skip files that cannot be read, and list them.")]

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
