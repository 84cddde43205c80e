"""The page of file scores, from its run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notbugs.report import data_check, explorer, files_summary, render
from notbugs.report.format import plain
from notbugs.report.render import Charts, Context
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import CuePictureRow, FeatureCategoryRow, FeaturePictureRow, LayerRow, SpuriousCueRow
from notbugs.runs.tables.files import (
    CategoryRow,
    ColumnRow,
    FilePictureRow,
    FileRow,
    LabelErrorsRow,
    ModelAccuracyRow,
    SubsetRegressionRow,
)
from notbugs.runs.tables.row import AnyRow, cells

FILE_CATEGORIES = {
    "robust": "Robust models classify them correctly, and still do within epsilon.",
    "non-robust": "Standard models classify them correctly. Robust models do not, or not within epsilon.",
    "misclassified": "Standard models misclassify them, and robust models do not classify them correctly within epsilon.",
    "likely label error": "Their label is wrong with a probability of 0.95 or more. Check these first.",
}
FEATURE_CATEGORIES = {
    "robust": "useful (usefulness ρ = E[y f] of 0.1 or more), and in the worst case within epsilon (robust usefulness γ above 0)",
    "non-robust": "useful, but not in the worst case within epsilon (γ of 0 or less)",
    "useless": "not useful for any class (ρ below 0.1)",
}
CHART_POINTS = 1500  # files: more points hide each other and make the page heavy


def page(run: RunFolder) -> tuple[Context, Charts]:
    """Context of files.html.jinja, and the charts."""
    metadata = run.files()
    files, cues, features = run.rows(FileRow), run.rows(SpuriousCueRow), run.rows(FeatureCategoryRow)
    spurious = [cue for cue in cues if cue.spurious]
    accuracies, errors = run.rows(ModelAccuracyRow), run.rows(LabelErrorsRow)
    return {
        "title": f"The files of {Path(metadata.dataset or 'a data set').name or metadata.dataset}",
        "metadata": metadata,
        "data_check": data_check.section(run),
        "stages": run.metadata["stages"],
        "files": len(files),
        "accuracy": files_summary.accuracy_table(accuracies) if accuracies else None,
        "robust_files": files_summary.robust_files(files, metadata.threat_model),
        "rank": files_summary.rank(run),
        "subset_regression": [files_summary.subset_regression(row) for row in run.rows(SubsetRegressionRow)],
        "label_errors": files_summary.label_errors(errors[0], accuracies) if errors else "",
        "categories": [(row, FILE_CATEGORIES[row.category]) for row in run.rows(CategoryRow)],
        "pictures": _by(run, FilePictureRow, "category"),
        "cues": spurious,
        "other_cues": len(cues) - len(spurious),
        "cue_pictures": _by(run, CuePictureRow, "name"),
        "layers": run.rows(LayerRow),
        "features": len(features),
        "feature_categories": [
            (category, sum(row.category == category for row in features), description)
            for category, description in FEATURE_CATEGORIES.items()
        ],
        "spurious_features": sum(row.spurious for row in features),
        "feature_pictures": _feature_pictures(run, features),
        "columns": run.rows(ColumnRow),
        **explorer.context(run, files),
    }, {"files-chart": _chart(files, accuracies)} if files else {}


def _by(run: RunFolder, row_type: type[AnyRow], column: str) -> dict[str, list[Mapping[str, object]]]:
    """Rows with pictures, by one of their columns; `source` is a data URL."""
    groups: dict[str, list[Mapping[str, object]]] = {}
    for row in map(cells, run.rows(row_type)):
        entry = {**row, "source": render.inline(run.folder, str(row["picture"]))}
        groups.setdefault(str(row[column]), []).append(entry)
    return groups


@dataclass
class PicturedFeature:
    """One feature with its pictures: cells by column, `source` is a data URL."""

    row: FeatureCategoryRow
    cells: dict[str, Mapping[str, object]]


def _feature_pictures(run: RunFolder, features: Sequence[FeatureCategoryRow]) -> tuple[list[str], list[PicturedFeature]]:
    """Column names, and the features with pictures."""
    by_feature = {row.feature: row for row in features}
    columns: dict[str, None] = {}
    entries: dict[int, PicturedFeature] = {}
    for row in run.rows(FeaturePictureRow):
        columns[row.column] = None
        entry = entries.setdefault(row.feature, PicturedFeature(by_feature[row.feature], {}))
        entry.cells[row.column] = {**cells(row), "source": render.inline(run.folder, row.picture)}
    return list(columns), list(entries.values())


def _chart(files: Sequence[FileRow], accuracies: Sequence[ModelAccuracyRow]) -> dict[str, object]:
    """Minimum norm for a robust model and for a standard model, one point per file; lines at epsilon."""
    import altair as alt

    shown = files[:: -(-len(files) // CHART_POINTS)]
    values = [
        {
            "standard": row.standard_minimum_norm,
            "robust": row.robust_minimum_norm,
            "category": row.category,
            "file": row.file,
            "label": row.label,
            "robustness": plain(row.robustness),
        }
        for row in shown
    ]
    colors = ["var(--trained-on-robust)", "var(--trained-on-nonrobust)", "var(--other)", "var(--alarm)"]
    scale, legend = (
        alt.Scale(domain=list(FILE_CATEGORIES), range=colors),
        alt.Legend(orient="top", title=None, symbolOpacity=1, columns=2),
    )
    chart = alt.Chart(alt.NamedData("files")).mark_point(size=26, filled=True, opacity=0.6)
    chart = chart.encode(
        x=alt.X("standard:Q", title="minimum norm, standard model", axis=alt.Axis(grid=False)),
        y=alt.Y("robust:Q", title="minimum norm, robust model"),
        color=alt.Color("category:N", scale=scale, legend=legend),
        tooltip=["file:N", "label:N", "category:N", "robustness:N"],
    )
    epsilon = alt.Chart({"values": [{"epsilon": row.epsilon} for row in accuracies[:1]]}).mark_rule(
        strokeDash=[3, 3], color="currentColor", opacity=0.6
    )
    chart = epsilon.encode(x="epsilon:Q") + epsilon.encode(y="epsilon:Q") + chart
    text = "Each file by the minimum norm for standard and for robust models; tables/files.csv holds the same figures."
    return render.chart_spec(chart.properties(width="container", height=340, description=text), files=values)
