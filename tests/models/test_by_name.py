"""Any classifier by its name."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

from notbugs import models
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.by_name import classifier_by_name

NAMES = [f"digit {number}" for number in range(10)]


def test_classifiers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standard: models.Model) -> None:
    (tmp_path / "my_models.py").write_text(
        "import numpy as np\nfrom torch import nn\nfrom sklearn.dummy import DummyClassifier\n"
        "def network(classes): return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, classes))\n"
        "def estimator(classes): return DummyClassifier().fit(np.zeros((classes, 64)), np.arange(classes))\n"
        "def function(classes): return lambda images: np.zeros(len(images), int)\n"
        "def nothing(classes): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    network, _ = classifier_by_name("my_models:network", classes=NAMES)
    assert not any(module.training for module in network.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(classifier_by_name("my_models:estimator", classes=NAMES)[0], BlackBox)
    assert isinstance(classifier_by_name("my_models:function", classes=NAMES)[0], BlackBox)
    with pytest.raises(InputError, match="must return a network, a scikit-learn classifier or a function of images, got int"):
        classifier_by_name("my_models:nothing", classes=NAMES)
    with pytest.raises(InputError, match=r"must be a function.* that returns a model"):
        classifier_by_name("my_models:missing", classes=NAMES)
    with pytest.raises(
        InputError,
        match=r"^MODEL: none_such:network must name a module that can be imported, got .*none_such\.py is looked for in",
    ):
        classifier_by_name("none_such:network", classes=NAMES)
    (tmp_path / "broken.py").write_text("import sys\n\nEPOCHS = int(sys.argv[3])\n")
    with pytest.raises(InputError, match=r"can be imported, got IndexError in broken\.py, line 3: list index out of range"):
        classifier_by_name("broken:network", classes=NAMES)
    arguments = ["notbugs", "attack", "a.pt", "digits"]
    monkeypatch.setattr(sys, "argv", arguments)
    (tmp_path / "script.py").write_text(
        "import sys\nfrom torch import nn\nseen = sys.argv[1:]\n"
        "def network(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes if not seen + sys.argv[1:] else 1))\n"
    )
    assert classifier_by_name("script:network", classes=NAMES)[0](torch.zeros(1, 1, 8, 8)).shape == (1, len(NAMES))
    assert sys.argv is arguments
    with pytest.raises(InputError, match="no such model"):
        classifier_by_name("missing.safetensors", classes=NAMES)
    models.save(standard, tmp_path / "m.safetensors", classes=NAMES)
    loaded, metadata = classifier_by_name("m.safetensors", classes=NAMES)
    assert list(metadata.classes or ()) == list(NAMES)
    assert torch.allclose(loaded(torch.ones(2, 1, 8, 8)), standard(torch.ones(2, 1, 8, 8)), atol=1e-5)
