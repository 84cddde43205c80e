"""Code that loads exported data sets: what can be run here is run, the rest is compiled; all of it is in the card."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import FORMS, random_dataset, stored

from notbugs import data
from notbugs.snippets import snippets


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "<snippet>", "exec"), names)
    return names


def code_in(card: str) -> list[str]:
    return [part.split("\n```")[0] for part in card.split("```python\n")[1:]]


def pairs(images: Any, labels: Any) -> set[tuple[bytes, int]]:
    return {
        (np.ascontiguousarray(image, dtype=np.uint8).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_the_code_in_the_card_loads_all_images_with_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, channels: int
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    whole, folder = random_dataset(12, channels), tmp_path / "it's \\ a set"
    data.export(whole, folder, form, card="x")
    found = snippets(folder, form, whole.shape)
    assert code_in((folder / "README.md").read_text()) == list(found.values())
    for code in found.values():
        ast.parse(code)
    expected = pairs(stored(whole).permute(0, 2, 3, 1).squeeze(-1).numpy(), whole.labels)
    rows = run(found["Hugging Face datasets"])["data"]
    assert tuple(rows.features["label"].names) == whole.classes
    assert pairs([np.asarray(row["image"]) for row in rows], rows["label"]) == expected
    if form == "folder":
        assert Path(run_until(found["torchvision"], "folder")).is_dir()
        return
    first, *others = zip(*[as_pair(batch) for batch in run(found["PyTorch"])["loader"]], strict=True)
    images, labels = torch.cat(first), torch.cat(others[0])
    assert images.shape == (12, *whole.shape)
    images = images if form in ("parquet", "saved") else images * 255
    assert pairs(images.round().permute(0, 2, 3, 1).squeeze(-1).numpy(), labels) == expected
    arrays = run(found["Keras"])
    assert arrays["images"].shape == (12, 4, 5, channels)
    assert (
        pairs(
            (arrays["images"] * 255).round().squeeze(-1) if channels == 1 else (arrays["images"] * 255).round(), arrays["labels"]
        )
        == expected
    )


def as_pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return (batch["image"], batch["label"]) if isinstance(batch, dict) else tuple(batch)


def run_until(code: str, name: str) -> Any:
    """The value of the first assignment to a name, without running what stands around it."""
    line = next(line for line in code.splitlines() if line.startswith(f"{name} = "))
    return ast.literal_eval(line.partition(" = ")[2])


def test_all_libraries_have_valid_code_for_every_form(tmp_path: Path) -> None:
    for form in FORMS:
        for channels in (1, 3):
            found = snippets(tmp_path / 'a "set"', form, (channels, 8, 8), split="test")
            assert {"Hugging Face datasets", "Keras", "fastai"} < set(found) and len(found) == 4 + (form == "folder")
            for library, code in found.items():
                compile(code, library, "exec")
                assert max(map(len, code.splitlines())) < 110 + len(str(tmp_path))
    assert snippets(tmp_path, "zip", (1, 8, 8)) == {} == snippets(tmp_path, "folder", (8,))


def test_torchvision_is_told_of_a_class_without_images(tmp_path: Path) -> None:
    whole = random_dataset(6, 3).with_labels(torch.zeros(6, dtype=torch.int64))
    data.export(whole, tmp_path / "one", "folder", card="x")
    assert "allow_empty=True" in (tmp_path / "one/README.md").read_text()
    data.export(random_dataset(6, 3), tmp_path / "two", "folder", card="x")
    assert "allow_empty" not in (tmp_path / "two/README.md").read_text()
