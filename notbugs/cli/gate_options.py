"""The gate of `notbugs attack`: its options, what is required, and the files for pipelines."""

import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypedDict

import typer

from notbugs.atomic import check_no_device
from notbugs.cli.options import with_group
from notbugs.cli.say import say
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.audit import AuditConfig
    from notbugs.gate import Comparison, Evaluation, Requirement
    from notbugs.runs.tables.audit import CheckRow

FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        metavar="THREAT=SHARE",
        help="Exit with 1 if the lower end of the 95 % CI of the robust accuracy is below a share: l2:0.5=30%, linf:8/255=0.3, "
        "clean=90%, or 30% for the largest epsilon. Else exit with 3 if a sanity check failed. The threat model is attacked "
        "beside those of --epsilon. May be repeated.",
    ),
]
AcceptCheck = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="With --fail-under: a sanity check that may fail. A black box fails `gradients`, whatever is done: its robust "
        "accuracy is a loose upper bound, and this option says that you know. May be repeated.",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write accuracies, checks and the decision as JSON. Documentation: A gate for pipelines."
    ),
]
JunitFile = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="The same as JUnit XML, for GitLab and Jenkins.")]
SarifFile = Annotated[Path | None, typer.Option("--sarif", metavar="FILE", help="The same as SARIF 2.1.0, for code scanning.")]
TimeLimitText = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop attacking after 90s, 10m or 2h. What was reached by then is said, and compared with --fail-under; with --out "
        "the same command resumes it.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be attacked and how long it would take.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only errors, why a requirement is not met, and one line if all are.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print also every sanity check and the accuracy of each class.")]
HINTS = {  # in the order of --help
    "fail_under": FailUnder,
    "accept_check": AcceptCheck,
    "json": JsonFile,
    "junit": JunitFile,
    "sarif": SarifFile,
    "time_limit": TimeLimitText,
    "dry_run": DryRun,
    "quiet": Quiet,
    "verbose": Verbose,
}


class Given(TypedDict):
    """The options as typer gives them."""

    fail_under: list[str] | None
    accept_check: list[str] | None
    json: Path | None
    junit: Path | None
    sarif: Path | None
    time_limit: str | None
    dry_run: bool
    quiet: bool
    verbose: bool


NONE_GIVEN: Given = {
    "fail_under": None,
    "accept_check": None,
    "json": None,
    "junit": None,
    "sarif": None,
    "time_limit": None,
    "dry_run": False,
    "quiet": False,
    "verbose": False,
}
STATES = {"met": "met", "below": "NOT MET", "inconclusive": "NOT DECIDED", "not trusted": "NOT TRUSTED"}
SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def with_gate_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `gate_options`, a dictionary, comes from these options."""
    kind = Parameter.POSITIONAL_OR_KEYWORD
    defaults: Mapping[str, object] = NONE_GIVEN
    parameters = [Parameter(name, kind, default=defaults[name], annotation=hint) for name, hint in HINTS.items()]
    return with_group(command, "gate_options", parameters)


@dataclass(frozen=True)
class GateOptions:
    """The options, read and checked.

    Attributes
    ----------
    requirements : tuple of Requirement
    accepted : tuple of str
        Sanity checks that may fail.
    files : dict
        What to write, by option: "json", "junit", "sarif".
    time_limit : float or None
        In seconds.
    dry_run, quiet, verbose : bool
    """

    requirements: tuple["Requirement", ...]
    accepted: tuple[str, ...]
    files: Mapping[str, Path]
    time_limit: float | None
    dry_run: bool
    quiet: bool
    verbose: bool

    @classmethod
    def read(cls, given: Given) -> Self:
        """Raises InputError for options that cannot be used."""
        from notbugs.gate import parse_requirement

        if given["quiet"] and given["verbose"]:
            raise InputError("--quiet, --verbose", "must not both be given", remedy="leave one out")
        named = {"json": given["json"], "junit": given["junit"], "sarif": given["sarif"]}
        files = {name: path for name, path in named.items() if path is not None}
        _check_files(files)
        return cls(
            requirements=tuple(map(parse_requirement, given["fail_under"] or ())),
            accepted=tuple(map(_acceptable, given["accept_check"] or ())),
            files=files,
            time_limit=parse_time(given["time_limit"]) if given["time_limit"] is not None else None,
            dry_run=given["dry_run"],
            quiet=given["quiet"],
            verbose=given["verbose"],
        )


def _acceptable(name: str) -> str:
    """The name of a sanity check. Raises InputError for another one, and for those that put every accuracy in doubt."""
    from notbugs.runs.tables.audit import CHECKS, DOUBTS_ALL

    name, known = name.strip().replace("-", " "), [check for check in CHECKS if check not in DOUBTS_ALL]
    if name in DOUBTS_ALL:
        raise InputError("--accept-check", "must not be a check that puts every accuracy in doubt", name, "mend what it names")
    if name not in known:
        raise InputError("--accept-check", f"must be one of {', '.join(known)}", repr(name))
    return name


def _check_files(files: Mapping[str, Path]) -> None:
    """Raises InputError for files that cannot be written, or are the same."""
    seen: dict[str, str] = {}
    for name, path in files.items():
        check_no_device(path)
        if path.is_dir() or not str(path.name):
            raise InputError(f"--{name}", "must be a file", f"the folder {path}", f"pass {path / f'attack.{name}'}")
        if other := seen.get(os.path.realpath(path)):
            raise InputError(f"--{name}", f"must be another file than --{other}", str(path), "choose another")
        seen[os.path.realpath(path)] = name


def parse_time(text: str) -> float:
    """ "90s", "10m", "1.5h" or a number of seconds. Raises InputError for anything else.

    Examples
    --------
    >>> [parse_time(text) for text in ("90", "90s", "10m", "1.5h")]
    [90.0, 90.0, 600.0, 5400.0]
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip())
    if not found or found[2] not in SECONDS or not 0 < float(found[1]) * SECONDS[found[2]] < math.inf:
        raise InputError("--time-limit", "must be above 0, in seconds, minutes or hours: 90s, 10m, 2h", repr(text))
    return float(found[1]) * SECONDS[found[2]]


def with_required(requirements: Sequence["Requirement"], threats: Sequence[str], norm: str | None) -> list[str]:
    """The threat models of --epsilon and those that are required, each once."""
    from notbugs.audit.default_threats import is_open
    from notbugs.search.threat_models import parse_threat_model

    found = list(threats)
    for requirement in requirements:
        if (text := requirement.threat) in (None, "clean"):
            continue
        text = text if ":" in text or norm is None else f"{norm}:{text}"
        if is_open(text):
            raise InputError("--fail-under", "must name an epsilon", requirement.text, "a share alone means the largest epsilon")
        try:
            threat = str(parse_threat_model(text))
        except InputError as error:
            _, rule, got, remedy = error.args
            raise InputError("--fail-under", f"{rule}, in THREAT=SHARE, as l2:0.5=30%", got, remedy) from None
        if threat not in [str(parse_threat_model(other)) for other in found if not is_open(other)]:
            found.append(text)
    return found


def required_rows(
    requirements: Sequence["Requirement"], config: "AuditConfig", norm: str | None
) -> list[tuple["Requirement", str]]:
    """Each requirement with what tables call its threat model. Raises InputError for one that cannot be met."""
    from notbugs.audit.images import test_part
    from notbugs.audit.threats import required_threat
    from notbugs.gate.requirements import check_reachable

    found = []
    for requirement in requirements:
        text = requirement.threat
        if text not in (None, "clean") and norm is not None and ":" not in text:
            text = f"{norm}:{text}"
        found.append((requirement, required_threat(config, text)))
    check_reachable(list(requirements), len(test_part(config)[0]))
    return found


def write_files(files: Mapping[str, Path], evaluation: "Evaluation") -> None:
    """Write what pipelines read, each file whole."""
    from notbugs import gate
    from notbugs.atomic import atomic_write_text

    forms = {"json": gate.as_json, "junit": gate.as_junit, "sarif": gate.as_sarif}
    for name, path in files.items():
        atomic_write_text(path, forms[name](evaluation))


def _accepted(check: "CheckRow") -> str:
    return f"accepted: the sanity check `{check.check}` failed (--accept-check): the robust accuracy may be overestimated"


def _measured(comparison: "Comparison") -> str:
    """A requirement and the accuracy, in a few words."""
    row = comparison.row
    interval = f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    return f"{comparison.requirement.text}: {100 * row.accuracy:.1f} % {interval} of {row.n} images"


def print_decision(evaluation: "Evaluation", *, quiet: bool) -> None:
    """Each requirement, whether it is met or not, and the outcome.

    quiet: on standard error, why it is not passed, and what was accepted; one line if it is passed.
    """
    from notbugs.gate.decide import LATER

    decision = evaluation.decision
    if quiet:
        for line in (*decision.lines, *map(_accepted, decision.accepted)):
            say(f"notbugs: {line}", file=sys.stderr)
        if decision.required and not decision.exit_code:
            limit = f"; time limit: {decision.time_limit.sentence}" if decision.time_limit else ""
            say(f"Gate: {decision.outcome} (exit code 0): {'; '.join(map(_measured, decision.comparisons))}{limit}")
    elif decision.exit_code and not decision.required:
        say(f"NOT MEASURED: no image was attacked to the end; {LATER} (exit code {decision.exit_code})")
    elif decision.required:
        for each in decision.comparisons:
            say(f"{STATES[each.state]}: {each.line}")
        for requirement, threat in decision.unmeasured:
            say(f"NOT DECIDED: {requirement.text}: no image was attacked within {threat}")
        for line in map(_accepted, decision.accepted):
            say(line)
        for check in decision.failed:
            say(f"NOT TRUSTED: the sanity check `{check.check}` failed: see its warning above")
        if decision.time_limit_line:
            say(f"NOT TRUSTED: {decision.time_limit_line}")
        bound = "; the accuracy is an upper bound, so better attacks would not help" if decision.failed else ""
        say(f"Gate: {decision.outcome} (exit code {decision.exit_code}){bound if decision.outcome == 'below' else ''}")
