"""Parameters follow the fixture.

A session-scoped fixture is executed once, in the setup of the first test that requests it; what it
recorded belongs to every test that uses it. So each execution of a fixture records separately, and
a test's parameters are those of all fixtures that it requests: as arguments, through other
fixtures, or with ``request.getfixturevalue``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

import pytest

from pytest_armory.track.context import Scope, current_scope, entered
from pytest_armory.values import Descriptions, param_strings

T = TypeVar("T")

Step = Callable[[], AbstractContextManager[None]]
"""Makes the context in which the plugin's own code runs inside of a test's."""


class Recorded:
    """What one execution of a fixture recorded, described at once or when it is read.

    At once, the objects may change later, and are not kept alive. Else only those are that cannot
    be referred to weakly, as strings and lists.
    """

    def __init__(
        self, params: Mapping[str, Any], at_once: bool, known: Descriptions | None = None
    ) -> None:
        self._params = {} if at_once else {name: _held(value) for name, value in params.items()}
        self._strings = param_strings(params, known=Descriptions(known)) if at_once else None

    @property
    def strings(self) -> dict[str, str]:
        """The parameters as strings."""
        if self._strings is None:
            self._strings = param_strings({name: get() for name, get in self._params.items()})
            self._params = {}
        return self._strings


def _held(value: Any) -> Callable[[], Any]:
    try:
        reference = ref(value)
    except TypeError:
        return lambda: value
    name = f"<{type(value).__qualname__}>"
    return lambda: name if (found := reference()) is None else found


Source = tuple[str, Recorded]
"""The name of a fixture, and what it recorded."""


@dataclass
class _Execution:
    """What the latest execution of a fixture recorded, and the fixtures that it requested."""

    params: Recorded
    needs: list[pytest.FixtureDef[Any]] = field(default_factory=list)


class FixtureParams:
    """The parameters of every live fixture, by its definition.

    ``at_once`` says when they are described: when the fixture has been executed, or when read.
    ``step`` guards what is done inside of a fixture.
    """

    def __init__(self, at_once: bool = True, step: Step = nullcontext) -> None:
        self._at_once = at_once
        self._step = step
        self._executions: WeakKeyDictionary[pytest.FixtureDef[Any], _Execution] = (
            WeakKeyDictionary()
        )

    @contextmanager
    def recording(
        self,
        fixturedef: pytest.FixtureDef[Any],
        request: pytest.FixtureRequest,
        known: Descriptions | None = None,
    ) -> Iterator[None]:
        """Record one execution of a fixture in a scope of its own; ``known`` are texts."""
        execution = _Execution(Recorded({}, at_once=True))
        self._executions[fixturedef] = execution
        outer = current_scope()
        _note(request, execution.needs, self._step)
        with entered(Scope(outer=outer)) as scope:
            try:
                yield
            finally:
                execution.params = Recorded(scope.params, self._at_once, known)

    def of(self, item: pytest.Item) -> list[Source]:
        """What each fixture recorded that a test has requested so far, in order of execution."""
        found: list[Source] = []
        seen: set[int] = set()
        for fixturedef in _active(item):
            self._collect(fixturedef, found, seen)
        return found

    def _collect(
        self, fixturedef: pytest.FixtureDef[Any], found: list[Source], seen: set[int]
    ) -> None:
        if id(fixturedef) in seen:
            return
        seen.add(id(fixturedef))
        execution = self._executions.get(fixturedef)
        if execution is not None:
            for needed in execution.needs:
                self._collect(needed, found, seen)
            found.append((fixturedef.argname, execution.params))


def merged(sources: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """The parameters of all sources in one mapping.

    If two sources recorded different calls under one prefix, such as two fixtures that load the
    training and the test split with one loader, each call is prefixed with its source's name:
    ``train.load.split`` and ``held_out.load.split``.
    """
    calls: dict[str, list[tuple[str, dict[str, str]]]] = {}
    names: Counter[str] = Counter()
    for name, params in sources:
        names[name] += 1  # a fixture that overrides another may request that one
        unique = name if names[name] == 1 else f"{name}.{names[name]}"
        for prefix, call in calls_of(params).items():
            calls.setdefault(prefix, []).append((unique, call))
    found: dict[str, str] = {}
    for recorded in calls.values():
        differ = any(call != recorded[0][1] for _, call in recorded)
        for name, call in recorded:
            found.update({f"{name}.{key}" if differ else key: call[key] for key in call})
    return found


def calls_of(params: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Parameters by the prefix of their tracked call; others by their own name."""
    prefixes = [key.removesuffix("._func") for key in params if key.endswith("._func")]
    calls: dict[str, dict[str, T]] = {}
    for key, value in params.items():
        prefix = next((p for p in prefixes if key.startswith(f"{p}.")), key)
        calls.setdefault(prefix, {})[key] = value
    return calls


def _active(item: pytest.Item) -> list[pytest.FixtureDef[Any]]:
    """The fixtures that this test has requested, including cached ones and those that failed.

    pytest keeps them on the request, without a public interface; an item that is no function
    (a doctest, a custom item) has none. One that failed is not on the request, but is cached.
    """
    handed_out = dict(getattr(getattr(item, "_request", None), "_fixture_defs", {}))
    declared = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, definitions in declared.items():
        if name not in handed_out and definitions and definitions[-1].cached_result is not None:
            handed_out[name] = definitions[-1]
    return list(handed_out.values())


def _note(request: pytest.FixtureRequest, needs: list[pytest.FixtureDef[Any]], step: Step) -> None:
    """Note every fixture that one fixture requests.

    pytest itself calls ``getfixturevalue`` for arguments, as does the fixture's body for dynamic
    ones; for a cached fixture no hook is called.
    """
    original: Callable[[str], Any] = request.getfixturevalue

    def getfixturevalue(argname: str) -> Any:
        value = original(argname)
        if argname != "request":
            with step():
                needs.append(request._get_active_fixturedef(argname))
        return value

    # This instance only, and permanently: the fixture's value may request others in later tests.
    request.getfixturevalue = getfixturevalue  # type: ignore[method-assign]


def uses_wide_fixture(item: pytest.Item) -> bool:
    """Whether a test declares a fixture that is wider than a test, harmless ones left out."""
    declared = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    definitions = [found[-1] for found in declared.values() if found]
    return any(one.scope != "function" and not _is_harmless(one) for one in definitions)


_HARMLESS = ("_pytest.", "pytest_asyncio.")
"""Where fixtures come from that many tests have, and that patch nothing for others."""


def _is_harmless(fixturedef: pytest.FixtureDef[Any]) -> bool:
    # Those of pytest's that call `setup_module` and its like have the module as their base.
    module = str(getattr(fixturedef.func, "__module__", ""))
    return module.startswith(_HARMLESS) and not fixturedef.baseid
