"""The fields that say which data set, and how it is read, are those of `DataConfig`, wherever they may be given."""

import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from notbugs import api
from notbugs.cli import options
from notbugs.data_config import DATA_FIELDS, DataConfig, DataOptions, check_outside
from notbugs.errors import InputError
from notbugs.study.config import StudyConfig, StudyOptions

TYPES = {name: kind for name, kind in get_type_hints(DataConfig).items() if name != "dataset"}


def test_keyword_arguments_are_the_fields() -> None:
    assert get_type_hints(DataOptions) == TYPES and {*DATA_FIELDS} == {*TYPES}
    assert [field.name for field in fields(DataConfig)] == ["dataset", *DATA_FIELDS]


def test_keyword_arguments_of_a_study_are_its_settings() -> None:
    parameters = {*inspect.signature(api.study).parameters} - {"out", "workers", "progress", "options"}
    settings, further = get_type_hints(StudyConfig), get_type_hints(StudyOptions)
    assert not parameters & {*further} and parameters | {*further} == {*settings}
    assert all(settings[name] == kind for name, kind in further.items())


def test_options_of_commands_are_the_fields() -> None:
    @options.with_data_options
    def command(dataset: str, data_options: options.DataOptions = options.NO_OPTIONS, seed: int = 0) -> None:
        given.append(data_options)

    given: list[Mapping[str, object]] = []
    found = dict(inspect.signature(command).parameters)
    assert {*found} == {"dataset", *TYPES, "seed"}
    for name, kind in TYPES.items():
        assert get_args(found[name].annotation)[0] == kind and found[name].default == getattr(DataConfig, name), name
    assert {*options.DATA_OPTIONS} == {*TYPES}, "no help for what is no field"
    command(dataset="digits", seed=0, **{**options.NO_OPTIONS, "limit": 5})
    assert given == [{**options.NO_OPTIONS, "limit": 5}] and DataConfig("digits", **given[0]).limit == 5  # type: ignore[arg-type]


def test_a_field_without_an_option_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(options.DATA_OPTIONS, "white")
    with pytest.raises(ValueError, match="'white' is not in list"):
        options.with_data_options(lambda data_options: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set with a linked folder, a linked way to it, and a table elsewhere."""
    for folder in ("images/train/cat", "elsewhere/dog", "tables"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tables/labels.csv").write_text("file,label\n")
    (tmp_path / "images/train/dog").symlink_to(tmp_path / "elsewhere/dog")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    return tmp_path


INSIDE, HOLDS, REPLACES = "or it becomes a part", "must not hold the data set", "or it replaces it"


@pytest.mark.parametrize(
    ("dataset", "given", "out", "error"),
    [
        ("images", {}, "images", INSIDE),
        ("images", {}, "images/train/runs/1", INSIDE),
        ("link", {}, "images/run", INSIDE),
        ("images", {}, "link/run", INSIDE),
        ("images", {}, "elsewhere/../images/run", INSIDE),
        ("images/train", {}, "images", HOLDS),
        ("images", {}, ".", HOLDS),
        ("images", {}, "elsewhere/dog/run", ""),
        ("images", {"follow_links": True}, "elsewhere/dog/run", INSIDE),
        ("images", {"follow_links": True}, "elsewhere", HOLDS),
        ("elsewhere", {"train": "{}/images"}, "images/run", INSIDE),
        ("images/train", {"test": "../../elsewhere"}, "elsewhere/run", INSIDE),
        ("images", {"labels": "{}/tables/labels.csv"}, "tables", HOLDS),
        ("images", {"labels": "{}/tables/labels.csv"}, "tables/labels.csv", REPLACES),
        ("tables/labels.csv", {}, "tables/labels.csv", REPLACES),
        ("tables/labels.csv", {}, "tables/run", ""),
        ("images", {}, "images-2", ""),
        ("digits", {}, "digits", ""),
    ],
)
def test_an_output_never_lies_in_the_data_set_nor_holds_it(
    images: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, given: dict[str, object], out: str, error: str
) -> None:
    monkeypatch.chdir(images)
    options = {name: value.format(images) if isinstance(value, str) else value for name, value in given.items()}
    config = DataConfig(dataset, **options)  # type: ignore[arg-type]
    if not error:
        check_outside(config, out)
        return
    with pytest.raises(InputError, match=error) as raised:
        check_outside(config, Path(out))
    assert raised.value.args[0] == "--out"


def test_an_output_is_in_the_data_set_by_another_mount_too(images: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root mounts")
    (images / "mounted").mkdir()
    check = "from notbugs.data_config import *; check_outside(DataConfig('images'), 'mounted/train/run')"
    words = ["unshare", "--mount", "sh", "-c", 'mount --bind images mounted && exec "$0" -c "$1"', sys.executable, check]
    done = subprocess.run(words, cwd=images, capture_output=True, text=True, check=False)
    assert "--out: must lie outside images, or it becomes a part of the data set" in done.stderr


def test_a_loop_of_links_ends(images: Path) -> None:
    (images / "images/train/cat/up").symlink_to(images / "images")
    check_outside(DataConfig(str(images / "images"), follow_links=True), images / "run")
