"""Commands as a user runs them: `from cli.conftest import ...`."""

import io
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from notbugs import cli

NOTBUGS = [sys.executable, "-m", "notbugs"]
QUICK = ["--limit", "100", "--epochs", "1", "--width", "8"]
Finished = subprocess.CompletedProcess[str]


def call(*words: object, cwd: Path | None = None, **options: object) -> Finished:
    """The command in a process of its own."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*NOTBUGS, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=600, check=False, **options
    )


def call_here(*words: object) -> Finished:
    """The command in this process, which has imported torch already: for the many that fail at once."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # the last is not there on Windows
    handlers = {number: signal.getsignal(number) for number in numbers}
    argv, show = patch.object(sys, "argv", ["notbugs", *map(str, words)]), patch.object(warnings, "showwarning")
    with argv, show, redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return subprocess.CompletedProcess(list(map(str, words)), code, out.getvalue(), err.getvalue())


def error_line(done: Finished) -> str:
    """Exit code 2 and one line on standard error, which this returns."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("notbugs: ")
    return lines[0]
