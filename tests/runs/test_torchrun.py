"""Several processes that torchrun started: rank 0 executes the command, the others do what it gives them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import rank_jobs
from torch.distributed import HashStore

from notbugs.errors import InputError
from notbugs.runs import ranks, torchrun
from notbugs.runs.engine import AGAIN, Engine
from notbugs.runs.folder import ATTEMPTS, UNFINISHED, RunFolder
from notbugs.runs.runner import Stage
from notbugs.runs.torchrun import Connection


def test_each_process_of_a_machine_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for given in (None, "4, 7", "GPU-a", ""):
        for place in (0, 1):
            monkeypatch.setenv("LOCAL_RANK", str(place))
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            if given is not None:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
            ranks.see_one_gpu()
            seen[given, place] = os.environ["CUDA_VISIBLE_DEVICES"]
    assert [*seen.values()] == ["0", "1", "4", "7", "GPU-a", "", "", ""]


def test_large_values_go_through_the_store_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "PIECE", 10)
    connection = Connection(0, 1, HashStore())
    for value in (b"x" * 100, None, ("a", 1)):
        connection.put("key", value)
        assert connection.has("key") and connection.take("key") == value
    assert not connection.has("other")


@pytest.mark.parametrize(
    ("others", "got"),
    [((("0.0.9", False),), "rank 0: {}, rank 1: 0.0.9"), ((("{}", True),), "rank 0: {}, rank 1: {} with a GPU")],
)
def test_ranks_of_another_version_or_without_a_gpu_of_their_own_are_refused(
    others: tuple[tuple[str, bool], ...], got: str
) -> None:
    connection, version = Connection(0, 2, HashStore()), torchrun.__version__
    for rank, (other, gpu) in enumerate(others, start=1):
        connection.put(f"joined/{rank}", (other.format(version), gpu))
    with pytest.raises(InputError) as error, torchrun.open_engine(lambda: "cpu", connection):
        pass
    assert f"got {got.format(version, version)}" in str(error.value)


def test_a_rank_that_does_not_come_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "SECONDS_TO_JOIN", 0)
    with pytest.raises(InputError, match=r"^torchrun: must start 2 processes, got no answer of rank 1$"):
        torchrun.open_engine(lambda: "cpu", Connection(0, 2, HashStore())).__enter__()


def several(folder: Path, engine: Engine) -> dict[str, object]:
    return rank_jobs.do_stages(
        folder / "run",
        {
            "a": Stage((), partial(rank_jobs.who, folder / "a"), together=True),
            "b": Stage(("a",), partial(rank_jobs.wait_for_another, folder / "b")),
            "c": Stage(("a",), partial(rank_jobs.wait_for_another, folder / "b")),
            "d": Stage(("b", "c"), partial(rank_jobs.train_and_map, None, folder), together=True),
        },
        engine,
    )


@pytest.mark.slow
def test_ranks_do_stages_together_or_side_by_side_and_the_first_one_publishes(tmp_path: Path) -> None:
    stages, *others = rank_jobs.run_on_ranks(2, tmp_path, partial(several, tmp_path))
    assert isinstance(stages, dict) and others == [""]
    assert {name: stage.get("world_size") for name, stage in stages.items()} == {"a": 2, "b": None, "c": None, "d": 2}
    assert len([*(tmp_path / "a").iterdir()]) == len([*(tmp_path / "b").iterdir()]) == 2  # processes
    assert stages["a"]["rows"] == {"categories": 1}
    assert not (tmp_path / "run" / ATTEMPTS).exists() and not (tmp_path / "run" / UNFINISHED).exists()
    assert json.loads((tmp_path / "run" / "models" / "a.json").read_text()) == {}


def failing(folder: Path, rank: int, engine: Engine) -> dict[str, object]:
    return rank_jobs.do_stages(folder / "run", {"a": Stage((), partial(rank_jobs.fail_on, rank), together=True)}, engine)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_rank_is_the_error_of_the_command(rank: int, tmp_path: Path) -> None:
    """The other rank waits for what this one does not do, until torchrun ends it."""
    found = rank_jobs.run_on_ranks(2, tmp_path, partial(failing, tmp_path, rank))
    assert found == ["--epsilon: must be above 0, got -1", "ended"]


def trained(folder: Path, killed: str | None, engine: Engine) -> dict[str, object]:
    mark = None if killed is None else folder / killed
    stage = Stage((), partial(rank_jobs.train_and_map, mark, folder), together=True)
    return rank_jobs.do_stages(folder / "run", {"a": stage}, engine)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["epoch2", "map"])
def test_after_a_rank_was_killed_in_an_epoch_or_a_map_the_same_command_goes_on(killed: str, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    for each in (whole, folder):
        each.mkdir()
    rank_jobs.run_on_ranks(2, whole, partial(trained, whole, None))
    expected = (whole / "run" / "models" / "weights.json").read_text()
    first, other = rank_jobs.run_on_ranks(2, folder, partial(trained, folder, killed))
    assert other == "killed" and first in ("ended", f"torchrun: must keep all of its processes, got one that ended; {AGAIN}")
    stages, other = rank_jobs.run_on_ranks(2, folder, partial(trained, folder, killed))
    assert isinstance(stages, dict) and stages["a"]["world_size"] == 2 and other == ""
    epochs, digest = (folder / "run" / "models" / "weights.json").read_text().split("] ")
    assert expected == f"[1, 2, 3] {digest}"  # the same weights
    assert epochs == {"epoch2": "[3", "map": "["}[killed]  # what was done again


def elsewhere(folder: Path, engine: Engine) -> dict[str, object]:
    stage = Stage((), partial(rank_jobs.who, folder / "a"), together=True)
    return rank_jobs.do_stages(folder / "run", {"a": stage}, engine)


@pytest.mark.slow
def test_a_rank_that_does_not_see_the_run_folder_names_out(tmp_path: Path) -> None:
    """A token of the run is looked for: a folder of that name is not enough."""
    first, _ = rank_jobs.run_on_ranks(2, tmp_path, partial(elsewhere, tmp_path), blind=True)
    host, run = socket.gethostname(), tmp_path / "run"
    assert first == (
        f"--out: must be on a disk that all workers share, got {run}, which {host} does not see; name another folder"
    )
    assert not RunFolder.read(run).done("a")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_that_is_interrupted_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    """A rank that ignored it was waited for, for 30 seconds."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "notbugs", "split", "digits", "--epochs", "60", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's job may ignore it
    ) as process:  # fmt: skip
        while process.poll() is None and not any((tmp_path / "run" / ATTEMPTS).glob("*/")):
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    assert time.monotonic() - began < 15 and process.returncode
    assert said.count("notbugs: stopped. What is finished is kept; the same command resumes.\n") == 1, said
