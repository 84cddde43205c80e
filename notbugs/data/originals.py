"""Images as the input holds them, for sets of unchanged files. Loading keeps none of it: the input is located again."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from notbugs.data.card import Origin, license_of
from notbugs.data.dataset import Dataset
from notbugs.data.images import Chosen
from notbugs.data.load import SYNTHETIC, fingerprint
from notbugs.data.loaded import Splits
from notbugs.data.pixel_arrays import PixelArrays
from notbugs.data.sources import EMBEDDED, Located, locate
from notbugs.data_config import DataConfig
from notbugs.decoding.headers import EncodedImage


class Originals(NamedTuple):
    """Images as they are stored.

    Attributes
    ----------
    dataset : Dataset
        Labels and names; pixels at their original size where the input holds pixels.
    encoded : sequence of EncodedImage, optional
        The file of each image; None where pixels are to be written.
    statement : str
        How they are written, for the card and the terminal.
    """

    dataset: Dataset
    encoded: Sequence[EncodedImage] | None
    statement: str


def origin_of(dataset: str, splits: Splits) -> Origin:
    """What a card says of the input: its name without the folders above it, fingerprint and license.

    Examples
    --------
    >>> from notbugs import data
    >>> origin_of("digits", data.load("digits")).name
    'digits'
    """
    path = Path(dataset)
    return Origin(path.name if path.exists() else dataset, fingerprint(splits.train, splits.test), license_of(dataset))


def originals(config: DataConfig, part: Dataset, form: str) -> Originals:
    """The images of a part of the training set as the input holds them.

    Parameters
    ----------
    config : DataConfig
        How `part` was loaded.
    part : Dataset
        Training images, found by their names.
    form : str
        In which they will be written (`data.export`).

    Returns
    -------
    Originals

    Raises
    ------
    InputError
        If the input cannot be read any more.

    Examples
    --------
    >>> from notbugs import data
    >>> config = DataConfig("digits", resize=16)
    >>> found = originals(config, data.load_dataset(config).train, "folder")
    >>> found.dataset.shape, found.statement
    ((1, 8, 8), 'The set is built in and has no files: its pixels are written unchanged, as PNG files.')
    """
    how = "in arrays" if form.startswith("npz") else "as PNG files"
    if config.dataset == SYNTHETIC:
        return Originals(part, None, f"The images are generated and have no files: their pixels are written unchanged, {how}.")
    located = locate(config)
    rows = _rows(located, part)
    resized = f", resized to {config.resize}x{config.resize} pixels" if config.resize else ""
    if rows is None:
        return Originals(part, None, f"Files cannot be told apart by their names: pixels are written{resized}, {how}.")
    if isinstance(located.files, PixelArrays):
        what = "The set is built in and has no files: its" if config.dataset in EMBEDDED else "The"
        return Originals(part.with_images(located.files.read(rows)), None, f"{what} pixels are written unchanged, {how}.")
    if form.startswith("npz"):
        return Originals(part, None, f"Arrays hold pixels: the files are decoded{resized}.")
    what = "Files are copied" if located.form == "folder" else "Encoded images are copied"
    return Originals(part, Chosen(located.files, rows), f"{what} byte for byte, in their original size and format.")


def _rows(located: Located, part: Dataset) -> tuple[int, ...] | None:
    """The row of each image among the training rows; None if names are missing or occur twice."""
    names = located.names[: located.n_train]
    place = {name: row for row, name in enumerate(names)}
    found = [place.get(name) for name in part.names]
    return None if len(place) < len(names) or None in found else tuple(row for row in found if row is not None)
