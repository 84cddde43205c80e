"""Which reader one file needs: by its ending."""

import re
from dataclasses import replace
from pathlib import Path

from notbugs.data.names import printable
from notbugs.data.sources.base import Located, about, errors_about
from notbugs.data.sources.cifar import reject_pickles
from notbugs.data.sources.directory import locate_archives, locate_directory
from notbugs.data.sources.forms import (
    ARRAY_FILES,
    FOLDERS_ALONE,
    FOR_FOLDERS,
    locate_array_form,
    reject_options,
    scan,
    with_output_note,
)
from notbugs.data.sources.idx import is_idx, locate_idx
from notbugs.data.sources.pixel_text import locate_pixel_text, text_header
from notbugs.data.sources.pixels import locate_pixels, pixel_header
from notbugs.data.sources.refused import REFUSED, ending, reject_foreign
from notbugs.data.sources.splits import listed
from notbugs.data.sources.tables import locate_parquet
from notbugs.data.sources.tar import ENDINGS as TAR
from notbugs.data.sources.unpack import unpack
from notbugs.data.sources.words import IDX_SPLITS
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

ACCEPTED = (
    "DATASET can be a folder of images or of such files, a .parquet, .npz, .h5, .pt, .safetensors, .tar or .zip file, "
    "a .csv of pixels, an idx file of MNIST, or a hub name"
)
BESIDE = {".zip": "unpack all into one folder", ".tar": "pass the folder", ".parquet": "pass the folder"}  # to read all


def locate_file(path: Path, config: DataConfig) -> Located:
    """The images of one file. Raises InputError for a form that is not read, with the way out."""
    reject_foreign(path)
    located = _locate_file(path, config)
    others = _called_alike(path) if ending(path.name) in BESIDE else []
    if not others:
        return located
    note = f"not read, though called like {printable(path.name)}: {listed(others, 3)} (to read all: {BESIDE[ending(path.name)]})"
    return located._replace(notes=(*located.notes, note))


def _called_alike(path: Path) -> list[str]:
    """The files beside one that differ from it in the numbers in their names alone: the other parts of a download."""

    def without_numbers(name: str) -> str:
        return re.sub(r"\d+", "0", name)

    names = sorted(entry.name for entry in scan(path.parent) if entry.is_file())
    return [name for name in names if name != path.name and without_numbers(name) == without_numbers(path.name)]


def _locate_file(path: Path, config: DataConfig) -> Located:
    form = ending(path.name)
    if form not in (".zip", *TAR):
        reject_options(config, (*FOR_FOLDERS, "follow_links"), FOLDERS_ALONE)
    if form == ".zip":
        folder = unpack(path)
        with errors_about(path, folder):
            located = about(locate_directory(folder, replace(config.data, dataset=str(folder))), path, folder)
        return located._replace(
            notes=(f"unpacked from {printable(path.name)}, read from {printable(str(folder))}", *located.notes)
        )
    if is_idx(path.name):
        return with_output_note(_idx_beside(path, config))
    if form == ".parquet":
        return locate_parquet(config.dataset, [path], config)
    if form in TAR:
        return with_output_note(locate_archives(path, [path], config))
    if form == ".csv" and pixel_header(path):
        return with_output_note(locate_pixels(path, [path], config))
    if form == ".csv" and text_header(path):
        return with_output_note(locate_pixel_text(path, [path], config))
    if form in ARRAY_FILES and form not in REFUSED:
        located = locate_array_form(ARRAY_FILES[form], path, [path], config)
        return located if form == ".npz" else with_output_note(located)
    reject_pickles(path, [path.name, "test_batch"] if path.name.startswith("data_batch_1") else [path.name])
    what, remedy = REFUSED.get(form, ("is no data set of a form that is read here", ACCEPTED))
    raise InputError(printable(config.dataset), what, remedy=remedy)


def _idx_beside(path: Path, config: DataConfig) -> Located:
    """The data set of one of MNIST's files: those beside it with the same beginning."""
    names = sorted(entry.name for entry in scan(path.parent) if is_idx(entry.name) and entry.is_file())
    begin = next(path.name[: path.name.lower().rindex(split)] for split in IDX_SPLITS if split in path.name.lower())
    same = [path.parent / name for name in names if any(name.lower().startswith((begin + split).lower()) for split in IDX_SPLITS)]
    return locate_idx(path, same, config)
