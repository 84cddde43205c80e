"""The C library's memory allocator, where its defaults slow torch down on a CPU."""

import ctypes
import sys
from collections.abc import Callable

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
NEVER = -1
MMAP_THRESHOLDS = (2**30, 2**25)  # bytes; older releases of glibc take no more than the second


def keep_freed_memory() -> bool:
    """Keep memory that was freed for what is allocated next, instead of giving it back to the system each time.

    glibc gives large blocks back as soon as they are free. torch allocates some in every layer, so that the system hands out, and
    clears, the same pages again and again: a sixth to a third of the CPU time of gradients of 250 images
    (`benchmarks/allocator.py`). What is computed does not change. Each process keeps the most memory that it ever used, but for
    single blocks of 1 GiB and more (with older releases of glibc 32 MiB). The command line and its worker processes call this.

    Returns
    -------
    bool
        Whether there is a `mallopt` that accepted it. There is none on macOS, on Windows and in musl; with another allocator than
        glibc's it has no effect.

    References
    ----------
    mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if sys.platform != "linux":
        return False
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None or not any(mallopt(MMAP_THRESHOLD, size) for size in MMAP_THRESHOLDS):
        return False
    return mallopt(TRIM_THRESHOLD, NEVER) == 1


def give_back() -> None:
    """Give the system back what is free, once: between stages, each of which needs blocks of other sizes. Only with glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(ctypes.c_size_t(0))
