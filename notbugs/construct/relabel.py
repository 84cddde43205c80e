"""Wrong labels with faint evidence: images moved a little until a model reads in them a class that is not theirs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from notbugs import precision, search
from notbugs.construct.base import Constructed, Progress, map_with_progress, perturbation_stats
from notbugs.data import Dataset, to_8bit
from notbugs.errors import InputError
from notbugs.models import Model, frozen_copy, fuse_batchnorm
from notbugs.search import NormBall, objectives


def relabel(
    model: Model,
    data: Dataset,
    labels: Tensor,
    *,
    threat_model: NormBall,
    steps: int = 30,
    loss: str = "cross_entropy",
    alone: Sequence[Model] = (),
    bf16: bool | None = None,
    compile: bool = False,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Constructed:
    """Each image changed within the ball until the model reads it as the given label (N,), and labelled so.

    With `random_labels` this is D_rand, with `next_labels` D_det. To a person nearly all labels look wrong; what is right about
    them is what the model sees. The image with the target's highest lead is kept, rounded to 8 bits inside the ball.
    alone: other models that are to go on reading the images' own labels, so that what moves is the model's own bug, and no
    feature of the data (Nakkiran 2019); the fact others_keep is the share of images in which all of them still do.
    half, compile: how steps are made faster (`speed.quick`); whether the label is reached is asked in float32.
    Source: Ilyas et al. 2019, section 3.2 and appendix C.5.
    """
    if alone and loss != "cross_entropy":
        raise InputError("loss", "must be cross_entropy where other models are to keep the label", repr(loss))
    sample = data.pixels(slice(0, 2))
    view, *others = (frozen_copy(each, device) if compile else fuse_batchnorm(each, sample, device) for each in (model, *alone))
    look, *aside = (precision.fast_forward(each, device, bf16=bf16, compile=compile) for each in (view, *others))

    def push(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        targets, own = labels[index].to(images.device), data.labels[index].to(images.device)
        goal = (
            objectives.targeted_non_transferable(look, aside, targets, own)
            if others
            else objectives.targeted(look, targets, loss)
        )
        rule = search.cosine_steps(threat_model, 2 * threat_model.epsilon, end=0.01)
        found = search.maximize(goal, images, threat_model, steps=steps, rule=rule)
        stored = threat_model.round_to_8bit(found.images, images)
        with torch.no_grad():
            kept = [objectives.logits(other, stored).argmax(1) == own for other in others]
            reached = objectives.logits(view, stored).argmax(1) == targets
            return to_8bit(stored), reached, torch.stack([reached | True, *kept]).all(0)

    images, reached, kept = map_with_progress(
        push, data, batch_size or precision.default_batch_size(device, data.shape), device, progress
    )
    facts = {"others_keep": kept.float().mean().item()} if others else {}
    return Constructed(
        data.with_images(images).with_labels(labels),
        {
            "steps": steps,
            "epsilon": threat_model.epsilon,
            "reached": reached.float().mean().item(),
            **facts,
            **perturbation_stats(data, images),
            "changed_labels": int((labels != data.labels).sum()),
        },
    )


def random_labels(labels: Tensor, classes: int, *, keep: bool = False, seed: int = 0) -> Tensor:
    """Labels (N,) drawn evenly: from the other classes, or with `keep` from all, as in the paper (one in K then stays right)."""
    generator = torch.Generator().manual_seed(seed)
    if keep:
        return torch.randint(classes, labels.shape, generator=generator)
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def next_labels(labels: Tensor, classes: int) -> Tensor:
    """Each label's successor, cyclically: robust features then speak for the wrong class in a fixed way, so they cannot help."""
    return (labels + 1) % classes
