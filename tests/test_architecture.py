"""The house rules that a machine can check: who imports whom, what may happen where, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "notbugs"
FILES = sorted(ROOT.rglob("*.py"))
FLOORS = ["errors", "speed", "ball", "corruptions", "theory", "goals", "search", "models", "blackbox", "data", "planted",
          "attacks", "train", "construct", "scores", "transfer", "checks", "plan", "pool", "results", "sets",
          "stages", "evidence", "further", "paper", "study", "audit", "tried", "byfile", "measured", "weighed",
          "beside", "doubts", "page", "review", "reasons", "answer", "auditpage", "filespage", "evidencepage",
          "furtherpage", "theorypage", "report", "cli"]  # fmt: skip
ROOMS = {
    "models": ["classifier", "networks", "building", "disk"],
    "data": ["names", "decode", "dataset", "find", "reading", "writing", "photographs"],
    "construct": ["made", "inverted", "relabelled", "controls"],
    "cli": ["options", "shared", "studies", "audits", "further"],
    "audit": ["ask", "look", "summary"],
    "scores": [
        "accuracy",
        "agreement",
        "features",
        "cues",
        "readers",
        "files",
        "leakage",
        "explain",
        "corrupted",
        "frequencies",
        "kernel",
    ],
    "attacks": ["door", "worst", "recipes", "radius", "blind", "spatial", "steps", "verdict"],
}
# what reads a run folder needs no torch
TORCH = set(FLOORS) - {
    "errors",
    "results",
    "measured",
    "weighed",
    "doubts",
    "answer",
    "beside",
    "page",
    "auditpage",
    "filespage",
    "evidencepage",
    "furtherpage",
    "theorypage",
    "theory",
    "reasons",
    "review",
}
NEVER = {
    "models": {"data"},
    "data": {"models"},
    "train": {"attacks", "data"},
    "measured": TORCH,
    "weighed": TORCH,
    "doubts": TORCH,
    "answer": TORCH,
    "page": TORCH,
    "auditpage": TORCH,
    "filespage": TORCH,
    "evidencepage": TORCH,
    "furtherpage": TORCH,
    "theorypage": TORCH,
    "theory": TORCH,
    "reasons": TORCH,
    "report": TORCH,
}
MATHEMATICS = {"ball", "goals", "search"}
CORE = {*MATHEMATICS, "errors", "models", "blackbox", "planted", "attacks", "train", "construct", "scores", "checks"}


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "notbugs" else {str(node.module)}
    return found


def floor(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def names(path: Path) -> set[str]:
    """Every attribute and name that a file mentions in code (not in words)."""
    tree = list(ast.walk(ast.parse(path.read_text())))
    return {node.attr for node in tree if isinstance(node, ast.Attribute)} | {
        node.id for node in tree if isinstance(node, ast.Name)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_files_above_it(path: Path) -> None:
    name = floor(path)
    if name in ("__init__", "__main__"):
        return
    assert name in FLOORS, f"{name} has no place in the order of the house"
    used = {full.split(".")[1] for full in imports(path) if full.startswith("notbugs.")} - {"__version__"}
    above = set(FLOORS[: FLOORS.index(name)])
    assert used <= above | ({name} if name in ROOMS else set())
    assert not used & NEVER.get(name, set())
    if name in ROOMS and path.stem != "__init__":
        rooms = {full.split(".")[2] for full in imports(path) if full.startswith(f"notbugs.{name}.")}
        assert rooms <= set(ROOMS[name][: ROOMS[name].index(path.stem)])


def test_every_floor_exists() -> None:
    assert {floor(path) for path in FILES} == {*FLOORS, "__init__", "__main__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_may_happen_only_in_one_place(path: Path) -> None:
    """One loop moves pixels, one moves weights; nothing below the command line prints; no library code picks a device."""
    name, text = floor(path), path.read_text()
    tree = list(ast.walk(ast.parse(text)))
    used = names(path)
    assert ("grad" in used) <= (name == "search"), "autograd.grad is search's"
    assert ("backward" in used) <= (name == "train"), "backward() is train's"
    calls = {node.func.id for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert ("print" in calls) <= (name in ("cli", "__main__")), "no printing below cli.py"
    devices = [node for node in tree if isinstance(node, ast.Constant) and node.value in ("cuda", "mps", "xpu", "cuda:0")]
    compared = {id(part) for node in tree if isinstance(node, ast.Compare) for part in ast.walk(node)}
    asked = {id(part) for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
             and node.func.attr == "startswith" for part in node.args}  # fmt: skip
    assert name == "cli" or all(id(node) in compared | asked for node in devices), "library code names no device"
    assert not any(isinstance(node, ast.ExceptHandler) and node.type is None for node in tree), "no bare except"
    assert not any(isinstance(node, ast.Global) for node in tree) or name == "pool"


def test_mathematics_knows_torch_only_and_the_run_folder_nothing_heavy() -> None:
    standard = set(sys.stdlib_module_names)
    for path in FILES:
        outside = {full.split(".")[0] for full in imports(path)} - standard - {"notbugs"}
        if floor(path) in MATHEMATICS:
            assert outside <= {"torch"}
        if floor(path) in ("errors", "results"):
            assert not outside
        if floor(path) in ("report", "page", "auditpage", "study"):
            assert "torch" not in outside or floor(path) == "study"


@pytest.mark.parametrize("name", ["", ".errors", ".results", ".report", ".cli"])
def test_importing_costs_no_torch(name: str) -> None:
    code = f"import sys, notbugs{name}; print(sorted({{'torch', 'datasets', 'altair', 'sklearn', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_nothing_happens_at_import() -> None:
    """The caller's random state, threads and default type are as they were; nothing is written to the terminal."""
    code = (
        "import torch; torch.manual_seed(5)\n"
        "a, b, c = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()\n"
        "import notbugs.study, notbugs.attacks, notbugs.planted\n"
        "assert torch.equal(a, torch.get_rng_state()) and (b, c) == (torch.get_num_threads(), torch.get_default_dtype())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert path.stem == "__main__" or ast.get_docstring(tree), "the module"
    for node in tree.body if floor(path) in CORE else []:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
