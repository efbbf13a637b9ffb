"""Dates and times, as services write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone


def seconds(when: str) -> float:
    """An ISO 8601 date and time as seconds since the epoch; without an offset it is UTC.

    Written out because ``datetime.fromisoformat`` of Python 3.10 knows no ``Z``, no ``+0200`` and
    no fraction but of three or six digits. Raises ValueError.
    """
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?"
        r"(?:Z|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?",
        when.strip().upper(),
    )
    if not match:
        raise ValueError("not a date and time of ISO 8601")
    moment, fraction, sign, hours, minutes = match.groups("0")
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    utc = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc) - offset
    return utc.timestamp() + float(f"0.{fraction}")
