"""Constructed data sets as they are stored: what was measured, in the form of the input, with versions and controls."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from study.conftest import FULL_STUDY, QUICK_STUDY, first, ignore, only, resolved, store_digits

from notbugs import construct, data, models
from notbugs.construct import Constructed, ConstructionStats
from notbugs.data import synthetic
from notbugs.errors import InputError
from notbugs.predict import logits
from notbugs.report.use import use
from notbugs.review import sample
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import SaliencyDifferenceRow, SaliencyRow
from notbugs.runs.tables.study import AccuracyRow, SetRow, TrainingRow
from notbugs.runs.tables.transferability import PerturbationLeakageRow
from notbugs.search import NormBall
from notbugs.study import datasets, pipeline, store
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.catalog.models import ANALYZED_MODELS, trained_on
from notbugs.study.config import StudyConfig, load
from notbugs.study.datasets import is_trainable, synthetic_truth
from notbugs.study.epsilon import NeighborDistances
from notbugs.study.graph import StageId, study_graph


@pytest.mark.slow
def test_what_is_stored_is_what_was_measured(quick_run: RunFolder) -> None:
    config = resolved(QUICK_STUDY)
    original = load(config).train
    rows = quick_run.rows(SetRow)
    for name in ("random-labels", "next-labels", "random-labels-shuffled"):
        stored = store.load_dataset(config, quick_run.folder, 0, name)
        assert stored.names == original.names
        perturbations = stored.pixels(slice(None)) - original.pixels(slice(None))
        norms = perturbations.double().flatten(1).norm(dim=1)
        assert norms.max() <= 1.5 + 1e-6
        assert norms.mean() == pytest.approx(only(rows, set=name).mean_l2, abs=1e-4)
        assert (stored.labels != original.labels).all()
    model = models.load(store.model_path(config, quick_run.folder, 0, "standard"))[0]
    stored = store.load_dataset(config, quick_run.folder, 0, "random-labels")
    with torch.no_grad():
        predicted = model(stored.pixels(slice(None))).argmax(1)
    reached = (predicted == stored.labels).float().mean()
    assert reached == pytest.approx(only(rows, set="random-labels").target_reached)


@pytest.mark.slow
def test_rows_say_how_each_data_set_was_made(quick_run: RunFolder) -> None:
    for row in quick_run.rows(SetRow):
        spec = DATASETS[row.set]
        assert (row.made_from, row.n) == (spec.made_from, 200)
        assert row.epsilon == (1.5 if spec.is_relabeled else None)
        assert (row.feature_error is not None) == spec.is_inverted and (row.relabeled > 0) == spec.is_relabeled
        card = (quick_run.folder / "datasets" / row.set / "README.md").read_text(encoding="utf-8")
        assert f"# {row.set}" in card and spec.description in card and "from `digits`, image for image." in card
        assert f"- made_from: {spec.made_from}" in card and "None" not in card
        assert "- pixels: 8x8\n- threat model of the study: L2 epsilon 0.75, pixels in [0, 1]\n" in card


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "parquet", "saved"])
def test_data_sets_are_written_in_the_form_of_the_input(digits: data.Splits, tmp_path: Path, form: str) -> None:
    part = first(digits)
    config = StudyConfig(str(store_digits(part, tmp_path, form)), epochs=1, width=8, invert_steps=2)
    run = pipeline.run(config, tmp_path / "run", only=(f"evaluation-{trained_on('nonrobust')}",), workers=1)
    made = data.load_part(run.folder / "datasets" / "nonrobust", form)
    assert made.names == load(config).train.names
    assert torch.equal(made.labels, part.train.labels)
    assert made.shape == (1, 8, 8)
    assert not torch.equal(made.images[:], part.train.images[:])
    # clean, at two epsilons, and three further points of the curve
    assert [row.n for row in run.rows(AccuracyRow) if row.model == trained_on("nonrobust")] == [40] * 6


@pytest.mark.slow
def test_the_form_and_stratified_targets_can_be_chosen(digits: data.Splits, tmp_path: Path) -> None:
    part = first(digits)
    source = store_digits(part, tmp_path, "npz")
    common = StudyConfig(str(source), epochs=1, width=8, relabel_steps=1, write="webdataset", stratified_targets=True)
    run = pipeline.run(common, tmp_path / "run", only=(trained_on("random-labels"),), workers=1)
    folder = run.folder / "datasets" / "random-labels"
    made = data.load_part(folder, "webdataset")
    counts = made.labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1 and not (made.labels == load(common).train.labels).any()
    assert run.study().data.form == "webdataset" and only(run.rows(SetRow), set="random-labels").empty_classes is None
    shown = use(run)
    card = (folder / "README.md").read_text()
    assert shown is not None and all(f"```python\n{code}\n```" in card for code in shown.code.values())
    digest = data.fingerprint(*load(common)[:2])
    assert f"- Input: `{source.name}`, fingerprint `{digest}`" in card
    with pytest.raises(InputError, match=r"^--write: must be as before"):
        pipeline.run(replace(common, write=None), tmp_path / "run", workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "npz"])
def test_several_versions_of_each_file_are_trained_on_in_as_many_steps(digits: data.Splits, tmp_path: Path, form: str) -> None:
    part = first(digits)
    dataset = str(store_digits(part, tmp_path, "npz"))
    if form == "folder":
        data.export(part.train, tmp_path / "files", "folder", card="")
        dataset = str(tmp_path / "files")
    config = StudyConfig(dataset, epochs=4, width=8, invert_steps=2, versions=2)
    run = pipeline.run(config, tmp_path / "run", only=(trained_on("robust"), trained_on("random-labels")), workers=1)
    original = load(config).train
    made = data.load_part(run.folder / "datasets" / "robust", form)
    assert len(made) == len({*made.names}) == 2 * len(original) and made.names[: len(original)] == original.names
    assert torch.equal(made.labels, original.labels.repeat(2))
    reviewed = sample._load_datasets(run, config, ["robust"])["robust"]
    assert reviewed.names == original.names, "no reviewer is to see one file twice"
    rows = run.rows(TrainingRow)
    epochs = {name: len([row for row in rows if row.model == name]) for name in ("adversarial", trained_on("robust"))}
    assert epochs == {"adversarial": 4, trained_on("robust"): 2}
    assert {row.set: row.n for row in run.rows(SetRow)} == {"robust": 2 * len(original), "random-labels": len(original)}


@pytest.mark.slow
def test_the_stronger_d_r_is_added_to_a_study_that_is_there(digits: data.Splits, tmp_path: Path) -> None:
    config = StudyConfig(str(store_digits(first(digits), tmp_path, "npz")), epochs=2, width=8, invert_steps=2)
    pipeline.run(config, tmp_path / "run", only=("adversarial",), workers=1)
    kept = (tmp_path / "run" / "models" / "adversarial.safetensors").read_bytes()
    stages = ("trained-on-robust-strong", "trained-on-correct-only", "evaluation-trained-on-robust-strong")
    run = pipeline.run(replace(config, robust_strong=True), tmp_path / "run", only=stages, workers=1)
    assert (tmp_path / "run" / "models" / "adversarial.safetensors").read_bytes() == kept
    original = load(config).train
    strong, control = (data.load_part(run.folder / "datasets" / name, "npz") for name in ("robust-strong", "correct-only"))
    sources = [models.load(run.folder / "models" / f"{name}.safetensors")[0] for name in ("adversarial", "adversarial-2")]
    correct = sum(logits(model, original) for model in sources).argmax(1) == original.labels  # type: ignore[union-attr]
    assert 0 < len(control) < len(original) and control.names == original.select(correct).names
    assert torch.equal(control.images[:], original.select(correct).images[:])
    assert strong.names == control.repeated_names(8) and torch.equal(strong.labels, control.labels.repeat(8))
    epochs = {name: len([row for row in run.rows(TrainingRow) if row.model == name]) for name in stages[:2]}
    share = len(control) / len(original)
    assert epochs == {stages[0]: max(1, round(1 / share)), stages[1]: round(8 / share)}
    evaluated = [row for row in run.rows(AccuracyRow) if row.model == stages[0] and row.set == "test"]
    assert len({row.epsilon for row in evaluated}) > 3, "with the further epsilons of the accuracy curve"
    assert "eight versions" in (run.folder / "datasets" / "robust-strong" / "README.md").read_text()
    again = pipeline.run(config, tmp_path / "run", only=("adversarial",), workers=1)
    assert again.study().robust_strong, "it stays part of the study"
    analyzed = pipeline.run_analyses(tmp_path / "run", ("saliency",), workers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.run_analyses(tmp_path / "run", ("saliency",), workers=1)
    assert {row.model for row in analyzed.rows(SaliencyRow)} == {*ANALYZED_MODELS, *stages[:2]}
    compared = {row.other_model for row in analyzed.rows(SaliencyDifferenceRow) if row.model == stages[0]}
    assert compared == {"standard", trained_on("robust"), stages[1]}


@pytest.mark.slow
def test_non_transferable_perturbations_mislead_their_model_and_not_those_that_were_to_keep_the_label(
    full_run: RunFolder,
) -> None:
    config, rows = resolved(FULL_STUDY), full_run.rows(PerturbationLeakageRow)
    of_one, of_all = (only(rows, set=name) for name in ("next-labels-non-transferable", "next-labels"))
    assert of_one.other_model_predicts_new_label <= of_all.other_model_predicts_new_label
    stored = store.load_dataset(config, full_run.folder, 0, "next-labels-non-transferable")
    original = load(config).train
    assert (stored.labels == (original.labels + 1) % 10).all()
    perturbations = (stored.pixels(slice(None)) - original.pixels(slice(None))).flatten(1).norm(dim=1)
    assert perturbations.max() <= NormBall("l2", 1.5).epsilon + 1e-6


def test_too_few_images_or_one_class_cannot_be_trained_on(digits: data.Splits) -> None:
    train = digits.train
    assert is_trainable(train.select(slice(0, 20)))
    assert not is_trainable(train.select(slice(0, 19)))
    assert not is_trainable(train.select(train.labels == 3)) and not is_trainable(train.select([]))


def test_the_truth_of_synthetic_images_is_that_of_their_seed(tmp_path: Path) -> None:
    config = resolved(StudyConfig("planted", limit=40, seed=2))
    rows = synthetic_truth(config, tmp_path, 3, ignore)
    made = synthetic.make_synthetic(seed=3, train=40, test=40)
    assert [row.file for row in rows] == [*made.train.names, *made.test.names]
    assert [row.split for row in rows] == ["train"] * 40 + ["test"] * 40
    for index in (0, 17, 39):
        row, truth = rows[40 + index], made.test_truth
        assert row.label == made.test.classes[int(made.test.labels[index])] and row.seed == 3
        assert row.shape_class == made.test.classes[truth.shape_class[index]]
        assert row.texture_class == made.test.classes[truth.texture_class[index]]
        assert row.light_background == bool(truth.light_background[index])


@pytest.mark.slow
def test_the_relabeling_epsilon_grows_until_enough_images_reach_their_label_unless_it_was_given(tmp_path: Path) -> None:
    common = StudyConfig("digits", limit=300, seeds=1, epsilon=0.25, epochs=10, width=8)
    names = ("random-labels", "random-labels-shuffled")
    run = pipeline.run(common, tmp_path / "open", only=[f"dataset-{name}" for name in names], workers=1)
    row, control = (only(run.rows(SetRow), set=name) for name in names)
    assert row.epsilon in (0.75, 1.125, 1.688) and control.epsilon == row.epsilon  # 0.5, larger by half each time
    assert row.target_reached >= 0.7
    assert row.epsilon / 1.5 < row.max_l2 <= row.epsilon
    given = pipeline.run(replace(common, relabel_epsilon=0.5), tmp_path / "given", only=["dataset-random-labels"], workers=1)
    fixed = only(given.rows(SetRow), set="random-labels")
    assert fixed.epsilon == 0.5 and fixed.target_reached < 0.7


@pytest.mark.parametrize(
    ("shares", "epsilon", "tried"),
    [
        # enough at the third, the fifth, nowhere: tried on a sample, then used for all images
        ((0.3, 0.5, 0.9, 1.0, 1.0), 0.5 * 1.5**2, [(160, 1), (50, 3.38), (50, 2.25), (50, 1.5), (160, 2.25)]),
        ((0.0, 0.0, 0.01, 0.3, 0.7), 0.5 * 1.5**4, [(160, 1), (50, 3.38), (50, 5.06), (160, 5.06)]),
        ((0.0, 0.0, 0.0, 0.0, 0.2), 0.5 * 1.5**4, [(160, 1), (50, 3.38), (50, 5.06), (160, 5.06)]),
        ((0.8,), 0.5, [(160, 1)]),
    ],
)
def test_a_larger_relabeling_epsilon_is_sought_on_a_sample(
    digits: data.Splits,
    monkeypatch: pytest.MonkeyPatch,
    shares: tuple[float, ...],
    epsilon: float,
    tried: list[tuple[int, float]],
) -> None:
    config = replace(resolved(replace(QUICK_STUDY, epsilon=0.25)), relabel_reach=0.7)
    monkeypatch.setattr(datasets, "neighbor_distances", lambda *_: NeighborDistances(1.0, 9.0, 10.0, same_scene=False))
    calls = []

    def relabel(model: object, part: data.Dataset, labels: torch.Tensor, *, threat_model: NormBall, **_: object) -> Constructed:
        value = float(threat_model.epsilon)
        calls.append((len(part), round(value / 0.5, 2)))
        assert len(labels) == len(part)
        stats = ConstructionStats(n=len(part), epsilon=value, target_reached=shares[round(math.log(value / 0.5, 1.5))])
        return Constructed(part.with_labels(labels), stats)

    monkeypatch.setattr(datasets, "PILOT_IMAGES", 50)
    monkeypatch.setattr(datasets, "load_model", lambda *_: None)
    monkeypatch.setattr(construct, "relabel", relabel)
    part = digits.train.select(slice(0, 160))
    context = datasets.BuildContext(config, Path("run"), 0, DATASETS["next-labels"], part, lambda count: None)
    made = datasets.CONSTRUCTIONS["relabel"](context)
    assert made.stats.epsilon == pytest.approx(epsilon, abs=1e-3) and len(made.dataset) == 160
    assert calls == tried


@pytest.mark.parametrize(
    ("name", "controlled"), [("random-labels-robust", "random-labels"), ("next-labels-non-transferable", "next-labels")]
)
def test_a_control_has_the_epsilon_of_the_set_that_it_controls(
    digits: data.Splits, monkeypatch: pytest.MonkeyPatch, name: str, controlled: str
) -> None:
    """Also where hardly any image reaches its label: with larger perturbations it would be no control."""
    config = replace(resolved(replace(QUICK_STUDY, epsilon=0.25)), relabel_reach=0.7)
    calls, asked = [], []

    def relabel(model: object, part: data.Dataset, labels: torch.Tensor, *, threat_model: NormBall, **_: object) -> Constructed:
        calls.append((len(part), float(threat_model.epsilon)))
        return Constructed(part.with_labels(labels), ConstructionStats(n=len(part), epsilon=1.125, target_reached=0.01))

    def epsilon_of(context: datasets.BuildContext, set: str) -> float:
        asked.append((context.seed, set))
        return 1.125

    monkeypatch.setattr(datasets, "load_model", lambda *_: None)
    monkeypatch.setattr(datasets, "_epsilon_of", epsilon_of)
    monkeypatch.setattr(construct, "relabel", relabel)
    part = digits.train.select(slice(0, 60))
    datasets.CONSTRUCTIONS["relabel"](datasets.BuildContext(config, Path("run"), 2, DATASETS[name], part, lambda count: None))
    assert calls == [(60, 1.125)] and asked == [(2, controlled)]
    graph = study_graph(replace(config, full=True))
    assert StageId(0, "dataset", controlled) in graph[StageId(0, "dataset", name)].needs
