"""The licenses of what notbugs needs to run, as the installed packages state them: python benchmarks/licenses.py"""

import argparse
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def needed() -> list[str]:
    """The packages that `pip install notbugs` asks for."""
    found = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [re.split(r"[^\w-]", each)[0] for each in found]


def license_of(package: str) -> str:
    """The license that a package states: its expression, else its classifier, else its text."""
    about = distribution(package).metadata.json
    kinds = [each.rpartition(":: ")[2] for each in about.get("classifier", ()) if each.startswith("License ::")]
    stated = [about.get("license_expression"), *kinds, about.get("license"), "not stated"]
    return next(str(text).splitlines()[0] for text in stated if text)


def main() -> None:
    """Print a row for each package."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| package | version | license |")
    print("|---|---|---|")
    for package in needed():
        print(f"| {package} | {distribution(package).version} | {license_of(package)} |")


if __name__ == "__main__":
    main()
