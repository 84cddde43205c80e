"""What a full study weighs its claims by: controls, other learners, other starts. Aggregates over seeds; needs no torch."""

from typing import NamedTuple

from notbugs.report.results import AccuracyResults, Estimate, Rows, number
from notbugs.runs.folder import Cell, RunFolder
from notbugs.stats import correlation, correlation_interval, student_interval

FAMILIES = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet", "inception": "Inception", "mixer": "MLP mixer"}
LEARNERS = {
    "logistic-regression": "logistic regression",
    "linear-svm": "linear SVM",
    "rbf-svm": "RBF SVM",
    "random-forest": "random forest",
    "boosting": "boosted trees",
    "nearest-neighbours": "5 nearest neighbours",
}
SOURCES = {
    "standard": "0",
    "adversarial-sixteenth": "ε/16",
    "adversarial-eighth": "ε/8",
    "adversarial-quarter": "ε/4",
    "adversarial-half": "ε/2",
    "adversarial": "ε",
}
TARGETS = {
    "standard": "the standard model itself",
    "same-start": "the same network, trained anew from the same initial weights",
    "fresh-1": "the same network from other initial weights",
    "fresh-2": "another",
    "fresh-3": "another",
    "fresh-4": "another",
    **FAMILIES,
    "adversarial": "the adversarially trained model",
    **LEARNERS,
}
CONTROLS = {
    "on-random-labels-noise": "random changes of the same size",
    "on-next-labels-noise": "random changes of the same size",
    "on-random-labels-patterns": "one random pattern a label, of the same size",
    "on-next-labels-patterns": "one random pattern a label, of the same size",
    "on-random-labels-any-patterns": "the same, right labels left on unchanged images",
    "on-random-labels-robust": "made with the robust model",
    "on-next-labels-robust": "made with the robust model",
    "on-next-labels-bugs": "other models still read the old label",
    "on-errors-only": "only the mistakes of a weak model, no attack",
    "on-photographs": "two photographs in pieces, labelled by the standard model",
    "probe of robust-linear": "a linear classifier on robust linear features",
    "probe of adversarial": "a linear classifier on the robust model's robust features",
}

SHORT = {  # the same for narrow tables, by the end of their names
    "noise": "random changes",
    "any-patterns": "patterns and right labels",
    "patterns": "a pattern a label",
    "robust": "a robust model's set",
    "bugs": "bugs of one model",
    "errors-only": "a weak model's errors",
    "photographs": "photographs",
    "robust-linear": "probe of linear features",
    "adversarial": "probe of robust features",
}


class Excess(NamedTuple):
    """A relabelled result over one of its controls: both accuracies, the excess, and what the control would have refuted."""

    result: str
    control: str
    refutes: str
    accuracy: float
    control_accuracy: float
    excess: Estimate
    over_guessing: Estimate


class AccuracyTransferCorrelation(NamedTuple):
    """Does transfer follow what a network learns from next-labels? points: (family, accuracy, rate); correlation: Pearson's.

    others: the same without the first point, the source's own kind of network.
    """

    points: list[tuple[str, float, float]]
    correlation: Estimate
    others: Estimate


class ControlResults(NamedTuple):
    """The tables of a full study that hold more than accuracies, to be asked; all empty in a quick one."""

    controls: Rows
    transfer: Rows
    agreement: Rows
    poison: Rows
    leakage: Rows
    training: Rows

    def excesses(self) -> list[Excess]:
        """tables/controls.csv, one entry a result and control, in the order of the table."""
        found: dict[tuple[Cell, Cell], Rows] = {}
        for row in self.controls:
            found.setdefault((row["result"], row["control"]), []).append(row)
        entries = []
        for (result, control), rows in found.items():
            excess = seed_mean(rows, "excess", "excess_low", "excess_high")
            over = seed_mean(rows, "over_guessing", "over_guessing_low", "over_guessing_high")
            assert excess is not None
            assert over is not None
            means = [sum(number(row[name]) for row in rows) / len(rows) for name in ("accuracy", "control_accuracy")]
            entries.append(Excess(str(result), str(control), str(rows[0]["refutes"]), means[0], means[1], excess, over))
        return entries

    def hits(self, source: str, target: str, change: str = "untargeted", column: str = "rate") -> Estimate | None:
        """How often examples of one model hit another; column: rate, or unfooled, same, other as shares of n."""
        rows = [row for row in self.transfer if (row["source"], row["target"], row["change"]) == (source, target, change)]
        if column == "rate":
            return seed_mean(rows, "rate", "low", "high", share=True)
        return seed_mean(
            [{**row, column: number(row[column]) / number(row["n"])} for row in rows if number(row["n"])], column, share=True
        )

    def own_rate(self, source: str, change: str) -> Estimate | None:
        """How often the examples hit the model they were made on, of the images that some other model reads too."""
        rows = [row for row in self.transfer if (row["source"], row["change"]) == (source, change)]
        target = rows[0]["target"] if rows else ""
        return seed_mean([row for row in rows if row["target"] == target], "source_rate", share=True)

    def follows(self, measured: AccuracyResults, change: str = "untargeted") -> AccuracyTransferCorrelation | None:
        """Figure 3 of Ilyas et al. 2019: accuracy after next-labels against the rate of transfer, network by network.

        Means over seeds; the interval is Fisher's, over the networks: the same few networks once more are no further ones.
        """
        names = {"fresh-1": "on-next-labels", **{name: f"{name}-on-next-labels" for name in FAMILIES}}
        points = []
        for name, model in names.items():
            learnt, rate = measured.accuracy(model), self.hits("standard", name, change)
            if learnt is None or rate is None:
                return None
            points.append((name, learnt.mean, rate.mean))
        found = [correlation([x for _, x, _ in some], [y for _, _, y in some]) for some in (points, points[1:])]
        seeds = len(measured.by_seed("on-next-labels"))
        figures = [
            Estimate(r, *correlation_interval(r, len(some)), len(some), seeds, False)
            for r, some in zip(found, (points, points[1:]), strict=True)
        ]
        return AccuracyTransferCorrelation(points, figures[0], figures[1])

    def alike(self, one: str, other: str) -> dict[str, Estimate | None]:
        """Two models' agreement: agree, same, same_by_chance, consistency, both_wrong, as means over seeds."""
        rows = [row for row in self.agreement if {row["model"], row["other"]} == {one, other}]
        found = {name: seed_mean(rows, name) for name in ("agree", "same_by_chance", "consistency", "both_wrong")}
        return found | {"same": seed_mean(rows, "same", "same_low", "same_high", share=True)}


def control_results(run: RunFolder) -> ControlResults:
    """Those tables of a run, finished or not."""
    return ControlResults(*(run.table(name) for name in ControlResults._fields))


def seed_mean(rows: Rows, value: str, low: str = "", high: str = "", *, share: bool = False) -> Estimate | None:
    """The mean over seeds of a column, with Student's interval; of one seed, or seeds that agree, the row's own columns.

    share: the interval stays within [0, 1].
    """
    told = [row for row in rows if row.get(value, "") != ""]
    if not told:
        return None
    values = [round(number(row[value]), 9) for row in told]  # or rounding would be taken for a difference
    n = int(number(told[0].get("n", "") or 0))
    if len(set(values)) > 1:
        mean, *span = student_interval(values)
        span = [min(max(end, 0.0), 1.0) for end in span] if share else span
        return Estimate(mean, span[0], span[1], n, len(values), True)
    ends = [number(told[0].get(name, "")) for name in (low, high)]
    return Estimate(values[0], ends[0], ends[1], n, len(values), False)
