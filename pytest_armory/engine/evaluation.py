"""What is evaluated: a frozen description, checked when instantiated, before data is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_armory.engine.arrays import RefusedError, describe, samples, whole_number
from pytest_armory.engine.calls import is_async
from pytest_armory.engine.dataset import check_dataset, is_arrays
from pytest_armory.engine.metrics import is_evaluate, is_incremental
from pytest_armory.errors import EvaluationError

_RESERVED = ("samples", "samples_per_second", "time")
_COLUMNS = ("sample", "group", "repeat", "error", "target", "prediction")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A dataset, the perturbations applied to it, a model, and metrics.

    - `name`: used in errors, warnings and the progress line.
    - `dataset`: an iterable of batches, or a tuple `(inputs, targets)` of two equally long arrays,
      tensors, frames or lists, or a `datasets.Dataset`, cut into batches of `batch_size` samples. A
      tuple of two is read as arrays unless both of its items are tuples; a list is always batches.
      A batch is `(inputs, targets)`, `(inputs, targets, meta)`, of which the rest is passed over,
      or a mapping whose `labels` are the targets. Targets may be None, or missing.
    - `prepare_batch`: a function of a batch that returns `(inputs, targets)`, for batches of
      another form; targets are None where there are none.
    - `model`: an object with `predict(inputs)`, or else a callable; it returns one prediction per
      sample. A torch module, or a method or partial of one, is called in evaluation mode, without
      gradients, with the batch on its device. Inputs that are a mapping become keyword arguments
      if the model has parameters of these names. An `async def` model is called with each sample,
      and returns its prediction.
    - `output_transform`: a function of the model's output that returns the predictions; unless
      given, the output's `logits`, or the output itself without any.
    - `concurrency`: how many calls of an `async def` model are under way at most.
    - `max_errors`: the share of samples whose model call may fail, from 0 up to 1: they are left
      out of all metrics and counted in `errors`. With None the first failure ends the run.
    - `perturbations`: by name, applied in order; each an object with `generate(x=, y=)` as in the
      Adversarial Robustness Toolbox, or a callable `(inputs, targets) -> inputs`. It returns the
      shape that it was given and leaves what it was given alone.
    - `metrics`: by name, each an object with `update(predictions, targets)`, `compute()` and
      `reset()` as in torchmetrics, or a function `f(targets, predictions)` as in scikit-learn, or
      a metric of Hugging Face's `evaluate`. With a parameter `inputs` it is given these too.
    - `sample_metrics`: by name, each a function `f(targets, predictions)` that returns one boolean
      or number for each sample; with a parameter `inputs` it is given these too, as the dataset
      has them. Their mean is the metric, and each sample's value is a row of `samples.parquet`.
    - `perturbation_metrics`: by name, each an object with `update(clean, perturbed)`, `compute()`
      and `reset()`, or a function `f(clean, perturbed)` that returns one value per sample.
    - `ids`: the id of each sample, integers or texts: a sequence in the dataset's order, or the
      name of a key of inputs that are mappings; the position unless given.
    - `dataset_name`: the name of the data, on the run's page; the evaluation's unless given.
    - `batch_size`: samples per batch, for arrays and `datasets` only; None puts all of them in one
      batch, or as many as `concurrency` with an `async def` model.
    - `description`: for readers of the code.

    Raises EvaluationError for anything else.
    """

    name: str
    dataset: Iterable[Any] = field(repr=False)
    model: Any = field(repr=False)
    perturbations: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    sample_metrics: Mapping[str, Any] = field(default_factory=dict)
    perturbation_metrics: Mapping[str, Any] = field(default_factory=dict)
    ids: Any = field(default=None, repr=False)
    dataset_name: str | None = field(default=None, repr=False)
    batch_size: int | None = None
    prepare_batch: Callable[[Any], Any] | None = field(default=None, repr=False)
    output_transform: Callable[[Any], Any] | None = field(default=None, repr=False)
    concurrency: int = 1
    max_errors: float | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise EvaluationError(
                f"Evaluation: name must be a string that is not empty, got {describe(self.name)}; "
                'write e.g. name="pgd"'
            )
        try:
            checked = _checked(self)
        except RefusedError as refusal:
            raise EvaluationError(f"evaluation {self.name!r}: {refusal}") from None
        for attribute, value in checked.items():
            object.__setattr__(self, attribute, value)


def _checked(evaluation: Evaluation) -> dict[str, Any]:
    """Refuse invalid arguments; returns copies of the others, so that what was checked is run."""
    size = _checked_size(evaluation.batch_size)
    check_dataset(evaluation.dataset, size)
    for role in ("prepare_batch", "output_transform"):
        function = getattr(evaluation, role)
        if function is not None and not callable(function):
            raise RefusedError(
                f"{role} must be a function of one argument, got {describe(function)}"
            )
    _check_one("model", evaluation.model, "predict(inputs)", "f(inputs)")
    _check_each("perturbations", evaluation.perturbations, "generate(x=, y=)", "f(inputs, targets)")
    incremental = "update(), compute() and reset()"
    _check_each("metrics", evaluation.metrics, incremental, "f(targets, predictions)")
    between = evaluation.perturbation_metrics
    _check_each("perturbation_metrics", between, incremental, "f(clean, perturbed)")
    _check_sample_metrics(evaluation.sample_metrics)
    _check_columns("sample_metrics", evaluation.sample_metrics)
    _check_columns("perturbation_metrics", between)
    _check_ids(evaluation.ids, evaluation.dataset)
    _check_reported(evaluation)
    for role in ("description", "dataset_name"):
        text = getattr(evaluation, role)
        if not isinstance(text, (str, type(None))):
            raise RefusedError(f"{role} must be a string, got {describe(text)}")
    return {
        "batch_size": size,
        "concurrency": _checked_concurrency(evaluation.concurrency, evaluation.model),
        "max_errors": _checked_share(evaluation.max_errors),
        "perturbations": dict(evaluation.perturbations),
        "metrics": dict(evaluation.metrics),
        "sample_metrics": dict(evaluation.sample_metrics),
        "perturbation_metrics": dict(between),
    }


def _checked_size(batch_size: Any) -> int | None:
    if batch_size is None:
        return None
    size = whole_number(batch_size)
    if size < 1:
        raise RefusedError(
            f"batch_size must be a whole number of samples, 1 or more, got {describe(batch_size)}; "
            "leave it out to put all samples in one batch"
        )
    return size


def _checked_concurrency(concurrency: Any, model: Any) -> int:
    calls = whole_number(concurrency)
    if calls < 1:
        raise RefusedError(
            f"concurrency must be a whole number of calls, 1 or more, got {describe(concurrency)}"
        )
    if calls > 1 and not is_async(model):
        raise RefusedError(
            f"concurrency={calls} needs a model that waits without blocking, got "
            f"{describe(model)}; write `async def model(sample): ...`, which is called with one "
            "sample at a time"
        )
    return calls


def _checked_share(share: Any) -> float | None:
    if share is None:
        return None
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise RefusedError(
            f"max_errors must be a share of the samples, from 0 up to 1, got {describe(share)}; "
            "0.02 allows 2 in 100"
        )
    return float(share)


def _check_each(role: str, mapping: Any, methods: str, function: str) -> None:
    hint = f'write {role}={{"some name": ...}}'
    if not isinstance(mapping, Mapping):
        raise RefusedError(f"{role} must be a mapping by name, got {describe(mapping)}; {hint}")
    for name, value in mapping.items():
        if not isinstance(name, str) or not name:
            raise RefusedError(
                f"names in {role} must be strings that are not empty, got {describe(name)}; {hint}"
            )
        _check_one(f"{role} {name!r}", value, methods, function)


def _check_sample_metrics(functions: Any) -> None:
    _check_each("sample_metrics", functions, "f(targets, predictions)", "f(targets, predictions)")
    for name, function in functions.items():
        if is_incremental(function) or not callable(function):
            raise RefusedError(
                f"sample_metrics {name!r} must be a function f(targets, predictions) with one "
                f"value for each sample, got {describe(function)}; put it in metrics"
            )


def _check_columns(role: str, functions: Mapping[str, Any]) -> None:
    """Refuse functions of which each sample's values would be in a column of another meaning."""
    for name, function in functions.items():
        if name in _COLUMNS and not is_incremental(function):
            raise RefusedError(
                f"{role} {name!r} has the name of a column of the samples; take another name"
            )


def _check_ids(ids: Any, dataset: Any) -> None:
    """Refuse what is neither the name of a key nor, for arrays, one id for each sample."""
    if ids is None or isinstance(ids, str):
        return
    if isinstance(ids, Mapping) or (hasattr(ids, "__len__") and not hasattr(ids, "__getitem__")):
        raise RefusedError(
            "ids must be a sequence in the dataset's order, or the name of a key of the inputs, "
            f"got {describe(ids)}; write ids=list(...)"
        )
    count = samples(ids, "ids")
    if is_arrays(dataset) and count != (wanted := samples(dataset[0], "inputs")):
        raise RefusedError(
            f"ids must be one for each of the {wanted:,} samples, got {count:,}: {describe(ids)}"
        )


def _check_one(role: str, value: Any, methods: str, function: str) -> None:
    """Refuse an object that is neither callable nor has the required methods."""
    if isinstance(value, type):
        raise RefusedError(
            f"{role} must be an object, got {describe(value)} itself; write {value.__name__}(...)"
        )
    method = methods.partition("(")[0]
    usable = is_incremental(value) if method == "update" else callable(getattr(value, method, None))
    usable = usable or (role.startswith("metrics ") and is_evaluate(value))
    if not usable and not callable(value):
        raise RefusedError(
            f"{role} must be an object with {methods} or a callable {function}, "
            f"got {describe(value)}; wrap what you have in a function {function}"
        )


def _check_reported(evaluation: Evaluation) -> None:
    """Refuse two metrics of the same reported name, and an object that would be updated twice."""
    reserved = (*_RESERVED, *(() if evaluation.max_errors is None else ("errors",)))
    owners = dict.fromkeys(reserved, "the engine itself")
    objects: dict[int, str] = {}
    for role in ("metrics", "sample_metrics", "perturbation_metrics"):
        for name, metric in getattr(evaluation, role).items():
            owner = f"{role} {name!r}"
            group = name.partition("/")[0]
            reported = [group if group in reserved else name]
            if is_incremental(metric):
                if id(metric) in objects:
                    raise RefusedError(
                        f"{objects[id(metric)]} and {owner} are one object, which would count each "
                        "batch twice; make an object for each"
                    )
                objects[id(metric)] = owner
            elif role != "metrics":
                ends = ("_max",) if role == "perturbation_metrics" else ()
                reported += [f"{name}{end}" for end in (*ends, "/ci_low", "/ci_high")]
            for key in reported:
                if key in owners:
                    raise RefusedError(
                        f"{owner} and {owners[key]} both report {key!r}; take another name"
                    )
                owners[key] = owner
