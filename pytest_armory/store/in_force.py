"""Which tracking URI is in force in this process: the user's own, or that of our active run.

``mlflow.set_tracking_uri`` throws away what the user has set up of MLflow's tracing: switched it
off, say, or had secrets masked; and ``MLFLOW_TRACKING_URI`` in ``os.environ`` is read by code that
decides by it. So neither is touched. Ours stands in MLflow's variable if the user has set that; and
where MLflow asks for the environment's, it gets ours for as long as that is as it was when ours
was put in force. What code sets meanwhile is the user's own.

The variable and the experiment that was chosen are private to MLflow: the CI matrix runs the oldest
and the newest supported version against this.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from pytest_armory.environment import put, value_of
from pytest_armory.store._mlflow import import_mlflow
from pytest_armory.store.exported import exported
from pytest_armory.store.stack import fluent_api

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


@dataclass(frozen=True)
class Substitute:
    """What MLflow gets for ``MLFLOW_TRACKING_URI`` while that is as it was."""

    uri: str | None
    instead_of: str | None


State = tuple[str | None, "Substitute | None"]
"""MLflow's variable, and what it gets for the environment's."""

Chosen = tuple[str | None, str | None]
"""The experiment's id that ``mlflow.set_experiment`` keeps, and that in the environment."""

NONE = Settings(None, None)


class InForce:
    """The tracking URI in force in this process, and the experiments chosen in each store."""

    def __init__(self) -> None:
        self._users = NONE
        """What the user has set."""
        self._ours: str | None = None
        """Ours, that is to stand in its place or stood there last."""
        self._is_ours = False
        """Whether it is to stand there at the moment."""
        self._outer = _from_parent()
        """That of an evaluation that this process is a child of."""
        self._substitute = self._outer
        self._users_default = threading.local()
        """Set while a thread asks for what is in force without any setting; no other may see it."""
        self._written: str | None = None
        """What was written to MLflow's variable to put ours in force."""
        self._changed = (False, False)
        """Where code had changed ours when it was to go: it may yet put back what it had found."""
        self._chosen: dict[str | None, Chosen] = {}
        """The experiment that was chosen in each store, by its URI."""
        self._seen: Chosen = (None, None)
        self._variables_before: tuple[str | None, ...] = (None, None)
        """The experiment's variables when ours was put in force."""

    def uri(self) -> str | None:
        """The tracking URI that was set, or None: the default that MLflow then takes."""
        return self._now().uri

    def given(self) -> str | None:
        """``MLFLOW_TRACKING_URI`` as the user has given it, by whatever means ours got there."""
        given = value_of(_URI)
        if self._is_ours and given == self._ours:
            given = self._users.environment
        return _read(self._outer, given) or None

    def environment(self) -> str | None:
        """What MLflow is to read as ``MLFLOW_TRACKING_URI``."""
        if getattr(self._users_default, "is_asked", False):
            return None
        return _read(self._substitute, value_of(_URI))

    def instead_of(self) -> dict[str, str | None]:
        """For child processes: what ours is instead of, if it is."""
        return {"instead_of": self._users.environment} if self._is_ours else {}

    def put_ours(self, uri: str) -> None:
        """Put ``uri`` in force, instead of what the user has set."""
        if not self._is_ours:
            self.put_users()
            self._users = Settings(_variable(), value_of(_URI))
        self._switch_experiment(uri)
        self._ours, self._is_ours = uri, True
        self._put_substitute(uri)
        self._written = _variable()
        self._variables_before = _experiment_variables()

    def state(self) -> State:
        """What is in force now, for :meth:`put_back`."""
        return _variable(), self._substitute

    def put_back(self, before: State) -> None:
        """Put in force again what an evaluation inside another had replaced."""
        self._switch_experiment(_settings(before).uri)
        self._write(before)

    def resolved_users(self) -> str:
        """The tracking URI that would be in force without us; MLflow's default if none is set."""
        users = self._now()
        if self._is_ours and users.uri == self._ours:
            environment = _read(self._outer, self._users.environment)
            users = Settings(self._users.variable, environment)
        if users.uri is not None:
            return users.uri
        self._users_default.is_asked = True
        try:
            uri: str = _tracking().get_tracking_uri()
            return uri
        finally:
            self._users_default.is_asked = False

    def put_users(self) -> None:
        """Put back what the user had set, where what stands there is ours, now or after all."""
        variable, environment = _variable(), value_of(_URI)
        if self._is_ours:
            at = self._substitute.instead_of if self._substitute is not None else None
            self._changed = (variable != self._written, environment != at)
            back = (variable == self._ours, environment == self._ours)
        else:
            back = (
                self._changed[0] and variable == self._ours,
                self._changed[1] and environment == self._ours,
            )
            self._changed = (
                self._changed[0] and not back[0],
                self._changed[1] and not back[1],
            )
        was_ours, self._is_ours = self._is_ours, False
        if not (was_ours or any(back)):
            return
        users = Settings(
            self._users.variable if back[0] else variable,
            self._users.environment if back[1] else environment,
        )
        uri = Settings(users.variable, _read(self._outer, users.environment)).uri
        self._switch_experiment(uri)
        self._write((users.variable, self._outer))
        if back[1]:
            put({_URI: users.environment})

    @contextmanager
    def exchanged(self, uri: str | None) -> Iterator[None]:
        """Have another URI in force meanwhile, or none; what code sets itself meanwhile stands."""
        before = self.state()
        self._switch_experiment(uri)
        self._put_substitute(uri)
        put_there = self.state()
        try:
            yield
        finally:
            if self.state() == put_there and self.uri() == uri:
                self.put_back(before)

    def has_chosen_experiment(self) -> bool:
        """Whether code has chosen an experiment in the store in force, or by its own variables."""
        self.remember_experiment()
        chosen = _experiment()[0] is not None
        return chosen or _experiment_variables() != self._variables_before

    def remember_experiment(self) -> None:
        """Note an experiment that was chosen since the last look: it is one of the store there."""
        now = _experiment()
        if now != self._seen:
            self._chosen[self.uri()] = self._seen = now

    def _switch_experiment(self, uri: str | None) -> None:
        """Choose what was chosen in that store: an ID means another experiment in each."""
        self.remember_experiment()
        if uri == self.uri():
            return
        self._chosen.setdefault(self.uri(), self._seen)
        self._seen = self._chosen.get(uri, (None, None))
        if self._seen != _experiment():
            fluent_api()._active_experiment_id = self._seen[0]  # type: ignore[attr-defined] # MLflow's
            put({_EXPERIMENT_ID: self._seen[1]})

    def _put_substitute(self, uri: str | None) -> None:
        variable = None if _variable() is None else uri
        self._write((variable, Substitute(uri, value_of(_URI))))

    def _write(self, state: State) -> None:
        _tracking()._tracking_uri, self._substitute = state  # type: ignore[attr-defined] # MLflow's own

    def _now(self) -> Settings:
        return _settings(self.state())


def _from_parent() -> Substitute | None:
    known = exported()
    return Substitute(known["uri"], known["instead_of"]) if "instead_of" in known else None


def _read(substitute: Substitute | None, given: str | None) -> str | None:
    return substitute.uri if substitute is not None and given == substitute.instead_of else given


def _settings(state: State) -> Settings:
    variable, substitute = state
    return Settings(variable, _read(substitute, value_of(_URI)))


def _experiment_variables() -> tuple[str | None, ...]:
    return tuple(value_of(name) for name in (_EXPERIMENT_ID, "MLFLOW_EXPERIMENT_NAME"))


def _experiment() -> Chosen:
    return vars(fluent_api())["_active_experiment_id"], value_of(_EXPERIMENT_ID)


def _variable() -> str | None:
    found: str | None = vars(_tracking())["_tracking_uri"]
    return found


def _tracking() -> ModuleType:
    import_mlflow()
    from mlflow.tracking._tracking_service import utils

    module: ModuleType = utils
    return module


in_force = InForce()
"""That of this process."""
