"""Problems of single images: duplicates, near duplicates, and images in which there is little to see."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from notbugs.datacheck.duplicates import CANDIDATES, MIN_CONTRAST, Pairs, exact_groups, near_pairs
from notbugs.datacheck.fingerprints import Fingerprints

MIN_SIDE = 16  # pixels: smaller images are not compared for near duplicates
SCENES, SCENE_IMAGES = 0.03, 50  # share and number of images with a near duplicate, from which they seem to be frames

ACROSS = "duplicates in training and test part"
OTHER_LABEL = "duplicates with different labels"
NEAR_ACROSS = "near duplicates in training and test part"
NEAR_OTHER_LABEL = "near duplicates with different labels"
SCENE = "frames of one scene"
WITHIN = "duplicates within a part"
NEAR_WITHIN = "near duplicates within a part"
CONSTANT = "constant images"
FLAT = "images of almost no contrast"
GRAY = "gray images among color images"


class AllImages(NamedTuple):
    """All images of both parts, those of the training part first. shape: C, H, W."""

    names: tuple[str, ...]
    labels: np.ndarray
    in_test: np.ndarray
    prints: Fingerprints
    shape: tuple[int, int, int]

    @property
    def compared(self) -> int:
        """How many images are compared for near duplicates."""
        return len(self.prints.hashes) if min(self.shape[1:]) >= MIN_SIDE else 0

    @property
    def only_test(self) -> bool:
        """Whether there is no training part, so that nothing is split or folded."""
        return bool(self.in_test.all())


class Problem(NamedTuple):
    """A problem that images have.

    Attributes
    ----------
    name : str
    images : ndarray, int64, (k,)
        Positions, ascending.
    others : ndarray, int64, (k,), or None
        To which other image each is similar.
    values : ndarray, (k,), or None
        How similar, up to 1; without others the contrast in levels.
    n : int
        Of how many images.
    meaning, remedy : str
    may_be_serious : bool
    """

    name: str
    images: np.ndarray
    others: np.ndarray | None
    values: np.ndarray | None
    n: int
    meaning: str
    remedy: str
    may_be_serious: bool = True


def problems(images: AllImages) -> list[Problem]:
    """The problems that at least one image has, the more serious kinds first."""
    found = [*_exact(images), *_near(images), *_contrast(images)]
    return [problem for problem in found if len(problem.images)]


def _exact(images: AllImages) -> Iterator[Problem]:
    first, n_test = exact_groups(images.prints.digests), int(images.in_test.sum())
    shared = np.flatnonzero(images.in_test & ~images.in_test[first])
    yield Problem(
        ACROSS,
        shared,
        first[shared],
        np.ones(len(shared)),
        n_test,
        "These test images were trained on: clean and robust accuracy on the test part come out too high.",
        "Remove them from one of the parts.",
    )
    conflicting, others = _with_other_label(first, images.labels)
    yield Problem(
        OTHER_LABEL,
        conflicting,
        others,
        np.ones(len(conflicting)),
        len(first),
        "At most one label of each image is right: accuracy cannot reach 100 %, and label errors look like vulnerable files.",
        "Correct the labels or remove the files.",
    )
    copies = np.flatnonzero((first != np.arange(len(first))) & (images.in_test == images.in_test[first]))
    yield Problem(
        WITHIN,
        copies,
        first[copies],
        np.ones(len(copies)),
        len(first),
        "Copies count several times: confidence intervals come out too narrow"
        + ("." if images.only_test else ", and folds share images."),
        "Keep one of each.",
    )


def _with_other_label(first: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of which a copy has another label, and such a copy."""
    other = np.full(len(first), -1)
    differing = np.flatnonzero(labels != labels[first])
    other[first[differing[::-1]]] = differing[::-1]  # of each first image the first copy with another label
    conflicting = np.flatnonzero(other[first] >= 0)
    of_first = labels[conflicting] == labels[first[conflicting]]
    return conflicting, np.where(of_first, other[first[conflicting]], first[conflicting])


def _near(images: AllImages) -> Iterator[Problem]:
    """Near duplicates, without those that have the same pixels; none among images that are too small to tell."""
    if not images.compared:
        return
    first = exact_groups(images.prints.digests)
    pairs = near_pairs(images.prints, first == np.arange(len(first)))
    across = images.in_test[pairs.first] != images.in_test[pairs.second]  # the second is the later one: of the test part
    other_label = images.labels[pairs.first] != images.labels[pairs.second]
    n_test = int(images.in_test.sum())
    left_out = f" {pairs.bounded:,} images have more than {CANDIDATES} similar images: of each, that many were compared."
    said = left_out if pairs.bounded else ""
    leaked, sources, similarity = _nearest(pairs.second[across], pairs.first[across], pairs.similarity[across])
    yield Problem(
        NEAR_ACROSS,
        leaked,
        sources,
        similarity,
        n_test,
        "Test images that look like training images make clean and robust accuracy too high." + said,
        "Keep all versions of an image, or frames of a scene, in one part: --group REGEX.",
    )
    yield Problem(
        NEAR_OTHER_LABEL,
        *_both_ways(pairs, other_label),
        images.compared,
        "Either a label is wrong, or the classes differ in details that resizing or a small perturbation hides." + said,
        "Look at the pairs; correct the labels.",
    )
    within = _within(_both_ways(pairs, ~across & ~other_label), images.compared, only_test=images.only_test)
    yield within._replace(meaning=within.meaning + said)


def _within(found: tuple[np.ndarray, np.ndarray, np.ndarray], compared: int, *, only_test: bool) -> Problem:
    """Near duplicates of one class in one part; if there are many, they seem to be frames of scenes."""
    if len(found[0]) < max(SCENE_IMAGES, SCENES * compared):
        meaning = "Such images count almost twice: confidence intervals come out slightly too narrow."
        remedy = "Keep one of each." if only_test else "Keep one of each, or use --group REGEX."
        return Problem(NEAR_WITHIN, *found, compared, meaning, remedy, False)
    if only_test:
        meaning = "Many images seem to be frames of one scene, and count one by one: confidence intervals come out too narrow."
        return Problem(SCENE, *found, compared, meaning, "Keep one of each scene.")
    meaning = "Many images seem to be frames of one scene: if a split or fold tears scenes apart, accuracy comes out too high."
    return Problem(SCENE, *found, compared, meaning, "Keep all files of a video or scene in one part: --group REGEX.")


def _both_ways(pairs: Pairs, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images of the chosen pairs, either of them, with the other one and the similarity."""
    first, second, similarity = (column[chosen] for column in pairs[:3])
    return _nearest(np.concatenate([first, second]), np.concatenate([second, first]), np.concatenate([similarity] * 2))


def _nearest(images: np.ndarray, others: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each image once, in order, with the most similar of its others."""
    order = np.lexsort((-similarity, images))
    _, once = np.unique(images[order], return_index=True)
    kept = order[once]
    return images[kept], others[kept], similarity[kept]


def _contrast(images: AllImages) -> Iterator[Problem]:
    prints, n = images.prints, len(images.names)
    constant = np.flatnonzero(prints.constant)
    yield Problem(
        CONSTANT,
        constant,
        None,
        np.zeros(len(constant)),
        n,
        "There is nothing to see: whether such an image counts as robust depends on its color alone.",
        "Remove them, or find out why they are empty.",
    )
    flat = np.flatnonzero(~prints.constant & (prints.contrast < MIN_CONTRAST))
    yield Problem(
        FLAT,
        flat,
        None,
        prints.contrast[flat],
        n,
        "Within a usual ε a perturbation can be stronger than all that there is to see.",
        "Look at them" + ("; dark images of 16 bits may need --white VALUE." if images.shape[0] == 1 else "."),
    )
    gray = np.flatnonzero(prints.gray & ~prints.constant) if images.shape[0] == 3 else np.empty(0, np.int64)
    yield Problem(
        GRAY,
        gray,
        None,
        None,
        n,
        "If some classes have more gray images than others, color alone predicts the class: a spurious cue.",
        "Compare the classes; make all images gray if in doubt.",
        False,
    )
