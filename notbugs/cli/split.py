"""`notbugs split`: the robust and the non-robust version of a data set, or two subsets of its files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from notbugs.cli.config_file import source_of
from notbugs.cli.console import How, study_config
from notbugs.cli.dry_run import DryRun, print_plan
from notbugs.cli.files import files_config, split_files
from notbugs.cli.options import (
    NO_OPTIONS,
    Bf16,
    Compile,
    DataOptions,
    DatasetArgument,
    Device,
    Epochs,
    Epsilon,
    ExecutorName,
    Folds,
    HeadOnly,
    Layer,
    Network,
    Norm,
    Out,
    Pictures,
    Pretrained,
    Repeats,
    RobustModel,
    RobustStrong,
    Seed,
    SubsetRegression,
    Versions,
    Width,
    Workers,
    Write,
    with_data_options,
)
from notbugs.cli.say import say
from notbugs.cli.study import do_stages
from notbugs.cli.study_options import AdversarialNoise, AdversarialSteps, ByFile, Flip, ListedFiles, Top
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig

OF_SCORES = ("top", "folds", "repeats", "subset_regression", "pictures")
OF_TRAININGS = (
    *("norm", "epsilon", "network", "pretrained", "head_only", "layer", "width", "epochs", "flip"),
    *("device", "workers", "executor"),
)
ATTACKED_IMAGES = 100  # test images at most on which `split` attacks the models that it constructs with


@with_data_options
def split(
    context: typer.Context,
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    layer: Layer = None,
    robust_model: RobustModel = None,
    adversarial_steps: AdversarialSteps = 3,
    adversarial_noise: AdversarialNoise = None,
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    versions: Versions = 1,
    robust_strong: RobustStrong = False,
    by_file: ByFile = False,
    top: Top = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    subset_regression: SubsetRegression = 0,
    pictures: Pictures = 1000,
    files: ListedFiles = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
    write: Write = None,
    dry_run: DryRun = False,
) -> None:
    """The robust and the non-robust version of a data set.

    D_R and D_NR, file for file, in FOLDER/datasets.

    With --versions each file has several versions: cat.png, cat~2.png, and so on.

    Train on either with your own code. `notbugs run --out FOLDER` continues to the whole study.
    With --by-file the files with the highest and the lowest rank (robustness, or subset_regression) become two subsets.
    With --files LIST the listed training files become one subset, all others another.
    Either copies the files as they are, in their original size and format.
    """
    config, how = study_config({**locals(), **data_options, "seeds": 1}), How(workers, executor, device)
    _refuse_unused(context, by_file=by_file, listed=files is not None)
    if by_file or files:
        option = "--by-file" if by_file else "--files"
        if versions != 1:
            raise InputError("--versions", f"cannot be used with {option}, which changes no image", versions)
        _refuse_of_constructions(
            option,
            {
                "--bf16, --compile": bf16 is not None or compile,
                "--robust-strong": robust_strong,
                "--robust-model": robust_model,
                "--adversarial-steps": adversarial_steps != 3 and adversarial_steps,
                "--adversarial-noise": adversarial_noise,
                "--dry-run": dry_run,
            },
        )
        split_files(files_config(config, folds, repeats, subset_regression, pictures), out, how, files, top if by_file else None)
        return
    _construct(config, out, how, strong=robust_strong, dry_run=dry_run)


def _construct(config: "StudyConfig", out: Path, how: How, *, strong: bool, dry_run: bool) -> None:
    """Make D_R and D_NR, and print where they are and what they were made from."""
    from notbugs.runs.tables.study import SetRow
    from notbugs.study.store import dataset_path

    names = ("robust", "nonrobust", *(("robust-strong",) if strong else ()))
    stages = [f"dataset-{name}" for name in names]
    if dry_run:
        print_plan(config, out, how, only=stages)
        return
    record = do_stages(config, out, how, only=stages)
    _print_sources(config, record)
    rows = {row.set: row for row in record.rows(SetRow) if row.seed == config.seed}
    for name in names:
        path = dataset_path(config, out, config.seed, name)
        say(f"{name:13}  {rows[name].n} images, feature error {rows[name].feature_error:.3f}  {path}")
    _print_next(config, record)


def _refuse_of_constructions(option: str, values: Mapping[str, object]) -> None:
    """Raises InputError for an option of D_R and D_NR where `option` makes subsets; False and None: it was not given."""
    for name, value in values.items():
        if value is not None and value is not False:
            raise InputError(name, f"cannot be used with {option}", value)


def _refuse_unused(context: typer.Context, *, by_file: bool, listed: bool) -> None:
    """Raises InputError for an option of the command line that has no effect here; one in --config may be meant for others."""
    unused, reason = tuple[str, ...](), ""
    if listed and not by_file:
        unused, reason = (*OF_SCORES, *OF_TRAININGS), "has no effect with --files, where nothing is trained"
    elif not by_file:
        unused, reason = OF_SCORES, "ranks files: it needs --by-file"
    for name in unused:
        if source_of(context, name) == "COMMANDLINE":
            raise InputError("--" + name.replace("_", "-"), reason, context.params.get(name))


def _print_next(config: "StudyConfig", record: "RunFolder") -> None:
    """How to measure what was trained on either version: on the same test images, at the same size, within the same epsilon."""
    from notbugs.data_config import asked_options
    from notbugs.runs.metadata import epsilon_text
    from notbugs.study.commands import command_with
    from notbugs.study.config import load
    from notbugs.study.epsilon import hardly_visible

    epsilon, by_distances = record.study().epsilon, record.study().settings.get("epsilon_from") == "gap"
    less = hardly_visible(load(config).train.shape, epsilon) if by_distances and config.norm == "l2" else None
    threats = tuple(f"{config.norm}:{epsilon_text(each)}" for each in (epsilon, epsilon / 2, *([less] if less else [])))
    options = {**asked_options(config.data), "epsilon": threats}
    options.pop("limit", None)  # of the test images that would be an eighth
    again = command_with("attack", ["MODEL", config.dataset], options)
    say(
        "Train on either: README.md beside the images has code. Then attack each model on the original test images:",
        f"  {again}",
        file=sys.stderr,
    )


def _print_sources(config: "StudyConfig", record: "RunFolder") -> None:
    """Accuracies of the two models that D_R and D_NR are made from, and warnings where the robust one may be too weak."""
    from notbugs import data, metrics
    from notbugs.report.findings.construction import not_more_robust, undecided_source, weak_source_warning
    from notbugs.search import NormBall
    from notbugs.study.config import load
    from notbugs.study.datasets import SOURCE_IMAGES
    from notbugs.study.overfitting import overfitting_warning
    from notbugs.study.store import load_model

    test, half = load(config).test, NormBall(config.norm, record.study().epsilon / 2)
    parts = [data.random_subset(test, count) for count in (SOURCE_IMAGES, ATTACKED_IMAGES)]
    clean, attacked = {}, {}
    for name in ("standard", "adversarial"):
        model = load_model(config, record.folder, config.seed, name)
        clean[name] = metrics.clean_accuracy(model, parts[0], device=config.device)
        attacked[name] = metrics.robust_accuracy(model, parts[1], [half], budget="quick", device=config.device)[1]
        for kind, found in (
            ("clean accuracy", clean[name]),
            (f"robust accuracy at {half} ({attacked[name].attack})", attacked[name]),
        ):
            interval = f"[{100 * found.ci_low:.1f}, {100 * found.ci_high:.1f}]"
            say(f"{name:13}  {kind} {100 * found.accuracy:.1f} % {interval} on {found.n} test images")
    chance, robust = test.labels.bincount().max().item() / len(test), clean["adversarial"]
    weak = weak_source_warning(robust.accuracy, robust.ci_low, chance, clean["standard"].accuracy)
    undecided = undecided_source(robust, chance, clean["standard"])
    settings = record.study().settings
    overfits = overfitting_warning(
        load_model(config, record.folder, config.seed, "adversarial"),
        load(config).train,
        NormBall(config.norm, record.study().epsilon),
        int(str(settings["adversarial_steps"])),
        config.device,
        noise=float(str(settings.get("adversarial_noise", 0))),
        option="--adversarial-noise",
    )
    for warning in filter(None, (weak, undecided, not_more_robust(attacked["adversarial"], attacked["standard"]), overfits)):
        say(f"notbugs: {warning}", file=sys.stderr)
