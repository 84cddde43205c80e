"""What users say of a model's outputs is read in each of its forms, or refused."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from notbugs.models.output_names import OutputNames, class_map_text, read_class_map, read_classes

Raises = Callable[[str], AbstractContextManager[None]]
CAT_AND_DOG = (("cat", (281, "tabby")), ("dog", (151,)))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\n sea lion \nb,c\n\n", ("cat", "sea lion", "b,c")),
        ("\ufeffcat\r\ndog\r\n", ("cat", "dog")),
        ('["cat", "dog"]', ("cat", "dog")),
        ('{"0": "cat", "1": "dog"}', ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ('{"dog": 1, "cat": 0}', ("cat", "dog")),
        ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("n01440764, tench", "n01443537, goldfish")),
        ('{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}', ("cat", "dog")),
    ],
)
def test_names_of_outputs_in_each_form(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_classes(str(tmp_path / "names")) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\n\ndog\n", "whose line 2 is empty"),
        ('{"0": "cat", "2": "dog"}', "whose indices are not 0, 1, 2"),
        ('{"a": "cat"}', "must be a file with the names"),
        ("[1, 2]", "must be a file with the names"),
        ("[", "it is not JSON"),
        ('{"0": "cat", "0": "dog"}', "the name 0 stands twice"),
    ],
)
def test_names_that_are_unclear_are_refused(text: str, says: str, tmp_path: Path, raises_one_line: Raises) -> None:
    (tmp_path / "names").write_text(text)
    with raises_one_line(rf"^--classes: .*{says}"):
        read_classes(str(tmp_path / "names"))
    with raises_one_line(r"^--classes: .*No such file"):
        read_classes(str(tmp_path / "none"))


def test_class_maps_in_each_form(tmp_path: Path) -> None:
    assert read_class_map("cat=281 + tabby, dog=151") == (("cat", ("281", "tabby")), ("dog", ("151",)))
    (tmp_path / "m.json").write_text(json.dumps({"cat": [281, "tabby"], "dog": 151}))
    assert read_class_map(str(tmp_path / "m.json")) == CAT_AND_DOG
    for head in ("", "class,output\n", "Class,Output\n"):
        (tmp_path / "m.csv").write_text(f'{head}cat,281\n\n"a, b",7\ncat,tabby\n')
        assert read_class_map(str(tmp_path / "m.csv")) == (("cat", ("281", "tabby")), ("a, b", ("7",)))
    (tmp_path / "m.csv").write_text("output,class\n281,cat\n")
    assert read_class_map(str(tmp_path / "m.csv")) == (("cat", ("281",)),)


def test_class_maps_that_are_unclear_are_refused(tmp_path: Path, raises_one_line: Raises) -> None:
    for text in ("cat", "cat=", "cat=1+", "names.txt", str(tmp_path / "none.json"), ""):
        with raises_one_line("^--class-map: must say which outputs each class has"):
            read_class_map(text)
    with raises_one_line("^--class-map: must name each class once, got cat; several outputs of it: cat=281"):
        read_class_map("cat=1,cat=2")
    for content in ("[1]", '{"cat": true}', '{"cat": []}', '{"cat": [[1]]}', '{"cat": 1.5}', "{"):
        (tmp_path / "m.json").write_text(content)
        with raises_one_line("^--class-map: must say which outputs"):
            read_class_map(str(tmp_path / "m.json"))
    for content in ("cat,1,2\n", "cat\n", "cat,\n"):
        (tmp_path / "m.csv").write_text(content)
        with raises_one_line("^--class-map: must say which outputs .* with the row cat"):
            read_class_map(str(tmp_path / "m.csv"))


def test_a_map_as_text_is_read_again_and_what_was_said_has_a_digest(tmp_path: Path) -> None:
    text = class_map_text(["cat", "sea lion"], [[3, 4], [0]])
    assert read_class_map(text) == (("cat", ("3", "4")), ("sea lion", ("0",)))
    assert class_map_text(["a=b"], [[0]]) == class_map_text(["a,b"], [[0]]) == class_map_text([" a"], [[0]]) == ""
    assert OutputNames.read(None, None) == OutputNames() and OutputNames().digest == ""
    (tmp_path / "names").write_text("a\nb\n")
    first = OutputNames.read(str(tmp_path / "names"), "x=0")
    (tmp_path / "names").write_text("b\na\n")
    assert first.names == ("a", "b") and first.digest != OutputNames.read(str(tmp_path / "names"), "x=0").digest
