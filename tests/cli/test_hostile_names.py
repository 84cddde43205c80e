"""Names of classes, files, folders, models and runs that are code elsewhere: in every output they are text."""

import csv
import io
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from cli.conftest import NOTBUGS, Finished, call_here
from markdown_it import MarkdownIt
from PIL import Image
from playwright.sync_api import Browser
from test_shell import in_bash

TAKEN = "document.title='taken'"
CLASSES = [
    f"=1+1|<img src=x onerror={TAKEN}>",
    "-x `a` $(touch taken) [bold]b[red] :smile: {{7*7}} {% x %} %s",
    "\u202eevil\u200b <!-- ]]> ```",
    "@SUM(1) 猫 ~~s~~ **t** ![i](u) $x$",
]
FILES = [
    "+1",
    "-x --out",
    "@SUM(1),\"'",
    f"<img src=x onerror={TAKEN}>",
    "$(touch taken)`touch taken`",
    "[red]:smile: \u202e{{7*7}}",
]
# Names that the user gives, which may hold control characters, too
DATASET = "=data'\"`[red]$x$\x1b[31m\n<b>$(touch taken)"
MODEL = "-m'\x9b\x07[bold]<i>`touch taken`.safetensors"
RUN, SPLIT = "=run[red]\x1b[2J<u>$(touch taken)", "@split`b`\u202e<s>"
NO_TERMINAL = re.compile(
    r"[^\n -~\u00a1-\uffff\U00010000-\U0010ffff]|[\u0600-\u0605\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def options(out: str) -> list[str]:
    return ["--epsilon", "linf:0.05", "--budget", "quick", "--images", "8", "--out", out]


COMMANDS = {
    "check": ["check", DATASET, "--no-train", "--out", "=c\x1b[31m.csv"],
    "train": ["train", DATASET, "--width", "4", "--epochs", "1", "--out", MODEL],
    "attack": [
        "attack",
        f"./{MODEL}",
        DATASET,
        *options(RUN),
        "--json",
        "a.json",
        "--junit",
        "a.xml",
        "--sarif",
        "a.sarif",
        "-v",
    ],
    "split": ["split", DATASET, "--width", "4", "--epochs", "1", "--epsilon", "0.1", "--out", SPLIT],
    "compare": ["compare", RUN, RUN, "--out", "=compare\x1b[31m.html"],
    "features": ["features", f"./{MODEL}", DATASET, "--out", "=f\x1b[31m.csv"],
    "not there": ["report", DATASET],
    "no class": ["attack", f"./{MODEL}", DATASET, "--only-class", "\x1b[31m\n[red]"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Finished]]:
    """What commands print of such names, in the folder into which they write."""
    folder, generator = tmp_path_factory.mktemp("hostile"), torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (place := folder / DATASET / part / name).mkdir(parents=True)
            for file in FILES:
                pixels = torch.randint(0, 60, (8, 8, 3), generator=generator, dtype=torch.uint8)
                pixels[2 * label] += 180
                Image.fromarray(pixels.numpy()).save(place / f"{file}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield {name: call_here(*words) for name, words in COMMANDS.items()}


def written(*suffixes: str) -> list[Path]:
    """Files that the commands wrote."""
    found = [path for path in Path().rglob("*") if path.suffix in suffixes and DATASET not in path.parts]
    assert found
    return found


@pytest.mark.slow
def test_the_commands_end_as_they_should_and_run_nothing(done: dict[str, Finished]) -> None:
    for name, each in done.items():
        assert each.returncode == (2 if name in ("not there", "no class") else 0), each.stdout + each.stderr
    assert not list(Path().rglob("taken"))


@pytest.mark.slow
def test_no_name_moves_the_cursor_begins_a_line_or_is_markup_on_the_terminal(done: dict[str, Finished]) -> None:
    for each in done.values():
        assert not NO_TERMINAL.search(each.stdout + each.stderr), (each.args, each.stdout + each.stderr)
    assert rf"class {CLASSES[1]}:" in done["attack"].stdout and r"class \u202eevil\u200b" in done["attack"].stdout
    assert rf"The report: {RUN.replace(chr(27), chr(92) + 'x1b')}/report.html" in done["attack"].stdout
    for name in ("not there", "no class"):
        assert len(done[name].stderr.splitlines()) == 1


@pytest.mark.slow
def test_no_table_has_a_formula(done: dict[str, Finished]) -> None:
    for path in written(".csv"):
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        assert len({len(row) for row in rows}) == 1
        cells = [cell for row in rows for cell in row if re.match(r"[=+@\t\r\n-]", cell)]
        assert all(re.fullmatch(r"[+-]?[\d.]+(e-?\d+)?|-inf", cell) for cell in cells), (path, cells)


@pytest.mark.slow
def test_json_xml_and_toml_hold_the_same_text(done: dict[str, Finished]) -> None:
    for path in written(".json", ".sarif"):
        json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(Path("a.json").read_text(encoding="utf-8"))["dataset"] == DATASET
    suites = ElementTree.parse("a.xml").getroot()
    assert "[bold]<i>`touch taken`.safetensors" in str(suites.get("name"))
    kept = tomllib.loads(Path(RUN, "config.toml").read_text(encoding="utf-8"))["attack"]
    assert (kept["model"], kept["dataset"]) == (f"./{MODEL}", DATASET)


@pytest.mark.slow
def test_bash_reads_the_command_of_a_run_as_it_was_given_and_its_configuration_means_the_same(done: dict[str, Finished]) -> None:
    for name, run in (("attack", RUN), ("split", SPLIT)):
        command = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))["command"]
        assert command.isprintable() and in_bash(command) == COMMANDS[name]
    again = call_here("attack", "--config", str(Path(RUN, "config.toml")), "--out", RUN)
    assert again.returncode == 0 and "done: " not in again.stderr, again.stderr


@pytest.mark.slow
def test_cards_have_the_classes_and_names_are_no_markup(done: dict[str, Finished]) -> None:
    cards = written(".md")
    assert len(cards) == 3
    for path in cards:
        text = path.read_text(encoding="utf-8")
        head, _, body = text.removeprefix("---\n").partition("\n---\n")
        label = next(each["dtype"] for each in yaml.safe_load(head)["dataset_info"]["features"] if each["name"] == "label")
        assert list(label["class_label"]["names"].values()) == sorted(CLASSES)
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
        kinds = {each.type for token in tokens for each in (token, *(token.children or ()))}
        assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "strong_open", "s_open"}, path
        assert [token.info for token in tokens if token.type == "fence"][:1] == ["text"]


@pytest.mark.slow
@pytest.mark.browser
def test_pages_show_names_and_run_nothing(done: dict[str, Finished], chromium: Browser) -> None:
    pages = written(".html")
    assert len(pages) == 3  # the report, the list of runs, the comparison
    for path in pages:
        page = chromium.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))  # type: ignore[misc]
        page.goto(path.absolute().as_uri())
        assert page.locator("[onerror], main i, main u, main s, main script").count() == 0
        assert page.title() != "taken" and not errors
        page.close()


@pytest.mark.parametrize("words", [["check", "d\udcff"], ["run", "digits", "--out", "d\udcff"], ["report", "d\udcff"]])
def test_names_that_are_not_utf_8_are_refused(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*NOTBUGS, *map(os.fsencode, words)], capture_output=True, check=False, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stdout == b"" and list(tmp_path.iterdir()) == []
    assert done.stderr == b"notbugs: arguments: must be names in UTF-8, got d\\udcff; rename it, or make a link to it\n"
