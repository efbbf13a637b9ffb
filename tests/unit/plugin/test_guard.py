"""The guard of our hooks: every hook has it, and what it lets through."""

# ruff: noqa: ARG001, ARG005 - a hook's first argument says whose it is
from __future__ import annotations

import functools
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace

import pytest
from conftest import Evals

from pytest_armory.errors import StoreRefusedError
from pytest_armory.plugin import hooks, in_memory, options
from pytest_armory.plugin.devices import Devices
from pytest_armory.plugin.guard import guard_of, guarded, guarded_wrapper, unless
from pytest_armory.plugin.reporting import ReportingHooks
from pytest_armory.plugin.running import RunningHooks
from pytest_armory.plugin.sharding import Sharding


class Manager:
    """Stands for the plugin manager of a session."""


@pytest.fixture
def session() -> SimpleNamespace:
    """What a hook's first argument may be: it has a config. The session has evaluations."""
    session = SimpleNamespace(config=SimpleNamespace(pluginmanager=Manager()))
    guard_of(session).holds_signals = True
    return session


Session = SimpleNamespace


# Every hook has it


def own_hooks(config: pytest.Config) -> dict[str, Callable[..., object]]:
    """The hook implementations that our plugins have registered, by module and name."""
    manager = config.pluginmanager
    found = {}
    for plugin in manager.get_plugins():
        for caller in manager.get_hookcallers(plugin) or ():
            for one in caller.get_hookimpls():
                module = one.function.__module__
                if one.plugin is plugin and module.startswith("pytest_armory"):
                    found[f"{module.rpartition('.')[2]}.{caller.name}"] = one.function
    return found


def is_guarded(hook: object) -> bool:
    """Whether the guard is outermost: another decorator's code would be outside of it."""
    function = getattr(hook, "__func__", hook)
    return getattr(function, "is_guarded", None) is function


def test_a_hook_whose_guard_is_not_outermost_is_found() -> None:
    def plain(config: object) -> None: ...

    @guarded
    def inside(config: object) -> None: ...

    outside = functools.wraps(inside)(lambda config: inside(config))
    assert [is_guarded(hook) for hook in (plain, inside, outside)] == [False, True, False]


def names_of(layer: str, holder: object) -> set[str]:
    return {f"{layer}.{name}" for name in vars(holder) if name.startswith("pytest_")}


@pytest.mark.parametrize("track", [True, False], ids=["tracked", "untracked"])
def test_every_hook_is_guarded(evals: Evals, track: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # which has got its device
    more = ("--armory-shard=1/2", "--armory-session=s", "--armory-devices=0")
    args = evals.arguments("-p", "xdist", *more, track=track)
    config = evals.pytester.parseconfigure(*args)
    expected = names_of("hooks", hooks) | names_of("running", RunningHooks)
    expected |= names_of("sharding", Sharding) | names_of("devices", Devices)
    if track:
        expected |= names_of("reporting", ReportingHooks)
    else:
        in_memory.register(config, options.UNTRACKED)
    found = own_hooks(config)
    assert found.keys() == expected
    assert {name for name, hook in found.items() if not is_guarded(hook)} == set()
    guards = {id(guard_of(hook.__self__)) for hook in found.values() if hasattr(hook, "__self__")}
    assert guards == {id(guard_of(config))}


def test_pluggy_sees_the_arguments_of_a_guarded_hook() -> None:
    manager = pytest.PytestPluginManager()
    wrong = SimpleNamespace(pytest_runtest_setup=hooks.pytest_addhooks)
    with pytest.raises(Exception, match=r"Argument\(s\) {'pluginmanager'} are declared"):
        manager.register(wrong, "wrong")


# Plain hooks


def test_a_plain_hook_gives_its_result(session: Session) -> None:
    assert guarded(lambda session: 3)(session) == 3
    assert guard_of(session).problems == []


def test_an_exception_becomes_a_problem_once(session: Session) -> None:
    @guarded
    def hook(session: Session) -> int:
        raise ValueError("our  own\npassword=hunter2hunter2")

    assert hook(session) is None
    assert hook(session) is None
    (problem,) = guard_of(session).problems
    assert problem.startswith("tracking failed in test_guard.py:")
    assert "ValueError: our own" in problem
    assert "hunter2hunter2" not in problem


def test_a_tracking_error_is_its_own_text(session: Session) -> None:
    @guarded
    def hook(session: Session) -> None:
        raise StoreRefusedError("the disk is full")

    hook(session)
    assert guard_of(session).problems == ["the disk is full"]


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_without_a_text(session: Session) -> None:
    @guarded
    def hook(session: Session) -> None:
        raise UnprintableError

    hook(session)
    assert guard_of(session).problems == ["tracking failed: UnprintableError"]


FOR_PYTEST = [
    pytest.UsageError("no"),
    pytest.fail.Exception("a gate is missed"),
    pytest.skip.Exception("no GPU"),
    pytest.exit.Exception("enough"),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("error", FOR_PYTEST, ids=lambda error: type(error).__name__)
def test_what_pytest_acts_on_passes(session: Session, error: BaseException) -> None:
    @guarded
    def hook(session: Session) -> None:
        raise error

    @guarded_wrapper
    def after(session: Session) -> Generator[None, object, None]:
        yield
        raise error

    @guarded_wrapper
    def before(session: Session) -> Generator[None, object, None]:
        if error is not None:
            raise error
        yield

    def run_after() -> None:
        wrapper = after(session)
        next(wrapper)
        wrapper.send(1)

    for run in (lambda: hook(session), lambda: next(before(session)), run_after):
        with pytest.raises(type(error)) as raised:
            run()
        assert raised.value is error
    assert guard_of(session).problems == []


def test_each_session_has_its_own(session: Session) -> None:
    other = SimpleNamespace(pluginmanager=Manager())
    assert guard_of(session) is guard_of(session.config) is guard_of(session.config.pluginmanager)
    assert guard_of(session) is not guard_of(other)


def test_what_fails_after_the_summary_is_shown_at_once(session: Session) -> None:
    lines: list[str] = []
    terminal = SimpleNamespace(line=lambda text, **_: lines.append(text))
    session.config.get_terminal_writer = lambda: terminal
    session.config.stash = pytest.Stash()
    hooks.pytest_terminal_summary(
        SimpleNamespace(config=session.config, ensure_newline=lambda: None)  # type: ignore[arg-type]
    )
    assert lines == []
    for _ in range(2):
        guarded(lambda session: 1 / 0)(session)
    (line,) = lines
    assert line.startswith("armory: warning: tracking failed in test_guard.py:")
    assert line.endswith("ZeroDivisionError: division by zero")


def test_a_step_that_fails_leaves_the_next(session: Session) -> None:
    done = []

    @guarded
    def hook(session: Session) -> None:
        with guard_of(session).step():
            raise ValueError("first")
        done.append("second")

    hook(session)
    assert done == ["second"]
    assert len(guard_of(session).problems) == 1


# Wrappers


def drive(wrapper: Generator[None, object, object], outcome: object) -> object:
    """Call a wrapper as pluggy does, around inner hooks of that outcome."""
    next(wrapper)
    try:
        if isinstance(outcome, BaseException):
            wrapper.throw(outcome)
        else:
            wrapper.send(outcome)
    except StopIteration as end:
        return end.value
    raise AssertionError("it has yielded twice")


@guarded_wrapper
def fails_before(session: Session, seen: list[object]) -> Generator[None, object, None]:
    raise ValueError("before")
    yield


@guarded_wrapper
def fails_after(session: Session, seen: list[object]) -> Generator[None, object, None]:
    seen.append((yield))
    raise ValueError("after")


@guarded_wrapper
def fails_finally(session: Session, seen: list[object]) -> Generator[None, object, None]:
    try:
        yield
    finally:
        raise ValueError("finally")


@guarded_wrapper
def swallows(session: Session, seen: list[object]) -> Generator[None, object, None]:
    try:
        seen.append((yield))
    except BaseException as error:  # noqa: BLE001 - what it is to do
        seen.append(error)


@guarded_wrapper
def ends_early(session: Session, seen: list[object]) -> Generator[None, object, None]:
    if seen:
        yield


WRAPPERS = [fails_before, fails_after, fails_finally, swallows, ends_early]
OUTCOMES = [3, None, ValueError("theirs"), pytest.fail.Exception("no"), KeyboardInterrupt()]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.__name__)
def test_what_comes_out_of_the_inner_hooks_is_untouched(
    session: Session, wrapper: Callable[..., Generator[None, object, object]], outcome: object
) -> None:
    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)) as raised:
            drive(wrapper(session, []), outcome)
        assert raised.value is outcome
        assert outcome.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(outcome.__traceback__)]
        assert "throw" not in names  # nor is its traceback
    else:
        assert drive(wrapper(session, []), outcome) is outcome
    problems = guard_of(session).problems
    assert all("theirs" not in problem for problem in problems)
    fails = wrapper in (fails_before, fails_finally) or (
        wrapper is fails_after and not isinstance(outcome, BaseException)
    )
    assert len(problems) == fails


def test_a_wrapper_sees_the_outcome(session: Session) -> None:
    seen: list[object] = []
    drive(swallows(session, seen), 3)
    error = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs"):
        drive(swallows(session, seen), error)
    assert seen == [3, error]


@pytest.mark.parametrize("idle", [True, False, None])
def test_a_wrapper_that_is_left_out(session: Session, idle: bool | None) -> None:
    """Not if that cannot be said, which is a problem of the session."""

    def nothing_to_do(session: Session, seen: list[object]) -> bool:
        if idle is None:
            raise ValueError("which")
        return idle

    seen: list[object] = []
    error = ValueError("theirs")
    wrapper = unless(nothing_to_do)(swallows)
    assert drive(wrapper(session, seen), 3) == 3
    with pytest.raises(ValueError, match="theirs"):
        drive(wrapper(session, seen), error)
    assert seen == ([] if idle else [3, error])
    assert len(guard_of(session).problems) == (idle is None)


def test_an_inner_hook_that_stops_an_iteration(session: Session) -> None:
    """Python makes a RuntimeError of it, and pluggy looks at its cause."""
    error = StopIteration("theirs")
    with pytest.raises(RuntimeError) as raised:
        drive(fails_after(session, []), error)
    assert raised.value.__cause__ is error
    assert guard_of(session).problems == []


# Signals


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as Python handles it, whatever shell this was started from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_waits_for_our_part_only(session: Session) -> None:
    done = []

    @guarded_wrapper
    def hook(session: Session) -> Generator[None, object, None]:
        done.append("before")
        try:
            yield
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            done.append("after")

    wrapper = hook(session)
    next(wrapper)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert guard_of(session).busy.acquire(blocking=False)
    guard_of(session).busy.release()
    with pytest.raises(KeyboardInterrupt):
        wrapper.send(1)
    assert done == ["before", "after"]


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_before_the_inner_hooks_leaves_what_was_entered(session: Session) -> None:
    left = []

    @guarded_wrapper
    def hook(session: Session) -> Generator[None, object, None]:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            yield
        finally:
            left.append(1)

    with pytest.raises(KeyboardInterrupt):
        next(hook(session))
    assert left == [1]


@pytest.mark.usefixtures("sigint")
def test_without_evaluations_signals_are_left_alone(session: Session) -> None:
    guard_of(session).holds_signals = False
    handlers = []
    guarded(lambda session: handlers.append(signal.getsignal(signal.SIGINT)))(session)
    assert handlers == [signal.default_int_handler]


def test_the_guard_is_busy_meanwhile(session: Session) -> None:
    """Whoever shuts the process down waits for our part, in another thread."""
    got = []

    @guarded
    def hook(session: Session) -> None:
        other = threading.Thread(
            target=lambda: got.append(guard_of(session).busy.acquire(blocking=False))
        )
        other.start()
        other.join()

    hook(session)
    assert got == [False]
