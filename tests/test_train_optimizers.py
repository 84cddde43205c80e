"""`fit` with other optimizers, schedules, and early stopping."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from notbugs import attacks, data, models, train
from notbugs.errors import InputError
from notbugs.search import NormBall


@pytest.fixture(scope="module")
def few(digits: data.Splits) -> data.Dataset:
    return digits.train.select(slice(0, 120))


def linear(few: data.Dataset) -> models.Model:
    return models.build("linear", shape=few.shape, classes=10)


def test_sgd_with_momentum_is_that_of_torch(few: data.Dataset) -> None:
    """One batch an epoch: the same steps by hand."""
    model, other = linear(few), linear(few)
    curve = train.fit(
        model,
        few,
        epochs=3,
        batch_size=200,
        optimizer=train.sgd,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule=lambda share: 1.0,
    )
    assert [epoch.learning_rate for epoch in curve] == [0.1] * 3
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(few.pixels(slice(None))), few.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for found, expected in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_a_schedule_of_ones_own_is_a_factor_of_the_rate_at_each_step(few: data.Dataset) -> None:
    shares: list[float] = []

    def schedule(share: float) -> float:
        shares.append(share)
        return 1 - share / 2

    curve = train.fit(linear(few), few, epochs=2, batch_size=60, learning_rate=0.2, schedule=schedule)
    assert list(dict.fromkeys(shares)) == [0.25, 0.5, 0.75, 1.0]  # two steps an epoch
    assert [epoch.learning_rate for epoch in curve] == pytest.approx([0.15, 0.1])


CONSTANT, DECAY = (lambda share: 1.0), train.step_decay(0.5)


@pytest.mark.parametrize(
    ("schedule", "factors"), [(CONSTANT, [1, 1, 1, 1]), (DECAY, [1, 1, 0.1, 0.1]), (None, [1, 2 / 3, 1 / 3, 0])]
)
def test_each_parameter_group_keeps_its_own_learning_rate(
    few: data.Dataset, schedule: train.RateShape | None, factors: list[float]
) -> None:
    """The schedule multiplies both: the weight is trained at a tenth of the rate of the bias."""
    found: list[list[float]] = []

    def make(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        (weight, bias), rates = model.parameters(), (learning_rate / 10, learning_rate)
        optimizer = torch.optim.SGD([{"params": [weight], "lr": rates[0]}, {"params": [bias], "lr": rates[1]}])
        optimizer.register_step_pre_hook(lambda own, *_: found.append([group["lr"] for group in own.param_groups]))
        return optimizer

    curve = train.fit(linear(few), few, epochs=2, batch_size=60, learning_rate=0.1, optimizer=make, schedule=schedule)
    assert found == [pytest.approx([0.01 * factor, 0.1 * factor]) for factor in factors]
    assert [epoch.learning_rate for epoch in curve] == [found[1][0], found[3][0]]


def test_early_stopping_ends_after_epochs_without_a_rise_with_the_best_weights(few: data.Dataset) -> None:
    validation = few.select(slice(80, 120))
    stopping = train.EarlyStopping(validation, epochs=2)
    model = linear(few)
    weights: list[torch.Tensor] = []

    def keep(epoch: train.Epoch) -> None:
        weights.append(next(iter(model.state_dict().values())).clone())

    curve = train.fit(model, few.select(slice(0, 80)), epochs=60, stopping=stopping, progress=keep)
    best = stopping.accuracies.index(max(stopping.accuracies))
    assert len(curve) == len(stopping.accuracies) == best + 3 < 60
    assert torch.equal(next(iter(model.state_dict().values())), weights[best]) and not model.training


def test_early_stopping_can_be_used_again_with_another_model(few: data.Dataset) -> None:
    """The second training neither compares with the first one nor takes its weights."""
    stopping = train.EarlyStopping(few.select(slice(80, 120)), epochs=50)
    train.fit(linear(few), few, epochs=8, stopping=stopping)
    first, second = stopping.accuracies, models.build("small", shape=few.shape, classes=10, width=4)
    curve = train.fit(second, few, epochs=1, learning_rate=1e-6, stopping=stopping)
    assert len(first) == 8 and len(stopping.accuracies) == len(curve) == 1
    assert stopping.accuracies[0] < max(first)


def test_early_stopping_under_attack_has_the_robust_accuracy_of_each_epoch(few: data.Dataset) -> None:
    attack = partial(attacks.pgd, threat_model=NormBall("l2", 0.5), steps=2)
    model, validation, expected = linear(few), few.select(slice(80, 120)), list[float]()
    pixels, labels = validation.pixels(slice(None)), validation.labels

    def evaluate(epoch: train.Epoch) -> None:
        modes = [module.training for module in model.modules()]
        found = attack(model.eval(), pixels, labels).images
        expected.append(float((model(found).argmax(1) == labels).double().mean()))
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode

    stopping = train.EarlyStopping(validation, epochs=9, attack=attack)
    curve = train.fit(model, few.select(slice(0, 80)), epochs=3, stopping=stopping, progress=evaluate)
    assert stopping.accuracies == pytest.approx(expected) == [epoch.validation_accuracy for epoch in curve]
    clean = train.EarlyStopping(validation, epochs=9)
    train.fit(linear(few), few.select(slice(0, 80)), epochs=3, stopping=clean)
    assert max(stopping.accuracies) < max(clean.accuracies)


def test_evaluating_changes_no_training(few: data.Dataset) -> None:
    """Dropout and batch norm are in training mode again, and draw the same numbers."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))

    plain, stopped = network(), network()
    train.fit(plain, few, epochs=2)
    never = train.EarlyStopping(few, epochs=9)
    last: list[dict[str, torch.Tensor]] = []

    def keep(epoch: train.Epoch) -> None:
        last.append({name: value.clone() for name, value in stopped.state_dict().items()})

    train.fit(stopped, few, epochs=2, stopping=never, progress=keep)
    assert all(map(torch.equal, plain.state_dict().values(), last[-1].values()))


def test_what_cannot_be_used_is_an_input_error(few: data.Dataset) -> None:
    with pytest.raises(InputError, match="patience: must be 0 with a schedule or early stopping of your own, got 3"):
        train.fit(linear(few), few, epochs=1, patience=3, schedule=train.step_decay(0.5))
    with pytest.raises(InputError, match=r"EarlyStopping.epochs: must be 1 or more, got 0"):
        train.EarlyStopping(few, epochs=0)
    with pytest.raises(InputError, match=r"EarlyStopping.validation: must have images, got 0"):
        train.EarlyStopping(few.select([]))


def sgd_of(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for module in modules for parameter in module.parameters()], 0.1)


SGD, ELSEWHERE = torch.optim.SGD, nn.Linear(2, 2)
DECAYING = torch.optim.lr_scheduler.StepLR(sgd_of(ELSEWHERE), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"optimizer": sgd_of(ELSEWHERE)},
            r"optimizer: must be a function of .*, got an object of class SGD; pass train\.sgd, or",
        ),
        ({"optimizer": SGD}, r"optimizer: must be a function of .*, got the class SGD; pass train\.sgd, or"),
        ({"optimizer": partial(SGD, momentum=0.9)}, r"optimizer: .*, got partial of the class SGD; pass train\.sgd, or"),
        ({"optimizer": "sgd"}, r"optimizer: .*, got an object of class str; pass train\.sgd, or"),
        ({"optimizer": lambda model: sgd_of(model)}, r"optimizer: .*, got the function <lambda>; pass"),
        ({"optimizer": lambda *_: None}, r"optimizer: .*, got a function that returns an object of class NoneType; pass"),
        ({"optimizer": lambda *_: sgd_of(ELSEWHERE)}, r"optimizer: must hold parameters of the model, got SGD; pass"),
        ({"optimizer": lambda model, *_: torch.optim.LBFGS(model.parameters())}, r"optimizer: .* closure, got LBFGS; pass"),
        ({"schedule": DECAYING}, r"schedule: must be a function of .*, got an object of class StepLR; pass train\.step_decay"),
        ({"schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=1)}, r"schedule: .*, got partial of the class StepLR"),
        ({"schedule": lambda share: DECAYING}, r"schedule: .* that returns an object of class StepLR; pass train\.step_decay"),
        ({"schedule": lambda share: -share}, r"schedule: must return finite factors of 0 or more, got -0\.5; pass"),
        ({"schedule": lambda share: float("nan")}, r"schedule: must return finite factors of 0 or more, got nan; pass"),
        ({"loss": nn.CrossEntropyLoss()}, r"loss: must be a function of .*, got an object of class CrossEntropyLoss; pass"),
        ({"loss": nn.functional.cross_entropy}, r"loss: .*, got the function cross_entropy; pass train\.cross_entropy"),
        (
            {"loss": lambda *batch: train.cross_entropy(*batch)[0]},
            r"loss: .*, got a function that returns an object of class Tensor",
        ),
        ({"batch_size": 0}, r"batch_size: must be 1 or more, got 0"),
        ({"learning_rate": -0.1}, r"learning_rate: must be 0 or more, got -0\.1"),
        ({"weight_decay": float("nan")}, r"weight_decay: must be 0 or more, got nan"),
    ],
)
def test_what_fit_cannot_use_is_one_error_with_a_remedy(few: data.Dataset, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        train.fit(linear(few), few, **{"epochs": 1, "batch_size": 60, **settings})  # type: ignore[arg-type]


def test_no_images_and_other_classes_are_input_errors(few: data.Dataset) -> None:
    with pytest.raises(InputError, match=r"^data: must have images, got 0"):
        train.fit(linear(few), few.select([]), epochs=1)
    other = train.EarlyStopping(replace(few, classes=few.classes[::-1]))
    with pytest.raises(
        InputError, match=r"^EarlyStopping\.validation: must have the classes of the training images in their order"
    ):
        train.fit(linear(few), few, epochs=1, stopping=other)


def test_step_decay_takes_shares_not_epochs() -> None:
    with pytest.raises(
        InputError, match=r"^shares: must be shares of the steps, from 0 to 1, got 50; divide epochs by all epochs"
    ):
        train.step_decay(50, 100)
    with pytest.raises(InputError, match=r"^factor: must be 0 or more, got -0\.1"):
        train.step_decay(0.5, factor=-0.1)
