"""How images in [0, 1] are given to a network of any kind, and how logits are found in what it returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs.errors import InputError

Options = Mapping[str, Any]  # what builds a network again, as JSON holds it
TINY = 1e-37  # the smallest probability whose logarithm is taken


@dataclass(frozen=True)
class Reading:
    """How images in [0, 1] are given to a network, and how its outputs are read.

    Attributes
    ----------
    mean, std : tuple of float
        With which pixels are normalized. Empty: not.
    size : (int, int) or None
        Height and width to which images are resized.
    bicubic : bool
        Whether bicubic in place of bilinear; both with antialiasing.
    repeat_gray : bool
        Whether the one channel is repeated three times.
    flip_channels : bool
        Whether the order is BGR.
    layout : {"N x C x H x W", "N x H x W x C", "N x H x W", "flat"}
        What the network takes: without channels, images must be gray; flat, (N, C * H * W).
    dtype : torch.dtype or None
        The type of its inputs. None: that of the images.
    batch_size : int or None
        The one number of images that it takes. None: any from `least` to `most`.
    least, most : int, int or None
        The smallest and the largest number of images that it takes at once. None: no largest one.
    copy : bool
        Whether it changes its input, and gets a copy.
    output : {"logits", "logit", "probability"}
        Logits (N, K), or one output for the second of two classes.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    bicubic: bool = False
    repeat_gray: bool = False
    flip_channels: bool = False
    layout: str = "N x C x H x W"
    dtype: torch.dtype | None = None
    batch_size: int | None = None
    least: int = 1
    most: int | None = None
    copy: bool = False
    output: str = "logits"


class AdaptedClassifier(nn.Module):
    """A network behind a `Reading`: images (N, C, H, W) in [0, 1] to logits (N, K), float32, with gradients."""

    def __init__(self, network: nn.Module, reading: Reading, classes: int) -> None:
        super().__init__()
        self.network, self.reading, self.classes = network, reading, classes
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(reading, name)).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        step, least = self.reading.batch_size or self.reading.most, self.reading.batch_size or self.reading.least
        if not len(images) and (step or least > 1):
            return images.new_zeros((0, self.classes))
        parts = torch.split(images, step) if step else (images,)
        return torch.cat([self._logits(padded(part, least))[: len(part)] for part in parts])

    def _logits(self, images: Tensor) -> Tensor:
        outputs = self.network(self.inputs(images))
        found = scores(outputs, len(images), 1 if self.reading.output != "logits" else self.classes)
        if found is None:
            rule = f"must return logits of shape ({len(images)}, {self.classes})"
            raise InputError("model", rule, described(outputs))
        return found if self.reading.output == "logits" else single_as_logits(found[:, 0], self.reading.output)

    def inputs(self, images: Tensor) -> Tensor:
        """What the network is given for images in [0, 1]."""
        reading = self.reading
        if reading.repeat_gray:
            images = images.expand(-1, 3, -1, -1)
        if reading.size and tuple(images.shape[2:]) != reading.size:
            mode = "bicubic" if reading.bicubic else "bilinear"
            images = F.interpolate(images, reading.size, mode=mode, align_corners=False, antialias=True)
        if reading.flip_channels:
            images = images.flip(1)
        if reading.mean:
            images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        if reading.layout == "N x H x W x C":
            images = images.permute(0, 2, 3, 1).contiguous()
        elif reading.layout == "N x H x W":
            images = images.squeeze(1)
        elif reading.layout == "flat":
            images = images.flatten(1)
        images = images.to(reading.dtype) if reading.dtype else images
        return images.clone() if reading.copy else images  # a clone is no leaf, which autograd lets nobody change


def single_as_logits(outputs: Tensor, kind: str) -> Tensor:
    """Logits of two classes, (N, 2), of one output of the second, (N,).

    Examples
    --------
    >>> single_as_logits(torch.tensor([0.25]), "probability").exp(), single_as_logits(torch.tensor([3.0]), "logit")
    (tensor([[0.7500, 0.2500]]), tensor([[0., 3.]]))
    >>> single_as_logits(torch.tensor([0.0, 0.9]), "labels")
    tensor([[ 1.0000, -1.0000],
            [-0.8000,  0.8000]])
    """
    if kind == "logit":
        return torch.stack([torch.zeros_like(outputs), outputs], dim=1)
    if kind == "labels":
        return torch.stack([1 - 2 * outputs, 2 * outputs - 1], dim=1)
    return torch.stack([1 - outputs, outputs], dim=1).clamp_min(TINY).log()


def read_single(low: float, high: float, count: int, classes: Sequence[str]) -> tuple[str, str]:
    """What one output for two classes is, by its lowest and highest value on some images: its kind, and the words for it.

    Examples
    --------
    >>> read_single(0.1, 0.9, 100, ("cat", "dog"))[1]
    'its one output, from 0.1 to 0.9 on 100 images, is read as the probability of dog against cat'
    """
    kind = "probability" if low >= 0 and high <= 1 else "logit"
    first, second = classes
    return (
        kind,
        f"its one output, from {low:.3g} to {high:.3g} on {count} images, is read as the {kind} of {second} against {first}",
    )


class FixedProgram(nn.Module):
    """A program of TorchScript or torch.export, which has no training mode of its own, as an ordinary module."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def __deepcopy__(self, memo: object) -> "FixedProgram":
        """The same: parameters of a copied program are no leaves, and nothing here changes a program."""
        return self

    def train(self, mode: bool = True) -> "FixedProgram":
        """Nothing: the program stays as it was saved."""
        return self

    def forward(self, images: Tensor) -> object:
        """What the program returns."""
        return self.program(images)


def not_finite(outputs: Tensor) -> Tensor:
    """Whether outputs are NaN or infinite, (N,). Minus infinity, the logarithm of a probability of 0, counts if all are."""
    outputs = outputs.flatten(1)
    return outputs.isnan().any(1) | outputs.isposinf().any(1) | outputs.isneginf().all(1)


def not_finite_error(name: str, what: str = "logits") -> InputError:
    """The error for a clean image for which a model's outputs are not finite."""
    rule, remedy = f"the model must return finite {what} for this image", "see why, or leave the image out"
    return InputError(name, rule, "NaN or infinite ones", remedy)


def check_finite(outputs: Tensor, names: Sequence[str], index: Tensor, what: str = "logits") -> None:
    """Raises InputError for the first clean image, names[index], for which a model's outputs are not finite."""
    if bool((broken := not_finite(outputs)).any()):
        raise not_finite_error(names[int(index[int(broken.nonzero()[0])])], what)


def padded(images: Tensor, count: int) -> Tensor:
    """As many images as a network takes: the last one again and again; of none, none."""
    missing = count - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if len(images) and missing > 0 else images


# ---- outputs ---------------------------------------------------------------------------------------------------------------


def scores(outputs: object, count: int, columns: int | None = None) -> Tensor | None:
    """The scores (N, K), float32, among what a network returns; None if there are none.

    Parameters
    ----------
    outputs : object
        A tensor (N, K), (N, K, 1, 1), (N, 1, K) or, of one output, (N,); a tuple, a list or a dictionary that holds one; or an
        object with the attribute `logits`. In a dictionary `logits` comes first, then what has the wanted number of columns.
    count : int
        N.
    columns : int, optional
        K, where several would do.

    Examples
    --------
    >>> scores({"loss": torch.zeros(()), "logits": torch.zeros(2, 3, 1, 1)}, 2, 3).shape
    torch.Size([2, 3])
    """
    return next(iter(_tables(outputs, count, columns)), None)


def several(outputs: object, count: int, columns: int) -> bool:
    """Whether several tables with so many columns could be the logits: those of the members of an ensemble.

    Logits and the probabilities made of them count as one.

    Examples
    --------
    >>> logits = 3 * torch.eye(2)
    >>> several([logits, 2 * logits], 2, 2), several((logits, logits.softmax(1)), 2, 2), several(logits, 2, 2)
    (True, False, False)
    """
    tables = [table.double() for table in _tables(outputs, count, columns) if table.shape[1] == columns]
    return not all(torch.allclose(_probabilities(table), _probabilities(tables[0]), atol=1e-3) for table in tables[1:])


def _probabilities(table: Tensor) -> Tensor:
    """The probabilities that logits stand for; probabilities themselves as they are."""
    sums = table.sum(1)
    given = bool((table >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    return table if given else table.softmax(1)


def _tables(outputs: object, count: int, columns: int | None) -> list[Tensor]:
    """The tables of scores among what a network returns, those with the wanted number of columns if there are any."""
    found = [table for each in _candidates(outputs) if (table := _table(each, count)) is not None]
    return [table for table in found if table.shape[1] == columns] or found


def _candidates(outputs: object) -> Iterator[object]:
    """What may be scores, the likeliest first."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        yield logits
        return
    if isinstance(outputs, Mapping):
        yield from outputs.values()
    elif isinstance(outputs, tuple | list):
        yield from outputs


def _table(value: object, count: int) -> Tensor | None:
    """A tensor as (N, K), float32, if it is one of scores."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.dim() > 2 and sum(size > 1 for size in value.shape[1:]) < 2:
        value = value.flatten(1)
    if value.dim() == 1 and len(value) == count:
        value = value[:, None]
    elif value.dim() < 2 and count == 1:  # squeezed: a batch of one image
        value = value.reshape(1, -1)
    return value.float() if value.dim() == 2 and len(value) == count and value.shape[1] else None


def described(outputs: object) -> str:
    """What a network returned, in words.

    Examples
    --------
    >>> described([torch.zeros(2, 3), None])
    'list of (2, 3), NoneType'
    """
    if isinstance(outputs, Tensor):
        return str(tuple(outputs.shape))
    if isinstance(outputs, Mapping):
        return f"{type(outputs).__name__} with {', '.join(map(str, outputs))}"
    if isinstance(outputs, tuple | list):
        return f"{type(outputs).__name__} of {', '.join(map(described, outputs))}"
    return type(outputs).__name__
