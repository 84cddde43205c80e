"""The functions of `import notbugs`: what they take, and that they are what the packages do."""

import copy
import doctest
import shlex
import sys
import tomllib
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.conftest import call_here
from gate.conftest import accuracy
from prototypes import prototype_classifier
from torch import Tensor, nn

import notbugs
from notbugs import api, attacks, data, metrics, models, train
from notbugs.api import runs
from notbugs.api.inputs import by_name
from notbugs.errors import InputError, NotbugsWarning
from notbugs.report.findings.construction import is_weak_source
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import Cell
from notbugs.search import NormBall
from notbugs.study.single import set_aside


@pytest.fixture(scope="module")
def small() -> data.Splits:
    return notbugs.load_dataset("digits", limit=100)


def test_a_path_and_its_text_are_the_same_data_set(tmp_path: Path, small: data.Splits) -> None:
    data.export(small.train, tmp_path / "train", "folder", card="")
    data.export(small.test, tmp_path / "test", "folder", card="")
    by_text, by_path = notbugs.load_dataset(str(tmp_path)), notbugs.load_dataset(tmp_path)
    assert torch.equal(by_text.train.pixels(slice(None)), by_path.train.pixels(slice(None)))
    assert len(by_path.train) == 100
    with pytest.warns(NotbugsWarning, match=r"train: no test part: 20% of each class set aside with seed 0, 20 images"):
        assert len(notbugs.load_dataset(tmp_path / "train").train) == 80


def test_training_is_that_of_the_command_for_data_in_memory_as_for_their_name(small: data.Splits, tmp_path: Path) -> None:
    in_memory = api.train(small, epochs=1, width=4)
    again = api.train(small, epochs=1, width=4, out=tmp_path / "m.safetensors")
    assert all(map(torch.equal, in_memory.state_dict().values(), again.state_dict().values()))
    alone = api.train(small.train, epochs=1, width=4)  # a part without test images, as constructions return it
    assert all(map(torch.equal, in_memory.state_dict().values(), alone.state_dict().values()))
    assert not in_memory.training
    loaded, metadata = models.load(tmp_path / "m.safetensors")
    assert metadata.classes == small.train.classes
    images = small.test.pixels(slice(None))
    assert torch.allclose(loaded.eval()(images), in_memory(images))


def test_early_stopping_and_a_callback_of_a_training(small: data.Splits) -> None:
    """The test images have no part in it."""
    epochs: list[train.Epoch] = []
    options: dict[str, int | str] = {"epochs": 40, "network": "linear", "optimizer": "sgd", "stop_early": 2}
    model = api.train(small, callback=epochs.append, **options)  # type: ignore[arg-type]
    accuracies = [epoch.validation_accuracy or 0.0 for epoch in epochs]
    best = accuracies.index(max(accuracies)) + 1
    assert len(epochs) == best + 2 < 40 and epochs[0].learning_rate == 0.1
    assert model.notes == (
        "early stopping: 10 of 100 training images are set aside for validation, about 10 % of each class, with seed 0",
        f"early stopping: the weights are those of epoch {best} of {best + 2}, validation accuracy {100 * max(accuracies):.1f} %",
    )
    other = api.train(small._replace(test=small.test.select([0])), **options)  # type: ignore[arg-type]
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_a_training_in_bfloat16_says_so(small: data.Splits) -> None:
    assert api.train(small, epochs=1, network="linear", bf16=True).notes == (
        "trained in bfloat16 (--no-bf16, bf16=False: float32)",
    )
    assert api.train(small, epochs=1, network="linear").notes == ()


def test_a_training_with_a_file_to_save_is_resumed_by_the_same_call(
    small: data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["notbugs.train.state"], "SECONDS_BETWEEN", 0)
    seen: list[int] = []

    def stop(epoch: train.Epoch) -> None:
        seen.append(epoch.epoch)
        if len(seen) == 2:
            raise KeyboardInterrupt

    options: dict[str, int | str] = {"epochs": 3, "network": "linear"}
    whole, out = api.train(small, **options), tmp_path / "m.safetensors"  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        api.train(small, out=out, callback=stop, **options)  # type: ignore[arg-type]
    assert not out.exists() and out.with_suffix(".training.pt").is_file()
    resumed = api.train(small, out=out, callback=lambda epoch: seen.append(epoch.epoch), **options)  # type: ignore[arg-type]
    assert seen[0] == 1 and seen[-1] == 3 and len(seen) < 5  # not all epochs anew
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))
    assert out.is_file() and not out.with_suffix(".training.pt").exists()


def test_a_training_goes_on_in_one_precision(small: data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["notbugs.train.state"], "SECONDS_BETWEEN", 0)

    def stop(epoch: train.Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    epochs: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        api.train(small, epochs=3, network="linear", out=tmp_path / "m.safetensors", callback=stop)
    with pytest.warns(NotbugsWarning, match="training starts again"):
        api.train(
            small, epochs=3, network="linear", bf16=True, out=tmp_path / "m.safetensors",
            callback=lambda epoch: epochs.append(epoch.epoch),
        )  # fmt: skip
    assert epochs == [1, 2, 3]


def test_images_set_aside_divide_no_group(small: data.Splits) -> None:
    grouped = replace(small.train, groups=tuple(str(number // 4) for number in range(100)))
    kept, validation = set_aside(grouped, seed=1)
    assert not {*kept.groups} & {*validation.groups} and len(kept) + len(validation) == 100 and 4 <= len(validation) <= 20
    assert validation.names == set_aside(grouped, seed=1)[1].names
    with pytest.raises(InputError, match="--stop-early: needs a class of two training images or more"):
        set_aside(small.train.select([0]), seed=0)


def test_data_in_memory_are_never_those_of_an_earlier_call(small: data.Splits) -> None:
    half = data.Splits(small.train.select(slice(0, 50)), small.test, "folder")
    with by_name(small) as (first, whole), by_name(half) as (second, part):
        assert first != second and (len(whole.train), len(part.train)) == (100, 50)
        assert len(data.load_dataset(data.DataConfig(second)).train) == 50


def test_an_attack_is_the_robust_accuracy_in_each_norm(small: data.Splits, tmp_path: Path) -> None:
    model, part = prototype_classifier(small.train), small.test.select([0, 3, 6])
    found = api.attack(model, part, ["l2:0.1", NormBall("linf", 0.01), "l2:0.2"], budget="quick")
    l2 = metrics.robust_accuracy(model, part, [NormBall("l2", 0.1), NormBall("l2", 0.2)], budget="quick")
    linf = metrics.robust_accuracy(model, part, [NormBall("linf", 0.01)], budget="quick")
    assert list(found) == [*l2, linf[1]] and len(found) == 4 and found[0].attack == "none"
    assert str(found).splitlines()[1].startswith("l2 0.1 ") and "ensemble-quick v6" in str(found)
    html = found._repr_html_()
    assert html.count("<tr>") == 5 and "linf 0.01" in html
    models.save(model, tmp_path / "m.safetensors", classes=list(small.test.classes))
    for name in (tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        assert list(api.attack(name, part, "linf:0.01", budget="quick")) == linf


class Wrapped(nn.Module):
    """A network, something before it and something after it."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images: Tensor) -> object:
        return self.after(self.network(self.before(images)))


def same(values: Tensor) -> Tensor:
    return values


def of_rgb(images: Tensor) -> Tensor:
    assert images.shape[1] == 3
    return images[:, :1]


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (lambda images: images.mul_(1.0), same, "it changes its input: it gets a copy of the images"),
        (of_rgb, same, "it takes RGB: the gray channel is repeated three times"),
        (lambda images: images[..., :1].permute(0, 3, 1, 2), same, "it takes images as N x H x W x C"),
        (same, lambda outputs: (outputs, outputs[:, 0]), "of its outputs, tuple"),
        (lambda images: images.double(), same, "it computes in float64"),
        (same, lambda outputs: {"logits": outputs}, ""),
        (same, lambda outputs: outputs.softmax(1), ""),
    ],
)
def test_networks_as_people_have_them_are_read_as_those_by_name(
    before: Callable[[Tensor], Tensor], after: Callable[[Tensor], object], note: str, small: data.Splits
) -> None:
    """One that changes its input lost its gradients in silence; the others were errors."""
    plain = api.train(small, epochs=3, network="linear")
    network = Wrapped(copy.deepcopy(plain), before, after).train()
    network = network.double() if "float64" in note else network
    with pytest.warns(NotbugsWarning, match=f"model: {note}") if note else nullcontext():
        found = api.attack(network, small, 0.25, budget="quick")
    assert [row.accuracy for row in found] == [row.accuracy for row in api.attack(plain, small, "l2:0.25", budget="quick")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotbugsWarning)
        made = api.relabel(network, small, "next", epsilon=1.0, steps=5)
    expected = api.relabel(plain, small, "next", epsilon=1.0, steps=5)
    assert made.stats.target_reached == pytest.approx(expected.stats.target_reached, abs=0.05)
    assert network.training and network.network.training  # as they were: only copies were changed


def test_a_network_of_pixels_up_to_255_and_one_without_an_opinion(small: data.Splits) -> None:
    plain = api.train(small, epochs=20, network="linear")
    with pytest.warns(NotbugsWarning, match=r"model: accuracy is .* with pixels from 0 to 255\. Say which pixels the model"):
        api.relabel(Wrapped(plain, lambda images: images / 255, same), small, "next", epsilon=1.0, steps=1)
    constant = Wrapped(plain, same, lambda outputs: 0 * outputs)
    assert [row.accuracy for row in api.attack(constant, small, 0.25, budget="quick")] == [0, 0]  # before and under attack


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_are_computed_where_the_caller_turned_them_off(context: Callable[[], Any], small: data.Splits) -> None:
    """The attack was one of a black box there, and said nothing."""
    model = api.train(small, epochs=3, network="linear")
    expected = api.attack(model, small, "l2:0.25", budget="quick").accuracies
    reached = api.relabel(model, small, "next", epsilon=1.0, steps=3).stats.target_reached
    with context():
        again = api.train(notbugs.load_dataset("digits", limit=100), epochs=3, network="linear")
        assert api.attack(again, small, "l2:0.25", budget="quick").accuracies == expected
        assert api.relabel(model, small, "next", epsilon=1.0, steps=3).stats.target_reached == reached
    images, labels = small.test.pixels(slice(None)), small.test.labels
    with torch.inference_mode(), pytest.raises(InputError, match=r"^torch.inference_mode: must be off where gradients"):
        attacks.pgd(model, images, labels, NormBall("l2", 0.25))
    with torch.inference_mode(), pytest.raises(InputError, match=r"^torch.inference_mode: must be off where gradients"):
        train.fit(model, small.train, epochs=1)


def test_constructions_take_any_network(small: data.Splits) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    made = api.make_nonrobust(network, small, steps=1)
    assert made.stats.n == 100 and torch.equal(made.dataset.labels, small.train.labels)
    relabeled = api.relabel(network, small.train, epsilon=0.5, steps=1)
    assert bool((relabeled.dataset.labels != small.train.labels).all()) and relabeled.stats.epsilon == 0.5
    for given in (torch.zeros(100, dtype=torch.int32), np.zeros(100, np.uint8)):
        assert bool((api.relabel(network, small, given, epsilon=0.5, steps=1).dataset.labels == 0).all())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: api.train(s, loss="hinge"), "loss: must be one of standard, adversarial, trades, got 'hinge'"),
        (lambda s: api.train(s, optimizer="adam"), "optimizer: must be one of adamw, sgd, got 'adam'"),
        (lambda s: api.train(s, stop_early=0), "stop_early: must be a number of epochs, 1 or more, got 0"),
        (lambda s: api.train(s, stop_early=True), "stop_early: must be a number of epochs, 1 or more, got True"),
        (lambda s: api.train(s, out="model.pt"), "out: must end in .safetensors"),
        (lambda s: api.attack(prototype_classifier(s.train), s, "spatial:10,1"), "threats: must be in l2, linf, l1 or l0"),
        (lambda s: api.attack(prototype_classifier(s.train), s, []), "threats: must be one or more"),
        (lambda s: api.attack(prototype_classifier(s.train), s, images=0), "images: must be 1 or more"),
        (lambda s: api.attack("none.safetensors", s, "l2:1"), "no such model"),
        (lambda s: api.relabel(prototype_classifier(s.train), s, "best", epsilon=1), "targets: must be random or next"),
        (lambda s: api.relabel(prototype_classifier(s.train), s, s.test.labels, epsilon=1), "targets: must be 100 labels"),
        (lambda s: api.make_robust(prototype_classifier(s.train), s._replace(train=s.train.select([]))), "a training part"),
        (lambda s: api.audit("m.safetensors", "digits", budget="endless"), "--budget: must be one of"),
        (
            lambda s: api.load_dataset(([0], [1])),
            "dataset: must be a name, a path, Splits or a Dataset, got tuple; make",
        ),
        (lambda s: api.load_dataset("digits", limit="10"), "limit: must be a whole number, got '10', a str"),
        (lambda s: api.train({"train": s}), "dataset: must be a name, a path, Splits or a Dataset, got dict"),
        (lambda s: api.train(s, epochs=1.5), "epochs: must be a whole number, got 1.5, a float"),
        (lambda s: api.train(s, epsilon="8/255"), "epsilon: must be a number, got '8/255', a str"),
        (
            lambda s: api.train(s, network=nn.Flatten()),
            "network: must be the name of an architecture, got Flatten; train",
        ),
        (lambda s: api.attack(prototype_classifier(s.train), [s], 0.5), "dataset: must be a name, a path, Splits or a Dataset"),
        (lambda s: api.attack(prototype_classifier(s.train), s, [0.5, None]), "threats: must be l2:0.5, a number, a NormBall"),
        (lambda s: api.attack(prototype_classifier(s.train), s, images=10.5), "images: must be a whole number, got 10.5"),
        (lambda s: api.attack(abs, s, 0.5), "model: must be a torch.nn.Module, or the name of a classifier, got builtin"),
        (lambda s: api.make_robust("none.safetensors", s), "none.safetensors: no such model"),
        (lambda s: api.relabel(prototype_classifier(s.train), s, torch.zeros(100), epsilon=1), "targets: must be whole numbers"),
    ],
)
def test_what_cannot_be_used_is_an_input_error(call: object, says: str, small: data.Splits) -> None:
    with pytest.raises(InputError) as raised:
        call(small)  # type: ignore[operator]
    assert says in str(raised.value)


def test_a_weak_robust_model_is_a_warning_as_of_split(small: data.Splits) -> None:
    blind = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(blind[1].weight)
    fair = prototype_classifier(small.train)
    with pytest.warns(NotbugsWarning, match=r"D_R can hardly make .* \(chance level: \d+\.\d %\)\. Train it for more epochs"):
        api.make_robust(blind, small, steps=1)
    with pytest.warns(NotbugsWarning, match=r"\(the standard model: \d\d\.\d %, chance level"):
        api.make_robust(blind, small.train, standard=fair, steps=1)
    api.make_robust(fair, small, standard=fair, steps=1)  # a warning would be an error
    assert is_weak_source(0.5, 0.4, 0.1, 0.7) and not is_weak_source(0.5, 0.4, 0.1, 0.6) and not is_weak_source(0.5, 0.4, 0.1)
    assert is_weak_source(0.5, 0.1, 0.1)


def test_data_and_constructions_show_pictures_in_a_notebook(small: data.Splits) -> None:
    html = small._repr_html_()
    assert html.count("<img ") == 20 and "data:image/png;base64," in html
    made = api.make_nonrobust(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), small, steps=1)
    assert "feature_error" in made._repr_html_() and made._repr_html_().count("<img ") == 10
    evil = replace(small.train, classes=("<script>", *small.train.classes[1:]))
    assert "<script>" not in evil._repr_html_() and "&lt;script&gt;" in evil._repr_html_()
    assert "0" in small.train.select([])._repr_html_()


def test_a_run_shows_its_table_and_pictures_and_is_removed_if_nobody_named_a_folder(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as record:
        record.record_stage("all", 1.0, [accuracy(number, threat=f"<b>{number}") for number in range(25)])
    (tmp_path / "run" / "pictures").mkdir()
    data.save_image(torch.zeros(1, 2, 2, dtype=torch.uint8), tmp_path / "run" / "pictures" / "one.png")
    run = api.Run(tmp_path / "run")
    assert run.tables == ("accuracy",) and [row["correct"] for row in run.table("accuracy")] == list(range(25))
    with pytest.raises(InputError, match="table: must be one of accuracy, got none"):
        run.table("none")
    html = run._repr_html_()
    assert "the first 20 of 25 rows" in html and "&lt;b&gt;19" in html and "<b>" not in html and html.count("<img ") == 1
    assert str(tmp_path / "run") in html and "correct_8bit" not in html  # of which no row says anything
    arguments = runs.Arguments("attack", {"model": "m", "dataset": "d"}, {"images": 3, "skip_unreadable": True})
    lines = list[str]()

    def resume(folder: Path, line: str) -> RunFolder:
        lines.append(line)
        with RunFolder.open(folder, {"kind": "audit"}) as found:
            return found

    assert runs._run(tmp_path / "run", resume, arguments).folder == tmp_path / "run"
    assert lines == [f"notbugs attack m d --images 3 --skip-unreadable --out {tmp_path / 'run'}"]
    kept = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert kept == {"attack": {"model": "m", "dataset": "d", "images": 3, "skip-unreadable": True}}

    def make(folder: Path, line: str) -> RunFolder:
        with RunFolder.open(folder, {"kind": "audit"}) as made:
            return made

    temporary = runs._run(None, make, arguments)
    folder = temporary.folder
    assert folder.is_dir()
    del temporary
    assert not folder.parent.exists()


def test_a_figure_is_cited_with_all_that_checks_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "audit", {"kind": "audit"}) as record:
        record.update_metadata(
            model="m.onnx", dataset="d", notbugs="0.1.0", command="notbugs attack m.onnx d", fingerprint="0123", seeds=[0]
        )
        rotated = replace(accuracy(5), threat="rotation 30°", norm="spatial", epsilon=30.0, attack="ensemble-standard v6")
        record.record_stage("all", 1.0, [replace(accuracy(4), norm="", epsilon=0.0), rotated])
    run = api.Run(tmp_path / "audit")
    clean, spatial = map(run.cite, run.table("accuracy"))
    end = "seed 0, model m.onnx, data d (fingerprint 0123); notbugs 0.1.0: notbugs attack m.onnx d)"
    row = accuracy(4)
    figures = (
        f"{100 * row.accuracy:.1f} % clean accuracy (95 % CI [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}], n = {row.n}, "
    )
    assert clean == figures + end
    assert run.robustbench() == []  # of no threat model that it has
    assert "robust accuracy" in spatial and "rotation 30°, ensemble-standard v6, seed 0" in spatial
    columns: dict[str, Cell] = {
        "model": "adversarial",
        "trained_on": "original",
        "set": "test",
        "correct": 1,
        "n": 4,
        "accuracy": 0.25,
    }
    study: dict[str, Cell] = {
        **columns,
        "norm": "linf",
        "epsilon": 8 / 255,
        "attack": "a v1",
        "ci_low": 0.05,
        "ci_high": 0.7,
        "seed": 3,
    }
    with RunFolder.open(tmp_path / "study", {"kind": "study"}) as record:
        record.update_metadata(dataset="d", notbugs="0.1.0", command="notbugs run d")
    with pytest.raises(InputError, match="run: must be an audit, got study"):
        api.Run(tmp_path / "study").robustbench()
    assert api.Run(tmp_path / "study").cite(study) == (
        "25.0 % robust accuracy (95 % CI [5.0, 70.0], n = 4, Linf ε = 0.03137, a v1, seed 3, model adversarial, "
        "data d (fingerprint unknown); notbugs 0.1.0: notbugs run d)"
    )
    assert ", model adversarial, on robust, data d" in api.Run(tmp_path / "study").cite({**study, "set": "robust"})
    control: dict[str, Cell] = {
        "model": "trained-on-random-labels", "control": "trained-on-own", "rules_out": "", "seed": 1, "accuracy": 0.75,
        "control_accuracy": 0.125, "excess": 0.625, "excess_ci_low": 0.5, "excess_ci_high": 0.75, "n": 70,
    }  # fmt: skip
    with RunFolder.open(tmp_path / "study", {"kind": "study"}) as record:
        files = {"own": "f" * 64}
        record.update_metadata(commit="0123abc-dirty", norm="l2", settings={"relabel_epsilon": 1.5}, extension_files=files)
        record.update_metadata(extensions=["own"])
    assert api.Run(str(tmp_path / "study")).cite(control) == (
        "+62.5 percentage points of test accuracy over the control (95 % CI [+50.0, +75.0] over the test "
        "images, n = 70, seed 1, trained-on-random-labels 75.0 %, trained-on-own 12.5 %, perturbations L2 ε = 1.5, "
        "own.py SHA-256 ffffffffffffffff, data d (fingerprint unknown); "
        "notbugs 0.1.0, commit 0123abc-dirty: notbugs run d)"
    )
    assert "SHA-256" not in api.Run(tmp_path / "study").cite({**control, "control": "trained-on-random-labels-shuffled"})
    trained = {**study, "model": "trained-on-own", "trained_on": "own"}
    assert "model trained-on-own, own.py SHA-256 ffffffffffffffff, data d" in api.Run(tmp_path / "study").cite(trained)
    of_seeds = [{**study, "seed": seed, "accuracy": share} for seed, share in enumerate((0.80, 0.82, 0.84))]
    assert (
        api.Run(tmp_path / "study")
        .cite(of_seeds)
        .startswith(
            "82.0 % robust accuracy (95 % CI [77.0, 87.0] over 3 training seeds, n = 4, Linf ε = 0.03137, a v1, seeds 0, 1, 2, "
        )
    )
    of_controls = [{**control, "seed": seed, "excess": share, "accuracy": share} for seed, share in enumerate((0.80, 0.82, 0.84))]
    cited = api.Run(tmp_path / "study").cite(of_controls)
    assert cited.startswith(
        "+82.0 percentage points of test accuracy over the control (95 % CI [+77.0, +87.0] over 3 training seeds"
    )
    assert "n = 70, seeds 0, 1, 2, trained-on-random-labels 82.0 %, trained-on-own 12.5 %," in cited
    for unlike, got in (
        ([study, study], "seeds 3, 3"),
        ([study, {**study, "epsilon": 0.5, "seed": 1}], "other epsilon"),
        ([], "none"),
    ):
        with pytest.raises(InputError, match=f"^row: must be .*got {got}"):
            api.Run(tmp_path / "study").cite(unlike)
    with pytest.raises(
        InputError, match=r"row: must be of table\(\"accuracy\"\) or table\(\"controls\"\), got one without accuracy"
    ):
        run.cite({"n": 3})


@pytest.mark.slow
@pytest.mark.parametrize("function", [api.audit, api.score_files, api.study])
def test_the_examples_that_take_seconds(function: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (getattr(function, "__doc__", None) or "").replace("# doctest: +SKIP", "")
    test = doctest.DocTestParser().get_doctest(text, {}, "example", None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test).attempted >= 3 and runner.summarize(verbose=False).failed == 0
    html = test.globs["run"]._repr_html_() if "run" in test.globs else ""
    assert runner.failures == 0, html


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "how"), [("audit", "command"), ("files", "file"), ("study", "command")])
def test_the_recorded_command_and_the_file_of_arguments_repeat_a_run(kind: str, how: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if kind == "audit":
        api.train("digits", epochs=1, width=4, out=tmp_path / "m.safetensors")
        threats, model = ["l2:0.5", "linf:8/255"], tmp_path / "m.safetensors"
        api.audit(model, "digits", threats, images=4, budget="quick", limit=80, out=out)
    elif kind == "files":
        api.score_files("digits", limit=80, width=4, epochs=1, folds=2, repeats=1, norm="linf", epsilon=8 / 255, out=out)
    else:
        api.study("digits", limit=80, width=4, epochs=1, seeds=1, norm="linf", epsilon=8 / 255, out=out)
    run = RunFolder.read(out)
    tables = {path: path.read_bytes() for path in (out / "tables").glob("*.csv")}
    arguments, command = run.metadata["arguments"], shlex.split(run.metadata["command"])
    assert command[0] == "notbugs" and command[-2:] == ["--out", str(out)]
    again = command[1:] if how == "command" else [command[1], "--config", str(out / "config.toml"), "--out", str(out)]
    done = call_here(*again)  # other arguments than before would be an error, and other stages would write other tables
    assert done.returncode == 0, done.stderr
    assert RunFolder.read(out).metadata["arguments"] == arguments
    assert {path: path.read_bytes() for path in tables} == tables
