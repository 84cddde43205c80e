"""A list of files, one name per line, as the report exports it; and the two data sets that it makes of one."""

import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path

from notbugs import data
from notbugs.atomic import StrPath
from notbugs.data import Dataset, markdown
from notbugs.data_config import check_outside
from notbugs.errors import InputError, printable
from notbugs.files.config import FilesConfig, load_splits
from notbugs.files.subsets import Subset, write_subset

SHOWN = 3  # names in a message


def read_list(path: Path) -> list[str]:
    """The names in a list of files.

    Parameters
    ----------
    path : str or path
        UTF-8, or UTF-16 with its mark; one name per line, empty lines do not count. A line in double quotes is a JSON string: for
        names with line breaks,
        and for those that begin or end with a space or a quote.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        If it cannot be read, or holds no name.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        names = [json.loads(line) if line.startswith('"') else line for line in (line.strip() for line in lines) if line]
    except (OSError, ValueError) as error:
        raise InputError("--files", "must be a text file with one name per line", f"{path} ({error})") from None
    if not names:
        raise InputError("--files", "must name a file", f"{path}, which is empty")
    return names


def find_files(dataset: Dataset, names: Sequence[str], test: Dataset | None = None) -> list[int]:
    """Indices of the files with these names, ascending; all of them where several files have one name.

    test: of the same data set; an error says of a name that is found there that it is.

    Raises
    ------
    InputError
        If the data set has no file of some name.

    Examples
    --------
    >>> digits = data.load("digits").train
    >>> find_files(digits, [digits.names[7], digits.names[2], digits.names[7]])
    [2, 7]
    """
    found: dict[str, list[int]] = {}
    for index, name in enumerate(dataset.names):
        found.setdefault(_as_written(name), []).append(index)
    if missing := [name for name in names if name not in found]:
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
        tested = {_as_written(name) for name in test.names} & {*missing} if test else set[str]()
        shown += f", of which {len(tested):,} in the test part" if tested else ""
        remedy = f"take names as in tables/files.csv, {printable(next(iter(found)))} for one" if found else ""
        raise InputError("--files", "must name training files of the data set", shown, remedy)
    return sorted({index for name in names for index in found[name]})


def _as_written(name: str) -> str:
    """A name as tables and reports hold it: what UTF-8 cannot hold is a question mark."""
    return name.encode("utf-8", errors="replace").decode("utf-8")


def split_by_list(config: FilesConfig, path: StrPath, folder: StrPath) -> list[Subset]:
    """Write the listed training files and all others as two data sets: unchanged, if the input has files.

    Parameters
    ----------
    config : FilesConfig
        Of which only `data` and `seed` count.
    path : str or path
        The list.
    folder : str or path
        New or empty. The data sets are folder/datasets/listed-files and folder/datasets/other-files.

    Returns
    -------
    list of Subset
        "listed", and "other" unless all are listed.

    Raises
    ------
    InputError
        Before anything is written if the list or the data set cannot be used.
    """
    path, folder = Path(path), Path(folder)
    check_outside(config.data, folder)
    splits = load_splits(config)
    listed = find_files(splits.train, read_list(path), splits.test)
    data.check_unused(folder)
    other = sorted({*range(len(splits.train))} - {*listed})
    parts = [(name, indices) for name, indices in (("listed", listed), ("other", other)) if indices]
    return [write_subset(config, splits, folder, name, indices, _card(name, path, len(indices))) for name, indices in parts]


def _card(name: str, path: Path, files: int) -> str:
    """The README of a data set."""
    which = f"listed in {markdown.code(path.name)}" if name == "listed" else f"that {markdown.code(path.name)} does not list"
    return f"# {name}-files\n\nThe {files:,} training files {which}. Labels are unchanged."
