"""Negative controls of relabeled data sets: each shares something with them and lacks what is claimed to matter."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from notbugs import precision
from notbugs.construct.base import Constructed, ConstructionStats, norms_of, perturbation_norms, summarized
from notbugs.data import Dataset, Rows, map_to_images, to_8bit
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.predict import logits, predict
from notbugs.search import Mask

BATCH = 1000  # images perturbed at a time
LARGEST_SCALE, SCALE_STEPS = 1000.0, 40  # of unit perturbations; bisection then ends within a billionth


def shuffled_perturbations(dataset: Dataset, relabeled: Dataset, *, seed: int = 0, mask: Mask | None = None) -> Constructed:
    """The labels of a relabeled data set, with each image's own perturbation shuffled over its pixels and signs.

    All norms of the perturbations stay the same, as stored; one of more than half of the pixel range may not find room elsewhere
    and is clipped. What the model responds to is gone: a classifier that reaches the same accuracy from this control owes nothing
    to the model's features.

    Parameters
    ----------
    dataset : Dataset
        The clean images.
    relabeled : Dataset
        The same images, perturbed, with their new labels.
    seed : int
    mask : Mask, optional
        What perturbations keep to. They are shuffled within it.

    Returns
    -------
    Constructed
    """
    generator = torch.Generator().manual_seed(seed)
    free = slice(None) if mask is None else mask.free.expand(dataset.shape).flatten()

    def shuffled(magnitudes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        found, within = torch.zeros_like(magnitudes), magnitudes[:, free]
        found[:, free] = within.gather(1, torch.rand(within.shape, generator=generator).argsort(1))
        return found, _signs(magnitudes.shape, generator)

    return _replace_perturbations(dataset, relabeled, shuffled)


def class_patterns(dataset: Dataset, relabeled: Dataset, *, seed: int = 0, unperturbed: Tensor | None = None) -> Constructed:
    """The labels of a relabeled data set, with one random pattern per class, the same on all its images.

    This is the control for leakage. The pattern fixes which pixels change most, and in which direction. The magnitudes are those
    of each image's own perturbation, so that all norms stay as they were (with the exception of `shuffled_perturbations`).
    A pixel without room on one side is changed the other way. Any classifier can learn such a data set by its patterns, which
    occur in no real image.

    Parameters
    ----------
    dataset : Dataset
        The clean images.
    relabeled : Dataset
        The same images, perturbed, with their new labels.
    seed : int
    unperturbed : Tensor, bool, (N,), optional
        Images that stay clean. With those whose random label is their own, this is the data set of K. Jordan (2023), on which
        standard training reaches most of its accuracy on CIFAR-10 although no perturbation comes from a model.

    Returns
    -------
    Constructed
    """
    generator = torch.Generator().manual_seed(seed)
    count, pixels = len(dataset.classes), dataset.shape[0] * dataset.shape[1] * dataset.shape[2]
    order, signs = torch.rand(count, pixels, generator=generator).argsort(1), _signs(torch.Size((count, pixels)), generator)

    def patterned(magnitudes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        labels = relabeled.labels[index]
        ranked = magnitudes.sort(1, descending=True).values
        if unperturbed is not None:
            ranked = ranked.masked_fill(unperturbed[index, None], 0)
        return torch.zeros_like(magnitudes).scatter(1, order[labels], ranked), signs[labels]

    return _replace_perturbations(dataset, relabeled, patterned)


def rescaled_perturbations(dataset: Dataset, relabeled: Dataset, perturbations: Tensor) -> Constructed:
    """The labels of a relabeled data set with other perturbations, each as large as the image's own: for controls of your own.

    Pixels end at 0 and 1, which would make most perturbations smaller: on digits by a fifth. So each is scaled until its L2 norm
    after clipping is that of the image's perturbation in `relabeled`. Where there is not enough room it stays smaller; the
    statistics have the norms.

    Parameters
    ----------
    dataset : Dataset
        The clean images.
    relabeled : Dataset
        The same images, perturbed, with their new labels.
    perturbations : Tensor, (N, C, H, W), float
        Those to use instead; their norms do not matter.

    Returns
    -------
    Constructed

    Raises
    ------
    InputError
        If the perturbations have another shape than the images, or are not finite.

    Examples
    --------
    >>> from notbugs.data import Dataset
    >>> clean = Dataset(torch.full((1, 1, 2, 2), 0, dtype=torch.uint8), torch.tensor([0]), ("a", "b"), ("file",))
    >>> relabeled = clean.with_images(torch.tensor([[[[60, 0], [0, 0]]]], dtype=torch.uint8))
    >>> turned = torch.tensor([[[[-0.1, 0.1], [0.0, 0.0]]]])
    >>> rescaled_perturbations(clean, relabeled, turned).dataset.images[0].tolist()
    [[[0, 60], [0, 0]]]
    """
    if perturbations.shape != (len(dataset), *dataset.shape) or not bool(perturbations.isfinite().all()):
        rule = f"must be finite and of shape {(len(dataset), *dataset.shape)}, as the images"
        raise InputError("perturbations", rule, f"shape {tuple(perturbations.shape)}")

    def perturb(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        wanted = (relabeled.pixels(index) - images).flatten(1).norm(dim=1)
        directions = F.normalize(perturbations[index].flatten(1).float()).view_as(images)
        low, high = torch.zeros_like(wanted), torch.full_like(wanted, LARGEST_SCALE)
        for _ in range(SCALE_STEPS):  # the norm after clipping rises with the scale: bisection
            middle = (low + high) / 2
            small = (_clipped(images, directions, middle) - images).flatten(1).norm(dim=1) < wanted
            low, high = torch.where(small, middle, low), torch.where(small, high, middle)
        stored = to_8bit(_clipped(images, directions, (low + high) / 2))
        return stored, norms_of(stored, images)

    return _perturbed(dataset, relabeled, perturb)


def _clipped(images: Tensor, directions: Tensor, scales: Tensor) -> Tensor:
    return (images + scales.view(-1, 1, 1, 1) * directions).clamp(0, 1)


def _signs(shape: torch.Size, generator: Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator, dtype=torch.int32) * 2 - 1


def _replace_perturbations(
    dataset: Dataset, relabeled: Dataset, place: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Constructed:
    """Other perturbations of the same magnitudes. place: magnitudes (n, pixels) in 8-bit levels, index -> magnitudes, signs."""

    def perturb(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        before = to_8bit(images).flatten(1).int()
        magnitudes, signs = place((to_8bit(relabeled.pixels(index)).flatten(1).int() - before).abs(), index)
        after = before + signs * magnitudes
        # there is room on one side at least, unless a perturbation is above 127
        after = torch.where((after < 0) | (after > 255), before - signs * magnitudes, after)
        stored = after.clamp(0, 255).to(torch.uint8).reshape(images.shape)
        return stored, norms_of(stored, images)

    return _perturbed(dataset, relabeled, perturb)


def _perturbed(dataset: Dataset, relabeled: Dataset, perturb: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Constructed:
    """The labels of a relabeled data set with other images. perturb: clean images, index -> images in 8 bits, their norms."""
    size = precision.bounded_batch_size(BATCH, "cpu", dataset.shape)
    rows = Rows(relabeled.labels, dataset.classes, dataset.names)
    images, (norms,) = map_to_images(perturb, dataset, batch_size=size, share=False, rows=rows)
    changed = int((relabeled.labels != dataset.labels).sum())
    stats = ConstructionStats(n=len(dataset), **summarized(norms)._asdict(), relabeled=changed)
    return Constructed(dataset.with_images(images).with_labels(relabeled.labels), stats)


def drop_already_predicted(
    model: Model, dataset: Dataset, relabeled: Dataset, *, device: torch.device | str = "cpu"
) -> Constructed:
    """A relabeled data set without the images whose new label a model already predicts on the clean image.

    Some images resemble their new label before any perturbation, and a classifier could learn the class from these alone.

    Parameters
    ----------
    model : Model
        A weak one, so that it errs often.
    dataset : Dataset
        The clean images.
    relabeled : Dataset
        The same images, perturbed, with their new labels.
    device : torch.device or str

    Returns
    -------
    Constructed
        It may be empty.

    References
    ----------
    Wallace 2019 (Distill); K. Jordan 2023.
    """
    kept = (predict(model, dataset, device) != relabeled.labels).nonzero().squeeze(1)
    part, clean = relabeled.select(kept), dataset.select(kept)
    changed = int((part.labels != clean.labels).sum())
    norms = perturbation_norms(clean, part.images)
    return Constructed(part, ConstructionStats(n=len(kept), **norms._asdict(), relabeled=changed))


def misclassified_only(model: Model, dataset: Dataset, *, device: torch.device | str = "cpu") -> Constructed:
    """Only the clean images that a model misclassifies, each labeled as the model predicts it: every label is wrong.

    What a classifier trained on them achieves on real images, it owes to no attack.

    References
    ----------
    Wallace 2019 (Distill): 49.7 % on CIFAR-10.
    """
    predicted = predict(model, dataset, device)
    kept = (predicted != dataset.labels).nonzero().squeeze(1)
    part = dataset.select(kept).with_labels(predicted[kept])
    return Constructed(part, ConstructionStats(n=len(kept), mean_l2=0.0, max_l2=0.0, max_linf=0.0, relabeled=len(kept)))


def correct_only(models: Sequence[Model], dataset: Dataset, *, device: torch.device | str = "cpu") -> Constructed:
    """Only the images that models together (by the sum of their logits) classify correctly, unperturbed.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> len(correct_only([model], digits).dataset) < 20
    True
    """
    predicted = torch.stack([logits(model, dataset, device) for model in models]).sum(0).argmax(1)
    kept = (predicted == dataset.labels).nonzero().squeeze(1)
    return Constructed(dataset.select(kept), ConstructionStats(n=len(kept), mean_l2=0.0, max_l2=0.0, max_linf=0.0))


def pseudo_label(
    model: Model, unlabeled: Dataset, *, count: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Constructed:
    """Images of another domain, labeled by a model.

    The images are meant to show none of the classes. What a classifier trained on them achieves on real images, it owes to the
    model's predictions alone.

    Parameters
    ----------
    model : Model
    unlabeled : Dataset
        Its labels are ignored.
    count : int
        Images to choose, as balanced over the predicted classes as the predictions allow.
    seed : int
        Of the choice.
    device : torch.device or str

    Returns
    -------
    Constructed

    References
    ----------
    Wallace 2019 (Distill): digits, classified by a student that was trained on images of clothes only.
    """
    predicted = predict(model, unlabeled, device)
    order = torch.randperm(len(predicted), generator=torch.Generator().manual_seed(seed))
    rank = torch.empty_like(order)  # of each image within its class: the first of every class come first, then the second, …
    for label in range(len(unlabeled.classes)):
        members = order[predicted[order] == label]
        rank[members] = torch.arange(len(members))
    kept = order[rank[order].argsort(stable=True)][:count].sort().values
    largest = predicted[kept].bincount(minlength=len(unlabeled.classes)).max().item() / max(len(kept), 1)
    stats = ConstructionStats(n=len(kept), largest_class=largest)
    return Constructed(unlabeled.select(kept).with_labels(predicted[kept]), stats)
