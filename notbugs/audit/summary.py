"""The last stage of an audit: tables over all images, the perturbed images, and pictures."""

from pathlib import Path

from notbugs.audit.config import AuditConfig
from notbugs.audit.images import test_part
from notbugs.audit.pictures import export_perturbed, fragile_files, picture_rows, pictured_threats, pictures, stored_images
from notbugs.audit.tables import table_rows
from notbugs.audit.threats import norms_of, threat_id, threat_models
from notbugs.data import Dataset
from notbugs.runs.attempts import Attempt
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, ImageRow, PredictionRow
from notbugs.runs.tables.row import Row


def summarize(config: AuditConfig, folder: Path, attempt: Attempt) -> list[Row]:
    """The last stage: rows over all images; writes datasets/ and pictures/."""
    run, (part, form), threats = RunFolder.read(folder), test_part(config), threat_models(config)
    images = sorted(run.rows(ImageRow), key=lambda row: row.index)
    by_threat: dict[str, list[PredictionRow]] = {threat_id(config, threat): [] for threat in threats}
    for row in sorted(run.rows(PredictionRow), key=lambda row: row.index):
        by_threat[row.threat].append(row)
    rows = table_rows(config, images, by_threat, threats, part.classes, gradient=run.audit().gradient)
    attack_of = {row.threat: row.attack for row in rows if isinstance(row, AuditAccuracyRow)}
    chosen, pictured = fragile_files(images, threats), pictured_threats(threats)
    stored: dict[str, Dataset] = {}
    for threat in threats:
        perturbed = stored_images(folder, part, threat)
        name = threat_id(config, threat)
        export_perturbed(config, attempt.folder, part, perturbed, threat, form=form, attack=attack_of[name])
        if threat in pictured:  # those alone, or several large sets would be in memory at once
            stored[name] = perturbed.select([index for indices in chosen.values() for index in indices])
    return rows + picture_rows(attempt.folder, pictures(part, images, by_threat, chosen, stored), images, norms_of(threats))
