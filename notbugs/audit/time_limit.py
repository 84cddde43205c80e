"""An audit that ends at a time limit: what is running then is given up, what is finished counts."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeVar

from notbugs.audit.config import AuditConfig
from notbugs.audit.tables import accuracy_rows
from notbugs.audit.threats import threat_id, threat_models
from notbugs.errors import InputError
from notbugs.runs.engine import Engine
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import default_workers
from notbugs.runs.tables.audit import AuditAccuracyRow, ImageRow, PredictionRow
from notbugs.runs.workers import worker_processes

Answer = TypeVar("Answer")
CLOCK: Callable[[], float] = time.monotonic


class TimeLimitError(InputError):
    """The time limit is reached."""


@contextmanager
def ending_at(deadline: float, engine: Engine | None, workers: int | None, device: str) -> Iterator[Engine]:
    """An engine whose jobs end at a time of `CLOCK`: `TimeLimitError`. A job in this process could not be ended.

    engine, workers, device: as `runs.runner.run_stages` takes them.
    """
    with ExitStack() as stack:
        if engine is None:
            count = default_workers(device) if workers is None else workers
            engine = stack.enter_context(worker_processes(count))
        yield replace(engine, check=_checks(engine.check, deadline), at_once=_checks(engine.at_once, deadline))


def _checks(asked: Callable[[], Answer], deadline: float) -> Callable[[], Answer]:
    def check() -> Answer:
        if CLOCK() >= deadline:
            raise TimeLimitError("--time-limit", "is reached")
        return asked()

    return check


def measured_rows(config: AuditConfig, record: RunFolder) -> list[AuditAccuracyRow]:
    """Accuracies over the images of the parts that are done; [] if there are none.

    Each part holds images of all classes, evenly spaced: what is done is a sample of all images.
    """
    images = record.rows(ImageRow)
    threats = threat_models(config) if images else []
    by_threat: dict[str, list[PredictionRow]] = {threat_id(config, threat): [] for threat in threats}
    for row in record.rows(PredictionRow):
        by_threat[row.threat].append(row)
    return accuracy_rows(config, images, by_threat, threats, gradient=record.audit().gradient) if images else []
