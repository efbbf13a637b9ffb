"""The run that an evaluation fills: parameters, metrics, tags and artifacts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ParameterWarning
from pytest_armory.track import contents
from pytest_armory.track.connection import RunConnection
from pytest_armory.track.library_log import log_library_results
from pytest_armory.track.results import convert_result, warn_of_refused
from pytest_armory.track.writer import RunWriter
from pytest_armory.values import metric_values, param_strings

if TYPE_CHECKING:
    from pytest_armory.store.destination import Destination


class EvaluationRun:
    """One evaluation's MLflow run, or the same in memory when nothing is tracked.

    ``run_id``, ``experiment_id`` and ``url`` are None when not tracking; ``url`` is None too for a
    database without a server. ``params`` and ``metrics`` hold what was recorded so far.
    What is logged is stored at once. A store that fails raises :class:`TrackingError`, but inside
    a pytest session: there it becomes a sentence in ``problems``, shown in the session's summary.
    """

    def __init__(self, connection: RunConnection | None = None) -> None:
        self.connection = connection or RunConnection()
        self.writer = RunWriter(self.connection)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None when nothing is tracked."""
        location = self.connection.shown_location()
        return location.run_id if location else None

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, or None when nothing is tracked."""
        location = self.connection.location
        return location.experiment_id if location else None

    @property
    def url(self) -> str | None:
        """The run's page on the tracking server, or None without a server."""
        location = self.connection.shown_location()
        return location.url if location else None

    @property
    def destination(self) -> Destination | None:
        """Where the run is stored, or None when nothing is tracked."""
        location = self.connection.location
        return location.store.destination if location else None

    @property
    def params(self) -> dict[str, str]:
        """The last value of each parameter that was recorded."""
        return self.writer.known_params()

    @property
    def metrics(self) -> dict[str, float]:
        """The value of each metric that was logged, the last at its highest step."""
        return self.writer.metrics.values

    @property
    def problems(self) -> list[str]:
        """What could not be stored inside a pytest session, a sentence for each."""
        return self.connection.problems

    @property
    def info(self) -> Any:
        """MLflow's ``RunInfo``, read when asked; of a run in memory one without an id."""
        self.connection.shown_location()
        return self.writer.entity().info

    @property
    def data(self) -> Any:
        """MLflow's ``RunData``, read when asked; of a run in memory what was logged so far.

        The parameters that are stored when the run ends are in it, and what is known of a run that
        goes on in the local database.
        """
        return _with_known(self.writer.entity(), self)

    def log_param(self, key: str, value: object) -> None:
        """Store one parameter; see :meth:`log_params`."""
        _log_params(self.writer, {key: value})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Store parameters: any values, nested mappings joined by dots.

        MLflow never changes a parameter that is stored: another value for it is kept in
        ``params.json``, with a :class:`~pytest_armory.errors.ParameterWarning`.
        """
        _log_params(self.writer, params)

    def log_metric(self, key: str, value: object, step: int | None = None) -> None:
        """Store one metric; see :meth:`log_metrics`."""
        _log_metrics(self.writer, {key: value}, step)

    def log_metrics(self, metrics: object, step: int | None = None) -> None:
        """Store metrics: numbers, nested mappings joined by slashes; arrays become artifacts.

        ``step`` is the step of every number in it, 0 unless given. The results of libraries that
        ``track_metrics`` takes are taken here too. Anything else is left out,
        with a :class:`~pytest_armory.errors.MetricWarning`.
        """
        _log_metrics(self.writer, metrics, step)

    def set_tag(self, key: str, value: object) -> None:
        """Set one tag on the run; see :meth:`set_tags`."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags on the run; values are stored as strings."""
        self.writer.write(tags=tag_strings(tags))

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or all files under a folder, in the run's folder ``artifact_path``."""
        self.writer.store_files(contents.files_at(Path(path), artifact_path))

    def log_text(self, text: str, artifact_file: str) -> None:
        """Store a text file."""
        self.writer.store_files({artifact_file: str(text)})

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
        """Store a dictionary or list as a JSON file."""
        self.writer.store_files({artifact_file: contents.json_text(dictionary)})

    def log_figure(self, figure: Any, artifact_file: str, **save_options: Any) -> None:
        """Store a Matplotlib figure (or a Plotly one, as ``.html``) under the name's own format."""
        content = contents.figure_content(figure, artifact_file, save_options)
        self.writer.store_files({artifact_file: content})

    def log_image(self, image: Any, artifact_file: str) -> None:
        """Store a picture of Pillow's, an ``mlflow.Image`` or an array, in the name's own format.

        An array has height, width and optionally 1, 3 or 4 channels, with integers from 0 to 255
        or floats from 0 to 1.
        """
        self.writer.store_files({artifact_file: contents.image_content(image, artifact_file)})

    def log_table(self, data: Any, artifact_file: str) -> None:
        """Store a table that MLflow's page shows; further rows under one name are added to it.

        ``data`` is a frame, lists by column or a list of rows, ``artifact_file`` ends in ``.json``.
        """
        self.writer.store_table(data, artifact_file)


def _with_known(entity: Any, run: EvaluationRun) -> Any:
    for name, text in run.params.items():
        entity.data.params.setdefault(name, text)
    if len(run.connection.parts) > 1:  # the first one is at a server that gives no answer
        from pytest_armory.store.runs import last_values

        steps = {metric.key: metric.step for metric in last_values(entity)}
        entity.data.metrics.update(run.writer.metrics.after(steps))
    return entity.data


def _log_params(writer: RunWriter, params: Mapping[str, object]) -> None:
    strings = param_strings(params)
    changed = writer.params.conflicts(strings)
    writer.write(params=strings)
    if changed:
        _warn_of_changed(changed)


def _log_metrics(writer: RunWriter, metrics: object, step: int | None) -> None:
    metrics = log_library_results(writer, metrics, step, stacklevel=3)
    values = metric_values(metrics, convert=convert_result)
    warn_of_refused(values.refused, values.repeated, stacklevel=3)
    writer.log_results(
        values.numbers,
        values.arrays,
        step or 0,
        names=values.names,
        repeated=values.repeated,
    )


def _warn_of_changed(names: Sequence[str]) -> None:
    warnings.warn(
        f"MLflow keeps the first value of {', '.join(names)}: it was stored already, and the new "
        "one is only in the artifact params.json; log it under another name",
        ParameterWarning,
        stacklevel=4,
    )


def tag_strings(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags for MLflow: legal keys, string values, secrets redacted."""
    return param_strings({str(key): value for key, value in tags.items()})
