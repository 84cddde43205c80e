"""Masks, limits of channels, targets and a few classes of an audit: what is attacked, toward what, and what tables then say."""

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audit.conftest import DIGITS, by_threat, write_module
from torch import Tensor

from notbugs import attacks, audit, report
from notbugs.audit import AuditConfig
from notbugs.audit.batch import BatchResult, attack_batch
from notbugs.audit.evaluate import _by_target
from notbugs.audit.images import target_digest
from notbugs.audit.images import test_part as audited_images
from notbugs.audit.targets import targets_of
from notbugs.audit.threats import conditions, folder_name, restriction, threat_id, threat_models
from notbugs.data import DataConfig, Splits
from notbugs.errors import InputError
from notbugs.runs.tables.audit import AuditAccuracyRow, AuditFileRow, CheckRow, ConfusionRow, CurveRow, PredictionRow
from notbugs.search import Mask, NormBall, objectives

CODE = """
import torch
def linear(classes):
    from notbugs import data
    train = data.load("digits").train
    centers = torch.stack([train.pixels(train.labels == k).mean(0).flatten() for k in range(classes)])
    layer = torch.nn.Linear(64, classes)
    layer.weight.data, layer.bias.data = 2 * centers, -centers.square().sum(1)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)
def color(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, classes))
def noisy(classes):
    class Noisy(torch.nn.Module):
        def __init__(self): super().__init__(); self.model = linear(classes)
        def forward(self, images): return self.model(images + 0.3 * torch.randn_like(images))
    return Noisy()
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AuditConfig:
    """A nearest-mean classifier of the digits; the mask lets the left half change."""
    write_module(tmp_path, f"linear_{tmp_path.name}".replace("-", "_"), CODE)
    monkeypatch.chdir(tmp_path)
    free = np.zeros((8, 8), bool)
    free[:, :4] = True
    np.save(tmp_path / "left.npy", free)
    module = f"linear_{tmp_path.name}".replace("-", "_")
    return AuditConfig(f"{module}:linear", DIGITS, threats=("l2:1",), budget="quick", images=12)


def test_a_mask_holds_in_every_norm_and_is_named(config: AuditConfig) -> None:
    threats = threat_models(replace(config, threats=("l2:1", "linf:0.5", "l0:3", "l1:2"), mask="left.npy"))
    assert all(isinstance(threat, NormBall) and threat.mask is not None for threat in threats)
    names = [str(threat) for threat in threats]
    assert all(re.fullmatch(r"\w+ [\d.]+, mask [0-9a-f]{8}", name) for name in names) and len(set(names)) == 4
    assert re.fullmatch(r"attacked-l2-1-mask-[0-9a-f]{8}", folder_name(threats[0]))
    mask = names[0].split(", ")[1]
    assert restriction(config, threats, "l0") == mask
    assert conditions(replace(config, mask="left.npy")) == [f"{mask.capitalize()} is left.npy: 32 of 64 pixels may change"]


def test_a_mask_has_no_meaning_for_rotations_and_must_fit(config: AuditConfig) -> None:
    with pytest.raises(InputError, match=r"^--mask: has no meaning for rotations and translations, which move all pixels"):
        threat_models(replace(config, threats=("l2:1", "spatial:5,1"), mask="left.npy"))
    np.save("other.npy", np.ones((8, 9), bool))
    with pytest.raises(InputError, match="must have the size of the images, 8x8 pixels"):
        threat_models(replace(config, mask="other.npy"))


def test_limits_of_channels_are_of_one_proportion(config: AuditConfig) -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez("color.npz", train_images=pixels, train_labels=[0, 1, 0, 1], test_images=pixels, test_labels=[0, 1, 0, 1])
    color = config.model.replace(":linear", ":color")
    threats = ("linf:8/255,0,0", "linf:4/255,0,0", "l2:1")
    photographs = replace(config, model=color, data=DataConfig("color.npz"), threats=threats)
    assert [str(threat) for threat in threat_models(photographs)] == ["l2 1", "linf 4/255,0,0", "linf 8/255,0,0"]
    assert restriction(photographs, threat_models(photographs), "linf") == "channels 1, 0, 0"
    with pytest.raises(InputError, match="limits of channels in one proportion"):
        threat_models(replace(photographs, threats=("linf:8/255,0,0", "linf:8/255")))
    with pytest.raises(InputError, match="one for each of the 1 channels"):
        threat_models(replace(config, threats=("linf:8/255,0,0",)))


def test_only_images_of_some_classes_are_attacked(config: AuditConfig) -> None:
    part = audited_images(replace(config, only_classes=("3", "8")))[0]
    assert len(part) == 12 and set(part.labels.tolist()) == {3, 8} and len(part.classes) == 10
    part = audited_images(replace(config, only_classes=("3", "8"), target="8"))[0]
    assert set(part.labels.tolist()) == {3}
    for changes, says in (
        ({"only_classes": ("cat",)}, r"^--only-class: must be a class of digits: 0, 1, .* got cat"),
        ({"target": "cat"}, r"^--target: must be a class of digits, random or least-likely: .* got cat"),
        ({"only_classes": ("3",), "target": "3"}, "must leave test images to attack"),
    ):
        with pytest.raises(InputError, match=says):
            audited_images(replace(config, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["3", "random", "least-likely"])
def test_targets_are_never_the_labels(config: AuditConfig, target: str) -> None:
    few, more = (replace(config, target=target, images=images) for images in (12, 100))
    images, targets = [audited_images(each)[0] for each in (few, more)], [targets_of(each) for each in (few, more)]
    known = dict(zip(images[1].names, targets[1].tolist(), strict=True))  # type: ignore[union-attr]
    assert all(bool((found != part.labels).all()) for found, part in zip(targets, images, strict=True) if found is not None)
    for name, value in zip(images[0].names, targets[0].tolist(), strict=True):  # type: ignore[union-attr]
        assert known.get(name, value) == value  # however many are attacked
    assert targets_of(config) is None


@pytest.mark.parametrize("kind", ["files", "names", "indices", "no header", "records"])
def test_a_table_has_the_target_of_each_image(config: AuditConfig, digits: Splits, kind: str) -> None:
    """Images without a row are left out, which is said; an audit goes on only with the same table."""
    test = digits.test
    wanted = {row: (int(test.labels[row]) + row % 9 + 1) % 10 for row in (3, 40, 7)}
    words = {row: str(row) if kind == "indices" else test.names[row] for row in wanted}
    if kind == "names":
        words = {row: Path(name).name for row, name in words.items()}
    if kind == "records":
        records = [{"label": "7", "file": words[row], "target": str(target)} for row, target in wanted.items()]
        Path("t.json").write_text(json.dumps(records))
    else:
        header = {"indices": "index;target\n", "no header": ""}.get(kind, "target;file\n")
        order = slice(None, None, -1 if header.startswith("target") else 1)
        lines = [";".join((words[row], str(target))[order]) for row, target in wanted.items()]
        Path("t.csv").write_text("\ufeff" + header + "\n".join(lines), encoding="utf-8")
    given = replace(config, target="t.json" if kind == "records" else str(Path("t.csv").resolve()), images=None)
    part, targets = audited_images(given)[0], targets_of(given)
    assert part.names == tuple(test.names[row] for row in (3, 7, 40)) and targets is not None
    assert targets.tolist() == [wanted[row] for row in (3, 7, 40)] and not bool((targets == part.labels).any())
    name = Path(given.target or "").name
    assert threat_id(given, NormBall("l2", 1.0)) == f"l2 1, target {name}"
    assert f"the class that {name} has for each image" in conditions(given)[0]
    assert "447 of 450 test images have no row in it and are left out" in conditions(given)[0]
    assert len(audited_images(replace(given, images=2))[0]) == 2
    digest = target_digest(given)
    Path(name).write_text(Path(name).read_text().replace(str(wanted[3]), "x"))
    assert digest != target_digest(given)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file, got t.csv"),
        ("file,target\nnone.png,3\n", r"t.csv must name test images of digits, got none.png; take the names of tables/files.csv"),
        ("index,target\n450,3\n", "t.csv must name test images of digits, got 450"),
        ("file,target\n0,cat\n", r"t.csv must hold classes of digits: 0, 1, .*, got cat"),
        ("file,target\n0,{other}\n0,{other}\n", "t.csv must have one row for each image, got 0"),
        ("file,target\n0,{own}\n", r"t.csv must have another class than its own for each image, got \d for 0; leave the row out"),
        ("a,b,c\n0,1,2\n", "must be a table with .*, got t.csv with the columns a, b, c; call the columns file and target"),
        ("file,target\n", "must be a table with a row for each image, its file or index and its target, got t.csv, without rows"),
    ],
)
def test_tables_of_targets_that_cannot_be_used_are_one_line(
    config: AuditConfig, digits: Splits, text: str | None, says: str
) -> None:
    if text is not None:
        own = int(digits.test.labels[0])
        Path("t.csv").write_text(text.replace("{own}", str(own)).replace("{other}", str((own + 1) % 10)))
    with pytest.raises(InputError, match=rf"^--target: {says}") as caught:
        audited_images(replace(config, target="t.csv"))
    assert "\n" not in str(caught.value)


def test_rows_of_several_targets_keep_their_order() -> None:
    targets, names = torch.tensor([2, 0, 2, 1, 0]), [field.name for field in fields(BatchResult)]

    def attack(rows: Tensor, target: int | None) -> BatchResult:
        return BatchResult(*(rows if name != "predicted" else torch.full_like(rows, target or 0) for name in names))

    found = _by_target(attack, targets, 5)
    assert found.images.tolist() == [0, 1, 2, 3, 4] and torch.equal(found.predicted, targets)


def test_a_batch_of_targeted_attacks_within_a_mask(config: AuditConfig) -> None:
    """What counts is that the target is predicted; what is stored keeps to the mask, and predictions are the model's own."""
    from notbugs.audit.classifiers import search_copy

    part, model = audited_images(replace(config, target="3"))[0], search_copy(config, config.model)
    images, labels, free = part.pixels(slice(None)), part.labels, torch.zeros(1, 8, 8, dtype=torch.bool)
    free[:, :, :5] = True
    ball = NormBall("l2", 1.2, Mask(free))
    result = attack_batch(model, images, labels, [ball], "quick", target=3)
    stored = result.images[:, 0] / 255
    assert bool((stored[..., 5:] == images[..., 5:]).all()) and bool(ball.contains(stored, images).all())
    reached = result.reached[:, 0]
    assert 0 < int(reached.sum()) < len(part) and torch.equal(reached, result.minimum_norms[:, 0] <= 1.2)
    predicted = model(stored).argmax(1)
    assert torch.equal(predicted, result.predicted_8bit[:, 0]) and torch.equal(result.reached_8bit[:, 0], predicted == 3)
    assert bool((result.predicted[:, 0][reached] == 3).all())
    wrong = objectives.margin(model(images), labels) <= 0
    assert torch.equal(result.clean_misclassified, wrong) and torch.equal(result.misclassified[:, 0], wrong | reached)
    untargeted = attack_batch(model, images, labels, [ball], "quick")
    assert bool((untargeted.misclassified | ~result.misclassified).all()) and not bool(untargeted.reached.any())


def test_what_is_stored_is_checked_against_the_threat_model() -> None:
    clean = torch.full((2, 1, 2, 2), 100 / 255)
    perturbed = clean.clone()
    perturbed[1, 0, 0, 0] = 104 / 255
    attacks.check_within(perturbed, clean, NormBall("linf", 4 / 255))
    corner = torch.zeros(1, 2, 2, dtype=torch.bool)
    corner[0, 1, 1] = True
    for ball in (NormBall("linf", 3 / 255), NormBall("linf", 0.5, Mask(corner)), NormBall("l0", 0)):
        with pytest.raises(RuntimeError, match=r"1 of 2 adversarial examples are not within"):
            attacks.check_within(perturbed, clean, ball)


def test_targets_of_a_random_model_are_refused(config: AuditConfig) -> None:
    with pytest.raises(InputError, match=r"^--target: must be left out for a model that is random"):
        audit.run(replace(config, model=config.model.replace(":linear", ":noisy"), target="3"), "run")
    assert not Path("run").exists()


@pytest.mark.slow
def test_an_audit_says_everywhere_what_was_attacked(config: AuditConfig) -> None:
    config = replace(config, mask="left.npy", target="least-likely", only_classes=("0", "1", "8"))
    done = audit.run(config, "run", workers=1)
    threat = threat_id(config, threat_models(config)[0])
    assert threat.startswith("l2 1, mask ") and threat.endswith(", target least-likely")
    row, clean = (by_threat(done.rows(AuditAccuracyRow))[name] for name in (threat, "clean"))
    predictions = done.rows(PredictionRow)
    assert (
        row.attack == "ensemble-quick v6, targeted"
        and row.target == "least-likely"
        and row.n == 12
        and row.reached == sum(bool(each.reached) for each in predictions)
    )
    assert row.success_rate == row.reached / 12 and row.success_ci_low is not None and clean.reached == 0  # type: ignore[operator]
    assert row.correct == sum(not each.misclassified for each in predictions) <= clean.correct
    assert {each.threat for each in predictions} == {threat} <= {each.threat for each in done.rows(ConfusionRow)}
    assert all(each.target != each.label for each in predictions)
    files = done.rows(AuditFileRow)
    assert {each.mask for each in files} == {threat.split(", ")[1]} and {each.label for each in files} == {"0", "1", "8"}
    assert {each.restriction for each in done.rows(CurveRow)} == {f"{threat.split(', ')[1]}; target least-likely"}
    checks = {each.check: each for each in done.rows(CheckRow)}
    assert checks["unbounded perturbation"].passed == "not run" and checks["above chance"].n == 12
    metadata = done.audit()
    assert metadata.threats == (threat,) and metadata.target == "least-likely" and len(metadata.conditions) == 3
    stored = done.folder / "datasets" / folder_name(threat_models(config)[0])
    assert "predicts the least likely wrong class of each image" in (stored / "README.md").read_text()
    page = report.write(done.folder).read_text()
    for words in (
        threat,
        "Mask ",
        "32 of 64 pixels may change",
        "targeted<br>success rate",
        "Only within:",
        "reach their target",
    ):
        assert words in page, words
    with (done.folder / "tables" / "accuracy.csv").open() as file:
        assert {"target", "reached", "success_rate", "reached_8bit"} <= set(next(csv.reader(file)))
    np.save("left.npy", np.ones((8, 8), bool))
    with pytest.raises(InputError, match=r"^--mask: must be the same as when this audit began"):
        audit.run(config, "run", workers=1)


def test_an_untargeted_audit_has_no_conditions(config: AuditConfig) -> None:
    assert conditions(config) == [] and threat_id(config, NormBall("l2", 1.0)) == "l2 1"
    assert restriction(config, threat_models(config), "l2") is None
