"""An audit with a registered attack: what its tables say, and how it goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prototypes import prototype_classifier

from notbugs import data, models
from notbugs.attacks import ensemble_name
from notbugs.gate.compare import different_attacks
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, PredictionRow

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "own_attack.py"
ZEROS = """
def zeros(*, model, images, labels, threat_model): return images * 0
ATTACKS.append(Attack("zeros", attack="own_attack:zeros"))
"""


def attack(folder: Path, out: str, *words: str, extensions: str = "own_attack") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "notbugs", "attack", "m.safetensors", "digits", "--images", "20", "--budget", "quick"]
    paths = {"PYTHONPATH": os.pathsep.join([str(EXAMPLE.parent.parent), *sys.path]), "NOTBUGS_EXTENSIONS": extensions}
    environment = os.environ | paths
    command += [
        "--workers",
        "1",
        "--epsilon",
        "linf:0.02",
        "--epsilon",
        "linf:1",
        "--epsilon",
        "spatial:5,1",
        "--out",
        out,
        *words,
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_tables_name_it_and_the_audit_goes_on_with_it_alone(digits: data.Splits, tmp_path: Path) -> None:
    models.save(prototype_classifier(digits.train, list(range(10))), tmp_path / "m.safetensors")
    module = tmp_path / "own_attack.py"
    module.write_text(EXAMPLE.read_text() + ZEROS)
    first = attack(tmp_path, "with")
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
    assert attack(tmp_path, "with").returncode == 0
    refused = attack(tmp_path, "with", extensions="")
    assert refused.returncode == 2 and "none with wrong-probability, zeros; set NOTBUGS_EXTENSIONS=MODULE" in refused.stderr
    module.write_text(EXAMPLE.read_text() + ZEROS.replace("* 0", "* 1"))
    refused = attack(tmp_path, "with")
    assert refused.returncode == 2 and "as when this run began, got own_attack, changed" in refused.stderr
    without = attack(tmp_path, "without", extensions="")
    assert without.returncode == 0, without.stderr
    said = different_attacks(run, RunFolder.read(tmp_path / "without"))
    assert said.startswith(f"not the same attack: {name}; {quick}. ") and different_attacks(run, run) == ""
    refused = attack(tmp_path, "without")
    assert refused.returncode == 2 and f"must go on with the attack that it began with, {quick}, got {name}" in refused.stderr
