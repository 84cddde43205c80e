"""One audit of a robust model on 60 digits, which the tests of this folder share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared_folder

from notbugs import audit, data, models
from notbugs.audit import AuditConfig
from notbugs.data import DataConfig, Dataset
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow

THREATS = ("l2:0.375", "l2:0.75", "linf:0.1", "l0:1", "spatial:10,0.5")
DIGITS = DataConfig("digits")
IMAGES = 60  # two parts


@pytest.fixture(scope="session")
def config(robust: models.Model, digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> AuditConfig:
    def make(made: Path) -> None:
        training = {"norm": "l2", "epsilon": 0.75}
        models.save(robust, made / "robust.safetensors", classes=list(digits.test.classes), training=training)

    path = shared_folder(tmp_path_factory, "audited-model", make, copy=False) / "robust.safetensors"
    return AuditConfig(str(path), DIGITS, threats=THREATS, images=IMAGES)


@pytest.fixture(scope="session")
def done(config: AuditConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = shared_folder(tmp_path_factory, "audit", lambda made: audit.run(config, made / "run", workers=1))
    return RunFolder.read(folder / "run")


@pytest.fixture(scope="session")
def part(digits: data.Splits) -> Dataset:
    return digits.test.select(torch.arange(IMAGES) * 450 // IMAGES)


def quick(config: AuditConfig, **changes: Any) -> AuditConfig:
    """The same audit on fewer images with the quick ensemble."""
    return replace(config, **{"budget": "quick", "threats": ("l2:0.5",), **changes})


def by_threat(rows: Sequence[AuditAccuracyRow]) -> dict[str, AuditAccuracyRow]:
    return {row.threat: row for row in rows}


def accuracy(run: RunFolder) -> dict[str, AuditAccuracyRow]:
    """The accuracy table by threat."""
    return by_threat(run.rows(AuditAccuracyRow))


def write_module(folder: Path, name: str, code: str) -> None:
    """A module that `module:function` can name, if the folder is the current one."""
    (folder / f"{name}.py").write_text(code)
