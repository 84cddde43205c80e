"""Each command on a classifier says in which order it reads the outputs, and takes --classes and --class-map."""

from pathlib import Path

import pytest
from cli.conftest import call_here, error_line
from prototypes import prototype_classifier

from notbugs import data, models

ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
MAP = "0=3,1=1,2=6,3=0,4=2,5=4,6=7,7=9,8=8,9=5"
MODULE = """
from torch import nn
from prototypes import prototype_classifier
from notbugs import data
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.rest = nn.Identity(), prototype_classifier(data.load("digits").train, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    def forward(self, images): return self.rest(self.stem(images))
def net(classes): return Net()
"""
READ = "its outputs stand in another order than the classes of digits and are read"
LIMIT = ["--limit", "400"]


@pytest.fixture
def model(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> str:
    """A good model whose outputs are permuted."""
    monkeypatch.chdir(tmp_path)
    models.save(prototype_classifier(digits.train, ORDER), tmp_path / "m.safetensors")
    (tmp_path / "permuted_net.py").write_text(MODULE)
    (tmp_path / "names.txt").write_text("\n".join(map(str, ORDER)))
    return "m.safetensors"


@pytest.mark.slow
def test_features_with_and_without_what_the_outputs_are(model: str) -> None:
    words = ["features", "permuted_net:net", "digits", *LIMIT, "--epsilon", "0.5", "--sample", "2", "--steps", "0", "--most", "0"]
    done = call_here(*words, "--layer", "rest")
    assert done.returncode == 0, done.stderr
    assert "permuted_net:net: WARNING: the model's accuracies are not to be trusted: class order: accuracy is" in done.stderr
    assert f"If that is so: --class-map {MAP}." in done.stderr
    done = call_here(*words, "--layer", "rest", "--classes", "names.txt")
    assert f"Model permuted_net:net: {READ} by their names." in done.stderr and "trusted" not in done.stderr
    assert done.stdout.startswith("10 features on")  # the layer has the name that its owner knows


@pytest.mark.slow
def test_the_other_commands_take_them_too(model: str) -> None:
    for words in (
        ("attack", model, "digits", "--epsilon", "0.5", "--budget", "quick", "--images", 20, "--workers", 1),
        ("transfer", model, "digits", "--against", "nearest-neighbors", "--epsilon", "0.5", "--images", 20, "--workers", 1),
        ("explain", model, "digits"),
        ("corruptions", model, "digits"),
    ):
        done = call_here(*words, *LIMIT, "--class-map", MAP)
        assert done.returncode == 0 and f"{READ} as --class-map says." in done.stderr and "trusted" not in done.stderr, (
            done.stderr
        )
    beside = call_here(
        "transfer", model, "digits", "--against", "permuted_net:net", *LIMIT, "--epsilon", "0.5", "--class-map", MAP
    )
    assert f"Model {model}: {READ} as --class-map says." in beside.stderr  # of MODEL alone
    assert "Model permuted_net:net: WARNING: the model's accuracies are not to be trusted" in beside.stderr
    plain = call_here(*words, *LIMIT)
    assert "WARNING: the model's accuracies are not to be trusted" in plain.stderr


def test_unusable_ones_are_one_line(model: str) -> None:
    for words, says in (
        (("attack", model, "digits", "--classes", "none.txt"), "--classes: must be a file with the names"),
        (("attack", model, "digits", "--class-map", "0=1"), "--class-map: must say the outputs of each class of digits"),
        (("explain", "run", "--class-map", "0=1"), "--class-map: can only be used with a MODEL and a DATASET"),
        (("run", "digits", "--class-map", "0=1", "--out", "run"), "--classes, --class-map: can only be used with --model"),
    ):
        assert says in error_line(call_here(*words))
