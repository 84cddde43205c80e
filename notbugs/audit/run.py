"""An audit as a run: evaluates parts of the images side by side, then summarizes them in a run folder."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from notbugs import attacks, data, datacheck
from notbugs.atomic import StrPath
from notbugs.attacks.budgets import check_budget
from notbugs.attacks.own import attack_name, warn_of_unused
from notbugs.audit.class_order import write_class_map
from notbugs.audit.classifiers import digest, load_classifier, report_order, search_copy
from notbugs.audit.config import AuditConfig, all_classes
from notbugs.audit.cost import AuditPlan, plan
from notbugs.audit.default_threats import with_epsilon
from notbugs.audit.evaluate import draws_of, evaluate_part, run_checks
from notbugs.audit.failures import blame_failing_image
from notbugs.audit.images import target_digest, test_part
from notbugs.audit.summary import summarize
from notbugs.audit.threats import Threat, conditions, mask_of, target_name, threat_id, threat_models
from notbugs.audit.time_limit import CLOCK, TimeLimitError, ending_at
from notbugs.data import Dataset
from notbugs.data.load import fingerprint
from notbugs.data.subset import evenly_spaced
from notbugs.data_config import check_outside
from notbugs.errors import InputError
from notbugs.extensions.registry import check_present, check_unchanged, registered
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.folder import RunFolder, common_metadata, write_table
from notbugs.runs.runner import Stage, check_same, check_same_data, describe_device, on_device, run_stages
from notbugs.runs.scheduler import describe_machine
from notbugs.runs.tables.row import Row
from notbugs.search import NormBall
from notbugs.study.given import DIGEST_IMAGES

# What is interrupted loses the parts that are not finished. Small images are attacked faster in large parts, large images are not
PART_IMAGES, FEWEST_IMAGES = 100, 20  # of 32x32 pixels or less; of the largest
PART_IMAGES_IN_TIME, FEWEST_IMAGES_IN_TIME = 25, 10  # under a time limit
SMALL_IMAGE = 32 * 32  # pixels; twice as many make a part half as large
PARTS_IN_TIME = 5  # at least, of few images
CHECKS, PART, SUMMARY = "checks", "part", "summary"  # stages


@data.keeping_loads()
def run(
    config: AuditConfig,
    folder: StrPath,
    *,
    command: str = "",
    workers: int | None = None,
    engine: Engine | None = None,
    report_progress: Progress | None = None,
    on_plan: Callable[[AuditPlan], None] | None = None,
    time_limit: float | None = None,
) -> RunFolder:
    """Audit one classifier, or resume the audit that is in `folder`.

    Parameters
    ----------
    config : AuditConfig
    folder : str or path
        A new folder, or that of an earlier audit with the same configuration.
    command : str
        Recorded in run.json.
    workers : int, optional
        Stages at once. Default: one per core on a CPU, one per GPU.
    engine : Engine, optional
        Does the stages in place of worker processes (`runs.executors.open_engine`).
    report_progress : callable, optional
    on_plan : callable, optional
        Called before the first attack with what will be done and about how long that takes.
    time_limit : float, optional
        Seconds after which no image is attacked any more. What is being done then is given up; the same command resumes it.

    Returns
    -------
    RunFolder
        Finished: tables, perturbed images in datasets/, pictures. If the time limit was reached, not finished:
        `time_limit.measured_rows` has the accuracies.

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.
    """
    folder, began = Path(folder), CLOCK()
    check_budget(config.budget, "--budget")
    check_outside(config.data, folder)
    data.use_index(folder)
    config = with_epsilon(config)
    part, form = test_part(config)
    threats = threat_models(config)
    for name in (config.model, *config.others):
        load_classifier(config, name)
    draws = _decided_draws(config)
    mask = "" if (found := mask_of(config)) is None else str(found)
    targets = target_digest(config)
    registered().check_in_time()
    registered().check_functions()
    with RunFolder.open(folder, _arguments(config)) as record:
        check_present([str(name) for name in record.metadata.get("extensions", ())], registered().names)
        digests = {name: digest(config, name) for name in (config.model, *config.others)}
        same_images = f"{config.data.dataset} must hold the same images as when this audit began"
        hashed = fingerprint(part)
        check_same_data(record, hashed, "--out", same_images)
        data.keep_index(folder, data.load_dataset(config.data), config.data.resize)
        check_same(record, "mask", mask, "--mask", "must be the same as when this audit began")
        check_same(record, "target_digest", targets, "--target", "must be the same as when this audit began")
        check_same(record, "digests", digests, "--out", "models must be the same as when this audit began")
        draws = int(record.metadata.get("draws", draws))  # an audit goes on as it began
        metadata = _metadata(config, part, threats, form, command) | {"draws": draws}
        _check_same_attack(record, metadata["attack"])
        record.update_metadata(**metadata, fingerprint=hashed, digests=digests, mask=mask, target_digest=targets)
        write_table(data.file_rows(data.load_dataset(config.data)), folder / "tables" / "data_files.csv")
        rows = _first_rows(record, part, config.device, time_limit)
        datacheck.check_stage(record, None, test_part(all_classes(config))[0], chosen=config.images is not None)
        report_order(config, config.model, *config.others)
        stages = _stages(config, folder, rows, draws, engine, checks_first=time_limit is not None)
        if on_plan and (planned := _plan(config, record, stages, draws, engine.at_once() if engine else workers)):
            on_plan(planned)
        do = partial(run_stages, record, device=config.device, workers=workers, report_progress=report_progress)
        if time_limit is not None:
            try:
                with ending_at(began + time_limit, engine, workers, config.device) as ending:
                    do({name: stage for name, stage in stages.items() if name != SUMMARY}, engine=ending)
            except TimeLimitError:
                return record
        do(stages, engine=engine)
        write_class_map(record, part.classes)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        record.update_metadata(finished=True)
        return record


def _decided_draws(config: AuditConfig) -> int:
    """`draws_of`, once for all parts. Raises InputError for a random model that is to be attacked toward a class."""
    draws = draws_of(config)
    if config.target is not None and draws > 1:
        rule = "must be left out for a model that is random in evaluation mode: success in some of its draws is not defined"
        raise InputError("--target", rule, config.target, "attack it without its randomness")
    return draws


def _plan(config: AuditConfig, record: RunFolder, stages: Collection[str], draws: int, at_once: int | None) -> AuditPlan | None:
    """Of what is left to do; None if that is at most the summary."""
    marks, work = record.metadata["stages"], [name for name in stages if name != SUMMARY]
    left = [name for name in work if not record.done(name)]
    seconds = [float(marks[name]["seconds"]) for name in work if name.startswith(PART) and record.done(name)]
    return plan(config, at_once, draws).of_stages(left, len(work), seconds) if left else None


def _check_same_attack(record: RunFolder, attack: object) -> None:
    """Raises InputError where an audit would go on with another ensemble, or other registered attacks, than it began with."""
    if (began := record.metadata.get("attack", attack)) != attack:
        raise InputError("--out", f"must go on with the attack that it began with, {began}", attack, "give another --out")
    check_unchanged(record.metadata.get("extension_files", {}), registered().hashes())


def _first_rows(record: RunFolder, part: Dataset, device: str, time_limit: float | None) -> list[int]:
    """The first image of each part, in the order of parts; an audit that goes on keeps its own.

    A time limit divides the parts: audits that end anywhere, with a limit or without, have most of their images in common.
    """
    size = _part_images(len(part), part.shape, device)
    whole, pieces = -(-len(part) // size), 1
    if time_limit is not None:
        pieces = -(-size // min(size, _part_images(len(part), part.shape, device, in_time=True)))
    if "parts" in record.metadata:
        pieces = int(record.metadata.get("pieces", 1))
        whole = int(record.metadata["parts"]) // pieces
    record.update_metadata(parts=whole * pieces, pieces=pieces)
    return [number + whole * piece for number in range(whole) for piece in range(pieces)]


def _part_images(images: int, shape: Sequence[int], device: str, *, in_time: bool = False) -> int:
    """How many images a part has at most. in_time: under a time limit.

    Examples
    --------
    >>> shapes = (1, 8, 8), (3, 32, 32), (3, 64, 64), (3, 224, 224)
    >>> [_part_images(1000, shape, "cpu") for shape in shapes]
    [100, 100, 25, 20]
    >>> [_part_images(1000, shape, "cpu", in_time=True) for shape in shapes]
    [25, 25, 10, 10]
    >>> _part_images(90, (1, 8, 8), "cpu"), _part_images(1000, (3, 224, 224), "cuda")
    (45, 100)
    """
    most, least = (PART_IMAGES_IN_TIME, FEWEST_IMAGES_IN_TIME) if in_time else (PART_IMAGES, FEWEST_IMAGES)
    if device == "cpu":
        most = max(least, min(most, most * SMALL_IMAGE // (shape[-1] * shape[-2])))
    if in_time:
        return max(1, min(most, images // PARTS_IN_TIME))
    share = -(-images // 2) if device == "cpu" else images
    return max(min(most, share), min(least, images))


def _stages(
    config: AuditConfig, folder: Path, first_rows: Sequence[int], draws: int, engine: Engine | None, *, checks_first: bool
) -> dict[str, Stage]:
    """Each part holds every n-th image, so that each has all classes. What a time limit cuts counts only with the checks."""
    parts, describe = len(first_rows), on_device(describe_device, config, engine)
    names = [f"{PART} {number + 1} of {parts}" for number in range(parts)]
    work: dict[str, Callable[[Attempt], Sequence[Row]]] = {
        name: on_device(evaluate_part, config, engine, row, parts, draws) for name, row in zip(names, first_rows, strict=True)
    }
    checks = {CHECKS: on_device(run_checks, config, engine)}
    work = {**checks, **work} if checks_first else {**work, **checks}
    work |= {SUMMARY: on_device(summarize, config, engine, folder)}
    return {name: Stage(tuple(names) if name == SUMMARY else (), each, describe) for name, each in work.items()}


def _arguments(config: AuditConfig) -> dict[str, object]:
    """What a resumed audit must be given again: everything but the device."""
    given = {name: value for name, value in asdict(config).items() if name not in ("data", "device", "epsilon_reason")}
    return {"kind": "audit", **given, **config.data.arguments}


def _metadata(config: AuditConfig, part: Dataset, threats: Sequence[Threat], form: str, command: str) -> dict[str, object]:
    model, sample = search_copy(config, config.model), part.select(evenly_spaced(min(DIGEST_IMAGES, len(part)), len(part)))
    with blame_failing_image(model, sample, config.device):
        images = sample.pixels(slice(None)).to(config.device)
        attacks.clean_logits(model, images, sample.labels.to(config.device))  # a surrogate is compared with its black box here
        missing = attacks.missing_gradient(model, images)
    warn_of_unused(not missing)
    norm_balls = [threat for threat in threats if isinstance(threat, NormBall)]
    own = {"extensions": registered().names, "extension_files": registered().hashes()} if registered().attacks else {}
    return {
        **common_metadata(config.device, describe_machine(config.device), command),
        "dataset": config.data.dataset,
        "model": config.model,
        "threats": [threat_id(config, threat) for threat in threats],
        "target": target_name(config),
        "conditions": conditions(config),
        "budget": config.budget,
        "attack": attack_name(config.budget, norm_balls[0] if norm_balls else threats[0], gradient=not missing),
        "gradient": not missing,
        "missing_gradient": missing,
        "model_notes": list(load_classifier(config, config.model).metadata.notes),
        "data": data.summary(data.load_dataset(config.data)) | {"train": None, "test": len(part)},
        **own,
        "finished": False,
    }
