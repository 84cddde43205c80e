"""The tables of docs/results as Markdown: of a run folder, or of results files.

    python benchmarks/markdown_tables.py runs/digits
    python benchmarks/markdown_tables.py runs/digits --parts analyses
    python benchmarks/markdown_tables.py benchmarks/results/studies/digits.json
    python benchmarks/markdown_tables.py benchmarks/results/attacks.json
    python benchmarks/markdown_tables.py benchmarks/results/files-digits.json benchmarks/results/files-cifar10.json
    python benchmarks/markdown_tables.py benchmarks/results/cifar10-cpu.json --parts figure-3 seconds

Parts of a run, or of its file by study_results.py: accuracy, findings, datasets, controls, transfer, error-consistency,
replication, analyses. Parts of another results file: the values of `part` in its rows. Without --parts: everything that was
measured.
"""

import argparse
import json
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folders, or results files (.json)")
    found.add_argument("--parts", nargs="+", default=[], help="only these")
    return found


def main() -> None:
    """Print the tables, those of run folders first."""
    options = parser().parse_args()
    from markdown_results import results_blocks
    from markdown_run import run_blocks
    from study_results import unpacked

    folders = [path for path in options.paths if path.suffix != ".json"]
    blocks = [block for folder in folders for block in run_blocks(folder, options.parts)]
    contents = [json.loads(path.read_text()) for path in options.paths if path not in folders]
    for content in (each for each in contents if "run" in each):
        with unpacked(content) as folder:
            blocks += run_blocks(folder, options.parts)
    blocks += results_blocks([each for each in contents if "run" not in each], options.parts)
    print("\n\n".join(blocks))


if __name__ == "__main__":
    main()
