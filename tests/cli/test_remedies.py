"""What an error says to do can be done: its options are those of the command at hand."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

import notbugs
from notbugs.cli import app
from notbugs.data import DataConfig, load_dataset
from notbugs.errors import InputError
from notbugs.files import FilesConfig, crossfit_config
from notbugs.study.config import StudyConfig
from notbugs.study.resolve import resolve

ROOT = Path(notbugs.__file__).parent
DATA = ("check", "run", "split", "files", "train", "attack", "features", "transfer", "explain", "corruptions")
TRAINING = ("run", "split", "files", "train")
GIVEN = ("run", "attack", "features", "transfer", "explain", "corruptions")  # of a model that the user has
# Which commands come into which modules: the remedies there may name options of all of these only
REACHED_BY = {
    "data": DATA,
    "datacheck": DATA,
    "files": ("files", "split"),
    "study/config.py": TRAINING,
    "study/resolve.py": (*TRAINING, "transfer"),
    "study/given.py": ("run",),
    "models": GIVEN,
    "search/norm_ball.py": ("attack", "features", "transfer"),
}
# Remedies for fewer commands, and why they are met nowhere else
ELSEWHERE = {
    ("study/resolve.py", "--epochs"): ("run", "split"),  # versions, which only a study has
    ("models/factory.py", "--network"): TRAINING,  # of a network that is to be trained
    ("models/libraries/hf.py", "--pretrained"): TRAINING,  # the remedy is another command
    ("models/libraries/timm.py", "--pretrained"): TRAINING,
}


OF_OTHERS = {"--upgrade", "--repo-type", "--include", "--local-dir"}  # of pip, of hf


def options(command: str) -> set[str]:
    found = get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {name for parameter in found for name in (*parameter.opts, *parameter.secondary_opts)}


def remedies(path: Path) -> set[str]:
    """The options that the remedies in a module name."""
    parts: list[ast.expr] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InputError":
            parts += [*node.args[3:4], *(word.value for word in node.keywords if word.arg == "remedy")]
        elif isinstance(node, ast.Assign) and any("remedy" in ast.unparse(target).lower() for target in node.targets):
            parts.append(node.value)
    texts = [each.value for part in parts for each in ast.walk(part) if isinstance(each, ast.Constant)]
    return {name for text in texts if isinstance(text, str) for name in re.findall(r"--[a-z][a-z0-9-]+", text)} - OF_OTHERS


@pytest.mark.parametrize("place", REACHED_BY)
def test_remedies_name_options_of_all_commands_that_come_there(place: str) -> None:
    paths = sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]
    named = {(path.relative_to(ROOT).as_posix(), name) for path in paths for name in remedies(path)}
    known = {command: options(command) for command in get_command(app).commands}  # type: ignore[attr-defined]
    assert all(any(name in found for found in known.values()) for _, name in named)
    for module, name in named:
        for command in ELSEWHERE.get((module, name), REACHED_BY[place]):
            assert name in known[command], f"{module} tells users of {command} to use {name}"


def test_an_epsilon_that_is_too_large_is_named_as_the_command_has_it() -> None:
    """Twice as much is the default of relabeled sets, which only a study has."""
    config = FilesConfig(DataConfig("digits", limit=100), epsilon=2.0)
    splits = load_dataset(config.data)
    assert crossfit_config(config, splits).threat_model.epsilon == 2.0
    with pytest.raises(InputError, match=r"^--epsilon: must be below"):
        crossfit_config(FilesConfig(config.data, epsilon=5.0), splits)
    assert resolve(StudyConfig("digits", limit=100, epsilon=2.0), splits).epsilon == 2.0, "notbugs train, transfer"


@pytest.mark.parametrize("words", [("report",), ("review",), ("ntk",)])
def test_what_cannot_be_written_is_named_by_its_path(words: tuple[str, ...]) -> None:
    """These commands have no --out, and write all the same."""
    assert "--out" not in options(*words)
    assert not re.search(r'InputError\(\s*"--', (ROOT / "atomic.py").read_text(encoding="utf-8"))
