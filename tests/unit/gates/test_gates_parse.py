"""What users write of gates: every tolerance, reference and bound is read or refused in words."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates.parse import (
    Reference,
    Tolerance,
    bounds_problem,
    contradiction,
    parse_reference,
    parse_tolerance,
    parse_tolerances,
    tolerances_problem,
)
from pytest_armory.gates.verdicts import judge

anything = st.text(st.characters(), max_size=40)
near_tolerances = st.text("+-0123456789.eE% inf", max_size=12)
amounts = st.floats(0, allow_infinity=False).map(abs)
tolerances = st.builds(Tolerance, amounts, st.booleans(), st.booleans())


# Tolerances as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2%", Tolerance(2, True, False)),
        ("+20%", Tolerance(20, True, True)),
        ("-0.01", Tolerance(0.01, False, False)),
        ("  +.5 \t% ", Tolerance(0.5, True, True)),
        ("+5.", Tolerance(5, False, True)),
        ("-1e-3", Tolerance(0.001, False, False)),
        ("+2.5E+1%", Tolerance(25, True, True)),
        ("-0%", Tolerance(0, True, False)),
        ("-0", Tolerance(0, False, False)),
        ("-1e-999", Tolerance(0, False, False)),
    ],
)
def test_tolerance(text: str, expected: Tolerance) -> None:
    assert parse_tolerance(text) == expected
    assert tolerances_problem({"m": text}) is None


@pytest.mark.parametrize(
    ("tolerance", "text"),
    [
        (Tolerance(2.0, True, False), "-2%"),
        (Tolerance(0.01, False, True), "+0.01"),
        (Tolerance(1e-7, False, True), "+1e-07"),
        (Tolerance(0.0, True, False), "-0%"),
        (Tolerance(0.0, False, False, noise=True), "-noise"),
        (Tolerance(0.0, False, True, noise=True), "+noise"),
    ],
)
def test_a_tolerance_reads_as_one_writes_it(tolerance: Tolerance, text: str) -> None:
    assert str(tolerance) == text
    assert parse_tolerance(text) == parse_tolerance(f" {text.upper()} ") == tolerance


@given(tolerances)
def test_a_tolerance_there_and_back(tolerance: Tolerance) -> None:
    assert parse_tolerance(str(tolerance)) == tolerance


GENERIC = 'write one like "-2%" (may fall by 2 %), "-0.01" (may fall by 0.01) or "+5%"'


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        ("2%", 'got \'2%\'; write "-2%" if lower is worse, "+2%" if higher is worse'),
        (" 0.50 ", 'got \' 0.50 \'; write "-0.5" if lower is worse, "+0.5" if higher is worse'),
        (0.02, 'got 0.02; write "-0.02" if lower is worse, "+0.02" if higher is worse'),
        (-0.02, 'got -0.02; write "-0.02"'),
        (2, 'got 2; write "-2" if lower is worse'),
        (np.float64(0.5), 'write "-0.5" if lower is worse'),
        ("noise", 'got \'noise\'; write "-noise" if lower is worse, "+noise" if higher is worse'),
        ("-noise%", f"got '-noise%'; {GENERIC}"),
        ("-noises", f"got '-noises'; {GENERIC}"),
        ("", f"got ''; {GENERIC}"),
        ("%", f"got '%'; {GENERIC}"),
        ("-x", f"got '-x'; {GENERIC}"),
        ("-", f"got '-'; {GENERIC}"),
        ("--2%", f"got '--2%'; {GENERIC}"),
        ("- 2%", f"got '- 2%'; {GENERIC}"),
        ("-2%%", f"got '-2%%'; {GENERIC}"),
        ("-1_000", f"got '-1_000'; {GENERIC}"),
        ("-inf", f"got '-inf'; {GENERIC}"),
        ("-nan%", f"got '-nan%'; {GENERIC}"),
        ("-1e999", f"got '-1e999'; {GENERIC}"),
        ("1e999", f"got '1e999'; {GENERIC}"),
        ("-٢%", f"got '-٢%'; {GENERIC}"),
        ("−2%", f"got '−2%'; {GENERIC}"),  # noqa: RUF001 - the sign that word processors write
        (math.nan, f"got nan; {GENERIC}"),
        (True, f"got True; {GENERIC}"),
        (None, f"got None; {GENERIC}"),
        (b"-2%", f"got b'-2%'; {GENERIC}"),
        (10**400, GENERIC),
        (10**5000, GENERIC),
    ],
    ids=lambda value: ascii(value)[:30] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_tolerance(bad: object, advice: str) -> None:
    with pytest.raises(ArmoryUsageError) as caught:
        parse_tolerance(bad)
    text = str(caught.value)
    assert text.startswith("a tolerance must be a string of a sign, a finite number and perhaps %;")
    assert advice in text
    assert tolerances_problem({"m": bad}) == f"cannot be used for 'm': {text}"


@given(anything | near_tolerances | st.none() | st.integers() | st.floats() | st.decimals())
def test_any_tolerance_is_read_or_refused(given: object) -> None:
    try:
        parsed = parse_tolerance(given)
    except ArmoryUsageError:
        assert tolerances_problem({"m": given})
    else:
        assert math.isfinite(parsed.amount)
        assert parsed.amount >= 0


def test_a_long_tolerance_takes_no_time() -> None:
    for text in ("-" + "9" * 100_000 + "x", "-1" + " " * 100_000 + "x", "-" + "9" * 100_000):
        with pytest.raises(ArmoryUsageError):
            parse_tolerance(text)


# The ini key


def test_ini_lines_split_at_the_last_colon() -> None:
    lines = ["accuracy: -2%", "", "  report/macro avg/f1-score :-0.01", "a:b: +5 %", " "]
    assert {name: str(t) for name, t in parse_tolerances(lines).items()} == {
        "accuracy": "-2%",
        "report/macro avg/f1-score": "-0.01",
        "a:b": "+5%",
    }
    assert parse_tolerances([]) == {}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["accuracy"], "must be lines of `metric: tolerance`, as `accuracy: -2%`; got 'accuracy'"),
        ([": -2%"], "must be lines of `metric: tolerance`, as `accuracy: -2%`; got ': -2%'"),
        (["a: -2%", "b: -2%", "a : +1"], "has two lines for 'a'; keep one"),
        (["a: 2%"], "cannot use the line 'a: 2%': a tolerance must be a string of a sign,"),
        (['a: "-2%"'], "here without quotes"),
        (["a:"], "cannot use the line 'a:'"),
    ],
)
def test_ini_lines_that_are_none(lines: list[str], text: str) -> None:
    with pytest.raises(ArmoryUsageError) as caught:
        parse_tolerances(lines)
    assert str(caught.value).startswith("armory_tolerances ")
    assert text in str(caught.value)


@given(st.lists(anything | st.tuples(anything, near_tolerances).map(":".join)))
def test_any_ini_lines_are_read_or_refused(lines: list[str]) -> None:
    try:
        found = parse_tolerances(lines)
    except ArmoryUsageError:
        return
    again = parse_tolerances(f"{name}: {tolerance}" for name, tolerance in found.items())
    assert again == found


# Which session


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Reference("latest")),
        (" latest ", Reference("latest")),
        ("branch:main", Reference("branch", "main")),
        ("branch: feature/x", Reference("branch", "feature/x")),
        ("commit:D3D8D10", Reference("commit", "d3d8d10")),
        ("commit:" + "a" * 40, Reference("commit", "a" * 40)),
        ("20260101-120000-abc123", Reference("session", "20260101-120000-abc123")),
        ("latest-2", Reference("session", "latest-2")),
        ("branches", Reference("session", "branches")),
    ],
)
def test_reference(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


BAD_REFERENCES = (
    "", " ", "Latest", "branch", "branch:", "branch: ", "Branch:main", "commit", "commit:",
    "commit:abc", "commit:" + "a" * 41, "commit:HEAD", "commit:٢٢٢٢", "COMMIT:abcd", "commit :a\nb",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD_REFERENCES)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ArmoryUsageError) as caught:
        parse_reference(text)
    assert str(caught.value).startswith(
        "--armory-baseline must be latest, branch:NAME, commit:SHA (4 to 40 hexadecimal digits) or "
        "a session's ID; got "
    )


@given(anything | anything.map("branch:".__add__) | st.text("0123456789aF").map("commit:".__add__))
def test_any_reference_is_read_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except ArmoryUsageError:
        return
    assert parse_reference(str(found)) == found


# Bounds in the marker

USABLE = (1, 0.9, -2, 0, Decimal("0.9"), Fraction(1, 3), np.float32(0.5), np.int64(3))


@pytest.mark.parametrize("bound", USABLE)
def test_any_finite_real_number_is_a_bound(bound: float) -> None:
    assert bounds_problem({"m": bound}) is None
    (verdict,) = judge({"m": 1e9}, at_least={"m": bound})
    assert verdict.state == "passed"
    assert type(verdict.limit) is float


def test_no_bounds_are_usable() -> None:
    assert bounds_problem({}) is None
    assert tolerances_problem({}) is None
    assert judge({"m": 1.0}, at_least={}, at_most={}, tolerances={}, baseline={}) == []


NO_NUMBERS = (
    "0.9", None, True, np.bool_(True), math.nan, math.inf, -math.inf, np.float64("nan"), 1j, [1],
    Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e999"), 10**400, 10**5000,
    Fraction(10**400), np.array([1.0, 2.0]),
)  # fmt: skip


@pytest.mark.parametrize("bound", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_bound(bound: object) -> None:
    text = bounds_problem({"fine": 1, "m": bound})
    assert text
    assert text.startswith("must be a mapping of metric names to finite numbers, as in at_least=")
    assert text.endswith(" for 'm'")
    assert len(text) < 200


@pytest.mark.parametrize("problem", [bounds_problem, tolerances_problem])
@pytest.mark.parametrize(
    ("bad", "end"),
    [
        (None, "got None"),
        ([("a", 1)], "got [('a', 1)]"),
        ("accuracy", "got 'accuracy'"),
        ({1: 1}, "got 1 as the name of a metric"),
        ({"": 1}, "got '' as the name of a metric"),
        ({" ": 1}, "got ' ' as the name of a metric"),
    ],
)
def test_what_is_no_mapping_of_metrics(problem: object, bad: object, end: str) -> None:
    text = problem(bad)  # type: ignore[operator]
    assert text.startswith("must be a mapping of metric names to ")
    assert text.endswith(f"; {end}")


def test_bounds_that_no_value_meets() -> None:
    assert contradiction({"a": 1, "b": 0.5}, {"a": 1, "c": 0}) is None
    assert contradiction({"z": 0, "a": Decimal("0.9")}, {"a": 0.5}) == (
        "asks 'a' to be at least 0.9 and at most 0.5, which no value is; lower at_least or raise "
        "at_most"
    )
