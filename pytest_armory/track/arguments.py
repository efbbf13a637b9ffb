"""The arguments of a call by parameter name, and the name of what is called. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from numbers import Number
from os import PathLike
from typing import Any


def arguments_of(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], bound: bool = False
) -> Mapping[str, Any]:
    """What to record of a call: its keywords, or all arguments by parameter name but ``self``."""
    func, args, kwargs = _without_partials(func, args, kwargs)
    if not bound:
        return kwargs
    signature = signature_of(func)
    return bound_arguments(signature, args, kwargs, without=_receiver(func, signature))


def settings_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords of a call, and what it was given by position that is no data, by parameter name.

    That is strings, numbers, booleans and paths; of a C function without a signature the keywords.
    """
    func, args, kwargs = _without_partials(func, args, kwargs)
    signature = signature_of(func)
    binding = _binding(signature, args, kwargs)
    if signature is None or binding is None:
        return kwargs
    receiver = _receiver(func, signature)
    by_position = {
        name: value
        for name, value in binding.arguments.items()
        if name not in kwargs
        and name != receiver
        and _is_setting(value, signature.parameters[name].kind)
    }
    return {**by_position, **kwargs}


def named_arguments(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What a call is given, by parameter name; without a signature, or where it does not fit, its
    keywords."""
    func, args, kwargs = _without_partials(func, args, kwargs)
    binding = _binding(signature_of(func), args, kwargs)
    return kwargs if binding is None else {**binding.arguments, **kwargs}


_BOOLEANS = ("bool", "bool_")
"""The names of NumPy's type, which is no ``Number``, by its version."""


def _is_setting(value: Any, kind: Any) -> bool:
    if kind is inspect.Parameter.VAR_KEYWORD:
        return False
    members = value if kind is inspect.Parameter.VAR_POSITIONAL else (value,)
    return all(
        isinstance(member, str | Number | PathLike) or type(member).__name__ in _BOOLEANS
        for member in members
    )


def _without_partials(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    while isinstance(func, functools.partial):
        func, args, kwargs = func.func, (*func.args, *args), {**func.keywords, **kwargs}
    return func, args, kwargs


def _receiver(func: Any, signature: inspect.Signature | None) -> str | None:
    """The parameter that a method got its instance or class by, where it is not bound to it."""
    first = next(iter(signature.parameters), None) if signature else None
    return first if first in ("self", "cls") and _owner_name(func) else None


def _owner_name(func: Any) -> str:
    """The name of the class that a function stands in; "" for one that stands in none."""
    *_, owner, _ = ("", "", *str(getattr(func, "__qualname__", "")).split("."))
    return "" if owner == "<locals>" else owner


def bound_arguments(
    signature: inspect.Signature | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    without: str | None = None,
) -> Mapping[str, Any]:
    """All arguments by parameter name; of a call that does not fit, its keywords."""
    binding = _binding(signature, args, kwargs)
    if signature is None or binding is None:
        return kwargs
    binding.apply_defaults()
    arguments = dict(binding.arguments)
    arguments.pop(without or "", None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


def _binding(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments | None:
    """A call's arguments as its signature binds them; None of a call that does not fit."""
    try:
        return signature.bind(*args, **kwargs) if signature else None
    except TypeError:
        return None  # the call itself will say what is wrong with it


def signature_of(func: Any) -> inspect.Signature | None:
    """The signature of a callable, or None where it has none that Python knows."""
    try:
        return inspect.signature(func)
    except (TypeError, ValueError):  # C code without a signature
        return None


def name_of(func: Any) -> str:
    """The name of a function or class, or that of what a partial calls."""
    if isinstance(func, functools.partial):
        return name_of(func.func)
    return str(getattr(func, "__name__", None) or type(func).__name__)


def call_name(func: Any) -> str:
    """The name of what is called, of a method of a class with the class: ``AutoModel.from_x``."""
    func, _, _ = _without_partials(func, (), {})
    owner = getattr(func, "__self__", None)
    if isinstance(owner, type):  # the class that it was got from, not the one that defines it
        return f"{owner.__name__}.{name_of(func)}"
    if inspect.isfunction(func) and _owner_name(func):  # a static method
        return f"{_owner_name(func)}.{name_of(func)}"
    return name_of(func)


def call_qualified_name(func: Any) -> str:
    """The name with module and class; of a class method that of the class it was got from."""
    func, _, _ = _without_partials(func, (), {})
    owner = getattr(func, "__self__", None)
    return (
        f"{qualified_name(owner)}.{name_of(func)}"
        if isinstance(owner, type)
        else qualified_name(func)
    )


def qualified_name(func: Any) -> str:
    """The name with module and class, as in ``module.Class.method``."""
    if isinstance(func, functools.partial):
        return qualified_name(func.func)
    named = func if hasattr(func, "__qualname__") else type(func)
    module = getattr(named, "__module__", None)  # a method of C code has none
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)
