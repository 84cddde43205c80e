"""Threat models and classifiers of an audit: what is accepted, what is an error, and which file a failing model is blamed on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit.conftest import DIGITS, IMAGES, accuracy, quick, write_module

from notbugs import audit, data, models
from notbugs.audit import AuditConfig
from notbugs.audit.default_threats import with_epsilon
from notbugs.audit.threats import conditions, folder_name, norm_of, norms_of, threat_models
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import CheckRow
from notbugs.search import NormBall, SpatialTransforms
from notbugs.study.epsilon import default_epsilon


@pytest.mark.slow
def test_threat_models_are_those_of_the_training_unless_given(config: AuditConfig, tmp_path: Path) -> None:
    assert [str(threat) for threat in threat_models(replace(config, threats=()))] == ["l2 0.375", "l2 0.75"]
    given = threat_models(replace(config, threats=("1", "linf:8/255", "l2:0.5", "0.5")))
    assert [str(threat) for threat in given] == ["l2 0.5", "l2 1", "linf 8/255"]
    path = tmp_path / "plain.safetensors"
    path.write_bytes(Path(config.model).read_bytes())
    architecture = json.loads(Path(config.model).with_suffix(".json").read_text())["architecture"]
    path.with_suffix(".json").write_text(json.dumps({"architecture": architecture}))
    images = default_epsilon(data.load_dataset(config.data).train, "l2").value
    for texts in ((), ("auto",), ("l2:auto",)):
        plain = with_epsilon(replace(config, model=str(path), threats=texts))
        assert [str(threat) for threat in threat_models(plain)] == [f"l2 {images / 2:g}", f"l2 {images:g}"]
        assert conditions(plain)[0].startswith(f"l2 {images:g} and half of it: it was chosen by notbugs (--epsilon changes it)")
    both = with_epsilon(replace(config, threats=("l2:auto", "linf:auto", "l0:1")))
    assert both.threats[:2] == ("l2:0.375", "l2:0.75") and both.threats[4] == "l0:1"
    assert both.epsilon_reason.startswith("linf ") and "l2 0.75" not in both.epsilon_reason
    for text, says in (("l1:auto", "auto must be in l2 or linf"), ("l7:auto", "must start with one of")):
        with pytest.raises(InputError, match=says):
            audit.run(replace(config, model=str(path), threats=(text,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    only = replace(config, model=str(path), threats=(), data=replace(config.data, dataset=str(all_alike(tmp_path / "alike"))))
    with pytest.raises(InputError, match=r"^--epsilon: must be given: no two images of different classes differ"):
        with_epsilon(only)


def all_alike(folder: Path) -> Path:
    """Images of ten classes, all alike."""
    images, labels = np.zeros((30, 8, 8), dtype=np.uint8), np.arange(30) % 10
    folder.mkdir()
    named = {"classes": np.array([*"0123456789"])}
    np.savez(folder / "alike.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels, **named)
    return folder / "alike.npz"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("l2:8.1", "two images of this size"),
        ("linf:8", "for 8/255 pass 8/255"),
        ("l0:0.5", "whole number"),
        ("l2:x", "must be a number"),
        ("spatial:10,8", "must be below 8"),
        ("l2:-1", "0 or more"),
        ("l0:inf", "must be finite"),
    ],
)
def test_a_threat_model_that_does_not_fit_is_an_error(config: AuditConfig, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        threat_models(replace(config, threats=(text,)))


def test_norms_and_folders_of_threat_models() -> None:
    threats = [NormBall("l2", 0.5), NormBall("l2", 1.0), NormBall("linf", 8 / 255), SpatialTransforms(10, 0.5)]
    assert [norm_of(threat) for threat in (None, *threats)] == ["", "l2", "l2", "linf", "spatial"]
    assert norms_of(threats) == ["l2", "linf"]
    assert [folder_name(threat) for threat in threats[2:]] == ["attacked-linf-8of255", "attacked-spatial-10-0.5"]


def test_unusable_options_are_errors(config: AuditConfig, tmp_path: Path) -> None:
    for changes, says in (
        ({"images": 0}, "--images: must be 1 or more, got 0"),
        ({"budget": "endless"}, "--budget: must be one of"),
    ):
        with pytest.raises(InputError, match=says):
            audit.run(replace(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_which_kinds_of_models_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(
        tmp_path,
        "odd_models",
        "import threading, types, torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, k):\n"
        "        super().__init__(); torch.manual_seed(0); self.lock = threading.Lock(); self.layer = nn.Linear(64, k)\n"
        "    def forward(self, images): return types.SimpleNamespace(logits=self.layer(images.flatten(1)))\n"
        "def net(classes): return Net(classes)\n"
        "def many(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))\n"
        "def broken(classes): raise FileNotFoundError('no weights here')\n"
        "def strict(classes):\n"
        "    def predict(images):\n"
        "        assert 0 <= images.min() and images.max() <= 1\n"
        "        images *= 0.5\n"
        "        return images.reshape(len(images), -1)[:, 20:20 + classes]\n"
        "    return predict\n",
    )
    monkeypatch.chdir(tmp_path)

    def config(model: str, **options: Any) -> AuditConfig:
        return AuditConfig(model, DIGITS, threats=("l2:0.5",), budget="quick", images=15, **options)

    done = audit.run(config("odd_models:net"), tmp_path / "net", workers=1)
    assert done.audit().gradient and done.audit().finished
    strict = audit.run(
        config("odd_models:strict", others=("odd_models:net", "odd_models:strict")), tmp_path / "strict", workers=1
    )
    checks = {row.check: row.passed for row in strict.rows(CheckRow)}
    assert checks["pixel range"] == "not run" and checks["transfer"] in ("yes", "no")
    with pytest.raises(InputError, match="must have one output for each of the 10 classes of digits, got 1000"):
        audit.run(config("odd_models:many"), tmp_path / "many")
    with pytest.raises(InputError, match=r"MODEL: odd_models:broken must be a function.* no weights here"):
        audit.run(config("odd_models:broken"), tmp_path / "broken")


FAILS_LATER = """
import os
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
def model(classes):
    pixels, labels = load_digits(return_X_y=True)
    learner = LogisticRegression(max_iter=100).fit(pixels / 16, labels)
    bad = np.load('bad.npy')
    def predict(images):
        rows = images.reshape(len(images), -1)
        logits = learner.decision_function(rows)
        hit = np.abs(rows - bad).max(1) < 1e-6
        if hit.any() and os.path.exists('raises'):
            raise KeyError('sensor')
        logits[hit & os.path.exists('nan')] = np.nan
        return logits
    return predict
"""


@pytest.mark.slow
@pytest.mark.parametrize(("flaw", "says"), [("raises", "KeyError"), ("nan", "must return finite logits")])
@pytest.mark.parametrize("place", [0, 42])  # the first image, and one that neither validation nor the digest classifies
def test_a_black_box_that_fails_on_one_file_has_that_file_named(
    flaw: str, says: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, f"box_{flaw}_{place}", FAILS_LATER)
    monkeypatch.chdir(tmp_path)
    test = data.load("digits").test
    index = place * 450 // 60
    np.save("bad.npy", test.pixels([index]).flatten().numpy())
    (tmp_path / flaw).touch()
    config = AuditConfig(f"box_{flaw}_{place}:model", DIGITS, threats=("l0:1",), budget="quick", images=60)
    with pytest.raises(InputError) as caught:
        audit.run(config, tmp_path / "run", workers=1)
    assert says in str(caught.value) or (not place and "finite" in str(caught.value))
    if place:  # in validation the first image stands for all
        assert str(caught.value).startswith(test.names[index])


@pytest.mark.slow
def test_a_black_box_that_raises_half_way_names_its_file_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, "fragile_box", FAILS_LATER)
    monkeypatch.chdir(tmp_path)
    config, test = (
        AuditConfig("fragile_box:model", DIGITS, threats=("l0:1",), budget="quick", images=IMAGES),
        data.load("digits").test,
    )
    index = 43 * 450 // IMAGES  # in the second part: each part has every second image
    np.save("bad.npy", test.pixels([index]).flatten().numpy())
    (tmp_path / "raises").touch()
    with pytest.raises(InputError, match=rf"^{test.names[index]}: the model raised an error .*sensor.*; fix it"):
        audit.run(config, tmp_path / "run", workers=1)
    assert RunFolder.read(tmp_path / "run").done("part 1 of 2")
    (tmp_path / "raises").unlink()
    done = audit.run(config, tmp_path / "run", workers=1)
    assert done.audit().finished and not done.audit().gradient
    rows = accuracy(done)
    assert rows["l0 1"].correct < rows["clean"].correct
    assert rows["l0 1"].attack == "ensemble-quick v6"


@pytest.mark.slow
def test_epsilon_0_is_clean_accuracy_and_errors_stay_errors(config: AuditConfig, tmp_path: Path) -> None:
    done = audit.run(replace(config, threats=("l2:0", "linf:0"), images=30), tmp_path / "run", workers=1)
    assert len({row.correct for row in accuracy(done).values()}) == 1
    checks = {row.check: row.passed for row in done.rows(CheckRow)}
    assert len(checks) == 16 and checks["deterministic"] == "yes" and checks["square attack"] == "not run"


@pytest.mark.slow
def test_another_model_under_the_same_name_is_another_audit(
    config: AuditConfig, standard: models.Model, robust: models.Model, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    metadata: dict[str, Any] = {"classes": [str(digit) for digit in range(10)], "training": {"norm": "l2", "epsilon": 0.75}}
    short = quick(config, model=str(path), images=40)
    correct = []
    for number, model in enumerate((robust, standard)):
        models.save(model, path, **metadata)
        correct.append(accuracy(audit.run(short, tmp_path / f"run{number}", workers=1))["l2 0.5"].correct)
    assert correct[0] > correct[1]
    with pytest.raises(InputError, match="models must be the same as when this audit began"):
        audit.run(short, tmp_path / "run0", workers=1)
