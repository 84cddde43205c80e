"""What the commands share: a plan from options, a bar for each stage at work, radii and devices as people write them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.study.config import StudyConfig


def config_from_options(given: dict[str, Any]) -> "StudyConfig":
    """The plan of a command's options: those that are settings of a study, under the same names."""
    from dataclasses import fields

    from notbugs.study.config import StudyConfig

    settings = {field.name: given[field.name] for field in fields(StudyConfig) if field.name in given}
    for name in ("epsilon", "relabel_epsilon"):
        settings[name] = parse_epsilon(settings.get(name), "--" + name.replace("_", "-"))
    return StudyConfig(**{**settings, "device": parse_device(settings["device"])})


@contextmanager
def progress() -> Iterator[Callable[[str, float, str], None]]:
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

        def report_progress(stage: str, share: float, words: str) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=1.0, words=words)
            progress.update(bars[stage], completed=share, words=words)
            if share >= 1.0 and not words:
                progress.remove_task(bars.pop(stage))
                console.print(f"done: {stage}", highlight=False, markup=False)

        yield report_progress


def parse_epsilon(text: str | None, option: str) -> float | None:
    """ "0.5" or "8/255"."""
    if text is None:
        return None
    try:
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(option, "must be a number, or a fraction like 8/255", repr(text)) from None


def parse_device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError("--device", "must be one that is here", name, str(error).splitlines()[0]) from None
    return name


def print_table(title: str, heads: list[str], lines: Iterable[Sequence[str]]) -> None:
    """A table as narrow as it can be: most fit into 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    table.columns[0].no_wrap = True
    for line in lines:
        table.add_row(*(cell.replace("[", "\\[") for cell in line))
    Console().print(table)
