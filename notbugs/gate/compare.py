"""Two audits compared on the same images: paired tests, for two models or two versions of the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, AuditFileRow, CheckRow, ImageRow, PredictionRow
from notbugs.stats import newcombe_difference, wilson_interval

CLEAN = "clean"
RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedComparison:
    """Two audits within one threat model, on the images that both have.

    Attributes
    ----------
    threat : str
    first, second : float
        Accuracy of each on these images, in [0, 1].
    only_first, only_second : int
        Images that only one of them classifies correctly.
    n : int
        Images that both have.
    difference, ci_low, ci_high : float
        Second minus first, with its 95 % CI: the wider of a paired bootstrap over images, which is too narrow where few images
        differ, and of Newcombe's interval of the two shares of images that only one classifies correctly.
    p_value : float
        Of the exact McNemar test: both are equally often the only one that is right.
    """

    threat: str
    first: float
    second: float
    only_first: int
    only_second: int
    n: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float

    @property
    def conclusion(self) -> str:
        """What the interval says, in words."""
        return conclusion(self.threat, self.ci_low, self.ci_high)


def conclusion(threat: str, ci_low: float, ci_high: float) -> str:
    """What the 95 % CI of a difference says, second minus first, in words."""
    kind = "clean accuracy" if threat == CLEAN else f"robust accuracy within {threat}"
    if ci_low > 0 or ci_high < 0:
        return f"The second has {'higher' if ci_low > 0 else 'lower'} {kind}."
    return f"Undecided which has higher {kind}: the 95 % CI of the difference contains 0."


def conclusions(comparisons: Sequence[PairedComparison], *, alone: bool = True) -> list[str]:
    """What follows, in words; the first comparison is that of clean images. alone: not one of several pairs."""
    said, clean = [each.conclusion for each in comparisons], comparisons[0]
    if alone and any(each.ci_low > 0 or each.ci_high < 0 for each in comparisons):
        said.append(
            "That is said of these two models: other trainings of either may differ. notbugs compare --pairs averages several."
        )
    if clean.ci_low > 0 or clean.ci_high < 0:
        said.append(
            f"Clean accuracies differ by {100 * clean.difference:+.1f} percentage points. An image that is misclassified without "
            "an attack counts as not robust: robust accuracies differ for this reason, too."
        )
    return said


def failed_checks(record: RunFolder) -> list[str]:
    """Names of the sanity checks of an audit that failed: accuracies of that audit may be wrong, most of them too high."""
    return [row.check for row in record.rows(CheckRow) if row.passed == "no"]


def left_out(record: RunFolder) -> str:
    """That an audit has not attacked all of its images, as where a time limit ended it; "" if it has."""
    if record.audit().finished:
        return ""
    checks = "" if record.rows(CheckRow) else ", no sanity checks"
    return f"not finished: {len(record.rows(ImageRow)):,} images attacked{checks}; the same command resumes it"


def different_attacks(first: RunFolder, second: RunFolder) -> str:
    """That two audits were not made with the same attack; "" if they were."""
    one, other = _attack(first), _attack(second)
    if one == other:
        return ""
    same = "the same --budget, version of notbugs and NOTBUGS_EXTENSIONS"
    return f"not the same attack: {one}; {other}. The difference may be that of the attacks: attack both with {same}"


def _attack(record: RunFolder) -> str:
    """As run.json has it; of earlier audits that of their first threat model, or the budget."""
    metadata = record.audit()
    rows = [row.attack for row in record.rows(AuditAccuracyRow) if row.attack != "none"]
    return metadata.attack or next(iter(rows), f"ensemble-{metadata.budget} of notbugs {metadata.notbugs}")


def compare(first: RunFolder, second: RunFolder) -> list[PairedComparison]:
    """Compare two audits, clean and within each threat model that both have, image by image.

    Parameters
    ----------
    first, second : RunFolder
        Audits. Images are the same if they have the same name and label. Of an audit that is not finished those count that all
        attacks have been tried on.

    Raises
    ------
    InputError
        If one is no audit, or has attacked no image yet, or they have no image or no threat model in common.
    """
    outcomes = [outcomes_of(run) for run in (first, second)]
    found = [_paired(threat, outcomes[0][threat], outcomes[1][threat]) for threat in shared_threats(outcomes)]
    if not found[0].n:
        rule = "must have images in common, of the same names and labels"
        raise InputError("RUN", rule, "none", "attack both on the same DATASET")
    return found


Outcomes = Mapping[tuple[str, str], bool]


def shared_threats(outcomes: Sequence[Mapping[str, Outcomes]]) -> list[str]:
    """Threat models that all audits have, with `CLEAN`. Raises InputError if that is the only one."""
    threats = [threat for threat in outcomes[0] if all(threat in each for each in outcomes)]
    if len(threats) < 2:
        got = "; ".join(", ".join(threat for threat in found if threat != CLEAN) for found in outcomes)
        raise InputError("RUN", "must have a threat model in common", got, "attack all with the same --epsilon")
    return threats


def outcomes_of(run: RunFolder) -> dict[str, Outcomes]:
    """By threat model: whether each image, by name and label, is classified correctly."""
    if run.kind != "audit":
        raise InputError("RUN", "must be an audit", f"{run.folder}, {run.kind}", "notbugs attack … --out FOLDER")
    images: Sequence[ImageRow] = run.rows(AuditFileRow) or run.rows(ImageRow)  # files: once it is finished
    if not images:
        raise InputError("RUN", "must have attacked some images", f"{run.folder}, none yet", "the same command resumes it")
    found: dict[str, Outcomes] = {CLEAN: _unique(run, images)}
    by_threat: dict[str, list[PredictionRow]] = {}
    for row in run.rows(PredictionRow):
        by_threat.setdefault(row.threat, []).append(row)
    return found | {threat: _unique(run, rows) for threat, rows in by_threat.items()}


def _unique(run: RunFolder, rows: Sequence[ImageRow] | Sequence[PredictionRow]) -> Outcomes:
    found = {(row.file, row.label): not row.misclassified for row in rows}
    if len(found) < len(rows):
        raise InputError("RUN", "must have images with names of their own", run.folder, "name each image once")
    return found


def _paired(threat: str, first: Outcomes, second: Outcomes) -> PairedComparison:
    from scipy.stats import binomtest

    shared = [image for image in first if image in second]
    pairs = np.array([(first[image], second[image]) for image in shared], dtype=np.int64).reshape(-1, 2)
    only_first, only_second = int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())
    n, discordant = len(shared), only_first + only_second
    low, high = _interval(only_first, only_second, n)
    return PairedComparison(
        threat=threat,
        first=float(pairs[:, 0].mean()) if n else 0.0,
        second=float(pairs[:, 1].mean()) if n else 0.0,
        only_first=only_first,
        only_second=only_second,
        n=n,
        difference=(only_second - only_first) / n if n else 0.0,
        ci_low=low,
        ci_high=high,
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
    )


def _interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95 % CI of the difference. Bootstrap: the counts of images that are drawn with replacement are multinomial."""
    if not n:
        return 0.0, 0.0
    shares = [only_first / n, only_second / n, (n - only_first - only_second) / n]
    drawn = np.random.default_rng(0).multinomial(n, shares, size=RESAMPLES)
    low, high = np.percentile((drawn[:, 1] - drawn[:, 0]) / n, [2.5, 97.5])
    gained, lost = ((count / n, *wilson_interval(count, n)) for count in (only_second, only_first))
    _, least, most = newcombe_difference(gained, lost)
    return min(float(low), least), max(float(high), most)
