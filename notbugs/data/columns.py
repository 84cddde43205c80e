"""What a map over batches collects: in memory, or in a file of the stage where images would need too much of it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from torch import Tensor

from notbugs.atomic import not_writable, part_of

IN_MEMORY = 2**28  # bytes of images that are kept in memory; more are in a file, which is mapped
SECONDS_BETWEEN_LOOKS = 0.05


class Columns:
    """The results of a map, column by column.

    Parameters
    ----------
    total : int
        Images in all.
    folder : Path, optional
        Of files; None: all in memory.
    shared : bool
        Whether other processes map the files of this one, under their names. Otherwise they have none.
    writes : bool
        False: another process writes the files.
    """

    def __init__(self, total: int, folder: Path | None, *, shared: bool = False, writes: bool = True) -> None:
        self.total, self.folder, self.shared, self.writes = total, folder, shared, writes
        self.columns: list[_Column] = []

    def add(self, parts: Sequence[Tensor]) -> None:
        """Add the results of the next images."""
        if not self.columns:
            self.columns = [_Column(self._place(number, part), part, self) for number, part in enumerate(parts)]
        for column, part in zip(self.columns, parts, strict=True):
            column.add(part)

    def whole(self) -> tuple[Tensor, ...]:
        """The results of all images."""
        return tuple(column.whole() for column in self.columns)

    def _place(self, number: int, part: Tensor) -> Path | None:
        if self.folder is None or part.dtype != torch.uint8 or not len(part) or part[0].numel() * self.total <= IN_MEMORY:
            return None
        return self.folder / f"column{number}"


class _Column:
    """One of them. path: of its file; None: in memory."""

    def __init__(self, path: Path | None, first: Tensor, owner: Columns) -> None:
        self.path, self.shape, self.owner = path, (owner.total, *first.shape[1:]), owner
        self.parts: list[Tensor] = []
        self.fresh = part_of(path) if path else None
        self.stream = self._open() if path and owner.writes else None

    def _open(self) -> IO[bytes]:
        assert self.fresh is not None
        try:
            self.fresh.parent.mkdir(parents=True, exist_ok=True)
            return self.fresh.open("wb") if self.owner.shared else TemporaryFile(dir=self.fresh.parent)
        except OSError as error:
            raise not_writable(self.fresh, error) from None

    def add(self, part: Tensor) -> None:
        if self.path is None:
            self.parts.append(part)
        elif self.stream is not None:
            try:
                self.stream.write(part.contiguous().numpy().data)
                self.stream.flush()
            except OSError as error:
                with suppress(OSError):  # it writes once more
                    self.stream.close()
                raise not_writable(self.path, error) from None

    def whole(self) -> Tensor:
        if self.path is None or self.fresh is None:
            return torch.cat(self.parts)
        if self.stream is not None and self.owner.shared:
            self.stream.close()
            self.fresh.replace(self.path)
        while self.owner.shared and not self.path.exists():  # another process writes it
            time.sleep(SECONDS_BETWEEN_LOOKS)
        place = self.path if self.owner.shared or self.stream is None else self.stream
        mapped = torch.from_numpy(np.memmap(place, np.uint8, "c", shape=self.shape))
        if self.stream is not None:
            self.stream.close()
        return mapped
