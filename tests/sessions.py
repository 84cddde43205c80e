"""Python in a session of its own, and the processes of that session: what is left after it was killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def session(leader: int) -> list[int]:
    """The processes of a session that are no zombies."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # no glob: it looks at each, and fails at one that ends meanwhile
        try:
            state, _, _, number = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # ended meanwhile
            continue
        if int(number) == leader and state != "Z":
            found.append(int(pid))
    return found


def wait_until_empty(leader: int, seconds: float = 5.0) -> list[int]:
    """The processes of a session that are still there after some seconds; on a machine at rest they take milliseconds."""
    deadline = time.monotonic() + seconds
    while (left := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


@contextmanager
def python(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Python with the folders that tests import from; its session ends with the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, env=environment) as process:
        try:
            yield process
        finally:
            for pid in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def touch_and_sleep(path: str) -> None:
    """Creates a file and goes on for a minute."""
    Path(path).touch()
    time.sleep(60)
