"""The audit of one classifier: its tables against each other and against the model, going on after a stop, its page."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright
from torch import Tensor

from notbugs import attacks, audit, data, models, report
from notbugs.audit import AuditConfig
from notbugs.audit.evaluate import attack_batch
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall

WITHIN = ("l2:0.375", "l2:0.75", "linf:0.1", "l0:1", "spatial:10,0.5")


@pytest.fixture(scope="module")
def asked(robust: models.Model, digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> AuditConfig:
    path = tmp_path_factory.mktemp("models") / "robust.safetensors"
    models.save(robust, path, classes=list(digits.test.classes), training={"norm": "l2", "epsilon": 0.75})
    return AuditConfig(str(path), "digits", within=WITHIN, images=120)


@pytest.fixture(scope="module")
def done(asked: AuditConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return audit.run(asked, tmp_path_factory.mktemp("audit") / "run", workers=1)


@pytest.fixture(scope="module")
def part(asked: AuditConfig, digits: data.Splits) -> Dataset:
    return digits.test.select(torch.arange(120) * 450 // 120)


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["within"]: row for row in rows}


def test_the_verdicts_are_those_of_the_attacks(done: RunFolder, part: Dataset, robust: models.Model) -> None:
    rows = by_name(done.table("accuracy"))
    assert list(rows) == ["unchanged", "l2 0.375", "l2 0.75", "linf 0.1", "l0 1", "spatial 10,0.5"]
    images, labels = part.pixels(slice(None)), part.labels
    assert rows["unchanged"]["correct"] == int((robust(images).argmax(1) == labels).sum())
    for name, threat_model in (
        ("l2 0.375", NormBall("l2", 0.375)),
        ("l2 0.75", NormBall("l2", 0.75)),
        ("linf 0.1", NormBall("linf", 0.1)),
    ):
        alone = int((attacks.adaptive_ensemble(robust, images, labels, threat_model=threat_model).margins < 0).sum())
        assert alone - 2 <= rows[name]["correct"] <= alone  # the smallest changes are met first: they can only add
        assert rows[name]["correct"] <= rows[name]["left_by_smallest"] <= rows[name]["correct"] + 3
        assert rows[name]["n"] == 120
        assert rows[name]["low"] < rows[name]["accuracy"] < rows[name]["high"]
    assert rows["l2 0.75"]["correct"] < rows["l2 0.375"]["correct"] < rows["unchanged"]["correct"]


def test_files_come_in_the_sets_order_and_agree_with_the_verdicts(done: RunFolder, part: Dataset) -> None:
    files, rows = done.table("files"), by_name(done.table("accuracy"))
    assert [row["file"] for row in files] == list(part.names)
    assert [row["label"] for row in files] == [part.classes[label] for label in part.labels.tolist()]
    for name in list(rows)[1:]:
        assert sum(not row[f"fooled, {name}"] for row in files) == rows[name]["correct"]
    for row in files:
        assert (float(row["smallest_l2"]) == 0) == (row["read"] != row["label"])
        assert (float(row["smallest_l2"]) <= 0.375) == bool(row["fooled, l2 0.375"])
        assert float(row["smallest_l0"]) in (0, 1, float("inf"))


def test_the_curve_counts_the_smallest_changes(done: RunFolder) -> None:
    files, curve = done.table("files"), done.table("curve")
    for norm in ("l2", "linf", "l0"):
        rows = [row for row in curve if row["norm"] == norm]
        assert [row["correct"] for row in rows] == [
            sum(float(file[f"smallest_{norm}"]) > float(row["epsilon"]) for file in files) for row in rows
        ]
        counts = [int(row["correct"]) for row in rows]
        assert counts == sorted(counts, reverse=True)
        assert rows[0]["epsilon"] == 0
    assert counts[0] > 110


def test_classes_and_confusion_add_up(done: RunFolder) -> None:
    rows = by_name(done.table("accuracy"))
    for name, row in rows.items():
        classes = [each for each in done.table("classes") if each["within"] == name]
        confusion = [each for each in done.table("confusion") if each["within"] == name]
        assert sum(int(each["correct"]) for each in classes) == row["correct"]
        assert sum(int(each["n"]) for each in classes) == sum(int(each["count"]) for each in confusion) == 120
        assert sum(int(each["count"]) for each in confusion if each["read"] == each["label"]) == row["correct"]


def test_stored_images_are_in_8_bits_inside_the_ball_and_measured_as_stored(
    done: RunFolder, part: Dataset, robust: models.Model
) -> None:
    rows = by_name(done.table("accuracy"))
    for name, norm, radius in (("l2 0.75", "l2", 0.75), ("linf 0.1", "linf", 0.1), ("l0 1", "l0", 1)):
        folder = done.folder / "datasets" / ("attacked-" + name.replace(" ", "-"))
        stored = data.load_part(folder, "npz" if (folder / "data.npz").exists() else done.metadata["data"]["form"], "test")
        assert stored.names == part.names
        change = (stored.images[:].double() - part.images[:].double()) / 255
        assert float(NormBall(norm, 0).size(change).max()) <= radius * (1 + 1e-9)
        read = int((robust(stored.pixels(slice(None))).argmax(1) == part.labels).sum())
        assert read == rows[name]["correct_as_stored"]
        assert rows[name]["correct"] <= read <= rows[name]["correct"] + 1  # hardly any vanish by rounding
        assert "mislead" in (folder / "README.md").read_text()
    assert not (done.folder / "parts").exists()


def test_the_same_question_has_the_same_answer_and_workers_change_nothing(
    asked: AuditConfig, done: RunFolder, tmp_path: Path
) -> None:
    again = audit.run(asked, tmp_path / "again", workers=2)
    for name in ("accuracy", "curve", "files", "classes", "confusion", "checks"):
        assert again.table(name) == done.table(name), name


def test_checks_are_made_and_pass(done: RunFolder) -> None:
    rows = done.table("checks")
    assert len(rows) == 12
    assert {row["check"]: row["passed"] for row in rows if row["passed"] != "yes"} == {"transfer": "not made"}
    assert all(row["within"] == "linf 0.1" for row in rows)


def test_an_audit_that_was_stopped_goes_on(asked: AuditConfig, done: RunFolder, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def report_progress(stage: str, share: float, words: str) -> None:
        if stage == "part 2 of 2" and share == 0.0:
            raise StopError

    with pytest.raises(StopError):
        audit.run(asked, tmp_path / "run", workers=1, report_progress=report_progress)
    half = RunFolder.read(tmp_path / "run")
    assert half.done("part 1 of 2") and not half.metadata["finished"]
    assert report.write(half.folder).is_file()
    stages = []
    whole = audit.run(asked, tmp_path / "run", workers=1, report_progress=lambda stage, share, words: stages.append(stage))
    assert set(stages) == {"part 2 of 2", "checks"}
    assert whole.metadata["finished"] and whole.table("accuracy") == done.table("accuracy")
    with pytest.raises(InputError, match="--budget: must be as before"):
        audit.run(replace(asked, budget="quick"), tmp_path / "run")


def test_a_black_box_that_raises_half_way_names_its_file_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile_box.py").write_text(
        "import os\nimport numpy as np\n"
        "from sklearn.datasets import load_digits\nfrom sklearn.linear_model import LogisticRegression\n"
        "def model(classes):\n"
        "    pixels, labels = load_digits(return_X_y=True)\n"
        "    learner = LogisticRegression(max_iter=100).fit(pixels / 16, labels)\n"
        "    bad = np.load('bad.npy')\n"
        "    def answer(images):\n"
        "        rows = images.reshape(len(images), -1)\n"
        "        if os.path.exists('broken') and (np.abs(rows - bad).max(1) < 1e-6).any():\n"
        "            raise RuntimeError('sensor on fire')\n"
        "        return learner.decision_function(rows)\n"
        "    return answer\n"
    )
    monkeypatch.chdir(tmp_path)
    asked, test = (
        AuditConfig("fragile_box:model", "digits", within=("l0:1",), budget="quick", images=120),
        data.load("digits").test,
    )
    place = 111 * 450 // 120  # of the second part: parts take turns
    np.save("bad.npy", test.pixels([place]).flatten().numpy())
    (tmp_path / "broken").touch()
    with pytest.raises(InputError, match=rf"^{test.names[place]}: the model raised an error .*sensor on fire; mend it"):
        audit.run(asked, tmp_path / "run", workers=1)
    assert RunFolder.read(tmp_path / "run").done("part 1 of 2")
    (tmp_path / "broken").unlink()
    done = audit.run(asked, tmp_path / "run", workers=1)
    assert done.metadata["finished"] and not done.metadata["gradient"]
    rows = by_name(done.table("accuracy"))
    assert rows["l0 1"]["correct"] < rows["unchanged"]["correct"]
    assert "blind" in rows["l0 1"]["attack"]


BOX = """
import os
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
def model(classes):
    pixels, labels = load_digits(return_X_y=True)
    learner = LogisticRegression(max_iter=100).fit(pixels / 16, labels)
    bad = np.load('bad.npy')
    def answer(images):
        rows = images.reshape(len(images), -1)
        found = learner.decision_function(rows)
        met = np.abs(rows - bad).max(1) < 1e-6
        if met.any() and os.path.exists('raises'):
            raise KeyError('sensor')
        found[met & os.path.exists('nan')] = np.nan
        return found
    return answer
"""


@pytest.mark.parametrize(("flaw", "says"), [("raises", "KeyError"), ("nan", "must give finite logits")])
@pytest.mark.parametrize("place", [0, 42])  # the first, and one that neither the door nor the digest looks at
def test_a_black_box_that_fails_on_one_file_has_that_file_named(
    flaw: str, says: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"box_{flaw}_{place}.py").write_text(BOX)
    monkeypatch.chdir(tmp_path)
    test = data.load("digits").test
    number = place * 450 // 60
    np.save("bad.npy", test.pixels([number]).flatten().numpy())
    (tmp_path / flaw).touch()
    asked = AuditConfig(f"box_{flaw}_{place}:model", "digits", within=("l0:1",), budget="quick", images=60)
    with pytest.raises(InputError) as told:
        audit.run(asked, tmp_path / "run", workers=1)
    assert says in str(told.value)
    if place:  # at the door the first image stands for all
        assert str(told.value).startswith(test.names[number])


class Rounding(torch.nn.Module):
    """A model whose gradients are all zero, so that squares and walks decide."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images * 15).round() / 15)  # type: ignore[no-any-return]


def test_nothing_that_the_ensemble_finds_is_lost_to_rounding(robust: models.Model, part: Dataset) -> None:
    """Attacks end on the border of the ball, where a change measured again may lie a hair outside."""
    images, labels = part.pixels(slice(0, 60)), part.labels[:60]
    for threat_model in (NormBall("linf", 0.1), NormBall("l2", 0.5)):
        model = Rounding(robust).eval()
        verdict = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget="quick").margins >= 0
        sizes, reads, stored = attack_batch(model, images, labels, [threat_model], "quick")
        fooled = reads[:, 1, 2].bool()
        assert int((verdict & ~fooled).sum()) <= 1
        assert torch.equal(fooled, sizes[:, 0] <= threat_model.epsilon)
        assert int(verdict.sum()) > 10
        assert stored.shape == (60, 1, 1, 8, 8)


def test_another_model_under_the_same_name_is_another_audit(
    asked: AuditConfig, standard: models.Model, robust: models.Model, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    facts = {"classes": [str(number) for number in range(10)], "training": {"norm": "l2", "epsilon": 0.75}}
    short = replace(asked, model=str(path), within=("l2:0.5",), budget="quick", images=40)
    correct = []
    for number, model in enumerate((robust, standard)):
        models.save(model, path, **facts)
        rows = by_name(audit.run(short, tmp_path / f"run{number}", workers=1).table("accuracy"))
        correct.append(rows["l2 0.5"]["correct"])
    assert correct[0] > correct[1]
    with pytest.raises(InputError, match="models must be the same as when this audit began"):
        audit.run(short, tmp_path / "run0", workers=1)


def test_what_kinds_of_models_are_taken_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_models.py").write_text(
        "import threading, types, torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, k):\n"
        "        super().__init__(); torch.manual_seed(0); self.lock = threading.Lock(); self.layer = nn.Linear(64, k)\n"
        "    def forward(self, images): return types.SimpleNamespace(logits=self.layer(images.flatten(1)))\n"
        "def net(classes): return Net(classes)\n"
        "def many(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))\n"
        "def broken(classes): raise FileNotFoundError('no weights here')\n"
        "def strict(classes):\n"
        "    def answer(images):\n"
        "        assert 0 <= images.min() and images.max() <= 1\n"
        "        images *= 0.5\n"
        "        return images.reshape(len(images), -1)[:, 20:20 + classes]\n"
        "    return answer\n"
    )
    monkeypatch.chdir(tmp_path)
    run: dict[str, Any] = {"within": ("l2:0.5",), "budget": "quick", "images": 15}
    done = audit.run(AuditConfig("odd_models:net", "digits", **run), tmp_path / "net", workers=1)  # type: ignore[arg-type]
    assert done.metadata["gradient"] and done.metadata["finished"]
    strict = audit.run(AuditConfig("odd_models:strict", "digits", others=("odd_models:net", "odd_models:strict"), **run),  # type: ignore[arg-type]
                       tmp_path / "strict", workers=1)  # fmt: skip
    checks = {row["check"]: row["passed"] for row in strict.table("checks")}
    assert checks["pixel range"] == "not made" and checks["transfer"] in ("yes", "no")
    with pytest.raises(InputError, match="must have one output for each of the 10 classes of digits, got 1000"):
        audit.run(AuditConfig("odd_models:many", "digits", **run), tmp_path / "many")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"MODEL: odd_models:broken must be a function.* no weights here"):
        audit.run(AuditConfig("odd_models:broken", "digits", **run), tmp_path / "broken")  # type: ignore[arg-type]


def test_a_sample_that_does_not_fit_is_halved(asked: AuditConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from notbugs.attacks import sanity_checks
    from notbugs.audit import evaluate

    whole = sanity_checks.run_all

    def hungry(model: Any, images: Tensor, *rest: Any, **options: Any) -> Any:
        if len(images) > 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(model, images, *rest, **options)

    monkeypatch.setattr(sanity_checks, "run_all", hungry)
    rows = evaluate.run_checks(replace(asked, budget="quick", within=("l2:0.5",)), lambda *_: None)["checks"]
    assert {row["n"] for row in rows} == {25}


def test_radius_0_is_clean_accuracy_and_mistakes_stay_mistakes(asked: AuditConfig, tmp_path: Path) -> None:
    rows = audit.run(replace(asked, within=("l2:0", "linf:0"), images=30), tmp_path / "run", workers=1).table("accuracy")
    assert len({row["correct"] for row in rows}) == 1
    checks = {row["check"]: row["passed"] for row in RunFolder.read(tmp_path / "run").table("checks")}
    assert len(checks) == 12 and checks["repeatable"] == "yes" and checks["blind"] == "not made"


def test_what_is_allowed_follows_the_model_unless_told(asked: AuditConfig, tmp_path: Path) -> None:
    from notbugs.audit.config import threat_models

    assert [str(one) for one in threat_models(replace(asked, within=()))] == ["l2 0.375", "l2 0.75"]
    told = threat_models(replace(asked, within=("1", "linf:8/255", "l2:0.5", "0.5")))
    assert [str(one) for one in told] == ["l2 0.5", "l2 1", "linf 8/255"]
    for bad, says in (
        ("l2:8.1", "two images of this size"),
        ("linf:8", "for 8/255 pass 8/255"),
        ("l0:0.5", "whole number"),
        ("l2:x", "must be a number"),
        ("spatial:10,8", "must be below 8"),
        ("l2:-1", "0 or more"),
        ("l0:inf", "must be finite"),
    ):
        with pytest.raises(InputError, match=says):
            threat_models(replace(asked, within=(bad,)))
    words = Path(asked.model).with_suffix(".json")
    copy = tmp_path / "plain.safetensors"
    copy.write_bytes(Path(asked.model).read_bytes())
    copy.with_suffix(".json").write_text(json.dumps({"architecture": json.loads(words.read_text())["architecture"]}))
    with pytest.raises(InputError, match=r"^--epsilon: must be given"):
        audit.run(replace(asked, model=str(copy), within=()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_halves_the_batch_and_says_so() -> None:
    met: list[int] = []

    def hungry(images: Tensor, index: Tensor) -> Tensor:
        met.append(len(images))
        if len(images) > 30:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
        return index

    with pytest.warns(RuntimeWarning) as said:
        found = data.map_batches(hungry, torch.zeros(110, 1, 2, 2), batch_size=100)
    assert [str(one.message).split(" with ")[1] for one in said] == ["50 images at a time", "25 images at a time"]
    assert found.tolist() == list(range(110))
    assert met == [100, 50, 25, 25, 25, 25, 10]
    with pytest.raises(RuntimeError, match="allocate"):
        data.map_batches(lambda images, index: hungry(torch.zeros(99), index), torch.zeros(1, 1, 2, 2))


# ---- the page -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(done: RunFolder) -> Iterator[Any]:
    path = report.write(done.folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready=yes]")
        yield tab
        assert problems == []
        browser.close()


def test_the_page_shows_what_the_tables_hold(page: Any, done: RunFolder) -> None:
    text = page.inner_text("body")
    for row in done.table("accuracy"):
        assert f"{100 * float(row['accuracy']):.1f} %" in text
        assert f"{row['correct']} of 120" in text
    assert page.locator(".chart svg").count() == 2  # L2 and L-infinity; one pixel makes no curve
    assert page.locator("img").count() == 12 * (1 + 2 * 4)
    assert all(page.evaluate("[...document.images].map(image => image.naturalWidth > 0)"))
    assert "Not to be trusted" not in text
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1200, "height": 900})


def test_failed_checks_stand_first_and_strangers_names_do_nothing(done: RunFolder, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as run:
        run.update_metadata(
            **{**done.metadata, "asked": run.metadata["asked"], "stages": {}, "model": evil, "source": evil, "finished": False}
        )
        rows = done.table("checks")
        rows[0] = {**rows[0], "check": evil, "passed": "no", "seen": evil, "remedy": evil}
        pictures = [{**row, "file": evil, "label": evil, "read": evil} for row in done.table("pictures")]
        run.record_stage("all", 1.0, {"accuracy": done.table("accuracy"), "checks": rows, "files": done.table("files"),
                                "curve": done.table("curve"), "pictures": pictures})  # fmt: skip
    text = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert evil not in text
    assert text.index("Not to be trusted") < text.index("What it still reads")
    assert "This audit is not finished" in text
    with RunFolder.open(tmp_path / "none", {"kind": "audit"}) as run:
        run.update_metadata(kind="audit")
    assert report.write(tmp_path / "none").is_file()


def test_tables_are_plain_csv(done: RunFolder) -> None:
    with (done.folder / "tables" / "files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert list(rows[0])[:4] == ["number", "file", "label", "read"]
