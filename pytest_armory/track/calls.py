"""Calls whose keyword arguments become parameters."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from pytest_armory.errors import ArmoryUsageError, ParameterWarning
from pytest_armory.track.context import get_current_params

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
T = TypeVar("T")


@overload
def track_params(
    _func: None = None,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> Callable[[F], F]: ...


@overload
def track_params(
    _func: F,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> F: ...


def track_params(
    _func: Any = None,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> Any:
    """Record a function's keyword arguments, each time it is called, as ``{prefix}.{argument}``.

    Used bare, called, or wrapped round another's function: ``track_params(load)(split="test")``.
    ``prefix`` is the function's name unless given; ``ignore`` names arguments not to record;
    ``bound=True`` records positional arguments and defaults too, by parameter name.
    ``{prefix}._func`` is the function's qualified name. A second call under the same prefix
    replaces what the first recorded, with a :class:`ParameterWarning`.
    """
    _check_options(prefix, ignore)

    def decorate(func: Any) -> Any:
        if isinstance(func, classmethod | staticmethod):
            return type(func)(decorate(func.__func__))
        if not callable(func):
            raise ArmoryUsageError(
                f"track_params: got {func!r}, which cannot be called; write @track_params above a "
                "function, or track_params(function)(argument=…)"
            )

        def record(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            arguments = _bound_arguments(func, args, kwargs) if bound else kwargs
            _record(prefix or _name(func), _qualified_name(func), arguments, ignore, stacklevel=4)

        return _wrap(func, record)

    return decorate if _func is None else decorate(_func)


@overload
def track_init_params(
    _cls: None = None,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> Callable[[C], C]: ...


@overload
def track_init_params(
    _cls: C,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> C: ...


def track_init_params(
    _cls: Any = None,
    *,
    prefix: str | None = None,
    ignore: Collection[str] | None = None,
    bound: bool = False,
) -> Any:
    """Record the keyword arguments each instance of the class is made with.

    The class itself is returned, with its ``__init__`` wrapped; a second decoration changes
    nothing. To leave a third-party class as it was, make the one instance with
    :func:`track_call`. Options as for :func:`track_params`.
    """
    _check_options(prefix, ignore)

    def decorate(cls: Any) -> Any:
        if not isinstance(cls, type):
            raise ArmoryUsageError(
                f"track_init_params: got {cls!r}, which is not a class; for a function write "
                "track_params"
            )
        if "_armory_tracks_init" not in vars(cls):
            cls.__init__ = _tracked_init(cls, prefix, ignore, bound)  # type: ignore[misc] # wraps it
            cls._armory_tracks_init = True  # type: ignore[attr-defined] # our own mark
        return cls

    return decorate if _cls is None else decorate(_cls)


def track_call(func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function or class and record the keyword arguments, as ``{name}.{argument}``.

    The function or class is left as it was. Returns what the call returns.
    """
    if not callable(func):
        raise ArmoryUsageError(
            f"track_call: got {func!r}, which cannot be called; write track_call(load, "
            "split='test') and not track_call(load(split='test'))"
        )
    _record(_name(func), _qualified_name(func), kwargs)
    return func(*args, **kwargs)


def _record(
    prefix: str,
    qualified_name: str,
    arguments: Mapping[str, Any],
    ignore: Collection[str] | None = None,
    stacklevel: int = 3,
) -> None:
    params = get_current_params()
    if f"{prefix}._func" in params:
        warnings.warn(
            f"parameters under {prefix!r} were already recorded in this tracking context and are "
            "replaced; give another `prefix=`, or use a `tracking_context()` of its own",
            ParameterWarning,
            stacklevel=stacklevel,
        )
        for key in [key for key in params if key.startswith(f"{prefix}.")]:
            del params[key]
    params[f"{prefix}._func"] = qualified_name
    for name, value in arguments.items():
        if not ignore or name not in ignore:
            params[f"{prefix}.{name}"] = value


def _bound_arguments(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """All arguments by parameter name, but ``self``; of a call that does not fit, its keywords."""
    try:
        signature = inspect.signature(func)
        binding = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):
        return kwargs  # the call itself will say what is wrong with it
    binding.apply_defaults()
    arguments = dict(binding.arguments)
    first = next(iter(signature.parameters), None)
    if first in ("self", "cls") and "." in getattr(func, "__qualname__", ""):
        del arguments[first]
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


def _tracked_init(
    cls: Any, prefix: str | None, ignore: Collection[str] | None, bound: bool
) -> Callable[..., None]:
    init = cls.__init__
    # object.__init__ refuses the arguments that __new__ took, once __init__ is overridden.
    takes_arguments = init is not object.__init__ or cls.__new__ is object.__new__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        arguments = _bound_arguments(init, (self, *args), kwargs) if bound else kwargs
        _record(prefix or cls.__name__, _qualified_name(cls), arguments, ignore)
        if takes_arguments:
            init(self, *args, **kwargs)

    return __init__


def _wrap(func: Any, record: Callable[[tuple[Any, ...], Mapping[str, Any]], None]) -> Any:
    """A wrapper of the function's own kind, so that frameworks which look at the kind see it."""
    if inspect.iscoroutinefunction(func):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            record(args, kwargs)
            return await func(*args, **kwargs)

        return functools.wraps(func)(call_async)
    if inspect.isasyncgenfunction(func):

        async def generate_async(*args: Any, **kwargs: Any) -> Any:
            record(args, kwargs)
            generator = func(*args, **kwargs)
            try:
                value = await generator.__anext__()
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        await generator.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001 - as `yield from` would
                        value = await generator.athrow(error)
                    else:
                        value = await generator.asend(sent)
            except StopAsyncIteration:
                return

        return functools.wraps(func)(generate_async)
    if inspect.isgeneratorfunction(func):

        def generate(*args: Any, **kwargs: Any) -> Any:
            record(args, kwargs)
            return (yield from func(*args, **kwargs))

        return functools.wraps(func)(generate)

    def call(*args: Any, **kwargs: Any) -> Any:
        record(args, kwargs)
        return func(*args, **kwargs)

    return functools.wraps(func)(call)


def _name(func: Any) -> str:
    if isinstance(func, functools.partial):
        return _name(func.func)
    return str(getattr(func, "__name__", None) or type(func).__name__)


def _qualified_name(func: Any) -> str:
    if isinstance(func, functools.partial):
        return _qualified_name(func.func)
    named = func if hasattr(func, "__qualname__") else type(func)
    return f"{named.__module__}.{named.__qualname__}"


def _check_options(prefix: object, ignore: object) -> None:
    if prefix is not None and not isinstance(prefix, str):
        raise ArmoryUsageError(f"track_params: prefix must be a string, got {prefix!r}")
    if isinstance(ignore, str):
        raise ArmoryUsageError(
            f"track_params: ignore must be a list of argument names, got the string {ignore!r}; "
            f"write ignore=[{ignore!r}]"
        )
