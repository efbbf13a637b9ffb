"""Options of verdicts: what an unclear one does, and how many sessions the baseline is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import pytest

INI_UNCLEAR = "armory_unclear"
INI_SESSIONS = "armory_baseline_sessions"

UNCLEAR = ("pass", "fail", "measured")
"""What a gate may do that evidence leaves unclear."""

MOST_SESSIONS = 100

OPTIONS = (
    (
        "--armory-unclear",
        "pass|fail|measured",
        "what a gate does if its samples do not tell whether the metric is worse: `pass` (the "
        "default), `fail`, or `measured`, where the change that was measured decides",
    ),
)
"""Each option with its metavar, None for a flag, and its help."""

INI_KEYS: tuple[tuple[str, Literal["bool", "linelist"] | None, str], ...] = (
    (INI_UNCLEAR, None, "the same as --armory-unclear"),
    (
        INI_SESSIONS,
        None,
        "of how many sessions the baseline is the mean, the newest ones that `latest` or `branch:` "
        "takes (default: 1; 5 for models that answer differently each time)",
    ),
)
"""Each ini key with its type, None for one line of text, and its help."""


class VerdictSettings(NamedTuple):
    """What verdicts depend on; ``overrides`` says that ``unclear`` is from the command line."""

    unclear: str = "pass"
    overrides: bool = False
    sessions: int = 1


def read_verdict_settings(config: pytest.Config) -> VerdictSettings:
    """The settings. Raises ``pytest.UsageError`` for what cannot be used."""
    given, key = config.option.armory_unclear, config.getini(INI_UNCLEAR)
    sessions = config.getini(INI_SESSIONS)
    return VerdictSettings(
        unclear=_unclear(given or key, "--armory-unclear" if given else INI_UNCLEAR),
        overrides=bool(given),
        sessions=_sessions(sessions) if sessions else 1,
    )


def _unclear(text: str, source: str) -> str:
    import pytest

    if text in ("", *UNCLEAR):
        return text or UNCLEAR[0]
    raise pytest.UsageError(
        f"armory: {source} must be {', '.join(UNCLEAR[:-1])} or {UNCLEAR[-1]}, got {text!r}; as in "
        f"{source}{' = ' if source == INI_UNCLEAR else ' '}fail"
    )


def _sessions(text: str) -> int:
    import pytest

    if re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MOST_SESSIONS:
        return int(text)
    raise pytest.UsageError(
        f"armory: {INI_SESSIONS} must be a whole number from 1 to {MOST_SESSIONS}, got {text!r}; "
        f"as in {INI_SESSIONS} = 5"
    )
