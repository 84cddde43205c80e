"""Commands on a classifier: attack it, look at its features, try its examples on others."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from notbugs.cli.console import parse_device, progress
from notbugs.cli.options import DatasetArgument, Device, Epochs, Limit, Resize, Seed, SkipUnreadable, Workers
from notbugs.errors import InputError


def attack(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors file that notbugs wrote, an .onnx file, or module:function of your own, called with classes=K, "
            "that returns a trained torch network, a fitted scikit-learn classifier, or a function of images.",
        ),
    ],
    source: DatasetArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the audit: report, tables, attacked images. The same command again goes on where it stopped.",
        ),
    ] = None,
    epsilon: Annotated[
        list[str] | None,
        typer.Option(
            metavar="R",
            help="What may change: 0.5, 8/255 (in --norm), or l2:0.5, linf:8/255, l1:10, l0:1 (one pixel), spatial:30,3 "
            "(degrees, pixels). As often as you like. [default: what the model was trained with, and half of it]",
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="l2, linf, l1 or l0, for bare radii. [default: what the model was trained with, else l2]")
    ] = None,
    budget: Annotated[str, typer.Option(help="quick, standard or thorough: how hard to try.")] = "standard",
    images: Annotated[int | None, typer.Option(metavar="N", help="Attack N images, spread evenly over the test part.")] = None,
    other: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Another model of the same task, whose examples are tried too.")
    ] = None,
    network: Annotated[str | None, typer.Option(metavar="module:function", help="Your own network, if MODEL is one.")] = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Audit a classifier on the test part of a set: what it still reads at each radius, and whether that can be believed."""
    import tempfile

    from notbugs import audit
    from notbugs.search.threat_models import NORMS, parse_threat_model

    if norm is not None and norm not in NORMS:
        raise InputError("--norm", f"must be one of {', '.join(NORMS)}", repr(norm))
    texts = tuple(text if ":" in text or norm is None else f"{norm}:{text}" for text in epsilon or ())
    for text in texts:
        parse_threat_model(text)
    asked = audit.AuditConfig(
        model, source, texts, budget, images, tuple(other or ()), network, resize, limit, skip_bad, parse_device(device)
    )
    if workers is not None and workers < 1:
        raise InputError("--workers", "must be 1 or more", workers)
    with tempfile.TemporaryDirectory() as temporary, progress() as report_progress:
        command = shlex.join(["notbugs", *sys.argv[1:]])
        record = audit.run(
            asked, out or Path(temporary) / "audit", command=command, workers=workers, report_progress=report_progress
        )
        checks, rows = record.table("checks"), record.table("accuracy")
    for check in checks:
        if check["passed"] == "no":
            print(f"NOT TO BE TRUSTED: {check['check']}: {check['seen']}.\n  {check['why']}\n  {check['remedy']}")
    note = record.metadata["data"]["note"]
    if note:
        print(note)
    for row in rows:
        accuracy, low, high = (100 * float(row[name]) for name in ("accuracy", "low", "high"))
        counts = f"{row['correct']} of {row['n']}"
        counts += "" if row["within"] == "unchanged" else f" (stored in 8 bits: {row['correct_as_stored']})"
        print(f"{row['within']:14} {accuracy:5.1f} %  [{low:.1f}–{high:.1f}]  {counts}  {row['attack']}")
    if out:
        from notbugs import report

        print(f"{record.metadata['seconds']:.0f} s. The report: {report.write(out)}")


def features(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors file that notbugs wrote, or module:function of your own, called with classes=K, that returns a "
            "trained torch network.",
        ),
    ],
    source: DatasetArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Keep the table: one row a feature and class, with intervals.")
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(metavar="R", help="What may change: 0.5, 8/255, linf:8/255. [default: what the model was trained with]"),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The module whose outputs are the features. [default: what enters the last layer]"),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Images on which a change is searched for each feature. [default: 100; fewer for over 128 features]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of that search, after one of the whole radius.")] = 8,
    most: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="For so many of the most useful features; the rest get one step. [default: 64; fewer for over 128 features]",
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(metavar="module:function", help="Your own network, if MODEL is one.")] = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Which features of a classifier are robust, useful but non-robust, or useless, on the test part of a set."""
    from notbugs import metrics, models
    from notbugs.audit import AuditConfig, config
    from notbugs.runs import folder
    from notbugs.search import NormBall

    for name, value in (("--sample", sample), ("--steps", steps), ("--most", most)):
        if value is not None and value < (name == "--sample"):
            raise InputError(name, f"must be {int(name == '--sample')} or more", value)
    if out is not None:
        models.check_writable(out)
    asked = AuditConfig(
        model, source, (epsilon,) if epsilon else (), "quick", None, (), network, resize, limit, skip_bad, parse_device(device)
    )
    threat_model, part = config.threat_models(asked)[-1], config.test_part(asked)[0]
    if not isinstance(threat_model, NormBall) or threat_model.norm == "l0":
        raise InputError("--epsilon", "must be in linf, l2 or l1 for features", str(threat_model))
    classifier = config.load_classifier(asked, model)[0] if layer else config.search_copy(asked, model)
    view = metrics.layer_forward(classifier, layer) if layer else None
    with progress() as report_progress:
        rows = metrics.per_feature(
            classifier, part, threat_model, view=view, steps=steps, sample=sample, most=most, device=asked.device,
            progress=lambda share: report_progress("features", share, "" if share < 1 else "done"),
        )  # fmt: skip
    best = sorted(metrics.best_class_rows(rows), key=lambda row: -row["usefulness"])
    print(f"{len(best)} features on {len(part)} test images, {threat_model}; what a change takes, on {rows[0]['attacked']} of them")
    for kind in ("robust", "non-robust", "useless"):
        named = [row for row in best if row["kind"] == kind]
        print(f"{kind}: {len(named)}, {sum(row['sure'] for row in named)} of them beyond doubt")
        for row in named[:5]:
            print(
                f"  feature {row['feature']:<5} {row['class']:16} usefulness {_between(row, 'usefulness')}"
                f"   under attack {_between(row, 'robust_usefulness')}"
            )
    if out is not None:
        folder.write_atomic(out, folder.as_csv(rows))
        print(out)


def _between(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:5.2f} [{row[name + '_low']:.2f} to {row[name + '_high']:.2f}]"


def transfer(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Whose examples: a .safetensors file that notbugs wrote, or module:function of your own, called with "
            "classes=K, that returns a trained torch network.",
        ),
    ],
    source: DatasetArgument,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Who is shown them: vgg, resnet, densenet, inception, mixer, logistic-regression, linear-svm, rbf-svm, "
            "random-forest, boosting, nearest-neighbours (trained here on the training part), or a model of yours, as "
            "`notbugs attack` takes it. As often as you like. [default: all those named]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Keep the table: one row a target and kind of change.")
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(metavar="R", help="What may change: 0.5, 8/255, linf:8/255. [default: what the model was trained with]"),
    ] = None,
    images: Annotated[int | None, typer.Option(metavar="N", help="Use N images, spread evenly over the test part.")] = None,
    seed: Seed = 0,
    epochs: Epochs = None,
    network: Annotated[str | None, typer.Option(metavar="module:function", help="Your own network, if a model is one.")] = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Try the adversarial examples of one model on other networks, on learners that are no networks, and on your own models."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from notbugs import models
    from notbugs.audit import AuditConfig
    from notbugs.audit import transfer as audit_transfer
    from notbugs.runs import folder

    if out is not None:
        models.check_writable(out)
    if workers is not None and workers < 1:
        raise InputError("--workers", "must be 1 or more", workers)
    asked = AuditConfig(
        model, source, (epsilon,) if epsilon else (), "quick", images, (), network, resize, limit, skip_bad, parse_device(device)
    )
    with progress() as report_progress:
        rows = audit_transfer.run_transfer(
            asked,
            against or audit_transfer.ALL_TARGETS,
            seed=seed,
            epochs=epochs,
            workers=workers,
            report_progress=report_progress,
        )
    title = f"Misread after changes of {rows[0]['norm']} {rows[0]['epsilon']:.4g}, in percent [95 % interval]"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in ("shown to", "reads", "random", "examples", "same", "targeted"):
        table.add_column(column, no_wrap=True)
    for target in dict.fromkeys(row["target"] for row in rows):
        one = {row["change"]: row for row in rows if row["target"] == target}
        away, n = one["untargeted"], one["untargeted"]["n"]
        shares = [_rate(one[change]) for change in ("random", "untargeted", "targeted")]
        name = Path(target).stem if target.endswith((".safetensors", ".onnx")) else target
        table.add_row(name, f"{100 * away['clean']:.1f}", *shares[:2], f"{100 * away['same'] / n:.1f}" if n else "–", shares[2])
    Console().print(table)
    print("Of the images that both read unchanged. random: changes of the same size; same: the model's own mistake;")
    print("targeted: read as the class wanted.")
    if out is not None:
        folder.write_atomic(out, folder.as_csv(rows))
        print(out)


def _rate(row: dict[str, Any]) -> str:
    """A share with its interval, for a table of rich's."""
    return f"{100 * row['rate']:.1f} \\[{100 * row['low']:.0f}–{100 * row['high']:.0f}]" if row["n"] else "–"
