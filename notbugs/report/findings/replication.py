"""Figures of Ilyas et al. 2019 on CIFAR-10, and those of a run for comparison."""

from dataclasses import dataclass

from notbugs.report.format import Estimate
from notbugs.report.results import StudyResults
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.runs.tables.replication import ReplicationRow, RobustVersionRow
from notbugs.study.catalog.models import trained_on

PERTURBATIONS = ("clean", "half", "full")  # of epsilon


@dataclass(frozen=True)
class PaperFigures:
    """One line of the paper.

    Attributes
    ----------
    name : str
    paper_table : str
        "" if the paper does not have it.
    paper : tuple of float or None
        Accuracy in percent: clean, at L2 0.25 and at L2 0.5.
    model : str
        The run's.
    set : str
        On which the run evaluates it.
    robust_version : bool
        Whether the run's figures are in the table `robust_version_accuracy`.
    """

    name: str
    paper_table: str
    paper: tuple[float | None, float | None, float | None]
    model: str
    set: str = "test"
    robust_version: bool = False


_D_R, _D_DET, _D_DET_ROBUST = trained_on("robust"), trained_on("next-labels"), trained_on("next-labels-robust")
PAPER_FIGURES = (
    PaperFigures("standard training", "table 7", (95.25, 4.49, 0.0), "standard"),
    PaperFigures("adversarial training", "table 7", (90.83, 82.48, 70.90), "adversarial"),
    PaperFigures("D_R, inverted from images", "table 7", (85.40, 48.20, 21.85), _D_R),
    PaperFigures("D_R, inverted from noise", "table 7", (84.10, 48.27, 29.40), trained_on("robust-from-noise")),
    PaperFigures("D_NR, inverted from images", "table 7", (87.68, 0.82, 0.0), trained_on("nonrobust")),
    PaperFigures("D_NR, inverted from noise", "table 7", (45.60, 1.50, 0.0), trained_on("nonrobust-from-noise")),
    PaperFigures("D_rand", "table 1", (63.3, None, None), trained_on("random-labels-incl-true")),
    PaperFigures("D_rand, never the true class", "", (None, None, None), trained_on("random-labels")),
    PaperFigures("D_det", "table 1", (43.7, None, None), _D_DET),
    PaperFigures("D_det: predicted as the next class", "table 10", (16.2, None, None), _D_DET, "test-next"),
    PaperFigures("D_rand, robust source", "table 9", (25.2, None, None), trained_on("random-labels-incl-true-robust")),
    PaperFigures("D_det, robust source", "table 9", (5.8, None, None), _D_DET_ROBUST),
    PaperFigures("D_det, robust source: predicted as the next class", "table 10", (65.5, None, None), _D_DET_ROBUST, "test-next"),
    PaperFigures("D_R model on D_R", "table 8", (None, 77.33, None), _D_R, "robust", robust_version=True),
    PaperFigures("D_R model on D_R of the test images", "table 8", (None, 62.49, None), _D_R, "robust-test", robust_version=True),
)


@dataclass(frozen=True)
class PaperArchitecture:
    """One point of the paper's figure 3, in percent, read off the picture; target: the run's."""

    name: str
    accuracy: float
    transfer_rate: float
    target: str


FIGURE_3 = (
    PaperArchitecture("VGG-16", 27.9, 65.7, "vgg"),
    PaperArchitecture("Inception-v3", 39.4, 82.7, "inception"),
    PaperArchitecture("ResNet-18", 40.8, 92.1, "resnet"),
    PaperArchitecture("DenseNet", 41.7, 92.7, "densenet"),
    PaperArchitecture("ResNet-50", 44.7, 98.7, "reinit-1"),
)


def replication_rows(results: StudyResults) -> list[ReplicationRow]:
    """One row per figure of the paper and the run's; [] unless the run replicates the paper."""
    if not results.metadata.replicate:
        return []
    rows = []
    for entry in PAPER_FIGURES:
        for radius, (perturbation, paper) in enumerate(zip(PERTURBATIONS, entry.paper, strict=True)):
            here = _here(results, entry, radius)
            if here is not None:
                rows.append(_row(entry, perturbation, paper, here))
    return rows


def _here(results: StudyResults, entry: PaperFigures, radius: int) -> Estimate | None:
    if not entry.robust_version:
        return results.accuracy(entry.model, entry.set, radius)
    rows = [row for row in results.rows(RobustVersionRow) if row.set == entry.set]
    epsilons = sorted({row.epsilon for row in rows})
    if len(epsilons) <= radius:
        return None
    measured = (row for row in rows if row.epsilon == epsilons[radius])
    return seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in measured), share=True)


def _row(entry: PaperFigures, perturbation: str, paper: float | None, here: Estimate) -> ReplicationRow:
    return ReplicationRow(
        name=entry.name,
        paper_table=entry.paper_table,
        perturbation=perturbation,
        paper=None if paper is None else round(paper / 100, 6),
        here=here.mean,
        ci_low=here.ci_low,
        ci_high=here.ci_high,
        n=here.n,
        seeds=here.seeds,
    )
