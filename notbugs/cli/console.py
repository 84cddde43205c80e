"""What the commands share: configurations from options, progress bars, tables and accuracies as text."""

import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from notbugs import shell
from notbugs.cli.notes import list_files_in, print_notes
from notbugs.cli.say import say
from notbugs.errors import InputError, printable
from notbugs.extensions.registry import command_prefix

if TYPE_CHECKING:
    from notbugs.audit import AuditConfig
    from notbugs.report.findings import Finding
    from notbugs.runs.engine import Engine
    from notbugs.study.config import StudyConfig

QUIET = 60.0  # seconds after which a line says that work goes on, where no bar can be shown

# ---- options -----------------------------------------------------------------------------------------------------------------


def study_config(options: Mapping[str, Any]) -> "StudyConfig":
    """The configuration of a study from a command's options: those that are its fields, under the same names."""
    from dataclasses import fields

    from notbugs.study.config import StudyConfig

    given = {field.name: options[field.name] for field in fields(StudyConfig) if field.name in options}
    for name in ("epsilon", "relabel_epsilon"):
        if given.get(name) is not None:
            given[name] = parse_epsilon(given[name], "--" + name.replace("_", "-"))
    return StudyConfig(**{**given, "device": parse_device(given["device"], options.get("executor"))})


def audit_config(
    model: str,
    dataset: str,
    *,
    threats: Sequence[str] = (),
    budget: str = "quick",
    images: int | None = None,
    others: Sequence[str] = (),
    model_options: Mapping[str, str | None] = MappingProxyType({}),
    data_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    executor: str | None = None,
    mask: str | None = None,
    target: str | None = None,
    only_classes: Sequence[str] = (),
) -> "AuditConfig":
    """The configuration of an audit, or of another command on one classifier."""
    from notbugs.audit import AuditConfig
    from notbugs.data import DataConfig

    return AuditConfig(
        model,
        DataConfig(dataset, **(data_options or {})),
        threats=tuple(threats),
        budget=budget,
        images=images,
        others=tuple(others),
        network=model_options.get("network"),
        classes=model_options.get("classes"),
        class_map=model_options.get("class_map"),
        device=parse_device(device, executor),
        mask=mask,
        target=target,
        only_classes=tuple(only_classes) or None,
        mean=_channel_values(model_options.get("mean"), "--mean"),
        std=_channel_values(model_options.get("std"), "--std"),
        pixel_range=_channel_values(model_options.get("pixel_range"), "--range"),
    )


def parse_epsilon(text: str, option: str) -> float:
    """ "0.5" or "8/255" as a number. Raises InputError for anything else."""
    try:
        numerator, _, denominator = text.partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(option, "must be a number, or a fraction like 8/255", repr(text)) from None


def parse_numbers(text: str, option: str) -> list[float]:
    """ "25, 0.5" as [25.0, 0.5]. Raises InputError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(option, "must be numbers with commas between them", repr(text)) from None


def _channel_values(text: str | None, option: str) -> tuple[float, ...] | None:
    return None if text is None else tuple(parse_numbers(text, option))


def parse_device(name: str, executor: str | None = None) -> str:
    """A device that is here; auto: a GPU if there is one. Raises InputError for another.

    executor: stages are done elsewhere, where there may be devices that are not here.
    """
    from notbugs.precision import first_available

    return first_available((*_devices(name), *(("cpu",) if executor else ())))


def _devices(name: str) -> tuple[str, ...]:
    return ("cuda", "cpu") if name == "auto" else (name,)


@dataclass(frozen=True)
class How:
    """How stages are done: so many at once, by an executor, on a device."""

    workers: int | None
    executor: str | None
    device: str = "auto"

    def check(self) -> None:
        """Raises InputError unless `workers` is 1 or more, or left out."""
        if self.workers is not None and self.workers < 1:
            raise InputError("--workers", "must be 1 or more", self.workers)

    @contextmanager
    def engine(self) -> "Iterator[Engine | None]":
        """The engine, as long as the block lasts; None: worker processes. Raises InputError if there is none."""
        from notbugs.runs import ranks

        self.check()
        several = ranks.started_by_torchrun()
        if several and (self.workers is not None or self.executor is not None):
            raise InputError(
                "--workers, --executor", "cannot be used under torchrun, which starts the processes", None, "leave them out"
            )
        if not several and self.executor is None:
            yield None
            return
        from notbugs.precision import first_available
        from notbugs.runs import torchrun
        from notbugs.runs.executors import open_engine

        device = partial(first_available, _devices(self.device))
        with (
            torchrun.open_engine(device, torchrun.connect())
            if self.executor is None
            else open_engine(self.executor, self.workers, device) as engine
        ):
            yield engine


def command_line() -> str:
    """The command as it was typed, for run.json, with the environment variable that names controls of your own."""
    return command_prefix() + shell.join(["notbugs", *sys.argv[1:]])


# ---- output ------------------------------------------------------------------------------------------------------------------


@contextmanager
def progress(
    listed_in: str = "",
    *,
    quiet: bool = False,
    left: Callable[[str, float], str] = lambda stage, share: "",
    names: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Callable[[str, float, str], None]]:
    """A progress bar per running stage; without a terminal, a line per finished stage, and one a minute. quiet: nothing.

    Before the first of them the notes on the data: the input can be used. listed_in: see `list_files_in`.
    left: gets each stage and the share of it that is done; returns the time left, in words, or "". names: what stages are called.
    """
    if quiet:
        yield lambda stage, share, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    if listed_in:
        list_files_in(listed_in)
    console = Console(stderr=True)
    bars: dict[str, TaskID] = {}
    display = Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with display if console.is_terminal else nullcontext():  # rich 13 ends with an empty line where there is no terminal
        shares: dict[str, float] = {}
        said = time.monotonic()

        def report_progress(stage: str, share: float, words: str) -> None:
            nonlocal said
            print_notes()
            time_left, stage = left(stage, share), names.get(stage, stage)
            shares[stage] = share
            if not console.is_terminal and time.monotonic() - said > QUIET and (running := running_stages(shares)):
                console.print(
                    printable("; ".join(filter(None, (running, time_left)))), highlight=False, markup=False, soft_wrap=True
                )
                said = time.monotonic()
            if stage not in bars:
                bars[stage] = display.add_task(stage, total=1.0, words=words)
            display.update(bars[stage], completed=share, words=words)
            if share >= 1.0 and not words:
                display.remove_task(bars.pop(stage))
                console.print(printable("; ".join(filter(None, (f"done: {stage}", time_left)))), highlight=False, markup=False)
                said = time.monotonic()

        yield report_progress


def running_stages(shares: Mapping[str, float]) -> str:
    """Which stages run, and how far they are; "" for none.

    Examples
    --------
    >>> running_stages({"part 1 of 2": 1.0, "part 2 of 2": 0.25, "sanity checks": 0.5})
    'running: part 2 of 2 25 %, sanity checks 50 %'
    """
    running = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share < 1)
    return running and f"running: {running}"


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title and a table, as narrow as possible: most fit into 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    for column in columns:  # as Text, in which rich sees no markup
        table.add_column(Text(column))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    say(title)
    Console().print(table)


def print_findings(findings: Iterable["Finding"]) -> None:
    """Each question, then its answer, how sure it is, and the text, indented."""
    from rich.console import Console

    console = Console()
    for finding in findings:
        question = "\n".join(map(printable, wrapped(finding.question, console.width, indent="")))
        console.print(question, style="bold", highlight=False, markup=False)
        say(*wrapped(f"{finding.sentence} {finding.text}", console.width))


def wrapped(text: str, width: int, *, first: str = "", indent: str = "  ") -> list[str]:
    """Text in lines; no line ends within a percentage or an interval. first: before the first line, in place of the indent.

    Examples
    --------
    >>> wrapped("Accuracy: 12.0 % [10.1, 14.2].", 18)
    ['  Accuracy: 12.0 %', '  [10.1, 14.2].']
    """
    kept = re.sub(r"(?<=\d) (?=%)|(?<=ε) (?==)|(?<==) (?=\d)|(?<=\d,) (?=[−\d.]+\])|(?<=\d %) (?=CI)", "\u00a0", text)
    lines = textwrap.wrap(
        kept,
        width,
        initial_indent=first or indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace("\u00a0", " ") for line in lines]


def print_report(folder: Path, before: str = "") -> None:
    """Write the report of a run and print where it is."""
    from notbugs import report

    say(f"{before}The report: {report.write(folder)}")
    print_list_of_runs(folder)


def print_list_of_runs(folder: Path) -> None:
    """Where the list of a run and those beside it is, if there is one."""
    from notbugs import report

    if index := report.index_beside(folder):
        say(f"All runs in that folder: {index}")


def print_conditions(conditions: Sequence[str]) -> None:
    """What restricts the images and their perturbations."""
    for condition in conditions:
        say(f"{condition}.")


def accuracy_line(
    threat: str,
    accuracy: float,
    ci_low: float,
    ci_high: float,
    correct: int,
    n: int,
    attack: str,
    correct_8bit: int | None = None,
    width: int = 14,
) -> str:
    """One accuracy with its 95 % CI, counts and attack. width: of the threat model."""
    stored = "" if correct_8bit is None else f" (stored in 8 bits: {correct_8bit})"
    interval = f"[{100 * ci_low:.1f}, {100 * ci_high:.1f}]"
    return f"{threat:{width}} {100 * accuracy:5.1f} %  {interval:13}  {correct} of {n}{stored}  {attack}"


def percent(share: float, ci_low: float, ci_high: float) -> str:
    """A share with its interval, in percent: "42.0 [38.1, 46.0]"."""
    return f"{100 * share:.1f} [{100 * ci_low:.1f}, {100 * ci_high:.1f}]"
