"""The commit that a run records: of a checkout, of what pip installed from git, or none."""

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from notbugs.runs import source as module
from notbugs.runs.source import Source, source


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package of one file, in place of this one."""
    package = tmp_path / "notbugs"
    package.mkdir()
    (package / "a.py").write_text("1\n")
    monkeypatch.setattr(module, "PACKAGE", package)
    monkeypatch.setattr(module, "source", source.__wrapped__)  # not the answer of another test
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True).stdout


def test_a_checkout_has_a_commit_and_says_if_the_package_differs_from_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "-q")
    (checkout / "README").write_text("1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "one", "--date", "2020-01-02T12:00:00Z")
    whole, date = git(checkout, "show", "-s", "--format=%H %cs").split()
    (checkout / "README").write_text("2\n")  # no part of the package
    (checkout / "notbugs" / "b.pyc").write_text("")
    found = module.source()
    assert whole.startswith(found.commit) and len(found.commit) == 12 and found.date == date
    monkeypatch.setenv("GIT_DIR", str(checkout / "elsewhere"))  # as the hooks of another repository have it
    assert module.source() == found
    (checkout / "notbugs" / "a.py").write_text("2\n")
    assert module.source() == Source(f"{found.commit}-dirty", date)


def test_without_a_commit_or_without_git_nothing_is_claimed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "-q")
    assert module.source() == Source()  # no commit yet
    monkeypatch.setenv("PATH", "")
    assert module.source() == Source()


@pytest.mark.parametrize(
    ("recorded", "commit"),
    [
        (json.dumps({"url": "https://a/b", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}), "0123456789ab"),
        (json.dumps({"url": "file:///a.whl", "archive_info": {}}), ""),
        (None, ""),
        ("{", ""),
    ],
)
def test_an_installed_package_has_the_commit_that_pip_recorded(
    recorded: str | None, commit: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            return recorded if name == "direct_url.json" else None

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert module.source() == Source(commit)
