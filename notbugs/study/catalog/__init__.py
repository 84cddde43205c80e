"""Every data set and every model of a study, as data. Imports no torch."""

from collections.abc import Iterable


def in_order(known: Iterable[str], names: Iterable[str]) -> list[str]:
    """Each name once: the known ones in their order, then the others."""
    found, ordered = dict.fromkeys(names), [*known]
    return [name for name in ordered if name in found] + [name for name in found if name not in set(ordered)]
