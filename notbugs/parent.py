"""A process ends with the one that started it, however that ends. Imports no torch."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with_parent(parent: int) -> None:
    """The system kills this process as soon as its parent has ended: at any moment, also while this one imports or computes.

    A process that looks for its parent from time to time does so too late, or not at all if the parent ended before the first
    look. The system does not know of a parent that has ended already, so this is compared.

    Parameters
    ----------
    parent : int
        Its process ID, as it was when this process was started. On Linux its thread that started this process must live as long
        as it does. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
