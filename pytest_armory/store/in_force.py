"""Which tracking URI is in force in this process: the user's own, or that of our active run.

``mlflow.set_tracking_uri`` throws away what the user has set up of MLflow's tracing: switched it
off, say, or had secrets masked. So our URI is put where his own stands, in the environment, and in
MLflow's variable if he has set that; and what was there is put back where it still is ours.

The variable and the experiment that was chosen are private to MLflow: the CI matrix runs the oldest
and the newest supported version against this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from pytest_armory.environment import put

_URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"


@dataclass(frozen=True)
class Settings:
    """MLflow's variable for the tracking URI, and the environment's; None where it is not set."""

    variable: str | None
    environment: str | None

    @property
    def uri(self) -> str | None:
        """The URI that is in force by these, or None: the default that MLflow then takes."""
        return self.variable if self.variable is not None else self.environment or None

    def without(self, uri: str, other: Settings) -> Settings:
        """These, but what the other ones say in the place of ``uri``."""
        return Settings(
            other.variable if self.variable == uri else self.variable,
            other.environment if self.environment == uri else self.environment,
        )


_users = Settings(None, None)
"""What the user has set."""
_ours = ""
"""The URI of ours that stands in its place, or stood there last; empty before the first."""
_is_ours = False
"""Whether it is to stand there at the moment."""
_is_exchanged = False
"""Whether other settings are in force for a while."""
_written = Settings(None, None)
"""What we have set to put it there."""
_changed = Settings(None, None)
"""Ours, where code had changed it when it was to go: it may yet put back what it had found."""

_Chosen = tuple[str | None, str | None]
"""The experiment's id that ``mlflow.set_experiment`` keeps, and that in the environment."""
_chosen: dict[str | None, _Chosen] = {}
"""The experiment that was chosen in each store, by its URI."""
_seen: _Chosen = (None, None)
_variables_before: tuple[str | None, ...] = (None, None)
"""The experiment's variables when ours was put in force."""


def uri_in_force() -> str | None:
    """The tracking URI that was set, or None: the default that MLflow then takes is no one's."""
    return _now().uri


def given_uri() -> str | None:
    """``MLFLOW_TRACKING_URI`` as the user has given it, not as our active run has put it."""
    given = os.environ.get(_URI) or None
    return (_users.environment or None) if _is_ours and given == _ours else given


def put_ours(uri: str) -> None:
    """Put ``uri`` in force, in the place of what the user has set."""
    global _users, _ours, _is_ours, _written, _variables_before
    if not _is_ours:
        put_users()
        _users = _now()
    _switch_experiment(uri)
    _ours, _is_ours = uri, True
    _written = settings_for(uri)
    _write(_written)
    _variables_before = _variables()


def settings() -> Settings:
    """What is in force now."""
    return _now()


def put_back(before: Settings) -> None:
    """Put in force again what an evaluation inside another had replaced."""
    _switch_experiment(before.uri)
    _write(before)


def keep_ours() -> None:
    """Put ours back where code has taken its own away again, and the user has set none."""
    if _is_ours and not _is_exchanged and _users.uri is None and uri_in_force() is None:
        put_ours(_ours)


def resolved_users_uri() -> str:
    """The tracking URI that would be in force without us; MLflow's default if the user set none."""
    now = _now()
    users = _users if _is_ours and now.uri == _ours else now
    if users.uri is not None:
        return users.uri
    _write(users)
    try:
        uri: str = _tracking().get_tracking_uri()
        return uri
    finally:
        _write(now)


def put_users() -> None:
    """Put back what the user had set, where what stands there is ours, now or after all."""
    global _is_ours, _changed
    now, back = _now(), _now().without(_ours, _users) if _is_ours else None
    if back is None:
        back = Settings(
            _put_back(now.variable, _changed.variable, _users.variable),
            _put_back(now.environment, _changed.environment, _users.environment),
        )
        _changed = Settings(
            _changed.variable if back.variable == now.variable else None,
            _changed.environment if back.environment == now.environment else None,
        )
    else:
        _is_ours = False
        _changed = Settings(
            _ours if now.variable != _written.variable else None,
            _ours if now.environment != _written.environment else None,
        )
    if back != now:
        _switch_experiment(back.uri)
        _write(back)


def _put_back(now: str | None, ours: str | None, users: str | None) -> str | None:
    return users if ours is not None and now == ours else now


@contextmanager
def exchanged(uri: str | None) -> Iterator[None]:
    """Have another URI in force meanwhile, or none; what code sets itself meanwhile stands."""
    global _is_exchanged
    before, settings, was_exchanged = _now(), settings_for(uri), _is_exchanged
    _switch_experiment(uri)
    _write(settings)
    _is_exchanged = True
    try:
        yield
    finally:
        _is_exchanged = was_exchanged
        if _now() == settings:
            _switch_experiment(before.uri)
            _write(before)


def settings_for(uri: str | None) -> Settings:
    """Settings by which ``uri`` is in force, and MLflow's variable is set only if it is now."""
    return Settings(uri if _now().variable is not None else None, uri)


def has_chosen_experiment() -> bool:
    """Whether code has chosen an experiment in the store in force, or by its own variables."""
    remember_experiment()
    return _experiment()[0] is not None or _variables() != _variables_before


def remember_experiment() -> None:
    """Note an experiment that was chosen since the last look: it is one of the store in force."""
    global _seen
    now = _experiment()
    if now != _seen:
        _chosen[uri_in_force()] = _seen = now


def _switch_experiment(uri: str | None) -> None:
    """Choose what was chosen in the store of ``uri``: by the same id another has a stranger's."""
    global _seen
    remember_experiment()
    if uri == uri_in_force():
        return
    _chosen.setdefault(uri_in_force(), _seen)
    _seen = _chosen.get(uri, (None, None))
    if _seen != _experiment():
        _fluent()._active_experiment_id = _seen[0]  # type: ignore[attr-defined] # MLflow's own
        put({_EXPERIMENT_ID: _seen[1]})


def _variables() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in (_EXPERIMENT_ID, "MLFLOW_EXPERIMENT_NAME"))


def _experiment() -> _Chosen:
    return vars(_fluent())["_active_experiment_id"], os.environ.get(_EXPERIMENT_ID)


def _now() -> Settings:
    return Settings(vars(_tracking())["_tracking_uri"], os.environ.get(_URI))


def _write(settings: Settings) -> None:
    _tracking()._tracking_uri = settings.variable  # type: ignore[attr-defined] # MLflow's own
    put({_URI: settings.environment})


def _tracking() -> ModuleType:
    from mlflow.tracking._tracking_service import utils

    module: ModuleType = utils
    return module


def _fluent() -> ModuleType:
    from mlflow.tracking import fluent

    module: ModuleType = fluent
    return module
