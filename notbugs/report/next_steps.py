"""What a reader may do with a study now, with its own paths and options."""

from collections.abc import Iterator
from typing import NamedTuple

from notbugs import shell
from notbugs.data_config import BEYOND_LIMIT, DATA_FIELDS
from notbugs.extensions.registry import command_prefix
from notbugs.report.findings.construction import REPEAT, larger_relabel_epsilon, relabel_problems, split_problems, split_remedies
from notbugs.report.findings.headline import help_under_attack
from notbugs.report.findings.split import ROBUST
from notbugs.report.format import percent
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.study.catalog.models import trained_on
from notbugs.study.commands import beside, command_of, option_words


class Step(NamedTuple):
    """words: what and why; code: a path or a command, "" if there is none; short: the same in a line, of the main steps."""

    words: str
    code: str
    short: str = ""


def next_steps(results: StudyResults) -> Iterator[Step]:
    """What is worth doing next, what follows from the findings first.

    Parameters
    ----------
    results : StudyResults

    Yields
    ------
    Step
    """
    metadata, options, out = results.metadata, results.metadata.options, results.run.folder
    same, threat = shell.quote(str(out)), f"{metadata.norm}:{metadata.epsilon_text}"
    data = _arguments(results, *DATA_FIELDS)
    given, problem = options.get("model"), split_problems(results)
    audit, files = (shell.quote(str(beside(out, what))) for what in ("audit", "files"))
    attack = f"notbugs attack {shell.quote(shell.argument(str(given or 'MODEL')))} {data} --epsilon {threat} --out {audit}"
    if given is None:
        yield Step(
            "Measure how robust a classifier of yours is. The command attacks it on these images; for others name their data set "
            "and its options in place of these, and leave out --epsilon: it is then chosen from the images.",
            attack,
            "Measure how robust a classifier of yours is, on test images as it gets them (ε is chosen from these, or by "
            "--epsilon): notbugs attack MODEL DATASET.",
        )
    yield from _use_adversarial(results)
    yield from _confirm(results)
    if given is not None:
        yield Step("Attack the given model in other threat models:", attack)
    if not metadata.full:
        det, control = (results.accuracy(trained_on(name)) for name in ("next-labels", "next-labels-shuffled"))
        which = "all controls, that of D_det among them" if det and not control else "all controls"
        several = _beyond_limit(results) and len(metadata.seeds) == 1  # step 3 is a run of its own
        yield Step(
            f"Run {which}: they test other explanations of these results.",
            f"{command_prefix()}notbugs run --full --out {same}",
            f"Run {which} (or add --full to step 3, for all its seeds):" if several else f"Run {which}:",
        )
    if given is None:
        mine = command_of(metadata.dataset, {**options, "model": "MODEL"}, beside(out, "mine"))
        yield Step(
            "Repeat the whole study with a classifier of yours as the standard model. MODEL is a file of weights, TorchScript, "
            "ONNX, or a name as timm:resnet18 (documentation: Models):",
            mine,
        )
    yield Step(
        "List which training files models classify correctly also within ε, which not, and which are likely mislabeled:",
        f"notbugs files {_arguments(results, *DATA_FIELDS, 'norm', 'epsilon')} --out {files}",
    )
    if problem:
        improved = {**options, **split_remedies(results)}
        why = problem.removesuffix(REPEAT).rstrip(".")
        yield Step(f"Improve D_R: {why}:", command_of(metadata.dataset, improved, beside(out, "improved")))
    yield from _enlarge_perturbations(results)
    yield from _use_robust_version(results)
    if not problem and not metadata.robust_strong:
        yield Step(
            "Construct a stronger D_R, eight versions of each image, and train on it for longer. On all of CIFAR-10 that raised "
            "robust accuracy at L2 0.5 from 27.8 to 45.1 % (one seed; documentation: Robustness from data alone):",
            f"{command_prefix()}notbugs run --robust-strong --out {same}",
        )


def _confirm(results: StudyResults) -> Iterator[Step]:
    """Further seeds, and the images that are beyond the limit."""
    metadata, out = results.metadata, results.run.folder
    one, beyond = len(metadata.seeds) == 1, _beyond_limit(results)
    seeds, another = "two more seeds" if one else "", "Another training may give other figures. "
    if beyond:
        used = (metadata.data.train or 0) + (metadata.data.test or 0)
        longer = (used + beyond) / max(1, used) * (3 if one else 1)
        options = {**metadata.options, "limit": None, "seeds": max(3, len(metadata.seeds))}
        what = " and ".join(filter(None, (f"all {used + beyond:,} images", seeds)))
        yield Step(
            f"Repeat the study with {what}. {another if one else ''}{_precision(results)}That takes about {longer:.0f} times as "
            "long:",
            command_of(metadata.dataset, options, beside(out, "all")),
            f"Repeat the study with {what}:",
        )
    elif one:
        yield Step(
            f"Repeat the study with {seeds}. {another}{_precision(results)}Only more test images narrow that, not this command:",
            f"{command_prefix()}notbugs run --seeds 3 --out {shell.quote(str(out))}",
            f"See what another training changes, with {seeds} (only more test images narrow the CIs above):",
        )


def _beyond_limit(results: StudyResults) -> int:
    """How many images `--limit` left out."""
    return sum(count for reason, count in results.metadata.data.left_out.items() if reason.startswith(BEYOND_LIMIT))


def _arguments(results: StudyResults, *names: str) -> str:
    """The data set and these options of the study, for another command."""
    options = {name: results.metadata.options.get(name) for name in names}
    return shell.join([shell.argument(results.metadata.dataset), *option_words(options)])


def _use_adversarial(results: StudyResults) -> Iterator[Step]:
    """Advice to use adversarial training, where it measurably helps."""
    radius = help_under_attack(results, "adversarial")
    if radius is not None:
        kept = {name: results.metadata.options.get(name) for name in ("resize", "resize_mode", "network", "width")}
        settings = shell.join(["--norm", results.metadata.norm, *option_words(kept)])
        yield Step(
            f"Where someone may attack the classifier, train adversarially ({_accuracies(results, 'adversarial', radius)}). "
            "DATASET is a folder of CLASS folders, or any other form that notbugs reads; ε is chosen from the images, or by "
            "--epsilon; --network trains another network, as timm:resnet18 or module:function (documentation: Models). On other "
            f"images both accuracies will differ. The model trained here{_of_first_seed(results, 'adversarial', radius)} is "
            f"{results.run.folder / 'models' / 'adversarial.safetensors'}; notbugs.models.load reads it.",
            f"notbugs train DATASET --loss adversarial {settings} --out adversarial.safetensors",
            f"Where someone may attack it, train adversarially (here{_epochs(results)} "
            f"{_accuracies(results, 'adversarial', radius)}; --network for yours):",
        )


def _epochs(results: StudyResults) -> str:
    """How long models were trained; "" if that is not known."""
    epochs = results.metadata.settings.get("epochs")
    return f" after {epochs} epochs" if epochs else ""


def _of_first_seed(results: StudyResults, model: str, radius: int) -> str:
    """Which of several seeds a file is of, and its accuracies; "" for one seed."""
    seed = results.metadata.seeds[0] if results.metadata.seeds else 0
    rows = [results.accuracy_by_seed(model, radius=each).get(seed) for each in (CLEAN, radius)]
    if len(results.metadata.seeds) < 2 or not all(rows):
        return ""
    clean, robust = (percent(row.accuracy) for row in rows if row)
    shares = [row.accuracy for row in results.accuracy_by_seed(model, radius=radius).values()]
    others = f"the seeds have {percent(min(shares))} to {percent(max(shares))}"
    return f" (seed {seed}: {clean} clean, {robust} within {results.threat_model(radius)}; {others}, above is their mean)"


def _precision(results: StudyResults) -> str:
    """How precise so many test images are, in the worst of the main figures; "" where that is not known."""
    found = [
        results.accuracy(model, radius=each) for model in ("standard", "adversarial", ROBUST) for each in (CLEAN, HALF, FULL)
    ]
    halves = [50 * (each.ci_high - each.ci_low) for each in found if each]
    return (
        f"The {results.metadata.data.test:,} test images alone leave up to ±{max(halves):.0f} percentage points. "
        if halves
        else ""
    )


def _use_robust_version(results: StudyResults) -> Iterator[Step]:
    """D_R, with what it is for."""
    folder, radius = results.run.folder / "datasets" / "robust", help_under_attack(results, ROBUST)
    folder = folder / "train" if (folder / "train").is_dir() else folder
    robust = results.accuracy(ROBUST, radius=radius) if radius is not None else None
    if folder.is_dir() and radius is not None and robust and results.beside_chance(robust):
        yield Step(
            f"Train your own network on D_R, which is no defense at this ε ({_accuracies(results, ROBUST, radius)}):", str(folder)
        )
    elif folder.is_dir() and radius is not None:
        less = results.difference(("adversarial", radius), (ROBUST, radius))
        weaker = "weaker than adversarial training, " if less and less.ci_low > 0 else ""
        yield Step(
            "Where your training code cannot attack images, train it on D_R instead of the original images; it was made with the "
            f"adversarially trained model of this run ({weaker}{_accuracies(results, ROBUST, radius)}). The data set"
            f"{_of_first_seed(results, ROBUST, radius)}:",
            str(folder),
        )
    elif folder.is_dir() and not split_problems(results):
        yield Step("Train your own network on D_R:", str(folder))


def _enlarge_perturbations(results: StudyResults) -> Iterator[Step]:
    """Advice for D_rand and D_det that show only the images' own features."""
    larger = larger_relabel_epsilon(results, "random-labels")
    if larger and "--relabel-epsilon" in relabel_problems(results, "random-labels"):
        options = {**results.metadata.options, "relabel_epsilon": larger}
        yield Step(
            "Allow larger perturbations in D_rand and D_det, whose results are unclear at this ε:",
            command_of(results.metadata.dataset, options, beside(results.run.folder, "relabel")),
            "Allow larger perturbations in D_rand and D_det, in a run of its own (--full adds their other controls):",
        )


def _accuracies(results: StudyResults, model: str, radius: int) -> str:
    """Clean and robust accuracy of a model."""
    clean, robust = results.accuracy(model), results.accuracy(model, radius=radius)
    below = f", {results.beside_chance(robust)}" if robust and results.beside_chance(robust) else ""
    within = f"{robust.percent if robust else '–'} within {results.threat_model(radius)}{below}"
    return f"{clean.percent if clean else '–'} clean, {within}"
