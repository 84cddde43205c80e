"""A threat model of your own: changes of lighting. One value per channel is added to all pixels of an image.

    python examples/own_threat_model.py

A threat model needs an epsilon and four methods. Gradient attacks, Square Attack and adversarial training then work with it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from notbugs import attacks, data, models, train
from notbugs.search.threat_models import per_image


@dataclass(frozen=True)
class Lighting:
    """Each channel of an image (N, C, H, W) in [0, 1] is shifted by at most `epsilon`, then clipped to [0, 1]."""

    epsilon: float

    def distance(self, perturbation: Tensor) -> Tensor:
        """The largest shift of a channel, (N,)."""
        return perturbation.abs().amax((1, 2, 3))

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """Shift each channel by the mean perturbation of its pixels, without those that are 0 or 1.

        Clipped pixels hide a part of the shift. Leaving them out keeps images of the threat model where they are.
        """
        perturbation = images - center
        unclipped = ((images > 0) & (images < 1)).to(images)
        unclipped = torch.where(unclipped.sum((2, 3), keepdim=True) > 0, unclipped, 1.0)
        shift = (perturbation * unclipped).sum((2, 3), keepdim=True) / unclipped.sum((2, 3), keepdim=True)
        return (center + shift.clamp(-self.epsilon, self.epsilon)).clamp(0, 1)

    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Shift each channel by `length` in the direction of its summed gradient."""
        step = gradient.nan_to_num(0.0, 0.0, 0.0).sum((2, 3), keepdim=True).sign().expand_as(images)
        return step * (per_image(length, images) if isinstance(length, Tensor) else length)

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """A uniform shift of each channel."""
        uniform = torch.rand(center.shape[:2], generator=generator, device=generator.device).to(center)
        return (center + self.epsilon * (2 * uniform - 1)[:, :, None, None]).clamp(0, 1)


def main() -> None:
    torch.set_num_threads(1)
    digits, threat_model = data.load("digits"), Lighting(0.5)
    images, labels = digits.test.pixels(slice(None)), digits.test.labels
    losses = {
        "standard training": train.cross_entropy,
        "adversarial training": train.adversarial_loss(partial(attacks.training_pgd, threat_model=threat_model, steps=3)),
    }
    for name, loss in losses.items():
        model = models.build("small", shape=digits.train.shape, classes=10, width=16)
        train.fit(model, digits.train, loss, epochs=6, batch_size=64)
        with models.frozen(model):
            attacked = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(threat_model, 10))
            clean_accuracy = (model(images).argmax(1) == labels).float().mean()
        robust_accuracy = (attacked.margins < 0).float().mean()
        print(f"{name}: clean accuracy {clean_accuracy:.1%}, robust accuracy under lighting changes {robust_accuracy:.1%}")


if __name__ == "__main__":
    main()
