"""Figures as Markdown, for docs/results.md: of a run (what was asked, what was measured, how long it took), or of attacks.py.

python benchmarks/table.py runs/demo
python benchmarks/table.py benchmarks/results/attacks.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from notbugs import answer, measured
from notbugs.results import Run


def main(folder: str) -> None:
    run = Run.read(folder)
    facts, data = run.facts, run.facts["data"]
    print(f"`{facts['command']}`: {data['train']:,} training and {data['test']:,} test images,")
    print(f"{facts['norm']} {facts['epsilon_text']}, ", end="")
    print(f"seeds {', '.join(map(str, facts['seeds']))}; {facts['seconds'] / 60:.1f} min on {facts['machine']}, ", end="")
    print(f"torch {facts['versions']['torch']}, {facts['device']}.")
    if not facts["finished"]:
        print("**Not finished**: what follows is what its finished stages measured.")
    columns, rows = measured.accuracy_table(run)
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
    for sentence in answer.headline(run):
        print(f"- {sentence}")


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


def figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    beside_others(Path(sys.argv[1])) if sys.argv[1].endswith(".json") else main(sys.argv[1])
