"""What samples cost: python benchmarks/samples.py

CPU seconds, medians; for the engine and the evaluation of 1,000 samples the difference of the same
evaluation with and without them.
"""

# ruff: noqa: ARG005 - the functions take what the engine gives them.

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

MANY, FEW, ROUNDS = 1_000_000, 1_000, 5


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median CPU time of a call."""
    taken = []
    for _ in range(rounds):
        begun = process_time()
        work()
        taken.append(process_time() - begun)
    return statistics.median(taken)


def engine_run(metrics: Mapping[str, Any]) -> Any:
    """An evaluation of a million samples in batches of a thousand, in a run in memory."""
    import numpy as np

    from pytest_armory.engine import Engine, Evaluation
    from pytest_armory.track.evaluation import running
    from pytest_armory.track.run import EvaluationRun

    inputs, targets = np.zeros(MANY), np.arange(MANY) % 10
    run = EvaluationRun()
    with running(run):
        Engine(
            Evaluation(
                name="many",
                dataset=(inputs, targets),
                batch_size=1000,
                model=lambda batch: np.zeros(len(batch), "int64"),
                sample_metrics=metrics,
            ),
            progress=False,
        ).run()
    return run


def three_scores() -> dict[str, Callable[..., Any]]:
    """Functions that cost next to nothing themselves."""
    import numpy as np

    rng = np.random.default_rng(0)
    right, far, near = rng.random(1000) < 0.9, rng.random(1000, "float32"), np.zeros(1000)
    return {
        "right": lambda targets, predictions: right,
        "far": lambda targets, predictions: far,
        "near": lambda targets, predictions: near,
    }


def of_the_engine() -> None:
    """Own time and memory of a million samples with three scores."""
    without = seconds(lambda: engine_run({}))
    with_them = seconds(lambda: engine_run(three_scores()))
    each = (with_them - without) / MANY * 1e6
    print(f"engine, own time for each of {MANY:,} samples, three scores: {each:.2f} µs (goal: 1)")
    (rows,) = engine_run(three_scores()).writer.samples.table.parts
    held = [*rows.scores.values(), *(column.values for column in rows.columns.values())]
    size = sum(map(sys.getsizeof, held)) / 1e6
    print(f"memory of these, with targets and predictions: {size:.0f} MB (goal: 100)")


def of_files() -> None:
    """Time and size of the files of a million rows, and the time to read them."""
    import numpy as np

    from pytest_armory.tables import SampleTable
    from pytest_armory.tables.arrow import to_arrow
    from pytest_armory.tables.files import read_parquet, table_json, worst, write_parquet

    rng = np.random.default_rng(0)
    right = rng.random(MANY) < 0.94
    targets = rng.integers(0, 10, MANY)
    table = SampleTable()
    rows = table.rows_of("many", ["right", "far"])
    scores = {
        "right": right.astype("float64"),
        "far": rng.random(MANY, "float32").astype("float64"),
    }
    rows.add(
        {name: array("d", values.tobytes()) for name, values in scores.items()},
        columns={"target": targets, "prediction": np.where(right, targets, (targets + 1) % 10)},
    )
    found = to_arrow(table)
    content = write_parquet(found)
    print(f"Parquet of {MANY:,} rows: {len(content) / 1e6:.1f} MB (goal: 10)")
    print(f"  written: {seconds(lambda: write_parquet(to_arrow(table))):.2f} s (goal: 0.3)")
    print(f"  read: {seconds(lambda: read_parquet(content)):.2f} s")
    print(f"  the worst 1,000: {seconds(lambda: table_json(worst(found, 1000))):.2f} s")
    print(f"  digest: {seconds(lambda: rows.score('right').digest):.2f} s")


EVALUATIONS = """
import numpy as np, pytest
from pytest_armory import Engine, Evaluation, correct

rng = np.random.default_rng(0)
data = rng.random({few}), rng.integers(0, 2, {few})
accuracy = lambda targets, found: float((targets == found).mean())
KINDS = {{"without": {{"metrics": {{"accuracy": accuracy}}}},
          "with them": {{"sample_metrics": {{"accuracy": correct}}}}}}

@pytest.mark.evaluation(name="few")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("i", range({count}))
def test_it(i, kind):
    Engine(Evaluation(name="few", dataset=data, batch_size=100, model=lambda x: (x > 0.5) * 1,
                      **KINDS[kind]), progress=False).run()
"""
MEASURED = """
import json, time, pytest

taken = []

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    begun = time.process_time()
    try:
        return (yield)
    finally:
        taken.append(time.process_time() - begun)

def pytest_unconfigure():
    open("taken.json", "w").write(json.dumps(taken))
"""
FIRST, PAIRS = 5, 100
"""Pairs of evaluations that are not measured, as caches are empty yet, and those that are."""


def of_an_evaluation(folder: Path) -> None:
    """What a tracked evaluation of 1,000 samples pays for them, with the local database.

    Evaluations with and without them take turns in one session: other work on the machine meets
    both. Of a busy machine the fewest seconds say most.
    """
    (folder / "conftest.py").write_text(MEASURED)
    (folder / "test_few.py").write_text(EVALUATIONS.format(few=FEW, count=FIRST + PAIRS))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--armory-track"]
    command = [sys.executable, "-m", "pytest", *options, "test_few.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    taken = [1e3 * seconds for seconds in json.loads((folder / "taken.json").read_text())]
    without, with_them = taken[2 * FIRST :: 2], taken[2 * FIRST + 1 :: 2]
    more = [b - a for a, b in zip(without, with_them, strict=True)]
    print(
        f"an evaluation of {FEW:,} samples: {min(with_them) - min(without):.1f} ms more than the "
        f"{min(without):.1f} ms without, of the fewest each; median of pairs "
        f"{statistics.median(more):.1f} ms (goal: 10)"
    )


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(ARMORY_HOME=home, MLFLOW_DISABLE_TELEMETRY="true")
        of_the_engine()
        of_files()
        of_an_evaluation(Path(home))


if __name__ == "__main__":
    main()
