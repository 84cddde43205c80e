"""Python in a session of its own, and the processes of that session: what is left after it was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path


def session(leader: int) -> list[int]:
    """The processes of a session that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # ended meanwhile
            continue
        if int(number) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until_empty(leader: int, seconds: float = 5.0) -> list[int]:
    """The processes of a session that are still there after some seconds; on a machine at rest they take milliseconds."""
    deadline = time.monotonic() + seconds
    while (left := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Starts it, with the folders that tests import from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )


def touch_and_sleep(path: str) -> None:
    """Creates a file and goes on for a minute."""
    Path(path).touch()
    time.sleep(60)
