"""New datasets out of old ones: the robust and the non-robust version, wrong labels with faint evidence, and their controls.

Every function takes a frozen view of a model and a Dataset and returns `Made`: the new Dataset under the same names, and the
facts of how it came out, measured on the 8-bit images that will be stored.
"""

from notbugs.construct.controls import errors_only, noise_like, patterns_like, reads, taught, unread
from notbugs.construct.inverted import covariance_root, default_rule, evened, inverted, paper_rule
from notbugs.construct.made import Made
from notbugs.construct.relabelled import next_labels, random_labels, relabelled

__all__ = [
    "Made",
    "covariance_root",
    "default_rule",
    "errors_only",
    "evened",
    "inverted",
    "next_labels",
    "noise_like",
    "paper_rule",
    "patterns_like",
    "random_labels",
    "reads",
    "relabelled",
    "taught",
    "unread",
]
