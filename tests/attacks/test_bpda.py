"""Gradients through steps: the same model to the last bit, whatever it does with what it is given."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall

BALL = NormBall("l2", 0.75)


@pytest.fixture(scope="module")
def few(digits: data.Splits) -> tuple[Tensor, Tensor]:
    """40 test digits."""
    return digits.test.pixels(slice(0, 40)), digits.test.labels[:40]


class Through(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def halved(images: Tensor) -> Tensor:
    found = images * 15
    found.floor_()
    return found / 15


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda images: (images * 15).to(torch.uint8).float() / 15,
    "byte": lambda images: (images * 15).byte().to(images.dtype) / 15,
    "long": lambda images: (images * 15).long().type(torch.float32) / 15,
    "mode": lambda images: torch.div(images, 1 / 15, rounding_mode="floor") / 15,
    "method mode": lambda images: images.div(1 / 15, rounding_mode="trunc") / 15,
    "rest": lambda images: images - images % (1 / 15),
    "fraction": lambda images: (15 * images - (15 * images).frac()) / 15,
    "keyword": lambda images: torch.round_to_8bit(input=15 * images) / 15,
    "whole quotient": lambda images: torch.floor_divide(15 * images, other=1) / 15,
    "in place": halved,
    "threshold": lambda images: 0.7 * images + 0.3 * (images > 0.5).float(),
    "threshold below": lambda images: 0.7 * images + 0.3 * (1 - (images <= 0.5).to(images.dtype)),
    "numpy module": Through(lambda images: torch.from_numpy((15 * images.detach().numpy()).round() / 15)),
}


@pytest.mark.parametrize("how", STEPS)
def test_steps_of_every_spelling_pass_gradients_on(how: str, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    (images, labels), front = few, STEPS[how]

    def model(seen: Tensor) -> Tensor:
        return standard(front(seen))  # type: ignore[no-any-return]

    straight = attacks.straight_through(model, images)
    assert straight is not None
    pixels = images.clone().requires_grad_()
    logits = straight(pixels)
    with torch.no_grad():
        assert torch.equal(logits.detach(), model(images))
    logits.sum().backward()
    assert pixels.grad is not None and (pixels.grad.flatten(1).abs().amax(1) > 0).all()
    left = int((attacks.adaptive_ensemble(model, images, labels, threat_model=BALL).margins < 0).sum())
    without = int((attacks.adaptive_ensemble(standard, images, labels, threat_model=BALL).margins < 0).sum())
    assert left <= without + 3


class Table(nn.Module):
    """Looks pixels up: what indexes must stay a whole number."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.values = Through(lambda images: (15 * images).long()), nn.Embedding(16, 1)
        self.values.weight.data = torch.linspace(0, 1, 16)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.values(self.token(images))
        return found.squeeze(-1)


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": lambda images: images.masked_fill(Through(lambda seen: seen > 0.5)(images), 1.0),
    "table": Table(),
    "shift": lambda images: (Through(lambda seen: (seen * 255).to(torch.uint8))(images) >> 4).float() / 15,
    "wrap": lambda images: (Through(lambda seen: (seen * 255).to(torch.uint8))(images) + 60).float() / 255,
    "where": lambda images: torch.where(images > 0.5, images, 0.5 * images),
}


@pytest.mark.parametrize("how", WHOLE)
def test_whole_numbers_stay_what_they_are(how: str, standard: Model, few: tuple[Tensor, Tensor]) -> None:
    """Exact, or left alone; and the verdict is made all the same."""
    (images, labels), front = few, WHOLE[how]

    def model(seen: Tensor) -> Tensor:
        return standard(front(seen))  # type: ignore[no-any-return]

    straight = attacks.straight_through(model, images)
    with torch.no_grad():
        plain = model(images)
        if straight is not None:
            assert torch.equal(straight(images), plain)
    found = attacks.adaptive_ensemble(model, images, labels, threat_model=BALL, budget="quick")
    clean = int((plain.argmax(1) == labels).sum())
    assert int((found.margins < 0).sum()) <= clean
    assert torch.isfinite(found.images).all()


def test_the_models_mode_and_statistics_are_left_alone(few: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(Through(torch.round), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).train()
    before = model.get_submodule("2").get_buffer("running_mean").clone()
    straight = attacks.straight_through(model, few[0])
    assert straight is not None
    straight(few[0])
    assert model.training and torch.equal(model.get_submodule("2").get_buffer("running_mean"), before)


def test_other_threads_run_their_own_models_meanwhile(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    (images, labels), stop, failures = few, threading.Event(), list[Exception]()
    cut = Through(lambda seen: (seen * 3).round().detach())

    def beside() -> None:
        while not stop.is_set():
            if cut(torch.ones(2, requires_grad=True)).requires_grad:
                failures.append(AssertionError("another thread's module was straightened"))

    worker = threading.Thread(target=beside)
    worker.start()
    try:
        model = nn.Sequential(Through(lambda seen: (15 * seen).round() / 15), standard)
        attacks.adaptive_ensemble(model, images, labels, threat_model=BALL, budget="quick")
    finally:
        stop.set()
        worker.join()
    assert failures == []


# ---- models that work, but not with gradients, or not on their own copy --------------------------------------------------------


def test_what_works_without_gradients_is_a_black_box(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(_: object, images: Tensor) -> Tensor:
            return images.clone()

    images, labels = few
    for front in (
        lambda seen: torch.from_numpy(seen.numpy()),  # raises where gradients are wanted
        lambda seen: seen.detach(),
        NoBackward.apply,
    ):

        def model(seen: Tensor, front: Callable[[Tensor], Tensor] = front) -> Tensor:
            return standard(front(seen))  # type: ignore[no-any-return]

        assert not attacks.has_gradient(model, images)
        found = attacks.adaptive_ensemble(model, images[:10], labels[:10], threat_model=BALL, budget="quick")
        assert int((found.margins >= 0).sum()) >= 1


def test_a_model_that_works_in_place_is_refused_and_the_images_stay(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    before = images.clone()

    def model(seen: Tensor) -> Tensor:
        return standard(seen.mul_(0.9))  # type: ignore[no-any-return]

    for attack in (attacks.adaptive_ensemble, attacks.square_attack):
        with pytest.raises(InputError, match=r"^model: must not change the images .* begin with images = images.clone"):
            attack(model, images, labels, threat_model=BALL)
        assert torch.equal(images, before)


def test_single_attacks_say_what_is_wrong_too(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    images, labels = few
    wrong = labels + 90
    for attack in (attacks.pgd, attacks.apgd, attacks.fgsm, attacks.rank_targeted_pgd):
        with pytest.raises(InputError, match=r"^labels: must be from 0 to 9"):
            attack(standard, images, wrong, threat_model=BALL)
    with pytest.raises(InputError, match=r"^model: must take torch.float32 images of shape"):
        attacks.pgd(standard, torch.rand(40, 3, 8, 8), labels, threat_model=BALL)

    def box(seen: Tensor) -> Tensor:
        with torch.no_grad():
            return standard(seen)  # type: ignore[no-any-return]

    for attack in (attacks.pgd, attacks.minimum_norm):
        with pytest.raises(InputError, match=r"^model: must have gradients for this attack, got .*; use square"):
            attack(box, images, labels, **({"ball": BALL} if attack is attacks.pgd else {}))
    found = attacks.pgd(standard, images, labels=labels, threat_model=BALL)  # by name as well
    assert torch.equal(found.margins, attacks.pgd(standard, images, labels, threat_model=BALL).margins)
    for threat_model in ("l2:0.5", nn.Identity()):
        with pytest.raises(InputError, match=r"^threat_model: must be a Ball, Spatial, or an object with"):
            attacks.adaptive_ensemble(standard, images, labels, threat_model=threat_model)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^batch_size: must be 1 or more"):
        attacks.adaptive_ensemble(standard, images, labels, threat_model=BALL, batch_size=0)
    with pytest.raises(InputError, match=r"^threat_model: must be Spatial"):
        attacks.spatial_attack(standard, images, labels, threat_model=BALL)  # type: ignore[arg-type]


def test_half_precision_walks_and_is_straightened(standard: Model, few: tuple[Tensor, Tensor]) -> None:
    import copy

    half, (images, labels) = copy.deepcopy(standard).half(), few
    walked = attacks.hop_skip_jump(half, images.half(), labels, norm="l2", queries=200)
    assert walked.images.dtype == torch.float16 and int(walked.margins.isfinite().sum()) > 30
    model = nn.Sequential(Through(lambda seen: (15 * seen).round() / 15), half)
    found = attacks.adaptive_ensemble(model, images.half(), labels, threat_model=BALL)
    assert int((found.margins < 0).sum()) < 10
