"""The run folder keeps what was finished, whatever happens, and says clearly what it cannot go on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder

ASKED = {"source": "digits", "epsilon": 1.5, "batch_size": 64}
name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["007", "nan", "1e5"]
)
number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)


def python(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore[call-overload, no-any-return]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[{"model": "a\rb", "label": 'c\r\n"d,', "seed": 0, "accuracy": 0.5}])
@given(rows=st.lists(st.fixed_dictionaries({"model": name, "label": name, "seed": number, "accuracy": number}), max_size=5))
def test_rows_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RunFolder.open(folder, ASKED) as run:
        run.record_stage("one", 1.0, {"facts": rows})
        run.record_stage("two", 1.0, {"facts": rows, "other": []})
    assert RunFolder.read(folder).table("facts") == rows * 2
    assert RunFolder.read(folder).table("other") == RunFolder.read(folder).table("absent") == []


def test_columns_of_later_stages_are_added_and_missing_cells_are_empty(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ASKED) as run:
        run.record_stage("one", 1.0, {"sets": [{"set": "robust", "n": 3, "epsilon": None}]})
        run.record_stage("two", 1.0, {"sets": [{"set": "next-labels", "n": 4, "reached": 0.5}]})
        assert run.table("sets") == [
            {"set": "robust", "n": 3, "epsilon": "", "reached": ""},
            {"set": "next-labels", "n": 4, "epsilon": "", "reached": 0.5},
        ]
    assert (tmp_path / "tables/sets.csv").read_text().splitlines()[0] == "set,n,epsilon,reached"


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "new" / "run", ASKED) as run:
        run.update_metadata(seeds=(0, 1))
        run.record_stage("seed0/standard", 2.5, {"accuracy": [{"model": "standard", "seed": 0}]})
    with RunFolder.open(tmp_path / "new" / "run", dict(ASKED)) as run:
        assert run.done("seed0/standard") and not run.done("seed1/standard")
        assert run.metadata["seeds"] == [0, 1] and run.metadata["finished"] is False
        run.record_stage("seed1/standard", 2.5, {"accuracy": [{"model": "standard", "seed": 1}]})
        assert [row["seed"] for row in run.table("accuracy")] == [0, 1]
        with pytest.raises(ValueError, match="done already"):
            run.record_stage("seed1/standard", 2.5)


def test_rows_of_a_stage_that_was_killed_are_never_read_and_are_replaced(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ASKED) as run:
        run.record_stage("one", 1.0, {"facts": [{"seed": 0}]})
        before = (tmp_path / "run.json").read_bytes()
        run.record_stage("two", 1.0, {"facts": [{"seed": 1}, {"seed": 2}]})
    (tmp_path / "run.json").write_bytes(before)  # as if killed after the table, before the mark
    with RunFolder.open(tmp_path, ASKED) as run:
        assert not run.done("two") and run.table("facts") == [{"seed": 0}]
        run.record_stage("two", 1.0, {"facts": [{"seed": 3}]})
        assert run.table("facts") == [{"seed": 0}, {"seed": 3}]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_any_moment_a_run_can_go_on(tmp_path: Path) -> None:
    code = """
import sys
from notbugs.results import Run
with Run.open(sys.argv[1], {}) as run:
    for stage in range(100_000):
        if not run.done(str(stage)):
            run.finish(str(stage), 0.1, {"a": [{"at": stage}], "b": [{"at": stage}] * 3})
"""
    finished = 0
    for turn in range(6):
        process = python(code, tmp_path)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (tmp_path / "tables/b.csv").exists():
            time.sleep(0.01)
        time.sleep(0.15 + 0.037 * turn)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with RunFolder.open(tmp_path, {}) as run:
            done = len(run.metadata["stages"])
            assert [row["at"] for row in run.table("a")] == list(range(done))
            assert [row["at"] for row in run.table("b")] == [stage for stage in range(done) for _ in range(3)]
            assert done >= finished
            finished = done
    assert finished > 6


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_processes_never_write_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from notbugs.results import Run; run = Run.open(sys.argv[1], {}); print('in', flush=True); sys.stdin.read()"
    )
    other = python(code, tmp_path, stdin=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=r"--out: must not be in use.*which another run is writing"):
        RunFolder.open(tmp_path, {})
    RunFolder.read(tmp_path)  # reading is free
    other.communicate("")
    RunFolder.open(tmp_path, {}).close()


def test_other_arguments_are_named(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, ASKED).close()
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(
        InputError, match=r"--batch-size: must be as before.*got 32 where the run in .* has 64; give another --out"
    ):
        RunFolder.open(tmp_path, {**ASKED, "batch_size": 32})
    with pytest.raises(InputError, match=r"source: .*got planted where .* has digits"):
        RunFolder.open(tmp_path, {**ASKED, "source": "planted"})
    with pytest.raises(InputError, match=r"--limit: .*got 5 where .* has None"):
        RunFolder.open(tmp_path, {**ASKED, "limit": 5})
    assert (tmp_path / "run.json").read_bytes() == before
    RunFolder.open(tmp_path, ASKED).close()  # a refusal lets the folder go


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--out: must be a new folder or an earlier run.*which holds other files"):
        RunFolder.open(tmp_path, ASKED)
    with pytest.raises(InputError, match="--out: must be a folder, got the file"):
        RunFolder.open(tmp_path / "thesis.txt", ASKED)
    with pytest.raises(InputError, match="--out: must be a folder that can be written"):
        RunFolder.open(tmp_path / "thesis.txt" / "run", ASKED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"asked": {}}', "\xff\x00"])
def test_a_damaged_run_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"run folder: must hold a run.json.*--out"):
        RunFolder.read(tmp_path)
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"run\.json: must ") as caught:
        RunFolder.read(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"run\.json: must "):
        RunFolder.open(tmp_path, {})


def test_a_table_that_lost_rows_is_refused(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ASKED) as run:
        run.record_stage("one", 1.0, {"facts": [{"seed": 0}, {"seed": 1}]})
        (tmp_path / "tables/facts.csv").write_text("seed\n0\n")
        with pytest.raises(InputError, match=r"facts\.csv: must hold the 2 rows the run wrote, got 1"):
            run.table("facts")


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = """
import resource, sys
from notbugs.results import Run
run = Run.open(sys.argv[1], {})
run.finish("small", 1.0, {"facts": [{"seed": 0}]})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.finish("big", 1.0, {"facts": [{"seed": 10**9}] * 10_000})
except Exception as error:
    print(type(error).__name__, error)
"""
    said, failed = python(code, tmp_path).communicate()
    assert said.startswith("BadInput --out: must be on a disk with room") and said.count("\n") == 1, failed
    assert [row["seed"] for row in RunFolder.read(tmp_path).table("facts")] == [0]
    assert not list(tmp_path.rglob("*.new"))


def test_run_json_is_plain_json_that_a_person_can_read(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ASKED) as run:
        run.update_metadata(source=Path("bilder/猫"), data={"classes": ["<b>", "naïve"]})
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["source"] == os.path.join("bilder", "猫") and "naïve" in text
