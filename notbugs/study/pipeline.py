"""From a configuration to a run folder: a study, or further analyses of one."""

import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from notbugs import data, datacheck, precision
from notbugs.atomic import StrPath
from notbugs.data import Splits
from notbugs.data_config import asked_options, check_outside
from notbugs.errors import InputError, NotbugsWarning
from notbugs.models.notes import keeping_notes
from notbugs.runs.attempts import unfinished_folder
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.runner import run_stages
from notbugs.runs.tables.analyses import CorruptionRow, FourierRow, SaliencyRow
from notbugs.runs.tables.data_check import DataCheckRow
from notbugs.runs.tables.row import Row
from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import EXTENSIONS
from notbugs.study.catalog.models import STRONG_MODELS
from notbugs.study.config import ResolvedConfig, StudyConfig, config_of_run, load, resumable_arguments
from notbugs.study.given import given_model, with_warning
from notbugs.study.graph import Graph, select_stages, study_graph
from notbugs.study.metadata import study_metadata
from notbugs.study.plan import Plan, make_plan
from notbugs.study.resolve import check_constructions, check_size, flip_is_measured, resolve
from notbugs.study.resume import (
    adopt_evaluations,
    check_nothing_vanished,
    check_same_code,
    digest_of_same_images,
    kept_device,
    naming_run,
    with_earlier,
    without_later_noise,
)
from notbugs.study.stages import Place, runner_stage


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
    resolved, network_notes = _resolved(without_later_noise(config, folder), splits)
    given = given_model(resolved)
    if given:
        given = with_warning(given, splits.test, resolved.device)
    with RunFolder.open(folder, resumable_arguments(resolved)) as record:
        digest = digest_of_same_images(record, config, splits)
        earlier = record.study()
        check_same_code(record, earlier, given)
        resolved = with_earlier(resolved, earlier, config.bf16)
        adopt_evaluations(record, study_graph(resolved))
        settled = earlier.finished and _all_done(record, study_graph(resolved))  # further analyses change no metadata of it
        seeds = sorted({*earlier.seeds, *range(resolved.seed, resolved.seed + resolved.seeds)})
        if not settled:
            options = {**earlier.options, **asked_options(asked or config)}
            metadata = {**study_metadata(resolved, splits, given, command), **network_notes, **kept_device(earlier, only)}
            record.update_metadata(**metadata, fingerprint=digest, seeds=seeds, options=options)
            write_table(data.file_rows(splits), folder / "tables" / "data_files.csv")
        # settled: done before there was a check, or long checked
        findings = [] if settled else _checked(record, config, resolved, splits)
        graph = study_graph(resolved, analyses=only is not None)
        selected, place = select_stages(graph, only), Place(resolved, config.bf16, engine.device if engine else None)
        todo = [stage_id for stage_id in selected if not record.done(str(stage_id))]
        check_nothing_vanished(record, resolved, graph, todo)
        if on_plan:
            at_once = workers if engine is None else max(1, min(engine.at_once(), len(todo)))
            begun = [name for name in map(str, todo) if unfinished_folder(folder, name).is_dir()]
            plan = make_plan(resolved, splits, graph, todo, at_once, given, findings)
            on_plan(_on_engine(replace(plan, begun=begun), engine))
        run_stages(
            record,
            {str(stage_id): runner_stage(graph, stage_id, place, folder) for stage_id in selected},
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
    with naming_run(folder, config.dataset):
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


def _checked(record: RunFolder, config: StudyConfig, resolved: ResolvedConfig, splits: Splits) -> Sequence[DataCheckRow]:
    """The findings of the data check, also on mirroring where it decides on flips or images are mirrored."""
    mirroring = resolved.flip or flip_is_measured(config.flip, config.dataset, splits.train)
    return datacheck.check_stage(record, splits.train, splits.test, mirroring=mirroring, flips=resolved.flip)


def _all_done(record: RunFolder, graph: Graph) -> bool:
    return all(record.done(str(stage_id)) for stage_id in graph)


def _on_engine(plan: Plan, engine: Engine | None) -> Plan:
    """A plan that says how the engine does stages at once."""
    if engine is None:
        return plan
    return replace(plan, knows_workers=engine.at_once() < sys.maxsize, together=engine.together is not None)
