"""Runs made for the purpose, and a browser page: `from report.conftest import ...`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from scipy import stats as scipy_stats

from notbugs.report.findings import Finding, findings
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import AccuracyRow, AdversarialPictureRow, PictureRow, SetRow, TrainingRow
from notbugs.runs.tables.transferability import ControlRow, ErrorConsistencyRow, TransferRow
from notbugs.stats import newcombe_difference, wilson_interval
from notbugs.study.catalog.models import ARCHITECTURES, LEARNERS, trained_on
from notbugs.study.comparisons import CONTROLS_OF, LEAKAGE_PROBES, TRANSFER_SOURCES, probe_name

# ---- a quick study -----------------------------------------------------------------------------------------------------------

Shares = dict[str, tuple[float, float, float]]  # model: clean accuracy, robust accuracy at epsilon / 2 and at epsilon
HOSTILE = ["<script>document.title='taken'</script>", "naïve 猫 & <b>", "x" * 150, '" onload="document.title=1']
MEASURED: Shares = {
    "standard": (0.97, 0.15, 0.0),
    "adversarial": (0.95, 0.8, 0.6),
    "trained-on-robust": (0.94, 0.5, 0.2),
    "trained-on-nonrobust": (0.93, 0.2, 0.0),
    "trained-on-random-labels": (0.88, 0.02, 0.0),
    "trained-on-random-labels-shuffled": (0.01, 0.0, 0.0),
    "trained-on-next-labels": (0.7, 0.0, 0.0),
}


def wilson(correct: int, n: int) -> tuple[float, float]:
    share, z = correct / n, 1.96
    center, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)


def student(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % CI over seeds, by scipy."""
    mean = sum(values) / len(values)
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, loc=mean, scale=scipy_stats.sem(values))
    return float(low), float(high)


def quick_study(
    folder: Path, shares: Shares = MEASURED, *, seeds: int = 3, dataset: str = "digits", complete: bool = True
) -> Path:
    """A run as the study writes it: 500 test images; slightly different from seed to seed."""
    classes = HOSTILE if complete else list("0123")
    with RunFolder.open(folder, {"kind": "study", "dataset": dataset}) as run:
        data = {"classes": classes, "train": 90, "test": 500, "shape": [1, 8, 8], "notes": [], "left_out": {}, "mean_l2": 4.9}
        run.update_metadata(
            dataset=dataset, command=f"notbugs run {dataset}", notbugs="0.2.0", device="cpu", settings={"epochs": 3}, data=data,
            seeds=list(range(seeds)), norm="l2", epsilon=1.5, epsilon_text="1.5",
        )  # fmt: skip
        for seed in range(seeds):
            run.record_stage(f"seed{seed}/models", 1.5, quick_rows(shares, seed))
        if complete:
            constructed = SetRow(
                set="robust", seed=0, n=90, made_from="adversarial", steps=40, target_reached=0.9, max_l2=3.25, seconds=1.0
            )
            run.record_stage("seed0/datasets", 1.0, [constructed])
            run.record_stage("pictures", 0.1, hostile_pictures(folder))
            run.update_metadata(seconds=12.0, finished=True)
    return folder


def quick_rows(shares: Shares, seed: int) -> list[Row]:
    rows: list[Row] = []
    for model, shares_at in shares.items():
        measured = [("test", epsilon, share) for epsilon, share in zip((0.0, 0.75, 1.5), shares_at, strict=True)]
        measured += [(name, 0.0, 0.5 + seed / 10) for name in ("original", "robust", "nonrobust")]
        for name, epsilon, share in measured:
            correct = min(500, round(500 * share) + (2 * seed if 0 < share < 1 else 0))
            attack = "ensemble-standard v6" if epsilon else "none"
            rows.append(accuracy_row(model, correct, 500, wilson(correct, 500), seed, set=name, epsilon=epsilon, attack=attack))
        for epoch in range(4):
            figures = {"loss": 1 / (1 + epoch), "accuracy": epoch / 4, "learning_rate": 0.1, "seconds": 1.0}
            rows.append(TrainingRow(model=model, seed=seed, epoch=epoch, **figures))
    return rows


def accuracy_row(
    model: str, correct: int, n: int, interval: tuple[float, float], seed: int, *, set: str = "test", epsilon: float = 0.0,
    attack: str = "none",
) -> AccuracyRow:  # fmt: skip
    return AccuracyRow(
        model=model, trained_on="original", set=set, norm="l2", epsilon=epsilon, attack=attack, correct=correct, n=n,
        accuracy=correct / n, ci_low=interval[0], ci_high=interval[1], seed=seed,
    )  # fmt: skip


def hostile_pictures(folder: Path) -> list[Row]:
    """Pictures of hostile files; the last two are no pictures of the run at all."""
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8), 90).save(folder / "pictures" / "a.png")
    Image.new("L", (8, 8), 200).save(folder.parent / "outside.png")
    (folder / "secret.txt").write_text("secret")
    rows: list[Row] = []
    paths = ["pictures/a.png"] * 10 + ["../outside.png", "secret.txt"]
    for place, label in enumerate(HOSTILE):
        for column in ("original", "adversarial", "perturbation"):
            predicted = {"standard": label if column == "original" else HOSTILE[place - 1], "adversarial": label}
            predicted = dict.fromkeys(predicted, "") if column == "perturbation" else predicted
            picture = paths[len(rows)]
            rows.append(PictureRow(file=f"{label}/{place}.png", column=column, picture=picture, label=label, **predicted))
    return rows + [example_row(model, distance) for model, distance in (("standard", 0.75), ("adversarial", 0.0))]


def example_row(model: str, distance: float) -> AdversarialPictureRow:
    """An adversarial example of a hostile file; at distance 0 the clean image is misclassified."""
    return AdversarialPictureRow(
        file=f"{HOSTILE[0]}/0.png", label=HOSTILE[0], model=model, predicted=HOSTILE[1], confidence=0.52, clean_confidence=0.97,
        norm="l2", distance=distance, amplification=3.0, clean_picture="pictures/a.png", picture="pictures/a.png",
        perturbation_picture="../outside.png",
    )  # fmt: skip


# ---- a full study ------------------------------------------------------------------------------------------------------------

N = 500
NETWORKS = ("reinit-1", *ARCHITECTURES)
SEED_SHIFTS = (0.0, 0.01, -0.01, 0.004)  # of accuracies, from seed to seed
MakeRows = Callable[[int], Sequence[Row]]  # rows of one table, by seed
ACCURACIES = {  # clean accuracies of a convincing study
    "standard": 0.97,
    "trained-on-random-labels": 0.8,
    "trained-on-random-labels-filtered": 0.75,
    "trained-on-random-labels-incl-true": 0.78,
    "trained-on-next-labels": 0.6,
    "trained-on-next-labels-filtered": 0.5,
    **{trained_on(f"{labels}-shuffled"): 0.05 for labels in ("random-labels", "next-labels")},
    **{trained_on(f"{labels}-class-patterns"): 0.08 for labels in ("random-labels", "next-labels")},
    **dict.fromkeys(("trained-on-random-labels-incl-true-class-patterns", "trained-on-next-labels-non-transferable"), 0.12),
    **{trained_on(f"{labels}-robust"): 0.2 for labels in ("random-labels", "next-labels")},
    **dict.fromkeys(("trained-on-misclassified-only", "trained-on-unrelated-photos"), 0.45),
    "trained-on-random-labels-same-init": 0.85,
    "trained-on-next-labels-same-init": 0.62,
    **{f"{name}-trained-on-next-labels": 0.3 + 0.05 * place for place, name in enumerate(ARCHITECTURES)},
}
RATES = {"reinit-1": 0.6, **{name: 0.3 + 0.05 * place for place, name in enumerate(ARCHITECTURES)}}
RATES |= {"same-init": 0.9, "adversarial": 0.1, **{name: 0.2 + 0.02 * place for place, name in enumerate(LEARNERS)}}
SWEEP = dict(zip(TRANSFER_SOURCES, (0.1, 0.15, 0.22, 0.4, 0.3, 0.2), strict=True))


class Counted:
    """Correct images of one seed: a share, shifted from seed to seed, with its Wilson interval."""

    def __init__(self, share: float, seed: int, n: int = N) -> None:
        self.correct, self.n = round(n * min(max(share + SEED_SHIFTS[seed], 0), 1)), n
        self.accuracy = self.correct / n
        self.interval = wilson_interval(self.correct, n)


def mean_share(share: float, seeds: int) -> float:
    """The mean over seeds of a share."""
    return sum(Counted(share, seed).accuracy for seed in range(seeds)) / seeds


def accuracy_rows(accuracies: Mapping[str, float], seed: int) -> list[Row]:
    counted = {model: Counted(share, seed) for model, share in accuracies.items()}
    return [accuracy_row(model, each.correct, each.n, each.interval, seed) for model, each in counted.items()]


def control_row(
    model: str, control: str, rules_out: str, result: Counted, other: Counted, seed: int, chance: float = 0.1
) -> ControlRow:
    intervals = [(each.accuracy, *each.interval) for each in (result, other)]
    excess, low, high = newcombe_difference(*intervals)
    return ControlRow(
        model=model, control=control, rules_out=rules_out, seed=seed, accuracy=result.accuracy, control_accuracy=other.accuracy,
        excess=excess, excess_ci_low=low, excess_ci_high=high, above_chance=result.accuracy - chance,
        above_chance_ci_low=result.interval[0] - chance, above_chance_ci_high=result.interval[1] - chance, n=N,
    )  # fmt: skip


def control_rows(accuracies: Mapping[str, float], seed: int, chance: float = 0.1) -> list[ControlRow]:
    """As the stage `controls` writes them, with 0.02 for both linear probes."""
    probes = {probe_name(probe): "robust features give the labels away" for probe in LEAKAGE_PROBES}
    return [
        control_row(model, control, why, Counted(accuracies[model], seed), Counted(accuracies.get(control, 0.02), (seed + 1) % 4),
                    seed, chance)
        for model, controls in CONTROLS_OF.items()
        for control, why in {**controls, **probes}.items()
    ]  # fmt: skip


def transfer_row(source: str, target: str, perturbation: str, rate: float, seed: int) -> TransferRow:
    """Of the misclassified examples, three in four with the source's own mistake."""
    counted = Counted(rate, seed)
    same = round(0.75 * counted.correct)
    return TransferRow(
        source=source, target=target, seed=seed, norm="l2", epsilon=1.5, perturbation=perturbation, n=N,
        not_misclassified=N - counted.correct, same_mistake=same, other_mistake=counted.correct - same,
        transfer_rate=counted.accuracy, ci_low=counted.interval[0], ci_high=counted.interval[1],
        source_rate=0.05 if perturbation == "random" else 0.99, clean_accuracy=0.97,
    )  # fmt: skip


def transfer_rows(rates: Mapping[str, float], seed: int, noise: float = 0.02) -> list[TransferRow]:
    rows = []
    for target, rate in rates.items():
        rows.append(transfer_row("standard", target, "untargeted", rate, seed))
        rows.append(transfer_row("standard", target, "random", noise, seed))
    return rows


def targeted_rows(sources: Mapping[str, float], seed: int, spread: float = 0.002) -> list[TransferRow]:
    """One rate per source, slightly different from network to network, and from source to source."""
    return [
        transfer_row(source, target, "targeted", rate + spread * ((place * (number + 2)) % 5), seed)
        for number, (source, rate) in enumerate(sources.items())
        for place, target in enumerate(NETWORKS)
    ]


def consistency_rows(seed: int, both_wrong: int = 12, same: int = 9) -> list[ErrorConsistencyRow]:
    """The share of the same mistake, its interval and its chance level are empty if no image is misclassified by both."""
    low, high = wilson_interval(same, both_wrong) if both_wrong else (None, None)
    return [
        ErrorConsistencyRow(
            model="standard", other_model="reinit-1", seed=seed, n=N, agreement=0.96, both_wrong=both_wrong,
            same_mistake=same / both_wrong if both_wrong else None, same_mistake_ci_low=low, same_mistake_ci_high=high,
            same_mistake_by_chance=0.25 if both_wrong else None, consistency=0.4,
        )
    ]  # fmt: skip


def full_study(folder: Path, seeds: int = 3, **tables: MakeRows | None) -> StudyResults:
    """Results of `seeds` seeds. tables: rows by seed of those tables that are not to be convincing; None: no such table."""
    convincing: dict[str, MakeRows | None] = {
        "accuracy": lambda seed: accuracy_rows(ACCURACIES, seed),
        "controls": lambda seed: control_rows(ACCURACIES, seed),
        "transfer": lambda seed: [*transfer_rows(RATES, seed), *targeted_rows(SWEEP, seed)],
        "error_consistency": consistency_rows,
    }
    return made_study(folder, seeds, convincing | tables, n=N, full=True)


def made_study(folder: Path, seeds: int, tables: Mapping[str, MakeRows | None], *, n: int, **metadata: Any) -> StudyResults:
    """Results of a run with these tables."""
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        data = {"classes": [*"0123456789"], "train": 90, "test": n, "shape": [1, 8, 8], "notes": [], "left_out": {}}
        about = {"dataset": "digits", "norm": "l2", "epsilon": 1.5, "epsilon_text": "1.5", "data": data}
        run.update_metadata(**about | {"seeds": [*range(seeds)]} | metadata)
        for seed in range(seeds):
            run.record_stage(f"seed{seed}/all", 1.0, [row for make in tables.values() if make for row in make(seed)])
    return StudyResults.read(folder)


def find(results: StudyResults, part: str) -> Finding:
    """The one finding with this in its question."""
    (one,) = [finding for finding in findings(results) if part in finding.question]
    return one


# ---- a page ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(chromium: Browser) -> Page:
    """An empty page for all tests of a module that need one at a time: a new one takes a process, longer than a report does."""
    return chromium.new_context(offline=True).new_page()


@pytest.fixture
def show(tab: Page) -> Callable[..., Page]:
    """Opens a file in that page: see `load_page`. Nothing is left of the file before."""
    return partial(load_page, tab)


def open_page(chromium: Browser, path: Path, *, width: int = 1280, scheme: Any = "light") -> Page:
    """Open a file in a page of its own: see `load_page`."""
    return load_page(chromium.new_context(offline=True).new_page(), path, width=width, scheme=scheme)


def load_page(page: Page, path: Path, *, width: int = 1280, scheme: Any = "light") -> Page:
    """Open a file without a network; fails if the page logs something or requests anything but itself."""
    page.goto("about:blank")
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(media="screen", color_scheme=scheme)
    page.mouse.move(0, 0)
    problems: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: problems.append(message.text),
        "pageerror": lambda error: problems.append(str(error)),
        "request": lambda request: None if request.url.startswith(("data:", path.as_uri())) else problems.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert problems == []
    return page


def accessibility_problems(page: Page) -> list[str]:
    """What axe-core finds on a page with everything unfolded: rule and element."""
    from axe_playwright_python.sync_playwright import Axe  # only here: what needs no browser runs without it

    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    return [f"{problem['id']}: {problem['nodes'][0]['html']}" for problem in found["violations"]]
