"""The planted world: its truth is true, nothing but its three features tells the class, and the paper's ordering shows in it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notbugs import attacks, construct, metrics, models
from notbugs import train as training
from notbugs.data import Dataset, synthetic
from notbugs.data.synthetic import CLASSES, PERIOD, SyntheticData, SyntheticTruth
from notbugs.errors import InputError
from notbugs.search import NormBall

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> SyntheticData:
    return synthetic.make_synthetic()


def frame_spectrum(part: Dataset, width: int = 2) -> np.ndarray:
    """How much of each of the four gratings is in the frame of an image, which no shape reaches: (N, 4), whatever the phase."""
    images = part.pixels(slice(None)).mean(1).numpy()
    size = images.shape[-1]
    frame = np.ones((size, size), bool)
    frame[width:-width, width:-width] = False
    flat = images[:, frame] - images[:, frame].mean(1, keepdims=True)
    down, across = np.nonzero(frame)
    angle = np.arange(4)[:, None] * math.pi / 4
    wave = np.exp(2j * math.pi / PERIOD * (across * np.cos(angle) + down * np.sin(angle)))
    return np.abs(flat @ wave.T)


# ---- the truth is true ---------------------------------------------------------------------------------------------------


def test_the_loud_feature_is_right_for_its_share_of_either_part(world: SyntheticData) -> None:
    for part, truth in ((world.train, world.train_truth), (world.test, world.test_truth)):
        assert (truth.loud == part.labels.numpy()).sum() == round(0.92 * len(part))


def test_the_faint_feature_is_always_right(world: SyntheticData) -> None:
    for part, truth in ((world.train, world.train_truth), (world.test, world.test_truth)):
        assert (truth.faint == part.labels.numpy()).all()


def test_the_background_helps_in_training_and_says_nothing_in_the_test(world: SyntheticData) -> None:
    for part, truth, share in ((world.train, world.train_truth, 0.8), (world.test, world.test_truth, 0.5)):
        assert (truth.light == (part.labels.numpy() % 2 == 0)).sum() == round(share * len(part))


def test_the_images_show_the_background_they_are_said_to_have(world: SyntheticData) -> None:
    corners = world.train.pixels(slice(None))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2)).numpy()
    assert ((corners > 0.5) == world.train_truth.light).all()


def test_the_images_show_the_shape_they_are_said_to_have(world: SyntheticData) -> None:
    """Found by the nearest of 4 x 125 ideal outlines, whatever the colours."""
    images, truth = world.test.pixels(slice(None)).numpy(), world.test_truth
    kinds, across, down, radius = (
        a.ravel()
        for a in np.meshgrid(range(4), *[np.linspace(-0.09, 0.09, 7) * 32] * 2, np.linspace(0.27, 0.33, 5) * 32, indexing="ij")
    )
    outlines = synthetic._shapes(kinds, 32, across, down, radius).reshape(len(kinds), -1)
    outlines = outlines - outlines.mean(1, keepdims=True)
    outlines /= np.linalg.norm(outlines, axis=1, keepdims=True)
    fit = sum(np.square(images[:, c].reshape(len(images), -1) @ outlines.T) for c in range(3))
    assert (kinds[fit.argmax(1)] == truth.loud).mean() > 0.99


# ---- the grating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "size"), [(0.5, 32), (0.3, 32), (1.0, 64)])
def test_the_grating_is_stored_at_its_strength_and_nothing_else_changes_with_it(strength: float, size: int) -> None:
    make = partial(synthetic.make_synthetic, train=40, test=8, size=size)
    faint, without = (make(strength=s).train.pixels(slice(None)) for s in (strength, 0.0))
    change = (faint - without).mean(1).numpy()  # rounding differs from channel to channel, the grating does not
    assert np.linalg.norm(change.reshape(40, -1), axis=1) * math.sqrt(3) == pytest.approx(strength, rel=0.1)


@pytest.mark.parametrize("size", [32, 48])
def test_the_angle_can_be_read_from_the_stored_image(size: int) -> None:
    made = synthetic.make_synthetic(train=400, test=400, size=size, strength=0.5 * size / 32)
    for part, truth in ((made.train, made.train_truth), (made.test, made.test_truth)):
        assert (frame_spectrum(part).argmax(1) == truth.faint).mean() >= 0.99


def test_without_the_grating_its_place_in_the_spectrum_says_nothing() -> None:
    made = synthetic.make_synthetic(train=2000, strength=0)
    # 4.5 deviations of a guess among four
    assert abs((frame_spectrum(made.train).argmax(1) == made.train.labels.numpy()).mean() - 0.25) < 4.5 * math.sqrt(0.1875 / 2000)


def test_without_the_grating_the_label_enters_the_image_through_shape_and_background_only(world: SyntheticData) -> None:
    truth = SyntheticTruth(*(entry[:50] for entry in world.train_truth))
    other = truth._replace(faint=np.roll(truth.faint, 1))
    draw = partial(synthetic._draw, size=32, strength=0.0)
    assert (draw(truth, chance=np.random.default_rng(5)) == draw(other, chance=np.random.default_rng(5))).all()
    with_grating = partial(synthetic._draw, size=32, strength=0.5)
    assert (with_grating(truth, chance=np.random.default_rng(5)) != with_grating(other, chance=np.random.default_rng(5))).any()


def test_shape_and_background_err_independently() -> None:
    made = synthetic.make_synthetic(train=4000)
    loud = made.train_truth.loud == made.train_truth.faint
    light = made.train_truth.light == (made.train_truth.faint % 2 == 0)
    assert abs(np.corrcoef(loud, light)[0, 1]) < 4 / math.sqrt(4000)
    wrong = np.bincount((made.train_truth.loud - made.train_truth.faint)[~loud] % 4, minlength=4)
    assert wrong[0] == 0
    assert wrong[1:].min() > 0.2 * wrong.sum()  # each wrong shape is as likely: 1/3


# ---- the sets ------------------------------------------------------------------------------------------------------------


@given(train=st.integers(8, 60), test=st.integers(8, 30), size=st.integers(16, 40), seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_world_is_as_asked_and_the_same_every_time(train: int, test: int, size: int, seed: int) -> None:
    make = partial(synthetic.make_synthetic, train=train, test=test, size=size, seed=seed)
    made, again = make(), make()
    names = made.train.names + made.test.names
    assert len(set(names)) == len(names) == train + test
    for part, same, count in ((made.train, again.train, train), (made.test, again.test, test)):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (count, 3, size, size)
        assert part.labels.dtype == torch.int64
        assert part.classes == CLASSES
        assert part.labels.bincount(minlength=4).min() >= count // 4
        assert all(name.startswith(CLASSES[label] + "/") for name, label in zip(part.names, part.labels, strict=True))
        assert torch.equal(part.images, same.images)
        assert torch.equal(part.labels, same.labels)
    for entry, same_entry in zip(made.train_truth, again.train_truth, strict=True):
        assert (entry == same_entry).all()


def test_another_seed_is_another_world_and_the_test_part_is_not_the_training_part() -> None:
    made, other = (synthetic.make_synthetic(train=40, test=40, background=0.5, seed=seed) for seed in (0, 1))
    assert not torch.equal(made.train.images, other.train.images)
    assert not torch.equal(made.train.images, made.test.images)


def test_a_large_world_is_drawn_in_blocks_that_belong_to_their_truth() -> None:
    made = synthetic.make_synthetic(train=2100, test=8, size=16, strength=0)
    corners = made.train.pixels(slice(None))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2)).numpy()
    assert ((corners > 0.5) == made.train_truth.light).all()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"train": 7}, "train"),
        ({"test": 0}, "test"),
        ({"size": 15}, "size"),
        ({"loud": 1.1}, "loud"),
        ({"background": -0.1}, "background"),
        ({"loud": math.nan}, "loud"),
        ({"strength": -1.0}, "strength"),
        ({"strength": 3.0}, "strength"),
        ({"strength": math.nan}, "strength"),
    ],
)
def test_arguments_without_sense_are_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}: .*, got {next(iter(given.values()))}$"):
        synthetic.make_synthetic(**given)  # type: ignore[arg-type]


# ---- the paper's ordering ------------------------------------------------------------------------------------------------


def test_the_models_differ_as_the_features_they_learned() -> None:
    """Standard, adversarial, D_R- and D_NR-trained: small images, half a minute on one core, margins to match."""
    made = synthetic.make_synthetic(train=600, test=120, size=16, background=0.6, strength=0.35)
    threat_model, half = NormBall("l2", 0.5), NormBall("l2", 0.25)

    def learn(part: Dataset, seed: int, loss: training.Loss = training.cross_entropy) -> models.Model:
        model = models.build("resnet9", shape=part.shape, classes=4, width=8, seed=seed)
        shifts = training.random_translate(2, flip=False)
        training.fit(model, part, loss, epochs=16, batch_size=64, augment=shifts, seed=seed)
        return model

    standard = learn(made.train, 1)
    adversarial = learn(made.train, 2, training.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=2)))
    robust = learn(construct.invert_features(adversarial, made.train, steps=20).dataset, 3)
    nonrobust = learn(construct.invert_features(standard, made.train, steps=20).dataset, 4)
    clean, at_half, at_full = zip(
        *(
            [row["accuracy"] for row in metrics.robust_accuracy(model, made.test, [half, threat_model])]
            for model in (standard, adversarial, robust, nonrobust)
        ),
        strict=True,
    )
    seen = f"clean {clean}, at half {at_half}, at full {at_full}: standard, adversarial, D_R, D_NR"
    assert clean[0] > 0.93, seen  # more than shapes can tell
    assert at_full[0] < 0.1, seen
    assert 0.6 < clean[1] < 0.98, seen  # shapes alone are right for 92 %
    assert at_full[1] > clean[1] - 0.1, seen
    assert clean[2] > 0.5, seen
    assert at_half[2] > max(at_half[0], at_half[3]) + 0.1, seen
    assert clean[3] > 0.7, seen
    assert at_half[3] < 0.1, seen
