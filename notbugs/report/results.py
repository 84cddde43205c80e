"""Results of a study: the only reader of its tables. Means over seeds, differences, and their 95 % CIs. Imports no torch."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from notbugs.report.aggregate import (
    AccuracyTransferCorrelation,
    ErrorConsistency,
    ExcessOverControl,
    LabelLeakage,
    LeakageProbe,
    peak_and_last,
    saliency_estimate,
)
from notbugs.report.format import Estimate, percent
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.review import answers
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, StudyMetadata
from notbugs.runs.tables.analyses import (
    CorruptionDifferenceRow,
    CorruptionRow,
    FourierRow,
    NTKAccuracyRow,
    SaliencyDifferenceRow,
    SaliencyRow,
)
from notbugs.runs.tables.replication import RobustVersionRow
from notbugs.runs.tables.review import ReviewAnswerRow
from notbugs.runs.tables.row import AnyRow, Row
from notbugs.runs.tables.study import AccuracyRow, SetRow, TrainingRow
from notbugs.runs.tables.transferability import (
    ControlRow,
    ErrorConsistencyRow,
    PerturbationLeakageRow,
    RobustFeatureLeakageRow,
    TransferRow,
)
from notbugs.stats import newcombe_difference, student_interval, wilson_interval
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import SETS
from notbugs.study.catalog.models import ANALYZED_MODELS, MODELS, OWN_MODELS, TABLE_MODELS, trained_on
from notbugs.study.comparisons import CONTROLS_OF, LEAKAGE_PROBES

CORRUPTIONS = ("clean", "noise", "blur", "fog", "contrast", "jpeg")
CLEAN, HALF, FULL = 0, 1, 2  # radius: no attack, epsilon / 2, epsilon
# Architectures of figure 3, the source's own first: as targets of its examples -> trained on D_det
TRAINED_ON_D_DET = {
    "reinit-1": trained_on("next-labels"),
    **{spec.architecture: name for name, spec in MODELS.items() if spec.trained_on == "next-labels" and spec.architecture},
}


class CurvePoint(NamedTuple):
    """Accuracy of one model at one epsilon, and the attack: "none" for clean images."""

    epsilon: float
    accuracy: Estimate
    attack: str


class StudyResults:
    """What a study measured, finished or not.

    Parameters
    ----------
    run : RunFolder

    Attributes
    ----------
    metadata : StudyMetadata
    radii : tuple of float
        0, epsilon / 2 and epsilon; methods take their index (0, 1, 2).
    chance : float
        Chance level: the share of the test set's most common class, NaN if that is unknown.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.folder = run.folder
        self.metadata: StudyMetadata = run.study()
        data, epsilon = self.metadata.data, self.metadata.epsilon
        self.radii = (0.0, epsilon / 2, epsilon)
        self.chance = max(1 / len(data.classes), data.most_common) if data.classes else math.nan
        self._rows: dict[type[Row], list[Row]] = {}

    @classmethod
    def read(cls, folder: Path | str | RunFolder) -> Self:
        """Results in a run folder. Raises InputError if there is no run."""
        return cls(folder if isinstance(folder, RunFolder) else RunFolder.read(folder))

    def rows(self, row_type: type[AnyRow]) -> list[AnyRow]:
        """The rows of one table, as they were when they were first asked for."""
        if row_type not in self._rows:
            self._rows[row_type] = [*self.run.rows(row_type)]
        return self._rows[row_type]  # type: ignore[return-value]  # the key is their type

    # ---- threat model and names ----------------------------------------------------------------------------------------------

    @property
    def norm(self) -> str:
        """The norm as people write it."""
        return NORM_NAMES.get(self.metadata.norm, self.metadata.norm)

    def epsilon_text(self, radius: int = FULL) -> str:
        """Epsilon as people write it: 0.75, or 8/255."""
        full = self.metadata.epsilon_text or f"{self.metadata.epsilon:g}"
        above, _, below = full.partition("/")
        half = f"{float(above) / 2:g}/{below}" if below else f"{self.metadata.epsilon / 2:g}"
        return ("0", half, full)[radius]

    def threat_model(self, radius: int = FULL) -> str:
        """Norm and epsilon."""
        return f"{self.norm} ε = {self.epsilon_text(radius)}"

    @property
    def seeds(self) -> int:
        """How many seeds have measured an accuracy."""
        return len({row.seed for row in self.rows(AccuracyRow)})

    def models(self) -> list[str]:
        """Models of the main table, in its order: those of controls and of transfer have tables of their own."""
        found = in_order(TABLE_MODELS, (row.model for row in self.rows(AccuracyRow)))
        return [name for name in found if name in TABLE_MODELS] if self.metadata.full else found

    @property
    def given_model(self) -> str:
        """The file or function that was given as the standard model; "" if that was trained."""
        given = self.metadata.settings.get("model")
        return Path(given).name if isinstance(given, str) else ""

    @property
    def adapts_batchnorm(self) -> bool:
        """Whether models of relabeled sets have batch-norm statistics of the original images."""
        return bool(self.metadata.settings.get("adapt_batchnorm"))

    @property
    def baseline(self) -> str:
        """The model whose network, images and training differ from those of the others only in what is studied."""
        return "reference" if self.given_model else "standard"

    @property
    def standard_title(self) -> str:
        """The standard model at the beginning of a sentence."""
        return f"{self.given_model} (given)" if self.given_model else "Standard training"

    def title(self, model: str) -> str:
        """What a model is, one line; "" for one that the catalog does not have."""
        if model == "standard" and self.given_model:
            return f"{self.given_model} (given): not trained here, the same in every seed"
        return MODELS[model].title if model in MODELS else ""

    def trained_on(self, model: str) -> str:
        """The set that a model was trained on; "" for one that the catalog does not have."""
        return MODELS[model].trained_on if model in MODELS and not (model == "standard" and self.given_model) else ""

    def models_on_other_sets(self) -> list[str]:
        """Models that were evaluated on other sets than the test images."""
        return in_order(MODELS, (row.model for row in self.rows(AccuracyRow) if row.set not in ("test", "test-next")))

    def sets(self) -> list[str]:
        """Sets on which clean accuracy was measured."""
        return in_order(SETS, (row.set for row in self.rows(AccuracyRow) if not row.epsilon and row.set != "test-next"))

    # ---- accuracy ------------------------------------------------------------------------------------------------------------

    def accuracy_by_seed(self, model: str, set: str = "test", radius: int = CLEAN) -> dict[int, AccuracyRow]:
        """One row per seed; if several attacks were evaluated, that with the lowest accuracy."""
        found: dict[int, AccuracyRow] = {}
        for row in self.rows(AccuracyRow):
            if (row.model, row.set) != (model, set) or not math.isclose(row.epsilon, self.radii[radius], rel_tol=1e-3):
                continue
            if row.seed not in found or row.accuracy < found[row.seed].accuracy:
                found[row.seed] = row
        return found

    def accuracy(self, model: str, set: str = "test", radius: int = CLEAN) -> Estimate | None:
        """Clean or robust accuracy, mean over seeds.

        Parameters
        ----------
        model : str
        set : str
        radius : {0, 1, 2}
            0: clean; 1: at epsilon / 2; 2: at epsilon.

        Returns
        -------
        Estimate or None
            None if it was not measured. CI: Student's over seeds; of one seed, or of seeds that agree, Wilson's over images.
        """
        rows = [*self.accuracy_by_seed(model, set, radius).values()]
        return _mean_accuracy(rows) if rows else None

    def accuracy_curve(self, model: str) -> list[CurvePoint]:
        """Accuracy on the test images at every epsilon that all seeds have, ascending.

        An image that is misclassified within one epsilon is misclassified within every larger one, so that a point never lies
        above those at smaller epsilons, also where a weaker attack was evaluated.
        """
        by_seed: dict[int, dict[float, AccuracyRow]] = {}
        for row in sorted(self.rows(AccuracyRow), key=lambda row: -row.accuracy):  # the lowest last
            if (row.model, row.set) == (model, "test"):
                by_seed.setdefault(row.seed, {})[round(row.epsilon, 9)] = row
        points, lowest = [], dict[int, AccuracyRow]()
        for epsilon in sorted(set[float]().union(*by_seed.values())):
            measured = {seed: rows[epsilon] for seed, rows in by_seed.items() if epsilon in rows}
            lowest |= {seed: row for seed, row in measured.items() if row.accuracy <= lowest.get(seed, row).accuracy}
            if len(measured) == len(by_seed):
                attack = next(iter(measured.values())).attack
                points.append(CurvePoint(epsilon, _mean_accuracy([lowest[seed] for seed in measured]), attack))
        return points

    def difference(self, model: tuple[str, int], other: tuple[str, int], comparisons: int = 1) -> Estimate | None:
        """Test accuracy of one (model, radius) minus that of another.

        CI: Student's over the differences seed by seed; of one seed, or of seeds that agree, Newcombe's over images. Those of all
        `comparisons` differences hold together (Bonferroni).
        """
        first, second = self.accuracy_by_seed(model[0], radius=model[1]), self.accuracy_by_seed(other[0], radius=other[1])
        pairs = [(first[seed], second[seed]) for seed in first if seed in second]
        if not pairs:
            return None
        n, values = pairs[0][0].n, [round(a.accuracy - b.accuracy, 9) for a, b in pairs]
        if len({*values}) > 1:
            mean, low, high = student_interval(values, comparisons)
            return Estimate(mean, max(low, -1.0), min(high, 1.0), n, len(pairs), True)
        p, q = ((row.accuracy, *wilson_interval(row.correct, row.n, comparisons)) for row in pairs[0])
        return Estimate(*newcombe_difference(p, q), n, len(pairs), False)

    def relabel_epsilon(self, set: str) -> float | None:
        """Epsilon of the perturbations of a relabeled set, None if the study's table does not have it."""
        return next((row.epsilon for row in self.rows(SetRow) if row.set == set and row.epsilon is not None), None)

    def feature_error(self, set: str) -> float | None:
        """Mean relative error of the features that a set was constructed from, mean over seeds."""
        found = seed_mean(Value(row.feature_error) for row in self.rows(SetRow) if row.set == set)
        return found.mean if found else None

    def target_reached(self, set: str) -> float | None:
        """Share of a relabeled set's images that its source model predicts as their new label, mean over seeds."""
        found = seed_mean(Value(row.target_reached) for row in self.rows(SetRow) if row.set == set)
        return found.mean if found else None

    def training_accuracy(self, model: str) -> float | None:
        """Accuracy on the training set's own labels in the last epoch, mean over seeds."""
        last = {row.seed: row.accuracy for row in sorted(self.rows(TrainingRow), key=lambda row: row.epoch) if row.model == model}
        return sum(last.values()) / len(last) if last else None

    def accuracy_before_adapting(self, model: str) -> Estimate | None:
        """Clean accuracy on (some of) the test images before batch-norm statistics were taken anew, mean over seeds."""
        last = {row.seed: row for row in sorted(self.rows(TrainingRow), key=lambda row: row.epoch) if row.model == model}
        values = (Value(row.test_accuracy) for row in last.values() if row.test_accuracy is not None)
        return seed_mean(values, share=True) if self.adapts_batchnorm else None

    def below_chance(self, found: Estimate) -> str:
        """That an accuracy lies measurably below chance level, which a constant answer keeps under any attack; "" if not."""
        return f"below chance ({percent(self.chance)})" if found.ci_high < self.chance else ""

    def beside_chance(self, found: Estimate) -> str:
        """That an accuracy is below chance level, or not measurably above it; "" if it is above."""
        above = found.ci_low > self.chance or math.isnan(self.chance)
        return self.below_chance(found) or ("" if above else f"not measurably above chance ({percent(self.chance)})")

    def robust_version_accuracy(self, set: str, radius: int) -> Estimate | None:
        """Accuracy of the classifier trained on D_R, on this version of its images."""
        rows = [row for row in self.rows(RobustVersionRow) if row.set == set]
        epsilons = sorted({row.epsilon for row in rows})
        if len(epsilons) <= radius:
            return None
        measured = (row for row in rows if row.epsilon == epsilons[radius])
        return seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in measured), share=True)

    # ---- controls and transferability ----------------------------------------------------------------------------------------

    def excesses(self) -> list[ExcessOverControl]:
        """Each relabeled result with each of its controls: those of the study itself, then the user's own."""
        found: dict[tuple[str, str], list[ControlRow]] = {}
        for row in self.rows(ControlRow):
            found.setdefault((row.model, row.control), []).append(row)
        models = in_order(CONTROLS_OF, (model for model, _ in found))
        order = sorted(found, key=lambda pair: (models.index(pair[0]), pair[1] in OWN_MODELS))
        return [ExcessOverControl.of(found[pair]) for pair in order]

    def label_leakage(self) -> list[LabelLeakage]:
        """What gives the labels of each relabeled set away."""
        names = in_order(SETS, (row.set for row in self.rows(PerturbationLeakageRow)))
        return [self._label_leakage(name) for name in names]

    def _label_leakage(self, name: str) -> LabelLeakage:
        rows = [row for row in self.rows(PerturbationLeakageRow) if row.set == name]
        probes = {
            model: LeakageProbe.of([row for row in self.rows(RobustFeatureLeakageRow) if (row.set, row.model) == (name, model)])
            for model in LEAKAGE_PROBES
        }
        peak, last = peak_and_last(row for row in self.rows(TrainingRow) if row.model == trained_on(name))
        return LabelLeakage(
            name,
            seed_mean((Value(row.target_reached) for row in self.rows(SetRow) if row.set == name), share=True),
            seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in rows), share=True),
            probes,
            seed_mean((Value(row.other_model_predicts_new_label) for row in rows), share=True),
            seed_mean((Value(row.other_model_keeps_label) for row in rows), share=True),
            peak,
            last,
        )

    def _transfer(self, source: str, target: str, perturbation: str) -> list[TransferRow]:
        wanted = (source, target, perturbation)
        return [row for row in self.rows(TransferRow) if (row.source, row.target, row.perturbation) == wanted]

    def transfer_targets(self, source: str) -> list[str]:
        """Models on which the examples of a source were evaluated."""
        return [*dict.fromkeys(row.target for row in self.rows(TransferRow) if row.source == source)]

    def transfer_clean_accuracy(self, source: str, target: str) -> Estimate | None:
        """Clean accuracy of a target on the images of a source's examples."""
        rows = [row for row in self.rows(TransferRow) if (row.source, row.target) == (source, target)]
        return seed_mean((Value(row.clean_accuracy, n=row.n) for row in rows), share=True)

    def transfer_rate(self, source: str, target: str, perturbation: str = "untargeted") -> Estimate | None:
        """Share of adversarial examples of one model that another misclassifies, of images that both classify correctly.

        perturbation: untargeted, targeted (then: predicted as the target class), or random (of the same size).
        """
        rows = self._transfer(source, target, perturbation)
        return seed_mean((Value(row.transfer_rate, row.ci_low, row.ci_high, row.n) for row in rows), share=True)

    def mistake_shares(self, source: str, target: str) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
        """Of untargeted examples: shares that are not misclassified, with the source's mistake, with another mistake."""
        rows = [row for row in self._transfer(source, target, "untargeted") if row.n]
        counts = [[(r.not_misclassified, r.n) for r in rows], [(r.same_mistake, r.n) for r in rows]]
        counts += [[(r.other_mistake, r.n) for r in rows]]
        none, same, other = (seed_mean((Value(count / n, n=n) for count, n in each), share=True) for each in counts)
        return none, same, other

    def own_rate(self, source: str, perturbation: str = "untargeted") -> Estimate | None:
        """Share of a model's adversarial examples that it misclassifies itself, of the images that some target has."""
        rows = [row for row in self.rows(TransferRow) if (row.source, row.perturbation) == (source, perturbation)]
        return seed_mean((Value(row.source_rate, n=row.n) for row in rows if row.target == rows[0].target), share=True)

    def accuracy_transfer_correlation(self) -> AccuracyTransferCorrelation | None:
        """Figure 3 of Ilyas et al. 2019, from means over seeds; None unless each architecture has both figures."""
        points = []
        for target, model in TRAINED_ON_D_DET.items():
            accuracy, rate = self.accuracy(model), self.transfer_rate("standard", target)
            if accuracy is None or rate is None:
                return None
            points.append((target, accuracy.mean, rate.mean))
        seeds = len(self.accuracy_by_seed(trained_on("next-labels")))
        return AccuracyTransferCorrelation.of(points, seeds)

    def error_consistency(self, model: str, other: str) -> ErrorConsistency:
        """Whether two models make the same mistakes, in either order of the pair."""
        rows = [row for row in self.rows(ErrorConsistencyRow) if {row.model, row.other_model} == {model, other}]
        return ErrorConsistency.of(rows)

    # ---- analyses ------------------------------------------------------------------------------------------------------------

    def saliency(self, model: str, method: str, measure: str) -> Estimate | None:
        """One measure of a model's attributions, mean over seeds."""
        return saliency_estimate((row for row in self.rows(SaliencyRow) if row.model == model), method, measure)

    def saliency_difference(self, model: str, other: str, method: str, measure: str) -> Estimate | None:
        """The same, model minus other, image by image."""
        wanted = (model, other, method, measure)
        rows = self.rows(SaliencyDifferenceRow)
        found = [row for row in rows if (row.model, row.other_model, row.method, row.measure) == wanted]
        return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)

    def corruption_accuracy(self, model: str, corruption: str, severity: int | None = None) -> float | None:
        """Accuracy under a corruption, mean over seeds and, unless one is given, over severities."""
        rows = [row for row in self.rows(CorruptionRow) if (row.model, row.corruption) == (model, corruption)]
        shares = [row.accuracy for row in rows if severity in (None, row.severity)]
        return sum(shares) / len(shares) if shares else None

    def corruption_difference(self, model: str, corruption: str, other: str = "standard") -> Estimate | None:
        """Accuracy of a model minus that of another, mean over severities."""
        wanted = (model, other, corruption)
        rows = self.rows(CorruptionDifferenceRow)
        found = [row for row in rows if (row.model, row.other_model, row.corruption) == wanted]
        return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)

    def ntk_accuracy(self, eigenvectors: int, *, attacked: bool) -> Estimate | None:
        """Accuracy of kernel regression on the first eigenvectors."""
        rows = [row for row in self.rows(NTKAccuracyRow) if row.eigenvectors == eigenvectors and bool(row.epsilon) == attacked]
        return seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in rows), share=True)

    def fourier_models(self) -> list[str]:
        """Models of which the sensitivity to Fourier basis vectors was measured."""
        return in_order(ANALYZED_MODELS, (row.model for row in self.rows(FourierRow)))

    @cached_property
    def _answers(self) -> tuple[list[ReviewAnswerRow], str]:
        return answers.answers_or_problem(self.folder)

    @property
    def review_answers(self) -> list[ReviewAnswerRow]:
        """What reviewers answered; empty if nobody did, or if a file of answers is damaged."""
        return self._answers[0]

    @property
    def review_problem(self) -> str:
        """What is wrong with a file of answers; "" if nothing is."""
        return self._answers[1]


def _mean_accuracy(rows: Sequence[AccuracyRow]) -> Estimate:
    """Mean over seeds. CI: Student's over seeds; of one seed, or of seeds that agree, Wilson's over images."""
    first, values = rows[0], [row.accuracy for row in rows]
    if len({*values}) == 1:
        return Estimate(first.accuracy, first.ci_low, first.ci_high, first.n, len(rows), False)
    mean, low, high = student_interval(values)
    return Estimate(mean, max(low, 0.0), min(high, 1.0), first.n, len(rows), True)
