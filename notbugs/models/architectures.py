"""Small networks: the ones a study trains, and five families of others that its examples are tried on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from notbugs.errors import InputError


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _thin(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """x + body(x), with a 1x1 convolution on the short way where shapes differ."""

    def __init__(self, body: nn.Module, short: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.short, self.after = body, short or nn.Identity(), after or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.after(self.short(images) + self.body(images))
        return result


def small(shape: Sequence[int], width: int = 32) -> tuple[nn.Sequential, int]:
    """Strided convolutions down to 4x4 or less, then one as large as what is left, so that place counts: (body, features).

    Trains in seconds on 8x8 digits; features: twice the width.
    """
    channels, height, across = shape
    layers: list[nn.Module] = [_convolution(channels, width)]
    inputs, features = width, 2 * width
    while max(height, across) > 4:
        layers.append(_convolution(inputs, features, stride=2))
        inputs, height, across = features, (height + 1) // 2, (across + 1) // 2
    layers += [nn.Conv2d(inputs, features, (height, across), bias=False), nn.BatchNorm2d(features), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers), features


def resnet9(shape: Sequence[int], width: int = 32) -> tuple[nn.Sequential, int]:
    """Nine layers, two of the blocks residual, the class of network that speed records on CIFAR-10 use: (body, features)."""

    def double(wide: int) -> Residual:
        return Residual(nn.Sequential(_convolution(wide, wide), _convolution(wide, wide)))

    return nn.Sequential(
        _convolution(shape[0], width),
        _convolution(width, 2 * width),
        nn.MaxPool2d(2),
        double(2 * width),
        _convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _convolution(4 * width, 8 * width),
        nn.MaxPool2d(2),
        double(8 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ), 8 * width


def resnet18(shape: Sequence[int], width: int = 64) -> tuple[nn.Sequential, int]:
    """ResNet-18 for small images: a 3x3 stem, no first pooling (He et al. 2016): (body, features)."""

    def pair(inputs: int, wide: int, step: int) -> nn.Sequential:
        return nn.Sequential(_convolution(inputs, wide, step), nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide))

    return _residual(shape, width, (2, 2, 2, 2), pair, 1)


def resnet50(shape: Sequence[int], width: int = 64) -> tuple[nn.Sequential, int]:
    """ResNet-50 for small images, likewise; strides in the 3x3 convolutions: (body, features)."""

    def bottleneck(inputs: int, wide: int, step: int) -> nn.Sequential:
        last = nn.Conv2d(wide, 4 * wide, 1, bias=False)
        return nn.Sequential(_thin(inputs, wide), _convolution(wide, wide, step), last, nn.BatchNorm2d(4 * wide))

    return _residual(shape, width, (3, 4, 6, 3), bottleneck, 4)


def _residual(
    shape: Sequence[int], width: int, blocks: Sequence[int], block: Callable[[int, int, int], nn.Sequential], wider: int
) -> tuple[nn.Sequential, int]:
    """Four stages of residual blocks, each twice as wide as the one before; their outputs are `wider` times as wide as inside."""
    layers: list[nn.Module] = [_convolution(shape[0], width)]
    inputs = width
    for stage, count in enumerate(blocks):
        inside, outputs = width * 2**stage, wider * width * 2**stage
        for place in range(count):
            step = 2 if stage and not place else 1
            short = None
            if step != 1 or inputs != outputs:
                short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, step, bias=False), nn.BatchNorm2d(outputs))
            layers.append(Residual(block(inputs, inside, step), short, nn.ReLU()))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


# ---- five families, compact: examples made on one network are tried on these ---------------------------------------------


def vgg(shape: Sequence[int], width: int = 16) -> tuple[nn.Sequential, int]:
    """Plain pairs of convolutions, halved between them down to 4x4 or less, and a hidden layer (Simonyan & Zisserman 2015)."""
    (channels, height, across), outputs = shape, width
    layers: list[nn.Module] = []
    while True:
        layers += [_convolution(channels, outputs), _convolution(outputs, outputs)]
        channels = outputs
        if max(height, across) <= 4:
            break
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
        outputs, height, across = min(2 * outputs, 8 * width), (height + 1) // 2, (across + 1) // 2
    features = 4 * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * across, features), nn.ReLU()), features


def resnet(shape: Sequence[int], width: int = 8) -> tuple[nn.Sequential, int]:
    """ResNet-18, an eighth as wide."""
    return resnet18(shape, width)


class Dense(nn.Module):
    """Its input, with what two convolutions make of it stacked on top."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_thin(inputs, 2 * growth), _convolution(2 * growth, growth))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.body(images)], dim=1)


def densenet(shape: Sequence[int], width: int = 16) -> tuple[nn.Sequential, int]:
    """Three dense blocks of four layers, each layer seeing all before it in its block (Huang et al. 2017).

    Batch norm and ReLU come after each convolution, not before as in the paper, so that they fold into it.
    """
    growth, inputs = max(width // 2, 1), width
    layers: list[nn.Module] = [_convolution(shape[0], width)]
    for block in range(3):
        if block:
            outputs = max(inputs // 2, 1)
            layers += [_thin(inputs, outputs), nn.AvgPool2d(2, ceil_mode=True)]
            inputs = outputs
        for _ in range(4):
            layers.append(Dense(inputs, growth))
            inputs += growth
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


class Branches(nn.Module):
    """What several modules make of the same input, side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([branch(images) for branch in self.branches], dim=1)


def inception(shape: Sequence[int], width: int = 16) -> tuple[nn.Sequential, int]:
    """Four modules that look through windows of 1, 3, 5 and a pool at once (Szegedy et al. 2015)."""

    def module(inputs: int, each: int) -> Branches:
        return Branches(
            _thin(inputs, each),
            nn.Sequential(_thin(inputs, each), _convolution(each, each)),
            nn.Sequential(_thin(inputs, each), _convolution(each, each), _convolution(each, each)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), _thin(inputs, each)),
        )

    layers: list[nn.Module] = [_convolution(shape[0], width)]
    inputs = width
    for number, each in enumerate((width // 2, width, width, 2 * width)):
        if number in (1, 3):
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers.append(module(inputs, max(each, 1)))
        inputs = 4 * max(each, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


class Mixing(nn.Module):
    """One hidden layer across patches, then one across channels, each added to what came in: (N, patches, channels)."""

    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        hidden = max(channels // 2, 1)
        self.patches = nn.Sequential(nn.Linear(patches, hidden), nn.GELU(), nn.Linear(hidden, patches))
        self.channels = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.patches(self.before(tokens).mT).mT
        result: Tensor = tokens + self.channels(self.between(tokens))
        return result


class Tokens(nn.Module):
    """The picture as a row of patches: (N, C, H, W) -> (N, H x W, C)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2).mT


class Average(nn.Module):
    """The mean over all patches: (N, patches, channels) -> (N, channels)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def mixer(shape: Sequence[int], width: int = 64) -> tuple[nn.Sequential, int]:
    """No convolution but the cut into patches: hidden layers across these and across channels (Tolstikhin et al. 2021)."""
    if width < 2:
        raise InputError("--width", "must be 2 or more for a mixer", width)
    size = max(2, min(shape[1:]) // 8)
    rows, columns = (-(-length // size) for length in shape[1:])
    fill = nn.ZeroPad2d((0, columns * size - shape[2], 0, rows * size - shape[1]))  # or what is left over would never be seen
    mixed = [Mixing(rows * columns, width) for _ in range(4)]
    cut = nn.Conv2d(shape[0], width, size, size)
    return nn.Sequential(fill, cut, Tokens(), *mixed, nn.LayerNorm(width), Average()), width


def linear(shape: Sequence[int], width: int | None = None) -> tuple[nn.Sequential, int]:
    """No body at all: the head sees the pixels, as logistic regression does."""
    return nn.Sequential(nn.Flatten()), shape[0] * shape[1] * shape[2]


TRANSFER_ARCHITECTURES: dict[str, Callable[..., tuple[nn.Sequential, int]]] = {
    "vgg": vgg, "resnet": resnet, "densenet": densenet, "inception": inception, "mixer": mixer
}  # fmt: skip
ARCHITECTURES: dict[str, Callable[..., tuple[nn.Sequential, int]]] = {
    "small": small,
    "resnet9": resnet9,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "linear": linear,
    **TRANSFER_ARCHITECTURES,
}
