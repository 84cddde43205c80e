"""Words of a command as a shell takes them, for commands to be pasted: whatever a name holds stays one word."""

import os
import shlex
from collections.abc import Iterable


def quote(word: str) -> str:
    r"""A word as bash and zsh take it: in $'…' where it holds what would break the line, move the cursor, or is not shown.

    Examples
    --------
    >>> print(quote("$(date)"), quote("a\nb's\x1b"))
    '$(date)' $'a\nb\'s\x1b'
    """
    return shlex.quote(word) if word.isprintable() else "$'" + "".join(map(_escaped, word)) + "'"


def join(words: Iterable[str]) -> str:
    """Words as one line.

    Examples
    --------
    >>> join(["notbugs", "check", "my images"])
    "notbugs check 'my images'"
    """
    return " ".join(map(quote, words))


def argument(text: str) -> str:
    """A path or name as an argument that is not taken for an option.

    Examples
    --------
    >>> argument("-images"), argument("images")
    ('./-images', 'images')
    """
    return f"./{text}" if text.startswith("-") else text


def _escaped(letter: str) -> str:
    if letter in "'\\":
        return f"\\{letter}"
    if letter == "\n":
        return r"\n"
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
