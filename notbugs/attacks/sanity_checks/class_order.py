"""Checks of clean predictions: whether the outputs stand in the order of the classes, and whether they are better than chance."""

from collections.abc import Sequence

from torch import Tensor

from notbugs import shell
from notbugs.attacks.sanity_checks.check import NOT_TRUSTED, Check
from notbugs.models.class_order import OutputOrder, find_order
from notbugs.models.output_names import class_map_text
from notbugs.stats import wilson_interval

LONGEST_MAP = 400  # characters of a class map in a message
MAP_FILE = "class_map.json"  # in the folder of an audit, where the order is another one


def class_order(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> Check:
    """The outputs stand in the order of the classes: in no other order are the predictions far more accurate.

    Parameters
    ----------
    predicted, labels : Tensor, int64 (n,)
        Of clean images.
    classes : sequence of str
        Names of the K classes, in the order of the labels.

    Examples
    --------
    >>> import torch
    >>> labels = torch.arange(60) % 3
    >>> class_order((labels + 1) % 3, labels, ["cat", "dog", "fox"]).fix
    'If that is so: --class-map cat=1,dog=2,fox=0'
    """
    rationale = (
        "With its outputs in another order than the classes a good model looks bad, and every image counts as misclassified."
    )
    if len(labels.unique()) < 2:  # type: ignore[no-untyped-call]
        observed = f"all {len(labels)} images are of one class"
        return Check("class order", None, observed, rationale, "Attack images of several classes.", NOT_TRUSTED, len(labels))
    accuracy = f"accuracy is {(predicted == labels).double().mean().item():.1%} on {len(labels)} clean images"
    found = find_order(predicted.cpu().numpy(), labels.cpu().numpy(), classes)
    if found is None:
        observed, fix = f"{accuracy}; it is not far higher if outputs are read in another order", "Nothing to do."
    else:
        cause = f": {found.cause}" if found.cause else ""
        low, high = wilson_interval(found.accuracy * len(labels), len(labels))
        other = f"{found.accuracy:.1%}, 95 % CI [{low:.1%}, {high:.1%}],"
        observed = f"{accuracy}, but {other} if the model's outputs are read in another order{cause}"
        fix = f"If that is so: {remedy(found, classes)}"
    return Check("class order", found is None, observed, rationale, fix, NOT_TRUSTED, len(labels))


def remedy(found: OutputOrder, classes: Sequence[str]) -> str:
    """The option that reads the outputs in the order that was found."""
    text = class_map_text(classes, [[output] for output in found.outputs])
    if text and len(text) <= LONGEST_MAP:
        return f"--class-map {shell.quote(text)}"
    return f"--class-map FILE, with the file {MAP_FILE} that `notbugs attack --out FOLDER` writes into FOLDER"


def above_chance(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> Check:
    """The clean accuracy is not below chance; nor at chance, if there are images enough to tell.

    Fails if its 95 % CI is below 1 / K; or contains 1 / K and is narrow: ends below 2 / K or 10 %, and less than half way to 1.
    """
    correct, n, chance = int((predicted == labels).sum()), len(labels), 1 / len(classes)
    low, high = wilson_interval(correct, n)
    place = "below" if high < chance else "not measurably above" if low <= chance else "above"
    passed = True if place == "above" else False if high < min(max(2 * chance, 0.1), (1 + chance) / 2) else None
    return Check(
        "above chance",
        passed,
        f"clean accuracy is {correct / n:.1%}, 95 % CI [{low:.1%}, {high:.1%}], on {n} images: {place} chance, {chance:.1%}",
        "A model that is no better than chance has no robustness to measure. Most often its images are not as it expects them.",
        "See whether the checks `class order` and `pixel range` pass, and whether the model was trained for these images.",
        NOT_TRUSTED,
        n,
    )
