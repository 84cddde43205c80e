"""The images of an audit."""

from notbugs import data
from notbugs.audit.config import TARGET_RULES, AuditConfig
from notbugs.data import Dataset
from notbugs.data.names import printable
from notbugs.data.sources.splits import listed
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError


def test_part(config: AuditConfig) -> tuple[Dataset, str]:
    """The test images that are attacked, and the format of the data set."""
    splits = data.load_dataset(config.data)
    part = splits.test
    if config.target is not None or config.only_classes is not None:
        part = part.select(_attacked_rows(config, part))
    if config.images is not None:
        if config.images < 1:
            raise InputError("--images", "must be 1 or more", config.images)
        count = min(config.images, len(part))
        part = part.select(evenly_spaced(count, len(part)))
    return part, splits.form


def _attacked_rows(config: AuditConfig, part: Dataset) -> list[int]:
    """Rows of the images of the classes that are attacked; those of the target are left out, as it is their label."""
    classes = part.classes
    chosen = set(classes if config.only_classes is None else config.only_classes)
    if unknown := sorted(chosen - set(classes)):
        raise InputError("--only-class", f"must be a class of {config.data.dataset}: {listed(classes)}", printable(unknown[0]))
    goals = [*TARGET_RULES, *classes]
    if config.target is not None and goals.count(config.target) != 1:
        rule = f"must be a class of {config.data.dataset}, {' or '.join(TARGET_RULES)}: {listed(classes)}"
        remedy = "a class has the name of a rule: rename it" if config.target in goals else ""
        raise InputError("--target", rule, printable(config.target), remedy)
    attacked = [number for number, name in enumerate(classes) if name in chosen and name != config.target]
    rows = [row for row, label in enumerate(part.labels.tolist()) if label in attacked]
    if not rows:
        raise InputError("--only-class", "must leave test images to attack", "none", "--target leaves out those of the target")
    return rows
