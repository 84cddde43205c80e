"""Summary of an audit: tables over all images, the perturbed images in the format of the data set, and pictures."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from notbugs import __version__, attacks, data
from notbugs.audit.config import (
    TARGET_RULES,
    AuditConfig,
    Threat,
    conditions,
    folder_name,
    norm_of,
    norms_of,
    restriction,
    test_part,
    threat_id,
    threat_models,
)
from notbugs.audit.evaluate import NOT_FINITE
from notbugs.data import Dataset
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress
from notbugs.runs.tables.audit import (
    AuditAccuracyRow,
    AuditFileRow,
    AuditPictureRow,
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
PICTURED_FILES = 6  # of the most and of the least fragile


class _Prediction(NamedTuple):
    """One image within one threat model, or clean."""

    label: str
    predicted: str
    correct: float


def summarize(config: AuditConfig, folder: Path, report_progress: Progress) -> list[Row]:
    """The last stage: rows over all images; writes datasets/ and pictures/."""
    run, (part, form), threats = RunFolder.read(folder), test_part(config), threat_models(config)
    images = sorted(run.rows(ImageRow), key=lambda row: row.index)
    by_threat: dict[str, list[PredictionRow]] = {threat_id(config, threat): [] for threat in threats}
    for row in sorted(run.rows(PredictionRow), key=lambda row: row.index):
        by_threat[row.threat].append(row)
    rows: list[Row] = [AuditFileRow(**cells(row)) for row in images]  # type: ignore[arg-type]  # the same columns
    rows += _accuracy_rows(config, images, by_threat, threats)
    for threat in (None, *threats):
        name = CLEAN if threat is None else threat_id(config, threat)
        predictions: Sequence[ImageRow | PredictionRow] = images if threat is None else by_threat[name]
        outcomes = [_Prediction(row.label, row.predicted, _share(row)) for row in predictions]
        rows += _class_rows(name, threat, outcomes, part.classes)
        rows += _confusion_rows(name, threat, outcomes, part.classes)
    rows += _curve_rows(images, threats, {norm: restriction(config, threats, norm) for norm in norms_of(threats)})
    chosen, pictured = _chosen_files(images, threats), _pictured_threats(threats)
    stored: dict[str, Dataset] = {}
    for threat in threats:
        perturbed = _stored_images(folder, part, threat)
        _export_perturbed(config, folder, part, perturbed, threat, form)
        if threat in pictured:  # those alone, or several large sets would be in memory at once
            stored[threat_id(config, threat)] = perturbed.select([index for indices in chosen.values() for index in indices])
    pictures = _pictures(part, images, by_threat, chosen, stored)
    return rows + _picture_rows(folder, pictures, images, norms_of(threats))


# ---- tables ------------------------------------------------------------------------------------------------------------------


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


def _accuracy_rows(
    config: AuditConfig,
    images: Sequence[ImageRow],
    by_threat: Mapping[str, Sequence[PredictionRow]],
    threats: Sequence[Threat],
) -> list[AuditAccuracyRow]:
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
                attack=_attack_name(config, draws),
                correct_by_minimum_norm=sum(not row.by_minimum_norm for row in predictions) if minimum_norm else None,
                correct_8bit=round(stored),
                not_finite=sum(row.predicted == NOT_FINITE for row in predictions),
                draws=draws,
                **_targeted(config, [bool(row.reached) for row in predictions]),
                reached_8bit=None if config.target is None else sum(bool(row.reached_8bit) for row in predictions),
            )
        )
    return rows


def _attack_name(config: AuditConfig, draws: int) -> str:
    """As docs/attacks.md defines it."""
    name = attacks.ensemble_name(config.budget) + (", targeted" if config.target else "")
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
    return {"target": config.target, "reached": count, "success_rate": rate, "success_ci_low": low, "success_ci_high": high}


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


# ---- perturbed images and pictures -------------------------------------------------------------------------------------------


def _stored_images(folder: Path, part: Dataset, threat: Threat) -> Dataset:
    """The perturbed images of all parts, in the order of the data set: the parts took turns."""
    parts = sorted((folder / "parts").glob(f"*-{folder_name(threat)}"))
    images = torch.empty((len(part), *part.shape), dtype=torch.uint8)
    for number, folder_of_part in enumerate(parts):
        images[number :: len(parts)] = data.load_part(folder_of_part, "npz").images[:]
    return part.with_images(images)


def _export_perturbed(config: AuditConfig, folder: Path, part: Dataset, perturbed: Dataset, threat: Threat, form: str) -> None:
    target = folder / "datasets" / folder_name(threat)
    shutil.rmtree(target, ignore_errors=True)  # of a stage that was stopped
    said = conditions(config)
    goal = f"predicts {TARGET_RULES.get(config.target, config.target)}" if config.target else "misclassifies it"
    card = (
        f"# Adversarial examples\n\n{len(part)} images, each perturbed within {threat} so that `{Path(config.model).name}` "
        f"{goal}, or clean if no attack succeeded. Labels are the original ones. {''.join(map('{}. '.format, said))}"
        f"Constructed by notbugs {__version__}, {attacks.ensemble_name(config.budget)}.\n"
    )
    origin = data.origin_of(config.data.dataset, data.load_dataset(config.data))
    data.export(perturbed, target, form, split="test", original=part, card=card, origin=origin)


def _pictured_threats(threats: Sequence[Threat]) -> list[Threat]:
    """The threat model with the largest epsilon of each norm."""
    return list({norm_of(threat): threat for threat in threats}.values())


def _chosen_files(images: Sequence[ImageRow], threats: Sequence[Threat]) -> dict[str, list[int]]:
    """Indices of the most and the least fragile correctly classified files, by their minimum norm in the first norm."""
    norms = norms_of(threats)
    ranked = [index for index, row in enumerate(images) if row.predicted == row.label]
    if norms:
        ranked.sort(key=lambda index: minimum_norm(images[index], norms[0]))
    half = min(PICTURED_FILES, len(ranked) // 2)
    return {"most fragile": ranked[:half], "least fragile": ranked[len(ranked) - half :]}


@dataclass(frozen=True)
class _Picture:
    """One picture of the report: pixels (C, H, W) in [0, 1]."""

    index: int
    group: str
    column: str
    predicted: str
    pixels: Tensor


def _pictures(
    part: Dataset,
    images: Sequence[ImageRow],
    by_threat: Mapping[str, Sequence[PredictionRow]],
    chosen: Mapping[str, Sequence[int]],
    stored: Mapping[str, Dataset],
) -> Iterator[_Picture]:
    """The chosen files: clean, and for each pictured threat model as stored, with the perturbation beside it.

    stored: of each pictured threat model the chosen files alone, in order.
    """
    order = [(group, index) for group, indices in chosen.items() for index in indices]
    for position, (group, index) in enumerate(order):
        clean = part.pixels([index])[0]
        yield _Picture(index, group, CLEAN, images[index].predicted, clean)
        for threat, dataset in stored.items():
            perturbed = dataset.pixels([position])[0]
            perturbation = perturbed - clean
            gray = 0.5 + perturbation / (2 * perturbation.abs().max().clamp_min(1e-6))
            yield _Picture(index, group, threat, by_threat[threat][index].predicted_8bit, perturbed)
            yield _Picture(index, group, f"perturbation, {threat}", "", gray)


def _picture_rows(
    folder: Path, pictures: Iterable[_Picture], images: Sequence[ImageRow], norms: Sequence[str]
) -> list[AuditPictureRow]:
    """Saves the pictures; minimum_norm is in the first of the norms."""
    rows = []
    for number, picture in enumerate(pictures):
        name, image = f"pictures/{number:04d}.png", images[picture.index]
        data.save_image(picture.pixels, folder / name)
        rows.append(
            AuditPictureRow(
                index=picture.index,
                file=image.file,
                group=picture.group,
                label=image.label,
                minimum_norm=minimum_norm(image, norms[0]) if norms else None,
                column=picture.column,
                predicted=picture.predicted,
                picture=name,
            )
        )
    return rows
