"""Figures as Markdown, for docs/results.md: of a run (what was asked, what was measured, how long it took), or of a benchmark.

python benchmarks/table.py runs/demo
python benchmarks/table.py runs/demo further    # what it was asked afterwards: explanations, corruptions, kernel, people
python benchmarks/table.py benchmarks/results/attacks.json
python benchmarks/table.py benchmarks/results/files-digits.json
python benchmarks/table.py benchmarks/results/cifar10-cpu.json
python benchmarks/table.py benchmarks/results/cifar10-cpu.json "figure 3" seconds    # of these, some parts alone
python benchmarks/table.py benchmarks/results/peer-cpu.json
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from notbugs.report import results
from notbugs.report.findings import analyses, controls, main
from notbugs.report.pages import controls
from notbugs.runs.folder import RunFolder


def main(folder: str) -> None:
    run = RunFolder.read(folder)
    facts, data = run.metadata, run.metadata["data"]
    print(f"`{facts['command']}`: {data['train']:,} training and {data['test']:,} test images,")
    print(f"{facts['norm']} {facts['epsilon_text']}, ", end="")
    print(f"seeds {', '.join(map(str, facts['seeds']))}; {facts['seconds'] / 60:.1f} min on {facts['machine']}, ", end="")
    print(f"torch {facts['versions']['torch']}, {facts['device']}.")
    if not facts["finished"]:
        print("**Not finished**: what follows is what its finished stages measured.")
    columns, rows = results.accuracy_table(run)
    print()
    print("| " + " | ".join(columns[:-1]) + " |")
    print("|---" * (len(columns) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row[:-1]) + " |")
    print("\n| set | made from | reached | mean L2 | feature error |\n|---|---|---|---|---|")
    sets = run.table("sets")
    for name in dict.fromkeys(row["set"] for row in sets):
        mine = [row for row in sets if row["set"] == name]

        def mean(column: str, mine: list[dict[str, str | int | float]] = mine) -> str:
            values = [float(row[column]) for row in mine if row[column] != ""]
            return f"{sum(values) / len(values):.3f}" if values else ""

        print(f"| {name} | {mine[0]['made_from']} | {mean('reached')} | {mean('mean_l2')} | {mean('feature_error')} |")
    print()
    for sentence in main.headline(run):
        print(f"- {sentence}")
    if facts.get("full"):
        of_evidence(run)


def of_evidence(run: RunFolder) -> None:
    """What only a full run holds: controls, next labels by either label, the audit of the sets, transfer."""
    shown, _ = controls.content(run, results.accuracy_results(run))
    table("trained on", "control", "reads", "excess in points", rows=controls.controls_table(run))
    table(
        *("next labels", "says the true class", "says the next"),
        rows=[(line["about"], told(line["true"]), told(line["next"])) for line in shown["next"]],
    )
    probes, ends = ("robust-linear", "adversarial"), ("peak", "last")
    figures = ("reached", "separable", *probes, "others_read_it", "others_keep")
    table(
        *(
            "set",
            "reached",
            "separable by the change",
            "linear probe",
            "deep probe",
            "others read the new",
            "keep the old",
            *ends,
        ),
        rows=[
            (
                line["set"],
                *(told(line[name]) for name in figures),
                *(results.percent(line[end]) if line[end] else "" for end in ends),
            )
            for line in shown["audited"]
        ],
    )
    columns = ("clean", "random", "untargeted", "same", "other", "targeted")
    table(
        *("shown to", "reads unchanged", "misreads random changes", "misreads the examples", "same mistake", "other", "targeted"),
        rows=[(line["target"], *(told(line[column]) for column in columns)) for line in shown["hit"]],
    )
    networks = list(next(iter(shown["matrix"].values()), {}))
    table("made on", *networks, rows=[(name, *(told(row[one], 0) for one in networks)) for name, row in shown["matrix"].items()])
    names = list(shown["alike"])
    alike = [(one, *(_kappa(shown["alike"][one].get(other)) for other in names)) for one in names]
    table("consistency of mistakes", *names, rows=alike)


def of_further(run: RunFolder) -> None:
    """What a run was asked afterwards."""
    tables = (
        analyses.saliency_table,
        analyses.corruptions_table,
        analyses.fourier_table,
        analyses.ntk_table,
        analyses.review_table,
    )
    for columns, rows in (made(run) for made in tables):
        if rows:
            table(*columns, rows=rows)
    print()
    for finding in analyses.findings(run):
        print(f"- {finding.question} **{finding.verdict}**. {finding.text}")


def table(*columns: str, rows: Iterable[Sequence[str]]) -> None:
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def told(found: results.Estimate | None, interval: int = 1) -> str:
    if not found:
        return ""
    return f"{found.percent} [{found.interval}]" if interval and found.low == found.low else found.percent


def _kappa(pair: dict[str, results.Estimate | None] | None) -> str:
    return f"{pair['consistency'].mean:.2f}" if pair and pair["consistency"] else ""


# ---- attacks.py: columns of each part, and which figures stand in them -----------------------------------------------------

PARTS = {
    "strength": ("clean", "left", "cpu_seconds", "cpu_times_ours"),
    "masked": ("clean", "left", "cpu_seconds", "cpu_times_ours"),
    "speed": ("images_a_second", "cpu_times_ours", "cross_entropy", "left"),
    "radius": ("median", "mean", "ours_smaller", "ours_larger", "gradients"),
    "pixel": ("tries", "fooled", "queries", "gradients"),
    "memory": ("mib", "above one pass"),
}


def beside_others(path: Path) -> None:
    """One table a part: a line a tool."""
    found = json.loads(path.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['threads']} thread; {versions}.")
    for part, columns in PARTS.items():
        rows = [row for row in found["rows"] if row["part"] == part and row["tool"] != "notbugs again"]
        if not rows:
            continue
        known = found["measured"][part]  # of its last call
        print(f"\n### {part} ({known['date'][:10]}, commit {known['commit']}, {known['machine']})\n")
        shown = [name for name in columns if any(name in row for row in rows)]
        print("| model | within | images | tool | " + " | ".join(name.replace("_", " ") for name in shown) + " |")
        print("|---" * (4 + len(shown)) + "|")
        for row in rows:
            within = f"{row['norm']} {row['radius']:.3g}" if "radius" in row else row["norm"]
            cells = [row["model"], within, row["n"], row["tool"], *(figure(row.get(name, "")) for name in shown)]
            print("| " + " | ".join(map(str, cells)) + " |")


# ---- files.py ------------------------------------------------------------------------------------------------------------------


def of_files(path: Path) -> None:
    """Halves by score, with intervals over the trainings; then what else was measured."""
    found = json.loads(path.read_text())
    rows, versions = found["rows"], ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['date'][:10]}, commit {found['commit']}, {found['machine']}; {versions}.")
    halves = [row for row in rows if row["part"] == "halves"]
    if halves:
        columns = ("score", "half", "unchanged", "at half of the radius", "at the radius", "separation", "of those read")
        print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    ours: list[list[float]] = []
    less: list[str] = []
    names = dict.fromkeys("random" if row["score"].startswith("random") else row["score"] for row in halves)
    for name in names:
        same = [row for row in halves if row["score"].startswith("random" if name == "random" else name)]
        sides = {which: [row for row in same if row["half"] == which] for which in dict.fromkeys(row["half"] for row in same)}
        apart = of_read = ""
        if len(sides) == 2 and len({len(side) for side in sides.values()}) == 1:
            ends = [[(row["half_radius"] + row["radius"]) / 2 for row in side] for side in sides.values()]
            apart = spread([one - other for one, other in zip(*ends, strict=True)])
            shares = [[(row["half_radius"] + row["radius"]) / 2 / row["clean"] for row in side] for side in sides.values()]
            of_read = spread([one - other for one, other in zip(*shares, strict=True)])
            mine = [[one - other for one, other in zip(*pair, strict=True)] for pair in (ends, shares)]
            ours = mine if name == "robustness" else ours
            if name != "robustness" and ours and len(ours[0]) == len(mine[0]):
                gaps = [spread([a - b for a, b in zip(*pair, strict=True)]) for pair in zip(ours, mine, strict=True)]
                less.append(f"- {name}: {gaps[0]}; of those read: {gaps[1]}")
        for which, side in sides.items():
            cells = [spread([row[key] for row in side]) for key in ("clean", "half_radius", "radius")]
            label = which or f"{len({row['score'] for row in side})} of them, {len(side)} trainings"
            print(f"| {name} | {label} | " + " | ".join(cells) + (f" | {apart} | {of_read} |" if which != "lower" else " | | |"))
    if less:
        print("\nseparation by robustness less that by other scores, training by training:\n")
        print("\n".join(less))
    for part in ("stability", "mislabelled", "truth", "cost", "features"):
        mine = [row for row in rows if row["part"] == part]
        if mine:
            print(f"\n{part}:\n")
        for row in mine:
            told = {key: value for key, value in row.items() if key not in ("part", "data", "date")}
            print("- " + ", ".join(f"{key.replace('_', ' ')} {figure(value)}" for key, value in told.items()))


# ---- cifar10.py --------------------------------------------------------------------------------------------------------------


def of_cifar10(path: Path, only: Sequence[str] = ()) -> None:
    """The paper's table, AutoAttack, storage, the floor, other ways to D_R."""
    found = json.loads(path.read_text())
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        if not only or row["part"] in (*only, "whole"):
            parts.setdefault(row["part"], []).append(row)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['date'][:10]}, commit {found['commit']}, {found['machine']}; {versions}.")
    for row in parts.get("whole", []):
        print(
            f"{row['training_images']:,} training images, network {row['recipe']['network']}, width {row['recipe']['width']}, "
            f"{row['recipe']['epochs']} epochs, {row['seeds']} seed(s); {row['seconds'] / 60:.1f} minutes of stages."
        )
    if study := parts.get("study"):
        lines: dict[str, dict[str, dict[str, Any]]] = {}
        for row in study:
            lines.setdefault(row["name"], {})[row["change"]] = row
        heads = [f"{change}{who}" for change in ("unchanged", "L2 0.25", "L2 0.5") for who in (": paper", ", here")]
        rows = []
        for name, own in lines.items():
            cells = [name]
            for change in ("unchanged", "half", "full"):
                row = own.get(change, {})
                cells += [f"{100 * row['paper']:.4g}" if row.get("paper", "") != "" else ""]
                cells += [f"{100 * row['here']:.1f} [{100 * row['low']:.1f} to {100 * row['high']:.1f}]" if row else ""]
            rows.append(cells)
        table("trained on", *heads, rows=rows)
    if shown := parts.get("figure 3"):
        table(*(name for name in shown[0] if name not in ("part", "date")), rows=[list(row.values())[1:-1] for row in shown])
    if attacked := parts.get("autoattack"):
        sums: dict[tuple[str, float], list[float]] = {}
        for row in attacked:
            told = sums.setdefault((row["model"], row["radius"]), [0.0] * 5)
            for place, name in enumerate(("n", "ours", "autoattack", "seconds", "autoattack_seconds")):
                told[place] += row[name]
        heads = [
            "model",
            "radius",
            "images",
            "the ensemble leaves",
            "AutoAttack leaves",
            "seconds",
            "AutoAttack's, times as many",
        ]
        table(
            *heads,
            rows=[
                [name, f"{radius:g}", *(f"{value:.0f}" for value in told[:4]), f"{told[4] / told[3]:.0f}"]
                for (name, radius), told in sums.items()
            ],
        )
    if kept := parts.get("storage"):
        table(
            *("random labels, changes kept in", "seeds", "read of the test images", "mean L2"),
            rows=[
                [name, str(len(own)), spread([row["accuracy"] for row in own]), f"{np.mean([row['mean_l2'] for row in own]):.4f}"]
                for name in ("8 bits", "float16")
                if (own := [row for row in kept if row["kept"] == name])
            ],
        )
        exact, rounded = ({row["seed"]: row["accuracy"] for row in kept if row["kept"] == name} for name in ("float16", "8 bits"))
        both = sorted(exact.keys() & rounded.keys())
        if both:
            print(f"\nfloat16 less 8 bits, seed by seed: {spread([exact[seed] - rounded[seed] for seed in both])}")
    if works := parts.get("floor"):
        heads = ["work", "passes a second", "of the floor", "Gflop/s", "of a matrix product"]
        columns = ("passes_a_second", "of_floor", "gflops", "of_matmul")
        table(*heads, rows=[[row["work"], *(figure(row.get(name, "")) for name in columns)] for row in works])
    if ways := parts.get("versions"):
        heads = ["D_R made", "files", "seeds", "unchanged", "at half of the radius", "at the radius", "feature error", "seconds"]
        rows = []
        for name in dict.fromkeys((row["way"], row["files"]) for row in ways):
            own = [row for row in ways if (row["way"], row["files"]) == name]
            shares = [spread([row[column] for row in own]) for column in ("clean", "half_radius", "radius")]
            means = [figure(float(np.mean([row[column] for row in own]))) for column in ("feature_error", "seconds")]
            rows.append([name[0], str(name[1]), str(len(own)), *shares, *means])
        table(*heads, rows=rows)
        pairs = []
        for name, files in dict.fromkeys((row["way"], row["files"]) for row in ways):
            own, usual = (
                {row["seed"]: row for row in ways if (row["way"], row["files"]) == (one, files)}
                for one in (name, "as in the study")
            )
            both = sorted(own.keys() & usual.keys())
            if name != "as in the study" and len(both) > 1:
                gaps = [spread([own[seed][x] - usual[seed][x] for seed in both]) for x in ("clean", "half_radius", "radius")]
                pairs.append([name, str(files), str(len(both)), *gaps])
        if pairs:
            print("\nLess what the study's way gives, seed by seed:")
            table(*heads[:6], rows=pairs)
    if spent := parts.get("seconds"):
        table(
            *("stage", "seconds", "share of all"),
            rows=[[row["stage"], f"{row['seconds']:.0f}", f"{100 * row['share']:.1f} %"] for row in spent[:15]],
        )


def of_peer(path: Path) -> None:
    """The paper's own library beside this one."""
    found = json.loads(path.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['date'][:10]}, commit {found['commit']}, {found['machine']}; {versions}.")
    rows, names = found["rows"], ("reached", "reached_inside", "max_l2", "feature_error")
    table(
        *("work", "tool", "way", "steps", "images", "images a second", *(name.replace("_", " ") for name in names)),
        rows=[
            [row["part"], row["tool"], row["way"], str(row["steps"]), str(row["n"]), figure(row["images_a_second"])]
            + [figure(row.get(name, "")) for name in names]
            for row in rows
            if "tool" in row
        ],
    )
    table(
        *("work", "compared", "ours", "theirs", "times as many images a second", "of processor time", "a step"),
        rows=[
            [row["part"], row["compared"], row["ours"], row["theirs"]]
            + [figure(row.get(name, "")) for name in ("times", "cpu_times", "times_a_step")]
            for row in rows
            if "compared" in row
        ],
    )


def spread(values: Sequence[float]) -> str:
    """Mean and 95 % interval, in percent."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    mean, half = np.mean(values), t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f} to {100 * (mean + half):.1f}]"


def figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2:] == ["further"]:
        of_further(RunFolder.read(place))
    elif place.suffix != ".json":
        main(str(place))
    elif place.name.startswith("cifar10"):
        of_cifar10(place, sys.argv[2:])
    elif place.name.startswith("peer"):
        of_peer(place)
    elif place.name.startswith("files"):
        of_files(place)
    else:
        beside_others(place)
