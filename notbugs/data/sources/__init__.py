"""Where the images and labels of a data set are, in each form in which people keep them. Nothing is decoded here."""

from pathlib import Path

from notbugs.data.config import DataConfig
from notbugs.data.sources.base import Located
from notbugs.data.sources.embedded import EMBEDDED
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.npz import locate_npz
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.tables import locate_hub, locate_parquet, locate_saved, without_progress_bars
from notbugs.errors import InputError

__all__ = ["EMBEDDED", "Located", "locate", "locate_npz", "locate_parquet", "locate_saved", "without_progress_bars"]


def locate(config: DataConfig) -> Located:
    """The images and labels of the data set that a configuration names (see `data.load`). Raises InputError."""
    dataset, path = config.dataset, Path(config.dataset)
    if dataset in EMBEDDED:
        return EMBEDDED[dataset]()
    if path.is_dir():
        return _locate_directory(config, path)
    if path.is_file():
        if path.suffix == ".npz":
            return locate_npz(path, config)
        if path.suffix == ".parquet":
            return locate_parquet(dataset, [path], config)
        raise InputError(dataset, "must be an image folder, an .npz or a .parquet file, a saved set or a hub name")
    return locate_hub("uoft-cs/cifar10" if dataset == "CIFAR10" else dataset, config)


def _locate_directory(config: DataConfig, path: Path) -> Located:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return locate_saved(path, config)
    if parquet := _parquet_files(path):
        return locate_parquet(config.dataset, parquet, config)
    npz = list(path.glob("*.npz"))
    return locate_npz(npz[0], config) if len(npz) == 1 else locate_folder(config, path)


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or of the folders in it: data/ or CONFIG/, as downloads from the hub have them."""
    for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
        found = sorted(path for path in folder.glob(pattern) if path.name != "metadata.parquet")  # which labels files
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        configurations = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
        if len(configurations) > 1 and not all(split_of(name) for name in configurations):
            names = listed(sorted(configurations))
            raise InputError(str(folder), "has several folders of parquet files", names, "name one of them as DATASET")
        if found:
            return found
    return []
