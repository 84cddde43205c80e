"""InputError: the one error that a user causes and can fix; NotbugsWarning: what went wrong without stopping the work."""


class NotbugsWarning(RuntimeWarning):
    """Something was left out or done otherwise than asked for; the work went on. The command line prints its one line."""


def printable(text: str) -> str:
    r"""Text for one line of a terminal: what would break the line, move the cursor or turn letters around is escaped.

    Examples
    --------
    >>> print(printable("a\nb\x1b[31m"))
    a\nb\x1b[31m
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


MOST = 1000  # letters of each part of a message: what a damaged file holds may have any length
LINE = 200


class InputError(ValueError):
    """Input that cannot be used. The command line prints its one line and exits with 2; nothing was written.

    Parameters
    ----------
    parameter : str
        What the user gave: an option, an argument, a file.
    rule : str
        What it must be.
    got : object
        What it was.
    remedy : str
        What to do instead, if there is one thing to do.

    Examples
    --------
    >>> raise InputError("epsilon", "must be at most 1 in L-inf", 8, "for 8/255 pass 8/255")
    Traceback (most recent call last):
    notbugs.errors.InputError: epsilon: must be at most 1 in L-inf, got 8; for 8/255 pass 8/255
    """

    def __init__(self, parameter: str, rule: str, got: object = None, remedy: str = "") -> None:
        # strings only, so that the error can be pickled and sent from a worker process
        super().__init__(*(text if text is None else _short(str(text)) for text in (parameter, rule, got, remedy)))

    def __str__(self) -> str:
        parameter, rule, got, remedy = self.args
        text = f"{parameter}: {rule}{'' if got is None else f', got {got}'}{f'; {remedy}' if remedy else ''}"
        return printable(text)


def one_line(text: object) -> str:
    r"""A text of others, as an error that their code raised, on one line and at most 200 characters long.

    Examples
    --------
    >>> one_line(ValueError("no such\n    layer"))
    'no such layer'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= LINE else f"{line[: LINE - 1]}…"


def _short(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 2 :]}"
