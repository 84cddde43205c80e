"""The examples run as their docstrings say, and print what they should."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import typer
import yaml

from notbugs import cli

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_own_threat_model(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_threat_model.py"), run_name="__main__")
    standard, robust = (
        [float(found) for found in re.findall(r"([\d.]+)%", line)] for line in capsys.readouterr().out.splitlines()
    )
    assert min(standard[0], robust[0]) > 95
    assert standard[1] < 40 < 85 < robust[1]


def test_own_threat_model_projects_onto_itself() -> None:
    lighting = runpy.run_path(str(EXAMPLES / "own_threat_model.py"))["Lighting"](0.2)
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(5, 3, 4, 4, generator=generator) * 0.4 + 0.3
    found = lighting.project(torch.rand(5, 3, 4, 4, generator=generator), center)
    shifts = found - center
    assert torch.allclose(shifts, shifts[:, :, :1, :1].expand_as(shifts), atol=1e-6)
    assert bool((lighting.distance(shifts) <= 0.2 + 1e-6).all())
    assert torch.allclose(lighting.project(found, center), found, atol=1e-6)
    drawn = lighting.sample(center, generator)
    assert torch.allclose(lighting.project(drawn, center), drawn, atol=1e-6)
    clipped = torch.rand(5, 3, 4, 4, generator=generator).round(decimals=1)  # pixels of 0 and 1, which a shift clips
    for center in (clipped, clipped.round()):
        drawn = lighting.sample(center, generator)
        assert torch.allclose(lighting.project(drawn, center), drawn, atol=1e-6)
    gradient = torch.randn(5, 3, 4, 4, generator=generator)
    assert bool(((lighting.steepest_step(center, gradient, 0.1) * gradient).flatten(1).sum(1) > 0).all())


# ---- files to submit -----------------------------------------------------------------------------------------------------------


def submitted() -> list[tuple[str, list[str]]]:
    """Each file, and the words of its notbugs command."""
    found = []
    for path in [*EXAMPLES.glob("slurm/*"), *EXAMPLES.glob("kubernetes/*stage*")]:
        words = re.findall(r'[^\s,\[\]"]+', path.read_text().replace("\\\n", " "))
        start = max(number for number, word in enumerate(words[:-1]) if (word, words[number + 1]) == ("notbugs", "run"))
        found.append((str(path.relative_to(EXAMPLES)), words[start + 1 : start + 7]))
    return found


@pytest.mark.parametrize(("name", "words"), submitted())
def test_files_to_submit_are_valid_and_their_command_has_these_options(name: str, words: list[str]) -> None:
    path = EXAMPLES / name
    if path.suffix == ".yaml":
        assert all({"apiVersion", "kind", "metadata", "spec"} <= {*part} for part in yaml.safe_load_all(path.read_text()))
    else:
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
        assert path.read_text().startswith("#!/bin/bash\n")
    options = {option for each in typer.main.get_command(cli.app).commands["run"].params for option in each.opts}  # type: ignore[attr-defined]
    used = {word for word in words if word.startswith("--")}
    assert "--out" in used and used <= options


def test_all_pods_have_the_claim_of_the_volume() -> None:
    """And commands: the image of the Dockerfile has notbugs as its entry point."""
    volume, *files = (
        [*yaml.safe_load_all((EXAMPLES / "kubernetes" / name).read_text())]
        for name in ("volume.yaml", "stages.yaml", "one_stage.yaml")
    )
    for part in (part for parts in files for part in parts):
        text = json.dumps(part)
        claims = set(re.findall(r'"claimName": "([^"]+)"', text))
        assert claims == {volume[0]["metadata"]["name"]} and '"fsGroup": 1000' in text
        assert text.count('"image"') == text.count('"command"') and '"args"' not in text


def submit(tmp_path: Path, programs: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """The file for stages side by side, executed as SLURM would, with srun and others in place of the real ones."""
    (tmp_path / "bin").mkdir()
    srun = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    for name, text in {"srun": srun, **programs}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    places = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    words = ["bash", str(EXAMPLES / "slurm/stages.sbatch"), "images", str(tmp_path / "new/run")]
    # into files: pipes would be open until the workers have ended, which SLURM does not wait for
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        job = subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=out, stderr=err, start_new_session=True)
        try:
            job.wait(100)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    said = [(tmp_path / name).read_text() for name in ("out", "err")]
    return subprocess.CompletedProcess(words, job.returncode, *said)


@pytest.mark.slow
def test_a_job_of_stages_gives_the_command_a_scheduler_with_workers(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    code = (
        "import sys; from notbugs.runs.executors import open_engine\n"
        "with open_engine(sys.argv[sys.argv.index('--executor') + 1], None) as engine: print(engine.at_once(), *sys.argv[1:4])\n"
    )
    done = submit(tmp_path, {"notbugs": f"#!{sys.executable}\n{code}"})
    assert done.stdout.split() == ["1", "run", "images", "--out"] and done.returncode == 0, done.stderr
    assert not [*(tmp_path / "new").iterdir()]  # the file of the scheduler is removed


@pytest.mark.slow
def test_a_job_whose_scheduler_does_not_start_ends(tmp_path: Path) -> None:
    """It waited until the job's time was over, with all GPUs."""
    done = submit(tmp_path, {"dask": "#!/bin/bash\necho no port is free >&2; exit 1\n"})
    assert done.returncode == 1 and done.stderr.splitlines()[-2:] == [
        "no port is free", "The Dask scheduler did not start: what it printed is above.",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "paper.py"
    assert len(path.read_text().splitlines()) <= 150
    runpy.run_path(str(path))["main"](images=150, epochs=1, attacked=6, out=tmp_path / "paper.svg")
    said = capsys.readouterr().out
    assert said.count("features: ") == 2 and re.search(r"^D_rand +150 images, 100% with another label$", said, re.MULTILINE)
    rows = ["original", "adversarial training", "D_R", "D_NR", "D_rand", "D_det"]
    assert [name for name in rows if re.search(rf"^{name} +[\d.]+% +[\d.]+% +\[", said, re.MULTILINE)] == rows
    assert "under AutoAttack" in said and "robust training" in (tmp_path / "paper.svg").read_text()
