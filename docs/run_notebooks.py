"""Run the notebooks from top to bottom, and keep their outputs in the files: `make notebooks`."""

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"
SECONDS = 600  # of a cell


def run(path: Path, instead: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """A notebook with the outputs that it has now, run in an empty folder. Raises CellExecutionError where a cell fails.

    instead: by regular expression, what stands in the code in place of it, as for fewer images.
    """
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        for pattern, text in (instead or {}).items():
            if cell.cell_type == "code":
                cell.source = re.sub(pattern, text, cell.source)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        for output in cell.get("outputs", ()):
            if "text/html" in output.get("data", ()):
                output.data.pop("text/plain", None)  # "<IPython.core.display.HTML object>"
    return notebook


if __name__ == "__main__":
    for each in [NOTEBOOKS / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(run(each), each)
