"""What documents name exists: commands, options, columns, functions, files. Code in the tour, the how-tos and the README runs.

Commands that train for minutes, or need a network, are parsed by the real parser.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from cli.conftest import call_here
from click.exceptions import ClickException

import notbugs
from notbugs import data
from notbugs.cli import app

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {
    name: {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, command in COMMANDS.items()
}
# These say what was done with earlier versions
HISTORY = ("lab-log.md", "CHANGELOG.md")
OTHER_TOOLS = {  # pip, docker, make, benchmarks, pytest, torchrun, sbatch
    name for path in (REPOSITORY / "benchmarks").glob("*.py") for name in re.findall(r'"(--[a-z][\w-]*)"', path.read_text())
} | {"--extra-index-url", "--build-arg", "--rm", "--standalone", "--nproc-per-node", "--max-restarts", "--help", "--version"}
GUIDES = [REPOSITORY / "README.md", DOCS / "tour.md", *sorted((DOCS / "how-to").glob("*.md")), DOCS / "method" / "definitions.md"]
WHOLE = ("tour", "plain-pytorch", "photographs")  # guides whose commands are executed in their order
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n?)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|(?<!from)[\s$])notbugs ([a-z]+)\b([^|;#]*)")
MODULES = "api|attacks|construct|data|datacheck|extensions|metrics|models|predict|report|search|study|theory|train"
SUFFIX = re.compile("NAME|bin|csv|h5|html|jpg|json|jsonl|md|mdb|npy|npz|parquet|png|pt|py|sarif|tar|toml|tsv|txt|xml|zip")
NAME = re.compile(rf"(?<![\w.])(?:notbugs\.)?(?:{MODULES})(?:\.\w+)+|(?<![\w.])notbugs\.\w+")


def documents() -> list[Path]:
    found = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
    return [path for path in found if path.name not in HISTORY]


def by_path(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def code(path: Path) -> Iterator[str]:
    """Lines of all code of a document."""
    text = path.read_text()
    blocks = [block for _, block in FENCED.findall(text)]
    rest = FENCED.sub("", text)
    for block in [*blocks, *INDENTED.findall(rest), *INLINE.findall(rest)]:
        yield from block.replace("\\\n", " ").splitlines()


# ---- names ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", documents(), ids=by_path)
def test_commands_have_these_options(path: Path) -> None:
    wrong = []
    for line in code(path):
        for name, rest in COMMAND.findall(line):
            if name not in COMMANDS:
                wrong.append(line)
                continue
            used = re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)
            wrong += [f"{name} {option}" for option in used if option not in OPTIONS[name] | {"--config"}]
    assert wrong == []


@pytest.mark.parametrize("path", documents(), ids=by_path)
def test_options_alone_exist(path: Path) -> None:
    known = set.union(*OPTIONS.values()) | OTHER_TOOLS
    used = {match for words in INLINE.findall(FENCED.sub("", path.read_text())) for match in re.findall(r"^--[a-z][\w-]*", words)}
    assert used <= known


@pytest.mark.parametrize("path", documents(), ids=by_path)
def test_tables_exist(path: Path) -> None:
    from notbugs.runs.tables.row import Row

    for each in (REPOSITORY / "notbugs" / "runs" / "tables").glob("[a-z]*.py"):
        import_module(f"notbugs.runs.tables.{each.stem}")
    tables = {row.table for row in _all_subclasses(Row) if hasattr(row, "table")}
    assert {*re.findall(r"tables/(\w+)\.(?:csv|parquet)", path.read_text())} <= tables | {"NAME"}


def _all_subclasses(kind: type) -> set[Any]:
    return {each for direct in kind.__subclasses__() for each in {direct, *_all_subclasses(direct)}}


@pytest.mark.parametrize("path", documents(), ids=by_path)
def test_functions_exist(path: Path) -> None:
    wrong = [name for line in code(path) for name in NAME.findall(line) if not exists(name)]
    assert wrong == []


def test_the_reference_has_every_name_of_training() -> None:
    entries = re.findall(r"^::: notbugs\.train\.([\w.]+)", (DOCS / "reference" / "building-blocks.md").read_text(), re.MULTILINE)
    assert {name.split(".")[0] for name in entries} == {*import_module("notbugs.train").__all__}


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one. Files as data.npz are none."""
    parts = name.removeprefix("notbugs.").split(".")
    if SUFFIX.fullmatch(parts[-1]):
        return True
    found: Any = notbugs
    for part in parts:
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
    return True


# ---- links ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")], ids=by_path)
def test_links_of_the_repository_lead_somewhere(path: Path) -> None:
    """Those of pages are checked when the site is built."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_documents_named_by_the_code_exist() -> None:
    files = [*(REPOSITORY / "notbugs").rglob("*.py"), *(REPOSITORY / "notbugs").rglob("*.jinja"), REPOSITORY / "action.yml"]
    named = {name for path in files for name in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert len(named) > 5 and {name for name in named if not (REPOSITORY / name).is_file()} == set()


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_bytes()) < 6000


# ---- code that runs ------------------------------------------------------------------------------------------------------------


def blocks(path: Path, language: str) -> list[str]:
    return [block for found, block in FENCED.findall(path.read_text()) if found == language]


def console(path: Path) -> list[list[str]]:
    """Words of each notbugs command in the console blocks."""
    lines = [line for block in blocks(path, "console") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("$ notbugs ")]


@pytest.mark.parametrize("path", GUIDES, ids=by_path)
def test_commands_are_parsed(path: Path) -> None:
    for name, *words in console(path):
        try:
            COMMANDS[name].make_context(name, words)
        except ClickException as error:
            pytest.fail(f"{name} {words}: {error.format_message()}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small my_images, where load_dataset gives few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("notbugs.api.load_dataset", partial(few, notbugs.api.load_dataset))
    data.export(data.load("digits", limit=100).train, "my_images", "folder", card="Digits.")
    return tmp_path


def few(load: Any, dataset: Any, **options: Any) -> data.Splits:
    """`load_dataset` with at most 200 images, or 800 of what is drawn."""
    return load(dataset, **{"limit": 200, **options})  # type: ignore[no-any-return]


def run_python(path: Path) -> str:
    """Blocks of one page, one after the other. Those that begin with `# NAME.py` are parts of that file."""
    said, names = StringIO(), {"__name__": path.stem}
    with redirect_stdout(said):
        for block in blocks(path, "python"):
            if file := re.match(r"# (\w+\.py)\n", block):
                with open(file[1], "a") as stream:
                    stream.write(block)
            else:
                exec(compile(block, str(path), "exec"), names)
    return said.getvalue()


@pytest.mark.slow
@pytest.mark.site
@pytest.mark.parametrize(
    "path", [path for path in GUIDES if path.stem not in ("tour", "plain-pytorch", "photographs")], ids=by_path
)
def test_python_runs(path: Path, folder: Path) -> None:
    said = run_python(path)
    printed = any("print(" in block and not block.startswith("# ") for block in blocks(path, "python"))
    assert bool(said) == printed
    assert len(blocks(path, "python")) == 0 or said or list(folder.glob("*.py"))


@pytest.mark.slow
@pytest.mark.site
def test_the_tour(folder: Path) -> None:
    """Its folder, its check, its study with one epoch on few images, and what the page says is in the run folder."""
    (folder / "my_images").rename("other")
    run_python(DOCS / "tour.md")
    assert len(list(Path("my_images").rglob("*.png"))) == 800
    (check, run) = console(DOCS / "tour.md")
    assert call_here(*check).returncode == 0
    done = call_here(*run, "--limit", "60", "--epochs", "1", "--width", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for named in ("report.html", "config.toml", "tables/accuracy.csv", "models/adversarial.safetensors", "datasets/robust/train"):
        assert Path("runs/tour", named).exists()


@pytest.mark.slow
@pytest.mark.site
def test_plain_pytorch(folder: Path) -> None:
    """All commands of the page in their order: two sets of the same files, two trainings, two attacks, their comparison."""
    (folder / "my_images").rename("my_photos")
    page = DOCS / "how-to" / "plain-pytorch.md"
    split, *attacks, compare = console(page)
    done = call_here(*split, "--epochs", "1", "--width", "2", "--network", "small", "--workers", "1")
    assert done.returncode == 0, done.stderr
    run_python(page)
    trainings = re.findall(r"^\$ python (.*)$", page.read_text(), re.MULTILINE)
    for words in trainings:
        *given, epochs, seed = shlex.split(words)
        assert (epochs, seed) == ("60", "0")  # two epochs are enough to see that it works
        said = subprocess.run([sys.executable, *given, "2", seed], capture_output=True, text=True, check=True).stdout
        assert len(re.findall(r"^epoch \d+: loss [\d.]+, training accuracy [\d.]+%$", said, re.MULTILINE)) > 1
    names = [{path.stem for path in Path(words.split()[1]).rglob("*.png")} for words in trainings]
    assert names[0] == names[1] != set()
    for words in attacks:
        done = call_here(*words, "--images", "8", "--budget", "quick", "--workers", "1")
        assert done.returncode == 0, done.stderr
    done = call_here(*compare)
    assert done.returncode == 0 and "l2 0.5" in done.stdout and "95 % CI" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.site
def test_the_folders_of_photographs(folder: Path) -> None:
    """What the table of the page lists is there after its split, and a report only once it is asked for."""
    (folder / "my_images").rename("my_photos")
    page = DOCS / "how-to" / "photographs.md"
    check, first_try, split, _ = console(page)
    assert call_here(*check).returncode == 0 and Path("problems.csv").is_file()
    image = next(Path("my_photos").rglob("*.png"))
    with Path("problems.csv").open("a") as stream:
        stream.write(f"{image.relative_to('my_photos/train').as_posix()},train,images of almost no contrast,,4.5\n")
    run_python(page)
    assert not image.exists() and image.with_suffix(".left-out").exists()
    done = call_here(*first_try, "--resize", "8", "--epochs", "1", "--width", "2", "--workers", "1")
    assert done.returncode == 0 and "notbugs attack MODEL my_photos --resize 8" in done.stderr, done.stderr
    done = call_here(*split, "--resize", "8", "--epochs", "1", "--width", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for named in re.findall(r"^\| `(runs/photos/[\w/]+)` \|", page.read_text(), re.MULTILINE):
        assert Path(named).exists()
    assert not Path("runs/photos/report.html").exists()
    assert call_here("report", "runs/photos").returncode == 0 and Path("runs/photos/report.html").is_file()


@pytest.mark.slow
@pytest.mark.site
@pytest.mark.parametrize("name", ["my-model", "black-box"])
def test_audits_of_the_guides(name: str, folder: Path) -> None:
    run_python(DOCS / "how-to" / f"{name}.md")
    for words in console(DOCS / "how-to" / f"{name}.md"):
        done = call_here(*words, "--images", "3", "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert (folder / words[words.index("--out") + 1] / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.site
def test_a_weak_model_makes_the_gate_fail(folder: Path) -> None:
    """The job of gate.md: exit code 1, a line that says why, and the files."""
    assert call_here("train", "my_images", "--epochs", "2", "--width", "4", "--out", "weak.safetensors").returncode == 0
    words = ["attack", "weak.safetensors", "my_images", "--images", "15", "--budget", "quick", "--workers", "1"]
    done = call_here(*words, "--fail-under", "l2:2=60%", "--json", "robustness.json", "--junit", "robustness.xml")
    assert done.returncode == 1 and "l2" in done.stderr.lower(), done.stdout + done.stderr
    assert Path("robustness.json").is_file() and Path("robustness.xml").is_file()
