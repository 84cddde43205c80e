"""Which source of notbugs runs: a commit, where that is known."""

import json
import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
SECONDS = 10  # for git, at most


class Source(NamedTuple):
    """The source of this package.

    Attributes
    ----------
    commit : str
        It ends in -dirty if files of the package were changed since. "" if not known, as for a wheel.
    date : str
        Of the commit, YYYY-MM-DD; "" if not known.
    """

    commit: str = ""
    date: str = ""


@cache
def source() -> Source:
    """The commit of the checkout that this package lies in, or that pip installed it from."""
    if (PACKAGE.parent / ".git").exists():
        return _of_checkout()
    try:
        installed = json.loads(metadata.distribution("notbugs").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return Source()
    return Source(str(installed.get("vcs_info", {}).get("commit_id", ""))[:12])


def _of_checkout() -> Source:
    try:
        commit, date = _git("show", "--no-patch", "--format=%h %cs", "--abbrev=12", "HEAD").split()
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", str(PACKAGE))
    except (OSError, ValueError, subprocess.SubprocessError):  # no git, a checkout of another user
        return Source()
    return Source(f"{commit}-dirty" if changed else commit, date)


def _git(*words: str) -> str:
    """What git prints. Without GIT_DIR and the like, which name another repository while its hooks run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(PACKAGE), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS, env=environment)
    return done.stdout.strip()
