"""How large a perturbation is: distances between images of the same and of different classes, and the epsilon that follows."""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.search import NormBall
from notbugs.study.epsilon_source import EpsilonSource

CIFAR_EPSILON = 0.5  # in L2 (Ilyas et al. 2019); the same change per pixel is 3.5 at 3x224x224, where 3 is usual
CIFAR_LINF_EPSILON = 8 / 255
CIFAR_NUMBERS = 3 * 32 * 32
STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0)
SAMPLE = {"l2": 1000, "linf": 500}  # images, fewer if they are large; L-infinity takes 20 times as long
SAMPLE_NUMBERS = 100_000_000  # pixels of the sample at most, in all channels
BLOCK_NUMBERS = 2**24  # of images that are compared with all at a time: they are copied
MOST_OF_DISTANCE = 0.8  # of the distance to the nearest image of another class: rounded to STEPS still below it
COPY = 0.005  # of a typical image's norm: what is closer is the same image
# Of the median distance within a class: if the nearest image is closer, it shows the same scene. 0.29 to 0.37 on traffic signs,
# filmed in tracks of 30 frames; 0.47 to 0.80 on subsets of digits, mnist5k and photographs
SAME_SCENE = 0.42


class NeighborDistances(NamedTuple):
    """Median distances from an image to its nearest neighbor.

    Attributes
    ----------
    same_class, other_class : float
        To the nearest other image of its class, and to the nearest one of another class.
    norm : float
        Median norm of the images themselves.
    same_scene : bool
        Whether the nearest image of its class is so much nearer than others that it shows the same scene, as frames of a video
        do. Then the first distance says nothing about the class.
    """

    same_class: float
    other_class: float
    norm: float
    same_scene: bool


class _Measured:
    """What was measured on the last data set, by norm: a run asks for its distances several times."""

    dataset: ClassVar[Callable[[], Dataset | None]] = lambda: None
    distances: ClassVar[dict[str, NeighborDistances]] = {}


def neighbor_distances(dataset: Dataset, norm: str) -> NeighborDistances:
    """Distances between images, on a random sample of at most 1,000. The last data set's are kept.

    Parameters
    ----------
    dataset : Dataset
        With at least two classes.
    norm : {"l2", "linf"}

    Examples
    --------
    >>> from notbugs import data
    >>> found = neighbor_distances(data.load("digits").train, "l2")
    >>> found.same_class < found.other_class < found.norm
    True
    """
    if _Measured.dataset() is not dataset:
        _Measured.dataset, _Measured.distances = weakref.ref(dataset), {}
    if norm not in _Measured.distances:
        _Measured.distances[norm] = _measure(dataset, norm)
    return _Measured.distances[norm]


def _measure(dataset: Dataset, norm: str) -> NeighborDistances:
    count = min(SAMPLE[norm], max(100, SAMPLE_NUMBERS // dataset.pixels(slice(0, 1)).numel()))
    index = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    flat, labels = dataset.pixels(index).flatten(1), dataset.labels[index]
    order = 2.0 if norm == "l2" else torch.inf
    typical = flat.norm(order, 1).median()
    rows = torch.split(flat, len(flat) if flat.numel() <= BLOCK_NUMBERS else max(1, BLOCK_NUMBERS // flat.shape[1]))
    distances = torch.cat([torch.cdist(part, flat, p=order) for part in rows])
    copies = distances <= COPY * typical  # an image itself, and duplicates
    same = labels[:, None] == labels

    def median_nearest(excluded: Tensor) -> float:
        nearest = distances.masked_fill(excluded | copies, torch.inf).amin(1)
        return nearest[nearest.isfinite()].median().nan_to_num(math.inf).item()  # infinite if there is none

    same_class, typical_same = median_nearest(~same), distances[same & ~copies]
    same_scene = len(typical_same) > 0 and same_class < SAME_SCENE * typical_same.median().item()
    return NeighborDistances(same_class, median_nearest(same), typical.item(), same_scene)


class DefaultEpsilon(NamedTuple):
    """An epsilon that nobody chose, and what decided it."""

    value: float
    source: EpsilonSource


def default_epsilon(dataset: Dataset, norm: str) -> DefaultEpsilon:
    """The epsilon of a study for which nobody chose one.

    In L2 the change per pixel of the paper's epsilon on CIFAR-10, or the gap between the distances to the nearest image of
    another and of the same class, if that is larger and not due to images of the same scene: images as simple as handwritten
    digits stand larger perturbations than photographs. In L-infinity 8/255, or as many times more as in L2. At most 0.8 of the
    distance to the nearest image of another class. Rounded to 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6 or 8 times a power of ten.

    Parameters
    ----------
    dataset : Dataset
    norm : {"l2", "linf"}

    Examples
    --------
    >>> from notbugs import data
    >>> default_epsilon(data.load("digits").train, "l2")
    DefaultEpsilon(value=0.8, source='gap')
    """
    found = neighbor_distances(dataset, "l2")
    plain = _of_size(dataset.shape)
    gap = found.other_class - found.same_class
    source: EpsilonSource = "gap" if gap > plain and not found.same_scene else "pixels"
    value = gap if source == "gap" else plain
    if norm == "linf":
        value = CIFAR_LINF_EPSILON * gap / plain if source == "gap" else CIFAR_LINF_EPSILON
    most = MOST_OF_DISTANCE * neighbor_distances(dataset, norm).other_class
    if value > most:
        return DefaultEpsilon(_rounded(most), "nearest")
    return DefaultEpsilon(_rounded(value) if norm == "l2" or source == "gap" else value, source)


def hardly_visible(shape: Sequence[int], epsilon: float) -> float | None:
    """In L2, the epsilon with as much change per pixel as on CIFAR-10, where `epsilon` is more than twice that; else None.

    Examples
    --------
    >>> hardly_visible((3, 64, 64), 8.0), hardly_visible((3, 64, 64), 2.0)
    (1.0, None)
    """
    return usual if epsilon > 2 * (usual := as_on_cifar(shape)) else None


def as_on_cifar(shape: Sequence[int]) -> float:
    """In L2, the epsilon with as much change per pixel as on CIFAR-10.

    Examples
    --------
    >>> as_on_cifar((3, 32, 32)), as_on_cifar((3, 64, 64))
    (0.5, 1.0)
    """
    return _rounded(_of_size(shape))


def _of_size(shape: Sequence[int]) -> float:
    """In L2, as much change per pixel as CIFAR_EPSILON."""
    return float(CIFAR_EPSILON * (math.prod(shape) / CIFAR_NUMBERS) ** 0.5)


def default_relabel_epsilon(dataset: Dataset, norm: str, epsilon: float, factor: float) -> float:
    """Epsilon times a factor, but below the distance to the nearest image of another class, as far as epsilon is."""
    most = MOST_OF_DISTANCE * neighbor_distances(dataset, norm).other_class
    return epsilon * factor if epsilon * factor <= most else max(epsilon, float(f"{most:.3g}"))


def _rounded(epsilon: float) -> float:
    """To the nearest of STEPS times a power of ten, by ratio."""
    power = 10.0 ** math.floor(math.log10(epsilon))
    return min((float(f"{step * power:.3g}") for step in STEPS), key=lambda each: abs(math.log(each / epsilon)))


def check_epsilon(option: str, threat_model: NormBall, dataset: Dataset) -> None:
    """Raises InputError for an epsilon within which an image can become one of another class: that would test nothing."""
    nearest, epsilon = neighbor_distances(dataset, threat_model.norm).other_class, threat_model.epsilon
    if not epsilon < nearest:
        rule = f"must be below {nearest:.3g}, the median distance to the nearest image of another class ({threat_model.norm})"
        raise InputError(option, rule, f"{epsilon:g}", f"for {epsilon:g}/255 pass {epsilon:g}/255" if epsilon >= 1 else "")
