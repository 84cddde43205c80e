"""Networks that begin with the weights of another one: files of every layout, and what does not fit."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import dill
import pytest
import torch
from torch import Tensor, nn

from notbugs import models, train
from notbugs.data import Splits
from notbugs.errors import InputError

Raises = Callable[[str], AbstractContextManager[None]]


def madrylab(network: nn.Module, mean: list[float], std: list[float]) -> dict[str, object]:
    """A checkpoint as robustness/train.py saves it: an AttackerModel inside DataParallel."""
    buffers = {"new_mean": torch.tensor(mean).reshape(-1, 1, 1), "new_std": torch.tensor(std).reshape(-1, 1, 1)}
    weights = {
        f"module.{place}.{name}": value for place in ("normalizer", "attacker.normalize") for name, value in buffers.items()
    }
    for prefix in ("module.model.", "module.attacker.model."):
        weights |= {prefix + name: value for name, value in network.state_dict().items()}
    return {"model": weights, "epoch": 90}


@pytest.mark.usefixtures("stand_in")
def test_robust_weights_of_madrylab_give_all_but_the_last_layer_and_their_normalization(tmp_path: Path) -> None:
    import timm

    network, images = timm.create_model("tiny", num_classes=1000).eval(), torch.rand(2, 3, 16, 16)
    path = tmp_path / "resnet18_l2_eps3.ckpt"
    torch.save(madrylab(network, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), path, pickle_module=dill)
    model = models.build_from(str(path), "timm:tiny", shape=(3, 16, 16), classes=4).eval()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    features = network.norm(network.stem((images - mean) / std)).relu().mean((2, 3))
    assert torch.allclose(model.features(images), features, atol=1e-5) and model(images).shape == (2, 4)
    other = models.build_from(str(path), "timm:tiny", shape=(3, 16, 16), classes=4, seed=1).eval()
    assert torch.equal(other.features(images), model.features(images)) and not torch.equal(other(images), model(images))
    torch.save(network.state_dict(), path)  # without statistics: those of the package
    model = models.build_from(str(path), "timm:tiny", shape=(3, 16, 16), classes=4)
    assert isinstance(model, models.WrappedClassifier) and model.architecture["mean"] == [0.4, 0.5, 0.6]
    pretrained = models.build_from("timm:tiny", "small", shape=(3, 16, 16), classes=4).eval()
    assert torch.equal(pretrained.features(images), models.build("timm:tiny", shape=(3, 16, 16), classes=4, pretrained=True)
                       .eval().features(images))  # fmt: skip


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_our_own_networks(suffix: str, tmp_path: Path) -> None:
    robust, images = models.build("small", shape=(1, 8, 8), classes=10, width=4, seed=1, mean=[0.2]), torch.rand(2, 1, 8, 8)
    path = tmp_path / f"robust.{suffix}"
    if suffix == "safetensors":
        models.save(robust, path)
    else:
        robust = models.build("small", shape=(1, 8, 8), classes=10, seed=1, mean=[0.2])
        torch.save({"state_dict": robust.state_dict()}, path)
    model = models.build_from(str(path), "small", shape=(1, 8, 8), classes=3)
    assert torch.equal(model.eval().features(images), robust.eval().features(images)) and model(images).shape == (2, 3)


def test_what_does_not_fit_raises(tmp_path: Path, raises_one_line: Raises) -> None:
    small = models.build("small", shape=(1, 8, 8), classes=3)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    with raises_one_line(r"small.pt: must hold the weights of resnet9, got \d+ missing, .*; \d+ left over.*pass the --network"):
        models.build_from(str(tmp_path / "small.pt"), "resnet9", shape=(1, 8, 8), classes=3)
    with raises_one_line(r"^--robust-model: no such model, got none.ckpt; give a file, hf:OWNER/REPOSITORY/FILE, or timm"):
        models.build_from("none.ckpt", "small", shape=(1, 8, 8), classes=3)
    with raises_one_line(r"^--pretrained: must be a network of timm, Hugging Face or torchvision, or of your own, got small"):
        models.build("small", shape=(1, 8, 8), classes=3, pretrained=True)


@pytest.mark.usefixtures("stand_in")
def test_training_the_last_layer_alone_changes_nothing_else(digits: Splits) -> None:
    model = models.build("timm:tiny", shape=(1, 8, 8), classes=10, pretrained=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes: list[set[bool]] = []

    def loss(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        modes.append({module.training for module in model.modules()})
        return train.cross_entropy(forward, images, labels)

    curve = train.fit(model, digits.train.select(slice(0, 300)), loss, epochs=3, learning_rate=0.05, head_only=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"} and curve[-1].loss < curve[0].loss
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert modes[0] == {True, False}  # batch norm in evaluation mode, the last layer in training


def test_networks_to_train_with_heads_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heads.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def convolution(classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, classes, 1), nn.AdaptiveAvgPool2d(1))\n"
        "def whole(classes): return nn.Sequential(nn.Conv2d(1, classes, 8), nn.Flatten())\n"
        "def lazy(classes):\n"
        "    return nn.Sequential(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(classes))\n"
        "def script(classes): return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, classes)))\n"
    )
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        with pytest.raises(InputError, match="heads:script must return a network that can be trained"):
            models.build("heads:script", shape=(1, 8, 8), classes=4)
    images = torch.rand(2, 1, 8, 8)
    for name, features, layer in (("convolution", 6, "2"), ("whole", 4, ""), ("lazy", 216, "3")):
        model = models.build(f"heads:{name}", shape=(1, 8, 8), classes=4, seed=2)
        again = models.build(f"heads:{name}", shape=(1, 8, 8), classes=4, seed=2)
        assert isinstance(model, models.WrappedClassifier) and model.layer == layer
        assert model.eval().features(images).shape == (2, features)
        assert torch.equal(model.eval()(images), again.eval()(images))
        models.save(model, tmp_path / "model.safetensors")
        loaded, _ = models.load(tmp_path / "model.safetensors", f"heads:{name}")
        assert torch.equal(loaded.features(images), model.features(images))
