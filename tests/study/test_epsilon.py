"""How far images are from each other, and the epsilon that follows if nobody chooses one."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.search import NormBall
from notbugs.study import epsilon as measured_in
from notbugs.study.config import StudyConfig
from notbugs.study.epsilon import check_epsilon, default_epsilon, neighbor_distances
from notbugs.study.resolve import check_constructions, resolve


def dataset(images: torch.Tensor, labels: list[int]) -> Dataset:
    return Dataset(images, torch.tensor(labels), ("a", "b"), tuple(map(str, range(len(labels)))))


@pytest.mark.parametrize(("norm", "metric"), [("l2", "euclidean"), ("linf", "chebyshev")])
def test_distances_are_those_of_scipy_without_copies(norm: str, metric: str, digits: data.Splits) -> None:
    part = digits.train.select(slice(0, 90))
    doubled = part.select([*range(90), *range(90)])
    flat, labels = part.pixels(slice(None)).flatten(1).numpy(), part.labels.numpy()
    distances = cdist(flat, flat, metric)
    same = labels[:, None] == labels
    wanted = [np.where(mask & (distances > 0), distances, np.inf).min(1) for mask in (same, ~same)]
    found = neighbor_distances(doubled, norm)
    # torch's median is the lower of two
    assert found[:2] == pytest.approx([np.sort(each)[(len(each) - 1) // 2] for each in wanted], rel=1e-3)
    assert found.norm == pytest.approx(np.sort(cdist(flat, flat[:1] * 0, metric)[:, 0])[44], rel=1e-5)


def test_digits_follow_the_gap_between_classes_and_photographs_the_number_of_pixels(digits: data.Splits) -> None:
    mnist = data.load("mnist5k").train
    assert default_epsilon(mnist, "l2") == (1.5, "gap") and default_epsilon(mnist, "linf") == (0.15, "gap")
    assert default_epsilon(digits.train, "l2") == (0.8, "gap")
    generator = torch.Generator().manual_seed(0)
    for side, epsilon in ((32, 0.5), (64, 1.0), (224, 3.5)):
        images = torch.randint(256, (20, 3, side, side), generator=generator, dtype=torch.uint8)
        noise = dataset(images, [0, 1] * 10)
        assert default_epsilon(noise, "l2") == (epsilon, "pixels")
        assert default_epsilon(noise, "linf") == (8 / 255, "pixels")


def test_an_epsilon_that_reaches_another_class_is_an_error_and_classes_of_one_image_are_none() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[1] = 255
    both = dataset(images, [0, 1])
    assert neighbor_distances(both, "l2").same_class == math.inf
    assert default_epsilon(both, "l2").source == "pixels"
    check_epsilon("--epsilon", NormBall("l2", 7.9), both)
    with pytest.raises(
        InputError, match=r"^--epsilon: must be below 8, the median distance to the nearest image of another class"
    ):
        check_epsilon("--epsilon", NormBall("l2", 8.0), both)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("difference", [2, 20, 120])
def test_no_default_reaches_another_class(norm: str, side: int, difference: int) -> None:
    """Images of one class are nearly equal; those of the next differ by a faint or a strong square."""
    generator = torch.Generator().manual_seed(0)
    images = 100 + torch.randint(0, 2, (40, 3, side, side), generator=generator, dtype=torch.uint8)
    images[::2, :, 2:5, 2:5] += difference
    splits = data.Splits(dataset(images, [0, 1] * 20), dataset(images, [0, 1] * 20), "folder")
    resolved = resolve(StudyConfig("images", norm=norm), splits)
    assert 0 < resolved.epsilon <= resolved.relabel_epsilon
    assert (resolved.epsilon_from == "nearest") == (norm == "l2" or side == 8 or difference == 2)
    check_constructions(resolved, splits)


def test_near_frames_of_one_video_are_no_gap_between_classes() -> None:
    """Twenty videos of five similar frames each: the nearest image is of its own class only because it is of its own video."""
    generator = torch.Generator().manual_seed(0)
    scenes = torch.rand(10, 1, 3, 16, 16, generator=generator).repeat_interleave(2, 0)  # each in both classes, less similar
    scenes += 0.2 * torch.randn(scenes.shape, generator=generator)
    frames = (scenes + 0.02 * torch.randn(20, 5, 3, 16, 16, generator=generator)).clamp(0, 1).flatten(0, 1)
    videos = dataset((255 * frames).byte(), [scene % 2 for scene in range(20) for _ in range(5)])
    found = neighbor_distances(videos, "l2")
    assert found.other_class - found.same_class > 3 and found.same_scene
    assert default_epsilon(videos, "l2") == (0.25, "pixels") and default_epsilon(videos, "linf") == (8 / 255, "pixels")
    first = videos.select(range(25))  # few videos, as the first files of each class are
    assert neighbor_distances(first, "l2").same_scene and default_epsilon(first, "l2").source == "pixels"


def test_the_distances_of_a_data_set_are_measured_once_in_each_norm(digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = digits.train.select(slice(0, 60)), digits.train.select(slice(60, 120))
    measured = []
    monkeypatch.setattr(measured_in, "_measure", lambda part, norm: measured.append((part.names[0], norm)) or len(measured))
    found = [neighbor_distances(part, norm) for part in (first, first, second) for norm in ("l2", "linf", "l2")]
    a, b = first.names[0], second.names[0]
    assert measured == [(a, "l2"), (a, "linf"), (b, "l2"), (b, "linf")] and found == [1, 2, 1, 1, 2, 1, 3, 4, 3]
