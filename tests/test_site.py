"""The site: built strictly, every link and anchor leads somewhere, nothing is loaded from elsewhere, and its search works."""

import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import shared_folder
from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.site]

REPOSITORY = Path(__file__).parent.parent
HOW_TO = sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
RESULTS = (REPOSITORY / "docs" / "results" / "digits-controls.md").read_text()
WIDE = (
    "index.html",
    "tour.html",
    "method/controls.html",
    "reference/building-blocks.html",
    "reference/data-and-gate.html",
    "reference/command-line.html",
    "reference/run-folder.html",
    "gate.html",
)


PACKAGES = ("attacks", "construct", "data", "extensions", "files", "gate", "metrics", "models", "search", "train")
NOT_IN_THE_REFERENCE = {
    "constants: pages on the options and exit codes have their values": {
        *(f"attacks.{name}" for name in ("BUDGETS", "DRAWS", "ENSEMBLE_VERSION", "GRADIENT_ENSEMBLE")),
        *(f"gate.{name}" for name in ("BELOW", "NOT_TRUSTED", "PASSED")),
        *(f"metrics.{name}" for name in ("METHODS", "PERTURBATIONS", "RHO")),
        *(f"models.{name}" for name in ("ARCHITECTURES", "TRANSFER_ARCHITECTURES")),
    },
    "names of types": {"attacks.Model", "data.Images", "models.Model", "search.Attack", "search.UpdateRule"},
    "only notbugs itself calls them": {
        "attacks.clean_logits",
        *(f"data.{name}" for name in ("is_out_of_memory", "joined", "keeping_loads", "sheet_columns", "use_index")),
        "models.check_writable",
        "models.memory_format",
    },
    "a module, whose functions are described": {"train.loggers"},
}


class Links(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found and found.get("rel") != "canonical":
            self.loads.append(found[LOADED[tag]])


def build(folder: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder / "site")]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory, "site", build, copy=False) / "site"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path) for path in site.rglob("*.html")}


def test_every_document_is_a_page(pages: dict[Path, Links], site: Path) -> None:
    documents = REPOSITORY / "docs"
    wanted = {
        path.relative_to(documents).with_suffix(".html") for path in documents.rglob("*") if path.suffix in (".md", ".ipynb")
    }
    assert wanted <= {path.relative_to(site) for path in pages}


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Links], site: Path) -> None:
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in pages[target].anchors):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Links], site: Path) -> None:
    outside = re.compile(r"^(https?:)?//")
    assert {load for page in pages.values() for load in page.loads if outside.match(load)} == set()
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import\s+)[\"']?([^)\"']+)", sheet.read_text())
        assert [each for each in found if outside.match(each)] == []


def test_generated_parts_are_filled(site: Path) -> None:
    left = [path.name for path in site.rglob("*.html") if "<!-- generated" in path.read_text()]
    assert left == []
    text = (site / "method" / "controls.html").read_text()
    assert "random-labels-shuffled" in text and "any perturbation of this size would do" in text
    for excess in re.findall(
        r"^\| random-labels \|.*(?:shuffled perturbations|leakage probe).* \| (\S+ \[.*\]) \|$", RESULTS, re.MULTILINE
    ):
        assert excess in text
    # on digits made with the robust model, and right labels with class patterns; on CIFAR-10 the latter
    assert text.count(": <strong>not exceeded</strong>") == 3
    assert "--fail-under" in (site / "reference" / "command-line.html").read_text()
    assert "robust_usefulness_ci_low" in (site / "reference" / "run-folder.html").read_text()


# ---- the reference -------------------------------------------------------------------------------------------------------------


def inventory(site: Path) -> dict[str, str]:
    """What the reference describes, and what each is: py:function and others."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {name: role for name, role, *_ in map(str.split, lines)}


def test_the_reference_has_every_public_name(site: Path) -> None:
    """A function that is called as its module is named by both: else the page shows the module."""
    described, left_out = inventory(site), set.union(*NOT_IN_THE_REFERENCE.values())
    public = {f"{name}.{each}" for name in PACKAGES for each in getattr(import_module(f"notbugs.{name}"), "__all__", ())}
    public |= {"extensions.Control", "extensions.Construction", "extensions.Metric"}
    found = set()
    for name in public:
        for each in (f"notbugs.{name}", f"notbugs.{name}.{name.rpartition('.')[2]}"):
            if described.get(each, "py:module") != "py:module":
                found.add(name)
    assert public - found - left_out == set() and left_out <= public and left_out & found == set()


def test_no_entry_of_the_reference_is_a_module(site: Path) -> None:
    assert [name for name, role in inventory(site).items() if role == "py:module"] == []


# ---- in a browser, without a network -------------------------------------------------------------------------------------------


def opened(chromium: Browser, path: Path, width: int) -> tuple[Page, list[str]]:
    """A page from the disk, and the addresses outside of it that it asks for."""
    page, asked = chromium.new_context(viewport={"width": width, "height": 900}, offline=True).new_page(), []
    page.on("request", lambda request: asked.append(request.url) if request.url.startswith("http") else None)
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(path.as_uri())
    return page, asked


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("fail-under", "gate.html"),
        ("--fail-under", "gate.html"),  # a "-" in front would mean "without"
        ("robust usefulness", "method/definitions.html"),
        ("shuffled", "method/controls.html"),
    ],
)
def test_the_search_works_from_a_disk(chromium: Browser, site: Path, words: str, wanted: str) -> None:
    page, asked = opened(chromium, site / "index.html", 1400)
    page.click("input.md-search__input")
    page.keyboard.type(words)
    page.wait_for_selector(f".md-search-result__item a[href*='{wanted}']", state="attached")
    assert asked == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", WIDE)
def test_pages_fit_a_phone(chromium: Browser, site: Path, name: str) -> None:
    page, asked = opened(chromium, site / name, 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and asked == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["tour", "extensions", "data", "data-check", *(f"how-to/{path.stem}" for path in HOW_TO)])
def test_code_of_the_guides_fits_its_box(chromium: Browser, site: Path, name: str) -> None:
    page, _ = opened(chromium, site / f"{name}.html", 1400)
    wide = "[...document.querySelectorAll('article pre code')].filter(code => code.scrollWidth > code.clientWidth + 1)"
    assert page.evaluate(f"{wide}.map(code => code.textContent)") == []
    page.context.close()


@pytest.mark.browser
def test_the_slider_of_the_teacher_moves(chromium: Browser, site: Path) -> None:
    page, asked = opened(chromium, site / "notebooks" / "teacher.html", 1400)
    shown = "[...document.querySelectorAll('.output svg g')].filter(g => g.style.display !== 'none').map(g => g.textContent)"
    before = page.evaluate(shown)
    page.locator("input[type=range]").fill("20")
    after = page.evaluate(shown)
    assert len(before) == len(after) == 1 and "ε = 0:" in before[0] and "ε = 5:" in after[0] and asked == []
    page.context.close()
