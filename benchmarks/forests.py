"""30 sessions of a model that never changed, but for its seed: python benchmarks/forests.py

Random forests on wine (128 test samples) and digits (300) are trained anew in each session, with
another seed, and compared with `latest` by pytest itself, `"-2%"` each. The sessions are run three
times: with the rule of two numbers, `--armory-unclear measured`, with evidence, and with evidence
and a baseline pooled from five sessions. A session is red if one of its two tests failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

TESTS = """
import os
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from pytest_armory import Engine, Evaluation
from pytest_armory.engine import correct

@pytest.mark.evaluation(baseline={"accuracy": "-2%"})
@pytest.mark.parametrize(
    ("load", "train", "test"),
    [(load_wine, 50, 128), (load_digits, 400, 300)],
    ids=["wine", "digits"],
)
def test_forest(load, train, test):
    x, y = load(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        x, y, train_size=train, test_size=test, random_state=0, stratify=y
    )
    forest = RandomForestClassifier(10, random_state=int(os.environ["SEED"])).fit(x, y)
    Engine(Evaluation(
        name="forest", dataset=(x_test, y_test), model=forest.predict,
        sample_metrics={"accuracy": correct},
    ), progress=False).run()
"""

VARIANTS: Mapping[str, Sequence[str]] = {
    "two numbers": ("--armory-unclear", "measured"),
    "evidence": (),
    "evidence, 5 pooled": ("-o", "armory_baseline_sessions=5"),
}


class Failed:
    """A plugin that notes which tests have failed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the parameter id of a test that failed."""
        if report.failed:
            self.names.add(report.nodeid.rpartition("[")[2].rstrip("]"))


def failed_in_session(folder: Path, seed: int, options: Sequence[str]) -> set[str]:
    """Run one session; the names of the tests that failed."""
    others = ("cacheprovider", "randomly", "pytest-retry", "flaky", "flakefinder")
    words = [word for name in others for word in ("-p", f"no:{name}")]
    tracked = ["--rootdir", str(folder), "--armory-track", "--armory-baseline", "latest", *options]
    os.environ["SEED"] = str(seed)
    failed, output = Failed(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        test = str(folder / "test_forests.py")
        status = pytest.main([*words, *tracked, test], plugins=[failed])
    if status not in (0, 1):
        raise SystemExit(output.getvalue())
    return failed.names


def main() -> None:
    """Run the sessions and print how many were red."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.sessions)
    print(f"{'':<20} {'wine':>8} {'digits':>8} {'red sessions':>14}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "test_forests.py").write_text(TESTS, encoding="utf-8")
        for name, options in VARIANTS.items():
            os.environ["ARMORY_HOME"] = str(folder / name.replace(" ", "-"))
            found = [failed_in_session(folder, seed, options) for seed in seeds]
            counts = [sum(test in failed for failed in found) for test in ("wine", "digits")]
            red = f"{sum(map(bool, found))} of {len(found) - 1}"
            print(f"{name:<20} {counts[0]:>8} {counts[1]:>8} {red:>14}", flush=True)


if __name__ == "__main__":
    main()
