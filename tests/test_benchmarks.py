"""The benchmarks: results files have the form of the schema, every command explains itself, and documents print their figures."""

import itertools
import json
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import jsonschema
import numpy as np
import pytest
import torch
from report.conftest import (
    ACCURACIES,
    RATES,
    SWEEP,
    accuracy_row,
    accuracy_rows,
    consistency_rows,
    control_rows,
    made_study,
    targeted_rows,
    transfer_rows,
    wilson,
)

from notbugs import report
from notbugs.files.robustness import top_and_bottom
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import (
    CorruptionDifferenceRow,
    CorruptionRow,
    FourierRow,
    NTKAccuracyRow,
    SaliencyDifferenceRow,
    SaliencyRow,
)
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import SetRow
from notbugs.runs.tables.transferability import PerturbationLeakageRow, RobustFeatureLeakageRow
from notbugs.study.comparisons import LEAKAGE_PROBES

Load = Callable[[str], ModuleType]

REPOSITORY = Path(__file__).parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
DOCS = REPOSITORY / "docs" / "results"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
RUNS = sorted((BENCHMARKS / "results" / "studies").glob("*.json"))
VALIDATOR = jsonschema.Draft202012Validator(json.loads((BENCHMARKS / "schema.json").read_text()))
COMMANDS = (
    "allocator", "attacks", "autoattack", "cifar10", "cluster_faults", "data", "either_set", "estimate", "explorer", "faults",
    "files", "imagenet_plan", "inversion",
    "large_sets", "markdown_tables", "peers", "reference_library", "robust_data", "scaling", "study_results", "transfer_networks",
)  # fmt: skip
# Documents whose tables are printed from these files and parts of them (none: all), row by row
PRINTED: list[tuple[str, list[str], list[str]]] = [
    ("allocator.md", ["allocator.json"], []),
    ("wrong-labels.md", ["wrong-labels.json"], []),
    ("either-set.md", ["either-set.json"], []),
    ("autoattack.md", ["autoattack-seeds.json"], []),
    ("autoattack.md", ["autoattack-noise.json"], []),
    ("cifar10-8000-controls.md", ["transfer-networks.json", "transfer-networks-cpu.json"], []),
    ("attacks.md", ["attacks.json"], []),
    ("attacks.md", ["attacks-v4.json"], []),
    ("cifar10-full.md", ["cifar10-cpu-all.json"], ["study", "seconds"]),
    ("cifar10-full.md", ["cifar10-gpu.json"], ["study", "floor", "seconds"]),
    ("cifar10-full.md", ["cifar10-gpu-seed1.json"], ["study", "seconds"]),
    ("autoattack.md", ["autoattack-v6.json"], []),
    ("autoattack.md", ["autoattack-v5.json"], []),
    ("autoattack.md", ["autoattack-v5-vit.json"], []),
    ("autoattack.md", ["autoattack.json"], []),
    ("autoattack.md", ["autoattack-further.json"], []),
    ("autoattack.md", ["few-pixels.json"], []),
    ("data.md", ["data.json"], []),
    ("estimate.md", ["estimate.json"], []),
    ("explorer.md", ["explorer.json"], []),
    ("../reliability.md", ["faults.json"], []),
    ("../reliability.md", ["faults-busy.json"], []),
    ("../reliability.md", ["cluster-faults.json"], []),
    ("../scale.md", ["scaling.json"], []),
    ("../scale.md", ["large-sets.json"], []),
    ("../scale.md", ["large-sets-split.json"], []),
    ("files.md", ["files-digits.json", "files-cifar10.json", "files-planted.json", "files-mnist.json"], []),
    ("files.md", ["files-cifar10-label-errors.json"], []),
    ("files-combined-scores.md", ["files-candidates-cifar10.json"], []),
    ("files-combined-scores.md", ["files-candidates-digits.json"], []),
    ("files-combined-scores.md", ["files-candidates-digits-new.json"], []),
    ("files-combined-scores.md", ["files-candidates-photographs.json"], []),
    ("files-combined-scores.md", ["files-candidates-cifar10-new.json"], []),
    ("files-combined-scores.md", ["files-oracle.json"], []),
    ("files-combined-scores.md", ["files-robustness-digits.json"], []),
    ("files-combined-scores.md", ["files-robustness-cifar10.json"], []),
    ("files-subset-regression.md", ["files-regression-digits.json"], []),
    ("files-subset-regression.md", ["files-regression-cifar10.json"], []),
    ("files-subset-regression.md", ["files-regression-photographs.json"], []),
    ("inversion.md", ["inversion-cifar10.json", "inversion-digits.json"], []),
    ("peers.md", ["peers.json"], []),
    ("reference-library.md", ["reference-library-cpu.json"], []),
    ("reference-library.md", ["reference-library-gpu.json"], []),
    ("robust-data.md", ["robust-data-full.json"], []),
    ("robust-data.md", ["robust-data-test.json"], []),
    ("robust-data.md", ["robust-data-test-longer.json"], []),
    ("robust-data.md", ["robust-data-validation.json"], []),
    ("robust-data.md", ["robust-data-validation-first.json"], []),
    ("robust-data.md", ["robust-data-validation-longer.json"], []),
    ("robust-data.md", ["robust-data-validation-seeds.json"], []),
    ("replication.md", ["cifar10-cpu.json"], ["versions", "seconds"]),
    ("replication.md", ["cifar10-cpu-autoattack.json"], []),
    ("replication.md", ["cifar10-cpu-seeds.json"], ["study", "floor"]),
    ("replication.md", ["cifar10-cpu-floor.json"], ["floor"]),
    ("replication.md", ["cifar10-cpu-storage.json"], []),
    ("replication.md", ["cifar10-cpu-transfer.json"], ["study", "figure-3"]),
    ("replication.md", ["cifar10-cpu-variants.json"], []),
]


# The same of runs; a page words its findings itself
STUDY_PARTS = ["accuracy", "datasets", "controls", "transfer", "error-consistency", "replication"]
PRINTED_RUNS: list[tuple[str, str, list[str]]] = [
    ("digits.md", "digits.json", ["accuracy"]),
    ("digits-controls.md", "digits.json", STUDY_PARTS),
    ("analyses.md", "digits.json", ["analyses"]),
    ("analyses.md", "cifar10-8000.json", ["analyses"]),
    ("analyses.md", "cifar10-8000-half-width.json", ["analyses"]),
    ("mnist.md", "mnist.json", STUDY_PARTS),
    ("mnist.md", "mnist-seeds.json", STUDY_PARTS),
    ("mnist.md", "mnist-robust.json", [*STUDY_PARTS, "analyses"]),
    ("mnist.md", "mnist-robust-noise.json", ["accuracy"]),
    ("mnist.md", "mnist-robust-seeds.json", ["accuracy"]),
    ("synthetic.md", "planted.json", STUDY_PARTS),
    ("photographs.md", "photographs.json", ["accuracy", "datasets"]),
    ("photographs.md", "photographs-robust.json", ["accuracy", "datasets", "controls"]),
    ("photographs.md", "signs.json", ["accuracy", "datasets", "controls"]),
    ("cifar10-8000.md", "cifar10-8000.json", ["accuracy"]),  # of the other tables some lines: the next test
    ("cifar10-8000-controls.md", "cifar10-8000.json", STUDY_PARTS),
    ("theory.md", "theory.json", []),
]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a module of the benchmarks, which find each other by folder as their commands do."""
    commands = {path.stem for path in BENCHMARKS.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in commands & set(sys.modules)}  # folders of tests/ have the same names
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == BENCHMARKS:
            del sys.modules[name]
    sys.modules |= hidden


def table_lines(text: str) -> list[str]:
    """Rows of Markdown tables, headers included."""
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]


def headers(text: str) -> set[str]:
    """First rows of Markdown tables, without the values of epsilon."""
    lines = text.splitlines()
    first = [line for line, after in itertools.pairwise(lines) if after.startswith("|---")]
    return {re.sub(r" = [\d./]+", "", line) for line in first}


# ---- results files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_have_the_form_of_the_schema(path: Path) -> None:
    content = json.loads(path.read_text())
    VALIDATOR.validate(content)
    assert content["rows"] and (content["date"] or path.name.startswith("inversion"))


def test_the_schema_is_one_and_refuses_surprises() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    good = json.loads(RESULTS[0].read_text())
    for bad in (
        {**good, "surprise": 1},
        {**good, "rows": [{"model": "standard"}]},
        {**good, "rows": [{"part": "strength", "left": 3}]},
        {**good, "commit": None},
        {name: value for name, value in good.items() if name != "machine"},
    ):
        assert not VALIDATOR.is_valid(bad)


@pytest.mark.slow
def test_the_plan_of_imagenet_is_what_the_command_prints(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["imagenet_plan.py", "--price", "3", "--workers", "64"])
    load("imagenet_plan").main()
    text, printed = (DOCS.parent / "scale.md").read_text(), capsys.readouterr().out
    assert len(table_lines(printed)) == 18 and all(line in text for line in printed.splitlines())


def test_documents_name_results_files_that_exist() -> None:
    named = {
        name for path in DOCS.parent.rglob("*.md") for name in re.findall(r"benchmarks/results/([\w-]+\.json)", path.read_text())
    }
    assert named - {"NAME.json"} == {path.name for path in RESULTS}


# ---- the harness -------------------------------------------------------------------------------------------------------------


def test_a_results_file_is_resumed_row_by_row(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harness = load("harness")
    path = tmp_path / "new" / "results.json"
    rows = [{"model": "standard", "correct": number, "epsilon": 0.5} for number in range(3)]
    harness.measure(harness.ResultsFile(path), "strength", rows, {"images": 9})
    content = json.loads(path.read_text())
    VALIDATOR.validate(content)
    assert [row["correct"] for row in content["rows"]] == [0, 1, 2] and {row["part"] for row in content["rows"]} == {"strength"}
    assert content["parts"]["strength"]["arguments"] == {"images": 9}
    resumed = harness.ResultsFile(path)
    assert resumed.has(part="strength", correct=2) and not resumed.has(part="strength", correct=3)
    resumed.add({"part": "strength", "correct": 7}, key=("part",))
    assert [row["correct"] for row in json.loads(path.read_text())["rows"]] == [7]
    assert "strength  standard  0.5: correct=1" in capsys.readouterr().out
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


def test_an_unknown_column_is_an_error(load: Load, tmp_path: Path) -> None:
    results = load("harness").ResultsFile(tmp_path / "results.json")
    with pytest.raises(ValueError, match=r"schema\.json does not have: unknown"):
        results.add({"part": "strength", "unknown": 1})
    assert not (tmp_path / "results.json").exists()


def test_a_time_limit_stops_after_the_row_in_progress(load: Load) -> None:
    harness = load("harness")
    results, limit = harness.ResultsFile(None), harness.TimeLimit(1)
    assert not limit.over and not harness.TimeLimit(0).over
    limit.started -= 61
    harness.measure(results, "speed", [{"n": 1}, {"n": 2}], {}, limit=limit)
    assert [row["n"] for row in results.rows] == [1]


def test_arguments_are_recorded_as_json_holds_them(load: Load) -> None:
    options = Namespace(out=Path("a.json"), minutes=1.0, parts=["speed"], data=Path("b.npz"), images=3)
    assert load("harness").recorded_arguments(options) == {"data": "b.npz", "images": 3}


# ---- commands ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert f"python benchmarks/{name}.py" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_torch_and_no_other_tool(name: str, load: Load) -> None:
    before = set(sys.modules)
    parser = load(name).parser()
    new = {module.split(".")[0] for module in set(sys.modules) - before}
    assert not {"torchattacks", "foolbox", "cleanlab", "robustness", "art"} & new
    assert "usage" in parser.format_help()


# ---- tables ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("document", "files", "parts"), PRINTED)
def test_documents_have_the_rows_that_the_command_prints(document: str, files: list[str], parts: list[str], load: Load) -> None:
    contents = [json.loads((BENCHMARKS / "results" / name).read_text()) for name in files]
    printed = table_lines("\n\n".join(load("markdown_results").results_blocks(contents, parts)))
    written = set(table_lines((DOCS / document).read_text()))
    assert len(printed) > 2 and [line for line in printed if line not in written] == []


def test_the_table_of_autoattack_has_the_figures_of_its_file() -> None:
    """One row for each seed, and the mean of their last column."""
    rows = json.loads((BENCHMARKS / "results" / "robust-data-autoattack.json").read_text())["rows"]
    page, shares = (DOCS / "robust-data.md").read_text(), []
    for adversarial, trained in zip(rows[::2], rows[1::2], strict=True):
        seed, n = adversarial["model"].removeprefix("cifar13, ").removeprefix("adversarial, seed "), adversarial["n"]
        assert trained["model"].endswith(f"better D_R, seed {seed}") and trained["n"] == n
        counts = [row[name] for row in (adversarial, trained) for name in ("correct", "autoattack_correct")]
        shares.append(100 * counts[3] / counts[1])
        assert f"| {' | '.join(map(str, (seed, n, *counts)))} | {shares[-1]:.1f} |" in page
        assert not any(row[name] for row in (adversarial, trained) for name in ("only_ensemble", "only_autoattack"))
    assert len(shares) == 3 and f"standard training on D_R keeps {sum(shares) / 3:.1f} % over 3 seeds" in page


def test_every_results_file_is_compared_with_a_document() -> None:
    compared = {name for _, files, _ in PRINTED for name in files} | {"robust-data-autoattack.json"}
    assert {path.name for path in RESULTS} == compared


@pytest.mark.parametrize(("document", "file", "parts"), PRINTED_RUNS)
def test_documents_have_the_rows_that_the_command_prints_of_a_run(document: str, file: str, parts: list[str], load: Load) -> None:
    content, text = json.loads((BENCHMARKS / "results" / "studies" / file).read_text()), (DOCS / document).read_text()
    with load("study_results").unpacked(content) as folder:
        printed = table_lines("\n\n".join(load("markdown_run").run_blocks(folder, parts)))
    written = set(table_lines(text))
    assert len(printed) > 2 and [line for line in printed if line not in written] == []
    assert f"benchmarks/results/studies/{file}" in text and content["run"]["commit"][:7] in text
    assert content["run"]["finished"] or "not finished" in text.lower()


def test_every_table_of_the_page_of_8000_images_is_printed(load: Load) -> None:
    """Its tables leave out the controls, which have a page of their own; those of earlier runs stand under Cautions."""
    text = (DOCS / "cifar10-8000.md").read_text().partition("## Cautions")[0]
    content = json.loads((BENCHMARKS / "results" / "studies" / "cifar10-8000.json").read_text())
    with load("study_results").unpacked(content) as folder:
        printed = set(table_lines("\n\n".join(load("markdown_run").run_blocks(folder, []))))
    written = table_lines(text)
    assert len(written) > 20 and [line for line in written if line not in printed] == []


def test_every_file_of_a_run_says_where_it_was_measured_and_is_compared() -> None:
    assert {path.name for path in RUNS} == {file for _, file, _ in PRINTED_RUNS}
    for path in RUNS:
        text, run = path.read_text(), json.loads(path.read_text())["run"]
        assert "finished" in run
        assert all(run[name] for name in ("commit", "device", "machine", "versions", "started", "command"))
        assert not re.search(r"/(tmp|home|work|root|Users)\b", text)


def test_wrong_labels_are_ranked_and_permuted_among_the_wrong_classes(load: Load) -> None:
    module, generator = load("wrong_labels_subsets"), torch.Generator().manual_seed(0)
    scores, truth, labels = torch.rand(200, 5, generator=generator), *torch.randint(5, (2, 200), generator=generator)
    labels = torch.where(labels == truth, (truth + 1) % 5, labels)
    expected = []
    for row, true, label in zip(scores.tolist(), truth.tolist(), labels.tolist(), strict=True):
        order = sorted(set(range(5)) - {true}, key=lambda wrong: -row[wrong])
        expected.append(order.index(label) + 1)
    assert module.rank_among_wrong(scores, truth, labels).tolist() == expected
    other = module.permuted_wrong(labels, truth, generator)
    assert not (other == truth).any() and other.bincount().tolist() == labels.bincount().tolist()
    assert 0.05 < (other == labels).float().mean() < 0.5  # as often as by chance


def test_starting_images_are_others_each_once_and_of_the_same_class_where_asked(load: Load) -> None:
    labels = torch.randint(5, (60,), generator=torch.Generator().manual_seed(0))
    for same_class in (False, True):
        found = load("either_set").starts(labels, 3, same_class=same_class)
        assert found.sort().values.tolist() == list(range(60)) and not (found == torch.arange(60)).any()
        assert bool((labels[found] == labels).all()) == same_class


def test_rows_of_another_machine_are_not_measured_again_and_files_of_other_runs_are_refused(load: Load, tmp_path: Path) -> None:
    module, beside = load("transfer_networks"), tmp_path / "beside.json"
    part = {"transfer-networks": {"arguments": {"run": "runs/a"}}}
    beside.write_text(json.dumps({"parts": part, "rows": [{"network": "vgg", "width": 16, "seed": 0}]}))
    options = Namespace(run=Path("runs/a"), beside=beside, device="cpu")
    results = module.ResultsFile(None)
    found = module.missing(options, results, [0, 1])
    assert len(found) == 2 * len(module.NETWORKS) - 1 and ("vgg", 16, 0) not in found
    usual = [network for network, _, _ in found[: len(found) // 2]]
    assert {*usual} == {*module.USUAL_WIDTHS}  # those of the usual widths come first
    for run, file, says in (("runs/b", beside, "another file for runs/b"), ("runs/a", tmp_path / "no", "there is none")):
        with pytest.raises(SystemExit, match=says):
            module.missing(Namespace(run=Path(run), beside=file, device="cpu"), results, [0])


def test_data_sets_made_again_belong_to_one_run(load: Load, tmp_path: Path) -> None:
    module = load("transfer_networks")
    for name in "ab":
        with RunFolder.open(tmp_path / name, {"kind": "study", "width": name}) as run:
            run.update_metadata(fingerprint="0123-4567")
    for _ in range(2):
        module.check_remade(Namespace(run=tmp_path / "a", remake=tmp_path / "made"))
    with pytest.raises(SystemExit, match="is of another run"):
        module.check_remade(Namespace(run=tmp_path / "b", remake=tmp_path / "made"))


def test_halves_that_are_half_random_differ_half_as_much(load: Load) -> None:
    generator = np.random.default_rng(0)
    score, labels = generator.normal(size=4000), np.repeat([0, 1], 2000)
    gaps = []
    for rank in (score, load("files_candidates").half_random(score, labels)):
        upper, lower = (np.array(side) for side in top_and_bottom([str(label) for label in labels], rank.tolist(), 0.5))
        assert len(upper) == len(lower) == 2000 and not {*upper} & {*lower}
        gaps.append(score[upper].mean() - score[lower].mean())
    assert gaps[1] / gaps[0] == pytest.approx(0.5, abs=0.05)


def test_stratified_halves_are_equally_difficult(load: Load) -> None:
    generator = np.random.default_rng(0)
    labels, difficulty = np.repeat([0, 1, 2], 200), generator.normal(size=600)
    score = difficulty + 0.5 * generator.normal(size=600)
    rank = load("files_candidates").stratified(score, difficulty, labels)
    gaps = []
    for values in (score, rank):
        upper, lower = top_and_bottom([str(label) for label in labels], values.tolist(), 0.5)
        gaps.append(difficulty[upper].mean() - difficulty[lower].mean())
        assert score[upper].mean() > score[lower].mean() + 0.1
    assert gaps[0] > 1.2 and abs(gaps[1]) < 0.2 and 0 <= rank.min() <= rank.max() <= 1


def test_a_run_prints_the_same_from_its_folder_and_from_its_file(load: Load, tmp_path: Path) -> None:
    command = "notbugs run /home/me/photos --out /home/me/runs/a"

    def accuracies(seed: int) -> list[Row]:
        attacked = accuracy_row("adversarial", 10, 500, wilson(10, 500), seed, set="test-training-attack", epsilon=0.5)
        return [*accuracy_rows(ACCURACIES, seed), *attacked_rows(seed), attacked]

    rows = {"accuracy": accuracies, "sets": set_rows}
    made_study(tmp_path, 2, rows, n=500, command=command, finished=True)
    run = json.loads((tmp_path / "run.json").read_text())
    run |= {"dataset": "/home/me/photos", "arguments": {**run["arguments"], "dataset": "/home/me/photos"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    module, blocks = load("study_results"), load("markdown_run").run_blocks
    content = json.loads(json.dumps(module.packed(tmp_path)))
    table = content["tables"]["accuracy"]
    assert "test-training-attack" in {row[table["columns"].index("set")] for row in table["rows"]}  # a finding is of it
    assert content["run"]["dataset"] == content["run"]["arguments"]["dataset"] == "photos"
    with module.unpacked(content) as folder:
        first, *others = blocks(folder, [])
    assert others == blocks(tmp_path, [])[1:] and len(others) >= 2
    assert first.startswith("`notbugs run photos --out runs/a`:")
    made_study(tmp_path / "b", 1, rows, n=500, command=command, finished=False)
    with pytest.raises(SystemExit, match="must be finished"):
        module.packed(tmp_path / "b")
    part = json.loads(json.dumps(module.packed(tmp_path / "b", unfinished=True)))
    with module.unpacked(part) as folder:
        assert "**Not finished**" in blocks(folder, [])[0]


def test_a_run_on_several_devices_names_them(load: Load, tmp_path: Path) -> None:
    rows = {"accuracy": lambda seed: accuracy_rows(ACCURACIES, seed)}
    made_study(tmp_path, 1, rows, n=500, command="notbugs run a", finished=True)
    run = json.loads((tmp_path / "run.json").read_text())
    gpu = {"device": "cuda", "machine": "NVIDIA H200", "torch": "2.11.0"}
    cpu = {"device": "cpu", "machine": "AMD EPYC", "torch": "2.13.0"}
    done = {"state": "done", "seconds": 1.0, "rows": {}}
    marks = {"seed0/a": {**done, **gpu}, "seed0/b": {**done, **gpu}, "seed0/c": {**done, **cpu}}
    (tmp_path / "run.json").write_text(json.dumps({**run, "stages": {**run["stages"], **marks}}))
    wanted = "min on NVIDIA H200, cuda, torch 2.11.0 (2 stages); AMD EPYC, cpu, torch 2.13.0 (1 stage)."
    module, blocks = load("study_results"), load("markdown_run").run_blocks
    with module.unpacked(json.loads(json.dumps(module.packed(tmp_path)))) as folder:
        assert wanted in blocks(tmp_path, [])[0] and wanted in blocks(folder, [])[0]
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "NVIDIA H200, cuda, torch 2.11.0 (2 stages); AMD EPYC, cpu, torch 2.13.0 (1 stage)" in page


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_of_results_files_have_the_headers_of_the_documents(path: Path, load: Load) -> None:
    blocks = load("markdown_results").results_blocks([json.loads(path.read_text())], [])
    found, known = headers("\n\n".join(blocks)), headers("\n".join(each.read_text() for each in DOCS.parent.rglob("*.md")))
    partial = ("| column |", "| score | AUC", "| family | width | accuracy after D_det, %, seed")  # of one file each, not of two
    assert found and {each for each in found if not each.startswith(partial)} <= known
    assert blocks[0].endswith(".") and json.loads(path.read_text())["commit"] in blocks[0]


def test_figures_have_three_digits_and_counts_all_of_theirs(load: Load) -> None:
    figure = load("markdown_format").figure
    values = (None, "best", 7, 12345, 0.0, 0.00784, 12.34, 999.6, 1234.5, 136876.7, -1234.5)
    wanted = ["", "best", "7", "12,345", "0", "0.00784", "12.3", "1,000", "1,230", "137,000", "-1,230"]
    assert [figure(value) for value in values] == wanted


def test_parts_select_tables(load: Load) -> None:
    content = json.loads((BENCHMARKS / "results" / "cifar10-cpu.json").read_text())
    blocks = load("markdown_results").results_blocks([content], ["seconds"])
    assert len(blocks) == 3 and headers(blocks[2]) == {"| stage | seconds | share of the total |"}


def test_tables_of_a_run_have_the_headers_of_the_documents(load: Load, tmp_path: Path) -> None:
    made_study(
        tmp_path,
        2,
        {
            "accuracy": lambda seed: [*accuracy_rows(ACCURACIES, seed), *attacked_rows(seed)],
            "controls": lambda seed: control_rows(ACCURACIES, seed),
            "transfer": lambda seed: [*transfer_rows(RATES, seed), *targeted_rows(SWEEP, seed)],
            "error_consistency": consistency_rows,
            "sets": set_rows,
            "leakage": leakage_rows,
            "analyses": analysis_rows,
        },
        n=500,
        full=True,
        replicate=True,
        command="notbugs run digits --replicate",
    )
    blocks = load("markdown_run").run_blocks(tmp_path, [])
    text = "\n\n".join(blocks)
    found, known = headers(text), headers("\n".join(each.read_text() for each in DOCS.glob("*.md")))
    consistency = "| error consistency | standard | reinit-1 |"  # fewer models than in the documents
    assert {each for each in found if each != consistency} <= known and consistency in found and len(found) >= 17
    assert blocks[0].startswith("`notbugs run digits --replicate`: 90 training and 500 test images, L2 ε = 1.5, seeds 0, 1;")
    assert "| standard | 97.5 % " in text and "| robust | adversarial | 0.900 | 3.000 | 0.040 |" in text
    only = load("markdown_run").run_blocks(tmp_path, ["datasets"])
    assert len(only) == 2 and headers(only[1]) == {"| dataset | made from | target reached | mean L2 | feature error |"}


def test_a_run_that_has_measured_nothing_has_no_tables(load: Load, tmp_path: Path) -> None:
    made_study(tmp_path, 1, {}, n=500)
    blocks = load("markdown_run").run_blocks(tmp_path, [])
    assert len(blocks) == 1 and "Not finished" in blocks[0]


def attacked_rows(seed: int) -> list[Row]:
    """Robust accuracy of the main models, and D_det by the next class."""
    rows: list[Row] = [
        accuracy_row(model, 200 + seed, 500, wilson(200 + seed, 500), seed, epsilon=epsilon, attack="ensemble-standard v5")
        for model in ("standard", "adversarial", "trained-on-robust")
        for epsilon in (0.75, 1.5)
    ]
    return [*rows, accuracy_row("trained-on-next-labels", 100, 500, wilson(100, 500), seed, set="test-next")]


def set_rows(seed: int) -> list[Row]:
    return [
        SetRow(set="robust", seed=seed, n=90, made_from="adversarial", target_reached=0.9, mean_l2=3.0, feature_error=0.04,
               seconds=1.0),
        SetRow(set="nonrobust", seed=seed, n=90, made_from="standard", seconds=1.0),
    ]  # fmt: skip


def leakage_rows(seed: int) -> list[Row]:
    interval = {"ci_low": 0.4, "ci_high": 0.6}
    return [
        PerturbationLeakageRow(
            set="random-labels", seed=seed, correct=5, n=10, accuracy=0.5, **interval, chance=0.1,
            other_model_predicts_new_label=0.9, other_model_keeps_label=0.1,
        ),
        *(
            RobustFeatureLeakageRow(set="random-labels", model=name, seed=seed, features=3, correct=5, n=10, accuracy=0.5,
                                    **interval)
            for name in LEAKAGE_PROBES
        ),
    ]  # fmt: skip


def analysis_rows(seed: int) -> list[Row]:
    interval = {"ci_low": 0.1, "ci_high": 0.3}
    measures = ("alignment", "chance_alignment", "low_frequency_energy", "chance_low_frequency_energy", "deletion_gain")
    rows: list[Row] = [
        SaliencyRow(model="standard", method="gradient", measure=measure, seed=seed, value=0.2, **interval, n=9)
        for measure in measures
    ]
    rows += [
        SaliencyDifferenceRow(
            model="adversarial", other_model="standard", method="gradient", measure="alignment", seed=seed, value=0.2, **interval,
            n=9,
        ),
        CorruptionDifferenceRow(
            model="adversarial", other_model="standard", corruption="jpeg", seed=seed, value=0.2, **interval, n=9
        ),
        FourierRow(model="standard", seed=seed, cycles_down=1, cycles_across=0, amplitude=0.1, error_rate=0.5, n=9),
        NTKAccuracyRow(
            eigenvectors=10, seed=seed, norm="l2", epsilon=0.0, attack="none", correct=5, n=10, accuracy=0.5, **interval
        ),
    ]  # fmt: skip
    corruptions = ("clean", "noise", "blur", "fog", "contrast", "jpeg")
    return rows + [
        CorruptionRow(model="standard", seed=seed, corruption=name, severity=1, correct=5, n=10, accuracy=0.5, **interval)
        for name in corruptions
    ]


def test_the_licenses_of_all_dependencies_are_listed(load: Load) -> None:
    listed = re.findall(r"^\| ([\w-]+) \| \d[\w.+]* \| (\S.*) \|$", (REPOSITORY / "SECURITY.md").read_text(), re.MULTILINE)
    assert [name for name, _ in listed] == load("licenses").needed() and all(text != "not stated" for _, text in listed)
