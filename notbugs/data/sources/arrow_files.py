"""Arrow files, as `save_to_disk` writes them: mapped into memory, and checked before anything follows what they say."""

import struct
from pathlib import Path

from notbugs.data.sources.limits import check_expansion

DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of messages
KIND, CONTENT, MORE = 1, 2, 4  # fields of a message; the last one said how it is packed in Arrow 0.17
BATCH, PACKING = 1, 3  # of a batch of a dictionary: its rows; of a batch of rows: how it is packed


def check_arrow(path: Path) -> None:
    """Raises an error where an Arrow file is damaged: reading beyond its end would end the process without a word.

    Or where it is packed, unlike the files of `save_to_disk`: what is not is mapped into memory, whatever it claims.
    """
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        for message in pyarrow.MessageReader.open_stream(file):
            if is_packed(message.metadata.to_pybytes()):
                raise ValueError("it is packed, unlike the files of save_to_disk")
    size = 0
    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
        for batch in batches:
            batch.validate(full=True)
            size += batch.nbytes
            check_expansion(path, size)


def is_packed(message: bytes) -> bool:
    """Whether rows are packed, by the description of a message, which is a FlatBuffer. It raises struct.error for another."""
    root = _follow(message, 0)
    kind, content = _field(message, root, KIND), _field(message, root, CONTENT)
    rows = _follow(message, content) if kind and content and message[kind] in (DICTIONARY_BATCH, RECORD_BATCH) else 0
    if rows and message[kind] == DICTIONARY_BATCH:
        inner = _field(message, rows, BATCH)
        rows = _follow(message, inner) if inner else 0
    return bool(rows and (_field(message, rows, PACKING) or _field(message, root, MORE)))


def _follow(message: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", message, place)[0])


def _field(message: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it is absent."""
    fields = table - int(struct.unpack_from("<i", message, table)[0])
    size = struct.unpack_from("<H", message, fields)[0]
    place = 4 + 2 * number
    offset = int(struct.unpack_from("<H", message, fields + place)[0]) if place < size else 0
    return table + offset if offset else 0
