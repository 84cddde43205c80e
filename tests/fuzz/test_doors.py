"""Damaged, lying and malicious files at every door: they work or are refused in one line. `make fuzz` tries each for longer."""

import mmap
import os
import pickle
import socket
import subprocess
from pathlib import Path

import pytest
from fuzz import guard, mutate
from fuzz.doors import DOORS, enter, try_case
from fuzz.guard import Forbidden, outcome
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from notbugs.report import render

# So that all doors together take less than 20 s: reports and commands take a tenth of a second and more
EXAMPLES = {"run.json": 6, "tables": 6, "arguments": 12}
OFTEN = 25


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Where archives are unpacked, and no chart library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(render, "_packed_vega", lambda alone: "")  # two seconds, and nothing of a run is in it
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
def test_nothing_but_an_error_of_one_line(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "case"

    @settings(
        max_examples=EXAMPLES.get(name, OFTEN),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # a seed does not shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def case(seed: int) -> None:
        try_case(name, seed, folder)

    case()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DOORS if name not in ("arguments", "tables")])
def test_what_is_damaged_works_while_it_is_whole(name: str, tmp_path: Path) -> None:
    made = [files for files in DOORS[name].make() if "m.pt2" not in files]  # it is a shell, for what is checked before PyTorch
    for number, files in enumerate(made):
        assert enter(DOORS[name], files, tmp_path / str(number)) == "works", [*files]


# Cases that the fuzzer found: damaged TorchScript ended its process when it ran; the last one took 4 GB when it was loaded
ENDING = (1000496, 1001162, 1005475, 1007576, 1008754, 1014447, 1015427, 1016218, 1016500)


@pytest.mark.slow
def test_programs_that_end_their_process_are_refused(tmp_path: Path) -> None:
    assert {number: try_case("ONNX, PyTorch", number, tmp_path) for number in ENDING} == dict.fromkeys(ENDING, "refused")


# ---- the guard itself ----------------------------------------------------------------------------------------------------------


def write_outside() -> None:
    Path("../outside").write_text("x")


def start() -> None:
    subprocess.run(["true"], check=True)


def connect() -> None:
    with socket.socket() as line:
        line.settimeout(0.01)
        line.connect_ex(("127.0.0.1", 9))


def eat() -> None:
    """Memory of the system, not what earlier tests have left to this process."""
    with mmap.mmap(-1, 2**27) as memory:
        for place in range(0, len(memory), mmap.PAGESIZE):
            memory[place] = 1


def unpickle() -> None:
    pickle.loads(pickle.dumps(mutate.Exploit()))


def leave() -> None:
    raise SystemExit(3)


def wait() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("case", "says"),
    [(write_outside, "written outside"), (start, "started"), (connect, "started"), (eat, "took .* MB"),
     (unpickle, "a pickle ran"), (leave, "left with 3"), (wait, "took more than"), (lambda: {}["x"], "traceback: KeyError")],
)  # fmt: skip
def test_the_guard_sees_what_is_forbidden(case: object, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MEMORY", 2**26)
    monkeypatch.setattr(guard, "SECONDS", 0.05 if case is wait else 5.0)
    (tmp_path / "case").mkdir()
    if case is eat and not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell a peak of memory again")
    with pytest.raises(Forbidden, match=says):
        outcome(case, tmp_path / "case")  # type: ignore[arg-type]
