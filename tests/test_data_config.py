"""The fields that say which data set, and how it is read, are those of `DataConfig`, wherever they may be given."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from notbugs.cli import options
from notbugs.data_config import DATA_FIELDS, DataConfig, DataOptions

TYPES = {name: kind for name, kind in get_type_hints(DataConfig).items() if name != "dataset"}


def test_keyword_arguments_are_the_fields() -> None:
    assert get_type_hints(DataOptions) == TYPES and {*DATA_FIELDS} == {*TYPES}
    assert [field.name for field in fields(DataConfig)] == ["dataset", *DATA_FIELDS]


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
