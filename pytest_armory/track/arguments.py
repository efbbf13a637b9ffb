"""The arguments of a call by parameter name, and the name of what is called. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any


def arguments_of(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], bound: bool = False
) -> Mapping[str, Any]:
    """What to record of a call: its keywords, or all arguments by parameter name but ``self``."""
    while isinstance(func, functools.partial):
        func, args, kwargs = func.func, (*func.args, *args), {**func.keywords, **kwargs}
    if not bound:
        return kwargs
    signature = signature_of(func)
    first = next(iter(signature.parameters), None) if signature else None
    *_, owner, _ = ("", "", *str(getattr(func, "__qualname__", "")).split("."))
    if first in ("self", "cls") and owner not in ("", "<locals>"):
        return bound_arguments(signature, args, kwargs, without=first)
    return bound_arguments(signature, args, kwargs)


def bound_arguments(
    signature: inspect.Signature | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    without: str | None = None,
) -> Mapping[str, Any]:
    """All arguments by parameter name; of a call that does not fit, its keywords."""
    try:
        binding = signature.bind(*args, **kwargs) if signature else None
    except TypeError:
        binding = None  # the call itself will say what is wrong with it
    if signature is None or binding is None:
        return kwargs
    binding.apply_defaults()
    arguments = dict(binding.arguments)
    arguments.pop(without or "", None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


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


def qualified_name(func: Any) -> str:
    """The name with module and class, as in ``module.Class.method``."""
    if isinstance(func, functools.partial):
        return qualified_name(func.func)
    named = func if hasattr(func, "__qualname__") else type(func)
    module = getattr(named, "__module__", None)  # a method of C code has none
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)
