"""The one error a user can cause and mend: what was wrong, what was found, what to do."""


class InputError(ValueError):  # the name says whose error it is
    """Input that cannot be used. The command line prints its one line and exits with 2; nothing was written.

    parameter: what the user gave (`--epsilon`, a file's name); rule: what it must be; got: what it was;
    remedy: what to do instead, if there is one thing to do.
    """

    def __init__(self, parameter: str, rule: str, got: object = None, remedy: str = "") -> None:
        # only strings are kept, so that the error crosses from a worker process whole
        super().__init__(parameter, rule, None if got is None else str(got), remedy)

    def __str__(self) -> str:
        parameter, rule, got, remedy = self.args
        return f"{parameter}: {rule}{'' if got is None else f', got {got}'}{f'; {remedy}' if remedy else ''}"
