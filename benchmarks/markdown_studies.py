"""Tables of cifar10.py, autoattack.py, robust_data.py, wrong_labels.py and transfer_networks.py for markdown_tables.py."""

from collections.abc import Callable, Iterator, Sequence
from math import sqrt

from harness import Row
from markdown_format import figure, interval, spread, table
from transfer_networks import SOURCE_FAMILY

from notbugs.report.format import minus
from notbugs.stats import correlation, correlation_interval

Rows = Sequence[Row]
FEWEST_NETWORKS = 6  # of a correlation
LONGEST_STAGES = 15
PAIR = ("accuracy", "transfer_rate")  # of figure 3
ACCURACIES = ("clean_accuracy", "robust_accuracy_half_epsilon", "robust_accuracy")
ACCURACY_HEADERS = ("clean accuracy", "robust accuracy at ε / 2", "robust accuracy at ε")


def replication_lines(rows: Rows) -> str:
    """The paper's figures and those of a run; rows: columns of `runs.tables.ReplicationRow`."""
    columns = ["trained on"] + [f"{name}: {who}" for name in ("clean", "L2 0.25", "L2 0.5") for who in ("paper", "ours")]
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["perturbation"]] = row
    lines = [
        [name, *(cell for perturbation in ("clean", "half", "full") for cell in _paper_and_ours(own.get(perturbation)))]
        for name, own in by_name.items()
    ]
    return table(columns, lines)


def _paper_and_ours(row: Row | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    paper = "" if row["paper"] is None else f"{100 * row['paper']:.4g}"
    return paper, interval(row["here"], row["ci_low"], row["ci_high"])


def _study(rows: Rows) -> Iterator[str]:
    yield replication_lines(rows)


def _figure_3(rows: Rows) -> Iterator[str]:
    columns = ("network", "accuracy after D_det, %: paper", "ours", "transfer rate, %: paper", "ours")
    names = ("architecture", "accuracy_paper", "accuracy_here", "transfer_rate_paper", "transfer_rate_here")
    yield table(columns, ([row[name] for name in names] for row in rows))


def _total(rows: Rows) -> Iterator[str]:
    for row in rows:
        settings = row["settings"]
        yield (
            f"{row['training_images']:,} training images, network `{settings['network']}`, width {settings['width']}, "
            f"{settings['epochs']} epochs, {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}; "
            f"{row['seconds'] / 60:.1f} minutes of stages."
        )


def _seconds(rows: Rows) -> Iterator[str]:
    lines = [[row["stage"], f"{row['seconds']:,.0f}", f"{100 * row['share']:.1f} %"] for row in rows[:LONGEST_STAGES]]
    yield table(("stage", "seconds", "share of the total"), lines)


def _autoattack(rows: Rows) -> Iterator[str]:
    """Sums over the pieces of each model and epsilon."""
    columns = (
        *("model", "ε (L2)", "n", "correct under the ensemble", "correct under AutoAttack", "ensemble, seconds"),
        "AutoAttack's time relative to the ensemble's",
    )
    sums = ("n", "correct", "autoattack_correct", "seconds", "autoattack_seconds")
    lines = []
    for key in dict.fromkeys((row.get("dataset", ""), row["model"], row["epsilon"]) for row in rows):
        own = [row for row in rows if (row.get("dataset", ""), row["model"], row["epsilon"]) == key]
        totals = [sum(row[name] for row in own) for name in sums]
        name = ", ".join(text for text in key[:2] if text)
        cells = [f"{value:,.0f}" for value in totals[:4]]
        lines.append([name, f"{key[2]:g}", *cells, f"{totals[4] / totals[3]:,.0f}"])
    yield table(columns, lines)


def _storage(rows: Rows) -> Iterator[str]:
    columns = ("perturbations of `random-labels` stored in", "seeds", "clean accuracy, %", "mean L2")
    stored = {name: {row["seed"]: row for row in rows if row["storage"] == name} for name in ("8 bits", "float16")}
    lines = []
    for name, own in stored.items():
        if own:
            accuracy, norms = spread([row["accuracy"] for row in own.values()]), [row["mean_l2"] for row in own.values()]
            lines.append([name, str(len(own)), accuracy, f"{sum(norms) / len(norms):.4f}"])
    yield table(columns, lines)
    rounded, exact = stored.values()
    both = sorted(exact.keys() & rounded.keys())
    if both:
        gains = [exact[seed]["accuracy"] - rounded[seed]["accuracy"] for seed in both]
        yield f"float16 minus 8 bits, seed by seed, in percentage points: {spread(gains)}."


def _floor(rows: Rows) -> Iterator[str]:
    columns = ("work", "image passes per second", "relative to bare passes", "Gflop/s", "relative to a matrix product")
    names = ("passes_per_second", "relative_to_bare", "gflops_per_second", "relative_to_matmul")
    yield table(columns, ([row["work"], *(figure(row.get(name)) for name in names)] for row in rows))


def _versions(rows: Rows) -> Iterator[str]:
    """Every variant, then its difference from the default, seed by seed."""
    keys = [*dict.fromkeys((row["variant"], row["files"]) for row in rows)]
    by_seed = {key: {row["seed"]: row for row in rows if (row["variant"], row["files"]) == key} for key in keys}
    columns = ("D_R", "files", "seeds", *(f"{name}, %" for name in ACCURACY_HEADERS), "feature error", "seconds")
    lines = []
    for (variant, files), own in by_seed.items():
        shares = [spread([row[name] for row in own.values()]) for name in ACCURACIES]
        means = [figure(sum(row[name] for row in own.values()) / len(own)) for name in ("feature_error", "seconds")]
        lines.append([variant, figure(files), str(len(own)), *shares, *means])
    yield table(columns, lines)
    lines = []
    for (variant, files), own in by_seed.items():
        default = by_seed.get(("default", files), {})
        both = sorted(own.keys() & default.keys())
        if variant != "default" and len(both) > 1:
            gains = [spread([own[seed][name] - default[seed][name] for seed in both]) for name in ACCURACIES]
            lines.append([variant, figure(files), str(len(both)), *gains])
    if lines:
        yield "Difference from the default, seed by seed, in percentage points:"
        yield table(("D_R", "files", "seeds", *(f"{name}, pp" for name in ACCURACY_HEADERS)), lines)


def _robust_data(rows: Rows) -> Iterator[str]:
    """Every recipe, most robust first, beside adversarial training on the same images and seeds."""
    by_recipe: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_recipe.setdefault(row["variant"], {})[row["seed"]] = row
    adversarial = by_recipe.get("adversarial training", {})

    def robust(name: str) -> float:
        own = by_recipe[name].values()
        return float(sum(row["robust_accuracy"] for row in own) / len(own))

    columns = (
        "trained on",
        "seeds",
        "n",
        *(f"{name}, %" for name in ACCURACY_HEADERS),
        "relative to adversarial training at ε, %",
    )
    lines = []
    for name in sorted(by_recipe, key=robust, reverse=True):
        own = by_recipe[name]
        both = [seed for seed in own if seed in adversarial]
        kept = [own[seed]["robust_accuracy"] / adversarial[seed]["robust_accuracy"] for seed in both]
        shares = [spread([row[column] for row in own.values()]) for column in ACCURACIES]
        lines.append([name, str(len(own)), f"{next(iter(own.values()))['n']:,}", *shares, spread(kept) if kept else "–"])
    yield table(columns, lines)
    attacked = {name: [row for row in own.values() if row.get("autoattack_n")] for name, own in by_recipe.items()}
    if any(attacked.values()):
        names = ("autoattack_n", "correct", "autoattack_correct")
        sums = [[name, *(f"{sum(row[column] for row in own):,}" for column in names)] for name, own in attacked.items() if own]
        yield "Correct at ε on the same images, all seeds together:"
        yield table(("trained on", "n", "under the ensemble", "under AutoAttack"), sums)


def _wrong_label_evidence(rows: Rows) -> Iterator[str]:
    columns = ("ranked by", "n", "mean rank of the label", "label is the likeliest wrong class")
    yield table(
        columns,
        (
            [
                row["model"],
                f"{row['n']:,}",
                f"{row['mean_rank']:.2f}",
                interval(row["first_share"], row["ci_low"], row["ci_high"]),
            ]
            for row in rows
        ),
    )


def _wrong_label_training(rows: Rows) -> Iterator[str]:
    """Means over seeds, with Student's interval."""
    by_subset: dict[str, list[Row]] = {}
    for row in rows:
        by_subset.setdefault(row["subset"], []).append(row)
    lines = [
        [name, f"{own[0]['n']:,}", str(len(own)), spread([row["accuracy"] for row in own])] for name, own in by_subset.items()
    ]
    yield table(("trained on", "n", "seeds", "test accuracy, %"), lines)


def _transfer_networks(rows: Rows) -> Iterator[str]:
    """Every network of the first seed; correlations over them; the further seeds."""
    seeds = sorted({row["seed"] for row in rows})
    by_seed = {seed: sorted((row for row in rows if row["seed"] == seed), key=_by_family) for seed in seeds}
    lines = [
        [
            *(row["network"], str(row["width"]), interval(row["accuracy"], row["ci_low"], row["ci_high"])),
            *(f"{100 * row[name]:.1f}" for name in ("clean_accuracy", "transfer_rate")),
        ]
        for row in by_seed[seeds[0]]
    ]
    yield table(("family", "width", "accuracy after D_det, %", "clean accuracy, %", "transfer rate, %"), lines)
    lines = []
    for seed, own in by_seed.items():
        if len(own) >= FEWEST_NETWORKS:
            lines += [[str(seed), *cells] for cells in _correlations(own, every=seed == seeds[0])]
    if len(seeds) > 1 and len(means := _means_over_seeds(rows, seeds)) >= FEWEST_NETWORKS:
        lines += [[f"mean of {', '.join(map(str, seeds))}", *cells] for cells in _correlations(means, every=True)]
    yield table(("seed", "correlation of", "points", "Pearson's r [95 % CI]"), lines)
    several = [key for key in map(_by_family, by_seed[seeds[0]]) if sum(_by_family(row) == key for row in rows) > 1]
    accuracies = [{_by_family(row): row for row in by_seed[seed]} for seed in seeds]
    lines = [
        [*map(str, key), *("" if key not in own else f"{100 * own[key][name]:.1f}" for name in PAIR for own in accuracies)]
        for key in several
    ]
    if lines:
        titles = [f"{title}, seed {seed}" for title in ("accuracy after D_det, %", "transfer rate, %") for seed in seeds]
        yield table(("family", "width", *titles), lines)


def _means_over_seeds(rows: Rows, seeds: Sequence[int]) -> Rows:
    """One row for each network that was measured with every seed and has transfer rates."""
    found = []
    for network, width in dict.fromkeys(map(_by_family, rows)):
        own = [row for row in rows if _by_family(row) == (network, width) and row["transfer_rate"] is not None]
        if {row["seed"] for row in own} == {*seeds}:
            values = {name: sum(row[name] for row in own) / len(own) for name in (*PAIR, "clean_accuracy")}
            found.append({"network": network, "width": width, **values})
    return found


def _by_family(row: Row) -> tuple[str, int]:
    return row["network"], row["width"]


def _correlations(rows: Rows, *, every: bool) -> Iterator[list[str]]:
    """What is correlated, over how many points, and the correlation with its CI."""

    def pearson(x: str, y: str, rows: Rows) -> float:
        return correlation([row[x] for row in rows], [row[y] for row in rows])

    def cells(title: str, found: float, points: int, given: int = 0) -> list[str]:
        low, high = correlation_interval(found, points - given)
        return [title, str(points), minus(f"{found:z.2f} [{low:z.2f}, {high:z.2f}]")]

    rows = [row for row in rows if row["transfer_rate"] is not None]  # None: no image that both classify correctly
    title, n = "accuracy after D_det and transfer rate", len(rows)
    yield cells(title, pearson(*PAIR, rows), n)
    if not every:
        return
    others = [row for row in rows if row["network"] != SOURCE_FAMILY]
    yield cells(f"{title}, without {SOURCE_FAMILY}", pearson(*PAIR, others), len(others))
    families = [[row for row in rows if row["network"] == name] for name in dict.fromkeys(row["network"] for row in rows)]
    means = [{name: sum(row[name] for row in own) / len(own) for name in PAIR} for own in families]
    yield cells(f"{title}, means of the families", pearson(*PAIR, means), len(means))
    x, y = (pearson("clean_accuracy", name, rows) for name in PAIR)
    yield cells("clean accuracy and accuracy after D_det", x, n)
    yield cells("clean accuracy and transfer rate", y, n)
    partial = (pearson(*PAIR, rows) - x * y) / sqrt((1 - x**2) * (1 - y**2))
    yield cells(f"{title}, given clean accuracy", partial, n, given=1)


def _either_set(rows: Rows) -> Iterator[str]:
    """Means over seeds, with Student's interval."""
    columns = (
        *("dataset", "start", "trained on", "seeds", "accuracy on D_R, %", "accuracy on D_NR, %"),
        *("on the other set: predicted as the start's class, %", *(f"{name}, %" for name in ACCURACY_HEADERS)),
    )
    lines = []
    for key in dict.fromkeys((row["dataset"], row["start"], row["model"]) for row in rows):
        own = {name: [row for row in rows if (row["dataset"], row["start"], row["model"], row["set"]) == (*key, name)]
               for name in ("D_R", "D_NR", "test")}  # fmt: skip
        other = "D_NR" if key[2] == "D_R" else "D_R"
        of_start = [row["start_class_share"] for row in own[other] if "start_class_share" in row]
        on_sets = [spread([row["accuracy"] for row in own[name]]) for name in ("D_R", "D_NR")]
        on_test = [spread([row[name] for row in own["test"]]) for name in ACCURACIES]
        lines.append([*key, str(len(own["test"])), *on_sets, spread(of_start) if of_start else "–", *on_test])
    yield table(columns, lines)


STUDY_TABLES: dict[str, Callable[[Rows], Iterator[str]]] = {
    "total": _total,
    "study": _study,
    "figure-3": _figure_3,
    "autoattack": _autoattack,
    "storage": _storage,
    "floor": _floor,
    "versions": _versions,
    "robust-data": _robust_data,
    "seconds": _seconds,
    "wrong-label-evidence": _wrong_label_evidence,
    "wrong-label-training": _wrong_label_training,
    "transfer-networks": _transfer_networks,
    "either-set": _either_set,
}
