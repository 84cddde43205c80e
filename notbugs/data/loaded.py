"""A loaded data set, and what is called with each, so that no command can forget what it has to say of its data."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import ClassVar, NamedTuple

from notbugs.data.dataset import Dataset
from notbugs.data.header_index import use_index
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

    def _repr_html_(self) -> str:
        """In a notebook: both parts, and what was decided in reading them."""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        parts = [f"<h4>{name}</h4>{part._repr_html_()}" for name, part in (("train", self.train), ("test", self.test))]
        return f"{''.join(parts)}<ul>{notes}</ul>"


class _Kept:
    """The data sets of the runs that this process is in. depth: how many there are, one in the other."""

    depth = 0
    splits: ClassVar[dict[tuple[DataConfig, int], Splits]] = {}


@contextmanager
def keeping_loads() -> Iterator[None]:
    """Meanwhile `load_dataset` loads each data set once: all stages of a run have the same images, whatever happens to the files.

    Also a decorator. When the outermost one ends the data sets are forgotten, so that the next run finds the files as they are.

    Examples
    --------
    >>> from notbugs.data import DataConfig, load_dataset
    >>> with keeping_loads():
    ...     load_dataset(DataConfig("digits")) is load_dataset(DataConfig("digits"))
    True
    """
    _Kept.depth += 1
    try:
        yield
    finally:
        _Kept.depth -= 1
        if not _Kept.depth:
            _Kept.splits.clear()
            use_index(None)


def kept(config: DataConfig, seed: int, load: Callable[[DataConfig, int], Splits]) -> Splits:
    """The data set, loaded unless this run has it. The worker processes of a run keep theirs until they end with it."""
    if not _Kept.depth and multiprocessing.parent_process() is None:
        return load(config, seed)
    if (config, seed) not in _Kept.splits:
        _Kept.splits[config, seed] = load(config, seed)
    return _Kept.splits[config, seed]


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
