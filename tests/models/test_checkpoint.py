"""Checkpoints: saved and loaded bit for bit; damaged and foreign files."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from notbugs import models

Raises = Callable[[str], AbstractContextManager[None]]
Build = Callable[..., models.Classifier]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(models.ARCHITECTURES))
def test_loaded_model_is_the_saved_one_bit_for_bit(
    name: str, tmp_path: Path, build_used: Build, random_images: Callable[..., Tensor]
) -> None:
    model, images = build_used(name, (3, 12, 20)), random_images((3, 12, 20))
    logits = model(images)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as after training
    path = tmp_path / "new folder" / "a model.v2.safetensors"
    models.save(model, path, classes=["a", "b", "c", "ü"], trained_on="original")
    loaded, metadata = models.load(path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["a model.v2.json", "a model.v2.safetensors"]
    assert metadata.classes == ("a", "b", "c", "ü")
    assert metadata.trained_on == "original"
    assert not loaded.training
    assert model.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(loaded(images), logits)


def test_failed_save_leaves_the_old_files(tmp_path: Path, build_used: Build, raises_one_line: Raises) -> None:
    path = tmp_path / "m.safetensors"
    models.save(build_used("small", (1, 8, 8)), path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        models.save(build_used("small", (1, 8, 8)), path, note=object())
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    (tmp_path / "file").write_text("")
    with raises_one_line(r"file/m.safetensors: cannot be written, got (Not a directory|File exists)"):
        models.save(build_used("small", (1, 8, 8)), tmp_path / "file" / "m.safetensors")


@pytest.fixture
def saved(tmp_path: Path, build_used: Build) -> Path:
    """A checkpoint."""
    path = tmp_path / "m.safetensors"
    models.save(build_used("small", (1, 8, 8)), path)
    return path


def test_missing_or_other_files_raise(saved: Path, raises_one_line: Raises) -> None:
    with raises_one_line(r"none.pt: no such model; there is no such file$"):
        models.load(saved.with_name("none.pt"))
    with raises_one_line(r"none.safetensors: no such model; give the .safetensors file"):
        models.load(saved.with_name("none.safetensors"))
    with raises_one_line("no such model"):
        models.load(saved.parent)
    torch.save({"a": torch.ones(2)}, saved.with_suffix(".pt"))
    rule = r"m.pt: must be a .safetensors file; pickles can run code and are not loaded, got .pt; save the weights with"
    with raises_one_line(rule):
        models.load(saved.with_suffix(".pt"))
    saved.with_suffix(".json").unlink()
    with raises_one_line(r"m.safetensors: needs m.json beside it"):
        models.load(saved)


def test_damaged_and_foreign_weights_raise(saved: Path, build_used: Build, raises_one_line: Raises) -> None:
    whole = saved.read_bytes()

    class Exploit:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (sys.exit, ("the pickle ran",))

    torch_file = saved.with_suffix(".pt")
    torch.save(build_used("small", (1, 8, 8)).state_dict(), torch_file)
    for content in (b"", whole[: len(whole) // 2], whole[:20], pickle.dumps(Exploit()), torch_file.read_bytes()):
        saved.write_bytes(content)
        with raises_one_line(r"m.safetensors: is damaged, or does not fit the network of m.json, got \w+"):
            models.load(saved)


def test_weights_of_another_network_raise(saved: Path, build_used: Build, raises_one_line: Raises) -> None:
    models.save(build_used("resnet9", (1, 8, 8)), saved.with_name("other.safetensors"))
    saved.write_bytes(saved.with_name("other.safetensors").read_bytes())
    with raises_one_line(r"m.safetensors: .*does not fit the network of m.json, got .*(Missing|size mismatch)"):
        models.load(saved)


ARCHITECTURE = {"name": "small", "shape": [1, 8, 8], "classes": 4, "width": 4, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    "description",
    [
        "", "{", "\x00\xff", "[]", "null", "3", "{}", '{"architecture": 3}', '{"architecture": {}}',
        '{"architecture": {"name": "x"}}',
        *(json.dumps({"architecture": ARCHITECTURE | change}) for change in (
            {"name": "alexnet"}, {"name": 3}, {"extra": 1}, {"classes": -1}, {"classes": "many"},
            {"classes": 10**15}, {"shape": []}, {"shape": "abc"}, {"shape": [1, -8, 8]}, {"mean": ["a"]},
            {"width": -3}, {"pretrained": True}, {"seed": 1}, {"classes": True}, {"classes": 4.0}, {"classes": [4]},
            {"shape": [1, 8]},
            {"shape": [1, 8, True]}, {"shape": {"a": 1}}, {"shape": [3, 10**6, 10**6]}, {"classes": 10**9}, {"mean": {}},
            {"std": "a"},
            {"layer": 3}, {"layer": "none"}, {"options": [1]}, {"name": "a\nb"}, {"width": "4"}, {"mean": [[0.5]]},
        )),
    ],
)  # fmt: skip
def test_description_of_no_network_raises(saved: Path, description: str, raises_one_line: Raises) -> None:
    saved.with_suffix(".json").write_bytes(description.encode("latin-1"))
    with raises_one_line(r"m.json: is not the description of a model that can be built, got .+"):
        models.load(saved)


@pytest.mark.parametrize("change", [{"width": 3000}, {"width": 10**6}, {"classes": 300}, {"name": "resnet50", "width": 4000}])
def test_a_network_is_compared_with_the_file_before_it_takes_memory(
    saved: Path, change: dict[str, object], raises_one_line: Raises, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.with_suffix(".json").write_text(json.dumps({"architecture": ARCHITECTURE | change}))
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *_, **__: pytest.fail("it was built"))
    with raises_one_line(r"m.safetensors: is damaged, or does not fit the network of m.json, got a size mismatch: |got Missing"):
        models.load(saved)


@pytest.mark.parametrize("name", [*models.ARCHITECTURES])
def test_all_of_a_network_is_in_its_file(name: str) -> None:
    """What is neither a parameter nor a buffer that is saved would be lost where a network is built without its values."""
    with torch.device("meta"):
        model = models.build(name, shape=(3, 16, 16), classes=3, width=4)
    kept = {*model.state_dict()}
    assert {*dict(model.named_parameters()), *dict(model.named_buffers())} <= kept and all(
        value.is_meta for value in model.state_dict().values()
    )


def test_a_description_that_is_nested_without_end_or_too_long_raises(saved: Path, raises_one_line: Raises) -> None:
    saved.with_suffix(".json").write_text("[" * 100_000)
    with raises_one_line("m.json: is not the description of a model"):
        models.load(saved)
    with saved.with_suffix(".json").open("wb") as file:
        file.truncate(2**25)  # sparse: it takes no room
    with raises_one_line(r"m.json: must have at most 16,777,216 bytes"):
        models.load(saved)


def test_both_files_are_on_the_disk_before_they_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[list[str]]()
    monkeypatch.setattr(os, "fsync", lambda number: synced.append([path.suffix for path in tmp_path.iterdir()]))
    models.save(models.build("linear", shape=(1, 2, 2), classes=2), tmp_path / "m.safetensors")
    assert synced == 2 * [[".part", ".part"]] and {path.name for path in tmp_path.iterdir()} == {"m.safetensors", "m.json"}


def test_both_files_may_be_read_by_those_whom_the_umask_lets(tmp_path: Path, build_used: Build) -> None:
    before = os.umask(0o027)
    try:
        models.save(build_used("linear", (1, 8, 8)), tmp_path / "net.safetensors")
    finally:
        os.umask(before)
    assert {path.suffix: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {".json": 0o640, ".safetensors": 0o640}
