"""Which files and which features: a set of images in, a run folder out with a row for every file, and on demand two halves.

Each fold of each repetition is a stage, and so are the features; what is finished is kept.
"""

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from notbugs import __version__, attacks, construct, data, metrics, models, predict, search, train
from notbugs.data import Dataset, Splits, subset
from notbugs.data.load import fingerprint
from notbugs.errors import InputError
from notbugs.files import crossfit, scores
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress, default_workers, describe_machine, run_graph
from notbugs.search import NormBall, objectives
from notbugs.study.config import StudyConfig, known, load, resolve

Tables = dict[str, list[dict[str, Any]]]
IGNORED = ("device", "seeds", "full", "recipe", "invert_times")  # settings of a plan that change nothing here
PICTURED_FILES = 12  # files of each kind in pictures
PICTURED_FEATURES = 3  # features of each kind in pictures


@dataclass(frozen=True)
class FilesConfig:
    """What is asked: a plan's settings, how many folds the files are dealt into, and how often."""

    plan: StudyConfig
    folds: int = 3
    repeats: int = 3


def run(
    asked: FilesConfig, folder: Path, *, command: str = "", workers: int | None = None, report_progress: Progress | None = None
) -> RunFolder:
    """Do what is left to do in `folder`; raises BadInput before anything is written if the input cannot be used.

    A run may be asked again with more repetitions: those that are there are kept, and the tables are made anew.
    """
    began, report_progress = time.perf_counter(), report_progress or (lambda stage, share, words: None)
    splits = load(asked.plan)
    recipe = crossfit_config(asked.plan, splits)
    if asked.repeats < 1:
        raise InputError("--repeats", "must be 1 or more", asked.repeats)
    crossfit.stratified_folds(splits.train.labels, asked.folds, 0)  # too many folds fail here
    options = {name: value for name, value in asdict(asked.plan).items() if name not in IGNORED}
    with RunFolder.open(folder, {**options, "folds": asked.folds, "kind": "files"}) as record:
        digest = fingerprint(splits.train, splits.test)
        if record.metadata.get("fingerprint", digest) != digest:
            raise InputError(asked.plan.source, "must hold the same images as when this run began", remedy="give another --out")
        before = record.metadata.get("seconds", 0.0)
        if record.metadata.get("recipe", {}).get("repeats", asked.repeats) != asked.repeats:
            _remove_subsets(folder)  # they would be those of another ranking
            record.update_metadata(stages={name: mark for name, mark in record.metadata["stages"].items() if name != "summary"})
        record.update_metadata(**_metadata(asked, splits, recipe, command), fingerprint=digest)
        work: dict[str, Any] = {"features": partial(features_stage, asked, folder)}
        for repeat in range(asked.repeats):
            for fold in range(asked.folds):
                work[_stage(repeat, fold)] = partial(score_one_fold, asked, folder, repeat, fold)
        todo = {name: ((), partial(_timed, name, job)) for name, job in work.items() if not record.done(name)}
        if workers is None:
            workers = default_workers(asked.plan.device)
        for name, (tables, seconds) in run_graph(todo, workers, report_progress):
            record.record_stage(name, seconds, tables)
            record.update_metadata(seconds=round(before + time.perf_counter() - began, 1))
        if not record.done("summary"):
            at = time.perf_counter()
            tables, steadiness = summarize(asked, folder, splits)
            record.update_metadata(steadiness=None if np.isnan(steadiness) else round(steadiness, 3))
            record.record_stage("summary", time.perf_counter() - at, tables)
        record.update_metadata(finished=True, seconds=round(before + time.perf_counter() - began, 1))
        return record


def crossfit_config(plan: StudyConfig, splits: Splits) -> crossfit.CrossfitConfig:
    """How readers are trained: as a study would, but for a small network where the images allow one, and half as long.

    Many readers matter more here than good ones: ranks of files hardly change with the network (docs/results.md).
    """
    usual = resolve(plan, splits)
    own = bool(plan.network or plan.width or plan.source == "planted" or max(splits.train.shape[1:]) <= 16)
    quick: dict[str, Any] = {} if own else {"network": "small", "width": 16, "batch_size": 128, "learning_rate": 0.02}
    if not own:
        quick["epochs"] = max(8, known(usual.epochs) // 2)
    usual = replace(usual, **{name: value for name, value in quick.items() if getattr(plan, name) is None})
    return crossfit.CrossfitConfig(
        NormBall(usual.norm, known(usual.epsilon)),
        known(usual.network),
        usual.width,
        known(usual.epochs),
        known(usual.batch_size),
        known(usual.learning_rate),
        known(usual.weight_decay),
        known(usual.shift),
        bool(usual.flip),
        usual.adversarial_steps,
        min(20, known(usual.invert_steps)),
    )


def check_fraction(asked: FilesConfig, top: float) -> None:
    """Raises BadInput where a share of each class cannot go to either half of the set."""
    counts = load(asked.plan).train.labels.bincount()
    scores.check_fraction(top, int(counts[counts > 0].min()))


def split(asked: FilesConfig, folder: Path, top: float) -> list[tuple[str, Path, int]]:
    """Write the files with the highest and the lowest robustness, a share `top` of each class, as two sets in the input's form.

    Returns name, place and number of files of each; tables/halves.csv lists them. What an earlier call wrote is replaced.
    """
    splits = load(asked.plan)
    with RunFolder.open(folder, RunFolder.read(folder).metadata["asked"]) as record:  # nobody else writes meanwhile
        return _split(asked, splits, record, top)


def _split(asked: FilesConfig, splits: Splits, record: RunFolder, top: float) -> list[tuple[str, Path, int]]:
    rows, folder = record.table("files"), record.folder
    chosen = scores.top_and_bottom(rows, top)
    _remove_subsets(folder)
    words = {"robust": "highest", "nonrobust": "lowest"}
    written, listed = [], []
    for name, numbers in zip(words, chosen, strict=True):
        place = folder / "datasets" / f"{name}-files"
        card = (
            f"# {name}-files\n\nOf each class the {100 * top:g} % of the files with the {words[name]} robustness: "
            f"{scores.COLUMNS['robustness'][2]}.\nThe files are unchanged. Made by notbugs {__version__} from "
            f"`{Path(asked.plan.source).name}`; tables/files.csv has every score.\n"
        )
        part = splits.train.select(torch.tensor(numbers, dtype=torch.int64))
        data.export(part, place, splits.form, card=card, original=part)
        written.append((name, place, len(numbers)))
        listed += [
            {"half": name, **{column: rows[number][column] for column in ("number", "file", "label", "robustness", "kind")}}
            for number in numbers
        ]
    data.write_table(listed, folder / "tables" / "halves.csv")
    return written


def _remove_subsets(folder: Path) -> None:
    (folder / "tables" / "halves.csv").unlink(missing_ok=True)
    for name in ("robust", "nonrobust"):
        shutil.rmtree(folder / "datasets" / f"{name}-files", ignore_errors=True)


# ---- stages ------------------------------------------------------------------------------------------------------------------


def score_one_fold(asked: FilesConfig, folder: Path, repeat: int, fold: int, report_progress: Progress) -> Tables:
    """What the readers of one fold see in its files."""
    splits, seed = load(asked.plan), asked.plan.seed
    dealt = crossfit.stratified_folds(splits.train.labels, asked.folds, crossfit.fold_seed(seed, repeat))
    found = crossfit.score_fold(
        splits.train,
        crossfit_config(asked.plan, splits),
        dealt == fold,
        seed=crossfit.fold_seed(seed, repeat, fold),
        test=splits.test,
        device=asked.plan.device,
        progress=lambda share, words: report_progress("", min(share, 0.99), words),
    )
    data.save_arrays(found, fold_path(folder, repeat, fold))
    return {}


def summarize(asked: FilesConfig, folder: Path, splits: Splits) -> tuple[Tables, float]:
    """Tables and pictures of all files, and how steady their ranks are."""
    whole, labels = [], splits.train.labels
    for repeat in range(asked.repeats):
        dealt = crossfit.stratified_folds(labels, asked.folds, crossfit.fold_seed(asked.plan.seed, repeat))
        whole.append(
            crossfit.merge_folds(dealt, [data.load_arrays(fold_path(folder, repeat, fold)) for fold in range(asked.folds)])
        )
    rows = scores.combine(splits.train, whole)
    data.write_table(rows, folder / "tables" / "files.parquet")
    shown: Tables = {"pictures": []}
    for kind, numbers in _representative_files(rows).items():
        for number in numbers:
            picture = f"pictures/file-{number:06d}.png"
            data.save_image(splits.train.pixels([number])[0], folder / picture)
            kept = {name: rows[number][name] for name in ("number", "file", "label", "suggested", "robustness", "label_quality")}
            shown["pictures"].append({**kept, "kind": kind, "picture": picture})
    counts = [
        {"kind": kind, "files": sum(row["kind"] == kind for row in rows), "n": len(rows)} for kind in _representative_files(rows)
    ]
    described = [
        {"column": name, "range": span, "high": high, "about": about}
        for name, (span, high, about) in scores.COLUMNS.items() if name in rows[0]
    ]  # fmt: skip
    return {"files": rows, "kinds": counts, "columns": described, **shown}, scores.rank_reliability(whole, labels.numpy())


def _representative_files(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """By kind, the numbers of the files that show it best, class by class in turn."""
    order: dict[str, Callable[[dict[str, Any]], float]] = {
        "robust": lambda row: -row["robustness"],
        "non-robust": lambda row: row["robustness"],
        "mislabelled-looking": lambda row: row["label_quality"],
        "ambiguous": lambda row: abs(row["label_quality"] - 0.5),
    }
    found = {}
    for kind, key in order.items():
        own = sorted((row for row in rows if row["kind"] == kind), key=key)
        turns: dict[str, int] = {}
        placed = []
        for row in own:
            turns[row["label"]] = turns.get(row["label"], -1) + 1
            placed.append((turns[row["label"]], row["number"]))
        found[kind] = [number for _, number in sorted(placed, key=lambda each: each[0])[:PICTURED_FILES]]
    return found


def features_stage(asked: FilesConfig, folder: Path, report_progress: Progress) -> Tables:
    """Features of an ordinary model, on files that it was not trained on: what each is, what a person would call it, pictures.

    word: "spurious" (useful on held-out training files, by half or more less so on the test part), "robust" (keeps more of its
    usefulness on the robust version of the files than on the non-robust one), "non-robust" (the reverse) or "useless".
    """
    splits, plan = load(asked.plan), asked.plan
    recipe, device, classes = crossfit_config(plan, splits), plan.device, splits.train.classes
    held = crossfit.stratified_folds(splits.train.labels, asked.folds, crossfit.fold_seed(plan.seed, 0)) == 0
    mine, others = (splits.train.select(kind.nonzero().squeeze(1)) for kind in (held, ~held))
    made = partial(crossfit.train_crossfit_model, recipe=recipe, seed=crossfit.fold_seed(plan.seed, 0, 0), device=device)
    report_progress("", 0.0, "an ordinary model")
    model = made(others, "standard", train.cross_entropy)
    report_progress("", 0.2, "a robust model")
    push = partial(attacks.pgd, threat_model=recipe.threat_model, steps=recipe.adversarial_steps, loss="cross_entropy")
    robust = made(others, "robust", train.adversarial_loss(push))
    for name, one in (("standard", model), ("robust", robust)):
        training = {
            "loss": name,
            "norm": recipe.threat_model.norm,
            "epsilon": recipe.threat_model.epsilon,
            "epochs": recipe.epochs,
        }
        path = folder / "models" / f"{name}.safetensors"
        models.save(one, path, classes=list(classes), trained_on="all folds but the first", training=training)
    report_progress("", 0.6, "the versions")
    grown = invert_both(robust, model, mine, recipe, plan.seed, device)
    report_progress("", 0.7, "features under attack")
    view = models.fuse_batchnorm(model, mine.pixels(slice(0, 2)), device)
    table = metrics.per_feature(view, mine, recipe.threat_model, device=device, sample=100, steps=4)
    values = predict.features(model, mine, device)
    on_robust, on_nonrobust, elsewhere = (predict.features(model, part, device) for part in (*grown, splits.test))
    words = categorize_features(values, mine, on_robust, on_nonrobust, elsewhere, splits.test)
    best = {row["feature"]: row for row in metrics.best_class_rows(table)}
    names, mine_cues = metrics.cue_values(mine, device=device)
    cue_names = metrics.nearest_cue(values, names, mine_cues)
    for row in words:
        number, most = row["feature"], best[row["feature"]]
        row |= {"robust_usefulness": most["robust_usefulness"], "kind": most["kind"]}
        if row["word"] != "spurious":
            row |= {"class": most["class"], "usefulness": most["usefulness"], "speaks": "for" if most["sign"] > 0 else "against"}
        row["cue"], row["cue_correlation"] = cue_names[number]
    report_progress("", 0.9, "pictures")
    shown = _feature_pictures(folder, words, values, mine, model, device)
    some = mine.pixels(subset.balanced(mine.labels, 50)).to(device)
    layers = metrics.per_layer(model, some, recipe.threat_model)
    cues, cue_pictures = _cues(splits, model, folder, device)
    return {
        "features": table,
        "words": words,
        "layers": layers,
        "cues": cues,
        "feature_pictures": shown,
        "cue_pictures": cue_pictures,
    }


def invert_both(
    robust: models.Model, standard: models.Model, part: Dataset, recipe: crossfit.CrossfitConfig, seed: int, device: str
) -> tuple[Dataset, Dataset]:
    """The robust and the non-robust version of some files."""
    one, other = (
        construct.invert_features(model, part, steps=recipe.invert_steps, seed=seed, device=device).dataset
        for model in (robust, standard)
    )
    return one, other


def categorize_features(
    values: Tensor, part: Dataset, on_robust: Tensor, on_nonrobust: Tensor, elsewhere: Tensor, test: Dataset
) -> list[dict[str, Any]]:
    """The word for every feature, from its values (N, F) on held-out files and on either version, (M, F) on the test part."""
    count = len(part.classes)
    here, robust, nonrobust = (metrics.usefulness(each, part.labels, count) for each in (values, on_robust, on_nonrobust))
    kept, kept_other = crossfit.usefulness_kept(here, robust), crossfit.usefulness_kept(here, nonrobust)
    lost = metrics.spurious_features(
        [str(j) for j in range(values.shape[1])], values, part.labels, elsewhere, test.labels, part.classes
    )
    fallen = {int(row["name"]): row for row in lost}
    rows = []
    for j in range(values.shape[1]):
        word = "robust" if kept[j] > kept_other[j] else "non-robust"
        if np.abs(here.value[j]).max() < metrics.USEFUL_FROM:
            word = "useless"
        elif fallen[j]["spurious"]:
            word = "spurious"
        lost_most = fallen[j]
        row = {"feature": j, "word": word, "kept_on_robust": float(kept[j]), "kept_on_nonrobust": float(kept_other[j])}
        row |= {"fall": lost_most["fall"], "fall_class": lost_most["class"], "chance": lost_most["chance"]}
        if word == "spurious":  # of these the class that they fail for is named
            row |= {key: lost_most[key] for key in ("class", "speaks", "usefulness", "test_usefulness")}
        rows.append(row)
    return rows


def _cues(splits: Splits, model: models.Model, folder: Path, device: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What can be said of the pictures in words: which of it fails on the test part, and whether the model leans on it.

    Of those that fail, also pictures: training files of the class with most of it, and test files of the class with least of it.
    """
    names, here = metrics.cue_values(splits.train, device=device)
    _, there = metrics.cue_values(splits.test, device=device)
    read_as, shown = predict.logits(model, splits.test, device).argmax(1), list[dict[str, Any]]()
    right = read_as == splits.test.labels
    rows = metrics.spurious_features(names, here, splits.train.labels, there, splits.test.labels, splits.train.classes)
    for row in rows:
        place = names.index(row["name"])
        label = splits.train.classes.index(row["class"])
        training = (here[:, place], splits.train.labels)
        row |= metrics.accuracy_gap(there[:, place], splits.test.labels, right, label=label, training=training)
        if not row["spurious"]:
            continue
        sign = 1.0 if row["speaks"] == "for" else -1.0
        for kind, part, values, most in (("most", splits.train, here, sign), ("least", splits.test, there, -sign)):
            own = (part.labels == label).nonzero().squeeze(1)
            for number in own[(most * values[own, place]).topk(min(5, len(own))).indices].tolist():
                picture = f"pictures/cue-{place:02d}-{kind}-{number:06d}.png"
                data.save_image(part.pixels([number])[0], folder / picture)
                read = "" if kind == "most" else splits.test.classes[int(read_as[number])]
                told = {"name": row["name"], "class": row["class"], "kind": kind, "file": part.names[number], "read": read}
                shown.append({**told, "value": float(values[number, place]), "picture": picture})
    return rows, shown


def _feature_pictures(
    folder: Path, words: Sequence[dict[str, Any]], values: Tensor, part: Dataset, model: models.Model, device: str
) -> list[dict[str, Any]]:
    """Of the most useful features of each word: the files that excite them most, an image made to, and where they look."""
    rows: list[dict[str, Any]] = []
    for word in ("robust", "non-robust", "spurious"):
        own = sorted((row for row in words if row["word"] == word), key=lambda row: -row["usefulness"])[:PICTURED_FEATURES]
        for row in own:
            j = row["feature"]
            common = {"feature": j, "word": word, "class": row["class"], "cue": row["cue"]}
            top = values[:, j].topk(min(6, len(part))).indices
            made = {f"file {place + 1}": part.pixels([number])[0] for place, number in enumerate(top.tolist())}
            with models.frozen(model):
                made["made to excite it"] = _maximizing_image(model, part, j, device)
                image = part.pixels(top[:1]).to(device)
                slope = search.gradients(partial(_one_feature, model, j), image)[1][0, 0].cpu()
            made["where it looks"] = 0.5 + slope / (2 * slope.abs().amax().clamp_min(1e-12))
            for column, image in made.items():
                picture = f"pictures/feature-{j:04d}-{column.replace(' ', '-')}.png"
                data.save_image(image.clamp(0, 1), folder / picture)
                at = int(top[int(column[5:]) - 1]) if column.startswith("file ") else None
                told = {"file": part.names[at], "label": part.classes[int(part.labels[at])]} if at is not None else {}
                rows.append({**common, "column": column, **told, "picture": picture})
    return rows


def _one_feature(model: models.Model, feature: int, images: Tensor) -> Tensor:
    return model.features(images)[:, feature : feature + 1]


def _maximizing_image(model: models.Model, part: Dataset, feature: int, device: str) -> Tensor:
    """An image grown from the mean of the set until one feature answers most strongly, moved as the data vary: (C, H, W)."""
    some = part.pixels(torch.arange(0, len(part), max(1, len(part) // 500)))
    mean, shaped = some.mean(0, keepdim=True).to(device), construct.spectral_covariance_sqrt(some)
    free, goal = NormBall("l2", torch.inf), objectives.maximize_feature(model.features, feature)
    size = 0.05 * (some - some.mean(0)).flatten(1).norm(dim=1).mean().item()

    def rule(now: search.StepState, memory: None) -> tuple[Tensor, None]:
        return free.steepest_step(now.images, shaped(now.gradient), size), None

    generator = torch.Generator().manual_seed(0)
    # a little noise: where a unit is off, nothing slopes
    start = (mean + 0.01 * torch.randn(mean.shape, generator=generator).to(device)).clamp(0, 1)
    return search.maximize(goal, start, free, steps=60, rule=rule).images[0].cpu()


# ---- parts -------------------------------------------------------------------------------------------------------------------


def _stage(repeat: int, fold: int) -> str:
    return f"repeat {repeat + 1}, fold {fold + 1}"


def fold_path(folder: Path, repeat: int, fold: int) -> Path:
    """Where what the readers of one fold saw is kept."""
    return folder / "parts" / f"{repeat:03d}-{fold:03d}.npz"


def _timed(name: str, work: Callable[[Progress], Tables], report_progress: Progress) -> tuple[Tables, float]:
    began = time.perf_counter()
    return work(lambda _, share, words: report_progress(name, share, words)), time.perf_counter() - began


def _metadata(asked: FilesConfig, splits: Splits, recipe: crossfit.CrossfitConfig, command: str) -> dict[str, Any]:
    plan = asked.plan
    return {
        "kind": "files",
        "notbugs": __version__,
        "command": command,
        "source": plan.source,
        "within": str(recipe.threat_model),
        "recipe": {**asdict(recipe), "ball": str(recipe.threat_model), "folds": asked.folds, "repeats": asked.repeats},
        "seed": plan.seed,
        "device": plan.device,
        "machine": describe_machine(plan.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": {
            "classes": list(splits.train.classes),
            "n": len(splits.train),
            "test": len(splits.test),
            "shape": list(splits.train.shape),
            "form": splits.form,
            "note": splits.note,
            "skipped": list(splits.skipped),
        },
        "finished": False,
    }
