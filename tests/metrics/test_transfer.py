"""One model's examples on others: made in the exact linear case, counted by hand with tables for models, and as a command."""

import csv
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from notbugs import data, models, predict, stats, train
from notbugs.audit import AuditConfig
from notbugs.audit import transfer as audit_transfer
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics import transfer
from notbugs.metrics.transfer import AdversarialExamples
from notbugs.models import black_box, sklearn_learners
from notbugs.search import NormBall

CLASSES = tuple("abcd")


def dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...] = CLASSES) -> Dataset:
    return Dataset(images.to(torch.uint8), labels.long(), classes, tuple(f"{number:04d}.png" for number in range(len(images))))


def numbered(first: int, n: int) -> Tensor:
    """n images whose every pixel is their number, from `first` on."""
    return torch.arange(first, first + n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).clone()


def table(answers: dict[int, int]) -> Any:
    """A model that looks up its answer by the number of an image."""

    def read(images: Tensor) -> Tensor:
        places = [answers[number] for number in (images[:, 0, 0, 0] * 255).round().int().tolist()]
        return F.one_hot(torch.tensor(places), len(CLASSES)).float()

    return read


# ---- examples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", [NormBall("l2", 1.0), NormBall("linf", 0.2)], ids=str)
def test_examples_are_what_they_say(threat_model: NormBall, standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 90))
    made = transfer.make_examples(standard, part, threat_model, steps=10, batch_size=40, seed=3)
    assert not bool((made.targets == part.labels).any())
    before = part.images[:].int()
    limit = threat_model.epsilon * 255
    for name in ("untargeted", "targeted"):
        change = (getattr(made, name).int() - before).flatten(1)
        assert float(change.square().sum(1).max() if threat_model.norm == "l2" else change.abs().max()) <= (
            limit**2 if threat_model.norm == "l2" else limit
        )
    assert made._fields[-4:] == ("read", *(f"read_{name}" for name in transfer.PERTURBATIONS))
    for name, read in zip(transfer.PERTURBATIONS, made[-3:], strict=True):
        images = part.with_images(getattr(made, name)).pixels(slice(None))
        assert torch.equal(standard(images).argmax(1), read)  # as stored
    assert torch.equal(standard(part.pixels(slice(None))).argmax(1), made.read)
    assert float((made.read_untargeted != part.labels).float().mean()) > 0.75
    assert float((made.read_targeted == made.targets).float().mean()) > 0.3
    ours, theirs = ((getattr(made, name).int() - before).flatten(1) for name in ("random", "untargeted"))
    room = theirs.abs().amax(1) <= 127  # a larger change may find none elsewhere
    assert int(room.sum()) > 20
    assert torch.equal(ours.abs().sort(1).values[room], theirs.abs().sort(1).values[room])
    assert not torch.equal(ours, theirs)
    assert float((standard(part.with_images(made.random).pixels(slice(None))).argmax(1) != part.labels).float().mean()) < 0.3


def test_examples_are_the_seeds_in_any_batches_and_leave_the_model_alone(digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 50))
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, two, other = (
        transfer.make_examples(model, part, NormBall("l2", 0.5), steps=2, seed=seed, batch_size=size)
        for seed, size in ((1, 250), (1, 20), (2, 250))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.targets, other.targets) and not torch.equal(one.random, other.random)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_examples_of_a_linear_model_are_the_steepest_change(norm: str) -> None:
    """Two classes, grey images: away from the label and towards the other class are the same way, which is known exactly.

    Pushed to the end, although a hundredth of the way would do.
    """
    generator = torch.Generator().manual_seed(0)
    model = models.build("linear", shape=(1, 4, 4), classes=2, mean=[0.0], std=[1.0])
    weights = torch.randn(2, 16, generator=generator)
    model.head.weight.data, model.head.bias.data = weights, torch.zeros(2)  # type: ignore[union-attr]
    way = weights[1] - weights[0]
    images = torch.randint(110, 146, (30, 1, 4, 4), generator=generator)
    labels = (images.float().flatten(1) @ way > 0).long()
    radius = 0.2 if norm == "l2" else 0.1
    made = transfer.make_examples(model, dataset(images, labels, ("a", "b")), NormBall(norm, radius), steps=10)
    steepest = way / way.norm() if norm == "l2" else way.sign()
    wanted = radius * 255 * (1 - 2 * labels)[:, None] * steepest
    for found in (made.untargeted, made.targeted):
        assert float(((found.int() - images).flatten(1) - wanted).abs().max()) <= 1.01  # rounded to 8 bits inside the ball
    assert torch.equal(made.read, labels) and torch.equal(made.targets, 1 - labels)


# ---- counting -----------------------------------------------------------------------------------------------------------


def test_transferred_by_hand() -> None:
    """Eight images. Both read 0 to 5 unchanged; the source misreads 6, the target 7."""
    n, labels = 8, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    made = AdversarialExamples(
        numbered(50, n),
        numbered(100, n),
        numbered(150, n),
        torch.tensor([1, 2, 3, 0, 2, 3, 0, 1]),
        torch.tensor([0, 1, 2, 3, 0, 1, 0, 3]),  # what the source reads unchanged
        torch.tensor([1, 2, 3, 3, 1, 2, 0, 0]),  # untargeted: it keeps 3
        torch.tensor([1, 2, 3, 0, 0, 2, 0, 1]),  # targeted: it gets there with 0 to 3
        torch.tensor([0, 2, 2, 0, 0, 3, 2, 3]),  # random: it misreads 1, 3 and 5
    )
    calm = [0, 1, 2, 3, 0, 1, 2, 0]
    away = [1, 3, 2, 1, 1, 2, 0, 0]  # same, other, unfooled, other (the source still reads it), same, same
    towards = [1, 2, 2, 1, 2, 2, 0, 1]  # there, there, unfooled, other, there (though the source is not), other
    random = [0, 3, 2, 3, 0, 3, 0, 1]  # unfooled but for: other (the source errs another way), same
    answers = {50 * step + i: said for step, column in enumerate((calm, away, towards, random)) for i, said in enumerate(column)}
    rows = transfer.transfer_rates(made, dataset(numbered(0, n), labels), table(answers))

    def row(change: str, unfooled: int, same: int, other: int, hits: int, source: float) -> dict[str, Any]:
        low, high = stats.wilson_interval(hits, 6)
        counts = {"change": change, "n": 6, "unfooled": unfooled, "same": same, "other": other}
        return counts | {"rate": hits / 6, "low": low, "high": high, "source_rate": pytest.approx(source), "clean": 7 / 8}

    assert rows == [
        row("untargeted", 1, 3, 2, 5, 5 / 6),
        row("targeted", 1, 3, 2, 3, 4 / 6),
        row("random", 4, 1, 1, 2, 3 / 6),
    ]


@given(st.integers(1, 25), st.integers(0, 10**6))
def test_transferred_against_brute_force(n: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    labels, targets = chance.integers(0, 4, n), chance.integers(0, 4, n)
    targets = np.where(targets == labels, (labels + 1) % 4, targets)
    often = lambda: np.where(chance.random(n) < 0.6, labels, chance.integers(0, 4, n))  # noqa: E731
    read, away, towards, noisy = often(), often(), often(), often()
    answers = {50 * step + image: int(said) for step in range(4) for image, said in enumerate(often())}
    columns = [torch.from_numpy(column).long() for column in (targets, read, away, towards, noisy)]
    made = AdversarialExamples(numbered(50, n), numbered(100, n), numbered(150, n), *columns)
    rows = transfer.transfer_rates(made, dataset(numbered(0, n), torch.from_numpy(labels)), table(answers))
    both = [i for i in range(n) if answers[i] == labels[i] == read[i]]
    for row, step, wanted in zip(rows, (1, 2, 3), (away, targets, noisy), strict=True):
        says = {i: answers[50 * step + i] for i in both}
        fooled = [i for i in both if says[i] != labels[i]]
        same = [i for i in fooled if says[i] == wanted[i]]
        assert (row["n"], row["same"], row["unfooled"]) == (len(both), len(same), len(both) - len(fooled))
        assert row["unfooled"] + row["same"] + row["other"] == row["n"]
        hits = len(same) if row["change"] == "targeted" else len(fooled)
        assert row["rate"] == (hits / len(both) if both else "")
        assert (row["low"], row["high"]) == (stats.wilson_interval(hits, len(both)) if both else (0, 1))
        own = {1: away != labels, 2: towards == targets, 3: noisy != labels}[step][both]
        assert row["source_rate"] == (pytest.approx(own.mean()) if both else "")
        assert row["clean"] == pytest.approx(np.mean([answers[i] == labels[i] for i in range(n)]))


def test_a_model_is_hit_by_its_own_examples_as_often_as_it_says(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 60))
    made = transfer.make_examples(standard, part, NormBall("l2", 0.75), steps=5)
    away, towards, random = transfer.transfer_rates(made, part, standard)
    assert away["rate"] == pytest.approx(away["source_rate"]) and away["other"] == 0
    assert towards["rate"] == pytest.approx(towards["source_rate"]) and 0 < towards["rate"] < 1
    assert random["rate"] == pytest.approx(random["source_rate"]) and random["other"] == 0
    assert random["rate"] < away["rate"]


def test_answers_of_networks_functions_and_black_boxes_are_the_same(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 30))
    wanted = standard(part.pixels(slice(None))).argmax(1)

    class Hidden(nn.Module):  # as a user's own network may answer
        def forward(self, images: Tensor) -> Any:
            return SimpleNamespace(logits=standard(images))

    box = black_box.BlackBox(lambda images: standard(torch.from_numpy(images)), part.classes)
    for model in (standard, lambda images: standard(images), box, Hidden()):
        assert torch.equal(predict.predict(model, part), wanted)


def test_a_source_may_answer_with_an_object(standard: models.Model, digits: data.Splits) -> None:
    class Hidden(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return SimpleNamespace(logits=standard(images))

    part = digits.test.select(slice(0, 5))
    assert torch.equal(transfer.make_examples(Hidden(), part, NormBall("l2", 0.5), steps=1).read, predict.predict(standard, part))


# ---- learners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(sklearn_learners.LEARNERS))
def test_learners_learn_and_are_the_seeds(name: str, digits: data.Splits) -> None:
    few = digits.train.select(slice(0, 400 if name in ("boosting", "random-forest") else None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner = sklearn_learners.fit_learner(name, few, seed=1)
    answers = predict.predict(learner, digits.test)
    assert float((answers == digits.test.labels).float().mean()) > (0.85 if name == "boosting" else 0.9)
    if name not in ("boosting", "random-forest"):
        assert torch.equal(predict.predict(sklearn_learners.fit_learner(name, few, seed=1), digits.test), answers)


def test_the_seed_decides_what_chance_decides_in_a_learner(digits: data.Splits) -> None:
    few = digits.train.select(slice(0, 100))
    some = digits.test.select(slice(0, 100)).pixels(slice(None))
    one, two, other = (sklearn_learners.fit_learner("random-forest", few, seed=seed)(some) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_learner_that_never_saw_a_class_never_says_it(digits: data.Splits) -> None:
    few = digits.train.select((digits.train.labels != 3).nonzero().squeeze(1)[:200])
    for name in ("logistic-regression", "nearest-neighbors", "linear-svm"):
        logits = sklearn_learners.fit_learner(name, few)(digits.test.select(slice(0, 60)).pixels(slice(None)))
        assert logits.shape == (60, 10) and not bool((logits.argmax(1) == 3).any())


def test_two_classes_will_do(digits: data.Splits) -> None:
    two = digits.train.select((digits.train.labels < 2).nonzero().squeeze(1)[:80])
    part = Dataset(two.images, two.labels, ("0", "1"), two.names)
    for name in ("logistic-regression", "rbf-svm", "linear-svm"):
        assert float((predict.predict(sklearn_learners.fit_learner(name, part), part) == part.labels).float().mean()) == 1


def test_an_unknown_learner_is_refused(digits: data.Splits) -> None:
    rule = r"^learner: must be one of logistic-regression, .*, nearest-neighbors, got 'perceptron'$"
    with pytest.raises(InputError, match=rule):
        sklearn_learners.fit_learner("perceptron", digits.train)


def test_one_class_is_refused_by_every_learner(digits: data.Splits) -> None:
    part = digits.train.select((digits.train.labels == 3).nonzero().squeeze(1)[:20])
    for name in sklearn_learners.LEARNERS:
        with pytest.raises(InputError, match=r"^data: must have images of two classes or more, got 1$"):
            sklearn_learners.fit_learner(name, part)


# ---- as a command asks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, standard: models.Model) -> Path:
    path = tmp_path_factory.mktemp("models") / "standard.safetensors"
    facts = {"classes": [str(digit) for digit in range(10)], "training": {"norm": "l2", "epsilon": 1.0}}
    models.save(standard, path, **facts)
    return path


def test_tried_is_transferred_target_by_target(saved: Path, standard: models.Model, digits: data.Splits) -> None:
    """A learner fitted here, and the model itself: the same rows as by hand, at the radius that the file names."""
    asked = AuditConfig(str(saved), "digits", (), "quick", 40)
    told: list[tuple[str, float, str]] = []
    rows = audit_transfer.run_transfer(
        asked,
        ["logistic-regression", str(saved), "logistic-regression"],
        workers=1,
        report_progress=lambda *words: told.append(words),
    )
    assert [row["target"] for row in rows] == ["logistic-regression"] * 3 + [str(saved)] * 3
    assert {(row["source"], row["norm"], row["epsilon"], row["seed"]) for row in rows} == {(str(saved), "l2", 1.0, 0)}
    part = digits.test.select(torch.arange(40) * 450 // 40)
    made = transfer.make_examples(standard, part, NormBall("l2", 1.0))
    wanted = transfer.transfer_rates(made, part, sklearn_learners.fit_learner("logistic-regression", digits.train))
    wanted += transfer.transfer_rates(made, part, standard)
    assert [{name: row[name] for name in wanted[0]} for row in rows] == wanted
    assert {name for name, _, _ in told} == {"examples", "logistic-regression", str(saved)}
    assert all(0 <= share <= 1 for _, share, _ in told)


def test_tried_trains_a_family_on_the_training_part(saved: Path) -> None:
    rows = audit_transfer.run_transfer(
        AuditConfig(str(saved), "digits", ("linf:0.05",), "quick", 50), ["mixer"], epochs=3, workers=1
    )
    assert [row["change"] for row in rows] == list(transfer.PERTURBATIONS)
    assert {(row["norm"], row["epsilon"]) for row in rows} == {("linf", 0.05)}
    assert rows[0]["clean"] > 0.6
    assert rows == audit_transfer.run_transfer(
        AuditConfig(str(saved), "digits", ("linf:0.05",), "quick", 50), ["mixer"], epochs=3, workers=1
    )


@pytest.mark.parametrize(
    ("change", "against", "says"),
    [
        ({"within": ("l1:3",)}, ["mixer"], r"^--epsilon: must be in l2 or linf for transfer, got .*"),
        ({"within": ("spatial:15,1",)}, ["mixer"], r"^--epsilon: must be in l2 or linf for transfer, got .*"),
        ({}, ["mixer", "no-such-model.safetensors"], r"^no-such-model.safetensors: no such model"),
        ({}, ["logistic"], r"logistic: .*"),
        ({"images": 0}, ["mixer"], r"^--images: must be 1 or more, got 0$"),
        ({"source": "planted"}, ["mixer"], r"^planted: must hold images of shape"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    saved: Path, change: dict[str, Any], against: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("training was begun")

    monkeypatch.setattr(train, "fit", never)
    asked = {"model": str(saved), "source": "digits", "within": (), "budget": "quick", "images": 20} | change
    with pytest.raises(InputError, match=says) as caught:
        audit_transfer.run_transfer(AuditConfig(**asked), against, workers=1)
    assert "\n" not in str(caught.value)


def test_a_source_without_gradients_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "without_gradients.py").write_text(
        "import numpy as np\ndef model(classes):\n    return lambda images: np.eye(classes)[images[:, 0, 0, 0].astype(int)]\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^MODEL: must have gradients for its examples to be made, got without_gradients:model$"
    ):
        audit_transfer.run_transfer(
            AuditConfig("without_gradients:model", "digits", ("l2:0.5",), "quick", 20), ["mixer"], workers=1
        )


def test_the_command_prints_a_table_and_keeps_the_rows(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from notbugs.cli import app

    monkeypatch.setenv("COLUMNS", "120")
    words = ["transfer", saved, "digits", "--images", 30, "--epsilon", 0.75, "--workers", 1, "--out", tmp_path / "t.csv"]
    words += ["--against", "nearest-neighbors", "--against", saved]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["target"], row["change"]) for row in rows] == [
        (target, change) for target in ("nearest-neighbors", str(saved)) for change in transfer.PERTURBATIONS
    ]
    line = next(line for line in done.output.splitlines() if line.startswith("nearest-neighbors"))
    own = {row["change"]: row for row in rows[:3]}
    away = own["untargeted"]
    shares = [own[change]["rate"] for change in ("random", "untargeted", "targeted")]
    shares = [away["clean"], *shares[:2], int(away["same"]) / int(away["n"]), shares[2]]
    assert re.sub(r"\[.*?\]|%", " ", line).split()[1:] == [f"{100 * float(share):.1f}" for share in shares]
    assert re.findall(r"\[(.*?)\]", line) == [
        f"{100 * float(own[change]['low']):.0f}–{100 * float(own[change]['high']):.0f}"
        for change in ("random", "untargeted", "targeted")
    ]
    assert "standard" in done.output and str(tmp_path / "t.csv") in done.output.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--against", "nobody"], "nobody"),
        (["--workers", "0"], "--workers: must be 1 or more, got 0"),
        (["--epsilon", "l0:1"], "--epsilon: must be in l2 or linf for transfer"),
        (["--out", f"{__file__}/t.csv"], "t.csv"),
    ],
)
def test_bad_options_leave_nothing(saved: Path, words: list[str], says: str) -> None:
    from typer.testing import CliRunner

    from notbugs.cli import app

    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, ["transfer", str(saved), "digits", "--images", "20", *words], catch_exceptions=False)
    assert says in str(caught.value) and "\n" not in str(caught.value)
