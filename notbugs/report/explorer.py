"""What the explorer on the page of file scores works on: columns of all files, compact enough for 50,000 of them.

Arrays are in base64. A column of texts, or of few different numbers, is the list of the different ones and an array of codes.
Pictures are inside the page if they are small; otherwise it loads them from the folder explorer/ beside it.
"""

import base64
import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import FilesMetadata
from notbugs.runs.tables.files import AdversarialExampleRow, ColumnRow, FilePredictionRow, FileRow, NeighborRow, PictureSheetRow
from notbugs.runs.tables.row import columns

EMBEDDED_BYTES = 15 * 10**6  # of pictures: a page of up to about 20 MB can be sent as one file
NONE = 2**16 - 1  # the code of an empty cell
DIGITS = 12  # characters of a number in JSON
Json = dict[str, object]
ModelRow = TypeVar("ModelRow", FilePredictionRow, AdversarialExampleRow)


class Pictures(NamedTuple):
    """The sheets with the pictures of all files.

    Attributes
    ----------
    kinds : dict of str to dict
        Layout and sources of the sheets.
    inside : bool
        Whether the sources are data URLs. If not, they are paths beside the page.
    size : int
        Bytes of the sheets.
    """

    kinds: dict[str, Json]
    inside: bool
    size: int


def context(run: RunFolder, files: Sequence[FileRow]) -> Json:
    """What explorer.html.jinja names, and where the page may load pictures from besides itself.

    Parameters
    ----------
    run : RunFolder
        Of file scores.
    files : sequence of FileRow
        Its rows.
    """
    if not files:
        return {"explorer": {}, "explorer_notes": []}
    pictures = pack_pictures(run.folder, run.rows(PictureSheetRow))
    notes = [_missing_pictures(run.files(), pictures)]
    if not pictures.inside:
        notes.append(f"The pictures are in the folder explorer/ beside this page ({pictures.size / 1e6:,.0f} MB).")
    return {
        "explorer": pack(run, files, pictures),
        "explorer_notes": [note for note in notes if note],
        # file: where the page is opened as a file, 'self' where a server sends it
        "picture_sources": "" if pictures.inside else " file: 'self'",
    }


def pack(run: RunFolder, files: Sequence[FileRow], pictures: Pictures) -> Json:
    """The explorer's data, as the page's script expects them: JSON."""
    metadata, place = run.files(), {row.index: position for position, row in enumerate(files)}
    return {
        "names": [row.file for row in files],
        "texts": [{"name": name, **texts(getattr(row, name) for row in files)} for name in _columns_of(str) if name != "file"],
        "scores": _scores(files, run.rows(ColumnRow)),
        "predictions": _predictions(run.rows(FilePredictionRow), place),
        "adversarial": _adversarial(run.rows(AdversarialExampleRow), place),
        "neighbors": _neighbors(run.rows(NeighborRow), place),
        "pictures": pictures.kinds,
        "norm": str(metadata.arguments.get("norm", "")),
        "repetitions": metadata.settings.get("repeats"),
    }


def _missing_pictures(metadata: FilesMetadata, pictures: Pictures) -> str:
    """Why there are no adversarial examples and versions; "" if there are."""
    if pictures.kinds.keys() - {"original", "thumbnail"}:
        return ""
    size, limit = 4 * (metadata.data.train or 0) * math.prod(metadata.data.shape) / 1e6, metadata.settings.get("pictures")
    if isinstance(limit, int | float) and size > limit:
        return (
            f"Adversarial examples, D_R and D_NR were not stored: they have {size:,.0f} MB before compression, "
            f"and --pictures allows {limit:,.0f}."
        )
    return "Adversarial examples, D_R and D_NR were not stored when the files were scored. A new run stores them."


# ---- columns ---------------------------------------------------------------------------------------------------------------


def numbers(values: Iterable[float | None]) -> str | Json:
    """Numbers in float32, None is NaN: an array, or the different values and an array of codes if that is shorter.

    Examples
    --------
    >>> numbers([1.0, None])
    'fAACAPwAAwH8='
    >>> numbers([0.5, None] * 20)["values"]
    [0.5, None]
    """
    rounded = array("f", [math.nan if value is None else value for value in values])
    places: dict[float | None, int] = {}
    codes = [places.setdefault(None if math.isnan(value) else value, len(places)) for value in rounded]
    kind = _code_type(len(places))
    if DIGITS * len(places) + array(kind).itemsize * len(codes) < rounded.itemsize * len(rounded):
        return {"values": list(places), "codes": packed(codes, kind)}
    return packed(rounded, "f")


def scaled(values: Sequence[float | None]) -> Json:
    """Numbers of 0 or more as 16-bit codes, which `step` multiplies: for what is shown with three digits. None is the last code.

    Examples
    --------
    >>> scaled([0.5, 1.0])["step"] == 1 / 65534
    True
    """
    step = max((value for value in values if value is not None), default=0.0) / (NONE - 1) or 1.0
    return {"step": step, "codes": packed([NONE if value is None else round(value / step) for value in values], "H")}


def texts(values: Iterable[str | None]) -> Json:
    """The different texts, and the place of each row's among them; None is the empty text.

    Examples
    --------
    >>> texts(["cat", "dog", "cat"])
    {'values': ['cat', 'dog'], 'codes': 'BAAEA'}
    """
    places: dict[str, int] = {}
    codes = [places.setdefault(value or "", len(places)) for value in values]
    return {"values": list(places), "codes": packed(codes, _code_type(len(places)))}


def packed(values: Iterable[float], kind: str) -> str:
    """A little-endian array: its type as in the module array (B, H, i or f), then its bytes in base64.

    Examples
    --------
    >>> packed([1, -1], "i")
    'iAQAAAP////8='
    """
    numbers = array(kind, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return kind + base64.b64encode(numbers.tobytes()).decode()


def _code_type(count: int) -> str:
    """The type of array that holds numbers below `count`."""
    return "B" if count <= 2**8 else "H" if count <= 2**16 else "i"


def _columns_of(*kinds: type) -> list[str]:
    """The columns of `FileRow` with cells of these types."""
    return [name for name, (kind, _) in columns(FileRow).items() if kind in kinds]


def _scores(files: Sequence[FileRow], described: Sequence[ColumnRow]) -> list[Json]:
    """Every numeric column that any file has, with range, direction and description."""
    about = {row.column: row for row in described}
    scores: list[Json] = []
    for name in _columns_of(float, int, bool):
        values = [getattr(row, name) for row in files]
        if name != "index" and any(value is not None for value in values):
            row = about.get(name)
            said = {"range": row.range, "high": row.high_means, "about": row.description} if row else {}
            scores.append({"name": name, **said, "values": numbers(values)})
    return scores


def _predictions(rows: Sequence[FilePredictionRow], place: Mapping[int, int]) -> list[Json]:
    """By model: what it predicts for every file."""
    return [
        {
            "model": model,
            "predicted": texts(row.predicted if row else None for row in own),
            "confidence": scaled([row.confidence if row else None for row in own]),
            "label_probability": scaled([row.label_probability if row else None for row in own]),
        }
        for model, own in _by_model(rows, place)
    ]


def _adversarial(rows: Sequence[AdversarialExampleRow], place: Mapping[int, int]) -> list[Json]:
    """By model: the adversarial example of every file. largest: change of a pixel, in levels of 255."""
    return [
        {
            "model": model,
            "clean": texts(row.clean_prediction if row else None for row in own),
            "adversarial": texts(row.adversarial_prediction if row else None for row in own),
            "norm": numbers(row.norm if row else None for row in own),
            "largest": packed((round(255 * row.linf) if row else 0 for row in own), "B"),
        }
        for model, own in _by_model(rows, place)
    ]


def _by_model(rows: Sequence[ModelRow], place: Mapping[int, int]) -> Iterator[tuple[str, list[ModelRow | None]]]:
    """The rows of each model in the order of the files; None where a file has none."""
    for model in dict.fromkeys(row.model for row in rows):
        own: list[ModelRow | None] = [None] * len(place)
        for row in rows:
            if row.model == model and row.index in place:
                own[place[row.index]] = row
        yield model, own


def _neighbors(rows: Sequence[NeighborRow], place: Mapping[int, int]) -> Json:
    """Of every file the nearest of its class and of other classes: `count` positions each; the number of files for none."""
    count, total = max((row.rank for row in rows), default=0), len(place)
    found: Json = {"count": count}
    for name, same in (("same", True), ("other", False)):
        positions: list[int] = [total] * count * total
        distances: list[float | None] = [None] * (count * total)
        for row in rows:
            if row.same_class == same and row.index in place and row.neighbor in place:
                at = place[row.index] * count + row.rank - 1
                positions[at], distances[at] = place[row.neighbor], row.distance
        found[name] = {"files": packed(positions, _code_type(total + 1)), "distances": scaled(distances)}
    return found if count else {}


# ---- pictures --------------------------------------------------------------------------------------------------------------


def pack_pictures(folder: Path, rows: Sequence[PictureSheetRow]) -> Pictures:
    """The pictures of all files: inside the page if all sheets together are small enough, else beside it; folder: of the run."""
    sizes = {row.picture: _size(folder, row.picture) for row in rows}
    inside = sum(sizes.values()) <= EMBEDDED_BYTES
    sources: dict[str, list[str]] = {}
    kinds: dict[str, Json] = {}
    for row in rows:
        sources.setdefault(row.kind, []).append(_source(folder, row.picture, inside) if sizes[row.picture] else "")
        kinds[row.kind] = {
            "columns": row.columns,
            "width": row.width,
            "height": row.height,
            "sources": sources[row.kind],
        }
    return Pictures(kinds, inside, sum(sizes.values()))


def _size(folder: Path, name: str) -> int:
    """Bytes of a WebP picture in explorer/ of the run; 0 for anything else, so that a table cannot name files outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to((folder / "explorer").resolve()) or not path.is_file():
        return 0
    with path.open("rb") as stream:
        head = stream.read(12)
    return path.stat().st_size if head[:4] == b"RIFF" and head[8:] == b"WEBP" else 0


def _source(folder: Path, name: str, inside: bool) -> str:
    """A data URL, or the path beside the page."""
    return "data:image/webp;base64," + base64.b64encode((folder / name).read_bytes()).decode() if inside else name
