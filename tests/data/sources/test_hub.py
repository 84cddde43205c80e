"""Names on the Hugging Face hub."""

from pathlib import Path

import pytest

from notbugs.data import sources


def test_cifar10_is_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    located: list[str] = []
    monkeypatch.setattr(sources, "locate_hub", located.append)
    monkeypatch.chdir(tmp_path)
    sources.locate("CIFAR10")
    (tmp_path / "CIFAR10/train/cat").mkdir(parents=True)
    assert located == ["uoft-cs/cifar10"]
    assert sources.locate("CIFAR10").form == "folder" and len(located) == 1  # a folder of that name comes first
