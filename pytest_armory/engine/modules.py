"""Models that are torch modules: their mode, their device, and the keyword arguments they take."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from inspect import iscoroutine
from itertools import chain
from types import MethodType, coroutine
from typing import Any

from pytest_armory.engine.arrays import made_by


def is_module(model: object) -> bool:
    """Whether a model is a `torch.nn.Module`; torch is imported already if it is."""
    return made_by(model, "torch") and isinstance(model, import_module("torch").nn.Module)


def module_of(model: Any) -> Any:
    """The module that a model is, a method of it such as `generate` belongs to, or a partial calls.

    None of every other model.
    """
    while isinstance(model, (partial, MethodType)):
        model = model.func if isinstance(model, partial) else model.__self__
    return model if is_module(model) else None


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model's module into evaluation mode; at the end each part has the mode that it had."""
    called = module_of(model)
    if called is None:
        yield
        return
    modes = [(module, module.training) for module in called.modules()]
    _to_evaluation_mode(called)
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


def _to_evaluation_mode(module: Any) -> None:
    try:
        module.eval()
    except NotImplementedError:  # of torch.export's modules, whose mode is that of the export
        return


def without_gradients(module: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A module's call in evaluation mode, whatever a perturbation has left, without gradients."""
    torch = import_module("torch")

    def predict(*args: Any, **kwargs: Any) -> Any:
        if any(part.training for part in module.modules()):
            _to_evaluation_mode(module)
        with torch.no_grad():
            output = call(*args, **kwargs)
        return _awaited_without_gradients(output) if iscoroutine(output) else output

    return predict


@coroutine
def _awaited_without_gradients(work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """A coroutine without gradients in each of its steps: between them other code may want them."""
    torch = import_module("torch")
    step, given = work.send, None
    while True:
        try:
            with torch.no_grad():
                awaited = step(given)
        except StopIteration as end:
            return end.value
        try:
            step, given = work.send, (yield awaited)
        except BaseException as error:  # noqa: BLE001 - passed on to the coroutine
            step, given = work.throw, error


def device_of(model: Any) -> Any:
    """The device of the first parameter or buffer of a model's module; None of what has none."""
    module = module_of(model)
    if module is None:
        return None
    first = next(chain(module.parameters(), module.buffers()), None)
    return None if first is None else first.device


def first_device(values: Any) -> Any:
    """The device of the first tensor among values, at any depth; None without one."""
    if hasattr(values, "detach"):
        return values.device
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return next((d for d in map(first_device, values[:8]) if d is not None), None)
    return None


def moved(values: Any, device: Any) -> Any:
    """The tensors among values, at any depth, on a device; None leaves them where they are."""
    if device is None:
        return values
    if hasattr(values, "detach"):
        return values.to(device)
    if isinstance(values, Mapping):
        return {key: moved(value, device) for key, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(moved(value, device) for value in values)
    return values
