"""How to cite notbugs and the paper, as BibTeX made from CITATION.cff alone, and a figure of a run."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.metadata import NORM_NAMES, AuditMetadata, StudyMetadata
from notbugs.runs.source import source
from notbugs.stats import student_interval

Fields = Mapping[str, Any]  # of a row of a table, of an entry in CITATION.cff
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


SAME_ACCURACY = ("model", "trained_on", "set", "norm", "epsilon", "attack", "n")  # in the rows of one figure, of several seeds
SAME_CONTROL = ("model", "control", "n")


def sentence(rows: Sequence[Fields], run: RunFolder) -> str:
    """Rows of the table `accuracy`, of one seed or of several, with what a reader needs to check them. An audit has seed 0."""
    about, row = _metadata(run), _mean(rows, SAME_ACCURACY, "accuracy", "ci_low", "ci_high")
    clean = row["epsilon"] == 0
    low, high = (100 * row[end] for end in ("ci_low", "ci_high"))
    over = f" over {len(rows)} training seeds" if len(rows) > 1 else ""
    parts = [f"95 % CI [{low:.1f}, {high:.1f}]{over}", f"n = {row['n']}"]
    if not clean:
        norm = NORM_NAMES.get(row["norm"])
        parts += [f"{norm} ε = {row['epsilon']:.4g}" if norm else str(row["threat"]), str(row["attack"])]
    of = about.model if isinstance(about, AuditMetadata) else row["model"]
    tested = "" if row.get("set", "test") == "test" else f", on {row['set']}"
    parts += [
        _seeds(rows),
        f"model {of}{tested}",
        *_modules(run, str(row.get("model", ""))),
    ]
    accuracy = f"{100 * row['accuracy']:.1f} % {'clean' if clean else 'robust'} accuracy"
    return f"{accuracy} ({', '.join(parts)}, {_origin(run)})"


def excess(rows: Sequence[Fields], run: RunFolder) -> str:
    """Rows of the table `controls`, of one seed or of several, with all that a reader needs to check them."""
    row = _mean(rows, SAME_CONTROL, "excess", "excess_ci_low", "excess_ci_high", "accuracy", "control_accuracy")
    over = f"{len(rows)} training seeds" if len(rows) > 1 else "the test images"
    points, low, high = (f"{100 * row[name]:+.1f}" for name in ("excess", "excess_ci_low", "excess_ci_high"))
    both = [f"{row[name]} {100 * row[share]:.1f} %" for name, share in (("model", "accuracy"), ("control", "control_accuracy"))]
    study = run.study()
    epsilon = study.settings.get("relabel_epsilon")
    norm = NORM_NAMES.get(study.norm, study.norm)
    parts = [f"95 % CI [{low}, {high}] over {over}", f"n = {row['n']}", _seeds(rows), *both]
    if isinstance(epsilon, float | int):
        parts.append(f"perturbations {norm} ε = {epsilon:.4g}")
    parts += _modules(run, row["model"], row["control"])
    return f"{points} percentage points of test accuracy over the control ({', '.join(parts)}, {_origin(run)})"


def _mean(rows: Sequence[Fields], same: Sequence[str], value: str, low: str, high: str, *others: str) -> Fields:
    """The row itself; of several seeds one with means, and the interval over seeds. Raises InputError for unlike rows."""
    if len(rows) == 1:
        return rows[0]
    if differ := [name for name in same if len({str(row.get(name)) for row in rows}) > 1]:
        raise InputError("row", "must be rows of one figure, which differ by their seed alone", f"other {', '.join(differ)}")
    seeds = [row.get("seed") for row in rows]
    if len({*seeds}) < len(seeds):
        raise InputError("row", "must be one row, or one of each seed", f"seeds {', '.join(map(str, seeds))}")
    mean, least, most = student_interval([float(row[value]) for row in rows])
    return {**rows[0], **{name: fmean(row[name] for row in rows) for name in others}, value: mean, low: least, high: most}


def _modules(run: RunFolder, *models: str) -> list[str]:
    """SHA-256 of the modules of the user's own, if one of the models was trained on a set of theirs."""
    own = {f"trained-on-{name}" for name in run.metadata.get("extensions", [])}
    if not own.intersection(models):
        return []
    return [f"{name}.py SHA-256 {digest[:16]}" for name, digest in run.metadata.get("extension_files", {}).items()]


def _seeds(rows: Sequence[Fields]) -> str:
    seeds = [str(row.get("seed", 0)) for row in rows]
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _metadata(run: RunFolder) -> AuditMetadata | StudyMetadata:
    return run.audit() if run.kind == "audit" else run.study()


def _origin(run: RunFolder) -> str:
    """The data, and what repeats the run: version, commit and command."""
    about = _metadata(run)
    version = f"notbugs {about.notbugs}{f', commit {about.commit}' if about.commit else ''}"
    data = f"data {about.dataset} (fingerprint {run.metadata.get('fingerprint', 'unknown')})"
    return f"{data}; {version}: {about.command or 'from Python'}"


@cache
def _citation() -> Fields:
    import yaml

    path = next(place for place in PLACES if place.is_file())
    cited: Fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    return cited


def _key(cited: Fields) -> str:
    return f"{cited['authors'][0]['family-names']}{cited['year']}".lower()


def _entry(key: str, cited: Fields) -> str:
    """One entry. Braces keep capitals, and keep a name that is no person's in one piece."""
    lines = {"author": " and ".join(map(_author, cited["authors"]))}
    lines |= {name: str(cited[field]) for field, name in FIELDS.items() if field in cited}
    lines["title"] = "{" + lines["title"] + "}"
    inner = "".join(f"  {name} = {{{text}}},\n" for name, text in lines.items())
    return f"@{ENTRY_TYPES[cited['type']]}{{{key},\n{inner}}}"


def _author(person: Mapping[str, str]) -> str:
    return "{" + person["name"] + "}" if "name" in person else f"{person['family-names']}, {person['given-names']}"
