"""One function applied to many items in several processes, each of which imports NumPy and Pillow, but no torch."""

import gc
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from threading import Lock
from typing import IO, NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")
Value = TypeVar("Value")

CHUNK = 256  # items that a process gets at a time: of small images, 60 ms of work
MOST_BYTES = 2**24  # of such items: 256 images of 264 kB each took 800 MB in four processes
GARBAGE = 50_000  # new objects before they are searched for cycles: by default after 700, a twentieth of the time
AHEAD = 2  # such chunks that it has at once: the one it works on, and the next one
# Not by `multiprocessing`: its processes import the caller's main module, which imports torch, or runs the caller's script again.
CODE = """
import sys
sys.path[:] = sys.argv[2:]
from notbugs.parent import end_with_parent
end_with_parent(int(sys.argv[1]))
from notbugs.decoding.processes import serve
serve()
"""


def available_cores() -> int:
    """How many processes make sense: one per core that this process may use, 1 in a process of a pool."""
    if multiprocessing.parent_process() is not None:  # a stage of a study, or a DataLoader's: there is one for each core
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Value], item: Callable[[int], Item], count: int, processes: int
) -> Iterator[Value | None]:
    """Apply a function to each item, in processes that end with this iterator, or with this process.

    Parameters
    ----------
    function : callable
        Pickled by its name, from a module that imports no torch.
    item : callable
        The item of each number from 0 on, made when it is its turn.
    count : int
        Items.
    processes : int

    Yields
    ------
    Value or None
        In order. None where `item` or the function raised, or the process ended: the caller tries again, and sees why.
    """
    idle: SimpleQueue[Worker] = SimpleQueue()

    def results_of(first: int) -> list[Value | None]:
        numbers, worker = range(first, min(first + CHUNK, count)), idle.get()
        found: list[Value | None] = []
        try:
            while len(found) < len(numbers):
                found += worker.ask(_first_items(item, numbers[len(found) :]))
        except Exception:  # the process ended, or an item cannot be made
            found += [None] * (len(numbers) - len(found))
        finally:
            idle.put(worker)
        return found

    with ExitStack() as stack:  # ends in reverse order
        workers = [Worker(stack.enter_context(_started(function)), Lock(), Lock()) for _ in range(processes)]
        pool = stack.enter_context(ThreadPoolExecutor(AHEAD * processes))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for worker in AHEAD * workers:
            idle.put(worker)
            stack.callback(worker.process.kill)
        for found in pool.map(results_of, range(0, count, CHUNK)):
            yield from found


def _first_items(item: Callable[[int], Item], numbers: range) -> list[Item]:
    """The first items, until they have as many bytes as go to a process at a time."""
    items, size = list[Item](), 0
    for number in numbers:
        items.append(item(number))
        size += _bytes_in(items[-1])
        if size >= MOST_BYTES:
            break
    return items


def _bytes_in(item: object) -> int:
    """The size of encoded bytes, also of those in a Hugging Face cell; 0 for a path."""
    content = item.get("bytes") if isinstance(item, Mapping) else item
    return len(content) if isinstance(content, bytes) else 0


class Worker(NamedTuple):
    """A process, which several threads may ask: it answers in turn."""

    process: subprocess.Popen[bytes]
    sending: Lock
    receiving: Lock

    def ask(self, items: list[Item]) -> list[Value | None]:
        """The results for items. While one thread waits for them, the next one sends its own, so that the process never waits."""
        with self.sending:
            _send(self.process.stdin, items)
            self.receiving.acquire()  # in the order of sending
        try:
            found: list[Value | None] = pickle.load(self.process.stdout)  # type: ignore[arg-type]
            return found
        finally:
            self.receiving.release()


@contextmanager
def _started(function: Callable[[Item], Value]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves a function. Ctrl-C does not reach it: it ends when its pipes are closed, or with this process."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # else NumPy starts threads
    command = [sys.executable, "-P", "-c", CODE, str(os.getpid()), *sys.path]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, env=environment)
    try:
        with suppress(BrokenPipeError):  # if it ends at once, all is left to the caller
            _send(worker.stdin, function)
        yield worker
    finally:
        worker.kill()
        with suppress(BrokenPipeError), worker:  # waits, and closes the pipes; something may be unsent
            pass


def _send(stream: IO[bytes] | None, value: object) -> None:
    assert stream is not None  # a pipe
    content = io.BytesIO()
    pickler = pickle.Pickler(content, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {np.ndarray: _reduced}
    pickler.dump(value)
    stream.write(content.getbuffer())  # whole or not at all
    stream.flush()


def _reduced(array: np.ndarray) -> tuple[Callable[..., np.ndarray], tuple[bytes, str, tuple[int, ...]]]:
    """An array for pickle, in a third of the time that it takes by itself."""
    return _array, (array.tobytes(), array.dtype.str, array.shape)


def _array(content: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, kind).reshape(shape)


def serve() -> None:
    """In the process: receive a function, then lists of items, and answer each with the list of results."""
    warnings.simplefilter("ignore")
    gc.set_threshold(GARBAGE)
    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):  # the other process ended
        function = pickle.load(sys.stdin.buffer)
        while True:
            _send(sys.stdout.buffer, [_attempt(function, item) for item in pickle.load(sys.stdin.buffer)])


def _attempt(function: Callable[[Item], Value], item: Item) -> Value | None:
    try:
        return function(item)
    except Exception:  # damaged files make decoders raise almost anything
        return None
