"""What a benchmark was measured on: recorded in its results file, beside its figures."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import notbugs

Environment = dict[str, str | dict[str, str]]


def describe_environment(device: str = "cpu", packages: Sequence[str] = ()) -> Environment:
    """Machine, device, versions, commit and date.

    Parameters
    ----------
    device : str
    packages : sequence of str
        Distributions whose versions are recorded besides python, torch and notbugs.

    Returns
    -------
    dict
        The required keys of schema.json, except `rows`.
    """
    versions = {"torch": _version("torch"), "notbugs": notbugs.__version__, **{name: _version(name) for name in packages}}
    return {
        "machine": _machine(device),
        "device": device,
        "versions": {"python": platform.python_version(), **versions},
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine(device: str) -> str:
    """Processor and, if there is one, GPU."""
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else []
    machine = f"{platform.machine()}, {names[0] if names else 'unknown'}, {os.cpu_count()} cores"
    if not device.startswith("cuda"):
        return machine
    import torch

    return f"{torch.cuda.get_device_name(device)}; {machine}"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
