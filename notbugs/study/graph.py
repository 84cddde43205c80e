"""The stages of a study and what each needs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from notbugs.data.load import SYNTHETIC
from notbugs.runs.attempts import Attempt
from notbugs.runs.tables.row import Row
from notbugs.study import controls, evaluation, replication, transferability
from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import (
    CONTROL_DATASETS,
    DATASETS,
    EXTENSIONS,
    OWN_DATASETS,
    PAPER_NAMES,
    QUICK,
    REPLICATION_DATASETS,
    SECOND_SOURCE,
    STRONG_DATASETS,
)
from notbugs.study.catalog.models import LEARNERS, MAIN_MODELS, MODELS, OWN_MODELS, STRONG_MODELS, Role, dataset_of, trained_on
from notbugs.study.classifiers import evaluate_model, repeat_given, train_model
from notbugs.study.comparisons import (
    LEAKAGE_DATASETS,
    LEAKAGE_PROBES,
    PERTURBATION_DATASETS,
    TRANSFER_SOURCES,
    starts_from_standard,
)
from notbugs.study.config import ResolvedConfig
from notbugs.study.datasets import build_dataset, synthetic_truth
from notbugs.study.given import GIVEN
from notbugs.study.own_metrics import own_metric
from notbugs.study.pictures import pictures

MODEL_TITLES = {GIVEN: "standard model", "adversarial": "adversarially trained model"}

Kind = Literal["model", "evaluation", "dataset", "examples", "transfer", "learner", "task"]
Work = Callable[[ResolvedConfig, Path, int, Attempt], Sequence[Row]]


@dataclass(frozen=True)
class StageId:
    """One stage of a study.

    Attributes
    ----------
    seed : int
    kind : {"model", "evaluation", "dataset", "examples", "transfer", "learner", "task"}
        model: trains it; evaluation: measures its accuracy, clean and under attack; dataset: constructs it; examples: makes a
        model's adversarial examples; transfer: classifies a model's examples with the other networks; learner: with one
        non-neural classifier; task: all others.
    name : str
        Of the model, data set or task.

    Examples
    --------
    >>> str(StageId(0, "dataset", "robust")), str(StageId(1, "model", "standard"))
    ('seed0/dataset-robust', 'seed1/standard')
    """

    seed: int
    kind: Kind
    name: str

    @property
    def label(self) -> str:
        """Without the seed."""
        return self.name if self.kind in ("model", "task") else f"{self.kind}-{self.name}"

    @property
    def title(self) -> str:
        """For people, without the seed: "evaluation: trained on D_R"."""
        match self.kind:
            case "model":
                return f"training: {_model_title(self.name).removeprefix('trained ')}"
            case "evaluation":
                return f"evaluation: {_model_title(self.name)}"
            case "dataset":
                return f"construction: {_dataset_title(self.name)}"
            case "examples":
                return f"adversarial examples: {_model_title(self.name)}"
            case "transfer":
                return f"transfer: from the {_model_title(self.name)}"
            case "learner":
                return f"transfer: to {LEARNERS[self.name]}"
        return self.name.replace("-", " ")

    def __str__(self) -> str:
        return f"seed{self.seed}/{self.label}"


def _model_title(name: str) -> str:
    """A model in a few words; its name where there are none."""
    constructed = dataset_of(MODELS[name])
    if constructed and name == trained_on(constructed.name):
        return f"trained on {_dataset_title(constructed.name)}"
    return MODEL_TITLES.get(name, name)


def _dataset_title(name: str) -> str:
    """A constructed data set as the paper names it, a control beside what it controls; else its name."""
    if name in PAPER_NAMES:
        return PAPER_NAMES[name]
    spec = DATASETS[name]
    return f"{PAPER_NAMES[spec.control_of]}, {spec.short}" if spec.short and spec.control_of in PAPER_NAMES else name


@dataclass(frozen=True)
class StudyStage:
    """needs: the stages that come first; work: (config, folder, seed, attempt) -> rows of any tables. It reads
    the folder and writes into that of the attempt."""

    needs: tuple[StageId, ...]
    work: Work


Graph = dict[StageId, StudyStage]


def study_graph(config: ResolvedConfig, *, analyses: bool = False) -> Graph:
    """All stages of a study, in the order in which one worker does them.

    Parameters
    ----------
    config : ResolvedConfig
    analyses : bool
        Also those of `analyses.ANALYSES`, which a study does only when asked.

    Returns
    -------
    dict
        Stages by id.
    """
    graph: Graph = {}
    for seed in range(config.seed, config.seed + config.seeds):
        graph |= _quick_stages(config, seed) | _own_stages(seed, full=config.full)
        if config.robust_strong:
            graph |= _strong_stages(config, seed)
        if config.full:
            graph |= _control_stages(config, seed)
        if config.replicate:
            graph |= _replication_stages(config, seed)
        if analyses:
            graph |= _analysis_stages(config, seed)
    if config.model is None:
        return graph
    # a given model is there already: no stage trains it
    given = {StageId(seed, "model", GIVEN) for seed in range(config.seed, config.seed + config.seeds)}
    return {
        stage_id: replace(stage, needs=tuple(need for need in stage.needs if need not in given))
        for stage_id, stage in graph.items()
    }


def select_stages(graph: Mapping[StageId, StudyStage], only: Collection[str] | None) -> list[StageId]:
    """The stages whose labels are in `only`, with all that they need, in the graph's order; all of them if it is None."""
    kept: set[StageId] = set()
    for stage_id in reversed(list(graph)):  # what a stage needs comes before it
        if only is None or stage_id.label in only or stage_id in kept:
            kept |= {stage_id, *graph[stage_id].needs}
    return [stage_id for stage_id in graph if stage_id in kept]


def _quick_stages(config: ResolvedConfig, seed: int) -> Graph:
    """What others wait for comes first: training and constructions, which need only weights, before evaluations.

    Data sets of the user's own come with these, so that an error in one is found early.
    """
    graph: Graph = {}
    if config.dataset == SYNTHETIC:
        graph |= _task(seed, "synthetic-truth", synthetic_truth)
    sources = ("adversarial", GIVEN) if config.model is None else ("adversarial", "reference")
    for name in sources:
        graph |= _model(seed, name)
    for name in (*QUICK, *OWN_DATASETS):
        graph |= _dataset(seed, name)
    for name in (*QUICK, *OWN_DATASETS):
        graph |= _model(seed, trained_on(name))
    models = ("adversarial", GIVEN, *(trained_on(name) for name in (*QUICK, *OWN_DATASETS)))
    if seed == config.seed:
        graph |= _task(seed, "pictures", pictures, models=("adversarial",), datasets=QUICK)
    work = partial(evaluation.accuracy_on_all_datasets, models=models)
    graph |= _task(seed, "accuracy-on-all-datasets", work, models=models)
    # the longest first and those of relabeled sets, which take seconds, last: no worker then waits long for the others
    for name in dict.fromkeys((*sources, *models)):
        graph |= _evaluation(config, seed, name)
    return graph


def _own_stages(seed: int, *, full: bool) -> Graph:
    """What is compared and measured for the user's own controls and metrics."""
    graph: Graph = {}
    if EXTENSIONS.controls:
        compared = {name for pair in controls.own_comparisons(full=full) for name in pair}
        graph |= _task(seed, "own-controls", controls.excess_over_own_controls, evaluations=tuple(sorted(compared)))
    models = ("adversarial", GIVEN, *(trained_on(name) for name in (*QUICK, *OWN_DATASETS)))
    for metric in EXTENSIONS.metrics:
        work = partial(own_metric, metric=metric, models=models)
        graph |= _task(seed, f"metric-{metric.name}", work, models=models)
    return graph


def _strong_stages(config: ResolvedConfig, seed: int) -> Graph:
    """A stronger D_R, and its control."""
    graph = _model(seed, SECOND_SOURCE)
    for name in STRONG_DATASETS:
        graph |= _dataset(seed, name) | _model(seed, trained_on(name)) | _evaluation(config, seed, trained_on(name))
    return graph


def _control_stages(config: ResolvedConfig, seed: int) -> Graph:
    """What else could explain the results, and which models the adversarial examples transfer to."""
    graph: Graph = {}
    transfer, control_models = _by_role("transfer"), tuple(trained_on(name) for name in CONTROL_DATASETS)
    if config.model is not None:
        transfer = tuple(name for name in transfer if not starts_from_standard(name))
    for name in transfer:
        if not dataset_of(MODELS[name]):
            graph |= _model(seed, name)
    for name in CONTROL_DATASETS:
        graph |= _dataset(seed, name)
    for name in (*transfer, *control_models):
        if dataset_of(MODELS[name]):
            graph |= _model(seed, name)
    for name in (*transfer, *control_models):
        graph |= _evaluation(config, seed, name)
    graph |= _transfer_stages(config, seed)
    leakage = "robust-feature-leakage"
    everything = (*MAIN_MODELS, *control_models, *OWN_MODELS)
    graph |= _task(seed, leakage, controls.robust_feature_leakage, models=tuple(LEAKAGE_PROBES), datasets=LEAKAGE_DATASETS)
    needs = {"models": (controls.OTHER_MODEL,), "datasets": PERTURBATION_DATASETS}
    graph |= _task(seed, "perturbation-leakage", controls.perturbation_leakage, **needs)
    name = "robust-accuracy-on-all-datasets"
    graph |= _task(seed, name, evaluation.robust_accuracy_on_all_datasets, models=everything)
    graph |= _task(seed, "error-consistency", controls.error_consistency, models=(*everything, *transfer))
    graph |= _task(seed, "controls", controls.excess_over_controls, evaluations=everything, tasks=(leakage,))
    return graph


def _transfer_stages(config: ResolvedConfig, seed: int) -> Graph:
    graph: Graph = {}
    examples = {source: StageId(seed, "examples", source) for source in TRANSFER_SOURCES}
    for source, stage_id in examples.items():
        work = partial(transferability.make_examples, source=source)
        graph[stage_id] = StudyStage((StageId(seed, "model", source),), work)
    for name in LEARNERS:
        learner = partial(transferability.transfer_to_learner, learner=name)
        graph[StageId(seed, "learner", name)] = StudyStage((examples[transferability.LEARNER_SOURCE],), learner)
    targets = tuple(StageId(seed, "model", name) for name in transferability.targets(config))
    for source, stage_id in examples.items():
        networks = partial(transferability.transfer_to_networks, source=source)
        graph[StageId(seed, "transfer", source)] = StudyStage((stage_id, *targets), networks)
    return graph


def _replication_stages(config: ResolvedConfig, seed: int) -> Graph:
    graph: Graph = {}
    for name in REPLICATION_DATASETS:
        graph |= _dataset(seed, name) | _model(seed, trained_on(name)) | _evaluation(config, seed, trained_on(name))
    robust = (trained_on("robust"),)
    return graph | _task(seed, "robust-version-accuracy", replication.robust_version_accuracy, models=robust)


def _analysis_stages(config: ResolvedConfig, seed: int) -> Graph:
    graph: Graph = {}
    for name, analysis in ANALYSES.items():
        # the synthetic data differ by seed: there each seed has all analyses
        if not analysis.once or seed == config.seed or config.dataset == SYNTHETIC:
            strong = STRONG_MODELS if config.robust_strong and analysis.models else ()
            graph |= _task(seed, name, analysis.work, models=(*analysis.models, *strong))
    return graph


def _by_role(role: Role) -> tuple[str, ...]:
    return tuple(name for name, spec in MODELS.items() if spec.role == role)


def _model(seed: int, name: str) -> Graph:
    spec = MODELS[name]
    constructed = dataset_of(spec)
    needs = (StageId(seed, "dataset", constructed.name),) if constructed else ()
    return {StageId(seed, "model", name): StudyStage(needs, partial(train_model, spec=spec))}


def _evaluation(config: ResolvedConfig, seed: int, name: str) -> Graph:
    """The accuracy of a model; of the given one once, unless the test images differ by seed, as the synthetic ones do."""
    if name == GIVEN and config.model is not None and seed != config.seed and config.dataset != SYNTHETIC:
        return {StageId(seed, "evaluation", name): StudyStage((StageId(config.seed, "evaluation", name),), repeat_given)}
    work = partial(evaluate_model, spec=MODELS[name])
    return {StageId(seed, "evaluation", name): StudyStage((StageId(seed, "model", name),), work)}


def _dataset(seed: int, name: str) -> Graph:
    spec = DATASETS[name]
    models = tuple(model for model in (spec.source_model, *spec.other_models, *spec.preserved_by) if model)
    same_size = (spec.control_of,) if spec.construction == "relabel" and spec.control_of else ()  # at its epsilon
    datasets = same_size or ((spec.source_dataset,) if spec.source_dataset else ())
    needs = _ids(seed, "model", models) + _ids(seed, "dataset", datasets)
    return {StageId(seed, "dataset", name): StudyStage(needs, partial(build_dataset, spec=spec))}


def _task(
    seed: int,
    name: str,
    work: Work,
    *,
    models: tuple[str, ...] = (),
    evaluations: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
) -> Graph:
    needs = _ids(seed, "model", models) + _ids(seed, "evaluation", evaluations) + _ids(seed, "dataset", datasets)
    return {StageId(seed, "task", name): StudyStage((*needs, *_ids(seed, "task", tasks)), work)}


def _ids(seed: int, kind: Kind, names: tuple[str, ...]) -> tuple[StageId, ...]:
    return tuple(StageId(seed, kind, name) for name in names)
