"""From a configuration to a run folder: a study, further analyses of one, or a single classifier."""

import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from notbugs import data, datacheck, metrics, models, precision
from notbugs.atomic import StrPath
from notbugs.data import Splits
from notbugs.data.load import fingerprint
from notbugs.data_config import asked_options, check_outside
from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions.registry import check_unchanged
from notbugs.metrics import Accuracy
from notbugs.models.notes import keeping_notes
from notbugs.runs.attempts import Attempt, unfinished_folder
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.metadata import StudyMetadata
from notbugs.runs.runner import Stage, check_same_data, describe_device, run_stages
from notbugs.runs.scheduler import describe_machine, ignore_progress
from notbugs.runs.tables.analyses import CorruptionRow, FourierRow, SaliencyRow
from notbugs.runs.tables.data_check import DataCheckRow
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import AccuracyRow
from notbugs.study import single
from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import EXTENSIONS
from notbugs.study.catalog.models import STRONG_MODELS
from notbugs.study.config import (
    ADDED,
    ResolvedConfig,
    StudyConfig,
    config_of_run,
    load,
    resumable_arguments,
)
from notbugs.study.epsilon_source import SOURCES
from notbugs.study.given import GIVEN, GivenModel, given_model, with_warning
from notbugs.study.graph import Graph, StageId, StudyStage, Work, select_stages, study_graph
from notbugs.study.metadata import study_metadata
from notbugs.study.plan import Plan, make_plan
from notbugs.study.resolve import check_constructions, check_size, flip_is_measured, resolve, uses_bfloat16
from notbugs.study.store import missing, vanished

__all__ = ["StageId", "StudyStage", "run", "run_analyses", "select_stages", "study_graph", "train_single"]

TOGETHER = ("model", "dataset", "evaluation")  # kinds of stages that several processes share; of others each does one


@data.keeping_loads()
def run(
    config: StudyConfig,
    folder: StrPath,
    *,
    only: Collection[str] | None = None,
    asked: StudyConfig | None = None,
    command: str = "",
    workers: int | None = None,
    engine: Engine | None = None,
    report_progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_stage: Callable[[str, Sequence[Row], float], None] | None = None,
) -> RunFolder:
    """Do a study, or what is left to do of the one in `folder`.

    What is finished is not done again, also after an interruption. Seeds, controls (`full`), the replication and a stronger D_R
    may be added later; once there, they stay part of the study.

    Parameters
    ----------
    config : StudyConfig
    folder : str or path
        New, or of an earlier run with the same settings.
    only : collection of str, optional
        Labels of stages, like "standard" or "dataset-robust", to do with all that they need; the rest can be done later.
    asked : StudyConfig, optional
        What was asked for, where the rest of `config` was taken from an earlier run; recorded in run.json. Default: `config`.
    command : str
        Recorded in run.json.
    workers : int, optional
        Stages at once, each in a process of its own. Default: one per core on a CPU, one per GPU.
    engine : Engine, optional
        Does the stages in place of worker processes (`runs.executors.open_engine`).
    report_progress : callable, optional
    on_plan : callable, optional
        Called before any work with what will be done and an estimate of the time.
    on_stage : callable, optional
        Called with name, rows and seconds of each stage as it is finished.

    Returns
    -------
    RunFolder

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.
    """
    EXTENSIONS.check_in_time()
    EXTENSIONS.check_functions()
    check_outside(config, folder := Path(folder))
    data.use_index(folder)
    splits = load(config)
    resolved, network_notes = _resolved(config, splits)
    given = given_model(resolved)
    if given:
        given = with_warning(given, splits.test, resolved.device)
    with RunFolder.open(folder, resumable_arguments(resolved)) as record:
        digest = _digest_of_same_images(record, config, splits)
        earlier = record.study()
        _check_same_code(record, earlier, given)
        resolved = _with_earlier(resolved, earlier, config.bf16)
        _adopt_evaluations(record, study_graph(resolved))
        settled = earlier.finished and _all_done(record, study_graph(resolved))  # further analyses change no metadata of it
        seeds = sorted({*earlier.seeds, *range(resolved.seed, resolved.seed + resolved.seeds)})
        if not settled:
            options = {**earlier.options, **asked_options(asked or config)}
            metadata = {**study_metadata(resolved, splits, given, command), **network_notes, **_kept_device(earlier, only)}
            record.update_metadata(**metadata, fingerprint=digest, seeds=seeds, options=options)
            write_table(data.file_rows(splits), folder / "tables" / "data_files.csv")
        # settled: done before there was a check, or long checked
        findings = [] if settled else _checked(record, config, resolved, splits)
        graph = study_graph(resolved, analyses=only is not None)
        selected, place = select_stages(graph, only), _Place(resolved, config.bf16, engine.device if engine else None)
        todo = [stage_id for stage_id in selected if not record.done(str(stage_id))]
        _check_nothing_vanished(record, resolved, graph, todo)
        if on_plan:
            at_once = workers if engine is None else max(1, min(engine.at_once(), len(todo)))
            begun = [name for name in map(str, todo) if unfinished_folder(folder, name).is_dir()]
            plan = make_plan(resolved, splits, graph, todo, at_once, given, findings)
            on_plan(_on_engine(replace(plan, begun=begun), engine))
        run_stages(
            record,
            {str(stage_id): _stage(graph, stage_id, place, folder) for stage_id in selected},
            device=resolved.device,
            workers=workers,
            engine=engine,
            report_progress=report_progress,
            on_stage=on_stage,
            count_seconds=not settled,
        )
        whole = study_graph(replace(resolved, seeds=seeds[-1] - resolved.seed + 1))
        record.update_metadata(finished=_all_done(record, whole))
        return record


@data.keeping_loads()
def run_analyses(
    folder: StrPath,
    names: Collection[str],
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    report_progress: Progress | None = None,
) -> RunFolder:
    """Do further analyses of a study, with all that they need.

    Parameters
    ----------
    folder : str or path
        Of a study, finished or not.
    names : collection of str
        Of `analyses.ANALYSES`.
    workers : int, optional
    engine : Engine, optional
    report_progress : callable, optional

    Returns
    -------
    RunFolder

    Raises
    ------
    InputError
        If the folder holds no study, its data have changed, or there is no such analysis.
    """
    folder = Path(folder)
    data.use_index(folder)
    if unknown := sorted({*names} - {*ANALYSES}):
        raise InputError("stage", "must be one of " + ", ".join(ANALYSES), ", ".join(unknown))
    record = RunFolder.read(folder)
    config, command = config_of_run(record), record.study().command
    if config.device and not precision.is_present(config.device) and not (engine and engine.device):
        text = f"{folder} was made on {config.device}, which is not here: this is done on cpu"
        warnings.warn(text, NotbugsWarning, stacklevel=2)
        config = replace(config, device="cpu")
    _say_made_before_the_stronger(record, config, names)
    asked = StudyConfig(config.dataset)
    return run(
        config,
        folder,
        only=names,
        asked=asked,
        command=command,
        workers=workers,
        engine=engine,
        report_progress=report_progress,
    )


def _kept_device(earlier: StudyMetadata, only: Collection[str] | None) -> dict[str, str]:
    """The device of a study of which only analyses are done here, where that device is not."""
    analyzed = only is not None and {*only} <= {*ANALYSES} and earlier.device
    return {"device": earlier.device, "machine": earlier.machine} if analyzed and not precision.is_present(earlier.device) else {}


def _say_made_before_the_stronger(record: RunFolder, config: StudyConfig, names: Collection[str]) -> None:
    """Warns of analyses that were done before `--robust-strong` was added: a stage is done once."""
    tables: dict[str, type[SaliencyRow] | type[CorruptionRow] | type[FourierRow]] = {
        "saliency": SaliencyRow, "corruptions": CorruptionRow, "fourier": FourierRow
    }  # fmt: skip
    for name in names:
        done = config.robust_strong and name in tables and record.done(f"seed{config.seed}/{name}")
        if done and not any(row.model in STRONG_MODELS for row in record.rows(tables[name])):
            text = f"{name} was measured before the stronger D_R was added to {record.folder}: it has no figures of it"
            warnings.warn(text, NotbugsWarning, stacklevel=3)


def train_single(
    config: StudyConfig,
    path: StrPath,
    *,
    loss: str = "standard",
    optimizer: str = "adamw",
    stop_early: int | None = None,
    report_progress: Progress | None = None,
) -> list[Accuracy]:
    """Train one classifier on the original images and save it. Where the same call was stopped, it goes on from NAME.training.pt.

    Parameters
    ----------
    config : StudyConfig
    path : str or path
        NAME.safetensors; NAME.json is written, too, with a summary of the data.
    loss, optimizer, stop_early
        As `single.SingleTraining` has them.
    report_progress : callable, optional

    Returns
    -------
    list of Accuracy
        On the test images: clean, at half of epsilon and at epsilon.

    Raises
    ------
    InputError
        Before training if the input cannot be used or the file cannot be written.
    """
    path, training = Path(path), single.SingleTraining(loss, optimizer, stop_early)
    training.check(lambda name: "--" + name.replace("_", "-"))
    check_outside(config, path, path.with_suffix(".json"), single.unfinished_path(path))
    splits = load(config)
    resolved = resolve(training.with_defaults(config), splits)
    models.check_writable(path)
    report = report_progress or ignore_progress
    with single.resumable(path, resolved, splits, training, report=lambda: report("", 0.0, "")) as checkpoint:
        found = single.train_single(resolved, splits, training, report_progress=report, checkpoint=checkpoint)
        about = {"dataset": config.dataset, **data.summary(splits)}
        single.save_single(found, resolved, training, path, data=about, flip=resolved.flip)
    model = found.trained.model
    return metrics.robust_accuracy(model, splits.test, resolved.threat_models, device=resolved.device)


# ---- parts -----------------------------------------------------------------------------------------------------------------


def _resolved(config: StudyConfig, splits: Splits) -> tuple[ResolvedConfig, dict[str, dict[str, list[str]]]]:
    """The resolved configuration, and what run.json says of the networks to train: what was decided in building them."""
    if config.robust_model and not config.pretrained:
        rule = "needs the standard classifiers to be fine-tuned, too: all are trained with the same settings"
        raise InputError("--robust-model", rule, None, "pass --network and --pretrained")
    check_size(config.data, splits)
    with keeping_notes() as notes:
        resolved = resolve(config, splits)
    check_constructions(resolved, splits)
    return resolved, {"network_notes": notes} if notes else {}


def _digest_of_same_images(record: RunFolder, config: StudyConfig, splits: Splits) -> str:
    """The fingerprint of the data. Raises InputError if they are others than when the run began."""
    digest = fingerprint(splits.train, splits.test)
    check_same_data(record, digest, config.dataset, "must hold the same images as when this run began")
    data.keep_index(record.folder, splits, config.resize)
    return digest


class _Place(NamedTuple):
    """What a stage is told of where it is done. bf16: as asked for; device: chosen there, if it is not None."""

    config: ResolvedConfig
    bf16: bool | None
    device: Callable[[], str] | None

    def config_there(self) -> ResolvedConfig:
        """The configuration, with what depends on the device."""
        if self.device is None:
            return self.config
        found = self.device()
        on_cpu = self.config.bf16 and self.config.device == "cpu"
        return replace(self.config, device=found, bf16=uses_bfloat16(self.bf16, found, on_cpu=on_cpu))


def _stage(graph: Graph, stage_id: StageId, place: _Place, folder: Path) -> Stage:
    stage = graph[stage_id]
    work = partial(_done_there, stage.work, place, folder, stage_id.seed)
    return Stage(tuple(map(str, stage.needs)), work, partial(_stage_metadata, place), together=stage_id.kind in TOGETHER)


def _done_there(work: Work, place: _Place, folder: Path, seed: int, attempt: Attempt) -> Sequence[Row]:
    return work(place.config_there(), folder, seed, attempt)


def _checked(record: RunFolder, config: StudyConfig, resolved: ResolvedConfig, splits: Splits) -> Sequence[DataCheckRow]:
    """The findings of the data check, also on mirroring where it decides on flips or images are mirrored."""
    mirroring = resolved.flip or flip_is_measured(config.flip, config.dataset, splits.train)
    return datacheck.check_stage(record, splits.train, splits.test, mirroring=mirroring, flips=resolved.flip)


def _check_same_code(record: RunFolder, earlier: StudyMetadata, given: GivenModel | None) -> None:
    """Raises InputError where the model of --model, or a module of one's own, changed since the run began."""
    if given and earlier.settings.get("model_sha256", given.sha256) != given.sha256:
        got = f"{given.name}, which has changed"
        raise InputError("--model", "must be the same model as when this run began", got, "give another --out")
    check_unchanged(record.metadata.get("extension_files", {}), EXTENSIONS.hashes())


def _with_earlier(config: ResolvedConfig, earlier: StudyMetadata, bf16: bool | None) -> ResolvedConfig:
    """What was added in an earlier run stays part of the study, why epsilon has its value, and what was decided on a CPU.

    bf16: as asked for.
    """
    recorded = earlier.settings.get("epsilon_from")
    source = next((each for each in SOURCES if each == recorded), config.epsilon_from)
    before, here = earlier.settings.get("bf16"), ("cpu", describe_machine("cpu"))
    if bf16 is None and isinstance(before, bool) and config.device == "cpu" and (earlier.device, earlier.machine) == here:
        config = replace(config, bf16=before)
    return replace(config, epsilon_from=source, **{name: getattr(config, name) or getattr(earlier, name) for name in ADDED})


def _adopt_evaluations(record: RunFolder, graph: Graph) -> None:
    """Runs that began before evaluations were stages of their own measured accuracy in the stage that trained the model."""
    for stage_id in graph:
        trained = record.metadata["stages"].get(str(replace(stage_id, kind="model")), {})
        if stage_id.kind == "evaluation" and AccuracyRow.table in trained.get("rows", {}) and not record.done(str(stage_id)):
            record.record_stage(str(stage_id), 0.0)


def _check_nothing_vanished(record: RunFolder, config: ResolvedConfig, graph: Graph, todo: Sequence[StageId]) -> None:
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


def _all_done(record: RunFolder, graph: Graph) -> bool:
    return all(record.done(str(stage_id)) for stage_id in graph)


def _on_engine(plan: Plan, engine: Engine | None) -> Plan:
    """A plan that says how the engine does stages at once."""
    if engine is None:
        return plan
    return replace(plan, knows_workers=engine.at_once() < sys.maxsize, together=engine.together is not None)


def _stage_metadata(place: _Place) -> dict[str, object]:
    config = place.config_there()
    return {**describe_device(config), "bf16": config.bf16}
