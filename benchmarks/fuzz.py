"""Fuzz every door for minutes: `python benchmarks/fuzz.py --seconds 600 --write` also writes the table in docs/fuzzing.md.

Each door runs in a process of its own, which is started again with the next case if one ends it. The exit code is 1 if a case
did what none may. A case is a door and a number: `python benchmarks/fuzz.py --door tables --case 17` shows what happens to it.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fuzzing.md"
COLUMNS = ("works", "refused", "traceback", "memory or time", "written outside", "executed", "process ended")
FORBIDDEN = COLUMNS[2:]
START, END = "<!-- table -->", "<!-- end of table -->"


def doors() -> Any:
    """tests/fuzz/doors.py."""
    sys.path = [
        str(ROOT / "tests"),
        *(path for path in sys.path if path != str(Path(__file__).parent)),
    ]  # this file is called so, too
    return importlib.import_module("fuzz.doors")


def kind_of(text: str) -> str:
    """The column for what a case did that it must not."""
    for column, signs in (
        ("executed", ("started", "executed")),
        ("written outside", ("written",)),
        ("memory or time", ("took",)),
    ):
        if text.startswith(signs):
            return column
    return "traceback"


def work(name: str, first: int, seconds: float, folder: Path) -> None:
    """In a process: try cases. Print each that is forbidden; keep the number of each before it begins, and the counts."""
    module, began, counts = doors(), time.monotonic(), Counter[str]()
    forbidden = importlib.import_module("fuzz.guard").Forbidden
    number, log = first, (folder / "case").open("w")
    while time.monotonic() - began < seconds:
        log.seek(0)
        log.write(f"{number:20}")
        log.flush()
        try:
            counts[module.try_case(name, number, folder / "files")] += 1
        except forbidden as error:
            counts[kind_of(str(error))] += 1
            print(f"{name} case {number}: {error}", file=sys.stderr, flush=True)
        number += 1
        if number % 10 == 0:
            (folder / "counts").write_text(json.dumps(counts))
    (folder / "counts").write_text(json.dumps(counts))


def fuzz(name: str, first: int, seconds: float) -> Counter[str]:
    """Try a door for so many seconds."""
    counts, began = Counter[str](), time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 1:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                __file__,
                "--door",
                name,
                "--first",
                str(first),
                "--seconds",
                str(left),
                "--folder",
                folder,
            ]
            environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
            code = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode
            for file, add in (("counts", True), ("case", False)):
                path = Path(folder, file)
                if add and path.exists():
                    counts.update(json.loads(path.read_text()))
                elif path.exists():
                    first = int(path.read_text()) + 1
        if code:
            counts["process ended"] += 1
            print(f"{name} case {first - 1}: ended the process with {code}", file=sys.stderr, flush=True)
    return counts


def table(found: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    lines = [f"| door | cases | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) + 1)}"]
    lines += [
        f"| {name} | {sum(counts.values()):,} | {' | '.join(f'{counts[column]:,}' for column in COLUMNS)} |"
        for name, counts in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse options, try all doors or one, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each door")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--door", help="one door alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="doors at once")
    parser.add_argument("--write", action="store_true", help="write the table of all doors into docs/fuzzing.md")
    parser.add_argument("--case", type=int, help="one case of it, with its traceback")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        work(given.door, given.first, given.seconds, Path(given.folder))
        return
    if given.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            try:
                print(doors().try_case(given.door, given.case, Path(folder, "files")))
            except BaseException:
                traceback.print_exc()
        return
    names = [given.door] if given.door else list(doors().DOORS)

    def counted(name: str) -> Counter[str]:
        counts = fuzz(name, given.first, given.seconds)
        print(table({name: counts}).splitlines()[-1], file=sys.stderr, flush=True)
        return counts

    with ThreadPoolExecutor(given.jobs) as pool:
        found = dict(zip(names, pool.map(counted, names), strict=True))
    print(table(found))
    if given.write and not given.door:
        text = PAGE.read_text(encoding="utf-8")
        head, tail = text.split(START)[0], text.split(END)[1]
        about = f"{given.seconds:g} s for each door, {given.jobs} at once, {time.strftime('%Y-%m-%d')}, from case {given.first}."
        PAGE.write_text(f"{head}{START}\n{about}\n\n{table(found)}\n{END}{tail}", encoding="utf-8")
    sys.exit(any(counts[column] for counts in found.values() for column in FORBIDDEN))


if __name__ == "__main__":
    main()
