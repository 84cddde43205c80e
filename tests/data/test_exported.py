"""What was exported is read again; what was changed since then is refused. Round trips: `test_export`."""

from pathlib import Path

import pytest
from data.conftest import random_dataset

from notbugs import data
from notbugs.errors import InputError


def test_a_manifest_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    data.export(random_dataset(), tmp_path / "set", "folder", card="")
    path = tmp_path / "set/manifest.csv"
    path.write_text(path.read_text().replace("train/a/0.png", "train/../../x.png"))
    with pytest.raises(InputError, match="below train/"):
        data.load_part(tmp_path / "set", "folder")
    path.unlink()
    with pytest.raises(InputError, match=r"manifest.csv"):
        data.load_part(tmp_path / "set", "folder")
