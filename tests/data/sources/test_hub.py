"""Names on the Hugging Face hub."""

from pathlib import Path

import pytest
from data.conftest import random_image, save

from notbugs.data import DataConfig, sources


def test_cifar10_is_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    located: list[str] = []
    monkeypatch.setattr(sources, "locate_hub", lambda name, config: located.append(name))
    monkeypatch.chdir(tmp_path)
    sources.locate(DataConfig("CIFAR10"))
    save(random_image(0), tmp_path / "CIFAR10/train/cat/0.png")
    assert located == ["uoft-cs/cifar10"]
    assert sources.locate(DataConfig("CIFAR10")).form == "folder" and len(located) == 1  # a folder of that name comes first
