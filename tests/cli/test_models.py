"""Models of every kind from the command line: what is decided in loading them is said; features, and what they need."""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli.conftest import call_here, error_line
from safetensors.torch import load_file
from torch import nn

from notbugs.audit.config import AuditConfig
from notbugs.audit.images import test_part as audited_images
from notbugs.audit.run import _metadata
from notbugs.audit.threats import threat_models
from notbugs.data import DataConfig

LIMIT = ["--limit", 100]
NETS = """
import torch
from types import SimpleNamespace
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.classifier = nn.Linear(16, classes)
    def forward(self, images):
        return SimpleNamespace(logits=self.classifier(self.features(images).flatten(1)), hidden_states=None)

def hugging(classes):
    torch.manual_seed(0)
    return Net(classes)
def detached(classes):
    layer = nn.Linear(64, classes)
    class Detached(nn.Module):
        def forward(self, images): return layer(images.flatten(1)).detach()
    return Detached()
"""
REPEATED = "Model nets:hugging: it takes RGB: the gray channel is repeated three times.\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module of networks and a TorchScript file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("nets", None)


def test_features_of_a_network_that_has_a_submodule_of_that_name(folder: Path) -> None:
    options = [*LIMIT, "--epsilon", 0.3, "--sample", 5, "--steps", 0]
    done = call_here("features", "nets:hugging", "digits", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(REPEATED) == 1 and "Features: the input of its layer network.classifier." in done.stderr
    assert done.stdout.startswith("16 features on ")
    done = call_here("features", "nets:hugging", "digits", *options, "--layer", "network.features.0")
    assert done.stdout.startswith("4 features on ") and "Features: the output of its layer network.features.0." in done.stderr
    line = error_line(call_here("features", "nets:hugging", "digits", *options, "--layer", "fc"))
    assert "layer: must be a module of the network (network, network.features" in line
    line = error_line(call_here("features", "nets:detached", "digits", *options))
    rule = "MODEL: must have gradients: features are attacked with them, got nets:detached, which has none"
    assert line.startswith(f"notbugs: {rule}: its outputs do not depend on the pixels for PyTorch: look for no_grad, detach")


def test_a_program_has_features_but_no_layers(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).save("program.pt")
    options = [*LIMIT, "--epsilon", 0.3, "--sample", 5, "--steps", 0]
    done = call_here("features", "program.pt", "digits", *options)
    assert done.returncode == 0 and "Model program.pt: it is TorchScript.\nFeatures: its logits" in done.stderr, done.stderr
    line = error_line(call_here("features", "program.pt", "digits", *options, "--layer", "program.1"))
    assert "layer: cannot be chosen in TorchScript" in line
    line = error_line(call_here("attack", "program.pt", "digits", *LIMIT, "--resize", 16, "--epsilon", 0.3))
    assert line == "notbugs: program.pt: takes images of 8x8 pixels, got 16x16; use --resize 8"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["corruptions", "explain"])
def test_analyses_take_outputs_of_hugging_face(command: str, folder: Path) -> None:
    done = call_here(command, "nets:hugging", "digits", *LIMIT)
    assert done.returncode == 0 and REPEATED in done.stderr, done.stderr


def test_what_was_decided_is_kept_in_the_metadata_of_an_audit(folder: Path) -> None:
    config = AuditConfig("nets:hugging", DataConfig("digits", limit=100), threats=("l2:0.3",))
    part, form = audited_images(config)
    noted = _metadata(config, part, threat_models(config), form, "")["model_notes"]
    assert noted == ["it takes RGB: the gray channel is repeated three times"]


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_fine_tuning(folder: Path) -> None:
    options = [*LIMIT, "--epochs", 1, "--network", "timm:tiny"]
    done = call_here("train", "digits", *options, "--pretrained", "--head-only", "--out", "tuned.safetensors")
    assert done.returncode == 0, done.stderr
    assert "Model timm:tiny: it began with pretrained weights and a new last layer; pixels are normalized as those" in done.stderr
    description = json.loads(Path("tuned.json").read_text())
    assert description["architecture"]["mean"] == [0.4, 0.5, 0.6] and description["notes"][0].startswith("it began with pre")
    done = call_here("train", "digits", *options, "--loss", "adversarial", "--robust-model", "tuned.safetensors", "--head-only",
                     "--out", "robust.safetensors")  # fmt: skip
    assert done.returncode == 0, done.stderr
    tuned, robust = (load_file(name)["network.stem.weight"] for name in ("tuned.safetensors", "robust.safetensors"))
    assert torch.equal(tuned, robust)
    done = call_here("features", "tuned.safetensors", "digits", *LIMIT, "--epsilon", 0.3, "--sample", 5, "--steps", 0)
    assert done.returncode == 0 and done.stdout.startswith("6 features on "), done.stderr
    assert "Model tuned.safetensors: it began with pretrained weights and a new last layer" in done.stderr  # read back


def test_fine_tuning_that_cannot_be_done_is_one_line(folder: Path) -> None:
    train = ["train", "digits", *LIMIT, "--out", "x.safetensors"]
    assert "--pretrained: needs a network that has weights" in error_line(call_here(*train, "--pretrained"))
    assert "--head-only: needs weights to begin with" in error_line(call_here(*train, "--head-only"))
    line = error_line(call_here(*train, "--pretrained", "--network", "small"))
    assert "--pretrained: must be a network of timm, Hugging Face or torchvision, or of your own, got small" in line
    assert "--robust-model: no such model, got none.pt" in error_line(call_here(*train, "--robust-model", "none.pt"))
    line = error_line(call_here("run", "digits", *LIMIT, "--layer", "fc", "--out", "run"))
    assert line.startswith("notbugs: layer: must be a module of the network (body, body.0, ") and line.endswith("got 'fc'")
