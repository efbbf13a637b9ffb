"""track_params, track_init_params, track_call: what they record, and that nothing else changes."""

# ruff: noqa: ARG001, ARG002 - what is called here only has arguments.

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import inspect
import math
import pickle
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression

from pytest_armory.errors import ArmoryUsageError, ParameterWarning
from pytest_armory.track import (
    Trackable,
    get_current_params,
    track_call,
    track_init_params,
    track_params,
    trackable_context,
    tracking_context,
)


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with tracking_context():
        yield


def recorded() -> dict[str, Any]:
    """The current parameters but the functions' names."""
    return {k: v for k, v in get_current_params().items() if not k.endswith("._func")}


# --- What the decorators are written as ----------------------------------------------------------


@track_params
def load(split: str, *, size: int = 1) -> str:
    """Load a split."""
    return f"{split}{size}"


def plain(a: Any, b: Any = 2, *args: Any, c: Any = 3, **rest: Any) -> Any:
    return a


@track_init_params
class Model:
    """A model."""

    def __init__(self, depth: int, *, width: int = 1) -> None:
        self.depth = depth
        self.width = width


def test_only_keyword_arguments_are_recorded_beside_the_function() -> None:
    assert load("test", size=3) == "test3"
    assert get_current_params() == {
        "load._func": "test_track_calls.load",
        "load.size": 3,
    }


@pytest.mark.parametrize(
    "decorate",
    [
        track_params,
        track_params(),
        lambda f: track_params(_func=f),
        functools.partial(track_params, bound=False),
    ],
    ids=["bare", "called", "by name", "inline"],
)
def test_ways_to_decorate_a_function(decorate: Callable[..., Any]) -> None:
    assert decorate(plain)(a=1, d=4) == 1
    assert recorded() == {"plain.a": 1, "plain.d": 4}


@pytest.mark.parametrize(
    "decorate",
    [track_init_params, track_init_params(), lambda c: track_init_params(_cls=c)],
    ids=["bare", "called", "by name"],
)
def test_ways_to_decorate_a_class(decorate: Callable[..., Any]) -> None:
    class Made:
        def __init__(self, a: int, b: int = 2) -> None:
            self.b = b

    assert decorate(Made)(1, b=3).b == 3
    assert get_current_params() == {
        "Made._func": f"{__name__}.{Made.__qualname__}",
        "Made.b": 3,
    }


def test_prefix_and_ignore() -> None:
    track_params(plain, prefix="data", ignore=["b"])(a=1, b=2)
    track_init_params(type("Made", (Model,), {}), prefix="model", ignore=("depth",))(depth=1)
    assert {k: v for k, v in recorded().items() if not k.startswith("Model")} == {"data.a": 1}
    assert get_current_params()["data._func"] == "test_track_calls.plain"
    assert "model._func" in get_current_params()


def test_a_value_is_recorded_as_it_was_given() -> None:
    value = [object()]
    track_call(plain, a=value)
    assert recorded()["plain.a"] is value


def test_what_a_call_raises_is_its_own_and_its_arguments_are_recorded() -> None:
    with pytest.raises(ZeroDivisionError):
        track_call(lambda divisor: 1 / divisor, divisor=0)
    assert list(recorded().values()) == [0]


# --- A second call -------------------------------------------------------------------------------


def test_a_second_call_replaces_the_first_with_a_warning() -> None:
    track_params(plain)(a=1, b=2)
    with pytest.warns(ParameterWarning, match=r"under 'plain' were .*`prefix=`") as caught:
        track_params(plain)(a=3)
    assert recorded() == {"plain.a": 3}
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "call",
    [
        lambda: track_call(plain, a=1),
        lambda: load("a"),
        lambda: Model(1),
        lambda: asyncio.run(awaiting(n=1)),
        lambda: list(count(n=1)),
    ],
    ids=["track_call", "function", "class", "coroutine", "generator"],
)
def test_the_warning_points_at_the_caller(call: Callable[[], Any]) -> None:
    call()
    with pytest.warns(ParameterWarning) as caught:
        call()
    assert caught[0].filename == __file__


def test_replacing_leaves_other_prefixes_alone() -> None:
    track_params(plain, prefix="pre")(a=1)
    track_params(plain, prefix="prefix")(a=1)
    with pytest.warns(ParameterWarning):
        track_params(plain, prefix="pre")(1, b=2)
    assert recorded() == {"prefix.a": 1, "pre.b": 2}


def test_calls_in_contexts_of_their_own_do_not_warn() -> None:
    for size in (1, 2):
        with tracking_context():
            load("a", size=size)
            assert recorded() == {"load.size": size}


@pytest.mark.parametrize(
    "call",
    [
        lambda: track_call(load, "a", size=2),
        lambda: track_call(functools.partial(load, "a"), size=2),
        lambda: track_params(load)("a", size=2),
        lambda: track_params(track_params(load))("a", size=2),
        lambda: track_call(Model, 1, width=2),
        lambda: track_init_params(Model)(1, width=2),
    ],
    ids=["call", "partial", "inline", "twice", "call of class", "class inline"],
)
def test_what_is_tracked_already_records_each_call_once(call: Callable[[], Any]) -> None:
    call()  # a second recording would warn
    assert list(recorded().values()) == [2]


def test_a_mock_is_not_taken_for_tracked() -> None:
    track_call(Mock(), a=1)
    assert get_current_params() == {"Mock._func": "unittest.mock.Mock", "Mock.a": 1}


# --- bound=True ----------------------------------------------------------------------------------


class Loader:
    @track_params(bound=True)
    def method(self, a: int, b: int = 2) -> tuple[Any, ...]:
        return (type(self), a, b)

    @classmethod
    @track_params(bound=True)
    def under_classmethod(cls, a: int, b: int = 2) -> tuple[Any, ...]:
        return (cls, a, b)

    @track_params(bound=True)
    @classmethod
    def over_classmethod(cls, a: int, b: int = 2) -> tuple[Any, ...]:
        return (cls, a, b)

    @staticmethod
    @track_params(bound=True)
    def under_staticmethod(a: int, b: int = 2) -> tuple[Any, ...]:
        return (Loader, a, b)

    @track_params(bound=True)
    @staticmethod
    def over_staticmethod(a: int, b: int = 2) -> tuple[Any, ...]:
        return (Loader, a, b)

    @property
    @track_params(bound=True)
    def size(self) -> int:
        return 5

    def __call__(self, a: int, b: int = 2) -> int:
        return a + b


@pytest.mark.parametrize(
    "name",
    ["method", "under_classmethod", "over_classmethod", "under_staticmethod", "over_staticmethod"],
)
def test_bound_arguments_of_methods(name: str) -> None:
    assert getattr(Loader(), name)(1) == (Loader, 1, 2)
    assert recorded() == {f"{name}.a": 1, f"{name}.b": 2}
    assert get_current_params()[f"{name}._func"] == f"test_track_calls.Loader.{name}"


def test_a_property_keeps_being_one() -> None:
    assert Loader().size == 5
    assert get_current_params() == {"size._func": "test_track_calls.Loader.size"}


def train(self: Any, cls: Any = 1) -> Any:  # of no class, and so its arguments are all recorded
    return self


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "expected"),
    [
        (plain, (1,), {}, {"plain.a": 1, "plain.b": 2, "plain.args": (), "plain.c": 3}),
        (
            plain,
            (1, 2, 3, 4),
            {"c": 5, "d": 6},
            {"plain.a": 1, "plain.b": 2, "plain.args": (3, 4), "plain.c": 5, "plain.d": 6},
        ),
        (
            functools.partial(plain, 7, c=8),
            (9,),
            {"d": 1},
            {"plain.a": 7, "plain.b": 9, "plain.args": (), "plain.c": 8, "plain.d": 1},
        ),
        (Loader(), (1,), {}, {"Loader.a": 1, "Loader.b": 2}),
        (Loader().method.__wrapped__.__get__(Loader()), (1,), {}, {"method.a": 1, "method.b": 2}),
        (train, (1,), {}, {"train.self": 1, "train.cls": 1}),
        (lambda a=1: a, (), {}, {"<lambda>.a": 1}),
        (math.ldexp, (1.0, 2), {}, {"ldexp.x": 1.0, "ldexp.i": 2}),
        (max, (1, 2), {}, {}),  # C code that does not tell its parameters' names
    ],
    ids=[
        "defaults",
        "variable",
        "partial",
        "instance",
        "bound method",
        "self of no class",
        "lambda",
        "C",
        "C without a signature",
    ],
)
def test_bound_arguments(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert track_params(func, bound=True)(*args, **kwargs) == func(*args, **kwargs)
    assert recorded() == expected


def test_a_nested_function_has_no_receiver() -> None:
    def fit(cls: Any, C: float = 1.0) -> Any:  # noqa: N803 - as scikit-learn's
        return cls

    track_params(fit, bound=True)("svm")
    assert recorded() == {"fit.cls": "svm", "fit.C": 1.0}


def test_bound_arguments_of_a_call_that_does_not_fit() -> None:
    with pytest.raises(TypeError, match=r"plain\(\) missing 1 required positional argument: 'a'"):
        track_params(plain, bound=True)(b=1)
    assert recorded() == {"plain.b": 1}


def test_bound_and_ignore() -> None:
    track_params(plain, bound=True, ignore=["a", "args"])(1)
    assert recorded() == {"plain.b": 2, "plain.c": 3}


class ByNew:
    def __new__(cls, a: int, b: int = 2) -> ByNew:
        made = super().__new__(cls)
        made.total = a + b
        return made


@dataclass
class Config:
    a: int
    b: int = 2


class Pair(NamedTuple):
    a: int
    b: int = 2


@pytest.mark.parametrize("cls", [Model, ByNew, Config, Pair])
def test_bound_arguments_of_classes(cls: type) -> None:
    made = type(cls.__name__, (cls,), {})
    track_init_params(made, prefix="it", bound=True)(1)
    expected = {"depth": 1, "width": 1} if cls is Model else {"a": 1, "b": 2}
    assert {k: v for k, v in recorded().items() if k.startswith("it.")} == {
        f"it.{name}": value for name, value in expected.items()
    }


# --- track_call ----------------------------------------------------------------------------------


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a


class Meta(type):
    def __call__(cls, a: int) -> tuple[str, int]:
        return ("made", a)


class Made(metaclass=Meta):
    pass


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int


class Plain:
    def __init__(self, a: int) -> None:
        self.a = a


def attribute_a(made: Any) -> Any:
    return made.a


@pytest.mark.parametrize(
    ("cls", "read"),
    [
        (Plain, attribute_a),
        (Slotted, attribute_a),
        (Frozen, attribute_a),
        (Config, attribute_a),
        (Pair, attribute_a),
        (namedtuple("Point", "a"), attribute_a),
        (ByNew, lambda made: made.total - 2),
        (Made, lambda made: made[1]),
        (dict, lambda made: made["a"]),
    ],
)
def test_track_call_leaves_a_class_as_it_was(cls: Any, read: Callable[[Any], Any]) -> None:
    before = dict(vars(cls))
    made = track_call(cls, a=1)
    assert dict(vars(cls)) == before
    assert read(made) == 1
    assert isinstance(made, cls) or cls is Made
    assert recorded() == {f"{cls.__name__}.a": 1}


def test_track_call_of_an_enum() -> None:
    assert track_call(Colour, value=1) is Colour.RED
    assert recorded() == {"Colour.value": 1}


def test_track_call_of_third_party_classes_and_functions() -> None:
    before = dict(vars(LogisticRegression))
    model = track_call(LogisticRegression, C=2.0)
    assert dict(vars(LogisticRegression)) == before
    assert model.C == 2.0
    assert get_current_params() == {
        "LogisticRegression._func": "sklearn.linear_model._logistic.LogisticRegression",
        "LogisticRegression.C": 2.0,
    }


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "name", "by_position"),
    [
        (int, ("3",), {"base": 8}, "builtins.int", 0),
        ("a b".split, (), {"sep": " "}, "str.split", 0),
        (str.split, ("a b",), {"sep": " "}, "str.split", 0),
        (math.isclose, (1, 2), {"rel_tol": 0.5}, "math.isclose", 2),
        (sorted, ([2, 1],), {"reverse": True}, "builtins.sorted", 0),
        (functools.partial(int, base=8), ("3",), {}, "builtins.int", 1),
        (Loader(), (1,), {"b": 3}, "test_track_calls.Loader", 1),
        (Loader().over_classmethod.__func__.__wrapped__, (Loader, 1), {"b": 3}, None, 1),
    ],
    ids=["type", "method", "descriptor", "C", "builtin", "partial", "instance", "function"],
)
def test_track_call_of_every_kind(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, by_position: int
) -> None:
    assert track_call(func, *args, **kwargs) == func(*args, **kwargs)
    functions = [v for k, v in get_current_params().items() if k.endswith("._func")]
    assert functions == [name or "test_track_calls.Loader.over_classmethod"]
    assert len(recorded()) == len(kwargs) + by_position


def test_track_call_of_a_ufunc() -> None:
    import numpy as np

    assert track_call(np.add, 1, 2, dtype=float) == 3.0
    try:  # NumPy's have a signature since 2.4
        named = {f"add.{name}": i for i, name in enumerate(inspect.signature(np.add).parameters, 1)}
        named = {name: value for name, value in named.items() if value <= 2}
    except ValueError:
        named = {}
    assert get_current_params() == {"add._func": "numpy.add", "add.dtype": float, **named}


def test_an_argument_may_have_any_name() -> None:
    def f(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    given = {"func": 1, "self": 2, "args": 3, "kwargs": 4, "prefix": 5}
    assert track_call(f, **given) == given
    assert track_params(f, prefix="again", bound=True)(**given) == given
    assert recorded() == {f"{p}.{k}": v for p in ("f", "again") for k, v in given.items()}


# --- What survives decoration --------------------------------------------------------------------


def test_a_function_keeps_what_it_says_of_itself() -> None:
    decorated = track_params(plain)
    assert inspect.signature(decorated) == inspect.signature(plain)
    assert load.__doc__ == "Load a split."
    assert (load.__name__, load.__module__) == ("load", __name__)
    assert load.__annotations__["split"] == "str"


def test_a_class_keeps_what_it_says_of_itself() -> None:
    assert isinstance(Model, type)
    assert isinstance(Model(1), Model)
    assert str(inspect.signature(Model)) == "(depth: 'int', *, width: 'int' = 1) -> 'None'"
    assert Model.__doc__ == "A model."


@pytest.mark.parametrize("cls", [ByNew, Config, Pair, Slotted, type("Empty", (), {})])
def test_a_class_keeps_its_signature(cls: type) -> None:
    inheriting = type("Inheriting", (cls,), {})
    assert inspect.signature(track_init_params(inheriting)) == inspect.signature(cls)


def test_an_estimator_stays_one() -> None:
    @track_init_params
    class Estimator(BaseEstimator):
        def __init__(self, alpha: float = 1.0) -> None:
            self.alpha = alpha

    estimator = Estimator(alpha=2.0)
    assert estimator.get_params() == {"alpha": 2.0}
    with tracking_context():
        assert clone(estimator).alpha == 2.0


@pytest.mark.parametrize("value", [load, Model, Loader.under_staticmethod])
def test_decorated_functions_and_classes_pickle(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) is value


@track_init_params
@dataclass(frozen=True, slots=True)
class TrackedFrozen:
    a: int
    b: int = 2


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("cls", [Model, TrackedFrozen])
@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_instances_copy_and_pickle_without_recording(cls: Any, again: Callable[[Any], Any]) -> None:
    made = cls(1)  # recorded once; a second time would warn
    assert type(again(made)) is cls


async def plain_async(*, n: int) -> int:
    await asyncio.sleep(0)
    return n


load_async = track_params(plain_async)


async def awaiting(n: int) -> int:
    return await load_async(n=n)


@track_params
def count(*, n: int) -> Iterator[int]:
    yield from range(n)


@track_params
async def count_async(*, n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@pytest.mark.parametrize(
    ("is_kind", "func"),
    [
        (inspect.iscoroutinefunction, load_async),
        (inspect.iscoroutinefunction, track_params(functools.partial(plain_async, n=1))),
        (inspect.isgeneratorfunction, count),
        (inspect.isasyncgenfunction, count_async),
        (inspect.isfunction, load),
    ],
    ids=["coroutine", "partial coroutine", "generator", "async generator", "function"],
)
def test_the_kind_survives(is_kind: Callable[[Any], bool], func: Any) -> None:
    assert is_kind(func)


def test_an_async_function_records_when_it_is_awaited() -> None:
    assert asyncio.run(load_async(n=3)) == 3
    assert recorded() == {"plain_async.n": 3}


def test_an_async_generator_is_iterated() -> None:
    async def collect() -> list[int]:
        return [i async for i in count_async(n=3)]

    assert asyncio.run(collect()) == [0, 1, 2]
    assert recorded() == {"count_async.n": 3}


# The same protocol, spoken to a generator and an async generator.


def echo(log: list[Any]) -> Iterator[Any]:
    value: Any = "first"
    try:
        while True:
            try:
                value = yield value
            except KeyError as error:
                value = f"caught {error}"
    finally:
        log.append("closed")


async def echo_async(log: list[Any]) -> AsyncIterator[Any]:
    value: Any = "first"
    try:
        while True:
            try:
                value = yield value
            except KeyError as error:
                value = f"caught {error}"
    finally:
        log.append("closed")


def test_a_generator_is_sent_to_thrown_into_and_closed() -> None:
    log: list[Any] = []
    generator: Any = track_params(echo)(log)
    assert [next(generator), generator.send("sent")] == ["first", "sent"]
    assert generator.throw(KeyError("k")) == "caught 'k'"
    generator.close()
    assert log == ["closed"]


def test_a_generator_returns_its_value() -> None:
    @track_params
    def returning() -> Any:
        yield 1
        return 2

    def outer() -> Any:
        got.append((yield from returning()))

    got: list[int] = []
    assert list(outer()) == [1]
    assert got == [2]


def test_an_async_generator_is_sent_to_thrown_into_and_closed() -> None:
    async def speak() -> None:
        log: list[Any] = []
        generator: Any = track_params(echo_async)(log)
        assert [await anext(generator), await generator.asend("sent")] == ["first", "sent"]
        assert await generator.athrow(KeyError("k")) == "caught 'k'"
        await generator.aclose()
        assert log == ["closed"]
        generator = track_params(echo_async, prefix="again")(log)
        await anext(generator)
        with pytest.raises(ValueError, match="not caught"):
            await generator.athrow(ValueError("not caught"))
        assert log == ["closed", "closed"]

    asyncio.run(speak())


def test_an_async_generator_that_ignores_its_closing_raises() -> None:
    @track_params
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    async def close() -> None:
        generator: Any = stubborn()
        await anext(generator)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            await generator.aclose()

    asyncio.run(close())


def test_cancelling_reaches_into_an_async_generator() -> None:
    log: list[str] = []

    @track_params
    async def waiting() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.append("cleaned up")

    async def cancel() -> None:
        async def consume() -> None:
            async for _ in waiting():
                started.set()

        started = asyncio.Event()
        task = asyncio.create_task(consume())
        await started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert log == ["cleaned up"]


# --- Classes among classes -----------------------------------------------------------------------


def test_a_derived_class_records_beside_its_decorated_base() -> None:
    @track_init_params
    class Derived(Model):
        def __init__(self, *, depth: int) -> None:
            super().__init__(depth, width=2)

    assert Derived(depth=3).width == 2
    assert recorded() == {"Derived.depth": 3, "Model.width": 2}


def test_a_mixin_without_an_init_leaves_that_of_the_next_class() -> None:
    @track_init_params
    class Mixin:
        pass

    class Both(Mixin, Plain):
        pass

    assert Both(a=1).a == 1
    assert recorded() == {"Mixin.a": 1}


@pytest.mark.parametrize("cls", [ByNew, Pair])
def test_a_class_made_by_its_new(cls: Any) -> None:
    made = track_init_params(type("Derived", (cls,), {}))
    assert isinstance(made(a=1), cls)
    assert recorded() == {"Derived.a": 1}


def test_a_class_without_init_takes_no_arguments() -> None:
    @track_init_params
    class Empty:
        pass

    Empty()
    with tracking_context(), pytest.raises(TypeError, match=r"Empty\(\) takes no arguments"):
        Empty(a=1)  # type: ignore[call-arg]


def test_a_decorated_trackable() -> None:
    @track_init_params
    class Data(Trackable):
        def __init__(self, split: str) -> None:
            super().__init__()
            self.split = split

    with trackable_context():
        data = Data(split="test")
    assert data.split == "test"
    assert data.tracked_params["Data.split"] == "test"


# --- What is refused -----------------------------------------------------------------------------


def decorated_too_early() -> None:
    @dataclass
    @track_init_params
    class Early:
        a: int

    Early(a=1)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (
            lambda: track_call(load("a")),
            r"got 'a1', which cannot be called; write track_call\(load",
        ),
        (lambda: track_params(3), r"track_params: got 3, which cannot be called"),
        (lambda: track_params(property(plain)), r"track_params: got <property"),
        (lambda: track_params(prefix=3), r"track_params: prefix must be a string, got 3"),
        (lambda: track_params(ignore="a"), r"track_params: ignore .* write ignore=\['a'\]"),
        (lambda: track_params(plain, ignore=3), r"track_params: ignore .* got 3"),
        (lambda: track_init_params(plain), r"track_init_params: got <function.* track_params"),
        (lambda: track_init_params(Plain, ignore="a"), r"track_init_params: ignore"),
        (lambda: track_init_params(dict), r"builtins.dict cannot be changed.*track_call\(dict"),
        (decorated_too_early, r"Early .* write @track_init_params above @dataclass"),
    ],
)
def test_misuse_says_what_to_write(misuse: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArmoryUsageError, match=message):
        misuse()


# --- What a loader's identity is -----------------------------------------------------------------


class Base:
    @classmethod
    def from_pretrained(cls, name: str, *args: Any, **kwargs: Any) -> str:
        assert not args or kwargs
        return f"{cls.__name__} {name}"

    def encode(self, text: str) -> str:
        return text

    @staticmethod
    def from_file(path: Path) -> Path:
        return path


class AutoModel(Base): ...


class AutoTokenizer(Base): ...


def test_class_methods_are_named_with_their_class() -> None:
    assert track_call(AutoModel.from_pretrained, "bert", revision="abc") == "AutoModel bert"
    assert track_call(AutoTokenizer.from_pretrained, "other") == "AutoTokenizer other"
    assert get_current_params() == {
        "AutoModel.from_pretrained._func": "test_track_calls.AutoModel.from_pretrained",
        "AutoModel.from_pretrained.name": "bert",
        "AutoModel.from_pretrained.revision": "abc",
        "AutoTokenizer.from_pretrained._func": "test_track_calls.AutoTokenizer.from_pretrained",
        "AutoTokenizer.from_pretrained.name": "other",
    }


@pytest.mark.parametrize(
    ("func", "args", "name", "expected"),
    [
        (dict.fromkeys, ("ab", 3), "dict.fromkeys", None),
        (Base.from_file, (Path("a"),), "Base.from_file", {"path": Path("a")}),
        (functools.partial(AutoModel.from_pretrained, "a"), (), "AutoModel.from_pretrained", None),
        (Base().encode, ("a",), "encode", {"text": "a"}),
        (Base.encode, (Base(), "a"), "Base.encode", {"text": "a"}),
    ],
    ids=["C", "static", "partial", "instance", "unbound"],
)
def test_names_of_other_methods(
    func: Any, args: tuple[Any, ...], name: str, expected: dict[str, Any] | None
) -> None:
    track_call(func, *args)
    assert f"{name}._func" in get_current_params()
    if expected is not None:
        assert recorded() == {f"{name}.{key}": value for key, value in expected.items()}


def test_settings_by_position_are_recorded_and_data_is_not() -> None:
    import numpy as np

    def read(*args: Any, **kwargs: Any) -> Any:
        return args

    data = (np.eye(2), [1, 2], {"a": 1}, None, b"x", object(), LogisticRegression())
    for value in data:
        with tracking_context():
            track_call(plain, value)
            assert recorded() == {}
    for value in ("x", 1, 0.5, True, Path("a"), np.float32(1), np.True_, Colour.RED.value):
        with tracking_context():
            track_call(plain, np.eye(2), value, c=data)
            assert recorded() == {"plain.b": value, "plain.c": data}
    with tracking_context():
        track_call(read, "a", 2)
        assert recorded() == {"read.args": ("a", 2)}
    with tracking_context():
        track_call(read, "a", np.eye(2), b=1)
        assert recorded() == {"read.b": 1}


def test_the_decorators_record_keywords_only() -> None:
    track_params(plain)("x", c=1)
    track_params(AutoModel.from_pretrained)("bert", revision="abc")
    assert recorded() == {"plain.c": 1, "from_pretrained.revision": "abc"}
