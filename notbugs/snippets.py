"""Python code that loads an exported data set with other libraries. Imports none of them."""

from collections.abc import Sequence
from pathlib import Path

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


def snippets(folder: Path, form: str, shape: Sequence[int], *, split: str = "train", empty_class: bool = False) -> dict[str, str]:
    """Code by library, for one data set as `data.export` writes it.

    Parameters
    ----------
    folder : Path
        Of the data set, as the code is to name it.
    form : {"folder", "npz", "npz-channels-first", "parquet", "saved"}
    shape : sequence of int, (C, H, W)
    split : str
    empty_class : bool
        Whether a class has no image, which torchvision has to be told.

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
        return _of_folder(folder, shape, split, empty_class)
    if form.startswith("npz"):
        return _of_arrays(folder, form, shape[0], split)
    return _of_rows(folder, form, shape[0], split) if form in ("parquet", "saved") else {}


def _of_folder(folder: Path, shape: Sequence[int], split: str, empty_class: bool) -> dict[str, str]:
    """`split/CLASS/file.png`."""
    channels, height, width = shape
    place, gray = repr(str(folder / split)), channels == 1
    steps = "transforms.Grayscale(), transforms.ToTensor()" if gray else "transforms.ToTensor()"
    return {
        "torchvision": _code(
            ["from torch.utils.data import DataLoader", "from torchvision import datasets, transforms"],
            f"folder = {place}",
            f"transform = transforms.Compose([{steps}])",
            f"data = datasets.ImageFolder(folder, transform{', allow_empty=True' if empty_class else ''})",
            LOADER,
        ),
        "Hugging Face datasets": _code(
            ["from datasets import load_dataset"], f"data = load_dataset({str(folder)!r}, split={split!r})"
        ),
        "Keras": _code(
            ["import keras"],
            f"folder = {place}",
            f"form = dict(color_mode={'grayscale' if gray else 'rgb'!r}, image_size=({height}, {width}))",
            f"data = keras.utils.image_dataset_from_directory(folder, batch_size={BATCH}, **form)",
            "data = data.map(lambda images, labels: (images / 255, labels))",
        ),
        "fastai": _code(
            ["from fastai.vision.all import *"],
            f"folder = {place}",
            "block = DataBlock(",
            f"    blocks=(ImageBlock(cls={'PILImageBW' if gray else 'PILImage'}), CategoryBlock),",
            "    get_items=get_image_files,",
            "    get_y=parent_label,",
            "    splitter=RandomSplitter(valid_pct=0.1, seed=0),",
            ")",
            f"loaders = block.dataloaders(folder, bs={BATCH})",
        ),
    }


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


def _of_rows(folder: Path, form: str, channels: int, split: str) -> dict[str, str]:
    """parquet and saved: with Hugging Face's library, which wrote them."""
    if form == "parquet":
        library = "from datasets import load_dataset"
        data = f"data = load_dataset('parquet', data_files={str(folder / f'{split}.parquet')!r}, split='train')"
    else:
        library, data = "from datasets import load_from_disk", f"data = load_from_disk({str(folder)!r})[{split!r}]"
    images, labels = "images = np.stack(data.with_format('numpy')['image'][:])", "labels = np.array(data['label'][:])"
    tensors = images + TO_TENSORS["npz"][channels]
    return {
        "PyTorch": _code(
            [library, "from torch.utils.data import DataLoader"],
            data,
            "data = data.with_format('torch')  # image: (C, H, W), in 0 to 255",
            LOADER,
        ),
        "Hugging Face datasets": _code([library], data),
        "Keras": _code(["import numpy as np", library], data, images, labels, *_for_keras(channels)),
        "fastai": _code(["import numpy as np", library, *FASTAI], data, tensors, labels, *TENSORS, *SPLIT),
    }


def _for_keras(channels: int) -> list[str]:
    return [
        f"images = images{'[..., None]' if channels == 1 else ''} / 255  # (N, H, W, {channels}), for model.fit(images, labels)"
    ]


def _code(imports: Sequence[str], *lines: str) -> str:
    return "\n".join([*imports, "", *lines])
