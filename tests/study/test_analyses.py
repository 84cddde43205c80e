"""What a study is asked further: on one small study of digits, its tables found again; and sentences on tables made for them."""

import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats as scipy_stats

from notbugs import metrics, models, report
from notbugs.data import subset
from notbugs.errors import InputError
from notbugs.metrics import corruptions
from notbugs.report import results
from notbugs.report.findings import analyses
from notbugs.report.results import Finding
from notbugs.runs.folder import RunFolder
from notbugs.study import analyses as study_analyses
from notbugs.study import pipeline, tasks
from notbugs.study import config as plan_of
from notbugs.study.config import StudyConfig

SMALL = StudyConfig("digits", seeds=1, limit=400, epochs=3, invert_steps=4, width=8)
COMMAND = "notbugs run digits --limit 400"
TABLES = {
    "explanations": ["explanations", "explained", "explanation_pictures"],
    "corruptions": ["corruptions", "corrupted"],
    "frequencies": ["frequencies"],
    "kernel": ["kernel", "kernel_accuracy"],
}
Rows = list[dict[str, Any]]


class Asked(NamedTuple):
    before: RunFolder  # the study alone
    run: RunFolder  # asked everything
    spent: float  # seconds from one to the other


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("runs")
    pipeline.run(SMALL, folder / "run", only=study_analyses.MAIN_MODELS, workers=1, command=COMMAND)
    shutil.copytree(folder / "run", folder / "before")
    began = time.perf_counter()
    run = pipeline.run_analyses(folder / "run", (*study_analyses.ANALYSES,), workers=1)
    return Asked(RunFolder.read(folder / "before"), run, time.perf_counter() - began)


@pytest.fixture(scope="module")
def plan() -> StudyConfig:
    return plan_of.resolve(SMALL, plan_of.load(SMALL))


@pytest.fixture
def again(asked: Asked, tmp_path: Path) -> Path:
    """A copy of the study that was asked nothing yet."""
    shutil.copytree(asked.before.folder, tmp_path / "run")
    return tmp_path / "run"


def model(plan: StudyConfig, run: RunFolder, name: str) -> models.Model:
    return models.load(tasks.model_path(plan, run.folder, 0, name))[0]


def only(rows: Rows, **cells: Any) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row[name] == cell for name, cell in cells.items())]
    return row


# ---- its tables ------------------------------------------------------------------------------------------------------------


def test_every_table_is_there_and_whole(asked: Asked) -> None:
    run = asked.run
    counts = {name: len(run.table(name)) for names in TABLES.values() for name in names}
    assert counts == {
        "explanations": 4 * 2 * 7,
        "explained": 5 * 2 * 3,
        "explanation_pictures": 8 * 5,
        "corruptions": 4 * 26,
        "corrupted": 5 * 6,
        "frequencies": 4 * 34,
        "kernel": 100,
        "kernel_accuracy": 2 * 5,
    }
    for stage, names in TABLES.items():
        assert {*run.metadata["stages"][f"seed0/{stage}"]["rows"]} == {*names}
        for row in (row for name in names for row in run.table(name)):
            value = row.get("value", row.get("accuracy", math.nan))
            assert not any(cell == "" for name, cell in row.items() if row.get("measure") != "chance_low"), row
            if "low" in row and row["low"] != "":
                assert float(row["low"]) <= float(value) <= float(row["high"])
    assert not list(run.folder.rglob("*.part")) and not list(run.folder.rglob("*.new"))


def test_explanations_are_those_of_the_stored_models(asked: Asked, plan: StudyConfig) -> None:
    rows, pairs, splits = asked.run.table("explanations"), asked.run.table("explained"), plan_of.load(plan)
    part = splits.test.select(subset.balanced(splits.test.labels, analyses.SALIENCY_IMAGES))
    told = metrics.saliency(model(plan, asked.run, "on-robust"), part, metrics.class_means(splits.train), method="integrated")
    for measure in analyses.MEASURES:
        row = only(rows, model="on-robust", method="integrated", measure=measure)
        values = getattr(told, measure)
        wanted = scipy_stats.t.interval(0.95, len(part) - 1, loc=values.mean(), scale=scipy_stats.sem(values))
        assert row["n"] == len(part) == 50 and row["value"] == pytest.approx(values.mean(), abs=1e-5)
        assert (row["low"], row["high"]) == pytest.approx(wanted, abs=1e-5)
    chance = {row["value"] for row in rows if row["measure"] == "chance_low"}
    assert chance == {metrics.white_noise_energy((1, 8, 8))}
    for row in pairs:
        cells = {"method": row["method"], "measure": row["measure"]}
        one, other = (only(rows, model=row[name], **cells)["value"] for name in ("model", "other"))
        assert row["value"] == pytest.approx(one - other, abs=1e-6)


def test_pictures_are_of_gradients_on_grey(asked: Asked) -> None:
    rows, names = asked.run.table("explanation_pictures"), set(plan_of.load(SMALL).test.names)
    assert [row["column"] for row in rows[:5]] == ["image", *study_analyses.MAIN_MODELS]
    assert len({row["file"] for row in rows}) == 8 and {row["file"] for row in rows} <= names
    assert len({row["label"] for row in rows}) == 8
    for row in rows:
        with Image.open(asked.run.folder / str(row["picture"])) as picture:
            pixels = np.asarray(picture)
        assert pixels.shape[:2] == (8, 8)
        if row["column"] != "image":
            assert {0, 255} & {pixels.min(), pixels.max()} and pixels.std() > 10


def test_corrupted_is_the_difference_of_mean_accuracies(asked: Asked, plan: StudyConfig) -> None:
    rows = asked.run.table("corruptions")
    assert {row["model"] for row in rows} == {*study_analyses.MAIN_MODELS} and {row["n"] for row in rows} == {50}
    for row in asked.run.table("corrupted"):
        means = [
            np.mean([r["accuracy"] for r in rows if (r["model"], r["corruption"]) == (row[name], row["corruption"])])
            for name in ("model", "other")
        ]
        assert row["value"] == pytest.approx(means[0] - means[1], abs=1e-9)
    images, labels = plan_of.load(plan).test.pixels(slice(None)), plan_of.load(plan).test.labels
    with torch.no_grad():
        read = model(plan, asked.run, "standard")(metrics.corrupt(images, "noise", 4, seed=0)).argmax(1) == labels
    assert only(rows, model="standard", corruption="noise", severity=4)["correct"] == int(read.sum())
    clean = only(asked.run.table("accuracy"), model="adversarial", set="test", epsilon=0)
    assert only(rows, model="adversarial", severity=0)["correct"] == clean["correct"]


def test_frequencies_are_those_of_the_stored_models(asked: Asked, plan: StudyConfig) -> None:
    wanted = metrics.fourier_sensitivity(model(plan, asked.run, "adversarial"), plan_of.load(plan).test, seed=0)
    found = [row for row in asked.run.table("frequencies") if row["model"] == "adversarial"]
    for row, known in zip(found, wanted, strict=True):
        assert {name: row[name] for name in ("down", "across", "n")} == {name: known[name] for name in ("down", "across", "n")}
        assert row["errors"] == pytest.approx(known["errors"], abs=1.5 / 50)  # the study's is folded: a tie may fall otherwise


def test_the_kernels_rows_are_in_the_order_of_their_eigenvalues(asked: Asked, plan: StudyConfig) -> None:
    rows, splits = asked.run.table("kernel"), plan_of.load(plan)
    whole = metrics.EigenFeatures(splits.train)
    assert [row["eigenvector"] for row in rows] == metrics.chosen_eigenvectors(len(whole.values))
    shares = (whole.values / whole.values.sum()).tolist()
    for row in rows:
        assert row["share"] == pytest.approx(shares[int(row["eigenvector"])])
        assert row["kind"] in ("robust", "non-robust", "useless")
        assert row["robust_usefulness"] <= row["usefulness"] + 1e-9
    machines = asked.run.table("kernel_accuracy")
    kept = [10, 30, 100, 300, len(whole.values)]
    assert [row["kept"] for row in machines] == [count for count in kept for _ in (0, 1)]
    for count, clean, attacked in zip(kept, machines[::2], machines[1::2], strict=True):
        with torch.no_grad():
            read = metrics.EigenFeatures(splits.train, keep=count)(splits.test.pixels(slice(None))).argmax(1)
        assert clean["correct"] == int((read == splits.test.labels).sum()) >= attacked["correct"]
        assert attacked["epsilon"] == plan.epsilon


def test_the_page_and_the_tables_of_the_command_line_tell_it(asked: Asked) -> None:
    page = report.write(asked.run.folder).read_text(encoding="utf-8")
    found = analyses.findings(asked.run)
    assert len(found) >= 4
    for finding in found:
        assert finding.question.replace("'", "&#39;") in page
    for table in (analyses.saliency_table, analyses.corruptions_table, analyses.fourier_table, analyses.ntk_table):
        columns, lines = table(asked.run)
        assert lines and all(len(line) == len(columns) for line in lines)
        assert not any("nan" in cell or cell == "–" for line in lines for cell in line)


# ---- asked again, elsewhere, and stopped -----------------------------------------------------------------------------------


def test_asked_again_it_does_nothing(asked: Asked) -> None:
    def kept() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in asked.run.folder.rglob("*") if path.is_file()}

    worked: list[str] = []
    before = kept()
    pipeline.run_analyses(
        asked.run.folder, (*study_analyses.ANALYSES,), workers=1, report_progress=lambda stage, share, words: worked.append(stage)
    )
    assert not worked and kept() == before


def test_the_studys_own_facts_are_kept(asked: Asked) -> None:
    before, after = asked.before.metadata, asked.run.metadata
    kept = set(before) - {"stages", "seconds"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["command"] == COMMAND and after["finished"] is False  # of a study that has more to do
    assert {name: after["stages"][name] for name in before["stages"]} == before["stages"]
    assert set(after["stages"]) - set(before["stages"]) == {f"seed0/{name}" for name in study_analyses.ANALYSES}
    assert before["seconds"] <= after["seconds"] <= before["seconds"] + asked.spent + 0.1


def test_the_same_seed_gives_the_same_tables_whatever_was_asked_first(asked: Asked, again: Path) -> None:
    told: list[str] = []
    names = ("frequencies", "corruptions", "explanations")
    for name in names:
        run = pipeline.run_analyses(
            again, (name,), workers=1, report_progress=lambda stage, share, words: told.append(f"{stage} {share:.2f}")
        )
        assert {stage.split("/")[1] for stage in run.metadata["stages"]} >= {name} and not run.table("kernel")
    for table in (table for name in names for table in TABLES[name]):
        assert (again / "tables" / f"{table}.csv").read_bytes() == (asked.run.folder / "tables" / f"{table}.csv").read_bytes()
    assert told[0] == "seed0/frequencies 0.00" and told[-1] == "seed0/explanations 1.00"
    pipeline.run(SMALL, again, only=("standard",), workers=1, command=COMMAND)  # the study goes on as before
    assert RunFolder.read(again).table("frequencies") == asked.run.table("frequencies")


def test_what_it_needs_is_done_first(tmp_path: Path) -> None:
    tiny = StudyConfig("digits", seeds=1, limit=60, epochs=1, width=8, invert_steps=1)
    pipeline.run(tiny, tmp_path / "run", only=("standard",), workers=1)
    run = pipeline.run_analyses(tmp_path / "run", ("frequencies",), workers=1)
    needed = {"adversarial", "standard", "set-robust", "set-nonrobust", "on-robust", "on-nonrobust", "frequencies"}
    assert set(run.metadata["stages"]) == {f"seed0/{name}" for name in needed}


def stop_at(stage: str, after: float = -1.0) -> Callable[[str, float, str], None]:
    def report_progress(name: str, share: float, words: str) -> None:
        if name == stage and share > after:
            raise KeyboardInterrupt

    return report_progress


def finish(folder: Path) -> None:
    """The rest of the study as if it had been done."""
    with RunFolder.open(folder, RunFolder.read(folder).metadata["asked"]) as run:
        for name in pipeline.study_graph(SMALL):
            if not run.done(name):
                run.record_stage(name, 0.0)
        run.update_metadata(finished=True)


@pytest.mark.parametrize("stage", ["explanations", "frequencies"])
def test_stopped_within_a_stage_the_study_stays_readable_and_goes_on(asked: Asked, again: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_analyses(again, (stage,), workers=1, report_progress=stop_at(f"seed0/{stage}", 0.3))
    run = RunFolder.read(again)
    assert not run.done(f"seed0/{stage}") and not any(run.table(name) for name in TABLES[stage])
    assert run.table("accuracy") == asked.before.table("accuracy") and run.metadata["command"] == COMMAND
    assert analyses.findings(run) == [] and (stage != "explanations" or report.write(again).stat().st_size > 10_000)
    done = pipeline.run_analyses(again, (stage,), workers=1)
    for name in TABLES[stage]:
        assert done.table(name) == asked.run.table(name)


def test_a_finished_study_stays_finished(again: Path) -> None:
    finish(again)
    assert pipeline.run_analyses(again, ("frequencies",), workers=1).metadata["finished"] is True


def test_a_finished_study_stays_finished_where_it_is_stopped(again: Path) -> None:
    finish(again)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_analyses(again, ("frequencies",), workers=1, report_progress=stop_at("seed0/frequencies"))
    assert RunFolder.read(again).metadata["finished"] is True


def test_two_at_once_are_one_too_many(again: Path) -> None:
    with (
        RunFolder.open(again, RunFolder.read(again).metadata["asked"]),
        pytest.raises(InputError, match=r"^--out: must not be in use"),
    ):
        pipeline.run_analyses(again, ("frequencies",), workers=1)


@pytest.mark.parametrize("kind", ["theory", "audit", "files", "later", "begun"])
def test_only_a_study_is_asked(kind: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"later": {"source": "digits", "seed": 0, "of a later version": 1}, "begun": {"source": "digits"}}
    with RunFolder.open(tmp_path / "run", given.get(kind, {"kind": kind})) as run:
        if kind not in ("begun", "later"):
            run.update_metadata(kind=kind)
        if kind != "begun":
            run.update_metadata(seeds=[0], full=False, device="cpu", command="")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"^RUN: must be a study's folder, got .*; make one: notbugs run"):
        pipeline.run_analyses(tmp_path / "run", ("kernel",), workers=1)
    assert (tmp_path / "run" / "run.json").read_bytes() == before and len([*(tmp_path / "run").iterdir()]) == 1


def test_no_folder_is_no_study(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"^run folder: must hold a run\.json"):
            pipeline.run_analyses(place, ("kernel",), workers=1)
    assert not any(tmp_path.iterdir())


def test_other_data_is_refused(again: Path) -> None:
    with RunFolder.open(again, RunFolder.read(again).metadata["asked"]) as run:
        run.update_metadata(fingerprint="other")
    with pytest.raises(InputError, match=r"^digits: must hold the same images"):
        pipeline.run_analyses(again, ("frequencies",), workers=1)


@pytest.mark.parametrize(("seeds", "first"), [(1, 0), (3, 0), (2, 5)])
def test_each_seed_is_asked_and_the_kernel_once(seeds: int, first: int) -> None:
    asked = StudyConfig("digits", seeds=seeds, seed=first)
    told = pipeline.study_graph(asked, further=True).keys() - pipeline.study_graph(asked).keys()
    every = {f"seed{seed}/{name}" for seed in range(first, first + seeds) for name in study_analyses.ANALYSES if name != "kernel"}
    assert told == every | {f"seed{first}/kernel"}
    worlds = pipeline.study_graph(StudyConfig("planted", seeds=2), further=True)
    assert {"seed0/kernel", "seed1/kernel"} <= worlds.keys()


# ---- in words ------------------------------------------------------------------------------------------------------------

WOBBLE = (0.0, 0.01, -0.012)
ALIKE, REASONS, NATURAL, UNTRAINED = "what a person sees?", "its reasons", "noise, blur, fog", "before any training?"
COSINES = {"standard": 0.3, "adversarial": 0.6, "on-robust": 0.5, "on-nonrobust": 0.28}


def cell(value: float, seed: int, reach: float = 0.04) -> dict[str, Any]:
    value += WOBBLE[seed]
    return {"value": value, "low": value - reach, "high": value + reach, "n": 400}


def explanations(seed: int, cosines: dict[str, float] = COSINES, faithful: float = 0.4) -> Rows:
    rows = []
    values = {"chance_alignment": 0.01, "low": 0.4, "deletion": 0.1, "chance_deletion": 0.1 + faithful, "faithful": faithful}
    for name, cosine in cosines.items():
        for method in metrics.METHODS:
            common = {"model": name, "method": method, "seed": seed}
            told = {"alignment": cosine} | values
            rows += [{**common, "measure": measure, **cell(value, seed)} for measure, value in told.items()]
            rows.append({**common, "measure": "chance_low", "value": 0.2, "n": 400})
    return rows


def explained(seed: int, cosines: dict[str, float] = COSINES, reach: float = 0.04, **reaches: float) -> Rows:
    return [
        {"model": one, "other": other, "method": method, "measure": measure, "seed": seed}
        | cell((cosines[one] - cosines[other]) * (1 + 2 * WOBBLE[seed]), seed, reaches.get(one.replace("-", "_"), reach))
        for one, other in study_analyses.PAIRS
        for method in metrics.METHODS
        for measure in ("alignment", "low", "faithful")
    ]


GAINS = {"unchanged": -0.05, "noise": 0.2, "blur": 0.15, "fog": 0.12, "contrast": 0.11, "jpeg": 0.2}


def corrupted(seed: int, gains: dict[str, float] = GAINS) -> Rows:
    return [
        {"model": one, "other": other, "corruption": name, "seed": seed} | cell(gain, seed)
        for one, other in study_analyses.PAIRS
        for name, gain in gains.items()
    ]


def kernel(seed: int, slope: float = 1.0, kinds: tuple[str, ...] = ("robust", "non-robust", "useless"), count: int = 12) -> Rows:
    return [
        {"eigenvector": place, "share": 1 / (place + 2), "seed": seed, "feature": place, "class": "1", "sign": 1,
         "usefulness": 0.5, "robust_usefulness": 0.5 - 0.2 - slope * (place + 3 * (place % 3)) / 40,
         "kind": kinds[place * len(kinds) // count]}
        for place in range(count)
    ]  # fmt: skip


def made(folder: Path, seeds: int = 1, **makers: Any) -> RunFolder:
    """A run of `seeds` seeds; makers: table -> function of the seed, for those that are not to be the convincing ones."""
    whole = {"explanations": explanations, "explained": explained, "corrupted": corrupted, "kernel": kernel} | makers
    with RunFolder.open(folder, {"source": "digits"}) as run:
        known = {"classes": [*"0123456789"], "train": 90, "test": 400, "shape": [1, 8, 8], "note": "", "skipped": []}
        run.update_metadata(
            source="digits", norm="l2", epsilon=1.5, epsilon_text="1.5", data=known, seeds=[*range(seeds)], full=False
        )
        for seed in range(seeds):
            tables = {name: rows for name, maker in whole.items() if maker and (rows := maker(seed))}
            run.record_stage(f"seed{seed}/all", 1.0, tables)
    return RunFolder.read(folder)


def found(run: RunFolder, question: str) -> Finding:
    (one,) = [finding for finding in analyses.findings(run) if question in finding.question]
    return one


def students(values: list[float]) -> tuple[float, float, float]:
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy_stats.sem(values))
    return float(np.mean(values)), float(low), float(high)


def steps(cosines: dict[str, float], **options: Any) -> dict[str, Any]:
    told = {"explanations": explanations, "explained": partial(explained, **options)}
    return {name: partial(maker, cosines=cosines) for name, maker in told.items()}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_robust_classifier_and_its_data_look_at_what_a_person_sees(tmp_path: Path, seeds: int) -> None:
    run = made(tmp_path, seeds)
    finding = found(run, ALIKE)
    assert finding.verdict == "shown" and finding.text.endswith(".")
    rows = [row for row in run.table("explained") if row["method"] == "gradient" and row["measure"] == "alignment"]
    for name in ("adversarial", "on-robust", "on-nonrobust"):
        own = [row for row in rows if (row["model"], row["other"]) == (name, "standard")]
        assert len(own) == seeds
        values = [float(row["value"]) for row in own]
        mean, low, high = students(values) if seeds > 1 else (values[0], float(own[0]["low"]), float(own[0]["high"]))
        assert f"{mean:+.2f} ({low:.2f} to {high:.2f})".replace("-", "−") in finding.text
    assert "the standard classifier 0.30, the adversarially trained one 0.60" in finding.text and "chance 0.01" in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({"on-robust": 0.28}, "in part", "not measurably more than on D_NR"),
        ({"on-robust": 0.31}, "in part", "not measurably more"),
        ({"on-robust": 0.5, "on-nonrobust": 0.55}, "in part", "not measurably more"),
        ({"adversarial": 0.305}, "not shown", "No measurable difference."),
    ],
)
def test_where_robust_training_or_its_data_does_not_align(
    tmp_path: Path, seeds: int, changed: dict[str, float], verdict: str, words: str
) -> None:
    finding = found(made(tmp_path, seeds, **steps(COSINES | changed)), ALIKE)
    assert (finding.verdict, words in finding.text) == (verdict, True)


def test_less_alignment_is_told_as_less(tmp_path: Path) -> None:
    finding = found(made(tmp_path, 1, **steps(COSINES | {"adversarial": 0.1})), ALIKE)
    assert finding.verdict == "not shown" and "No measurable difference" not in finding.text


def test_more_than_the_control_is_asked_of_the_difference(tmp_path: Path) -> None:
    """D_R 0.12 (0.08 to 0.16) and D_NR 0.10 (−0.10 to 0.30) more than the standard classifier: no measurable difference."""
    cosines = COSINES | {"on-robust": 0.42, "on-nonrobust": 0.40}
    finding = found(made(tmp_path, 1, **steps(cosines, on_nonrobust=0.2)), ALIKE)
    assert "0.12 (0.08 to 0.16)" in finding.text and "0.10 (−0.10 to 0.30)" in finding.text
    assert finding.verdict == "in part"


@pytest.mark.parametrize("seeds", [1, 3])
def test_explanations_are_reasons_where_the_answer_goes_sooner(tmp_path: Path, seeds: int) -> None:
    run = made(tmp_path, seeds)
    finding = found(run, REASONS)
    assert finding.verdict == "shown" and "both explanations name what is really used" in finding.text
    values = [float(only(run.table("explanations"), model="standard", method="integrated", measure="faithful", seed=k)["value"])
              for k in range(seeds)]  # fmt: skip
    mean, low, high = students(values) if seeds > 1 else (0.4, 0.36, 0.44)
    assert f"{100 * mean:.0f} points sooner" in finding.text and f"({100 * low:.1f}–{100 * high:.1f} %)" in finding.text
    assert "cosine 0.30 and 0.60" in finding.text


@pytest.mark.parametrize("faithful", [0.01, -0.2], ids=["no sooner", "later"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_explanations_that_are_no_reasons(tmp_path: Path, seeds: int, faithful: float) -> None:
    finding = found(made(tmp_path, seeds, explanations=lambda seed: explanations(seed, faithful=faithful)), REASONS)
    assert finding.verdict == "not shown"
    assert "not both name" in finding.text and "both explanations name" not in finding.text


def test_an_answer_that_goes_later_is_told_with_a_minus_at_least(tmp_path: Path) -> None:
    finding = found(made(tmp_path, 1, explanations=lambda seed: explanations(seed, faithful=-0.2)), REASONS)
    assert "-20 points" not in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, "shown", "better under noise, blur, fog, contrast, jpeg, measurably worse under none"),
        ({"fog": 0.0}, "in part", "better under noise, blur, contrast, jpeg, measurably worse under none"),
        ({"fog": -0.2}, "in part", "better under noise, blur, contrast, jpeg, measurably worse under fog"),
        (dict.fromkeys(GAINS, 0.0), "not shown", "better under none, measurably worse under none"),
        (dict.fromkeys(GAINS, -0.3), "not shown", "better under none, measurably worse under noise, blur, fog, contrast, jpeg"),
        ({"unchanged": 0.3, **dict.fromkeys([*GAINS][1:], 0.0)}, "not shown", "better under none"),
    ],
)
def test_help_against_corruptions(tmp_path: Path, seeds: int, changed: dict[str, float], verdict: str, words: str) -> None:
    run = made(tmp_path, seeds, corrupted=lambda seed: corrupted(seed, GAINS | changed))
    finding = found(run, NATURAL)
    assert (finding.verdict, words in finding.text) == (verdict, True)
    own = [row for row in run.table("corrupted") if (row["model"], row["other"]) == ("adversarial", "standard")]
    for name in GAINS:
        values = [float(row["value"]) for row in own if row["corruption"] == name]
        low, high = students(values)[1:] if seeds > 1 else (values[0] - 0.04, values[0] + 0.04)
        told = f"{name} {100 * np.mean(values):+.1f} ({100 * low:.1f} to {100 * high:.1f})"
        assert told.replace("-", "−") in finding.text


@pytest.mark.parametrize(
    ("slope", "kinds", "verdict"),
    [
        (1.0, ("robust", "non-robust", "useless"), "shown"),
        (1.0, ("robust", "useless"), "not shown"),
        (-1.0, ("robust", "non-robust", "useless"), "not shown"),
    ],
)
def test_features_before_any_training(tmp_path: Path, slope: float, kinds: tuple[str, ...], verdict: str) -> None:
    run = made(tmp_path, 3, kernel=lambda seed: [] if seed else kernel(0, slope, kinds))
    finding = found(run, UNTRAINED)
    assert finding.verdict == verdict
    each = {kind: 12 // len(kinds) * (kind in kinds) for kind in ("robust", "non-robust", "useless")}
    counts = f"{each['robust']} are robust, {each['non-robust']} useful but non-robust, {each['useless']} useless"
    assert counts in finding.text and "Of 12 eigenvectors" in finding.text
    rows = run.table("kernel")
    falls = [float(row["usefulness"]) - float(row["robust_usefulness"]) for row in rows]
    wanted = scipy_stats.spearmanr([row["eigenvector"] for row in rows], falls).statistic
    ends = (math.tanh(math.atanh(wanted) + side * 1.959964 / 3) for side in (-1, 1))
    correlation, low, high, count = analyses.drop_by_rank(rows) or (0, 0, 0, 0)
    assert (correlation, low, high, count) == (pytest.approx(wanted), *map(pytest.approx, ends), 12)


def test_a_spectrum_whose_end_is_no_more_fragile_is_not_said_to_be(tmp_path: Path) -> None:
    finding = found(made(tmp_path, 1, kernel=lambda seed: kernel(0, -1.0)), UNTRAINED)
    assert "The further down the spectrum, the more of its usefulness a change takes" not in finding.text


def test_falls_that_are_all_the_same_have_no_correlation(tmp_path: Path) -> None:
    def flat(seed: int) -> Rows:
        return [row | {"robust_usefulness": 0.2} for row in kernel(seed)]

    assert not any("nan" in finding.text for finding in analyses.findings(made(tmp_path, 1, kernel=flat)))


def test_of_what_never_changes_no_fall_is_known_and_few_are_no_answer(tmp_path: Path) -> None:
    def partly(seed: int, known: int) -> Rows:
        return [row if row["eigenvector"] < known else row | {"robust_usefulness": math.nan} for row in kernel(seed)]

    assert analyses.drop_by_rank(made(tmp_path / "most", 1, kernel=lambda seed: partly(seed, 9)).table("kernel"))[3] == 9  # type: ignore[index]
    few = made(tmp_path / "few", 1, kernel=lambda seed: partly(seed, 4))
    assert analyses.drop_by_rank(few.table("kernel")) is None
    assert len(analyses.findings(few)) == 3 and analyses.drop_by_rank([]) is None


@pytest.mark.parametrize("missing", ["explanations", "explained", "corrupted", "kernel"])
def test_a_table_that_is_not_there_costs_its_own_questions_only(tmp_path: Path, missing: str) -> None:
    whole, part = made(tmp_path / "whole"), made(tmp_path / "part", **{missing: None})
    asked, left = ([finding.question for finding in analyses.findings(run)] for run in (whole, part))
    lost = {"explanations": [ALIKE, REASONS], "explained": [ALIKE], "corrupted": [NATURAL], "kernel": [UNTRAINED]}[missing]
    assert left == [question for question in asked if not any(words in question for words in lost)] and len(left) < len(asked)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.0, -1.0], ids=["so", "null", "other way"])
def test_no_sentence_holds_what_is_no_number(tmp_path: Path, seeds: int, scale: float) -> None:
    cosines = {name: 0.3 + scale * (cosine - 0.3) for name, cosine in COSINES.items()}
    gains = {name: scale * gain for name, gain in GAINS.items()}
    run = made(tmp_path, seeds, **steps(cosines), corrupted=lambda seed: corrupted(seed, gains))
    told = analyses.findings(run)
    assert len(told) == 4
    for finding in told:
        assert finding.question.endswith("?") and finding.text.endswith(".")
        assert finding.verdict in ("shown", "in part", "not shown")
        assert not any(word in finding.text for word in ("nan", "None", "inf ", "--", "  ", ".."))
    for question in (ALIKE, NATURAL):
        assert (found(run, question).verdict == "shown") == (scale > 0)


@pytest.mark.parametrize("scale", [0.0, -1.0], ids=["nothing", "below 0"])
def test_minus_is_a_minus_and_nothing_has_none(tmp_path: Path, scale: float) -> None:
    cosines = {name: 0.2 + scale * (cosine - 0.2) for name, cosine in COSINES.items()}
    text = found(made(tmp_path, 3, **steps(cosines)), ALIKE).text
    assert "−0.00" not in text and " -0" not in text


def test_an_empty_run_was_asked_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, explanations=None, explained=None, corrupted=None, kernel=None)
    assert analyses.findings(run) == []
    for table in (analyses.saliency_table, analyses.corruptions_table, analyses.fourier_table, analyses.ntk_table):
        assert table(run)[1] == []


def test_words_are_there_for_everything_that_is_measured() -> None:
    assert [*analyses.MODEL_NAMES] == [*study_analyses.MAIN_MODELS] and {*analyses.MODEL_NAMES} <= results.MODELS.keys()
    assert {*analyses.MEASURES} <= {*analyses.MEASURES, "chance_low"}
    assert [*analyses.CORRUPTIONS] == ["unchanged", *corruptions.CORRUPTIONS]
    assert {*study_analyses.MAIN_MODELS} <= {*study_analyses.CORRUPTION_MODELS} and all(
        {*pair} <= {*study_analyses.MAIN_MODELS} for pair in study_analyses.PAIRS
    )
    assert all({*needs} <= {*study_analyses.MAIN_MODELS} for _, needs, _ in study_analyses.ANALYSES.values())
