"""How fast the page of file scores opens with very many files: time in Chromium, size of the page and of its pictures.

    python benchmarks/explorer.py cifar10.npz --run runs/files --folder runs/many --out benchmarks/results/explorer.json

The images are real. The rows are not results: each file has those of a file of RUN (a finished run of `notbugs files`), drawn at
random with replacement, and random files as its nearest. All kinds of pictures are the originals. A page opens without a network,
in a new browser context each time; a figure is the median over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables.files import FileRow
    from notbugs.runs.tables.row import Row as TableRow

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
    rows = ({"files": _files(options.folder), **row} for row in _rows(options))
    measure(ResultsFile(options.out), "explorer", rows, recorded_arguments(options), key=("part", "files", "work"))


def _files(folder: Path) -> int:
    from notbugs.runs.folder import RunFolder

    return RunFolder.read(folder).files().data.train or 0


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    from playwright.sync_api import sync_playwright

    from notbugs import report

    if not (options.folder / "run.json").is_file():
        _make_run(options.images, options.run, options.folder)
    began = time.process_time()
    page = report.write(options.folder)
    yield {"work": "write the page", "cpu_seconds": time.process_time() - began, "megabytes": page.stat().st_size / 1e6}
    originals = sum(path.stat().st_size for path in (options.folder / "explorer").iterdir())
    yield {"work": "original pictures", "megabytes": originals / 1e6}
    visits: dict[str, list[Row]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(options.rounds):
            for row in _visit(browser, page):
                visits.setdefault(row["work"], []).append(row)
        browser.close()
    for work, rows in visits.items():
        medians = {name: statistics.median(row[name] for row in rows) for name in rows[0] if name != "work"}
        yield {"work": work, **medians, "rounds": len(rows)}


# ---- the run ---------------------------------------------------------------------------------------------------------------


def _make_run(images: Path, source: Path, folder: Path) -> None:
    """A run with all training images of the archive and rows drawn from another run."""
    import numpy as np

    from notbugs import data
    from notbugs.files.explorer import sheet_rows
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables.files import CategoryRow, ColumnRow

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
    from notbugs.runs.tables.files import AdversarialExampleRow, FilePredictionRow, FileRow, NeighborRow

    rows: dict[int, list[FileRow | FilePredictionRow | AdversarialExampleRow]] = {}
    neighbors: dict[int, list[NeighborRow]] = {}
    found: list[FileRow | FilePredictionRow | AdversarialExampleRow] = [*before.rows(FileRow), *before.rows(FilePredictionRow)]
    for row in [*found, *before.rows(AdversarialExampleRow)]:
        rows.setdefault(row.index, []).append(row)
    for neighbor in before.rows(NeighborRow):
        neighbors.setdefault(neighbor.index, []).append(neighbor)
    continuous = _continuous(before.rows(FileRow))
    for index, (name, source) in enumerate(zip(names, drawn, strict=True)):
        for row in rows[source]:
            # as different as measured scores are: equal ones would take less room in the page
            measured = {FileRow: continuous, AdversarialExampleRow: ["norm"]}.get(type(row), [])
            scores = {column: getattr(row, column) * (1 + index / 1e7) for column in measured if getattr(row, column)}
            yield replace(row, index=index, file=name, **scores)
        for neighbor in neighbors[source]:
            other = (7919 * index + 104729 * neighbor.rank + neighbor.neighbor) % len(names)
            yield replace(neighbor, index=index, file=name, neighbor=other, neighbor_file=names[other])


def _continuous(rows: "Sequence[FileRow]") -> list[str]:
    """The scores that differ from file to file."""
    from notbugs.runs.tables.files import FileRow
    from notbugs.runs.tables.row import columns

    numbers = [name for name, (kind, _) in columns(FileRow).items() if kind is float]
    return [name for name in numbers if len({getattr(row, name) for row in rows} - {None}) > len(rows) / 2]


# ---- the page --------------------------------------------------------------------------------------------------------------


def _visit(browser: "Browser", path: Path) -> Iterator[Row]:
    """Open the page and use it: what is done, and the seconds until it is seen."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("#explorer-grid[data-ready]", state="attached", timeout=60_000)
    busy = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
    ready = page.evaluate("performance.getEntriesByName('explorer ready')[0].startTime") / 1000
    yield {"work": "open, until the explorer can be used", "seconds": ready, "cpu_seconds": busy}
    page.wait_for_function(DRAWN)
    yield {"work": "open, until the pictures are drawn", "seconds": page.evaluate("performance.now()") / 1000}
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    text, label, sort = (page.locator(f"#explorer-filters [name={name}]") for name in ("text", "label", "sort"))
    yield _timed(page, "filter by class", lambda: label.select_option(index=3))
    label.select_option(index=0)
    yield _timed(page, "filter by a part of the name", lambda: text.fill("77"))
    text.fill("")
    yield _timed(page, "sort by a score", lambda: sort.select_option(index=5))
    yield _timed(page, "scroll to the middle", lambda: page.locator("#explorer-grid").evaluate(SCROLLED))
    yield _timed(page, "open a file", lambda: page.locator("[role=option]").nth(20).click(), OPENED)
    context.close()


def _timed(page: "Page", work: str, act: Callable[[], object], seen: str = DRAWN) -> Row:
    began = time.perf_counter()
    act()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function(seen)
    return {"work": work, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
