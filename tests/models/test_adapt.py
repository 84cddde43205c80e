"""What networks take and return, found out on images: outputs of every layout, one output, gray images, precision."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, models, search
from notbugs.data import Dataset
from notbugs.models.adapt import adapt
from notbugs.models.reading import AdaptedClassifier, Reading, scores

Raises = Callable[[str], AbstractContextManager[None]]


def dataset(shape: tuple[int, int, int] = (3, 8, 8), classes: int = 4, count: int = 12) -> Dataset:
    """Random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    names = tuple(f"{number}.png" for number in range(count))
    return Dataset(images, torch.arange(count) % classes, tuple("abcdefghij"[:classes]), names)


class Outputs(nn.Module):
    """A linear classifier that returns its logits in some layout."""

    def __init__(self, layout: Callable[[Tensor], object], outputs: int = 4, pixels: int = 192) -> None:
        super().__init__()
        self.layer, self.layout = nn.Linear(pixels, outputs), layout

    def forward(self, images: Tensor) -> object:
        return self.layout(self.layer(images.flatten(1)))


LAYOUTS: dict[str, Callable[[Tensor], object]] = {
    "tensor": lambda z: z,
    "tuple": lambda z: (z, z[:, :3]),
    "embedding first": lambda z: (torch.cat([z, z], 1), z),
    "attacker model": lambda z: (z, z.new_zeros(len(z), 3, 8, 8)),
    "dictionary": lambda z: {"features": torch.cat([z, z], 1), "logits": z},
    "dictionary without logits": lambda z: OrderedDict(loss=z.sum(), out=z),
    "object": lambda z: SimpleNamespace(logits=z, hidden_states=None),
    "auxiliary heads": lambda z: SimpleNamespace(logits=z, aux_logits2=z + 1, aux_logits1=z - 1),
    "one position": lambda z: z[:, :, None, None],
    "squeezed": lambda z: z.squeeze(),
    "half": lambda z: z.half(),
    "double": lambda z: z.double(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_found_in_any_layout_with_gradients(layout: str) -> None:
    network, part = Outputs(LAYOUTS[layout]), dataset()
    adapted, _ = adapt(network, part)
    images = part.pixels(slice(None))
    expected = network.layer(images.flatten(1))
    assert torch.allclose(adapted(images), expected, atol=1e-2 if layout == "half" else 1e-6)
    assert adapted(images).dtype == torch.float32 and adapted(images[:1]).shape == (1, 4)
    assert search.gradients(adapted, images)[1].abs().amax() > 0
    assert (adapted is network) == (layout == "tensor")


def test_what_is_taken_is_said() -> None:
    part = dataset()
    assert adapt(Outputs(LAYOUTS["tuple"]), part).notes == ("of its outputs, tuple of (2, 4), (2, 3), the logits are taken",)
    assert adapt(Outputs(LAYOUTS["one position"]), part).notes == ("its outputs, (2, 4, 1, 1), are flattened",)
    assert adapt(Outputs(LAYOUTS["object"]), part).notes == adapt(Outputs(LAYOUTS["tensor"]), part).notes == ()


@pytest.mark.parametrize("outputs", [torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.int64), "text", None, {}, []])
def test_what_is_no_score_is_none(outputs: object) -> None:
    assert scores(outputs, 2, 4) is None


def test_network_that_returns_no_scores_is_returned_as_it_is() -> None:
    network = Outputs(lambda z: z[:, :, None].expand(-1, -1, 5))
    assert adapt(network, dataset()).network is network


# ---- one output ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [lambda z: z, lambda z: z[:, 0]])
def test_one_output_is_a_logit_or_a_probability_by_its_range(layout: Callable[[Tensor], Tensor]) -> None:
    part = dataset(classes=2, count=40)
    images, logit = part.pixels(slice(None)), Outputs(layout, outputs=1)
    nn.init.normal_(logit.layer.weight, generator=torch.Generator().manual_seed(1))
    probability = Outputs(lambda z: layout(z.sigmoid()), outputs=1)
    probability.load_state_dict(logit.state_dict())
    z = logit.layer(images.flatten(1))[:, 0]
    assert z.min() < 0 and z.max() > 1
    as_logit, notes = adapt(logit, part)
    assert torch.allclose(as_logit(images)[:, 1] - as_logit(images)[:, 0], z, atol=1e-5)
    assert notes[-1].startswith("its one output, from -") and notes[-1].endswith("read as the logit of b against a")
    as_probability, notes = adapt(probability, part)
    assert "on 40 images, is read as the probability of b against a" in notes[-1]
    assert torch.equal(as_probability(images).argmax(1), (z > 0).long())
    assert torch.allclose(as_probability(images).softmax(1)[:, 1], z.sigmoid(), atol=1e-5)
    assert attacks.has_gradient(as_probability, images)


def test_one_output_is_the_second_of_the_names_of_the_model() -> None:
    """A data set of three classes, and a model of two that are called otherwise."""
    one = Outputs(lambda z: z, outputs=1)
    nn.init.normal_(
        one.layer.weight, generator=torch.Generator().manual_seed(1)
    )  # else its range is that of a probability at times
    adapted, notes = adapt(one, dataset(classes=3), classes=("dog", "cat"))
    assert notes[-1].endswith("read as the logit of cat against dog") and adapted(dataset().pixels(slice(None))).shape == (12, 2)
    adapted, _ = adapt(Outputs(lambda z: (z[:, :2], z)), dataset(classes=2), classes="abcd")
    assert adapted(dataset().pixels(slice(None))).shape == (12, 4)


def test_sigmoid_at_the_end_is_left_out_so_that_gradients_do_not_vanish() -> None:
    part, network = dataset(classes=2), nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Sigmoid())
    network[1].weight.data *= 1000
    before = network(part.pixels(slice(None)))
    assert ((before == 0) | (before == 1)).any()
    adapted, notes = adapt(network, part)
    images = part.pixels(slice(None))
    assert torch.equal(adapted(images).argmax(1), (before[:, 0] > 0.5).long())
    assert search.gradients(adapted, images)[1].flatten(2).abs().amax(2)[1].min() > 0
    assert notes == ("its one output, before its last layer, a sigmoid, is the logit of b against a",)


def test_gates_that_are_sigmoids_stay() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.gate = nn.Linear(192, 1), nn.Sigmoid()

        def forward(self, images: Tensor) -> Tensor:
            value: Tensor = self.layer(images.flatten(1))
            return value * self.gate(value)

    network = Gated()
    adapted, _ = adapt(network, dataset(classes=2))
    assert isinstance(network.gate, nn.Sigmoid)
    assert adapted(torch.zeros(3, 3, 8, 8)).shape == (3, 2)


def test_one_output_for_more_than_two_classes_stays_one(raises_one_line: Raises) -> None:
    adapted, _ = adapt(Outputs(lambda z: z, outputs=1), dataset())
    with raises_one_line(r"must have two classes or more, got 1; .*\(0, z\), of a probability p.*log p"):
        search.objectives.logits(adapted, torch.zeros(2, 3, 8, 8))


# ---- what it takes ---------------------------------------------------------------------------------------------------------


def convolutional(channels: int, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, outputs))


def test_gray_images_are_repeated_for_a_network_of_rgb() -> None:
    network, part = convolutional(3), dataset((1, 8, 8))
    adapted, notes = adapt(network, part)
    images = part.pixels(slice(None))
    assert torch.equal(adapted(images), network(images.repeat(1, 3, 1, 1)))
    assert notes == ("it takes RGB: the gray channel is repeated three times",)


def test_rgb_images_for_a_network_of_gray_ones_raise(raises_one_line: Raises) -> None:
    with raises_one_line(r"^mine: takes gray images, of one channel, got images of shape \(3, 8, 8\); make gray copies"):
        adapt(convolutional(1), dataset(), "mine")


def test_channels_may_come_last() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = convolutional(3)

        def forward(self, images: Tensor) -> Tensor:
            result: Tensor = self.inner(images.permute(0, 3, 1, 2))
            return result

    network, part = Last(), dataset((3, 8, 10))
    adapted, notes = adapt(network, part)
    assert torch.allclose(adapted(part.pixels([0, 1])), network.inner(part.pixels([0, 1])), atol=1e-6)
    assert notes == ("it takes images as N x H x W x C",)


def test_another_size_is_named(raises_one_line: Raises) -> None:
    with raises_one_line(r"^mine: takes images of 16x16 pixels, got 8x8; use --resize 16$"):
        adapt(Outputs(lambda z: z, pixels=3 * 16 * 16), dataset(), "mine")


@pytest.mark.parametrize("count", [1, 2, 4, 50])
def test_a_batch_of_one_size_is_filled_up(count: int) -> None:
    class Fixed(Outputs):
        def forward(self, images: Tensor) -> object:
            return super().forward(images.view(count, 192))

    network, part = Fixed(lambda z: z), dataset()
    adapted, notes = adapt(network, part)
    assert notes == (f"it takes {count} image{'s' * (count > 1)} at a time: the last batch is filled up",)
    images = part.pixels(slice(0, 7))
    assert torch.allclose(adapted(images), network.layer(images.flatten(1)), atol=1e-6)
    assert adapted(images[:0]).shape == (0, 4)
    assert search.gradients(adapted, images)[1].flatten(2).abs().amax(2).min() > 0


def test_half_weights_are_computed_with_in_float32_and_double_in_double() -> None:
    part = dataset()
    adapted, notes = adapt(convolutional(3).half(), part)
    assert notes == ("its weights, in float16, are computed with in float32",)
    assert adapted(part.pixels([0])).dtype == torch.float32
    network = convolutional(3).double()
    adapted, notes = adapt(network, part)
    assert notes == ("it computes in float64",) and isinstance(adapted, AdaptedClassifier)
    assert torch.equal(adapted(part.pixels([0])), network(part.pixels([0]).double()).float())


def test_lazy_layers_get_their_shapes_and_the_same_weights_each_time() -> None:
    def lazy() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(4))

    part = dataset()
    (one, notes), (other, _) = adapt(lazy(), part), adapt(lazy(), part)
    assert torch.equal(one.eval()(part.pixels([0])), other.eval()(part.pixels([0])))
    assert notes == ("its lazy layers had no weights, and were initialized at random",)
    with models.frozen(one):
        assert attacks.has_gradient(one, part.pixels([0]))


def test_normalization_and_size_are_applied_first() -> None:
    network, part = convolutional(3), dataset()
    reading = Reading(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), size=(12, 16), flip_channels=True)
    adapted, notes = adapt(network, part, "mine", reading)
    images = part.pixels([0, 1])
    large = nn.functional.interpolate(images, (12, 16), mode="bilinear", antialias=True).flip(1)
    normalized = (large - torch.tensor(reading.mean).reshape(1, 3, 1, 1)) / torch.tensor(reading.std).reshape(1, 3, 1, 1)
    assert torch.allclose(adapted(images), network(normalized), atol=1e-6)
    assert notes == ("its first layer resizes images from 8x8 to 16x12, its input size",)


def test_features_of_an_adapted_network_are_the_input_of_its_last_linear_layer() -> None:
    part = dataset((1, 8, 8))
    adapted, _ = adapt(convolutional(3), part)
    with_features, words = models.with_features(adapted, part.pixels([0, 1]))
    assert with_features.features(part.pixels([0, 1])).shape == (2, 5) and words == "the input of its layer network.3"
