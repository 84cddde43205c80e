"""The page of `notbugs compare`."""

from collections.abc import Sequence
from pathlib import Path

from notbugs import __version__
from notbugs.atomic import atomic_write_text
from notbugs.gate.compare import PairedComparison, conclusions, different_attacks, failed_checks, left_out
from notbugs.runs.folder import RunFolder

COLUMNS = ("threat model", "n", "first", "second", "difference", "95 % CI", "only first", "only second", "p")


def cells(comparisons: Sequence[PairedComparison]) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows of a comparison, in percent and percentage points.

    Examples
    --------
    >>> found = PairedComparison("l2 0.5", 0.5, 0.4, 20, 10, 100, -0.1, -0.21, 0.01, 0.0987)
    >>> cells([found])[1]
    [['l2 0.5', '100', '50.0 %', '40.0 %', '-10.0', '[-21.0, 1.0]', '20', '10', '0.099']]
    """
    return COLUMNS, [
        [
            each.threat,
            str(each.n),
            f"{100 * each.first:.1f} %",
            f"{100 * each.second:.1f} %",
            f"{100 * each.difference:+.1f}",
            f"[{100 * each.ci_low:.1f}, {100 * each.ci_high:.1f}]",
            str(each.only_first),
            str(each.only_second),
            f"{each.p_value:.2g}" if each.p_value >= 1e-4 else "< 0.0001",
        ]
        for each in comparisons
    ]


def write_page(path: Path, first: RunFolder, found: Sequence[tuple[RunFolder, Sequence[PairedComparison]]]) -> None:
    """Write the page: a table for each audit, against the first one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("notbugs.report"), autoescape=True, undefined=StrictUndefined)
    pairs = [
        (_about(record), different_attacks(first, record), *cells(comparisons), conclusions(comparisons))
        for record, comparisons in found
    ]
    page = environment.get_template("compare.html.jinja").render(first=_about(first), pairs=pairs, version=__version__)
    atomic_write_text(path, page)


def _about(record: RunFolder) -> dict[str, str]:
    metadata = record.audit()
    return {
        "folder": str(record.folder),
        "model": metadata.model,
        "dataset": metadata.dataset,
        "command": metadata.command,
        "failed": ", ".join(failed_checks(record)),
        "left_out": left_out(record),
    }
