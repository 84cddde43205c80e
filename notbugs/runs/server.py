"""The first import of the server that workers are forked from: it ends with the process that started it, and they end with it.

The one module that does something when it is imported. A fork server of Python runs no other code before it forks, and only what
it imports first is in time: its import of torch takes seconds. See `workers.start_server`.
"""

import os
import sys
from functools import partial
from types import TracebackType

from notbugs.parent import end_with_parent

PARENT = "NOTBUGS_PARENT"  # environment variable: the ID of the process that starts the server


def _say_nothing_of_an_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A message that breaks off is one of a process that ended: that is no error of a server or worker."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


if parent := os.environ.pop(PARENT, ""):
    end_with_parent(int(parent))
    sys.excepthook = _say_nothing_of_an_end
    os.register_at_fork(after_in_child=partial(end_with_parent, os.getpid()))
