"""Parsing of bounds, tolerances and references, with messages about invalid ones. Pure."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from pytest_armory.errors import ArmoryUsageError
from pytest_armory.gates.formatting import brief_repr, exact_number
from pytest_armory.values import legal_key

SESSION = re.compile(r"[A-Za-z0-9._/-]{1,100}")
"""A session's ID."""

_TOLERANCE = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(%?)", re.A | re.I)
_NOISE = re.compile(r"([+-]?)\s*noise", re.I)
_PREFIXED_KINDS = ("branch", "commit")
_SHA = re.compile("[0-9a-f]{4,40}", re.I)
# MLflow's filter strings have no escapes; such a branch cannot be searched for.
_UNQUOTABLE = re.compile(r"[\"\s\x00-\x1f\x7f]")
# As a session's ID these would never be found, and only the summary would say so.
_NEAR_MISS = re.compile(r"latest|(branch|commit)\s*(:.*)?", re.I | re.S)


@dataclass(frozen=True)
class Tolerance:
    """The largest change for the worse against a baseline's value that passes.

    ``amount`` is in the metric's unit or, if ``percent``, in percent of the absolute value of the
    baseline; it is finite and not negative. ``noise`` allows what earlier sessions scatter, and no
    amount. ``str()`` is what :func:`parse_tolerance` reads.
    """

    amount: float
    percent: bool
    higher_is_worse: bool
    noise: bool = False

    def __str__(self) -> str:
        sign = "+" if self.higher_is_worse else "-"
        if self.noise:
            return f"{sign}noise"
        return f"{sign}{exact_number(self.amount)}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class Reference:
    """Which earlier session is the baseline: ``kind`` is latest, branch, commit or session.

    ``value`` is the branch's name, the start of the commit's SHA in lower case, the session's ID;
    empty for ``latest``. ``str()`` is what :func:`parse_reference` reads.
    """

    kind: str
    value: str = ""

    @property
    def is_moving(self) -> bool:
        """Whether later sessions change what it names: ``latest`` and a branch's."""
        return self.kind in ("latest", "branch")

    def __str__(self) -> str:
        if self.kind in _PREFIXED_KINDS:
            return f"{self.kind}:{self.value}"
        return self.value or self.kind


# Tolerances


def parse_tolerance(text: object) -> Tolerance:
    """The tolerance that ``"-2%"``, ``"-0.01"``, ``"+5%"`` or ``"-noise"`` stands for.

    The sign is the worse direction. Raises :class:`ArmoryUsageError` for anything else, such as a
    number without a sign, or one that is no string.
    """
    if isinstance(text, str) and (match := _NOISE.fullmatch(text.strip())) and match[1]:
        return Tolerance(0.0, False, match[1] == "+", noise=True)
    if isinstance(text, str) and (match := _TOLERANCE.fullmatch(text.strip())):
        sign, number, percent = match.groups()
        if sign and math.isfinite(float(number)):
            return Tolerance(float(number), bool(percent), sign == "+")
    raise ArmoryUsageError(
        'a tolerance must be a string of a sign, a finite number and perhaps %; or "-noise" or '
        f'"+noise"; got {brief_repr(text)}; {_tolerance_advice(text)}'
    )


def _tolerance_advice(given: object) -> str:
    if isinstance(given, str) and _NOISE.fullmatch(given.strip()):
        return 'write "-noise" if lower is worse, "+noise" if higher is worse'
    text = exact_number(float(given)) if _is_finite(given) else given  # type: ignore[arg-type]
    match = _TOLERANCE.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match or not math.isfinite(float(match[2])):
        return (
            'write one like "-2%" (may fall by 2 %), "-0.01" (may fall by 0.01) or "+5%" (may rise '
            "by 5 %)"
        )
    unsigned = exact_number(float(match[2])) + match[3]
    if match[1]:
        return f'write "{match[1]}{unsigned}"'
    return f'write "-{unsigned}" if lower is worse, "+{unsigned}" if higher is worse'


def parse_tolerances(lines: Iterable[str]) -> dict[str, Tolerance]:
    """The ini key ``armory_tolerances``: lines of ``metric: tolerance``, split at the last colon.

    Raises :class:`ArmoryUsageError` for a line that is none, or a second one for a metric.
    """
    tolerances: dict[str, Tolerance] = {}
    for line in filter(str.strip, lines):
        metric, _, text = (part.strip() for part in line.rpartition(":"))
        if not metric:
            raise ArmoryUsageError(
                "armory_tolerances must be lines of `metric: tolerance`, as `accuracy: -2%`; got "
                f"{line!r}"
            )
        if metric in tolerances:
            raise ArmoryUsageError(f"armory_tolerances has two lines for {metric!r}; keep one")
        if problem := collision({**tolerances, metric: text}):
            raise ArmoryUsageError(f"armory_tolerances {problem}")
        tolerances[metric] = _tolerance_of_line(line, text)
    return tolerances


def _tolerance_of_line(line: str, text: str) -> Tolerance:
    try:
        return parse_tolerance(text)
    except ArmoryUsageError as error:
        raise ArmoryUsageError(
            f"armory_tolerances cannot use the line {line!r}: {error}; here without quotes"
        ) from None


# Which session


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
    if SESSION.fullmatch(given) and not _NEAR_MISS.fullmatch(given):
        return Reference("session", given)
    raise ArmoryUsageError(
        "--armory-baseline must be latest, branch:NAME, commit:SHA (4 to 40 hexadecimal digits) or "
        f"a session's ID; got {brief_repr(text)}"
    )


# The marker's mappings


def bounds_problem(bounds: object) -> str | None:
    """The problem with ``at_least`` or ``at_most``, to follow its name; None if it is valid.

    Any finite real number is a bound, including NumPy's and decimals, but not ``bool``.
    """
    rule = 'must be a mapping of metric names to finite numbers, as in at_least={"accuracy": 0.9}'

    def problem(metric: str, bound: object) -> str | None:
        return None if _is_finite(bound) else f"{rule}; got {brief_repr(bound)} for {metric!r}"

    return _mapping_problem(bounds, rule, problem)


def tolerances_problem(given: object) -> str | None:
    """The problem with ``baseline``, to follow its name; None if it is valid."""
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
        return f"{rule}; got {brief_repr(given)}"
    for metric, value in given.items():
        if not isinstance(metric, str) or not metric.strip():
            return f"{rule}; got {brief_repr(metric)} as the name of a metric"
        if found := problem(metric, value):
            return found
    return None


def collision(named: Mapping[str, object]) -> str | None:
    """The problem with a mapping that names one metric of MLflow twice, to follow its name."""
    first: dict[str, str] = {}
    for metric in named:
        legal = legal_key(metric)
        if first.setdefault(legal, metric) != metric:
            return (
                f"names {first[legal]!r} and {metric!r}, and both are the metric {legal!r} in "
                "MLflow; keep one of them, or rename what is logged"
            )
    return None


def contradiction(at_least: Mapping[str, float], at_most: Mapping[str, float]) -> str | None:
    """The problem with bounds that no value meets, ``at_least`` above ``at_most``; else None.

    Both must be valid: see :func:`bounds_problem`.
    """
    upper = {legal_key(metric): bound for metric, bound in at_most.items()}
    for metric in at_least:
        if legal_key(metric) not in upper:
            continue
        least, most = float(at_least[metric]), float(upper[legal_key(metric)])
        if least > most:
            return (
                f"asks {metric!r} to be at least {exact_number(least)} and at most "
                f"{exact_number(most)}, which no value is; lower at_least or raise at_most"
            )
    return None


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, ValueError):  # an integer beyond floats, a signalling NaN
        return False
