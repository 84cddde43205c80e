"""The C library's memory allocator, where its defaults slow torch down on a CPU."""

import ctypes
import sys
from collections.abc import Callable

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
MMAP_THRESHOLDS = (2**30, 2**25)  # bytes; older releases of glibc take no more than the second


def keep_freed_memory() -> bool:
    """Keep memory that was freed for what is allocated next, instead of giving it back to the system each time.

    glibc gives large blocks back as soon as they are free. torch allocates some in every layer, so that the system hands out, and
    clears, the same pages again and again: a fifth to half of the CPU time of gradients of 250 images of 28x28 pixels and more
    (`benchmarks/allocator.py`). No figure changes. The process keeps the most memory that it ever used. The command line and its
    worker processes call this.

    Returns
    -------
    bool
        Whether the allocator is glibc's, and did as told; anywhere else nothing happens.

    References
    ----------
    mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if sys.platform != "linux":
        return False
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None or not any(mallopt(MMAP_THRESHOLD, size) for size in MMAP_THRESHOLDS):
        return False
    return mallopt(TRIM_THRESHOLD, 2**31 - 1) == 1
