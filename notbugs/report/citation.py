"""How to cite notbugs and the paper, as BibTeX made from CITATION.cff alone, and a figure of a run."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, AuditMetadata, StudyMetadata

ROOT = Path(__file__).parents[1]  # of the package
PLACES = (ROOT / "CITATION.cff", ROOT.parent / "CITATION.cff")  # of an installed package, of a checkout
ENTRY_TYPES = {"software": "software", "conference-paper": "inproceedings"}
FIELDS = {"title": "title", "collection-title": "booktitle", "year": "year", "version": "version", "url": "url"}


def bibtex(version: str = "") -> str:
    """BibTeX entries for notbugs and for what it builds on.

    Parameters
    ----------
    version : str
        The version that was used; the current one if left out.

    Examples
    --------
    >>> bibtex("0.1.0").splitlines()[0]
    '@software{notbugs,'
    """
    cited = _citation()
    released = "date-released" in cited and version in ("", cited["version"])  # the date is of that version only
    year = {"year": cited["date-released"].year} if released else {}
    entries = [_entry("notbugs", {**cited, **year, "version": version or cited["version"]})]
    return "\n\n".join([*entries, *(_entry(_key(each), each) for each in cited["references"])])


def sentence(row: Mapping[str, Any], run: RunFolder) -> str:
    """A row of the table `accuracy` with all that a reader needs to check it. Of a study the seed is the row's, of an audit 0."""
    about: AuditMetadata | StudyMetadata = run.audit() if run.kind == "audit" else run.study()
    clean = row["epsilon"] == 0
    low, high = (100 * row[end] for end in ("ci_low", "ci_high"))
    parts = [f"95 % CI [{low:.1f}, {high:.1f}]", f"n = {row['n']}"]
    if not clean:
        norm = NORM_NAMES.get(row["norm"])
        parts += [f"{norm} ε = {row['epsilon']:.4g}" if norm else str(row["threat"]), str(row["attack"])]
    of = about.model if isinstance(about, AuditMetadata) else row["model"]
    tested = "" if row.get("set", "test") == "test" else f", on {row['set']}"
    parts += [
        f"seed {row.get('seed', 0)}",
        f"model {of}{tested}",
        f"data {about.dataset} (fingerprint {run.metadata.get('fingerprint', 'unknown')})",
    ]
    accuracy = f"{100 * row['accuracy']:.1f} % {'clean' if clean else 'robust'} accuracy"
    return f"{accuracy} ({', '.join(parts)}; notbugs {about.notbugs}: {about.command or 'from Python'})"


@cache
def _citation() -> Mapping[str, Any]:
    import yaml

    path = next(place for place in PLACES if place.is_file())
    cited: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return cited


def _key(cited: Mapping[str, Any]) -> str:
    return f"{cited['authors'][0]['family-names']}{cited['year']}".lower()


def _entry(key: str, cited: Mapping[str, Any]) -> str:
    """One entry. Braces keep capitals, and keep a name that is no person's in one piece."""
    lines = {"author": " and ".join(map(_author, cited["authors"]))}
    lines |= {name: str(cited[field]) for field, name in FIELDS.items() if field in cited}
    lines["title"] = "{" + lines["title"] + "}"
    inner = "".join(f"  {name} = {{{text}}},\n" for name, text in lines.items())
    return f"@{ENTRY_TYPES[cited['type']]}{{{key},\n{inner}}}"


def _author(person: Mapping[str, str]) -> str:
    return "{" + person["name"] + "}" if "name" in person else f"{person['family-names']}, {person['given-names']}"
