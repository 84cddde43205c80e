"""A run's figures as Markdown, for docs/results.md: what was asked, what was measured, how long it took.

python benchmarks/table.py runs/demo
"""

import sys

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


if __name__ == "__main__":
    main(sys.argv[1])
