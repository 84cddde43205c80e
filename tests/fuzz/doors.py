"""Every way into notbugs: valid files, what may be done to them, and how they are read. `DOORS` by name."""

import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch  # before any case begins: an import is no part of it
from cli.conftest import call_here
from fuzz import mutate
from fuzz.guard import Forbidden, in_a_fork, outcome
from PIL import Image

from notbugs.errors import InputError

Files = dict[str, bytes]  # by their paths in the folder
CLASSES = ("cat", "dog")
N = 8  # images


class Door(NamedTuple):
    """make: valid sets of files. damage: what is done to one. enter: reads them; their folder is the working directory."""

    make: Callable[[], list[Files]]
    damage: Callable[[Random, Files], Files]
    enter: Callable[[Path], object]


def try_case(name: str, seed: int, folder: Path) -> str:
    """Make the case of a seed in a folder and enter: "works" or "refused". Raises Forbidden for all else."""
    door, random = DOORS[name], Random(seed)
    return enter(door, door.damage(random, dict(random.choice(_made(name)))), folder)


def enter(door: Door, files: Files, folder: Path) -> str:
    """Enter with these files: "works" or "refused". Raises Forbidden for all else."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    return outcome(lambda: door.enter(folder), folder)


@cache
def _made(name: str) -> list[Files]:
    return DOORS[name].make()


def files_in(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def made_by(make: Callable[[Path], object]) -> Files:
    """The files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return files_in(Path(folder))


def in_one(how: Callable[[Random, bytes], bytes], among: str = "") -> Callable[[Random, Files], Files]:
    """Damage to one of the files, of those with a certain ending."""

    def damage(random: Random, files: Files) -> Files:
        name = random.choice([name for name in files if name.endswith(among)])
        return {**files, name: how(random, files[name])}

    return damage


def by_ending(ways: Mapping[str, Callable[[Random, bytes], bytes]]) -> Callable[[Random, Files], Files]:
    """Damage to one of the files, as its ending says."""

    def damage(random: Random, files: Files) -> Files:
        name = random.choice(sorted(files))
        how = next((way for ending, way in ways.items() if name.endswith(ending)), mutate.damaged)
        return {**files, name: how(random, files[name])}

    return damage


# ---- data --------------------------------------------------------------------------------------------------------------------


def pixels(channels: int = 1, side: int = 4) -> np.ndarray:
    shape = (N, side, side) if channels == 1 else (N, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: np.ndarray, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form, **options)
    return stream.getvalue()


def image_folders() -> list[Files]:
    gray, color = pixels(), pixels(3)
    forms = {
        "png": "PNG",
        "jpg": "JPEG",
        "bmp": "BMP",
        "gif": "GIF",
        "tif": "TIFF",
        "ppm": "PPM",
        "webp": "WEBP",
        "ico": "ICO",
        "jp2": "JPEG2000",
    }
    sets = [
        {f"{CLASSES[i % 2]}/{i}.{ending}": encoded(np.kron(color[i], np.ones((8, 8, 1), np.uint8)), form) for i in range(N)}
        for ending, form in forms.items()
    ]
    wide = {f"{CLASSES[i % 2]}/{i}.png": encoded(gray[i].astype(np.uint16) * 257, "PNG") for i in range(N)}
    alpha = {f"{CLASSES[i % 2]}/{i}.png": encoded(np.dstack([color[i], gray[i]]), "PNG") for i in range(N)}
    return [*sets, wide, alpha]


def load_data(folder: Path) -> object:
    from notbugs import data

    found = [*folder.iterdir()]
    return data.load(found[0] if len(found) == 1 else folder)


def arrays() -> list[Files]:
    import h5py

    images, labels, names = pixels(), np.arange(N) % 2, np.array([f"{i}.png" for i in range(N)])
    words = np.array(CLASSES)[labels]

    def hdf5(folder: Path) -> None:
        with h5py.File(folder / "a.h5", "w") as file:
            file["images"], file["labels"] = images, labels

    def npz(**given: np.ndarray) -> Callable[[Path], None]:
        return lambda folder: np.savez(folder / "a.npz", **given)  # type: ignore[arg-type]

    def npy(folder: Path) -> None:
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)

    def torch_file(folder: Path) -> None:
        torch.save({"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}, folder / "a.pt")

    def idx(folder: Path) -> None:
        (folder / "train-images-idx3-ubyte").write_bytes(np.array([0x803, N, 4, 4], ">i4").tobytes() + images.tobytes())
        (folder / "train-labels-idx1-ubyte").write_bytes(
            np.array([0x801, N], ">i4").tobytes() + labels.astype(np.uint8).tobytes()
        )

    full = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels, "train_names": names}
    makers = [
        npz(**full),
        npz(images=pixels(3), labels=words, classes=np.array(CLASSES)),
        npz(x_train=images / 255, y_train=labels),
    ]
    return [made_by(make) for make in (*makers, npy, hdf5, torch_file, idx)]


def damaged_array_file(random: Random, files: Files) -> Files:
    def inner(random: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".npy"):
            return random.choice((mutate.damaged_npy, odd_labels))(random, content)
        return mutate.damaged(random, content)

    zipped = lambda random, content: mutate.damaged_zip(random, content, inner)  # noqa: E731
    ways = {".npz": zipped, ".pt": zipped, ".npy": lambda random, content: inner(random, "a.npy", content)}
    return by_ending(ways)(random, files)


def odd_labels(random: Random, content: bytes) -> bytes:
    """An array of the same length with other values, of another type."""
    array = np.load(io.BytesIO(content))
    values = [random.choice([*mutate.NUMBERS, 0, 1, 0, 1]) for _ in range(len(array))] if array.ndim else [1]
    kind = random.choice((np.int64, np.uint64, np.float64, np.float16, str, bytes, bool))
    with np.errstate(all="ignore"):
        try:
            made = np.array([str(each)[:300] for each in values] if kind in (str, bytes) else values).astype(kind)
        except (OverflowError, ValueError, UnicodeError):
            made = np.array([10**18, 1] * (len(values) // 2))
    stream = io.BytesIO()
    np.save(stream, made, allow_pickle=False)
    return stream.getvalue()


@cache
def _rows() -> list[dict[str, Any]]:
    images = pixels()
    return [
        {"image": {"bytes": encoded(images[i], "PNG"), "path": f"{i}.png"}, "label": i % 2, "name": f"{i}.png"} for i in range(N)
    ]


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def tables() -> list[Files]:
    import datasets

    def saved(folder: Path) -> None:
        table = datasets.Dataset.from_list(_rows())
        datasets.disable_progress_bars()
        table.save_to_disk(str(folder / "saved"))

    return [{"train.parquet": parquet_bytes(_rows())}, {"a.parquet": parquet_bytes(_rows())}, made_by(saved)]


def damaged_table(random: Random, files: Files) -> Files:
    return by_ending({".parquet": odd_parquet, ".json": mutate.damaged_json})(random, files)


def odd_parquet(random: Random, content: bytes) -> bytes:
    """Other values in the cells of a column, or other bytes."""
    import pyarrow

    other = Random(random.getstate()[1][0])  # draws nothing of the first one, so that older cases keep their numbers
    if other.random() < 0.2:
        return mutate.claiming_parquet(other, content)
    if random.random() < 0.4:
        return mutate.damaged(random, content)
    rows = [dict(row) for row in _rows()]
    column = random.choice(("image", "label", "name", "more"))
    filled = random.choice(
        (
            mutate.NUMBERS,
            mutate.WORDS,
            [None],
            [[1], [2, 3]],
            [{"a": 1}],
            [{"bytes": None, "path": "/etc/passwd"}],
            [b"x"],
            [10**18],
        )
    )
    for row in rows if random.random() < 0.5 else rows[:1]:
        row[column] = random.choice(filled)
    try:
        return parquet_bytes(rows * random.choice((1, 1, 100)))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return mutate.damaged(random, content)


def shards() -> list[Files]:
    def made(suffix: str, mode: str) -> Files:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
            for i, row in enumerate(_rows()):
                about = json.dumps({"label": i % 2, "name": f"{i}.png"}).encode()
                for ending, content in (("png", row["image"]["bytes"]), ("cls", str(i % 2).encode()), ("json", about)):
                    info = tarfile.TarInfo(f"{i:04}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return {f"train-000000{suffix}": stream.getvalue()}

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in image_folders()[0].items():
            archive.writestr(name, content)
    return [made(".tar", "w"), made(".tar.gz", "w:gz"), {"a.zip": stream.getvalue()}]


def damaged_shard(random: Random, files: Files) -> Files:
    def inner(random: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".json"):
            return mutate.damaged_json(random, content)
        return (
            str(random.choice([*mutate.NUMBERS, *mutate.WORDS])).encode("utf-8", "replace")
            if name.endswith(".cls")
            else mutate.damaged(random, content)
        )

    return by_ending({
        ".tar": lambda random, content: mutate.damaged_tar(random, content, inner),
        ".zip": lambda random, content: mutate.damaged_zip(random, content, inner),
    })(random, files)  # fmt: skip


def tensors() -> list[Files]:
    from safetensors.torch import save

    images, labels = torch.from_numpy(pixels()), torch.arange(N) % 2
    about = {"classes": json.dumps(CLASSES)}
    return [{"a.safetensors": save({"images": images, "labels": labels}, about)}, *checkpoints()]


def enter_tensors(folder: Path) -> object:
    return load_model(folder) if (folder / "m.json").exists() else load_data(folder)


# ---- models ------------------------------------------------------------------------------------------------------------------


@cache
def checkpoints() -> list[Files]:
    from notbugs import models

    def saved(layer: str | None, name: str) -> Callable[[Path], None]:
        model = models.build(name, shape=(1, 8, 8), classes=2, width=4, layer=layer)
        return lambda folder: models.save(model, folder / "m.safetensors", classes=CLASSES, trained_on="a", notes=["b"])

    return [made_by(saved(None, "small")), made_by(saved("body.1", "small")), made_by(saved(None, "linear"))]


@cache
def _part() -> Any:
    from notbugs.data import Dataset

    images = torch.from_numpy(pixels(side=8))[:, None]
    return Dataset(images, torch.arange(N) % 2, CLASSES, tuple(f"{i}.png" for i in range(N)))


def load_model(folder: Path) -> object:
    from notbugs.models import trial
    from notbugs.models.by_name import classifier_by_name

    (path,) = [path for path in folder.iterdir() if path.suffix not in (".json", ".py")]
    network = "linear" if path.suffix == ".pt" else None
    with mock.patch.object(trial, "_run", in_a_fork):
        return classifier_by_name(str(path), classes=CLASSES, network=network, part=_part())


def programs() -> list[Files]:
    """ONNX, TorchScript and weights of PyTorch."""
    import warnings

    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 2), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    from notbugs import models

    def script(folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(network, torch.zeros(2, 1, 8, 8)).save(str(folder / "m.torchscript"))  # type: ignore[no-untyped-call]

    own = models.build("linear", shape=(1, 8, 8), classes=2)
    weights = made_by(lambda folder: torch.save({"state_dict": own.state_dict()}, folder / "m.pt"))
    return [{"m.onnx": model.SerializeToString()}, made_by(script), weights, exported_program()]


def exported_program() -> Files:
    """An archive like that of torch.export, which takes seconds to make a real one: what is checked before PyTorch reads it."""
    node = {
        "target": "torch.ops.aten.relu.default",
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}}],
        "outputs": [],
    }
    described = {
        "graph_module": {"graph": {"nodes": [node], "sym_int_values": {"s": {"as_expr": {"expr_str": "2*s0"}}}}},
        "guards_code": ["s0 > 1"],
    }
    weights = {"config": {"w": {"path_name": "weight_0", "use_pickle": False}}}
    entries = {
        "models/model.json": json.dumps(described).encode(),
        "data/weights/model_weights_config.json": json.dumps(weights).encode(),
        "data/weights/weight_0": bytes(16),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"m/{name}", content)
    return {"m.pt2": stream.getvalue()}


def odd_onnx(random: Random, content: bytes) -> bytes:
    """Other sizes, operators and places of data in a graph, or other bytes."""
    import onnx

    if random.random() < 0.4:
        return mutate.damaged(random, content)
    model = onnx.load_from_string(content)
    weight = model.graph.initializer[0]
    for _ in range(random.randint(1, 2)):
        match random.choice(("dims", "external", "operator", "input", "attribute", "type", "output", "twice", "pickle")):
            case "dims":
                weight.dims[random.randrange(2)] = random.choice([size for size in mutate.SIZES if size < 2**63])
            case "external":
                weight.data_location = 1
                weight.ClearField("raw_data")
                place = random.choice(("/etc/passwd", "../up", "m.onnx", "none"))
                weight.external_data.add(key="location", value=place)
            case "operator":
                model.graph.node[random.randrange(len(model.graph.node))].op_type = random.choice(
                    ("If", "Loop", "Relu", "x" * 99, "Conv", "ConstantOfShape")
                )
            case "input":
                shape = model.graph.input[0].type.tensor_type.shape
                shape.dim[random.randrange(len(shape.dim))].dim_value = random.choice((0, 1, 3, 2**40, -1))
            case "attribute":
                model.graph.node[0].attribute.add(name="axis", type=2, i=random.choice((-9, 9, 2**60)))
            case "type":
                model.graph.input[0].type.tensor_type.elem_type = random.randrange(20)
            case "output":
                model.graph.output.add(name="f")
            case "twice":
                model.graph.node.add().CopyFrom(model.graph.node[0])
            case "pickle":
                return __import__("pickle").dumps(mutate.Exploit())
    return model.SerializeToString()


def damaged_program(random: Random, files: Files) -> Files:
    def inner(random: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".pkl") and random.random() < 0.3:
            return __import__("pickle").dumps(mutate.Exploit(), protocol=2)
        if name.endswith(".py") and random.random() < 0.3:
            return content.replace(b"return", b'torch.from_file("/tmp/notbugs-fuzz", True, 16)\n    return')
        if name.endswith(".json"):
            return mutate.damaged_json(random, content)
        return mutate.damaged(random, content)

    zipped = lambda random, content: mutate.damaged_zip(random, content, inner)  # noqa: E731
    return by_ending({".onnx": odd_onnx, ".torchscript": zipped, ".pt": zipped, ".pt2": zipped})(random, files)


# ---- runs --------------------------------------------------------------------------------------------------------------------


def runs() -> list[Files]:
    from report.conftest import full_study, quick_study
    from report.explorer_runs import explorer_run

    makers = [
        lambda folder: quick_study(folder / "run"),
        lambda folder: full_study(folder / "run", 2),
        lambda folder: explorer_run(folder / "run", 4),
    ]
    return [
        {name: content for name, content in made_by(make).items() if not name.endswith((".parquet", ".lock"))} for make in makers
    ]


def write_report(folder: Path) -> object:
    from notbugs.report.write import write

    return write(folder / "run")


def go_on(folder: Path) -> object:
    """What reads a run before it goes on: the report, the configuration of a study, and an index of runs."""
    from notbugs.cli.earlier import earlier_study
    from notbugs.report.runs_beside import list_runs
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import config_of_run

    list_runs(folder)
    earlier = earlier_study(folder / "run")
    if earlier is not None:
        with RunFolder.open(folder / "run", earlier.metadata["arguments"]):
            config_of_run(earlier)
    return write_report(folder)


def reviews() -> list[Files]:
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables.row import records_as_csv

    def made(folder: Path) -> None:
        with RunFolder.open(folder / "run", {"dataset": "made"}) as run:
            run.update_metadata(data={"classes": [*CLASSES]}, norm="l2", epsilon=0.5, full=False)
        key = [
            {"id": f"i{i}", "set": ("original", "robust")[i % 2], "file": f"{i}.png", "label": CLASSES[i % 2]} for i in range(N)
        ]
        said = [{"reviewer": "A", "id": f"i{i}", "answer": CLASSES[i % 2], "seconds": 1.5} for i in range(N)]
        (folder / "run/review").mkdir()
        (folder / "run/review/key.csv").write_text(records_as_csv(key))
        (folder / "run/review/answers-A.csv").write_text(records_as_csv(said))

    return [{name: content for name, content in made_by(made).items() if not name.endswith(".lock")}]


def read_answers(folder: Path) -> object:
    from notbugs.review import answers
    from notbugs.runs.folder import RunFolder

    try:
        rows = answers.load_answers(folder / "run")
    finally:
        answers.merge(RunFolder.read(folder / "run"))
    return answers.differences(rows)


# ---- configuration and arguments ---------------------------------------------------------------------------------------------


def configurations() -> list[Files]:
    folders = {f"images/{number}.png": content for number, content in enumerate(image_folders()[0].values())}
    labels = "file,label\n" + "".join(f"{i}.png,{CLASSES[i % 2]}\n" for i in range(N))
    records = json.dumps([{"file": f"{i}.png", "label": CLASSES[i % 2]} for i in range(N)])
    return [
        {"images/labels.csv": labels.encode(), **folders},
        {"images/labels.json": records.encode(), **folders},
        {"map.json": json.dumps({"cat": [0, 1], "dog": "x"}).encode()},
        {"map.csv": b"class,output\ncat,0\ndog,1\n"},
        {"classes.json": json.dumps({"0": "cat", "1": "dog"}).encode()},
        {"classes.txt": b"cat\ndog\n"},
        {"mask.npy": files_of_mask(), "mask.png": encoded(np.uint8(255) * (pixels()[0] > 99), "PNG")},
        {"files.txt": b'a.png\n"b\\n.png"\nc.png\n'},
    ]


def files_of_mask() -> bytes:
    stream = io.BytesIO()
    np.save(stream, pixels()[0] > 99)
    return stream.getvalue()


def read_configuration(folder: Path) -> object:
    from notbugs import data
    from notbugs.data.mask import read_mask
    from notbugs.files.selection import read_list
    from notbugs.models import output_names

    found: list[object] = []
    for path in sorted(folder.iterdir()):
        name = str(path)
        match path.stem:
            case "images":
                found.append(data.load(folder / "images"))
            case "map":
                found.append(output_names.read_class_map(name))
            case "classes":
                found.append(output_names.read_classes(name))
            case "mask":
                found.append(read_mask(path, (1, 4, 4)))
            case "files":
                found.append(read_list(path))
    return found


def damaged_configuration(random: Random, files: Files) -> Files:
    def lines(random: Random, content: bytes) -> bytes:
        return mutate.damaged_rows(random, content)

    table = [name for name in files if not name.startswith("images/") or not name.endswith(".png")]
    name = random.choice(table)
    ways = {".json": mutate.damaged_json, ".csv": lines, ".txt": lines, ".npy": mutate.damaged_npy}
    how = next((way for ending, way in ways.items() if name.endswith(ending)), mutate.damaged)
    return {**files, name: how(random, files[name])}


def arguments() -> list[Files]:
    from notbugs.cli import app, typer

    commands = sorted({*typer.main.get_command(app).commands} - {"demo"})  # type: ignore[attr-defined]  # it has a data set
    return [{"images/cat/1.png": encoded(pixels()[0], "PNG"), "command": command.encode()} for command in commands]


def odd_arguments(random: Random, files: Files) -> Files:
    """A command with options and words, of which the data set can never be used: no command may begin to work."""
    from notbugs.cli import app, typer

    name = files["command"].decode()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = [
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    ]
    flags = {
        each
        for parameter in command.params
        if getattr(parameter, "is_flag", False)
        for each in (*parameter.opts, *parameter.secondary_opts)
    }
    said = "8/255 linf:8/255 1/0 a:b - -- images hf:a/b/c.pt timm: hf: torchvision:x [ ( (?P< { a=1+ cat=1,cat=2 cuda:99 cpu:x"
    values = [*(word.replace("\0", "") for word in mutate.WORDS), *map(str, mutate.NUMBERS), *said.split()]
    words = [random.choice(values)] if random.random() < 0.3 else []
    for _ in range(random.randint(0, 4) if options else 0):
        option = random.choice(options)
        words += [option] if option in flags else [option, random.choice(values)]
    needed = {"theory": ["--mean", "x"]}.get(name, ["images"])
    return {
        **files,
        "arguments": json.dumps(
            [name, *needed, *words, "--out", random.choice(("out", "images/out", "x.csv", "out.safetensors"))]
        ).encode(),
    }


def call_command(folder: Path) -> object:
    """Call the command as the command line does, in this process: exit code 0 or 2, one line where it is 2."""
    words = json.loads((folder / "arguments").read_bytes())
    done = call_here(*words)
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        raise Forbidden(f"exit code {done.returncode}: {done.stderr[-200:]}")
    if done.returncode == 2:
        raise InputError("arguments", "refused", done.stderr.splitlines()[-1])
    return done


DOORS: dict[str, Door] = {
    "images": Door(image_folders, in_one(mutate.damaged), load_data),
    "arrays": Door(arrays, damaged_array_file, load_data),
    "parquet": Door(tables, damaged_table, load_data),
    "archives": Door(shards, damaged_shard, load_data),
    "safetensors": Door(
        tensors, by_ending({".safetensors": mutate.damaged_safetensors, ".json": mutate.damaged_json}), enter_tensors
    ),
    "model JSON": Door(checkpoints, in_one(mutate.damaged_json, ".json"), load_model),
    "ONNX, PyTorch": Door(programs, damaged_program, load_model),
    "run.json": Door(runs, in_one(mutate.damaged_json, "run.json"), go_on),
    "tables": Door(runs, in_one(mutate.damaged_rows, ".csv"), write_report),
    "answers": Door(reviews, by_ending({".csv": mutate.damaged_rows, ".json": mutate.damaged_json}), read_answers),
    "configuration": Door(configurations, damaged_configuration, read_configuration),
    "arguments": Door(arguments, odd_arguments, call_command),
}
