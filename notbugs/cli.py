"""The commands: parse, call one function, print. `notbugs --help` loads none of the heavy parts."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notbugs import __version__
from notbugs.errors import BadInput

if TYPE_CHECKING:
    from notbugs.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

SOURCE = """A labelled set of images: `digits` or `planted` (built in); a folder with train/CLASS/file and test/CLASS/file, or
only CLASS folders; an .npz with train_images, train_labels, …; a parquet file or folder; a saved Hugging Face set; a hub name."""

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE.replace("\n", " "))]
Resize = Annotated[int | None, typer.Option(metavar="N", help="Bring every image to N x N pixels.")]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use at most N training images, and an eighth as many test images (planted: at least 40)."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and list them.")]
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
        help="small, resnet9, resnet18, or module:function of your own, called with classes=K. [default: by the images]"
    ),
]
Width = Annotated[int | None, typer.Option(help="Channels of the network's first layer.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data in each training. [default: by their number]")]
Seed = Annotated[int, typer.Option(help="Everything that chance decides.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto.")]
Workers = Annotated[int | None, typer.Option(help="Stages done at once, each in a process. [default: one a core; 1 on a GPU]")]
Folds = Annotated[int, typer.Option(help="Of files: each is judged by models trained on the other folds.")]
Repeats = Annotated[int, typer.Option(help="How often the files are dealt into folds; more make ranks steadier.")]
Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where the study goes. The same command again goes on where it stopped.")
]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Why image classifiers get fooled: measure it, prevent it, and split the data into robust and non-robust versions.

    Start with `notbugs demo` (about a minute), then `notbugs run YOUR_FOLDER --out runs/mine`.
    """
    if version:
        print(f"notbugs {__version__}")
        raise typer.Exit


@app.command()
def demo(out: Out = Path("runs/demo"), device: Device = "auto", workers: Workers = None) -> None:
    """The whole study on built-in data, scanned digits of 8x8 pixels: `notbugs run digits --out runs/demo`."""
    _study(_plan({"source": "digits", "device": device}), out, workers)


@app.command()
def run(
    source: Source,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    relabel_epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="R", help="How far relabelled images may go. [default: epsilon; twice that for images up to 16x16 in L2]"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Do everything N times, for intervals. [default: 3 for digits, else 1]")
    ] = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a training step. [default: by their number]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, at its highest. [default: by the images]")] = None,
    relabel_learning_rate: Annotated[
        float | None, typer.Option(help="The same, for relabelled sets. [default: by the images]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW. [default: by the images]")] = None,
    shift: Annotated[
        int | None,
        typer.Option(
            help="Move training images by up to so many pixels; 0: never. [default: an eighth of the height; 0 up to 16x16]"
        ),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror training images half the time. [default: if they have colour]")
    ] = None,
    adversarial_steps: Annotated[int, typer.Option(help="Attack steps inside adversarial training.")] = 3,
    invert_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the robust and the non-robust version. [default: 40; 25 up to 16x16; 20 for planted]"),
    ] = None,
    invert_start: Annotated[str, typer.Option(help="What those versions grow from: another image, or noise.")] = "image",
    relabel_steps: Annotated[int, typer.Option(help="Steps of the relabelled sets.")] = 20,
    patience: Annotated[int | None, typer.Option(help="Further epochs for relabelled sets that are still at chance.")] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also what could refute it: all controls, transfer to other learners, every model on every set attacked.",
        ),
    ] = False,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """The whole study: train, attack, split, relabel, retrain, measure, report."""
    _study(_plan(locals()), out, workers)


@app.command()
def split(
    source: Source,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    by_file: Annotated[
        bool, typer.Option("--by-file", help="Leave the files as they are and sort them: see `notbugs files`.")
    ] = False,
    top: Annotated[
        float, typer.Option(metavar="SHARE", help="With --by-file: the share of each class that goes to either half.")
    ] = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Only the split: write the robust and the non-robust version of a set, file for file, to FOLDER/datasets.

    Train your own classifier on either with your own code. `notbugs run` with the same options goes on to the whole study.
    With --by-file no image is changed: the files that carry most and least robust evidence become two sets, class by class.
    """
    from notbugs.stages import set_path

    if by_file:
        from notbugs import byfile

        asked = byfile.Asked(_plan({**locals(), "seeds": 1}), folds, repeats)
        _files(asked, out, workers, top)
        return

    plan = _plan({**locals(), "seeds": 1})
    record = _do(plan, out, workers, only=("set-robust", "set-nonrobust"))
    for row in (row for row in record.table("sets") if row["set"] in ("robust", "nonrobust") and row["seed"] == seed):
        print(
            f"{row['set']:10}  {row['n']} images, feature error {row['feature_error']:.3f}  "
            f"{set_path(plan, out, seed, str(row['set']))}"
        )


@app.command()
def files(
    source: Source,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    folds: Folds = 3,
    repeats: Repeats = 3,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Which training files carry robust and which non-robust evidence, which look mislabelled, and which cues are spurious.

    Every file is judged by models that were not trained on it. `notbugs split --by-file` with the same options writes the halves.
    """
    from notbugs import byfile

    _files(byfile.Asked(_plan({**locals(), "seeds": 1}), folds, repeats), out, workers)


@app.command()
def train(
    source: Source,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the weights go: NAME.safetensors; NAME.json beside it.")],
    loss: Annotated[str, typer.Option(help="plain, adversarial (Madry et al. 2018) or trades (Zhang et al. 2019).")] = "plain",
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> None:
    """Train one classifier, ordinary or robust, and say how easily it is fooled."""
    from notbugs import study

    if out.suffix != ".safetensors":
        raise BadInput("--out", "must end in .safetensors", out)
    plan = _plan(locals())
    with _progress() as tell:
        _accuracy(study.train_one(plan, out, loss=loss, tell=tell))
    print(out)


@app.command()
def attack(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors file that notbugs wrote, an .onnx file, or module:function of your own, called with classes=K, "
            "that returns a trained torch network, a fitted scikit-learn classifier, or a function of images.",
        ),
    ],
    source: Source,
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
    skip_bad: SkipBad = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Audit a classifier on the test part of a set: what it still reads at each radius, and whether that can be believed."""
    import tempfile

    from notbugs import audit
    from notbugs.ball import NORMS, within

    if norm is not None and norm not in NORMS:
        raise BadInput("--norm", f"must be one of {', '.join(NORMS)}", repr(norm))
    texts = tuple(text if ":" in text or norm is None else f"{norm}:{text}" for text in epsilon or ())
    for text in texts:
        within(text)
    asked = audit.Audit(
        model, source, texts, budget, images, tuple(other or ()), network, resize, limit, skip_bad, _device(device)
    )
    if workers is not None and workers < 1:
        raise BadInput("--workers", "must be 1 or more", workers)
    with tempfile.TemporaryDirectory() as temporary, _progress() as tell:
        command = shlex.join(["notbugs", *sys.argv[1:]])
        record = audit.run(asked, out or Path(temporary) / "audit", command=command, workers=workers, tell=tell)
        checks, rows = record.table("checks"), record.table("accuracy")
    for check in checks:
        if check["passed"] == "no":
            print(f"NOT TO BE TRUSTED: {check['check']}: {check['seen']}.\n  {check['why']}\n  {check['remedy']}")
    note = record.facts["data"]["note"]
    if note:
        print(note)
    for row in rows:
        accuracy, low, high = (100 * float(row[name]) for name in ("accuracy", "low", "high"))
        counts = f"{row['correct']} of {row['n']}"
        counts += "" if row["within"] == "unchanged" else f" (stored in 8 bits: {row['correct_as_stored']})"
        print(f"{row['within']:14} {accuracy:5.1f} %  [{low:.1f}–{high:.1f}]  {counts}  {row['attack']}")
    if out:
        from notbugs import report

        print(f"{record.facts['seconds']:.0f} s. The report: {report.write(out)}")


@app.command()
def features(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors file that notbugs wrote, or module:function of your own, called with classes=K, that returns a "
            "trained torch network.",
        ),
    ],
    source: Source,
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
    sample: Annotated[int, typer.Option(metavar="N", help="Images on which a change is searched for each feature.")] = 100,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of that search, after one of the whole radius.")] = 8,
    most: Annotated[int, typer.Option(metavar="N", help="For so many of the most useful features; the rest get one step.")] = 64,
    network: Annotated[str | None, typer.Option(metavar="module:function", help="Your own network, if MODEL is one.")] = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> None:
    """Which features of a classifier are robust, useful but non-robust, or useless, on the test part of a set."""
    from notbugs import models, results, scores
    from notbugs.audit import Audit, ask
    from notbugs.ball import Ball

    for name, value in (("--sample", sample), ("--steps", steps), ("--most", most)):
        if value < (name == "--sample"):
            raise BadInput(name, f"must be {int(name == '--sample')} or more", value)
    if out is not None:
        models.check_place(out)
    asked = Audit(
        model, source, (epsilon,) if epsilon else (), "quick", None, (), network, resize, limit, skip_bad, _device(device)
    )
    ball, part = ask.allowed(asked)[-1], ask.test_part(asked)[0]
    if not isinstance(ball, Ball) or ball.norm == "l0":
        raise BadInput("--epsilon", "must be in linf, l2 or l1 for features", str(ball))
    classifier = ask.classifier(asked, model)[0] if layer else ask.view(asked, model)
    view = scores.layer_view(classifier, layer) if layer else None
    with _progress() as tell:
        rows = scores.per_feature(
            classifier, part, ball, view=view, steps=steps, sample=sample, most=most, device=asked.device,
            progress=lambda share: tell("features", share, "" if share < 1 else "done"),
        )  # fmt: skip
    best = sorted(scores.best_rows(rows), key=lambda row: -row["usefulness"])
    print(f"{len(best)} features on {len(part)} test images, {ball}; what a change takes, on {rows[0]['attacked']} of them")
    for kind in ("robust", "non-robust", "useless"):
        named = [row for row in best if row["kind"] == kind]
        print(f"{kind}: {len(named)}, {sum(row['sure'] for row in named)} of them beyond doubt")
        for row in named[:5]:
            print(
                f"  feature {row['feature']:<5} {row['class']:16} usefulness {_between(row, 'usefulness')}"
                f"   under attack {_between(row, 'robust_usefulness')}"
            )
    if out is not None:
        results.write_whole(out, results.as_csv(rows))
        print(out)


def _between(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:5.2f} [{row[name + '_low']:.2f} to {row[name + '_high']:.2f}]"


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `notbugs run`, `files` or `attack --out` wrote.")],
) -> None:
    """Write report.html of a study, an audit or sorted files anew."""
    from notbugs import report

    print(report.write(folder))


# ---- what the commands share ---------------------------------------------------------------------------------------------


def _plan(given: dict[str, Any]) -> "Plan":
    """The plan of a command's options: those that are settings of a study, under the same names."""
    from dataclasses import fields

    from notbugs.plan import Plan

    settings = {field.name: given[field.name] for field in fields(Plan) if field.name in given}
    for name in ("epsilon", "relabel_epsilon"):
        settings[name] = _radius(settings.get(name), "--" + name.replace("_", "-"))
    return Plan(**{**settings, "device": _device(settings["device"])})


def _files(asked: Any, out: Path, workers: int | None, top: float | None = None) -> None:
    """Score the files of a set and say in short what came out. top: also write so large a share of either end as two sets."""
    from notbugs import byfile, report

    if workers is not None and workers < 1:
        raise BadInput("--workers", "must be 1 or more", workers)
    if top is not None:
        byfile.check_top(asked, top)
    with _progress() as tell:
        record = byfile.run(asked, out, command=shlex.join(["notbugs", *sys.argv[1:]]), workers=workers, tell=tell)
    if note := record.facts["data"]["note"]:
        print(note)
    for row in record.table("kinds"):
        shown = [picture["file"] for picture in record.table("pictures") if picture["kind"] == row["kind"]][:3]
        print(f"{row['kind']:20} {row['files']:6} of {row['n']} files   {', '.join(map(str, shown))}")
    if record.facts["steadiness"] is not None:
        print(f"steadiness: another such run would rank the files alike to {record.facts['steadiness']:.2f} (Spearman)")
    words = [row["word"] for row in record.table("words")]
    counts = (f"{words.count(word)} {word}" for word in ("robust", "non-robust", "spurious", "useless"))
    print(f"features, by the versions and the test part: {', '.join(counts)}")
    for row in record.table("cues"):
        if row["spurious"]:
            print(
                f"spurious: {row['name']} {row['speaks']} {row['class']}: usefulness {float(row['usefulness']):.2f} in training, "
                f"{float(row['test_usefulness']):.2f} on the test part"
            )
    for name, place, count in byfile.split(asked, out, top) if top is not None else ():
        print(f"{name:10}  {count} files  {place}")
    print(f"{record.facts['seconds']:.0f} s. The table: {out / 'tables' / 'files.csv'}. The report: {report.write(out)}")


def _study(plan: "Plan", out: Path, workers: int | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from notbugs import answer, measured, report

    record = _do(plan, out, workers)
    page = report.write(out)
    console = Console()
    for sentence in answer.headline(record):
        console.print(f"• {sentence}", highlight=False, markup=False)
    columns, rows = measured.accuracy_table(record)
    table = Table(
        *columns[:-1],
        title=f"What each classifier reads of {record.facts['data']['test']} test images [95 % interval]",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        pad_edge=False,  # as narrow as it can be: 80 columns hold it
    )
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row[:-1]))
    console.print(table)
    print(f"{record.facts['seconds']:.0f} s. The report: {page}")


def _do(plan: "Plan", out: Path, workers: int | None, only: tuple[str, ...] | None = None) -> Any:
    from notbugs import study

    command = shlex.join(["notbugs", *sys.argv[1:]])
    if workers is not None and workers < 1:
        raise BadInput("--workers", "must be 1 or more", workers)
    with _progress() as tell:
        return study.run(plan, out, only=only, command=command, workers=workers, tell=tell)


@contextmanager
def _progress() -> Iterator[Callable[[str, float, str], None]]:
    """A bar for each stage at work; where there is no terminal, a line for each that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bars: dict[str, Any] = {}
    with Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:

        def tell(stage: str, share: float, words: str) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=1.0, words=words)
            progress.update(bars[stage], completed=share, words=words)
            if share >= 1.0 and not words:
                progress.remove_task(bars.pop(stage))
                console.print(f"done: {stage}", highlight=False, markup=False)

        yield tell


def _accuracy(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        where = "unchanged" if not row["epsilon"] else f"{row['norm']} {row['epsilon']:.4g}"
        print(
            f"{where:14} {100 * row['accuracy']:5.1f} %  [{100 * row['low']:.1f}–{100 * row['high']:.1f}]  "
            f"{row['correct']} of {row['n']}  {row['attack']}"
        )


def _radius(text: str | None, option: str) -> float | None:
    """ "0.5" or "8/255"."""
    if text is None:
        return None
    try:
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise BadInput(option, "must be a number, or a fraction like 8/255", repr(text)) from None


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise BadInput("--device", "must be one that is here", name, str(error).splitlines()[0]) from None
    return name


def main() -> None:
    """Entry point. Exit codes: 0 done, 2 bad input (one line), 130 interrupted (what is finished is kept)."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        app()
    except BadInput as error:
        print(f"notbugs: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:
            audit = "attack" in sys.argv and any(word.startswith("--out") for word in sys.argv)
            goes_on = audit or {"run", "demo", "split", "files"} & {*sys.argv}
            kept = " What is finished is kept; the same command goes on from there." if goes_on else ""
            print(f"notbugs: stopped.{kept}", file=sys.stderr)
        raise
