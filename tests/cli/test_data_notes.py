"""Every command says how it read its data and what it left out: once, in the same words, before any work; and keeps it."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
from cli.conftest import call_here, error_line
from PIL import Image

from notbugs import cli, data, datacheck, metrics, models
from notbugs.cli.notes import data_lines, says_notes
from notbugs.cli.table_file import check_table_file, write_table
from notbugs.data import DataConfig, Splits
from notbugs.data.loaded import reporting_loads
from notbugs.data_config import DATA_FIELDS
from notbugs.datacheck.mirroring import Mirroring, Turned
from notbugs.metrics import transfer
from notbugs.runs import runner
from notbugs.study import analyses, pipeline, single
from notbugs.study.classifiers import TrainedClassifier
from notbugs.study.epsilon import NeighborDistances
from notbugs.study.plan import Plan

TABLE = "Listed in tables/data_files.csv."
CHECK = "To list them: notbugs check noted --skip-unreadable --out FILE.csv"
NETWORK = "import torch\ndef make(classes):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
SET = ["noted", "--skip-unreadable"]
MODEL = ["notes_net:make", *SET]
OUT = ["--out", "new"]
TABLE_OUT, BESIDE = ["--out", "table.csv"], "Listed in table.json."
COMMANDS: dict[str, tuple[list[str], str]] = {
    "check": ([*SET, "--no-train"], CHECK),
    "check --out": ([*SET, "--no-train", "--out", "list.csv"], "Listed in list.csv."),
    "run": ([*SET, *OUT], TABLE),
    "split": ([*SET, *OUT], TABLE),
    "split --by-file": ([*SET, "--by-file", "--folds", "2", *OUT], TABLE),
    "split --files": ([*SET, "--files", "list.txt", *OUT], CHECK),
    "files": ([*SET, "--folds", "2", *OUT], TABLE),
    "train": ([*SET, "--out", "new.safetensors"], CHECK),
    "attack": ([*MODEL, "--epsilon", "0.1"], CHECK),
    "attack --out": ([*MODEL, "--epsilon", "0.1", *OUT], TABLE),
    "features": ([*MODEL, "--epsilon", "0.1"], CHECK),
    "features --out": ([*MODEL, "--epsilon", "0.1", *TABLE_OUT], BESIDE),
    "transfer": ([*MODEL, "--epsilon", "0.1"], CHECK),
    "transfer --out": ([*MODEL, "--epsilon", "0.1", *TABLE_OUT], BESIDE),
    "explain": (MODEL, CHECK),
    "explain --out": ([*MODEL, *TABLE_OUT], BESIDE),
    "corruptions": (MODEL, CHECK),
    "corruptions --out": ([*MODEL, *TABLE_OUT], BESIDE),
    "explain RUN": (["study"], TABLE),
    "corruptions RUN": (["study"], TABLE),
    "ntk": (["study"], TABLE),
    "review": (["study", "--sets", "original", "--count", "1"], TABLE),
}
LOAD_NOTHING = {"theory", "report", "compare"}
NO_OWN_DATA = {"demo"}  # its options are those of `run mnist5k --limit 2000`


def stop(*_: object, **__: object) -> NoReturn:
    """In place of the work."""
    raise SystemExit(0)


@pytest.fixture(scope="module")
def folder(no_work: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of fourteen images, one file that is no image, a network, and a study."""
    made = tmp_path_factory.mktemp("notes")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 8, 8), np.uint8)
    for number, image in enumerate(pixels):
        (made / "noted" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(made / "noted" / "ab"[number % 2] / f"{number}.png")
        (made / "colored" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([image, image, 255 - image], 2)).save(made / "colored" / "ab"[number % 2] / f"{number}.png")
    (made / "noted" / "a" / "broken.png").write_text("no image")
    (made / "list.txt").write_text("a/0.png\n")
    (made / "notes_net.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        call_here("run", *SET, "--out", "study")
    return made


@pytest.fixture(scope="module", autouse=True)
def no_work() -> Iterator[None]:
    """Commands stop where their work begins."""
    with pytest.MonkeyPatch.context() as patch:
        for module, work in (
            (runner, "run_graph"),
            (metrics, "per_feature"),
            (metrics, "corruption_accuracy"),
            (analyses, "classifier_saliency"),
            (transfer, "make_examples"),
        ):
            patch.setattr(module, work, stop)
        patch.setattr(pipeline, "make_plan", _plan)
        patch.setattr(single, "train_classifier", _untrained)
        patch.setattr(metrics, "robust_accuracy", lambda *_, **__: [])
        yield


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that, and afterwards without what a command has written."""
    before = {*folder.iterdir()}
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for path in {*folder.iterdir()} - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _plan(config: pipeline.ResolvedConfig, splits: Splits, *_: object) -> Plan:
    return Plan(config, splits, NeighborDistances(1.0, 1.0, 1.0, same_scene=False), {}, 1, 0.0)


def _untrained(config: pipeline.ResolvedConfig, train: data.Dataset, *_: object, **__: object) -> TrainedClassifier:
    return TrainedClassifier(models.build("linear", shape=train.shape, classes=2), [])


def test_no_command_is_left_out_here() -> None:
    commands: dict[str, SimpleNamespace] = cli.typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert {name.split()[0] for name in COMMANDS} == {*commands} - LOAD_NOTHING - NO_OWN_DATA
    options = {name: {option.name for option in command.params} for name, command in commands.items()}
    for name in commands:
        assert ("dataset" in options[name]) == ({*DATA_FIELDS} <= options[name]) == bool({*DATA_FIELDS} & options[name]), name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_left_out_and_keeps_it(command: str, here: Path) -> None:
    words, listed = COMMANDS[command]
    done = call_here(command.split()[0], *words)
    assert done.returncode == 0, done.stderr
    splits = data.load_dataset(DataConfig("noted", skip_unreadable=True))
    notes = list(data_lines(splits, listed))
    assert notes[0].startswith("Data: no test part: 20% of each class") and notes[1].startswith("Left out: 1 file (1: ")
    assert len(notes) == 2 and notes[1].endswith(f"). {listed}")
    said = (done.stdout if command.startswith("check") else done.stderr).split()
    text, both = " ".join(said), " ".join((done.stdout + done.stderr).split())
    assert all(note in text for note in notes) and both.count("Data: ") == both.count("Left out: ") == 1
    for kept in (here / "new" / "run.json", here / "new.json"):
        if kept.exists():
            found = json.loads(kept.read_text())["data"]
            assert found["notes"] == list(splits.notes) and found["left_out"] == data.left_out(splits)
    if "new" in words and listed == TABLE:
        with (here / "new" / "tables" / "data_files.csv").open(newline="") as file:
            assert [row["file"] for row in csv.DictReader(file) if row["part"] == "left out"] == ["a/broken.png"]
    assert (here / "new.json").exists() == (command == "train")


def test_a_table_has_the_notes_on_its_data_beside_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["notbugs", "features", "noted"])
    config = DataConfig("noted", skip_unreadable=True)

    @says_notes
    def command() -> None:
        check_table_file(Path("new.csv"))
        data.load_dataset(config)
        write_table(Path("new.csv"), "a\n1\n")

    command()
    splits, said = data.load_dataset(config), capsys.readouterr()
    assert said.out == "new.csv; notes on its data: new.json\n" and "Listed in new.json." in said.err
    assert (here / "new.csv").read_text() == "a\n1\n"
    found = json.loads((here / "new.json").read_text())
    assert found["dataset"] == "noted" and found["arguments"] == config.arguments
    assert found["command"] == "notbugs features noted"
    left_out = found["data"].pop("left_out_files")
    assert found["data"] == json.loads(json.dumps(data.summary(splits)))
    assert [(item["location"], item["reason"]) for item in left_out] == [*splits.left_out]


@pytest.mark.parametrize(
    ("out", "says"), [("x.json", "--out: must not end in .json"), ("noted.csv", "noted.json: cannot be written")]
)
@pytest.mark.parametrize("command", ["features", "transfer", "explain", "corruptions"])
def test_a_table_without_room_for_its_notes_is_refused(here: Path, command: str, out: str, says: str) -> None:
    (here / "noted.json").mkdir()
    assert says in error_line(call_here(command, *MODEL, "--out", out))


def test_train_says_why_it_does_not_mirror_images(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = (Turned("a", "b", 1.0, 0.5, 1.0, 2),)
    monkeypatch.setattr(datacheck, "measure_mirroring", lambda _: Mirroring("not safe", 1.0, 0.5, 0.5, 0.4, 0.6, 0.5, 8, turned))
    for words, flip in (([], False), (["--flip"], True)):
        done = call_here("train", "colored", *words, "--out", "new.safetensors")
        said = "Data check: mirroring changes the class: 4 of 8 held-out training images, misclassified once mirrored (a → b)."
        assert (said in done.stderr) != flip and json.loads((here / "new.json").read_text())["flip"] == flip


def test_the_demo_says_it_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(config: DataConfig, *_: object, **__: object) -> NoReturn:
        data.load_dataset(DataConfig("planted", limit=config.limit and 40))
        stop()

    monkeypatch.setattr(pipeline, "run", loads)
    assert call_here("demo").stderr == "Data: generated.\n"


@pytest.mark.parametrize(
    "words", [["features", *MODEL, "--layer", "nowhere"], ["train", *SET, "--out", "x.safetensors", "--loss", "x"]]
)
def test_an_error_stays_one_line(words: list[str], here: Path) -> None:
    assert "must be" in error_line(call_here(*words))


def test_who_loads_data_elsewhere_hears_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    on_load: Callable[[DataConfig, Splits], None] = lambda config, splits: heard.append(config.dataset)  # noqa: E731
    with reporting_loads(on_load):
        data.load_dataset(DataConfig("planted", limit=40))
    data.load_dataset(DataConfig("planted", limit=40))
    assert heard == ["planted"] and capsys.readouterr() == ("", "")
