"""Does the score of files tell which evidence carries them? Training on halves, other scores, and worlds whose truth is known.

    python benchmarks/files.py planted --runs runs --out benchmarks/results/files.json
    python benchmarks/files.py digits  --runs runs --out benchmarks/results/files.json
    python benchmarks/files.py cifar8k.npz --runs runs --out benchmarks/results/files.json --repeats 2 --test 500

The files are scored twice, with other seeds, in RUNS/NAME-seed0 and -seed1 as `notbugs files` does: stopped, it goes on. Then

halves       ordinary training on the higher and on the lower half of the files by each score (class-balanced, equal in size) and
             on random halves; accuracy unchanged and under attack at half of the radius and all of it, by the usual ensemble
separation   of a score: robust accuracy of the higher half less the lower, in points, mean over both radii and all trainings
             (`python benchmarks/table.py FILE.json` prints both)
stability    Spearman's rank correlation of each column between the two scorings
mislabelled  the set anew with labels of 5 % of the files changed: who finds them, at equal out-of-fold predictions
truth        `planted` alone: whether files whose shape is missing or wrong, features of each kind, and the background are found
cost         seconds of the scoring over those of the trainings in it
features     seconds of `notbugs features` on a ResNet-18 of full width, 512 features, and the test part; all cores

Other scores: the ordinary readers' loss, margin, mean confidence over epochs (data cartography, Swayamdipta et al. 2020) and
forgetting (Toneva et al. 2019), the robust readers' steps to flip (GAIRAT, Zhang et al. 2021) and lead (margin consistency,
Ngnawé et al. 2024), cleanlab's label quality. All are out of fold, from the very readers that ours uses. One thread a process.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from environment import facts  # the file beside this one

from notbugs import data, files, metrics, models, predict, train
from notbugs.data import Dataset, synthetic
from notbugs.files import crossfit, run, scores
from notbugs.runs.folder import write_atomic
from notbugs.study.config import StudyConfig, load

Row = dict[str, Any]
SEEDS = 5
PARTS = ("halves", "stability", "mislabelled", "truth", "cost", "features")


# ---- the scores -----------------------------------------------------------------------------------------------------


def looked(asked: files.FilesConfig, folder: Path) -> list[crossfit.FoldScores]:
    """What the readers of a finished run saw, repetition by repetition."""
    labels, whole = load(asked.plan).train.labels, []
    for repeat in range(asked.repeats):
        dealt = crossfit.stratified_folds(labels, asked.folds, crossfit.fold_seed(asked.plan.seed, repeat))
        parts = [data.load_arrays(run.fold_path(folder, repeat, fold)) for fold in range(asked.folds)]
        whole.append(crossfit.merge_folds(dealt, parts))
    return whole


def other_scores(whole: list[crossfit.FoldScores], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores that exist, higher: keep; means over the repetitions."""
    from cleanlab.rank import get_label_quality_scores

    mean = {name: np.mean([each[name] for each in whole], axis=0) for name in whole[0]}
    own = np.arange(len(labels)), labels
    return {
        "loss": np.mean([np.log(each["standard_probabilities"][own].clip(1e-12)) for each in whole], axis=0),
        "margin": mean["standard_lead"],
        "cartography confidence": mean["epochs_confidence"],
        "forgetting": -mean["forgotten"],
        "GAIRAT steps to flip": mean["robust_steps_to_flip"],
        "robust margin": mean["robust_lead"],
        "cleanlab label quality": get_label_quality_scores(labels, _proper(mean["standard_probabilities"])),
    }


def _proper(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(1, keepdims=True)


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the curve: how often a positive's score is above a negative's."""
    ranks, count = rankdata(score), int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


# ---- halves ---------------------------------------------------------------------------------------------------------


def trained_on(plan: StudyConfig, numbers: list[int], seed: int, test: int) -> Row:
    """Ordinary training on some of the files, and what is read of the test part."""
    torch.set_num_threads(1)
    splits = load(plan)
    recipe, part = run.crossfit_config(plan, splits), splits.train.select(torch.tensor(numbers))
    recipe = replace(recipe, batch_size=recipe.batch_size // 2)  # half the files: as many steps as on the whole set
    model = crossfit.train_crossfit_model(part, "half", train.cross_entropy, recipe=recipe, seed=seed, device="cpu")
    chosen = torch.arange(min(test, len(splits.test))) * len(splits.test) // min(test, len(splits.test))
    half = replace(recipe.threat_model, epsilon=recipe.threat_model.epsilon / 2)
    rows = metrics.robust_accuracy(model, splits.test.select(chosen), [half, recipe.threat_model])
    return {"clean": rows[0]["accuracy"], "half_radius": rows[1]["accuracy"], "radius": rows[2]["accuracy"], "test": len(chosen)}


def halves(bench: "Bench") -> Iterator[Row]:
    labels = load(bench.plan(0)).train.labels.numpy()
    names = [load(bench.plan(0)).train.classes[label] for label in labels]
    whole = bench.whole(0)
    ours = np.array([row["robustness"] for row in scores.combine(load(bench.plan(0)).train, whole)])
    chance = np.random.default_rng(0)
    jobs: list[tuple[str, str, int, list[int]]] = []
    for number in range(bench.random):
        jobs += [(f"random {number + 1}", "", seed, _half(names, chance.random(len(names)))[0]) for seed in range(SEEDS)]
    for name, score in {"robustness": ours, **other_scores(whole, labels)}.items():
        if bench.scores and name not in bench.scores:
            continue
        for which, numbers in zip(("higher", "lower"), _half(names, score), strict=True):
            jobs += [(name, which, seed, numbers) for seed in range(SEEDS)]
    todo = [job for job in jobs if not bench.has(part="halves", score=job[0], half=job[1], seed=job[2])]
    with ProcessPoolExecutor(bench.workers, get_context("spawn")) as pool:
        found = [pool.submit(trained_on, bench.plan(0), numbers, 1000 + seed, bench.test) for *_, seed, numbers in todo]
        for (name, which, seed, numbers), future in zip(todo, found, strict=True):
            yield {"part": "halves", "score": name, "half": which, "seed": seed, "files": len(numbers), **future.result()}


def _half(names: list[str], score: np.ndarray) -> tuple[list[int], list[int]]:
    rows = [{"label": name, "score": value} for name, value in zip(names, score.tolist(), strict=True)]
    return scores.top_and_bottom(rows, 0.5, "score")


# ---- stability, mislabelled, cost ---------------------------------------------------------------------------------------


def stability(bench: "Bench") -> Iterator[Row]:
    part = load(bench.plan(0)).train
    one, other = (scores.combine(part, bench.whole(seed)) for seed in (0, 1))
    for column in scores.COLUMNS:
        if column in one[0] and isinstance(one[0][column], float):
            values = [[row[column] for row in rows] for rows in (one, other)]
            yield {"part": "stability", "column": column, "spearman": float(spearmanr(*values)[0]), "repeats": bench.repeats}


def mislabelled(bench: "Bench") -> Iterator[Row]:
    """One repetition on the set with changed labels; both look at the same predictions."""
    from cleanlab.rank import get_label_quality_scores

    splits = load(bench.plan(0))
    part, chance = bench.some(splits.train), np.random.default_rng(0)
    wrong = chance.permutation(len(part)) < round(0.05 * len(part))
    labels = part.labels.numpy().copy()
    labels[wrong] = (labels[wrong] + chance.integers(1, len(part.classes), wrong.sum())) % len(part.classes)
    changed = part.with_labels(torch.from_numpy(labels))
    rows, whole = _scored_anew(changed, run.crossfit_config(bench.plan(0), splits))
    told = [name for name in whole if name.endswith("_probabilities")]
    together = _proper(np.mean([whole[name] for name in told], axis=0))
    found = {"ours": 1 - np.array([row["label_quality"] for row in rows])}
    for name, probabilities in {"all readers": together, "ordinary readers": _proper(whole["standard_probabilities"])}.items():
        for method in ("self_confidence", "normalized_margin"):
            found[f"cleanlab {method}, {name}"] = 1 - get_label_quality_scores(labels, probabilities, method=method)
    for name, doubt in found.items():
        yield {"part": "mislabelled", "score": name, "auc": auc(wrong, doubt), "n": len(part), "changed": int(wrong.sum())}
    kinds = np.array([row["kind"] for row in rows])
    for kind in ("robust", "non-robust", "mislabelled-looking", "ambiguous"):
        counts = {"changed": int((kinds[wrong] == kind).sum()), "of_changed": int(wrong.sum())}
        yield {"part": "mislabelled", "kind": kind, **counts, "others": int((kinds[~wrong] == kind).sum()), "n": len(part)}


def _scored_anew(part: Dataset, recipe: crossfit.CrossfitConfig) -> tuple[list[Row], crossfit.FoldScores]:
    torch.set_num_threads(1)
    dealt = crossfit.stratified_folds(part.labels, 3, 0)
    whole = crossfit.merge_folds(
        dealt, [crossfit.score_fold(part, recipe, dealt == fold, seed=crossfit.fold_seed(0, 0, fold)) for fold in range(3)]
    )
    return scores.combine(part, [whole]), whole


def cost(bench: "Bench") -> Iterator[Row]:
    """One fold: seconds of everything, and of the trainings in it, by a clock around `train.fit`."""
    torch.set_num_threads(1)
    splits = load(bench.plan(0))
    part = bench.some(splits.train)
    fit, spent = train.fit, []

    def clocked(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        found = fit(*args, **options)
        spent.append(time.process_time() - began)
        return found

    train.fit = clocked
    try:
        began = time.process_time()
        held = crossfit.stratified_folds(part.labels, 3, 0) == 0
        crossfit.score_fold(part, run.crossfit_config(bench.plan(0), splits), held, seed=0, test=splits.test)
        total = time.process_time() - began
    finally:
        train.fit = fit
    times = {"cpu_seconds": total, "of_trainings": sum(spent), "times": total / sum(spent)}
    yield {"part": "cost", "files": len(part), **times}


def features(bench: "Bench") -> Iterator[Row]:
    """A ResNet-18 that saw 1,000 images once: enough for features that differ in use."""
    torch.set_num_threads(os.cpu_count() or 1)
    splits = load(bench.plan(0))
    some = splits.train.select(torch.arange(0, len(splits.train), max(1, len(splits.train) // 1000))[:1000])
    model = models.build("resnet18", shape=some.shape, classes=len(some.classes))
    train.fit(model, some, epochs=1, batch_size=50, learning_rate=0.002)
    view = models.fuse_batchnorm(model, some.pixels(slice(0, 2)))
    threat_model, part = (
        run.crossfit_config(bench.plan(0), splits).threat_model,
        splits.test.select(torch.arange(min(1000, len(splits.test)))),
    )
    began, cpu = time.perf_counter(), time.process_time()
    rows = metrics.per_feature(view, part, threat_model)
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    kinds = [row["kind"] for row in metrics.best_class_rows(rows)]
    told = {kind: kinds.count(kind) for kind in ("robust", "non-robust", "useless")}
    yield {"part": "features", "images": len(part), "features": len(kinds), "attacked": rows[0]["attacked"], **told, **seconds}


# ---- truth ----------------------------------------------------------------------------------------------------------


def truth(bench: "Bench") -> Iterator[Row]:
    """Files, features and the background of the planted world."""
    if bench.source != "planted":
        return
    for seed in (0, 1):
        plan = bench.plan(seed)
        splits = load(plan)
        world = synthetic.make_synthetic(seed=seed, train=len(splits.train), test=len(splits.test))
        rows = scores.combine(splits.train, bench.whole(seed))
        wrong = world.train_truth.loud != splits.train.labels.numpy()
        ranked = np.array([row["robustness"] for row in rows])
        yield {"part": "truth", "what": "files whose shape is another class's", "seed": seed, "auc": auc(wrong, -ranked),
               "wrong": int(wrong.sum()), "n": len(rows)}  # fmt: skip
        names, here = metrics.cue_values(splits.train)
        _, there = metrics.cue_values(splits.test)
        found = metrics.spurious_features(names, here, splits.train.labels, there, splits.test.labels, splits.train.classes)
        named = [row["name"] for row in found if row["spurious"]]
        yield {"part": "truth", "what": "the background", "seed": seed, "found": int("background brightness" in named),
               "named": named}  # fmt: skip
        yield from true_features(bench, seed)


WORLDS = {  # what alone speaks for the label there: networks trained in each have features of one kind, nearly all of them
    "shape": {"strength": 0.0, "background": 0.5, "loud": 1.0},
    "grating": {"loud": 0.25, "background": 0.5},
    "background": {"loud": 0.25, "strength": 0.0, "background": 0.95},
}
WORDS = {"shape": "robust", "grating": "non-robust", "background": "spurious"}


def true_features(bench: "Bench", seed: int) -> Iterator[Row]:
    """The word for each useful feature of three networks, in the world of all cues, beside what it is known to read.

    Known: the cue that explains most of its variance, and at least half, on 2,000 images in which the three are independent.
    """
    plan = bench.plan(seed)
    splits = load(plan)
    recipe = run.crossfit_config(plan, splits)
    mine = splits.train.select(
        (crossfit.stratified_folds(splits.train.labels, 3, crossfit.fold_seed(seed, 0)) == 0).nonzero().squeeze(1)
    )
    robust, standard = (models.load(bench.folder(seed) / "models" / f"{name}.safetensors")[0] for name in ("robust", "standard"))
    versions = run.invert_both(robust, standard, mine, recipe, seed, "cpu")
    apart = synthetic.make_synthetic(seed=500 + seed, train=2000, test=8, loud=1 / len(synthetic.CLASSES), background=0.5)
    cues = {"shape": apart.train_truth.loud, "grating": apart.train_truth.faint, "background": apart.train_truth.light}
    counts: dict[tuple[str, str], int] = {}
    for name, options in WORLDS.items():
        alone = synthetic.make_synthetic(seed=100 + seed, train=1500, test=8, **options).train
        model = crossfit.train_crossfit_model(alone, name, train.cross_entropy, recipe=recipe, seed=seed, device="cpu")
        values, *others = (predict.features(model, part) for part in (mine, *versions, splits.test))
        explained = np.stack([_explained(predict.features(model, apart.train).numpy(), truth) for truth in cues.values()])
        for row, share in zip(run.categorize_features(values, mine, *others, splits.test), explained.T, strict=True):
            if share.max() >= 0.5 and row["word"] != "useless":
                key = [*cues][int(share.argmax())], row["word"]
                counts[key] = counts.get(key, 0) + 1
    right = sum(count for (cue, word), count in counts.items() if WORDS[cue] == word)
    for cue in WORDS:
        told = {word: counts.get((cue, word), 0) for word in WORDS.values()}
        yield {"part": "truth", "what": f"features that read the {cue}", "seed": seed, **told}
    yield {"part": "truth", "what": "features told apart", "seed": seed, "accuracy": right / sum(counts.values()),
           "n": sum(counts.values())}  # fmt: skip


def _explained(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The share of each feature's variance that lies between groups: (F,)."""
    kinds = [(groups == kind) for kind in np.unique(groups)]
    between = sum(kind.mean() * (values[kind].mean(0) - values.mean(0)) ** 2 for kind in kinds)
    found: np.ndarray = between / np.maximum(values.var(0), 1e-12)
    return found


# ---- one command ----------------------------------------------------------------------------------------------------


class Bench:
    """What every part is given, and the rows so far."""

    def __init__(self, options: argparse.Namespace, rows: list[Row]) -> None:
        self.source, self.runs, self.repeats, self.folds = options.source, options.runs, options.repeats, 3
        self.scores: list[str] = options.scores
        self.test, self.random, self.workers, self.limit = options.test, options.random, options.workers, options.few
        self.name, self.rows = Path(options.source).stem, rows

    def plan(self, seed: int) -> StudyConfig:
        return StudyConfig(self.source, seed=seed, seeds=1)

    def folder(self, seed: int) -> Path:
        found: Path = self.runs / f"{self.name}-seed{seed}"
        return found

    def whole(self, seed: int) -> list[crossfit.FoldScores]:
        asked = files.FilesConfig(self.plan(seed), self.folds, self.repeats)
        files.run(asked, self.folder(seed), command=f"notbugs files {self.source} --seed {seed} --repeats {self.repeats}")
        return looked(asked, self.folder(seed))

    def some(self, part: Dataset) -> Dataset:
        """At most so many files, spread evenly."""
        return part.select(torch.arange(self.limit) * len(part) // self.limit) if self.limit else part

    def has(self, **what: Any) -> bool:
        return any(all(row.get(key) == value for key, value in what.items()) for row in self.rows if row["data"] == self.name)


PACKAGES = ("cleanlab", "scipy", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scores", nargs="+", default=[], help="train on halves by these alone, not by all; more can follow")
    parser.add_argument("--random", type=int, default=3, help="random halves")
    parser.add_argument("--test", type=int, default=10**9, help="test images, spread evenly")
    parser.add_argument("--few", type=int, default=0, help="use so many files for `mislabelled` and `cost`; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out and options.out.exists() else {"rows": []}
    bench = Bench(options, report["rows"])
    ways: dict[str, Callable[[Bench], Iterator[Row]]] = {
        "halves": halves, "stability": stability, "mislabelled": mislabelled, "truth": truth, "cost": cost,
        "features": features,
    }  # fmt: skip
    for part in options.parts:
        if part != "halves":
            bench.rows[:] = [row for row in bench.rows if (row["part"], row["data"]) != (part, bench.name)]
        for row in ways[part](bench):
            row = {"data": bench.name, **row}
            print("  ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()))
            bench.rows.append({**row, "date": facts()["date"]})
            if options.out:
                write_atomic(options.out, json.dumps({**facts(packages=PACKAGES), "rows": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
