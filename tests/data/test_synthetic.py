"""Synthetic data: the stated truth holds, only three features predict the label, and models are ordered as in the paper."""

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
def synthetic_data() -> SyntheticData:
    return synthetic.make_synthetic()


def frame_spectrum(part: Dataset, width: int = 2) -> np.ndarray:
    """Amplitude of each of the four gratings in the frame of an image, which no shape reaches: (N, 4), whatever the phase."""
    images = part.pixels(slice(None)).mean(1).numpy()
    size = images.shape[-1]
    frame = np.ones((size, size), bool)
    frame[width:-width, width:-width] = False
    flat = images[:, frame] - images[:, frame].mean(1, keepdims=True)
    down, across = np.nonzero(frame)
    angle = np.arange(4)[:, None] * math.pi / 4
    wave = np.exp(2j * math.pi / PERIOD * (across * np.cos(angle) + down * np.sin(angle)))
    return np.abs(flat @ wave.T)


# ---- the stated truth holds ---------------------------------------------------------------------------------------------------


def test_the_shape_fits_the_label_of_its_share_of_both_parts(synthetic_data: SyntheticData) -> None:
    for part, truth in ((synthetic_data.train, synthetic_data.train_truth), (synthetic_data.test, synthetic_data.test_truth)):
        assert (truth.shape_class == part.labels.numpy()).sum() == round(0.92 * len(part))


def test_the_texture_always_fits_the_label(synthetic_data: SyntheticData) -> None:
    for part, truth in ((synthetic_data.train, synthetic_data.train_truth), (synthetic_data.test, synthetic_data.test_truth)):
        assert (truth.texture_class == part.labels.numpy()).all()


def test_the_background_predicts_the_label_in_training_only(synthetic_data: SyntheticData) -> None:
    for part, truth, share in (
        (synthetic_data.train, synthetic_data.train_truth, 0.8),
        (synthetic_data.test, synthetic_data.test_truth, 0.5),
    ):
        assert (truth.light_background == (part.labels.numpy() % 2 == 0)).sum() == round(share * len(part))


def test_the_images_have_the_stated_background(synthetic_data: SyntheticData) -> None:
    corners = synthetic_data.train.pixels(slice(None))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2)).numpy()
    assert ((corners > 0.5) == synthetic_data.train_truth.light_background).all()


def test_the_images_have_the_stated_shape(synthetic_data: SyntheticData) -> None:
    """By the nearest of 4 x 245 ideal outlines, whatever the colors."""
    images, truth = synthetic_data.test.pixels(slice(None)).numpy(), synthetic_data.test_truth
    kinds, right, down, radius = (
        a.ravel()
        for a in np.meshgrid(range(4), *[np.linspace(-0.09, 0.09, 7) * 32] * 2, np.linspace(0.27, 0.33, 5) * 32, indexing="ij")
    )
    outlines = synthetic._shapes(kinds, 32, right, down, radius).reshape(len(kinds), -1)
    outlines = outlines - outlines.mean(1, keepdims=True)
    outlines /= np.linalg.norm(outlines, axis=1, keepdims=True)
    fit = sum(np.square(images[:, c].reshape(len(images), -1) @ outlines.T) for c in range(3))
    assert (kinds[fit.argmax(1)] == truth.shape_class).mean() > 0.99


# ---- the grating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("texture_norm", "size"), [(0.5, 32), (0.3, 32), (1.0, 64)])
def test_the_grating_is_stored_with_its_norm_and_nothing_else_changes_with_it(texture_norm: float, size: int) -> None:
    make = partial(synthetic.make_synthetic, train=40, test=8, size=size)
    textured, plain = (make(texture_norm=norm).train.pixels(slice(None)) for norm in (texture_norm, 0.0))
    change = (textured - plain).mean(1).numpy()  # rounding differs from channel to channel, the grating does not
    assert np.linalg.norm(change.reshape(40, -1), axis=1) * math.sqrt(3) == pytest.approx(texture_norm, rel=0.1)


@pytest.mark.parametrize("size", [32, 48])
def test_the_angle_can_be_detected_in_the_stored_image(size: int) -> None:
    made = synthetic.make_synthetic(train=400, test=400, size=size, texture_norm=0.5 * size / 32)
    for part, truth in ((made.train, made.train_truth), (made.test, made.test_truth)):
        assert (frame_spectrum(part).argmax(1) == truth.texture_class).mean() >= 0.99


@pytest.mark.slow
def test_without_the_grating_its_frequency_does_not_predict_the_label() -> None:
    made = synthetic.make_synthetic(train=2000, texture_norm=0)
    # 4.5 standard deviations of chance level among four
    assert abs((frame_spectrum(made.train).argmax(1) == made.train.labels.numpy()).mean() - 0.25) < 4.5 * math.sqrt(0.1875 / 2000)


def test_without_the_grating_the_label_affects_the_image_through_shape_and_background_only(synthetic_data: SyntheticData) -> None:
    truth = SyntheticTruth(*(entry[:50] for entry in synthetic_data.train_truth))
    other = truth._replace(texture_class=np.roll(truth.texture_class, 1))
    draw = partial(synthetic._draw, size=32, texture_norm=0.0)
    assert (draw(truth, generator=np.random.default_rng(5)) == draw(other, generator=np.random.default_rng(5))).all()
    with_grating = partial(synthetic._draw, size=32, texture_norm=0.5)
    assert (
        with_grating(truth, generator=np.random.default_rng(5)) != with_grating(other, generator=np.random.default_rng(5))
    ).any()


@pytest.mark.slow
def test_shape_and_background_mislead_independently() -> None:
    made = synthetic.make_synthetic(train=4000)
    truth = made.train_truth
    shape_fits = truth.shape_class == truth.texture_class
    background_fits = truth.light_background == (truth.texture_class % 2 == 0)
    assert abs(np.corrcoef(shape_fits, background_fits)[0, 1]) < 4 / math.sqrt(4000)
    wrong = np.bincount((truth.shape_class - truth.texture_class)[~shape_fits] % 4, minlength=4)
    assert wrong[0] == 0
    assert wrong[1:].min() > 0.2 * wrong.sum()  # each wrong shape is equally likely: 1/3


# ---- the data sets -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(train=st.integers(8, 60), test=st.integers(8, 30), size=st.integers(16, 40), seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_the_data_are_as_requested_and_reproducible(train: int, test: int, size: int, seed: int) -> None:
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


def test_seeds_and_parts_differ() -> None:
    made, other = (synthetic.make_synthetic(train=40, test=40, background=0.5, seed=seed) for seed in (0, 1))
    assert not torch.equal(made.train.images, other.train.images)
    assert not torch.equal(made.train.images, made.test.images)


def test_a_large_data_set_is_drawn_in_blocks_that_fit_their_truth() -> None:
    made = synthetic.make_synthetic(train=2100, test=8, size=16, texture_norm=0)
    corners = made.train.pixels(slice(None))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2)).numpy()
    assert ((corners > 0.5) == made.train_truth.light_background).all()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"train": 7}, "train"),
        ({"test": 0}, "test"),
        ({"size": 15}, "size"),
        ({"shape_accuracy": 1.1}, "shape_accuracy"),
        ({"background": -0.1}, "background"),
        ({"shape_accuracy": math.nan}, "shape_accuracy"),
        ({"texture_norm": -1.0}, "texture_norm"),
        ({"texture_norm": 3.0}, "texture_norm"),
        ({"texture_norm": math.nan}, "texture_norm"),
    ],
)
def test_bad_arguments_are_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}: .*, got {next(iter(given.values()))}$"):
        synthetic.make_synthetic(**given)  # type: ignore[arg-type]


# ---- the paper's ordering ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_models_differ_as_their_features() -> None:
    """Standard, adversarial, trained on D_R and on D_NR: small images, 20 seconds of one core, hence wide tolerances."""
    made = synthetic.make_synthetic(train=500, test=100, size=16, background=0.6, texture_norm=0.35)
    threat_model, half = NormBall("l2", 0.5), NormBall("l2", 0.25)

    def trained(part: Dataset, seed: int, loss: training.Loss = training.cross_entropy) -> models.Model:
        model = models.build("resnet9", shape=part.shape, classes=4, width=8, seed=seed)
        augment = training.random_translate(2, flip=False)
        training.fit(model, part, loss, epochs=10, batch_size=64, augment=augment, seed=seed)
        return model

    standard = trained(made.train, 1)
    adversarial = trained(made.train, 2, training.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=2)))
    robust = trained(construct.invert_features(adversarial, made.train, steps=15).dataset, 3)
    nonrobust = trained(construct.invert_features(standard, made.train, steps=15).dataset, 4)
    clean, at_half, at_full = zip(
        *(
            [row.accuracy for row in metrics.robust_accuracy(model, made.test, [half, threat_model], budget="quick")]
            for model in (standard, adversarial, robust, nonrobust)
        ),
        strict=True,
    )
    observed = f"clean {clean}, at half {at_half}, at full {at_full}: standard, adversarial, D_R, D_NR"
    assert clean[0] > 0.93, observed  # more than shapes alone allow
    assert at_full[0] < 0.1, observed
    assert 0.6 < clean[1] < 0.98, observed  # shapes alone: 92 %
    assert at_full[1] > clean[1] - 0.1, observed
    assert clean[2] > 0.5, observed
    assert at_half[2] > max(at_half[0], at_half[3]) + 0.1, observed
    assert clean[3] > 0.7, observed
    assert at_half[3] < 0.1, observed
