"""Files of PyTorch: weights under any prefix, TorchScript, exported programs; and what is refused, with the way out."""

import io
import json
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import dill
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.attacks.sanity_checks import deterministic
from notbugs.data import Dataset
from notbugs.models import by_name, torch_files
from notbugs.models.by_name import classifier_by_name
from notbugs.models.classifier import frozen, frozen_copy
from notbugs.study.given import load_fitting

Raises = Callable[[str], AbstractContextManager[None]]
CLASSES = ("a", "b", "c")
CODE = """
from torch import nn
def network(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, classes))
def lazy(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.BatchNorm1d(5), nn.ReLU(), nn.LazyLinear(classes))
"""


@pytest.fixture
def part() -> Dataset:
    """Twelve gray images of three classes."""
    images = torch.randint(256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset(images, torch.arange(12) % 3, CLASSES, tuple(f"{number}.png" for number in range(12)))


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """A network that `torch_code:network` builds, with other weights; it is in evaluation mode."""
    (tmp_path / "torch_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Callable[[int], nn.Module]] = {}
    exec(CODE, space)
    built = space["network"](3)
    built[2].running_mean += 0.3
    yield built.eval()
    sys.modules.pop("torch_code", None)


def check_same(name: str, network: nn.Module, part: Dataset, *, by: str | None = None) -> tuple[str, ...]:
    """Loaded, it gives the network's logits, and gradients; returns its notes."""
    loaded, metadata = classifier_by_name(name, classes=CLASSES, network=by, part=part)
    images = part.pixels(slice(None))
    assert torch.allclose(loaded(images), network(images), atol=1e-6)
    assert torch.allclose(loaded(images[:1]), network(images[:1]), atol=1e-6)
    with frozen(loaded):
        assert attacks.has_gradient(loaded, images)
    assert torch.allclose(frozen_copy(loaded)(images), network(images), atol=1e-6)
    return metadata.notes


# ---- weights ---------------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model of DataParallel": lambda weights: {"model": {f"module.{name}": value for name, value in weights.items()}},
    "Lightning": lambda weights: {"state_dict": {f"model.{name}": value for name, value in weights.items()}, "loops": {}},
    "compiled": lambda weights: {f"_orig_mod.module.{name}": value for name, value in weights.items()},
    "without counters": lambda weights: {name: value for name, value in weights.items() if "num_batches" not in name},
    "half": lambda weights: {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_loaded_into_the_network_that_is_named(layout: str, network: nn.Module, part: Dataset) -> None:
    if layout == "half":
        network.load_state_dict(LAYOUTS[layout](network.state_dict()))  # type: ignore[arg-type]
    torch.save(LAYOUTS[layout](network.state_dict()), "weights.pth.tar")
    assert check_same("weights.pth.tar", network, part, by="torch_code:network") == ()


@pytest.mark.parametrize("function", ["network", "lazy"])
def test_safetensors_without_our_json(function: str, network: nn.Module, part: Dataset) -> None:
    save_file(network.state_dict(), "weights.safetensors")
    check_same("weights.safetensors", network, part, by=f"torch_code:{function}")


def test_weights_with_another_number_of_outputs_decide_it(network: nn.Module, part: Dataset) -> None:
    network[-1] = nn.Linear(5, 7)
    torch.save(network.state_dict(), "seven.pt")
    assert classifier_by_name("seven.pt", classes=CLASSES, network="torch_code:network", part=part)[0](
        part.pixels([0])
    ).shape == (1, 7)


def test_weights_of_our_own_architectures(tmp_path: Path, part: Dataset) -> None:
    network = models.build("small", shape=part.shape, classes=3, seed=4, mean=[0.2], std=[0.3]).eval()
    torch.save(network.state_dict(), tmp_path / "small.pt")
    check_same(str(tmp_path / "small.pt"), network, part, by="small")


def test_weights_need_their_network(network: nn.Module, part: Dataset, raises_one_line: Raises) -> None:
    torch.save(network.state_dict(), "weights.pt")
    save_file(network.state_dict(), "weights.safetensors")
    with raises_one_line(r"^weights.pt: holds weights alone: it needs the network, got 9 tensors; pass the --network that"):
        classifier_by_name("weights.pt", classes=CLASSES, part=part)
    with raises_one_line(r"^weights.safetensors: holds .* needs weights.json beside it, or the network"):
        classifier_by_name("weights.safetensors", classes=CLASSES, part=part)
    torch.save({"0.weight": torch.zeros(2, 2)}, "other.pt")
    with raises_one_line(r"^other.pt: must hold the weights of torch_code:network, got 8 missing, 1.weight for one; 1 left over"):
        classifier_by_name("other.pt", classes=CLASSES, network="torch_code:network", part=part)
    torch.save({**network.state_dict(), "1.weight": torch.zeros(6, 64)}, "other.pt")
    with raises_one_line(r"^other.pt: must hold the weights of torch_code:network, got size mismatch for 1.weight.*\[6, 64\]"):
        classifier_by_name("other.pt", classes=CLASSES, network="torch_code:network", part=part)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused(
    kind: torch.dtype, network: nn.Module, part: Dataset, raises_one_line: Raises
) -> None:
    """They were copied in silence: quantized ones without their scale, complex ones without their imaginary part."""
    torch.save({key: value.to(kind) for key, value in network.state_dict().items()}, "other.pt")
    words = str(kind).removeprefix("torch.")
    with raises_one_line(
        rf"^other.pt: must hold floating-point weights, got 6 of another type, 1.weight \({words}\) for one; of quantized ones"
    ):
        classifier_by_name("other.pt", classes=CLASSES, network="torch_code:network", part=part)


def test_layout_of_robust_networks_of_madrylab(network: nn.Module, part: Dataset) -> None:
    """As robustness/train.py saves an AttackerModel inside DataParallel: with dill, the network twice, its pixel statistics."""
    weights = of_madrylab(network, [0.3], [0.6])
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(5, 64)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    schedule = {"step_size": 50, "gamma": 0.1, "base_lrs": [0.1], "last_epoch": 90, "_last_lr": [0.001]}
    saved = {"model": weights, "optimizer": optimizer, "schedule": schedule, "epoch": 90, "amp": None}
    torch.save(saved, "resnet_l2_eps3.ckpt", pickle_module=dill)
    normalized = nn.Sequential(models.wrap(network, torch.zeros(2, 1, 8, 8), mean=[0.3], std=[0.6]))
    check_same("resnet_l2_eps3.ckpt", normalized, part, by="torch_code:network")


class Block(nn.Module):
    """A residual block under the usual names of ResNets for small images; expansion 4: a bottleneck."""

    def __init__(self, inputs: int, inner: int, stride: int, expansion: int) -> None:
        super().__init__()
        outputs = inner * expansion
        shapes = [(inputs, inner, 3, stride), (inner, inner, 3, 1)]
        if expansion > 1:
            shapes = [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
        for number, (before, after, kernel, step) in enumerate(shapes, start=1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self.count, self.shortcut = len(shapes), nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        found = images
        for number in range(1, self.count + 1):
            found = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(found))
            found = found.relu() if number < self.count else found
        return (found + self.shortcut(images)).relu()


class SmallResNet(nn.Module):
    """A ResNet for small images under its usual names."""

    def __init__(self, counts: Sequence[int], expansion: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(counts):
            blocks = []
            for number in range(count):
                blocks.append(Block(inputs, width * 2**stage, 2 if stage and not number else 1, expansion))
                inputs = width * 2**stage * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        found = self.bn1(self.conv1(images)).relu()
        for stage in range(4):
            found = self.get_submodule(f"layer{stage + 1}")(found)
        return self.linear(found.mean((2, 3)))


def of_madrylab(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> dict[str, Tensor]:
    """The weights of an AttackerModel inside DataParallel, as `robustness` saves it."""
    statistics = {"mean": torch.tensor(mean)[:, None, None], "std": torch.tensor(std)[:, None, None]}
    found = {f"module.normalizer.new_{name}": value for name, value in statistics.items()}
    found |= {f"module.attacker.normalize.new_{name}": value for name, value in statistics.items()}
    for prefix in ("module.model.", "module.attacker.model."):
        found |= {prefix + name: value for name, value in network.state_dict().items()}
    return found


@pytest.mark.parametrize(
    ("name", "counts", "expansion"),
    [("resnet18", (2, 2, 2, 2), 1), pytest.param("resnet50", (3, 4, 6, 3), 4, marks=pytest.mark.slow)],
)
def test_robust_cifar_networks_of_madrylab_load_into_ours(
    name: str,
    counts: tuple[int, ...],
    expansion: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    randomize_batchnorm: Callable[..., None],
) -> None:
    """Their ResNets for 32x32 pixels have names of their own; ours are narrow here."""
    monkeypatch.setitem(models.ARCHITECTURES, name, partial(models.ARCHITECTURES[name], width=2))
    theirs = SmallResNet(counts, expansion, 2, 10)
    randomize_batchnorm(theirs, (-0.5, 0.5, 0.5, -0.5), 1.0)
    mean, std = [0.49, 0.48, 0.44], [0.2, 0.21, 0.22]
    path = tmp_path / "cifar_l2_0_5.pt"
    torch.save({"model": of_madrylab(theirs.eval(), mean, std), "epoch": 150}, path, pickle_module=dill)
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    part = Dataset(images, torch.arange(10), tuple("abcdefghij"), tuple(map(str, range(10))))
    loaded, metadata = classifier_by_name(str(path), classes=part.classes, network=name, part=part)
    pixels = part.pixels(slice(None))
    wanted = theirs((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    assert metadata.notes == () and torch.allclose(loaded(pixels), wanted, atol=1e-4)

    started = models.build_from(str(path), name, shape=part.shape, classes=3, seed=1).eval()
    assert torch.allclose(started.features(pixels), loaded.features(pixels), atol=1e-5) and started(pixels).shape == (10, 3)


# ---- programs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_torchscript_has_gradients_and_no_layers(kind: str, network: nn.Module, part: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        saved = torch.jit.script(network) if kind == "script" else torch.jit.trace(network, part.pixels([0, 1]))
        saved.save("program.pt")  # type: ignore[no-untyped-call]
    assert check_same("program.pt", network, part) == ("it is TorchScript",)
    loaded, _ = classifier_by_name("program.pt", classes=CLASSES, part=part)
    assert models.with_features(loaded, part.pixels([0, 1]))[1].startswith("its logits")
    loaded.train()
    assert torch.allclose(loaded(part.pixels([0, 1])), network(part.pixels([0, 1])), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [True, False])
def test_exported_programs(fixed: bool, network: nn.Module, part: Dataset) -> None:
    count = {0: torch.export.Dim("count", min=1)}
    exported = torch.export.export(network, (part.pixels([0, 1, 2, 3]),), dynamic_shapes=None if fixed else (count,))
    torch.export.save(exported, "program.pt2")
    notes = check_same("program.pt2", network, part)
    assert notes[0] == "it is an exported program"
    loaded, _ = classifier_by_name("program.pt2", classes=CLASSES, part=part)
    assert deterministic(loaded, part.pixels([0, 1])).observed.startswith("in the mode of its export, forward passes")
    assert notes[1:] == (("it takes 4 images at a time: the last batch is filled up",) if fixed else ())


def test_exported_programs_with_casts_and_decomposed_operators(network: nn.Module, part: Dataset) -> None:
    """Casts are exported with an operator whose name begins with _, and decomposed programs have more of these."""

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images.double().float())
            return logits.log_softmax(1)

    images = part.pixels([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of its trees
        exported = torch.export.export(Cast(), (images,)).run_decompositions()
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"aten._assert_tensor_metadata.default", "aten._to_copy.default", "aten._log_softmax.default"} <= names
    torch.export.save(exported, "program.pt2")
    program = torch_files.load_file(Path("program.pt2"))
    assert isinstance(program, torch_files.Program)
    assert torch.allclose(program.network(images), network(images).log_softmax(1), atol=1e-6)


def changed(path: str, change: Callable[[str, bytes], bytes]) -> None:
    """Rewrite each entry of an archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (sys.exit, ("the pickle ran",))


# Of an exported program: its names since torch 2.8, and those before
INPUTS = ("sample_inputs/model.pt", "serialized_example_inputs.pt")
DESCRIPTION = ("models/model.json", "serialized_exported_program.json")


def _pickled(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    torch.save((Exploit(),), stream)
    return stream.getvalue() if name.endswith(INPUTS) else content


def _evaluated(name: str, content: bytes) -> bytes:
    if not name.endswith(DESCRIPTION):
        return content
    model = json.loads(content)
    return json.dumps({**model, "extra": [{"expr_str": "exec(chr(97))"}]}).encode()


def _guarded(name: str, content: bytes) -> bytes:
    if not name.endswith(DESCRIPTION):
        return content
    return json.dumps({**json.loads(content), "guards_code": ["__import__('os').getcwd()"]}).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_pickled, r"must hold tensors alone; pickles can run code and are not loaded, got .*_inputs"),
        (_evaluated, r"must have sizes that are arithmetic, got 'exec\(chr\(97\)\)'"),
        (_guarded, r"must have sizes that are arithmetic, got .*__import__"),
    ],
)
def test_exported_programs_that_would_run_code_raise(
    change: Callable[[str, bytes], bytes], rule: str, part: Dataset, tmp_path: Path, raises_one_line: Raises
) -> None:
    path = str(tmp_path / "program.pt2")
    torch.export.save(torch.export.export(nn.Flatten(), (part.pixels([0]),)), path)
    changed(path, change)
    with raises_one_line(rule):
        torch_files.load_file(Path(path))


# ---- what is refused -------------------------------------------------------------------------------------------------------


def test_pickles_and_other_frameworks_raise_with_the_way_out(network: nn.Module, tmp_path: Path, raises_one_line: Raises) -> None:
    torch.save(network, "whole.pt")
    with raises_one_line(r"^whole.pt: must hold weights alone; a pickled network can run code .* pickle of torch.nn.*state_dict"):
        torch_files.load_file(Path("whole.pt"))
    torch.save({"epoch": 3}, "empty.pt")
    with raises_one_line(r"^empty.pt: must hold the weights of one network, got a dictionary with epoch; torch.save"):
        torch_files.load_file(Path("empty.pt"))
    Path("text.pt").write_text("no model")
    with raises_one_line(r"^text.pt: must be a file of PyTorch: weights, TorchScript or an exported program"):
        torch_files.load_file(Path("text.pt"))
    Path("exploit.pt").write_bytes(pickle.dumps(Exploit()))
    with raises_one_line(r"^exploit.pt: must "):
        torch_files.load_file(Path("exploit.pt"))
    for name, rule in (("m.joblib", r"pickles can run code.*skops.io.dump"), ("m.pkl", "skops"), ("m.keras", "model.export")):
        Path(name).write_bytes(pickle.dumps(np.zeros(3)))
        with raises_one_line(rule):
            classifier_by_name(name, classes=CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "skops", None)
        Path("m.skops").touch()
        with raises_one_line(r"^m.skops: needs skops to load; pip install skops$"):
            classifier_by_name("m.skops", classes=CLASSES)
    Path("folder").mkdir()
    Path("folder/config.json").write_text("{}")
    with raises_one_line(r"^folder: must be a file of a model, got a folder of Hugging Face transformers; pass hf:folder$"):
        classifier_by_name("folder", classes=CLASSES)


def test_columns_of_an_estimator_in_a_file_have_its_names(part: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Booster:
        classes_ = np.array(["C", "A", "B"])

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            return np.tile([0.7, 0.1, 0.2], (len(rows), 1))

    (tmp_path / "model.skops").touch()
    monkeypatch.setattr(by_name, "load_skops", lambda _: Booster())
    model, metadata = load_fitting(str(tmp_path / "model.skops"), part, dataset="letters")
    assert metadata.classes == ("C", "A", "B")
    assert metadata.notes == ("its outputs stand in another order than the classes of letters and are read by their names",)
    assert torch.allclose(model(part.pixels([0, 1])).exp(), torch.tensor([0.1, 0.2, 0.7]).expand(2, 3))


def test_estimators_in_a_file_of_skops(part: Dataset, tmp_path: Path, raises_one_line: Raises) -> None:
    io_of_skops = pytest.importorskip("skops.io")
    estimator = LogisticRegression().fit(part.pixels(slice(None)).flatten(1).numpy(), part.labels.numpy())
    io_of_skops.dump(estimator, tmp_path / "model.skops")
    loaded, _ = classifier_by_name(str(tmp_path / "model.skops"), classes=CLASSES, part=part)
    predicted = estimator.predict(part.pixels(slice(None)).flatten(1).numpy())
    assert loaded(part.pixels(slice(None))).argmax(1).tolist() == predicted.tolist()
    estimator.extra = Path("not of scikit-learn")
    io_of_skops.dump(estimator, tmp_path / "model.skops")
    with raises_one_line(r"model.skops: must hold estimators of scikit-learn alone: other types could run code, got pathlib"):
        classifier_by_name(str(tmp_path / "model.skops"), classes=CLASSES)


# ---- what would write files, or claims more than it holds ------------------------------------------------------------------


def archive(path: Path, entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


WRITES = ['torch.from_file("a", True, 16)', 'torch.save(x, "a")', 'ops.aten.from_file("a", True)', 'ops . aten . save (x, "a")',
          'ops.debugprims.load_tensor("a")']  # fmt: skip


@pytest.mark.parametrize("call", WRITES)
def test_torchscript_that_reads_or_writes_files_is_not_loaded(call: str, tmp_path: Path, raises_one_line: Raises) -> None:
    code = f"class N(Module):\n  def forward(self, x: Tensor) -> Tensor:\n    y = {call}\n    return y\n"
    path = archive(tmp_path / "m.pt", {"m/code/__torch__.py": code.encode(), "m/constants.pkl": b"", "m/data.pkl": b""})
    with raises_one_line("must not read or write files, got .*; give the network's weights"):
        torch_files.load_file(path)


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.hub.load", "torch.ops.load_library", "torch.ops.aten.from_file.default", "_operator.__call__",
     "torch.ops.aten.add.__class__", "torch.ops.__class__.mro", "builtins.exec", "torch.load", "torch.ops.aten.__class__",
     "torch.ops.aten._print.default", "torch.ops.aten._dir", "torch.ops.mine._private.default", "torch.ops._C.load"],
)  # fmt: skip
def test_a_program_calls_operators_alone(target: str, tmp_path: Path, raises_one_line: Raises) -> None:
    model = {"graph_module": {"graph": {"nodes": [{"target": target, "inputs": [{"arg": {"as_string": "touch a"}}]}]}}}
    path = archive(tmp_path / "m.pt2", {"m/models/model.json": json.dumps(model).encode()})
    with raises_one_line("must call operators of PyTorch alone"):
        torch_files.load_file(path)


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.linear.default", "torch.ops.higher_order.cond", "_operator.getitem", "math.floor", "torch.sym_max",
     "torch.ops.aten._softmax.default", "torch.ops.aten._assert_tensor_metadata.default"],
)  # fmt: skip
def test_operators_are_no_other_functions(target: str) -> None:
    torch_files._check_targets(Path("m.pt2"), {"nodes": [{"target": target, "inputs": []}]})


@pytest.mark.parametrize("shape", [(10**9, 4), (3, 10**6)])
def test_weights_that_are_shown_more_often_than_they_are_stored_raise(
    shape: tuple[int, ...], tmp_path: Path, raises_one_line: Raises
) -> None:
    torch.save({"weight": torch.zeros(1).expand(shape), "bias": torch.zeros(3)}, tmp_path / "m.pt")
    with raises_one_line(r"must hold the values of its weights, got weight of shape \(\d+, \d+\) with fewer values"):
        torch_files.load_file(tmp_path / "m.pt")


def test_packed_weights_raise_before_they_are_unpacked(tmp_path: Path, raises_one_line: Raises) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        entries = {name: plain.read(name) for name in plain.namelist()}
    with raises_one_line("it is packed"):
        torch_files.load_file(archive(tmp_path / "m.pt", entries, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("name", ["m.pt", "m.torchscript", "m.pt2"])
def test_an_archive_that_claims_to_be_one_of_several(name: str, tmp_path: Path, part: Dataset, raises_one_line: Raises) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("m/data.pkl", b"")
    whole, end = stream.getvalue(), stream.getvalue().rindex(b"PK\5\6")
    (tmp_path / name).write_bytes(whole[:end] + b"PK\6\7" + struct.pack("<LQL", 0, 0, 2) + whole[end:])
    with raises_one_line(f"{name}: is damaged, got zipfiles that span multiple disks are not supported; save it again"):
        classifier_by_name(str(tmp_path / name), classes=CLASSES, network="linear", part=part)
    if name == "m.pt":
        with raises_one_line(f"{name}.*span multiple disks"):
            data.load(tmp_path / name)
