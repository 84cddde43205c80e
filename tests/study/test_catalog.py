"""The catalog: names are unique, and everything that a spec names is there."""

import subprocess
import sys

from notbugs.metrics import corruptions
from notbugs.models import TRANSFER_ARCHITECTURES, sklearn_learners
from notbugs.study.analyses import ANALYSES, COMPARED
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.catalog.models import (
    ANALYZED_MODELS,
    ANALYZED_TITLES,
    ARCHITECTURES,
    LEARNERS,
    MAIN_MODELS,
    MODELS,
    STRONG_MODELS,
    dataset_of,
    trained_on,
)
from notbugs.study.comparisons import CONTROLS_OF, control_short, control_title
from notbugs.study.datasets import CONSTRUCTIONS


def test_seeds_derive_from_different_keys() -> None:
    assert MODELS["reference"].seed_key == MODELS["standard"].seed_key  # what that would be, had no model been given
    keys = [spec.seed_key for spec in (*DATASETS.values(), *MODELS.values()) if spec.name != "reference"]
    shared = {spec.seed_key for spec in DATASETS.values()} & {spec.seed_key for spec in MODELS.values()}
    assert len(keys) == len(set(keys)) and not shared


def test_what_a_data_set_is_made_from_is_in_the_catalog() -> None:
    for name, spec in DATASETS.items():
        assert spec.name == name and spec.construction in CONSTRUCTIONS and spec.made_from
        assert {spec.source_model, *spec.preserved_by} <= {"", *MODELS}
        assert {spec.source_dataset, spec.control_of} <= {"", *DATASETS}
        assert trained_on(name) in MODELS


def test_what_a_model_is_trained_on_is_in_the_catalog() -> None:
    for name, spec in MODELS.items():
        assert spec.name == name and spec.init_from in {"", *MODELS}
        assert spec.trained_on == "original" or dataset_of(spec) is DATASETS[spec.trained_on]


def test_every_control_is_a_model_with_a_title() -> None:
    for model, controls in CONTROLS_OF.items():
        assert {model, *controls} <= {*MODELS}
        assert all(control_title(control) and control_short(control) for control in controls)


def test_titles_are_there_for_everything_that_is_analyzed() -> None:
    assert [*ANALYZED_TITLES] == [*ANALYZED_MODELS] and {*ANALYZED_MODELS} <= {*MAIN_MODELS}
    assert all({*pair} <= {*ANALYZED_MODELS, *STRONG_MODELS} for pair in COMPARED)
    assert all({*analysis.models} <= {*ANALYZED_MODELS} for analysis in ANALYSES.values())
    assert corruptions.CLEAN not in corruptions.CORRUPTIONS


def test_architectures_and_learners_are_those_that_can_be_trained() -> None:
    assert [*ARCHITECTURES] == [*TRANSFER_ARCHITECTURES] and [*LEARNERS] == [*sklearn_learners.LEARNERS]


def test_the_catalog_imports_no_torch() -> None:
    code = "import notbugs.study.catalog.models, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
