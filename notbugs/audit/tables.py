"""Tables over all images of an audit, the attacked sets in the form of the input, and pictures."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from notbugs import __version__, attacks, data, metrics
from notbugs.audit.config import AuditConfig, Tables, Threat, folder_name, norm_of, norms_of
from notbugs.data import Dataset
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall


def summarize(audit: AuditConfig, record: RunFolder, part: Dataset, sets: Sequence[Threat], form: str) -> Tables:
    """Tables over all images, the attacked sets in the form of the input, and pictures of the most and the least fragile."""
    files: list[dict[str, Any]] = sorted(record.table("looked"), key=_number)
    reads: dict[str, list[dict[str, Any]]] = {"unchanged": [dict(row) for row in files]}
    for row in sorted(record.table("reads"), key=_number):
        reads.setdefault(str(row["within"]), []).append(row)
    accuracy, classes, confusion = [], [], []
    for name, rows in reads.items():
        one = next((each for each in sets if str(each) == name), None)
        common = {"within": name, "norm": norm_of(one), "epsilon": float(one.epsilon) if isinstance(one, NormBall) else 0.0}
        accuracy.append({**common, **_accuracy([not row["fooled"] for row in rows]), **_attack_columns(audit, record, one, rows)})
        for label in part.classes:
            of_class = [row for row in rows if row["label"] == label]
            if of_class:
                classes.append({**common, "label": label, **_accuracy([not row["fooled"] for row in of_class])})
            seen = [row["read"] for row in of_class]
            confusion += [
                {**common, "label": label, "read": other, "count": seen.count(other)} for other in part.classes if other in seen
            ]
    shown, chosen = _chosen_files(files, sets)
    pictured: dict[str, Dataset] = {}
    for one in sets:
        places = sorted((record.folder / "parts").glob(f"*-{folder_name(one)}"))
        images = torch.empty((len(part), *part.shape), dtype=torch.uint8)
        for number, place in enumerate(places):
            images[number :: len(places)] = data.load_part(place, "npz").images[:]
        stored = part.with_images(images)
        if one in shown:
            pictured[str(one)] = stored.select([number for numbers in chosen.values() for number in numbers])
        target = record.folder / "datasets" / folder_name(one)
        shutil.rmtree(target, ignore_errors=True)
        card = (
            f"# Attacked images\n\n{len(part)} images, each changed within {one} to mislead `{Path(audit.model).name}` if "
            f"that could be, else unchanged. Labels are the originals'. Made by notbugs {__version__}, budget {audit.budget}.\n"
        )
        data.export(stored, target, form, split="test", original=part, card=card)
    for name, rows in reads.items():
        for file, row in zip(files, rows, strict=True):
            file |= {f"fooled, {name}": row["fooled"]} if name != "unchanged" else {}
    tables = {"files": files, "accuracy": accuracy, "classes": classes, "confusion": confusion, "curve": _curve(files, sets)}
    return tables | {"pictures": _pictures(record, part, files, chosen, pictured, norms_of(sets))}


def _attack_columns(
    audit: AuditConfig, record: RunFolder, one: Threat | None, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How a row of the accuracy table came about."""
    if one is None:
        return {"attack": "none", "left_by_smallest": "", "correct_as_stored": ""}
    gradient, classes = record.metadata["gradient"], len(record.metadata["data"]["classes"])
    alone = sum(not row["by_smallest"] for row in rows)
    return {
        "attack": attacks.describe_ensemble(one, classes, budget=audit.budget, gradient=gradient),
        "left_by_smallest": alone if isinstance(one, NormBall) and one.norm != "l0" else "",
        "correct_as_stored": sum(not row["stored_fools"] for row in rows),
    }


def _curve(files: Sequence[Mapping[str, Any]], sets: Sequence[Threat]) -> list[dict[str, Any]]:
    """Accuracy against radius, norm by norm, from the smallest changes: at 60 radii up to where 2 % are left, or further."""
    rows = []
    for norm in norms_of(sets):
        sizes = sorted(float(row[f"smallest_{norm}"]) for row in files)
        finite = [size for size in sizes if size < float("inf")]
        asked = max(float(one.epsilon) for one in sets if isinstance(one, NormBall) and one.norm == norm)
        top = max(finite[int(0.98 * (len(finite) - 1))] if finite else 0.0, asked)
        whole, parts = range(int(asked) + 1), range(61)
        radii = [float(number) for number in whole] if norm == "l0" else [top * step / 60 for step in parts]
        rows += [{"norm": norm, "epsilon": radius, **_accuracy([size > radius for size in sizes])} for radius in radii]
    return rows


def _chosen_files(files: Sequence[Mapping[str, Any]], sets: Sequence[Threat]) -> tuple[list[Threat], dict[str, list[int]]]:
    """What is shown in pictures: the largest set of each norm; of the files read correctly those most and least fragile by the
    first norm, by their numbers."""
    norms = norms_of(sets)
    ranked = [number for number, row in enumerate(files) if row["read"] == row["label"]]
    if norms:
        ranked.sort(key=lambda number: float(files[number][f"smallest_{norms[0]}"]))
    half = min(6, len(ranked) // 2)
    return list({norm_of(one): one for one in sets}.values()), {
        "most fragile": ranked[:half],
        "least fragile": ranked[len(ranked) - half :],
    }


def _pictures(
    record: RunFolder,
    part: Dataset,
    files: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Sequence[int]],
    pictured: Mapping[str, Dataset],
    norms: Sequence[str],
) -> list[dict[str, Any]]:
    """The chosen files as they are, and as they were stored for each set that is shown (pictured: those alone, in order)."""
    reads = {(row["within"], row["number"]): row for row in record.table("reads")}
    rows: list[dict[str, Any]] = []
    for place, (kind, number) in enumerate((kind, number) for kind, numbers in chosen.items() for number in numbers):
        file, image = str(files[number]["file"]), part.pixels([number])[0]
        size = files[number][f"smallest_{norms[0]}"] if norms else ""
        common = {"number": number, "file": file, "kind": kind, "label": files[number]["label"], "size": size}
        rows.append({**common, "column": "original", "read": files[number]["read"], "picture": _picture(record, image)})
        for name, stored in pictured.items():
            changed = stored.pixels([place])[0]
            change = changed - image
            grey = 0.5 + change / (2 * change.abs().max().clamp_min(1e-6))
            read = reads[name, number]["stored"]
            rows.append({**common, "column": name, "read": read, "picture": _picture(record, changed)})
            rows.append({**common, "column": f"change, {name}", "read": "", "picture": _picture(record, grey)})
    return rows


def _picture(record: RunFolder, image: Tensor) -> str:
    folder = record.folder / "pictures"
    folder.mkdir(exist_ok=True)
    name = f"pictures/{len(list(folder.iterdir())):04d}.png"
    data.save_image(image, record.folder / name)
    return name


def _number(row: Mapping[str, Any]) -> int:
    return int(row["number"])


def _accuracy(left: Sequence[bool]) -> dict[str, Any]:
    found = metrics.accuracy_row(sum(left), len(left))
    return {name: found[name] for name in ("correct", "n", "accuracy", "low", "high")}
