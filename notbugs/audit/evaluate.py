"""Stages of an audit: every threat model on a part of the images, and the sanity checks."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from notbugs import attacks, data
from notbugs.attacks import sanity_checks
from notbugs.attacks.own import can_follow_gradients, own_attacks
from notbugs.attacks.randomness import eot_batch_size
from notbugs.audit.batch import BatchResult, attack_batch
from notbugs.audit.classifiers import load_classifier, search_copy
from notbugs.audit.config import AuditConfig, all_classes
from notbugs.audit.failures import blame_failing_image
from notbugs.audit.images import test_part
from notbugs.audit.random_batch import attack_random_batch
from notbugs.audit.targets import targets_of
from notbugs.audit.threats import folder_name, mask_of, norms_of, threat_id, threat_models
from notbugs.data import Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.predict import predict
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.tables.audit import CheckRow, ImageRow, PredictionRow
from notbugs.runs.tables.row import Row
from notbugs.search import NormBall

CHECK_IMAGES = 100  # images of the sanity checks
START_IMAGES = 200  # of searches without gradients
RANDOM_CHECK_IMAGES = 8  # on which forward passes are compared
NOT_FINITE = "not finite"  # stands for a predicted class where logits are NaN or infinite


def run_checks(config: AuditConfig, report_progress: Progress) -> list[CheckRow]:
    """The sanity checks, on a sample of the images, within the largest L-inf or else L2 ball; those of predictions on all."""
    part, _ = test_part(config)
    balls = [
        threat
        for threat in threat_models(config)
        if isinstance(threat, NormBall) and threat.norm in ("l2", "linf") and threat.epsilon
    ]
    model, others = load_classifier(config, config.model).model, [search_copy(config, name) for name in config.others]
    threat, count = balls[-1] if balls else None, CHECK_IMAGES
    with blame_failing_image(model, part, config.device):
        every = test_part(all_classes(config))[0]
        clean = predict(model, every, config.device), every.labels
    while True:
        sample = part.select(evenly_spaced(count, len(part)))
        images, labels = sample.pixels(slice(None)).to(config.device), sample.labels.to(config.device)
        try:
            with blame_failing_image(model, sample, config.device):
                checks = sanity_checks.run_all(
                    model,
                    images,
                    labels,
                    threat_model=threat,
                    budget=config.budget,
                    others=others,
                    classes=part.classes,
                    clean=clean,
                )
            break
        except (MemoryError, RuntimeError) as error:
            if len(sample) < 2 or not data.is_out_of_memory(error):
                raise
            count = len(sample) // 2
    passed = {True: "yes", False: "no", None: "not run"}
    return [
        CheckRow(
            check=check.name,
            passed=passed[check.passed],
            observed=check.observed,
            rationale=check.rationale,
            fix=check.fix,
            threat=str(threat or ""),
            n=len(sample) if check.n is None else check.n,
            consequence=check.consequence,
        )
        for check in checks
    ]


def evaluate_part(config: AuditConfig, start: int, step: int, draws: int, attempt: Attempt) -> list[Row]:
    """Every step-th image from `start`, clean and under every threat model; the perturbed images go to parts/.

    draws: as of `draws_of`, decided once for all parts.
    """
    part, threats = test_part(config)[0].select(slice(start, None, step)), threat_models(config)
    model = search_copy(config, config.model)
    all_images = data.load_dataset(config.data).test  # whatever --images is: the minimum norm of an image is then the same
    starts = all_images.pixels(evenly_spaced(min(START_IMAGES, len(all_images)), len(all_images))).to(config.device)

    every_target = targets_of(config)
    targets = None if every_target is None else every_target[start::step]

    def attack(images: Tensor, rows: Tensor, target: int | None) -> BatchResult:
        labels, report = part.labels[rows].to(images.device), partial(_report, attempt)
        if draws == 1:
            return attack_batch(model, images, labels, threats, config.budget, report, starts, target)
        attempt("", int(rows[:1].sum()) / max(len(part), 1), "")
        return attack_random_batch(model, images, labels, threats, config.budget, seed=start + step * int(rows[:1].sum()))

    def attack_group(rows: Tensor, target: int | None) -> BatchResult:
        """The images with one target, batch by batch."""
        size = len(rows) if draws == 1 else eot_batch_size(part.pixels([0]))
        one_batch = lambda images, index: attack(images, rows[index], target).columns  # noqa: E731
        return BatchResult(*data.map_batches(one_batch, part.select(rows), batch_size=size, device=config.device))

    with blame_failing_image(model, part, config.device):
        result = _by_target(attack_group, targets, len(part))
    pixels = part.pixels(slice(None))
    for column, threat in enumerate(threats):
        attacks.check_within(data.from_8bit(result.images[:, column]), pixels, threat)
        target = attempt.folder / "parts" / f"{start:08d}-{folder_name(threat)}"
        data.export(part.with_images(result.images[:, column]), target, "npz", card="A part of an audit.")
    indices = [start + step * row for row in range(len(part))]
    names = [None] * len(part) if targets is None else [part.classes[target] for target in targets.tolist()]
    ids = [threat_id(config, threat) for threat in threats]
    gradient = can_follow_gradients(model, pixels[:2].to(config.device))
    own = [draws == 1 and bool(own_attacks(threat, gradient=gradient)) for threat in threats]
    images = _image_rows(
        part, indices, names, norms_of(threats), result, None if (mask := mask_of(config)) is None else str(mask)
    )
    return [*images, *_prediction_rows(part, indices, names, ids, result, own)]


def _by_target(attack: Callable[[Tensor, int | None], BatchResult], targets: Tensor | None, count: int) -> BatchResult:
    """An attack on all rows at once, or on those of each target; the rows in order."""
    if targets is None:
        return attack(torch.arange(count), None)
    groups = [(targets == target).nonzero().squeeze(1) for target in targets.unique()]  # type: ignore[no-untyped-call]
    found = [attack(rows, int(targets[rows[0]])) for rows in groups]
    order = torch.cat(groups).argsort()
    return BatchResult(*(torch.cat(column)[order] for column in zip(*(each.columns for each in found), strict=True)))


def _report(report_progress: Progress, share: float) -> None:
    report_progress("", share, "")


def draws_of(config: AuditConfig) -> int:
    """How many forward passes an accuracy is the mean of: 1, or `attacks.DRAWS` of a model that is random in evaluation mode."""
    part = test_part(config)[0]
    images = part.pixels(evenly_spaced(min(RANDOM_CHECK_IMAGES, len(part)), len(part))).to(config.device)
    return attacks.DRAWS if attacks.is_random(search_copy(config, config.model), images) else 1


def _image_rows(
    part: Dataset,
    indices: Sequence[int],
    targets: Sequence[str | None],
    norms: Sequence[str],
    result: BatchResult,
    mask: str | None,
) -> list[ImageRow]:
    classes, labels, predicted = part.classes, part.labels.tolist(), result.clean_predicted.tolist()
    rows = []
    for row, (index, file) in enumerate(zip(indices, part.names, strict=True)):
        found = {f"minimum_{norm}": float(result.minimum_norms[row, column]) for column, norm in enumerate(norms)}
        minimum = {name: value for name, value in found.items() if not math.isnan(value)}
        rows.append(
            ImageRow(
                index=index,
                file=file,
                label=classes[labels[row]],
                predicted=classes[predicted[row]],
                misclassified=bool(result.clean_misclassified[row]),
                correct_draws=_draws(result.clean_correct_draws[row]),
                target=targets[row],
                mask=mask,
                **minimum,
            )
        )
    return rows


def _prediction_rows(
    part: Dataset,
    indices: Sequence[int],
    targets: Sequence[str | None],
    threats: Sequence[str],
    result: BatchResult,
    own: Sequence[bool],
) -> list[PredictionRow]:
    """own: whether registered attacks ran within each threat model, and are counted."""
    classes, labels = part.classes, part.labels.tolist()
    return [
        PredictionRow(
            index=index,
            file=file,
            label=classes[labels[row]],
            threat=threat,
            misclassified=bool(result.misclassified[row, column]),
            by_minimum_norm=bool(result.by_minimum_norm[row, column]),
            by_own_attack=bool(result.by_own_attack[row, column]) if own[column] else None,
            predicted=_class_name(classes, result.predicted[row, column]),
            predicted_8bit=_class_name(classes, result.predicted_8bit[row, column]),
            misclassified_8bit=bool(result.misclassified_8bit[row, column]),
            correct_draws=_draws(result.correct_draws[row, column]),
            correct_draws_8bit=_draws(result.correct_draws_8bit[row, column]),
            target=targets[row],
            reached=None if targets[row] is None else bool(result.reached[row, column]),
            reached_8bit=None if targets[row] is None else bool(result.reached_8bit[row, column]),
        )
        for column, threat in enumerate(threats)
        for row, (index, file) in enumerate(zip(indices, part.names, strict=True))
    ]


def _class_name(classes: Sequence[str], predicted: Tensor) -> str:
    return NOT_FINITE if predicted < 0 else classes[int(predicted)]


def _draws(correct: Tensor) -> int | None:
    return None if correct < 0 else int(correct)
