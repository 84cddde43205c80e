"""Files that others wrote: each that is no table of answers is named, in one line."""

import os
from functools import partial
from pathlib import Path

import pytest
from review.conftest import read_key, write_review

from notbugs.errors import InputError
from notbugs.review.answers import load_answers
from notbugs.review.files import answer_files


@pytest.mark.slow
def test_files_that_are_no_tables_of_answers_are_named(run: Path, tmp_path: Path) -> None:
    write_review(run, count=2)
    place = run / "review"
    token = read_key(run)[0]["id"]
    head, outside = "reviewer,id,answer,seconds\r\n", tmp_path / "outside.csv"
    outside.write_text(f"{head}A,{token},1,1\r\n")
    files: list[tuple[bytes | None, str]] = [
        (b"", "must have the columns"),
        (b"id,reviewer,answer,seconds\r\n", "must have the columns"),
        (b"reviewer;id;answer;seconds\r\n", "must have the columns"),
        ("reviewer,id,answer,seconds\r\nMüller,x,1,1\r\n".encode("latin-1"), "UTF-8"),
        (head.encode("utf-16"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
        (f'{head}"A,{token},1,1'.encode(), "must be a CSV file"),
        (f'{head}A,{token},"{"1" * 140_000}",1'.encode(), "must be a CSV file"),
        (head.encode() + b"\r\n" * 5_000_000, "at most 10,000,000 bytes"),
        (None, "must be a file, and no link"),
    ]
    for content, words in files:
        path = place / "bad.csv"
        path.mkdir() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            load_answers(run)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value) and len(str(error.value)) < 400
        path.rmdir() if content is None else path.unlink()
    for link in (outside, Path("/dev/zero"), place / "key.csv", tmp_path / "nowhere"):
        (place / "link.csv").symlink_to(link)
        with pytest.raises(InputError, match=r"link\.csv: must be a file, and no link"):
            load_answers(run)
        (place / "link.csv").unlink()
    os.mkfifo(place / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv: must be a file"):
        load_answers(run)
    (place / "pipe.csv").unlink()
    (place / "no\n\x1b[31m\udcff.CSV").write_text("x")
    with pytest.raises(InputError, match="must have the columns") as error:
        load_answers(run)
    assert str(error.value).isprintable()


@pytest.mark.slow
def test_rows_that_do_not_belong_are_named_with_their_line(run: Path) -> None:
    write_review(run, count=2)
    token = read_key(run)[0]["id"]
    rows = [
        (f"A,{token}x,1,1", "an id of this review, got '"),
        ("A,=HYPERLINK(1),1,1", "an id of this review"),
        (f"A,{token},11,1", "must have a class of the data as its answer, or nothing, got '11'"),
        (f"A,{token},=1+1,1", "must have a class"),
        (f'A,{token},"<b>\x1b[1m",1', r"got '<b>\\x1b"),
        (f"A,{token}, 1,1", "must have a class"),
        (f"=cmd()!A1,{token},1,1", "must name its reviewer"),
        (f"@A,{token},1,1", "must name its reviewer"),
        (f",{token},1,1", "must name its reviewer"),
        (f"{'A' * 101},{token},1,1", "must name its reviewer"),
        (f'"A\nB",{token},1,1', "must name its reviewer"),
        *(
            (f"A,{token},1,{seconds}", "must have its seconds")
            for seconds in ("", "-1", "nan", "inf", "1e3", "=1", "٣", "9" * 400)
        ),
        (f"A,{token},1", "must have 4 cells"),
        (f"A,{token},1,1,1", "must have 4 cells"),
    ]
    for row, words in rows:
        (run / "review/bad.csv").write_text(f"reviewer,id,answer,seconds\n\nA,{token},1,2\n{row}\n", encoding="utf-8")
        with pytest.raises(InputError, match=rf"bad\.csv, line {5 if 'B' in row and chr(10) in row else 4}: .*{words}") as error:
            load_answers(run)
        assert str(error.value).isprintable()


@pytest.mark.slow
def test_a_key_that_is_damaged_or_missing_is_named(run: Path) -> None:
    assert load_answers(run) == []
    (run / "review").mkdir()
    assert load_answers(run) == []
    (run / "review/anna.csv").write_text("reviewer,id,answer,seconds\n")
    with pytest.raises(InputError, match=r"review: must hold key\.csv, .*put it back"):
        load_answers(run)
    write_review(run, count=2)
    key = run / "review/key.csv"
    key.write_text("id,set\n")
    with pytest.raises(InputError, match=r"key\.csv: must have the columns id,set,file,label"):
        load_answers(run)
    key.unlink()
    key.symlink_to("/etc/passwd")
    for function in (load_answers, partial(write_review, count=2)):
        with pytest.raises(InputError, match=r"key\.csv: must be a file, and no link"):
            function(run)


def test_files_are_read_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    for name in ("A (10).csv", "A (2).csv", "A.csv", "B.CSV", "key.csv", "notes.txt", ".hidden.csv"):
        (tmp_path / "review" / name).touch()
    assert [path.name for path in answer_files(tmp_path)] == ["A.csv", "A (2).csv", "A (10).csv", "B.CSV"]
    assert answer_files(tmp_path / "nowhere") == []
