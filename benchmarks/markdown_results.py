"""Tables of results files for markdown_tables.py: which part has which, and those of attacks, reference library, inversion."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from harness import Row
from markdown_files import DATASET_TITLES, FILES_TABLES
from markdown_format import figure, table
from markdown_studies import STUDY_TABLES

Rows = Sequence[Row]
Blocks = Callable[[Rows], Iterator[str]]
Column = tuple[str, Callable[[Row], object]]  # header and cell

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}
MODEL_TITLES = {
    "linf": "adversarial, Linf 8/255",
    "l2": "adversarial, L2 0.5",
    "trades": "TRADES, Linf 8/255",
    "linear": "linear, random weights",
}
TRAINING_TITLES = {"adversarial": "adversarially trained"}
REPEATED = "notbugs, repeated"  # a check of the time, not a row of its own
ENSEMBLE = "ensemble-standard v1"  # of rows that do not say which
NOTBUGS_CALLS = ("invert_features", "relabel", "fit", "train_model")  # in code type


def results_blocks(contents: Sequence[Row], parts: Sequence[str]) -> list[str]:
    """Blocks of Markdown: where the figures were measured, then the tables of each part that is there.

    Parameters
    ----------
    contents : sequence of dict
        Results files; rows of the same part share their tables.
    parts : sequence of str
        Only these; empty: all.
    """
    blocks = [_measured_on(content) for content in contents]
    by_part: dict[str, list[Row]] = {}
    for row in (row for content in contents for row in content["rows"]):
        if not parts or row["part"] in parts:
            by_part.setdefault(row["part"], []).append(row)
    for part, tables in TABLES.items():
        if part in by_part:
            blocks.append(f"### {part}")
            blocks += [_section(content["parts"][part]) for content in contents if part in content.get("parts", {})]
            blocks += tables(by_part[part])
    return blocks


def _measured_on(content: Row) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"{_date(content)}commit {content['commit']}, {content['machine']}; {versions}."


def _section(record: Row) -> str:
    return f"{_date(record)}commit {record['commit']}, {record['machine']}."


def _date(record: Row) -> str:
    return f"{record['date'][:10]}, " if record["date"] else ""


# ---- attacks.py ------------------------------------------------------------------------------------------------------------


def _model(row: Row) -> str:
    return MODEL_TITLES.get(row["model"], str(row["model"]))


def _threat_model(row: Row) -> str:
    return f"{NORMS[row['norm']]} {row['epsilon']:.3g}"


def _tool(name: str) -> Callable[[Row], str]:
    """The tool of a row, and how docs/attacks.md calls the attack of notbugs."""

    def cell(row: Row) -> str:
        own = f"`{row['attack']}`" if "attack" in row else name
        known = {"notbugs": own, "notbugs, without gradients": f"{own} without gradients"}
        return known.get(row["tool"], str(row["tool"]))

    return cell


def _value(column: str) -> Callable[[Row], object]:
    return lambda row: row.get(column)


COMMON: tuple[Column, ...] = (("model", _model), ("threat model, ε", _threat_model), ("n", _value("n")))
CPU_RATIO: Column = ("CPU time relative to notbugs", _value("cpu_time_ratio"))
CORRECT: tuple[Column, ...] = (
    ("attack", _tool(f"`{ENSEMBLE}`")),
    ("correct, clean", _value("clean_correct")),
    ("correct under attack", _value("correct")),
    ("CPU seconds", _value("cpu_seconds")),
    CPU_RATIO,
)
ATTACK_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "strength": (*COMMON, *CORRECT),
    "gradient-masking": (*COMMON, *CORRECT),
    "speed": (
        *COMMON,
        ("PGD-20 by", _tool("notbugs")),
        ("images per second", _value("images_per_second")),
        CPU_RATIO,
        ("cross-entropy reached", _value("cross_entropy")),
        ("correct under attack", _value("correct")),
    ),
    "minimum-norm": (
        ("model", _model),
        ("norm", lambda row: NORMS[row["norm"]]),
        ("n", _value("n")),
        ("attack", _tool("notbugs `minimum_norm`")),
        ("median", _value("median")),
        ("mean", _value("mean")),
        ("share where notbugs is smaller", _value("notbugs_smaller")),
        ("share where notbugs is larger", _value("notbugs_larger")),
        ("gradients per image", _value("gradients_per_image")),
    ),
    "one-pixel": (
        *COMMON,
        ("attack", _tool("notbugs `few_pixels`")),
        ("candidates", _value("candidates")),
        ("misclassified", _value("misclassified")),
        ("queries per image", _value("queries_per_image")),
        ("gradients per image", _value("gradients_per_image")),
    ),
    "memory": (
        *COMMON,
        ("work", lambda row: row["work"].replace(ENSEMBLE, f"`{ENSEMBLE}`")),
        ("peak memory, MiB", _value("peak_mib")),
        ("above one pass, MiB", _value("above_one_pass_mib")),
    ),
}


def _attack_table(columns: Sequence[Column]) -> Blocks:
    def blocks(rows: Rows) -> Iterator[str]:
        shown = [row for row in rows if row["tool"] != REPEATED]
        yield table([name for name, _ in columns], ([figure(cell(row)) for _, cell in columns] for row in shown))

    return blocks


# ---- reference_library.py ----------------------------------------------------------------------------------------------------

TASKS = {"robust-version": "D_R", "relabeling": "relabeling", "adversarial-training": "adversarial training"}


def _reference(rows: Rows) -> Iterator[str]:
    """What was measured, then the ratios."""
    values = ("target_reached", "target_reached_within_epsilon", "max_l2", "feature_error")
    headers = ("target reached", "target reached within ε", "max L2", "feature error")
    lines = [
        [
            *(TASKS[row["part"]], row["tool"], _method(row["method"])),
            *(figure(row.get(name)) for name in ("steps", "n", "images_per_second", *values)),
        ]
        for row in rows
        if "tool" in row
    ]
    yield table(("task", "tool", "method", "steps", "n", "images per second", *headers), lines)
    ratios = ("images_per_second_ratio", "cpu_time_ratio", "time_per_step_ratio")
    ratio_headers = ("images per second, ratio", "CPU time, ratio", "time per step, ratio")
    lines = [
        [
            *(TASKS[row["part"]], row["comparison"], _method(row["notbugs"]), _method(row["robustness"])),
            *(figure(row.get(name)) for name in ratios),
        ]
        for row in rows
        if "comparison" in row
    ]
    yield table(("task", "comparison", "notbugs", "`robustness`", *ratio_headers), lines)


def _method(text: str) -> str:
    """The method, in code type if it is a function."""
    return " ".join(f"`{word}`" if word in NOTBUGS_CALLS else word for word in text.split(" "))


# ---- peers.py ----------------------------------------------------------------------------------------------------------------

PEER_TASKS = {"pgd": "PGD-20", "apgd": "APGD-CE, 100 steps", "autoattack": "AutoAttack", **TASKS}


def _peers(rows: Rows) -> Iterator[str]:
    """What each tool needs for the same work, and what comes out."""
    headers = ("task", "tool", "method", "steps", "n", "images per second", "time relative to notbugs", "result")
    lines = []
    for row in rows:
        cells = (figure(row.get(name)) for name in ("steps", "n", "images_per_second", "cpu_time_ratio"))
        lines.append([PEER_TASKS[row["work"]], row["tool"], _method(row.get("method", "")), *cells, _peer_result(row)])
    yield table(headers, lines)


def _peer_result(row: Row) -> str:
    """What comes out, in words."""
    if "status" in row:
        return str(row["status"])
    if "correct" in row:
        return f"{row['correct']} of {row['clean_correct']} still correct"
    if "feature_error" in row:
        return f"feature error {figure(row['feature_error'])}"
    if "target_reached_within_epsilon" in row:
        return f"target reached within ε: {row['target_reached_within_epsilon']:.0%}"
    return ""


# ---- inversion.py ------------------------------------------------------------------------------------------------------------


def _inversion(rows: Rows) -> Iterator[str]:
    """The fewest steps of the default rule that reach the error of the paper's last step."""
    most = max(row["steps"] for row in rows if row["rule"] == "paper")
    headers = ("model", f"paper's rule: feature error after {most:,} steps", "notbugs: feature error", "notbugs: steps")
    lines = []
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        last = max((row for row in own if row["rule"] == "paper"), key=lambda row: row["steps"])
        default = sorted((row for row in own if row["rule"] == "default"), key=lambda row: row["steps"])
        reached = next((row for row in default if row["feature_error"] <= last["feature_error"]), None)
        cells = [f"{reached['feature_error']:.4f}", str(reached["steps"])] if reached else ["", f"> {default[-1]['steps']}"]
        name = f"{DATASET_TITLES.get(dataset, dataset)}, {TRAINING_TITLES.get(model, model)}"
        lines.append([name, f"{last['feature_error']:.4f}", *cells])
    yield table(headers, lines)


# ---- estimate.py -------------------------------------------------------------------------------------------------------------


def _estimate(rows: Rows) -> Iterator[str]:
    """Estimated and measured times of studies."""
    headers = ("study", "training images", "test images", "network", "epochs", "estimated, s", "measured, s", "ratio")
    lines = []
    for row in rows:
        settings = row["settings"]
        network = f"{settings['network']}, width {settings['width']}"
        seconds = (f"{row[name]:.0f}" for name in ("predicted_cpu_seconds", "cpu_seconds"))
        cells = [str(row["training_images"]), str(row["images"]), network, str(settings["epochs"]), *seconds]
        lines.append([row["dataset"], *cells, f"{row['predicted_ratio']:.2f}"])
    yield table(headers, lines)


# ---- autoattack.py -----------------------------------------------------------------------------------------------------------


def _beside_autoattack(rows: Rows) -> Iterator[str]:
    """Images that the ensemble and AutoAttack, or Sparse-RS, leave correct, and the CPU time of both."""
    rows = list(rows)
    other = "Sparse-RS" if all(row["autoattack"].startswith("sparse-rs") for row in rows) else "AutoAttack"
    headers = (
        "model", "threat model", "n", "correct: no attack", "attack", other, "correct: ensemble", f"correct: {other}",
        "broken by the ensemble alone", f"by {other} alone", f"CPU time of {other} over that of the ensemble",
    )  # fmt: skip
    lines = []
    for row in rows:
        counts = (row[name] for name in ("correct", "autoattack_correct", "only_ensemble", "only_autoattack"))
        ratio = f"{row['autoattack_seconds'] / row['seconds']:.1f}"
        model = f"{row['dataset']}, {row['model']}"
        lines.append(
            [
                model,
                _threat_model(row),
                *map(str, (row["n"], row["clean_correct"])),
                f"`{row['attack']}`",
                row["autoattack"],
                *map(str, counts),
                ratio,
            ]
        )
    yield table(headers, lines)


# ---- allocator.py ------------------------------------------------------------------------------------------------------------


def _allocator(rows: Rows) -> Iterator[str]:
    """Time of a gradient with the allocator's defaults, over that with freed memory kept."""
    headers = (
        "gradient of",
        "time per image, ms",
        "system",
        "time with the defaults [least, largest of the rounds]",
        "system with the defaults",
    )
    yield table(
        headers,
        [
            [
                row["dataset"],
                f"{1000 * row['seconds_per_step_and_image']:.2f}",
                f"{row['system_share']:.0%}",
                f"{row['time_ratio']:.2f} times [{row['least_time_ratio']:.2f}, {row['largest_time_ratio']:.2f}]",
                f"{row['default_system_share']:.0%}",
            ]
            for row in rows
        ],
    )


# ---- faults.py ---------------------------------------------------------------------------------------------------------------


def _faults(rows: Rows) -> Iterator[str]:
    """How often each fault struck, after how many something was wrong, and how long going on took."""
    times = ("median_seconds_to_go_on", "largest_seconds_to_go_on")
    lines = [[row["fault"], *(figure(row.get(name)) for name in ("tries", "lost", *times))] for row in rows]
    yield table(("fault", "tries", "lost", "seconds to resume, median", "largest"), lines)


# ---- scaling.py --------------------------------------------------------------------------------------------------------------


def _executors(rows: Rows) -> Iterator[str]:
    """Seconds that a stage costs beside its own work."""
    lines = [[row["method"], *(figure(row[name]) for name in ("workers", "stages", "seconds", "cpu_seconds"))] for row in rows]
    yield table(("executor", "workers", "stages", "seconds a stage", "CPU seconds a stage, of the command"), lines)


def _ranks(rows: Rows) -> Iterator[str]:
    """Time of one stage in several processes."""
    alone = {row["method"]: row for row in rows if row["workers"] == 1}
    lines = []
    for row in rows:
        faster = [alone[row["method"]][name] / row[name] for name in ("seconds", "cpu_seconds")]
        lines.append(
            [row["method"], *(figure(row[name]) for name in ("workers", "seconds", "cpu_seconds")), *map(figure, faster)]
        )
    yield table(("stage", "processes", "seconds", "CPU seconds of a process", "times as fast", "by CPU seconds"), lines)


# ---- large_sets.py -----------------------------------------------------------------------------------------------------------


def _large_sets(rows: Rows) -> Iterator[str]:
    """Memory and time of sets larger than memory."""
    names = ("images", "seconds", "cpu_seconds", "cpu_time_ratio", "peak_mib", "anonymous_mib")
    lines = [[row["method"], *(figure(row.get(name)) for name in names)] for row in rows]
    yield table(
        ("", "images", "seconds", "CPU seconds", "times those of the loop", "peak, MiB", "without pages of files, MiB"), lines
    )
    times = ("images", "said_left_seconds", "was_left_seconds")
    told = [[row["method"], *(figure(row[name]) for name in times)] for row in rows if "said_left_seconds" in row]
    if told:
        yield table(("", "images", "said to be left, s", "was left, s"), told)


# ---- data.py -----------------------------------------------------------------------------------------------------------------

READERS = {
    "data.load": "notbugs",
    "ImageFolder": "torchvision `ImageFolder`",
    "restated": "torchvision's rule (restated)",
    "imagefolder": "Hugging Face `imagefolder`",
}


def _reading(rows: Rows) -> Iterator[str]:
    """Time and memory of each tool."""
    headers = (
        "tool",
        "files",
        "seconds",
        "time relative to notbugs [least, largest of the rounds]",
        "CPU time relative to notbugs",
        "peak memory, MiB",
        "of a worker, MiB",
    )
    lines = []
    for row in rows:
        ratio = f"{row['time_ratio']:.2f} [{row['least_time_ratio']:.2f}, {row['largest_time_ratio']:.2f}]"
        memory = [f"{row[name]:.0f}" if row[name] else "" for name in ("peak_mib", "worker_peak_mib")]
        lines.append(
            [READERS[row["method"]], figure(row["n"]), f"{row['seconds']:.1f}", ratio, f"{row['cpu_time_ratio']:.2f}", *memory]
        )
    yield table(headers, lines)


TABLES: dict[str, Blocks] = {
    **{part: _attack_table(columns) for part, columns in ATTACK_COLUMNS.items()},
    **STUDY_TABLES,
    **FILES_TABLES,
    **dict.fromkeys(TASKS, _reference),
    "inversion": _inversion,
    "peers": _peers,
    "estimate": _estimate,
    "allocator": _allocator,
    "faults": _faults,
    "other commands": _faults,
    "clusters": _faults,
    "executors": _executors,
    "ranks": _ranks,
    "large-sets": _large_sets,
    "beside-autoattack": _beside_autoattack,
    "small-files": _reading,
    "photographs": _reading,
}
