"""How to cite notbugs and the paper, as BibTeX made from CITATION.cff alone, and a figure of a run."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, AuditMetadata, StudyMetadata
from notbugs.runs.source import source

ROOT = Path(__file__).parents[1]  # of the package
PLACES = (ROOT / "CITATION.cff", ROOT.parent / "CITATION.cff")  # of an installed package, of a checkout
ENTRY_TYPES = {"software": "software", "conference-paper": "inproceedings"}
FIELDS = {"title": "title", "collection-title": "booktitle", "year": "year", "version": "version", "url": "url", "note": "note"}


def bibtex(version: str = "", commit: str = "", commit_date: str = "") -> str:
    """BibTeX entries for notbugs and for what it builds on.

    The year is that of the release; of a version that is not released that of the commit, which is named.

    Parameters
    ----------
    version : str
        The version that was used, as run.json has it. Default: the current one, with its commit.
    commit, commit_date : str
        Of that version; "" if not known.

    Examples
    --------
    >>> bibtex("0.1.0").splitlines()[0]
    '@software{notbugs,'
    """
    cited = _citation()
    released = "date-released" in cited and version in ("", cited["version"])  # the date is of that version only
    if not version:
        commit, commit_date = source()
    added: dict[str, object] = {"version": version or cited["version"]}
    if released:
        added["year"] = cited["date-released"].year
    elif commit:
        added |= {"year": commit_date[:4]} if commit_date else {}
        added["note"] = f"not released; commit {commit}"
    entries = [_entry("notbugs", {**cited, **added})]
    return "\n\n".join([*entries, *(_entry(_key(each), each) for each in cited["references"])])


def sentence(row: Mapping[str, Any], run: RunFolder) -> str:
    """A row of the table `accuracy` with all that a reader needs to check it. Of a study the seed is the row's, of an audit 0."""
    about = _metadata(run)
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
    ]
    accuracy = f"{100 * row['accuracy']:.1f} % {'clean' if clean else 'robust'} accuracy"
    return f"{accuracy} ({', '.join(parts)}, {_origin(run)})"


def excess(row: Mapping[str, Any], run: RunFolder) -> str:
    """A row of the table `controls` with all that a reader needs to check it."""
    points, low, high = (f"{100 * row[name]:+.1f}" for name in ("excess", "excess_ci_low", "excess_ci_high"))
    both = [f"{row[name]} {100 * row[share]:.1f} %" for name, share in (("model", "accuracy"), ("control", "control_accuracy"))]
    study = run.study()
    epsilon = study.settings.get("relabel_epsilon")
    norm = NORM_NAMES.get(study.norm, study.norm)
    parts = [f"95 % CI [{low}, {high}] over the test images", f"n = {row['n']}", f"seed {row['seed']}", *both]
    if isinstance(epsilon, float | int):
        parts.append(f"perturbations {norm} ε = {epsilon:.4g}")
    parts += [f"{name}.py SHA-256 {digest[:16]}" for name, digest in run.metadata.get("extension_files", {}).items()]
    return f"{points} percentage points of test accuracy over the control ({', '.join(parts)}, {_origin(run)})"


def _metadata(run: RunFolder) -> AuditMetadata | StudyMetadata:
    return run.audit() if run.kind == "audit" else run.study()


def _origin(run: RunFolder) -> str:
    """The data, and what repeats the run: version, commit and command."""
    about = _metadata(run)
    version = f"notbugs {about.notbugs}{f', commit {about.commit}' if about.commit else ''}"
    data = f"data {about.dataset} (fingerprint {run.metadata.get('fingerprint', 'unknown')})"
    return f"{data}; {version}: {about.command or 'from Python'}"


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
