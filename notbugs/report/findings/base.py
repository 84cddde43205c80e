"""What a finding is."""

from typing import Literal, NamedTuple

from notbugs.report.format import Estimate

Status = Literal["supported", "partly supported", "not supported", "inconclusive"]


class Finding(NamedTuple):
    """A question, whether the figures support a yes, and the sentences that say so.

    Attributes
    ----------
    question : str
    status : {"supported", "partly supported", "not supported", "inconclusive"}
        Supported only if the 95 % CI allows the claim.
    text : str
        First the result, then how it was obtained, then the caution.
    """

    question: str
    status: Status
    text: str


def sample_size(estimate: Estimate) -> str:
    """Images and seeds behind an estimate."""
    return f"{estimate.n:,} test images, {estimate.seeds} seed{'s' if estimate.seeds > 1 else ''}"
