"""Training: the schedule, patience, losses and augmentation."""

import copy
import importlib
import math
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rank_jobs
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from torch import Generator, Tensor, nn

from notbugs import attacks, construct, data, metrics, models, train
from notbugs.data import Dataset
from notbugs.data import images as data_images
from notbugs.errors import InputError, NotbugsWarning
from notbugs.search import AttackResult, NormBall
from notbugs.train import state


def tiny_model(seed: int = 0, classes: int = 10) -> models.Model:
    return models.build("small", shape=(1, 8, 8), classes=classes, width=4, seed=seed)


def random_dataset(n: int = 100, classes: int = 10) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Dataset(images, torch.randint(classes, (n,), generator=generator), tuple("0123456789"[:classes]), ("",) * n)


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


# ---- fit ----------------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_weights(digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 300))
    trained, curves = [], []
    for seed in (1, 1, 2):
        model = tiny_model()
        curves.append(train.fit(model, part, epochs=2, seed=seed, augment=train.random_translate(1, flip=False)))
        trained.append(model)
    assert same_weights(trained[0], trained[1])
    assert [epoch[:4] for epoch in curves[0]] == [epoch[:4] for epoch in curves[1]]
    assert not same_weights(trained[0], trained[2])


@pytest.mark.parametrize("n", [1, 3, 5, 65])
def test_no_batch_has_one_image(n: int) -> None:
    """Batch norm cannot train on one image. For a data set of one image batch norm itself raises."""
    if n == 1:
        with pytest.raises(ValueError, match="more than 1 value"):
            train.fit(tiny_model(), random_dataset(n), epochs=1, batch_size=2)
    else:
        assert len(train.fit(tiny_model(), random_dataset(n), epochs=1, batch_size=2)) == 1


def test_one_batch_and_one_epoch_train(digits: data.Splits) -> None:
    model, before = tiny_model(), tiny_model()
    train.fit(model, digits.train.select(slice(0, 50)), epochs=1, batch_size=64)
    assert not same_weights(model, before)


def test_long_epochs_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    train.fit(tiny_model(), random_dataset(8), epochs=2, batch_size=2, within_epoch=told.append)
    assert not told  # they took less than a second
    monkeypatch.setattr(importlib.import_module("notbugs.train.fit"), "SECONDS_BETWEEN_REPORTS", -1)
    train.fit(tiny_model(), random_dataset(8), epochs=2, batch_size=2, within_epoch=told.append)
    assert told == [number / 4 for number in range(1, 9)]


class UsesView(nn.Module):
    """A common pattern: `view` needs the contiguous memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.convolution(images).view(len(images), -1))
        return result


def test_users_network_gets_the_contiguous_memory_format(digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 60))
    model = models.wrap(UsesView(), torch.zeros(2, 1, 8, 8))
    train.fit(model, part, epochs=1, augment=train.random_translate(1, flip=True))
    assert metrics.clean_accuracy(model, part).n == 60
    assert len(metrics.robust_accuracy(model, part, [NormBall("l2", 0.1)])) == 2
    assert construct.invert_features(model, part, steps=1).dataset.shape == part.shape


def test_dropout_follows_the_seed(digits: data.Splits) -> None:
    """Dropout draws from torch's global state, which starts from the seed and is restored for the caller."""

    def trained(state: int, seed: int) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        train.fit(network, digits.train.select(slice(0, 200)), epochs=2, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return network

    networks = [trained(state, seed) for state, seed in enumerate((1, 1, 2))]
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])


@pytest.mark.slow
def test_training_learns_and_returns_its_curve(digits: data.Splits) -> None:
    model, reported = tiny_model(), list[train.Epoch]()
    curve = train.fit(model, digits.train, epochs=3, batch_size=64, progress=reported.append)
    assert reported == curve
    assert [epoch.epoch for epoch in curve] == [1, 2, 3]
    assert curve[0].loss > 1.5 * curve[-1].loss
    assert curve[-1].accuracy > 0.8
    assert 0 < curve[0].seconds < curve[-1].seconds
    assert not any(module.training for module in model.modules())


def test_loss_and_accuracy_of_an_epoch_are_means_over_the_data_set() -> None:
    """100 images in batches of at most 30: batches are of equal size."""
    part, sizes = random_dataset(), []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(labels))
        wrong = (labels + (labels < 5)) % 10
        return model(images).mean() * 0 + (labels < 5).float().mean(), F.one_hot(wrong, 10).float()

    curve = train.fit(tiny_model(), part, loss, epochs=1, batch_size=30)
    assert sizes == [25, 25, 25, 25]
    assert curve[0].loss == pytest.approx(float((part.labels < 5).float().mean()))
    assert curve[0].accuracy == pytest.approx(float((part.labels >= 5).float().mean()))


@pytest.mark.parametrize(("epochs", "batches"), [(4, 10), (10, 3), (1, 20), (2, 1)])
def test_learning_rate_warms_up_and_decays_to_zero(epochs: int, batches: int) -> None:
    """0.15 of all steps upwards, the rest downwards, never below zero."""
    rates = learning_rates(epochs=epochs, patience=0, batches=batches, correct_from=1)
    total = epochs * batches
    warm = max(1, round(0.15 * total))
    wanted = [min(step / warm, (total - step) / (total - warm)) for step in range(1, total + 1)]
    assert rates == pytest.approx(wanted)
    assert rates[-1] == 0


def learning_rates(*, epochs: int, patience: int, batches: int, correct_from: int, accuracy: float = 1.0) -> list[float]:
    """Learning rate of every step (maximum 1) if `accuracy` of the predictions are correct from epoch `correct_from` on."""
    rates: list[float] = []
    part, current_epoch = random_dataset(10 * batches), 1

    class RecordingAdamW(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        correct = torch.arange(len(labels)) < round(accuracy * len(labels)) * (current_epoch >= correct_from)
        return model(images).mean(), F.one_hot(torch.where(correct, labels, (labels + 1) % 10), 10).float()

    def progress(epoch: train.Epoch) -> None:
        nonlocal current_epoch
        current_epoch += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", RecordingAdamW)
        train.fit(tiny_model(), part, loss, epochs=epochs, patience=patience, batch_size=10, learning_rate=1.0, progress=progress)
    return rates


@pytest.mark.parametrize(("epochs", "patience", "batches"), [(4, 2, 10), (10, 5, 10), (1, 1, 7), (3, 8, 1), (2, 0, 5)])
def test_training_waits_at_chance_level_and_then_starts_again_at_a_quarter(epochs: int, patience: int, batches: int) -> None:
    """It waits at the full rate, after the warm-up. The second time the whole schedule follows, down to zero and never below."""
    rates = learning_rates(epochs=epochs, patience=patience, batches=batches, correct_from=10**6)
    without = learning_rates(epochs=epochs, patience=0, batches=batches, correct_from=10**6)
    warm = max(1, round(0.15 * epochs * batches))
    waited = [*without[:warm], *[1.0] * (patience * batches), *without[warm:]]
    given_up = (math.ceil(warm / batches) - 1 + patience) * batches if patience else 0
    assert rates == pytest.approx([*waited[:given_up], *((0.25 if patience else 1.0) * rate for rate in waited)])


@pytest.mark.slow
def test_waiting_ends_when_accuracy_rises_above_chance() -> None:
    rates = learning_rates(epochs=10, patience=50, batches=10, correct_from=5)
    assert len(rates) == 130  # epochs 2, 3 and 4 at the full rate are extra
    assert rates[14:50] == [1.0] * 36
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == 0
    assert min(rates) == 0
    assert learning_rates(epochs=10, patience=50, batches=10, correct_from=1) == learning_rates(
        epochs=10, patience=0, batches=10, correct_from=1
    )


@pytest.mark.slow
def test_chance_level() -> None:
    """1.5 times chance. For 10 balanced classes chance is 1 in 9, as labels may all be known to be wrong."""
    at_chance = len(learning_rates(epochs=2, patience=3, batches=10, correct_from=1, accuracy=0.1))
    above_chance = len(learning_rates(epochs=2, patience=3, batches=10, correct_from=1, accuracy=0.3))
    assert (at_chance, above_chance) == (80, 20)


def test_random_labels_at_a_tiny_learning_rate_stay_at_chance() -> None:
    curve = train.fit(tiny_model(), random_dataset(300), epochs=3, patience=4, batch_size=100, learning_rate=1e-6)
    assert len(curve) == 4 + 7
    assert max(epoch.accuracy for epoch in curve) < 0.2


def test_a_second_start_is_from_the_initial_weights() -> None:
    model, part = tiny_model(), random_dataset(100)
    initial = copy.deepcopy(model)
    weights: list[dict[str, Tensor]] = []
    train.fit(model, part, epochs=4, patience=2, batch_size=50, learning_rate=1e-6,
              progress=lambda epoch: weights.append(copy.deepcopy(model.state_dict())))  # fmt: skip
    assert len(weights) == 2 + 6
    distances = [sum((each[name] - value).abs().sum().item() for name, value in initial.named_parameters()) for each in weights]
    assert distances[2] < 0.5 * distances[1]  # the first epoch of the second start


def test_divergence_and_bad_arguments_raise() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"^learning rate: training diverged: .* got 1e\+38; lower it$"):
        train.fit(network, random_dataset(), epochs=5, batch_size=10, learning_rate=1e38)
    with pytest.raises(InputError, match=r"^epochs: must be 1 or more, got 0$"):
        train.fit(network, random_dataset(), epochs=0)


def test_images_on_disk_give_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = random_dataset(24, classes=2)
    for number, (image, label) in enumerate(zip(part.images[:], part.labels.tolist(), strict=True)):
        path = tmp_path / ("test" if number % 4 == 0 else "train") / "ab"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    in_memory = data.load(str(tmp_path)).train
    monkeypatch.setattr(data_images, "IN_MEMORY", 0)
    on_disk = data.load(str(tmp_path)).train
    assert isinstance(on_disk.images, data.LazyImages)
    one, two = tiny_model(classes=2), tiny_model(classes=2)
    train.fit(one, in_memory, epochs=2, batch_size=5)
    train.fit(two, on_disk, epochs=2, batch_size=5)
    assert same_weights(one, two)


# ---- checkpoints, and several ranks ----------------------------------------------------------------------------------------


def interrupted(epochs: int, epoch: train.Epoch) -> None:
    if epoch.epoch == epochs:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("patience", "killed_in"), [(0, (1, 3)), (1, (2, 4))])
def test_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    patience: int, killed_in: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With augmentation and dropout; with patience before and after training starts again from the initial weights."""
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    part, path = random_dataset(20), tmp_path / "folder" / "training.pt"
    monitored = iter(range(100))

    def network() -> nn.Module:
        model = tiny_model()
        return nn.Sequential(nn.Dropout(0.2), model)

    fit = partial(
        train.fit, data=part, epochs=3, batch_size=7, patience=patience, learning_rate=1e-5 if patience else 0.01,
        augment=train.random_translate(1, flip=True), monitor=lambda: float(next(monitored)),
    )  # fmt: skip
    whole = network()
    expected = fit(whole)
    monitored = iter(range(100))
    for epochs in killed_in:
        with pytest.raises(KeyboardInterrupt):
            fit(network(), checkpoint=path, progress=partial(interrupted, epochs))
        monitored = iter(range(epochs - 1, 100))  # the epoch that was interrupted is done again
    resumed = network()
    curve = fit(resumed, checkpoint=path)
    assert same_weights(whole, resumed)
    assert [epoch._replace(seconds=0) for epoch in curve] == [epoch._replace(seconds=0) for epoch in expected]
    assert [epoch.seconds for epoch in curve] == sorted(epoch.seconds for epoch in curve)
    again = network()
    assert fit(again, checkpoint=path) == curve and same_weights(again, whole)  # nothing is left to do


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    path, part = tmp_path / "training.pt", random_dataset(20)
    train.fit(tiny_model(), part, epochs=1, checkpoint=path)
    one, two = tiny_model(1), tiny_model(1)
    train.fit(one, part, epochs=2, seed=3)
    with pytest.warns(NotbugsWarning, match=r"is of a training with another epochs, seed, first weights: training starts again$"):
        train.fit(two, part, epochs=2, seed=3, checkpoint=path)
    assert same_weights(one, two)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(NotbugsWarning, match=r"training\.pt is damaged: training starts again$"):
        train.fit(tiny_model(1), part, epochs=1, checkpoint=path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1], {"identity": 3}, {}, "text"])
def test_a_checkpoint_of_other_content_is_damaged(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "training.pt")
    with pytest.warns(NotbugsWarning, match=r"training\.pt is damaged: training starts again$"):
        train.fit(tiny_model(), random_dataset(20), epochs=1, checkpoint=tmp_path / "training.pt")


def test_a_packed_checkpoint_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    path, part = tmp_path / "training.pt", random_dataset(20)
    train.fit(tiny_model(1), part, epochs=1, checkpoint=path)
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    (tmp_path / "packed.pt").replace(path)
    with pytest.warns(NotbugsWarning, match=r"training\.pt is damaged: training starts again$"):
        train.fit(tiny_model(1), part, epochs=1, checkpoint=path)


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "generator", "random", "curve", "seconds", "before_restart"])
@pytest.mark.parametrize("value", [None, "x", [[]]])
def test_a_part_of_a_checkpoint_that_was_changed_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: object
) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    path, data = tmp_path / "training.pt", random_dataset(20)
    train.fit(tiny_model(1), data, epochs=1, checkpoint=path)
    torch.save({**torch.load(path), part: value}, path)
    with pytest.raises(InputError, match=rf"^{path}: must hold the training as it was written, got \w+Error: .*; remove it to"):
        train.fit(tiny_model(1), data, epochs=1, checkpoint=path)


@pytest.mark.parametrize("change", ["shape", "text", "missing"])
def test_an_optimizer_in_a_checkpoint_that_was_changed_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    path, data = tmp_path / "training.pt", random_dataset(20)
    with pytest.raises(KeyboardInterrupt):
        train.fit(tiny_model(1), data, epochs=3, checkpoint=path, progress=partial(interrupted, 2))
    content = torch.load(path)
    optimizer = content["optimizer"]
    if change == "shape":
        optimizer["state"][0] = {name: each.new_zeros(5) for name, each in optimizer["state"][0].items()}
    elif change == "text":
        optimizer["param_groups"][0]["lr"] = "x"
    else:
        del optimizer["param_groups"][0]["lr"]
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"^{path}: must hold the training as it was written, got \w+Error: .*; remove it to"):
        train.fit(tiny_model(1), data, epochs=3, checkpoint=path)


def test_a_training_goes_on_whose_optimizer_holds_values_of_other_shapes_than_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    fit = partial(
        train.fit, data=random_dataset(20), epochs=3, optimizer=lambda model, lr, _: torch.optim.Adafactor(model.parameters(), lr)
    )
    whole, resumed = tiny_model(), tiny_model()
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(), checkpoint=tmp_path / "training.pt", progress=partial(interrupted, 2))
    fit(resumed, checkpoint=tmp_path / "training.pt")
    assert same_weights(whole, resumed)


def test_checkpoints_have_the_optimizer_and_the_schedule_that_they_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    path, part = tmp_path / "training.pt", random_dataset(20)
    fit = partial(train.fit, data=part, epochs=3, optimizer=train.sgd, learning_rate=0.1)
    whole, resumed = tiny_model(), tiny_model()
    fit(whole, schedule=train.step_decay(0.5))
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(), schedule=train.step_decay(0.5), checkpoint=path, progress=partial(interrupted, 2))
    fit(resumed, schedule=train.step_decay(0.5), checkpoint=path)
    assert same_weights(whole, resumed)
    with pytest.warns(NotbugsWarning, match="another optimizer, schedule: training starts again"):
        train.fit(tiny_model(), part, epochs=3, learning_rate=0.1, schedule=train.step_decay(0.9), checkpoint=path)


def test_a_checkpoint_of_an_optimizer_with_other_settings_is_not_used(tmp_path: Path) -> None:
    """Also where one function makes both, with the same learning rate and weight decay."""
    part, checkpoint = random_dataset(20), train.Checkpoint(tmp_path / "training.pt", seconds=0)

    def momentum(value: float) -> train.MakeOptimizer:
        return lambda model, rate, decay: torch.optim.SGD(model.parameters(), rate, momentum=value, weight_decay=decay)

    def groups(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
        first, *others = model.parameters()
        return torch.optim.SGD([{"params": [first]}, {"params": others}], rate, momentum=0.9, weight_decay=decay)

    fit = partial(train.fit, data=part, epochs=2)
    fit(tiny_model(), optimizer=momentum(0.9), checkpoint=checkpoint)
    assert len(fit(tiny_model(), optimizer=momentum(0.9), checkpoint=checkpoint)) == 2  # it goes on, without a warning
    for other in (momentum(0.1), groups):
        with pytest.warns(NotbugsWarning, match=r"is of a training with another optimizer: training starts again$"):
            fit(tiny_model(), optimizer=other, checkpoint=checkpoint)
        fit(tiny_model(), optimizer=other, checkpoint=checkpoint)


@pytest.mark.parametrize("killed_in", [2, 3])
def test_early_stopping_goes_on_from_a_checkpoint(killed_in: int, tmp_path: Path) -> None:
    """With the accuracies and the best weights so far, also where training is done."""
    part, checkpoint = random_dataset(40), train.Checkpoint(tmp_path / "training.pt", seconds=0)
    validation = random_dataset(60).select(slice(40, 60))
    fit = partial(train.fit, data=part, epochs=30)
    whole, resumed, again = tiny_model(), tiny_model(), tiny_model()
    expected = train.EarlyStopping(validation, epochs=3)
    epochs = fit(whole, stopping=expected)
    assert expected.best_epoch < killed_in < len(epochs) < 30
    with pytest.raises(KeyboardInterrupt):
        fit(
            tiny_model(),
            stopping=train.EarlyStopping(validation),
            checkpoint=checkpoint,
            progress=partial(interrupted, killed_in),
        )
    stopping = train.EarlyStopping(validation)
    assert len(fit(resumed, stopping=stopping, checkpoint=checkpoint)) == len(epochs)
    assert stopping.accuracies == expected.accuracies and same_weights(whole, resumed)
    assert len(fit(again, stopping=stopping, checkpoint=checkpoint)) == len(epochs) and same_weights(whole, again)
    with pytest.warns(NotbugsWarning, match="is of a training with another early stopping: training starts again"):
        fit(tiny_model(), stopping=train.EarlyStopping(validation, epochs=1), checkpoint=checkpoint)


@pytest.mark.parametrize("change", [None, {}, {"accuracies": ["x"], "best": {}}, {"accuracies": [0.5], "best": {}}])
def test_early_stopping_in_a_checkpoint_that_was_changed_is_one_error(tmp_path: Path, change: object) -> None:
    path, stopping = tmp_path / "training.pt", train.EarlyStopping(random_dataset(20))
    checkpoint = train.Checkpoint(path, seconds=0)
    train.fit(tiny_model(), random_dataset(20), epochs=1, stopping=stopping, checkpoint=checkpoint)
    torch.save({**torch.load(path), "stopping": change}, path)
    with pytest.raises(InputError, match=rf"^{path}: must hold the training as it was written, got \w+Error: .*; remove it to"):
        train.fit(tiny_model(), random_dataset(20), epochs=1, stopping=stopping, checkpoint=checkpoint)


def test_a_checkpoint_is_written_at_most_every_ten_seconds(tmp_path: Path) -> None:
    train.fit(tiny_model(), random_dataset(20), epochs=2, checkpoint=tmp_path / "training.pt")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(InputError, match=r"Checkpoint\.seconds: must be 0 or more, got -1"):
        train.Checkpoint(tmp_path / "training.pt", seconds=-1)
    own = train.Checkpoint(tmp_path / "training.pt", {"images": "digits", "seed": 3, "loss": "own"})
    with pytest.raises(
        InputError, match=r"Checkpoint\.identity: must not have names that fit compares itself, got images, seed;"
    ):
        train.fit(tiny_model(), random_dataset(20), epochs=1, checkpoint=own)


CASES = (("standard", 7), ("adversarial", 7), ("trades", 7), ("standard", 3))  # the last: more ranks than pairs of images


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_ranks_train_on_the_gradients_of_the_whole_batch(count: int, tmp_path: Path) -> None:
    """Gradients of the first step equal those of one process; then all ranks have the same weights, buffers and curve."""
    expected = [rank_jobs.gradients(*case) for case in CASES]
    found = rank_jobs.on_ranks(count, tmp_path, partial(rank_jobs.trainings, CASES))
    for steps, weights, curve, error in found:
        for own, one in zip(steps, expected, strict=True):
            torch.testing.assert_close(own, one)
        assert all(torch.equal(tensor, found[0][1][name]) for name, tensor in weights.items()) and curve == found[0][2]
        assert error == (
            "--network: must use all of its parameters in each forward pass where several processes train it together; "
            "train it in one process"
        )
    assert found[0][2] != rank_jobs.trained()[1]  # batch norm and augmentation are of each rank


# ---- losses -------------------------------------------------------------------------------------------------------------


def brighten(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
    """An attack without a search: brighter images. Its forward passes would change batch norm statistics in training mode."""
    with torch.no_grad():
        model(images)
        model(1 - images)
    return AttackResult((images + 0.1).clamp(0, 1), torch.zeros(len(images)))


def batch() -> tuple[Tensor, Tensor]:
    part = random_dataset(20)
    return part.pixels(slice(None)), part.labels


def test_attack_gets_the_model_in_evaluation_mode() -> None:
    model, states = tiny_model().train(), []
    model.get_submodule("body").eval()

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
        states.append((any(m.training for m in model.modules()), any(p.requires_grad for p in model.parameters())))
        return brighten(model, images, labels)

    modes = [module.training for module in model.modules()]
    for loss in (train.adversarial_loss(attack), train.trades(attack)):
        loss(model, *batch())[0].backward()  # type: ignore[no-untyped-call]
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert states == [(False, False)] * 2


def test_adversarial_loss_is_cross_entropy_on_the_attacks_images() -> None:
    """Batch norm statistics are those of one forward pass on these images: the attack does not change them."""
    one, two, (images, labels) = tiny_model().train(), tiny_model().train(), batch()
    value, logits = train.adversarial_loss(brighten)(one, images, labels)
    wanted, wanted_logits = train.cross_entropy(two, (images + 0.1).clamp(0, 1), labels)
    assert torch.equal(value, wanted)
    assert torch.equal(logits, wanted_logits)
    assert same_weights(one, two)
    assert not same_weights(one, tiny_model())


def test_attacks_of_training_may_return_images_alone() -> None:
    model, (images, labels) = tiny_model(), batch()
    value, _ = train.adversarial_loss(brighten)(model, images, labels)
    assert torch.equal(train.adversarial_loss(lambda *each: brighten(*each).images)(model, images, labels)[0], value)


@pytest.mark.parametrize(("result", "got"), [(torch.zeros(3, 1, 8, 8), "(3, 1, 8, 8)"), ((1, 2), "tuple"), (None, "NoneType")])
def test_attacks_of_training_that_return_something_else_raise(result: Any, got: str) -> None:
    with pytest.raises(InputError, match=r"attack: must return perturbed images of shape \(20, 1, 8, 8\)") as caught:
        train.adversarial_loss(lambda *each: result)(tiny_model(), *batch())
    assert got in str(caught.value)


def test_trades_with_beta_zero_is_standard_training() -> None:
    one, two, (images, labels) = tiny_model().train(), tiny_model().train(), batch()
    value, logits = train.trades(brighten, beta=0.0)(one, images, labels)
    wanted, wanted_logits = train.cross_entropy(two, images, labels)
    assert torch.equal(value, wanted)
    assert torch.equal(logits, wanted_logits)


def test_trades_adds_the_divergence_that_the_attack_causes() -> None:
    model, (images, labels) = tiny_model().eval(), batch()
    value, _ = train.trades(brighten, beta=6.0)(model, images, labels)
    clean, perturbed = model(images).softmax(1), model((images + 0.1).clamp(0, 1)).softmax(1)
    wanted = -clean[range(20), labels].log().mean() + 6 * (clean * (clean / perturbed).log()).sum(1).mean()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adversarial_loss", "trades"])
def test_adversarial_training_raises_robust_accuracy(digits: data.Splits, standard: models.Model, name: str) -> None:
    """A few epochs on half the digits: higher robust accuracy than standard training."""
    threat_model, model = NormBall("l2", 0.75), models.build("small", shape=(1, 8, 8), classes=10, width=8)
    loss = train.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=2))
    if name == "trades":
        loss = train.trades(partial(attacks.kl_pgd, threat_model=threat_model, steps=2), beta=3.0)
    train.fit(model, digits.train.select(slice(0, 700)), loss, epochs=5, batch_size=50)
    images, labels = digits.test.pixels(slice(0, 150)), digits.test.labels[:150]
    robust_accuracy = [
        float((attacks.pgd(m, images, labels, threat_model=threat_model).margins < 0).float().mean()) for m in (model, standard)
    ]
    assert robust_accuracy[0] > robust_accuracy[1] + 0.1


# ---- augmentation -------------------------------------------------------------------------------------------------------


def translated(image: Tensor, pixels: int, row: int, column: int, flip: bool) -> Tensor:
    """One image (C, H, W), translated and flipped one at a time."""
    height, width = image.shape[1:]
    part = F.pad(image[None], [pixels] * 4, mode="reflect")[0, :, row : row + height, column : column + width]
    return part.flip(2) if flip else part


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pixels", [0, 2])
def test_random_translate_translates_and_flips(pixels: int, flip: bool) -> None:
    """Each image becomes one of its possible translations; over 600 images all of them occur, equally often."""
    images = torch.rand(600, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    found = train.random_translate(pixels, flip=flip)(images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape
    assert torch.equal(images, before)
    options = [
        (row, column, flipped)
        for row in range(2 * pixels + 1)
        for column in range(2 * pixels + 1)
        for flipped in ((False, True) if flip else (False,))
    ]
    counts = dict.fromkeys(options, 0)
    for image, result in zip(images, found, strict=True):
        matches = [option for option in options if torch.equal(result, translated(image, pixels, *option))]
        assert len(matches) == 1
        counts[matches[0]] += 1
    expected = 600 / len(options)
    assert all(abs(count - expected) < 4.5 * math.sqrt(expected) for count in counts.values())


def test_random_translate_follows_the_generator() -> None:
    images, augment = torch.rand(20, 1, 8, 8), train.random_translate(2, flip=True)
    one, two, other = (augment(images, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_noise_is_gaussian_comes_last_and_follows_the_generator() -> None:
    images = torch.rand(40, 3, 9, 9)
    one, two = (train.add_noise(0.2)(images, Generator().manual_seed(1)) - images for _ in range(2))
    assert torch.equal(one, two)
    assert stats.kstest(one.flatten().numpy() / 0.2, "norm").pvalue > 0.001
    after = train.add_noise(0.2, after=lambda images, generator: images * 0)(images, Generator().manual_seed(1))
    assert torch.allclose(after, one, atol=1e-6)


def test_augmentation_reaches_the_loss() -> None:
    batches: list[Tensor] = []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        batches.append(images)
        return train.cross_entropy(model, images, labels)

    train.fit(tiny_model(), random_dataset(), loss, epochs=1, augment=lambda images, generator: images * 0)
    train.fit(tiny_model(), random_dataset(), loss, epochs=1)
    assert float(batches[0].max()) == 0
    assert 0.99 < float(batches[1].max()) <= 1


def test_adapted_batch_norm_statistics_are_those_of_the_images_whatever_their_labels() -> None:
    digits = data.load("digits").train.select(slice(0, 600))
    model = models.build("small", shape=digits.shape, classes=10, width=4, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    assert train.adapt_batchnorm(model, digits, batch_size=600) == 3
    first_convolution, first_norm = (
        next(m for m in model.modules() if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    normalized = (digits.pixels(slice(None)) - model.get_buffer("mean")) / model.get_buffer("std")
    activations = first_convolution(normalized)
    torch.testing.assert_close(first_norm.running_mean, activations.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first_norm.running_var, activations.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not model.training and first_norm.momentum == 0.1
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    other = models.build("small", shape=digits.shape, classes=10, width=4, seed=0)
    train.adapt_batchnorm(other, digits.with_labels(digits.labels.flip(0)), batch_size=600)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_networks_without_batch_norm_are_not_adapted() -> None:
    digits = data.load("digits").train
    assert train.adapt_batchnorm(models.build("linear", shape=digits.shape, classes=10), digits) == 0
