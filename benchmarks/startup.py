"""What the plugin adds to pytest's start-up: the imports that pytest alone does not make.

    python benchmarks/startup.py [rounds]

Each round is a fresh interpreter under ``-X importtime``; medians are printed, in milliseconds.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys

BUDGET = 15.0
"""Milliseconds beyond pytest's own that the plugin may take."""

# pytest imports the plugin, asks it for its options and its hooks, and configures it.
START = "import pytest; import pytest_armory.plugin; import pytest_armory.hookspecs"


def imported(statements: str) -> dict[str, float]:
    """Cumulative import time of every top-level import, in milliseconds."""
    command = [sys.executable, "-X", "importtime", "-c", statements]
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where a user starts, modules are compiled
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = done.stderr.splitlines()
    rows = [re.fullmatch(r"import time: +\d+ \| +(\d+) \| (\w.*)", line) for line in lines]
    return {row.group(2): int(row.group(1)) / 1000 for row in rows if row}


def main(rounds: int) -> None:
    imported(START)  # compiles whatever is not compiled yet
    found = [imported(START) for _ in range(rounds)]
    pytest_own = statistics.median(times["pytest"] for times in found)
    ours = [
        sum(time for name, time in times.items() if name.startswith("pytest_armory"))
        for times in found
    ]
    ours_median = statistics.median(ours)
    print(f"{'':24}{'median ms':>10}{'min':>8}{'max':>8}")
    print(f"{'pytest':24}{pytest_own:10.1f}")
    print(f"{'pytest_armory.plugin':24}{ours_median:10.1f}{min(ours):8.1f}{max(ours):8.1f}")
    print(
        f"ratio {ours_median / pytest_own:.3f}; the budget is {BUDGET:.0f} ms, "
        f"{'kept' if ours_median < BUDGET else 'NOT KEPT'}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
