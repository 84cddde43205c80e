"""Exit codes of all commands. docs/gate.md has the same table."""

PASSED = 0  # done; every requirement is met
BELOW = 1  # a robust accuracy is below what --fail-under requires
UNUSABLE = 2  # unusable input: one line says which
NOT_TRUSTED = 3  # a sanity check failed, or the time limit left too little to decide
CRASHED = 70  # an error of notbugs, with its traceback: Python's own 1 would look like `BELOW` (sysexits.h: EX_SOFTWARE)
INTERRUPTED = 130  # Ctrl-C, or a polite kill
CLOSED = 141  # who reads the output stopped reading (a shell: 128 + SIGPIPE)
