"""Configurations from options, and lines of text."""

import pytest

from notbugs.cli import console
from notbugs.data import DataConfig
from notbugs.errors import InputError


def test_a_study_has_its_options_and_no_others() -> None:
    config = console.study_config({"dataset": "digits", "device": "cpu", "epsilon": "8/255", "workers": 3, "versions": 2})
    assert (config.dataset, config.epsilon, config.versions, config.device) == ("digits", 8 / 255, 2, "cpu")
    assert config.relabel_epsilon is None and config.data == DataConfig("digits")
    with pytest.raises(InputError, match="--relabel-epsilon: must be a number, or a fraction like 8/255, got 'x'"):
        console.study_config({"dataset": "digits", "device": "cpu", "relabel_epsilon": "x"})


def test_an_audit_has_its_data() -> None:
    config = console.audit_config(
        "m.onnx", "digits", threats=["l2:0.5"], data_options={"limit": 80, "skip_unreadable": True}, device="cpu"
    )
    assert config.data == DataConfig("digits", None, 80, True)
    assert (config.model, config.threats, config.budget, config.others) == ("m.onnx", ("l2:0.5",), "quick", ())


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("8/255", 8 / 255), ("1e-2", 0.01), ("1/2", 0.5)])
def test_epsilon_may_be_a_fraction(text: str, value: float) -> None:
    assert console.parse_epsilon(text, "--epsilon") == value


@pytest.mark.parametrize("text", ["", "x", "8/0", "8/x", "1/2/3"])
def test_an_epsilon_that_is_no_number_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="--epsilon: must be a number, or a fraction like 8/255"):
        console.parse_epsilon(text, "--epsilon")


def test_numbers_have_commas_between_them() -> None:
    assert console.parse_numbers("25, 0.5", "--mean") == [25.0, 0.5]
    for text in ("", "1;2", "1,"):
        with pytest.raises(InputError, match="--mean: must be numbers with commas between them"):
            console.parse_numbers(text, "--mean")


def test_devices() -> None:
    assert console.parse_device("cpu") == "cpu" and console.parse_device("auto") in ("cpu", "cuda")
    with pytest.raises(InputError, match="--device: must be available on this machine, got cuda:99"):
        console.parse_device("cuda:99")
    assert console.parse_device("cuda:99", "scheduler.json") == "cpu"  # stages are done where there is one


def test_workers_are_1_or_more() -> None:
    console.How(None, None).check()
    console.How(1, None).check()
    with pytest.raises(InputError, match="--workers: must be 1 or more, got 0"), console.How(0, "no.json").engine():
        pass


def test_an_accuracy_has_interval_counts_and_attack() -> None:
    line = console.accuracy_line("l2 0.5", 0.42, 0.381, 0.4604, 189, 450, "ensemble-standard v6", 190)
    assert line == "l2 0.5          42.0 %  [38.1, 46.0]   189 of 450 (stored in 8 bits: 190)  ensemble-standard v6"
    assert console.accuracy_line("clean", 1, 0.9, 1, 9, 9, "none").endswith("[90.0, 100.0]  9 of 9  none")
    assert console.percent(0.42, 0.381, 0.4604) == "42.0 [38.1, 46.0]"


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("Accuracy [95 % CI]", ["model", "clean"], [["[bold]a", "42.0 % [38.1, 46.0]"]])
    text = capsys.readouterr().out
    assert "Accuracy [95 % CI]" in text and "[bold]a" in text and "42.0 % [38.1, 46.0]" in text


@pytest.mark.parametrize("name", ["a\\[/b]", "a\\[red]b", "[/]", "\\"])
def test_a_table_shows_names_with_backslashes_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    console.print_table("title", [name], [[name]])
    assert capsys.readouterr().out.count(name) == 2


def test_findings_are_questions_with_their_answers(capsys: pytest.CaptureFixture[str]) -> None:
    from notbugs.report.findings import Finding

    console.print_findings([Finding("Is it robust?", "not supported", "Robust accuracy 3 % [2, 4].")])
    assert capsys.readouterr().out == "Is it robust?\n  No, not measurably. Robust accuracy 3 % [2, 4].\n"


def test_no_line_ends_within_a_percentage_or_an_interval() -> None:
    text = "Clean accuracy 94.0 %, robust 16.0 % at L2 ε = 0.75 (95 % CI [−23.4, 56.8] over the test images)."
    for width in range(24, 90):
        lines = console.wrapped(text, width, first="- ")
        assert max(map(len, lines)) <= width and lines[0].startswith("- ") and all(line.startswith("  ") for line in lines[1:])
        assert " ".join(line[2:] for line in lines) == text
        for whole in ("94.0 %", "16.0 %", "ε = 0.75", "95 % CI", "[−23.4, 56.8]"):
            assert any(whole in line for line in lines), (width, whole)
