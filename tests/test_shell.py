"""Commands to be pasted: bash itself has the same words."""

import os
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from notbugs import shell

WORDS = [
    "", "a", "a b", "$(touch x)", "`touch x`", "$HOME", "!!", "it's", '"', "\\", "\\x41", "*", "~", "#", "a\nb", "\r\t\x0b",
    "\x1b[31m", "\x01f", "\x7f", "\u202e\u200b", "\u2028", "\xa0", "猫", "\udcff", "\udcffa",
    "-x", "--out", "a;b|c&d>e", "{a,b}", "[ab]", "$'a'",
]  # fmt: skip


def in_bash(command: str) -> list[str]:
    """The arguments that bash gives to `notbugs`, which is a function here."""
    script = f"notbugs() {{ printf '%s\\0' \"$@\"; }}\n{command}\n"
    done = subprocess.run(["bash", "--norc", "-c", os.fsencode(script)], capture_output=True, check=True, cwd="/")
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def test_bash_has_the_same_words() -> None:
    command = shell.join(["notbugs", *WORDS])
    assert in_bash(command) == WORDS
    assert command.isprintable()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=100))
def test_any_words_are_one_line_for_a_terminal(words: list[str]) -> None:
    assert shell.join(words).isprintable()


def test_names_that_look_like_options_are_arguments() -> None:
    assert [shell.argument(name) for name in ("-x", "--out", "a-x", "./-x")] == ["./-x", "./--out", "a-x", "./-x"]
