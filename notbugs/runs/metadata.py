"""What run.json says of a run, typed. A run that was stopped early has less: every field has a default. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


NORM_NAMES = {"l2": "L2", "linf": "Linf", "l1": "L1", "l0": "L0"}  # as people write them


@dataclass(frozen=True)
class DataSummary:
    """The data set.

    Attributes
    ----------
    train, test : int
        Numbers of images.
    notes : tuple of str
        What was decided in reading it.
    left_out : dict
        Number of files that are not used, by reason; tables/data_files.csv lists them.
    most_common : float
        Share of the test set's most common class.
    mean_l2 : float or None
        Mean L2 norm of the test images.
    nearest_same_class, nearest_other_class : float or None
        Median distance from a training image to the nearest other one of its class, and of another class, in the study's norm.
    """

    classes: tuple[str, ...] = ()
    train: int | None = None
    test: int | None = None
    shape: tuple[int, ...] = ()
    form: str = ""
    notes: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    most_common: float = 0.0
    mean_l2: float | None = None
    nearest_same_class: float | None = None
    nearest_other_class: float | None = None


@dataclass(frozen=True)
class RunMetadata:
    """What every kind of run records.

    kind: study, audit, files or theory; commit, commit_date: of notbugs, "" if not known; started: date and time in UTC, as ISO
    8601 has them; arguments: what was asked for.
    """

    kind: str = "study"
    notbugs: str = ""
    commit: str = ""
    commit_date: str = ""
    command: str = ""
    dataset: str = ""
    device: str = ""
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    data: DataSummary = DataSummary()
    started: str = ""
    seconds: float = 0.0
    finished: bool = False
    arguments: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyMetadata(RunMetadata):
    """A study.

    Attributes
    ----------
    epsilon_text : str
        As people write it, 8/255.
    options : dict
        What was asked for, in all commands on this folder, but for the data set and the device: fields of `StudyConfig`.
    settings : dict
        The resolved configuration. If the standard model was given: its name (model), a hash (model_sha256), of what
        (model_sha256_of), what its features are (model_features), and what was decided in loading it (model_notes).
    """

    norm: str = "l2"
    epsilon: float = math.nan
    epsilon_text: str = ""
    options: dict[str, Json] = field(default_factory=dict)
    settings: dict[str, Json] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    full: bool = False
    replicate: bool = False
    robust_strong: bool = False


@dataclass(frozen=True)
class AuditMetadata(RunMetadata):
    """An audit of one classifier.

    gradient: whether it has gradients; missing_gradient: why not, in a line; attack: the ensemble and registered attacks; draws:
    forward passes that each accuracy is the mean of, 1 unless the model is random; model_notes: what was decided in loading it;
    target: of targeted attacks, a class or a rule; conditions: what is to be known of the threat models and of which images are
    attacked: one sentence each.
    """

    model: str = ""
    threats: tuple[str, ...] = ()
    budget: str = ""
    gradient: bool = True
    missing_gradient: str = ""
    attack: str = ""
    draws: int = 1
    model_notes: tuple[str, ...] = ()
    target: str = ""
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilesMetadata(RunMetadata):
    """Scores of files. rank_stability: Spearman correlation expected with another such run; None for one repetition."""

    threat: str = ""
    settings: dict[str, Json] = field(default_factory=dict)
    seed: int = 0
    rank_stability: float | None = None

    @property
    def threat_model(self) -> str:
        """Norm and epsilon in words.

        Examples
        --------
        >>> FilesMetadata(threat="linf 8/255").threat_model
        'Linf ε = 8/255'
        """
        norm, _, epsilon = self.threat.partition(" ")
        return f"{NORM_NAMES.get(norm, norm)} ε = {epsilon}"


@dataclass(frozen=True)
class TheoryMetadata(RunMetadata):
    """The two-Gaussian model."""


Metadata = TypeVar("Metadata", bound=RunMetadata | DataSummary)


def epsilon_text(epsilon: float) -> str:
    """An epsilon as people write it.

    Examples
    --------
    >>> [epsilon_text(value) for value in (0.5, 8 / 255)]
    ['0.5', '8/255']
    """
    levels, text = round(epsilon * 255), f"{epsilon:g}"
    return f"{levels}/255" if len(text) > 5 and abs(epsilon * 255 - levels) < 1e-6 else text


def parse(kind: type[Metadata], given: Mapping[str, Any]) -> Metadata:
    """The metadata in run.json as one of these types; what is missing or of another type has its default."""
    if kind is DataSummary and "notes" not in given:  # as earlier versions wrote it
        given = {**given, "notes": [note for note in [given.get("note")] if note], "left_out": _earlier_skipped(given)}
    hints, values = get_type_hints(kind), {}
    for each in fields(kind):
        if each.name in given:
            value = _converted(hints[each.name], given[each.name])
            if value is not None:
                values[each.name] = value
    return kind(**values)


def _earlier_skipped(given: Mapping[str, object]) -> dict[str, int]:
    skipped = given.get("skipped")
    return {"cannot be read": len(skipped)} if isinstance(skipped, list) and skipped else {}


def _converted(hint: Any, value: Any) -> Any:
    """A JSON value as the type of its field, None where it does not fit."""
    if hint is DataSummary:
        return parse(DataSummary, value) if isinstance(value, dict) else None
    origin = get_origin(hint)
    if origin is tuple:
        kind = get_args(hint)[0]
        if not isinstance(value, list):
            return None
        if kind is str:
            return tuple(map(str, value))
        return tuple(value) if all(type(each) is kind for each in value) else None
    if origin is dict:
        kind = get_args(hint)[1]
        fits = isinstance(value, dict) and (not isinstance(kind, type) or all(type(each) is kind for each in value.values()))
        return value if fits else None
    kinds = tuple(kind for kind in get_args(hint) or (hint,) if kind is not NoneType)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) else None
