"""Part `regression` of files.py: pairs and weights of subset regression, as of `notbugs files --subset-regression`."""

from collections.abc import Iterator

from files_scoring import Benchmark
from harness import ResultsFile, Row

from notbugs.errors import InputError
from notbugs.runs.tables.files import FileRow, SubsetPairRow, SubsetRegressionRow, SubsetRegressionWeightRow

REGRESSED = {"subset regression": "subset_regression", "subset regression, equal clean accuracy": "subset_regression_equal_clean"}
SUBSET_REGRESSION = next(iter(REGRESSED))


def regression(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """The separation of each pair of trainings on halves; then the weight of each score. Nothing without such pairs."""
    if not benchmark.options.subset_regression:
        return
    known = {"scoring": benchmark.options.scoring or None}
    results.drop(part="regression", dataset=benchmark.name, **known)
    run = benchmark.run(benchmark.options.scoring)
    (found,) = run.rows(SubsetRegressionRow)
    for row in run.rows(SubsetPairRow):
        yield {
            "direction": row.pair,
            "separation": row.separation,
            "clean_difference": row.clean_upper - row.clean_lower,
            "n": found.n,
        }
    for weights in run.rows(SubsetRegressionWeightRow):
        yield {"outcome": "separation", "score": weights.score, "weight": weights.weight}
        yield {"outcome": "clean_difference", "score": weights.score, "weight": weights.clean_weight}
    for outcome, correlation in (("separation", found.correlation), ("clean_difference", found.clean_correlation)):
        yield {"outcome": outcome, "score": SUBSET_REGRESSION, "correlation_left_out": correlation}


def regressed_scores(benchmark: Benchmark) -> dict[str, list[float]]:
    """Both columns of all files. Raises InputError for a scoring without them."""
    if not benchmark.options.subset_regression:
        raise InputError("--scores", f"{SUBSET_REGRESSION} needs pairs of trainings", "--subset-regression 0")
    rows = benchmark.run(benchmark.options.scoring).rows(FileRow)
    return {name: [float(getattr(row, column)) for row in rows] for name, column in REGRESSED.items()}
