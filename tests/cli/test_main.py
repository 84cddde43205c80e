"""Help, version, exit codes."""

import subprocess
import sys

import pytest
from cli.conftest import call, call_here

from notbugs import cli

COMMANDS = ["demo", "check", "run", "split", "files", "train", "attack", "features", "transfer", "explain", "corruptions", "ntk",
            "review", "theory", "report"]  # fmt: skip


@pytest.mark.slow
def test_help_and_version_need_no_torch() -> None:
    loaded = (
        "import sys; import notbugs.cli; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'datasets', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
    done = call("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert call("--version").stdout.strip() == "notbugs 0.1.0"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_summary_of_a_command_fits_into_80_columns(command: str) -> None:
    (line,) = [line for line in call_here("--help").stdout.splitlines() if line.startswith(f"  {command} ")]
    assert line.endswith(".") and not line.endswith("...") and len(line) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command: str) -> None:
    options = cli.typer.main.get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
    texts = {option.name: getattr(option, "help", None) for option in options}
    assert all(texts.values()), texts


@pytest.mark.parametrize("words", [["run"], ["run", "digits", "--out", "x", "--nonsense"], ["run", "digits", "--seed", "x"]])
def test_what_typer_refuses_exits_with_2(words: list[str]) -> None:
    assert call_here(*words).returncode == 2


@pytest.mark.parametrize("command", [["run", "digits", "--out", "x"], ["attack", "m", "digits", "--out=x"], ["explain", "x"]])
def test_an_interrupt_exits_with_130_and_says_what_is_kept(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: cli._interrupt(2, None))
    done = call_here(*command)
    assert done.returncode == 130 and done.stderr.startswith("notbugs: stopped.")
    assert ("the same command resumes" in done.stderr) == (command[0] != "explain")
