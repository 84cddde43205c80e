"""Tables of files.py for markdown_tables.py."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from harness import Row
from markdown_format import figure, spread, table

Rows = Sequence[Row]
ACCURACIES = ("clean_accuracy", "robust_accuracy_half_epsilon", "robust_accuracy")
DATASET_TITLES = {
    "cifar8k": "CIFAR-10",
    "cifar10k": "CIFAR-10",
    "mnist5k": "MNIST",
    "animals": "photographs of cats, dogs and pandas",
}
RANDOM, OWN, STEPS = "random", "robustness", "GAIRAT steps"
PUBLISHED = (
    "loss",
    "margin",
    "dataset cartography confidence",
    STEPS,
    "robust margin",
    "forgetting events",
    "cleanlab label quality",
)
OUTCOMES = ("separation", "clean_difference")  # of `regression`
SCORE_TITLES = {OWN: "**robustness** (notbugs)"}
TEST_TITLES = {
    "files whose shape is another class's": "AUC for finding the {n_positive} of {n:,} files whose shape is another class's",
    "background as a spurious cue": "background found as a spurious cue",
    "features of the shape": "features of the shape: robust / non-robust / spurious / kept on D_R",
    "features of the grating": "features of the grating: robust / non-robust / spurious / kept on D_R",
    "features of the background": "features of the background: robust / non-robust / spurious / kept on D_R",
    "cue by the evidence": "accuracy of the cue by the evidence: spurious: background; kept on D_R: shape; else grating",
}


def _title(dataset: str) -> str:
    return DATASET_TITLES.get(dataset, dataset)


def _datasets(rows: Rows) -> list[str]:
    return [*dict.fromkeys(row["dataset"] for row in rows)]


# ---- halves ------------------------------------------------------------------------------------------------------------------


class _Separation(NamedTuple):
    """Robust accuracy of the upper minus the lower half, and the same relative to clean accuracy, training by training."""

    absolute: list[float]
    relative: list[float]

    def minus(self, other: "_Separation") -> list[str]:
        """Both differences, as cells."""
        pairs = ((self.absolute, other.absolute), (self.relative, other.relative))
        return [spread([a - b for a, b in zip(*pair, strict=True)]) for pair in pairs]


def _halves(rows: Rows) -> Iterator[str]:
    for dataset in _datasets(rows):
        yield f"{_title(dataset)}:"
        yield from _halves_of([row for row in rows if row["dataset"] == dataset])


def _halves_of(rows: Rows) -> Iterator[str]:
    """Each half by each score, then the separation by robustness minus that by each other score."""
    columns = ("clean accuracy, %", "robust accuracy at ε / 2, %", "robust accuracy at ε, %", "separation, pp")
    by_score: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        by_score.setdefault(row["score"] if row["half"] else RANDOM, {}).setdefault(row["half"], []).append(row)
    separations = {name: found for name, sides in by_score.items() if (found := _separation(sides))}
    lines = []
    for name, sides in by_score.items():
        for half, own in sides.items():
            cells = [spread([row[column] for row in own]) for column in ACCURACIES]
            first = name in separations and half == "upper"
            ends = [spread(values) for values in separations[name]] if first else ["", ""]
            lines.append([SCORE_TITLES.get(name, name), half or _random_halves(own), *cells, *ends])
    yield table(("score", "half", *columns, "relative separation, pp"), lines)
    if separations.keys() - {OWN, *PUBLISHED}:
        yield from _beside_steps(separations, by_score)
    elif OWN in separations:
        own_separation = separations[OWN]
        lines = [
            [name, *own_separation.minus(other)]
            for name, other in separations.items()
            if name != OWN and len(other.absolute) == len(own_separation.absolute)
        ]
        if lines:
            yield "Separation by robustness minus separation by another score, training by training:"
            yield table(("score", "difference in separation, pp", "difference in relative separation, pp"), lines)


def _beside_steps(separations: dict[str, _Separation], by_score: dict[str, dict[str, list[Row]]]) -> Iterator[str]:
    """Combined scores and halves of equal difficulty: separation beside GAIRAT steps, clean accuracy beside random halves."""
    columns = ["score", "separation minus that by GAIRAT steps, pp", "relative separation minus that by GAIRAT steps, pp"]
    columns += [f"clean accuracy of the {half} half minus random halves, pp" for half in ("upper", "lower")]
    random = _clean_by_seed(by_score.get(RANDOM, {}).get("", []))
    lines = []
    for name, separation in separations.items():
        steps = separations.get(STEPS)
        paired = steps is not None and name != STEPS and len(steps.absolute) == len(separation.absolute)  # else it was stopped
        differences = separation.minus(steps) if steps is not None and paired else ["", ""]
        for half in ("upper", "lower"):
            own = _clean_by_seed(by_score[name][half])
            differences.append(spread([own[seed] - random[seed] for seed in own]) if random.keys() >= own.keys() else "")
        lines.append([name, *differences])
    yield "Training by training, the same seeds:"
    yield table(columns, lines)


def _clean_by_seed(rows: Rows) -> dict[int, float]:
    """Clean accuracy of each seed, the mean over random halves."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["seed"], []).append(row["clean_accuracy"])
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def _random_halves(rows: Rows) -> str:
    count = len({row["score"] for row in rows})
    return f"{count} random {'half' if count == 1 else 'halves'}, {len(rows)} trainings"


def _separation(sides: dict[str, list[Row]]) -> _Separation | None:
    """None unless both halves have the same number of trainings."""
    upper, lower = sides.get("upper", []), sides.get("lower", [])
    if not upper or len(upper) != len(lower):
        return None
    absolute = [_robust(a) - _robust(b) for a, b in zip(upper, lower, strict=True)]
    relative = [_robust(a) / a["clean_accuracy"] - _robust(b) / b["clean_accuracy"] for a, b in zip(upper, lower, strict=True)]
    return _Separation(absolute, relative)


def _robust(row: Row) -> float:
    """Robust accuracy, mean over both epsilons."""
    return float((row["robust_accuracy_half_epsilon"] + row["robust_accuracy"]) / 2)


def _regression(rows: Rows) -> Iterator[str]:
    """The weight of each score in the prediction of each outcome, and how well pairs that are left out are predicted."""
    for dataset in _datasets(rows):
        own = [row for row in rows if row["dataset"] == dataset]
        measured = [row for row in own if "direction" in row]
        known = {
            (row["outcome"], row["score"]): row.get("weight", row.get("correlation_left_out")) for row in own if "outcome" in row
        }
        names = dict.fromkeys(row["score"] for row in own if "weight" in row)
        lines = [[name, *(figure(known.get((outcome, name))) for outcome in OUTCOMES)] for name in names]
        last = ["correlation with pairs left out", *(figure(known.get((each, "subset regression"))) for each in OUTCOMES)]
        yield f"{_title(dataset)}, {len(measured)} pairs of trainings, {measured[0]['n']:,} held-out files:"
        yield table(("score", "weight for separation", "weight for the difference of clean accuracy"), [*lines, last])


# ---- the other parts ---------------------------------------------------------------------------------------------------------


def _stability(rows: Rows) -> Iterator[str]:
    datasets = {row["dataset"]: row["repeats"] for row in rows}
    known = {(row["column"], row["dataset"]): row["spearman"] for row in rows}
    columns = ["column", *(f"{_title(name)}, {repeats} repetitions" for name, repeats in datasets.items())]
    names = dict.fromkeys(row["column"] for row in rows)
    yield table(columns, ([f"`{name}`", *(figure(known.get((name, each))) for each in datasets)] for name in names))


def _label_errors(rows: Rows) -> Iterator[str]:
    scored = [row for row in rows if "score" in row]
    known = {(row["score"], (row["dataset"], row["relabeled_share"])): row["auc"] for row in scored}
    sets = dict.fromkeys((row["dataset"], row["relabeled_share"]) for row in scored)
    columns = ["score", *(f"AUC, {_title(name)}, {100 * share:g} %" for name, share in sets)]
    names = dict.fromkeys(row["score"] for row in scored)
    yield table(columns, ([name, *(figure(known.get((name, each))) for each in sets)] for name in names))
    called = [row for row in rows if "label_rule" in row]
    columns = ["dataset", "rule", "files", "accuracy", "labels changed", "of these found", "other labels called wrong"]
    yield table(columns, ([_title(row["dataset"]), row["label_rule"], *_call_cells(row)] for row in called))
    columns = ["dataset", "labels changed", "estimated share of wrong labels", "random label errors that would be found"]
    own = [row for row in called if row["label_rule"].startswith("notbugs")]
    shares = ("relabeled_share", "estimated_rate", "detectable")
    yield table(columns, ([_title(row["dataset"]), *(_percent(row[share]) for share in shares)] for row in own))


def _call_cells(row: Row) -> list[str]:
    counts = (figure(row[name]) for name in ("n_relabeled", "relabeled_files", "other_files"))
    return [figure(row["n"]), _percent(row["accuracy"]), *counts]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _truth(rows: Rows) -> Iterator[str]:
    seeds = sorted({row["seed"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["test"] for row in rows):
        own = {row["seed"]: row for row in rows if row["test"] == name}
        first = next(iter(own.values()))
        title = TEST_TITLES.get(name, name).format(**first)
        if "robust_features" in first and "kept_on_robust_features" not in first:  # measured before categories had one definition
            title = f"{name}: robust / non-robust / spurious, by usefulness kept on D_R and D_NR"
        lines.append([title, *(_truth_cell(own[seed]) if seed in own else "" for seed in seeds)])
        if "cues" in next(iter(own.values())):
            lines.append(["spurious cues named", *(", ".join(own[seed]["cues"]) for seed in seeds)])
    yield table(("test", *(f"seed {seed}" for seed in seeds)), lines)


def _truth_cell(row: Row) -> str:
    if "auc" in row:
        return figure(row["auc"])
    if "found" in row:
        return "1 (yes)" if row["found"] else "0 (no)"
    if "accuracy" in row:
        return f"{figure(row['accuracy'])} (n {row['n']})"
    names = ("robust_features", "nonrobust_features", "spurious_features", "kept_on_robust_features")
    return " / ".join(str(row[name]) for name in names if name in row)


def _oracle(rows: Rows) -> Iterator[str]:
    """How well each score finds the files with robust evidence, then the halves."""
    found = [row for row in rows if "auc" in row]
    yield table(
        ("score", "AUC for a shape of its class", "files"), ([r["score"], figure(r["auc"]), figure(r["n"])] for r in found)
    )
    yield from _halves_of([row for row in rows if "half" in row])


def _cost(rows: Rows) -> Iterator[str]:
    columns = ("dataset", "files", "CPU seconds", "of these, trainings", "scoring / trainings")
    names = ("files", "cpu_seconds", "training_cpu_seconds", "scoring_over_training")
    yield table(columns, ([_title(row["dataset"]), *(figure(row[name]) for name in names)] for row in rows))


def _features(rows: Rows) -> Iterator[str]:
    columns = ("images", "features", "images attacked", "robust", "non-robust", "useless", "seconds", "CPU seconds")
    counts = ("robust_features", "nonrobust_features", "useless_features")
    names = ("images", "features", "n_attacked", *counts, "seconds", "cpu_seconds")
    yield table(columns, ([figure(row[name]) for name in names] for row in rows))


def _explorer(rows: Rows) -> Iterator[str]:
    columns = ("files", "what", "seconds", "CPU seconds", "MB")
    names = ("seconds", "cpu_seconds", "megabytes")
    yield table(columns, ([figure(row["files"]), row["work"], *(figure(row.get(name)) for name in names)] for row in rows))


FILES_TABLES: dict[str, Callable[[Rows], Iterator[str]]] = {
    "regression": _regression,
    "halves": _halves,
    "stability": _stability,
    "label-errors": _label_errors,
    "truth": _truth,
    "feature-truth": _truth,
    "oracle": _oracle,
    "cost": _cost,
    "features": _features,
    "explorer": _explorer,
}
