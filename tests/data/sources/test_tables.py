"""Hugging Face tables: parquet files and saved data sets."""

import io
from pathlib import Path

import numpy as np
from data.conftest import load_error, random_image, stored

from notbugs import data


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    random_image(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_columns_are_found_by_their_type_or_their_name(tmp_path: Path) -> None:
    import datasets

    cells = [{"bytes": png(i), "path": None} for i in range(10)]
    coarse, fine = datasets.ClassLabel(names=["x"]), datasets.ClassLabel(names=["p", "q"])
    kind = datasets.Features({"img": datasets.Image(), "coarse_label": coarse, "fine_label": fine})
    columns = {"img": cells, "coarse_label": [0] * 10, "fine_label": [0, 1] * 5}
    datasets.Dataset.from_dict(columns, features=kind).to_parquet(tmp_path / "cifar/train-00000-of-00001.parquet")
    loaded = data.load(str(tmp_path / "cifar"))
    assert loaded.train.classes == ("p", "q") and loaded.form == "parquet" and len(loaded.train) == 8
    table = datasets.Dataset.from_dict({"image": [cell["bytes"] for cell in cells], "label": ["no", "yes"] * 5})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "words")
    loaded = data.load(str(tmp_path / "words"))
    assert loaded.train.classes == ("no", "yes") and loaded.form == "saved" and len(loaded.test) == 10
    assert np.array_equal(stored(loaded.train)[3].permute(1, 2, 0).numpy(), np.asarray(random_image(3)))

    two = datasets.Features({"left": datasets.Image(), "right": datasets.Image(), "label": fine})
    columns = {"left": cells, "right": cells, "label": [0, 1] * 5}
    datasets.Dataset.from_dict(columns, features=two).to_parquet(tmp_path / "two.parquet")
    assert "left, right" in load_error(tmp_path / "two.parquet")
    hidden = {"image": [{"bytes": None, "path": "/etc/hostname"}] * 10, "label": [0, 1] * 5}
    one = datasets.Features({"image": datasets.Image(), "label": fine})
    datasets.Dataset.from_dict(hidden, features=one).to_parquet(tmp_path / "paths.parquet")
    assert "lacks the bytes" in load_error(tmp_path / "paths.parquet")
    damaged = {"image": [*cells[:9], {"bytes": b"x", "path": None}], "label": [0, 1] * 5}
    datasets.Dataset.from_dict(damaged, features=one).to_parquet(tmp_path / "damaged.parquet")
    assert "train row 9" in load_error(tmp_path / "damaged.parquet")
