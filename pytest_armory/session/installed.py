"""What a session runs on, as text: Python, platform, devices, packages."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_DISTRIBUTION = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+?)(-py[\d.]+)?\.(dist|egg)-info")
_DRIVER = Path("/proc/driver/nvidia/gpus")
_CPUS = Path("/proc/cpuinfo")


def environment_text(
    path: Iterable[str] = sys.path, driver: Path = _DRIVER, cpus: Path = _CPUS
) -> str:
    """Python, platform, devices and the versions of all installed packages, a line each."""
    lines = [
        f"python: {platform.python_implementation()} {platform.python_version()}",
        f"platform: {platform.platform()}",
        f"cpu: {_cpu(cpus)}, {os.cpu_count()} logical",
        *(f"gpu: {name}" for name in _gpus(driver)),
        "",
        *_packages(path),
    ]
    return "\n".join(lines) + "\n"


def _packages(path: Iterable[str]) -> list[str]:
    """``name==version`` by the names of folders: reading the metadata of each takes far longer."""
    found: dict[str, str] = {}
    for folder in map(Path, path):
        if folder.is_dir():
            for entry in os.listdir(folder):
                if match := _DISTRIBUTION.fullmatch(entry):
                    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
                    found.setdefault(name, match["version"])  # the first one is imported
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _gpus(driver: Path) -> list[str]:
    """NVIDIA's devices by their driver: asking CUDA would initialize it in this process."""
    names = []
    for file in sorted(driver.glob("*/information")):
        match = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
        names += [match[1].strip()] if match else []
    return names


def _cpu(cpus: Path) -> str:
    text = cpus.read_text(errors="replace") if cpus.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
