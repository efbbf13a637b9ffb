"""Calls whose keyword arguments become parameters."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from pytest_armory.errors import ArmoryUsageError, ParameterWarning
from pytest_armory.track.arguments import (
    arguments_of,
    bound_arguments,
    call_name,
    call_qualified_name,
    name_of,
    qualified_name,
    settings_of,
    signature_of,
)
from pytest_armory.track.context import get_current_params
from pytest_armory.track.fingerprints import fingerprints
from pytest_armory.track.wrapping import wrap

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
T = TypeVar("T")

_TRACKED = "_armory_tracked"
"""Marks functions and classes that record their own calls, so that none is recorded twice."""


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

    Used bare, called, or around a third-party function: ``track_params(load)(split="test")``.
    ``prefix`` is the function's name unless given; ``ignore`` names arguments not to record;
    ``bound=True`` records positional arguments and defaults too, by parameter name.
    Arguments of a :func:`functools.partial` count as arguments of the call.
    ``{prefix}._func`` is the function's qualified name. A second call under the same prefix
    replaces what the first recorded, with a :class:`ParameterWarning`. A function that is tracked
    already is returned unchanged, unless an option is given.
    """
    _check_options("track_params", prefix, ignore)

    def decorate(func: Any) -> Any:
        if isinstance(func, classmethod | staticmethod):
            return type(func)(decorate(func.__func__))
        if not callable(func):
            raise ArmoryUsageError(
                f"track_params: got {func!r}, which cannot be called; write @track_params above a "
                "function, or track_params(function)(argument=…)"
            )

        if _is_tracked(func) and not (prefix or ignore or bound):
            return func

        def record(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            arguments = arguments_of(func, args, kwargs, bound)
            _record(prefix or name_of(func), qualified_name(func), arguments, ignore, stacklevel=4)

        wrapper = wrap(func, record)
        setattr(wrapper, _TRACKED, True)
        return wrapper

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
    """Record the keyword arguments with which the class is instantiated.

    The class itself is returned, with its ``__init__`` wrapped; a second decoration changes
    nothing. To leave a third-party class unmodified, instantiate it with
    :func:`track_call`. Options as for :func:`track_params`.
    """
    _check_options("track_init_params", prefix, ignore)

    def decorate(cls: Any) -> Any:
        if not isinstance(cls, type):
            raise ArmoryUsageError(
                f"track_init_params: got {cls!r}, which is not a class; for a function write "
                "track_params"
            )
        if not _is_tracked(cls):
            try:
                cls.__init__ = _tracked_init(cls, prefix, ignore, bound)  # type: ignore[misc] # wraps it
            except TypeError:  # a class of C code
                raise ArmoryUsageError(
                    f"track_init_params: {qualified_name(cls)} cannot be changed; make the one "
                    f"instance with track_call({cls.__name__}, argument=…)"
                ) from None
            setattr(cls, _TRACKED, True)
        return cls

    return decorate if _cls is None else decorate(_cls)


def track_call(func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function or class and record what it is given, as ``{name}.{argument}``.

    That is its keyword arguments, and by parameter name the strings, numbers, booleans and paths
    that it is given by position; other positional arguments are data, and are not recorded. The
    name of a class method begins with its class: ``AutoModel.from_pretrained``.
    A file that is given as a ``Path`` has its SHA-256 beside it, as ``{name}.{argument}.sha256``; a
    dataset of Hugging Face's ``datasets`` its fingerprint, as ``{name}.{argument}.fingerprint``.
    The function or class is left as it was; one that is tracked already records by itself.
    Returns what the call returns.
    """
    if not callable(func):
        raise ArmoryUsageError(
            f"track_call: got {func!r}, which cannot be called; write track_call(load, "
            "split='test') and not track_call(load(split='test'))"
        )
    if not _is_tracked(func):
        settings = {**settings_of(func, args, kwargs), **fingerprints(func, args, kwargs)}
        _record(call_name(func), call_qualified_name(func), settings)
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


def _tracked_init(
    cls: Any, prefix: str | None, ignore: Collection[str] | None, bound: bool
) -> Callable[..., None]:
    inherited: Any = cls.__init__
    defined = inherited if "__init__" in vars(cls) else None
    object_init: Any = object.__init__
    object_new: Any = object.__new__
    signature = signature_of(cls)

    @functools.wraps(inherited)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        arguments = bound_arguments(signature, args, kwargs) if bound else kwargs
        _record(prefix or cls.__name__, qualified_name(cls), arguments, ignore)
        init: Any = defined or super(cls, type(self)).__init__
        if init is not object_init:
            init(self, *args, **kwargs)
        elif type(self).__new__ is object_new:
            _refuse_arguments(cls, args, kwargs)

    if defined is None and signature is not None:
        # Else inspect finds that of whatever it wraps, which says nothing of a __new__.
        receiver = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [receiver, *signature.parameters.values()]
        __init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # inspect's
    return __init__


def _refuse_arguments(cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """The behaviour of ``object.__init__``, which accepts or refuses arguments if overridden."""
    if not args and not kwargs:
        return
    if hasattr(cls, "__dataclass_fields__"):
        raise ArmoryUsageError(
            f"track_init_params: {cls.__name__} had no __init__ yet when it was decorated; write "
            "@track_init_params above @dataclass, not under it"
        )
    raise TypeError(f"{cls.__name__}() takes no arguments")


def _is_tracked(func: Any) -> bool:
    while isinstance(func, functools.partial):
        func = func.func
    # A subclass does not inherit the mark, and a mock has every attribute.
    mark = vars(func).get(_TRACKED) if isinstance(func, type) else getattr(func, _TRACKED, None)
    return mark is True


def _check_options(who: str, prefix: object, ignore: object) -> None:
    if prefix is not None and not isinstance(prefix, str):
        raise ArmoryUsageError(f"{who}: prefix must be a string, got {prefix!r}")
    if isinstance(ignore, str):
        raise ArmoryUsageError(
            f"{who}: ignore must be a list of argument names, got the string {ignore!r}; "
            f"write ignore=[{ignore!r}]"
        )
    if ignore is not None and not isinstance(ignore, Collection):
        raise ArmoryUsageError(f"{who}: ignore must be a list of argument names, got {ignore!r}")
