"""The page of `notbugs compare`."""

from collections.abc import Sequence
from pathlib import Path

from notbugs import __version__
from notbugs.atomic import atomic_write_text
from notbugs.gate.compare import PairedComparison, conclusions, different_attacks, failed_checks, left_out
from notbugs.gate.pairs import MeanComparison
from notbugs.runs.folder import RunFolder

MEAN_COLUMNS = ("threat model", "n", "first", "second", "mean difference", "95 % CI", "difference of each pair")
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
            *_difference(each),
            str(each.only_first),
            str(each.only_second),
            f"{each.p_value:.2g}" if each.p_value >= 1e-4 else "< 0.0001",
        ]
        for each in comparisons
    ]


def _difference(each: PairedComparison | MeanComparison) -> list[str]:
    """The cells that both tables have."""
    return [
        each.threat,
        str(each.n),
        f"{100 * each.first:.1f} %",
        f"{100 * each.second:.1f} %",
        f"{100 * each.difference:+.1f}",
        f"[{100 * each.ci_low:.1f}, {100 * each.ci_high:.1f}]",
    ]


def mean_cells(means: Sequence[MeanComparison]) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows of means of pairs, in percent and percentage points.

    Examples
    --------
    >>> mean_cells([MeanComparison("l2 0.5", 0.5, 0.4, (-0.12, -0.08), 100, -0.1, -0.38, 0.18)])[1]
    [['l2 0.5', '100', '50.0 %', '40.0 %', '-10.0', '[-38.0, 18.0]', '-12.0, -8.0']]
    """
    return MEAN_COLUMNS, [
        [
            *_difference(each),
            ", ".join(f"{100 * difference:+.1f}" for difference in each.differences),
        ]
        for each in means
    ]


def write_page(
    path: Path,
    found: Sequence[tuple[RunFolder, RunFolder, Sequence[PairedComparison]]],
    means: Sequence[MeanComparison] = (),
) -> None:
    """Write the page: a table for each pair of audits, first and second. means: of all pairs, if these are to be averaged."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("notbugs.report"), autoescape=True, undefined=StrictUndefined)
    pairs = [
        (
            _about(first),
            _about(second),
            different_attacks(first, second),
            *cells(comparisons),
            conclusions(comparisons, alone=not means),
        )
        for first, second, comparisons in found
    ]
    mean = (*mean_cells(means), [each.conclusion for each in means]) if means else None
    page = environment.get_template("compare.html.jinja").render(pairs=pairs, mean=mean, version=__version__)
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
