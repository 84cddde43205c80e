"""What the explorer of the page of file scores works on: columns of all files, compact enough for 50,000 of them in one page.

Numbers are little-endian arrays in base64, texts are codes of such an array and the list of values. The pictures are inside the
page if they are small; otherwise the page loads them from the folder explorer/ beside it.
"""

import base64
import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import FilesMetadata
from notbugs.runs.tables import (
    AdversarialExampleRow,
    ColumnRow,
    FilePredictionRow,
    FileRow,
    NeighborRow,
    PictureSheetRow,
    columns,
)

EMBEDDED_BYTES = 15 * 10**6  # of pictures: a page of up to about 20 MB can be sent as one file
NO_FILE = -1
Json = dict[str, object]


def context(run: RunFolder, files: Sequence[FileRow]) -> Json:
    """What explorer.html.jinja names: explorer, explorer_notes, and where the page may load pictures from besides itself.

    Parameters
    ----------
    run : RunFolder
        Of file scores.
    files : sequence of FileRow
        Its rows.
    """
    packed = pack(run, files)
    if not packed:
        return {"explorer": {}, "explorer_notes": []}
    pictures = packed["pictures"]
    assert isinstance(pictures, dict)
    notes = [missing_pictures(run.files(), pictures["kinds"])]
    if not pictures["inside"]:
        notes.append(f"The page loads pictures from the folder explorer/ beside it ({pictures['bytes'] / 1e6:,.0f} MB).")
    # file: where the page is opened as a file, 'self' where a server sends it
    return {
        "explorer": packed,
        "explorer_notes": [note for note in notes if note],
        "picture_sources": "" if pictures["inside"] else " file: 'self'",
    }


def pack(run: RunFolder, files: Sequence[FileRow]) -> Json:
    """The explorer's data, as the page's script expects them.

    Parameters
    ----------
    run : RunFolder
        Of file scores.
    files : sequence of FileRow
        Its rows.

    Returns
    -------
    dict
        JSON. {} without files.
    """
    if not files:
        return {}
    metadata = run.files()
    place = {row.index: position for position, row in enumerate(files)}
    return {
        "names": [row.file for row in files],
        "texts": [
            {"name": name, **_texts(getattr(row, name) for row in files)} for name in _columns_of(str) if name != "file"
        ],
        "scores": _scores(files, run.rows(ColumnRow)),
        "predictions": _predictions(run.rows(FilePredictionRow), place),
        "adversarial": _adversarial(run.rows(AdversarialExampleRow), place),
        "neighbors": _neighbors(run.rows(NeighborRow), place),
        "pictures": pictures(run.folder, run.rows(PictureSheetRow)),
        "norm": str(metadata.arguments.get("norm", "")),
        "repetitions": metadata.settings.get("repeats"),
    }


def missing_pictures(metadata: FilesMetadata, kinds: Iterable[str]) -> str:
    """Why the page has no adversarial examples and versions; "" if it has them."""
    if {*kinds} - {"original", "thumbnail"}:
        return ""
    size, limit = 4 * (metadata.data.train or 0) / 1e6, metadata.settings.get("pictures")
    for length in metadata.data.shape:
        size *= length
    if isinstance(limit, int | float) and size > limit:
        return (
            f"Adversarial examples, D_R and D_NR were not stored: they have {size:,.0f} MB before compression, "
            f"and --pictures allows {limit:,.0f}."
        )
    return "Adversarial examples, D_R and D_NR were not stored when the files were scored. A new run stores them."


# ---- columns ---------------------------------------------------------------------------------------------------------------


def numbers(values: Iterable[float | None], kind: str = "f") -> str:
    """Numbers as a little-endian array in base64; kind: of the module array, f or i; None is NaN.

    Examples
    --------
    >>> numbers([1, -1], "i")
    'AQAAAP////8='
    """
    packed = array(kind, [float("nan") if value is None else value for value in values])
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()


def _texts(values: Iterable[str | None]) -> Json:
    """The different texts, and the place of each row's among them."""
    places: dict[str, int] = {}
    codes = [places.setdefault(value or "", len(places)) for value in values]
    return {"values": list(places), "codes": numbers(codes, "i")}


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
            texts = {"range": row.range, "high": row.high_means, "about": row.description} if row else {}
            scores.append({"name": name, **texts, "values": numbers(values)})
    return scores


def _predictions(rows: Sequence[FilePredictionRow], place: dict[int, int]) -> list[Json]:
    """By model: what it predicts for every file."""
    return [
        {
            "model": model,
            "predicted": _texts(_in_order(own, place, "predicted")),
            "confidence": numbers(_in_order(own, place, "confidence")),
            "label_probability": numbers(_in_order(own, place, "label_probability")),
        }
        for model in dict.fromkeys(row.model for row in rows)
        for own in [[row for row in rows if row.model == model]]
    ]


def _adversarial(rows: Sequence[AdversarialExampleRow], place: dict[int, int]) -> list[Json]:
    """By model: the adversarial example of every file."""
    return [
        {
            "model": model,
            "clean": _texts(_in_order(own, place, "clean_prediction")),
            "adversarial": _texts(_in_order(own, place, "adversarial_prediction")),
            "norm": numbers(_in_order(own, place, "norm")),
            "linf": numbers(_in_order(own, place, "linf")),
        }
        for model in dict.fromkeys(row.model for row in rows)
        for own in [[row for row in rows if row.model == model]]
    ]


def _in_order(rows: Sequence[FilePredictionRow] | Sequence[AdversarialExampleRow], place: dict[int, int], name: str) -> list:
    """One column in the order of the files; None where a file has no row."""
    values: list = [None] * len(place)
    for row in rows:
        if row.index in place:
            values[place[row.index]] = getattr(row, name)
    return values


def _neighbors(rows: Sequence[NeighborRow], place: dict[int, int]) -> Json:
    """Of every file the nearest of its class and of other classes: `count` positions each, -1 where there are fewer."""
    count = max((row.rank for row in rows), default=0)
    found = {same: ([NO_FILE] * count * len(place), [None] * count * len(place)) for same in (True, False)}
    for row in rows:
        if row.index in place and row.neighbor in place:
            positions, distances = found[row.same_class]
            at = place[row.index] * count + row.rank - 1
            positions[at], distances[at] = place[row.neighbor], row.distance
    packed = {
        name: {"files": numbers(found[same][0], "i"), "distances": numbers(found[same][1])}
        for name, same in (("same", True), ("other", False))
    }
    return {"count": count, **packed} if count else {}


# ---- pictures --------------------------------------------------------------------------------------------------------------


def pictures(folder: Path, rows: Sequence[PictureSheetRow]) -> Json:
    """By kind: the layout of its sheets and where each is, inside the page or beside it.

    Parameters
    ----------
    folder : Path
        Of the run.
    rows : sequence of PictureSheetRow

    Returns
    -------
    dict
        kinds; inside: whether the page holds them; bytes: of all sheets that are there.
    """
    sizes = {row.picture: _size(folder, row.picture) for row in rows}
    inside = sum(sizes.values()) <= EMBEDDED_BYTES
    kinds: dict[str, Json] = {}
    for row in rows:
        layout = {"first": [], "sources": [], "columns": row.columns, "width": row.width, "height": row.height}
        kind = kinds.setdefault(row.kind, layout)
        kind["first"].append(row.first)
        kind["sources"].append(_source(folder, row.picture, inside) if sizes[row.picture] else "")
    return {"kinds": kinds, "inside": inside, "bytes": sum(sizes.values())}


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
    if not inside:
        return name
    return "data:image/webp;base64," + base64.b64encode((folder / name).read_bytes()).decode()
