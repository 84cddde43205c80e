"""Data sets on the Hugging Face hub: downloaded, then read with the checks of any other folder."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from notbugs.data.names import MissingError, first_line, printable
from notbugs.data.sources.base import Located, about, errors_about
from notbugs.data.sources.directory import is_table, locate_downloaded
from notbugs.data.sources.embedded import EMBEDDED
from notbugs.data.sources.splits import listed, split_of
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

TABLES = ["*.parquet", "README.md"]  # what is downloaded of a set that has parquet files


def locate_hub(dataset: str, config: DataConfig) -> Located:
    """The images of a data set on the Hugging Face hub. No code of it runs.

    Raises
    ------
    InputError
        If there is none of this name, or it cannot be reached and was not downloaded before; and as `locate_directory`.
    """
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", dataset) or Path(dataset).suffix in (".npz", ".parquet"):
        raise MissingError(printable(dataset), "does not exist", remedy="check the path")
    folder, notes = _download(dataset)
    try:
        with errors_about(Path(dataset), folder):
            located = locate_downloaded(folder, replace(config, follow_links=True))  # a download is links to its files
    except InputError as error:
        parameter, rule, got, remedy = error.args
        raise InputError(parameter, rule, got, f"{remedy or 'see what it holds'}; its files are in {folder}") from None
    return about(located._replace(notes=(*notes, *located.notes)), Path(dataset), folder)


def _download(dataset: str) -> tuple[Path, list[str]]:
    """The folder of a download, an earlier one where the hub cannot be reached, and notes."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    if constants.HF_HUB_OFFLINE:
        said, reason = "is not asked (HF_HUB_OFFLINE), and this set was not downloaded before", ""
    else:
        try:
            with _progress_on_terminals():
                # Asked first, with a limit: without a network snapshot_download would try for long
                found = HfApi().dataset_info(dataset, timeout=10).siblings or []
                patterns = _patterns(dataset, [file.rfilename for file in found])
                return Path(snapshot_download(dataset, repo_type="dataset", allow_patterns=patterns)), []
        except errors.RepositoryNotFoundError as error:
            raise _missing(dataset, "has no such set", type(error).__name__) from None
        except InputError:
            raise
        except Exception as error:
            said, reason = "could not be reached for a set of this name", first_line(error)
    try:
        note = f"read from an earlier download: the Hugging Face hub could not be reached ({reason})"
        return _earlier(dataset), [note] if reason else []
    except Exception:
        raise _missing(dataset, said, reason) from None


def _missing(dataset: str, said: str, reason: str) -> InputError:
    built_in = "" if "/" in dataset else f"; real images that are built in: {', '.join(EMBEDDED)}"
    rule = f"this path does not exist, and the Hugging Face hub {said}"
    return MissingError(dataset, rule, reason or None, f"check the path{built_in}")


def _patterns(dataset: str, names: Sequence[str]) -> list[str] | None:
    """What to download of these files; None is all. Raises InputError for several configurations, which may be large."""
    tables = [PurePosixPath(name) for name in names if is_table(name)]
    configurations = {path.parts[0] for path in tables if len(path.parts) > 1}
    if len(configurations) > 1 and not all(map(split_of, configurations)):
        remedy = f"download one: hf download --repo-type dataset {dataset} --include 'NAME/*' --local-dir FOLDER, and pass FOLDER"
        raise InputError(dataset, "has several configurations", listed(sorted(map(printable, configurations))), remedy)
    return TABLES if tables else None


def _earlier(dataset: str) -> Path:
    """The folder of an earlier download, if it is whole. Raises an error of huggingface_hub if there is none."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(dataset, repo_type="dataset", allow_patterns=TABLES, local_files_only=True))
    if any(is_table(path.name) for path in folder.rglob("*.parquet")):
        return folder
    return Path(snapshot_download(dataset, repo_type="dataset", local_files_only=True))


@contextmanager
def _progress_on_terminals() -> Iterator[None]:
    """Progress bars of downloads inside, if someone may watch; their setting stays as it was."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    disabled = are_progress_bars_disabled()
    if sys.stderr.isatty() or disabled:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
