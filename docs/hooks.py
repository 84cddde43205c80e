"""What the site has beside the pages of docs/, made when it is built: `make site`.

- `<!-- generated: NAME -->` in a page becomes a table or a list made from the code, so that it cannot differ from it.
- Files of the repository outside of docs/ that a page links to become pages in repository/.
- Notebooks become pages with their outputs.
"""

import inspect
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from pkgutil import iter_modules
from textwrap import fill
from typing import Any, NamedTuple

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from notbugs import __version__
from notbugs.attacks.budgets import ENSEMBLE_VERSION
from notbugs.cli import app
from notbugs.report.citation import bibtex
from notbugs.runs import tables
from notbugs.runs.source import source
from notbugs.runs.tables.row import Row, columns
from notbugs.study import comparisons
from notbugs.study.catalog.datasets import DATASETS, DatasetSpec
from notbugs.study.catalog.models import MODELS, trained_on

REPOSITORY = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=(?:#[^)\s]*)?\))")
DOCUMENT = re.compile(r"\bdocs/([\w/-]+\.md)")
TITLED = re.compile(r'(?<=documentation,\s)"([^"<]+)"')  # a page of the site, in docstrings
GENERATED = re.compile(r"^<!-- generated: ([\w -]+) -->$", re.MULTILINE)
DECLARATION = re.compile(r"`([^`\n]*<!\[[^`\n]*)`")  # code that MkDocs, looking for HTML, fails on
LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml", ".cff": "yaml", ".sh": "bash"}
API_PAGES = ("reference/python.md", "reference/building-blocks.md", "reference/data-and-gate.md")  # of mkdocstrings
IN_MARKDOWN = str.maketrans({"|": r"\|", "<": "&lt;", ">": "&gt;", "*": r"\*", "_": r"\_", "[": r"\[", "]": r"\]"})


# ---- files of the repository as pages ------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Each page ends with the version and the commit that it describes."""
    commit = source().commit
    config.copyright = f"{config.copyright}; notbugs {__version__}{f', commit {commit}' if commit else ''}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file of the repository that a page, or such a page, links to."""
    todo = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(todo)
    for name in todo:
        text = (REPOSITORY / name).read_text() if name.endswith((".md", ".ipynb")) else ""
        for target in sorted({*linked(name, text)} - seen):
            seen.add(target)
            todo.append(target)
            if not target.startswith("docs/"):
                files.append(File.generated(config, page_of(target), content=content_of(target)))
    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        name = path.relative_to(config.docs_dir).as_posix()
        if old := files.get_file_from_path(name):
            files.remove(old)
        files.append(File.generated(config, page_of(f"docs/{name}"), content=notebook(path)))
    return files


def linked(name: str, text: str) -> Iterator[str]:
    """Files of the repository to which a document links, by their paths in it."""
    for match in LINK.finditer(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[0]))
        if (REPOSITORY / target).is_file():
            yield target


def page_of(name: str) -> str:
    """Where a file of the repository stands in the site."""
    path = PurePosixPath(name)
    if path.parts[0] == "docs":
        path = path.relative_to("docs")
        return str(path.with_suffix(".md") if path.suffix == ".ipynb" else path)
    return f"repository/{path}" if path.suffix == ".md" else f"repository/{path}.md"


def content_of(name: str) -> str:
    """A file of the repository as a page: Markdown as it is, code in a block."""
    text = (REPOSITORY / name).read_text()
    if name.endswith(".md"):
        return text
    return f"# {name}\n\n```{LANGUAGES.get(PurePosixPath(name).suffix, 'text')}\n{text}```\n"


def source_of(page: Page) -> str:
    """The path in the repository of what a page was made from."""
    uri: str = page.file.src_uri
    if not uri.startswith("repository/"):
        notebook = uri.removesuffix(".md") + ".ipynb"
        return f"docs/{notebook}" if (REPOSITORY / "docs" / notebook).is_file() else f"docs/{uri}"
    name = uri.removeprefix("repository/")
    return name if (REPOSITORY / name).is_file() else name.removesuffix(".md")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to where a file stands in the site; generated parts in their places."""
    source = source_of(page)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[0]))
        if not (REPOSITORY / target).is_file() or not files.get_file_from_path(page_of(target)):
            return match[0]
        return posixpath.relpath(page_of(target), posixpath.dirname(page.file.src_uri) or ".")

    filled = GENERATED.sub(lambda match: PARTS[match[1]](), LINK.sub(moved, markdown))
    filled = DECLARATION.sub(lambda match: f"<code>{''.join(f'&#{ord(letter)};' for letter in match[1])}</code>", filled)
    up = posixpath.relpath(".", posixpath.dirname(page.file.src_uri) or ".")
    return filled.replace("DOCS/", f"{up}/")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings name documents as docs/NAME.md, or as documentation, "TITLE": both become links with the title."""
    if page.file.src_uri not in API_PAGES:
        return html
    by_title = {each.page.title: each for each in files.documentation_pages() if each.page}

    def link(match: re.Match[str]) -> str:
        found = by_title.get(match[1]) or files.get_file_from_path(match[1])
        if found is None or found.page is None:
            raise ValueError(f"{page.file.src_uri} names {match[0]}, which does not exist")
        return f'<a href="{posixpath.relpath(found.url, posixpath.dirname(page.file.url))}">{found.page.title or match[0]}</a>'

    return DOCUMENT.sub(link, TITLED.sub(link, html))


# ---- notebooks -----------------------------------------------------------------------------------------------------------------


def notebook(path: Path) -> str:
    """A notebook as Markdown, with the outputs that it has."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found.append(source)
            continue
        found.append(f"```python\n{source}\n```")
        found += [output for each in cell["outputs"] if (output := shown(each))]
    return "\n\n".join(found)


def shown(output: dict[str, Any]) -> str:
    """An output of a cell: HTML, a picture or text, whichever says most."""
    if "text" in output:
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output["data"]
    if "text/html" in data:
        html = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]))
        return f'<div class="output">{html}</div>'
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<div class="output"><img alt="output of the cell above" src="{source}"></div>'
    return f"```text\n{''.join(data['text/plain'])}\n```"


# ---- generated parts -----------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown. Cells are Markdown already."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def text(words: str | None) -> str:
    """Plain text as Markdown; documents and commands in it become links and code."""
    parts = " ".join((words or "").split()).split("`")
    plain = [DOCUMENT.sub(r"[docs/\1](DOCS/\1)", part.translate(IN_MARKDOWN)) for part in parts[::2]]
    return "".join(f"`{part}`" if number % 2 else plain[number // 2] for number, part in enumerate(parts))


def constructions() -> str:
    """Every data set that a study constructs, but for the controls."""
    rows = [
        (f"`{name}`", f"{text(spec.description)} Constructed with {made_with(spec)} by {WHEN[spec.group]}.")
        for name, spec in DATASETS.items()
        if not is_control(name)
    ]
    return table(("name in tables", "what it is"), rows)


WHEN = {"quick": "`run`", "controls": "`run --full`", "strong": "`run --robust-strong`", "replication": "`run --replicate`"}


def is_control(name: str) -> bool:
    """Whether a data set is compared with another one, whose result it could explain."""
    used = {control for controls in comparisons.CONTROLS_OF.values() for control in controls}
    return bool(DATASETS[name].control_of) or trained_on(name) in used


def made_with(spec: DatasetSpec) -> str:
    """The model that a data set is constructed with, and others that have a say."""
    names = [name for name in (spec.source_model, *spec.other_models, *spec.preserved_by) if name]
    return ", ".join(f"`{name}`" for name in names) or "–"


def controls() -> str:
    """Every control, which result it questions, and which explanation it tests."""
    return controls_table(lambda name: trained_on(name) not in comparisons.ALTERNATIVE_EXPLANATIONS)


def uncounted() -> str:
    """Sets that give accuracy in another way: they stand beside the controls, and no finding counts them."""
    return controls_table(lambda name: trained_on(name) in comparisons.ALTERNATIVE_EXPLANATIONS)


def controls_table(wanted: Callable[[str], bool]) -> str:
    """Those controls whose names are wanted."""
    rows = []
    for name, spec in DATASETS.items():
        model = trained_on(name)
        questioned = {result: words[model] for result, words in comparisons.CONTROLS_OF.items() if model in words}
        if not is_control(name) or not wanted(name):
            continue
        results = ", ".join(f"`{MODELS[result].trained_on}`" for result in questioned) or f"`{spec.control_of}`"
        refuted = "; ".join(dict.fromkeys(questioned.values())) or "the images that are left do it, not their features"
        words = text(spec.description.removeprefix("Control: "))
        model = f" with {made_with(spec)}" if spec.source_model else ""
        made = f"Compared with {results}. Constructed{model} by {WHEN[spec.group]}."
        rows.append((f"`{name}`", text(refuted), f"{words[0].upper()}{words[1:]} {made}"))
    return table(("name", "explanation that it tests", "what it is"), rows)


class Claim(NamedTuple):
    """A claim, and the control that could count against it: both as result pages name them, the control as the table shows it."""

    claim: str
    result: str
    control: str
    shown: str
    against: str


CLAIMS = (
    Claim(
        "**D_rand generalizes by its perturbations**", "random-labels", "shuffled perturbations",
        "`random-labels-shuffled`", "shuffled perturbations are not exceeded",
    ),
    Claim(
        "… and not by one pattern per label", "random-labels", "class patterns",
        "`random-labels-class-patterns`", "random patterns are not exceeded",
    ),
    Claim(
        "… and not by images that resemble their new label", "random-labels-filtered", "shuffled perturbations",
        "`random-labels-filtered`, a D_rand without such images, beside `random-labels-shuffled`",
        "`random-labels-filtered` does not exceed `random-labels-shuffled`",
    ),
    Claim(
        "**… and these features are non-robust**", "random-labels", "made with the robust model",
        "`random-labels-robust`", "perturbations of the adversarially trained classifier are not exceeded",
    ),
    *(
        Claim("", "random-labels", name, name, f"a {comparisons.LEAKAGE_PROBES[probe]} is not exceeded")
        for probe, name in comparisons.PROBE_NAMES.items()
    ),
    Claim(
        "**D_det perturbs features of the data, not bugs of one model**", "next-labels", "non-transferable",
        "`next-labels-non-transferable`", "perturbations that mislead one model alone are not exceeded",
    ),
    Claim(
        "**D_rand as in the paper generalizes by its perturbations**, not by labels that are true by chance",
        "random-labels-incl-true", "class patterns and right labels",
        "`random-labels-incl-true-class-patterns`", "the true labels with random patterns are not exceeded",
    ),
)  # fmt: skip
CLAIMED_ON = {"digits": "digits-controls", "CIFAR-10": "cifar10-8000-controls"}  # pages of results


def claims() -> str:
    """Each claim with the excess over its control, from the tables of the result pages."""
    found = [excesses((REPOSITORY / "docs" / "results" / f"{page}.md").read_text()) for page in CLAIMED_ON.values()]
    rows = [(each.claim, each.shown, each.against, *(excess[each.result, each.control] for excess in found)) for each in CLAIMS]
    return table(("claim", "control", "not supported if", *CLAIMED_ON), rows)


EXCESS = re.compile(r"^\| ([\w-]+) \| [\d.]+ \| ([^|]+) \| [\d.]+ \| ([+−][\d.]+ \[(−?)[^|]+) \|$", re.MULTILINE)


def excesses(page: str) -> dict[tuple[str, str], str]:
    """Trained on and control -> the excess in percentage points, of a page of results."""
    return {
        (result, control): f"{excess}: **not exceeded**" if negative else excess
        for result, control, excess, negative in EXCESS.findall(page)
    }


TARGETS = ("random-labels", "random-labels-robust", "next-labels", "next-labels-robust")
REACHED = re.compile(r"^\| ([\w-]+) \| ([\w-]+) \| (\d\.\d+) \| (\d\.\d+) \|", re.MULTILINE)


def targets_reached() -> str:
    """Of relabeled sets: how many images reach their new label, from the tables of the result pages."""
    pages = [(REPOSITORY / "docs" / "results" / f"{page}.md").read_text() for page in CLAIMED_ON.values()]
    found = [{name: (model, reached, norm) for name, model, reached, norm in REACHED.findall(page)} for page in pages]

    def cell(reached: str, norm: str) -> str:
        return f"{100 * float(reached):.1f} % at L2 {float(norm):.1f}"

    rows = [(f"`{name}`", f"`{found[0][name][0]}`", *(cell(*each[name][1:]) for each in found)) for name in TARGETS]
    return table(("data set", "made with", *(f"target reached, {name}" for name in CLAIMED_ON)), rows)


def leakage_probes() -> str:
    """Linear classifiers that see robust features alone."""
    rows = [
        (comparisons.PROBE_NAMES[name], f"`{comparisons.probe_name(name)}`", text(title))
        for name, title in comparisons.LEAKAGE_PROBES.items()
    ]
    sets = ", ".join(f"`{name}`" for name in comparisons.LEAKAGE_DATASETS)
    words = f"Explanation that they test: {comparisons.ROBUST_FEATURES_ALONE}. They are trained on {sets}."
    head = ("name", "in the table `controls`", "what it is")
    return f"{table(head, rows)}\n\n{words}"


def commands() -> str:
    """Every command with its arguments and options, as the parser has them."""
    found = [
        table(("command", ""), [(f"[`notbugs {name}`](#{name})", text(each.help.split("\n")[0])) for name, each in parsers()])
    ]
    for name, each in parsers():
        arguments = [parameter for parameter in each.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in each.params if parameter.param_type_name == "option" and not parameter.hidden]
        usage = " ".join([f"notbugs {name}", *(argument.name.upper() for argument in arguments), "[OPTIONS]"])
        found += [f"## {name}", *map(text, each.help.split("\n\n")), f"```text\n{usage}\n```"]
        if arguments:
            found.append(table(("argument", ""), [(f"`{argument.name.upper()}`", text(argument.help)) for argument in arguments]))
        found.append(table(("option", ""), [(option_name(option), option_text(option)) for option in options]))
    return "\n\n".join(found)


def parsers() -> list[tuple[str, Any]]:
    """Names and parsers of all commands."""
    return list(typer.main.get_command(app).commands.items())  # type: ignore[attr-defined]


def option_name(option: Any) -> str:
    """An option with what it takes."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return f"{names} {text(option.metavar)}".strip()


def option_text(option: Any) -> str:
    """The help of an option, and its default where the help has none."""
    default = option.default
    said = default is None or default is False or callable(default) or "[default" in option.help
    return text(option.help if said else f"{option.help} [default: {default}]")


def run_tables() -> str:
    """Every table of a run folder with its columns."""
    found = []
    for row in sorted(rows_of_tables(), key=lambda row: (row.table, row.__name__)):
        about = re.sub(r"``?([^`]+)``?", r"`\1`", inspect.cleandoc(row.__doc__ or ""))
        cells = [(f"`{name}`", kind.__name__ + (", or empty" if empty else "")) for name, (kind, empty) in columns(row).items()]
        found += [f"### {row.table} ({row.__name__})", about, table(("column", "type"), cells)]
    return "\n\n".join(found)


def rows_of_tables() -> list[type[Row]]:
    """Row classes of all tables."""
    modules = [import_module(f"{tables.__name__}.{each.name}") for each in iter_modules(tables.__path__)]
    return [
        each
        for module in modules
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Row) and each.__module__ == module.__name__ and "table" in vars(each)
    ]


def wrapped(lines: str, width: int) -> str:
    """Long lines of BibTeX in several, which BibTeX reads as one."""
    return "\n".join(fill(line, width, subsequent_indent="    ") for line in lines.split("\n"))


def own_attack() -> str:
    """The code of the example of an attack."""
    text = (REPOSITORY / "examples" / "own_attack.py").read_text().partition('"""\n\n')[2]
    return f"```python\n# own_attack.py\n{text}```"


def own_control() -> str:
    """The example of a control, without its docstring."""
    text = (REPOSITORY / "examples" / "own_control.py").read_text().partition('"""\n\n')[2]
    return f"```python\n# own_control.py\n{text}```"


PARTS: dict[str, Callable[[], str]] = {
    "constructions": constructions,
    "controls": controls,
    "comparisons": uncounted,
    "claims": claims,
    "target reached": targets_reached,
    "leakage probes": leakage_probes,
    "citation": lambda: f"```bibtex\n{wrapped(bibtex(), 90)}\n```",
    "commands": commands,
    "own attack": own_attack,
    "own control": own_control,
    "tables": run_tables,
    "ensemble version": lambda: f"This version of notbugs ({__version__}) has version {ENSEMBLE_VERSION} of the ensembles.",
}
