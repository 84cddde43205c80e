"""How the epsilon of a study was chosen, in words. Imports no torch."""

from typing import Literal, get_args

EpsilonSource = Literal["option", "dataset", "gap", "pixels", "nearest"]
"""option: by the user; dataset: a default of the data set; gap: from distances between images; pixels: from their size;
nearest: less than that, as images of other classes are near."""

SOURCES: tuple[EpsilonSource, ...] = get_args(EpsilonSource)
_CHOSEN = "It was chosen by notbugs (--epsilon changes it)"


def epsilon_reason(source: EpsilonSource, norm: str, nearest_other: float | None, nearest_same: float | None) -> str:
    """Why epsilon has its value, and the distances to compare it with.

    Parameters
    ----------
    source : EpsilonSource
    norm : {"l2", "linf"}
    nearest_other, nearest_same : float or None
        Median distance from a training image to the nearest one of another class, and to the nearest other one of its class.

    Examples
    --------
    >>> epsilon_reason("option", "l2", 5.41, 3.9)
    'It was set by --epsilon. The nearest image of another class is 5.41 away (median), of the same class 3.9.'
    """
    why = {
        "option": "It was set by --epsilon",
        "dataset": f"{_CHOSEN}, for this data set",
        "gap": f"{_CHOSEN}, as about the difference of two distances:"
        if norm == "l2"
        else f"{_CHOSEN}: 8/255, as usual on CIFAR-10, times what these images allow more of in L2",
        "pixels": f"{_CHOSEN}: as much per pixel as 0.5 on CIFAR-10 (Ilyas et al. 2019)"
        if norm == "l2"
        else f"{_CHOSEN}: as usual on CIFAR-10",
        "nearest": f"{_CHOSEN}, as about 0.8 of the distance to the nearest image of another class",
    }[source]
    same = f", of the same class {nearest_same:.3g}" if nearest_same is not None else ""
    apart = f"the nearest image of another class is {nearest_other:.3g} away (median){same}" if nearest_other is not None else ""
    if source == "gap" and norm == "l2" and apart:
        return f"{why} {apart}."
    return f"{why}. {apart[:1].upper()}{apart[1:]}{'.' if apart else ''}".strip()
