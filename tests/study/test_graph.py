"""The stages of a study: which there are, what they need, and how they are named."""

from dataclasses import replace

import pytest
from study.conftest import FULL_STUDY, resolved

from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import DATASETS, REPLICATION_DATASETS
from notbugs.study.catalog.models import MODELS, trained_on
from notbugs.study.classifiers import repeat_given
from notbugs.study.config import StudyConfig
from notbugs.study.graph import StageId, select_stages, study_graph


def names(config: StudyConfig, *, analyses: bool = False) -> set[str]:
    return {str(stage_id) for stage_id in study_graph(resolved(config), analyses=analyses)}


def test_names_of_stages() -> None:
    ids = [StageId(0, "model", "standard"), StageId(2, "dataset", "robust"), StageId(0, "evaluation", "adversarial")]
    assert list(map(str, ids)) == ["seed0/standard", "seed2/dataset-robust", "seed0/evaluation-adversarial"]
    assert [stage_id.label for stage_id in ids] == ["standard", "dataset-robust", "evaluation-adversarial"]
    assert [stage.title for stage in ids] == [
        "training: standard model",
        "construction: D_R",
        "evaluation: adversarially trained model",
    ]


def test_stages_have_titles_of_their_own() -> None:
    """Of a full study with a replication, also where a title is a name."""
    config = resolved(replace(FULL_STUDY, replicate=True, robust_strong=True))
    titles = [stage.title for stage in study_graph(config)]
    assert len({*titles}) == len(titles)
    assert {
        "training: on D_R",
        "evaluation: trained on D_rand, shuffled perturbations",
        "construction: D_det, class patterns",
        "transfer: to random forest",
        "training: reinit-1",
        "pictures",
        "accuracy on all datasets",
    } <= {*titles}


@pytest.mark.slow
def test_what_a_stage_needs_comes_before_it_and_names_differ() -> None:
    graph = study_graph(resolved(StudyConfig("planted", seeds=2, replicate=True)), analyses=True)
    order = list(graph)
    assert len({str(stage_id) for stage_id in order}) == len(order)
    for number, (stage_id, stage) in enumerate(graph.items()):
        assert {*stage.needs} <= {*order[:number]}, stage_id
        assert {need.seed for need in stage.needs} <= {stage_id.seed}


def test_a_full_study_trains_all_models_and_constructs_all_data_sets() -> None:
    graph = study_graph(resolved(StudyConfig("digits", seeds=1, replicate=True, robust_strong=True)))
    assert {stage_id.name for stage_id in graph if stage_id.kind == "model"} == {*MODELS} - {"reference"}
    assert {stage_id.name for stage_id in graph if stage_id.kind == "dataset"} == {*DATASETS}


def test_a_replication_is_a_full_study_and_more() -> None:
    full, replication = (names(StudyConfig("digits", seeds=2, **{kind: True})) for kind in ("full", "replicate"))
    more = {"robust-version-accuracy"}
    more |= {f"dataset-{name}" for name in REPLICATION_DATASETS}
    more |= {label for name in REPLICATION_DATASETS for label in (trained_on(name), f"evaluation-{trained_on(name)}")}
    assert replication - full == {f"seed{seed}/{name}" for seed in (0, 1) for name in more} and full < replication


def test_the_stronger_d_r_is_added_to_any_study() -> None:
    quick, strong = (names(StudyConfig("digits", seeds=1, robust_strong=asked)) for asked in (False, True))
    sets = ("robust-strong", "correct-only")
    stages = {f"{kind}{name}" for name in sets for kind in ("dataset-", "trained-on-", "evaluation-trained-on-")}
    assert quick < strong and strong - quick == {f"seed0/{name}" for name in {"adversarial-2", *stages}}


def test_analyses_need_the_models_of_the_stronger_d_r_where_it_is() -> None:
    for asked in (False, True):
        graph = study_graph(resolved(StudyConfig("digits", seeds=1, robust_strong=asked)), analyses=True)
        needs = {str(need) for stage_id, stage in graph.items() if stage_id.name == "saliency" for need in stage.needs}
        assert ("seed0/trained-on-robust-strong" in needs) == ("seed0/trained-on-correct-only" in needs) == asked


def test_every_model_is_evaluated_and_nothing_is_constructed_after_an_evaluation_alone() -> None:
    """Constructions need weights alone, and stages that others wait for come first."""
    graph = study_graph(resolved(StudyConfig("digits", seeds=1)))
    trained, evaluated = ([each.name for each in graph if each.kind == kind] for kind in ("model", "evaluation"))
    assert evaluated == trained
    needs = {need.kind for stage_id, stage in graph.items() if stage_id.kind != "task" for need in stage.needs}
    assert needs == {"model", "dataset"}
    order = [stage_id.kind for stage_id in graph]
    assert max(order.index(kind) for kind in ("model", "dataset")) < order.index("evaluation")
    assert len(order) - order[::-1].index("model") <= order.index("evaluation")


def test_a_given_model_is_evaluated_once_and_nothing_starts_from_its_initialization() -> None:
    config = replace(resolved(StudyConfig("digits", seeds=2, full=True)), model="mine:model")
    graph, trained = study_graph(config), study_graph(replace(config, model=None))
    of_models, before = ({stage_id.name for stage_id in each if stage_id.kind == "model"} for each in (graph, trained))
    assert before - of_models == {"standard"} | {name for name, spec in MODELS.items() if spec.init_from == "standard"}
    assert "reference" in of_models and not any("same-init" in need.name for each in graph.values() for need in each.needs)
    assert all(need in graph for stage in graph.values() for need in stage.needs)
    first, second = (StageId(seed, "evaluation", "standard") for seed in (0, 1))
    assert graph[first].needs == () and graph[second].needs == (first,)
    assert graph[second].work is repeat_given and graph[first].work is not repeat_given
    synthetic = study_graph(replace(config, dataset="planted"))
    assert synthetic[second].needs == () and synthetic[second].work is not repeat_given  # other test images in each seed


def test_selected_stages_come_with_what_they_need() -> None:
    graph = study_graph(resolved(StudyConfig("digits", seeds=1)))
    labels = [stage_id.label for stage_id in select_stages(graph, ("trained-on-robust",))]
    assert labels == ["adversarial", "dataset-robust", "trained-on-robust"]
    assert select_stages(graph, None) == list(graph) and select_stages(graph, ("no such stage",)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "start"), [(1, 0), (3, 0), (2, 5)])
def test_each_seed_has_its_analyses_and_the_first_one_the_kernel(seeds: int, start: int) -> None:
    config = StudyConfig("digits", seeds=seeds, seed=start)
    added = names(config, analyses=True) - names(config)
    every = {f"seed{seed}/{name}" for seed in range(start, start + seeds) for name in ANALYSES if name != "ntk"}
    assert added == every | {f"seed{start}/ntk"}
    synthetic = replace(config, dataset="planted", seeds=2)
    assert {f"seed{start}/ntk", f"seed{start + 1}/ntk"} <= names(synthetic, analyses=True)
