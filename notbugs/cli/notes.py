"""What was decided in reading the data and loading the models of a command: every command says it, once, in these words."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING

from notbugs import shell
from notbugs.cli.say import say
from notbugs.data_config import DATA_FIELDS, DataConfig
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.data import Splits

TABLE = "tables/data_files.csv"  # where a run folder lists each file


class Notes:
    """What a command has loaded, until it has said what is to be known of it.

    listed_in: see `list_files_in`.
    """

    def __init__(self) -> None:
        self.listed_in = ""
        self.loaded: dict[DataConfig, Splits] = {}
        self._data_said: set[DataConfig] = set()
        self._model_new: list[str] = []
        self._model_said: set[str] = set()

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take note of what is loaded meanwhile."""
        from notbugs.data.loaded import keeping_loads, reporting_loads
        from notbugs.models.notes import reporting_notes

        with keeping_loads(), reporting_loads(self._on_load), reporting_notes(self._on_model):
            yield

    def _on_load(self, config: DataConfig, splits: "Splits") -> None:
        self.loaded[config] = splits

    def _on_model(self, name: str, notes: Sequence[str]) -> None:
        lines = [f"Model {name}: {note}." for note in notes]
        self._model_new += [line for line in dict.fromkeys(lines) if line not in self._model_said]
        self._model_said.update(lines)

    def data_lines(self) -> list[str]:
        """What is to be said of the data sets of which nothing was said yet."""
        new = [config for config in self.loaded if config not in self._data_said]
        self._data_said.update(new)
        listed = f"Listed in {self.listed_in}." if self.listed_in else ""
        return [line for each in new for line in data_lines(self.loaded[each], listed or f"To list them: {_check_of(each)}")]

    def model_lines(self) -> list[str]:
        """What is to be said of the models of which nothing was said yet."""
        lines, self._model_new = self._model_new, []
        return lines


_of_command: ContextVar[Notes | None] = ContextVar("_of_command", default=None)


def says_notes(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has said what is to be known of what it loads when it ends, unless its input cannot be used."""

    @wraps(command)
    def called(**given: object) -> None:
        notes = Notes()
        token = _of_command.set(notes)
        try:
            with notes.taking():
                command(**given)
        except InputError:
            notes.data_lines()  # dropped, as the next: an error is one line
            notes.model_lines()
            raise
        finally:
            print_notes()
            _of_command.reset(token)

    return called


def list_files_in(path: str) -> None:
    """Name the file in which this command lists what it leaves out; "": it writes no such list."""
    if notes := _of_command.get():
        notes.listed_in = path


def print_notes() -> None:
    """Print to standard error what is to be known of what this command has loaded; each note only once."""
    for line in [*new_data_lines(), *new_model_lines()]:
        say(line, file=sys.stderr)


def print_warnings(checks: Collection[str] = ()) -> None:
    """Of these notes only the warnings, for a command that is to print nothing else: the others are dropped.

    checks: names of sanity checks that failed, which the command says itself.
    """
    for line in [*new_data_lines(), *new_model_lines()]:
        if "WARNING" in line and not any(f": {check}: " in line for check in checks):
            say(line, file=sys.stderr)


def loaded_data() -> "dict[DataConfig, Splits]":
    """The data sets that this command has loaded."""
    notes = _of_command.get()
    return notes.loaded if notes else {}


def new_data_lines() -> list[str]:
    """What `print_notes` prints of data sets, for a command that prints it itself."""
    notes = _of_command.get()
    return notes.data_lines() if notes else []


def new_model_lines() -> list[str]:
    """What `print_notes` prints of models, for a command that prints it itself."""
    notes = _of_command.get()
    return notes.model_lines() if notes else []


def data_lines(splits: "Splits", listed: str = f"Listed in {TABLE}.") -> Iterator[str]:
    """What was decided in reading a data set, and how many files are not used. listed: where they are listed."""
    from notbugs.data import left_out
    from notbugs.data_config import BEYOND_LIMIT

    reasons = left_out(splits)
    if counted := next((note for note in splits.notes if note.startswith("--limit")), ""):
        reasons = {reason: number for reason, number in reasons.items() if not reason.startswith(BEYOND_LIMIT)}
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
    return shell.join(["notbugs", "check", shell.argument(config.dataset), *option_words(options), "--out", "FILE.csv"])
