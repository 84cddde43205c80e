"""The examples run as their first lines say, and say what they should."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a_similarity_of_ones_own() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "own_similarity.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ordinary, robust = ([float(found) for found in re.findall(r"([\d.]+)%", line)] for line in done.stdout.splitlines())
    assert min(ordinary[0], robust[0]) > 95
    assert ordinary[1] < 40 < 85 < robust[1]


def test_its_set_is_one() -> None:
    light = runpy.run_path(str(EXAMPLES / "own_similarity.py"))["Light"](0.2)
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(5, 3, 4, 4, generator=generator) * 0.4 + 0.3
    found = light.project(torch.rand(5, 3, 4, 4, generator=generator), center)
    shifts = found - center
    assert torch.allclose(shifts, shifts[:, :, :1, :1].expand_as(shifts), atol=1e-6)
    assert bool((light.distance(shifts) <= 0.2 + 1e-6).all())
    assert torch.allclose(light.project(found, center), found, atol=1e-6)
    drawn = light.sample(center, generator)
    assert torch.allclose(light.project(drawn, center), drawn, atol=1e-6)
    clipped = torch.rand(5, 3, 4, 4, generator=generator).round(decimals=1)  # black and white pixels, which a shift cuts off
    for center in (clipped, clipped.round()):
        drawn = light.sample(center, generator)
        assert torch.allclose(light.project(drawn, center), drawn, atol=1e-6)
    gradient = torch.randn(5, 3, 4, 4, generator=generator)
    assert bool(((light.steepest_step(center, gradient, 0.1) * gradient).flatten(1).sum(1) > 0).all())
