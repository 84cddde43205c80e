"""What a study answers when it is asked further: explanations, corruptions, kernel features, human reviewers. Needs no torch."""

import math
from collections.abc import Mapping, Sequence

from notbugs.report.results import Estimate, Finding, Rows, Verdict, accuracy_results, in_order, number, percent
from notbugs.report.weighed import seed_mean
from notbugs.review import answers
from notbugs.runs.folder import Cell, RunFolder
from notbugs.stats import correlation_interval

MODEL_NAMES = {
    "standard": "the standard classifier",
    "adversarial": "the adversarially trained one",
    "on-robust": "the one trained on D_R",
    "on-nonrobust": "the one trained on D_NR",
}
MEASURES = {
    "alignment": "cosine with the difference of the two classes’ mean images",
    "chance_alignment": "the same with the classes of other images: chance",
    "low": "energy in low frequencies",
    "chance_low": "of white noise: chance",
    "faithful": "its answer goes sooner than in random order, by",
}
SALIENCY_COLUMNS = ["explanation", "cosine", "chance", "low frequencies", "white noise", "answer goes sooner by"]
NON_INFERIORITY_MARGIN = 0.1  # of accuracy: what a version of the data may lose, to people, and still look fair
CORRUPTIONS = ("unchanged", "noise", "blur", "fog", "contrast", "jpeg")


def findings(run: RunFolder) -> list[Finding]:
    """The further questions that the run can answer so far."""
    answers = [_alignment(run), _faithfulness(run), _corruptions(run), _ntk(run)]
    return [answer for answer in answers if answer] + review_findings(run)


def estimate(rows: Rows, **wanted: str) -> Estimate | None:
    """The mean over seeds of `value` in the rows that have these cells; of one seed with its interval over images."""
    return seed_mean([row for row in rows if all(row[name] == cell for name, cell in wanted.items())], "value", "low", "high")


def _alignment(run: RunFolder) -> Finding | None:
    rows, pairs = run.table("explanations"), run.table("explained")
    found = {name: estimate(rows, model=name, method="gradient", measure="alignment") for name in MODEL_NAMES}
    chance = estimate(rows, model="standard", method="gradient", measure="chance_alignment")
    steps = {
        (one, other): estimate(pairs, model=one, other=other, method="gradient", measure="alignment")
        for one, other in (
            ("adversarial", "standard"),
            ("on-robust", "standard"),
            ("on-nonrobust", "standard"),
            ("on-robust", "on-nonrobust"),
        )
    }
    robust, data, control, over = steps.values()
    if not (robust and data and control and over and chance):
        return None
    each = ", ".join(f"{MODEL_NAMES[name]} {_cosine(figure)}" for name, figure in found.items() if figure)
    text = (
        f"A person tells two classes apart by how their images differ. Cosine of the classifier’s gradient with that difference: "
        f"{each}; chance {_cosine(chance)}. Adversarially trained less standard: {signed(robust)}; trained on D_R less standard: "
        f"{signed(data)}; on D_NR, the control: {signed(control)}; on D_R less on D_NR: {signed(over)}."
    )
    question = "Does a robust classifier look at what a person sees?"
    if robust.low <= 0:
        result = "Robust training aligns it less." if robust.high < 0 else "No measurable difference."
        return Finding(question, "not shown", f"{text} {result}")
    if min(data.low, over.low) <= 0:
        only = "Robust training aligns it; ordinary training on D_R not measurably more than on D_NR."
        return Finding(question, "in part", f"{text} {only}")
    return Finding(question, "shown", text)


def _faithfulness(run: RunFolder) -> Finding | None:
    rows = run.table("explanations")
    figures = {name: estimate(rows, model=name, method="integrated", measure="faithful") for name in ("standard", "adversarial")}
    low = {name: estimate(rows, model=name, method="integrated", measure="low") for name in ("standard", "adversarial")}
    alike = {name: estimate(rows, model=name, method="integrated", measure="alignment") for name in ("standard", "adversarial")}
    if not all((*figures.values(), *low.values(), *alike.values())):
        return None
    looks = [
        " and ".join(_cosine(each) for each in alike.values() if each),
        " and ".join(percent(each.mean) for each in low.values() if each),
    ]
    parts = [
        _minus(
            f"{MODEL_NAMES[name]} loses its answer {100 * figure.mean:z.0f} points sooner than in random order ({figure.interval} %)"
        )
        for name, figure in figures.items()
        if figure
    ]
    text = (
        "Where the pixels that an explanation (integrated gradients) ranks first are blurred first, "
        f"{' and '.join(parts)}: both explanations name what is really used. How far they look like what a person would name: "
        f"cosine {looks[0]}, of their energy {looks[1]} in low frequencies."
    )
    shown = all(figure and figure.low > 0 for figure in figures.values())
    question = "Are its explanations its reasons, even where they look like noise?"
    if not shown:
        return Finding(question, "not shown", text.replace("both explanations name", "not both name"))
    return Finding(question, "shown", text)


def _corruptions(run: RunFolder) -> Finding | None:
    pairs = run.table("corrupted")
    costs = {name: estimate(pairs, model="adversarial", other="standard", corruption=name) for name in CORRUPTIONS}
    known = {name: figure for name, figure in costs.items() if figure}
    if len(known) < 2:
        return None
    better = [name for name, figure in known.items() if figure.low > 0 and name != "unchanged"]
    worse = [name for name, figure in known.items() if figure.high < 0 and name != "unchanged"]
    listed = ", ".join(f"{name} {signed_points(figure)}" for name, figure in known.items())
    text = (
        f"Adversarially trained less standard, in points, mean over five severities: {listed}. Measurably better under "
        f"{_list(better)}, measurably worse under {_list(worse)}."
    )
    verdict: Verdict = "not shown" if not better else "in part" if worse or len(better) < len(known) - 1 else "shown"
    return Finding("Does robust training help against noise, blur, fog, contrast and JPEG?", verdict, text)


def _ntk(run: RunFolder) -> Finding | None:
    rows = run.table("kernel")
    found = drop_by_rank(rows)
    if not found:
        return None
    correlation, low, high, count = found
    words = [str(row["kind"]) for row in rows if row["seed"] == rows[0]["seed"]]
    counts = {kind: words.count(kind) for kind in ("robust", "non-robust", "useless")}
    text = (
        f"Of {count} eigenvectors of an infinitely wide network’s kernel, which no training has touched, {counts['robust']} are "
        f"robust, {counts['non-robust']} useful but non-robust, {counts['useless']} useless. Rank correlation of the place in "
        f"the spectrum with what a change takes of it: {correlation:.2f} (95 % interval {low:.2f} to {high:.2f}, over "
        f"eigenvectors){', the further down the more' if low > 0 else ''}."
    )
    verdict: Verdict = "shown" if low > 0 and counts["non-robust"] else "not shown"
    return Finding("Are there useful features that a small change turns, before any training?", verdict, text)


def review_findings(run: RunFolder) -> list[Finding]:
    """What reviewers saw: whether D_R and D_NR look as fair as the originals, and relabelled images wrongly labelled."""
    (rows, _), chance = answers.answers_or_problem(run.folder), accuracy_results(run).chance
    readable = any(number(row["low"]) > chance for row in answers.summary(rows) if row["set"] == "original")
    return [answer for answer in (_fair(rows, readable), _wrong(rows, readable)) if answer]


def _fair(rows: Rows, readable: bool) -> Finding | None:
    less = {str(row["set"]): row for row in answers.differences(rows)}
    known = {name: less[part] for name, part in (("D_R", "robust"), ("D_NR", "nonrobust")) if part in less}
    if not known:
        return None
    each = "; ".join(
        f"of {name} {percent(number(row['accuracy']))}, of the originals {percent(number(row['accuracy_against']))}: {_less(row)}"
        for name, row in known.items()
    )
    text = f"What people read as labelled of blinded images: {each}."
    question = f"Do both {' and '.join(known)} look fair to people?" if len(known) > 1 else f"Does {next(iter(known))} look fair?"
    if not readable:
        return Finding(
            question, "open", f"{text} Whether they read the originals at all is not shown: not measurably above guessing."
        )
    fair = [name for name, row in known.items() if number(row["low"]) > -NON_INFERIORITY_MARGIN]
    worse = [name for name, row in known.items() if number(row["high"]) < 0 and name not in fair]
    rule = f"Fair is: the whole interval is above −{100 * NON_INFERIORITY_MARGIN:.0f} points."
    if len(fair) == len(known):
        return Finding(question, "shown", f"{text} {rule}")
    if worse:
        verdict: Verdict = "in part" if fair else "not shown"
        return Finding(question, verdict, f"{text} People read {' and '.join(worse)} measurably less well. {rule}")
    return Finding(question, "open", f"{text} {rule} There are too few answers to tell.")


def _less(row: dict[str, Cell]) -> str:
    count = "one person" if row["reviewers"] == 1 else f"{row['reviewers']} people"
    return _minus(f"{100 * number(row['difference']):+z.1f} points ({_ends(row)}, over {row['over']}; {count})")


def _ends(row: dict[str, Cell]) -> str:
    return _minus(f"{100 * number(row['low']):z.1f} to {100 * number(row['high']):z.1f}")


def _wrong(rows: Rows, readable: bool) -> Finding | None:
    """Of relabelled sets: how often people name another class. Who cannot tell does not say that a label is wrong."""
    named = [row | {"right": int(row["answer"] not in ("", row["label"]))} for row in rows if "labels" in str(row["set"])]
    seen = answers.summary(named)
    if not seen:
        return None
    each = ", ".join(f"{percent(number(row['accuracy']))} of {row['set']} ({_ends(row)}, over {row['over']})" for row in seen)
    question, text = (
        "Do most relabelled images look wrongly labelled to people?",
        f"People named another class than the label for {each}.",
    )
    if not readable:
        return Finding(question, "open", f"{text} Whether they read the originals at all is not shown.")
    verdict: Verdict = "open"
    if all(number(row["low"]) > 0.5 for row in seen):
        verdict = "shown"
    elif any(number(row["high"]) < 0.5 for row in seen):
        verdict = "not shown"
    return Finding(question, verdict, text)


def drop_by_rank(rows: Rows) -> tuple[float, float, float, int] | None:
    """Spearman's correlation of an eigenvector's place with what a change takes of its usefulness, its interval, eigenvectors."""
    from scipy.stats import spearmanr

    own = [row for row in rows if row["seed"] == rows[0]["seed"] and row["robust_usefulness"] != ""]
    falls = [number(row["usefulness"]) - number(row["robust_usefulness"]) for row in own]
    places = [number(row["eigenvector"]) for row, fall in zip(own, falls, strict=True) if not math.isnan(fall)]
    falls = [fall for fall in falls if not math.isnan(fall)]
    if len(falls) < 5 or len(set(falls)) == 1:
        return None
    correlation = float(spearmanr(places, falls)[0])
    return correlation, *correlation_interval(correlation, len(falls)), len(falls)


# ---- in words ------------------------------------------------------------------------------------------------------------


def signed(figure: Estimate) -> str:
    """A difference that is no percentage, with its interval."""
    return _minus(f"{figure.mean:+z.2f} ({figure.low:z.2f} to {figure.high:z.2f})")


def signed_points(figure: Estimate) -> str:
    return _minus(f"{100 * figure.mean:+z.1f} ({100 * figure.low:z.1f} to {100 * figure.high:z.1f})")


def _cosine(figure: Estimate) -> str:
    return _minus(f"{figure.mean:z.2f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def saliency_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: what each model's explanations show."""
    rows = run.table("explanations")
    models = in_order(MODEL_NAMES, (str(row["model"]) for row in rows))
    lines = [[name, *line] for name in models for line in saliency_lines([row for row in rows if row["model"] == name])]
    return ["model", *SALIENCY_COLUMNS], lines


def saliency_lines(rows: Rows) -> list[list[str]]:
    """Of one model's rows: a line of text a method, under the columns `EXPLAINED`."""
    lines = []
    for method in in_order(("gradient", "integrated"), (str(row["method"]) for row in rows)):
        figures = {key: estimate(rows, method=method, measure=key) for key in MEASURES}
        cosine, chance, low, white, faithful = (figures[key] for key in MEASURES)
        if cosine and chance and low and white and faithful:
            shares = [f"{low.percent} [{low.interval}]", white.percent, f"{faithful.percent} [{faithful.interval}]"]
            lines.append([method, f"{_cosine(cosine)} [{cosine.low:z.2f} to {cosine.high:z.2f}]", _cosine(chance), *shares])
    return lines


def corruptions_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: what each model reads unchanged and under each corruption, mean over severities, in percent."""
    rows = run.table("corruptions")
    kinds = in_order(CORRUPTIONS, (str(row["corruption"]) for row in rows))
    lines = []
    for name in in_order(MODEL_NAMES, (str(row["model"]) for row in rows)):
        shares = [corruption_accuracy(rows, name, kind) for kind in kinds]
        lines += [[name, *("–" if share is None else percent(share) for share in shares)]]
    return ["model", *kinds], lines


def corruption_accuracy(rows: Rows, model: str, corruption: str, severity: int | None = None) -> float | None:
    """The share read under a corruption: mean over seeds, and over severities unless one is given."""
    shares = [
        number(row["accuracy"])
        for row in rows
        if (row["model"], row["corruption"]) == (model, corruption) and severity in (None, row["severity"])
    ]
    return sum(shares) / len(shares) if shares else None


def fourier_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: what each model misreads with a wave added, mean over slow waves and over fast ones."""
    rows = run.table("frequencies")
    models = in_order(MODEL_NAMES, (str(row["model"]) for row in rows))
    lines = [[name, *low_and_high([row for row in rows if row["model"] == name])] for name in models]
    return ["model", "slow waves, up to half of the fastest", "fast waves"], lines


def low_and_high(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Of one model's rows, what it misreads with a wave added: mean over waves up to half of the fastest, and over the others."""
    highest = max((number(row[name]) for row in rows for name in ("down", "across")), default=0.0)
    bands: dict[bool, list[float]] = {False: [], True: []}
    for row in rows:
        bands[math.hypot(number(row["down"]), number(row["across"])) > highest / 2].append(number(row["errors"]))
    return [percent(sum(band) / len(band)) if band else "–" for band in bands.values()]


def ntk_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: what regression on the first eigenvectors reads, unchanged and under attack."""
    rows = run.table("kernel_accuracy")
    lines = []
    for kept in dict.fromkeys(row["kept"] for row in rows):
        own = [[row for row in rows if row["kept"] == kept and bool(row["epsilon"]) == attacked] for attacked in (False, True)]
        figures = [seed_mean(some, "accuracy", "low", "high", share=True) for some in own]
        lines.append([str(kept), *(f"{figure.percent} [{figure.interval}]" if figure else "–" for figure in figures)])
    return ["first eigenvectors", "unchanged", "under attack"], lines


def review_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: how much of each set people read as labelled, and beside it how much classifiers do."""
    (rows, _), measured = answers.answers_or_problem(run.folder), accuracy_results(run)
    less = {row["set"]: _minus(f"{100 * number(row['difference']):+z.1f} [{_ends(row)}]") for row in answers.differences(rows)}
    models = [name for name in ("standard", "adversarial") if rows and measured.accuracy(name, "robust")]
    columns = ["set", "answers", "read as labelled", "less original", "unsure"]
    lines = []
    for row in answers.summary(rows):
        read, unsure = f"{percent(number(row['accuracy']))} [{_ends(row)}]", percent(number(row["unsure"]))
        figures = [measured.accuracy(name, str(row["set"])) for name in models]
        others = [figure.percent if figure else "–" for figure in figures]
        lines.append([str(row["set"]), str(row["answers"]), read, less.get(row["set"], "–"), unsure, *others])
    return [*columns, *(f"{name} reads" for name in models)], lines
