"""Freed memory is kept: the system hands out the same pages once, not each time."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy
from notbugs.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = []
for _ in range(6):
    before, blocks = faults(), [numpy.ones(3_000_000) for _ in range(3)]
    del blocks
    counts.append(faults() - before)
print(min(counts))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
@pytest.mark.parametrize(("how", "least", "most"), [("default", 100, 10**6), ("kept", 0, 10)])  # pages may have 4 KB or 2 MB
def test_pages_are_handed_out_once(how: str, least: int, most: int) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most


GIVEN_BACK = """
import re
import numpy
from notbugs.allocator import give_back, keep_freed_memory
assert keep_freed_memory()
def held(): return int(re.findall(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[0])
blocks = [numpy.ones(100_000) for _ in range(250)]
last = blocks[-1]
del blocks
kept = held()
give_back()
print(kept - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_what_is_free_is_given_back_when_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 150_000  # of 200 MB
