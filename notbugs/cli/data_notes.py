"""What was decided in reading the data set of a command, and what was left out: every command says it, once, in these words."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING

from notbugs.data_config import DATA_FIELDS, DataConfig
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.data import Splits

TABLE = "tables/data_files.csv"  # where a run folder lists each file


class DataNotes:
    """The data sets that a command has loaded, until it has said what is to be known of them.

    listed_in: see `list_files_in`.
    """

    def __init__(self) -> None:
        self.listed_in = ""
        self.loaded: dict[DataConfig, Splits] = {}
        self._said: set[DataConfig] = set()

    def on_load(self, config: DataConfig, splits: "Splits") -> None:
        """Remember a data set."""
        self.loaded[config] = splits

    def new_lines(self) -> list[str]:
        """What is to be said of the data sets of which nothing was said yet."""
        new = [config for config in self.loaded if config not in self._said]
        self._said.update(new)
        listed = f"Listed in {self.listed_in}." if self.listed_in else ""
        return [line for each in new for line in data_lines(self.loaded[each], listed or f"To list them: {_check_of(each)}")]


_of_command: ContextVar[DataNotes] = ContextVar("_of_command")


def says_data_notes(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has said what is to be known of the data sets it loads when it ends, unless its input cannot be used."""

    @wraps(command)
    def called(**given: object) -> None:
        from notbugs.data.loaded import keeping_loads, reporting_loads

        notes = DataNotes()
        token = _of_command.set(notes)
        try:
            with keeping_loads(), reporting_loads(notes.on_load):
                command(**given)
        except InputError:
            notes.new_lines()  # dropped: an error is one line
            raise
        finally:
            print_data_notes()
            _of_command.reset(token)

    return called


def list_files_in(path: str) -> None:
    """Name the file in which this command lists what it leaves out; "": it writes no such list."""
    if notes := _of_command.get(None):
        notes.listed_in = path


def print_data_notes() -> None:
    """Print to standard error what is to be known of the data sets that this command has loaded; each only once."""
    for line in new_data_lines():
        print(line, file=sys.stderr)


def loaded_data() -> "dict[DataConfig, Splits]":
    """The data sets that this command has loaded."""
    return _of_command.get().loaded


def new_data_lines() -> list[str]:
    """The lines of `print_data_notes`, for a command that prints them itself."""
    notes = _of_command.get(None)
    return notes.new_lines() if notes else []


def data_lines(splits: "Splits", listed: str = f"Listed in {TABLE}.") -> Iterator[str]:
    """What was decided in reading a data set, and how many files are not used. listed: where they are listed."""
    from notbugs.data import left_out
    from notbugs.data.parts import BEYOND

    reasons = left_out(splits)
    if counted := next((note for note in splits.notes if note.startswith("--limit")), ""):
        reasons = {reason: number for reason, number in reasons.items() if not reason.startswith(BEYOND)}
    for note in splits.notes:
        yield f"Data: {note}.{f' {listed}' if note == counted and not reasons else ''}"
    if reasons:
        count = sum(reasons.values())
        shown = "; ".join(f"{number:,}: {reason}" for reason, number in reasons.items())
        yield f"Left out: {count:,} file{'' if count == 1 else 's'} ({shown}). {listed}"


def _check_of(config: DataConfig) -> str:
    """The command that lists what is left out of a data set."""
    from notbugs.study.commands import option_words

    options = {name: value for name, field in DATA_FIELDS.items() if (value := getattr(config, name)) != field.default}
    return shlex.join(["notbugs", "check", config.dataset, *option_words(options), "--out", "FILE.csv"])
