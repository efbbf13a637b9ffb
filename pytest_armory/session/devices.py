"""GPUs: which there are, and which of them a process gets."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from pytest_armory.errors import ArmoryUsageError

VARIABLE = "CUDA_VISIBLE_DEVICES"
AUTO = "auto"

_DEVICE = re.compile(r"\d{1,4}|(?:GPU|MIG)-[\w./-]+", re.ASCII)
_SLURM = "SLURM_LOCALID"
_PLACES = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALRANKID": "MPI_LOCALNRANKS",
    "LOCAL_RANK": "LOCAL_WORLD_SIZE",
}
"""What launchers say of a process's place on its machine, counted from 0, and of their number."""

_TASKS = re.compile(r"(\d{1,6})(?:\(x(\d{1,6})\))?", re.ASCII)

_ASK = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")


def find_devices(text: str, environ: Mapping[str, str]) -> list[str]:
    """The GPUs that ``--armory-devices`` gives; those of ``auto`` are what this process may use.

    Raises :class:`ArmoryUsageError` for what is neither ``auto`` nor a list.
    """
    if text.strip() != AUTO:
        devices = [device.strip() for device in text.split(",")]
        if not all(map(_DEVICE.fullmatch, devices)):
            raise ArmoryUsageError(
                f"--armory-devices must be auto or a list of GPUs, got {text!r}; as in "
                "`--armory-devices 0,1,2,3`"
            )
        return devices
    if VARIABLE in environ:
        given = [device.strip() for device in environ[VARIABLE].split(",")]
        # As CUDA itself: the first one that is none, such as -1, ends the list.
        ends = next((i for i, one in enumerate(given) if not _DEVICE.fullmatch(one)), len(given))
        return given[:ends]
    return _of_driver()


def _of_driver() -> list[str]:
    try:
        done = subprocess.run(_ASK, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no driver, or one that hangs
        return []
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line for line in lines if _DEVICE.fullmatch(line)] if done.returncode == 0 else []


def place_of(environ: Mapping[str, str]) -> int | None:
    """This process's place among those that were started with it, where its environment tells."""
    numbers = {_SLURM: _tasks_on_node(environ)}
    numbers |= {name: environ.get(number, "1") for name, number in _PLACES.items()}
    for name, number in numbers.items():
        is_place = re.fullmatch(r"\d{1,6}", environ.get(name, ""), re.ASCII)
        if is_place and number != "1":
            return int(environ[name])
    return None


def _tasks_on_node(environ: Mapping[str, str]) -> str:
    """How many tasks `srun` has started on this node: ``2(x3),1`` is of four nodes.

    A batch script is one process, however many tasks its job has; its place is 0.
    """
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    node = int(environ["SLURM_NODEID"]) if environ.get("SLURM_NODEID", "").isdecimal() else 0
    for tasks, nodes in _TASKS.findall(text):
        node -= int(nodes or 1)
        if node < 0:
            return str(tasks)
    return "1"


def share_of(devices: Sequence[str], index: int, workers: int, place: int | None) -> str:
    """The device of the ``index``-th of a session's workers, round robin.

    ``place`` is the session's own among those on this machine, each with so many workers.
    """
    return devices[((place or 0) * workers + index) % len(devices)]
