"""The images of an audit."""

from hashlib import sha256
from pathlib import Path

from notbugs import data
from notbugs.audit.config import TARGET_RULES, AuditConfig
from notbugs.audit.target_file import is_target_file, read_targets
from notbugs.data import Dataset
from notbugs.data.names import printable
from notbugs.data.sources.splits import listed
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError


def test_part(config: AuditConfig) -> tuple[Dataset, str]:
    """The test images that are attacked, and the format of the data set."""
    splits = data.load_dataset(config.data)
    rows = attacked_rows(config, splits.test)
    return splits.test if rows is None else splits.test.select(rows), splits.form


def attacked_rows(config: AuditConfig, every: Dataset) -> list[int] | None:
    """Which of all test images are attacked; None: all."""
    restricted = config.target is not None or config.only_classes is not None
    rows = _rows_of_classes(config, every) if restricted else None
    if config.images is None:
        return rows
    if config.images < 1:
        raise InputError("--images", "must be 1 or more", config.images)
    among = list(range(len(every))) if rows is None else rows
    return [among[index] for index in evenly_spaced(min(config.images, len(among)), len(among))]


def _rows_of_classes(config: AuditConfig, every: Dataset) -> list[int]:
    """Rows of the images of the classes that are attacked; without those that have no target."""
    classes = every.classes
    chosen = set(classes if config.only_classes is None else config.only_classes)
    if unknown := sorted(chosen - set(classes)):
        raise InputError("--only-class", f"must be a class of {config.data.dataset}: {listed(classes)}", printable(unknown[0]))
    targets = given_targets(config, every)
    if targets is None:
        _check_target(config, classes)
    attacked = [number for number, name in enumerate(classes) if name in chosen and name != config.target]
    rows = [row for row, label in enumerate(every.labels.tolist()) if label in attacked and (targets is None or row in targets)]
    if not rows:
        raise InputError("--only-class", "must leave test images to attack", "none", "--target leaves out those of the target")
    return rows


def _check_target(config: AuditConfig, classes: tuple[str, ...]) -> None:
    """Raises InputError unless the target is one class or one rule."""
    goals = [*TARGET_RULES, *classes]
    if config.target is not None and goals.count(config.target) != 1:
        rule = f"must be a class of {config.data.dataset}, {' or '.join(TARGET_RULES)}: {listed(classes)}"
        remedy = "a class has the name of a rule: rename it" if config.target in goals else "or a table: FILE.csv"
        raise InputError("--target", rule, printable(config.target), remedy)


def given_targets(config: AuditConfig, every: Dataset) -> dict[int, int] | None:
    """The targets that a table gives: row among all test images -> class; None if none does."""
    if config.target is None or config.target in (*TARGET_RULES, *every.classes) or not is_target_file(config.target):
        return None
    return read_targets(config.target, every, config.data.dataset)


def target_digest(config: AuditConfig) -> str:
    """A hash of the table of targets; "" if there is none."""
    path = Path(config.target or "")
    return (
        sha256(path.read_bytes()).hexdigest()[:16] if config.target and is_target_file(config.target) and path.is_file() else ""
    )
