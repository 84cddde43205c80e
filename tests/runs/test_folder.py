"""The run folder keeps what was finished, whatever happens, and says clearly what it cannot resume."""

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
from pyarrow import parquet

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder, common_metadata, write_table
from notbugs.runs.tables.features import LayerRow
from notbugs.runs.tables.files import CategoryRow
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.study import SetRow, SyntheticTruthRow, TrainingRow

ARGUMENTS = {"dataset": "digits", "epsilon": 1.5, "batch_size": 64}
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["007", "nan", "1e5", "", "None", "True"]
)


def truth(label: str, file: str = "a.png", seed: int = 0) -> SyntheticTruthRow:
    return SyntheticTruthRow(
        file=file, split="train", seed=seed, label=label, shape_class=label, texture_class=label, light_background=True
    )


def category(number: int) -> CategoryRow:
    return CategoryRow(category="robust", files=number, n=100)


def python(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[truth('c\r\n"d,', "a\rb")])
@given(rows=st.lists(st.builds(truth, text, text, st.integers(-(10**9), 10**9)), max_size=5))
def test_rows_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, rows: list[SyntheticTruthRow]) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RunFolder.open(folder, ARGUMENTS) as run:
        run.record_stage("one", 1.0, rows)
        run.record_stage("two", 1.0, rows)
    assert RunFolder.read(folder).rows(SyntheticTruthRow) == rows * 2
    assert RunFolder.read(folder).rows(CategoryRow) == []
    if rows:
        table = parquet.read_table(folder / "tables" / "synthetic_truth.parquet").to_pylist()
        assert table == [cells(row) for row in rows * 2]


def test_rows_of_several_tables_go_to_their_tables_and_missing_cells_are_empty(tmp_path: Path) -> None:
    first = SetRow(set="robust", seed=0, n=3, made_from="adversarial", seconds=1.5)
    second = SetRow(set="next-labels", seed=0, n=4, made_from="standard", target_reached=0.5, seconds=2.0)
    with RunFolder.open(tmp_path, ARGUMENTS) as run:
        run.record_stage("one", 1.0, [first, category(1)])
        run.record_stage("two", 1.0, [category(2), second])
        assert run.rows(SetRow) == [first, second] and run.rows(CategoryRow) == [category(1), category(2)]
        assert run.metadata["stages"]["two"]["rows"] == {"categories": 1, "sets": 1}
    lines = (tmp_path / "tables/sets.csv").read_text().splitlines()
    assert lines[0].startswith("set,seed,n,made_from,epsilon,steps,target_reached")
    assert lines[1] == "robust,0,3,adversarial,,,,,,,,0,,,1.5,,,,,,"


def test_a_run_is_resumed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "new" / "run", ARGUMENTS) as run:
        run.update_metadata(seeds=(0, 1))
        run.record_stage("seed0/standard", 2.5, [category(0)], device="cpu")
    with RunFolder.open(tmp_path / "new" / "run", dict(ARGUMENTS)) as run:
        assert run.done("seed0/standard") and not run.done("seed1/standard")
        assert run.metadata["seeds"] == [0, 1] and run.metadata["finished"] is False
        assert run.metadata["stages"]["seed0/standard"] == {
            "state": "done", "seconds": 2.5, "rows": {"categories": 1}, "device": "cpu",
        }  # fmt: skip
        run.record_stage("seed1/standard", 2.5, [category(1)])
        assert [row.files for row in run.rows(CategoryRow)] == [0, 1]
        with pytest.raises(ValueError, match="done already"):
            run.record_stage("seed1/standard", 2.5)


def test_rows_of_a_killed_stage_are_never_read_and_are_replaced(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ARGUMENTS) as run:
        run.record_stage("one", 1.0, [category(0)])
        before = (tmp_path / "run.json").read_bytes()
        run.record_stage("two", 1.0, [category(1), category(2)])
    (tmp_path / "run.json").write_bytes(before)  # as if killed after the table, before the mark
    with RunFolder.open(tmp_path, ARGUMENTS) as run:
        assert not run.done("two") and run.rows(CategoryRow) == [category(0)]
        run.record_stage("two", 1.0, [category(3)])
        assert run.rows(CategoryRow) == [category(0), category(3)]


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, ARGUMENTS).close()
    half = [tmp_path / name for name in ("run.json.part", "tables/rows.csv.part", "datasets/.robust-files.12.part/train/a.png")]
    whole = tmp_path / "datasets/robust/train/part/x.part"  # a file of a data set, whatever its name
    for path in (*half, whole):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    RunFolder.open(tmp_path, ARGUMENTS).close()
    assert whole.exists() and not any(path.exists() for path in half) and not list(tmp_path.glob("datasets/.*"))


KILLED = """
import sys
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import LayerRow
from notbugs.runs.tables.files import CategoryRow
with RunFolder.open(sys.argv[1], {}) as run:
    for stage in range(100_000):
        if not run.done(str(stage)):
            rows = [CategoryRow(category="robust", files=stage, n=1)]
            layer = LayerRow(layer="a", features=stage, distance_moved=0.0, distance_between_images=1.0, ratio=0.0, n=1, steps=1)
            run.record_stage(str(stage), 0.1, rows + [layer] * 3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.slow
def test_killed_at_any_moment_a_run_can_be_resumed(tmp_path: Path) -> None:
    finished = 0
    for turn in range(4):
        process = python(KILLED, tmp_path)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _recorded(tmp_path) < finished + 2:
            time.sleep(0.01)
        time.sleep(0.053 * turn)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with RunFolder.open(tmp_path, {}) as run:
            done = len(run.metadata["stages"])
            assert [row.files for row in run.rows(CategoryRow)] == list(range(done))
            assert [row.features for row in run.rows(LayerRow)] == [stage for stage in range(done) for _ in range(3)]
            assert done >= finished + 2
            finished = done


def _recorded(folder: Path) -> int:
    """How many stages run.json has, which another process writes."""
    path = folder / "run.json"
    return len(json.loads(path.read_text()).get("stages", {})) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
def test_two_processes_never_write_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from notbugs.runs.folder import RunFolder; run = RunFolder.open(sys.argv[1], {});"
        "print('in', flush=True); sys.stdin.read()"
    )
    other = python(code, tmp_path, stdin=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=r"--out: must not be in use.*which another run is writing"):
        RunFolder.open(tmp_path, {})
    RunFolder.read(tmp_path)  # reading takes no lock
    other.communicate("")
    RunFolder.open(tmp_path, {}).close()


def test_other_arguments_are_named(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, ARGUMENTS).close()
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(
        InputError, match=r"--batch-size: must be as before.*got 32 where the run in .* has 64; give another --out"
    ):
        RunFolder.open(tmp_path, {**ARGUMENTS, "batch_size": 32})
    with pytest.raises(InputError, match=r"DATASET: .*got planted where .* has digits"):
        RunFolder.open(tmp_path, {**ARGUMENTS, "dataset": "planted"})
    with pytest.raises(InputError, match=r"--limit: .*got 5 where .* has None"):
        RunFolder.open(tmp_path, {**ARGUMENTS, "limit": 5})
    with pytest.raises(InputError, match=r"--out: must be a new folder or an audit, got .* which holds a study"):
        RunFolder.open(tmp_path, {**ARGUMENTS, "kind": "audit"})
    assert (tmp_path / "run.json").read_bytes() == before
    RunFolder.open(tmp_path, ARGUMENTS).close()  # an error releases the lock


def test_the_same_place_in_other_words_is_the_same_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "link").symlink_to("imgs")
    RunFolder.open("run", {"dataset": "imgs", "others": ["imgs", "timm:resnet18"]}).close()
    for name in ("./imgs", "imgs/", "../" + tmp_path.name + "/imgs", str(tmp_path / "imgs"), "link"):
        RunFolder.open("run", {"dataset": name, "others": [name, "timm:resnet18"]}).close()
    with pytest.raises(InputError, match=r"^DATASET: must be as before .*, got other where the run in run has imgs"):
        RunFolder.open("run", {"dataset": "other", "others": ["imgs", "timm:resnet18"]})
    with pytest.raises(InputError, match=r"^--other: must be as before"):
        RunFolder.open("run", {"dataset": "imgs", "others": ["imgs"]})
    (tmp_path / "1").mkdir()
    with pytest.raises(InputError, match=r"^--seed: must be as before"):
        RunFolder.open("run", {"dataset": "imgs", "others": ["imgs", "timm:resnet18"], "seed": "1"})


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--out: must be a new folder or an earlier run.*which holds other files"):
        RunFolder.open(tmp_path, ARGUMENTS)
    with pytest.raises(InputError, match="--out: must be a folder, got the file"):
        RunFolder.open(tmp_path / "thesis.txt", ARGUMENTS)
    with pytest.raises(InputError, match="--out: must be a folder that can be written"):
        RunFolder.open(tmp_path / "thesis.txt" / "run", ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"arguments": {}}', "\xff\x00"])
def test_a_damaged_run_is_one_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"run folder: must hold a run.json.*--out"):
        RunFolder.read(tmp_path)
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"run\.json: must ") as caught:
        RunFolder.read(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"run\.json: must "):
        RunFolder.open(tmp_path, {})


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"asked": {"source": "digits"}, "stages": {}}, ".*, written by the first version"),
        ({"arguments": {}, "stages": {}, "format": 3}, "3 in "),
        ({"arguments": {}, "stages": {}}, "None in "),
    ],
)
def test_a_run_of_another_format_is_one_line(tmp_path: Path, content: dict[str, object], got: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    for function in (RunFolder.read, lambda folder: RunFolder.open(folder, ARGUMENTS)):
        with pytest.raises(InputError, match=rf"^run folder: must be of format 2, got {got}") as caught:
            function(tmp_path)
        assert "\n" not in str(caught.value) and "name another folder" in str(caught.value)
    RunFolder.open(tmp_path / "other", ARGUMENTS).close()


def test_a_table_that_lost_rows_or_columns_is_an_error(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ARGUMENTS) as run:
        run.record_stage("one", 1.0, [category(0), category(1)])
        path = tmp_path / "tables/categories.csv"
        path.write_text("category,files,n\nrobust,0,100\n")
        with pytest.raises(InputError, match=r"categories\.csv: must hold the 2 rows the run wrote, got 1"):
            run.rows(CategoryRow)
        path.write_text("category,files\nrobust,0\nrobust,1\n")
        with pytest.raises(InputError, match=r"categories\.csv: must be the table the run wrote, got column n is missing"):
            run.rows(CategoryRow)
        path.write_text("category,files,n\nrobust,few,100\nrobust,1,100\n")
        with pytest.raises(InputError, match=r"categories\.csv: must be the table the run wrote, got invalid literal"):
            run.rows(CategoryRow)
        path.unlink()
        with pytest.raises(InputError, match=r"categories\.csv: must be the table the run wrote"):
            run.rows(CategoryRow)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = """
import resource, sys
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import CategoryRow
run = RunFolder.open(sys.argv[1], {})
run.record_stage("small", 1.0, [CategoryRow(category="robust", files=0, n=1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.record_stage("big", 1.0, [CategoryRow(category=str(number), files=number, n=1) for number in range(10_000)])
except Exception as error:
    print(type(error).__name__, error)
"""
    said, failed = python(code, tmp_path).communicate()
    assert "tables/categories.parquet: must be on a disk with room" in said and said.count("\n") == 1, failed
    assert [row.files for row in RunFolder.read(tmp_path).rows(CategoryRow)] == [0]
    assert not list(tmp_path.rglob("*.part"))


def test_run_json_is_plain_json_that_a_person_can_read(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, ARGUMENTS) as run:
        run.update_metadata(dataset=Path("bilder/猫"), data={"classes": ["<b>", "naïve"]})
    content = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(content)["dataset"] == os.path.join("bilder", "猫") and "naïve" in content
    assert json.loads(content)["format"] == 2


def test_kind_and_typed_metadata(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "study", ARGUMENTS) as run:
        run.update_metadata(norm="linf", epsilon=0.1, seeds=[0], data={"classes": ["a", "b"], "test": 5})
        assert run.kind == "study" and run.study().epsilon == 0.1 and run.study().data.classes == ("a", "b")
    with RunFolder.open(tmp_path / "audit", {"kind": "audit"}) as run:
        run.update_metadata(model="m", threats=["l2 0.5"], gradient=False)
        assert run.kind == "audit" and run.audit().threats == ("l2 0.5",) and not run.audit().gradient
    with RunFolder.open(tmp_path / "files", {"kind": "files"}) as run:
        assert run.kind == "files" and run.files().rank_stability is None
    with RunFolder.open(tmp_path / "theory", {"kind": "theory"}) as run:
        assert run.kind == "theory" and run.theory().arguments == {"kind": "theory"}


def test_a_table_outside_stages_is_written_in_place_of_what_is_there(tmp_path: Path) -> None:
    row = TrainingRow(model="standard", seed=0, epoch=1, loss=0.5, accuracy=0.9, learning_rate=0.1, seconds=1.0)
    for count in (3, 1):
        write_table([row] * count, tmp_path / "training.csv")
    assert (tmp_path / "training.csv").read_text().count("\n") == 2
    assert parquet.read_table(tmp_path / "training.parquet").to_pylist() == [cells(row)]


def test_the_environment_is_recorded() -> None:
    found = common_metadata("cpu", "a laptop", "notbugs demo")
    assert found["command"] == "notbugs demo" and found["machine"] == "a laptop" and found["notbugs"] == "0.1.0"
    assert {*found["versions"]} == {"python", "torch", "numpy", "scipy"}  # type: ignore[misc]


@pytest.mark.parametrize("place", ["s3://bucket/run", "gs://bucket/run", "memory://run"])
def test_an_object_store_is_refused_and_no_folder_of_that_name_is_made(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^--out: must be a folder on a disk: object stores are not supported, got "):
        RunFolder.open(place, {})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("kind", [[1], {}, 3, None])
def test_a_kind_that_is_no_word_is_one_error(tmp_path: Path, kind: object) -> None:
    RunFolder.open(tmp_path, {"kind": "theory"}).close()
    metadata = json.loads((tmp_path / "run.json").read_text())
    metadata["arguments"]["kind"] = kind
    (tmp_path / "run.json").write_text(json.dumps(metadata))
    for opened in (lambda: RunFolder.open(tmp_path, {"kind": "theory"}), lambda: RunFolder.read(tmp_path)):
        with pytest.raises(InputError, match=r"run\.json: must say in words what kind of run it is"):
            opened()
