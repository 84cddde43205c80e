"""How often another order of a model's outputs is found: where it is another one, and where the model is simply bad.

    python benchmarks/class_order.py simulated
    python benchmarks/class_order.py networks

simulated: confusion matrices that are drawn. networks: small networks, untrained to trained, on the digits of 8x8 pixels as they
are and changed. Prints the tables of docs/class-order.md.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import data
from notbugs.models.class_order import find_order

SIZES = {3: (20, 100, 1000, 10_000), 10: (20, 100, 450, 1000, 10_000), 100: (100, 1000, 10_000), 1000: (1000, 10_000)}
BANDS = ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (0.6, 0.8), (0.8, 1.0))  # accuracies in the right order
STEPS = (0, 1, 2, 4, 8, 15, 25, 40, 75, 150)  # of training
# How random confusion is: of Dirichlet's distribution. 0.1: most images of a class have one prediction; 100: nearly uniform
CONFUSIONS = (0.1, 0.3, 1.0, 100.0)
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda images: images,
    "inverted": lambda images: 1 - images,
    "rotated by 90": lambda images: images.rot90(1, (2, 3)),
    "rotated by 180": lambda images: images.rot90(2, (2, 3)),
    "mirrored": lambda images: images.flip(3),
    "low contrast": lambda images: 0.4 + 0.2 * images,
    "dark": lambda images: 0.2 * images,
    "shifted": lambda images: images.roll(2, 3),
    "noisy": lambda images: (images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["simulated", "networks"])
    parser.add_argument("--repetitions", type=int, default=200, help="models of each kind; seeds of networks are an eighth")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "simulated":
        print_simulated(given.repetitions)
    else:
        print_networks(max(1, given.repetitions // 8))


# ---- simulated ---------------------------------------------------------------------------------------------------------------


def print_simulated(repetitions: int) -> None:
    """A table of models in another order, by accuracy, and one of bad models."""
    titles = [f"{low:.0%} to {high:.0%}" for low, high in BANDS]
    print_row("classes", "images", *titles, *(f"bad, {confusion:g}" for confusion in CONFUSIONS), "right order")
    for classes, sizes in SIZES.items():
        for images in sizes:
            count = repetitions if classes < 1000 else max(1, repetitions // 4)
            cells = [share(permuted(classes, images, band), classes, count) for band in BANDS]
            cells += [share(bad(classes, images, confusion), classes, count) for confusion in CONFUSIONS]
            cells.append(share(in_order(classes, images), classes, count))
            print_row(classes, f"{images:,}", *cells)


Made = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]  # labels and predictions


def permuted(classes: int, images: int, accuracies: tuple[float, float]) -> Made:
    """A model of such an accuracy whose outputs stand in a random order other than that of the classes."""

    def make(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels, predicted = of_accuracy(classes, images, random.uniform(*accuracies), random)
        order = random.permutation(classes)
        while (order == np.arange(classes)).all():
            order = random.permutation(classes)
        return labels, order[predicted]

    return make


def in_order(classes: int, images: int) -> Made:
    """A model of any accuracy in the right order."""
    return lambda random: of_accuracy(classes, images, random.uniform(), random)


def bad(classes: int, images: int, confusion: float) -> Made:
    """A model whose predictions depend on the class in a random way: some outputs for this class, others for that one."""

    def make(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(images) % classes
        return labels, drawn(random.dirichlet(np.full(classes, confusion), classes), labels, random)

    return make


def of_accuracy(classes: int, images: int, accuracy: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and predictions of this accuracy. Errors go to some classes more than to others."""
    labels = np.arange(images) % classes
    others = random.dirichlet(np.full(classes, 0.3), classes)
    np.fill_diagonal(others, 0)
    wrong = (1 - accuracy) * others / others.sum(1, keepdims=True).clip(1e-12)
    return labels, drawn(wrong + accuracy * np.eye(classes), labels, random)


def drawn(shares: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Predictions with these probabilities, a row for each class."""
    limits = shares.cumsum(1)
    limits /= limits[:, -1:]
    found: np.ndarray = np.array([np.searchsorted(limits[label], random.random(), side="right") for label in labels])
    return found.clip(max=len(shares) - 1)


def share(make: Made, classes: int, repetitions: int) -> str:
    """For how many of the models another order is found."""
    names = [f"{index:04d}" for index in range(classes)]
    found = 0
    for seed in range(repetitions):
        labels, predicted = make(np.random.default_rng(seed))
        found += find_order(predicted, labels, names) is not None
    return f"{100 * found / repetitions:g}"


# ---- networks ----------------------------------------------------------------------------------------------------------------


def print_networks(seeds: int) -> None:
    """For how many networks another order is found, by their accuracy, as they are and with their outputs in another order."""
    counts: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for accuracy, kind, right, other in network_findings(seeds):
        band = next((f"{low:.0%} to {high:.0%}" for low, high in BANDS if low <= accuracy <= high), "below 20%")
        counts[f"in the right order: {kind}", ""].append(right)
        counts["in another order, accuracy in the right one:", band].append(other)
    print_row("networks", "found")
    for (kind, band), found in sorted(counts.items()):
        print_row(f"{kind} {band}".strip(), f"{sum(found):,} of {len(found):,}")


def network_findings(seeds: int) -> Iterator[tuple[float, str, bool, bool]]:
    """Accuracy, kind, and whether another order is found: with the outputs as they are, and in a random order."""
    digits = data.load("digits")
    names = digits.test.classes
    for seed in range(seeds):
        for width in (0, 16):
            for step, network in trained(digits.train, width, seed):
                for change, labels, predicted in predictions(network, digits.test):
                    kind = "untrained" if step == 0 else f"digits {change}"
                    order = np.random.default_rng(seed).permutation(len(names))
                    right = find_order(predicted, labels, names) is not None
                    other = find_order(order[predicted], labels, names) is not None
                    yield float((predicted == labels).mean()), kind, right, other


def trained(part: data.Dataset, width: int, seed: int) -> Iterator[tuple[int, nn.Module]]:
    """A network after some steps of training: convolutions of this width; 0: a perceptron."""
    torch.manual_seed(seed)
    if width:
        convolutions = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 32, 3, padding=1)]
        network = nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    else:
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    images, labels = part.pixels(slice(None)), part.labels
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            yield step, network
        index = torch.randint(0, len(part), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(images[index]), labels[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def predictions(network: nn.Module, part: data.Dataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Labels and predictions: on all images, changed in each way; on 40 of them; on ever fewer of each class."""
    labels = part.labels.numpy()
    for change, apply in CHANGES.items():
        predicted = network(apply(part.pixels(slice(None)))).argmax(1).numpy()
        yield change, labels, predicted
        if change == "as they are":
            yield "40 of them", labels[:40], predicted[:40]
            kept = np.concatenate([(labels == label).nonzero()[0][: 40 - 4 * label] for label in range(10)])
            yield "unbalanced", labels[kept], predicted[kept]


def print_row(*cells: object) -> None:
    """A row of a table in Markdown."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
