"""Links from a page to files beside it."""

import os
from urllib.parse import quote


def href(path: str) -> str:
    """A relative path as a link: it can name a file only, whatever its characters are.

    Examples
    --------
    >>> href("tables/100 %.csv"), href("javascript:alert(1)"), href("../other/report.html")
    ('./tables/100%20%25.csv', './javascript%3Aalert%281%29', './../other/report.html')
    """
    return "./" + quote(os.fsencode(path))
