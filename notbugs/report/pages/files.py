"""What the page of sorted files shows, from its run folder. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from notbugs.report import render
from notbugs.runs.folder import Cell, RunFolder

Rows = list[dict[str, Cell]]
FACTS: dict[str, Any] = {
    "source": "a set", "within": "", "recipe": {}, "command": "", "notbugs": "", "versions": {}, "device": "", "machine": "",
    "seconds": 0, "finished": False, "seed": 0, "steadiness": None,
    "data": {"classes": [], "n": "?", "test": "?", "shape": [], "note": "", "skipped": []},
}  # fmt: skip
KINDS = {
    "robust": "Robust readers find much evidence in them for what ordinary readers find.",
    "non-robust": "Ordinary readers find evidence in them that robust readers do not.",
    "mislabelled-looking": "All readers, who never saw them in training, take them for the same other class. Look here first.",
    "ambiguous": "Most readers get them wrong, but not in the same way.",
}
WORDS = {
    "robust": "keeps more of its usefulness on the robust version of the files than on the non-robust one",
    "non-robust": "keeps more of it on the non-robust version",
    "spurious": "useful on held-out training files, by half or more less so on the test part",
    "useless": "tells no class from the rest",
}


def content(run: RunFolder) -> dict[str, Any]:
    """Everything that files.html.jinja names."""
    facts = FACTS | run.metadata
    rows, cues = run.table("files"), run.table("cues")
    return {
        "title": f"The files of {str(facts['source']).rstrip('/').rsplit('/', 1)[-1]}",
        "facts": facts,
        "data": FACTS["data"] | facts["data"],
        "kinds": [{**row, "about": KINDS[str(row["kind"])]} for row in run.table("kinds")],
        "pictures": _pictures(run),
        "cues": [row for row in cues if row["spurious"]],
        "cue_pictures": _cue_pictures(run),
        "layers": run.table("layers"),
        "no_cues": len(cues) - sum(bool(row["spurious"]) for row in cues),
        "words": _words(run.table("words")),
        "paper": {kind: sum(row["kind"] == kind for row in run.table("words")) for kind in ("robust", "non-robust", "useless")},
        "feature_pictures": _feature_pictures(run),
        "told": run.table("columns"),
        "charts": {"evidence": _chart(rows)} if rows else {},
        "kept": {kind: render.listed(run.folder / kind) for kind in ("datasets", "models", "tables")},
    }


def _pictures(run: RunFolder) -> dict[str, list[Mapping[str, Any]]]:
    """By kind, one entry a file, with its picture's source."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in run.table("pictures"):
        kinds.setdefault(str(row["kind"]), []).append({**row, "source": render.inline(run.folder, str(row["picture"]))})
    return kinds


def _cue_pictures(run: RunFolder) -> dict[str, list[Mapping[str, Any]]]:
    """By cue, its pictures with their sources."""
    cues: dict[str, list[Mapping[str, Any]]] = {}
    for row in run.table("cue_pictures"):
        cues.setdefault(str(row["name"]), []).append({**row, "source": render.inline(run.folder, str(row["picture"]))})
    return cues


def _words(rows: Rows) -> list[dict[str, Any]]:
    return [
        {"word": word, "about": about, "count": sum(row["word"] == word for row in rows), "n": len(rows)}
        for word, about in WORDS.items()
    ]


def _feature_pictures(run: RunFolder) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names, and one entry a feature: its cells by column."""
    words = {row["feature"]: row for row in run.table("words")}
    columns: dict[str, None] = {}
    entries: dict[Cell, dict[str, Any]] = {}
    for row in run.table("feature_pictures"):
        columns[str(row["column"])] = None
        entry = entries.setdefault(row["feature"], {**words[row["feature"]], "cells": {}})
        entry["cells"][str(row["column"])] = {**row, "source": render.inline(run.folder, str(row["picture"]))}
    return list(columns), list(entries.values())


def _chart(rows: Rows) -> dict[str, Any]:
    """Smallest change that flips a robust model against the one that flips an ordinary model, a point a file."""
    import altair as alt

    most = 1500  # points: more are a smear, and make the page heavy
    some = rows[:: -(-len(rows) // most)]
    values = [
        {
            "ordinary": row["standard_radius"], "robust": row["robust_radius"], "kind": row["kind"], "file": row["file"],
            "label": row["label"], "robustness": render.plain(row["robustness"]),
        }
        for row in some
    ]  # fmt: skip
    shades = alt.Scale(domain=list(KINDS), range=["var(--on-robust)", "var(--on-nonrobust)", "var(--alarm)", "var(--other)"])
    chart = alt.Chart({"values": values}).mark_point(size=26, filled=True, opacity=0.6).encode(
        x=alt.X("ordinary:Q", title="smallest change that flips an ordinary reader", axis=alt.Axis(grid=False)),
        y=alt.Y("robust:Q", title="… a robust reader"),
        color=alt.Color("kind:N", scale=shades, legend=alt.Legend(orient="top", title=None, symbolOpacity=1)),
        tooltip=["file:N", "label:N", "kind:N", "robustness:N"],
    )  # fmt: skip
    described = (
        "Each file by the smallest changes that flip ordinary and robust readers; tables/files.csv holds the same figures."
    )
    return render.chart_spec(chart.properties(width="container", height=340, description=described))
