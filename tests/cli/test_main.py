"""Help, version, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from cli.conftest import call, call_here, error_line

from notbugs import cli
from notbugs.cli import config_file
from notbugs.cli.console import How
from notbugs.errors import InputError
from notbugs.runs import ranks, torchrun

COMMANDS = ["demo", "check", "run", "split", "files", "train", "attack", "features", "transfer", "explain", "corruptions", "ntk",
            "review", "theory", "report", "compare"]  # fmt: skip

STOPPED = "notbugs: stopped. What is finished is kept; the same command resumes.\n"


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


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_in_small_letters(command: str) -> None:
    """typer 0.27.0 takes the name of a value for that of its option where both are the same word: --MEAN."""
    options = cli.typer.main.get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
    assert [word for option in options for word in option.opts if word != word.lower()] == []


@pytest.mark.parametrize("words", [["run"], ["run", "digits", "--out", "x", "--nonsense"], ["run", "digits", "--seed", "x"]])
def test_what_typer_refuses_exits_with_2(words: list[str]) -> None:
    assert call_here(*words).returncode == 2


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With which exit code the process was ended: here it goes on."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


def in_the_command(monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Do this when a command has its arguments, in place of its work."""

    def do(given: object) -> None:
        what()
        raise typer.Exit

    monkeypatch.setattr(config_file, "check_numbers", do)


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("run digits --out x", True),
        ("attack m digits --out=x", True),
        ("attack m digits --config attack.toml", True),
        ("attack m digits", False),
        ("explain run", False),
    ],
)
def test_an_interrupt_exits_with_130_and_says_what_is_kept(
    command: str, kept: bool, ended: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("attack.toml").write_text('[attack]\nout = "x"\n')
    in_the_command(monkeypatch, lambda: cli._interrupt(2, None))
    call_here(*command.split())
    said = capfd.readouterr().err
    assert ended == [130] and said.startswith("notbugs: stopped.") and said.count("\n") == 1
    assert ("the same command resumes" in said) == kept


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_a_polite_kill_and_a_closed_terminal_stop_a_command(
    name: str, ended: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_the_command(monkeypatch, lambda: os.kill(os.getpid(), getattr(signal, name)))
    before = signal.signal(getattr(signal, name), signal.SIG_DFL)  # where the tests run under nohup, one is ignored
    call_here("run", "digits", "--out", "x")
    signal.signal(getattr(signal, name), before)
    assert (ended, capfd.readouterr().err) == ([130], STOPPED)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_a_command_under_nohup_outlives_its_terminal(ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(cli, "app", lambda: os.kill(os.getpid(), signal.SIGHUP))
    done = call_here("run", "digits", "--out", "x")
    signal.signal(signal.SIGHUP, before)
    assert (done.returncode, done.stderr, ended) == (0, "", [])


def test_an_interrupt_where_python_can_raise_nothing_ends_the_command(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __del__(self) -> None:  # an exception here would be lost
            os.kill(os.getpid(), signal.SIGINT)

    in_the_command(monkeypatch, Interrupted)
    call_here("run", "digits", "--out", "x")
    assert (ended, capfd.readouterr().err) == ([130], STOPPED)


WRITES = {  # every command that reads a data set and writes: its words but for DATASET and --out
    "check": [],
    "run": [],
    "split": [],
    "files": [],
    "train": [],
    "attack": ["model.onnx"],
    "features": ["model.onnx"],
    "transfer": ["model.onnx"],
    "explain": ["model.onnx"],
    "corruptions": ["model.onnx"],
}


@pytest.mark.parametrize("command", WRITES)
def test_no_command_writes_into_its_data_set(command: str, tmp_path: Path) -> None:
    (tmp_path / "images/cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    ending = {"train": ".safetensors", "run": "", "split": "", "files": "", "attack": ""}.get(command, ".csv")
    for out, rule in (("link/cat/new", "must lie outside"), ("", "must not hold the data set")):
        if out or not ending:  # a table is no folder
            words = [command, *WRITES[command], tmp_path / "images", "--out", f"{tmp_path / out}{ending * bool(out)}"]
            assert rule in error_line(call_here(*words))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cat", "images", "link"]


def test_every_command_with_a_data_set_and_an_output_is_in_that_list() -> None:
    commands = cli.typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    names = {name: {option.name for option in command.params} for name, command in commands.items()}
    assert {name for name, options in names.items() if {"dataset", "out"} <= options} == {*WRITES}


REFUSED = {
    **dict.fromkeys(("check", "ntk", "review", "report"), (("none",), ("empty",))),
    **dict.fromkeys(("run", "split", "files"), (("none", "--out=out"), ("digits", "--out=file.onnx"))),
    **dict.fromkeys(("attack", "features", "transfer"), (("none", "digits"), ("file.onnx", "digits"))),
    **dict.fromkeys(("explain", "corruptions"), (("none",), ("none.pt", "digits"))),
    "train": (("none", "--out=out.safetensors"), ("digits", "--out=out")),
    "compare": (("none",), ("none", "empty")),
    "demo": (("--out=file.onnx",),),
    "theory": (("--mean=x",), ("--out=file.onnx",)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_refusal_exits_with_2(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.onnx").write_text("x")
    for words in REFUSED[command]:
        error_line(call_here(command, *words))


@pytest.mark.parametrize("command", ["review", "ntk", "explain", "corruptions"])
def test_no_analysis_writes_into_the_data_set_of_its_study(command: str, tmp_path: Path) -> None:
    arguments = {"kind": "study", "dataset": str(tmp_path)}
    content = {"format": 2, "arguments": arguments, "stages": {}, "seeds": [0]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(content))
    assert "must lie outside" in error_line(call_here(command, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("words", "out", "kept"),
    [
        (["features", "m.safetensors"], "m.safetensors", "m.safetensors"),
        (["features", "m.safetensors"], "m.csv", "m.json"),
        (["explain", "m.safetensors"], "link.safetensors", "m.safetensors"),
        (["features", "m.safetensors", "--class-map", "map.csv"], "map.csv", "map.csv"),
        (["features", "m.safetensors", "--classes", "c.json"], "c.csv", "c.json"),
        (["transfer", "m.safetensors", "--mask", "mask.png"], "mask.png", "mask.png"),
        (["transfer", "m.safetensors", "--against", "small", "--against", "c.json"], "c.csv", "c.json"),
        (["transfer", "link.safetensors", "--against", "m.safetensors"], "m.csv", "m.json"),
        (["explain", "m.safetensors", "--classes", "mask.png"], "mask.csv", "mask.png"),
        (["train", "--robust-model", "m.safetensors"], "m.safetensors", "m.safetensors"),
        (["split", "--files", "map.csv"], "map.csv", "map.csv"),
    ],
)
def test_no_output_replaces_what_is_read(
    words: list[str], out: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.safetensors", "m.json", "map.csv", "c.json", "mask.png"):
        Path(name).write_text(name)
    Path("link.safetensors").symlink_to("m.safetensors")
    command, *more = words
    model = [more.pop(0)] if more[0] == "m.safetensors" else []
    line = error_line(call_here(command, *model, "digits", *more, "--out", out))
    assert re.search(rf"--out: must not replace {kept}, which is read, got \S+; choose another", line)
    assert all(Path(name).read_text() == name for name in ("m.safetensors", "m.json", "map.csv", "c.json", "mask.png"))


@pytest.fixture
def in_torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """This process as one of those of torchrun; what it does with the others is listed."""
    done: list[str] = []

    def start(rank: int) -> list[str]:
        for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("RANK", str(rank)), ("LOCAL_RANK", str(rank))):
            monkeypatch.setenv(name, value)
        return done

    monkeypatch.setattr(cli, "end_with_parent", lambda parent: None)
    monkeypatch.setattr(ranks, "see_one_gpu", lambda: None)
    monkeypatch.setattr(cli.os, "_exit", lambda code: done.append(f"exit {code}"))
    monkeypatch.setattr(torchrun, "connect", lambda: None)
    monkeypatch.setattr(torchrun, "end", lambda connection: done.append("end"))
    monkeypatch.setattr(torchrun, "follow", lambda connection, keeping: done.append("follow"))
    monkeypatch.setattr(cli, "_stop_at_signals", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda number, handler: None)
    return start


@pytest.mark.parametrize(
    ("rank", "words", "does", "printed"),
    [
        (0, ["--version"], ["end"], "notbugs 0"),
        (0, ["report", "nowhere"], ["exit 2"], "notbugs: run folder: must hold a run.json"),
        (0, ["run", "--no-such"], ["exit 2"], "No such option"),
        (1, ["report", "nowhere"], ["follow"], ""),
    ],
)
def test_under_torchrun_the_first_rank_does_the_command_and_ends_the_others(
    rank: int, words: list[str], does: list[str], printed: str,
    in_torchrun: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    done = in_torchrun(rank)
    monkeypatch.setattr(sys, "argv", ["notbugs", *words])
    cli.main()
    said = capsys.readouterr()
    assert done == does and printed in said.out + said.err
    assert printed or not said.out + said.err


@pytest.mark.parametrize("how", [How(2, None), How(None, "s.json")])
def test_under_torchrun_workers_cannot_be_chosen(how: How, in_torchrun: Callable[[int], list[str]]) -> None:
    in_torchrun(0)
    with pytest.raises(
        InputError, match=r"^--workers, --executor: cannot be used under torchrun, which starts .*; leave them out$"
    ):
        how.engine().__enter__()
