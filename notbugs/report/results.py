"""What a run measured, to be asked: means over seeds, differences, and their 95 % intervals. Needs no torch."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from notbugs.runs.folder import Cell, RunFolder
from notbugs.stats import student_interval

Rows = list[dict[str, Cell]]

MODELS = {
    "standard": "ordinary training on the original images",
    "adversarial": "adversarial training: on images changed to mislead it while it learns",
    "on-robust": "ordinary training on D_R: keeps only what the adversarial model looks at",
    "on-nonrobust": "ordinary training on D_NR: keeps only what the standard model looks at",
    "on-random-labels": "images moved towards another, random class and labelled as that class: every label is wrong",
    "on-random-labels-any": "the same, but the random class may be the true one (as in the paper)",
    "on-next-labels": "images moved towards the next class and labelled as that class",
    "on-random-labels-noise": "control: the labels of random-labels, random changes of the same size",
}
SETS = {
    "test": "test images, never trained on",
    "original": "the training images",
    "robust": "D_R: other images, changed until the adversarial model sees in them what it sees in the originals",
    "nonrobust": "D_NR: the same, with the standard model",
    **{name[3:]: text for name, text in MODELS.items() if "labels" in name},
    "next-labels-noise": "control: the labels of next-labels, random changes of the same size",
    "random-labels-patterns": "control: the labels of random-labels, one random pattern for each",
    "next-labels-patterns": "control: the labels of next-labels, one random pattern for each",
    "random-labels-any-patterns": "control: the same, images whose label is right left as they are",
    "random-labels-unread": "without the images that a weak model already took for their new label",
    "next-labels-unread": "without the images that a weak model already took for their new label",
    "robust-noise": "D_R, grown from noise",
    "nonrobust-noise": "D_NR, grown from noise",
    "random-labels-any-robust": "random-labels-any made with the adversarially trained model",
    "random-labels-robust": "random-labels made with the adversarially trained model",
    "next-labels-robust": "next-labels made with the adversarially trained model",
    "next-labels-bugs": "next-labels moved so that other models still read the old label",
    "errors-only": "only what a weak model misreads, unchanged, labelled as it is misread",
    "photographs": "crops of two photographs, labelled by the standard model",
}
NORMS = {
    "l2": ("L2", "L2 distance: the square root of the sum of the squared pixel changes, black being 0 and white 1"),
    "linf": ("L-infinity", "L-infinity distance: the largest change of any pixel, black being 0 and white 1"),
}

# What run.json holds once a run is under way; a run that was stopped early has less.
FACTS: dict[str, Any] = {
    "source": "A run",
    "command": "",
    "notbugs": "",
    "versions": {},
    "device": "",
    "machine": "",
    "norm": "l2",
    "epsilon": math.nan,
    "epsilon_text": "",
    "recipe": {},
    "seeds": [],
    "seconds": 0,
    "finished": False,
    "full": False,
    "paper": False,
    "data": {"classes": [], "train": "?", "test": "?", "shape": [], "note": "", "skipped": []},
}


Verdict = Literal["shown", "in part", "not shown", "open"]


class Finding(NamedTuple):
    """A question, whether the figures allow a yes, and the answer in plain sentences."""

    question: str
    verdict: Verdict
    text: str


class Estimate(NamedTuple):
    """A mean with its 95 % interval; n images a seed. As a difference: in [-1, 1], else an accuracy in [0, 1]."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int
    over_seeds: bool  # whether the interval is; if not, it is over the test images

    @property
    def percent(self) -> str:
        return percent(self.mean)

    @property
    def points(self) -> str:
        return f"{100 * self.mean:.1f} points".replace("-", "−")

    @property
    def interval(self) -> str:
        ends = f"{100 * self.low:.1f}–{100 * self.high:.1f}"
        return ends if self.low >= 0 else ends.replace("-", "−").replace("–", " to ")

    @property
    def range(self) -> str:
        over = f"over {self.seeds} seeds" if self.over_seeds else "over the test images"
        return f"95 % interval {100 * self.low:.1f} to {100 * self.high:.1f}, {over}".replace("-", "−")


class AccuracyResults(NamedTuple):
    """What a run measured, to be asked.

    radii: 0, epsilon / 2, epsilon; norm: its name and in words; chance: what guessing reads, at best. further: models of a full
    study that are no part of the story.
    """

    rows: Rows
    radii: tuple[float, float, float]
    radius_texts: tuple[str, str, str]
    norm: tuple[str, str]
    chance: float
    further: frozenset[str] = frozenset()

    def by_seed(self, model: str, on: str = "test", radius: int = 0) -> dict[Cell, dict[str, Cell]]:
        """One row a seed; where several attacks were tried, the one that left the least."""
        kept: dict[Cell, dict[str, Cell]] = {}
        for row in self.rows:
            if (row["model"], row["set"]) != (model, on) or not math.isclose(
                number(row["epsilon"]), self.radii[radius], rel_tol=1e-3
            ):
                continue
            if row["seed"] not in kept or number(row["accuracy"]) < number(kept[row["seed"]]["accuracy"]):
                kept[row["seed"]] = row
        return kept

    def accuracy(self, model: str, on: str = "test", radius: int = 0) -> Estimate | None:
        """Mean over seeds; interval: Student's t over seeds. One seed, or all the same: the row's own, over its images."""
        rows = list(self.by_seed(model, on, radius).values())
        if not rows:
            return None
        n, values = int(number(rows[0]["n"])), [number(row["accuracy"]) for row in rows]
        if len(set(values)) == 1:
            return Estimate(values[0], number(rows[0]["low"]), number(rows[0]["high"]), n, len(rows), False)
        mean, low, high = student_interval(values)
        return Estimate(mean, max(low, 0.0), min(high, 1.0), n, len(rows), True)

    def difference(self, one: tuple[str, int], other: tuple[str, int]) -> Estimate | None:
        """Accuracy of one (model, radius) minus that of the other, on the test set.

        Several seeds: Student's t over the differences seed by seed. One seed, or seeds that all agree: Newcombe's interval, from
        the two rows' own.
        """
        first, second = self.by_seed(one[0], radius=one[1]), self.by_seed(other[0], radius=other[1])
        pairs = [[first[seed], second[seed]] for seed in first if seed in second]
        if not pairs:
            return None
        n, values = int(number(pairs[0][0]["n"])), [round(number(a["accuracy"]) - number(b["accuracy"]), 9) for a, b in pairs]
        if len(set(values)) > 1:
            return Estimate(*student_interval(values), n, len(pairs), True)
        (p, low_p, high_p), (q, low_q, high_q) = ([number(row[name]) for name in ("accuracy", "low", "high")] for row in pairs[0])
        return Estimate(
            p - q, p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q), n, len(pairs), False
        )

    def radius_text(self, radius: int) -> str:
        """The bare number, as people write it."""
        return self.radius_texts[radius].split(" = ")[-1]

    def models(self) -> list[str]:
        """The models of the story that were measured, in reading order; those of controls and of transfer are told elsewhere."""
        return in_order(MODELS, (str(row["model"]) for row in self.rows if row["model"] not in self.further))

    def crossed(self) -> list[str]:
        """The models that were tried on other sets than the test images."""
        return in_order(MODELS, (str(row["model"]) for row in self.rows if row["set"] not in ("test", "test-next")))

    def sets(self) -> list[str]:
        return in_order(SETS, (str(row["set"]) for row in self.rows if not row["epsilon"] and row["set"] != "test-next"))


def accuracy_results(run: RunFolder) -> AccuracyResults:
    """The accuracies of a run, finished or not."""
    facts = FACTS | run.metadata
    epsilon, norm = float(facts["epsilon"]), NORMS.get(facts["norm"], (facts["norm"], facts["norm"]))
    full = str(facts["epsilon_text"]) or f"{epsilon:g}"
    top, _, bottom = full.partition("/")
    half = f"{float(top) / 2:g}/{bottom}" if bottom else f"{epsilon / 2:g}"
    classes = facts["data"].get("classes")
    # whoever always says the test set's commonest class reads that share of it
    chance = max(1 / len(classes), facts["data"].get("commonest", 0.0)) if classes else math.nan
    texts = ("0", f"ε/2 = {half}", f"ε = {full}")
    rows = run.table("accuracy")
    further = {str(row["model"]) for row in rows} - {*MODELS} if facts["full"] else set()
    return AccuracyResults(rows, (0.0, epsilon / 2, epsilon), texts, norm, chance, frozenset(further))


# ---- in words ------------------------------------------------------------------------------------------------------------


def accuracy_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: each model, and what it reads of the test images unchanged, at epsilon / 2 and at epsilon."""
    measured = accuracy_results(run)
    columns = ["model", "unchanged", *measured.radius_texts[1:], "trained on"]
    rows = []
    for model in measured.models():
        figures = [measured.accuracy(model, radius=radius) for radius in range(3)]
        cells = [f"{figure.percent} [{figure.interval}]" if figure else "" for figure in figures]
        rows.append([model, *cells, about(MODELS, model)])
    return columns, rows


def percent(share: float) -> str:
    """0.9731 -> "97.3 %"."""
    return f"{100 * share:.1f} %"


def in_order(known: Iterable[str], found: Iterable[str]) -> list[str]:
    """The names found, each once: those that are known in their order, then the others."""
    names = dict.fromkeys(found)
    return [name for name in known if name in names] + [name for name in names if name not in set(known)]


def about(texts: dict[str, str], name: str) -> str:
    return texts.get(name, "")


def number(cell: Cell) -> float:
    return math.nan if cell == "" else float(cell)
