"""The order of a model's outputs is found from its predictions, and only where it is another one than that of the classes."""

import numpy as np
import pytest

from notbugs.models import class_order
from notbugs.models.class_order import OutputOrder, find_order

TWELVE = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, …


def predictions(labels: np.ndarray, accuracy: float, classes: int, seed: int = 0) -> np.ndarray:
    """Predictions that are right with this probability, and otherwise random."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(labels)) < accuracy, labels, random.integers(0, classes, len(labels)))


def found(labels: np.ndarray, predicted: np.ndarray, classes: list[str], outputs: int | None = None) -> OutputOrder:
    order = find_order(predicted, labels, classes, outputs)
    assert order is not None
    return order


@pytest.mark.parametrize(
    ("classes", "order", "cause"),
    [
        (TWELVE, [int(name) for name in TWELVE], class_order.NUMBERS),
        ([f"img {name}" for name in TWELVE], [int(name) for name in TWELVE], class_order.NUMBERS),
        ([*map(str, range(12))], [TWELVE.index(str(number)) for number in range(12)], class_order.TEXT),
        (["Zebra", "ant", "bee", "cat"], [3, 0, 1, 2], class_order.CASE),
        (["ant", "bee", "cat", "dog"], [1, 2, 3, 0], class_order.FROM_ONE),
        (["ant", "bee", "cat", "dog"], [3, 0, 1, 2], class_order.FROM_MINUS_ONE),
        (["ant", "bee", "cat", "dog"], [3, 2, 1, 0], class_order.REVERSE),
        (["ant", "bee"], [1, 0], class_order.EXCHANGED),
    ],
)
def test_usual_orders_are_found_and_named(classes: list[str], order: list[int], cause: str) -> None:
    labels = np.arange(300) % len(classes)
    right = predictions(labels, 0.9, len(classes))
    known = found(labels, np.array(order)[right], classes)
    assert known == (tuple(order), (right == labels).mean(), cause)


def test_any_other_order_is_found_and_its_accuracy_is_of_images_that_did_not_choose_it() -> None:
    labels, order = np.arange(400) % 10, np.random.default_rng(3).permutation(10)
    right = predictions(labels, 0.9, 10)
    known = found(labels, order[right], [*"abcdefghij"])
    assert known.outputs == tuple(order) and known.cause == "" and known.accuracy == (right == labels).mean()
    two = np.arange(10)
    two[[2, 7]] = 7, 2  # two of ten exchanged
    assert found(labels, two[right], [*"abcdefghij"]).outputs == tuple(two)


@pytest.mark.parametrize(("classes", "images", "accuracy"), [(10, 450, 0.45), (30, 1000, 0.4), (100, 2000, 0.3)])
def test_the_order_of_a_weak_model_is_found_and_none_of_a_bad_one(classes: int, images: int, accuracy: float) -> None:
    """Bad: each class has some outputs more often than others, at random."""
    names, labels = [f"{index:03d}" for index in range(classes)], np.arange(images) % classes
    for seed in range(3):
        random = np.random.default_rng(seed)
        order = random.permutation(classes)
        known = found(labels, order[predictions(labels, accuracy, classes, seed)], names)
        assert np.mean(np.array(known.outputs) == order) > 0.97 and known.cause == ""
        shares = random.dirichlet(np.full(classes, 0.3), classes).cumsum(1)
        bad = (random.random((images, 1)) > shares[labels]).sum(1).clip(max=classes - 1)
        assert find_order(bad, labels, names) is None


def test_classes_without_an_output_of_their_own_are_said() -> None:
    """As of a model of other classes, which has one output for most images of a class, and the same one for several classes."""
    labels, names = np.arange(1000) % 10, [*"abcdefghij"]
    random = np.random.default_rng(0)
    tops = np.array([3, 5, 0, 9, 3, 7, 5, 1, 6, 4])  # two outputs are those of two classes each
    predicted = np.where(random.random(1000) < 0.9, tops[labels], random.integers(0, 10, 1000))
    assert found(labels, predicted, names).cause == (
        "2 of 10 classes then have no output of their own, so that it may be a model of other classes"
    )
    tops[4] = 8  # one class of ten
    predicted = np.where(random.random(1000) < 0.9, tops[labels], random.integers(0, 10, 1000))
    assert found(labels, predicted, names).cause == ""


def test_a_usual_order_is_found_where_hardly_any_class_has_two_images() -> None:
    names = sorted(map(str, range(1000)))
    labels = np.arange(0, 1000, 3)
    assert (
        found(labels, np.array([int(name) for name in names])[predictions(labels, 0.7, 1000)], names).cause == class_order.NUMBERS
    )


def test_weak_models_in_the_right_order_are_left_alone() -> None:
    """Whatever the accuracy, the sizes of the classes, and systematic errors."""
    names = [*"abcdefghij"]
    for seed in range(4):
        random = np.random.default_rng(seed)
        balanced, uneven = np.arange(400) % 10, random.choice(10, 400, p=np.array([60, 20, 5, 5, 3, 3, 1, 1, 1, 1]) / 100)
        for labels in (balanced, uneven):
            for accuracy in (0.0, 0.1, 0.3, 0.6, 1.0):
                assert find_order(predictions(labels, accuracy, 10, seed), labels, names) is None
            assert find_order(np.full(400, 7), labels, names) is None  # one class, and a rare one
            assert find_order(labels % 3 + 5, labels, names) is None  # three outputs of ten
            confused = np.where(random.random(400) < 0.6, labels ^ 1, labels)  # pairs that are taken for each other
            assert find_order(np.where(labels < 4, confused, labels), labels, names) is None
    assert find_order(predictions(balanced % 2, 0.1, 2), balanced % 2, ["a", "b"]) is None


def test_of_too_few_images_nothing_is_said() -> None:
    classes = [*"abcdefghij"]
    assert find_order(np.array([3, 1, 2]), np.array([1, 2, 3]), classes) is None
    assert find_order(np.full(50, 3), np.full(50, 1), classes) is None  # one class
    assert find_order(np.zeros(0, int), np.zeros(0, int), classes) is None


def test_which_of_more_outputs_the_classes_are() -> None:
    labels = np.arange(200) % 4
    right = predictions(labels, 0.9, 4)
    places = np.array([281, 7, 500, 999])
    assert found(labels, places[right], ["ant", "bee", "cat", "dog"], 1000).outputs == tuple(places)
    assert found(labels, right + 1, ["ant", "bee", "cat", "dog"], 5) == (
        (1, 2, 3, 4),
        (right == labels).mean(),
        class_order.FROM_ONE,
    )
    assert found(labels, right, ["ant", "bee", "cat", "dog"], 5).cause == class_order.FIRST
    assert find_order(predictions(labels, 0.0, 1000), labels, ["ant", "bee", "cat", "dog"], 1000) is None
    assert find_order(labels, labels, ["ant", "bee", "cat", "dog"], 3) is None
