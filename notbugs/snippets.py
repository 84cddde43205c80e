"""Python code that loads an exported data set with other libraries. Imports none of them."""

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from pprint import pformat
from typing import NamedTuple

BATCH = 64
LOADER = f"loader = DataLoader(data, batch_size={BATCH}, shuffle=True)"
TO_TENSORS = {"npz": {1: "[:, None]", 3: ".transpose(0, 3, 1, 2)"}, "npz-channels-first": {1: "", 3: ""}}  # to (N, C, H, W)
TO_PICTURES = {"npz": {1: "", 3: ""}, "npz-channels-first": {1: "[:, 0]", 3: ".transpose(0, 2, 3, 1)"}}  # to what Pillow takes
TORCH = ("import torch", "from torch.utils.data import DataLoader, TensorDataset")
FASTAI = ("import torch", "from fastai.data.core import DataLoaders", "from torch.utils.data import TensorDataset, random_split")
TENSORS = ("data = TensorDataset(torch.from_numpy(images).float() / 255, torch.from_numpy(labels))",)
SPLIT = (
    "train, valid = random_split(data, [0.9, 0.1], generator=torch.Generator().manual_seed(0))",
    f"loaders = DataLoaders.from_dsets(train, valid, bs={BATCH})",
)


def sorts_differently(classes: Sequence[str]) -> bool:
    """Whether readers of image folders, which sort the classes by name, number them in another order.

    Examples
    --------
    >>> sorts_differently(["Zebra", "ant"]), sorts_differently(["2", "10"])
    (False, True)
    """
    return list(classes) != sorted(classes)


def snippets(
    folder: Path,
    form: str,
    shape: Sequence[int],
    *,
    split: str = "train",
    classes: Sequence[str] = (),
    empty_class: bool = False,
    unchanged: bool = False,
    suffixes: Sequence[str] = ("png",),
) -> dict[str, str]:
    """Code by library, for one data set as `data.export` writes it.

    Parameters
    ----------
    folder : Path
        Of the data set, as the code is to name it.
    form : {"folder", "npz", "npz-channels-first", "parquet", "saved", "webdataset"}
    shape : sequence of int, (C, H, W)
    split : str
    classes : sequence of str
        Of the form "folder": the folders of the classes, in the order of their indices.
    empty_class : bool
        Whether a class has no image.
    unchanged : bool
        Whether the files are copies of the input's, of any size and mode: they are resized when loaded.
    suffixes : sequence of str
        Of the form "webdataset": of the images.

    Returns
    -------
    dict of str
        Empty for another form, or without a shape.

    Examples
    --------
    >>> print(snippets(Path("runs/digits/datasets/robust"), "saved", (1, 8, 8))["Hugging Face datasets"])
    from datasets import load_from_disk
    <BLANKLINE>
    data = load_from_disk('runs/digits/datasets/robust')['train']
    """
    if len(shape) != 3:
        return {}
    if form == "folder":
        ordered = classes if empty_class or sorts_differently(classes) else ()
        return _of_folder(folder, shape, split, ordered, empty_class=empty_class, unchanged=unchanged)
    if form.startswith("npz"):
        return _of_arrays(folder, form, shape[0], split)
    if form == "webdataset":
        return _of_shards(folder, shape, split, suffixes, unchanged=unchanged)
    return _of_rows(_rows(folder, form, split), shape, unchanged=unchanged) if form in ("parquet", "saved") else {}


def _of_folder(
    folder: Path, shape: Sequence[int], split: str, classes: Sequence[str], *, empty_class: bool, unchanged: bool
) -> dict[str, str]:
    """`split/CLASS/file.png`. classes: empty where readers find the same order themselves."""
    place = f"folder = {str(folder / split)!r}"
    names = [f"classes = {pformat(list(classes), width=100, compact=True)}"] if classes else []
    return {
        "torchvision": _torchvision(shape, place, names, empty_class=empty_class, unchanged=unchanged),
        "Hugging Face datasets": _hugging_face_folder(folder / split, names),
        "Keras": _code(
            ["import keras"],
            place,
            *names,
            f"form = dict(color_mode={'grayscale' if shape[0] == 1 else 'rgb'!r}, image_size=({shape[1]}, {shape[2]}))",
            *(["form['class_names'] = classes"] if classes else []),
            f"data = keras.utils.image_dataset_from_directory(folder, batch_size={BATCH}, **form)",
            "data = data.map(lambda images, labels: (images / 255, labels))",
        ),
        "fastai": _fastai_folder(shape, place, names, unchanged=unchanged),
        "FiftyOne": _code(
            ["import fiftyone as fo"],
            place,
            *names,
            "kind = fo.types.ImageClassificationDirectoryTree",
            "data = fo.Dataset.from_dir(dataset_dir=folder, dataset_type=kind)",
            *(["data.default_classes = classes"] if classes else []),
        ),
    }


def _hugging_face_folder(folder: Path, names: Sequence[str]) -> str:
    """data_files: else a class or file called "test" would be taken for a split."""
    features = "features = Features({'image': Image(), 'label': ClassLabel(names=classes)})"
    options = ", features=features, drop_labels=False" if names else ""
    return _code(
        [f"from datasets import {'ClassLabel, Features, Image, ' if names else ''}load_dataset"],
        *([*names, features] if names else []),
        f"data = load_dataset('imagefolder', data_files={_pattern(folder, '**')}, split='train'{options})",
    )


def _torchvision(shape: Sequence[int], place: str, names: Sequence[str], *, empty_class: bool, unchanged: bool) -> str:
    steps = [f"transforms.Resize(({shape[1]}, {shape[2]}))"] if unchanged else []
    steps += [*(["transforms.Grayscale()"] if shape[0] == 1 else []), "transforms.ToTensor()"]
    reader = "Ordered" if names else "datasets.ImageFolder"
    ordered = [
        *names,
        "",
        "class Ordered(datasets.ImageFolder):",
        "    def find_classes(self, directory):",
        "        return classes, {name: index for index, name in enumerate(classes)}",
        "",
    ]
    return _code(
        ["from torch.utils.data import DataLoader", "from torchvision import datasets, transforms"],
        place,
        *(ordered if names else []),
        f"transform = transforms.Compose([{', '.join(steps)}])",
        f"data = {reader}(folder, transform{', allow_empty=True' if empty_class else ''})",
        LOADER,
    )


def _fastai_folder(shape: Sequence[int], place: str, names: Sequence[str], *, unchanged: bool) -> str:
    return _code(
        ["from fastai.vision.all import *"],
        place,
        *names,
        "block = DataBlock(",
        f"    blocks=(ImageBlock(cls={'PILImageBW' if shape[0] == 1 else 'PILImage'}), "
        f"CategoryBlock{'(vocab=classes, sort=False)' if names else ''}),",
        "    get_items=get_image_files,",
        "    get_y=parent_label,",
        "    splitter=RandomSplitter(valid_pct=0.1, seed=0),",
        *([f"    item_tfms=Resize(({shape[1]}, {shape[2]}), method=ResizeMethod.Squish),"] if unchanged else []),
        ")",
        f"loaders = block.dataloaders(folder, bs={BATCH})",
    )


def _of_arrays(folder: Path, form: str, channels: int, split: str) -> dict[str, str]:
    """data.npz: in the snippets `images` is of the shape that the library takes."""
    arrays, images = f"arrays = np.load({str(folder / 'data.npz')!r})", f"images = arrays['{split}_images']"
    labels, pictures = f"labels = arrays['{split}_labels']", images + TO_PICTURES[form][channels]
    return {
        "PyTorch": _code(["import numpy as np", *TORCH], arrays, images + TO_TENSORS[form][channels], labels, *TENSORS, LOADER),
        "Hugging Face datasets": _code(
            [
                "import numpy as np",
                "from datasets import ClassLabel, Dataset, Features, Image",
                "from PIL import Image as Pillow",
            ],
            arrays,
            pictures,
            "features = Features({'image': Image(), 'label': ClassLabel(names=arrays['classes'].tolist())})",
            f"columns = {{'image': [Pillow.fromarray(image) for image in images], 'label': arrays['{split}_labels']}}",
            "data = Dataset.from_dict(columns, features=features)",
        ),
        "Keras": _code(["import numpy as np"], arrays, pictures, labels, *_for_keras(channels)),
        "fastai": _code(["import numpy as np", *FASTAI], arrays, images + TO_TENSORS[form][channels], labels, *TENSORS, *SPLIT),
    }


class Rows(NamedTuple):
    """Lines that make `data`, a Hugging Face set with columns image and label."""

    library: str
    lines: tuple[str, ...]


def _rows(folder: Path, form: str, split: str) -> Rows:
    if form == "saved":
        return Rows("from datasets import load_from_disk", (f"data = load_from_disk({str(folder)!r})[{split!r}]",))
    place = _pattern(folder, f"{split}*.parquet")
    return Rows("from datasets import load_dataset", (f"data = load_dataset('parquet', data_files={place}, split='train')",))


def _of_rows(rows: Rows, shape: Sequence[int], *, unchanged: bool) -> dict[str, str]:
    """With Hugging Face's library, which opens parquet, what it saved, and shards."""
    library, lines = rows
    images, labels = "images = np.stack(data.with_format('numpy')['image'][:])", "labels = np.array(data['label'][:])"
    mode, size = "L" if shape[0] == 1 else "RGB", (shape[2], shape[1])
    resized = [f"data = data.map(lambda row: {{'image': row['image'].convert({mode!r}).resize({size})}})"] if unchanged else []
    tensors = images + TO_TENSORS["npz"][shape[0]]
    return {
        "PyTorch": _code(
            [library, "from torch.utils.data import DataLoader"],
            *lines,
            *resized,
            "data = data.with_format('torch')  # image: (C, H, W), in 0 to 255",
            LOADER,
        ),
        "Hugging Face datasets": _code([library], *lines),
        "Keras": _code(["import numpy as np", library], *lines, *resized, images, labels, *_for_keras(shape[0])),
        "fastai": _code(["import numpy as np", library, *FASTAI], *lines, *resized, tensors, labels, *TENSORS, *SPLIT),
    }


def _of_shards(folder: Path, shape: Sequence[int], split: str, suffixes: Sequence[str], *, unchanged: bool) -> dict[str, str]:
    """WebDataset; with images of one format also what Hugging Face's library opens."""
    shards, decoder = _pattern(folder, f"{split}-*.tar"), "pill" if shape[0] == 1 else "pil"  # gray, or RGB
    stream = _code(
        ["from glob import glob", "", "import webdataset"],
        f"shards = sorted(glob({shards}))",
        f"data = webdataset.WebDataset(shards, shardshuffle=False).decode({decoder!r})",
        f"data = data.to_tuple({';'.join(suffixes)!r}, 'cls')",
    )
    if len(suffixes) != 1:
        return {"WebDataset": stream}
    lines = (
        f"data = load_dataset('webdataset', data_files={shards}, split='train')",
        f"data = data.rename_columns({{{suffixes[0]!r}: 'image', 'cls': 'label'}}).select_columns(['image', 'label'])",
    )
    return {"WebDataset": stream, **_of_rows(Rows("from datasets import load_dataset", lines), shape, unchanged=unchanged)}


def _pattern(folder: Path, files: str) -> str:
    """For functions that expand * and [ in names: those of the folder stand for themselves."""
    return repr(f"{escape(str(folder))}/{files}")


def _for_keras(channels: int) -> list[str]:
    return [
        f"images = images{'[..., None]' if channels == 1 else ''} / 255  # (N, H, W, {channels}), for model.fit(images, labels)"
    ]


def _code(imports: Sequence[str], *lines: str) -> str:
    return "\n".join([*imports, "", *lines])
