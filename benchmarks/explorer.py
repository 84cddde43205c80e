"""How fast the page of file scores opens with very many files: time in Chromium, size of the page and of its pictures.

    python /work/shared/tools/unpack_cifar10.py --npz cifar10.npz
    python benchmarks/explorer.py cifar10.npz --run runs/files --folder runs/many --out benchmarks/results/explorer.json

The images are real. The rows are not results: each file has those of a file of RUN (a finished run of `notbugs files`), drawn at
random with replacement, and random files as its nearest. All kinds of pictures are the originals. A page opens without a network,
in a new browser context each time; a figure is the median over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables import Row as TableRow

KINDS = ("standard_adversarial", "robust_adversarial", "robust_version", "nonrobust_version")
DRAWN = "[...document.querySelectorAll('#explorer-grid canvas')].every(one => one.width > 1)"
OPENED = "[...document.querySelectorAll('#explorer-dialog canvas')].every(one => one.width > 1)"
SCROLLED = "grid => { grid.scrollTop = grid.scrollHeight / 2; }"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("images", type=Path, metavar="FILE.npz")
    found.add_argument("--run", type=Path, required=True, help="finished run of `notbugs files`, whose rows are drawn")
    found.add_argument("--folder", type=Path, required=True, help="of the run that is made, unless it is there")
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--chromium", default="/usr/bin/chromium")
    return found


def main() -> None:
    """Make the run, and measure its page."""
    options = parser().parse_args()
    measure(ResultsFile(options.out), "explorer", _rows(options), recorded_arguments(options), key=("part", "work"))


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    from playwright.sync_api import sync_playwright

    from notbugs import report

    if not (options.folder / "run.json").is_file():
        _make_run(options.images, options.run, options.folder)
    began = time.perf_counter()
    page = report.write(options.folder)
    yield {"work": "write the page", "seconds": time.perf_counter() - began, "megabytes": page.stat().st_size / 1e6}
    originals = sum(path.stat().st_size for path in (options.folder / "explorer").iterdir())
    yield {"work": "pictures of one kind", "megabytes": originals / 1e6}
    times: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(options.rounds):
            for work, seconds in _visit(browser, page):
                times.setdefault(work, []).append(seconds)
        browser.close()
    for work, found in times.items():
        yield {"work": work, "seconds": statistics.median(found), "rounds": len(found)}


# ---- the run ---------------------------------------------------------------------------------------------------------------


def _make_run(images: Path, source: Path, folder: Path) -> None:
    """A run with all training images of the archive and rows drawn from another run."""
    import numpy as np

    from notbugs import data
    from notbugs.files.explorer import sheet_rows
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables import CategoryRow, ColumnRow

    dataset, before = data.load(str(images)).train, RunFolder.read(source)
    drawn = np.random.default_rng(0).integers(0, before.files().data.train or 0, len(dataset)).tolist()
    with RunFolder.open(folder, {"kind": "files", "norm": before.files().arguments["norm"]}) as run:
        kept = {name: value for name, value in before.metadata.items() if name not in ("arguments", "stages", "format")}
        shape = {**before.metadata["data"], "train": len(dataset), "shape": list(dataset.shape)}
        run.update_metadata(**{**kept, "dataset": images.stem, "data": shape})
        sheets = sheet_rows("original", dataset.images, folder)
        run.record_stage("pictures", 0.0, [*sheets, *(replace(row, kind=kind) for kind in KINDS for row in sheets)])
        run.record_stage("described", 0.0, [*before.rows(CategoryRow), *before.rows(ColumnRow)])
        run.record_stage("files", 0.0, _drawn_rows(before, drawn, dataset.names))


def _drawn_rows(before: "RunFolder", drawn: list[int], names: tuple[str, ...]) -> "Iterator[TableRow]":
    """Rows of all tables that have some for each file."""
    from notbugs.runs.tables import AdversarialExampleRow, FilePredictionRow, FileRow, NeighborRow

    rows: dict[int, list[FileRow | FilePredictionRow | AdversarialExampleRow]] = {}
    neighbors: dict[int, list[NeighborRow]] = {}
    found: list[FileRow | FilePredictionRow | AdversarialExampleRow] = [*before.rows(FileRow), *before.rows(FilePredictionRow)]
    for row in [*found, *before.rows(AdversarialExampleRow)]:
        rows.setdefault(row.index, []).append(row)
    for neighbor in before.rows(NeighborRow):
        neighbors.setdefault(neighbor.index, []).append(neighbor)
    for index, (name, source) in enumerate(zip(names, drawn, strict=True)):
        yield from (replace(row, index=index, file=name) for row in rows[source])
        for neighbor in neighbors[source]:
            other = (7919 * index + 104729 * neighbor.rank + neighbor.neighbor) % len(names)
            yield replace(neighbor, index=index, file=name, neighbor=other, neighbor_file=names[other])


# ---- the page --------------------------------------------------------------------------------------------------------------


def _visit(browser: "Browser", path: Path) -> Iterator[tuple[str, float]]:
    """Open the page and use it: what is done, and the seconds until it is seen."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("#explorer-grid[data-ready]", state="attached", timeout=60_000)
    yield (
        "open, until the explorer can be used",
        page.evaluate("performance.getEntriesByName('explorer ready')[0].startTime") / 1000,
    )
    page.wait_for_function(DRAWN)
    yield "open, until its pictures are drawn", page.evaluate("performance.now()") / 1000
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    form = "#explorer-filters"
    yield "filter by class", _timed(page, lambda: page.select_option(f"{form} [name=label]", index=3))
    page.select_option(f"{form} [name=label]", index=0)
    yield "filter by a part of the name", _timed(page, lambda: page.fill(f"{form} [name=text]", "77"))
    page.fill(f"{form} [name=text]", "")
    yield "sort by a score", _timed(page, lambda: page.select_option(f"{form} [name=sort]", index=5))
    yield "scroll to the middle of the sorted files", _timed(page, lambda: page.locator("#explorer-grid").evaluate(SCROLLED))
    yield "open a file", _timed(page, lambda: page.locator("[role=option]").nth(20).click(), OPENED)
    context.close()


def _timed(page: "Page", act: Callable[[], object], seen: str = DRAWN) -> float:
    began = time.perf_counter()
    act()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function(seen)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
