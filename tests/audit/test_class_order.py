"""An audit of a model whose outputs stand in another order than the classes: read by name, or said not to be trusted."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit.conftest import DIGITS, write_module
from prototypes import prototype_classifier

from notbugs import data, models, report
from notbugs.audit import AuditConfig
from notbugs.audit.class_order import write_class_map
from notbugs.audit.classifiers import digest, load_classifier, report_order, search_copy
from notbugs.audit.evaluate import run_checks
from notbugs.audit.images import test_part as audited_images
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.notes import reporting_notes
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditFileRow, CheckRow
from notbugs.study.config import StudyConfig
from notbugs.study.given import given_model

ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
MAP = "0=3,1=1,2=6,3=0,4=2,5=4,6=7,7=9,8=8,9=5"
MODULE = """
import numpy as np, torch
from torch import nn
from prototypes import prototype_classifier
from notbugs import data

class Many(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.network, self.outputs = prototype_classifier(data.load("digits").train), outputs
    def forward(self, images):
        found = torch.full((len(images), self.outputs), -9.0, device=images.device)
        found[:, 1:11] = self.network(images)
        return found

def many(classes): return Many(1000)
def reject(classes): return Many(11)
def labels(classes):
    network = Many(1000)
    return lambda images: network(torch.from_numpy(images)).argmax(1).numpy()
def words(classes):
    names = np.array(["n0", "N1", "n 2", "n_3", "n4", "n5", "n6", "n7", "n8", "n9"])
    network = prototype_classifier(data.load("digits").train)
    return lambda images: names[network(torch.from_numpy(images)).argmax(1).numpy()]
class Estimator:
    # as one of scikit-learn that was fitted with the text "kind 9" for 0, "kind 8" for 1, …, which it sorts
    classes_ = np.array([f"kind {number}" for number in range(10)])
    def __init__(self): self.network = prototype_classifier(data.load("digits").train)
    def decision_function(self, rows): return self.network(torch.from_numpy(rows).reshape(-1, 1, 8, 8)).numpy()[:, ::-1]
    def predict(self, rows): return self.classes_[self.decision_function(rows).argmax(1)]
def estimator(classes): return Estimator()
"""


@pytest.fixture(scope="module")
def permuted(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> AuditConfig:
    """A good model whose outputs are permuted, in a file that does not say so."""
    path = tmp_path_factory.mktemp("permuted") / "m.safetensors"
    models.save(prototype_classifier(digits.train, ORDER), path)
    return AuditConfig(str(path), DIGITS, threats=("l0:1",), budget="quick", images=60)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, "other_outputs", MODULE)
    monkeypatch.chdir(tmp_path)


def notes_on(config: AuditConfig) -> list[str]:
    said: list[str] = []
    with reporting_notes(lambda _, notes: said.extend(notes)):
        report_order(config, config.model)
    return list(dict.fromkeys(said))


def accuracy(config: AuditConfig) -> float:
    part = audited_images(config)[0]
    return float((load_classifier(config, config.model).model(part.pixels(slice(None))).argmax(1) == part.labels).float().mean())


def written(config: AuditConfig, folder: Path) -> str:
    """The class map that an audit leaves, from its clean predictions."""
    part = audited_images(config)[0]
    predicted = load_classifier(config, config.model).model(part.pixels(slice(None))).argmax(1).tolist()
    rows = [
        AuditFileRow(index=index, file=file, label=part.classes[label], predicted=part.classes[output], misclassified=False)
        for index, (file, label, output) in enumerate(zip(part.names, part.labels.tolist(), predicted, strict=True))
    ]
    with RunFolder.open(folder / "run", {"kind": "audit"}) as run:
        run.record_stage("summary", 1.0, [*rows, replace(rows[0], predicted="not finite")])
        write_class_map(run, part.classes)
    outputs = json.loads((folder / "run" / "class_map.json").read_text())
    assert ",".join(f"{name}={output}" for name, output in outputs.items()) == MAP
    return str(folder / "run" / "class_map.json")


def test_it_is_a_failed_check_on_all_images_with_the_map_to_pass(permuted: AuditConfig, tmp_path: Path) -> None:
    rows = {row.check: row for row in run_checks(permuted, lambda *_: None)}
    row = rows["class order"]
    assert (row.passed, row.n, row.consequence) == ("no", 60, "the model's accuracies are not to be trusted")
    assert row.fix == f"If that is so: --class-map {MAP}" and row.observed.startswith("accuracy is ")
    assert rows["logits"].consequence == "robust accuracy may be overestimated"
    assert notes_on(permuted) == [f"WARNING: {row.consequence}: class order: {row.observed}. {row.fix}"]
    for mended in (MAP, written(permuted, tmp_path)):
        config = replace(permuted, class_map=mended)
        assert accuracy(config) > 0.85 > 0.25 > accuracy(permuted)
        assert notes_on(config) == [
            "its outputs stand in another order than the classes of digits and are read as --class-map says"
        ]
        assert digest(config, config.model) != digest(permuted, permuted.model)
    rows = {row.check: row for row in run_checks(config, lambda *_: None)}
    assert rows["class order"].passed == rows["above chance"].passed == "yes"


def test_a_changed_network_is_another_model_though_its_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in a file stay; what `--network module:function` computes with them does not."""
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.eye(10, 64), "bias": torch.zeros(10)}, "weights.pt")
    found = []
    for slope in (1, 2):
        name = f"digest_nets_{slope}"
        body = f"def forward(self, images): return super().forward({slope} * images.flatten(1))"
        (tmp_path / f"{name}.py").write_text(
            f"from torch import nn\nclass Net(nn.Linear):\n    {body}\ndef network(classes): return Net(64, classes)\n"
        )
        config = AuditConfig("weights.pt", data.DataConfig("digits", limit=50), ("l2:0.3",), network=f"{name}:network")
        study = StudyConfig("digits", limit=50, model="weights.pt", network=f"{name}:network")
        given = given_model(study)
        assert given and given.sha256_of == "its file and its logits on 20 images"
        found.append((digest(config, "weights.pt"), given.sha256))
        sys.modules.pop(name, None)
    assert found[0][0] != found[1][0] and found[0][1] != found[1][1]


def test_names_are_matched_where_either_side_has_them(permuted: AuditConfig, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"id2label": dict(enumerate(map(str, ORDER)))}))
    assert accuracy(replace(permuted, classes=str(tmp_path / "names.json"))) > 0.85
    (tmp_path / "nine").write_text("\n".join(map(str, ORDER[:9])))
    with pytest.raises(InputError, match="must have a name for each of its outputs, got 10 outputs and 9 names"):
        load_classifier(replace(permuted, classes=str(tmp_path / "nine")), permuted.model)
    others = replace(permuted, classes=str(tmp_path / "names.json"), others=("other",))
    assert isinstance(search_copy(others, permuted.model), models.Classifier)  # fused and fast, as any other


@pytest.mark.usefixtures("modules")
def test_more_outputs_than_classes_are_refused_with_the_map_that_fits(tmp_path: Path) -> None:
    for name, count in (("many", 1000), ("reject", 11)):
        config = AuditConfig(f"other_outputs:{name}", DIGITS, budget="quick", images=100)
        with pytest.raises(InputError, match=rf"digits, got {count}; say which they are: accuracy is \d\d.0% on 100"):
            load_classifier(config, config.model)
        chosen = replace(config, class_map=",".join(f"{digit}={digit + 1}" for digit in range(10)))
        assert accuracy(chosen) > 0.85
        assert notes_on(chosen) == [
            f"10 of its {count:,} outputs are the classes of digits, as --class-map says; the others are not used"
        ]
    (tmp_path / "names.txt").write_text("\n".join(["none", *map(str, range(10))]))
    assert accuracy(replace(config, classes=str(tmp_path / "names.txt"))) > 0.85  # the reject class has a name of its own


@pytest.mark.usefixtures("modules")
def test_labels_of_black_boxes_and_estimators_are_matched_too(tmp_path: Path) -> None:
    labels = AuditConfig("other_outputs:labels", DIGITS, budget="quick", images=60)
    labels = replace(labels, class_map=",".join(f"{digit}={digit + 1}" for digit in range(10)))
    assert accuracy(labels) > 0.85 and isinstance(load_classifier(labels, labels.model).model, BlackBox)
    (tmp_path / "words.txt").write_text("\n".join(["n0", "N1", "n 2", "n_3", *(f"n{digit}" for digit in range(4, 10))]))
    chosen = ",".join(f"{digit}=n{digit}" for digit in range(10))
    words = AuditConfig("other_outputs:words", DIGITS, images=60)
    with pytest.raises(InputError, match=r"or their indices, got 'N1'; if it has other outputs, say which they are: --class-map"):
        load_classifier(words, words.model)
    words = replace(words, classes=str(tmp_path / "words.txt"), class_map=chosen)
    assert accuracy(words) > 0.85
    estimator = AuditConfig("other_outputs:estimator", DIGITS, images=60)
    assert accuracy(estimator) < 0.3 and "another order: they are in reverse. If that" in notes_on(estimator)[-1]
    reverse = ",".join(f"{digit}=Kind {9 - digit}" for digit in range(10))
    assert accuracy(replace(estimator, class_map=reverse)) > 0.85


@pytest.mark.slow
def test_the_page_and_the_terminal_say_it_in_these_words(tmp_path: Path) -> None:
    check = CheckRow(
        check="class order", passed="no", observed="accuracy is 17.0%", rationale="Why.", fix="What.", threat="l2 0.5", n=450,
        consequence="the model's accuracies are not to be trusted",
    )  # fmt: skip
    older = replace(check, check="gradients", consequence=None, n=100)
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as run:
        run.update_metadata(model_notes=["its outputs are read by their names"])
        run.record_stage("all", 1.0, [check, older])
    page = report.write(tmp_path / "run").read_text()
    assert "Warning: the model&#39;s accuracies are not to be trusted (class order)." in page
    assert "Model: its outputs are read by their names." in page
    assert "Warning: robust accuracy may be overestimated (gradients)." in page and "on 100 of the images" in page


def test_a_model_at_chance_is_said_to_be_no_better(tmp_path: Path, digits: data.Splits) -> None:
    model = prototype_classifier(digits.train)
    torch.nn.init.zeros_(model.head.weight)  # type: ignore[arg-type]
    models.save(model, tmp_path / "m.safetensors")
    config = AuditConfig(str(tmp_path / "m.safetensors"), DIGITS, images=200)
    (said,) = notes_on(config)
    assert "above chance: clean accuracy is" in said and "not measurably above chance, 10.0%" in said
