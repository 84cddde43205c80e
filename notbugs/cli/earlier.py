"""A study that an earlier command began: what is not given again is as it was then."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from notbugs import shell
from notbugs.errors import InputError
from notbugs.study.commands import DATASET, beside, command_of, option, option_words, shown

if TYPE_CHECKING:
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig


def earlier_study(out: Path) -> "RunFolder | None":
    """The study in a folder, None if there is none that began. Raises InputError if its run.json is damaged."""
    from notbugs.runs.folder import RunFolder

    if not (out / "run.json").is_file():
        return None
    run = RunFolder.read(out)
    return run if run.kind == "study" and run.study().seeds else None


def continued(run: "RunFolder", now: "StudyConfig", given: Collection[str]) -> "StudyConfig":
    """The configuration of a study that is resumed: the options that were given now, and for all others its own.

    Parameters
    ----------
    run : RunFolder
    now : StudyConfig
        From the options of the command alone.
    given : collection of str
        Fields of it that were given, not left at their defaults.

    Raises
    ------
    InputError
        If what was given contradicts what is stored; the error lists all of it.
    """
    from dataclasses import replace

    from notbugs.study.config import config_of_run

    before = config_of_run(run)
    values = {name: getattr(now, name) for name in given if hasattr(now, name)}
    if DATASET in values and Path(values[DATASET]) == Path(before.dataset):
        values[DATASET] = before.dataset
    if now.device != before.device:  # how fast it computes is decided for this one
        before = replace(before, bf16=now.bf16, compile=now.compile)
    fixed = {name: value for name, value in run.metadata["arguments"].items() if name != "kind"}
    other = [name for name, value in values.items() if name in fixed and value != fixed[name]]
    if other:
        got = ", ".join(f"{shown(name, values[name])} (there: {shown(name, fixed[name])})" for name in other)
        anew = command_of(values.get(DATASET, before.dataset), {**run.study().options, **values}, beside(run.folder, "2"))
        rule = f"must be as in {run.folder / 'run.json'}, or left out"
        raise InputError(", ".join(map(option, other)), rule, got, f"for a new study: {anew}")
    return replace(before, **{**values, "device": now.device})


def taken_over(run: "RunFolder", given: Collection[str]) -> str:
    """What a command leaves out and its study was run with, as options; "" if it leaves nothing out."""
    options = {name: value for name, value in run.study().options.items() if name not in given}
    dataset = [] if DATASET in given else [shell.argument(run.study().dataset)]
    return shell.join([*dataset, *option_words(options)])


def command_again(run: "RunFolder", now: "StudyConfig") -> str:
    """The command that does in one go what this one and those before it do."""
    from notbugs.data_config import asked_options

    return command_of(run.study().dataset, {**run.study().options, **asked_options(now)}, run.folder)
