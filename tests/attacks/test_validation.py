"""What attacks reject, and what they leave as it was."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from attacks.conftest import Batch, margins_of, misclassified, seeded, untargeted
from torch import Tensor, nn

from notbugs import attacks
from notbugs.attacks.validation import composed, inverse_of
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall, SpatialTransforms

THREAT_MODEL = NormBall("l2", 0.75)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: (logits, logits), "must return a tensor of logits.*, got tuple"),
        (lambda logits: logits.numpy(), "got ndarray; wrap it"),
        (lambda logits: logits[0], r"must return logits of shape \(5, classes\), got \(3,\)"),
        (lambda logits: logits[:, :1], r"must have two classes or more, got 1; .* \(0, z\)"),
        (lambda logits: logits * torch.nan, "must return finite logits, got non-finite ones for 5 of 5 images"),
    ],
)
def test_models_with_other_outputs_are_rejected(answer: Callable[[Tensor], Any], message: str) -> None:
    images, labels = torch.rand(5, 1, 4, 4, generator=seeded()), torch.zeros(5, dtype=torch.int64)

    def model(images: Tensor) -> Any:
        return answer(torch.ones(len(images), 3).detach())

    for attack in (
        partial(attacks.adaptive_ensemble, threat_model=THREAT_MODEL),
        attacks.minimum_norm,
        attacks.one_pixel,
        attacks.hop_skip_jump,
        partial(attacks.square_attack, threat_model=THREAT_MODEL),
        partial(attacks.spatial_attack, threat_model=SpatialTransforms(10, 1)),
        partial(attacks.worst_case, attacks=[]),
    ):
        with pytest.raises(InputError, match="^model: .*" + message):
            attack(model, images, labels)


def test_images_and_labels_that_make_no_sense_are_rejected(standard: Model, few: Batch) -> None:
    images, labels = few
    attack = partial(attacks.adaptive_ensemble, standard, threat_model=THREAT_MODEL)
    for bad_images, bad_labels, message in (
        (images * 255, labels, r"^images: must lie in \[0, 1\], got 0 to 255; divide by 255"),
        (images - 0.5, labels, r"^images: must lie in \[0, 1\], got -0.5 to 0.5; make normalization"),
        (images * torch.nan, labels, r"^images: must lie in \[0, 1\]"),
        ((images * 255).byte(), labels, r"^images: must be a float tensor, N x C x H x W, got torch.uint8"),
        (images[0], labels, r"^images: must be a float tensor"),
        (images.numpy(), labels, r"^images: must be a float tensor.*got ndarray"),
        (images[:, :, :5], labels, r"^model: must take torch.float32 images of shape \(60, 1, 5, 8\)"),
        (images, labels + 9, r"^labels: must be from 0 to 9, the model's classes, got 9 to 18"),
        (images, labels - 1, r"^labels: must be from 0 to 9"),
        (images, labels.float(), r"^labels: must be an int64 tensor"),
        (images, labels[:3], r"^labels: must be an int64 tensor, one for each of the 60 images"),
    ):
        with pytest.raises(InputError, match=message):
            attack(bad_images, bad_labels)
        if message.startswith("^images"):
            with pytest.raises(InputError, match=message):
                attacks.pgd(standard, bad_images, bad_labels, threat_model=THREAT_MODEL)
    half = copy.deepcopy(standard).network if hasattr(standard, "network") else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"^model: must take torch.float32 images .* on cpu, got .*dtype"):
        attacks.adaptive_ensemble(half.half(), images, labels, threat_model=THREAT_MODEL)


@pytest.mark.slow
def test_single_attacks_reject_the_same(standard: Model, few: Batch) -> None:
    images, labels = few[0][:40], few[1][:40]
    for attack in (attacks.pgd, attacks.apgd, attacks.fgsm, attacks.rank_targeted_pgd):
        with pytest.raises(InputError, match=r"^labels: must be from 0 to 9"):
            attack(standard, images, labels + 90, threat_model=THREAT_MODEL)
    with pytest.raises(InputError, match=r"^model: must take torch.float32 images of shape"):
        attacks.pgd(standard, torch.rand(40, 3, 8, 8), labels, threat_model=THREAT_MODEL)
    by_name = attacks.pgd(standard, images, labels=labels, threat_model=THREAT_MODEL)
    assert torch.equal(by_name.margins, attacks.pgd(standard, images, labels, threat_model=THREAT_MODEL).margins)


def test_gradient_attacks_reject_models_without_gradients(standard: Model, few: Batch) -> None:
    def black_box(images: Tensor) -> Tensor:
        with torch.no_grad():
            return standard(images)

    for attack in (partial(attacks.pgd, threat_model=THREAT_MODEL), attacks.minimum_norm):
        with pytest.raises(InputError, match=r"^model: must have gradients for this attack, got .*; use square_attack"):
            attack(black_box, *few)


def test_other_threat_models_and_batch_sizes_are_rejected(standard: Model, few: Batch) -> None:
    for threat_model in ("l2:0.5", nn.Identity()):
        with pytest.raises(InputError, match=r"^threat_model: must be a NormBall, SpatialTransforms, or an object with"):
            attacks.adaptive_ensemble(standard, *few, threat_model=threat_model)
    with pytest.raises(InputError, match=r"^batch_size: must be 1 or more"):
        attacks.adaptive_ensemble(standard, *few, threat_model=THREAT_MODEL, batch_size=0)
    with pytest.raises(InputError, match=r"^threat_model: must be SpatialTransforms"):
        attacks.spatial_attack(standard, *few, threat_model=THREAT_MODEL)


def test_models_that_modify_their_input_are_rejected_and_the_images_stay(standard: Model, few: Batch) -> None:
    images, labels = few
    before = images.clone()

    def model(images: Tensor) -> Tensor:
        return standard(images.mul_(0.9))

    for attack in (attacks.adaptive_ensemble, attacks.square_attack):
        with pytest.raises(InputError, match=r"^model: must not modify its input, .* begin with images = images.clone"):
            attack(model, images, labels, threat_model=THREAT_MODEL)
        assert torch.equal(images, before)


@pytest.mark.slow
def test_objects_with_logits_are_outputs(standard: Model, few: Batch) -> None:
    class Output(NamedTuple):
        logits: Tensor

    plain = attacks.adaptive_ensemble(standard, *few, threat_model=THREAT_MODEL)
    wrapped = attacks.adaptive_ensemble(lambda images: Output(standard(images)), *few, threat_model=THREAT_MODEL)
    assert torch.equal(plain.images, wrapped.images)


@pytest.mark.slow
def test_every_attack_uses_evaluation_mode_and_restores_the_mode_of_each_module(few: Batch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.9), nn.BatchNorm1d(32), nn.Linear(32, 10))
    model[3].eval()  # a part that is frozen already
    model[1].weight.requires_grad_(False)
    modes, statistics = [module.training for module in model.modules()], model[3].running_mean.clone()
    every = {
        **untargeted(THREAT_MODEL),
        "one pixel": attacks.one_pixel,
        "minimum norm": attacks.minimum_norm,
        "square attack": partial(attacks.square_attack, threat_model=THREAT_MODEL, queries=5),
        "hop skip jump": partial(attacks.hop_skip_jump, queries=50),
        "spatial": partial(attacks.spatial_attack, threat_model=SpatialTransforms(10, 0)),
        "ensemble": partial(attacks.adaptive_ensemble, threat_model=THREAT_MODEL),
    }
    for name, attack in every.items():
        one, two = (attack(model, *few) for _ in range(2))
        if name not in ("pgd random", "pgd restarts"):
            assert torch.equal(one.images, two.images), name  # no dropout
        assert [module.training for module in model.modules()] == modes, name
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True], name
        assert torch.equal(model[3].running_mean, statistics), name


@pytest.mark.slow
def test_models_without_gradients_are_black_boxes(standard: Model, few: Batch) -> None:
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(_: object, images: Tensor) -> Tensor:
            return images.clone()

    images, labels = few
    for front in (
        lambda images: torch.from_numpy(images.numpy()),  # raises where gradients are needed
        lambda images: images.detach(),
        NoBackward.apply,
    ):

        def model(images: Tensor, front: Callable[[Tensor], Tensor] = front) -> Tensor:
            return standard(front(images))

        assert not attacks.has_gradient(model, images)
        found = attacks.adaptive_ensemble(model, images[:10], labels[:10], threat_model=THREAT_MODEL, budget="quick")
        assert misclassified(found) >= 1


def test_clean_logits_are_those_of_the_model_and_probabilities_become_logarithms(standard: Model, few: Batch) -> None:
    logits = attacks.clean_logits(standard, *few)
    with torch.no_grad():
        assert torch.equal(logits, standard(few[0]))
    assert composed(inverse_of(logits), standard) is standard

    def probabilities(images: Tensor) -> Tensor:
        return standard(images).softmax(1)

    logarithms = composed(inverse_of(probabilities(few[0])), probabilities)
    assert torch.allclose(logarithms(few[0]).exp(), probabilities(few[0]), atol=1e-6)
    predicted = margins_of(logarithms, *few) < 0
    assert torch.equal(predicted, margins_of(standard, *few) < 0)


def test_of_sigmoids_logits_are_attacked_in_the_same_order() -> None:
    """Values that a float32 tells apart stay apart, also outside of [0, 1], where outputs may go that are no sigmoids."""
    inverse = inverse_of(torch.tensor([[0.9, 0.8], [0.0, 1.0]]))
    assert inverse is not None
    values = torch.tensor([-2.0, -1.0, 0.0, 1e-30, 1e-5, 0.5, 1 - 2.0**-23, 1 - 2.0**-24, 1.0, 1.5, 3.0], requires_grad=True)
    assert bool((inverse(values).diff() > 0).all())
    (slopes,) = torch.autograd.grad(inverse(values).sum(), values)
    assert bool(slopes.isfinite().all())
    logits = torch.linspace(-9, 9, 7).reshape(1, 7)
    assert torch.allclose(inverse(logits.sigmoid()), logits, atol=1e-2)
    assert inverse_of(logits) is None and inverse_of(torch.zeros(0, 3)) is None


def test_an_empty_batch_counts_as_differentiable() -> None:
    assert attacks.has_gradient(lambda images: images.detach(), torch.rand(0, 1, 4, 4))
