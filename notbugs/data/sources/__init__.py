"""Where the images and labels of a data set are, in each form in which people keep them. Nothing is decoded here."""

from pathlib import Path

from notbugs.data.sources.base import Located
from notbugs.data.sources.embedded import EMBEDDED
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.npz import locate_npz
from notbugs.data.sources.tables import locate_hub, locate_parquet, locate_saved, without_progress_bars
from notbugs.errors import InputError

__all__ = ["EMBEDDED", "Located", "locate", "locate_npz", "locate_parquet", "locate_saved", "without_progress_bars"]


def locate(dataset: str) -> Located:
    """The images and labels of the data set that DATASET names (see `data.load`). Raises InputError."""
    path = Path(dataset)
    if dataset in EMBEDDED:
        return EMBEDDED[dataset]()
    if path.is_dir():
        return _locate_directory(dataset, path)
    if path.is_file():
        if path.suffix == ".npz":
            return locate_npz(path)
        if path.suffix == ".parquet":
            return locate_parquet(dataset, [path])
        raise InputError(dataset, "must be an image folder, an .npz or a .parquet file, a saved set or a hub name")
    return locate_hub("uoft-cs/cifar10" if dataset == "CIFAR10" else dataset)


def _locate_directory(dataset: str, path: Path) -> Located:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return locate_saved(path)
    if parquet := sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")]):
        return locate_parquet(dataset, parquet)
    npz = list(path.glob("*.npz"))
    return locate_npz(npz[0]) if len(npz) == 1 else locate_folder(path)
