"""What keeps our calls of MLflow apart from a test's: functions that it has patched, and its log.

MLflow's client and the libraries that it stands on look ``dumps`` and ``loads`` up in the module
``json`` for each request, and ask ``time`` for the time and ``os`` for the process. There these
names now stand for an object that does the same, except during a call of ours: then it has the
functions as they were before the first test. The calls of a test's own code use what it has
patched, and its mocks see none of ours.

What libraries log of a request of ours, such as that it is tried again, is dropped: ``caplog`` of
the test that runs meanwhile would have it, and may assert that nothing was logged.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

from pytest_armory.environment import value_of

T = TypeVar("T")

_USERS = (
    ("mlflow.utils.rest_utils", "json", json),
    ("mlflow.utils.proto_json_utils", "json", json),
    ("mlflow.store.tracking.rest_store", "json", json),
    ("google.protobuf.json_format", "json", json),
    ("requests.models", "complexjson", json),
    ("requests.utils", "os", os),
    ("requests.sessions", "os", os),
    ("http.cookiejar", "time", time),
    ("urllib3.util.timeout", "time", time),
    ("mlflow.environment_variables", "os", os),
    ("mlflow.store.db.utils", "os", os),
    ("mlflow.utils.request_utils", "os", os),
    ("mlflow.utils.databricks_utils", "os", os),
    ("mlflow.utils.thread_utils", "os", os),
    ("mlflow.utils.thread_utils", "threading", threading),
)
"""The modules that calls of ours run through, how each calls a module, and that module."""

_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry", "mlflow.store.db.utils")
"""The loggers of requests, and of queries: of one that fails MLflow logs a traceback."""

_ORIGINALS = {module: dict(vars(module)) for _, _, module in _USERS}


class _Environment(MutableMapping[str, str]):
    """What ``os.environ`` is, whatever stands for its methods."""

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def __setitem__(self, name: str, value: str) -> None:
        os.environ[name] = value

    def __delitem__(self, name: str) -> None:
        del os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)


_ORIGINALS[os].update(environ=_Environment(), getenv=value_of)
_is_ours: ContextVar[bool] = ContextVar("armory_own_request", default=False)


class _Module:
    """What those modules have in place of another; setting and deleting change that one itself."""

    def __init__(self, module: ModuleType, original: Mapping[str, Any]) -> None:
        vars(self).update(_module=module, _original=original)

    def __getattr__(self, name: str) -> Any:
        if _is_ours.get() and name in self._original:
            return self._original[name]
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's
        """Whether the record is of somebody else's request."""
        return not _is_ours.get()


_NOT_OURS = _NotOurs()


def keep_apart() -> None:
    """Have the modules of requests ask us; those that use another JSON library are left alone."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NOT_OURS)
    for user, name, module in _USERS:
        names = vars(sys.modules[user]) if user in sys.modules else {}
        if names.get(name) is module:
            names[name] = _Module(module, _ORIGINALS[module])


def stand_in(module: ModuleType) -> Any:
    """What stands for the module: to calls of our own it is what it is now."""
    return _Module(module, dict(vars(module)))


def is_own() -> bool:
    """Whether this is inside a call of our own."""
    return _is_ours.get()


@contextmanager
def own() -> Iterator[None]:
    """A call of our own, inside the context."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def as_own(work: Callable[[], T]) -> Callable[[], T]:
    """The same work as a call of our own, in whichever thread it is called."""

    def own_work() -> T:
        with own():
            return work()

    return own_work
