"""What a pipeline is told of an audit, also of one that its time limit ended."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from notbugs.audit.config import AuditConfig
from notbugs.audit.images import test_part
from notbugs.audit.run import CHECKS
from notbugs.audit.time_limit import measured_rows
from notbugs.gate import Evaluation, Requirement, TimeLimit, decide
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow, ImageRow


def evaluate(
    config: AuditConfig,
    record: RunFolder,
    required: Sequence[tuple[Requirement, str]] = (),
    time_limit: float | None = None,
    accepted: Collection[str] = (),
) -> Evaluation:
    """Compare an audit with what is required of it.

    Parameters
    ----------
    config : AuditConfig
    record : RunFolder
        As `run` returns it.
    required : sequence of (Requirement, str)
        Each with the threat model that it is about, as tables call it.
    time_limit : float, optional
        The limit in seconds that `run` had.
    accepted : collection of str
        Names of sanity checks whose failure does not count.
    """
    metadata, checks = record.audit(), record.rows(CheckRow)
    rows = record.rows(AuditAccuracyRow) or measured_rows(config, record)
    images, limit = len(test_part(config)[0]), None
    if not metadata.finished and time_limit is not None:
        stages = [CHECKS, *(f"part {number + 1} of {record.metadata['parts']}" for number in range(record.metadata["parts"]))]
        left = tuple(stage for stage in stages if not record.done(stage))
        limit = TimeLimit(time_limit, len(record.rows(ImageRow)), images, left, record.done(CHECKS))
    return Evaluation(
        command=metadata.command,
        model=config.model,
        dataset=config.data.dataset,
        budget=config.budget,
        images=images,
        conditions=metadata.conditions,
        rows=rows,
        checks=checks,
        decision=decide(rows, checks, required, limit, accepted, available=len(test_part(replace(config, images=None))[0])),
        seconds=metadata.seconds,
        started=metadata.started,
    )
