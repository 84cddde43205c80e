"""FILE.csv of a command without a run folder, and FILE.json beside it: how its data were read, as run.json says it."""

import json
from pathlib import Path

from notbugs.cli.config_file import write_alone
from notbugs.cli.console import command_line
from notbugs.cli.notes import list_files_in, loaded_data
from notbugs.cli.say import say
from notbugs.errors import InputError

NOTES = ".json"


def check_table_file(out: Path | None, *endings: str) -> None:
    """Raises InputError if a table, the notes on its data or another file beside it cannot be written; None: none will be.

    endings: of the other files, as `beside` takes them.
    """
    from notbugs import models

    if out is None:
        return
    for ending in (NOTES, *endings):
        if beside(out, ending) == out:
            kept = "the notes on the data are kept" if ending == NOTES else "another file is written beside the table"
            raise InputError("--out", f"must not end in {ending}, where {kept}", str(out), "pass FILE.csv")
    if notes_file(out).exists() and out.with_suffix(".safetensors").exists():
        rule = f"must not replace {notes_file(out)}, the description of a model"
        raise InputError("--out", rule, str(out), "choose another name")
    for path in (out, *(beside(out, ending) for ending in (NOTES, *endings))):
        models.check_writable(path)
    write_alone(out)
    list_files_in(str(notes_file(out)))


def notes_file(out: Path) -> Path:
    """The file beside a table.

    Examples
    --------
    >>> notes_file(Path("new/features.csv")).name
    'features.json'
    """
    return beside(out, NOTES)


def beside(out: Path, ending: str) -> Path:
    """Another file that is written beside a table.

    Examples
    --------
    >>> beside(Path("new/table.csv"), "-fourier.csv").name
    'table-fourier.csv'
    """
    return out.with_name(out.stem + ending)


def write_table(out: Path, text: str, **more: object) -> None:
    """Write a table, and beside it what it is about, with `more`; print where they are."""
    from notbugs import __version__, data
    from notbugs.atomic import atomic_write_text

    config, splits = next(iter(loaded_data().items()))  # such a command has one DATASET
    found = {
        "notbugs": __version__,
        "command": command_line(),
        "dataset": config.dataset,
        "arguments": config.arguments,
        "data": {**data.summary(splits), "left_out_files": [item._asdict() for item in splits.left_out]},
        **more,
    }
    atomic_write_text(out, text)
    atomic_write_text(notes_file(out), json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    say(f"{out}; notes on its data: {notes_file(out).name}")
