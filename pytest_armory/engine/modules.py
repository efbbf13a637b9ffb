"""Models that are torch modules: their mode, their device, and the keyword arguments they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import Any

from pytest_armory.engine.arrays import made_by


def is_module(model: object) -> bool:
    """Whether a model is a `torch.nn.Module`; torch is imported already if it is."""
    return made_by(model, "torch") and isinstance(model, import_module("torch").nn.Module)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode; at the end each of its parts has the mode that it had."""
    if not is_module(model):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


def without_gradients(model: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A module's call in evaluation mode, whatever a perturbation has left, without gradients."""
    torch = import_module("torch")

    def predict(*args: Any, **kwargs: Any) -> Any:
        if model.training:
            model.eval()
        with torch.no_grad():
            return call(*args, **kwargs)

    return predict


def device_of(model: Any) -> Any:
    """The device of a module's first parameter or buffer; None of what has none."""
    if not is_module(model):
        return None
    first = next(chain(model.parameters(), model.buffers()), None)
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
