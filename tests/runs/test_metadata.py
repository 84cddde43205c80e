"""Typed metadata: what is missing or of another type has its default."""

import math
from typing import Any

import pytest

from notbugs.runs.metadata import AuditMetadata, DataSummary, FilesMetadata, StudyMetadata, TheoryMetadata, parse

WHOLE: dict[str, Any] = {
    "kind": "study",
    "notbugs": "0.1.0",
    "command": "notbugs demo",
    "dataset": "digits",
    "device": "cpu",
    "machine": "x86_64, 2 cores",
    "versions": {"torch": "2.13.0"},
    "seconds": 12,
    "finished": True,
    "arguments": {"kind": "study"},
    "norm": "linf",
    "epsilon": 8 / 255,
    "epsilon_text": "8/255",
    "settings": {"epochs": 14},
    "seeds": [0, 1, 2],
    "full": True,
    "replicate": False,
    "data": {"classes": ["0", "1"], "train": 100, "test": 20, "shape": [1, 8, 8], "most_common": 0.5, "mean_l2": 3.2},
}


def test_a_whole_run_is_read_with_its_types() -> None:
    found = parse(StudyMetadata, WHOLE)
    assert found.seeds == (0, 1, 2) and found.epsilon == 8 / 255 and found.full and not found.replicate
    assert found.seconds == 12.0 and isinstance(found.seconds, float)
    assert found.data == DataSummary(("0", "1"), 100, 20, (1, 8, 8), most_common=0.5, mean_l2=3.2)
    assert found.settings == {"epochs": 14} and found.versions == {"torch": "2.13.0"}


@pytest.mark.parametrize("kind", [StudyMetadata, AuditMetadata, FilesMetadata, TheoryMetadata])
def test_a_run_that_was_stopped_early_has_defaults(kind: type[StudyMetadata]) -> None:
    found = parse(kind, {})
    assert found == kind() and found.data == DataSummary() and not found.finished and found.seconds == 0.0
    assert math.isnan(parse(StudyMetadata, {}).epsilon) and parse(FilesMetadata, {}).rank_stability is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", 2), ("epsilon", "much"), ("seeds", 3), ("data", "digits"), ("versions", []), ("finished", 1), ("full", "yes"),
        ("command", None), ("seconds", True), ("settings", 7),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_left_out(name: str, value: object) -> None:
    found, usual = parse(StudyMetadata, {**WHOLE, name: value}), StudyMetadata()
    assert getattr(found, name) == getattr(usual, name) or math.isnan(getattr(found, name))
    assert found.dataset == "digits"


def test_class_names_become_text() -> None:
    assert parse(DataSummary, {"classes": [7, "007"]}).classes == ("7", "007")


def test_entries_that_nobody_knows_are_ignored() -> None:
    assert parse(AuditMetadata, {"threats": ["l2 0.5"], "later": 1}) == AuditMetadata(threats=("l2 0.5",))
