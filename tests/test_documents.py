"""What documents name exists: commands, options, columns, functions, files. Code in the tour, the how-tos and the README runs.

Commands that train for minutes, or need a network, are parsed by the real parser.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from csv import DictReader
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from cli.conftest import call_here
from click.exceptions import ClickException
from PIL import Image

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
SET_ASIDE = "ignore:.*no test part"  # `load_dataset` says so of the pages' folders
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
            used = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest)
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


# ---- first sentences -----------------------------------------------------------------------------------------------------------

PROMISE = re.compile(r"\b(At the end|After this page|After these pages|With this site) |^In 5 minutes you ")
NO_PROMISE = {"lab-log.md": "a log, newest first", "results/theory.md": "a result without a figure"}


def first_paragraph(path: Path) -> str:
    """What a page says below its title."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.DOTALL)
    if path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    return re.sub(r"\A\s*# .*\n+", "", text).split("\n\n")[0]


@pytest.mark.parametrize("path", sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]), ids=by_path)
def test_pages_open_with_what_the_reader_has_at_the_end(path: Path) -> None:
    """Pages of results may open with the result."""
    name, paragraph = path.relative_to(DOCS).as_posix(), first_paragraph(path)
    first = paragraph.replace("\n", " ").partition(". ")[0]
    assert paragraph[0] not in "|-`$#<" and "?" not in first
    result = name.startswith("results/") and re.search(r"\d", paragraph)
    assert PROMISE.search(paragraph) or result or name in NO_PROMISE


# ---- links ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")], ids=by_path)
def test_links_of_the_repository_lead_somewhere(path: Path) -> None:
    """Those of pages are checked when the site is built."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["index.md", "extensions.md", "notebooks/index.md", "method/index.md"])
def test_the_paper_in_one_file_is_linked(name: str) -> None:
    """What a page links to becomes a page of the site."""
    assert re.search(r"\]\((\.\./)+examples/paper\.py\)", (DOCS / name).read_text())


def test_the_method_links_the_validation_of_the_attacks() -> None:
    links = set(re.findall(r"\]\(\.\./results/(\w+)\.md", (DOCS / "method" / "index.md").read_text()))
    assert links >= {"autoattack", "attacks"}


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


@pytest.mark.parametrize("path", [*GUIDES, DOCS / "data.md", DOCS / "data-check.md"], ids=by_path)
def test_commands_are_parsed(path: Path) -> None:
    plain = [shlex.split(line, comments=True)[1:] for line in indented(path) if line.startswith("notbugs ")]
    for name, *words in [*console(path), *plain]:
        try:
            COMMANDS[name].make_context(name, words)
        except ClickException as error:
            pytest.fail(f"{name} {words}: {error.format_message()}")


@pytest.mark.slow
@pytest.mark.site
def test_commands_of_the_hub_have_these_options() -> None:
    """huggingface_hub 2 has no `huggingface-cli` any more."""
    hf = Path(sys.executable).parent / "hf"
    assert [by_path(path) for path in documents() if "huggingface-cli" in path.read_text()] == []
    lines = [line[2:] for line in code(DOCS / "how-to" / "share.md") if line.startswith("$ hf ")]
    for words in map(shlex.split, lines):
        names = list(takewhile(re.compile(r"[a-z]+").fullmatch, words[1:]))
        said = subprocess.run([hf, *names, "--help"], capture_output=True, text=True, check=True).stdout
        assert {word for word in words if word.startswith("--")} <= {*re.findall(r"--[a-z][a-z-]*", said)}
    assert len(lines) == 2


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
@pytest.mark.filterwarnings(SET_ASIDE)
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
    rows = tour_image().copy(Path("runs/tour"), folder / "pictures")  # the versions that the page shows
    assert [row["column"] for row in rows] == list(tour_image().VERSIONS)
    table = tour_image().table(rows, folder / "pictures")
    assert len(table.splitlines()) == len(rows) + 2 and table.startswith("| version | label |")


@pytest.mark.slow
@pytest.mark.site
@pytest.mark.filterwarnings(SET_ASIDE)
def test_plain_pytorch(folder: Path) -> None:
    """All commands of the page in their order: two sets of the same files, two trainings, two attacks, their comparison."""
    (folder / "my_images").rename("my_photos")
    page = DOCS / "how-to" / "plain-pytorch.md"
    split, *measured = console(page)
    shutil.copytree("my_photos/train", "more_photos")
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
    assert [words[0] for words in measured] == 2 * ["attack", "attack", "compare"]
    for words in measured:
        done = call_here(*words, *(["--images", "8", "--budget", "quick", "--workers", "1"] if words[0] == "attack" else []))
        assert done.returncode == 0, done.stderr
        if words[0] == "compare":
            assert "l2 0.5" in done.stdout and "95 % CI" in done.stdout
    (loop,) = blocks(page, "bash")
    quick = (
        loop.replace(" 1 2;", " 1;").replace(" 60 ", " 2 ").replace("--resize", "--images 8 --budget quick --workers 1 --resize")
    ).replace(" runs/original-2 runs/robust-2", "")
    python = shlex.quote(sys.executable)
    script = quick.replace("  python ", f"  {python} ").replace("notbugs ", f"{python} -m notbugs ")
    said = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "Mean of 2 pairs." in said and Path("runs/robust-1/report.html").is_file()


@pytest.mark.slow
@pytest.mark.site
def test_the_folders_of_photographs(folder: Path) -> None:
    """What the table of the page lists is there after its split, and a report only once it is asked for."""
    (folder / "my_images").rename("my_photos")
    page = DOCS / "how-to" / "photographs.md"
    check, first_try, split, _ = console(page)
    assert call_here(*check).returncode == 0 and Path("problems.csv").is_file()
    image, before = next(Path("my_photos").rglob("*.png")), len(list(Path("my_photos").rglob("*.png")))
    with Path("problems.csv").open("a") as stream:
        stream.write(f"{image.relative_to('my_photos/train').as_posix()},train,images of almost no contrast,,4.5\n")
    run_python(page)
    assert not image.exists() and Path("left_out", image.relative_to("my_photos/train")).exists()
    splits = data.load("my_photos")  # which finds images by their content, whatever they are called
    assert len(splits.train) + len(splits.test) == before - 1
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
def test_the_data_check(folder: Path) -> None:
    """Its three commands, which write what they say, and the same in Python."""
    lines = [shlex.split(line, comments=True)[1:] for line in indented(DOCS / "data-check.md")]
    assert len(lines) == 3
    for words in lines:
        done = call_here(*words)
        assert done.returncode == 0 and "Checked 100 images" in done.stdout, done.stderr
    assert {path.name for path in folder.glob("problems.*")} == {"problems.csv", "problems.json"}
    assert "classes with fewer than 10 test images" in run_python(DOCS / "data-check.md")


def indented(path: Path) -> list[str]:
    """Lines of code that are indented."""
    return [line.strip() for block in INDENTED.findall(FENCED.sub("", path.read_text())) for line in block.splitlines()]


@pytest.mark.slow
@pytest.mark.site
def test_the_groups_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commands, with `check` in place of `run`, which would train for minutes."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3), dtype=np.uint8)
    rows = ["file,label,patient"]
    for number, image in enumerate(images):
        sign = Path("signs", ("stop", "yield")[number % 2], f"{number // 8:05}_{number % 8:05}.ppm")
        scan = Path("scans", f"{number}.png")
        for path in (sign, scan):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        rows.append(f"{scan.name},{('ill', 'well')[number % 2]},{number // 4}")
    Path("scans", "labels.csv").write_text("\n".join(rows))
    lines = [shlex.split(line) for line in indented(DOCS / "data.md") if line.startswith("notbugs ")]
    assert len(lines) == 2
    for program, command, *words, option, _ in lines:
        assert (program, command, option) == ("notbugs", "run", "--out")
        done = call_here("check", *words, "--no-train")
        assert done.returncode == 0 and "by groups" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.site
def test_pickles_of_cifar_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On files as the archive has them, with two images of each class."""
    monkeypatch.chdir(tmp_path)
    generator, batches = np.random.default_rng(0), {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        batches[name] = {b"data": pixels, b"labels": [*range(10), *range(10)]}
        Path(name).write_bytes(pickle.dumps(batches[name]))
    run_python(DOCS / "data.md")
    read = data.load("cifar10.npz")
    assert (len(read.train), len(read.test), read.train.shape) == (100, 20, (3, 32, 32))
    for position in (0, 37):  # red, green, blue, each from the top row on
        pixels = batches[f"data_batch_{position // 20 + 1}"][b"data"][position % 20]
        assert (read.train.images[position].numpy() == pixels.reshape(3, 32, 32)).all()
    assert read.test.labels.tolist() == batches["test_batch"][b"labels"]


@pytest.mark.slow
@pytest.mark.site
def test_a_control_of_your_own(tmp_path: Path) -> None:
    """In a process of its own, as the list of controls is made once. Fewer images and epochs than the page has."""
    (block,) = blocks(DOCS / "extensions.md", "python")
    settings = '"limit": 600, "epochs": 15, "width": 8'
    assert settings in block and "<!-- generated: own control -->" in (DOCS / "extensions.md").read_text()
    shutil.copy(REPOSITORY / "examples" / "own_control.py", tmp_path)
    small = block.replace(settings, '"limit": 60, "epochs": 1, "width": 2, "workers": 1')
    words = [sys.executable, "-c", f"import small_budgets\nsmall_budgets.use()\n{small}"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = blocks(DOCS / "extensions.md", "text")[1]
    form = re.sub(r"[+-]\d+\.\d", r"[+-]\\d+\\.\\d", re.sub(r"([\[\]])", r"\\\1", printed.strip()))
    form = re.sub(r"n = \d+", r"n = \\d+", form)
    said = done.stdout.splitlines()
    *lines, report = [line for line in said if not line.startswith("seed0/")]  # the others are of progress=print
    assert len(said) > len(lines) + 1
    assert re.fullmatch(form, "\n".join(lines[::2])) and len(lines) == 4
    assert all("percentage points of test accuracy over the control" in cited for cited in lines[1::2])
    assert report == str(Path("runs", "own", "report.html"))
    assert (tmp_path / report).is_file()


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


# ---- the image of the tour -----------------------------------------------------------------------------------------------------


def tour_image() -> ModuleType:
    """docs/tour_image.py."""
    found = spec_from_file_location("tour_image", DOCS / "tour_image.py")
    module = module_from_spec(found)  # type: ignore[arg-type]
    found.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def test_the_tour_shows_the_pictures_that_are_there() -> None:
    """Its table is what the command prints for these pictures: few bytes, each pixel as a square, with words for each."""
    module, page = tour_image(), (DOCS / "tour.md").read_text()
    with (DOCS / "tour" / "pictures.csv").open() as stream:
        rows = list(DictReader(stream))
    assert module.table(rows, DOCS / "tour") in page
    files = sorted((DOCS / "tour").glob("*.png"))
    assert [path.stem for path in files] == sorted(module.VERSIONS) and f"my_images/train/{rows[0]['file']}" in page
    assert sum(path.stat().st_size for path in files) < 150_000
    assert len({words for _, words in module.VERSIONS.values()}) == len(files)
    for path in files:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (32 * module.SCALE, 32 * module.SCALE, 3)
        assert (picture == np.kron(picture[:: module.SCALE, :: module.SCALE], np.ones((4, 4, 1), np.uint8))).all()


def test_the_perturbations_of_the_tour_are_within_its_epsilon() -> None:
    module = tour_image()
    original, attacked, relabeled = (module.pixels(DOCS / "tour", name) for name in ("original", "adversarial", "random-labels"))
    epsilon = float(console(DOCS / "tour.md")[1][3])
    assert 0 < np.linalg.norm(attacked - original) <= epsilon < np.linalg.norm(relabeled - original) <= 2 * epsilon
    largest = np.abs(attacked - original).max()
    assert module.pixels(DOCS / "tour", "perturbation") == pytest.approx(0.5 + (attacked - original) / (2 * largest), abs=1 / 255)


@pytest.mark.slow
def test_the_image_of_the_tour_is_one_of_its_data_set() -> None:
    """Drawn anew by the code of the tour."""
    shapes, module = notbugs.load_dataset("planted", limit=800).train, tour_image()
    with (DOCS / "tour" / "pictures.csv").open() as stream:
        index = shapes.names.index(next(DictReader(stream))["file"])
    drawn = shapes.pixels([index])[0].permute(1, 2, 0).numpy()
    assert shapes.classes[int(shapes.labels[index])] == module.FILE_CLASS
    assert module.pixels(DOCS / "tour", "original") == pytest.approx(drawn, abs=1e-6)
