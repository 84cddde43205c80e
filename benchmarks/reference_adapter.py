"""The paper's library for reference_library.py: its functions, a model as it wants it, and its attacks on batches."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from notbugs import data, models
from notbugs.data import Dataset

INSTALL = "pip install torchvision dill pandas tqdm tensorboardX && pip install --no-deps robustness cox"


class Library(NamedTuple):
    """What is used of it: the training loop, the maker of attackable models, its arguments."""

    train_model: Callable[..., Any]
    make_and_restore_model: Callable[..., Any]
    arguments: Callable[[dict[str, Any]], Any]


def load_library() -> Library:
    """The library; exits with the command that installs it if it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its missing mixed precision, and about what it uses that is deprecated
            from cox.utils import Parameters
            from robustness.model_utils import make_and_restore_model
            from robustness.train import train_model
    except ImportError as error:
        raise SystemExit(f"the library to compare with cannot be imported: {error}\nto install it: {INSTALL}") from None
    return Library(train_model, make_and_restore_model, Parameters)


@contextmanager
def without_cuda() -> Iterator[None]:
    """Inside, `.cuda()` returns what it is called on, and DataParallel the module that it gets."""

    def same(value: Any, *_: Any, **__: Any) -> Any:
        return value

    with patch.object(Tensor, "cuda", same), patch.object(nn.Module, "cuda", same), patch.object(nn, "DataParallel", same):
        yield


class LibraryModel(nn.Module):
    """A classifier of notbugs with the library's interface: normalized images to logits, and to features with `with_latent`.

    fake_relu and no_relu concern a last layer that is a ReLU. They are accepted and ignored, as notbugs does without them.
    """

    def __init__(self, model: models.Classifier) -> None:
        super().__init__()
        self.body, self.head = model.body, model.head

    def forward(self, images: Tensor, with_latent: bool = False, fake_relu: bool = False, no_relu: bool = False) -> Any:
        """Logits, or logits and features."""
        features = self.body(images)
        logits = self.head(features)
        return (logits, features) if with_latent else logits


class PixelStatistics(NamedTuple):
    """All that the library needs of a data set to wrap a model: mean and standard deviation of the pixels, (C,)."""

    mean: Tensor
    std: Tensor


def attackable(library: Library, model: models.Model, device: str) -> Any:
    """The library's attackable model, of a copy with the same weights."""
    if not isinstance(model, models.Classifier):
        raise SystemExit("only notbugs' own networks can be compared: the library does not see the features of a wrapped one")
    duplicate = copy.deepcopy(model).to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    statistics = PixelStatistics(duplicate.get_buffer("mean").flatten(), duplicate.get_buffer("std").flatten())
    return library.make_and_restore_model(arch=LibraryModel(duplicate), dataset=statistics)[0].eval()


def attack(model: Any, images: Tensor, targets: Tensor, steps: int, **options: Any) -> Tensor:
    """What users of the library call; the perturbed images of what they get."""
    perturbed: Tensor = model(images, targets.to(images.device), make_adv=True, iterations=steps, **options)[1]
    return perturbed.detach()


def in_batches(function: Callable[[Tensor, Tensor], Tensor], dataset: Dataset, batch_size: int, device: str) -> Tensor:
    """uint8 images from a function (images, indices) -> images, batch by batch."""
    batches = torch.split(torch.arange(len(dataset)), batch_size)
    return torch.cat([data.to_8bit(function(dataset.pixels(index).to(device), index)).cpu() for index in batches])
