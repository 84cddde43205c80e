"""What the terminal shows of a study: the plan, then how far it is and how long it will take, then each stage as it ends."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from textwrap import shorten
from threading import Timer
from typing import TYPE_CHECKING, Any

from notbugs.cli.console import QUIET, running_stages
from notbugs.cli.notes import data_lines, new_data_lines, new_model_lines
from notbugs.errors import printable
from notbugs.runs.metadata import NORM_NAMES
from notbugs.study.time_left import TimeLeft

if TYPE_CHECKING:
    from notbugs.runs.tables.data_check import DataCheckRow
    from notbugs.runs.tables.row import Row
    from notbugs.runs.tables.study import SetRow
    from notbugs.study.plan import Plan

SILENT = 15.0  # seconds after which a command that has said nothing says what it does
LONG = 600.0  # seconds from which the plan says what would be faster
SMALL, ENOUGH = 0.1, 200  # a difference that should be seen, and test images that show it
BESIDE = 42  # columns of a bar, of the percentage and of the words after them
FASTER_SIDE, FASTER_COUNT = 64, 1000  # of images


class StudyProgress:
    """Shows a study; its methods are the callbacks of `pipeline.run`.

    Parameters
    ----------
    display : rich.progress.Progress
        Started, with the fields `words`.
    """

    def __init__(self, display: Any) -> None:
        self.display = display
        self.estimates: Mapping[str, float] = {}
        self.shares: dict[str, float] = {}
        self.begun: set[str] = set()  # stages that an earlier command began, until they tell how far they are
        self.bars: dict[str, Any] = {}
        self.titles: Mapping[str, str] = {}
        self.numbers: dict[str, int] = {}  # of the stages that began, in this order
        self.finished, self.planned = 0, False
        self.said = time.monotonic()
        self.left: TimeLeft | None = None

    def on_plan(self, plan: "Plan") -> None:
        """Print what will be done, and how long it will take."""
        self.planned = True
        self.estimates, self.titles, self.begun = plan.stages, plan.titles, {*plan.begun}
        at_once, slower = plan.workers if plan.knows_workers else None, plan.slower
        if plan.together:  # one stage after the other, each in a part of its time
            at_once, slower = 1, slower / plan.workers
        self.left = TimeLeft(plan.stages, plan.needs, plan.kinds, at_once, slower)
        self.said = time.monotonic()
        for line in [*new_model_lines(), *plan_lines(plan)]:
            self._print(line)
        new_data_lines()  # they are among these
        if plan.stages:
            self.bars[""] = self.display.add_task(self._all(), total=1.0, words="")

    def on_long_start(self) -> None:
        """Say what is being done, if nothing has been said."""
        if not self.planned:
            self._print("Reading and checking the images; then a few batches are timed.")

    def on_progress(self, stage: str, share: float, words: str) -> None:
        """Move the bar of a stage, and the one of all stages."""
        ended = share >= 1.0 and not words
        self.shares[stage] = share
        if self.left and not ended:
            self._tell(self.left, stage, share)
        if stage not in self.bars:
            self.bars[stage] = self.display.add_task(self._fitting(stage), total=1.0, words=words)
        self.display.update(self.bars[stage], completed=share, words=words)
        if ended:
            self.display.remove_task(self.bars.pop(stage))
        if "" in self.bars:
            self.display.update(self.bars[""], description=self._all(), completed=self.share, words=self._left())
        if not self.display.console.is_terminal and time.monotonic() - self.said > QUIET:
            running = running_stages({self._described(name): each for name, each in self.shares.items()})
            self._print(f"{running and f'{running}; '}{self.finished} of {len(self.estimates)} stages done, {self._left()}")

    def on_stage(self, name: str, rows: "Sequence[Row]", seconds: float) -> None:
        """Print a line for a stage that is recorded."""
        self.finished += 1
        self.shares[name] = 1.0
        if self.left:
            self.left.ended(name, time.monotonic())
        count = f"{self.finished} of {len(self.estimates)}, " if self.estimates else ""
        self._print(": ".join(filter(None, (f"done: {self.titles.get(name, name)} ({count}{seconds:.0f} s)", found_in(rows)))))

    @property
    def share(self) -> float:
        """Of the estimated time of all stages, how much is done."""
        whole = sum(self.estimates.values())
        return sum(self.estimates.get(name, 0.0) * share for name, share in self.shares.items()) / whole if whole else 1.0

    def _described(self, stage: str) -> str:
        """A stage in plain words, after which one of how many it is."""
        title = self.titles.get(stage, stage)
        if stage not in self.estimates:
            return title
        number = self.numbers.setdefault(stage, len(self.numbers) + 1)
        return f"stage {number} of {len(self.estimates)}: {title}"

    def _fitting(self, stage: str) -> str:
        """As much of it as leaves room for the bar, the percentage and a few words."""
        text, room = self._described(stage), max(20, self.display.console.width - BESIDE)
        return text if len(text) <= room else f"{text[: room - 1]}…"

    def _all(self) -> str:
        return f"all stages: {self.finished} of {len(self.estimates)} done"

    def _tell(self, left: "TimeLeft", stage: str, share: float) -> None:
        if stage in self.begun and share > 0:
            self.begun.discard(stage)
            left.goes_on(stage, share, time.monotonic())
        else:
            left.report(stage, share, time.monotonic())

    def _left(self) -> str:
        """Time left, in words."""
        return f"{duration(self.left.seconds(time.monotonic()))} left" if self.left else ""

    def _print(self, line: str) -> None:
        self.said = time.monotonic()
        self.display.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def study_progress() -> Iterator[StudyProgress]:
    """A display on standard error; without a terminal only lines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:40}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[words]}"),
    )
    display = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with display if console.is_terminal else nullcontext():  # as in `console.progress`
        shown = StudyProgress(display)
        start = Timer(SILENT, shown.on_long_start)
        start.daemon = True
        start.start()
        try:
            yield shown
        finally:
            start.cancel()


def plan_lines(plan: "Plan") -> Iterator[str]:
    """What a study is about to do, in a few sentences."""
    from notbugs.stats import visible_difference
    from notbugs.study.epsilon_source import epsilon_reason

    config, train, test, found = plan.config, plan.splits.train, plan.splits.test, plan.distances
    channels, height, width = train.shape
    colors = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
    yield (
        f"{config.dataset}: {len(train):,} training and {len(test):,} test images, {width}x{height}, {colors}, "
        f"{len(train.classes)} classes."
    )
    if (visible := visible_difference(len(test))) > SMALL:
        yield (
            f"Few test images: with {len(test)} a difference between two accuracies is hardly seen below {100 * visible:.0f} "
            f"percentage points. For {100 * SMALL:.0f} about {ENOUGH} are needed."
        )
    yield from data_lines(plan.splits)
    yield from finding_lines(plan.findings)
    reason = epsilon_reason(config.epsilon_from, config.norm, found.other_class, found.same_class)
    relabeling = f" Relabeling: ε = {config.relabel_epsilon:.4g}." if plan.relabels else ""
    yield f"{NORM_NAMES[config.norm]} ε = {config.epsilon:.4g}. {reason} A typical image has norm {found.norm:.3g}.{relabeling}"
    yield from _per_pixel_lines(plan)
    if found.same_scene:
        yield (
            "Many images are so close to another one of their class that they seem to show the same scene, as frames of a video "
            "do. Keep all images of a scene in one part, with --group: in training and test they make test accuracy too high."
        )
    size = f" of width {config.width}" if config.width else ""
    flips = ", random horizontal flips" if config.flip else ""
    counts = f"{_count(config.epochs, 'epoch')}, {_count(config.seeds, 'seed')}"
    precision = " in bfloat16 (--no-bf16: float32)" if config.bf16 else ""
    yield f"{config.network}{size}, {counts}{flips}, on {config.device}{precision}."
    yield from _given_lines(plan)
    if not plan.stages:
        yield "Everything is done already."
        return
    yield (
        f"{_count(len(plan.stages), 'stage')}, {plan.workers} at once: {duration(plan.seconds)}, estimated from timed batches."
    )
    if plan.begun:
        begun = "; ".join(plan.titles.get(name, name) for name in plan.begun)
        yield f"Less than that: what was interrupted resumes where it was ({begun})."
    if faster := faster_options(plan):
        yield f"Faster: {'; '.join(faster)}."


def _per_pixel_lines(plan: "Plan") -> Iterator[str]:
    """In L2, an epsilon that distances gave, beside the one by the number of pixels."""
    from notbugs.study.epsilon import as_on_cifar, hardly_visible

    config, shape = plan.config, plan.splits.train.shape
    if config.norm != "l2" or config.epsilon_from != "gap" or config.epsilon <= (usual := as_on_cifar(shape)):
        return
    beside = f"That is {config.epsilon / usual:.2g} times as much per pixel as 0.5 on CIFAR-10"
    if hardly_visible(shape, config.epsilon):
        yield f"{beside}: a person can see such perturbations. For perturbations that are hardly visible: --epsilon {usual:.4g}."
    else:
        yield f"{beside}: as much would be --epsilon {usual:.4g}."


def finding_lines(findings: "Sequence[DataCheckRow]", *, every: bool = False) -> Iterator[str]:
    """The serious findings of a data check, why images are not mirrored, and how many others its table has; or every one."""
    from notbugs.datacheck.classes import MIRRORING
    from notbugs.report.data_check import finding_text

    said = [row for row in findings if every or row.serious or row.problem == MIRRORING]
    for row in said:
        yield f"{'WARNING' if row.serious else 'Data check'}: {finding_text(row)}"
    if others := len(findings) - len(said):
        are = "is" if others == 1 else "are"
        more = "other " if said else ""
        left = [row.problem for row in findings if row not in said]
        named = ", ".join(left[:3]) + (" and others" if others > 3 else "")
        yield f"Data check: {_count(others, f'{more}finding')} that {are} not serious ({named}), see tables/data_check.csv."


def _given_lines(plan: "Plan") -> Iterator[str]:
    """What is known of the standard model before any work, if it was given."""
    given, found = plan.given, plan.given_accuracy
    if given is None or found is None:
        return
    yield (
        f"Standard model: {given.name}, given: not trained here, and the same in every seed. Its features, which D_NR keeps: "
        f"{given.features}. sha256 of {given.sha256_of}: {given.sha256[:16]}…"
    )
    interval = f"[{100 * found.ci_low:.1f}, {100 * found.ci_high:.1f}]"
    yield f"Its clean accuracy: {100 * found.accuracy:.1f} % {interval} of {found.n} test images."
    if given.warning:
        yield f"WARNING: {given.warning}"
    chance = plan.splits.test.labels.bincount().max().item() / len(plan.splits.test)
    if found.ci_low <= chance:
        classes = ", ".join(plan.splits.train.classes[:10])
        yield (
            f"WARNING: that is not measurably above chance level, {100 * chance:.1f} %. The model must take pixels in [0, 1] and "
            f"have its outputs in the order of the classes: {classes}{', …' if len(plan.splits.train.classes) > 10 else ''}."
        )


def faster_options(plan: "Plan") -> list[str]:
    """Options with which a long study takes less time, and how long it would take."""
    if plan.seconds < LONG:
        return []
    side, count, options = max(plan.splits.train.shape[1:]), len(plan.splits.train), []
    if side > FASTER_SIDE:
        options.append(f"--resize {FASTER_SIDE} ({duration(plan.seconds * (FASTER_SIDE / side) ** 2)})")
    if count > FASTER_COUNT:
        options.append(f"--limit {FASTER_COUNT} ({duration(plan.seconds * FASTER_COUNT / count)})")
    if plan.config.seeds > 1:
        options.append(f"--seeds 1 ({duration(plan.seconds / plan.config.seeds)})")
    return options or ["a GPU, with --device cuda"]


def found_in(rows: "Sequence[Row]") -> str:
    """What a stage found, in a few figures."""
    from notbugs.attacks import ensemble_name
    from notbugs.runs.tables.study import AccuracyRow, SetRow, TrainingRow

    epochs = [row for row in rows if isinstance(row, TrainingRow)]
    if epochs:
        return f"accuracy in training {100 * epochs[-1].accuracy:.1f} %"
    of_sets = [row for row in rows if isinstance(row, SetRow)]
    if of_sets:
        return "; ".join(filter(None, (_constructed(of_sets[0]), _empty(of_sets[0]))))
    accuracies = [row for row in rows if isinstance(row, AccuracyRow) and row.set == "test"]
    if len({row.model for row in accuracies}) != 1:
        return ""
    stronger = [row for row in accuracies if not row.attack.startswith(ensemble_name("quick"))]
    if any(row.epsilon for row in stronger):  # then the others are further points of the accuracy curve
        accuracies = stronger
    return ", ".join(
        f"{100 * row.accuracy:.1f} % " + (f"at {NORM_NAMES[row.norm]} {row.epsilon:.4g}" if row.epsilon else "clean")
        for row in accuracies
    )


def _constructed(row: "SetRow") -> str:
    if row.feature_error is not None:
        return f"feature error {row.feature_error:.3f}"
    if row.target_reached is not None:
        within = f" within ε = {row.epsilon:.4g}" if row.epsilon else ""
        return f"new label reached for {100 * row.target_reached:.1f} % of the images{within}"
    return ""


def _empty(row: "SetRow") -> str:
    return f"WARNING: no image has the label {shorten(row.empty_classes, 120)}" if row.empty_classes else ""


def duration(seconds: float) -> str:
    """ "about 3 minutes": no more precise than an estimate is."""
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"about {_count(round(seconds / length), unit)}"
    return f"about {_count(max(1, round(seconds / 10)) * 10, 'second')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
