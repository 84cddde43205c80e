"""Runs of file scores made for the explorer: `from report.explorer_runs import ...`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from notbugs import data, report
from notbugs.files import columns as columns_module
from notbugs.report.pages import files
from notbugs.report.write import PAGES
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import (
    AdversarialExampleRow,
    CategoryRow,
    ColumnRow,
    FilePredictionRow,
    FileRow,
    NeighborRow,
    PictureSheetRow,
)
from notbugs.runs.tables.row import Row, columns

CLASSES = ("cat", "<b>dog</b>", "Vögel & 猫")
CATEGORIES = ("robust", "non-robust", "<i>likely</i> label error")
HOSTILE = [
    "<img src=x onerror=\"document.title='taken'\">.png",
    "two\nlines.png",
    ' spaces and "quotes" .png',
    "%41&#file=b.png",
    "</script><script>document.title='taken'</script>.png",
    "x" * 200 + ".png",
]
SIDE = 8  # pixels of every picture
NUMBERS = [name for name, (kind, _) in columns(FileRow).items() if kind is float]


def file_names(count: int) -> list[str]:
    """Hostile names first; all different."""
    return [*HOSTILE, *(f"{CLASSES[index % 3]}/{index:05d}.png" for index in range(len(HOSTILE), count))][:count]


def file_rows(count: int) -> list[FileRow]:
    """Robustness falls from file to file, other scores are random; one score is empty everywhere."""
    random = np.random.default_rng(0)
    rows = []
    for index, name in enumerate(file_names(count)):
        numbers: dict[str, Any] = dict(zip(NUMBERS, random.normal(0, 2, len(NUMBERS)).tolist(), strict=True))
        numbers |= {"robustness": 1 - index / count, "margin_lost_on_test_part": None}
        kinds = columns(FileRow)
        said = {column: "" for column, (kind, optional) in kinds.items() if kind is str and not optional}
        said |= {"file": name, "label": CLASSES[index % 3], "category": CATEGORIES[index % 2 + (index % 7 == 0)]}
        flags = {column: 0 for column, (kind, _) in kinds.items() if kind in (int, bool)}
        rows.append(FileRow(**{**flags, **said, **numbers, "index": index, "suggested_label": CLASSES[(index // 2) % 3]}))
    return rows


def explorer_run(folder: Path, count: int, *, pictures: bool = True) -> Path:
    """A run with `count` files. Pictures are random; the adversarial ones differ by less than 9 levels."""
    with RunFolder.open(folder, {"kind": "files", "norm": "l2"}) as run:
        summary = {"classes": list(CLASSES), "train": count, "test": 9, "shape": [3, SIDE, SIDE], "notes": [], "left_out": {}}
        settings = {"repeats": 2, "pictures": 1000 if pictures else 0}
        run.update_metadata(dataset="birds", threat="l2 0.5", settings=settings, data=summary, finished=True)
        rows: list[Row] = [*file_rows(count), *described(), *predicted(count)]
        rows.append(CategoryRow(category=columns_module.CATEGORIES[0], files=1, n=count))  # where the page has its chart
        rows += [*neighbors(count), *pictured(folder, count)] if pictures else []
        run.record_stage("all", 1.0, rows)
    return folder


def chartless_page(folder: Path) -> Path:
    """The report of a run without its chart, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PAGES, "files", lambda run: (files.page(run)[0], {}))
        return report.write(folder)


def described() -> list[Row]:
    return [
        ColumnRow(column="robustness", range="0 to 1", high_means="<u>good</u>", description="a rank"),
        ColumnRow(column="robust_margin", range="any", high_means="clear", description="a margin"),
    ]


def predicted(count: int) -> list[Row]:
    """The standard model is right for the even files."""
    return [
        FilePredictionRow(
            index=index, file=name, model=model, predicted=CLASSES[(index + (model == "standard") * (index % 2)) % 3],
            confidence=0.75, label_probability=0.25,
        )
        for index, name in enumerate(file_names(count)) for model in ("standard", "robust")
    ]  # fmt: skip


def neighbors(count: int) -> list[Row]:
    """Of each file the next three and the last three; file 1 has none of its class."""
    names = file_names(count)
    return [
        NeighborRow(
            index=index, file=names[index], same_class=same, rank=rank, neighbor=(index + sign * rank) % count,
            neighbor_file=names[(index + sign * rank) % count], distance=rank / 10,
        )
        for index in range(count) for same, sign in ((True, 1), (False, -1)) for rank in (1, 2, 3) if not (same and index == 1)
    ]  # fmt: skip


def original(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def perturbed(count: int) -> torch.Tensor:
    """Each pixel up to 8 levels away."""
    change = torch.randint(-8, 9, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
    return (original(count).int() + change).clamp(0, 255).to(torch.uint8)


def pictured(folder: Path, count: int) -> list[Row]:
    """Sheets, and adversarial examples: file 2 is misclassified as it is, for file 3 none was found."""
    rows: list[Row] = []
    kinds = {"original": original(count), "standard_adversarial": perturbed(count), "robust_version": 255 - original(count)}
    for kind, images in kinds.items():
        for first in range(0, count, 100):
            picture = f"explorer/{kind}-{first:07d}.webp"
            part = images[first : first + 100]
            data.save_sheet(part, folder / picture, columns=10)
            rows.append(
                PictureSheetRow(
                    kind=kind, picture=picture, first=first, files=len(part), columns=10, width=SIDE, height=SIDE
                )
            )  # fmt: skip
    for index, name in enumerate(file_names(count)):
        norm = {2: 0.0, 3: None}.get(index, 0.5)
        linf = int((perturbed(count)[index].int() - original(count)[index].int()).abs().max()) / 255
        rows.append(
            AdversarialExampleRow(
                index=index, file=name, model="standard", clean_prediction=CLASSES[index % 3],
                adversarial_prediction=CLASSES[(index + 1) % 3], norm=norm, linf=linf,
            )
        )  # fmt: skip
    return rows
