"""A loaded data set, and what is called with each, so that no command can forget what it has to say of its data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from notbugs.data.dataset import Dataset
from notbugs.data.names import Unreadable
from notbugs.data_config import DataConfig


class Splits(NamedTuple):
    """A loaded data set.

    Attributes
    ----------
    train, test : Dataset
        `train` is empty where the data set has only a test part.
    form : str
        The form for `export`: "folder", "npz", "npz-channels-first", "parquet" or "saved".
    notes : tuple of str
        What was decided on the way, for the user: one sentence each.
    left_out : tuple of Unreadable
        Each file that is not used, with the reason.
    """

    train: Dataset
    test: Dataset
    form: str
    notes: tuple[str, ...] = ()
    left_out: tuple[Unreadable, ...] = ()


OnLoad = Callable[[DataConfig, Splits], None]
_on_load: ContextVar[OnLoad | None] = ContextVar("_on_load", default=None)


def report_load(config: DataConfig, splits: Splits) -> None:
    """Call what `reporting_loads` was given, if anything was."""
    if on_load := _on_load.get():
        on_load(config, splits)


@contextmanager
def reporting_loads(on_load: OnLoad) -> Iterator[None]:
    """Call `on_load` for each call of `load_dataset` meanwhile.

    In this process: those that it starts say nothing.

    Examples
    --------
    >>> from notbugs.data import DataConfig, load_dataset
    >>> with reporting_loads(lambda config, splits: print(config.dataset, *splits.notes)):
    ...     splits = load_dataset(DataConfig("planted", limit=40))
    planted generated
    """
    token = _on_load.set(on_load)
    try:
        yield
    finally:
        _on_load.reset(token)
