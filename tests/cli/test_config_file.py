"""Arguments in a TOML file."""

import os
import tomllib
from pathlib import Path

import pytest
import typer
from cli.conftest import call_here, error_line

from notbugs.cli.config_file import with_config
from notbugs.runs.arguments import as_toml
from notbugs.runs.folder import RunFolder


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What the stand-in of a command got."""
    found: list[dict[str, object]] = []

    def attack(
        model: str, images: int = 5, epsilon: list[str] | None = None, fast: bool = False, out: Path | None = None, seed: int = 0
    ) -> None:
        found.append({"model": model, "images": images, "epsilon": epsilon, "fast": fast, "seed": seed})
        if out:
            with RunFolder.open(out, {"kind": "audit"}):
                if model == "stopped":
                    raise KeyboardInterrupt

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(with_config(attack))
    app.command()(with_config(lambda: None))
    monkeypatch.setattr("notbugs.cli.app", app)
    monkeypatch.chdir(tmp_path)
    return found


def test_a_file_has_the_arguments_and_the_command_line_comes_first(seen: list[dict[str, object]]) -> None:
    Path("a.toml").write_text('[attack]\nmodel = "m.onnx"\nimages = 7\nepsilon = ["l2:0.5", 1]\nfast = true\n[run]\nx = 1\n')
    assert call_here("attack", "--config", "a.toml").returncode == 0
    assert call_here("attack", "other", "--config", "a.toml", "--images", "9", "--epsilon", "2").returncode == 0
    assert seen == [
        {"model": "m.onnx", "images": 7, "epsilon": ["l2:0.5", "1"], "fast": True, "seed": 0},
        {"model": "other", "images": 9, "epsilon": ["2"], "fast": True, "seed": 0},
    ]


def test_a_run_folder_keeps_what_reproduces_it(seen: list[dict[str, object]]) -> None:
    Path("a.toml").write_text('[attack]\nmodel = "m.onnx"\nepsilon = "l2:0.5"\n')
    assert call_here("attack", "--config", "a.toml", "--images", "9", "--out", "run").returncode == 0
    assert call_here("attack", "--config", "run/config.toml").returncode == 0
    assert call_here("attack", "--config", "run/config.toml", "--seed", "3", "--out", "run").returncode == 0
    assert seen[0] == seen[1] and seen[2] == {**seen[0], "seed": 3}
    kept = tomllib.loads(Path("run/config.toml").read_text())
    assert kept == {"attack": {"model": "m.onnx", "images": 9, "epsilon": ["l2:0.5"], "seed": 3}}
    call_here("attack", "m", "--out", "other")  # what is at its default is not kept
    assert tomllib.loads(Path("other/config.toml").read_text()) == {"attack": {"model": "m"}}
    call_here("attack", "stopped", "--out", "third")  # by Ctrl-C: the same command resumes from there, and so does its file
    assert tomllib.loads(Path("third/config.toml").read_text()) == {"attack": {"model": "stopped"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a.toml must have a table [attack], got nothing"),
        ("[run]\n", "a.toml must have a table [attack], got run"),
        ("attack = 1", "a.toml must have a table [attack]"),
        ("[attack", "a.toml must be TOML"),
        ("[attack]\nmodel = '\\xff'\n", "m"),
        ("[attack]\nimage = 3\n", "arguments of notbugs attack alone, got image; do you mean images?"),
        ("[attack]\nzzz = 3\n", "got zzz; notbugs attack --help lists them"),
        ("[attack]\nconfig = 'b.toml'\n", "arguments of notbugs attack alone, got config"),
        ("[attack]\nimages = [3]\n", "a.toml: images must be one value, got a list of 1"),
        ("[attack]\nimages = {a = 1}\n", "images must be text, a number or true or false"),
        ("[attack]\nimages = 2026-11-27\n", "images must be text, a number or true or false"),
        ("[attack]\nimages = true\n", "a.toml: images must be text or a number, got true"),
        ("[attack]\nmodel = false\n", "a.toml: model must be text or a number, got false"),
        ("[attack]\nfast = 'yes'\n", "a.toml: fast must be true or false, got the text 'yes'"),
        ('[attack]\nout = "a\\u0000b"\n', "a.toml: out must have no null character, got a\\x00b"),
        (f"[attack]\nimages = {'1' * 5000}\n", "a.toml must be TOML, got Exceeds the limit"),
        ("[attack]\nmodel = 'm'\nimages = 2147483648\n", "--images: must be at most 2,147,483,647, got 2147483648"),
        ("[attack]\nmodel = 'm'\nseed = 9223372036854775808\n", "--seed: must be at most 9,223,372,036,854,775,807"),
        ("[attack]\nmodel = 'm'\nout = 'a.toml'\n", "--out: must not replace a.toml, which is read"),
        (f"[attack]\nepsilon = {'[' * 5000}{']' * 5000}\n", "a.toml must be TOML, got maximum recursion depth exceeded"),
    ],
    ids=lambda text: text[:40],
)
def test_what_a_file_cannot_have_is_one_line(seen: list[dict[str, object]], text: str, says: str) -> None:
    Path("a.toml").write_bytes(text.encode("latin-1"))
    if says == "m":  # a literal string: no escape
        assert call_here("attack", "--config", "a.toml").returncode == 0
        return
    assert says in error_line(call_here("attack", "--config", "a.toml"))
    assert seen == []


def test_no_file_no_text_and_a_folder_are_one_line(seen: list[dict[str, object]]) -> None:
    Path("a.toml").write_bytes(b"[attack]\nmodel = '\xff'\n")
    for name, says in (("none.toml", "--config: no such file"), ("a.toml", "must be TOML"), (".", "must be a file")):
        assert says in error_line(call_here("attack", "--config", name))


def test_a_number_is_text_where_text_is_meant(seen: list[dict[str, object]]) -> None:
    Path("a.toml").write_text("[attack]\nmodel = 5\nout = 7\n")
    assert call_here("attack", "--config", "a.toml").returncode == 0
    assert seen[0]["model"] == "5" and Path("7/config.toml").exists()


@pytest.mark.parametrize(
    "text",
    ["[attack]\nmodel = " + "[" * 5000, f"[attack]\nimages = {'1' * 5000}\n", '[attack]\n"a\\nb" = 1\n'],
    ids=lambda text: text[:20],
)
def test_a_damaged_file_of_another_command_in_the_run_folder_is_replaced(seen: list[dict[str, object]], text: str) -> None:
    call_here("attack", "m", "--out", "run")
    Path("run/config.toml").write_text(text)
    assert call_here("attack", "m", "--out", "run").returncode == 0
    assert tomllib.loads(Path("run/config.toml").read_text()) == {"attack": {"model": "m"}}


def test_a_pipe_in_the_run_folder_is_not_waited_for(seen: list[dict[str, object]]) -> None:
    call_here("attack", "m", "--out", "run")
    Path("run/config.toml").unlink()
    os.mkfifo("run/config.toml")
    assert call_here("attack", "m", "--out", "run").returncode == 0
    assert tomllib.loads(Path("run/config.toml").read_text()) == {"attack": {"model": "m"}}


TEXTS = ["", "m.onnx", 'a "b"', "C:\\x", "\n\t\x00\x1b\x7f\x85", "猫\U0001f431", "#", "'"]


@pytest.mark.parametrize("value", [*TEXTS, TEXTS, [], 0, -(2**62), 0.5, 1e-30, -1e300, float("inf"), True, False])
def test_what_is_written_is_read_again(value: object) -> None:
    assert tomllib.loads(as_toml("attack", {"a-b": value})) == {"attack": {"a-b": value}}
