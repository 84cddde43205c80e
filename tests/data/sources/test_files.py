"""Files that others write: MNIST's and CIFAR's, tables of pixels, tensors, HDF5; and what is refused, with the way out."""

import gzip
import pickle
import shutil
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save, stored
from data.sources.forms import arrays, cifar, idx, pixel_table, safetensors, tensors
from torch.utils.data import TensorDataset

from notbugs import data


def same(loaded: data.Splits, channels_first: bool = False) -> bool:
    """Whether this is `arrays`, in the order of the files."""
    given = arrays() if loaded.train.shape[0] == 1 else arrays(channels=3)
    pixels = (stored(part).permute(0, 2, 3, 1).squeeze(3).numpy() for part in (loaded.train, loaded.test))
    images = all(np.array_equal(read, given[name]) for read, name in zip(pixels, ("x_train", "x_test"), strict=True))
    return images and loaded.train.labels.tolist() == given["y_train"].tolist()


# ---- MNIST ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"gz": True}, {"sign": "."}, {"begin": "qmnist-"}])
def test_idx(tmp_path: Path, options: dict[str, bool]) -> None:
    loaded = data.load(idx(tmp_path / "MNIST" / "raw", **options))  # type: ignore[arg-type]
    assert same(loaded) and "constructed sets are written as one .npz" in loaded.notes
    assert same(data.load(tmp_path))  # the folder that torchvision is given
    assert same(data.load(next((tmp_path / "MNIST" / "raw").glob("*t10k-labels*"))))


def test_packed_files_beside_unpacked_ones_are_read_once(tmp_path: Path) -> None:
    idx(tmp_path, gz=True)
    loaded = data.load(idx(tmp_path))
    assert same(loaded) and len(loaded.left_out) == 4 and "not packed" in loaded.left_out[0].reason


def test_kaggle_puts_each_file_into_a_folder_of_its_name(tmp_path: Path) -> None:
    for path in list(idx(tmp_path / "raw").iterdir()):
        (tmp_path / "set" / path.name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "set" / path.name / path.name)
    assert same(data.load(tmp_path / "set"))


def test_emnist_has_several_sets(tmp_path: Path) -> None:
    idx(tmp_path, begin="emnist-letters-")
    assert any("transposed" in note for note in data.load(tmp_path).notes)
    idx(tmp_path, begin="emnist-digits-")
    assert "several data sets, got emnist-digits, emnist-letters" in load_error(tmp_path)
    assert same(data.load(tmp_path / "emnist-digits-train-images-idx3-ubyte"))


def test_idx_claims_are_checked(tmp_path: Path) -> None:
    path = idx(tmp_path) / "train-images-idx3-ubyte"
    content = path.read_bytes()
    for damaged in (
        content[:-1],
        content + b"x",
        struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**10, 2**10) + content[16:],
        content[:3],
    ):
        path.write_bytes(damaged)
        assert "train-images" in load_error(tmp_path)
        (tmp_path / "gz").mkdir(exist_ok=True)
        for other in tmp_path.glob("*ubyte"):
            (tmp_path / "gz" / f"{other.name}.gz").write_bytes(gzip.compress(other.read_bytes()))
        assert "train-images" in load_error(tmp_path / "gz")
    path.unlink()
    assert "no array of images for the part train" in load_error(tmp_path)


# ---- CIFAR ---------------------------------------------------------------------------------------------------------------------


def test_cifar10(tmp_path: Path) -> None:
    loaded = data.load(cifar(tmp_path / "cifar-10-batches-bin"))
    assert loaded.train.shape == (3, 32, 32) and loaded.train.classes == ("cat", "dog")
    raw = np.fromfile(tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin", np.uint8).reshape(-1, 3073)
    assert np.array_equal(stored(loaded.train)[4].numpy().ravel(), raw[0, 1:])
    assert loaded.train.labels.tolist() == [0, 1] * 4 and loaded.form == "npz-channels-first"
    assert "2 of CIFAR-10's 5 training files are there" in loaded.notes
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "records of 3,073 bytes" in load_error(tmp_path)
    assert "pass the folder" in load_error(path)


def test_cifar100(tmp_path: Path) -> None:
    folder = cifar(tmp_path, hundred=True)
    fine, coarse = data.load(folder), data.load(folder, label_column="coarse_label")
    assert fine.train.classes == ("cat", "dog") and fine.train.labels.tolist() == [0, 1, 0, 1]
    assert coarse.train.classes == ("wild", "tame") and coarse.train.labels.tolist() == [1, 0, 1, 0]
    assert any("coarse_label" in note for note in fine.notes)
    assert "fine_label or coarse_label" in load_error(folder, label_column="x")


@pytest.mark.parametrize("names", [("data_batch_1", "test_batch", "batches.meta"), ("train", "test", "meta")])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(pickle.dumps({b"data": 1}))
    assert "Python pickles" in (text := load_error(tmp_path)) and "cifar-10-binary" in text and "documentation" in text


# ---- tables of pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["pixel", "", "p_"])
def test_tables_of_pixels(tmp_path: Path, begin: str) -> None:
    pixel_table(tmp_path / "sign_train.csv", begin=begin)
    pixel_table(tmp_path / "sign_test.csv", 4, begin=begin)
    save(random_image(0), tmp_path / "poster.png")
    loaded = data.load(tmp_path)
    table = np.loadtxt(tmp_path / "sign_train.csv", delimiter=",", skiprows=1, dtype=int)
    assert np.array_equal(stored(loaded.train).numpy().reshape(8, -1), table[:, 1:]) and loaded.form == "npz"
    assert loaded.train.classes == ("0", "3") and len(loaded.test) == 4  # as in sign-language MNIST: some numbers are no class
    assert [item.location for item in loaded.left_out] == ["poster.png"]


def test_a_table_without_labels_is_left_out(tmp_path: Path) -> None:
    pixel_table(tmp_path / "train.csv")
    pixel_table(tmp_path / "test.csv", 4, label=False)
    loaded = data.load(tmp_path)
    assert len(loaded.train) == 6 and "not used: test.csv, which has no labels" in loaded.notes
    assert loaded.left_out[0].location == "test.csv"
    (tmp_path / "other.csv").write_text((tmp_path / "train.csv").read_text().replace("label", "emotion"))
    assert len(data.load(tmp_path / "other.csv", label_column="emotion").train) == 6
    assert "column called label" in load_error(tmp_path / "test.csv") and len(data.load(tmp_path / "train.csv").train) == 6


def test_bad_tables_of_pixels(tmp_path: Path) -> None:
    path = pixel_table(tmp_path / "train.csv")
    text = path.read_text()
    path.write_text(text.replace("pixel3,", "width,", 1))
    assert "square" in load_error(path)
    path.write_text(text.replace("pixel3,", "pixel10,", 1).replace("pixel10,pixel11", "pixel3,pixel11"))
    assert "in order" in load_error(path)
    first = text.splitlines()[1]
    for cell in ("256", "", "0.5", "-1", "x"):
        path.write_text(text.replace(first, "0," + cell + first[first.index(",", 2) :]))
        assert "train.csv: cannot be read as a table of pixels" in load_error(path)
    path.write_text("file,label\na.png,cat\n")
    assert "--labels FILE" in load_error(path)


# ---- tensors -------------------------------------------------------------------------------------------------------------------


def test_tensors(tmp_path: Path) -> None:
    assert same(data.load(tensors(tmp_path / "set.pt"))) and same(data.load(safetensors(tmp_path / "set.safetensors")))
    assert "several forms" in load_error(tmp_path)
    given = {name: torch.from_numpy(array) for name, array in arrays(channels=3).items()}
    nested = {part: {"images": given[f"x_{part}"], "labels": given[f"y_{part}"]} for part in ("train", "test")}
    torch.save(nested, tmp_path / "nested.pth")
    assert same(data.load(tmp_path / "nested.pth"))
    torch.save({part: (given[f"x_{part}"], given[f"y_{part}"]) for part in ("train", "test")}, tmp_path / "pairs.pt")
    assert same(data.load(tmp_path / "pairs.pt"))
    torch.save({"images": given["x_train"], "labels": given["y_train"], "classes": ["no", "yes"]}, tmp_path / "one.pt")
    assert data.load(tmp_path / "one.pt").train.classes == ("no", "yes")


def test_pairs_of_tensors(tmp_path: Path) -> None:
    images, labels = (torch.from_numpy(arrays()[name]) for name in ("x_train", "y_train"))
    for content in ((labels, images), [(image, int(label)) for image, label in zip(images, labels, strict=True)]):
        torch.save(content, tmp_path / "set.pt")
        assert len(data.load(tmp_path / "set.pt").train) == 6
    torch.save([(images, labels)] * 2, tmp_path / "set.pt")
    assert "2 pairs, which may be parts or batches" in load_error(tmp_path / "set.pt")
    (tmp_path / "processed").mkdir()
    for name in ("training", "test"):
        torch.save((images, labels), tmp_path / "processed" / f"{name}.pt", _use_new_zipfile_serialization=False)
    assert len(data.load(tmp_path / "processed").test) == 8


def test_what_needs_pickle_is_refused(tmp_path: Path) -> None:
    images, labels = (torch.from_numpy(arrays()[name]) for name in ("x_train", "y_train"))
    torch.save(TensorDataset(images, labels), tmp_path / "set.pt")
    assert "could run any code" in (text := load_error(tmp_path / "set.pt")) and "torch.save({" in text
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "set.pt")
    assert "arrays weight, bias" in load_error(tmp_path / "set.pt")
    torch.save({"images": torch.zeros(1, dtype=torch.uint8).expand(10**12, 28, 28), "labels": labels}, tmp_path / "set.pt")
    assert "must hold its values" in load_error(tmp_path / "set.pt")


# ---- HDF5 ----------------------------------------------------------------------------------------------------------------------


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    given = arrays(channels=3)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        for name, array in given.items():
            file.create_dataset(f"{name[2:]}/{name[0]}", data=array, compression="gzip")
        file["classes"] = ["nô", "yes"]
    assert same(loaded := data.load(tmp_path / "set.h5")) and loaded.train.classes == ("nô", "yes")
    (tmp_path / "course").mkdir()
    for part in ("train", "test"):  # as in the course of Coursera
        with h5py.File(tmp_path / "course" / f"{part}_catvnoncat.h5", "w") as file:
            file[f"{part}_set_x"], file[f"{part}_set_y"] = given[f"x_{part}"], given[f"y_{part}"]
            file["list_classes"] = np.array([b"non-cat", b"cat"])
    assert same(loaded := data.load(tmp_path / "course")) and loaded.train.classes == ("non-cat", "cat")
    (tmp_path / "pcam").mkdir()
    for name, array in given.items():
        with h5py.File(tmp_path / "pcam" / f"camelyonpatch_level_2_split_{name[2:]}_{name[0]}.h5", "w") as file:
            file[name[0]] = array.reshape(-1, 1, 1, 1) if name[0] == "y" else array
    assert same(data.load(tmp_path / "pcam"))


def test_hdf5_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    given = arrays()
    for kind in ("external", "soft", "virtual", "stored", "cycle", "objects", "huge"):
        path = tmp_path / f"{kind}.h5"
        with h5py.File(path, "w") as file:
            file["y"] = given["y_train"]
            if kind == "external":
                file["X"] = h5py.ExternalLink("other.h5", "/X")
            elif kind == "soft":
                file["X"] = h5py.SoftLink("/y")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((8, 5, 5), np.uint8)
                layout[:] = h5py.VirtualSource("other.h5", "X", (8, 5, 5))
                file.create_virtual_dataset("X", layout)
            elif kind == "stored":
                file.create_dataset("X", (8, 5, 5), np.uint8, external=[("/etc/passwd", 0, 200)])
            elif kind == "cycle":
                file["again"] = file["/"]
            elif kind == "objects":
                file.create_dataset("X", (8, 5, 5), h5py.ref_dtype)
            else:
                file.create_dataset("X", (10**9, 5, 5), np.uint8, chunks=(1, 5, 5))
        text = load_error(path)
        wanted = {"cycle": "no array of images", "objects": "numbers or text", "huge": "100 times"}
        assert wanted.get(kind, "must not be") in text, text


def test_hdf5_needs_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "set.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "pip install 'notbugs[hdf5]'" in load_error(tmp_path / "set.h5")


# ---- which reader --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.mat", "scipy.io.loadmat"),
        ("set.tfrecord", "TensorFlow"),
        ("set.rec", "MXNet"),
        ("set.lmdb", "LMDB"),
        ("set.7z", "unpack it"),
        ("set.rar", "unpack it"),
        ("set.tar.xz", "unpack it"),
        ("set.pkl", "could run|can run any code"),
        ("labels.txt", "--labels FILE"),
        ("cat.JPG", "the folder with all images"),
        ("set.xyz", "DATASET can be"),
        ("README", ".parquet, .npz, .h5, .pt, .safetensors, .tar or .zip"),
    ],
)
def test_other_files_are_refused_with_the_way_out(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(b"12345678")
    assert any(part in load_error(tmp_path / name) for part in text.split("|"))


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    for name in ("set.h5", "set.tar.gz", "set.zip", "set.pt"):
        assert "does not exist; check the path" in load_error(tmp_path / name)


def test_images_come_before_files_that_lie_beside_them(tmp_path: Path) -> None:
    np.savez(image_folder(tmp_path) / "embeddings.npz", X=np.zeros((2, 3)))
    loaded = data.load(tmp_path)
    assert len(loaded.train) == 6 and [item.location for item in loaded.left_out] == ["embeddings.npz"]
    assert any("read as images; to read embeddings.npz instead" in note for note in loaded.notes)


def test_options_for_folders_are_not_ignored(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays())  # type: ignore[arg-type]
    assert "--labels: is for folders" in load_error(tmp_path / "set.npz", labels="x.csv")
    assert "--all-classes: is for folders" in load_error(tmp_path / "set.npz", all_classes=True)
    assert "--label-regex: is for folders" in load_error(tmp_path / "set.npz", label_regex="x")
    assert "--label-column: is for tables" in load_error(tmp_path / "set.npz", label_column="x")
    assert "--file-column: is for folders" in load_error(tmp_path, file_column="x")


def test_a_folder_of_archives(tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(b"x")
    assert "holds archives, got train.zip; pass one of them" in load_error(tmp_path)


def test_the_conversion_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 3072), dtype=np.uint8)
        (tmp_path / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [0, 1, 0, 1]}))
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        exec(text.split("```python\n")[1].split("```")[0], {})
    assert data.load("cifar10.npz").train.shape == (3, 32, 32) and len(data.load("cifar10.npz").train) == 20
