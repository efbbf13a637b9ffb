"""Bounds and baseline tolerances -> verdicts. Pure: knows metrics by name and number only."""

from __future__ import annotations

import math
import numbers
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.records import Verdict

SLACK = 2e-7
"""How far past a tolerance's limit still counts as on it, relative to the baseline's value.

In float32, 0.95 is less than 95 % of 1.0: this is a little over what rounding both sides does. It
is never more than a thousandth of what the tolerance itself allows, so that a tolerance of zero has
none. Neither have the bounds ``at_least`` and ``at_most``.
"""

NAMED = 5
"""How many of the logged metrics are named where none is like the one that was asked for."""

_TOLERANCE = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(%?)", re.A | re.I)
_KINDS = ("branch", "commit")
_SHA = re.compile("[0-9a-f]{4,40}", re.I)
SESSION = re.compile(r"[A-Za-z0-9._/-]{1,100}")
"""A session's ID."""
# MLflow's filter strings know no escapes; a branch of such a name cannot be asked for.
_UNQUOTABLE = re.compile(r"[\"\s\x00-\x1f\x7f]")
# As a session's ID these would never be found, and the gates say so at best in the summary.
_ALMOST = re.compile(r"latest|(branch|commit)\s*(:.*)?", re.I | re.S)


@dataclass(frozen=True)
class Tolerance:
    """The worst change against a baseline's value that still passes.

    ``amount`` is in the metric's unit or, if ``percent``, in percent of the absolute value of the
    baseline; it is finite and not negative. ``str()`` is what :func:`parse_tolerance` reads.
    """

    amount: float
    percent: bool
    higher_is_worse: bool

    def __str__(self) -> str:
        sign = "+" if self.higher_is_worse else "-"
        return f"{sign}{_exact(self.amount)}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class Reference:
    """Which earlier session is the baseline: ``kind`` is latest, branch, commit or session.

    ``value`` is the branch's name, the start of the commit's SHA in lower case, the session's ID;
    empty for ``latest``. ``str()`` is what :func:`parse_reference` reads.
    """

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.kind in _KINDS else self.value or self.kind


# What a user writes


def parse_tolerance(text: object) -> Tolerance:
    """The tolerance that ``"-2%"``, ``"-0.01"`` or ``"+5%"`` stands for.

    The sign says which way is worse. A value exactly on the limit passes, and so does one that is
    :data:`SLACK` past it, for rounding. Raises :class:`ArmoryUsageError` for anything else, such as
    a number without a sign, or one that is no string.
    """
    if isinstance(text, str) and (match := _TOLERANCE.fullmatch(text.strip())):
        sign, number, percent = match.groups()
        if sign and math.isfinite(float(number)):
            return Tolerance(float(number), bool(percent), sign == "+")
    raise ArmoryUsageError(
        "a tolerance must be a string of a sign, a finite number and perhaps %; got "
        f"{_shown(text)}; {_tolerance_advice(text)}"
    )


def _tolerance_advice(given: object) -> str:
    text = _exact(float(given)) if _is_finite(given) else given  # type: ignore[arg-type]
    match = _TOLERANCE.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match or not math.isfinite(float(match[2])):
        return (
            'write one like "-2%" (may fall by 2 %), "-0.01" (may fall by 0.01) or "+5%" (may rise '
            "by 5 %)"
        )
    plain = _exact(float(match[2])) + match[3]
    if match[1]:
        return f'write "{match[1]}{plain}"'
    return f'write "-{plain}" if lower is worse, "+{plain}" if higher is worse'


def parse_tolerances(lines: Iterable[str]) -> dict[str, Tolerance]:
    """The ini key ``armory_tolerances``: lines of ``metric: tolerance``, split at the last colon.

    Raises :class:`ArmoryUsageError` for a line that is none, or a second one for a metric.
    """
    found: dict[str, Tolerance] = {}
    for line in filter(str.strip, lines):
        metric, _, text = (part.strip() for part in line.rpartition(":"))
        if not metric:
            raise ArmoryUsageError(
                "armory_tolerances must be lines of `metric: tolerance`, as `accuracy: -2%`; got "
                f"{line!r}"
            )
        if metric in found:
            raise ArmoryUsageError(f"armory_tolerances has two lines for {metric!r}; keep one")
        try:
            found[metric] = parse_tolerance(text)
        except ArmoryUsageError as error:
            raise ArmoryUsageError(
                f"armory_tolerances cannot use the line {line!r}: {error}; here without quotes"
            ) from None
    return found


def parse_reference(text: str) -> Reference:
    """The session that ``--armory-baseline`` names.

    ``latest``, ``branch:NAME``, ``commit:SHA``, or else a session's ID. Raises
    :class:`ArmoryUsageError` for what is none of them or all but one of the first three.
    """
    given = text.strip()
    kind, _, value = (part.strip() for part in given.partition(":"))
    if given == "latest":
        return Reference("latest")
    if kind == "branch" and value and not _UNQUOTABLE.search(value):
        return Reference("branch", value)
    if kind == "commit" and _SHA.fullmatch(value):
        return Reference("commit", value.lower())
    if SESSION.fullmatch(given) and not _ALMOST.fullmatch(given):
        return Reference("session", given)
    raise ArmoryUsageError(
        "--armory-baseline must be latest, branch:NAME, commit:SHA (4 to 40 hexadecimal digits) or "
        f"a session's ID; got {_shown(text)}"
    )


def bounds_problem(bounds: object) -> str | None:
    """What is wrong with ``at_least`` or ``at_most``, to follow its name; None if it is usable.

    Any finite real number is a bound, NumPy's and decimals among them; ``bool`` is none.
    """
    rule = 'must be a mapping of metric names to finite numbers, as in at_least={"accuracy": 0.9}'

    def problem(metric: str, bound: object) -> str | None:
        return None if _is_finite(bound) else f"{rule}; got {_shown(bound)} for {metric!r}"

    return _mapping_problem(bounds, rule, problem)


def tolerances_problem(given: object) -> str | None:
    """What is wrong with ``baseline``, to follow its name; None if it is usable."""
    rule = 'must be a mapping of metric names to tolerances, as in baseline={"accuracy": "-2%"}'

    def problem(metric: str, tolerance: object) -> str | None:
        try:
            parse_tolerance(tolerance)
        except ArmoryUsageError as error:
            return f"cannot be used for {metric!r}: {error}"
        return None

    return _mapping_problem(given, rule, problem)


def _mapping_problem(
    given: object, rule: str, problem: Callable[[str, object], str | None]
) -> str | None:
    if not isinstance(given, Mapping):
        return f"{rule}; got {_shown(given)}"
    for metric, value in given.items():
        if not isinstance(metric, str) or not metric.strip():
            return f"{rule}; got {_shown(metric)} as the name of a metric"
        if found := problem(metric, value):
            return found
    return None


def contradiction(at_least: Mapping[str, float], at_most: Mapping[str, float]) -> str | None:
    """What no value can meet: a metric whose ``at_least`` is above its ``at_most``; else None.

    Both must be usable: see :func:`bounds_problem`.
    """
    for metric in filter(at_most.__contains__, at_least):
        least, most = float(at_least[metric]), float(at_most[metric])
        if least > most:
            return (
                f"asks {metric!r} to be at least {_exact(least)} and at most {_exact(most)}, which "
                "no value is; lower at_least or raise at_most"
            )
    return None


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, ValueError):  # an integer beyond floats, a signalling NaN
        return False


# The verdicts


def judge(
    metrics: Mapping[str, float],
    *,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
    session_tolerances: Mapping[str, Tolerance] | None = None,
    baseline: Mapping[str, float] | None = None,
) -> list[Verdict]:
    """One verdict for every gate: bounds first, then tolerances, each in the order given.

    ``tolerances`` and the bounds ask for metrics by name, so that one never logged fails;
    ``session_tolerances`` judge what was logged, where ``tolerances`` says nothing of it.
    ``baseline`` holds the baseline run's metrics, None if there is no such run. Never raises for
    bounds that :func:`bounds_problem` finds nothing wrong with.
    """
    compared = dict(tolerances or {})
    for metric in filter(metrics.__contains__, session_tolerances or {}):
        compared.setdefault(metric, (session_tolerances or {})[metric])
    return [
        *(_bounded(metrics, m, float(b), "at_least") for m, b in (at_least or {}).items()),
        *(_bounded(metrics, m, float(b), "at_most") for m, b in (at_most or {}).items()),
        *(_compared(metrics, m, t, baseline) for m, t in compared.items()),
    ]


def unread(verdict: Verdict) -> Verdict:
    """The same where the store could not be asked what else was logged: that is no miss."""
    if verdict.state != "failed" or verdict.value is not None:
        return verdict
    return replace(verdict, state="unjudged", text="cannot be read back from the store")


def _bounded(metrics: Mapping[str, float], metric: str, bound: float, kind: str) -> Verdict:
    higher, rule = kind == "at_most", f"{kind} {_exact(bound)}"
    if metric not in metrics:
        text = _never_logged(metric, metrics)
        return Verdict(metric, rule, "failed", None, bound, text=text, higher_is_worse=higher)
    value = float(metrics[metric])
    passed = value <= bound if higher else value >= bound
    text = f"meets {rule}"
    if math.isnan(value):
        text = f"misses {rule}, as NaN misses every bound"
    elif not passed:
        by = distinct_number(abs(value - bound))
        text = f"is {'above' if higher else 'below'} {rule} by {by}"
    state = "passed" if passed else "failed"
    return Verdict(metric, rule, state, value, bound, text=text, higher_is_worse=higher)


def _compared(
    metrics: Mapping[str, float],
    metric: str,
    tolerance: Tolerance,
    baseline: Mapping[str, float] | None,
) -> Verdict:
    value = float(metrics[metric]) if metric in metrics else None
    base = float(baseline[metric]) if baseline and metric in baseline else None
    higher = tolerance.higher_is_worse

    def verdict(state: str, text: str, limit: float | None = None) -> Verdict:
        return Verdict(metric, f"baseline {tolerance}", state, value, limit, base, text, higher)

    if base is None:
        text = "is not in the baseline run" if baseline is not None else "has no baseline run"
        missing = f", and {_never_logged(metric, metrics)}" if value is None else ""
        return verdict("unjudged", text + missing)
    if value is None:
        return verdict("failed", _never_logged(metric, metrics))
    if math.isnan(value) or math.isnan(base):
        return verdict("unjudged", "is NaN" if math.isnan(value) else "is NaN in the baseline run")
    sign = 1 if higher else -1
    edge = tolerance.amount / 100 * abs(base) if tolerance.percent else tolerance.amount
    limit = base + sign * edge
    change = _change(value, base, tolerance)
    if sign * value <= sign * base:
        return verdict("passed", change, None if math.isnan(limit) else limit)
    if tolerance.percent and (base == 0 or math.isinf(base)):
        plain = Tolerance(0.01, False, higher)
        text = (
            f"has a baseline of {distinct_number(base)}, which has no percentage; without %, as "
            f'"{plain}", it can be judged'
        )
        return verdict("unjudged", text)
    # The second keeps "+1" exact on a count of millions, and "-0" everywhere.
    slack = min(SLACK * max(abs(base), edge), edge / 1000)
    passed = sign * value <= sign * limit + slack
    text = f'{change}; "{tolerance}" allows {distinct_number(limit, value)}'
    return verdict("passed" if passed else "failed", text, limit)


def _change(value: float, base: float, tolerance: Tolerance) -> str:
    """How a value came from the baseline's, in percent if the tolerance is."""
    if value == base:
        return f"is the baseline's {distinct_number(base)}"
    percent = tolerance.percent and base != 0 and math.isfinite(base)
    by = abs(value - base) / abs(base) * 100 if percent else abs(value - base)
    by = float(f"{by:.9g}")  # without what 1.0 - 0.98 leaves in the last place
    how = distinct_number(by, tolerance.amount, digits=2 if percent else 4) + " %" * percent
    way = f"rose {how} above" if value > base else f"fell {how} below"
    return f"{way} the baseline's {distinct_number(base, value)}"


def _never_logged(metric: str, metrics: Iterable[str]) -> str:
    import difflib

    names = {name.casefold(): name for name in metrics}
    nearest = difflib.get_close_matches(metric.casefold(), names, n=1)
    if nearest:
        return f"was never logged; did you mean {names[nearest[0]]!r}?"
    some = ", ".join(map(repr, list(names.values())[:NAMED]))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"was never logged; logged were {some}{more}" if some else "was never logged"


def failure_text(verdicts: Iterable[Verdict]) -> str:
    """What a test fails with: every missed gate on a line of its own; "" if none was missed."""
    failed = [verdict for verdict in verdicts if verdict.state == "failed"]
    rows: dict[tuple[str, str, str], None] = {}  # what was never logged misses every gate alike
    for verdict in failed:
        value = "" if verdict.value is None else distinct_number(verdict.value, verdict.limit)
        name = verdict.metric if verdict.metric.isprintable() else repr(verdict.metric)
        rows[(name, value, verdict.text)] = None
    if not rows:
        return ""
    missed = f"{len(failed)} gate{'s' * (len(failed) != 1)} missed"
    if len(rows) == 1:  # then it all fits in pytest's short summary
        return f"{missed}: {' '.join(filter(None, next(iter(rows))))}"
    names, values = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [
        f"  {name:{names}}  {f'{value:{values}}  ' if value else ''}{text}"
        for name, value, text in rows
    ]
    return "\n".join([f"{missed}: {', '.join(dict.fromkeys(row[0] for row in rows))}", *lines])


# Numbers


def distinct_number(value: float, apart: float | None = None, digits: int = 4) -> str:
    """A number in a few significant digits: as many more as tell it from ``apart``."""
    text = _rounded(value, digits)
    while apart is not None and value != apart and text == _rounded(apart, digits) and digits < 17:
        digits += 1
        text = _rounded(value, digits)
    return text


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and 1 <= abs(value) < 1e15 else text


def _exact(value: float) -> str:
    return repr(value).removesuffix(".0")


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer too long to be written
        return f"<{type(value).__name__}>"
