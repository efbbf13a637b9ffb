"""The run that an evaluation fills: parameters, metrics, tags and artifacts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_armory.errors import ArmoryUsageError, ParameterWarning
from pytest_armory.track.connection import RunConnection
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
        location = self.connection.location
        return location.run_id if location else None

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, or None when nothing is tracked."""
        location = self.connection.location
        return location.experiment_id if location else None

    @property
    def url(self) -> str | None:
        """The run's page on the tracking server, or None without a server."""
        location = self.connection.location
        return location.url if location else None

    @property
    def destination(self) -> Destination | None:
        """Where the run is stored, or None when nothing is tracked."""
        location = self.connection.location
        return location.store.destination if location else None

    @property
    def params(self) -> dict[str, str]:
        """The last value of each parameter that was recorded."""
        return self.writer.params.values

    @property
    def metrics(self) -> dict[str, float]:
        """The value of each metric that was logged, the last at its highest step."""
        return self.writer.metrics.values

    @property
    def problems(self) -> list[str]:
        """What could not be stored inside a pytest session, a sentence for each."""
        return self.connection.problems

    def log_params(self, params: Mapping[str, object]) -> None:
        """Store parameters: any values, nested mappings joined by dots.

        MLflow never changes a parameter that is stored: another value for it is kept in
        ``params.json``, with a :class:`~pytest_armory.errors.ParameterWarning`.
        """
        strings = param_strings(params)
        changed = self.writer.params.conflicts(strings)
        self.writer.write(params=strings)
        if changed:
            warnings.warn(
                f"MLflow keeps the first value of {', '.join(changed)}: it was stored already, and "
                "the new one is only in the artifact params.json; log it under another name",
                ParameterWarning,
                stacklevel=2,
            )

    def log_metrics(self, metrics: object, step: int | None = None) -> None:
        """Store metrics: numbers, nested mappings joined by slashes; arrays become artifacts.

        ``step`` is the step of every number in it, 0 unless given. Anything else is left out,
        with a :class:`~pytest_armory.errors.MetricWarning`.
        """
        values = metric_values(metrics, convert=convert_result)
        warn_of_refused(values.refused)
        self.writer.log_results(values.numbers, values.arrays, step or 0, names=values.names)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags on the run; values are stored as strings."""
        self.writer.write(tags=tag_strings(tags))

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or all files under a folder, in the run's folder ``artifact_path``."""
        path = Path(path)
        if not path.exists():
            raise ArmoryUsageError(f"log_artifact: there is no file or folder {str(path)!r}")
        folder = f"{artifact_path.strip('/')}/" if artifact_path else ""
        if path.is_file():
            self.writer.store_files({f"{folder}{path.name}": path})
            return
        files = {
            f"{folder}{file.relative_to(path.parent).as_posix()}": file
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
        self.writer.store_files(files)

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
        """Store a dictionary or list as a JSON file."""
        from pytest_armory.store import json_text

        self.writer.store_files({artifact_file: json_text(dictionary)})

    def log_figure(self, figure: Any, artifact_file: str, **save_options: Any) -> None:
        """Store a Matplotlib figure (or a Plotly one, as ``.html``) under the name's own format."""
        suffix = artifact_file.rpartition(".")[2].lower()
        if hasattr(figure, "savefig"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, **save_options)
            self.writer.store_files({artifact_file: buffer.getvalue()})
        elif hasattr(figure, "to_html") and suffix == "html":
            self.writer.store_files({artifact_file: figure.to_html(**save_options)})
        else:
            raise ArmoryUsageError(
                f"log_figure: got {type(figure).__name__} for {artifact_file!r}; give a Matplotlib "
                "figure with a name such as 'curve.png', or a Plotly figure with 'curve.html'"
            )


def tag_strings(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags for MLflow: legal keys, string values, secrets redacted."""
    return param_strings({str(key): value for key, value in tags.items()})
