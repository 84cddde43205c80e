"""Non-neural classifiers: learning algorithms of scikit-learn, trained on the pixels of a data set."""

from collections.abc import Callable
from typing import Any

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import black_box
from notbugs.models.black_box import BlackBox, SurrogateGradients


def fit_learner(name: str, dataset: Dataset, *, seed: int = 0) -> BlackBox | SurrogateGradients:
    """Train a non-neural classifier, on one thread.

    Parameters
    ----------
    name : str
        One of `LEARNERS`.
    dataset : Dataset
        Images of two classes or more.
    seed : int

    Raises
    ------
    InputError
        If there is no such learner or only one class.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits")
    >>> learner = fit_learner("nearest-neighbors", digits.train)
    >>> learner(digits.test.pixels(slice(0, 3))).shape
    torch.Size([3, 10])
    """
    from threadpoolctl import threadpool_limits

    if name not in LEARNERS:
        raise InputError("learner", f"must be one of {', '.join(LEARNERS)}", repr(name))
    classes = len(dataset.labels.unique())  # type: ignore[no-untyped-call]
    if classes < 2:
        raise InputError("data", "must have images of two classes or more", classes)
    pixels = dataset.pixels(slice(None)).flatten(1).numpy()
    with threadpool_limits(1):
        fitted = LEARNERS[name](pixels.shape[1], len(pixels), classes, seed).fit(pixels, dataset.labels.numpy())
    return black_box.from_sklearn(fitted, dataset.classes)


def boosting_iterations(classes: int) -> int:
    """Of gradient-boosted trees: one grows a tree for each class, 1,000 in all, from 200 classes on five for each.

    Examples
    --------
    >>> boosting_iterations(3), boosting_iterations(10), boosting_iterations(100), boosting_iterations(1000)
    (100, 100, 10, 5)
    """
    return max(5, min(100, 1000 // max(1, classes)))


def _logistic_regression(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0 if pixels < 500 else 0.01, max_iter=200, tol=1e-3)


def _linear_svm(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=0.1 if pixels < 500 else 0.001, dual="auto", max_iter=2000, tol=1e-3, random_state=seed)


def _rbf_svm(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(C=10.0, gamma="scale", random_state=seed)


def _random_forest(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(300, n_jobs=1, random_state=seed)


def _boosting(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    share = min(1.0, 100 / pixels)  # of the pixels, tried for each split: all would take hours on large images
    return HistGradientBoostingClassifier(
        max_iter=boosting_iterations(classes), max_features=share, early_stopping=False, random_state=seed
    )


def _nearest_neighbors(pixels: int, images: int, classes: int, seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(5, images))  # with more than there are it fails when it predicts


# (pixels of an image, number of images, of classes, seed) -> scikit-learn estimator
LEARNERS: dict[str, Callable[[int, int, int, int], Any]] = {
    "logistic-regression": _logistic_regression,
    "linear-svm": _linear_svm,
    "rbf-svm": _rbf_svm,
    "random-forest": _random_forest,
    "boosting": _boosting,
    "nearest-neighbors": _nearest_neighbors,
}
