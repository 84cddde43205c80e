"""D_rand and D_det: images perturbed within a small ball towards a target class, and relabeled as it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from notbugs import precision, search
from notbugs.attacks.pgd import default_steps
from notbugs.attacks.validation import Inverse, composed, inverse_of
from notbugs.construct.base import Constructed, ConstructionStats, Progress, norms_of, summarized
from notbugs.data import Dataset, Rows, map_to_images, to_8bit
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models import Model, frozen_copy, fuse_batchnorm
from notbugs.models.reading import check_finite
from notbugs.search import NormBall, objectives

KIND_IMAGES = 32  # whose outputs tell logits from probabilities


def relabel(
    model: Model,
    dataset: Dataset,
    labels: Tensor,
    *,
    threat_model: NormBall,
    steps: int = 30,
    loss: str = "cross_entropy",
    keep_label_on: Sequence[Model] = (),
    bf16: bool | None = None,
    compile: bool = False,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Constructed:
    """Perturb each image until a model predicts its new label, and relabel it.

    With `random_labels` this is D_rand, with `next_labels` D_det. To a person nearly all labels look wrong: only the model's
    non-robust features fit them. The iterate with the target's highest margin is kept, rounded to 8 bits inside the ball.

    Parameters
    ----------
    model : Model
    dataset : Dataset
        N clean images.
    labels : Tensor, int64, (N,)
        The new labels, which are the targets.
    threat_model : NormBall
    steps : int
    loss : {"cross_entropy", "margin", "dlr"}
    keep_label_on : sequence of Model
        Other models that are to go on predicting the old labels. What changes is then a bug of the one model, non-transferable,
        and no feature of the data.
    bf16, compile : bool
        How gradients are computed faster (`precision.fast_forward`); whether a target is reached is decided in float32.
    batch_size : int, optional
    device : torch.device or str
    progress : callable, optional
        Called after each batch with its number of images.

    Returns
    -------
    Constructed

    Raises
    ------
    InputError
        If `keep_label_on` is combined with another loss than the cross-entropy, or the logits of a clean image are NaN.

    References
    ----------
    Ilyas et al. 2019, section 3.2 and appendix C.5. Nakkiran 2019 (Distill), for `keep_label_on`.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("linear", shape=digits.shape, classes=10)
    >>> targets = next_labels(digits.labels, 10)
    >>> made = relabel(model, digits, targets, threat_model=NormBall("l2", 1.0), steps=5)
    >>> made.stats.relabeled, made.stats.max_l2 <= 1.0
    (20, True)
    """
    if keep_label_on and loss != "cross_entropy":
        raise InputError("loss", "must be cross_entropy where other models are to keep the label", repr(loss))
    sample = dataset.pixels(slice(0, 2))
    prepared = [
        frozen_copy(each, device) if compile else fuse_batchnorm(each, sample, device) for each in (model, *keep_label_on)
    ]
    exact, *exact_others = prepared
    told = dataset.pixels(evenly_spaced(min(KIND_IMAGES, len(dataset)), len(dataset))).to(device)
    fast, *fast_others = (
        composed(_inverse_of(each, told), precision.fast_forward(each, device, bf16=bf16, compile=compile)) for each in prepared
    )
    rule = default_steps(threat_model)

    def perturb(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        targets, old = labels[index].to(images.device), dataset.labels[index].to(images.device)
        objective = objectives.targeted(fast, targets, loss)
        if fast_others:
            objective = objectives.targeted_non_transferable(fast, fast_others, targets, old)
        found = search.maximize(objective, images, threat_model, steps=steps, rule=rule)
        stored = threat_model.round_to_8bit(found.images, images)
        with torch.no_grad():
            outputs, *others = (objectives.logits(each, stored) for each in (exact, *exact_others))
            levels = to_8bit(stored)
        norms, reached = norms_of(levels, images), outputs.argmax(1) == targets
        for each in (outputs, *others):  # an image without finite logits is not perturbed
            check_finite(each[(norms[:, 0] == 0).to(each.device)], dataset.names, index[norms[:, 0] == 0])
        return levels, norms, reached, torch.stack([reached | True, *(other.argmax(1) == old for other in others)]).all(0)

    batch_size = batch_size or precision.default_batch_size(device, dataset.shape)
    rows = Rows(labels, dataset.classes, dataset.names)
    settings = f"bf16 {bf16}, compile {compile}"
    images, others = map_to_images(
        perturb, dataset, batch_size=batch_size, device=device, progress=progress, settings=settings, rows=rows
    )
    norms, reached, kept = others
    stats = ConstructionStats(
        n=len(dataset),
        steps=steps,
        epsilon=float(threat_model.epsilon if isinstance(threat_model.epsilon, int | float) else threat_model.epsilon.max()),
        target_reached=reached.float().mean().item(),
        **summarized(norms)._asdict(),
        relabeled=int((labels != dataset.labels).sum()),
        other_models_keep_label=kept.float().mean().item() if exact_others else None,
    )
    return Constructed(dataset.with_images(images).with_labels(labels), stats)


def random_labels(labels: Tensor, classes: int, *, include_true: bool = False, seed: int = 0, stratified: bool = False) -> Tensor:
    """New labels drawn uniformly.

    Parameters
    ----------
    labels : Tensor, int64, (N,)
        The true labels.
    classes : int
        Number of classes, K.
    include_true : bool
        Draw from all classes, as in the paper: one label in K stays true. Otherwise every label is wrong.
    seed : int
    stratified : bool
        Draw so that every class is a new label equally often, up to one: with few images none is left without images.

    Returns
    -------
    Tensor, int64, (N,)

    Raises
    ------
    InputError
        If stratified labels would have to include true ones: one class has too many of the images.

    Examples
    --------
    >>> labels = torch.tensor([0, 1, 2, 3])
    >>> bool((random_labels(labels, 4) == labels).any())
    False
    >>> random_labels(labels, 4, stratified=True).bincount()
    tensor([1, 1, 1, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    if stratified:
        return _stratified_labels(labels, classes, include_true, generator)
    if include_true:
        return torch.randint(classes, labels.shape, generator=generator)
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def _stratified_labels(labels: Tensor, classes: int, include_true: bool, generator: torch.Generator) -> Tensor:
    """Each class equally often, in random order; unless true labels are included, images with theirs swap it with another."""
    counts = torch.full((classes,), len(labels) // classes)
    room = len(labels) - labels.bincount(minlength=classes)  # images that a class can be a wrong label of
    more = torch.randperm(classes, generator=generator)
    if not include_true:
        more = more[(room > counts)[more]]
    more = more[: len(labels) % classes]
    counts[more] += 1
    if not include_true and (len(more) < len(labels) % classes or (counts > room).any()):
        rule = "must leave enough images of other classes, so that each class can be a wrong label equally often"
        largest = f"{int((len(labels) - room).max())} of {len(labels)} images in one class"
        raise InputError("--stratified-targets", rule, largest, "leave it out")
    targets = torch.arange(classes).repeat_interleave(counts)[torch.randperm(len(labels), generator=generator)]
    for index in (targets == labels).nonzero().flatten().tolist() if not include_true else ():
        if targets[index] == labels[index]:  # not swapped by an earlier one
            others = ((targets != labels[index]) & (labels != labels[index])).nonzero().flatten()
            other = others[torch.randint(len(others), (1,), generator=generator)]
            targets[[index, int(other)]] = targets[[int(other), index]]
    return targets


def next_labels(labels: Tensor, classes: int) -> Tensor:
    """Each label's successor, cyclically: robust features then always indicate the wrong class, so that they cannot help.

    Examples
    --------
    >>> next_labels(torch.tensor([0, 1, 2]), 3).tolist()
    [1, 2, 0]
    """
    return (labels + 1) % classes


def _inverse_of(model: Model, images: Tensor) -> Inverse | None:
    """What makes logits of the model's outputs, if these are probabilities: the loss of a target has hardly a gradient then."""
    with torch.no_grad(), precision.full_precision():
        return inverse_of(objectives.logits(model, images))
