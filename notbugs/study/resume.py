"""A study that is resumed: what must be as when it began, what stays part of it, and what must still be there."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from notbugs import data, precision
from notbugs.data import Splits
from notbugs.data.load import fingerprint
from notbugs.data.names import MissingError
from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions.registry import check_unchanged
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import StudyMetadata
from notbugs.runs.runner import check_same_data
from notbugs.runs.scheduler import describe_machine
from notbugs.runs.tables.study import AccuracyRow
from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import EXTENSIONS
from notbugs.study.config import ADDED, ResolvedConfig, StudyConfig
from notbugs.study.epsilon_source import SOURCES
from notbugs.study.given import GIVEN, GivenModel
from notbugs.study.graph import Graph, StageId
from notbugs.study.store import missing, vanished


def digest_of_same_images(record: RunFolder, config: StudyConfig, splits: Splits) -> str:
    """The fingerprint of the data. Raises InputError if they are others than when the run began."""
    digest = fingerprint(splits.train, splits.test)
    check_same_data(record, digest, config.dataset, "must hold the same images as when this run began")
    data.keep_index(record.folder, splits, config.resize)
    return digest


def without_later_noise(config: StudyConfig, folder: Path) -> StudyConfig:
    """Without the noise that adversarial training of `mnist5k` has by default since the study in `folder` began, if there is one.

    A study without noise has no entry for it.
    """
    if config.adversarial_noise is not None or not (folder / "run.json").exists():
        return config
    with suppress(InputError):  # said when it is opened
        run = RunFolder.read(folder)
        if run.kind == "study" and "adversarial_noise" not in run.metadata["arguments"]:
            return replace(config, adversarial_noise=0.0)
    return config


@contextmanager
def naming_run(folder: Path, dataset: str) -> Iterator[None]:
    """Errors of a data set that is not there any more name the run that it belongs to: the user did not give it."""
    try:
        yield
    except InputError as error:
        parameter, rule, got, _ = error.args
        if parameter != dataset or not isinstance(error, MissingError):
            raise
        remedy = "put it back, or a link to it; a relative path counts from the folder where the command is called"
        raise InputError(dataset, f"{rule}; run.json of {folder} names it as the data set", got, remedy) from None


def check_same_code(record: RunFolder, earlier: StudyMetadata, given: GivenModel | None) -> None:
    """Raises InputError where the model of --model, or a module of one's own, changed since the run began."""
    if given and earlier.settings.get("model_sha256", given.sha256) != given.sha256:
        got = f"{given.name}, which has changed"
        raise InputError("--model", "must be the same model as when this run began", got, "give another --out")
    check_unchanged(record.metadata.get("extension_files", {}), EXTENSIONS.hashes())


def with_earlier(config: ResolvedConfig, earlier: StudyMetadata, bf16: bool | None) -> ResolvedConfig:
    """What was added in an earlier run stays part of the study, why epsilon has its value, and what was decided on a CPU.

    bf16: as asked for.
    """
    recorded = earlier.settings.get("epsilon_from")
    source = next((each for each in SOURCES if each == recorded), config.epsilon_from)
    before, here = earlier.settings.get("bf16"), ("cpu", describe_machine("cpu"))
    if bf16 is None and isinstance(before, bool) and config.device == "cpu" and (earlier.device, earlier.machine) == here:
        config = replace(config, bf16=before)
    return replace(config, epsilon_from=source, **{name: getattr(config, name) or getattr(earlier, name) for name in ADDED})


def kept_device(earlier: StudyMetadata, only: Collection[str] | None) -> dict[str, str]:
    """The device of a study of which only analyses are done here, where that device is not."""
    analyzed = only is not None and {*only} <= {*ANALYSES} and earlier.device
    return {"device": earlier.device, "machine": earlier.machine} if analyzed and not precision.is_present(earlier.device) else {}


def adopt_evaluations(record: RunFolder, graph: Graph) -> None:
    """Runs that began before evaluations were stages of their own measured accuracy in the stage that trained the model."""
    for stage_id in graph:
        trained = record.metadata["stages"].get(str(replace(stage_id, kind="model")), {})
        if stage_id.kind == "evaluation" and AccuracyRow.table in trained.get("rows", {}) and not record.done(str(stage_id)):
            record.record_stage(str(stage_id), 0.0)


def check_nothing_vanished(record: RunFolder, config: ResolvedConfig, graph: Graph, todo: Sequence[StageId]) -> None:
    """Raises InputError where what a finished stage wrote is needed and not there any more; warns of what is not needed."""
    needed = {need for stage_id in todo for need in graph[stage_id].needs}
    gone: list[Path] = []
    for stage_id in graph:
        if not record.done(str(stage_id)) or (stage_id.name == GIVEN and config.model is not None):
            continue
        if path := missing(config, record.folder, stage_id.seed, stage_id.kind, stage_id.name):
            if stage_id in needed:
                raise vanished(path)
            gone.append(path)
    if gone:  # nothing is refused: the rest is done, and the exit code is 0
        what = str(gone[0]) if len(gone) == 1 else f"{len(gone)} files of finished stages, {gone[0]} among them,"
        text = f"{what} {'is' if len(gone) == 1 else 'are'} missing, which nothing that is left to do needs"
        warnings.warn(text, NotbugsWarning, stacklevel=2)
