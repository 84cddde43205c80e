"""Tables of an audit over all images: accuracies, classes, confusion matrices, curves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from notbugs import attacks
from notbugs.attacks.own import attack_name
from notbugs.audit.config import AuditConfig
from notbugs.audit.evaluate import NOT_FINITE
from notbugs.audit.threats import Threat, norm_of, norms_of, restriction, target_name, threat_id
from notbugs.runs.tables.audit import (
    AuditAccuracyRow,
    AuditFileRow,
    ClassAccuracyRow,
    ConfusionRow,
    CurveRow,
    ImageRow,
    PredictionRow,
)
from notbugs.runs.tables.row import Row, cells
from notbugs.search import NormBall
from notbugs.stats import wilson_interval

CLEAN = "clean"  # threat of rows without a perturbation
CURVE_STEPS = 60
CURVE_QUANTILE = 0.98  # the curve ends where so many images are misclassified


class _Prediction(NamedTuple):
    """One image within one threat model, or clean."""

    label: str
    predicted: str
    correct: float


def table_rows(
    config: AuditConfig,
    images: Sequence[ImageRow],
    by_threat: Mapping[str, Sequence[PredictionRow]],
    threats: Sequence[Threat],
    classes: Sequence[str],
    *,
    gradient: bool,
) -> list[Row]:
    """The rows of all tables; by_threat: the rows of all images within each, by `threat_id`; gradient: of the model."""
    rows: list[Row] = [AuditFileRow(**cells(row)) for row in images]  # type: ignore[arg-type]  # the same columns
    rows += accuracy_rows(config, images, by_threat, threats, gradient=gradient)
    for threat in (None, *threats):
        name = CLEAN if threat is None else threat_id(config, threat)
        predictions: Sequence[ImageRow | PredictionRow] = images if threat is None else by_threat[name]
        outcomes = [_Prediction(row.label, row.predicted, _share(row)) for row in predictions]
        rows += _class_rows(name, threat, outcomes, classes)
        rows += _confusion_rows(name, threat, outcomes, classes)
    return rows + _curve_rows(images, threats, {norm: restriction(config, threats, norm) for norm in norms_of(threats)})


class _Measured(NamedTuple):
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


def _measure(correct: Sequence[float]) -> _Measured:
    """Accuracy over images, with Wilson's 95 % CI. Images of a random model count by their share of correct draws.

    The interval is that of as many images, whose shares vary less than 0 and 1 do.
    """
    count, n = sum(correct), len(correct)
    return _Measured(round(count), n, count / n, *wilson_interval(count, n))


def _share(row: ImageRow | PredictionRow) -> float:
    """1 if an image is classified correctly, else 0; of a random model its share of correct draws."""
    return (not row.misclassified) if row.correct_draws is None else row.correct_draws / attacks.DRAWS


def _draws(images: Sequence[ImageRow]) -> int:
    return 1 if all(row.correct_draws is None for row in images) else attacks.DRAWS


def _epsilon(threat: Threat | None) -> float:
    return float(threat.epsilon) if isinstance(threat, NormBall) else 0.0


def accuracy_rows(
    config: AuditConfig,
    images: Sequence[ImageRow],
    by_threat: Mapping[str, Sequence[PredictionRow]],
    threats: Sequence[Threat],
    *,
    gradient: bool,
) -> list[AuditAccuracyRow]:
    """Clean accuracy, then robust accuracy within each threat model."""
    clean, draws = _measure([_share(row) for row in images]), _draws(images)
    rows = [
        AuditAccuracyRow(
            threat=CLEAN,
            norm="",
            epsilon=0.0,
            **clean._asdict(),
            attack="none",
            correct_by_minimum_norm=None,
            correct_8bit=None,
            draws=draws,
            **_targeted(config, [row.predicted == row.target for row in images]),
        )
    ]
    for threat in threats:
        predictions = by_threat[threat_id(config, threat)]
        minimum_norm = isinstance(threat, NormBall) and threat.norm != "l0" and draws == 1
        stored = sum(
            (not row.misclassified_8bit) if row.correct_draws_8bit is None else row.correct_draws_8bit / draws
            for row in predictions
        )
        rows.append(
            AuditAccuracyRow(
                threat=threat_id(config, threat),
                norm=norm_of(threat),
                epsilon=_epsilon(threat),
                **_measure([_share(row) for row in predictions])._asdict(),
                attack=_attack_name(config, threat, draws, gradient=gradient),
                correct_by_minimum_norm=sum(not row.by_minimum_norm for row in predictions) if minimum_norm else None,
                correct_8bit=round(stored),
                not_finite=sum(row.predicted == NOT_FINITE for row in predictions),
                draws=draws,
                **_targeted(config, [bool(row.reached) for row in predictions]),
                reached_8bit=None if config.target is None else sum(bool(row.reached_8bit) for row in predictions),
                correct_by_ensemble=_correct_by_ensemble(predictions),
            )
        )
    return rows


def _correct_by_ensemble(predictions: Sequence[PredictionRow]) -> int | None:
    """Images that are classified correctly without registered attacks; None where none ran, or draws are counted."""
    if any(row.by_own_attack is None for row in predictions):
        return None
    return sum(not row.misclassified or bool(row.by_own_attack) for row in predictions)


def _attack_name(config: AuditConfig, threat: Threat, draws: int, *, gradient: bool) -> str:
    """As docs/attacks.md defines it."""
    name = attack_name(config.budget, threat, gradient=gradient) + (", targeted" if config.target else "")
    return name + (f" + EOT-{draws}" if draws > 1 else "")


class _Success(TypedDict, total=False):
    """Columns of a targeted attack."""

    target: str
    reached: int
    success_rate: float
    success_ci_low: float
    success_ci_high: float


def _targeted(config: AuditConfig, reached: Sequence[bool]) -> _Success:
    """How many images reach their target, and the targeted success rate; nothing if attacks are not targeted."""
    if config.target is None:
        return {}
    count, _, rate, low, high = _measure(reached)
    return {"target": target_name(config), "reached": count, "success_rate": rate, "success_ci_low": low, "success_ci_high": high}


def _class_rows(
    name: str, threat: Threat | None, outcomes: Sequence[_Prediction], classes: Sequence[str]
) -> list[ClassAccuracyRow]:
    rows = []
    for label in classes:
        correct = [outcome.correct for outcome in outcomes if outcome.label == label]
        if correct:
            rows.append(
                ClassAccuracyRow(
                    threat=name,
                    norm=norm_of(threat),
                    epsilon=_epsilon(threat),
                    label=label,
                    **_measure(correct)._asdict(),
                )
            )
    return rows


def _confusion_rows(
    name: str, threat: Threat | None, outcomes: Sequence[_Prediction], classes: Sequence[str]
) -> list[ConfusionRow]:
    counts = Counter((outcome.label, outcome.predicted) for outcome in outcomes)
    return [
        ConfusionRow(
            threat=name,
            norm=norm_of(threat),
            epsilon=_epsilon(threat),
            label=label,
            predicted=predicted,
            count=counts[label, predicted],
        )
        for label in classes
        for predicted in (*classes, NOT_FINITE)
        if counts[label, predicted]
    ]


def _curve_rows(images: Sequence[ImageRow], threats: Sequence[Threat], restrictions: Mapping[str, str | None]) -> list[CurveRow]:
    """Robust accuracy against epsilon, norm by norm, from the smallest perturbations.

    60 steps, up to where 2 % of the images are left or to the largest epsilon, whichever is larger; in L0 every whole number.
    """
    rows = []
    for norm in norms_of(threats) if _draws(images) == 1 else ():  # a random model has no minimum norms
        # of targeted attacks a misclassified image may be far from its target
        distances = sorted(0.0 if row.misclassified else minimum_norm(row, norm) for row in images)
        finite = [distance for distance in distances if distance < float("inf")]
        largest = max(float(threat.epsilon) for threat in threats if isinstance(threat, NormBall) and threat.norm == norm)
        top = max(finite[int(CURVE_QUANTILE * (len(finite) - 1))] if finite else 0.0, largest)
        steps = [top * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
        epsilons = [float(pixels) for pixels in range(int(largest) + 1)] if norm == "l0" else steps
        for epsilon in epsilons:
            measured = _measure([distance > epsilon for distance in distances])
            rows.append(CurveRow(norm=norm, epsilon=epsilon, **measured._asdict(), restriction=restrictions[norm]))
    return rows


def minimum_norm(row: ImageRow, norm: str) -> float:
    """The size of the smallest perturbation found in one norm."""
    distance = {"l2": row.minimum_l2, "linf": row.minimum_linf, "l1": row.minimum_l1, "l0": row.minimum_l0}[norm]
    return float("inf") if distance is None else distance
