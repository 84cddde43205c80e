"""The GitHub action, the GitLab job and the Dockerfile: parsed, and the commands in them run as far as they can here."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from notbugs.cli import app

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STAND_IN = f"""#!{sys.executable}
import json, os, sys
json.dump(sys.argv[1:], open(os.environ["SEEN"], "w"))
sys.exit(int(os.environ["CODE"]))
"""


def options(command: str) -> set[str]:
    """The options of a command."""
    found = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {name for parameter in found for name in parameter.opts}


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `notbugs` notes its arguments and exits with $CODE."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "notbugs").write_text(STAND_IN)
    (tmp_path / "bin" / "notbugs").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SEEN": str(tmp_path / "seen"), "GITHUB_OUTPUT": str(tmp_path / "output")}


@pytest.mark.parametrize(("code", "further"), [(0, ""), (1, "--images 500 --time-limit 20m"), (3, "--quiet")])
def test_the_action_passes_arguments_and_exit_codes_on(stand_in: dict[str, str], tmp_path: Path, code: int, further: str) -> None:
    (step,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == "attack"]
    evil = "$(touch evil) `touch evil`; touch evil"
    given = {"MODEL": "my model.onnx", "DATASET": evil, "FAIL_UNDER": "l2:0.5=30%\n\nclean=90%\n", "ARGUMENTS": further}
    assert {*given} == {*step["env"]}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        env={**stand_in, **given, "CODE": str(code)},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == code and not (tmp_path / "evil").exists()
    assert (tmp_path / "output").read_text() == f"exit-code={code}\n"
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen[:7] == ["attack", "my model.onnx", evil, "--fail-under", "l2:0.5=30%", "--fail-under", "clean=90%"]
    assert seen[7:-6] == further.split()
    assert {word for word in seen if word.startswith("--")} <= options("attack")


def test_the_action_refuses_to_require_nothing(stand_in: dict[str, str], tmp_path: Path) -> None:
    (step,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == "attack"]
    given = {**stand_in, "MODEL": "m.onnx", "DATASET": "images", "FAIL_UNDER": "\n", "ARGUMENTS": "", "CODE": "0"}
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env=given, cwd=tmp_path, check=False)
    assert done.returncode == 2 and not (tmp_path / "seen").exists()
    assert (tmp_path / "output").read_text() == "exit-code=2\n"


def test_the_action_uses_only_inputs_that_it_has() -> None:
    text = (ROOT / "action.yml").read_text()
    used = {part.split(" }}")[0] for part in text.split("${{ inputs.")[1:]}
    assert used == {*ACTION["inputs"]} and ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")  # text of an input would be run
        assert "run" not in step or step["shell"] == "bash"


def test_the_gitlab_job_runs_a_command_that_is_there(stand_in: dict[str, str], tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())["robustness"]
    (line,) = job["script"]
    given = {**stand_in, **job["variables"], "CODE": "1"}
    assert subprocess.run(["bash", "-c", line], env=given, cwd=tmp_path, check=False).returncode == 1
    seen = json.loads((tmp_path / "seen").read_text())
    assert {word for word in seen if word.startswith("--")} <= options("attack")
    assert job["artifacts"]["reports"]["junit"] in seen
    (named,) = (each for each in job["before_script"] if each.startswith("test "))  # there is no package of this name to rely on
    for source, code in (("", 2), ("git+https://host/owner/notbugs", 0)):
        assert subprocess.run(["sh", "-c", named], env={**given, "NOTBUGS": source}, check=False).returncode == code


def test_the_wheel_is_installed_without_the_repository() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["wheel"]
    build, install = (step["run"] for step in job["steps"] if "run" in step)
    assert "pip wheel" in build and "dist/notbugs-*.whl" in install and 'notbugs" demo' in install
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert "demo" in commands


def test_the_container_has_all_that_the_package_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {word for line in dockerfile.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], "notbugs"}
    needed |= {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]}
    assert needed <= copied
    extras = project["project"]["optional-dependencies"]
    named = [name for line in dockerfile.splitlines() for name in re.findall(r"EXTRAS=([\w,-]+)", line)]
    assert named and all(extra in extras for each in named for extra in each.split(","))
    assert 'ENTRYPOINT ["notbugs"]' in dockerfile and "USER notbugs" in dockerfile
