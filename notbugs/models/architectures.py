"""Small networks: those that a study trains, and five families of others to which its adversarial examples should transfer.

Each function takes the shape (C, H, W) of an image and the width, the channels of the first layer. It returns the body, which
maps images to features, and the number of features. Attributes of modules are part of the checkpoint format.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from notbugs.errors import InputError

Body = tuple[nn.Sequential, int]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _pooled_convolution(inputs: int, outputs: int, *, ceil_mode: bool = False) -> tuple[nn.Sequential, nn.Sequential]:
    """3x3 convolution and batch norm; then 2x2 max pooling and ReLU.

    The same function as ReLU before pooling, with the same gradients to the last bit. ReLU then sees a quarter of the values:
    gradients of pixels take 0.93 of the time, training 0.98 (`resnet9` of width 8, 28x28 pixels; docs/lab-log.md).
    """
    convolution = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs)), nn.Sequential(nn.MaxPool2d(2, ceil_mode=ceil_mode), nn.ReLU())


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """after(short(x) + body(x)); `short` is the shortcut, a 1x1 convolution where shapes differ."""

    def __init__(self, body: nn.Module, short: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.short, self.after = body, short or nn.Identity(), after or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.after(self.short(images) + self.body(images))
        return result


def small(shape: Sequence[int], width: int = 32) -> Body:
    """Strided convolutions down to 4x4 or less, then one as large as its input instead of pooling, so that position counts.

    2 * width features. Trains in seconds on 8x8 digits.
    """
    channels, height, horizontal = shape
    layers: list[nn.Module] = [_convolution(channels, width)]
    inputs, features = width, 2 * width
    while max(height, horizontal) > 4:
        layers.append(_convolution(inputs, features, stride=2))
        inputs, height, horizontal = features, (height + 1) // 2, (horizontal + 1) // 2
    layers += [nn.Conv2d(inputs, features, (height, horizontal), bias=False), nn.BatchNorm2d(features), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers), features


def resnet9(shape: Sequence[int], width: int = 32) -> Body:
    """Nine layers with two residual blocks, the kind of network in CIFAR-10 speed records; 8 * width features."""

    def block(channels: int) -> Residual:
        return Residual(nn.Sequential(_convolution(channels, channels), _convolution(channels, channels)))

    return nn.Sequential(
        _convolution(shape[0], width),
        *_pooled_convolution(width, 2 * width),
        block(2 * width),
        *_pooled_convolution(2 * width, 4 * width),
        *_pooled_convolution(4 * width, 8 * width),
        block(8 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ), 8 * width


def resnet18(shape: Sequence[int], width: int = 64) -> Body:
    """ResNet-18 for small images: 3x3 stem, no first pooling (He et al. 2016)."""

    def block(inputs: int, inner: int, stride: int) -> nn.Sequential:
        first = _convolution(inputs, inner, stride)
        return nn.Sequential(first, nn.Conv2d(inner, inner, 3, 1, 1, bias=False), nn.BatchNorm2d(inner))

    return _residual_stages(shape, width, (2, 2, 2, 2), block, 1)


def resnet50(shape: Sequence[int], width: int = 64) -> Body:
    """ResNet-50 for small images: 3x3 stem, no first pooling, strides in the 3x3 convolutions (He et al. 2016)."""

    def bottleneck(inputs: int, inner: int, stride: int) -> nn.Sequential:
        last = nn.Conv2d(inner, 4 * inner, 1, bias=False)  # first here: the order of creation decides the initial weights
        return nn.Sequential(_pointwise(inputs, inner), _convolution(inner, inner, stride), last, nn.BatchNorm2d(4 * inner))

    return _residual_stages(shape, width, (3, 4, 6, 3), bottleneck, 4)


def _residual_stages(
    shape: Sequence[int],
    width: int,
    blocks: Sequence[int],
    block: Callable[[int, int, int], nn.Sequential],
    expansion: int,
) -> Body:
    """Four stages of residual blocks, each with twice the channels; a block has `expansion` outputs per inner channel."""
    layers: list[nn.Module] = [_convolution(shape[0], width)]
    inputs = width
    for stage, count in enumerate(blocks):
        inner, outputs = width * 2**stage, expansion * width * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            shortcut = None
            if stride != 1 or inputs != outputs:
                shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            layers.append(Residual(block(inputs, inner, stride), shortcut, nn.ReLU()))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


# ---- five families, compact: targets of transfer ---------------------------------------------------------------------------


def vgg(shape: Sequence[int], width: int = 16) -> Body:
    """Pairs of convolutions with max pooling between them down to 4x4 or less, and a hidden layer (Simonyan & Zisserman 2015)."""
    (channels, height, horizontal), outputs = shape, width
    layers: list[nn.Module] = []
    while True:
        layers.append(_convolution(channels, outputs))
        channels = outputs
        if max(height, horizontal) <= 4:
            layers.append(_convolution(outputs, outputs))
            break
        layers += _pooled_convolution(outputs, outputs, ceil_mode=True)
        outputs, height, horizontal = min(2 * outputs, 8 * width), (height + 1) // 2, (horizontal + 1) // 2
    features = 4 * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * horizontal, features), nn.ReLU()), features


def resnet(shape: Sequence[int], width: int = 8) -> Body:
    """ResNet-18 with an eighth of its width."""
    return resnet18(shape, width)


class DenseLayer(nn.Module):
    """Concatenates its input with `growth` channels computed from it by two convolutions."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_pointwise(inputs, 2 * growth), _convolution(2 * growth, growth))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.body(images)], dim=1)


def densenet(shape: Sequence[int], width: int = 16) -> Body:
    """Three dense blocks of four layers, each layer connected to all before it in its block (Huang et al. 2017).

    Batch norm and ReLU follow each convolution, unlike in the paper, so that batch norm can be fused into it.
    """
    growth, inputs = max(width // 2, 1), width
    layers: list[nn.Module] = [_convolution(shape[0], width)]
    for block in range(3):
        if block:
            outputs = max(inputs // 2, 1)
            layers += [_pointwise(inputs, outputs), nn.AvgPool2d(2, ceil_mode=True)]
            inputs = outputs
        for _ in range(4):
            layers.append(DenseLayer(inputs, growth))
            inputs += growth
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


class Branches(nn.Module):
    """Several modules on the same input, their outputs concatenated along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([branch(images) for branch in self.branches], dim=1)


def inception(shape: Sequence[int], width: int = 16) -> Body:
    """Four Inception modules with receptive fields of 1, 3, 5 and a pooling branch (Szegedy et al. 2015)."""

    def module(inputs: int, outputs: int) -> Branches:
        return Branches(
            _pointwise(inputs, outputs),
            nn.Sequential(_pointwise(inputs, outputs), _convolution(outputs, outputs)),
            nn.Sequential(_pointwise(inputs, outputs), _convolution(outputs, outputs), _convolution(outputs, outputs)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), _pointwise(inputs, outputs)),
        )

    layers: list[nn.Module] = [_convolution(shape[0], width)]
    inputs = width
    for number, outputs in enumerate((width // 2, width, width, 2 * width)):
        if number in (1, 3):
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers.append(module(inputs, max(outputs, 1)))
        inputs = 4 * max(outputs, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


class MixerLayer(nn.Module):
    """A hidden layer across patches, then one across channels, each with a residual connection: (N, patches, channels)."""

    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        hidden = max(channels // 2, 1)
        self.patches = nn.Sequential(nn.Linear(patches, hidden), nn.GELU(), nn.Linear(hidden, patches))
        self.channels = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, patches: Tensor) -> Tensor:
        patches = patches + self.patches(self.before(patches).mT).mT
        result: Tensor = patches + self.channels(self.between(patches))
        return result


class PatchSequence(nn.Module):
    """Positions as a sequence of patches: (N, C, H, W) -> (N, H * W, C)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2).mT


class PatchMean(nn.Module):
    """Mean over all patches: (N, patches, channels) -> (N, channels)."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean(1)


def mixer(shape: Sequence[int], width: int = 64) -> Body:
    """MLP-Mixer: four layers across patches and channels; the only convolution embeds patches (Tolstikhin et al. 2021)."""
    if width < 2:
        raise InputError("--width", "must be 2 or more for a mixer", width)
    size = max(2, min(shape[1:]) // 8)
    rows, columns = (-(-length // size) for length in shape[1:])
    # without padding the last rows and columns would be ignored
    padding = nn.ZeroPad2d((0, columns * size - shape[2], 0, rows * size - shape[1]))
    layers = [MixerLayer(rows * columns, width) for _ in range(4)]
    embedding = nn.Conv2d(shape[0], width, size, size)
    return nn.Sequential(padding, embedding, PatchSequence(), *layers, nn.LayerNorm(width), PatchMean()), width


def linear(shape: Sequence[int], width: int | None = None) -> Body:
    """No body: the head is a linear model of the pixels, as in logistic regression."""
    return nn.Sequential(nn.Flatten()), shape[0] * shape[1] * shape[2]


TRANSFER_ARCHITECTURES: dict[str, Callable[..., Body]] = {
    "vgg": vgg, "resnet": resnet, "densenet": densenet, "inception": inception, "mixer": mixer
}  # fmt: skip
ARCHITECTURES: dict[str, Callable[..., Body]] = {
    "small": small,
    "resnet9": resnet9,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "linear": linear,
    **TRANSFER_ARCHITECTURES,
}
