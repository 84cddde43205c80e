"""Threat models: which perturbed images an adversary may use, and how to write them down."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from notbugs.errors import InputError
from notbugs.search.mask import Mask
from notbugs.search.norm_ball import NORMS, NormBall, per_image

__all__ = ["NORMS", "Mask", "NormBall", "SpatialTransforms", "ThreatModel", "parse_threat_model", "per_image"]


class ThreatModel(Protocol):
    """What a search needs of a threat model: `NormBall`, or a class of your own (examples/own_threat_model.py).

    With a method `enlarged(factor, shape)`, as that of `NormBall`, `attacks.pgd(shrink=True)` begins outside and finds more.
    """

    @property
    def epsilon(self) -> float | Tensor:
        """The largest distance, in the unit of `distance`."""
        ...

    def distance(self, perturbation: Tensor) -> Tensor:
        """Size of each perturbation: (N, C, H, W) -> (N,)."""
        ...

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """Images (N, C, H, W) brought within epsilon of the clean images `center`, in [0, 1]."""
        ...

    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Perturbation (N, C, H, W) of this length, float or (N,), along which the objective increases most."""
        ...

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """One random image of the threat model for each clean image (N, C, H, W)."""
        ...


@dataclass(frozen=True)
class SpatialTransforms:
    """Threat model: rotations about the center and translations; pixels that enter the image are black.

    Not a `ThreatModel` of the pixels: `attacks.spatial_attack` searches the three numbers.

    Parameters
    ----------
    degrees : float, in [0, 180]
        Largest rotation, either way.
    pixels : float
        Largest translation in each direction, 0 or more.

    Raises
    ------
    InputError
        If a bound is negative, not finite, or over 180 degrees.

    References
    ----------
    Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness": 30 degrees and a tenth of the width.
    """

    degrees: float
    pixels: float

    def __post_init__(self) -> None:
        for name, value, largest in (("degrees", self.degrees, 180), ("pixels", self.pixels, math.inf)):
            if not 0 <= value <= largest or math.isinf(value):
                raise InputError(name, "must be from 0 to 180" if largest == 180 else "must be a number, 0 or more", value)

    def fit(self, shape: torch.Size) -> "SpatialTransforms":
        """Return self if a translation leaves a part of images (N, C, H, W) in the picture; raise InputError if not."""
        if not self.pixels < min(shape[2:]):
            raise InputError("pixels", f"must be below {min(shape[2:])}, the images' shorter side", self.pixels)
        return self

    def apply(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Rotate and translate.

        Parameters
        ----------
        images : Tensor, (N, C, H, W), in [0, 1]
        amounts : Tensor, (N, 3), in [-1, 1]
            Fractions of `degrees`, of `pixels` horizontally and of `pixels` vertically.
        """
        height, width = images.shape[2:]
        angle = amounts[:, 0] * math.radians(self.degrees)
        cos, sin = angle.cos(), angle.sin()
        # each row maps an output pixel to the input coordinate, from -1 to 1, that it is interpolated at
        horizontal = torch.stack([cos, -sin * height / width, 2 * self.pixels / width * amounts[:, 1]], dim=1)
        vertical = torch.stack([sin * width / height, cos, 2 * self.pixels / height * amounts[:, 2]], dim=1)
        grid = F.affine_grid(torch.stack([horizontal, vertical], dim=1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=False).clamp(0, 1)

    def __str__(self) -> str:
        return f"spatial {self.degrees:g},{self.pixels:g}"


def parse_threat_model(text: str, norm: str = "l2") -> NormBall | SpatialTransforms:
    """Parse a threat model as the command line takes it.

    Parameters
    ----------
    text : str
        "0.5", "8/255" (both in `norm`), "l2:0.5", "linf:8/255", "l0:1" or "spatial:DEGREES,PIXELS"; "linf:8/255,0,0" has a limit
        for each channel.
    norm : str
        The norm of a number that names none.

    Raises
    ------
    InputError
        If the norm is unknown or the number cannot be parsed.

    Examples
    --------
    >>> str(parse_threat_model("linf:8/255"))
    'linf 8/255'
    >>> str(parse_threat_model("linf:8/255,0,0"))
    'linf 8/255,0,0'
    >>> parse_threat_model("spatial:30,3")
    SpatialTransforms(degrees=30.0, pixels=3.0)
    """
    prefix, colon, number = text.rpartition(":")
    kind = (prefix if colon else norm).strip().lower()
    try:
        if kind == "spatial":
            degrees, pixels = map(float, number.split(","))
            return SpatialTransforms(degrees, pixels)
        limits = [_number(each) for each in number.split(",")]
    except InputError:
        raise
    except (ValueError, ZeroDivisionError):
        rule = "must be DEGREES,PIXELS" if kind == "spatial" else "must be a number, or a fraction like 8/255"
        raise InputError("--epsilon", rule, repr(text)) from None
    if kind not in NORMS:
        raise InputError("--epsilon", f"must start with one of {', '.join(NORMS)}, spatial", repr(text))
    if len(limits) == 1:
        return NormBall(kind, limits[0])
    if not (min(limits) >= 0 and 0 < max(limits) < math.inf):
        raise InputError("--epsilon", "must have limits of channels of 0 or more, and one above 0", repr(text))
    return NormBall(kind, max(limits), channels=tuple(limit / max(limits) for limit in limits))


def _number(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)
