"""Labels of several classes for one image (multi-label), which are not supported: how they are recognized in text."""

import re
from collections import Counter
from collections.abc import Collection

LIST = re.compile(r"\[(.*)\]")  # "['cat']", as Python writes a list of labels
HOLDS = "holds several labels of one image (multi-label), which is not supported"
KEEP_ONE = "keep one label for each image"
REMEDY = f"{KEEP_ONE}; combinations as classes of their own: --label-column NAME"


def several_labels(labels: Collection[str]) -> list[str]:
    """Labels that are several of one image: lists of more than one, or "cat,dog" beside labels with one of these words.

    Examples
    --------
    >>> several_labels({"cat", "dog", "cat|dog"}), several_labels({"sea lion", "sea", "cat, domestic"})
    (['cat|dog'], [])
    """
    if lists := [label for label in labels if (match := LIST.fullmatch(label)) and "," in match[1]]:
        return sorted(lists)
    for sign in (",", ";", "|", " "):
        several = {label: [part.strip() for part in label.split(sign)] for label in labels if sign in label}
        times = Counter(part for parts in several.values() for part in parts)
        known = {part for part in times if part in labels or (sign != " " and times[part] > 1)}
        enough = all if sign == " " else any  # a class may be called "sea lion" beside "sea" and "lion"
        if several and known & set(labels) and enough(known.issuperset(parts) for parts in several.values()):
            return sorted(several)
    return []
