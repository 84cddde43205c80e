"""Code that loads exported data sets: what needs no other library is run, the rest compiled (test_readers.py runs it)."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import FORMS, random_dataset, random_image, save, stored

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
    whole, folder = random_dataset(12, channels), tmp_path / "it's \\ a [first]* set"
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


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_for_shards_loads_all_images_with_their_labels(tmp_path: Path, channels: int) -> None:
    whole, folder = random_dataset(12, channels), tmp_path / "set"
    data.export(whole, folder, "webdataset", card="x")
    found = snippets(folder, "webdataset", whole.shape)
    assert code_in((folder / "README.md").read_text()) == list(found.values()) and "WebDataset" in found
    expected = pairs(stored(whole).permute(0, 2, 3, 1).squeeze(-1).numpy(), whole.labels)
    rows = run(found["Hugging Face datasets"])["data"]
    assert pairs([np.asarray(row["image"]) for row in rows], rows["label"]) == expected
    arrays = run(found["Keras"])
    images = (arrays["images"] * 255).round()
    assert pairs(images.squeeze(-1) if channels == 1 else images, arrays["labels"]) == expected
    compile(found["WebDataset"], "webdataset", "exec")
    assert [*snippets(folder, "webdataset", whole.shape, suffixes=("jpg", "png"))] == ["WebDataset"]


def test_webdataset_is_told_of_gray_images(tmp_path: Path) -> None:
    """Its decoder `pil` makes them RGB."""
    assert ".decode('pill')" in snippets(tmp_path, "webdataset", (1, 8, 8))["WebDataset"]
    assert ".decode('pil')" in snippets(tmp_path, "webdataset", (3, 8, 8))["WebDataset"]


@pytest.mark.slow
def test_the_code_for_unchanged_files_makes_them_one_size_and_mode(tmp_path: Path) -> None:
    for index, (size, mode) in enumerate([((9, 7), "RGB"), ((5, 6), "L")] * 4):
        save(random_image(index, mode, size), tmp_path / "set" / "ab"[index // 4] / f"{index}.png")
    config = data.DataConfig(str(tmp_path / "set"), resize=8)
    part = data.load_dataset(config).train
    found = data.originals(config, part, "parquet")
    data.export(found.dataset, tmp_path / "out", "parquet", card="x", encoded=found.encoded)
    code = snippets(tmp_path / "out", "parquet", part.shape, unchanged=True)
    assert code_in((tmp_path / "out/README.md").read_text()) == list(code.values())
    (batch,) = [*run(code["PyTorch"])["loader"]]
    assert batch["image"].shape == (len(part), 3, 8, 8) and run(code["Keras"])["images"].shape == (len(part), 8, 8, 3)
    folder = snippets(tmp_path / "out", "folder", part.shape, unchanged=True)
    assert (
        "transforms.Resize((8, 8))" in folder["torchvision"] and "Resize((8, 8), method=ResizeMethod.Squish)" in folder["fastai"]
    )


def test_the_report_shows_the_code_of_the_card(tmp_path: Path) -> None:
    """Also where classes are not sorted by name, have other folders, or are empty."""
    from notbugs.report.use import use
    from notbugs.runs.folder import RunFolder

    whole = random_dataset(6, 3, ("2", "10", "a/b")).with_labels(torch.arange(6) % 2)
    with RunFolder.open(tmp_path / "run", {"kind": "study"}) as record:
        record.update_metadata(data={"form": "folder", "shape": [3, 4, 5], "classes": [*whole.classes]})
    data.export(whole, tmp_path / "run/datasets/robust", "folder", card="x")
    shown = use(RunFolder.read(tmp_path / "run"))
    assert shown is not None and "classes = ['2', '10', 'a_b']" in shown.code["Keras"]
    assert [*shown.code.values()] == code_in((tmp_path / "run/datasets/robust/README.md").read_text())
