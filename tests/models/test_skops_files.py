"""Files of skops: usual estimators are loaded, trees that lead out of themselves are refused."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from notbugs.models.skops_files import _is_whole, _trees_in, load_skops

Raises = Callable[[str], AbstractContextManager[None]]
ROWS = np.random.default_rng(0).random((40, 5)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0.5).astype(int)


def whole(estimator: Any) -> list[bool]:
    return [_is_whole(tree) for tree in _trees_in(estimator, set(), np.inf)]


def with_node(tree: DecisionTreeClassifier, **changes: int) -> DecisionTreeClassifier:
    """The tree with another root."""
    state = tree.tree_.__getstate__()
    for name, value in changes.items():
        state["nodes"][name][0] = value
    tree.tree_.__setstate__(state)
    return tree


def test_trees_of_estimators_are_whole() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS)
    boosting = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2).fit(ROWS, LABELS)
    assert whole(forest) == [True] * 3 and whole({"a": [boosting]}) == [True] * 2 and whole(LogisticRegression()) == []


@pytest.mark.parametrize("changes", [{"left_child": 0}, {"right_child": 10**6}, {"feature": 5}, {"feature": -7}])
def test_trees_that_lead_out_of_themselves_are_not(changes: dict[str, int]) -> None:
    """Compiled code would not end, or read what is not theirs."""
    assert whole(with_node(DecisionTreeClassifier().fit(ROWS, LABELS), **changes)) == [False]


def test_nodes_of_boosted_trees_are_looked_at_too() -> None:
    boosting = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2).fit(ROWS, LABELS)
    boosting._predictors[0][0].nodes["is_categorical"][0] = 1
    assert whole(boosting) == [False]


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(2),
        HistGradientBoostingClassifier(max_iter=1),
        MLPClassifier((2,), max_iter=1),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_usual_estimators_are_loaded(estimator: Any, tmp_path: Path) -> None:
    io_of_skops = pytest.importorskip("skops.io")
    io_of_skops.dump(estimator.fit(ROWS, LABELS), tmp_path / "m.skops")
    found: Any = load_skops(tmp_path / "m.skops")
    assert found.predict(ROWS).tolist() == estimator.predict(ROWS).tolist()


def test_other_types_and_broken_trees_are_refused(tmp_path: Path, raises_one_line: Raises) -> None:
    io_of_skops = pytest.importorskip("skops.io")
    io_of_skops.dump(with_node(DecisionTreeClassifier().fit(ROWS, LABELS), left_child=0), tmp_path / "m.skops")
    with raises_one_line("must hold trees whose nodes lead to later nodes and to features that there are, got others"):
        load_skops(tmp_path / "m.skops")
    io_of_skops.dump(FunctionTransformer(np.save), tmp_path / "m.skops")
    with raises_one_line(r"must hold estimators of scikit-learn alone: .*; return it from a function of yours, module:function"):
        load_skops(tmp_path / "m.skops")
