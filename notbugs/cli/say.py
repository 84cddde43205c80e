"""The one function of the commands that prints: whatever a name holds, it neither moves the cursor nor begins a line."""

from typing import TextIO

from notbugs.errors import printable


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines; without any an empty one. file: standard output by default."""
    print(*(printable(str(line)) for line in lines), sep="\n", file=file)
