"""Memory that threads share."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Memory:
    """So many bytes for all threads: one that needs more than is left waits until others have finished."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._changed = Condition()

    @contextmanager
    def taken(self, needed: int) -> Iterator[None]:
        """Take so much of it, all if that is not enough."""
        needed = min(needed, self._size)
        with self._changed:
            self._changed.wait_for(lambda: needed <= self._left)
            self._left -= needed
        try:
            yield
        finally:
            with self._changed:
                self._left += needed
                self._changed.notify_all()
