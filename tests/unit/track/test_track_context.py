"""Tracking contexts: apart, nested, across threads and tasks; and trackables."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any

import pytest

from pytest_armory.errors import ArmoryUsageError, ParameterWarning, TrackingWarning
from pytest_armory.track import (
    EvaluationRun,
    Trackable,
    context,
    get_current_params,
    reset_params,
    track_call,
    track_metrics,
    track_param,
    trackable_context,
    tracking_context,
)
from pytest_armory.track.context import running


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with tracking_context():
        yield


@contextmanager
def outside() -> Iterator[None]:
    """Outside of every context, the plugin's own among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "_open", [])
        token = context._current.set(context._root)
        yield
        reset_params()
        context._current.reset(token)


# --- One thread ----------------------------------------------------------------------------------


def test_a_context_is_isolated_and_forgotten() -> None:
    track_param("key", "outside")
    with tracking_context():
        assert get_current_params() == {}
        track_param("key", "inside")
        assert get_current_params() == {"key": "inside"}
    assert get_current_params() == {"key": "outside"}


def test_a_nested_context_starts_from_a_copy() -> None:
    track_param("a", 1)
    with tracking_context(nested=True):
        track_param("b", 2)
        assert get_current_params() == {"a": 1, "b": 2}
        with tracking_context():
            assert get_current_params() == {}
            with tracking_context(nested=True):
                assert get_current_params() == {}
    assert get_current_params() == {"a": 1}


def test_a_context_ends_with_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), tracking_context():
        track_param("a", 1 / 0)
    assert get_current_params() == {}


def test_resetting_forgets_only_the_current_context() -> None:
    track_param("a", 1)
    with tracking_context(nested=True):
        reset_params()
        assert get_current_params() == {}
    assert get_current_params() == {"a": 1}


def test_a_second_value_replaces_the_first_with_a_warning() -> None:
    track_param("a", 1)
    with pytest.warns(ParameterWarning, match="'a' was already recorded") as caught:
        track_param("a", 2)
    assert caught[0].filename == __file__
    assert get_current_params() == {"a": 2}


def test_a_key_is_a_string() -> None:
    with pytest.raises(ArmoryUsageError, match="the key must be a string, got 1"):
        track_param(1, 2)  # type: ignore[arg-type]


def test_contexts_may_close_in_any_order() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(tracking_context())
    second.enter_context(tracking_context())
    first.close()
    track_param("a", 1)
    assert get_current_params() == {"a": 1}
    second.close()
    assert get_current_params() == {}


def test_outside_of_every_context_parameters_are_kept_too() -> None:
    with outside():
        track_param("a", 1)
        with tracking_context():
            assert get_current_params() == {}
        assert get_current_params() == {"a": 1}


def test_a_generator_keeps_its_context_open_for_its_caller() -> None:
    def fixture() -> Iterator[None]:
        with tracking_context():
            yield

    generator = fixture()
    next(generator)
    track_param("a", 1)
    assert get_current_params() == {"a": 1}
    contextvars.copy_context().run(generator.close)  # as a fixture may be finalised
    assert get_current_params() == {}


# --- Threads -------------------------------------------------------------------------------------


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_thread_records_to_the_context_it_is_started_in() -> None:
    with tracking_context():
        in_a_thread(lambda: track_param("a", 1))
        with tracking_context():
            in_a_thread(lambda: track_call(dict, b=2))
            assert get_current_params() == {"dict._func": "builtins.dict", "dict.b": 2}
        assert get_current_params() == {"a": 1}


@pytest.mark.parametrize("started_before", [False, True])
def test_an_executor_records_to_the_open_context(started_before: bool) -> None:
    with ThreadPoolExecutor(2) as pool:
        if started_before:
            list(pool.map(int, range(4)))
        with tracking_context():
            list(pool.map(lambda i: track_param(f"p{i}", i), range(3)))
            assert get_current_params() == {"p0": 0, "p1": 1, "p2": 2}
        pool.submit(track_param, "after", 1).result()
        assert get_current_params() == {"after": 1}


def test_threads_log_to_the_run_they_are_started_in() -> None:
    with running(EvaluationRun()) as scope:
        in_a_thread(lambda: track_metrics({"a": 1}))
    assert scope.run is not None
    assert scope.run.metrics == {"a": 1.0}


def two_at_once(work: Callable[[str, threading.Barrier], Any]) -> list[Any]:
    """``work`` in two threads that wait for each other at the barrier."""
    barrier = threading.Barrier(2, timeout=20)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: work(name, barrier), "ab"))


def test_two_contexts_at_once_in_two_threads_stay_apart() -> None:
    def work(name: str, barrier: threading.Barrier) -> dict[str, Any]:
        with tracking_context():
            barrier.wait()
            track_param(name, 1)
            barrier.wait()
            return dict(get_current_params())

    assert two_at_once(work) == [{"a": 1}, {"b": 1}]


def test_two_runs_at_once_in_a_pool_are_not_inside_one_another() -> None:
    def work(name: str, barrier: threading.Barrier) -> Any:
        if name == "b":
            barrier.wait()
        with running(EvaluationRun()) as scope:
            track_param(name, 1)
            if name == "a":
                barrier.wait()
            barrier.wait()
            return (scope.params, scope.outer.run if scope.outer else None)

    assert two_at_once(work) == [({"a": 1}, None), ({"b": 1}, None)]


def test_two_runs_at_once_in_a_pool_are_inside_that_of_the_main_thread() -> None:
    def work(_: str, barrier: threading.Barrier) -> Any:
        barrier.wait()
        with running(EvaluationRun()) as scope:
            barrier.wait()
            return scope.outer

    with running(EvaluationRun()) as scope:
        assert two_at_once(work) == [scope, scope]


def test_a_third_thread_records_to_what_two_contexts_are_both_inside_of() -> None:
    def work(_: str, barrier: threading.Barrier) -> None:
        with tracking_context():
            if barrier.wait() == 0:
                in_a_thread(lambda: track_param("third", 1))
            barrier.wait()
            assert get_current_params() == {}

    with tracking_context():
        two_at_once(work)
        assert get_current_params() == {"third": 1}


def test_a_third_thread_does_not_record_to_what_another_opened_for_itself() -> None:
    def second() -> None:
        with tracking_context():
            in_a_thread(lambda: track_param("third", 1))
            assert get_current_params() == {}

    with tracking_context():
        in_a_thread(second)
        assert get_current_params() == {"third": 1}


def test_a_third_thread_of_which_nothing_is_known_records_nowhere_with_a_warning() -> None:
    def third() -> None:
        with pytest.warns(TrackingWarning, match="copy_context"):
            track_param("third", 1)
        warned.append(True)

    def work(name: str, barrier: threading.Barrier) -> dict[str, Any]:
        with tracking_context():
            barrier.wait()
            copied = contextvars.copy_context()
            in_a_thread(lambda: copied.run(track_param, name, 1))
            if barrier.wait() == 0:
                in_a_thread(third)
            barrier.wait()
            return dict(get_current_params())

    warned: list[bool] = []
    with outside():
        assert two_at_once(work) == [{"a": 1}, {"b": 1}]
        assert warned == [True]
        assert get_current_params() == {}


def test_the_main_thread_is_not_inside_the_context_of_another() -> None:
    inside, leave = threading.Event(), threading.Event()
    seen: list[dict[str, Any]] = []

    def work() -> None:
        with tracking_context():
            inside.set()
            leave.wait(20)
            seen.append(dict(get_current_params()))

    thread = threading.Thread(target=work)
    with outside():
        thread.start()
        inside.wait(20)
        track_param("main", 1)
        leave.set()
        thread.join()
        assert get_current_params() == {"main": 1}
    assert seen == [{}]


# --- Tasks ---------------------------------------------------------------------------------------


async def record(name: str) -> None:
    await asyncio.sleep(0)
    track_param(name, 1)


async def as_task(name: str) -> None:
    await asyncio.create_task(record(name))


async def in_gather(name: str) -> None:
    await asyncio.gather(record(name), asyncio.sleep(0))


async def in_to_thread(name: str) -> None:
    await asyncio.to_thread(track_param, name, 1)


async def in_executor(name: str) -> None:
    await asyncio.get_running_loop().run_in_executor(None, track_param, name, 1)


@pytest.mark.parametrize("start", [record, as_task, in_gather, in_to_thread, in_executor])
@pytest.mark.parametrize("around", [True, False], ids=["context around loop", "in task"])
def test_a_task_records_to_the_context_it_is_started_in(
    start: Callable[[str], Awaitable[None]], around: bool
) -> None:
    async def main() -> dict[str, Any]:
        if around:
            await start("a")
            return dict(get_current_params())
        with tracking_context():
            await start("a")
            return dict(get_current_params())

    with tracking_context():
        assert asyncio.run(main()) == {"a": 1}


def test_two_tasks_with_contexts_of_their_own_stay_apart() -> None:
    async def work(name: str, mine: asyncio.Event, other: asyncio.Event) -> dict[str, Any]:
        with tracking_context():
            mine.set()
            await other.wait()
            await record(name)
            return dict(get_current_params())

    async def main() -> list[dict[str, Any]]:
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work("a", a, b), work("b", b, a))

    assert asyncio.run(main()) == [{"a": 1}, {"b": 1}]


def test_two_runs_at_once_in_two_tasks_are_not_inside_one_another() -> None:
    async def work(name: str, mine: asyncio.Event, before: asyncio.Event | None) -> Any:
        if before is not None:
            await before.wait()
        with running(EvaluationRun()) as scope:
            mine.set()
            await record(name)
            return (scope.params, scope.outer.run if scope.outer else None)

    async def main() -> list[Any]:
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work("a", a, None), work("b", b, a))

    assert asyncio.run(main()) == [({"a": 1}, None), ({"b": 1}, None)]


@pytest.mark.parametrize("around", [False, True], ids=["outside", "inside another"])
def test_a_task_older_than_the_context_around_its_loop_records_to_it(around: bool) -> None:
    # As test runners do that keep one task for all fixtures and tests.
    async def serve() -> None:
        while (name := await names.get()) is not None:
            track_param(name, 1)
            names.task_done()

    async def ask(name: str | None) -> None:
        await names.put(name)
        await names.join()

    loop = asyncio.new_event_loop()
    names: asyncio.Queue[str | None] = asyncio.Queue()
    with ExitStack() as stack:
        if around:
            stack.enter_context(tracking_context())
        server = loop.create_task(serve())
        loop.run_until_complete(ask("before"))
        with tracking_context():
            loop.run_until_complete(ask("inside"))
            assert get_current_params() == {"inside": 1}
        loop.run_until_complete(ask("after"))
        assert get_current_params() == {"before": 1, "after": 1}
        names.put_nowait(None)
        loop.run_until_complete(server)
    loop.close()


def test_a_task_that_outlives_its_context_records_outside_of_it() -> None:
    async def late(ended: asyncio.Event) -> None:
        await ended.wait()
        track_param("late", 1)

    async def main() -> None:
        ended = asyncio.Event()
        with tracking_context():
            task = asyncio.create_task(late(ended))
            await asyncio.sleep(0)
        ended.set()
        await task

    asyncio.run(main())
    assert get_current_params() == {"late": 1}


# --- Trackables ----------------------------------------------------------------------------------


class Bare(Trackable):
    pass


class WithInit(Trackable):
    def __init__(self, a: int) -> None:
        super().__init__()
        self.a = a


@dataclass
class Data(Trackable):
    a: int
    b: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen(Trackable):
    a: int


@dataclass(slots=True)
class Slotted(Trackable):
    a: int


@dataclass(frozen=True, slots=True, eq=True, order=True)
class FrozenSlotted(Trackable):
    a: int


class Base:
    def __init__(self, a: int) -> None:
        self.a = a


class OverBase(Trackable, Base):
    pass


@dataclass
class DataBase:
    a: int
    twice: int = 0

    def __post_init__(self) -> None:
        self.twice += 2 * self.a


class OverDataBase(Trackable, DataBase):
    pass


@dataclass
class DataOverDataBase(Trackable, DataBase):
    pass


@dataclass
class WithInitVar(Trackable):
    a: int = 0
    b: InitVar[int] = 0

    def __post_init__(self, b: int) -> None:
        super().__post_init__()
        self.a += b


MAKERS: list[Callable[[], Trackable]] = [
    Bare,
    lambda: WithInit(1),
    lambda: Data(1),
    lambda: Frozen(1),
    lambda: Slotted(1),
    lambda: FrozenSlotted(1),
    lambda: OverBase(1),
    lambda: OverDataBase(1),
    lambda: DataOverDataBase(1),
    lambda: WithInitVar(b=1),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: type(make()).__name__)
def test_a_trackable_gets_the_parameters_of_its_context(make: Callable[[], Trackable]) -> None:
    with trackable_context():
        track_param("before", 1)
        made = make()
        assert made.tracked_params == {}
        track_param("after", 2)
    assert made.tracked_params == {"before": 1, "after": 2}
    assert getattr(made, "a", 1) == 1
    assert get_current_params() == {}


@pytest.mark.parametrize("make", [OverDataBase, DataOverDataBase])
def test_a_base_class_keeps_its_own_post_init(make: Callable[[int], Any]) -> None:
    assert make(3).twice == 6


def test_a_dataclass_keeps_its_fields() -> None:
    assert asdict(Data(1)) == {"a": 1, "b": []}
    assert Frozen(1) == Frozen(1)
    assert hash(Frozen(1)) == hash(Frozen(1))


def test_a_trackable_pickles_with_its_parameters() -> None:
    with trackable_context():
        track_param("a", 1)
        made = Frozen(1)
    assert pickle.loads(pickle.dumps(made)).tracked_params == {"a": 1}


def test_trackables_of_one_context_do_not_share_their_parameters() -> None:
    with trackable_context():
        track_param("a", 1)
        first, second = Bare(), Bare()
    first.tracked_params["a"] = 2
    assert second.tracked_params == {"a": 1}


def test_a_nested_trackable_context() -> None:
    track_param("outside", 0)
    with trackable_context(nested=True):
        track_param("a", 1)
        outer = Bare()
        with trackable_context(nested=True):
            track_param("b", 2)
            inner = Bare()
    assert inner.tracked_params == {"outside": 0, "a": 1, "b": 2}
    assert outer.tracked_params == {"outside": 0, "a": 1}


def test_a_trackable_made_in_a_context_inside_belongs_to_the_trackable_context() -> None:
    with trackable_context():
        track_param("a", 1)
        with tracking_context():
            track_param("b", 2)
            made = Bare()
    assert made.tracked_params == {"a": 1}


def test_a_trackable_context_that_fails_gives_what_it_has() -> None:
    made: list[Bare] = []

    def fail() -> None:
        track_param("a", 1)
        made.append(Bare())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), trackable_context():
        fail()
    assert made[0].tracked_params == {"a": 1}


@pytest.mark.parametrize("context", [tracking_context, trackable_context])
def test_trackables_are_not_kept_alive(context: Callable[[], Any]) -> None:
    outside = Bare()
    with context():
        inside = Bare()
        outlives = contextvars.copy_context()  # as a task would
    gone = [weakref.ref(outside), weakref.ref(inside)]
    del outside, inside
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert outlives
