"""An audit with a registered attack: what its tables say, and how it goes on."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.conftest import Finished, call_here
from prototypes import prototype_classifier

from notbugs import data, models
from notbugs.attacks import ensemble_name
from notbugs.extensions.registry import registered
from notbugs.gate.compare import different_attacks
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, PredictionRow

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "own_attack.py"
ZEROS = """
def zeros(*, model, images, labels, threat_model): return images * 0
ATTACKS.append(Attack("zeros", attack="own_attack:zeros"))
"""


@pytest.fixture
def attack(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Finished]]:
    """Attacks 20 digits in this process, which reads the modules anew each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # modules of the same second and size would be one
    models.save(prototype_classifier(digits.train, list(range(10))), tmp_path / "m.safetensors")
    command = "attack m.safetensors digits --images 20 --budget quick --workers 1 --epsilon linf:0.02 --epsilon linf:1"

    def call(out: str, module: str) -> Finished:
        (tmp_path / "own_attack.py").write_text(module)
        monkeypatch.setenv("NOTBUGS_EXTENSIONS", "own_attack" if module else "")
        sys.modules.pop("own_attack", None)
        importlib.invalidate_caches()
        registered.cache_clear()
        return call_here(*command.split(), "--epsilon", "spatial:5,1", "--out", out)

    yield call
    sys.modules.pop("own_attack", None)
    registered.cache_clear()


@pytest.mark.slow
def test_tables_name_it_and_the_audit_goes_on_with_it_alone(attack: Callable[..., Finished], tmp_path: Path) -> None:
    module = EXAMPLE.read_text() + ZEROS
    first = attack("with", module)
    assert first.returncode == 0, first.stderr
    assert "the ensemble alone leaves" in first.stdout and "without zeros, whose time is not known" in first.stderr
    run, quick = RunFolder.read(tmp_path / "with"), ensemble_name("quick")
    name = f"{quick} + wrong-probability + zeros"
    clean, small, large, turned = run.rows(AuditAccuracyRow)
    assert (clean.attack, small.attack, large.attack, turned.attack) == ("none", name, name, quick)
    assert small.correct_by_ensemble is not None and small.correct_by_ensemble >= small.correct > 0
    assert clean.correct_by_ensemble is None and turned.correct_by_ensemble is None
    own = [row for row in run.rows(PredictionRow) if row.by_own_attack]
    found = [each.correct_by_ensemble - each.correct for each in (small, large) if each.correct_by_ensemble is not None]
    assert len(own) == sum(found) and all(row.misclassified for row in own)
    assert run.metadata["attack"] == name and run.metadata["extensions"] == ["wrong-probability", "zeros"]
    assert name in (tmp_path / "with" / "report.html").read_text()
    refused = attack("with", "")
    assert refused.returncode == 2 and "none with wrong-probability, zeros; set NOTBUGS_EXTENSIONS=MODULE" in refused.stderr
    refused = attack("with", module.replace("* 0", "* 1"))
    assert refused.returncode == 2 and "as when this run began, got own_attack, changed" in refused.stderr
    without = attack("without", "")
    assert without.returncode == 0, without.stderr
    said = different_attacks(run, RunFolder.read(tmp_path / "without"))
    assert said.startswith(f"not the same attack: {name}; {quick}. ") and different_attacks(run, run) == ""
    refused = attack("without", module)
    assert refused.returncode == 2 and f"must go on with the attack that it began with, {quick}, got {name}" in refused.stderr
