"""What may change: the images that count as similar to a given one."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from notbugs.errors import BadInput

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Ball:
    """All images with pixels in [0, 1] whose change from a centre is at most `radius` in `norm`.

    norm: "linf" (largest change of one value) or "l2" (Euclidean length of the change over all values of an image).
    radius: pixel units, white is 1; `inf` leaves only the pixel range. Raises BadInput for anything else.
    """

    norm: str
    radius: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise BadInput("norm", f"must be one of {', '.join(NORMS)}", repr(self.norm))
        if not self.radius >= 0:
            raise BadInput("epsilon", "must be a number, 0 or more", self.radius)
        if self.norm == "linf" and 1 < self.radius < math.inf:
            raise BadInput(
                "epsilon",
                "pixels lie in [0, 1], so an L-inf radius is at most 1",
                self.radius,
                f"for {self.radius:g}/255 pass {self.radius:g}/255",
            )

    def fit(self, shape: torch.Size) -> "Ball":
        """Itself, once its radius is seen to fit images of this shape (N, C, H, W); raises BadInput if it does not."""
        largest = math.sqrt(math.prod(shape[1:]))
        if self.norm == "l2" and largest < self.radius < math.inf:
            raise BadInput(
                "epsilon",
                f"two images of this size differ by at most {largest:.4g} in L2",
                self.radius,
                f"for {self.radius:g}/255 pass {self.radius:g}/255",
            )
        return self

    def size(self, change: Tensor) -> Tensor:
        """Norm of each change: (N, C, H, W) -> (N,)."""
        flat = change.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """Images brought into the ball around `center` (N, C, H, W; in [0, 1]); one that is inside is not moved.

        Clipped to the pixel range first, then pulled straight towards the centre (the segment stays in range), so a change
        that the range cuts off is not paid for. Values that are not numbers become the centre's.
        """
        images = torch.where(images.isnan(), center, images.clamp(0, 1))
        if math.isinf(self.radius):
            return images
        if self.norm == "linf":
            return torch.minimum(torch.maximum(images, center - self.radius), center + self.radius).clamp(0, 1)
        change = images - center
        size = by_image(change.flatten(1).norm(dim=1), change)
        return torch.where(size <= self.radius, images, center + change * (self.radius / size.clamp_min(1e-30)))

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest way up for a step of length 1 in this norm: (N, C, H, W) -> same; zero and non-finite gradients give 0.

        Divided by its largest entry before any norm is taken, so that gradients of 1e-30, as confident models have, still point.
        """
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        if self.norm == "linf":
            return gradient.sign()
        scaled = gradient / by_image(gradient.flatten(1).abs().amax(1), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        return scaled / by_image(scaled.flatten(1).norm(dim=1), scaled).clamp_min(torch.finfo(gradient.dtype).tiny)

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """One image each: uniform in the ball around `center`, then clipped to the pixel range (radius inf: uniform in that)."""

        def draw(normal: bool, shape: torch.Size) -> Tensor:
            maker = torch.randn if normal else torch.rand
            return maker(shape, generator=generator, device=generator.device).to(center)

        if math.isinf(self.radius):
            return draw(False, center.shape)
        if self.norm == "linf":
            return (center + self.radius * (2 * draw(False, center.shape) - 1)).clamp(0, 1)
        way = self.direction(draw(True, center.shape))
        length = self.radius * draw(False, center.shape[:1]) ** (1 / center[0].numel())
        return (center + by_image(length, way) * way).clamp(0, 1)

    def round(self, images: Tensor, center: Tensor) -> Tensor:
        """Images on the 8-bit grid (multiples of 1/255) and still in the ball around `center`, which must lie on that grid.

        To the nearest grid point of the ball in L-inf. In L2 to the nearest of all; where that leaves the ball, the change is
        shrunk first, as little as 20 halvings can tell.
        """
        if self.norm == "linf" and not math.isinf(self.radius):
            most = math.floor(self.radius * 255 * (1 + 1e-9))
            return ((center * 255).round() + ((images - center) * 255).round().clamp(-most, most)) / 255

        def grid(factor: Tensor) -> Tensor:
            return (center + (images - center) * by_image(factor, images)).mul(255).round() / 255

        def inside(candidate: Tensor) -> Tensor:
            # on the grid the change is a whole number of 255ths: exact in float64, so the claim "inside" is exact too
            steps = ((candidate - center) * 255).round().double()
            return self.size(steps) <= self.radius * 255 * (1 + 1e-9)

        high = torch.ones(len(images), dtype=images.dtype, device=images.device)
        nearest = grid(high)
        if math.isinf(self.radius) or bool(inside(nearest).all()):
            return nearest
        low = torch.zeros_like(high)
        for _ in range(20):
            middle = (low + high) / 2
            good = inside(grid(middle))
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        return torch.where(by_image(inside(nearest), images), nearest, grid(low))


def by_image(values: Tensor, images: Tensor) -> Tensor:
    """One value an image (N,) in the shape that multiplies images (N, C, H, W)."""
    return values.reshape(-1, *[1] * (images.dim() - 1))
