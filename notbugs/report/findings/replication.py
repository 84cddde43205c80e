"""The figures of Ilyas et al. 2019 on CIFAR-10, and those of a run beside them. Needs no torch."""

from typing import Any, NamedTuple

from notbugs.report.results import AccuracyResults, Estimate, Rows, accuracy_results, number
from notbugs.report.weighed import control_results, seed_mean
from notbugs.runs.folder import RunFolder, as_csv, write_atomic
from notbugs.stats import correlation

Three = tuple[float | None, float | None, float | None]


class Entry(NamedTuple):
    """One line of the paper: accuracies in percent, unchanged, at L2 0.25 and at 0.5; None where it gives none.

    model: the run's; on: the set it is read on, "versions SET" for the table of that name.
    """

    name: str
    where: str
    paper: Three
    model: str
    on: str = "test"


ENTRIES = (
    Entry("ordinary training", "table 7", (95.25, 4.49, 0.0), "standard"),
    Entry("adversarial training", "table 7", (90.83, 82.48, 70.90), "adversarial"),
    Entry("D_R, grown from images", "table 7", (85.40, 48.20, 21.85), "on-robust"),
    Entry("D_R, grown from noise", "table 7", (84.10, 48.27, 29.40), "on-robust-noise"),
    Entry("D_NR, grown from images", "table 7", (87.68, 0.82, 0.0), "on-nonrobust"),
    Entry("D_NR, grown from noise", "table 7", (45.60, 1.50, 0.0), "on-nonrobust-noise"),
    Entry("D_rand", "table 1", (63.3, None, None), "on-random-labels-any"),
    Entry("D_rand, never the old label", "", (None, None, None), "on-random-labels"),
    Entry("D_det", "table 1", (43.7, None, None), "on-next-labels"),
    Entry("D_det: said the next class", "table 10", (16.2, None, None), "on-next-labels", "test-next"),
    Entry("D_rand of a robust model", "table 9", (25.2, None, None), "on-random-labels-any-robust"),
    Entry("D_det of a robust model", "table 9", (5.8, None, None), "on-next-labels-robust"),
    Entry("D_det of a robust model: said the next class", "table 10", (65.5, None, None), "on-next-labels-robust", "test-next"),
    Entry("D_R model on D_R's training images", "table 8", (None, 77.33, None), "on-robust", "versions robust"),
    Entry("D_R model on D_R of the test images", "table 8", (None, 62.49, None), "on-robust", "versions robust-test"),
)
# Figure 3: read after D_det, fooled by the untargeted examples of a ResNet-50, in percent; read off the figure
FIGURE = {
    "VGG-16": (27.9, 65.7),
    "Inception-v3": (39.4, 82.7),
    "ResNet-18": (40.8, 92.1),
    "DenseNet": (41.7, 92.7),
    "ResNet-50": (44.7, 98.7),
}
OUR_NETWORKS = {
    "VGG-16": "vgg",
    "Inception-v3": "inception",
    "ResNet-18": "resnet",
    "DenseNet": "densenet",
    "ResNet-50": "fresh-1",
}
COLUMNS = ("unchanged", "half", "full")


def replication_rows(run: RunFolder) -> Rows:
    """A row a figure of the paper: name, table, change (unchanged, half, full), paper, here, low, high, n, seeds; shares."""
    measured, told = accuracy_results(run), Rows()
    if not run.metadata.get("paper"):
        return []
    for entry in ENTRIES:
        for radius, (change, paper) in enumerate(zip(COLUMNS, entry.paper, strict=True)):
            figure = _here(run, measured, entry, radius)
            if figure is None:
                continue
            ends: dict[str, Any] = {"here": figure.mean, "low": figure.low, "high": figure.high}
            about: dict[str, Any] = {"name": entry.name, "table": entry.where, "change": change}
            told.append(
                about | {"paper": "" if paper is None else round(paper / 100, 6)} | ends | {"n": figure.n, "seeds": figure.seeds}
            )
    return told


def _here(run: RunFolder, measured: AccuracyResults, entry: Entry, radius: int) -> Estimate | None:
    if not entry.on.startswith("versions"):
        return measured.accuracy(entry.model, entry.on, radius)
    own = [row for row in run.table("versions") if row["set"] == entry.on.removeprefix("versions ")]
    sizes = sorted({number(row["epsilon"]) for row in own})
    if len(sizes) <= radius:
        return None
    return seed_mean([row for row in own if row["epsilon"] == sizes[radius]], "accuracy", "low", "high", share=True)


def write_table(run: RunFolder) -> None:
    """Write tables/paper.csv, if the run has the paper's recipe."""
    if told := replication_rows(run):
        write_atomic(run.folder / "tables" / "paper.csv", as_csv(told))


def replication_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of text: each line of the paper and, beside it, the run's; percent."""
    measured, told = accuracy_results(run), replication_rows(run)
    norm = measured.norm[0]
    columns = [
        "trained on",
        *("unchanged: paper", "unchanged, here", "L2 0.25: paper", f"{norm} {measured.radius_text(1)}, here"),
        *("L2 0.5: paper", f"{norm} {measured.radius_text(2)}, here"),
    ]
    lines = []
    for entry in ENTRIES:
        own = {row["change"]: row for row in told if row["name"] == entry.name}
        if own:
            cells = []
            for change, paper in zip(COLUMNS, entry.paper, strict=True):
                row = own.get(change)
                cells.append("–" if paper is None else f"{paper:g}")
                cells.append(_told(row) if row else "–")
            lines.append([entry.name, *cells])
    return columns, lines


def compact_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """The same on one line each, without intervals: unchanged/half/full."""
    lines = replication_table(run)[1]
    return ["trained on", "the paper’s", "here"], [
        [name, "/".join(cells[::2]), "/".join(cell.split(" [")[0] for cell in cells[1::2])] for name, *cells in lines
    ]


def _told(row: dict[str, Any]) -> str:
    return f"{100 * row['here']:.1f} [{100 * row['low']:.1f} to {100 * row['high']:.1f}]"


def figure_3(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of text: what each network reads after D_det, and how often the source's examples fool it; percent."""
    measured, weighed, lines = accuracy_results(run), control_results(run), list[list[str]]()
    if not run.metadata.get("paper"):
        return [], []
    for kind, (learnt, fooled) in FIGURE.items():
        name = OUR_NETWORKS[kind]
        here = measured.accuracy("on-next-labels" if name == "fresh-1" else f"{name}-on-next-labels")
        hit = weighed.hits("standard", name)
        if here and hit:
            ours = [f"{100 * figure.mean:.1f}" for figure in (here, hit)]
            lines.append([f"{kind}; here {name}", f"{learnt:g}", ours[0], f"{fooled:g}", ours[1]])
    if follows := weighed.follows(measured):
        of_paper = correlation(*zip(*FIGURE.values(), strict=True))
        here = follows.correlation
        cell = f"{here.mean:.2f} ({here.low:.2f} to {here.high:.2f}), of {here.n}".replace("-", "−")
        lines.append(["correlation", "", "", f"{of_paper:.2f}", cell])
    return ["network", "read after D_det: paper", "read, here", "fooled: paper", "fooled, here"], lines
