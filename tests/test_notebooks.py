"""The notebooks run from top to bottom, on fewer images than `make notebooks` takes, and show what the site shows of them."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.site]
NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
FEWER = {
    r"limit=\d+": "limit=500",
    r"epochs(=|\": |: int = )\d+": r"epochs\g<1>2",
    r"images=100\b": "images=20",
    r"steps=\d+": "steps=4",
}


def outputs(notebook: Any) -> list[tuple[int, str, tuple[str, ...]]]:
    """What each cell shows: its kind. Figures differ between machines, and how many pieces a text comes in between runs."""
    found = (
        (number, output.output_type, tuple(sorted(output.get("data", ()))))
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
    )
    return list(dict.fromkeys(found))


def read(path: Path) -> Any:
    """A notebook."""
    import nbformat  # `make test` imports this file, too, and has no such package

    return nbformat.read(path, 4)


@pytest.mark.filterwarnings("default")  # of zmq and asyncio
@pytest.mark.parametrize("name", ["practitioner", "researcher", "teacher"])
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS.parent)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    path = NOTEBOOKS / f"{name}.ipynb"
    try:
        now = import_module("run_notebooks").run(path, FEWER)
    finally:
        sys.modules.pop("run_notebooks", None)
    kept = read(path)
    assert outputs(now) == outputs(kept) and len(outputs(kept)) > 3
    errors = [output for cell in kept.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    assert errors == []


def test_the_practitioner_gains_from_d_r() -> None:
    """What the notebook says of its figures is what its outputs show."""
    cells = read(NOTEBOOKS / "practitioner.ipynb").cells
    shown = [
        str(output["data"]["text/html"])
        for cell in cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", ())
    ]
    original, robust, adversarial = (
        float(html.split("l2 0.375")[1].split("<td")[1].split(">")[1].split(" %")[0]) for html in shown[-3:]
    )
    assert original + 10 < robust < adversarial
