"""What may change: the images that count as similar to a given one."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from notbugs.errors import InputError

NORMS = ("linf", "l2", "l1", "l0")


class ThreatModel(Protocol):
    """A set of images that count as similar to a given one: what a search needs to know. `Ball`, or one of your own."""

    @property
    def epsilon(self) -> float | Tensor: ...
    def distance(self, change: Tensor) -> Tensor: ...
    def project(self, images: Tensor, center: Tensor) -> Tensor: ...
    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor: ...
    def sample(self, center: Tensor, generator: Generator) -> Tensor: ...


@dataclass(frozen=True)
class NormBall:
    """All images with pixels in [0, 1] whose change from a centre is at most `radius` in `norm`.

    norm: "linf" (largest change of one value), "l2" (Euclidean length of the change over all values of an image), "l1" (sum of
    all changes) or "l0" (number of pixels changed, in whichever channels).
    radius: pixel units, white is 1, or of "l0" a whole number; `inf` leaves only the pixel range. A tensor (N,) has one for each
    image of one batch, for a single search, and is not checked. Raises BadInput for anything else.
    In half precision all holds up to rounding.
    """

    norm: str
    epsilon: float | Tensor

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError("norm", f"must be one of {', '.join(NORMS)}", repr(self.norm))
        if isinstance(self.epsilon, Tensor):
            return
        if not self.epsilon >= 0:
            raise InputError("epsilon", "must be a number, 0 or more", self.epsilon)
        if self.norm == "linf" and 1 < self.epsilon < math.inf:
            raise InputError(
                "epsilon",
                "pixels lie in [0, 1], so an L-inf radius is at most 1",
                self.epsilon,
                f"for {self.epsilon:g}/255 pass {self.epsilon:g}/255",
            )
        if self.norm == "l0" and self.epsilon != math.inf and self.epsilon % 1:
            raise InputError("epsilon", "must be a whole number of pixels in L0", self.epsilon)

    def fit(self, shape: torch.Size) -> "NormBall":
        """Itself, once its radius is seen to fit images of this shape (N, C, H, W); raises BadInput if it does not."""
        values = math.prod(shape[1:])
        largest = {"linf": 1.0, "l2": math.sqrt(values), "l1": values, "l0": math.prod(shape[2:])}[self.norm]
        if not isinstance(self.epsilon, Tensor) and largest < self.epsilon < math.inf:
            raise InputError(
                "epsilon",
                f"two images of this size differ by at most {largest:.4g} in {self.norm.upper()}",
                self.epsilon,
                f"for {self.epsilon:g}/255 pass {self.epsilon:g}/255" if self.norm == "l2" else "",
            )
        return self

    def distance(self, change: Tensor) -> Tensor:
        """Norm of each change: (N, C, H, W) -> (N,)."""
        flat = change.flatten(1)
        if self.norm == "l0":
            return (change != 0).any(1).flatten(1).sum(1).to(change.dtype)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(p=float(self.norm[1]), dim=1)

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """Images brought into the ball around `center` (N, C, H, W; in [0, 1]); one that is inside is not moved.

        L-inf, L1 and L0: to the nearest image of all. L2: clipped to the pixel range, then straight towards the centre, so that a
        change which the range cuts off is not paid for. Values that are not numbers become the centre's.
        """
        images = torch.where(images.isnan(), center, images)
        clipped, radius = images.clamp(0, 1), self._wide(images)
        if not isinstance(radius, Tensor) and math.isinf(radius):
            return clipped
        if self.norm == "linf":
            return torch.minimum(torch.maximum(clipped, center - radius), center + radius).clamp(0, 1)
        change = clipped - center
        if self.norm == "l2":
            size = per_image(change.flatten(1).norm(dim=1), change)
            return torch.where(size <= radius, clipped, center + change * (radius / size.clamp_min(1e-30)))
        if self.norm == "l0":
            most = change.square().sum(1, keepdim=True)
            return torch.where(_rank(most) < radius, clipped, center)
        shrunk = _shrink(images.clamp(-1e3, 1e3) - center, torch.where(images > center, 1 - center, center), radius)
        size = per_image(change.flatten(1).abs().sum(1), change)
        return torch.where(size <= radius, clipped, (center + shrunk).clamp(0, 1))

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """Steepest way up for a step of length 1 in this norm: (N, C, H, W) -> same; zero and non-finite gradients give 0.

        Divided by its largest entry before any norm is taken, so that gradients of 1e-30, as confident models have, still point.
        In L1 that is one value, in L0 one pixel.
        """
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        if self.norm == "linf":
            return gradient.sign()
        scaled = gradient / per_image(gradient.flatten(1).abs().amax(1), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        if self.norm == "l2":
            return scaled / per_image(scaled.flatten(1).norm(dim=1), scaled).clamp_min(torch.finfo(gradient.dtype).tiny)
        strength = scaled.abs() if self.norm == "l1" else scaled.abs().sum(1, keepdim=True)
        return torch.where(_rank(strength) < 1, scaled.sign(), 0.0)

    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """The step of this length (of each image's own, if (N,)) that climbs a slope most: what search rules take.

        L-inf and L2: the direction, so long. L1 and L0: no value can change by more than the pixel range has room for, so
        the length is spent on the values or pixels where most is gained, each moved as far as it goes.
        """
        far = 2.0 * math.prod(images.shape[1:])  # beyond everything, yet finite: infinity times nothing would be no number
        length = per_image(length.to(images), images) if isinstance(length, Tensor) else min(length, far)
        if self.norm in ("linf", "l2"):
            return length * self.steepest_direction(gradient)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        room = torch.where(gradient > 0, 1 - images, images) * (gradient != 0)
        if self.norm == "l0":
            gain = (gradient.abs() * room).sum(1, keepdim=True)
            return torch.where((_rank(gain) < length) & (gain > 0), gradient.sign() * room, 0.0)
        order = (gradient.abs() * (room > 0)).flatten(1).argsort(dim=1, descending=True, stable=True)
        each = room.flatten(1).gather(1, order).to(torch.promote_types(room.dtype, torch.float32))
        spent = (length.flatten(1) if isinstance(length, Tensor) else length) - (each.cumsum(1) - each)
        amount = torch.zeros_like(each).scatter(1, order, torch.minimum(spent.clamp_min(0), each).to(each.dtype))
        return gradient.sign() * amount.reshape(images.shape).to(images.dtype)

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """One image each: uniform in the ball around `center`, then clipped to the pixel range (radius inf: uniform in that).

        L0: uniform values in as many pixels, drawn at random.
        """

        def draw(kind: str, shape: torch.Size) -> Tensor:
            maker = torch.randn if kind == "normal" else torch.rand
            full = torch.promote_types(
                center.dtype, torch.float32
            )  # in half precision a draw can be 1, and its logarithm infinite
            return maker(shape, generator=generator, device=generator.device).to(center.device, full)

        radius = self._wide(center)
        if not isinstance(radius, Tensor) and math.isinf(radius):
            found = draw("uniform", center.shape)
        elif self.norm == "linf":
            found = center + radius * (2 * draw("uniform", center.shape) - 1)
        elif self.norm == "l0":
            which = _rank(draw("uniform", torch.Size((len(center), 1, *center.shape[2:])))) < radius
            found = torch.where(which, draw("uniform", center.shape), center)
        elif self.norm == "l1":
            # signs and shares of exponential variables, one of them thrown away: uniform in the ball (Barthe et al. 2005)
            sizes = -(1 - draw("uniform", center.shape)).log()
            total = sizes.flatten(1).sum(1) - (1 - draw("uniform", center.shape[:1])).log()
            signs = 2 * (draw("uniform", center.shape) < 0.5) - 1
            found = center + radius * signs * sizes / per_image(total, center)
        else:
            way = self.steepest_direction(draw("normal", center.shape))
            length = draw("uniform", center.shape[:1]) ** (1 / math.prod(center.shape[1:]))
            found = center + radius * per_image(length, center) * way
        return found.clamp(0, 1).to(center.dtype)

    def round_to_8bit(self, images: Tensor, center: Tensor) -> Tensor:
        """Images on the 8-bit grid (multiples of 1/255) and still in the ball around `center`, which must lie on that grid.

        To the nearest grid point of the ball in L-inf and L0. In L2 and L1 to the nearest of all; where that leaves the ball, the
        change is shrunk first, as little as 20 halvings can tell.
        """
        radius = torch.as_tensor(self.epsilon, dtype=torch.float64, device=images.device)
        whole = (radius * 255 * (1 + 1e-9)).expand(len(images))
        if self.norm == "linf":
            most = per_image(whole.floor().clamp_max(255), images).to(images.dtype)
            steps = ((images - center) * 255).round()
            return ((center * 255).round() + torch.minimum(torch.maximum(steps, -most), most)) / 255

        def grid(factor: Tensor) -> Tensor:
            return (center + (images - center) * per_image(factor, images)).mul(255).round() / 255

        def inside(candidate: Tensor) -> Tensor:
            # on the grid the change is a whole number of 255ths: exact in float64, so the claim "inside" is exact too
            return self.distance(((candidate - center) * 255).round().double()) <= whole

        high = torch.ones(len(images), dtype=images.dtype, device=images.device)
        nearest = grid(high)
        if self.norm == "l0" or bool(inside(nearest).all()):
            return nearest
        low = torch.zeros_like(high)
        for _ in range(20):
            middle = (low + high) / 2
            good = inside(grid(middle))
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        return torch.where(per_image(inside(nearest), images), nearest, grid(low))

    def __str__(self) -> str:
        """ "l2 0.5", "linf 8/255"."""
        if isinstance(self.epsilon, Tensor):
            return f"{self.norm} {len(self.epsilon)} radii"
        levels, plain = self.epsilon * 255, f"{self.epsilon:g}"
        whole = math.isfinite(levels) and len(plain) > 5 and abs(levels - round(levels)) < 1e-6
        return f"{self.norm} {round(levels)}/255" if whole else f"{self.norm} {plain}"

    def _wide(self, images: Tensor) -> float | Tensor:
        """The radius, in the shape that goes with images if there is one for each."""
        return per_image(self.epsilon.to(images), images) if isinstance(self.epsilon, Tensor) else self.epsilon


@dataclass(frozen=True)
class SpatialTransforms:
    """All turns of an image about its middle by up to `degrees`, and moves by up to `pixels` each way; what comes in is black.

    Not a ball around the pixels: attacks look for the three numbers (`attacks.spatial`). Raises BadInput for a negative bound.
    After Engstrom et al. 2019, who allow 30 degrees and a tenth of the width.
    """

    degrees: float
    pixels: float

    def __post_init__(self) -> None:
        for name, value, most in (("degrees", self.degrees, 180), ("pixels", self.pixels, math.inf)):
            if not 0 <= value <= most or math.isinf(value):
                raise InputError(name, "must be from 0 to 180" if most == 180 else "must be a number, 0 or more", value)

    def fit(self, shape: torch.Size) -> "SpatialTransforms":
        """Itself, once moves are seen to leave something of images (N, C, H, W) in view; raises BadInput otherwise."""
        if not self.pixels < min(shape[2:]):
            raise InputError("pixels", f"must be below {min(shape[2:])}, the images' shorter side", self.pixels)
        return self

    def apply(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Images (N, C, H, W) turned and moved; amounts (N, 3) in [-1, 1]: shares of `degrees` and `pixels`, across and down."""
        height, width = images.shape[2:]
        angle = amounts[:, 0] * math.radians(self.degrees)
        cos, sin = angle.cos(), angle.sin()
        # rows say where in the image each place takes its pixel from, in coordinates that run from -1 to 1 across and down
        across = torch.stack([cos, -sin * height / width, 2 * self.pixels / width * amounts[:, 1]], dim=1)
        down = torch.stack([sin * width / height, cos, 2 * self.pixels / height * amounts[:, 2]], dim=1)
        grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=False).clamp(0, 1)

    def __str__(self) -> str:
        return f"spatial {self.degrees:g},{self.pixels:g}"


def parse_threat_model(text: str, norm: str = "l2") -> NormBall | SpatialTransforms:
    """What may change, as people write it: "0.5", "8/255" (in `norm`), "l2:0.5", "linf:8/255", "l0:1", "spatial:30,3"."""
    kind, colon, amount = text.rpartition(":")
    kind = (kind if colon else norm).strip().lower()
    try:
        if kind == "spatial":
            degrees, pixels = map(float, amount.split(","))
            return SpatialTransforms(degrees, pixels)
        above, _, below = amount.partition("/")
        radius = float(above) / float(below or 1)
    except InputError:
        raise
    except (ValueError, ZeroDivisionError):
        rule = "must be DEGREES,PIXELS" if kind == "spatial" else "must be a number, or a fraction like 8/255"
        raise InputError("--epsilon", rule, repr(text)) from None
    if kind not in NORMS:
        raise InputError("--epsilon", f"must start with one of {', '.join(NORMS)}, spatial", repr(text))
    return NormBall(kind, radius)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value an image (N,) in the shape that multiplies images (N, C, H, W)."""
    return values.reshape(-1, *[1] * (images.dim() - 1))


def _rank(values: Tensor) -> Tensor:
    """Each entry's place within its image, the largest being 0; the first of equals comes first."""
    order = values.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, places).reshape(values.shape)


def _shrink(change: Tensor, room: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest change whose absolute values lie in [0, room] and sum to the radius: all shrunk by the same amount, then cut.

    That amount is where a falling, piecewise straight line, the sum, meets the radius; its corners are sorted, so it is exact.
    """
    size, most = change.flatten(1).abs().double(), room.flatten(1).double()
    corners = torch.cat([(size - most).clamp_min(0), size], dim=1)  # from where each value falls, and where it has reached 0
    corners, order = corners.sort(1)
    falling = torch.where(order < size.shape[1], 1.0, -1.0).double().cumsum(1)  # how many fall after each corner
    steps = torch.nn.functional.pad(corners.diff(dim=1) * falling[:, :-1], (1, 0))
    sums = torch.minimum(size, most).sum(1, keepdim=True) - steps.cumsum(1)
    wanted = radius.flatten(1).double() if isinstance(radius, Tensor) else torch.full_like(sums[:, :1], radius)
    after = (sums > wanted).sum(1, keepdim=True).clamp(1, sums.shape[1] - 1)  # the first corner at which the sum is small enough
    below, fall = sums.gather(1, after), falling.gather(1, after - 1).clamp_min(1)
    amount = corners.gather(1, after) - (wanted - below) / fall
    shrunk = torch.minimum((size - amount).clamp_min(0), most)
    shrunk = shrunk * (wanted / shrunk.sum(1, keepdim=True).clamp_min(1e-300)).clamp_max(
        1
    )  # what rounding adds, far from the range
    return change.sign() * shrunk.reshape(change.shape).to(change.dtype)
