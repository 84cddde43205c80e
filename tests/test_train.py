"""How classifiers learn: the schedule, patience, the losses and the augmentation."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor, nn

from notbugs import attacks, construct, data, metrics, models, train
from notbugs.data import Dataset, load
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall


def tiny(seed: int = 0, classes: int = 10) -> models.Model:
    return models.build("small", shape=(1, 8, 8), classes=classes, width=4, seed=seed)


def random_set(n: int = 100, classes: int = 10) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Dataset(images, torch.randint(classes, (n,), generator=generator), tuple("0123456789"[:classes]), ("",) * n)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


# ---- fit ----------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights(digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 300))
    trained, curves = [], []
    for seed in (1, 1, 2):
        model = tiny()
        curves.append(train.fit(model, part, epochs=2, seed=seed, augment=train.random_translate(1, flip=False)))
        trained.append(model)
    assert same(trained[0], trained[1])
    assert [line[:4] for line in curves[0]] == [line[:4] for line in curves[1]]
    assert not same(trained[0], trained[2])


@pytest.mark.parametrize("n", [1, 3, 5, 65])
def test_no_batch_of_one_is_left_over(n: int) -> None:
    """Batch norm cannot work on one image, whatever the batch size; a set of one is refused by it, not by us."""
    if n == 1:
        with pytest.raises(ValueError, match="more than 1 value"):
            train.fit(tiny(), random_set(n), epochs=1, batch_size=2)
    else:
        assert len(train.fit(tiny(), random_set(n), epochs=1, batch_size=2)) == 1


def test_one_batch_and_one_pass_train(digits: data.Splits) -> None:
    model, before = tiny(), tiny()
    train.fit(model, digits.train.select(slice(0, 50)), epochs=1, batch_size=64)
    assert not same(model, before)


class Viewed(nn.Module):
    """What many people write: it needs the usual order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.convolution(images).view(len(images), -1))
        return result


def test_a_users_network_may_rely_on_the_usual_order_in_memory(digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 60))
    model = models.wrap(Viewed(), torch.zeros(2, 1, 8, 8))
    train.fit(model, part, epochs=1, augment=train.random_translate(1, flip=True))
    assert metrics.clean_accuracy(model, part)["n"] == 60
    assert len(metrics.robust_accuracy(model, part, [NormBall("l2", 0.1)])) == 2
    assert construct.invert_features(model, part, steps=1).dataset.shape == part.shape


def test_a_networks_own_chance_is_the_seeds_too(digits: data.Splits) -> None:
    """Dropout draws from torch's global state: it starts from the seed, and the caller's is as it was."""

    def trained(state: int, seed: int) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        train.fit(network, digits.train.select(slice(0, 200)), epochs=2, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return network

    found = [trained(state, seed) for state, seed in enumerate((1, 1, 2))]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_training_learns_and_tells_of_it(digits: data.Splits) -> None:
    model, told = tiny(), list[train.Epoch]()
    curve = train.fit(model, digits.train, epochs=3, batch_size=64, progress=told.append)
    assert told == curve
    assert [line.epoch for line in curve] == [1, 2, 3]
    assert curve[0].loss > 1.5 * curve[-1].loss
    assert curve[-1].accuracy > 0.8
    assert 0 < curve[0].seconds < curve[-1].seconds
    assert not any(module.training for module in model.modules())


def test_loss_and_accuracy_of_an_epoch_are_means_over_the_set() -> None:
    """Also where the batches are not all of one size: 100 images in batches of at most 30."""
    part, sizes = random_set(), []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(labels))
        wrong = (labels + (labels < 5)) % 10
        return model(images).mean() * 0 + (labels < 5).float().mean(), F.one_hot(wrong, 10).float()

    curve = train.fit(tiny(), part, loss, epochs=1, batch_size=30)
    assert sizes == [25, 25, 25, 25]
    assert curve[0].loss == pytest.approx(float((part.labels < 5).float().mean()))
    assert curve[0].accuracy == pytest.approx(float((part.labels >= 5).float().mean()))


@pytest.mark.parametrize(("epochs", "batches"), [(4, 10), (10, 3), (1, 20), (2, 1)])
def test_the_rate_warms_up_and_falls_to_zero(epochs: int, batches: int) -> None:
    """0.15 of all steps upwards, the rest downwards; never below zero."""
    rates = rates_of(epochs=epochs, patience=0, batches=batches, right_from=1)
    total = epochs * batches
    warm = max(1, round(0.15 * total))
    wanted = [min(step / warm, (total - step) / (total - warm)) for step in range(1, total + 1)]
    assert rates == pytest.approx(wanted)
    assert rates[-1] == 0


def rates_of(*, epochs: int, patience: int, batches: int, right_from: int, accuracy: float = 1.0) -> list[float]:
    """The learning rate (1 is the highest) of every step, where `accuracy` of the labels are met from epoch `right_from` on."""
    rates: list[float] = []
    part, passes = random_set(10 * batches), 1

    class Spy(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        right = torch.arange(len(labels)) < round(accuracy * len(labels)) * (passes >= right_from)
        return model(images).mean(), F.one_hot(torch.where(right, labels, (labels + 1) % 10), 10).float()

    def progress(epoch: train.Epoch) -> None:
        nonlocal passes
        passes += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        train.fit(tiny(), part, loss, epochs=epochs, patience=patience, batch_size=10, learning_rate=1.0, progress=progress)
    return rates


@pytest.mark.parametrize(("epochs", "patience", "batches"), [(4, 2, 10), (10, 5, 10), (1, 1, 7), (3, 8, 1), (2, 0, 5)])
def test_labels_at_chance_wait_as_long_as_patience_lasts(epochs: int, patience: int, batches: int) -> None:
    """At full rate, after the warm-up; then comes the whole schedule, down to zero and never below."""
    rates = rates_of(epochs=epochs, patience=patience, batches=batches, right_from=10**6)
    calm = rates_of(epochs=epochs, patience=0, batches=batches, right_from=10**6)
    warm = max(1, round(0.15 * epochs * batches))
    assert rates == pytest.approx([*calm[:warm], *[1.0] * (patience * batches), *calm[warm:]])


def test_waiting_ends_when_learning_begins() -> None:
    rates = rates_of(epochs=10, patience=50, batches=10, right_from=5)
    assert len(rates) == 130  # of epochs 2, 3 and 4 nothing but full rate was used up
    assert rates[14:50] == [1.0] * 36
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == 0
    assert min(rates) == 0
    assert rates_of(epochs=10, patience=50, batches=10, right_from=1) == rates_of(epochs=10, patience=0, batches=10, right_from=1)


def test_what_counts_as_chance() -> None:
    """Half as much again as guessing: 10 even classes are guessed at 1 in 9 where every label is known to be wrong."""
    waits = len(rates_of(epochs=2, patience=3, batches=10, right_from=1, accuracy=0.1))
    begins = len(rates_of(epochs=2, patience=3, batches=10, right_from=1, accuracy=0.3))
    assert (waits, begins) == (50, 20)


def test_random_labels_at_a_tiny_rate_stay_at_chance() -> None:
    curve = train.fit(tiny(), random_set(300), epochs=3, patience=4, batch_size=100, learning_rate=1e-6)
    assert len(curve) == 7
    assert max(line.accuracy for line in curve) < 0.2


def test_training_that_diverges_and_requests_that_make_no_sense_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"^learning rate: training diverged: .* got 1e\+38; lower it$"):
        train.fit(network, random_set(), epochs=5, batch_size=10, learning_rate=1e38)
    with pytest.raises(InputError, match=r"^epochs: must be 1 or more, got 0$"):
        train.fit(network, random_set(), epochs=0)


def test_images_that_stay_on_disk_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = random_set(24, classes=2)
    for number, (image, label) in enumerate(zip(part.images[:], part.labels.tolist(), strict=True)):
        path = tmp_path / ("test" if number % 4 == 0 else "train") / "ab"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    inside = data.load(str(tmp_path)).train
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    outside = data.load(str(tmp_path)).train
    assert isinstance(outside.images, data.LazyImages)
    one, two = tiny(classes=2), tiny(classes=2)
    train.fit(one, inside, epochs=2, batch_size=5)
    train.fit(two, outside, epochs=2, batch_size=5)
    assert same(one, two)


# ---- losses -------------------------------------------------------------------------------------------------------------


def nudge(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
    """An attack without a search."""
    with torch.no_grad():
        model(images)
        model(1 - images)
    return AttackResult((images + 0.1).clamp(0, 1), torch.zeros(len(images)))


def batch() -> tuple[Tensor, Tensor]:
    part = random_set(20)
    return part.pixels(slice(None)), part.labels


def test_an_attack_in_training_sees_the_model_as_it_will_be_used() -> None:
    model, seen = tiny().train(), []
    model.get_submodule("body").eval()

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
        seen.append((any(m.training for m in model.modules()), any(p.requires_grad for p in model.parameters())))
        return nudge(model, images, labels)

    modes = [module.training for module in model.modules()]
    for loss in (train.adversarial_loss(attack), train.trades(attack)):
        loss(model, *batch())[0].backward()  # type: ignore[no-untyped-call]
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert seen == [(False, False)] * 2


def test_against_is_plain_on_what_the_attack_returns() -> None:
    """Batch norm's statistics are those of one pass over these images: the attack left no trace in them."""
    one, two, (images, labels) = tiny().train(), tiny().train(), batch()
    value, logits = train.adversarial_loss(nudge)(one, images, labels)
    wanted, wanted_logits = train.cross_entropy(two, (images + 0.1).clamp(0, 1), labels)
    assert torch.equal(value, wanted)
    assert torch.equal(logits, wanted_logits)
    assert same(one, two)
    assert not same(one, tiny())


def test_trades_with_beta_zero_is_ordinary_training() -> None:
    one, two, (images, labels) = tiny().train(), tiny().train(), batch()
    value, logits = train.trades(nudge, beta=0.0)(one, images, labels)
    wanted, wanted_logits = train.cross_entropy(two, images, labels)
    assert torch.equal(value, wanted)
    assert torch.equal(logits, wanted_logits)


def test_trades_adds_the_divergence_the_attack_caused() -> None:
    model, (images, labels) = tiny().eval(), batch()
    value, _ = train.trades(nudge, beta=6.0)(model, images, labels)
    calm, moved = model(images).softmax(1), model((images + 0.1).clamp(0, 1)).softmax(1)
    wanted = -calm[range(20), labels].log().mean() + 6 * (calm * (calm / moved).log()).sum(1).mean()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["against", "trades"])
def test_adversarial_training_hardens(digits: data.Splits, standard: models.Model, kind: str) -> None:
    """A few epochs on half the digits: more survive the attack than of the ordinarily trained network."""
    threat_model, model = NormBall("l2", 0.75), models.build("small", shape=(1, 8, 8), classes=10, width=8)
    loss = train.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=2))
    if kind == "trades":
        loss = train.trades(partial(attacks.kl_pgd, threat_model=threat_model, steps=2), beta=3.0)
    train.fit(model, digits.train.select(slice(0, 700)), loss, epochs=5, batch_size=50)
    images, labels = digits.test.pixels(slice(0, 150)), digits.test.labels[:150]
    survive = [
        float((attacks.pgd(m, images, labels, threat_model=threat_model).margins < 0).float().mean()) for m in (model, standard)
    ]
    assert survive[0] > survive[1] + 0.1


# ---- augmentation -------------------------------------------------------------------------------------------------------


def moved(image: Tensor, pixels: int, down: int, across: int, flip: bool) -> Tensor:
    """One image (C, H, W), moved and mirrored the slow way."""
    height, width = image.shape[1:]
    part = F.pad(image[None], [pixels] * 4, mode="reflect")[0, :, down : down + height, across : across + width]
    return part.flip(2) if flip else part


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pixels", [0, 2])
def test_shifts_are_shifts(pixels: int, flip: bool) -> None:
    """Each image is one of the possible moves of itself; over 600 images all of them come up, evenly."""
    images = torch.rand(600, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    found = train.random_translate(pixels, flip=flip)(images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape
    assert torch.equal(images, before)
    ways = [
        (down, across, mirrored)
        for down in range(2 * pixels + 1)
        for across in range(2 * pixels + 1)
        for mirrored in ((False, True) if flip else (False,))
    ]
    counts = dict.fromkeys(ways, 0)
    for image, result in zip(images, found, strict=True):
        fits = [way for way in ways if torch.equal(result, moved(image, pixels, *way))]
        assert len(fits) == 1
        counts[fits[0]] += 1
    expected = 600 / len(ways)
    assert all(abs(count - expected) < 4.5 * math.sqrt(expected) for count in counts.values())


def test_shifts_are_the_generators() -> None:
    images, augment = torch.rand(20, 1, 8, 8), train.random_translate(2, flip=True)
    one, two, other = (augment(images, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_augmentation_reaches_the_loss() -> None:
    seen: list[Tensor] = []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(images)
        return train.cross_entropy(model, images, labels)

    train.fit(tiny(), random_set(), loss, epochs=1, augment=lambda images, generator: images * 0)
    train.fit(tiny(), random_set(), loss, epochs=1)
    assert float(seen[0].max()) == 0
    assert 0.99 < float(seen[1].max()) <= 1
