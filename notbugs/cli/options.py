"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DATASET_HELP = """A labelled set of images: `digits` or `planted` (built in); a folder with train/CLASS/file and test/CLASS/file,
or only CLASS folders; an .npz with train_images, train_labels, …; a parquet file or folder; a saved Hugging Face set; a hub
name, or CIFAR10."""

DatasetArgument = Annotated[str, typer.Argument(metavar="SOURCE", help=DATASET_HELP.replace("\n", " "))]
Resize = Annotated[int | None, typer.Option(metavar="N", help="Bring every image to N x N pixels.")]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use at most N training images, and an eighth as many test images (planted: at least 40)."),
]
SkipUnreadable = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and list them.")]
Norm = Annotated[str, typer.Option(help="How change is measured: l2 or linf.")]
Epsilon = Annotated[
    str | None,
    typer.Option(
        metavar="R", help="How much an image may change, pixels in [0, 1]; 8/255 is understood. [default: by the images]"
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        help="small, resnet9, resnet18, resnet50, vgg, densenet, inception, mixer, linear, or module:function of your own, "
        "called with classes=K. [default: by the images]"
    ),
]
Width = Annotated[int | None, typer.Option(help="Channels of the network's first layer.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data in each training. [default: by their number]")]
Seed = Annotated[int, typer.Option(help="Everything that chance decides.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto.")]
Bf16 = Annotated[
    bool | None,
    typer.Option(
        "--half/--no-half",
        help="Train and make sets in bfloat16; verdicts never. Faster where the processor knows it. [default: on a GPU]",
    ),
]
Versions = Annotated[
    int,
    typer.Option(metavar="N", help="Versions of each image; classifiers are trained on them in about as many steps as on one."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile each kind of network first. For GPUs; slower on a CPU.")]
Workers = Annotated[int | None, typer.Option(help="Stages done at once, each in a process. [default: one a core; 1 on a GPU]")]
Folds = Annotated[int, typer.Option(help="Of files: each is judged by models trained on the other folds.")]
Repeats = Annotated[int, typer.Option(help="How often the files are dealt into folds; more make ranks steadier.")]
Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where the study goes. The same command again goes on where it stopped.")
]
