"""What was decided in loading the models of a command: every command says it, once, in these words."""

import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps

from notbugs.errors import InputError


class ModelNotes:
    """What is to be said of the models that a command has loaded."""

    def __init__(self) -> None:
        self._new: list[str] = []
        self._said: set[str] = set()

    def on_notes(self, name: str, notes: Sequence[str]) -> None:
        """Remember the notes on a model, each once."""
        lines = [f"Model {name}: {note}." for note in notes]
        self._new += [line for line in dict.fromkeys(lines) if line not in self._said]
        self._said.update(lines)

    def new_lines(self) -> list[str]:
        """What is to be said of which nothing was said yet."""
        lines, self._new = self._new, []
        return lines


_of_command: ContextVar[ModelNotes | None] = ContextVar("_of_command", default=None)


def says_model_notes(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has said what is to be known of the models it loads when it ends, unless its input cannot be used."""

    @wraps(command)
    def called(**given: object) -> None:
        from notbugs.models.notes import reporting_notes

        notes = ModelNotes()
        token = _of_command.set(notes)
        try:
            with reporting_notes(notes.on_notes):
                command(**given)
        except InputError:
            notes.new_lines()  # dropped: an error is one line
            raise
        finally:
            print_model_notes()
            _of_command.reset(token)

    return called


def print_model_notes() -> None:
    """Print to standard error what is to be known of the models that this command has loaded; each note only once."""
    for line in new_model_lines():
        print(line, file=sys.stderr)


def new_model_lines() -> list[str]:
    """The lines of `print_model_notes`, for a command that prints them itself."""
    notes = _of_command.get()
    return notes.new_lines() if notes else []
