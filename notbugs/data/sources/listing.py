"""What is in a folder of images: files and folders by name, links, and what is left out, with the reason for each."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from notbugs.data.names import IMAGE_SUFFIXES, SYSTEM, Unreadable, is_printable, printable
from notbugs.data.sources.refused import ending
from notbugs.errors import InputError

# Files that lie beside images and are none. Files with other endings, or with none, are opened.
NO_IMAGES = frozenset(
    (
        ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".txt", ".md", ".rst", ".yaml", ".yml", ".toml", ".ini", ".cfg",
        ".log", ".dvc", ".mdb", ".lmdb", ".rec", ".lst", ".beton", ".joblib", ".feather", ".msgpack", ".avro", ".arff", ".sqlite",
        ".db", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".bz2", ".xz", ".zst",
        ".pdf", ".html", ".htm", ".doc", ".docx", ".xls", ".xlsx", ".py", ".ipynb", ".sh", ".parquet", ".arrow", ".zip", ".tar",
        ".gz", ".md5", ".sha256", ".url", ".bib", ".names", ".lock", ".mat", ".m", ".npz", ".npy", ".h5", ".hdf5", ".keras",
        ".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".pkl", ".pickle", ".cache", ".tfrec", ".tfrecord", ".tfrecords", ".tgz",
        ".7z", ".rar", ".manifest",
    )
)  # fmt: skip
NO_IMAGE_NAMES = frozenset(("license", "licence", "copying", "notice", "readme", "changelog", "authors", "makefile", "_ds_store"))
Entries = tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]  # of a folder by name: the others, the hidden and system ones
LEAVES = "is a link that leaves the folder (to follow it: --follow-links)"
LINKED = "is a linked folder (to follow it: --follow-links)"
HIDDEN_FOLDER = "is a hidden or system folder, with all that is in it"
BROKEN_NAME = "has control characters or bytes that are not UTF-8 in its name"
LOOP, MISSING = "is a link to a folder that it lies in", "is a link to a file that does not exist"


def below(path: Path | str, folder: Path) -> str:
    """A path relative to a folder, with slashes; "" if it is not in it. A tenth of the time of pathlib, for each of many files.

    Examples
    --------
    >>> below("set/train/cat/1.png", Path("set/train")), below(Path("a/b"), Path("c"))
    ('cat/1.png', '')
    >>> below("/set/1.png", Path("/"))
    'set/1.png'
    """
    text, above = str(path), str(folder)
    start = "" if above == "." else f"{above.rstrip(os.sep)}{os.sep}"
    return text[len(start) :].replace(os.sep, "/") if text.startswith(start) else ""


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is hidden, or one that operating systems and tools put into folders."""
    return name.startswith(".") or name.casefold() in SYSTEM


def _is_plain(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is an image by its ending, and no link: then nothing else needs to be looked at. So are most."""
    name = entry.name
    return name.lower().endswith(IMAGE_SUFFIXES) and name.isprintable() and entry.is_file(follow_symlinks=False)


def _is_no_image(name: str) -> bool:
    """Whether a file is none by its name."""
    return os.path.splitext(name)[1].lower() in NO_IMAGES or ending(name) in NO_IMAGES or name.casefold() in NO_IMAGE_NAMES


def _path(entry: "os.DirEntry[str]") -> str:
    return entry.path.removeprefix(f".{os.sep}")  # of the current folder, where Path has none


class Listing:
    """Lists the folders of one data set by name, and keeps a list of what is left out.

    Attributes
    ----------
    unreadable : list of Unreadable
        Files that should have been read and must not be opened.
    left_out : list of Unreadable
        System files, and files that are no images.
    links : list of str
        Links that were followed out of the folder.
    """

    def __init__(self, root: Path, *, follow_links: bool = False) -> None:
        self.root = root
        self.follow_links = follow_links
        self.unreadable: list[Unreadable] = []
        self.left_out: list[Unreadable] = []
        self.links: list[str] = []
        self._inside = root.resolve()
        self._noted: set[str] = set()
        self._used: set[str] = set()
        self._seen: set[Path] = set()
        self._known: dict[Path, Entries] = {}

    def another(self) -> "Listing":
        """A listing of the same data set that has left out nothing yet. A folder is read once for all of them."""
        listing = Listing(self.root, follow_links=self.follow_links)
        listing._known = self._known
        return listing

    def add(self, other: "Listing") -> None:
        """Take over what another listing of the same data set found."""
        for own, theirs in ((self.unreadable, other.unreadable), (self.left_out, other.left_out)):
            own += [item for item in theirs if item.location not in self._noted]
        self._noted |= other._noted
        self.left_out = [item for item in self.left_out if item.location not in other._used]
        self.links += other.links

    def relative(self, path: Path | str) -> str:
        """A path as messages show it: inside the data set, if it is there."""
        return below(path, self.root) or Path(path).as_posix()

    def folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, by name. Raises InputError for a linked one unless links are followed."""
        found = [Path(entry.path) for entry in self._entries(folder) if entry.is_dir()]
        for path in found:
            if path.is_symlink() and not self.follow_links:
                raise InputError(printable(str(path)), LINKED)
        return found

    def own_folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, by name, without links."""
        return [Path(entry.path) for entry in self._entries(folder) if entry.is_dir() and not entry.is_symlink()]

    def files(self, folder: Path) -> list[Path]:
        """The files directly in a folder that may be images, by name."""
        found = [Path(entry.path) for entry in self._entries(folder) if not entry.is_dir()]
        return [path for path in found if not _is_no_image(path.name)]

    def beside(self, folder: Path, among: Collection[str] = ()) -> Iterator[Path]:
        """The files directly in a folder that may be images, or those with certain endings.

        Of images, others are added to `left_out` or `unreadable`; of other files, those that must not be opened are passed over.
        """
        for entry in self._entries(folder):
            path = Path(entry.path)
            if among:
                wanted = path.suffix.lower() in among and entry.is_file() and (self.follow_links or not self._leaves(path))
            else:
                wanted = not entry.is_dir() and self._may_open(entry)
            if wanted:
                yield path

    def walk(self, folder: Path) -> Iterator[str]:
        """The paths of all files below a folder that may be images, by name. Others are added to `left_out` or `unreadable`.

        Not as Path, which takes 6 microseconds to make and to send to another process: a hundredth of the time to read an image.
        """
        inside = folder.resolve()
        stack = [(iter(self._entries(folder)), {inside, *inside.parents})]
        while stack:
            entries, above = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
            elif _is_plain(entry):
                yield _path(entry)
            elif entry.is_dir() and self._may_enter(entry, above):
                path = Path(entry.path)
                stack.append((iter(self._entries(path)), above | {path.resolve()} if self.follow_links else above))
            elif not entry.is_dir() and self._may_open(entry):
                yield _path(entry)

    def may_hold_images(self, folder: Path) -> bool:
        """Whether a folder is empty or holds, at any depth, a file that may be an image."""
        below = self.another()
        return any(True for _ in below.walk(folder)) or bool(below.unreadable) or not below.left_out

    def leave_out(self, path: Path | str, reason: str) -> None:
        """Add to what is left out, once."""
        if (location := self.relative(path)) not in self._noted:
            self._noted.add(location)
            self.left_out.append(Unreadable(location, reason))

    def use(self, path: Path) -> None:
        """Say that a file is used, though it is no image: it is not left out."""
        location = self.relative(path)
        self._noted.add(location)
        self._used.add(location)
        self.left_out = [item for item in self.left_out if item.location != location]

    def refuse(self, path: Path | str, reason: str) -> None:
        """Add to what cannot be read, once."""
        if (location := self.relative(path)) not in self._noted:
            self._noted.add(location)
            self.unreadable.append(Unreadable(location, reason))

    def _may_enter(self, entry: "os.DirEntry[str]", above: set[Path]) -> bool:
        path = Path(entry.path)
        if not is_printable(entry.name):
            self.refuse(path, BROKEN_NAME)
        elif not entry.is_symlink():
            return True
        elif not self.follow_links:
            self.refuse(path, LEAVES if self._leaves(path) else LINKED)  # a linked folder may lead back up and never end
        elif path.resolve() in above:
            self.leave_out(path, LOOP)
        else:
            self._note_link(path)
            return True
        return False

    def _may_open(self, entry: "os.DirEntry[str]") -> bool:
        if _is_no_image(entry.name):
            self.leave_out(Path(entry.path), f"is no image ({ending(entry.name) or entry.name})")
        elif not is_printable(entry.name):
            self.refuse(Path(entry.path), BROKEN_NAME)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            self.refuse(Path(entry.path), MISSING)
        elif entry.is_symlink() and not self.follow_links and self._leaves(Path(entry.path)):
            self.refuse(Path(entry.path), LEAVES)
        elif not entry.is_file():  # opening a pipe would wait forever
            self.refuse(Path(entry.path), "is not a file")
        else:
            self._note_link(Path(entry.path)) if entry.is_symlink() else None
            return True
        return False

    def refuses_link(self, entry: "os.DirEntry[str]") -> str:
        """Why an entry is a link that is not followed; "" for all other entries."""
        if not entry.is_symlink():
            return ""
        if not os.path.exists(entry.path):
            return MISSING
        path = Path(entry.path)
        if entry.is_dir() and not self.follow_links:
            return LEAVES if self._leaves(path) else LINKED
        if entry.is_dir() and path.parent.resolve().is_relative_to(path.resolve()):
            return LOOP
        return LEAVES if not self.follow_links and self._leaves(path) else ""

    def _leaves(self, path: Path) -> bool:
        """Whether a path leads out of the data set."""
        return not path.resolve().is_relative_to(self._inside)

    def _note_link(self, path: Path) -> None:
        if self._leaves(path):
            self.links.append(self.relative(path))

    def _entries(self, folder: Path) -> list["os.DirEntry[str]"]:
        """The entries of a folder by name, without hidden and system ones. Raises InputError if it cannot be opened."""
        if folder not in self._known:
            self._known[folder] = self._read(folder)
        if folder in self._seen:
            return self._known[folder][0]
        self._seen.add(folder)
        kept, system = self._known[folder]
        for entry in system:
            self.leave_out(Path(entry.path), "is a hidden or system file" if not entry.is_dir() else HIDDEN_FOLDER)
        return kept

    @staticmethod
    def _read(folder: Path) -> Entries:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(
                printable(str(folder)), "cannot be opened", error.strerror, "make it readable, or move it away"
            ) from None
        kept, system = list[os.DirEntry[str]](), list[os.DirEntry[str]]()
        for entry in entries:
            (system if is_hidden(entry.name) else kept).append(entry)
        return kept, system
