"""Estimators of scikit-learn in files of skops, which hold no pickles. Types that could run code are refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from notbugs.errors import InputError, one_line

OWN_CODE = "return it from a function of yours, module:function: skops.io.load(FILE, trusted=[…])"
# What skops does not trust and estimators consist of: objects of Python that do nothing when they are made
HARMLESS = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.utils._bunch.Bunch",
    }
)
# Compiled code follows what these hold without looking: children and features, which are checked here
TREES = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


def load_skops(path: Path) -> object:
    """The estimator in a file of skops.

    Raises
    ------
    InputError
        If skops is not installed, or the file is damaged, holds types that could run code, or trees that lead out of themselves.
    """
    try:
        from skops import io
    except ImportError:
        raise InputError(str(path), "needs skops to load", remedy="pip install skops") from None
    try:
        needed = io.get_untrusted_types(file=path)
        if unknown := [name for name in needed if name not in HARMLESS | TREES]:
            rule = "must hold estimators of scikit-learn alone: other types could run code"
            raise InputError(str(path), rule, ", ".join(unknown[:4]), OWN_CODE)
        found = io.load(path, trusted=needed)
        broken = any(not _is_whole(tree) for tree in _trees_in(found, set(), np.inf))
    except (ValueError, TypeError, KeyError, OSError, AttributeError, ImportError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(path), "must be a file of skops", one_line(error)) from None
    if broken:
        raise InputError(str(path), "must hold trees whose nodes lead to later nodes and to features that there are", "others")
    return found


class _Tree(NamedTuple):
    """A tree's nodes; leaves have no children. most: how many features there are."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    leaf: np.ndarray
    most: float


def _is_whole(tree: _Tree) -> bool:
    """Whether each node that is no leaf leads to later nodes, and to a feature that there is."""
    places = np.arange(len(tree.leaf))
    inner = ~tree.leaf
    ends = np.stack([tree.left, tree.right])[:, inner].astype(np.int64)
    features = tree.feature[inner].astype(np.int64)
    known = bool(((features >= 0) & (features < tree.most)).all())
    return known and bool(((ends > places[inner]) & (ends < len(places))).all())


def _trees_in(value: object, seen: set[int], most: float) -> Iterator[_Tree]:
    """The trees in an estimator. most: the fewest features that any estimator around them takes."""
    if id(value) in seen or isinstance(value, str | bytes | int | float):
        return
    seen.add(id(value))
    name = f"{type(value).__module__}.{type(value).__name__}"
    if name.endswith("_tree.Tree"):
        left = value.children_left  # type: ignore[attr-defined]
        yield _Tree(left, value.children_right, value.feature, left == -1, most)  # type: ignore[attr-defined]
    elif name.endswith(".TreePredictor"):
        nodes = value.nodes  # type: ignore[attr-defined]
        leaf, bits = nodes["is_leaf"].astype(bool), len(value.raw_left_cat_bitsets)  # type: ignore[attr-defined]
        feature = np.where((nodes["is_categorical"] != 0) & (nodes["bitset_idx"] >= bits), -1, nodes["feature_idx"])
        yield _Tree(nodes["left"], nodes["right"], feature, leaf, most)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _trees_in(inner, seen, most)
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        for inner in value.ravel() if isinstance(value, np.ndarray) else value:
            yield from _trees_in(inner, seen, most)
    elif attributes := getattr(value, "__dict__", None):
        own = attributes.get("n_features_in_", attributes.get("_n_features", most))
        yield from _trees_in(attributes, seen, min(most, own) if isinstance(own, int) else most)
