"""`import notbugs`: a guided index whose parts load when they are used."""

import inspect
import os
import pydoc
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import notbugs
from notbugs import api, data, files, gate, models, report
from notbugs.errors import InputError

FUNCTIONS = ["load_dataset", "train", "attack", "make_robust", "make_nonrobust", "relabel", "score_files", "audit", "study"]
ROOT = Path(notbugs.__file__).parent


def test_importing_loads_nothing_else() -> None:
    """Also `dir`; a function's name alone loads what it needs."""
    code = (
        "import sys; import notbugs; dir(notbugs)\n"
        "assert sorted(n for n in sys.modules if n.startswith('notbugs')) == ['notbugs', 'notbugs.lazy'], sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dir_lists_functions_and_submodules_that_are_there() -> None:
    listed = [name for name in dir(notbugs) if not name.startswith("__")]
    assert {*FUNCTIONS} <= {*listed}
    for name in listed:
        assert callable(getattr(notbugs, name)) or isinstance(getattr(notbugs, name), ModuleType)
    below = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"cli", "decoding"}
    assert below <= {*listed}


def test_help_is_an_index_with_every_function() -> None:
    text = pydoc.plain(pydoc.render_doc(notbugs))
    assert notbugs.__doc__ is not None
    for name in FUNCTIONS:
        assert f"    {name} " in notbugs.__doc__ and name in text
        assert f"notbugs.{name}" in (inspect.getdoc(getattr(api, name)) or "")  # its example


@pytest.mark.parametrize("name", ["train", "audit", "study"])
def test_a_submodule_is_a_function_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = getattr(notbugs, name)
    assert module is sys.modules[f"notbugs.{name}"] is import_module(f"notbugs.{name}")
    assert inspect.signature(module) == inspect.signature(getattr(api, name))
    monkeypatch.setattr(api, name, lambda *given, **named: (given, named))
    assert module(1, seed=2) == ((1,), {"seed": 2})
    assert notbugs.train.fit


@pytest.mark.parametrize("name", ["train", "audit", "study"])
def test_help_on_such_a_submodule_is_that_of_the_function(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(getattr(notbugs, name)))
    summary, *_ = (inspect.getdoc(getattr(api, name)) or "").split("\n")
    assert f"notbugs.{name} - {summary}" in text and f"notbugs.{name}(" in text
    for parameter in inspect.signature(getattr(api, name)).parameters:
        assert parameter in text
    assert "    Returns\n" in text and "As a package: " in text


def test_a_name_that_is_not_there_is_an_error_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"^module 'notbugs' has no attribute 'atack'. Did you mean: 'attack'\?$"):
        notbugs.atack  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(notbugs, "__wrapped__")
    code = "import notbugs; notbugs.load_datset"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.count("Did you mean: 'load_dataset'?") == 1


def test_parameters_are_documented() -> None:
    for name in FUNCTIONS:
        function = getattr(api, name)
        text = inspect.getdoc(function) or ""
        named = re.findall(r"^(\S.*?) :|^([*\w, ]+)$", text, re.MULTILINE)
        known = {each.strip().lstrip("*") for line in named for each in ",".join(line).split(",")}
        assert {*inspect.signature(function).parameters} <= known, name
        assert "Examples\n--------" in text and "Returns\n-------" in text


def test_it_is_typed() -> None:
    assert (ROOT / "py.typed").exists()
    stub = (ROOT / "__init__.pyi").read_text()
    functions = dict(re.findall(r"^from notbugs\.api import (\w+) as (\w+)$", stub, re.MULTILINE))
    packages = re.findall(r"^class (_\w+)\(ModuleType\):\n    __call__ = staticmethod\((_\w+)\)\n", stub, re.MULTILINE)
    assert [function for _, function in packages] == ["_train", "_audit", "_study"]
    assert all(f"\n{function[1:]}: {name}\n" in stub for name, function in packages)
    called = {function[1:]: function for _, function in packages}
    assert functions == {name: called.get(name, name) for name in FUNCTIONS}


def test_what_takes_a_path_takes_any() -> None:
    """Public functions take text and objects of `os.PathLike`: a `Path` alone is for what is not public."""
    found = [
        f"{package.__name__}.{name}: {parameter.name}"
        for package in (api, data, models, files, gate, report)
        for name in package.__all__
        if inspect.isfunction(function := getattr(package, name))
        for parameter in inspect.signature(function).parameters.values()
        if "Path" in str(parameter.annotation) and "PathLike" not in str(parameter.annotation) and parameter.name != "encoded"
    ]
    assert found == []


def test_text_is_a_path(tmp_path: Path) -> None:
    class Place(os.PathLike[str]):
        def __init__(self, name: str) -> None:
            self.name = str(tmp_path / name)

        def __fspath__(self) -> str:
            return self.name

    for kind in (str, Place):
        image, arrays = kind(Place("a.png").name), kind(Place("a.npz").name)
        data.save_image(torch.zeros(1, 2, 2), image)
        data.save_arrays({"a": np.arange(3)}, arrays)
        assert data.load_arrays(arrays)["a"].tolist() == [0, 1, 2]
        with pytest.raises(InputError, match="exists and is not empty"):
            data.check_unused(kind(str(tmp_path)))
