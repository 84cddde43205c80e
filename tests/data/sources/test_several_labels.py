"""Several labels of one image (multi-label): refused in every form that can hold them, with the reason and the way out."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from notbugs import data
from notbugs.errors import InputError

LABELS = [["cat"], ["dog"], ["cat", "dog"], ["dog", "cat"]] * 3
SAYS = r"several labels of one image \(multi-label\)"


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 20 * number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def parquet(path: Path, labels: pa.Array) -> Path:
    path.mkdir()
    images = pa.array([{"bytes": png(number), "path": None} for number in range(len(LABELS))])
    pq.write_table(pa.table({"image": images, "label": labels}), path / "train.parquet")
    return path


def shards(path: Path, ending: str, labels: list[str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(labels):
            for suffix, content in (("png", png(number)), (ending, label.encode())):
                entry = tarfile.TarInfo(f"{number:03d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError, match=SAYS) as raised:
        data.load(path)
    return str(raised.value)


def test_lists_and_joined_words_in_parquet(tmp_path: Path) -> None:
    lists = parquet(tmp_path / "lists", pa.array(LABELS))
    assert refused(lists).endswith("got ['cat', 'dog']; keep one label for each image")
    words = parquet(tmp_path / "words", pa.array(["|".join(label) for label in LABELS]))
    assert "got cat|dog, dog|cat; keep one label" in refused(words)
    assert len(data.load(words, label_column="label").train.classes) == 4  # each combination as a class, if that is asked for


def test_lists_and_joined_words_in_shards(tmp_path: Path) -> None:
    assert "got cat,dog, dog,cat; keep one" in refused(shards(tmp_path / "a.tar", "cls", [",".join(each) for each in LABELS]))
    assert "got ['cat', 'dog']" in refused(shards(tmp_path / "b.tar", "json", ['{"label": ["cat", "dog"]}'] * 8))


def test_classes_whose_names_have_several_words_are_none(tmp_path: Path) -> None:
    words = parquet(tmp_path / "words", pa.array(["sea lion", "sea", "lion, male"] * 4))
    assert data.load(words).train.classes == ("lion, male", "sea", "sea lion")
