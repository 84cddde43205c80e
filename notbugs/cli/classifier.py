"""Commands on one classifier: its features, the transferability of its adversarial examples."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import (
    How,
    audit_config,
    percent,
    print_conditions,
    print_table,
    progress,
)
from notbugs.cli.options import (
    NO_MODEL_OPTIONS,
    NO_OPTIONS,
    DataOptions,
    DatasetArgument,
    Device,
    Epochs,
    ExecutorName,
    Images,
    Layer,
    MaskFile,
    Model,
    ModelOptions,
    OneEpsilon,
    OnlyClasses,
    Seed,
    Workers,
    with_data_options,
    with_model_options,
)
from notbugs.cli.say import say
from notbugs.cli.table_file import check_table_file, write_table
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.runs.tables.features import FeatureRow
    from notbugs.runs.tables.transferability import TransferRow


FeaturesOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv", help="Keep the table: a row per feature and class, with intervals; FILE.json: how the data were read."
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Images on which each feature is attacked, 1 or more. [default: 100; fewer for over 128 features]"
    ),
]
Steps = Annotated[int, typer.Option(metavar="N", help="Steps of that attack after a first one of length epsilon, 0 or more.")]
Most = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Attack the N most useful features so; the others get one step. [default: 64; fewer for over 128 features]",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A target: vgg, resnet, densenet, inception, mixer, logistic-regression, linear-svm, rbf-svm, random-forest, "
        "boosting, nearest-neighbors (trained here on the training images), or a model as `notbugs attack` takes it. May be "
        "repeated. [default: all those named]",
    ),
]
TransferOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv", help="Keep the table: a row per target and kind of perturbation; FILE.json: how the data were read."
    ),
]


@with_data_options
@with_model_options
def features(
    model: Model,
    dataset: DatasetArgument,
    out: FeaturesOut = None,
    epsilon: OneEpsilon = None,
    mask: MaskFile = None,
    layer: Layer = None,
    sample: Sample = None,
    steps: Steps = 8,
    most: Most = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    data_options: DataOptions = NO_OPTIONS,
    device: Device = "auto",
) -> None:
    """Robust, non-robust and useless features of a classifier.

    Usefulness (rho) and robust usefulness (gamma) of each feature on test images. Robust: rho of 0.1 or more, and gamma above 0.
    """
    from notbugs import metrics, models
    from notbugs.audit.classifiers import load_classifier, report_order, with_gradients
    from notbugs.audit.default_threats import with_epsilon
    from notbugs.audit.images import test_part
    from notbugs.audit.threats import conditions, threat_models
    from notbugs.runs.tables.row import as_csv
    from notbugs.search import NormBall

    for name, value, least in (("--sample", sample, 1), ("--steps", steps, 0), ("--most", most, 0)):
        if value is not None and value < least:
            raise InputError(name, f"must be {least} or more", value)
    check_table_file(out)
    given = audit_config(
        model,
        dataset,
        threats=[epsilon] if epsilon else [],
        mask=mask,
        model_options=model_options,
        data_options=data_options,
        device=device,
    )
    config = with_epsilon(given)
    threat_model, part = threat_models(config)[-1], test_part(config)[0]
    if not isinstance(threat_model, NormBall) or threat_model.norm == "l0":
        raise InputError("--epsilon", "must be in linf, l2 or l1 for features", str(threat_model))
    differentiable = with_gradients(config, model, "features are attacked with them")
    classifier = load_classifier(config, model).model if layer else differentiable
    classifier, words = models.with_features(classifier, part.pixels(slice(0, 2)).to(config.device), layer)
    report_order(config, model)
    with progress() as report_progress:
        rows = metrics.per_feature(
            classifier,
            part,
            threat_model,
            forward=classifier.features,
            steps=steps,
            sample=sample,
            most=most,
            device=config.device,
            progress=lambda share: report_progress("features", share, "" if share < 1 else "done"),
        )
    say(f"Features: {words}.", file=sys.stderr)
    print_conditions(conditions(config))
    _print_features(rows, len(part), str(threat_model))
    if out is not None:
        write_table(out, as_csv(rows), conditions=conditions(config))


def _print_features(rows: Sequence["FeatureRow"], images: int, threat: str) -> None:
    """How many features of each category there are, and the five most useful ones."""
    from notbugs import metrics

    best = sorted(metrics.best_class_rows(rows), key=lambda row: -row.usefulness)
    say(f"{len(best)} features on {images} test images; robust usefulness within {threat} on {rows[0].n_attacked} of them")
    for category in ("robust", "non-robust", "useless"):
        members = [row for row in best if row.category == category]
        say(f"{category}: {len(members)}, {sum(row.significant for row in members)} of them significantly")
        for row in members[:5]:
            useful = f"{row.usefulness:5.2f} [{row.usefulness_ci_low:.2f}, {row.usefulness_ci_high:.2f}]"
            robust = f"{row.robust_usefulness:5.2f} [{row.robust_usefulness_ci_low:.2f}, {row.robust_usefulness_ci_high:.2f}]"
            say(f"  feature {row.feature:<5} {row.class_name:16} usefulness {useful}   robust usefulness {robust}")


@with_data_options
@with_model_options
def transfer(
    model: Model,
    dataset: DatasetArgument,
    against: Targets = None,
    out: TransferOut = None,
    epsilon: OneEpsilon = None,
    mask: MaskFile = None,
    images: Images = None,
    only_class: OnlyClasses = None,
    seed: Seed = 0,
    epochs: Epochs = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    data_options: DataOptions = NO_OPTIONS,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
) -> None:
    """Transferability of a model's adversarial examples.

    To other networks, to non-neural classifiers, and to your own models.
    """
    from notbugs.audit import transfer as audit_transfer
    from notbugs.audit.default_threats import with_epsilon
    from notbugs.audit.threats import conditions
    from notbugs.runs.tables.row import as_csv

    check_table_file(out)
    how = How(workers, executor, device)
    how.check()
    config = with_epsilon(
        audit_config(
            model,
            dataset,
            threats=[epsilon] if epsilon else [],
            images=images,
            mask=mask,
            only_classes=only_class or (),
            model_options=model_options,
            data_options=data_options,
            device=device,
            executor=executor,
        )
    )
    with how.engine() as engine, progress() as report_progress:
        rows = audit_transfer.run_transfer(
            config,
            against or audit_transfer.ALL_TARGETS,
            seed=seed,
            epochs=epochs,
            workers=workers,
            engine=engine,
            report_progress=report_progress,
        )
    print_conditions(conditions(config))
    _print_transfer(rows)
    if out is not None:
        write_table(out, as_csv(rows), conditions=conditions(config))


def _print_transfer(rows: Sequence["TransferRow"]) -> None:
    """A line per target: its clean accuracy and the transfer rates."""
    lines, targets = [], [*dict.fromkeys(row.target for row in rows)]
    names = {target: Path(target).stem if target.endswith((".safetensors", ".onnx")) else target for target in targets}
    if len({*names.values()}) < len(names):  # weights of two studies
        names = {target: target for target in targets}
    for target in targets:
        by_perturbation = {row.perturbation: row for row in rows if row.target == target}
        untargeted = by_perturbation["untargeted"]
        rates = [_rate(by_perturbation[name]) for name in ("random", "untargeted", "targeted")]
        same = f"{100 * untargeted.same_mistake / untargeted.n:.1f}" if untargeted.n else "–"
        lines.append([names[target], f"{100 * untargeted.clean_accuracy:.1f}", *rates[:2], same, rates[2]])
    title = f"Transfer rates within {rows[0].norm} {rows[0].epsilon:.4g}, in percent [95 % CI]"
    print_table(title, ["target", "clean accuracy", "random", "untargeted", "same mistake", "targeted"], lines)
    say("Of the images that source and target classify correctly. random: perturbations of the same size; same mistake: the")
    say("target predicts the source's wrong class; targeted: the target predicts the target class.")


def _rate(row: "TransferRow") -> str:
    return percent(row.transfer_rate, row.ci_low, row.ci_high) if row.transfer_rate is not None else "–"
