"""The table of `benchmarks/evidence.py` with fewer trials, its limits four standard errors wide."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "evidence.py"
    spec = spec_from_file_location("benchmark_of_evidence", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


EVIDENCE = _benchmark()
TRIALS = {"samples": 200, "repeats": 400, "gates": 400, "ratchet": 200, "f1": 800, "auc": 800,
          "sparse": 400, "retrained": 4000}  # fmt: skip


@pytest.mark.parametrize("part", EVIDENCE.PARTS)
def test_verdicts_are_wrong_as_seldom_as_promised(part: str) -> None:
    rows = list(EVIDENCE.rows(TRIALS.get(part, 300), part))
    assert [row.text() for row in rows if not row.is_met_within(4)] == []


def test_the_numbers_of_the_page_are_those_of_its_command() -> None:
    """By a part that takes a second; each row has its own random numbers."""
    path = Path(__file__).parents[3] / "docs" / "evidence.md"
    page = path.read_text(encoding="utf-8").splitlines()
    for row in EVIDENCE.rows(EVIDENCE.TRIALS, "latency"):
        (line,) = [line for line in page if line.startswith(f"| {row.name} |")]
        _, _, _, measured, without, _ = (cell.strip() for cell in line.split("|"))
        assert measured.endswith(f" ± {row.error:.1f}")
        assert float(measured.split()[0]) == pytest.approx(100 * row.share, abs=4 * row.error)
        assert float(without) == pytest.approx(100 * row.today, abs=4)


def test_a_share_far_from_its_goal_is_noticed() -> None:
    row = EVIDENCE.Row("", 6, False, 0.28, 200)
    assert not row.is_met_within(4)
    assert EVIDENCE.Row("", 70, True, 0.68, 200).is_met_within(4)
