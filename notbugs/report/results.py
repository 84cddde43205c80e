"""Results of a study: the only reader of its tables; names, and accuracies with their 95 % CIs. Imports no torch."""

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from notbugs.report.format import Estimate, percent
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.review import answers
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, StudyMetadata
from notbugs.runs.tables.review import ReviewAnswerRow
from notbugs.runs.tables.row import AnyRow, Row
from notbugs.runs.tables.study import AccuracyRow, SetRow, TrainingRow
from notbugs.stats import newcombe_difference, student_interval, wilson_interval
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import SETS, TEST_SETS
from notbugs.study.catalog.models import MODELS, TABLE_MODELS

CLEAN, HALF, FULL = 0, 1, 2  # radius: no attack, epsilon / 2, epsilon


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
        return in_order(MODELS, (row.model for row in self.rows(AccuracyRow) if row.set not in TEST_SETS))

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
        return _mean_accuracy(self.accuracy_by_seed(model, set, radius).values())

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
            mean = _mean_accuracy(lowest[seed] for seed in measured)
            if mean and len(measured) == len(by_seed):
                points.append(CurvePoint(epsilon, mean, next(iter(measured.values())).attack))
        return points

    def difference(
        self, model: tuple[str, int], other: tuple[str, int], comparisons: int = 1, *, set: str = "test"
    ) -> Estimate | None:
        """Accuracy of one (model, radius) on a set minus test accuracy of another.

        CI: Student's over the differences seed by seed; of one seed, or of seeds that agree, Newcombe's over images. Those of all
        `comparisons` differences hold together (Bonferroni).
        """
        first, second = self.accuracy_by_seed(model[0], set, model[1]), self.accuracy_by_seed(other[0], radius=other[1])
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
        last = [row.accuracy for row in self._last_epochs(model)]
        return sum(last) / len(last) if last else None

    def accuracy_before_adapting(self, model: str) -> Estimate | None:
        """Clean accuracy on (some of) the test images before batch-norm statistics were taken anew, mean over seeds."""
        values = (Value(row.test_accuracy) for row in self._last_epochs(model))
        return seed_mean(values, share=True) if self.adapts_batchnorm else None

    def _last_epochs(self, model: str) -> list[TrainingRow]:
        """The last row of each seed."""
        rows = sorted((row for row in self.rows(TrainingRow) if row.model == model), key=lambda row: row.epoch)
        return [*{row.seed: row for row in rows}.values()]

    def below_chance(self, found: Estimate) -> str:
        """That an accuracy lies measurably below chance level, which a constant answer keeps under any attack; "" if not."""
        return f"below chance ({percent(self.chance)})" if found.ci_high < self.chance else ""

    def beside_chance(self, found: Estimate) -> str:
        """That an accuracy is below chance level, or not measurably above it; "" if it is above."""
        above = found.ci_low > self.chance or math.isnan(self.chance)
        return self.below_chance(found) or ("" if above else f"not measurably above chance ({percent(self.chance)})")

    # ---- human review ------------------------------------------------------------------------------------------------------

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


def _mean_accuracy(rows: Iterable[AccuracyRow]) -> Estimate | None:
    return seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in rows), share=True)
