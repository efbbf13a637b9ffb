"""What keeps requests of our own apart from a test's: patched functions of ``json``, and its log.

MLflow's client and the libraries that it stands on look ``dumps`` and ``loads`` up in the module
``json`` for each request. There that name now stands for an object that does the same, except
during a request of ours: then it has the functions as they were before the first test. The requests
of a test's own code use what it has patched, and its mocks see no call of ours.

What libraries log of a request of ours, such as that it is tried again, is dropped: ``caplog`` of
the test that runs meanwhile would have it, and may assert that nothing was logged.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_USERS = {
    "mlflow.utils.rest_utils": "json",
    "mlflow.utils.proto_json_utils": "json",
    "mlflow.store.tracking.rest_store": "json",
    "google.protobuf.json_format": "json",
    "requests.models": "complexjson",
}
"""The modules that requests to a server run through, and how each calls ``json``."""

_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry")
"""The loggers of requests; MLflow's own has a handler of its own, which no test sees."""

_ORIGINAL = dict(vars(json))
_is_ours: ContextVar[bool] = ContextVar("armory_own_request", default=False)


class _Json:
    """What those modules have in place of ``json``; setting and deleting change ``json`` itself."""

    def __getattr__(self, name: str) -> Any:
        if _is_ours.get() and name in _ORIGINAL:
            return _ORIGINAL[name]
        return getattr(json, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(json, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(json, name)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's
        """Whether the record is of somebody else's request."""
        return not _is_ours.get()


_NOT_OURS = _NotOurs()


def keep_apart() -> None:
    """Have the modules of requests ask us; those that use another JSON library are left alone."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NOT_OURS)
    for module, name in _USERS.items():
        names = vars(sys.modules.get(module, json))
        if names.get(name) is json:
            names[name] = _Json()


def as_own(work: Callable[[], T]) -> Callable[[], T]:
    """The same work as a request of our own, in whichever thread it is called."""

    def own_work() -> T:
        token = _is_ours.set(True)
        try:
            return work()
        finally:
            _is_ours.reset(token)

    return own_work
