"""The data check: duplicates, classes, contrast and mirroring, measured before any training.

check_data          all of it, as typed findings
measure_mirroring   whether horizontal flips turn one class into another
check_stage         the check as the first stage of a run
"""

from notbugs.datacheck.check import DataCheck, check_data
from notbugs.datacheck.mirroring import Mirroring, measure_mirroring
from notbugs.datacheck.stage import check_stage

__all__ = ["DataCheck", "Mirroring", "check_data", "check_stage", "measure_mirroring"]
