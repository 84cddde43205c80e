"""Outputs are matched with the classes of a data set by name or as the user says, and picked or added with their gradients."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, models
from notbugs.models.black_box import BlackBox
from notbugs.models.class_map import Mapped, NameIndex, note, outputs_of_classes
from notbugs.models.class_outputs import ClassOutputs, MappedClassifier, take_own_outputs, with_outputs
from notbugs.models.output_names import read_class_map

Raises = Callable[[str], AbstractContextManager[None]]
PETS = ["cat", "dog"]


def mapped(names: list[str] | None, classes: list[str], *, outputs: int | None = None, given: str | None = None) -> Mapped:
    count = outputs if outputs is not None else len(names or classes)
    return outputs_of_classes("m", count, names, None if given is None else read_class_map(given), classes, "pets")


@pytest.mark.parametrize(
    ("names", "classes", "outputs"),
    [
        (["dog", "cat"], PETS, ((1,), (0,))),
        (["Dog", "CAT"], PETS, ((1,), (0,))),
        (["sea-lion", "sea otter"], ["sea_otter", "Sea Lion"], ((1,), (0,))),
        (["Cafe\u0301", "tea"], ["tea", "Caf\u00e9"], ((1,), (0,))),
        ([*map(str, range(12))], sorted(map(str, range(12))), tuple((int(name),) for name in sorted(map(str, range(12))))),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["002", "000", "001"], ((2,), (0,), (1,))),
        (["tench, Tinca tinca", "goldfish, Carassius auratus", "crane"], ["goldfish", "tench"], ((1,), (0,))),
        (["n01440764 tench, Tinca tinca", "n01443537 goldfish"], ["n01443537", "n01440764"], ((1,), (0,))),
        (["Cat", "cat", "dog"], PETS, ((1,), (2,))),  # letter for letter before any other way
        (["cat", "x", "dog", "x"], PETS, ((0,), (2,))),  # names that mean two outputs, but no class
    ],
)
def test_outputs_are_found_by_name(names: list[str], classes: list[str], outputs: tuple[tuple[int, ...], ...]) -> None:
    assert mapped(names, classes) == Mapped(outputs, "by their names")


def test_names_in_order_and_names_that_say_nothing_change_nothing() -> None:
    for names in (None, PETS, ["Cat", "Dog"]):
        found = mapped(names, PETS)
        assert found.outputs is None and note(found, "logits", 2, "pets") == ""
    for names, classes in ((["0", "1"], PETS), (PETS, ["0", "1"])):
        found = mapped(names, classes)
        assert found.outputs is None
        assert (
            note(found, "logits", 2, "pets")
            == f"the names of its outputs ({', '.join(names)}) say nothing of the classes: they are read in order"
        )


@pytest.mark.parametrize(
    ("names", "classes", "outputs", "says"),
    [
        (["cat", "cow"], PETS, None, "m: must .* class of pets, got none called dog among 2 outputs: cat, cow; say which"),
        (["Fuchs", "Hase"], PETS, None, "m: must have one output for each class of pets, got none called cat, dog among"),
        (["CAT", "Cat", "dog"], PETS, None, "m: must have one output for each class of pets, got 2 called cat: 0, 1"),
        (["cat", "dog"], ["Cat", "cat"], None, "m: must give each output to one class, got 0 .cat. for Cat and cat"),
        (["crane, bird", "crane, machine"], ["crane"], None, "got 2 called crane: 0, 1"),
        (["cat", "dog"], PETS, 3, "m: must have a name for each of its outputs, got 3 outputs and 2 names"),
        (None, PETS, 3, "each of the 2 classes of pets, got 3; say which they are: --class-map 'cat=0.1,dog=2', or --cl"),
        (None, ["a", "b", "c"], 2, "m: must have one output for each of the 3 classes of pets, got 2; give it only images of"),
        (["0", "1", "2"], PETS, None, "must have one output for each of the 2 classes of pets, got 3"),
        (["1", "2"], ["0", "1"], None, "got none called 0 among 2 outputs"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_refused(
    names: list[str] | None, classes: list[str], outputs: int | None, says: str, raises_one_line: Raises
) -> None:
    with raises_one_line(says):
        mapped(names, classes, outputs=outputs)


def test_a_class_map_says_outputs_by_index_and_by_name() -> None:
    assert mapped(None, PETS, outputs=9, given="Dog=7,cat=2+3") == Mapped(((2, 3), (7,)), "as --class-map says")
    names = ["tabby, tabby cat", "siamese", "pug", "sofa"]
    assert mapped(names, PETS, given="dog=Pug,cat=0+siamese").outputs == ((0, 1), (2,))
    assert mapped(["dog", "cat"], PETS, given="cat=0,dog=1").outputs is None  # it goes before names
    numbers = [*map(str, range(12))]
    assert mapped(numbers, PETS, given="cat=3,dog=11").outputs == ((3,), (11,))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("cow=1", "--class-map: must name classes of pets, got cow; these are cat, dog"),
        ("cat=1", "--class-map: must say the outputs of each class of pets, got none for dog"),
        ("cat=1,Cat=2,dog=0", "--class-map: must name each class once, got cat"),
        ("cat=1,dog=1", "--class-map: must give each output to one class, got 1 .pug. for cat and dog"),
        ("cat=0+0,dog=1", "--class-map: must give each output to one class, got 0 .tabby. for cat and cat"),
        ("cat=0,dog=5", "--class-map: must name outputs of m, by an index from 0 to 4 or by a name, got 5"),
        ("cat=0,dog=poodle", "by a name, got poodle"),
        ("cat=0,dog=sofa", "got sofa, which 3, 4 are; pass its index"),
        ("cat=0,dog=2", "got 2, which 2 and 1 more are; in a .json file"),
    ],
)
def test_a_class_map_that_is_unclear_is_refused(given: str, says: str, raises_one_line: Raises) -> None:
    names = ["tabby", "pug", "3", "sofa", "sofa"] if "=2" not in given else ["2", "pug", "cow", "sofa", "x"]
    with raises_one_line(says.replace("2 and 1 more", "0, 2")):
        mapped(names, PETS, given=given)
    with raises_one_line("got tabby; to use names: --classes FILE"):
        mapped(None, PETS, outputs=5, given="cat=tabby,dog=1")


def test_a_thousand_names_take_no_time() -> None:
    names = [f"n{number:08d} name {number}, other {number}" for number in range(1000)]
    index = NameIndex(names)
    assert [index.places(f"Other_{number}") for number in (0, 999)] == [[0], [999]] and index.places("name") == []


def test_what_is_said_of_the_outputs() -> None:
    order = Mapped(((1,), (0,)), "by their names")
    assert (
        note(order, "logits", 2, "pets")
        == "its outputs stand in another order than the classes of pets and are read by their names"
    )
    some = Mapped(((2, 3), (7,)), "as --class-map says")
    assert (
        note(some, "logits", 1000, "pets")
        == "3 of its 1,000 outputs are the classes of pets, as --class-map says; the others are not used"
    )
    assert "images with another count as misclassified" in note(some, "labels", 1000, "pets")
    assert note(Mapped(((0, 1), (2,)), "by their names"), "logits", 3, "pets").endswith("by their names")


# ---- models ------------------------------------------------------------------------------------------------------------------


def test_logits_are_picked_and_added_as_probabilities_are(random_images: Callable[..., Tensor]) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    outputs = [[3], [0, 2, 1]]
    added = ClassOutputs(outputs, logits)(logits).softmax(1)
    probabilities = logits.softmax(1)
    expected = torch.stack([probabilities[:, 3], probabilities[:, :3].sum(1)], dim=1)
    assert torch.allclose(added, expected, atol=1e-6)
    assert torch.allclose(ClassOutputs(outputs, probabilities)(probabilities), expected, atol=1e-6)
    sigmoids = logits.sigmoid()  # one for each output: as their logits
    assert torch.allclose(ClassOutputs(outputs, sigmoids)(sigmoids), ClassOutputs(outputs, logits)(logits), atol=1e-3)
    some = ClassOutputs([[3], [0]], probabilities)(probabilities)
    assert torch.allclose(some, logits[:, [3, 0]].softmax(1), atol=1e-5)  # of those that are left, they sum to 1
    assert torch.equal(ClassOutputs([[3], [0]], logits)(logits), logits[:, [3, 0]])


def test_labels_count_for_their_class_however_many_others_it_has() -> None:
    labels = 2 * nn.functional.one_hot(torch.tensor([0, 5, 9]), 10).float() - 1
    found = ClassOutputs([[0], [4, 5, 6, 7, 8]], labels)(labels)
    assert found.tolist() == [[1, -1], [-1, 1], [-1, -1]]  # the last is of neither class


def test_gradients_and_features_stay_and_the_model_stays_as_it_was(random_images: Callable[..., Tensor]) -> None:
    images = random_images((1, 8, 8), 4)
    own = models.build("small", shape=(1, 8, 8), classes=5, width=4).eval()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 5))
    for network in (own, models.wrap(plain, images), plain):
        before = network(images)
        picked = with_outputs(network, ((4,), (0, 1), (2,)), before, ["a", "b", "c"])
        assert torch.equal(network(images), before)
        expected = torch.stack([before[:, 4], before[:, :2].logsumexp(1), before[:, 2]], dim=1)
        assert torch.allclose(picked(images), expected) and attacks.has_gradient(picked, images)
        model, features = models.with_features(picked, images[:2])
        assert torch.allclose(model(images), expected)
        unmapped, known = models.with_features(network, images[:2])
        assert features == known and torch.allclose(model.features(images), unmapped.features(images))
    assert isinstance(with_outputs(own, ((1,), (0,)), own(images), ["a", "b"]), models.Classifier)  # batch norm is fused into it
    assert isinstance(picked, MappedClassifier) and picked.network is plain


def test_black_boxes_stay_black_boxes_and_have_the_outputs_that_they_have(random_images: Callable[..., Tensor]) -> None:
    images = random_images((1, 8, 8), 4)
    scores = BlackBox(lambda array: np.stack([array.mean((1, 2, 3)) * k for k in range(6)], 1), PETS)
    take_own_outputs(scores, images[:1], None)
    found = with_outputs(scores, ((5,), (1, 2)), scores(images), PETS)
    assert isinstance(found, BlackBox) and found.classes == ("cat", "dog")
    assert torch.allclose(found(images)[:, 0], 5 * images.mean((1, 2, 3)))
    labels = BlackBox(lambda array: (array.mean((1, 2, 3)) * 0 + 1234).astype(int), PETS)
    take_own_outputs(labels, images[:1], None)
    assert labels.classes == (*map(str, range(1235)),)  # it has that many at least
    labels.classes = ("cat", "dog")
    take_own_outputs(labels, images[:1], read_class_map("cat=7,dog=1234"))
    assert with_outputs(labels, ((7,), (1234,)), labels(images), PETS)(images).argmax(1).tolist() == [1, 1, 1, 1]
    alone = BlackBox(lambda array: np.array([1234]) if len(array) == 1 else 1 / 0, PETS)
    take_own_outputs(alone, images, read_class_map("cat=7,dog=1234"))
    assert len(alone.classes) == 1235
    broken = BlackBox(lambda array: 1 / 0, PETS)
    take_own_outputs(broken, images[:1], None)
    take_own_outputs(nn.Flatten(), images[:1], None)
    assert broken.classes == ("cat", "dog")


def test_what_gives_a_black_box_gradients_is_no_black_box(random_images: Callable[..., Tensor]) -> None:
    """As a surrogate: it holds the black box, and says itself why it has no gradients."""

    class Surrogate(nn.Module):
        no_gradient = "it is a tree"

        def __init__(self) -> None:
            super().__init__()
            self.box = BlackBox(lambda array: array.reshape(len(array), -1)[:, :3], PETS)

        def forward(self, images: Tensor) -> Tensor:
            exact: Tensor = self.box(images)
            return exact + images.flatten(1)[:, :3] - images.flatten(1)[:, :3].detach()

    images, surrogate = random_images((1, 8, 8), 4), Surrogate()
    take_own_outputs(surrogate, images[:1], None)
    found = with_outputs(surrogate, ((2,), (0,)), surrogate(images), PETS)
    assert torch.equal(found(images), images.flatten(1)[:, [2, 0]]) and attacks.has_gradient(found, images)
    assert found.no_gradient == "it is a tree"
