"""Findings of a full study: whether a control explains a result away, and to whom adversarial examples transfer."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from notbugs.report.findings.base import Finding, Status
from notbugs.report.findings.construction import relabel_problems
from notbugs.report.format import Estimate, decimal, interval, minus, percent
from notbugs.report.results import CLEAN, StudyResults
from notbugs.report.transferability import (
    ExcessOverControl,
    accuracy_transfer_correlation,
    error_consistency,
    excesses,
    mistake_shares,
    own_rate,
    transfer_rate,
)
from notbugs.runs.tables.study import SetRow
from notbugs.stats import student_interval
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.catalog.models import ARCHITECTURES, EPSILON_TEXTS, LEARNERS, MODELS, OWN_MODELS, trained_on
from notbugs.study.comparisons import (
    ALTERNATIVE_EXPLANATIONS,
    CONTROLS_OF,
    TRANSFER_SOURCES,
    control_short,
    learner_images,
)

LESS_REACHED = 0.75  # of the share of the controlled set: a control of the user's own that reaches fewer new labels
SAME_SIZE = 0.05  # mean L2 norms that differ by this share at most are called the same
NETWORKS = ("reinit-1", *ARCHITECTURES)  # targets that differ from the source


def findings(results: StudyResults) -> list[Finding]:
    """The findings of a full study, in reading order; of a quick one on controls of the user's own, if there are any."""
    entries = excesses(results)
    found = [
        _exceeds_controls(results, entries, "random-labels", "D_rand"),
        _incl_true(entries),
        _exceeds_controls(results, entries, "next-labels", "D_det"),
        _transfer(results, ARCHITECTURES, "other architectures"),
        _transfer(results, LEARNERS, "non-neural classifiers"),
        _initialization(results),
        _accuracy_and_transfer(results),
        _robust_sources(results),
    ]
    return [finding for finding in found if finding]


# ---- controls --------------------------------------------------------------------------------------------------------------


def _exceeds_controls(results: StudyResults, entries: Sequence[ExcessOverControl], set: str, name: str) -> Finding | None:
    own = [entry for entry in entries if entry.model == trained_on(set)]
    if not own:
        return None
    controls = [entry for entry in own if entry.control not in ALTERNATIVE_EXPLANATIONS]
    alternatives = [entry for entry in own if entry.control in ALTERNATIVE_EXPLANATIONS]
    text = f"Trained on {set} ({name}): test accuracy {percent(own[0].accuracy)}."
    if controls:
        listed = "; ".join(f"{_control(e)} {percent(e.control_accuracy)} ({e.excess.signed_points})" for e in controls)
        text += f" Controls, and the excess over each in percentage points: {listed}."
    filtered = next((entry for entry in entries if _is_filtered(entry, set)), None)
    if filtered:
        text += f" Without images that an undertrained model already predicts as their new label: {percent(filtered.accuracy)}."
        controls = [*controls, filtered]
    if alternatives:
        listed = "; ".join(f"{_control(entry)} {percent(entry.control_accuracy)}" for entry in alternatives)
        text += f" Trained without an attack: {listed}."
    own_controls = [entry for entry in controls if entry.control in OWN_MODELS]
    text += "".join(_reached(results, set, entry) + _other_size(results, set, entry) for entry in own_controls)
    which = "each of its controls" if results.metadata.full else "the controls that were run"
    question = f"Does the {name} result exceed {which}?"
    problem = relabel_problems(results, set)
    if controls and problem and own[0].above_chance.ci_low <= 0:
        return Finding(question, "inconclusive", f"{text} But {problem}")
    return _compared(own[0], controls, filtered, question, text)


def _reached(results: StudyResults, set: str, entry: ExcessOverControl) -> str:
    """How many images of a control of the user's own, and of the set that it controls, look like their new label to the model."""
    own, controlled = (results.target_reached(name) for name in (MODELS[entry.control].trained_on, set))
    if own is None or controlled is None:
        return ""
    lacks = " It may lack more of the label's features than it was made to lack." if own < LESS_REACHED * controlled else ""
    return (
        f" The standard model predicts {percent(own)} of the images of {_control(entry)} as their new label, "
        f"{percent(controlled)} of those of {set}.{lacks}"
    )


def _other_size(results: StudyResults, set: str, entry: ExcessOverControl) -> str:
    """That the perturbations of a control of the user's own are of another size than those that it controls; "" if not."""
    rows = [row for row in results.rows(SetRow) if row.mean_l2]
    sizes = [[row.mean_l2 or 0.0 for row in rows if row.set == name] for name in (MODELS[entry.control].trained_on, set)]
    if not all(sizes):
        return ""
    own, controlled = map(fmean, sizes)
    if abs(own - controlled) <= SAME_SIZE * controlled:
        return ""
    return (
        f" Caution: the perturbations of {_control(entry)} have a mean L2 norm of {own:.3g}, those of {set} {controlled:.3g}. "
        "The difference can be due to their size (construct.rescaled_perturbations keeps it)."
    )


def _compared(
    result: ExcessOverControl, controls: Sequence[ExcessOverControl], filtered: ExcessOverControl | None, question: str, text: str
) -> Finding:
    """The finding from the excess over each control."""
    if not controls:
        return Finding(question, "inconclusive", f"{text} Without controls this is not evidence yet.")
    if result.above_chance.ci_low <= 0:
        return Finding(question, "not supported", f"{text} The result itself is not measurably above chance level.")
    least = min((entry.excess for entry in controls), key=lambda excess: excess.ci_low)
    exceeded = [entry for entry in controls if entry.excess.ci_low > 0 and entry.above_chance.ci_low > 0]
    if len(exceeded) == len(controls):
        return Finding(question, "supported", f"{text} The result exceeds each control.", effect=least)
    left = [entry for entry in controls if entry not in exceeded]
    if filtered and filtered in left:
        than = "chance level" if filtered.above_chance.ci_low <= 0 else "its control"
        words = f"Without the images that look like their new label, accuracy is not measurably above {than}"
        text += f" {words}: these images may explain the result."
    if names := ", ".join(_control(entry) for entry in left if entry is not filtered):
        text += f" Not measurably exceeded, so it may explain the result: {names}."
    return Finding(question, "partly supported" if exceeded else "not supported", text)


def _is_filtered(entry: ExcessOverControl, set: str) -> bool:
    filtered = (name for name, spec in DATASETS.items() if spec.construction == "filter" and spec.source_dataset == set)
    return entry.model in map(trained_on, filtered)


def _control(entry: ExcessOverControl) -> str:
    return control_short(entry.control)


def _incl_true(entries: Sequence[ExcessOverControl]) -> Finding | None:
    """The paper's own D_rand, in which one label in K is right by chance."""
    model = trained_on("random-labels-incl-true")
    entry = next((entry for entry in entries if entry.model == model and entry.control in CONTROLS_OF[model]), None)
    if not entry:
        return None
    text = (
        f"Trained on random-labels-incl-true (D_rand as in the paper): test accuracy {percent(entry.accuracy)}. Its control "
        f"reaches {percent(entry.control_accuracy)}. The excess is {entry.excess.points} ({entry.excess.ci}). In both, one label "
        "in K is right by chance. The control leaves these images unperturbed and adds one random pattern per label to all "
        "others, so it uses no model."
    )
    question = "Does D_rand as in the paper, with labels that are right by chance, exceed its control?"
    supported = entry.excess.ci_low > 0 and entry.above_chance.ci_low > 0
    return Finding(question, "supported" if supported else "not supported", text, effect=entry.excess)


# ---- transferability -------------------------------------------------------------------------------------------------------


def _transfer(results: StudyResults, titles: Mapping[str, str], who: str) -> Finding | None:
    known = {}
    for name in titles:
        rate, random = (transfer_rate(results, "standard", name, perturbation) for perturbation in ("untargeted", "random"))
        if rate and random:
            known[name] = rate, random
    if not known:
        return None
    listed = ", ".join(f"{titles[name]} {percent(rate.mean)}" for name, (rate, _) in known.items())
    same = [found.mean for name in known if (found := mistake_shares(results, "standard", name)[1])]
    own = own_rate(results, "standard")
    source = f"; the standard model itself misclassifies {own.percent}" if own else ""
    mistakes = f" With the same mistake as the standard model: {percent(min(same))} to {percent(max(same))}." if same else ""
    text = (
        f"Adversarial examples of the standard model at {results.threat_model()} are misclassified by {len(known)} {who}: "
        f"{listed}{source}. After random perturbations of the same size: at most "
        f"{percent(max(random.mean for _, random in known.values()))}.{mistakes} Counted are images that both models classify "
        "correctly without a perturbation."
    )
    data = results.metadata.data
    if titles is LEARNERS and data.train and (fitted := learner_images(data.shape, data.train)) < data.train:
        text += f" They were fitted to {fitted:,} of the {data.train:,} training images: more take hours and gigabytes."
    beyond = [name for name, (rate, random) in known.items() if rate.ci_low > random.ci_high]
    status: Status = "supported" if len(beyond) == len(known) else "partly supported" if beyond else "not supported"
    return Finding(f"Do adversarial examples transfer to {who}?", status, text)


def _initialization(results: StudyResults) -> Finding | None:
    same, other = transfer_rate(results, "standard", "same-init"), transfer_rate(results, "standard", "reinit-1")
    random = transfer_rate(results, "standard", "reinit-1", "random")
    if not (same and other and random):
        return None
    text = (
        f"Adversarial examples of the standard model are misclassified by a network with another random initialization: "
        f"{other.percent} (after random perturbations {random.percent}). With the same initialization: {same.percent}."
    )
    for set in ("random-labels", "next-labels"):
        text += _same_initialization(results, set)
    found = error_consistency(results, "standard", "reinit-1")
    share, chance, both = found.same_mistake, found.same_mistake_by_chance, found.both_wrong
    if share and chance and both:
        text += (
            f" On clean images, both misclassify {both.mean:.3g} test images, {share.percent} of these as the same class "
            f"(95 % CI {share.interval}; {chance.percent} by chance)."
        )
    status: Status = "supported" if other.ci_low > random.ci_high else "not supported"
    return Finding("Do networks with another random initialization share adversarial examples?", status, text)


def _same_initialization(results: StudyResults, set: str) -> str:
    """A sentence on training on a relabeled set from the source's initialization, "" if that was not measured."""
    model = trained_on(set)
    twin = next(name for name, spec in MODELS.items() if spec.trained_on == set and spec.init_from == "standard")
    same, other = results.accuracy(twin), results.accuracy(model)
    gap = results.difference((twin, CLEAN), (model, CLEAN))
    if not (same and other and gap):
        return ""
    return (
        f" Trained on {set}: test accuracy {same.percent} from the source's initialization, {other.percent} from another "
        f"({gap.signed_points} percentage points, {gap.ci})."
    )


def _accuracy_and_transfer(results: StudyResults) -> Finding | None:
    found = accuracy_transfer_correlation(results)
    if found is None:
        return None
    whole, others = found.correlation, found.without_own
    names = ARCHITECTURES | {"reinit-1": "the study's network"}
    listed = "; ".join(f"{names[target]} {percent(accuracy)} and {percent(rate)}" for target, accuracy, rate in found.points)
    ends = interval(whole.ci_low, whole.ci_high, 2)
    text = (
        f"Correlation {decimal(whole.mean)} (95 % CI {ends} over {whole.n} architectures), {decimal(others.mean)} without the "
        f"source's own. Test accuracy after training on D_det, and transfer rate from the standard model: {listed}."
    )
    question = "Do architectures that learn more from D_det misclassify more transferred examples? (figure 3 of the paper)"
    if whole.ci_low > 0:
        return Finding(question, "supported", text)
    if whole.ci_high < 0:
        return Finding(question, "not supported", f"{text} That is the opposite of the paper's finding.")
    return Finding(question, "inconclusive", f"{text} The CI includes 0: so few architectures cannot decide it.")


def _robust_sources(results: StudyResults) -> Finding | None:
    rates = {source: [transfer_rate(results, source, name, "targeted") for name in NETWORKS] for source in TRANSFER_SOURCES}
    known = {source: [rate for rate in found if rate] for source, found in rates.items()}
    if any(len(found) < len(NETWORKS) for found in known.values()):
        return None
    means = {source: sum(rate.mean for rate in found) / len(found) for source, found in known.items()}
    listed = ", ".join(f"{EPSILON_TEXTS[source]}: {percent(mean)}" for source, mean in means.items())
    text = f"Mean targeted transfer rate to {len(NETWORKS)} networks, by the ε of the source's adversarial training: {listed}."
    question = "Do adversarial examples of a slightly robust source transfer best?"
    best = max(means, key=lambda source: means[source])
    if best in ("standard", "adversarial"):
        source = "standard" if best == "standard" else "most robust"
        return Finding(question, "not supported", f"{text} The {source} source is best.")
    return _best_source(known, best, question, text)


def _best_source(known: Mapping[str, Sequence[Estimate]], best: str, question: str, text: str) -> Finding:
    """The best source against both ends, its CIs corrected for the choice of the best."""
    candidates = len(TRANSFER_SOURCES) - 2
    gains = {}
    for end in ("standard", "adversarial"):
        differences = [one.mean - other.mean for one, other in zip(known[best], known[end], strict=True)]
        gains[end] = student_interval(differences, candidates)
    gain, low, high = gains["standard"]
    text += minus(
        f" The best, {EPSILON_TEXTS[best]}, exceeds the standard source by {100 * gain:.1f} percentage points (95 % CI "
        f"{interval(100 * low, 100 * high)} over the {len(NETWORKS)} networks, corrected for choosing the best of {candidates})."
    )
    if gains["adversarial"][1] <= 0:
        gain, low, high = gains["adversarial"]
        ends = interval(100 * low, 100 * high)
        text += minus(f" Over the most robust source: {100 * gain:.1f} percentage points (95 % CI {ends}).")
    if min(low for _, low, _ in gains.values()) <= 0:
        return Finding(question, "not supported", text)
    if min(rate.seeds for found in known.values() for rate in found) > 1:
        return Finding(question, "supported", text)
    return Finding(question, "partly supported", f"{text} One training per source only.")
