"""What counts as similar is your choice: here, every image in other light. One value a channel is added to all pixels alike.

    python examples/own_similarity.py

A set of allowed images needs a radius and four methods; gradient attacks, squares and adversarial training then work with it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from notbugs import attacks, data, models, train
from notbugs.search.threat_models import per_image


@dataclass(frozen=True)
class Light:
    """Images (N, C, H, W) in [0, 1], each channel made lighter or darker by at most `radius`, then cut to the range."""

    radius: float

    def distance(self, change: Tensor) -> Tensor:
        """The largest shift of a channel."""
        return change.abs().amax((1, 2, 3))

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """A near shift: the mean change of each channel's pixels, without those that ended up black or white on the way.

        Of an image in the set these say less than the shift, or nothing: so it is not moved.
        """
        change = images - center
        free = ((images > 0) & (images < 1)).to(images)
        free = torch.where(free.sum((2, 3), keepdim=True) > 0, free, 1.0)
        shift = (change * free).sum((2, 3), keepdim=True) / free.sum((2, 3), keepdim=True)
        return (center + shift.clamp(-self.epsilon, self.epsilon)).clamp(0, 1)

    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Each channel as a whole in the direction that its pixels vote for."""
        step = gradient.nan_to_num(0.0, 0.0, 0.0).sum((2, 3), keepdim=True).sign().expand_as(images)
        return step * (per_image(length, images) if isinstance(length, Tensor) else length)

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """A shift drawn evenly for each channel."""
        draw = torch.rand(center.shape[:2], generator=generator, device=generator.device).to(center)
        return (center + self.epsilon * (2 * draw - 1)[:, :, None, None]).clamp(0, 1)


def main() -> None:
    torch.set_num_threads(1)
    digits, light = data.load("digits"), Light(0.5)
    images, labels = digits.test.pixels(slice(None)), digits.test.labels
    losses = {
        "ordinary": train.cross_entropy,
        "in any light": train.adversarial_loss(partial(attacks.pgd, threat_model=light, steps=3, loss="cross_entropy")),
    }
    for name, loss in losses.items():
        model = models.build("small", shape=digits.train.shape, classes=10, width=16)
        train.fit(model, digits.train, loss, epochs=6, batch_size=64)
        with models.frozen(model):
            verdict = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(light, 10))
            clean = (model(images).argmax(1) == labels).float().mean()
        print(f"{name}: reads {clean:.1%} of the test images, {(verdict.margins < 0).float().mean():.1%} in the worst light")


if __name__ == "__main__":
    main()
