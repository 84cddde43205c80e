"""Typed rows: text stays text, an empty cell is None, a flag is a bool; CSV and parquet hold the same."""

import csv
import importlib
import io
import pkgutil
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given, strategies
from pyarrow import parquet

from notbugs.runs import tables
from notbugs.runs.folder import write_parquet, write_table
from notbugs.runs.tables.analyses import SaliencyRow
from notbugs.runs.tables.audit import AuditFileRow, ImageRow, PredictionRow
from notbugs.runs.tables.review import ReviewAnswerRow
from notbugs.runs.tables.row import Row, as_csv, cells, columns, from_text, original_cell, plain_cell, records_as_csv
from notbugs.runs.tables.study import SetRow

ANSWER = ReviewAnswerRow(reviewer="1e5", set="robust", file="007.png", label="007", answer="", correct=False, seconds=2.0)
IMAGE = ImageRow(index=3, file="nan.png", label="007", predicted="nan", misclassified=True, minimum_l2=float("inf"))
MODULES = [importlib.import_module(f"{tables.__name__}.{module.name}") for module in pkgutil.iter_modules(tables.__path__)]
ROW_TYPES = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Row) and kind.__module__ == module.__name__ and kind is not Row
]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("row", [ANSWER, IMAGE])
def test_text_stays_text_and_an_empty_cell_is_none(row: Row) -> None:
    (text,) = read(as_csv([row]))
    assert from_text(type(row), text) == row
    assert text["label"] == "007"


def test_an_empty_answer_is_text_and_an_empty_number_is_none() -> None:
    (answer,), (image,) = read(as_csv([ANSWER])), read(as_csv([IMAGE]))
    assert answer["answer"] == "" and from_text(ReviewAnswerRow, answer).answer == ""
    assert image["minimum_linf"] == "" and from_text(ImageRow, image).minimum_linf is None
    assert from_text(ImageRow, image).minimum_l2 == float("inf")


def test_flags_are_0_and_1_in_csv_and_bools_in_rows() -> None:
    (image,), (answer,) = read(as_csv([IMAGE])), read(as_csv([ANSWER]))
    assert (image["misclassified"], answer["correct"]) == ("1", "0")
    assert from_text(ImageRow, image).misclassified is True and from_text(ReviewAnswerRow, answer).correct is False


@pytest.mark.parametrize("rows", [[ANSWER] * 2, [IMAGE], [IMAGE, AuditFileRow(**cells(IMAGE))][:1]])  # type: ignore[arg-type]
def test_parquet_equals_csv(tmp_path: Path, rows: list[Row]) -> None:
    write_table(rows, tmp_path / "table.csv")
    stored = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    text = read((tmp_path / "table.csv").read_text(encoding="utf-8"))
    assert [type(rows[0])(**record) for record in stored] == rows == [from_text(type(rows[0]), record) for record in text]


def test_broken_unicode_becomes_a_question_mark_in_both(tmp_path: Path) -> None:
    row = ReviewAnswerRow(**{**cells(ANSWER), "file": "a\udcff.png"})  # type: ignore[arg-type]
    write_table([row], tmp_path / "table.csv")
    assert read((tmp_path / "table.csv").read_text(encoding="utf-8"))[0]["file"] == "a?.png"
    write_parquet([row], tmp_path / "other.parquet")
    assert parquet.read_table(tmp_path / "other.parquet").to_pylist()[0]["file"] == "a?.png"


@pytest.mark.parametrize(
    ("change", "says"),
    [({"label": None}, "column label is missing"), ({"index": "x"}, "invalid literal"), ({"misclassified": ""}, "invalid")],
)
def test_a_missing_column_and_a_cell_of_another_type_are_errors(change: dict[str, str | None], says: str) -> None:
    (text,) = read(as_csv([IMAGE]))
    with pytest.raises(ValueError, match=says):
        from_text(ImageRow, {**text, **change})


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda kind: kind.__name__)
def test_every_row_is_a_frozen_dataclass_with_a_table_and_simple_columns(row_type: type[Row]) -> None:
    assert is_dataclass(row_type) and row_type.table and row_type.__doc__
    assert [field.name for field in fields(row_type)] == list(columns(row_type))
    assert {kind for kind, _ in columns(row_type).values()} <= {str, int, float, bool}


def test_rows_cannot_be_changed_and_take_no_positions() -> None:
    with pytest.raises(FrozenInstanceError):
        IMAGE.label = "8"  # type: ignore[misc]
    with pytest.raises(TypeError):
        PredictionRow(0, "a.png")  # type: ignore[call-arg, misc]


def test_columns_say_type_and_whether_a_cell_may_be_empty() -> None:
    found = columns(SaliencyRow)
    assert found["model"] == (str, False) and found["ci_low"] == (float, True) and found["n"] == (int, False)
    assert list(columns(AuditFileRow)) == list(columns(ImageRow))


def test_records_have_all_columns_in_order_of_appearance() -> None:
    assert records_as_csv([{"a": 1, "b": True}, {"c": "x", "a": None}]) == "a,b,c\n1,1,\n,,x\n"
    assert records_as_csv([]) == as_csv([]) == ""
    assert read(records_as_csv([{"a": 'x\r\n"y",', "b": "x\r"}])) == [{"a": 'x\r\n"y",', "b": "x\r"}]


def test_a_column_that_an_earlier_version_did_not_write_is_empty() -> None:
    row = SetRow(set="robust", seed=0, n=3, made_from="adversarial", seconds=1.5, empty_classes="cat, dog")
    text = {name: "" if cell is None else str(cell) for name, cell in cells(row).items()}
    assert from_text(SetRow, text) == row
    del text["empty_classes"]
    assert from_text(SetRow, text).empty_classes is None


FORMULAS = [
    "=1+1",
    "+1-1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "＝1",
    "'=1",
    "''@x",
    '=HYPERLINK("http://x";"y")',
    "-",
    "=1.png",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_reading_gives_it_back(text: str) -> None:
    row = ReviewAnswerRow(**{**cells(ANSWER), "file": text, "label": text})  # type: ignore[arg-type]
    (found,) = read(as_csv([row]))
    assert found["file"].startswith("'") and found["label"].startswith("'")
    assert from_text(ReviewAnswerRow, found) == row


@pytest.mark.parametrize("text", ["-1", "+5", "-0.25", "cat", "'tis", "a=b", "", "1e5", "-1.png"])
def test_numbers_and_other_text_stay_as_they_are(text: str) -> None:
    assert plain_cell(text) == (f"'{text}" if text == "-1.png" else text) and original_cell(plain_cell(text)) == text


@given(strategies.text(strategies.sampled_from("'=+-@\t\r\n 1a＝"), max_size=6))
def test_each_cell_stands_for_one_text(text: str) -> None:
    assert original_cell(plain_cell(text)) == text
