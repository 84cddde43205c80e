"""What was decided in loading a model, for the user: reported here, printed by the command line, kept in the run's metadata."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

OnNotes = Callable[[str, Sequence[str]], None]
_on_notes: ContextVar[OnNotes | None] = ContextVar("_on_notes", default=None)


def report_notes(name: str, notes: Sequence[str]) -> None:
    """Call what `reporting_notes` was given, if anything was and there are notes. name: the model's, as it was given."""
    if notes and (on_notes := _on_notes.get()):
        on_notes(name, notes)


@contextmanager
def keeping_notes() -> Iterator[dict[str, list[str]]]:
    """The notes on each model that this process loads meanwhile, by its name, once the block ends.

    Examples
    --------
    >>> with keeping_notes() as kept:
    ...     report_notes("timm:resnet18", ["gray images are repeated"])
    >>> kept
    {'timm:resnet18': ['gray images are repeated']}
    """
    kept: dict[str, list[str]] = {}

    def keep(name: str, notes: Sequence[str]) -> None:
        before = kept.setdefault(name, [])
        before += [note for note in notes if note not in before]

    with reporting_notes(keep):
        yield kept


@contextmanager
def reporting_notes(on_notes: OnNotes) -> Iterator[None]:
    """Call `on_notes` for each model with notes that this process loads meanwhile, and what was given around this.

    Examples
    --------
    >>> with reporting_notes(lambda name, notes: print(name, *notes)):
    ...     report_notes("timm:resnet18", ["gray images are repeated"])
    timm:resnet18 gray images are repeated
    """
    outer = _on_notes.get()

    def both(name: str, notes: Sequence[str]) -> None:
        on_notes(name, notes)
        if outer:
            outer(name, notes)

    token = _on_notes.set(both)
    try:
        yield
    finally:
        _on_notes.reset(token)
