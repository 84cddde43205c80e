"""From a run folder to one self-contained report.html, and to the same answer and table for the command line.

Every sentence is derived from the figures. A claim is made only where its 95 % interval allows it; else the sentence says so.
"""

import base64
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from notbugs.results import Cell, Run, write_whole

Rows = list[dict[str, Cell]]
Verdict = Literal["shown", "in part", "not shown", "open"]

MODELS = {
    "standard": "ordinary training on the original images",
    "adversarial": "adversarial training: on images changed to mislead it while it learns",
    "on-robust": "ordinary training on D_R: keeps only what the adversarial model looks at",
    "on-nonrobust": "ordinary training on D_NR: keeps only what the standard model looks at",
    "on-random-labels": "images moved towards another, random class and labelled as that class: every label is wrong",
    "on-random-labels-any": "the same, but the random class may be the true one (as in the paper)",
    "on-next-labels": "images moved towards the next class and labelled as that class",
    "on-random-labels-noise": "control: the labels of random-labels, random changes of the same size",
    "on-next-labels-noise": "control: the labels of next-labels, random changes of the same size",
}
SETS = {
    "test": "test images, never trained on",
    "original": "the training images",
    "robust": "D_R: other images, changed until the adversarial model sees in them what it sees in the originals",
    "nonrobust": "D_NR: the same, with the standard model",
    **{name[3:]: text for name, text in MODELS.items() if "labels" in name},
}
COLUMNS = {
    "original": "as it is",
    "adversarial": "changed by at most ε so that the standard model errs",
    "change": "that change, amplified; grey is none",
    "robust": "D_R",
    "nonrobust": "D_NR",
    "random-labels": "moved towards a random other class",
    "random-labels-any": "moved towards a random class",
    "next-labels": "moved towards the next class",
    "random-labels-noise": "control: a random change",
    "next-labels-noise": "control: a random change",
}
NORMS = {
    "l2": ("L2", "L2 distance: the square root of the sum of the squared pixel changes, black being 0 and white 1"),
    "linf": ("L-infinity", "L-infinity distance: the largest change of any pixel, black being 0 and white 1"),
}

# What run.json holds once a run is under way; a run that was stopped early has less.
FACTS: dict[str, Any] = {
    "source": "A run",
    "command": "",
    "notbugs": "",
    "commit": "",
    "versions": {},
    "device": "",
    "machine": "",
    "norm": "l2",
    "epsilon": math.nan,
    "epsilon_text": "",
    "recipe": {},
    "seeds": [],
    "seconds": 0,
    "finished": False,
    "data": {"classes": [], "train": "?", "test": "?", "shape": [], "note": "", "skipped": []},
}


class Figure(NamedTuple):
    """A mean with its 95 % interval; n images a seed. As a difference: in [-1, 1], else an accuracy in [0, 1]."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int


class Finding(NamedTuple):
    question: str
    verdict: Verdict
    text: str


class Measured(NamedTuple):
    """What a run measured, to be asked. radii: 0, epsilon / 2, epsilon; norm: its name and in words; chance: 1 / classes."""

    rows: Rows
    radii: tuple[float, float, float]
    radius_texts: tuple[str, str, str]
    norm: tuple[str, str]
    chance: float

    def by_seed(self, model: str, on: str = "test", radius: int = 0) -> dict[Cell, dict[str, Cell]]:
        """One row a seed; where several attacks were tried, the one that left the least."""
        kept: dict[Cell, dict[str, Cell]] = {}
        for row in self.rows:
            if (row["model"], row["set"]) != (model, on) or not math.isclose(
                _number(row["epsilon"]), self.radii[radius], rel_tol=1e-3
            ):
                continue
            if row["seed"] not in kept or _number(row["accuracy"]) < _number(kept[row["seed"]]["accuracy"]):
                kept[row["seed"]] = row
        return kept

    def accuracy(self, model: str, on: str = "test", radius: int = 0) -> Figure | None:
        """Mean over seeds; interval: Student's t over seeds. One seed, or all the same: the row's own, over its images."""
        rows = list(self.by_seed(model, on, radius).values())
        if not rows:
            return None
        n, values = int(_number(rows[0]["n"])), [_number(row["accuracy"]) for row in rows]
        if len(set(values)) == 1:
            return Figure(values[0], _number(rows[0]["low"]), _number(rows[0]["high"]), n, len(rows))
        mean, low, high = _over_seeds(values)
        return Figure(mean, max(low, 0.0), min(high, 1.0), n, len(rows))

    def difference(self, one: tuple[str, int], other: tuple[str, int]) -> Figure | None:
        """Accuracy of one (model, radius) minus that of the other, on the test set.

        Several seeds: Student's t over the differences seed by seed. One seed, or seeds that all agree: Newcombe's interval, from
        the two rows' own.
        """
        first, second = self.by_seed(one[0], radius=one[1]), self.by_seed(other[0], radius=other[1])
        pairs = [[first[seed], second[seed]] for seed in first if seed in second]
        if not pairs:
            return None
        n, values = int(_number(pairs[0][0]["n"])), [round(_number(a["accuracy"]) - _number(b["accuracy"]), 9) for a, b in pairs]
        if len(set(values)) > 1:
            return Figure(*_over_seeds(values), n, len(pairs))
        (p, low_p, high_p), (q, low_q, high_q) = (
            [_number(row[name]) for name in ("accuracy", "low", "high")] for row in pairs[0]
        )
        return Figure(p - q, p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q), n, len(pairs))

    def models(self) -> list[str]:
        """The models that were measured, in reading order."""
        return _in_order(MODELS, (str(row["model"]) for row in self.rows))

    def sets(self) -> list[str]:
        return _in_order(SETS, (str(row["set"]) for row in self.rows if not row["epsilon"]))


def write(folder: Path) -> Path:
    """Write report.html into a run folder, finished or not, and return its path. Raises BadInput when the folder is no run."""
    import re

    import jinja2
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        """Keep each figure on one line with its unit, and set it apart."""
        return Markup(re.sub(r"(−?\d+(?:\.\d+)?) (%(?! interval)|points)", "<b>\\1\u00a0\\2</b>", str(escape(text))))

    run = Run.read(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "percent": percent, "plain": _plain, "interval": _interval, "duration": _duration}
    target = run.folder / "report.html"
    write_whole(target, environment.get_template("report.html.jinja").render(_content(run)))
    return target


def headline(run: Run) -> list[str]:
    """The answer, in plain sentences with their figures; one string a question. A null result is worded as one."""
    return [finding.text for finding in findings(run)]


def accuracy_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: each model, and what it reads of the test images unchanged, at epsilon / 2 and at epsilon."""
    measured = _measured(run)
    columns = ["model", "unchanged", *measured.radius_texts[1:], "trained on"]
    rows = []
    for model in measured.models():
        figures = [measured.accuracy(model, radius=radius) for radius in range(3)]
        cells = [f"{percent(figure.mean)} [{_interval(figure)}]" if figure else "" for figure in figures]
        rows.append([model, *cells, _about(MODELS, model)])
    return columns, rows


def percent(share: float) -> str:
    """0.9731 -> "97.3 %"."""
    return f"{100 * share:.1f} %"


# The answer ---------------------------------------------------------------------------------------------------------------------


def findings(run: Run) -> list[Finding]:
    """The questions the run can answer so far, in reading order."""
    measured = _measured(run)
    answers = [_fooled(run, measured), _resists(measured), _split(measured)]
    labels = "random-labels" if measured.accuracy("on-random-labels") else "random-labels-any"
    answers += [_features(run, measured, labels), _features(run, measured, "next-labels")]
    return [answer for answer in answers if answer]


def _fooled(run: Run, measured: Measured) -> Finding | None:
    clean, attacked = measured.accuracy("standard"), measured.accuracy("standard", radius=2)
    drop = measured.difference(("standard", 0), ("standard", 2))
    if not (clean and attacked and drop):
        return None
    typical = run.facts.get("data", {}).get("mean_l2")
    size = f"; a typical image measures {typical:.1f}" if typical and measured.norm[0] == "L2" else ""
    text = (
        f"The standard classifier reads {percent(clean.mean)} of the {clean.n:,} test images. Once each image may change by "
        f"{_bare(measured, 2)} ({measured.norm[1]}{size}), it reads {percent(attacked.mean)}."
    )
    question = "Is an ordinary classifier easily fooled?"
    if drop.low <= 0:
        return Finding(question, "not shown", f"{text} That is no measurable loss: changes of this size do not fool it.")
    if attacked.mean > clean.mean / 2:
        return Finding(question, "in part", f"{text} It is fooled, but on fewer than half of the images that it read.")
    return Finding(question, "shown", text)


def _resists(measured: Measured) -> Finding | None:
    clean, attacked = measured.accuracy("adversarial"), measured.accuracy("adversarial", radius=2)
    gain = measured.difference(("adversarial", 2), ("standard", 2))
    if not (clean and attacked and gain):
        return None
    question = "Can training make it robust, that is, hard to fool?"
    text = (
        f"The same network, trained on images that are changed to mislead it (adversarial training), reads {percent(clean.mean)} "
        f"of the unchanged test images and keeps {percent(attacked.mean)} under the same change of {_bare(measured, 2)}"
    )
    if gain.low <= 0:
        return Finding(
            question, "not shown", f"{text}. That is not measurably more than the standard classifier: it was not made robust."
        )
    verdict: Verdict = "shown" if attacked.mean > clean.mean / 2 else "in part"
    return Finding(question, verdict, f"{text}: {_points(gain)} more than the standard classifier ({_range(gain)}).")


def _split(measured: Measured) -> Finding | None:
    robust, nonrobust = (measured.accuracy(model, radius=1) for model in ("on-robust", "on-nonrobust"))
    clean = [measured.accuracy(model) for model in ("on-robust", "on-nonrobust")]
    gap = measured.difference(("on-robust", 1), ("on-nonrobust", 1))
    if not (robust and nonrobust and gap and clean[0] and clean[1]):
        return None
    question = "Can the data be split into a robust and a non-robust version?"
    text = (
        "The data were rebuilt twice: in a robust version, which keeps only what the adversarially trained network looks at, and "
        "in a non-robust version, which keeps only what the standard one looks at. Two classifiers were trained on them in the "
        f"ordinary way. Of unchanged test images they read {percent(clean[0].mean)} (robust) and {percent(clean[1].mean)} "
        f"(non-robust). Under a change of {_bare(measured, 1)}, half of the full size, they keep {percent(robust.mean)} and "
        f"{percent(nonrobust.mean)}: a difference of {_points(gap)} ({_range(gap)})."
    )
    if gap.low <= 0 <= gap.high:
        null = " The interval includes 0: on this evidence the two versions do not differ in how robust a classifier they teach."
        return Finding(question, "not shown", text + null)
    if gap.high < 0:
        return Finding(question, "not shown", f"{text} That is the opposite of what the split is for.")
    standard, gain = measured.accuracy("standard", radius=1), measured.difference(("on-robust", 1), ("standard", 1))
    if standard and gain and gain.low <= 0:
        text += f" But the standard classifier, trained on the original images, keeps {percent(standard.mean)}: "
        return Finding(
            question, "in part", f"{text}the robust version teaches no measurably harder-to-fool classifier than those do."
        )
    if standard and gain:
        text += f" The standard classifier, trained on the original images, keeps {percent(standard.mean)}."
    return Finding(question, "shown", text)


def _features(run: Run, measured: Measured, labels: str) -> Finding | None:
    """Relabelled sets: does what misleads the standard model teach another to read real images, and does noise teach it too?"""
    model = f"on-{labels}"
    read = measured.accuracy(model)
    if not read or math.isnan(measured.chance):
        return None
    chance = f"guessing reads {percent(measured.chance)}"
    radii = [_number(row["epsilon"]) for row in run.table("sets") if row["set"] == labels and row["epsilon"] != ""]
    most = _bare(measured, 2) if not radii or math.isclose(radii[0], measured.radii[2], rel_tol=1e-3) else f"{radii[0]:.4g}"
    if labels == "next-labels":
        question = "Even when the rest of each image speaks for another class?"
        moved = f"moved by at most {most} towards the class after its own and labelled as that class, so that all else misleads"
    elif labels == "random-labels":
        question = "Does what fools the classifier carry real information?"
        moved = f"moved by at most {most} towards a random other class and labelled as that class: no label is right"
    else:
        question = "Does what fools the classifier carry real information?"
        moved = f"moved by at most {most} towards a random class and labelled as that class, right only by chance"
    text = f"One classifier was trained on images each {moved}. It reads {percent(read.mean)} of the real test images; {chance}."
    if read.low <= measured.chance:
        return Finding(question, "not shown", f"{text} That is not measurably better than guessing.")
    control, excess = measured.accuracy(f"{model}-noise"), measured.difference((model, 0), (f"{model}-noise", 0))
    if not control or not excess:
        if labels == "next-labels":  # its labels point away from the right answer, so chance is already a hard control
            return Finding(question, "shown", text)
        return Finding(
            question, "open", f"{text} Without its control (the same labels, random changes) this is not yet evidence."
        )
    text += f" Its control, trained on the same labels with random changes of the same size, reads {percent(control.mean)}."
    if excess.low <= 0:
        return Finding(
            question, "not shown", f"{text} The control does as well, so the changes that fool carry nothing of their own."
        )
    return Finding(
        question, "shown", f"{text} So the small changes that fool the standard classifier are features that hold on new images."
    )


def _crossing(measured: Measured) -> str:
    """Whether a model trained on one version of the data reads the other; "" if that was not measured."""
    crossed = [measured.accuracy("on-robust", "nonrobust"), measured.accuracy("on-nonrobust", "robust")]
    if not (crossed[0] and crossed[1]):
        return ""
    return (
        f"Trained on the robust version, a classifier reads {percent(crossed[0].mean)} of the non-robust version; "
        f"trained on the non-robust one, {percent(crossed[1].mean)} of the robust."
    )


def _points(difference: Figure) -> str:
    return f"{100 * difference.mean:.1f} points".replace("-", "−")


def _range(figure: Figure) -> str:
    over = f"over {figure.seeds} seeds" if figure.seeds > 1 else "over the test images"
    return f"95 % interval {100 * figure.low:.1f} to {100 * figure.high:.1f}, {over}".replace("-", "−")


def _interval(figure: Figure) -> str:
    return f"{100 * figure.low:.1f}–{100 * figure.high:.1f}"


def _bare(measured: Measured, radius: int) -> str:
    return measured.radius_texts[radius].split(" = ")[-1]


# What the page shows ------------------------------------------------------------------------------------------------------------


def _content(run: Run) -> dict[str, Any]:
    """Everything the template names."""
    import vl_convert
    from markupsafe import Markup

    measured, facts = _measured(run), FACTS | run.facts
    data = FACTS["data"] | facts["data"]
    charts = {"accuracy-chart": _accuracy_chart(measured)} if measured.rows else {}
    training = _training_charts(run.table("training"))
    charts |= {f"training-{place}": chart for place, (_, chart) in enumerate(training)}
    attacks = dict.fromkeys(str(row["attack"]) for row in measured.rows if row["epsilon"])
    return {
        "facts": facts,
        "data": data,
        "findings": findings(run),
        "measured": measured,
        "norm_name": measured.norm[0],
        "models": [(model, _about(MODELS, model)) for model in measured.models()],
        "sets": [(name, _about(SETS, name)) for name in measured.sets()],
        "made": _made(run.table("sets")),
        "pictures": _pictures(run),
        "columns": COLUMNS,
        "training": [model for model, _ in training],
        "attacks": ", ".join(attacks),
        "seeds": len({row["seed"] for row in measured.rows}),
        "kept": {kind: _kept(run.folder / kind) for kind in ("datasets", "models", "tables")},
        "known": set(MODELS),
        "crossing": _crossing(measured),
        "long_names": any(len(name) > 4 for name in data["classes"]),
        "charts": charts,
        "vega": Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")) if charts else "",
    }


def _pictures(run: Run) -> tuple[list[str], dict[str, dict[str, dict[str, Cell]]]]:
    """Column names, and for each file its cells by column. A cell's `source` is a data address, "" where the picture is gone."""
    columns: dict[str, None] = {}
    files: dict[str, dict[str, dict[str, Cell]]] = {}
    for row in run.table("pictures"):
        columns[str(row["column"])] = None
        cell = {**row, "source": _inline(run.folder, str(row["picture"]))}
        files.setdefault(str(row["file"]), {})[str(row["column"])] = cell
    return list(columns), files


def _inline(folder: Path, name: str) -> str:
    """A PNG of the run folder as a data address; "" for anything else, so that a table cannot name files outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(b"\x89PNG") else ""


def _made(rows: Rows) -> list[dict[str, Any]]:
    """tables/sets.csv with one row a set: numbers as means over seeds, the largest where the name says so."""
    made = []
    for name in _in_order(SETS, (str(row["set"]) for row in rows)):
        same = [row for row in rows if row["set"] == name]
        line: dict[str, Any] = {"set": name, "about": _about(SETS, name), "made_from": same[0].get("made_from", "")}
        for column in same[0]:
            numbers = [row[column] for row in same if isinstance(row[column], int | float)]
            if numbers:
                line[column] = max(map(float, numbers)) if column.startswith("max_") else sum(map(float, numbers)) / len(numbers)
        made.append(line)
    return made


def _accuracy_chart(measured: Measured) -> dict[str, Any]:
    """Each model's accuracy at the three radii, with its interval."""
    import altair as alt

    names = ["unchanged", _bare(measured, 1), _bare(measured, 2)]
    values = []
    for model in measured.models():
        for radius, name in enumerate(names):
            figure = measured.accuracy(model, radius=radius)
            if figure:
                texts = {"accuracy": percent(figure.mean), "interval": f"{_interval(figure)} %"}
                counts = {"images": figure.n, "seeds": figure.seeds}
                values.append(
                    {"model": model, "change": name, "at": figure.mean, "low": figure.low, "high": figure.high, **texts, **counts}
                )
    models = measured.models()
    shades = alt.Scale(domain=models, range=[_shade(model) for model in models])
    base = alt.Chart({"values": values}).encode(
        y=alt.Y("model:N", sort=models, title=None, axis=alt.Axis(labelLimit=150, grid=True, bandPosition=0, tickBand="extent")),
        yOffset=alt.YOffset("change:N", sort=names),
        color=alt.Color("model:N", scale=shades, legend=None),
        tooltip=[f"{field}:N" for field in ("model", "change", "accuracy", "interval", "images", "seeds")],
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("at:Q", scale=alt.Scale(domain=[0, 1]), axis=axis, title="test images read correctly"),
        shape=alt.Shape(
            "change:N",
            scale=alt.Scale(domain=names, range=["circle", "square", "triangle-up"]),
            legend=alt.Legend(orient="top", title="each image may change by", symbolFillColor="currentColor", columns=3),
        ),
    )
    bars = base.mark_rule(strokeWidth=2, opacity=0.7).encode(x="low:Q", x2="high:Q")
    layers = [bars, points]
    if not math.isnan(measured.chance):
        line = alt.Chart({"values": [{"chance": measured.chance, "is": f"guessing: {percent(measured.chance)}"}]})
        layers.insert(
            0, line.mark_rule(strokeDash=[3, 3], color="currentColor", opacity=0.6).encode(x="chance:Q", tooltip="is:N")
        )
    described = "Accuracy of each model on the test images, unchanged and under attack; the table above holds the same figures."
    return _finished(alt.layer(*layers).properties(width="container", height=42 * len(models), description=described))


def _training_charts(rows: Rows) -> list[tuple[str, dict[str, Any]]]:
    """A small chart a model: accuracy on its own training labels against the epoch, one line a seed."""
    import altair as alt

    charts = []
    for model in _in_order(MODELS, (str(row["model"]) for row in rows)):
        same = [row for row in rows if row["model"] == model]
        values = [
            {
                "epoch": row["epoch"],
                "at": row["accuracy"],
                "seed": row["seed"],
                "accuracy": percent(_number(row["accuracy"])),
                "loss": _plain(row.get("loss", "")),
                "learning rate": _plain(row.get("learning_rate", "")),
            }
            for row in same
        ]
        base = alt.Chart({"values": values}).encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, tickCount=5, format="d", grid=False), title="epoch"),
            y=alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
            detail="seed:N",
        )
        line = base.mark_line(strokeWidth=1.75, color=_shade(model), clip=True)
        told = [f"{field}:N" for field in ("seed", "epoch", "accuracy", "loss", "learning rate")]
        near = alt.selection_point(on="pointerover", empty=False, clear="pointerout")
        point = base.mark_point(size=90, filled=True, color=_shade(model)).add_params(near)
        point = point.encode(opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)), tooltip=told)
        chart = alt.layer(line, point)
        about = f"Training of {model}: accuracy on its own training labels against the epoch, one line a seed."
        charts.append((model, _finished(chart.properties(width="container", height=110, description=about))))
    return charts


def _finished(chart: Any) -> dict[str, Any]:
    """The chart's specification; text takes the page's colour, so that it is right in light and dark."""
    font = (
        "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif"  # named, or labels are measured wrongly
    )
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
    text |= {"titleFontWeight": "normal", "labelFont": font, "titleFont": font}
    lines = {
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "domainColor": "currentColor",
        "domainOpacity": 0.4,
        "ticks": False,
    }
    chart = chart.configure(background="transparent")
    chart = chart.configure_view(stroke=None).configure_axis(**text, **lines, labelPadding=6).configure_legend(**text)
    specification: dict[str, Any] = chart.to_dict()
    return specification


# Small things -------------------------------------------------------------------------------------------------------------------


def _measured(run: Run) -> Measured:
    facts = FACTS | run.facts
    epsilon, norm = float(facts["epsilon"]), NORMS.get(facts["norm"], (facts["norm"], facts["norm"]))
    full = str(facts["epsilon_text"]) or f"{epsilon:g}"
    top, _, bottom = full.partition("/")
    half = f"{float(top) / 2:g}/{bottom}" if bottom else f"{epsilon / 2:g}"
    chance = 1 / len(classes) if (classes := facts["data"].get("classes")) else math.nan
    texts = ("0", f"ε/2 = {half}", f"ε = {full}")
    return Measured(run.table("accuracy"), (0.0, epsilon / 2, epsilon), texts, norm, chance)


def _over_seeds(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval over two or more seeds."""
    from scipy import stats

    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def _in_order(known: Iterable[str], found: Iterable[str]) -> list[str]:
    """The names found, each once: those that are known in their order, then the others."""
    names = dict.fromkeys(found)
    return [name for name in known if name in names] + [name for name in names if name not in set(known)]


def _about(texts: dict[str, str], name: str) -> str:
    return texts.get(name, "")


def _shade(model: str) -> str:
    return f"var(--{model}, var(--other))" if model in MODELS else "var(--other)"


def _number(cell: Cell) -> float:
    return math.nan if cell == "" else float(cell)


def _plain(value: object) -> str:
    """A number with three digits, an empty cell as a dash, a list with commas."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "–" if value in ("", None) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _kept(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []
