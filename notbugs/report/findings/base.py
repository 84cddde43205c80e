"""What a finding is."""

from typing import Literal, NamedTuple

from notbugs.report.format import Estimate, minus
from notbugs.report.results import StudyResults

Status = Literal["supported", "partly supported", "not supported", "inconclusive"]
Answer = Literal["yes", "partly", "no", "unclear"]
Meaning = Literal["good", "bad", "neutral", "unclear"]
SMALL = 0.05  # a difference of accuracies: an answer is no only where its CI excludes a larger one


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
    effect : Estimate, optional
        The difference of accuracies on which the status rests: above 0 it speaks for a yes.
    trained : bool
        False if the answer is about a model that was given, which no seed changes.
    details : str
        More on how it was obtained. The page folds it away, and the terminal leaves it to the page.
    where : str
        Where a yes holds, if not everywhere.
    """

    question: str
    status: Status
    text: str
    news: Meaning = "neutral"
    effect: Estimate | None = None
    trained: bool = True
    details: str = ""
    where: str = ""

    @property
    def answer(self) -> Answer:
        """The answer to the question. A difference that was not measured is a no only if its CI excludes all but a small one."""
        if self.status == "not supported":
            return "unclear" if self.effect and self.effect.ci_high > SMALL else "no"
        answers: dict[Status, Answer] = {"supported": "yes", "partly supported": "partly", "inconclusive": "unclear"}
        return answers[self.status]

    @property
    def sentence(self) -> str:
        """The answer and how sure it is.

        Examples
        --------
        >>> Finding("Is it robust?", "supported", "Robust accuracy 60 %.").sentence
        'Yes, with 95 % confidence.'
        >>> gain = Estimate(0.6, 0.5, 0.7, n=250, seeds=1, over_seeds=False)
        >>> Finding("Is it robust?", "supported", "Robust accuracy 60 %.", effect=gain).sentence
        'Yes, for the models of this one seed (95 % confidence over the test images).'
        """
        if self.answer == "partly":
            return "Partly."
        if self.answer == "yes":
            yes = f"Yes {self.where}" if self.where else "Yes"
            if self.trained and self.effect and self.effect.seeds == 1 and not self.effect.over_seeds:
                return f"{yes}, for the models of this one seed (95 % confidence over the test images)."
            return f"{yes}{';' if self.where else ','} with 95 % confidence."
        if self.status == "inconclusive":
            return "Unclear."
        if self.effect is None:
            return "No, not measurably."
        if self.answer == "unclear":
            low, high = (minus(f"{100 * end:.1f}") for end in (self.effect.ci_low, self.effect.ci_high))
            return f"Unclear: the difference may be anything from {low} to {high} percentage points (95 % CI)."
        if self.effect.ci_high < 0:
            return "No, the opposite, with 95 % confidence."
        return f"No: with 95 % confidence at most {100 * self.effect.ci_high:.1f} percentage points."

    @property
    def meaning(self) -> Meaning:
        """The news; unclear while the answer is."""
        return "unclear" if self.answer == "unclear" else self.news


def image_share(results: StudyResults, epsilon: float) -> str:
    """A perturbation's L2 norm as a share of a typical image's; "" in other norms, or where no typical norm is known."""
    size = results.metadata.data.mean_l2
    return f"{100 * epsilon / size:.0f} %" if size and results.metadata.norm == "l2" else ""


def sample_size(estimate: Estimate) -> str:
    """Images and seeds behind an estimate."""
    return f"{estimate.n:,} test images, {estimate.seeds} seed{'s' if estimate.seeds > 1 else ''}"
