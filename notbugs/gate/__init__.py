"""The gate for pipelines: is a classifier robust enough, and can that be trusted? Imports no torch.

parse_requirement   "l2:0.5=30%" as a `Requirement`
decide              accuracies and sanity checks of an audit against requirements
as_json, as_junit, as_sarif   what was decided, as pipelines read it
"""

from notbugs.exit_codes import BELOW, NOT_TRUSTED, PASSED
from notbugs.gate.decide import Comparison, Decision, TimeLimit, decide
from notbugs.gate.formats import Evaluation, as_json
from notbugs.gate.junit import as_junit
from notbugs.gate.requirements import Requirement, parse_requirement
from notbugs.gate.sarif import as_sarif

__all__ = [
    "BELOW",
    "NOT_TRUSTED",
    "PASSED",
    "Comparison",
    "Decision",
    "Evaluation",
    "Requirement",
    "TimeLimit",
    "as_json",
    "as_junit",
    "as_sarif",
    "decide",
    "parse_requirement",
]
