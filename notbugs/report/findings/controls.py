"""The further questions of a full study: what could explain a result away, and who else inherits the blind spots."""

from typing import NamedTuple

from notbugs.report.results import AccuracyResults, Estimate, Finding, Verdict, percent
from notbugs.report.weighed import CONTROLS, FAMILIES, LEARNERS, SHORT, SOURCES, ControlResults, Excess, control_results
from notbugs.runs.folder import RunFolder
from notbugs.stats import bonferroni_interval

BESIDE = ("on-errors-only", "on-photographs")  # no doubts of the result: other ways of teaching as much


def findings(run: RunFolder, measured: AccuracyResults) -> list[Finding]:
    """What a full study can answer so far, in reading order; [] of a quick one."""
    weighed = control_results(run)
    entries = weighed.excesses()
    answers = [
        _against_controls(entries, "on-random-labels", "random labels"),
        _incl_true(entries),
        _against_controls(entries, "on-next-labels", "next labels"),
        _transfer_to(weighed, "Are other kinds of network fooled by the same images?", FAMILIES, "other kinds of network"),
        _transfer_to(
            weighed, "And learning algorithms that are no networks?", LEARNERS, "learning algorithms that are no networks"
        ),
        _initialization(weighed, measured),
        _accuracy_and_transfer(weighed, measured),
        _robust_sources(weighed),
    ]
    return [answer for answer in answers if answer]


def _against_controls(entries: list[Excess], result: str, words: str) -> Finding | None:
    own = [entry for entry in entries if entry.result == result]
    if not own:
        return None
    doubts, beside = ([e for e in own if (e.control in BESIDE) == which] for which in (False, True))
    told = "; ".join(f"{_name(each)} {percent(each.control_accuracy)} ({_points(each.excess)})" for each in doubts)
    text = f"The classifier trained on {words} reads {percent(own[0].accuracy)}"
    text += f"; its controls, and the excess over each in points: {told}." if doubts else "."
    if unread := next((e for e in entries if e.result == f"{result}-unread"), None):
        text += f" Without the images that a weak model already took for their new label: {percent(unread.accuracy)}."
        doubts = [*doubts, unread]
    if beside:
        also = "; ".join(f"{_name(e)}: {percent(e.control_accuracy)}" for e in beside)
        text += f" What teaches without any attack: {also}."
    question = f"Do {words} teach more than each of their controls?"
    if not doubts:
        return Finding(question, "open", f"{text} Without controls this is not yet evidence.")
    if own[0].over_guessing.low <= 0:
        return Finding(question, "not shown", f"{text} The result itself is not measurably above guessing.")
    beaten = [e for e in doubts if e.excess.low > 0 and e.over_guessing.low > 0]
    if len(beaten) == len(doubts):
        return Finding(question, "shown", f"{text} It exceeds each of its controls.")
    left = ", ".join("what is left without those images" if e is unread else _name(e) for e in doubts if e not in beaten)
    verdict: Verdict = "in part" if beaten else "not shown"
    return Finding(question, verdict, f"{text} Not measurably exceeded, so that it may explain the result: {left}.")


def _incl_true(entries: list[Excess]) -> Finding | None:
    """The paper's own random labels, of which one in K is right by chance."""
    entry = next((e for e in entries if e.control == "on-random-labels-any-patterns"), None)
    if not entry:
        return None
    text = (
        f"Drawn from all classes, some labels stay right. The classifier trained so reads {percent(entry.accuracy)}. Where those "
        "stay on unchanged images, and all others go with one random pattern a label in place of the model's changes, a "
        f"classifier reads {percent(entry.control_accuracy)}, and owes nothing to any model. The excess is "
        f"{entry.excess.points} ({entry.excess.range})."
    )
    question = "And with random labels that may be right, as in the paper?"
    return Finding(question, "shown" if entry.excess.low > 0 and entry.over_guessing.low > 0 else "not shown", text)


def _name(entry: Excess) -> str:
    return CONTROLS.get(entry.control, entry.control)


def _points(figure: Estimate) -> str:
    return f"{100 * figure.mean:+.1f}".replace("-", "−")


def _transfer_to(weighed: ControlResults, question: str, names: dict[str, str], who: str) -> Finding | None:
    pairs = {name: (weighed.hits("standard", name), weighed.hits("standard", name, "random")) for name in names}
    known = {name: (rate, random) for name, (rate, random) in pairs.items() if rate and random}
    if not known:
        return None
    own, parts = weighed.own_rate("standard", "untargeted"), []
    for name, (rate, random) in known.items():
        same = weighed.hits("standard", name, column="same")
        mistake = f", {percent(same.mean)} with the standard model's own mistake" if same else ""
        parts.append(f"{names[name]} {percent(rate.mean)}{mistake} (random changes: {percent(random.mean)})")
    sure = f", which mislead it in {own.percent} of cases," if own else ""
    text = (
        f"Images changed to mislead the standard model{sure} were shown to {len(known)} {who}. Of the images that both "
        f"read unchanged they misread: {'; '.join(parts)}."
    )
    beyond = [name for name, (rate, random) in known.items() if rate.low > random.high]
    verdict: Verdict = "shown" if len(beyond) == len(known) else "in part" if beyond else "not shown"
    return Finding(question, verdict, text)


def _initialization(weighed: ControlResults, measured: AccuracyResults) -> Finding | None:
    same, other = weighed.hits("standard", "same-start"), weighed.hits("standard", "fresh-1")
    noise = weighed.hits("standard", "fresh-1", "random")
    if not (same and other and noise):
        return None
    text = (
        "Of the standard model's adversarial examples, a network trained anew from the same initial weights misreads "
        f"{same.percent}, one from other weights {other.percent}, after random changes {noise.percent}."
    )
    for labels in ("random-labels", "next-labels"):
        twin, own = measured.accuracy(f"on-{labels}-same-start"), measured.accuracy(f"on-{labels}")
        gap = measured.difference((f"on-{labels}-same-start", 0), (f"on-{labels}", 0))
        if twin and own and gap:
            text += f" Trained on {labels} from the source's initial weights a classifier reads {twin.percent}, from others "
            text += f"{own.percent} ({_signed(gap)})."
    found = weighed.alike("standard", "fresh-1")
    alike, chance, both = found["same"], found["same_by_chance"], found["both_wrong"]
    if alike and chance and both:
        text += (
            f" Unchanged, standard and fresh-1 both misread {both.mean:.3g} test images, {alike.percent} of these (95 % interval "
            f"{alike.interval}) as the same class; mistakes drawn independently would agree in {chance.percent}."
        )
    verdict: Verdict = "shown" if other.low > noise.high else "not shown"
    return Finding("Do networks share blind spots that did not start from the same weights?", verdict, text)


def _accuracy_and_transfer(weighed: ControlResults, measured: AccuracyResults) -> Finding | None:
    found = weighed.follows(measured)
    if found is None:
        return None
    figure, others = found.correlation, found.others
    told = "; ".join(f"{FAMILIES.get(name, 'the same network')} {percent(x)} and {percent(y)}" for name, x, y in found.points)
    ends = " to ".join(f"{end:.2f}" for end in (figure.low, figure.high))
    text = (
        f"Accuracy after training on next-labels and rate of transfer from the standard model, network by network: {told}. "
        + f"Correlation {figure.mean:.2f} (95 % interval {ends} over {figure.n} networks), ".replace("-", "−")
        + f"without the source's own kind {others.mean:.2f}.".replace("-", "−")
    )
    question = "Are those networks fooled more that learn more from next-labels, as the paper's figure 3 has it?"
    if figure.low > 0:
        return Finding(question, "shown", text)
    if figure.high < 0:
        return Finding(question, "not shown", f"{text} That is the opposite of what the paper found.")
    return Finding(question, "not shown", f"{text} The interval includes 0: so few networks cannot show it.")


def _robust_sources(weighed: ControlResults) -> Finding | None:
    targets = ("fresh-1", *FAMILIES)
    rates = {source: [weighed.hits(source, target, "targeted") for target in targets] for source in SOURCES}
    known = {source: [figure.mean for figure in figures if figure] for source, figures in rates.items()}
    if any(len(values) < len(targets) for values in known.values()):
        return None
    means = {source: sum(values) / len(values) for source, values in known.items()}
    told = ", ".join(f"{SOURCES[source]}: {percent(mean)}" for source, mean in means.items())
    best = max(means, key=lambda source: means[source])
    text = (
        f"Targeted examples of sources trained against changes of up to 0 (standard) to ε hit other networks, on average: {told}."
    )
    question = "Do examples of a slightly robust source transfer best?"
    if best in ("standard", "adversarial"):
        return Finding(
            question, "not shown", f"{text} Best is {'the standard' if best == 'standard' else 'the most robust'} source."
        )
    spans = {}
    for rival in ("standard", "adversarial"):
        gains = [one - other for one, other in zip(known[best], known[rival], strict=True)]
        spans[rival] = bonferroni_interval(gains, len(SOURCES) - 2)
    (gain, low, high), least = spans["standard"], min(low for _, low, _ in spans.values())
    text += f" The best, {SOURCES[best]}, beats the standard source by {100 * gain:.1f} points (95 % interval {100 * low:.1f} to "
    text += f"{100 * high:.1f} over the {len(targets)} networks, widened for having picked the best of {len(SOURCES) - 2})."
    text = text.replace("-", "−") if low < 0 else text
    if spans["adversarial"][1] <= 0:
        gain, low, high = spans["adversarial"]
        text += f" Over the most robust source: {100 * gain:.1f} points ({100 * low:.1f} to {100 * high:.1f}).".replace("-", "−")
    if least <= 0:
        return Finding(question, "not shown", text)
    seeds = min(figure.seeds for figures in rates.values() for figure in figures if figure)
    return Finding(
        question, "shown" if seeds > 1 else "in part", text + ("" if seeds > 1 else " One training of each source only.")
    )


def _signed(figure: Estimate) -> str:
    return f"{'+' if figure.mean > 0 else ''}{figure.points}, {figure.range}"


class ControlLine(NamedTuple):
    """A line of the table that the command line prints."""

    result: str
    control: str
    read: str
    excess: str


def controls_table(run: RunFolder) -> list[ControlLine]:
    """Each relabelled result against each of its controls, in few words: what the control reads and the excess over it."""
    lines = []
    for entry in control_results(run).excesses():
        excess = f"{100 * entry.excess.mean:+.1f} [{100 * entry.excess.low:.1f} to {100 * entry.excess.high:.1f}]".replace(
            "-", "−"
        )
        control = next((words for end, words in SHORT.items() if entry.control.endswith(end)), entry.control)
        result = f"{entry.result.removeprefix('on-')} {100 * entry.accuracy:.1f}"
        lines.append(ControlLine(result, control, f"{100 * entry.control_accuracy:.1f}", excess))
    return lines
