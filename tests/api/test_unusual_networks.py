"""Networks that the functions of `import notbugs` refuse, or that cannot be copied: what is said, and that none is changed."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import notbugs
from notbugs import api, data, models
from notbugs.errors import InputError, NotbugsWarning


@pytest.fixture(scope="module")
def small() -> data.Splits:
    return notbugs.load_dataset("digits", limit=100)


CALLS: dict[str, Callable[[nn.Module, data.Splits], object]] = {
    "attack": lambda model, splits: api.attack(model, splits, 0.3, budget="quick", images=12),
    "make_robust": lambda model, splits: api.make_robust(model, splits, steps=1),
    "make_nonrobust": lambda model, splits: api.make_nonrobust(model, splits, steps=1),
    "relabel": lambda model, splits: api.relabel(model, splits, epsilon=0.5, steps=2),
}


def linear(outputs: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


class Locked(nn.Module):
    """A network that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.lock = nn.Sequential(linear(), nn.Dropout(0.5)), threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.network(images)
        return outputs


class NotFinite(nn.Module):
    """NaN for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = linear()

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3), keepdim=True) > 0.31
        outputs: Tensor = self.network(torch.where(bright, torch.nan, images))
        return outputs


@pytest.mark.filterwarnings("ignore::notbugs.errors.NotbugsWarning")
@pytest.mark.parametrize("call", CALLS)
def test_a_network_that_cannot_be_copied_is_as_it_was(call: str, small: data.Splits) -> None:
    """It was left in evaluation mode, and its weights without gradients."""
    network = Locked().train()
    network.network[1].eval()
    CALLS[call](network, small)
    assert network.training and network.network.training and not network.network[1].training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::notbugs.errors.NotbugsWarning")
@pytest.mark.parametrize("call", CALLS)
def test_programs_of_torchscript_are_networks(call: str, small: data.Splits) -> None:
    """They were errors: parameters of a copied program are computed from those of the program."""
    program = torch.jit.script(linear())
    for each in (program, torch.jit.freeze(torch.jit.script(linear().eval()))):
        found = CALLS[call](each, small)
        assert call != "attack" or found == CALLS[call](linear(), small)
    assert all(parameter.requires_grad for parameter in program.parameters())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda: linear(9), "model: must have one output for each of the 10 classes of the data set, got 9"),
        (
            lambda: linear(11),
            r"got 11; name all its classes in the data set .*, or return the logits of these alone: logits\[:, \[0, 3, …\]\]",
        ),
        (lambda: linear(1000), "model: must have one output for each of the 10 classes of the data set, got 1000"),
        (lambda: linear().to("meta"), "model: it must have its weights, got 2 of 2 tensors on the device meta"),
        (NotFinite, r"^0000\d.png: the model must return finite (logits|features) for this image, got NaN or infinite ones"),
    ],
)
@pytest.mark.filterwarnings("ignore::notbugs.errors.NotbugsWarning")
def test_networks_that_do_not_fit_are_refused(call: str, network: Callable[[], nn.Module], says: str, small: data.Splits) -> None:
    """Some of these were measured in silence: 0 % clean accuracy, and relabeled images without a perturbation."""
    with pytest.raises(InputError, match=says):
        CALLS[call](network(), small)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_decided_on_classifiers_by_name_is_said(tmp_path: Path, small: data.Splits) -> None:
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 11), nn.Linear(11, 10))).save(tmp_path / "m.pt")
    with pytest.warns(NotbugsWarning, match="model: it is TorchScript"):
        api.attack(tmp_path / "m.pt", small, 0.3, budget="quick", images=12)


def test_what_is_decided_on_a_black_box_is_said_and_its_calls_are_few(small: data.Splits) -> None:
    two = small.test.select((small.test.labels < 2).nonzero().flatten())
    two = data.Dataset(two.images, two.labels, ("zero", "one"), two.names)
    weights = np.random.default_rng(0).normal(size=64).astype(np.float32)
    ranges = list[tuple[float, float]]()

    def logits(images: np.ndarray) -> np.ndarray:
        ranges.append((float(images.min()), float(images.max())))
        return images.reshape(len(images), -1) @ weights

    box = models.black_box.BlackBox(logits, two.classes)
    with pytest.warns(NotbugsWarning, match="model: its one output, .* is read as the logit of one against zero"):
        api.attack(box, two, 0.3, budget="quick")
    assert box.single == ""  # only a copy was told what its output is
    assert all(0 <= low <= high <= 1 for low, high in ranges)
