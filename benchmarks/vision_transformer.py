"""Small vision transformers for --network vision_transformer:small, or :gray, with this folder on the PYTHONPATH."""

import torch
from torch import Tensor, nn


class VisionTransformer(nn.Module):
    """Patches, an embedding of their position, and an encoder whose mean output is classified (Dosovitskiy et al. 2021)."""

    def __init__(
        self, classes: int, *, channels: int = 3, size: int = 32, patch: int = 4, width: int = 96, depth: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, nhead=3, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, channels, size, size) in [0, 1] to logits (N, classes)."""
        tokens: Tensor = self.patches(2 * images - 1).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.encoder(tokens).mean(1))
        return logits


def small(classes: int) -> VisionTransformer:
    """For images of 32x32 pixels."""
    return VisionTransformer(classes)


def gray(classes: int) -> VisionTransformer:
    """For gray images of 28x28 pixels."""
    return VisionTransformer(classes, channels=1, size=28, width=48, depth=3)
