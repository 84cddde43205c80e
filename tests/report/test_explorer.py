"""What the page of file scores packs for its explorer."""

import base64
from array import array
from pathlib import Path
from typing import Any

import pytest
from report.explorer_runs import CATEGORIES, CLASSES, SIDE, chartless_page, explorer_run, file_names, file_rows

from notbugs.report import explorer
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import PictureSheetRow


def unpacked(column: Any) -> list[Any]:
    """What `packed`, `numbers` or `scaled` packed."""
    if isinstance(column, str):
        return array(column[0], base64.b64decode(column[1:])).tolist()
    codes = unpacked(column["codes"])
    if "values" in column:
        return [column["values"][code] for code in codes]
    return [None if code == 65535 else code * column["step"] for code in codes]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = explorer_run(tmp_path_factory.mktemp("packed") / "run", 30)
    return explorer.context(RunFolder.read(folder), file_rows(30))["explorer"]  # type: ignore[return-value]


def test_columns_hold_what_the_tables_hold(packed: dict) -> None:
    rows = file_rows(30)
    assert packed["names"] == file_names(30)
    labels = next(column for column in packed["texts"] if column["name"] == "label")
    assert unpacked(labels) == [row.label for row in rows]
    scores = {score["name"]: score for score in packed["scores"]}
    assert unpacked(scores["robustness"]["values"]) == pytest.approx([row.robustness for row in rows])
    assert scores["robustness"]["range"] == "0 to 1" and scores["robustness"]["about"] == "a rank"
    assert "margin_lost_on_test_part" not in scores and "index" not in scores  # empty everywhere; no score


def test_examples_and_neighbors_are_those_of_each_file(packed: dict) -> None:
    (standard,) = packed["adversarial"]
    norms = unpacked(standard["norm"])
    assert norms[2] == 0 and (norms[3] is None or norms[3] != norms[3]) and norms[4] == 0.5
    assert all(0 < levels <= 8 for levels in unpacked(standard["largest"]))
    assert packed["neighbors"]["count"] == 3
    same, other = (unpacked(packed["neighbors"][name]["files"]) for name in ("same", "other"))
    assert same[:6] == [1, 2, 3, 30, 30, 30] and other[:3] == [29, 28, 27]
    assert unpacked(packed["neighbors"]["other"]["distances"])[:3] == pytest.approx([0.1, 0.2, 0.3], abs=1e-5)


@pytest.mark.parametrize(("values", "kind"), [(256, "B"), (257, "H"), (65537, "i")])
def test_codes_are_as_short_as_they_can_be(values: int, kind: str) -> None:
    column = explorer.texts(map(str, range(values)))
    assert str(column["codes"])[0] == kind and unpacked(column["codes"]) == [*range(values)]


def test_numbers_are_as_near_as_they_are_shown() -> None:
    values = [0.1, None, 3.0, 1e-9, 2.5] * 30
    few, all_different = explorer.numbers(values), explorer.numbers(index / 7 for index in range(150))
    assert isinstance(few, dict) and isinstance(all_different, str)
    assert unpacked(few) == [value if value is None else pytest.approx(value, rel=1e-6) for value in values]
    assert unpacked(all_different) == pytest.approx([index / 7 for index in range(150)])
    assert unpacked(explorer.scaled(values)) == [value if value is None else pytest.approx(value, abs=3e-5) for value in values]
    assert unpacked(explorer.scaled([None, 0.0])) == [None, 0.0] and unpacked(explorer.scaled([])) == []


@pytest.mark.slow
def test_small_pictures_are_inside_the_page_and_large_ones_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = explorer_run(tmp_path / "run", 120)
    inside = chartless_page(folder).read_text(encoding="utf-8")
    assert "img-src data:;" in inside and "data:image/webp;base64," in inside and "explorer/original" not in inside
    monkeypatch.setattr(explorer, "EMBEDDED_BYTES", 1000)
    beside = chartless_page(folder).read_text(encoding="utf-8")
    assert "img-src data: file: &#39;self&#39;;" in beside and "data:image/webp" not in beside
    assert "explorer/original-0000100.webp" in beside and "in the folder explorer/ beside this page" in beside


def test_a_table_cannot_name_pictures_outside(tmp_path: Path) -> None:
    folder = explorer_run(tmp_path / "run", 10)
    (tmp_path / "outside.webp").write_bytes((folder / "explorer" / "original-0000000.webp").read_bytes())
    (folder / "explorer" / "secret.webp").write_text("secret")
    for name in ("explorer/../../outside.webp", "../outside.webp", "explorer/secret.webp", "run.json", "explorer/none.webp"):
        row = PictureSheetRow(kind="original", picture=name, first=0, files=10, columns=10, width=SIDE, height=SIDE)
        assert explorer.pack_pictures(folder, [row]).kinds["original"]["sources"] == [""]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = explorer_run(tmp_path / "run", 10, pictures=False)
    assert "they have 0 MB before compression, and --pictures allows 0" in chartless_page(folder).read_text(encoding="utf-8")
    run = RunFolder.read(folder)
    run.update_metadata(settings={"repeats": 2})
    assert "were not stored when the files were scored" in chartless_page(folder).read_text(encoding="utf-8")
    assert explorer.context(run, []) == {"explorer": {}, "explorer_notes": []}


def test_names_that_are_code_stay_text_in_the_page(tmp_path: Path) -> None:
    text = chartless_page(explorer_run(tmp_path / "run", 10)).read_text(encoding="utf-8")
    assert "<img src=x" not in text and "<script>document" not in text
    assert all(name not in text for name in (CLASSES[1], CATEGORIES[2]))
