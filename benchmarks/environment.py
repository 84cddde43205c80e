"""What a benchmark was measured on, kept beside its figures."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def facts(device: str = "cpu", packages: Sequence[str] = ()) -> dict[str, Any]:
    """Machine, device, versions (of torch, notbugs and `packages`), commit and date."""
    cpu, folder = Path("/proc/cpuinfo"), Path(__file__).parent
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else []
    machine = f"{platform.machine()}, {names[0] if names else 'unknown'}, {os.cpu_count()} cores"
    if device.startswith("cuda"):
        machine = f"{torch.cuda.get_device_name(device)}; {machine}"
    told = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    return {
        "machine": machine,
        "device": device,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in ("torch", "notbugs", *packages)}},
        "commit": subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
