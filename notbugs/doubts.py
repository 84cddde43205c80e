"""The further questions of a full study: what could explain a result away, and who else inherits the blind spots."""

from typing import NamedTuple

from notbugs.measured import Figure, Finding, Measured, Verdict, percent
from notbugs.results import Run
from notbugs.weighed import CONTROLS, FAMILIES, LEARNERS, SOURCES, Excess, Weighed, weigh

BESIDE = ("on-errors-only", "on-photographs")  # no doubts of the result: other ways of teaching as much


def findings(run: Run, measured: Measured) -> list[Finding]:
    """What a full study can answer so far, in reading order; [] of a quick one."""
    weighed = weigh(run)
    entries = weighed.excesses()
    answers = [
        _explained(entries, "on-random-labels", "random labels"),
        _explained(entries, "on-next-labels", "next labels"),
        _others(weighed, "Are other kinds of network fooled by the same images?", FAMILIES, "networks of five other families"),
        _others(
            weighed, "And learning algorithms that are no networks?", LEARNERS, "six learning algorithms that are no networks"
        ),
        _start(weighed, measured),
        _follow(weighed, measured),
        _little(weighed),
    ]
    return [answer for answer in answers if answer]


def _explained(entries: list[Excess], result: str, words: str) -> Finding | None:
    own = [entry for entry in entries if entry.result == result]
    if not own:
        return None
    doubts, beside = ([e for e in own if (e.control in BESIDE) == which] for which in (False, True))
    over = own[0].over_guessing
    unread = next((e for e in entries if e.result == f"{result}-unread"), None)
    told = "; ".join(f"{_name(each)} {percent(each.control_accuracy)} ({_points(each.excess)})" for each in doubts)
    text = (
        f"The classifier trained on {words} reads {percent(own[0].accuracy)}; its controls, and the excess over each in "
        f"points: {told}."
    )
    if unread:
        text += f" Without the images that a weak model already took for their new label: {percent(unread.accuracy)}."
    if beside:
        also = "; ".join(f"{_name(e)}: {percent(e.control_accuracy)}" for e in beside)
        text += f" What teaches without any attack: {also}."
    beaten = [e for e in doubts if e.excess.low > 0]
    question = f"Could something else explain what {words} teach?"
    if (over is not None and over.low <= 0 and over.seeds > 1) or own[0].accuracy <= 0:
        return Finding(question, "not shown", f"{text} The result itself is not measurably above guessing.")
    if len(beaten) == len(doubts):
        return Finding(question, "shown", f"{text} None of the controls explains it: it exceeds them all.")
    left = ", ".join(_name(e) for e in doubts if e not in beaten)
    verdict: Verdict = "in part" if beaten else "not shown"
    return Finding(question, verdict, f"{text} Not measurably exceeded, so that it may explain the result: {left}.")


def _name(entry: Excess) -> str:
    return CONTROLS.get(entry.control, entry.control)


def _points(figure: Figure) -> str:
    return f"{100 * figure.mean:+.1f}".replace("-", "−")


def _others(weighed: Weighed, question: str, names: dict[str, str], who: str) -> Finding | None:
    hit = {name: weighed.hits("standard", name) for name in names}
    noise = {name: weighed.hits("standard", name, "random") for name in names}
    known = {name: (hit[name], noise[name]) for name in names if hit[name] and noise[name]}
    if not known:
        return None
    own = weighed.own_rate("standard", "untargeted")
    parts = []
    for name, (rate, random) in known.items():
        same, other = (weighed.hits("standard", name, column=column) for column in ("same", "other"))
        share = same.mean / (same.mean + other.mean) if same and other and same.mean + other.mean else None
        mistake = f", {percent(share)} of these with the standard model's own mistake" if share is not None else ""
        parts.append(f"{names[name]} {percent(rate.mean)} ({percent(random.mean)}{mistake})")  # type: ignore[union-attr]
    text = f"Images changed to mislead the standard model{f', which mislead it in {own.percent} of cases,' if own else ''} were "
    text += f"shown to {who}. They misread of the images that both read unchanged (in brackets: after a random change of the "
    text += f"same size): {'; '.join(parts)}."
    beyond = [name for name, (rate, random) in known.items() if rate.low > random.high]  # type: ignore[union-attr]
    verdict: Verdict = "shown" if len(beyond) == len(known) else "in part" if beyond else "not shown"
    return Finding(question, verdict, text)


def _start(weighed: Weighed, measured: Measured) -> Finding | None:
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
    alike, chance = found["same"], found["same_by_chance"]
    if alike and chance:
        text += (
            f" Of the unchanged test images that standard and fresh-1 both misread they take {alike.percent} for the same class; "
        )
        text += f"mistakes drawn independently would agree in {chance.percent}."
    verdict: Verdict = "shown" if other.low > noise.high else "not shown"
    return Finding("Do networks share blind spots that did not start from the same weights?", verdict, text)


def _follow(weighed: Weighed, measured: Measured) -> Finding | None:
    found = weighed.follows(measured)
    if found is None:
        return None
    figure = found.correlation
    told = "; ".join(f"{FAMILIES.get(name, 'the same network')} {percent(x)} and {percent(y)}" for name, x, y in found.points)
    text = (
        f"Accuracy after training on next-labels and rate of transfer from the standard model, network by network: {told}. "
        f"Correlation {figure.mean:.2f} (95 % interval {figure.low:.2f} to {figure.high:.2f}, {figure.n} networks"
        f"{f', {figure.seeds} seeds' if figure.seeds > 1 else ''})."
    )
    question = "Are those networks fooled more that learn more from next-labels, as the paper's figure 3 has it?"
    if figure.low > 0:
        return Finding(question, "shown", text)
    if figure.high < 0:
        return Finding(question, "not shown", f"{text} That is the opposite of what the paper found.")
    return Finding(question, "not shown", f"{text} The interval includes 0: these networks do not show it.")


def _little(weighed: Weighed) -> Finding | None:
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
    gains = [one - other for one, other in zip(known[best], known["standard"], strict=True)]
    gain, low, high = _over_targets(gains, len(SOURCES) - 1)
    text += f" The best, {SOURCES[best]}, beats the standard source by {100 * gain:.1f} points (95 % interval {100 * low:.1f} to "
    text += f"{100 * high:.1f} over the {len(targets)} networks, widened for having picked the best of {len(SOURCES) - 1})."
    return Finding(question, "shown" if low > 0 else "not shown", text.replace("-", "−") if low < 0 else text)


def _over_targets(values: list[float], tries: int) -> tuple[float, float, float]:
    """Mean and Student's interval, widened for so many tries (Bonferroni)."""
    from scipy.stats import sem, t

    mean = sum(values) / len(values)
    reach = float(t.ppf(1 - 0.025 / tries, len(values) - 1) * sem(values))
    return mean, mean - reach, mean + reach


def _signed(figure: Figure) -> str:
    return f"{'+' if figure.mean > 0 else ''}{figure.points}, {figure.range}"


class Line(NamedTuple):
    """A line of the table that the command line prints."""

    result: str
    control: str
    read: str
    excess: str


def controls_table(run: Run) -> list[Line]:
    """Each relabelled result against each of its controls, in texts: what the control reads and the excess over it."""
    lines = []
    for entry in weigh(run).excesses():
        excess = f"{100 * entry.excess.mean:+.1f} [{100 * entry.excess.low:.1f} to {100 * entry.excess.high:.1f}]".replace(
            "-", "−"
        )
        control = _name(entry)
        lines.append(
            Line(
                f"{entry.result.removeprefix('on-')} {percent(entry.accuracy)}", control, percent(entry.control_accuracy), excess
            )
        )
    return lines
