"""What a finding is."""

from typing import Literal, NamedTuple

from notbugs.report.format import Estimate

Status = Literal["supported", "partly supported", "not supported", "inconclusive"]
Meaning = Literal["good", "bad", "neutral", "unclear"]


class Finding(NamedTuple):
    """A question, whether the figures support a yes, the sentences that say so, and what it means for the user.

    Attributes
    ----------
    question : str
    status : {"supported", "partly supported", "not supported", "inconclusive"}
        Supported only if the 95 % CI allows the claim.
    text : str
        First the result, then how it was obtained, then the caution.
    news : {"good", "bad", "neutral"}
        What the answer means for someone who uses the classifier.
    """

    question: str
    status: Status
    text: str
    news: Meaning = "neutral"

    @property
    def meaning(self) -> Meaning:
        """The news; unclear while the question is."""
        return "unclear" if self.status == "inconclusive" else self.news


def sample_size(estimate: Estimate) -> str:
    """Images and seeds behind an estimate."""
    return f"{estimate.n:,} test images, {estimate.seeds} seed{'s' if estimate.seeds > 1 else ''}"
