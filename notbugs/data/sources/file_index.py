"""The image files of a folder, by what tables and lists call them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from notbugs.data.names import one_form
from notbugs.data.sources.candidates import walk_images
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import is_neutral, split_of

LONGEST = 4096  # characters of a path, the most that Linux opens: each end of it is looked up


@dataclass
class FileIndex:
    """The image files of a folder, by what tables call them: a path, the end of one, a name with or without its ending."""

    base: Path
    by_path: dict[str, Path] = field(default_factory=dict)
    by_name: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_stem: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_folded: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_number: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))
    loosely: set[str] = field(default_factory=set)  # how names were matched that are not the same, for the notes

    @classmethod
    def of(cls, listing: Listing, base: Path) -> "FileIndex":
        """The files below a folder, but for masks and annotations beside images."""
        index = cls(base)
        for path in map(Path, walk_images(listing, base)):
            index.by_path[one_form(path.relative_to(base).as_posix())] = path
            index.by_name[one_form(path.name)].append(path)
            index.by_stem[one_form(path.stem)].append(path)
            index.by_folded[one_form(path.name).casefold()].append(path)
            if path.stem.isascii() and path.stem.isdecimal():
                index.by_number[int(path.stem)].append(path)
        return index

    def find(self, text: str, beside: str = "", split: str = "") -> list[Path]:
        """The files that a table's cell may mean: none, one, or several.

        beside: the table's folder, relative to the base. split: what the table is about, if its name says so. Of several files,
        those in a folder of this split are meant.
        """
        if len(text) > LONGEST:
            return []
        parts = [part for part in one_form(text).replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return []
        for start in range(len(parts)):  # "data/train/1.png" of another machine may be "train/1.png" here
            end = "/".join(parts[start:])
            for path in (f"{beside}/{end}" if beside else end, end):
                if path in self.by_path and self._agree(parts[:start], self.by_path[path]):
                    return [self.by_path[path]]
        found = self.by_name.get(parts[-1]) or self.by_stem.get(parts[-1]) or self._loosely(parts[-1])
        found = [path for path in found if self._agree(parts[:-1], path)]
        found = [path for path in found if not self.is_elsewhere(text, path)] or found
        return [path for path in found if split in self._splits(path)] or found if split else found

    def is_exact(self, text: str) -> bool:
        """Whether a cell is the whole name, with its ending, of a file."""
        name = one_form(text).replace("\\", "/").rpartition("/")[2]
        return name in self.by_name or name.casefold() in self.by_folded

    def _loosely(self, name: str) -> list[Path]:
        """Files whose names differ in case only, or, as numbers, in zeros in front, which spreadsheets leave out."""
        if found := self.by_folded.get(name.casefold()):
            self.loosely.add("names of files are matched without regard to case")
        elif (stem := name.rpartition(".")[0]) and (found := self.by_stem.get(stem)):
            self.loosely.add("names of files are matched without their endings")
        elif (
            (stem := stem or name).isascii() and stem.isdecimal() and len(stem) < 20 and (found := self.by_number.get(int(stem)))
        ):
            self.loosely.add("names of files are matched as numbers, without zeros in front")
        return found or []

    def _agree(self, folders: Sequence[str], path: Path) -> bool:
        """Whether folders that a table names and a file's own folders are not those of different parts."""
        named = {split for folder in folders if (split := split_of(folder))}
        own = self._splits(path)
        return not named or not own or bool(named & own)

    def is_elsewhere(self, text: str, path: Path) -> bool:
        """Whether a cell names other folders than those of a file, as far as they say more than that there is data."""
        named = folders_in(text)
        own = one_form(below(path, self.base)).split("/")[:-1] if named else []
        if own[-len(named) :] == named or named[-len(own) :] == own:  # most are: names are looked at where they differ
            return False
        pairs = zip(reversed(named), reversed(own), strict=False)
        return any(a.casefold() != b.casefold() and not _says_nothing(a) and not _says_nothing(b) for a, b in pairs)

    def _splits(self, path: Path) -> set[str]:
        return {split for folder in (self.base.name, *path.relative_to(self.base).parts[:-1]) if (split := split_of(folder))}


def folders_in(text: str) -> list[str]:
    """The folders that a table's cell names.

    Examples
    --------
    >>> folders_in("./a/b/1.png"), folders_in("1.png")
    (['a', 'b'], [])
    """
    return [part for part in one_form(text).replace("\\", "/").split("/")[:-1] if part not in ("", ".")]


def _says_nothing(folder: str) -> bool:
    """Whether a folder's name says only that there is data, or which part it is. A number may be a patient's."""
    return bool(split_of(folder)) or (is_neutral(folder) and any(map(str.isalpha, folder)))
