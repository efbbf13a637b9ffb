"""Models and perturbations of every accepted type as functions."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, iscoroutinefunction, signature
from typing import Any

from pytest_armory.engine.arrays import as_numpy, is_mapping, like, made_by
from pytest_armory.engine.modules import module_of, without_gradients


def called_of(model: Any) -> Callable[..., Any]:
    """`model.predict`, or else the model itself."""
    predict = getattr(model, "predict", None)
    call: Callable[..., Any] = predict if callable(predict) else model
    return call


def is_async(model: Any) -> bool:
    """Whether calling a model gives a coroutine."""
    call = called_of(model)
    return iscoroutinefunction(call) or iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004 - asked of the method, not whether there is one


def predictor(model: Any) -> Callable[[Any], Any]:
    """A model as a function of inputs; ART's models are given NumPy arrays.

    Inputs that are a mapping are given as keyword arguments to a model that has parameters of
    these names.
    """
    call: Any = called_of(model)
    if made_by(model, "art"):
        return lambda inputs: call(as_numpy(inputs))
    known, module = _parameters_of(model), module_of(model)
    if module is not None:
        call = without_gradients(module, call)

    def predict(inputs: Any) -> Any:
        keywords = _keywords(known, inputs, leave_out=module is not None)
        return call(inputs) if keywords is None else call(**keywords)

    return predict


def is_given_whole(model: Any, inputs: Any) -> bool:
    """Whether a model is given inputs that are a mapping as they are, and no keyword arguments."""
    leave_out = module_of(model) is not None
    return is_mapping(inputs) and (
        _keywords(_parameters_of(model), inputs, leave_out=leave_out) is None
    )


def _parameters_of(model: Any) -> Signature | None:
    call: Any = called_of(model)
    return signature_of(call.forward if module_of(model) is call else call)


def signature_of(call: Callable[..., Any]) -> Signature | None:
    """The signature of a callable, or None where it has none that Python knows."""
    try:
        return signature(call)
    except (TypeError, ValueError):  # of C code
        return None


def _keywords(known: Signature | None, inputs: Any, *, leave_out: bool) -> dict[str, Any] | None:
    """Inputs as the keyword arguments that a model wants; None if it wants them as they are.

    ``leave_out``: keys that it does not know are left out, as Hugging Face's Trainer does.
    """
    if known is None or not is_mapping(inputs) or not all(map(_is_name, inputs)):
        return None
    kinds = [parameter.kind for parameter in known.parameters.values()]
    named = {
        name
        for name, parameter in known.parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    takes_any = Parameter.VAR_KEYWORD in kinds
    chosen = {key: value for key, value in inputs.items() if takes_any or key in named}
    if not leave_out and len(chosen) < len(inputs):
        return None
    if not named & chosen.keys() and not (takes_any and (leave_out or len(kinds) == 1)):
        return None
    try:
        known.bind(**chosen)
    except TypeError:
        return None
    return chosen


def _is_name(key: object) -> bool:
    return isinstance(key, str)


def perturber(perturbation: Any) -> Callable[[Any, Any], Any]:
    """The perturbation as `(inputs, targets) -> inputs`; ART's attacks are given NumPy arrays."""
    generate = getattr(perturbation, "generate", None)
    if not callable(generate):
        call: Callable[[Any, Any], Any] = perturbation
        return call
    if made_by(perturbation, "art"):
        return lambda inputs, targets: like(
            generate(x=as_numpy(inputs), y=as_numpy(targets)), inputs
        )
    return lambda inputs, targets: generate(x=inputs, y=targets)
