"""Sets that could refute what a relabelled set seems to show: each has something of it, and lacks what is claimed to matter."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from notbugs.construct.base import Constructed, map_with_progress, perturbation_stats
from notbugs.data import Dataset, to_8bit
from notbugs.models import Model
from notbugs.predict import predict


def shuffled_perturbations(data: Dataset, made: Dataset, *, seed: int = 0) -> Constructed:
    """The control of a relabelled set: its labels, and each image's own change scattered over it at random, signs too.

    Every norm of the change stays the same, as stored (one of more than half of the range may not find room elsewhere and is
    cut); what the model saw is gone. A set that teaches as much as its control owes nothing to what the model saw.
    """
    generator = torch.Generator().manual_seed(seed)

    def scattered(sizes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.rand(sizes.shape, generator=generator).argsort(1)
        return sizes.gather(1, order), _signs(sizes.shape, generator)

    return _replace_perturbations(data, made, scattered)


def class_patterns(data: Dataset, made: Dataset, *, seed: int = 0, spare: Tensor | None = None) -> Constructed:
    """The control for leakage: the labels of a relabelled set, and one random pattern a class, the same on all its images.

    The pattern says which pixels move most and which way; how far is each image's own change, so that every norm stays as it was
    (but see `noise_like`; a pixel without room on that side moves the other way). Any classifier can
    learn such a set by its patterns, which occur in no real image.
    spare: bool (N,), images that stay as they are. With those that a random label happens to fit, this is the set of
    K. Jordan (2023) on which ordinary training reads most of CIFAR-10 though no change in it comes from a model.
    """
    generator = torch.Generator().manual_seed(seed)
    count, pixels = len(data.classes), data.shape[0] * data.shape[1] * data.shape[2]
    places, ways = torch.rand(count, pixels, generator=generator).argsort(1), _signs(torch.Size((count, pixels)), generator)

    def placed(sizes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        own = made.labels[index]
        ranked = sizes.sort(1, descending=True).values
        if spare is not None:
            ranked = ranked.masked_fill(spare[index, None], 0)
        return torch.zeros_like(sizes).scatter(1, places[own], ranked), ways[own]

    return _replace_perturbations(data, made, placed)


def _signs(shape: torch.Size, generator: Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator, dtype=torch.int32) * 2 - 1


def _replace_perturbations(data: Dataset, made: Dataset, place: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Constructed:
    """Other changes of the same sizes. place: sizes of the change (n, pixels), in levels of 8 bits, index -> sizes, signs."""

    def disturb(images: Tensor, index: Tensor) -> Tensor:
        before = to_8bit(images).flatten(1).int()
        sizes, signs = place((to_8bit(made.pixels(index)).flatten(1).int() - before).abs(), index)
        after = before + signs * sizes
        after = torch.where((after < 0) | (after > 255), before - signs * sizes, after)  # there is room on one side at least,
        return after.clamp(0, 255).to(torch.uint8).reshape(images.shape)  # unless a change is above 127

    images = map_with_progress(disturb, data, 1000, "cpu", None)
    return Constructed(
        data.with_images(images).with_labels(made.labels),
        {**perturbation_stats(data, images), "changed_labels": int((made.labels != data.labels).sum())},
    )


def drop_already_predicted(model: Model, data: Dataset, made: Dataset, *, device: torch.device | str = "cpu") -> Constructed:
    """A relabelled set without the images whose new label a model reads in them unchanged: it may be right about these.

    Some images look like their new label from the start, and would teach it without any change. model: a weak one, so that it
    errs often. Source of the worry: Wallace 2019 (Distill), K. Jordan 2023.
    """
    kept = (predict(model, data, device) != made.labels).nonzero().squeeze(1)
    part, before = made.select(kept), data.select(kept)
    changed = int((part.labels != before.labels).sum())
    return Constructed(part, {"n": len(kept), **perturbation_stats(before, part.images[:]), "changed_labels": changed})


def misclassified_only(model: Model, data: Dataset, *, device: torch.device | str = "cpu") -> Constructed:
    """Nothing but the images that a model misreads, unchanged, each labelled as it is misread: every label is wrong.

    What a model trained on them reads of real images, it owes to no attack. Source: Wallace 2019 (Distill): 49.7 % on CIFAR-10.
    """
    read = predict(model, data, device)
    kept = (read != data.labels).nonzero().squeeze(1)
    part = data.select(kept).with_labels(read[kept])
    return Constructed(part, {"n": len(kept), "mean_l2": 0.0, "max_l2": 0.0, "max_linf": 0.0, "changed_labels": len(kept)})


def pseudo_label(model: Model, others: Dataset, *, count: int, seed: int = 0, device: torch.device | str = "cpu") -> Constructed:
    """Images of another domain, labelled by a model: `count` of them, as even over the classes as its answers allow.

    They are meant to show none of the classes. What a student reads of real images, it owes to the teacher's answers alone.
    Source: Wallace 2019 (Distill): digits read by a student who saw only clothes.
    """
    read = predict(model, others, device)
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty_like(order)  # of each image within its class: the first of every class, then the second, …
    for label in range(len(others.classes)):
        own = order[read[order] == label]
        turn[own] = torch.arange(len(own))
    kept = order[turn[order].argsort(stable=True)][:count].sort().values
    largest = read[kept].bincount(minlength=len(others.classes)).max().item() / max(len(kept), 1)
    return Constructed(others.select(kept).with_labels(read[kept]), {"n": len(kept), "largest_class": largest})
