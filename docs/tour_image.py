"""The pictures of the tour: one file of my_images in every version, from the run of the tour.

    python docs/tour_image.py runs/tour            # writes docs/tour/, prints the table of docs/tour.md

The report has the same pictures in its section "The same files in all data sets".
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "tour"
FILE_CLASS = "disc"
SCALE = 4  # every pixel becomes 4x4
Row = Mapping[str, str]

# Versions in the order of the table: how each is called, and what its picture shows to those who do not see it
VERSIONS = {
    "original": ("original", "A dark red disc on a pink ground."),
    "adversarial": ("adversarial example", "The same disc. Faint diagonal lines are hardly visible."),
    "perturbation": ("its perturbation", "Diagonal lines on gray, as wide as the disc."),
    "robust": ("D_R", "Purple and white patches in which no disc is visible, with a dark patch at the bottom."),
    "nonrobust": ("D_NR", "A dark blue disc on a gray ground: another image than the original."),
    "random-labels": ("D_rand", "The red disc of the original, with a thin bright line at its lower right edge."),
}


def copy(run: Path, folder: Path) -> list[Row]:
    """Write the enlarged pictures of one file of a run, and what the report says of them; returns that."""
    with (run / "tables" / "pictures.csv").open() as stream:
        all_rows = list(csv.DictReader(stream))
    file = next(row["file"] for row in all_rows if row["label"] == FILE_CLASS and row["column"] == "original")
    by_version = {row["column"]: row for row in all_rows if row["file"] == file}
    folder.mkdir(exist_ok=True)
    rows = [{**by_version[version], "picture": f"{version}.png"} for version in VERSIONS]
    for version, row in zip(VERSIONS, rows, strict=True):
        picture = Image.open(run / by_version[version]["picture"]).convert("RGB")
        size = (SCALE * picture.width, SCALE * picture.height)
        picture.resize(size, Image.Resampling.NEAREST).save(folder / row["picture"], optimize=True)
    with (folder / "pictures.csv").open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def pixels(folder: Path, version: str) -> np.ndarray:
    """An enlarged picture in its own size, in [0, 1]."""
    return np.asarray(Image.open(folder / f"{version}.png"), dtype=np.float64)[::SCALE, ::SCALE] / 255


def table(rows: Sequence[Row], folder: Path) -> str:
    """The table of the tour, in Markdown."""
    lines = ["| version | label | standard classifier | robust classifier | L2 distance |", "|---|---|---|---|---|"]
    original = pixels(folder, "original")
    for row in rows:
        version = row["column"]
        name, words = VERSIONS[version]
        picture = f"![{words}](tour/{row['picture']})"
        if version == "perturbation":
            largest = np.abs(pixels(folder, "adversarial") - original).max()
            lines.append(f"| {picture} {name}, {0.5 / largest:.1f} times as strong | – | – | – | – |")
            continue
        label = row["label"] if row["label"] == FILE_CLASS else f"**{row['label']}**"
        distance = np.linalg.norm(pixels(folder, version) - original)
        lines.append(f"| {picture} {name} | {label} | {row['standard']} | {row['adversarial']} | {distance:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(copy(Path(sys.argv[1]), FOLDER), FOLDER))
