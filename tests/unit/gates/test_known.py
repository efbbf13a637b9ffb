"""Which samples are compared: those whose mean the metric is."""

from __future__ import annotations

from array import array

import pytest

from pytest_armory.gates.known import NO_PAIRS, OTHER_MEAN, OTHER_MEAN_BEFORE, Sources
from pytest_armory.gates.parse import parse_tolerance
from pytest_armory.gates.past_runs import PastRun
from pytest_armory.tables import SampleRows, SampleTable

NAN = float("nan")


def table_of(*repeats: list[float]) -> SampleTable:
    table = SampleTable()
    rows = SampleRows(["right"])
    for number, values in enumerate(repeats):
        if number:
            rows.begin_repeat()
        rows.add({"right": array("d", values)})
    rows.is_complete = True
    table.parts.append(rows)
    return table


@pytest.mark.parametrize(
    ("own", "value", "remark"),
    [
        ([[1, 1, 0, 0]], 0.5, ""),
        ([[1, 1, 0, NAN]], 2 / 3, ""),
        ([[1, 1, 0, NAN]], 0.5, OTHER_MEAN),
        ([[1, 1, 0, 0], [1, 1, 1, 0]], 0.625, ""),
        ([[1, 1, NAN, 0], [1, 1, 1, 0]], (2 / 3 + 3 / 4) / 2, ""),  # each repeat counts alike
        ([[1, 1, NAN, 0], [NAN] * 4], 2 / 3, ""),
        ([[1, 1, NAN, 0], [1, 1, 1, 0]], 5 / 7, ""),
        ([[1, 1, NAN, 0], [1, 1, 1, 0]], 0.9, OTHER_MEAN),
    ],
)
def test_a_metric_is_the_mean_of_its_samples(
    own: list[list[float]], value: float, remark: str
) -> None:
    base = table_of([1, 1, 1, 0])
    runs = [PastRun("r", "s", 1, {"right": 0.75}, has_samples=True)]
    sources = Sources(table_of(*own), runs, lambda _: base)
    found = sources.of({"right": parse_tolerance("-2%")}, {"right": value})["right"]
    assert (found.remark, found.comparison is None) == (remark, bool(remark))


def test_a_score_is_compared_with_all_runs_of_its_data() -> None:
    """Whatever the data of another score are; the other runs are not read for that one."""
    read = []

    def table(run: PastRun) -> SampleTable:
        read.append(run.run_id)
        return table_of([1, 1, 1, 0])

    runs = [
        PastRun(name, name, 1, {"right": 0.75}, "", "", True, {"right": data, "live": name})
        for name, data in (("c", "x"), ("b", "y"), ("a", "x"))
    ]
    own = {"right": "x", "live": "new"}
    sources = Sources(table_of([1, 1, 0, 0]), runs, table, digests=own)
    known = sources.of({"right": parse_tolerance("-2%")}, {"right": 0.5})["right"]
    assert (known.sessions, read) == (2, ["c", "a"])
    assert sources.flips("right", False) == ["2  1 → 0"]


def test_samples_of_which_none_has_a_pair_are_compared_as_others() -> None:
    """Their data are the same: each side has errors where the other has none."""
    runs = [PastRun("r", "s", 1, {"right": 0.5}, has_samples=True)]
    own, base = table_of([1, 0, NAN, NAN]), table_of([NAN, NAN, 1, 0])
    sources = Sources(own, runs, lambda _: base, history=lambda _: [0.5] * 9)
    found = sources.of({"right": parse_tolerance("-2%")}, {"right": 0.5})["right"]
    assert found.comparison is not None
    assert found.comparison.method == "pooled score test, Newcombe, other samples"
    assert (found.remark, found.history) == (NO_PAIRS, [0.5] * 9)


def test_a_baseline_whose_metric_is_another_is_compared_by_the_change_alone() -> None:
    base = table_of([1, 1, 1, 0])
    for value, remark in ((0.75, ""), (0.7, OTHER_MEAN_BEFORE), (NAN, OTHER_MEAN_BEFORE)):
        runs = [PastRun("r", "s", 1, {"right": value}, has_samples=True)]
        sources = Sources(table_of([1, 1, 0, 0]), runs, lambda _: base)
        found = sources.of({"right": parse_tolerance("-2%")}, {"right": 0.5})["right"]
        assert (found.remark, found.comparison is None) == (remark, bool(remark))
